package broker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"swarming/shared/broker"
)

// TestRubbish: a peer that sends what it may not ends its connection with the
// cause named, and nothing else happens. Without the guard the first of these
// panics in a goroutine of paho.
func TestRubbish(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(id []byte) []byte // to the SUBSCRIBE
		want   error
	}{
		"two codes for one filter":     {func(id []byte) []byte { return []byte{0x90, 4, id[0], id[1], 0, 0} }, broker.ErrMalformed},
		"80 MB announced":              {func([]byte) []byte { return []byte{0x31, 0x80, 0xe8, 0x92, 0x26} }, broker.ErrPacketTooBig},
		"not MQTT any more":            {func([]byte) []byte { return []byte("\r\n\r\n") }, broker.ErrMalformed},
		"a topic beyond its packet":    {func([]byte) []byte { return []byte{0x30, 4, 0xff, 0xff, 'a', 'b'} }, broker.ErrMalformed},
		"a connection cut in a packet": {func([]byte) []byte { return []byte{0x30, 100, 0} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			addr := fake(t, accepting(func(conn net.Conn) {
				p, err := packets.ReadPacket(conn)
				if err != nil {
					return
				}
				id := binary.BigEndian.AppendUint16(nil, p.Details().MessageID)
				if _, err := conn.Write(tt.answer(id)); err != nil || tt.want == nil {
					return
				}
				drain(conn)
			}))
			c := dial(t, addr, broker.Options{})
			err := c.Subscribe(within(t), broker.Subscription{Filter: "#"})
			if _, ok := errors.AsType[*broker.LostError](err); !ok {
				t.Errorf("subscribe: %v", err)
			}
			if cause := awaitDone(t, c); cause == nil || tt.want != nil && !errors.Is(cause, tt.want) {
				t.Errorf("cause: %v, want %v", cause, tt.want)
			}
		})
	}
}

// TestRandomBytes: whatever comes after the CONNACK, the connection ends or
// lives, but the process does. The seeds are fixed.
func TestRandomBytes(t *testing.T) {
	for seed := range uint64(200) {
		addr := fake(t, accepting(func(conn net.Conn) {
			r := rand.New(rand.NewPCG(seed, 0))
			first := []byte{0x20, 0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0}
			for range 20 {
				n := r.IntN(12)
				b := append(make([]byte, 0, 16), first[r.IntN(len(first))], byte(n))
				for range n {
					b = append(b, byte(r.IntN(4)))
				}
				if _, err := conn.Write(b); err != nil {
					return
				}
			}
		}))
		c, err := broker.Dial(t.Context(), address(t, addr), broker.Options{})
		if err != nil {
			if !errors.Is(err, broker.ErrMalformed) { // the rubbish came with the CONNACK
				t.Fatalf("seed %d: %v", seed, err)
			}
			continue
		}
		_ = c.Subscribe(within(t), broker.Subscription{Filter: "#"})
		_ = awaitDone(t, c)
		c.Close()
	}
}

// TestAcksOutOfOrder: acknowledgements in reverse are all reported; one that
// never comes ends the connection, and what was acknowledged counts as such.
func TestAcksOutOfOrder(t *testing.T) {
	const n = 5
	ids := func(conn net.Conn) (all [][]byte) {
		for range n {
			p, err := packets.ReadPacket(conn)
			if err != nil {
				return all
			}
			all = append(all, binary.BigEndian.AppendUint16(nil, p.Details().MessageID))
		}
		return all
	}
	ack := func(conn net.Conn, id []byte) { _, _ = conn.Write(append([]byte{0x40, 2}, id...)) }
	publish := func(c *broker.Conn) []error {
		results := make(chan error, n)
		for range n {
			c.PublishAsync(broker.Message{Topic: "ping/x", QoS: 1}, func(err error) { results <- err })
		}
		var all []error
		for range n {
			select {
			case err := <-results:
				all = append(all, err)
			case <-time.After(deadline):
				t.Fatalf("only %d of %d were reported", len(all), n)
			}
		}
		return all
	}

	reversed := fake(t, accepting(func(conn net.Conn) {
		all := ids(conn)
		for i := range all {
			ack(conn, all[len(all)-1-i])
		}
		drain(conn)
	}))
	for i, err := range publish(dial(t, reversed, broker.Options{})) {
		if err != nil {
			t.Errorf("reversed, message %d: %v", i, err)
		}
	}

	missing := fake(t, accepting(func(conn net.Conn) {
		for i, id := range ids(conn) {
			if i != 0 {
				ack(conn, id)
			}
		}
		drain(conn)
	}))
	c := dial(t, missing, broker.Options{AnswerTimeout: 500 * time.Millisecond})
	for i, err := range publish(c) {
		_, lost := errors.AsType[*broker.LostError](err)
		if (i == 0) != lost || i > 0 && err != nil {
			t.Errorf("first acknowledgement missing, message %d: %v", i, err)
		}
	}
	if err := awaitDone(t, c); err.Error() != `the broker did not acknowledge the message to "ping/x" within 500ms` {
		t.Errorf("cause: %v", err)
	}
}

// TestStuck: a peer that reads nothing blocks no caller, fails what was sent, and
// holds up neither Done nor Close.
func TestStuck(t *testing.T) {
	addr := fake(t, accepting(silent(t)))
	c := dial(t, addr, broker.Options{WriteTimeout: 700 * time.Millisecond})
	results := make(chan error, 10_000)
	const n = 300 // of 200 kB: far more than the buffers of the sockets
	slowest := time.Duration(0)
	for range n {
		began := time.Now()
		c.PublishAsync(broker.Message{Topic: "ping/x", QoS: 1, Payload: make([]byte, 200_000)}, func(err error) { results <- err })
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("slowest PublishAsync: %v", slowest)
	var busy, lost int
	for range n {
		select {
		case err := <-results:
			if errors.Is(err, broker.ErrBusy) {
				busy++
			} else if _, ok := errors.AsType[*broker.LostError](err); ok {
				lost++
			} else {
				t.Fatalf("a message that cannot have arrived: %v", err)
			}
		case <-time.After(deadline):
			t.Fatalf("%d busy, %d lost, the others never reported", busy, lost)
		}
	}
	if busy == 0 || lost == 0 {
		t.Errorf("%d busy, %d lost", busy, lost)
	}
	// Not by TCP_USER_TIMEOUT, which only Linux has.
	if err := awaitDone(t, c); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("cause: %v", err)
	}
	t.Logf("%d busy, %d lost; cause: %v", busy, lost, c.Err())
	began := time.Now()
	c.Close()
	t.Logf("Close took %v", time.Since(began))
	if len(results) != 0 {
		t.Errorf("%d reported twice", len(results))
	}
}

// TestSilent: a peer that has stopped is noticed by the ping it does not answer.
func TestSilent(t *testing.T) {
	addr := fake(t, accepting(silent(t)))
	c := dial(t, addr, broker.Options{KeepAlive: time.Second})
	err := awaitDone(t, c)
	if want := "the broker fell silent: a ping was not answered"; err.Error() != want {
		t.Errorf("cause: %v, want %q", err, want)
	}
}

// TestSlowPeer: a writer that is held up for longer than one attempt to hand it
// a packet still sends every message once.
func TestSlowPeer(t *testing.T) {
	const n = 60
	read := make(chan []byte, n)
	addr := fake(t, accepting(func(conn net.Conn) {
		time.Sleep(1200 * time.Millisecond) // the slowness under test
		for {
			p, err := packets.ReadPacket(conn)
			if err != nil {
				return
			}
			m, ok := p.(*packets.PublishPacket)
			if !ok {
				return
			}
			read <- m.Payload[:1]
			_, _ = conn.Write(append([]byte{0x40, 2}, byte(m.MessageID>>8), byte(m.MessageID)))
		}
	}))
	c := dial(t, addr, broker.Options{})
	results := make(chan error, n)
	for i := range n {
		payload := make([]byte, 200_000)
		payload[0] = byte(i)
		c.PublishAsync(broker.Message{Topic: "ping/x", QoS: 1, Payload: payload}, func(err error) { results <- err })
	}
	for i := range n {
		select {
		case err := <-results:
			if err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
		case <-time.After(deadline):
			t.Fatalf("only %d of %d were acknowledged", i, n)
		}
	}
	c.Close()
	if len(read) != n {
		t.Errorf("the peer read %d messages, want %d", len(read), n)
	}
	for i := range n {
		if got := <-read; int(got[0]) != i {
			t.Fatalf("message %d came as %d", got[0], i)
		}
	}
}

func TestPublishCancel(t *testing.T) {
	c := dial(t, fake(t, accepting(drain)), broker.Options{}) // never acknowledges
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Publish(ctx, broker.Message{Topic: "x", QoS: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("publish: %v", err)
	}
	if err := c.Subscribe(ctx, broker.Subscription{Filter: "x"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("subscribe: %v", err)
	}
}

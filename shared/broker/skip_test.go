package broker_test

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"swarming/shared/broker"
	"swarming/shared/brokertest"
)

// A skip is a call of OnSkip.
type skip struct {
	topic string
	size  int
}

// big is the header of a PUBLISH of this remaining length, up to its payload.
func big(topic string, id uint16, length int) (header []byte, payload int) {
	header = binary.AppendUvarint([]byte{0x32}, uint64(length)) // as MQTT encodes lengths
	header = binary.BigEndian.AppendUint16(header, uint16(len(topic)))
	header = append(header, topic...)
	header = binary.BigEndian.AppendUint16(header, id)
	return header, length - 4 - len(topic)
}

// TestSkipSlowly: a packet that is thrown away, and takes far longer than the
// keepalive and the time for answers allow for silence, ends nothing; it is
// acknowledged, told of in order, and the answers behind it arrive.
func TestSkipSlowly(t *testing.T) {
	const id, lasts = 0x1234, 6 * time.Second
	acked := make(chan uint16, 1)
	addr := fake(t, accepting(func(conn net.Conn) {
		first, err := packets.ReadPacket(conn) // the PUBLISH that waits for its answer
		if err != nil {
			return
		}
		go func() {
			for {
				p, err := packets.ReadPacket(conn)
				if err != nil {
					return
				}
				if a, ok := p.(*packets.PubackPacket); ok {
					acked <- a.MessageID
				}
			}
		}()
		header, n := big("ping/x", id, 8<<20)
		if _, err := conn.Write(header); err != nil {
			return
		}
		for began, sent := time.Now(), 0; sent < n; {
			time.Sleep(20 * time.Millisecond) // the slowness under test
			due := min(n, int(float64(n)*float64(time.Since(began))/float64(lasts)))
			if _, err := conn.Write(make([]byte, due-sent)); err != nil {
				return
			}
			sent = due
		}
		puback := binary.BigEndian.AppendUint16([]byte{0x40, 2}, first.Details().MessageID)
		_, _ = conn.Write(append(puback, 0x30, 4, 0, 1, 'a', 'z'))
		<-t.Context().Done()
	}))
	told := make(chan any, 10)
	c := dial(t, addr, broker.Options{
		KeepAlive: 2 * time.Second, AnswerTimeout: 2 * time.Second,
		OnSkip:    func(topic string, size int) { told <- skip{topic, size} },
		OnMessage: func(m broker.Message) { told <- m.Topic },
	})
	if err := c.Publish(within(t), broker.Message{Topic: "watch", QoS: 1}); err != nil {
		t.Fatalf("publish: %v", err)
	}
	for _, want := range []any{skip{"ping/x", 8<<20 + 5}, "a"} {
		select {
		case got := <-told:
			if got != want {
				t.Errorf("told %v, want %v", got, want)
			}
		case <-time.After(deadline):
			t.Fatalf("not told %v", want)
		}
	}
	select {
	case got := <-acked:
		if got != id {
			t.Errorf("acknowledged %#x, want %#x", got, id)
		}
	case <-time.After(deadline):
		t.Error("the packet was not acknowledged")
	}
}

// TestSkipStops: a peer that falls silent within a packet that is thrown away is
// noticed as at any other time.
func TestSkipStops(t *testing.T) {
	addr := fake(t, accepting(func(conn net.Conn) {
		header, _ := big("ping/x", 1, 80<<20)
		_, _ = conn.Write(append(header, make([]byte, 100_000)...))
		<-t.Context().Done()
	}))
	c := dial(t, addr, broker.Options{KeepAlive: time.Second, OnSkip: func(string, int) { t.Error("told of a packet that did not come") }})
	if err, want := awaitDone(t, c), "the broker fell silent: a ping was not answered"; err.Error() != want {
		t.Errorf("cause: %v, want %q", err, want)
	}
}

// TestSkipAndClose: Close does not wait for the rest of a packet.
func TestSkipAndClose(t *testing.T) {
	begun := make(chan struct{})
	addr := fake(t, accepting(func(conn net.Conn) {
		header, _ := big("ping/x", 1, 200<<20)
		_, _ = conn.Write(header)
		close(begun)
		for {
			if _, err := conn.Write(make([]byte, 1000)); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}))
	c := dial(t, addr, broker.Options{OnSkip: func(string, int) {}})
	<-begun
	began := time.Now()
	c.Close()
	t.Logf("Close took %v", time.Since(began))
	if err := c.Err(); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("cause: %v", err)
	}
}

// TestSkipWindow: a real broker's window of unacknowledged messages is not
// clogged by many that are thrown away. mosquitto's holds 20.
func TestSkipWindow(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0].Addr()
	skips, messages := make(chan skip, 100), make(chan string, 100)
	c := dial(t, m, broker.Options{MaxPacket: 1000,
		OnSkip:    func(topic string, size int) { skips <- skip{topic, size} },
		OnMessage: func(m broker.Message) { messages <- m.Topic },
	})
	if err := c.Subscribe(within(t), broker.Subscription{Filter: "#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	other := dial(t, m, broker.Options{})
	const n = 50
	for range n {
		if err := other.Publish(within(t), broker.Message{Topic: "rip/x", Payload: make([]byte, 5000), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.Publish(within(t), broker.Message{Topic: "end", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	select {
	case topic := <-messages:
		if topic != "end" {
			t.Errorf("message to %q", topic)
		}
	case <-time.After(deadline):
		t.Fatalf("the small message did not arrive; %d were thrown away", len(skips))
	}
	if len(skips) != n {
		t.Errorf("told of %d, want %d", len(skips), n)
	}
}

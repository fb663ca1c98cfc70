package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"swarming/shared/broker"
	"swarming/shared/brokertest"
)

const deadline = brokertest.Deadline

func dial(t testing.TB, addr string, o broker.Options) *broker.Conn {
	t.Helper()
	c, err := broker.Dial(t.Context(), address(t, addr), o)
	if err != nil {
		t.Fatalf("%v; hint: %s", err, hintOf(err))
	}
	t.Cleanup(c.Close)
	return c
}

func address(t testing.TB, s string) broker.Address {
	t.Helper()
	a, err := broker.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func hintOf(err error) string {
	if e, ok := errors.AsType[*broker.DialError](err); ok {
		return e.Hint
	}
	return ""
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func awaitDone(t testing.TB, c *broker.Conn) error {
	t.Helper()
	select {
	case <-c.Done():
		return c.Err()
	case <-time.After(deadline):
		t.Fatalf("the connection still lives after %v", deadline)
		return nil
	}
}

func TestPublishArrives(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	seen := brokertest.Collect(t, m.Addr(), "ping/+")
	c := dial(t, m.Addr(), broker.Options{ClientID: "a"})
	for qos := range byte(2) {
		msg := broker.Message{Topic: fmt.Sprintf("ping/%d", qos), Payload: []byte("hello"), QoS: qos}
		if err := c.Publish(within(t), msg); err != nil {
			t.Fatal(err)
		}
		got := seen.Wait("the message", func(m brokertest.Message) bool { return m.Topic == msg.Topic })
		if string(got.Payload) != "hello" || got.QoS != qos || got.Retained {
			t.Errorf("QoS %d: got %+v", qos, got)
		}
	}
}

func TestSubscribeReceivesInOrder(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	brokertest.Publish(t, m.Addr(), "watch", []byte("stored"), true)
	var (
		mu   sync.Mutex
		got  []broker.Message
		full = make(chan struct{})
	)
	const n = 500
	c := dial(t, m.Addr(), broker.Options{OnMessage: func(m broker.Message) {
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, m); len(got) == n+1 {
			close(full)
		}
	}})
	if err := c.Subscribe(within(t), broker.Subscription{Filter: "watch", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if err := c.Subscribe(within(t), broker.Subscription{Filter: "ping/#"}, broker.Subscription{Filter: "live/#"}); err != nil {
		t.Fatal(err)
	}
	pub := dial(t, m.Addr(), broker.Options{})
	for i := range n {
		if err := pub.Publish(within(t), broker.Message{Topic: "ping/x", Payload: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-full:
	case <-time.After(deadline):
		t.Fatalf("got %d messages", len(got))
	}
	if m := got[0]; m.Topic != "watch" || string(m.Payload) != "stored" || !m.Retained || m.QoS != 1 {
		t.Errorf("first: %+v", m)
	}
	for i, m := range got[1:] {
		if string(m.Payload) != fmt.Sprint(i) {
			t.Fatalf("message %d holds %q", i, m.Payload)
		}
	}
}

func TestDoneWhenBrokerDies(t *testing.T) {
	for name, end := range map[string]func(*brokertest.Mosquitto){
		"killed":  func(m *brokertest.Mosquitto) { m.Kill() },
		"stopped": func(m *brokertest.Mosquitto) { _ = m.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			m := brokertest.Mosquittos(t, 1)[0]
			c := dial(t, m.Addr(), broker.Options{})
			if c.Err() != nil {
				t.Fatalf("alive with error %v", c.Err())
			}
			end(m)
			if err := awaitDone(t, c); err == nil || errors.Is(err, broker.ErrClosed) {
				t.Errorf("cause: %v", err)
			}
			err := c.Publish(within(t), broker.Message{Topic: "x", QoS: 1})
			if _, ok := errors.AsType[*broker.LostError](err); !ok {
				t.Errorf("publish on a dead connection: %v", err)
			}
		})
	}
}

func TestWill(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	seen := brokertest.Collect(t, m.Addr(), "rip/#")
	will := func(name string) broker.Options {
		return broker.Options{Will: &broker.Message{Topic: "rip/" + name, Payload: []byte("lost"), QoS: 1}}
	}
	dial(t, m.Addr(), will("closed")).Close()
	dial(t, m.Addr(), will("aborted")).Abort()
	seen.Wait("the will of the aborted", func(m brokertest.Message) bool { return m.Topic == "rip/aborted" })
	if all := seen.All(); len(all) != 1 {
		t.Errorf("a closed connection published its will: %v", all)
	}
}

package brokertest

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// Deadline is how long the functions of this package wait for what should
// happen within milliseconds.
const Deadline = 20 * time.Second

// Mosquittos starts n brokers, all with the given options (at most one), and
// closes them when the test ends. Without mosquitto the test is skipped; in CI
// (environment variable CI set) it fails.
func Mosquittos(t testing.TB, n int, opts ...Options) []*Mosquitto {
	t.Helper()
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	ctx, cancel := context.WithTimeout(t.Context(), Deadline)
	defer cancel()
	all := make([]*Mosquitto, n)
	for i := range all {
		m, err := StartMosquitto(ctx, o)
		if errors.Is(err, ErrNotInstalled) && os.Getenv("CI") == "" {
			t.Skip("needs mosquitto: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		all[i] = m
	}
	return all
}

// A Message is what a [Collector] received.
type Message struct {
	Topic    string
	Payload  []byte
	QoS      byte
	Retained bool
}

// A Collector is a plain client, independent of this project's own, that keeps
// every message of some topics. Its methods may be called concurrently.
type Collector struct {
	t testing.TB

	mu       sync.Mutex
	messages []Message
	changed  chan struct{} // closed and replaced at each message
}

// Collect connects to the broker at addr and subscribes to filters with QoS 1.
// It returns when the subscription stands, and disconnects when the test ends.
func Collect(t testing.TB, addr string, filters ...string) *Collector {
	t.Helper()
	c := &Collector{t: t, changed: make(chan struct{})}
	client := connect(t, addr, c.add)
	subs := map[string]byte{}
	for _, f := range filters {
		subs[f] = 1
	}
	token := client.SubscribeMultiple(subs, nil)
	finish(t, "subscribe", token)
	for f, code := range token.(*paho.SubscribeToken).Result() {
		if code > 1 {
			t.Fatalf("subscribe to %q at %s: refused with code %#x", f, addr, code)
		}
	}
	return c
}

// Publish sends one message with QoS 1 through a plain client and waits for its
// acknowledgement.
func Publish(t testing.TB, addr, topic string, payload []byte, retained bool) {
	t.Helper()
	client := connect(t, addr, nil)
	finish(t, "publish", client.Publish(topic, 1, retained, payload))
	client.Disconnect(250)
}

func connect(t testing.TB, addr string, add func(Message)) paho.Client {
	t.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetProtocolVersion(4).SetAutoReconnect(false)
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		if add != nil {
			add(Message{m.Topic(), m.Payload(), m.Qos(), m.Retained()})
		}
	})
	client := paho.NewClient(o)
	finish(t, "connect to "+addr, client.Connect())
	t.Cleanup(func() { client.Disconnect(250) })
	return client
}

func finish(t testing.TB, what string, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(Deadline) {
		t.Fatalf("%s: no answer within %v", what, Deadline)
	}
	if err := token.Error(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (c *Collector) add(m Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages = append(c.messages, m)
	close(c.changed)
	c.changed = make(chan struct{})
}

// All returns every message so far, in order.
func (c *Collector) All() []Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Message(nil), c.messages...)
}

// Wait returns the first message, of the past or the future, that matches, and
// fails the test when there is none within [Deadline]. what says what is awaited.
func (c *Collector) Wait(what string, match func(Message) bool) Message {
	c.t.Helper()
	var found Message
	c.WaitAll(what, func(all []Message) bool {
		for _, m := range all {
			if match(m) {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// WaitAll waits until the messages so far are as wanted, and returns them.
func (c *Collector) WaitAll(what string, match func([]Message) bool) []Message {
	c.t.Helper()
	deadline := time.After(Deadline)
	for {
		c.mu.Lock()
		all, changed := c.messages[:len(c.messages):len(c.messages)], c.changed
		c.mu.Unlock()
		if match(all) {
			return all
		}
		select {
		case <-changed:
		case <-deadline:
			c.t.Fatalf("waited %v for %s; got %d messages, last %s", Deadline, what, len(all), last(all))
		}
	}
}

func last(all []Message) string {
	if len(all) == 0 {
		return "none"
	}
	m := all[len(all)-1]
	return m.Topic + " " + string(m.Payload[:min(len(m.Payload), 200)])
}

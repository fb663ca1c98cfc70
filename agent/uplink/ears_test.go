package uplink

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/broker"
	"swarming/shared/wire"
)

// hears runs f with a connected uplink and a function that sends it a message.
func hears(t *testing.T, opts Options, f func(s *swarm, send func(m broker.Message))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 1, opts)
		s.run()
		s.lines()
		f(s, func(m broker.Message) {
			s.brokers[0].last().opts.OnMessage(m)
			synctest.Wait()
		})
		s.stop()
	})
}

func watch(payload string, retained bool) broker.Message {
	return broker.Message{Topic: "watch", Payload: []byte(payload), QoS: 1, Retained: retained}
}

func TestWatch(t *testing.T) {
	var mu sync.Mutex
	var lists []string
	got := func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(lists) }
	opts := Options{OnWatch: func(w wire.Watch) {
		var ids []string
		for _, t := range w.Targets {
			ids = append(ids, string(t.Target))
		}
		mu.Lock()
		defer mu.Unlock()
		lists = append(lists, fmt.Sprint(w.Rev, ids))
	}}
	hears(t, opts, func(s *swarm, send func(m broker.Message)) {
		pass(30 * time.Second) // between heartbeats, which would wake it too
		send(watch("a.example b.example", true))
		send(watch("", false)) // cleared: not a list
		send(watch(" \n", false))
		send(watch(`{"rev":7,"targets":[{"target":"c.example"}]}`, false))
		send(watch(`{"rev":7,"targets":[{"target":"c.example"}]}`, false))
		send(watch(`{"rev":5,"targets":[]}`, true)) // put off
		send(watch(`{"rev":`, false))
		send(watch(`{"v":2,"rev":9,"targets":[{"target":"d.example"}]}`, false))
		want(t, "lists", got(), []string{"0 [a.example b.example]", "7 [c.example]"})
		pass(time.Minute)
		want(t, "lists after a minute", got(), []string{"0 [a.example b.example]", "7 [c.example]", "5 []"})
		want(t, "refused", s.uplink.Stats().Refused, map[wire.Reason]int{wire.ReasonSyntax: 1, wire.ReasonVersion: 1})
		logged(t, s.lines(), "read watch list: ")
	})
}

// Rubbish is counted, logged once a minute and sender, and stops nothing.
func TestRefuses(t *testing.T) {
	hears(t, Options{}, func(s *swarm, send func(m broker.Message)) {
		s.add(1)
		good := ack(1)
		retained := good
		retained.Retained = true
		for _, m := range []broker.Message{
			{Topic: "ack/garage-pi", Payload: []byte("{")},
			{Topic: "ack/garage-pi", Payload: []byte(`{"v":1,"agent":"attic","by":"c1","boots":{"b1":[[1,1]]}}`)},
			{Topic: "ack/garage-pi", Payload: []byte(`{"v":1,"agent":"garage-pi","by":"c1","boots":{"b1":[[2,1]]}}`)},
			{Topic: "ack/garage-pi", Payload: make([]byte, wire.MaxAck+1)},
			{Topic: "live/collector/c1", Payload: []byte("\x1b[31m\n")},
			{Topic: "live/collector/c1", Payload: heartbeat("c1").Payload, Retained: true},
			{Topic: "elsewhere", Payload: []byte("x")},
			retained,
		} {
			send(m)
		}
		want(t, "refused", s.uplink.Stats().Refused, map[wire.Reason]int{wire.ReasonSyntax: 2, wire.ReasonName: 1, wire.ReasonRange: 1,
			wire.ReasonSize: 1, reasonRetained: 2, reasonTopic: 1})
		want(t, "pending", s.outbox.Stats().Pending, 1)
		want(t, "a collector was heard", !s.uplink.Stats().Heard.IsZero(), false)
		lines := s.lines()
		logged(t, lines, "topic=ack/garage-pi", "topic=live/collector/c1", "topic=elsewhere")
		if text := strings.Join(lines, ""); strings.Contains(text, "\x1b") {
			t.Errorf("a control character reached the log: %q", text)
		}
		pass(time.Minute + time.Second)
		send(broker.Message{Topic: "elsewhere", Payload: []byte("x")})
		logged(t, s.lines(), "topic=elsewhere")
		send(good)
		want(t, "pending after a good ack", s.outbox.Stats().Pending, 0)
		pass(time.Minute + time.Second) // past a heartbeat
		live := s.brokers[0].of(wire.KindLiveAgent)
		l, err := wire.DecodeLiveAgent(live[len(live)-1].Payload)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "refused in the heartbeat", l.Refused, 9)
	})
}

// However many collectors somebody makes up, an agent listens to 32.
func TestCollectorsAreBounded(t *testing.T) {
	names := map[wire.CollectorName]int{}
	hears(t, Options{OnCollector: func(l wire.LiveCollector) { names[l.Name]++ }}, func(s *swarm, send func(m broker.Message)) {
		for i := range 1000 {
			send(heartbeat(wire.CollectorName(fmt.Sprint("c", i))))
		}
		want(t, "collectors", len(names), MaxCollectors)
		want(t, "refused", s.uplink.Stats().Refused[reasonCollectors], 1000-MaxCollectors)
		want(t, "log lines", len(s.lines()), 1)
		send(heartbeat("c0"))
		want(t, "heartbeats of c0", names["c0"], 2)
		pass(collectorGone + time.Second)
		send(heartbeat("new"))
		want(t, "heartbeats of a new one, later", names["new"], 1)
		want(t, "collector heard last", s.uplink.Stats().Collector, "new")
	})
}

// The senders that complaints are remembered of are bounded too.
func TestComplaintsAreBounded(t *testing.T) {
	hears(t, Options{}, func(s *swarm, send func(m broker.Message)) {
		for i := range 1000 {
			send(broker.Message{Topic: fmt.Sprint("live/collector/c", i), Payload: []byte("?")})
		}
		want(t, "log lines", len(s.lines()), maxLogged)
		want(t, "refused", s.uplink.Stats().Refused[wire.ReasonSyntax], 1000)
		pass(time.Minute)
		send(broker.Message{Topic: "live/collector/new", Payload: []byte("?")})
		want(t, "log lines a minute later", len(s.lines()), 1)
	})
}

// An ack is a sign of a collector as good as a heartbeat, whatever it is about.
func TestAckIsASign(t *testing.T) {
	hears(t, Options{}, func(s *swarm, send func(m broker.Message)) {
		s.add(1)
		pass(30 * time.Second)
		want(t, "published before any sign", len(s.brokers[0].of(wire.KindPing)), 1)
		send(ack(99))
		pass(2 * time.Second)
		want(t, "published after one", len(s.brokers[0].of(wire.KindPing)), 2)
	})
}

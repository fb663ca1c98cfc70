package uplink

import (
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/broker"
	"swarming/shared/wire"
)

func TestConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 1, Options{Live: func() wire.LiveAgent { return wire.LiveAgent{Version: "v9", Targets: 3} }})
		b := s.brokers[0]
		s.add(2)
		s.run()
		l := b.seen()
		want(t, "client id", l.opts.ClientID, "garage-pi-b1")
		want(t, "subscriptions", l.subs, []broker.Subscription{{Filter: "watch", QoS: 1}, {Filter: "live/collector/+"}, {Filter: "ack/garage-pi"}})
		will, err := wire.DecodeRip(l.opts.Will.Payload)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "will", will, wire.Rip{V: 1, Agent: agent, Boot: boot, Conn: 1, Reason: wire.RipLost})
		want(t, "will on", []any{l.opts.Will.Topic, l.opts.Will.QoS, l.opts.Will.Retained}, []any{"rip/agent/garage-pi", 1, false})

		pass(time.Second)
		l = b.seen()
		want(t, "published first", []any{l.published[0].Topic, l.published[0].QoS, l.published[0].Retained}, []any{"live/agent/garage-pi", 0, false})
		want(t, "then", []any{l.published[1].Topic, l.published[1].QoS, l.published[1].Retained}, []any{"ping/example.com", 1, false})
		pass(2*time.Minute + time.Second)
		beats := b.of(wire.KindLiveAgent)
		want(t, "heartbeats in two minutes", len(beats), 3)
		live, err := wire.DecodeLiveAgent(beats[2].Payload)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "heartbeat", []any{live.Agent, live.Boot, live.Conn, live.N, live.Version, live.Targets, live.Sent, live.Pending},
			[]any{agent, boot, 1, 3, "v9", 3, 2, 2})
		st := s.uplink.Stats()
		want(t, "stats", []any{st.Broker, st.Conn}, []any{b.address.String(), 1})
		s.stop()
		want(t, "stats", s.uplink.Stats().Broker, "")
	})
}

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 1, Options{})
		b := s.brokers[0]
		b.collector, b.acks = true, true
		s.add(200)
		s.run()
		for range 100 {
			pass(time.Second)
			s.add(2)
		}
		pass(5 * time.Second)
		o := s.outbox.Stats()
		want(t, "acked, pending, resent", []any{o.Acked, o.Pending, o.Resent}, []any{400, 0, 0})
		want(t, "published", len(b.of(wire.KindPing)), 400)
		s.stop()
		logged(t, s.lines(), "connected to broker")
	})
}

// No more than the window is in flight.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 1, Options{})
		s.brokers[0].frozen = true
		s.run()
		s.add(100)
		pass(30 * time.Second)
		want(t, "published without PUBACK", len(s.brokers[0].of(wire.KindPing)), Window)
		l := s.brokers[0].last()
		l.b.mu.Lock()
		flying := l.flying
		l.flying = nil
		l.b.mu.Unlock()
		for _, done := range flying[:5] {
			done(nil)
		}
		synctest.Wait()
		want(t, "published after 5 PUBACKs", len(s.brokers[0].of(wire.KindPing)), Window+5)
		s.stop()
	})
}

// A broker is killed: the next result goes out through another within 6 s,
// whatever the dice say.
func TestBrokerKilled(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			s := newSwarm(t, 3, seed, Options{})
			for _, b := range s.brokers {
				b.collector, b.acks = true, true
			}
			s.run()
			s.add(1)
			pass(10 * time.Minute)
			s.brokers[0].kill()
			killed := time.Now()
			s.add(1)
			pass(6 * time.Second)
			l := s.brokers[1].seen()
			if len(l.published) < 2 {
				t.Fatal("nothing was published through another broker in 6 s")
			}
			between(t, "until a result is out", l.times[1].Sub(killed), 0, 5*time.Second)
			want(t, "conn", s.uplink.Stats().Conn, 2)
			pass(10 * time.Second)
			want(t, "pending", s.outbox.Stats().Pending, 0)
			s.stop()
			logged(t, s.lines(), "connected to broker", "connection to broker lost", "connected to broker")
		})
	}
}

// What was in flight goes out again, as it was.
func TestResendsWhatWasInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 2, 1, Options{})
		s.brokers[0].frozen = true
		s.run()
		s.add(3)
		pass(time.Second)
		s.brokers[0].kill()
		pass(6 * time.Second)
		first, second := s.brokers[0].of(wire.KindPing), s.brokers[1].of(wire.KindPing)
		want(t, "published first and then", []any{len(first), len(second)}, []any{3, 3})
		for i := range second {
			want(t, "payload", string(second[i].Payload), string(first[i].Payload))
		}
		s.stop()
	})
}

// All brokers are down: pauses are random, grow with each circle and are capped.
func TestAllDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 3, 7, Options{})
		for _, b := range s.brokers {
			b.kill()
		}
		s.run()
		s.add(10) // never blocks
		pass(2 * time.Hour)
		// Dial k is of broker k mod 3, in circle k/3.
		var all []time.Time
		for k := 0; k/3 < len(s.brokers[k%3].dialled()); k++ {
			at := s.brokers[k%3].dialled()[k/3]
			if k > 0 {
				between(t, "pause", at.Sub(all[k-1]), 0, min(5*time.Second<<min(k/3, 6), time.Minute))
			}
			all = append(all, at)
		}
		if n := len(all); n < 180 || n > 360 {
			t.Errorf("%d attempts in two hours: want about one in 30 s", n)
		}
		lines := s.lines()
		logged(t, lines, "cannot use broker", "cannot use broker", "hint=\"start it\"")
		for _, b := range s.brokers {
			b.set(func(b *fakeBroker) { b.down = nil; b.collector = true })
		}
		between(t, "until connected", s.until(2*time.Minute, func() bool { return s.current() >= 0 }), 0, time.Minute)
		synctest.Wait()
		pass(time.Second)
		lines = s.lines()
		logged(t, lines, "broker works again")
		logged(t, lines, "was=refused count=")
		want(t, "published", len(s.brokers[s.current()].of(wire.KindPing)), 10)
		s.stop()
	})
}

func TestSubscriptionRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 2, 1, Options{})
		s.brokers[0].refuse = &broker.SubscribeError{Filter: "ack/garage-pi"}
		s.run()
		pass(10 * time.Second)
		want(t, "uses", s.current(), 1)
		want(t, "the other", s.brokers[0].seen().how, "closed")
		s.stop()
		logged(t, s.lines(), `refused the subscription to "ack/garage-pi"`, "connected to broker")
	})
}

// A broker that accepts and drops everybody is not hammered.
func TestFlappingBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 3, Options{})
		s.run()
		for began := time.Now(); time.Since(began) < 12*time.Hour; {
			s.until(time.Hour, func() bool { return s.current() >= 0 })
			s.brokers[0].last().end("lost", broker.ErrMalformed) // the moment it connects
			synctest.Wait()
		}
		if n := len(s.brokers[0].dialled()); n > 12*60*4 {
			t.Errorf("%d attempts in 12 hours", n)
		}
		s.stop()
		logged(t, s.lines(), "connected to broker", "connection to broker lost")
	})
}

func TestNoBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 0, 1, Options{})
		s.run()
		s.add(1)
		s.stop()
		logged(t, s.lines(), "no broker is given")
	})
}

// A healthy connection ends by itself after 12 to 36 hours, with a DISCONNECT.
func TestLifetime(t *testing.T) {
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			s := newSwarm(t, 2, seed, Options{})
			for _, b := range s.brokers {
				b.collector, b.acks = true, true
			}
			s.run()
			s.until(37*time.Hour, func() bool { return s.current() == 1 })
			l := s.brokers[0].seen()
			want(t, "it", l.how, "closed")
			between(t, "lifetime", l.ended.Sub(l.began), 12*time.Hour, 36*time.Hour)
			between(t, "gap", s.brokers[1].seen().began.Sub(l.ended), 0, time.Millisecond)
			s.stop()
		})
	}
}

func TestLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 1, Options{})
		s.add(300) // from before the connection: at its pace it would take 6 s
		s.run()
		pass(time.Second)
		if n := len(s.brokers[0].of(wire.KindPing)); n > 60 {
			t.Errorf("%d published in the first second: want about 50", n)
		}
		between(t, "leaving", s.stop(), 0, time.Millisecond)
		l := s.brokers[0].seen()
		want(t, "published", len(s.brokers[0].of(wire.KindPing)), 300)
		m := l.published[len(l.published)-1]
		bye, err := wire.DecodeRip(m.Payload)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "last message", []any{m.Topic, m.QoS, m.Retained, bye}, []any{"rip/agent/garage-pi", 1, false, wire.Rip{V: 1, Agent: agent, Boot: boot, Conn: 1, Reason: wire.RipBye}})
		want(t, "it", l.how, "closed")
	})
}

// Leaving a broker that answers nothing takes its time, not more.
func TestLeavesFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 1, Options{})
		s.run()
		pass(time.Second)
		s.brokers[0].set(func(b *fakeBroker) { b.frozen = true })
		s.add(30)
		between(t, "leaving", s.stop(), 3*time.Second, 5*time.Second)
		want(t, "it", s.brokers[0].seen().how, "aborted") // its will is all that can be said
		want(t, "pending", s.outbox.Stats().Pending, 30)
	})
}

func TestLeavesUnconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 1, Options{})
		s.brokers[0].kill()
		s.run()
		pass(time.Minute)
		between(t, "leaving", s.stop(), 0, time.Millisecond)
	})
}

// A new watch list is followed by a heartbeat that tells what became of it, and
// a flood of lists by no flood of heartbeats.
func TestListIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets := 0
		s := newSwarm(t, 1, 1, Options{
			OnWatch: func(w wire.Watch) { targets = len(w.Targets) },
			Live:    func() wire.LiveAgent { return wire.LiveAgent{Targets: targets} },
		})
		b := s.brokers[0]
		s.run()
		pass(20 * time.Second)
		want(t, "heartbeats without a list", len(b.of(wire.KindLiveAgent)), 1)
		b.last().opts.OnMessage(broker.Message{Topic: wire.TopicWatch, Payload: []byte("one.example two.example")})
		pass(time.Second)
		beats := b.of(wire.KindLiveAgent)
		want(t, "heartbeats after a list", len(beats), 2)
		live, err := wire.DecodeLiveAgent(beats[1].Payload)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "targets told", live.Targets, 2)
		for i := range 60 {
			list := wire.Watch{Rev: int64(i + 1), Targets: []wire.Target{{Target: "one.example"}}}
			b.last().opts.OnMessage(broker.Message{Topic: wire.TopicWatch, Payload: list.Encode()})
			pass(time.Second)
		}
		if n := len(b.of(wire.KindLiveAgent)); n > 2+7 {
			t.Errorf("%d heartbeats in the minute of 60 lists, want at most 7", n-2)
		}
		s.stop()
	})
}

// Where a collector is heard, a stopping agent waits for the acks of what it
// published last; where none is, it has nothing to wait for.
func TestDrainWaitsForAcks(t *testing.T) {
	for _, tt := range []struct {
		collector bool
		pending   int
	}{{true, 0}, {false, 5}} {
		synctest.Test(t, func(t *testing.T) {
			s := newSwarm(t, 1, 1, Options{})
			s.brokers[0].collector, s.brokers[0].acks = tt.collector, tt.collector
			s.run()
			pass(2 * time.Second)
			s.add(5)
			took := s.stop()
			want(t, "pending", s.outbox.Stats().Pending, tt.pending)
			if limit := 5 * time.Second; took > limit || !tt.collector && took > 0 {
				t.Errorf("stopping took %v with collector %v", took, tt.collector)
			}
		})
	}
}

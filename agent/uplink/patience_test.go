package uplink

import (
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/wire"
)

// A person with mosquitto_sub and no collector: the agent stays, quietly, and
// publishes each result once.
func TestOneBrokerWithoutCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 1, Options{})
		s.run()
		for range 48 * 60 {
			s.add(1)
			pass(time.Minute)
		}
		want(t, "connections", len(s.brokers[0].all()), 1)
		want(t, "published", len(s.brokers[0].of(wire.KindPing)), 48*60)
		s.stop()
		logged(t, s.lines(), "connected to broker", "no collector is heard on this broker")
	})
}

// Without a collector anywhere the agent tries each broker once, stays with the
// last, and tries a circle again after 15 to 45 minutes.
func TestCircleWithoutCollector(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			s := newSwarm(t, 3, seed, Options{})
			s.run()
			s.add(1)
			s.until(10*time.Minute, func() bool { return s.current() == 2 })
			for _, b := range s.brokers[:2] {
				l := b.seen()
				between(t, "patience", l.ended.Sub(l.began), time.Minute, 2*time.Minute)
				want(t, "it", l.how, "closed") // it is well: no will
			}
			logged(t, s.lines(), "connected to broker", "trying the next", "connected to broker", "trying the next", "connected to broker")
			pass(3 * time.Minute)
			logged(t, s.lines(), "then=\"staying; results are published")
			s.until(time.Hour, func() bool { return s.current() == 0 })
			l := s.brokers[2].seen()
			between(t, "stay", l.ended.Sub(l.began), 16*time.Minute, 47*time.Minute)
			between(t, "the next circle", s.until(time.Hour, func() bool { return s.current() == 1 }), time.Minute, 2*time.Minute+10*time.Second)
			pass(10 * time.Minute)
			logged(t, s.lines()) // nothing has changed

			// A collector comes back where the agent is: it stays.
			b := s.brokers[s.current()]
			at := s.current()
			b.set(func(b *fakeBroker) { b.collector, b.acks = true, true })
			go b.last().heartbeats()
			pass(time.Minute)
			want(t, "pending", s.outbox.Stats().Pending, 0)
			logged(t, s.lines(), "a collector acknowledges again")
			pass(10 * time.Hour)
			want(t, "uses", s.current(), at)
			logged(t, s.lines())
			s.stop()
		})
	}
}

// The collector has lost one broker: agents there find one where it is heard.
func TestFindsCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 3, 1, Options{})
		s.brokers[2].collector, s.brokers[2].acks = true, true
		s.run()
		s.add(5)
		between(t, "until found", s.until(10*time.Minute, func() bool { return s.current() == 2 }), 2*time.Minute, 4*time.Minute+10*time.Second)
		pass(40 * time.Second)
		want(t, "pending", s.outbox.Stats().Pending, 0)
		pass(11 * time.Hour)
		want(t, "uses", s.current(), 2)
		s.stop()
	})
}

// A collector that stops being heard is as good as none, and one that
// acknowledges without a heartbeat is one.
func TestCollectorFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 2, 1, Options{})
		s.brokers[0].acks = true
		s.run()
		for range 30 {
			s.add(1)
			pass(time.Minute)
		}
		want(t, "uses", s.current(), 0)
		s.brokers[0].set(func(b *fakeBroker) { b.acks = false })
		between(t, "until it goes", s.until(10*time.Minute, func() bool { return s.current() == 1 }), 0, 2*time.Minute+5*time.Second)
		s.stop()
	})
}

// PUBACKs but no acks, though a collector is heard: an ACL, most likely.
func TestUnacknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 2, 1, Options{})
		for _, b := range s.brokers {
			b.collector = true
		}
		s.run()
		pass(10 * time.Minute) // nothing to acknowledge: nothing is wrong
		want(t, "uses", s.current(), 0)
		began := time.Now()
		s.add(1)
		s.until(10*time.Minute, func() bool { return s.current() == 1 })
		between(t, "patience", s.brokers[0].seen().ended.Sub(began), time.Minute, 2*time.Minute)
		pass(3 * time.Hour) // they try the circle again, and say nothing more
		s.stop()
		logged(t, s.lines(), "connected to broker", "broker accepts results, but no collector acknowledges them", "connected to broker",
			"then=\"staying; results are published")
	})
}

// Acks end a circle: the next begins with all brokers to be tried again.
func TestAcksEndCircle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 3, 1, Options{})
		s.brokers[1].collector, s.brokers[1].acks = true, true
		s.run()
		s.add(1)
		s.until(5*time.Minute, func() bool { return s.current() == 1 }) // the first is barren
		pass(10 * time.Minute)
		s.brokers[1].set(func(b *fakeBroker) { b.acks = false })
		s.add(1)
		s.until(15*time.Minute, func() bool { return len(s.brokers[0].all()) == 2 })
		want(t, "connections to the first, in its second circle", len(s.brokers[0].all()), 2)
		s.stop()
	})
}

// Acks that stop are told once, and are not taken for acks that come again.
func TestAcksStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 1, 1, Options{})
		b := s.brokers[0]
		b.collector, b.acks = true, true
		s.run()
		s.add(1)
		pass(time.Minute)
		b.set(func(b *fakeBroker) { b.acks = false })
		s.add(1)
		pass(3 * time.Hour)
		logged(t, s.lines(), "connected to broker", "no collector acknowledges them")
		want(t, "connections", len(b.all()), 1)
		b.set(func(b *fakeBroker) { b.acks = true })
		pass(time.Minute)
		logged(t, s.lines(), "a collector acknowledges again")
		want(t, "pending", s.outbox.Stats().Pending, 0)
		s.stop()
	})
}

// A line that was down is no reason to think that no broker has a collector.
func TestOutageIsNoCircle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 3, 1, Options{})
		s.run()
		s.until(10*time.Minute, func() bool { return s.current() == 1 }) // the first is barren
		for _, b := range s.brokers {
			b.kill()
		}
		pass(time.Hour)
		for _, b := range s.brokers {
			b.set(func(b *fakeBroker) { b.down = nil })
		}
		s.until(5*time.Minute, func() bool { return s.current() >= 0 })
		seen := map[int]bool{}
		s.until(15*time.Minute, func() bool { seen[s.current()] = true; delete(seen, -1); return len(seen) == 3 })
		want(t, "brokers tried", len(seen), 3)
		s.stop()
	})
}

// A broker that cannot be reached does not keep a circle from being complete.
func TestCircleWithDeadBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 3, 1, Options{})
		s.brokers[1].kill()
		s.run()
		s.until(10*time.Minute, func() bool { return s.current() == 2 })
		pass(16 * time.Minute)
		want(t, "connections, and uses", []any{len(s.brokers[2].all()), s.current()}, []any{1, 2})
		s.stop()
	})
}

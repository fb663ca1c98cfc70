package outbox

import (
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/wire"
)

// A rig publishes whatever the outbox offers, as it offers it, for a while.
type rig struct {
	t *testing.T
	o *Outbox
}

// run returns the seqs published in each second of d. Every published result is
// confirmed at once, and acknowledged with the next whole second if acks is true.
func (r *rig) run(d time.Duration, acks bool) (perSecond [][]uint64) {
	r.t.Helper()
	for range int(d / time.Second) {
		end := time.Now().Add(time.Second)
		var seqs []uint64
		for time.Now().Before(end) {
			it, wait, ok := r.o.Next()
			if !ok {
				time.Sleep(min(wait, time.Until(end)))
				continue
			}
			seqs = append(seqs, decode(r.t, it).Seq)
			r.o.Confirmed(it)
		}
		if acks {
			r.o.Ack(ack(boot, wire.Ranges(append([]uint64(nil), seqs...))...))
		}
		perSecond = append(perSecond, seqs)
	}
	return perSecond
}

func counts(perSecond [][]uint64) (n []int) {
	for _, s := range perSecond {
		n = append(n, len(s))
	}
	return n
}

func newRig(t *testing.T) *rig {
	return &rig{t: t, o: New(Options{Agent: agent, Boot: boot, Rand: func() float64 { return 0 }})}
}

func TestResendNeedsCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		add(r.o, 10)
		publish(t, r.o)
		want(t, "resent without a collector", counts(r.run(60*time.Second, false))[59], 0)
		want(t, "resent ever", r.o.Stats().Resent, 0)
		r.o.Heard()
		r.run(60*time.Second, false) // it is not heard again
		if n := r.o.Stats().Resent; n < 45 || n > 46 {
			t.Errorf("%d resent while one collector heartbeat is fresh: want 1 a second for 45 s", n)
		}
		r.o.Heard()
		r.o.Begin()
		before := r.o.Stats().Resent
		r.run(20*time.Second, false)
		want(t, "resent on a connection without a collector", r.o.Stats().Resent-before, 0)
	})
}

// An ack takes a second or two: nothing is sent twice for that.
func TestResendAfterGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.o.Heard()
		add(r.o, 1)
		publish(t, r.o)
		want(t, "published each second", counts(r.run(12*time.Second, false)), []int{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0})
	})
}

func TestResendPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		add(r.o, 1000)
		publish(t, r.o)
		time.Sleep(Grace)
		r.o.Heard()
		want(t, "no acks", counts(r.run(5*time.Second, false)), []int{1, 1, 1, 1, 1})
		got := counts(r.run(10*time.Second, true))
		for i := 1; i < len(got); i++ {
			if got[i] < got[i-1] || got[i] > 2*got[i-1]+1 || got[i] > MaxResendRate+1 {
				t.Errorf("with acks: %v a second: want at most twice as many each second, up to %v", got, MaxResendRate)
				break
			}
		}
		if last := got[len(got)-1]; last < MaxResendRate-1 {
			t.Errorf("with acks: %v a second: want %v in the end", got, MaxResendRate)
		}
		r.o.Heard()
		got = counts(r.run(10*time.Second, false))
		want(t, "acks stop", got[7:], []int{1, 1, 1})
	})
}

// Many small acks in a second double the rate once, as one big ack would.
func TestResendPaceDoublesOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		add(r.o, 1000)
		publish(t, r.o)
		time.Sleep(Grace)
		r.o.Heard()
		r.run(2*time.Second, false)
		for seq := uint64(900); seq < 950; seq++ {
			r.o.Ack(ack(boot, wire.Range{seq, seq}))
		}
		want(t, "published in the next second", counts(r.run(time.Second, false)), []int{2})
	})
}

// Resends take turns among all that wait, the longest waiting first.
func TestResendOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		add(r.o, 15)
		publish(t, r.o)
		time.Sleep(Grace)
		r.o.Heard()
		var order []uint64
		for _, s := range r.run(30*time.Second, false) {
			order = append(order, s...)
		}
		want(t, "first two of each", []any{order[0], order[14], order[15], order[16]}, []any{1, 15, 1, 2})
	})
}

// After an outage the backlog is paced, and what is measured meanwhile is not
// held up by it, nor by resends.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		add(r.o, 500) // 1 to 500: confirmed, never acknowledged
		publish(t, r.o)
		add(r.o, 3000) // 501 to 3500: backlog
		r.o.Begin()
		time.Sleep(Grace)
		r.o.Heard()
		fresh := uint64(3500)
		for range 30 {
			add(r.o, 40)
			fresh += 40
			var resent, backlog, live int
			for _, seq := range r.run(time.Second, false)[0] {
				switch {
				case seq <= 500:
					resent++
				case seq <= 3500:
					backlog++
				default:
					live++
				}
			}
			if live != 40 || backlog < BacklogRate-1 || backlog > BacklogRate+1 || resent != 1 {
				t.Fatalf("in a second %d fresh, %d of the backlog, %d resent: want 40, 50, 1", live, backlog, resent)
			}
		}
	})
}

// With fewer turns than there is to send, each kind still gets its share.
func TestTurnsWhenSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		add(r.o, 100)
		publish(t, r.o)
		add(r.o, 100)
		r.o.Begin()
		add(r.o, 100)
		time.Sleep(Grace)
		r.o.Heard()
		var kinds [3]int
		for range 30 { // a line that takes one result a second
			it, _, ok := r.o.Next()
			if !ok {
				t.Fatal("nothing to publish")
			}
			kinds[(decode(t, it).Seq-1)/100]++
			r.o.Confirmed(it)
			time.Sleep(time.Second)
			r.o.Heard()
		}
		want(t, "resent, backlog, fresh", kinds, [3]int{10, 10, 10})
	})
}

func TestDrainIsNotPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		add(r.o, 300)
		r.o.Begin()
		want(t, "at once", len(publish(t, r.o)), 1)
		r.o.Drain()
		want(t, "at once, draining", len(publish(t, r.o)), 299)
		time.Sleep(Grace)
		r.o.Heard()
		want(t, "resent while draining", len(publish(t, r.o)), 0)
	})
}

func TestWake(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot})
	woken := func() bool {
		select {
		case <-o.Wake():
			return true
		default:
			return false
		}
	}
	want(t, "at first", woken(), false)
	add(o, 2)
	want(t, "after an Add", woken(), true)
	want(t, "once", woken(), false)
	o.Heard()
	want(t, "after a collector", woken(), true)
}

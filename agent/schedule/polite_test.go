package schedule

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"swarming/shared/wire"
)

// 500 names of one machine all get their turn, and the machine no more for it.
func TestNamesOfOneAddressTakeTurns(t *testing.T) {
	const n = 500
	d := newDriver(t, Options{Agent: "a"})
	d.resolve = oneAddress
	d.s.Apply(d.now, names(n, wire.Target{}))
	wakes := d.wakes
	d.run(2 * n * MinInterval)
	if len(d.rounds) < 2*n-3 || len(d.rounds) > 2*n {
		t.Errorf("%d rounds in %v: want one every %v", len(d.rounds), 2*n*MinInterval, MinInterval)
	}
	for id, at := range d.perTarget() {
		if len(at) < 1 || len(at) > 3 {
			t.Errorf("%s had %d rounds of %d", id, len(at), len(d.rounds))
		}
	}
	if got := len(d.perTarget()); got != n {
		t.Errorf("%d of %d names had a round", got, n)
	}
	if per := (d.wakes - wakes) / len(d.rounds); per > 10 {
		t.Errorf("%d wakes a round", per)
	}
	// The others go: the one that stays need not wait for 500 turns.
	last := d.rounds[len(d.rounds)-1].job.Target
	d.s.Apply(d.now, wire.Watch{Targets: []wire.Target{{Target: last}}})
	before := len(d.rounds)
	d.run(2 * time.Minute)
	if got := len(d.rounds) - before; got < 1 {
		t.Error("the remaining name waits for names that are gone")
	}
}

// One name asks for an address every 10 s, another every 60 s: neither starves.
func TestUnequalNamesOfOneAddress(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	d.resolve = oneAddress
	d.s.Apply(d.now, wire.Watch{Targets: []wire.Target{
		{Target: "often", Interval: wire.Duration(10 * time.Second)}, {Target: "seldom", Interval: wire.Duration(60 * time.Second)}}})
	d.run(time.Hour)
	n := d.perTarget()
	if len(n["seldom"]) < 50 || len(n["often"]) < 280 {
		t.Errorf("%d rounds of the name that asks seldom, %d of the other", len(n["seldom"]), len(n["often"]))
	}
}

func TestIPv6CountsPerSubnet(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	n := 0
	d.resolve = func(Job) netip.Addr {
		n++
		return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n))
	}
	d.s.Apply(d.now, names(100, every(10*time.Second)))
	d.run(10 * time.Minute)
	if len(d.rounds) < 58 || len(d.rounds) > 60 {
		t.Errorf("%d rounds in 10 min for 100 addresses of one /64, want one every 10 s", len(d.rounds))
	}
	d.rounds = nil
	d.resolve = func(Job) netip.Addr {
		n++
		return netip.MustParseAddr([]string{"192.0.2.1", "::ffff:192.0.2.1"}[n%2])
	}
	d.run(2 * time.Minute)
	if len(d.rounds) > 13 {
		t.Errorf("%d rounds in 2 min: is ::ffff:192.0.2.1 another address than 192.0.2.1?", len(d.rounds))
	}
}

// Lists that alternate, or settings that flap, bring an address no more rounds
// than the busier of the two.
func TestFlappingLists(t *testing.T) {
	a, b := names(20, wire.Target{}), wire.Watch{Targets: []wire.Target{{Target: "other"}}}
	for _, c := range []struct {
		name  string
		lists [2]wire.Watch
		each  time.Duration
		most  int // rounds of one name in an hour
	}{
		{"removed and added every second", [2]wire.Watch{a, b}, time.Second, 360},
		{"removed and added every 7 s", [2]wire.Watch{a, b}, 7 * time.Second, 360},
		{"removed and added every minute", [2]wire.Watch{a, b}, time.Minute, 360},
		{"60 s and 10 s", [2]wire.Watch{a, names(20, every(10*time.Second))}, time.Second, 360},
		{"60 s and 30 s", [2]wire.Watch{a, names(20, every(30*time.Second))}, time.Second, 123},
		{"60 s and 1 h", [2]wire.Watch{a, names(20, every(time.Hour))}, time.Second, 62},
		{"5 packets and 6", [2]wire.Watch{a, names(20, wire.Target{Count: 6})}, time.Second, 62},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(t, Options{Agent: "a"})
			for i := 0; d.now.Before(t0.Add(time.Hour)); i++ {
				d.s.Apply(d.now, c.lists[i%2])
				d.run(c.each)
			}
			if len(d.rounds) == 0 {
				t.Fatal("no rounds at all")
			}
			for id, at := range d.perTarget() {
				if len(at) > c.most {
					t.Errorf("%s: %d rounds in an hour, want at most %d", id, len(at), c.most)
				}
				for i := 1; i < len(at); i++ {
					if at[i]-at[i-1] < MinInterval {
						t.Errorf("%s: round %d only %v after the one before", id, i, at[i]-at[i-1])
					}
				}
			}
		})
	}
}

func TestIntervalsThatShrinkAreSpread(t *testing.T) {
	const n = 600
	for _, after := range []time.Duration{time.Second, 20 * time.Second, 5 * time.Hour} {
		d := newDriver(t, Options{Agent: "a"})
		d.s.Apply(d.now, names(n, wire.Target{Count: 1, Interval: wire.Duration(time.Hour)}))
		d.run(after)
		d.rounds = nil
		from := d.now.Sub(t0)
		d.s.Apply(d.now, names(n, wire.Target{Count: 1, Interval: wire.Duration(30 * time.Second)}))
		d.run(time.Minute)
		if len(d.perTarget()) != n {
			t.Errorf("after %v: %d of %d targets had a round within two of the new intervals", after, len(d.perTarget()), n)
		}
		perSecond := map[time.Duration]int{}
		for _, r := range d.rounds {
			perSecond[(r.at-from)/time.Second]++
		}
		for sec, k := range perSecond {
			if k > n/7 {
				t.Errorf("after %v: %d of %d rounds in second %d", after, k, n, sec)
			}
		}
	}
}

func TestClocks(t *testing.T) {
	w := names(200, wire.Target{})
	t.Run("asleep", func(t *testing.T) {
		d := newDriver(t, Options{Agent: "a"})
		d.s.Apply(d.now, w)
		d.run(10 * time.Minute)
		d.now = d.now.Add(8 * time.Hour)
		before, woke := len(d.rounds), d.now
		d.run(10 * time.Second)
		if n := len(d.rounds) - before; n > 200*10/60*2+40 {
			t.Errorf("%d rounds in the 10 s after a sleep, as if to make up for it", n)
		}
		d.run(50 * time.Second)
		if n := len(d.rounds) - before; n < 180 {
			t.Errorf("%d rounds in the minute after a sleep (from %v): want about 200", n, woke.Sub(t0))
		}
	})
	t.Run("set back", func(t *testing.T) {
		d := newDriver(t, Options{Agent: "a"})
		d.s.Apply(d.now, w)
		d.run(10 * time.Minute)
		for _, step := range []time.Duration{time.Second, 5 * time.Second, time.Hour, 50 * 365 * 24 * time.Hour} {
			shift(d, -step)
			before := len(d.rounds)
			d.run(2 * time.Minute)
			if n := len(d.rounds) - before; n < 350 || n > 450 {
				t.Errorf("%d rounds in the 2 min after the clock went back %v, want about 400", n, step)
			}
		}
	})
	t.Run("far future", func(t *testing.T) {
		s := New(Options{})
		s.Apply(t0, wire.Watch{})
		for _, y := range []int{1, 1970, 2500, 9999, 1} {
			s.Next(time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC))
		}
		if s.clock < 0 || s.clock > 10*maxStep {
			t.Errorf("the clock reads %v", s.clock)
		}
	})
}

// shift moves everything the driver waits for along with its clock.
func shift(d *driver, by time.Duration) {
	d.now = d.now.Add(by)
	for _, q := range [][]pending{d.lookups, d.flights} {
		for i := range q {
			q[i].at = q[i].at.Add(by)
		}
	}
}

// Names that cannot be looked up are tried at their interval, and no oftener.
func TestFailedLookups(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	lookups := 0
	d.resolve = func(Job) netip.Addr { lookups++; return netip.Addr{} }
	d.s.Apply(d.now, names(10, wire.Target{}))
	d.run(10 * time.Minute)
	if lookups < 90 || lookups > 120 {
		t.Errorf("%d lookups of 10 names in 10 min at 60 s", lookups)
	}
}

// When lookups take longer than the interval and then fail at once, they are
// not made up for.
func TestSlowLookups(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	lookups, slow := 0, 45*time.Second
	d.delay = func() time.Duration { return slow }
	d.resolve = func(Job) netip.Addr { lookups++; return netip.Addr{} }
	d.s.Apply(d.now, names(10, every(10*time.Second)))
	d.run(10 * time.Minute)
	lookups, slow = 0, 0
	d.run(2 * time.Minute)
	if lookups < 90 || lookups > 150 {
		t.Errorf("%d lookups of 10 names in 2 min at 10 s", lookups)
	}
}

// A target that is alone on its address is never put back, at the shortest
// interval and with lookups that take their time.
func TestNoNeedlessPostponing(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	r := rand.New(rand.NewPCG(5, 5))
	d.delay = func() time.Duration { return time.Duration(r.Int64N(int64(time.Second))) }
	d.resolve = func(j Job) netip.Addr {
		var n byte
		fmt.Sscanf(j.Host, "host-%d", &n)
		return netip.AddrFrom4([4]byte{192, 0, 2, n})
	}
	d.s.Apply(d.now, names(100, every(10*time.Second)))
	d.run(time.Hour)
	if st := d.s.Stats(); st.Postponed > 0 || len(d.rounds) < 33_000 {
		t.Errorf("%d of %d rounds postponed", st.Postponed, len(d.rounds))
	}
}

// At the shortest interval there is no room for jitter, and the mean is kept.
func TestShortestIntervalIsKept(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	d.s.Apply(d.now, names(10, every(MinInterval)))
	d.run(time.Hour)
	for id, at := range d.perTarget() {
		if len(at) < 358 {
			t.Errorf("%s: %d rounds in an hour at 10 s", id, len(at))
		}
	}
}

// A long list that arrives must not push aside what runs already.
func TestNewTargetsDoNotDelayOthers(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	w := names(20, every(10*time.Second))
	d.s.Apply(d.now, w)
	d.run(5 * time.Minute)
	from := d.now.Sub(t0)
	for i := range DefaultMaxTargets - 20 {
		w.Targets = append(w.Targets, wire.Target{Target: wire.TargetID(fmt.Sprintf("new-%d", i)), Interval: wire.Duration(10 * time.Minute)})
	}
	d.s.Apply(d.now, w)
	d.run(time.Minute)
	for id, at := range d.perTarget() {
		for i := 1; i < len(at); i++ {
			if gap := at[i] - at[i-1]; at[i] > from && gap > 14*time.Second {
				t.Errorf("%s, asked for every 10 s, had to wait %v when others came", id, gap)
			}
		}
	}
	if n := len(d.perTarget()); n < DefaultMaxTargets-20 {
		t.Errorf("%d targets had a round within a minute", n)
	}
}

// A hostile list cannot make the schedule remember addresses without end.
func TestAddressesAreBounded(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	n := uint32(0)
	d.resolve = func(Job) netip.Addr {
		n++
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	d.s.SetAgents(d.now, maxAgents) // every address is to be remembered for 30 min
	for i := range 400 {
		w := wire.Watch{}
		for k := range 200 {
			w.Targets = append(w.Targets, wire.Target{Target: wire.TargetID(fmt.Sprintf("n%d-%d", i, k)), Count: 1})
		}
		d.s.swarm.known = 1 // first rounds at once, to be quick about it
		d.s.Apply(d.now, w)
		d.run(10 * time.Second)
		if st := d.s.Stats(); st.Addresses > MaxAddresses {
			t.Fatalf("%d addresses remembered, want at most %d", st.Addresses, MaxAddresses)
		}
	}
	if st := d.s.Stats(); st.Addresses < MaxAddresses*9/10 || st.Full == 0 {
		t.Errorf("stats %+v: want the table about full, and that counted", st)
	}
	d.s.Apply(d.now, names(10, wire.Target{}))
	d.run(31 * time.Minute)
	before := len(d.rounds)
	d.run(31 * time.Minute)
	if len(d.rounds) == before {
		t.Error("nothing is measured after the flood is over")
	}
	if st := d.s.Stats(); st.Addresses > 50 {
		t.Errorf("%d addresses remembered an hour after the flood", st.Addresses)
	}
}

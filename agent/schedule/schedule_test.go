package schedule

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"swarming/shared/wire"
)

var t0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func TestFirstRoundSoonThenAsAsked(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	d.s.Apply(d.now, names(20, wire.Target{}))
	d.run(time.Hour)
	for id, at := range d.perTarget() {
		if at[0] >= quickStart {
			t.Errorf("%s: first round after %v, want within %v", id, at[0], quickStart)
		}
		if n := len(at); n < 59 || n > 62 {
			t.Errorf("%s: %d rounds in an hour at 60 s", id, n)
		}
		for i := 2; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap < 54*time.Second || gap > 66*time.Second {
				t.Errorf("%s: round %d came %v after the one before, want 60 s ± 10 %%", id, i, gap)
			}
		}
	}
	if d.s.Stretch() != 1 || d.s.Targets() != 20 {
		t.Errorf("stretch %v, %d targets", d.s.Stretch(), d.s.Targets())
	}
}

func TestJitterKeepsTheMean(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	d.s.Apply(d.now, names(50, every(time.Minute)))
	d.run(10 * time.Hour)
	var sum time.Duration
	n, distinct := 0, map[time.Duration]bool{}
	for _, at := range d.perTarget() {
		sum += at[len(at)-1] - at[1]
		n += len(at) - 2
		distinct[at[3]-at[2]] = true
	}
	if mean := sum / time.Duration(n); mean < 59700*time.Millisecond || mean > 60300*time.Millisecond {
		t.Errorf("mean interval %v, want 60 s", mean)
	}
	if len(distinct) < 40 {
		t.Errorf("only %d different intervals among 50 targets: no jitter", len(distinct))
	}
}

// Two agents with one list must not ping in step, nor one agent's targets.
func TestFirstRoundsAreSpread(t *testing.T) {
	var all [2][]time.Duration
	for i, agent := range []wire.AgentName{"garage-pi", "attic-pi"} {
		d := newDriver(t, Options{Agent: agent})
		d.s.Apply(d.now, names(100, wire.Target{Count: 1}))
		d.run(quickStart)
		if len(d.rounds) != 100 {
			t.Fatalf("%d of 100 first rounds within %v", len(d.rounds), quickStart)
		}
		perSecond := map[time.Duration]int{}
		for _, r := range d.rounds {
			all[i] = append(all[i], r.at)
			perSecond[r.at.Truncate(time.Second)]++
		}
		for sec, n := range perSecond {
			if n > 25 {
				t.Errorf("%s: %d of 100 first rounds in second %v", agent, n, sec)
			}
		}
	}
	if reflect.DeepEqual(all[0], all[1]) {
		t.Error("two agents have the same first rounds")
	}
}

func TestEqualListIsNoOp(t *testing.T) {
	d, same := newDriver(t, Options{Agent: "a"}), newDriver(t, Options{Agent: "a"})
	w := names(300, wire.Target{Interval: wire.Duration(30 * time.Second)})
	d.s.Apply(d.now, w)
	same.s.Apply(same.now, w)
	for range 300 {
		d.run(time.Second)
		same.run(time.Second)
		again := wire.Watch{V: 1, Rev: 7, Targets: slices.Clone(w.Targets)}
		slices.Reverse(again.Targets)
		again.Targets[0].Probe = "icmp" // the default, spelled out
		same.s.Apply(same.now, again)
	}
	if len(d.rounds) == 0 || !reflect.DeepEqual(d.rounds, same.rounds) {
		t.Errorf("%d rounds without and %d with an equal list every second", len(d.rounds), len(same.rounds))
	}
}

func TestRefusals(t *testing.T) {
	d := newDriver(t, Options{Agent: "a", MaxTargets: 4})
	d.s.Apply(d.now, wire.Watch{Targets: []wire.Target{
		{Target: "ok-1"}, {Target: "web", Probe: "http"}, {Target: "signed", Needs: []string{"only"}},
		{Target: "ok-1", Host: "other"}, {Target: "ok-2", Family: wire.FamilyBoth}, {Target: "ok-3"}, {Target: "ok-4"}, {Target: "ok-5"},
	}})
	want := []struct{ target, reason string }{
		{"web", `probe "http" is not known to this agent: it knows icmp`},
		{"signed", `the target needs "only", which is not known to this agent: a newer version may do`},
		{"ok-1", "the list has this target twice: only the first counts"},
		{"ok-5", "the list has more targets than this agent takes, 4"},
	}
	got := d.s.Refusals()
	if len(got) != len(want) {
		t.Fatalf("refusals %q", got)
	}
	for i, w := range want {
		if string(got[i].Target) != w.target || got[i].Reason != w.reason {
			t.Errorf("refusal %d is %q, want %q", i, got[i], w)
		}
	}
	if d.s.Targets() != 4 || d.s.Stats().Refused != 4 {
		t.Errorf("%d targets, stats %+v", d.s.Targets(), d.s.Stats())
	}
	d.run(20 * time.Second)
	var keys []string
	for _, r := range d.rounds {
		keys = append(keys, string(r.job.Key.Target)+" "+string(r.job.Key.Family)+" "+r.job.Host)
	}
	slices.Sort(keys)
	if s := strings.Join(keys, "; "); s != "ok-1 any ok-1; ok-2 4 ok-2; ok-2 6 ok-2; ok-3 any ok-3; ok-4 any ok-4" {
		t.Errorf("first rounds: %s", s)
	}
	d.s.Apply(d.now, names(wire.MaxTargets, wire.Target{}))
	if st := d.s.Stats(); len(d.s.Refusals()) != maxRefusals || st.Refused != wire.MaxTargets-4 {
		t.Errorf("%d refusals kept, %d counted", len(d.s.Refusals()), st.Refused)
	}
}

func TestSettingsAreMovedToTheirLimits(t *testing.T) {
	sec := func(s float64) wire.Duration { return wire.Duration(s * float64(time.Second)) }
	for _, c := range []struct {
		name     string
		in       wire.Target
		want     Job
		interval time.Duration
		clamped  int
	}{
		{"defaults", wire.Target{}, Job{Count: 5, Gap: time.Second, Timeout: 4 * time.Second}, time.Minute, 0},
		{"interval", wire.Target{Interval: sec(1)}, Job{Count: 5, Gap: time.Second, Timeout: 4 * time.Second}, 10 * time.Second, 1},
		{"gap", wire.Target{Gap: sec(.02)}, Job{Count: 5, Gap: MinGap, Timeout: 4 * time.Second}, time.Minute, 1},
		{"count", wire.Target{Count: 999}, Job{Count: 20, Gap: time.Second, Timeout: 4 * time.Second}, time.Minute, 1},
		{"negative", wire.Target{Count: -1, Gap: -1, Timeout: -1, Interval: -1}, Job{Count: 1, Gap: MinGap, Timeout: MinTimeout}, 10 * time.Second, 1},
		{"long", wire.Target{Interval: sec(3600), Gap: sec(600), Timeout: sec(600)}, Job{Count: 5, Gap: MaxGap, Timeout: MaxTimeout}, time.Hour, 1},
		{"round longer than interval", wire.Target{Count: 20, Interval: sec(15)}, Job{Count: 20, Gap: time.Second, Timeout: 4 * time.Second}, 24 * time.Second, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(t, Options{Agent: "a"})
			c.in.Target = "x"
			d.s.Apply(d.now, wire.Watch{Targets: []wire.Target{c.in}})
			d.run(quickStart)
			if len(d.rounds) != 1 {
				t.Fatalf("%d rounds", len(d.rounds))
			}
			got := d.rounds[0].job
			if got.Count != c.want.Count || got.Gap != c.want.Gap || got.Timeout != c.want.Timeout {
				t.Errorf("job %+v, want %+v", got, c.want)
			}
			if e := d.s.entries[got.Key]; e.every != c.interval {
				t.Errorf("interval %v, want %v", e.every, c.interval)
			}
			if n := d.s.Stats().Clamped; n != c.clamped || len(d.s.Refusals()) != 0 {
				t.Errorf("%d clamped, refusals %q", n, d.s.Refusals())
			}
		})
	}
}

func TestOptionsOnlyLower(t *testing.T) {
	for _, o := range []Options{{}, {MaxPPS: 1e9, MaxTargets: 1e9}, {MaxPPS: -1, MaxTargets: -1}} {
		if s := New(o); s.maxPPS != DefaultMaxPPS || s.maxTargets != DefaultMaxTargets {
			t.Errorf("%+v: %v packets/s, %d targets", o, s.maxPPS, s.maxTargets)
		}
	}
	if s := New(Options{MaxPPS: 3, MaxTargets: 2}); s.maxPPS != 3 || s.maxTargets != 2 {
		t.Errorf("%v packets/s, %d targets, want 3 and 2", s.maxPPS, s.maxTargets)
	}
}

func TestStretch(t *testing.T) {
	for _, c := range []struct {
		name   string
		maxPPS float64
		w      wire.Watch
		want   float64
	}{
		{"1000 targets, 1 packet every 10 s", 0, names(1000, wire.Target{Count: 1, Interval: wire.Duration(10 * time.Second)}), 1},
		{"the same, exactly at the limit", 100, names(1000, wire.Target{Count: 1, Interval: wire.Duration(10 * time.Second)}), 1},
		{"1000 targets, defaults", 0, names(1000, wire.Target{}), 1},
		{"a full list, defaults", 0, names(DefaultMaxTargets, wire.Target{}), 1},
		{"twice too much", 50, names(1000, wire.Target{Count: 1, Interval: wire.Duration(10 * time.Second)}), 2},
		{"both families count twice", 50, names(600, wire.Target{Family: wire.FamilyBoth}), 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(t, Options{Agent: "a", MaxPPS: c.maxPPS})
			d.s.Apply(d.now, c.w)
			if got := d.s.Stretch(); got != c.want {
				t.Fatalf("stretch %v, want %v", got, c.want)
			}
			for _, e := range d.s.entries {
				if ratio := float64(e.every) / float64(e.asked); ratio != c.want {
					t.Fatalf("%v has an interval of %v: want %v times %v", e.job.Key, e.every, c.want, e.asked)
				}
			}
			d.run(10 * time.Minute)
			settled := d.now
			d.rounds = nil
			d.run(10 * time.Minute)
			packets := 0
			for _, r := range d.rounds {
				packets += r.job.Count
			}
			asked := 0.0
			for _, x := range c.w.Targets {
				x = x.WithDefaults()
				n := 1.0
				if x.Family == wire.FamilyBoth {
					n = 2
				}
				asked += n * float64(x.Count) * d.now.Sub(settled).Seconds() / time.Duration(x.Interval).Seconds()
			}
			if rel := float64(packets) / (asked / c.want); rel < 0.95 || rel > 1.02 {
				t.Errorf("%d packets in 10 min, want about %.0f", packets, asked/c.want)
			}
			d.s.Apply(d.now, wire.Watch{})
			if d.s.Stretch() != 1 {
				t.Errorf("stretch %v without targets", d.s.Stretch())
			}
		})
	}
}

func TestStopAndStart(t *testing.T) {
	d := newDriver(t, Options{Agent: "a"})
	if _, ok := d.s.Wake(); ok {
		t.Error("an empty schedule wants to be woken")
	}
	w := names(10, wire.Target{})
	d.s.Apply(d.now, w)
	d.run(5 * time.Minute)
	d.s.Apply(d.now, wire.Watch{Targets: []wire.Target{}})
	before := len(d.rounds)
	d.run(10 * time.Minute)
	if len(d.rounds) != before {
		t.Errorf("%d rounds after the list was emptied", len(d.rounds)-before)
	}
	if len(d.s.entries) != 0 || len(d.s.queue) != 0 {
		t.Errorf("%d entries and %d in the queue are left", len(d.s.entries), len(d.s.queue))
	}
	if _, ok := d.s.Wake(); ok {
		t.Error("an emptied schedule wants to be woken")
	}
	d.s.Apply(d.now, w)
	d.run(time.Minute)
	if got := len(d.rounds) - before; got < 10 {
		t.Errorf("%d rounds in the minute after the list came back", got)
	}
}

// The caller may hold a job when the list drops it, in each of its steps.
func TestVanishedInFlight(t *testing.T) {
	addr := oneAddress(Job{})
	one, other := names(1, wire.Target{}), wire.Watch{Targets: []wire.Target{{Target: "other"}}}
	take := func(s *Schedule) (Job, time.Time) {
		s.Apply(t0, one)
		at, ok := s.Wake()
		if !ok {
			t.Fatal("nothing to wait for")
		}
		job, ok := s.Next(at)
		if !ok {
			t.Fatal("no job at Wake")
		}
		return job, at
	}
	t.Run("before Admit", func(t *testing.T) {
		s := New(Options{})
		job, at := take(s)
		s.Apply(at, other)
		if s.Admit(at, job.Key, addr) {
			t.Error("a job that left the list was admitted")
		}
		if s.entries[job.Key] != nil {
			t.Error("it was not forgotten")
		}
		s.Done(at, job.Key)
	})
	t.Run("before Done", func(t *testing.T) {
		s := New(Options{})
		job, at := take(s)
		if !s.Admit(at, job.Key, addr) {
			t.Fatal("not admitted")
		}
		s.Apply(at, other)
		at, _ = s.Wake()
		next, ok := s.Next(at)
		if !ok || next.Target != "other" {
			t.Fatalf("next job %+v, %v", next, ok)
		}
		if s.Admit(at, next.Key, addr) {
			t.Fatal("a second round was admitted while one of a dropped target is in flight")
		}
		s.Done(at.Add(time.Second), job.Key)
		if s.entries[job.Key] != nil {
			t.Error("the dropped target was not forgotten")
		}
		if at, ok = s.Wake(); !ok {
			t.Fatal("the waiting job does not come back")
		}
		if next, ok = s.Next(at); !ok || !s.Admit(at, next.Key, addr) {
			t.Error("the waiting job is not admitted when its time comes")
		}
	})
	t.Run("comes back", func(t *testing.T) {
		s := New(Options{})
		job, at := take(s)
		if !s.Admit(at, job.Key, addr) {
			t.Fatal("not admitted")
		}
		s.Apply(at, other)
		s.Apply(at, one)
		s.Done(at.Add(8*time.Second), job.Key)
		again, _ := s.Wake()
		if gap := again.Sub(at); gap < 30*time.Second || gap > 90*time.Second {
			t.Errorf("next round %v after the first: want its place in the interval kept", gap)
		}
		if s.Targets() != 1 {
			t.Errorf("%d targets", s.Targets())
		}
	})
	t.Run("unknown", func(t *testing.T) {
		s := New(Options{})
		s.Done(t0, Key{"nobody", "any"})
		if s.Admit(t0, Key{"nobody", "any"}, addr) {
			t.Error("an unknown job was admitted")
		}
		job, at := take(s)
		if s.Admit(at, job.Key, netip.Addr{}) {
			t.Error("no address at all was admitted")
		}
		s.Done(at, job.Key)
		s.Done(at, job.Key)
		if len(s.queue) != 1 {
			t.Errorf("%d in the queue, want the one job once", len(s.queue))
		}
	})
}

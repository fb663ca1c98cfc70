package schedule

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"swarming/shared/wire"
)

// A judge watches the rounds one schedule admits and knows nothing of how it
// works, only what was promised.
type judge struct {
	t        testing.TB
	maxPPS   float64
	last     map[netip.Addr]*latest
	agents   int
	at       time.Duration
	inFlight map[netip.Addr]Key
	rounds   []sentRound // at the time they were handed out
}

func newJudge(t testing.TB, maxPPS float64) *judge {
	return &judge{t: t, maxPPS: maxPPS, last: map[netip.Addr]*latest{}, agents: 1, inFlight: map[netip.Addr]Key{}}
}

// latest is the last round of an address, and how much of the time that has to
// pass before the next one has passed, in parts of 1. The swarm may have had
// different sizes meanwhile.
type latest struct {
	sentRound
	passed float64
}

func (j *judge) swarm(at time.Duration, agents int) {
	for _, l := range j.last {
		c := l.job.Count
		pace := max(10*time.Second, time.Duration(c)*l.job.Gap+l.job.Timeout, min(time.Duration(c*j.agents)*time.Second, 30*time.Minute))
		l.passed += float64(at-j.at) / float64(pace)
	}
	j.at, j.agents = at, agents
}

func subnet(a netip.Addr) netip.Addr {
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

// sees judges a round that was handed out at taken and admitted at r.at.
func (j *judge) sees(r sentRound, taken time.Duration, agents int) {
	j.t.Helper()
	addr, job := subnet(r.addr), r.job
	if job.Gap < 200*time.Millisecond || job.Count < 1 || job.Count > 20 {
		j.t.Errorf("impolite job %+v", job)
	}
	if other, busy := j.inFlight[addr]; busy {
		j.t.Errorf("%v: %v gets a round of %v while one of %v is in flight", r.at, addr, job.Key, other)
	}
	j.inFlight[addr] = job.Key
	j.swarm(r.at, agents)
	if l := j.last[addr]; l != nil && l.passed < 0.999999 {
		j.t.Errorf("%v: %v gets a round %v after the one before, %.2f of the time that should pass after %+v", r.at, addr, r.at-l.at, l.passed, l.job)
	}
	j.last[addr] = &latest{sentRound: r}
	j.rounds = append(j.rounds, sentRound{taken, job, addr})
}

// packets judges the packets of all rounds by a bucket that leaks maxPPS a
// second, which holds a second's worth and one round.
func (j *judge) packets() {
	slices.SortFunc(j.rounds, func(a, b sentRound) int { return cmp.Compare(a.at, b.at) })
	level, at := 0.0, time.Duration(0)
	for _, r := range j.rounds {
		level = max(0, level-(r.at-at).Seconds()*j.maxPPS) + float64(r.job.Count)
		at = r.at
		if level > j.maxPPS+wire.MaxPackets {
			j.t.Errorf("%v: %.0f packets more than %v a second allow", at, level, j.maxPPS)
		}
	}
}

func (j *judge) over(addr netip.Addr) { delete(j.inFlight, subnet(addr)) }

// A wild caller does to a schedule whatever may happen to it: any lists, any
// lookups, any delays, any order, clocks that disagree a little.
type wild struct {
	*rand.Rand
	judge *judge
	s     *Schedule
	now   time.Time
	held  []*flight
}

type flight struct {
	job   Job
	taken time.Duration
	at    time.Time  // when the next step happens
	addr  netip.Addr // once admitted
}

func (w *wild) upTo(d time.Duration) time.Duration { return time.Duration(w.Int64N(int64(d))) }

func (w *wild) chance(percent int) bool { return w.IntN(100) < percent }

func (w *wild) list() wire.Watch {
	var list wire.Watch
	for range w.IntN(60) {
		sec := func(n int) wire.Duration { return wire.Duration(w.IntN(n*1000)) * wire.Duration(time.Millisecond) }
		t := wire.Target{Target: wire.TargetID(fmt.Sprintf("t%d", w.IntN(80)))}
		if w.chance(50) {
			t.Interval, t.Count, t.Gap, t.Timeout = sec(120), w.IntN(25), sec(3), sec(6)
		}
		t.Family = []wire.Family{"", wire.FamilyAny, wire.Family4, wire.Family6, wire.FamilyBoth}[w.IntN(5)]
		list.Targets = append(list.Targets, t)
	}
	return list
}

// resolve gives 80 names 30 addresses, which change now and then.
func (w *wild) resolve(j Job) netip.Addr {
	n := byte(w.IntN(30))
	if !w.chance(20) {
		n = byte(len(j.Host)*7+int(j.Host[len(j.Host)-1])) % 30
	}
	if j.Family == wire.Family6 {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: n, 15: byte(w.IntN(256))})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, n})
}

// about returns now, or a little before: callers take the time before they wait for a lock.
func (w *wild) about() time.Time {
	if w.chance(20) {
		return w.now.Add(-w.upTo(20 * time.Millisecond))
	}
	return w.now
}

func (w *wild) step() {
	w.now = w.now.Add(time.Duration(w.ExpFloat64() * float64(300*time.Millisecond)))
	if w.chance(1) && w.chance(20) {
		w.now = w.now.Add(w.upTo(5 * time.Minute)) // asleep
	}
	if w.chance(2) {
		w.s.Apply(w.about(), w.list())
	}
	if w.chance(1) {
		w.s.SetAgents(w.about(), w.IntN(1<<w.IntN(12)))
		w.judge.swarm(w.s.last.Sub(t0), w.s.Stats().Agents)
	}
	for range w.IntN(20) {
		job, ok := w.s.Next(w.about())
		if !ok {
			if at, ok := w.s.Wake(); ok && !at.After(w.s.last) {
				w.judge.t.Errorf("Wake says %v, which is not after %v", at.Sub(t0), w.s.last.Sub(t0))
			}
			break
		}
		w.held = append(w.held, &flight{job: job, taken: w.s.last.Sub(t0), at: w.now.Add(w.upTo(3 * time.Second))})
	}
	w.held = slices.DeleteFunc(w.held, func(f *flight) bool { return !f.at.After(w.now) && w.goOn(f) })
}

// goOn takes a held job one step further and reports whether it is over.
func (w *wild) goOn(f *flight) bool {
	if f.addr.IsValid() || w.chance(5) {
		w.s.Done(w.about(), f.job.Key)
		w.judge.over(f.addr)
		return true
	}
	addr := w.resolve(f.job)
	if !w.s.Admit(w.about(), f.job.Key, addr) {
		return true
	}
	f.addr = addr
	// The judge's clock is the schedule's latest, never ahead of the true one.
	w.judge.sees(sentRound{w.s.last.Sub(t0), f.job, addr}, f.taken, w.s.Stats().Agents)
	f.at = w.now.Add(time.Duration(f.job.Count)*f.job.Gap + w.upTo(20*time.Second))
	return false
}

// Whatever lists come and however the caller behaves, no address gets more than
// was promised, and the agent sends no more than it may.
func TestPolitenessHoldsWhateverHappens(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	total := 0
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			o := Options{Agent: "a", Rand: r.Float64, MaxPPS: []float64{0, 50, 7.5, 0.5}[seed%4]}
			w := &wild{Rand: r, s: New(o), now: t0, judge: newJudge(t, cmp.Or(o.MaxPPS, DefaultMaxPPS))}
			for i := range 6000 {
				w.step()
				if i%50 == 0 {
					checkInvariants(t, w.s, w.held)
				}
			}
			total += len(w.judge.last)
			w.judge.packets()
			checkInvariants(t, w.s, w.held)
			w.s.Apply(w.now, wire.Watch{})
			for _, f := range w.held {
				w.s.Done(w.now, f.job.Key)
			}
			if len(w.s.entries) != 0 || len(w.s.queue) != 0 || w.s.Stats().Waiting != 0 {
				t.Errorf("%d entries, %d in the queue, %+v after the end", len(w.s.entries), len(w.s.queue), w.s.Stats())
			}
		})
	}
	if total < seeds {
		t.Errorf("only %d addresses were pinged: the test tests nothing", total)
	}
}

// checkInvariants looks inside: every job is in exactly one place.
func checkInvariants(t *testing.T, s *Schedule, held []*flight) {
	t.Helper()
	for i, e := range s.queue {
		if e.index != i || e.held || s.entries[e.job.Key] != e {
			t.Errorf("queue[%d] is %+v", i, e)
		}
	}
	waiting, heldNow := 0, 0
	for _, a := range s.addresses {
		waiting += len(a.waiting)
		for _, e := range a.waiting {
			if e.at != a || e.held || e.index >= 0 {
				t.Errorf("%v waits at %v", e, a)
			}
		}
		if a.round != nil && a.turn != nil {
			t.Errorf("%v has a round in flight and gives a turn", a.key)
		}
		if a.round == nil && a.turn == nil && len(a.waiting) > 0 {
			t.Errorf("%d wait at %v, and nobody goes", len(a.waiting), a.key)
		}
		for _, e := range []*entry{a.round, a.turn} {
			if e != nil && e.at != a {
				t.Errorf("%v goes at %v, but thinks it is at %v", e.job.Key, a.key, e.at)
			}
		}
	}
	for _, e := range s.entries {
		if e.held {
			heldNow++
		}
	}
	if n := len(s.queue) + waiting + heldNow; n != len(s.entries) || heldNow != len(held) {
		t.Errorf("%d in the queue + %d waiting + %d held, want %d; the caller holds %d", len(s.queue), waiting, heldNow, len(s.entries), len(held))
	}
}

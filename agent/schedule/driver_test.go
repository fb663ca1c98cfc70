package schedule

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"swarming/shared/wire"
)

// A sentRound is what a driver sent.
type sentRound struct {
	at   time.Duration // since t0
	job  Job
	addr netip.Addr
}

func (r sentRound) lasts() time.Duration {
	return time.Duration(r.job.Count-1)*r.job.Gap + r.job.Timeout
}

// A driver does what the agent does with a schedule: it sleeps until Wake, takes
// what is due, looks it up, and lets every round last as long as it may.
type driver struct {
	t       testing.TB
	s       *Schedule
	now     time.Time
	resolve func(Job) netip.Addr
	delay   func() time.Duration // of a lookup; nil: none
	rounds  []sentRound
	wakes   int
	lookups []pending // in the order of their times
	flights []pending
}

type pending struct {
	at  time.Time
	job Job
}

func newDriver(t testing.TB, o Options) *driver {
	if o.Rand == nil {
		o.Rand = rand.New(rand.NewPCG(1, 2)).Float64
	}
	return &driver{t: t, s: New(o), now: t0, resolve: perName}
}

// perName gives every host an address of its own.
func perName(j Job) netip.Addr {
	h := uint32(2166136261)
	for _, c := range []byte(j.Host) {
		h = (h ^ uint32(c)) * 16777619
	}
	if j.Family == wire.Family6 {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h), 1})
	}
	return netip.AddrFrom4([4]byte{10, byte(h >> 16), byte(h >> 8), byte(h)})
}

func oneAddress(Job) netip.Addr { return netip.MustParseAddr("192.0.2.1") }

// run drives the schedule for d.
func (d *driver) run(span time.Duration) {
	end := d.now.Add(span)
	for {
		d.finish()
		for {
			job, ok := d.s.Next(d.now)
			if !ok {
				break
			}
			at := d.now
			if d.delay != nil {
				at = at.Add(d.delay())
			}
			d.lookups = insert(d.lookups, pending{at, job})
			d.finish()
		}
		next := end
		if at, ok := d.s.Wake(); ok {
			if !at.After(d.now) {
				d.t.Fatalf("Wake says %v at %v, after a Next without a job: the caller would spin", at.Sub(t0), d.now.Sub(t0))
			}
			next = earlier(next, at)
		}
		for _, q := range [][]pending{d.lookups, d.flights} {
			if len(q) > 0 {
				next = earlier(next, q[0].at)
			}
		}
		d.now = next
		d.wakes++
		if !next.Before(end) {
			d.finish()
			return
		}
	}
}

// finish ends the lookups and rounds whose time has come.
func (d *driver) finish() {
	for len(d.lookups) > 0 && !d.lookups[0].at.After(d.now) {
		job := d.lookups[0].job
		d.lookups = d.lookups[1:]
		addr := d.resolve(job)
		if !addr.IsValid() {
			d.s.Done(d.now, job.Key)
			continue
		}
		if d.s.Admit(d.now, job.Key, addr) {
			r := sentRound{d.now.Sub(t0), job, addr}
			d.rounds = append(d.rounds, r)
			d.flights = insert(d.flights, pending{d.now.Add(r.lasts()), job})
		}
	}
	for len(d.flights) > 0 && !d.flights[0].at.After(d.now) {
		d.s.Done(d.now, d.flights[0].job.Key)
		d.flights = d.flights[1:]
	}
}

func insert(q []pending, p pending) []pending {
	i, _ := slices.BinarySearchFunc(q, p, func(a, b pending) int {
		if a.at.After(b.at) {
			return 1
		}
		return -1
	})
	return slices.Insert(q, i, p)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// names returns a list of n targets with the settings of t.
func names(n int, t wire.Target) wire.Watch {
	w := wire.Watch{V: 1}
	for i := range n {
		t.Target = wire.TargetID(fmt.Sprintf("host-%d.example", i))
		w.Targets = append(w.Targets, t)
	}
	return w
}

func every(d time.Duration) wire.Target { return wire.Target{Interval: wire.Duration(d)} }

// perTarget returns the times of the rounds of each target.
func (d *driver) perTarget() map[wire.TargetID][]time.Duration {
	m := map[wire.TargetID][]time.Duration{}
	for _, r := range d.rounds {
		m[r.job.Target] = append(m[r.job.Target], r.at)
	}
	return m
}

package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/bits"
	"time"

	"swarming/shared/wire"
)

// The limits of politeness. Settings can lower the first two, nothing the rest.
const (
	// DefaultMaxPPS is the most echo requests a second an agent sends: enough
	// for 2000 targets at 5 packets a minute, and about 100 kbit/s of small packets.
	DefaultMaxPPS = 200

	// DefaultMaxTargets is the most targets of a list an agent takes: about what
	// a list of [wire.MaxWatch] bytes holds in JSON, what DefaultMaxPPS measures
	// without stretching at the default settings, and about 1 MB of memory.
	DefaultMaxTargets = 2000

	// SwarmPPS is the most echo requests a second that all agents together send
	// to one address.
	SwarmPPS = 1

	// MaxSwarmInterval is the longest that SwarmPPS makes an interval. Beyond
	// 360 agents at 5 packets, results matter more than the budget.
	MaxSwarmInterval = 30 * time.Minute

	MinInterval = 10 * time.Second       // from the start of a round to the next
	MinGap      = 200 * time.Millisecond // between packets; providers drop 20 ms as a flood (measured)
	MaxGap      = time.Minute
	MinTimeout  = 100 * time.Millisecond
	MaxTimeout  = time.Minute
)

const (
	jitter     = 0.1              // of an interval, either way
	quickStart = 10 * time.Second // first rounds come within it …
	quickSwarm = 100              // … while at most so many agents are known
	maxAgents  = 1 << 20          // more make no difference
	countsFor  = 10 * time.Minute // how long a collector's count of agents is believed
)

// A load is what one round puts on an address.
type load struct {
	count int
	lasts time.Duration // count·gap + timeout
}

func loadOf(j Job) load {
	return load{j.Count, time.Duration(j.Count)*j.Gap + j.Timeout}
}

// clamp moves the settings of t, which has its defaults spelled out, to their
// limits and reports whether it had to.
func clamp(t wire.Target) (c wire.Target, clamped bool) {
	c = t
	c.Count = min(max(t.Count, 1), wire.MaxPackets)
	c.Gap = min(max(t.Gap, wire.Duration(MinGap)), wire.Duration(MaxGap))
	c.Timeout = min(max(t.Timeout, wire.Duration(MinTimeout)), wire.Duration(MaxTimeout))
	c.Interval = max(t.Interval, wire.Duration(MinInterval), wire.Duration(c.Count)*c.Gap+c.Timeout)
	return c, c.Count != t.Count || c.Gap != t.Gap || c.Timeout != t.Timeout || c.Interval != t.Interval
}

// pace returns the shortest time from a round to the next at one address.
func (w *swarm) pace(l load) time.Duration {
	share := time.Duration(l.count*w.agents) * time.Second / SwarmPPS
	return max(MinInterval, l.lasts, min(share, MaxSwarmInterval))
}

// interval returns what e's interval has to be.
func (s *Schedule) interval(e *entry) time.Duration {
	return time.Duration(float64(max(e.asked, s.swarm.pace(loadOf(e.job)))) * s.stretch)
}

// following returns the time from one round of e to the next: its interval,
// give or take some jitter, but never under the pace.
//
// First rounds come close together, so that a new user sees results at once.
// After the first the job finds a place anywhere in its interval, or the swarm
// would ping in step for ever.
func (s *Schedule) following(e *entry) time.Duration {
	pace := s.swarm.pace(loadOf(e.job))
	if e.fresh {
		return max(pace, e.every/2) + fraction(e.every, s.rand())
	}
	swing := min(fraction(e.every, jitter), e.every-pace)
	return e.every + fraction(swing, 2*s.rand()-1)
}

// setStretch works out the factor by which intervals grow to keep the packets
// of all jobs within the agent's limit; in thousandths, rounded up.
func (s *Schedule) setStretch() {
	s.stretch = 1
	var pps float64
	for _, e := range s.entries {
		if !e.gone {
			pps += float64(e.job.Count) / s.interval(e).Seconds()
		}
	}
	s.stretch = max(1, math.Ceil(1000*pps/s.maxPPS-1e-6)/1000)
}

// retime gives every job the interval that is right now. What is left of the
// running interval keeps its proportion: due times that were spread stay spread,
// and switching to and fro never brings more rounds than the shorter interval.
// With respread, jobs without a first round find a place in the whole interval.
func (s *Schedule) retime(respread bool) {
	s.setStretch()
	for _, e := range s.entries {
		was := e.every
		e.every = s.interval(e)
		switch {
		case e.at != nil && e.at.turn == e && !e.held:
			e.due = max(s.clock, e.at.free)
		case e.fresh && respread:
			e.due = s.clock + s.offset(e, e.every)
		case e.fresh && s.swarm.known <= quickSwarm:
			// Its place is not one in the interval.
		case was > 0 && was != e.every && e.due > s.clock:
			e.due = s.clock + fraction(e.due-s.clock, float64(e.every)/float64(was))
		}
	}
	s.queue.fix()
}

// offset returns a time in [0, span) that is e's own: a hash of agent and target.
func (s *Schedule) offset(e *entry, span time.Duration) time.Duration {
	sum := sha256.Sum256([]byte(string(s.agent) + "/" + string(e.job.Key.Target) + "/" + string(e.job.Key.Family)))
	return fraction(span, float64(binary.BigEndian.Uint64(sum[:])>>11)/(1<<53))
}

// A swarm is what collectors tell of its size. Counts are kept in powers of two,
// so that the coming and going of single agents moves nothing.
type swarm struct {
	agents int // the power of two in force
	known  int // the count it stands for
	heard  [21]struct {
		at    time.Duration // on the schedule's clock; 0: never
		count int
	}
}

// SetAgents tells how many agents a collector counts. The highest count of the
// last 10 minutes is in force; without any report, the last one stays.
func (s *Schedule) SetAgents(now time.Time, n int) {
	s.advance(now)
	n = min(max(n, 1), maxAgents)
	w := &s.swarm
	h := &w.heard[bits.Len(uint(n-1))]
	h.at, h.count = s.clock, n
	top := bits.Len(uint(n - 1))
	for i := len(w.heard) - 1; i > top; i-- {
		if w.heard[i].count > 0 && s.clock-w.heard[i].at < countsFor {
			top = i
		}
	}
	was := *w
	w.agents, w.known = 1<<top, w.heard[top].count
	if w.agents == was.agents {
		return
	}
	for _, a := range s.addresses {
		if a.free > s.clock {
			a.free = s.clock + fraction(a.free-s.clock, float64(s.swarm.pace(a.last))/float64(was.pace(a.last)))
		}
	}
	s.retime(was.known <= quickSwarm && w.known > quickSwarm)
}

func fraction(d time.Duration, f float64) time.Duration { return time.Duration(float64(d) * f) }

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

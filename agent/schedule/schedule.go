// Package schedule decides when an agent measures what. It is a pure state
// machine: it starts no goroutine, opens no socket and reads no clock; the time
// is an argument of every call.
//
// A round goes through three steps. [Schedule.Next] hands out a job whose time
// has come, the caller looks its host up, and [Schedule.Admit] says whether that
// address may be pinged now. If so the caller measures and reports
// [Schedule.Done]; if not the job has been put back already.
//
// # Politeness
//
// What a watch list may ask for is limited by constants of this package, which
// settings can only lower. They hold per resolved address, not per name, for
// 500 names may be one machine; an IPv6 address counts as its whole /64.
//
//   - One round in flight per address, its packets [MinGap] or more apart.
//   - From the start of one round to the start of the next at least
//     [MinInterval], and count·gap + timeout, and the swarm's share: all agents
//     together send one address at most [SwarmPPS] echo requests a second, as one
//     person who runs ping does. With n agents, counted in powers of two, that is
//     count·n seconds, but never more than [MaxSwarmInterval]. So up to 8 agents
//     measure 5 packets every 60 s as asked, 16 agents every 80 s, 200 every
//     21 min; a smaller count makes shorter intervals. Not in this budget is the
//     first round of a new target, within 10 s while few agents are known: a new
//     user sees a result at once. A large swarm spreads that too.
//   - At most [DefaultMaxPPS] packets a second from this agent. A list that asks
//     for more is served whole, with all its intervals longer by one factor,
//     [Schedule.Stretch].
//   - At most [DefaultMaxTargets] targets.
//
// The agents are counted by collectors, see [Schedule.SetAgents]; an agent that has
// heard of none counts itself. When the count changes, what is left of every
// interval keeps its proportion.
//
// A setting beyond its limit is moved to the limit, not refused, and counted in
// [Stats].Clamped. Names that share an address take turns.
package schedule

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"time"

	"swarming/shared/wire"
)

// Options configure a Schedule.
type Options struct {
	Agent      wire.AgentName // whose schedule it is; every agent gets other first rounds
	MaxPPS     float64        // echo requests per second; lowers [DefaultMaxPPS], else ignored
	MaxTargets int            // targets; lowers [DefaultMaxTargets], else ignored
	Probes     []string       // the probes the agent knows; default: icmp
	Rand       func() float64 // uniform in [0, 1), for jitter; default: math/rand/v2
}

// A Key names a job: a target over one family.
type Key struct {
	Target wire.TargetID
	Family wire.Family // any, 4 or 6
}

// A Job is one round to be made.
type Job struct {
	Key     Key
	Target  wire.TargetID
	Host    string      // what to look up
	Family  wire.Family // any, 4 or 6
	Probe   string
	Count   int           // echo requests, 1 to [wire.MaxPackets]
	Gap     time.Duration // between them, [MinGap] to [MaxGap]
	Timeout time.Duration // for each reply, [MinTimeout] to [MaxTimeout]
}

// Stats count what a person should be able to see. The counters start at zero
// with the Schedule.
type Stats struct {
	Clamped   int    // targets of the list with a setting moved to its limit
	Refused   int    // targets of the list that were refused
	Agents    int    // how many agents the swarm's budget is shared by: a power of two
	Waiting   int    // jobs that wait for their turn at an address they share
	Addresses int    // addresses remembered, at most [MaxAddresses]
	Postponed uint64 // jobs put back by Admit, for politeness
	Full      uint64 // of those, because MaxAddresses were remembered
}

// A Schedule holds the jobs of one watch list. Its memory is bounded by the
// limits on targets and addresses, and by the jobs the caller holds. One caller
// at a time: it has no lock.
type Schedule struct {
	agent      wire.AgentName
	maxPPS     float64
	maxTargets int
	probes     []string
	rand       func() float64

	// The list.
	entries  map[Key]*entry // jobs of the list, and those that left it while in flight
	queue    queue          // jobs that wait for their time, the next one first
	lists    uint32         // counts lists, to tell which entries the last one named
	targets  int
	clamped  int
	refused  int
	refusals []wire.Refusal

	// Time.
	last   time.Time     // the latest time a caller told
	clock  time.Duration // how much time has passed for the jobs
	tokens float64       // packets that may be sent now; below zero after a large round

	// Pace.
	stretch float64
	swarm   swarm

	addresses map[netip.Addr]*address
	nextSweep time.Duration
	postponed uint64
	full      uint64
}

// New returns a Schedule without a list.
func New(o Options) *Schedule {
	s := &Schedule{
		agent:      o.Agent,
		maxPPS:     DefaultMaxPPS,
		maxTargets: DefaultMaxTargets,
		probes:     o.Probes,
		rand:       o.Rand,
		entries:    make(map[Key]*entry),
		stretch:    1,
		swarm:      swarm{agents: 1, known: 1},
		addresses:  make(map[netip.Addr]*address),
	}
	if o.MaxPPS > 0 && o.MaxPPS < DefaultMaxPPS {
		s.maxPPS = o.MaxPPS
	}
	if o.MaxTargets > 0 && o.MaxTargets < DefaultMaxTargets {
		s.maxTargets = o.MaxTargets
	}
	if s.probes == nil {
		s.probes = []string{wire.DefaultProbe}
	}
	if s.rand == nil {
		s.rand = rand.Float64
	}
	s.tokens = s.burst()
	return s
}

// An entry is a job and where it stands.
type entry struct {
	job   Job
	asked time.Duration // the interval of the list, within the limits
	every time.Duration // the interval in force, longer than asked if need be

	due   time.Duration // when to start the next round, on the schedule's clock
	index int           // in the queue; -1 when it is not there
	held  bool          // the caller has it: from Next to Done, or to an Admit that says no
	fresh bool          // no round yet
	gone  bool          // left the list while held
	list  uint32        // the last list that named it

	at   *address // where its round is in flight, or where it waits for its turn
	sent load     // the round the caller was told to make; the list may have changed since
}

// Next returns a job whose time has come; it is the caller's until Done, or
// until Admit refuses it. Call it until ok is false, then again at [Schedule.Wake].
func (s *Schedule) Next(now time.Time) (job Job, ok bool) {
	s.advance(now)
	if len(s.queue) == 0 || s.queue[0].due > s.clock || s.tokens <= 0 {
		return Job{}, false
	}
	e := heap.Pop(&s.queue).(*entry)
	e.held, e.sent = true, loadOf(e.job)
	s.tokens -= float64(e.sent.count) // never given back: it may be too late to use them
	e.due += s.following(e)
	e.fresh = false
	return e.job, true
}

// Wake returns when to call Next again; ok is false while there is nothing to
// wait for. After a Next without a job it lies in the future. Any other call may
// change it.
func (s *Schedule) Wake() (at time.Time, ok bool) {
	if len(s.queue) == 0 {
		return time.Time{}, false
	}
	wait := max(s.queue[0].due-s.clock, 0)
	if s.tokens <= 0 {
		wait = max(wait, seconds(-s.tokens/s.maxPPS)+time.Millisecond)
	}
	return s.last.Add(wait), true
}

// Admit says whether the job may be measured at addr now. If not, it has been
// put back to a time the schedule chose, or forgotten if it left the list, and
// the caller must not report it Done.
func (s *Schedule) Admit(now time.Time, key Key, addr netip.Addr) (ok bool) {
	s.advance(now)
	e := s.entries[key]
	if e == nil || !e.held || e.at != nil && e.at.round == e {
		return false
	}
	if e.gone || !addr.IsValid() {
		s.release(e)
		return false
	}
	a := s.address(addr)
	if e.at != nil && e.at != a {
		s.leave(e) // it waited elsewhere, and its name has moved
	}
	switch {
	case a == nil:
		s.full++
		s.release(e)
	case a.round == nil && (a.turn == nil || a.turn == e) && a.free <= s.clock:
		a.turn, a.round, e.at = nil, e, a
		a.last, a.free = e.sent, s.clock+s.swarm.pace(e.sent)
		e.due = max(e.due, a.free)
		return true
	default:
		e.held = false
		s.wait(e, a)
	}
	s.postponed++
	return false
}

// Done reports that a job's round is over, or failed before it began. A job
// that is not held is ignored.
func (s *Schedule) Done(now time.Time, key Key) {
	s.advance(now)
	if e := s.entries[key]; e != nil && e.held {
		s.release(e)
	}
}

// release takes e back from the caller.
func (s *Schedule) release(e *entry) {
	e.held = false
	s.leave(e)
	if e.gone {
		delete(s.entries, e.job.Key)
		return
	}
	e.due = max(e.due, s.clock)
	heap.Push(&s.queue, e)
}

// Refusals returns the targets of the list in force that are not measured, with
// the reason, in the list's order and at most 100. The caller must not change it.
func (s *Schedule) Refusals() []wire.Refusal { return s.refusals }

// Targets returns how many targets of the list are measured.
func (s *Schedule) Targets() int { return s.targets }

// Stretch returns the factor by which every interval is longer because the list
// asks for more packets than the agent may send; 1 as long as it does not. What
// the swarm's budget adds is not in it.
func (s *Schedule) Stretch() float64 { return s.stretch }

// Stats returns the counters.
func (s *Schedule) Stats() Stats {
	st := Stats{Clamped: s.clamped, Refused: s.refused, Agents: s.swarm.agents, Addresses: len(s.addresses), Postponed: s.postponed, Full: s.full}
	for _, a := range s.addresses {
		st.Waiting += len(a.waiting)
	}
	return st
}

package ingest

import (
	"cmp"
	"slices"
	"time"

	"swarming/shared/wire"
)

// Stats is a snapshot for people and metrics. Counts are since the start.
type Stats struct {
	Name    wire.CollectorName `json:"name"`
	Boot    wire.Boot          `json:"boot"`
	Observe bool               `json:"observe"`

	Received    uint64 `json:"received"`     // messages on ping/…, of whatever worth
	Stored      uint64 `json:"stored"`       // results that were new to the journal
	Duplicates  uint64 `json:"duplicates"`   // results that it had
	Acked       uint64 `json:"acked"`        // results acknowledged
	Acks        uint64 `json:"acks"`         // messages that did so
	AcksDropped uint64 `json:"acks_dropped"` // results not acknowledged for lack of room or connection; they are sent again

	Refused       map[string]map[string]uint64 `json:"refused"` // messages by kind and reason
	EventsDropped uint64                       `json:"events_dropped"`
	Results       QueueStats                   `json:"results_queue"`
	Control       QueueStats                   `json:"control_queue"` // everything but results

	JournalError string    `json:"journal_error,omitempty"` // why it takes nothing now
	JournalSince time.Time `json:"journal_failing_since,omitzero"`

	Brokers       []BrokerStats    `json:"brokers"`
	Collectors    []CollectorStats `json:"collectors"`      // others, at most 64
	LiveAgents    int              `json:"live_agents"`     // heard within 3 min and not gone
	AgentsOverCap uint64           `json:"agents_over_cap"` // messages of agents that are not in the table for lack of room
	Agents        []AgentStats     `json:"agents"`          // by name
}

// BrokerStats is the state of the connection to one broker.
type BrokerStats struct {
	Broker    string    `json:"broker"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`    // it is connected, or fails
	Messages  uint64    `json:"messages"`          // received
	Discarded uint64    `json:"discarded"`         // received, and no room for them
	Unsent    uint64    `json:"unsent"`            // to be published, and no room for them
	Failures  int       `json:"failures"`          // since it last worked
	Problem   string    `json:"problem,omitempty"` // the last failure
	Hint      string    `json:"hint,omitempty"`    // what to try
}

// CollectorStats is another collector, by its heartbeat.
type CollectorStats struct {
	Name wire.CollectorName `json:"name"`
	Boot wire.Boot          `json:"boot"`
	Rev  int64              `json:"rev"`
	Seen time.Time          `json:"seen"`
}

// AgentStats is what is known of one agent.
type AgentStats struct {
	Name    wire.AgentName    `json:"name"`
	Boot    wire.Boot         `json:"boot"`
	Conn    uint64            `json:"conn"`
	Alive   bool              `json:"alive"`
	Seen    time.Time         `json:"seen"`
	Broker  string            `json:"broker,omitempty"` // over which it was heard last
	Gone    wire.RipReason    `json:"gone,omitempty"`   // by its last word or will
	Twins   bool              `json:"twins,omitempty"`  // two are alive under this name
	Version string            `json:"version,omitempty"`
	OS      string            `json:"os,omitempty"`
	Arch    string            `json:"arch,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`

	Results     uint64  `json:"results"`              // received since the collector started
	ClockOffset float64 `json:"clock_offset_seconds"` // its clock minus ours, by its last heartbeat

	Uptime      int64          `json:"uptime"` // this and the rest as in its heartbeat
	Targets     int            `json:"targets"`
	Rev         int64          `json:"rev"`
	Sent        uint64         `json:"sent"`
	Resent      uint64         `json:"resent"`
	Pending     int            `json:"pending"`
	Unconfirmed uint64         `json:"unconfirmed"`
	Lost        uint64         `json:"lost"`
	Refused     uint64         `json:"refused"`
	Refusals    []wire.Refusal `json:"refusals,omitempty"`
	Stretch     float64        `json:"stretch,omitempty"`
	Problem     string         `json:"problem,omitempty"`
}

// Stats returns a snapshot.
func (i *Ingest) Stats() Stats {
	now := i.opts.Now()
	st := Stats{
		Name: i.opts.Name, Boot: i.opts.Boot, Observe: i.opts.Observe,
		Received: i.counters.received.Load(), Stored: i.counters.stored.Load(), Duplicates: i.counters.duplicates.Load(),
		Acked: i.counters.acked.Load(), Acks: i.counters.acks.Load(), AcksDropped: i.counters.acksDropped.Load(),
		Refused: i.refused.snapshot(), Results: i.results.stats(), Control: i.control.stats(),
	}
	i.events.mu.Lock()
	st.EventsDropped = i.events.dropped
	i.events.mu.Unlock()
	if st.JournalError, st.JournalSince = i.storing.state(); st.JournalError == "" {
		st.JournalError, st.JournalSince = i.saving.state()
	}
	for _, l := range i.links {
		st.Brokers = append(st.Brokers, l.stats())
	}
	i.agents.snapshot(&st, now, func(n int) string {
		if n < 0 {
			return ""
		}
		return i.addr(n)
	})
	return st
}

func (l *link) stats() BrokerStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return BrokerStats{l.name, l.up, l.since, l.messages, l.discarded, l.out.full.Load(), l.failures, l.problem, l.hint}
}

func (r *registry) snapshot(st *Stats, now time.Time, addr func(int) string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.AgentsOverCap = r.overCap
	for _, c := range r.collectors {
		st.Collectors = append(st.Collectors, c)
	}
	st.Agents = make([]AgentStats, 0, len(r.agents))
	for name, a := range r.agents {
		s := a.stats(now)
		s.Name, s.Broker = name, addr(a.broker)
		if s.Alive {
			st.LiveAgents++
		}
		st.Agents = append(st.Agents, s)
	}
	slices.SortFunc(st.Agents, func(a, b AgentStats) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(st.Collectors, func(a, b CollectorStats) int { return cmp.Compare(a.Name, b.Name) })
}

// stats returns a snapshot that shares the heartbeat's maps and slices, which
// nobody changes.
func (a *agent) stats(now time.Time) AgentStats {
	l := a.live
	s := AgentStats{
		Boot: a.boot, Conn: l.Conn, Alive: a.alive(now), Seen: a.seen, Version: l.Version, OS: l.OS, Arch: l.Arch, Labels: l.Labels,
		Results: a.results, ClockOffset: a.offset.Seconds(), Uptime: l.Uptime, Targets: l.Targets, Rev: l.Rev, Sent: l.Sent, Resent: l.Resent,
		Pending: l.Pending, Unconfirmed: l.Unconfirmed, Lost: l.Lost, Refused: l.Refused, Refusals: l.Refusals, Stretch: l.Stretch, Problem: l.Problem,
		Twins: !a.twinsAt.IsZero() && now.Sub(a.twinsAt) <= aliveFor,
	}
	if a.dead() {
		s.Gone = a.reason
	}
	return s
}

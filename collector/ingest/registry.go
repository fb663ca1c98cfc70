package ingest

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"swarming/collector/journal"
	"swarming/shared/wire"
)

const (
	aliveFor      = 3 * time.Minute // after an agent was heard
	forgetAfter   = 24 * time.Hour  // without a word, when there is no room for another
	warnEvery     = time.Minute
	maxCollectors = 64 // others that are remembered
	maxWarnings   = 64 // names warned about in one minute
)

// A registry remembers who is there. It holds at most max agents; results of
// others are stored all the same.
type registry struct {
	max   int
	log   *slog.Logger
	event func(journal.Event)

	mu         sync.Mutex
	agents     map[wire.AgentName]*agent
	collectors map[wire.CollectorName]CollectorStats
	overCap    uint64 // messages of agents that found no room
	swept      time.Time
	warned     map[string]time.Time
}

// An agent is what is known of one name.
type agent struct {
	met    bool           // it has sent a heartbeat, in this run or before
	live   wire.LiveAgent // the last heartbeat
	beatAt time.Time      // when it came, in this run
	boot   wire.Boot      // of it, or of results while there is none
	seen   time.Time      // when anything came from it
	broker int            // over which; -1 before, in this run

	results uint64        // since the start
	offset  time.Duration // its clock minus ours, with the way here

	ripAt  time.Time // of the last rip that counts; over when heard later
	reason wire.RipReason

	previous   wire.Boot // the boot before, for twins
	previousAt time.Time // of its last heartbeat
	returns    int       // how often in a row the boot before came back
	twinsAt    time.Time // when they took turns last

	changed bool // who it is, since it was saved
	heard   bool // since it was saved
}

func newRegistry(limit int, log *slog.Logger, event func(journal.Event)) *registry {
	return &registry{
		max: limit, log: log, event: event, agents: make(map[wire.AgentName]*agent),
		collectors: make(map[wire.CollectorName]CollectorStats), warned: make(map[string]time.Time),
	}
}

// remember takes over agents of an earlier run, the last seen first, so that
// they are not news.
func (r *registry) remember(known []journal.AgentInfo) {
	known = slices.SortedFunc(slices.Values(known), func(a, b journal.AgentInfo) int { return b.Seen.Compare(a.Seen) })
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range known[:min(len(known), r.max)] {
		r.agents[k.Name] = &agent{
			met: true, boot: k.Boot, seen: k.Seen, broker: -1,
			live: wire.LiveAgent{Agent: k.Name, Boot: k.Boot, Version: k.Version, OS: k.OS, Arch: k.Arch, Labels: k.Labels},
		}
	}
}

// get returns the agent of that name, a new one while there is room, or nil.
func (r *registry) get(name wire.AgentName, now time.Time) *agent {
	if a := r.agents[name]; a != nil {
		return a
	}
	if len(r.agents) >= r.max {
		r.sweep(now)
	}
	if len(r.agents) >= r.max {
		r.overCap++
		return nil
	}
	a := &agent{broker: -1}
	r.agents[name] = a
	return a
}

// sweep forgets the long silent, at most once a minute.
func (r *registry) sweep(now time.Time) {
	if now.Sub(r.swept) < time.Minute {
		return
	}
	r.swept = now
	for name, a := range r.agents {
		if now.Sub(a.seen) > forgetAfter {
			delete(r.agents, name)
		}
	}
}

// heard notes results.
func (r *registry) heard(entries []journal.Entry, from []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range entries {
		e := &entries[n]
		a := r.get(e.Result.Agent, e.Received)
		if a == nil {
			continue
		}
		if !a.met && a.boot != e.Result.Boot {
			a.boot, a.changed = e.Result.Boot, true
		}
		a.seen, a.broker, a.heard = e.Received, from[n], true
		a.results++
	}
}

// heartbeat notes an agent's heartbeat, and makes an event of it if the agent
// is new, started anew or was silent.
func (r *registry) heartbeat(l wire.LiveAgent, m inbound, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.get(l.Agent, m.at)
	if a == nil {
		return
	}
	what, extra := "", map[string]any{}
	switch silent := m.at.Sub(a.seen); {
	case !a.met:
		what = "first"
	case a.live.Boot != l.Boot:
		what = "boot"
		r.twins(a, l, m.at)
	case silent > aliveFor && a.broker >= 0:
		what = "back"
		extra["silent_s"] = int64(silent.Seconds())
	}
	if what != "" {
		extra["what"], extra["version"] = what, l.Version
		r.event(journal.Event{
			At: l.At, Received: m.at, Kind: "live", Agent: l.Agent, Boot: l.Boot, Conn: l.Conn, Reason: what, Broker: addr, Detail: detail(extra),
		})
	}
	a.changed = a.changed || what == "first" || !sameAgent(a.live, l)
	a.met, a.live, a.boot = true, l, l.Boot
	a.seen, a.broker, a.heard = m.at, m.broker, true
	if a.beatAt = m.at; !l.At.IsZero() {
		a.offset = l.At.Sub(m.at)
	}
}

// twins notices two machines under one name: boots that take turns. A restart
// is one change of boot, and a heartbeat that was late on its way makes two
// returns of it; three while both are heard are no restart.
func (r *registry) twins(a *agent, l wire.LiveAgent, now time.Time) {
	if l.Boot == a.previous && now.Sub(a.previousAt) <= aliveFor {
		a.returns++
	} else {
		a.returns = 0
	}
	a.previous, a.previousAt = a.live.Boot, a.beatAt
	if a.returns < 3 {
		return
	}
	a.twinsAt = now
	if r.mayWarn(string(l.Agent), now) {
		r.log.Warn("two agents are alive under one name; give one of them another", "agent", string(l.Agent), "boots", []wire.Boot{a.previous, l.Boot})
	}
}

// gone notes a rip and reports whether it counts: whether it is about the
// agent's latest connection. Without a heartbeat nothing is known of those, and
// a rip without boot is taken at its word.
func (r *registry) gone(rip wire.Rip, m inbound) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[rip.Agent]
	if a == nil || rip.Boot != a.live.Boot || rip.Conn != a.live.Conn {
		return false
	}
	a.ripAt, a.reason = m.at, rip.Reason
	return true
}

// collector notes another collector's heartbeat.
func (r *registry) collector(l wire.LiveCollector, now time.Time, ownName wire.CollectorName, ownBoot wire.Boot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.Name == ownName {
		if l.Boot != ownBoot && r.mayWarn("collector "+string(l.Name), now) {
			r.log.Warn("another collector has this one's name; give it its own with --name", "name", string(l.Name), "boot", string(l.Boot))
		}
		return
	}
	if _, ok := r.collectors[l.Name]; !ok && len(r.collectors) >= maxCollectors {
		for name, c := range r.collectors {
			if now.Sub(c.Seen) > aliveFor {
				delete(r.collectors, name)
			}
		}
		if len(r.collectors) >= maxCollectors {
			return
		}
	}
	r.collectors[l.Name] = CollectorStats{Name: l.Name, Boot: l.Boot, Rev: l.Rev, Seen: now}
}

// mayWarn allows one warning a minute and name, of few names.
func (r *registry) mayWarn(name string, now time.Time) bool {
	if now.Sub(r.warned[name]) < warnEvery {
		return false
	}
	if len(r.warned) >= maxWarnings {
		for n, at := range r.warned {
			if now.Sub(at) >= warnEvery {
				delete(r.warned, n)
			}
		}
		if len(r.warned) >= maxWarnings {
			return false
		}
	}
	r.warned[name] = now
	return true
}

func (a *agent) alive(now time.Time) bool {
	return now.Sub(a.seen) <= aliveFor && !a.dead() && a.broker >= 0
}

// dead reports whether a rip counts that nothing came after.
func (a *agent) dead() bool { return !a.ripAt.IsZero() && !a.seen.After(a.ripAt) }

// live returns how many agents are alive.
func (r *registry) live(now time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.agents {
		if a.alive(now) {
			n++
		}
	}
	return n
}

func sameAgent(a, b wire.LiveAgent) bool {
	return a.Boot == b.Boot && a.Version == b.Version && a.OS == b.OS && a.Arch == b.Arch && maps.Equal(a.Labels, b.Labels)
}

package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"swarming/agent/probe"
	"swarming/agent/schedule"
	"swarming/shared/wire"
)

// A measurer drives rounds from the schedule through the resolver and the
// probe to the outbox. Its one goroutine sleeps until the schedule's next due
// time; the steps in between run as callbacks of the resolver and the probe,
// so a round in flight costs no goroutine.
type measurer struct {
	resolver *probe.Resolver
	engine   *probe.Engine
	add      func(*wire.Result)
	log      *slog.Logger
	wake     chan struct{} // holds one: the schedule may have changed

	mu       sync.Mutex // guards what follows
	schedule *schedule.Schedule
	rev      int64
	refused  []wire.Refusal // by the list's reader, before the schedule saw them
}

func (m *measurer) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for _, job := range m.due(time.Now()) {
			m.resolver.Get(time.Now(), job.Host, job.Family, func(a probe.Answer) { m.resolved(job, a) })
		}
		timer.Reset(m.untilNext())
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-m.wake:
		}
	}
}

// due takes all jobs whose time has come.
func (m *measurer) due(now time.Time) []schedule.Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	var jobs []schedule.Job
	for {
		job, ok := m.schedule.Next(now)
		if !ok {
			return jobs
		}
		jobs = append(jobs, job)
	}
}

func (m *measurer) untilNext() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.schedule.Wake()
	if !ok {
		return time.Hour
	}
	return max(time.Until(at), time.Millisecond)
}

func (m *measurer) kick() {
	select {
	case m.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// resolved goes on with a job whose host has been looked up.
func (m *measurer) resolved(job schedule.Job, a probe.Answer) {
	now := time.Now()
	if a.Cause != "" {
		m.log.Debug("cannot resolve", "target", job.Target, "cause", a.Cause, "err", a.Err)
		m.finish(job, a.Addr, probe.Outcome{Start: now, Cause: a.Cause, Stopped: errors.Is(a.Err, probe.ErrStopped)})
		return
	}
	m.mu.Lock()
	ok := m.schedule.Admit(now, job.Key, a.Addr)
	m.mu.Unlock()
	if !ok { // put back by the schedule: this address is not to be pinged yet
		m.kick()
		return
	}
	round := probe.Round{Addr: a.Addr, Count: job.Count, Gap: job.Gap, Timeout: job.Timeout}
	m.engine.Start(round, func(o probe.Outcome) { m.finish(job, a.Addr, o) })
}

// finish turns an outcome into a result: a failed round is one too.
func (m *measurer) finish(job schedule.Job, addr netip.Addr, o probe.Outcome) {
	m.mu.Lock()
	m.schedule.Done(time.Now(), job.Key)
	m.mu.Unlock()
	m.kick()
	if o.Stopped {
		return // the program ends: nothing was measured
	}
	if o.Sent > 0 && !o.Answered() {
		m.resolver.Failed(job.Host, job.Family)
	}
	if o.Err != "" {
		m.log.Debug("round failed on this machine", "target", job.Target, "err", o.Err)
	}
	r := NewResult(job.Target, job.Probe, addr, o)
	m.add(&r)
}

// NewResult describes the outcome of one round at addr, which is invalid when
// the target's host could not be resolved. Agent, Boot and Seq are the outbox's.
func NewResult(target wire.TargetID, word string, addr netip.Addr, o probe.Outcome) wire.Result {
	r := wire.Result{V: wire.Version, At: o.Start, Target: target, Probe: word, Addr: addr.Unmap(),
		Sent: o.Sent, Late: o.Late, Cause: o.Cause, From: o.From, Stamp: o.Stamp}
	switch {
	case addr.Is4() || addr.Is4In6():
		r.Family = 4
	case addr.Is6():
		r.Family = 6
	}
	if len(o.RTTs) > 0 {
		r.RTTs = make(wire.RTTs, len(o.RTTs))
		for i, d := range o.RTTs {
			r.RTTs[i] = float64(d) / float64(time.Millisecond)
		}
	}
	r.Summarise()
	return r
}

// apply puts a new watch list into force.
func (m *measurer) apply(w wire.Watch) {
	m.mu.Lock()
	m.schedule.Apply(time.Now(), w)
	m.rev, m.refused = w.Rev, w.Refused
	targets := m.schedule.Targets()
	m.mu.Unlock()
	m.log.Info("watch list taken", "targets", targets, "refused", len(m.snapshot().refusals), "rev", w.Rev, "by", w.By)
	m.kick()
}

// collector hears how many agents share the swarm's budget.
func (m *measurer) collector(c wire.LiveCollector) {
	if c.Agents == nil {
		return
	}
	m.mu.Lock()
	m.schedule.SetAgents(time.Now(), *c.Agents)
	m.mu.Unlock()
	m.kick()
}

// A snapshot is what the heartbeat tells of the measuring.
type snapshot struct {
	targets  int
	rev      int64
	stretch  float64
	refusals []wire.Refusal
}

func (m *measurer) snapshot() snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	refusals := append(append([]wire.Refusal(nil), m.refused...), m.schedule.Refusals()...)
	return snapshot{targets: m.schedule.Targets(), rev: m.rev, stretch: m.schedule.Stretch(), refusals: refusals}
}

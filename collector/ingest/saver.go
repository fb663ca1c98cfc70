package ingest

import (
	"context"
	"sync"
	"time"

	"swarming/collector/journal"
)

const (
	maxEvents  = 4096            // that wait for the journal
	saveNews   = 2 * time.Second // how soon a new or changed agent is saved
	saveAll    = time.Minute     // how often everybody who was heard is saved
	saveFailed = 5 * time.Second // pause after the journal refused
)

// An eventBuffer holds events until the journal takes them. Beyond maxEvents
// the newest are dropped and counted.
type eventBuffer struct {
	mu      sync.Mutex
	events  []journal.Event
	dropped uint64
}

func (b *eventBuffer) add(e journal.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.events) >= maxEvents {
		b.dropped++
		return
	}
	b.events = append(b.events, e)
}

func (b *eventBuffer) take() []journal.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events
}

// putBack returns events that could not be stored, before newer ones.
func (b *eventBuffer) putBack(events []journal.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := max(0, maxEvents-len(b.events))
	b.dropped += uint64(max(0, len(events)-room))
	b.events = append(events[:min(room, len(events))], b.events...)
}

// A saver brings events and agents into the journal. It belongs to storeLoop.
type saver struct {
	in      *Ingest
	news    time.Time // when changed agents were saved
	full    time.Time // when all that were heard were saved
	pausing time.Time // until when, after a failure
}

func newSaver(i *Ingest) *saver { return &saver{in: i, full: i.opts.Now()} }

// save stores what is due.
func (s *saver) save(ctx context.Context) {
	now := s.in.opts.Now()
	if now.Before(s.pausing) && s.pausing.Sub(now) <= saveFailed {
		return
	}
	if !s.events(ctx) {
		s.pausing = now.Add(saveFailed)
		return
	}
	switch {
	case now.Sub(s.full) >= saveAll || now.Before(s.full):
		s.full, s.news = now, now
		s.agents(ctx, true)
	case now.Sub(s.news) >= saveNews || now.Before(s.news):
		s.news = now
		s.agents(ctx, false)
	}
}

// all stores everything, at the end.
func (s *saver) all(ctx context.Context) {
	if s.events(ctx) {
		s.agents(ctx, true)
	}
}

func (s *saver) events(ctx context.Context) bool {
	events := s.in.events.take()
	if len(events) == 0 {
		return true
	}
	if err := s.in.opts.Journal.AppendEvents(ctx, events); err != nil {
		s.in.events.putBack(events)
		s.in.saving.note(err)
		return false
	}
	s.in.saving.over()
	return true
}

func (s *saver) agents(ctx context.Context, everybody bool) {
	infos := s.in.agents.unsaved(everybody)
	if len(infos) == 0 {
		return
	}
	if err := s.in.opts.Journal.SaveAgents(ctx, infos); err != nil {
		s.in.agents.resave(infos)
		s.in.saving.note(err)
		s.pausing = s.in.opts.Now().Add(saveFailed)
		return
	}
	s.in.saving.over()
}

// unsaved returns the agents that changed, or all that were heard, since they
// were saved, and takes them for saved.
func (r *registry) unsaved(everybody bool) (infos []journal.AgentInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, a := range r.agents {
		if !a.changed && !(everybody && a.heard) {
			continue
		}
		a.changed, a.heard = false, false
		infos = append(infos, journal.AgentInfo{
			Name: name, Boot: a.boot, Labels: a.live.Labels, Version: a.live.Version, OS: a.live.OS, Arch: a.live.Arch, Seen: a.seen,
		})
	}
	return infos
}

// resave takes back that infos were saved.
func (r *registry) resave(infos []journal.AgentInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, info := range infos {
		if a := r.agents[info.Name]; a != nil {
			a.changed = true
		}
	}
}

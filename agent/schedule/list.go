package schedule

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"swarming/shared/wire"
)

// maxRefusals is how many refusals are kept; more are only counted.
const maxRefusals = 100

// Apply puts a watch list into force, as the difference to the one before:
// targets that stay keep their place in time, even when their settings change,
// and an equal list changes nothing. A list without targets stops all.
//
// A target is refused, and the others are not, when its probe or a word in its
// needs is unknown, when an earlier one has the same name, and when it comes
// after MaxTargets others.
func (s *Schedule) Apply(now time.Time, w wire.Watch) {
	s.advance(now)
	s.lists++
	s.targets, s.clamped, s.refused, s.refusals = 0, 0, 0, nil
	names := make(map[wire.TargetID]bool, min(len(w.Targets), s.maxTargets))
	var added []*entry
	changed := false
	for _, t := range w.Targets {
		if reason := s.whyNot(t, names); reason != "" {
			s.refuse(t.Target, reason)
			continue
		}
		names[t.Target] = true
		s.targets++
		t, clamped := clamp(t.WithDefaults())
		if clamped {
			s.clamped++
		}
		for _, f := range families(t.Family) {
			e, isNew, differs := s.put(t, f)
			if isNew {
				added = append(added, e)
			}
			changed = changed || differs
		}
	}
	if s.removeOthers() || changed || len(added) > 0 {
		s.retime(false)
	}
	s.start(added)
}

// whyNot returns why t cannot be measured, as a sentence, or "".
func (s *Schedule) whyNot(t wire.Target, names map[wire.TargetID]bool) string {
	switch t = t.WithDefaults(); {
	case !slices.Contains(s.probes, t.Probe):
		return fmt.Sprintf("probe %.40q is not known to this agent: it knows %s", t.Probe, strings.Join(s.probes, ", "))
	case len(t.Needs) > 0:
		return fmt.Sprintf("the target needs %.40q, which is not known to this agent: a newer version may do", t.Needs[0])
	case names[t.Target]:
		return "the list has this target twice: only the first counts"
	case s.targets >= s.maxTargets:
		return fmt.Sprintf("the list has more targets than this agent takes, %d", s.maxTargets)
	}
	return ""
}

func (s *Schedule) refuse(t wire.TargetID, reason string) {
	s.refused++
	if len(s.refusals) < maxRefusals {
		s.refusals = append(s.refusals, wire.Refusal{Target: wire.TargetID(strings.Clone(string(t))), Reason: reason})
	}
}

func families(f wire.Family) []wire.Family {
	switch f {
	case wire.Family4:
		return []wire.Family{wire.Family4}
	case wire.Family6:
		return []wire.Family{wire.Family6}
	case wire.FamilyBoth:
		return []wire.Family{wire.Family4, wire.Family6}
	}
	return []wire.Family{wire.FamilyAny}
}

// put makes t, over one family, a job of the list.
func (s *Schedule) put(t wire.Target, f wire.Family) (e *entry, isNew, differs bool) {
	e = s.entries[Key{t.Target, f}]
	if isNew = e == nil; isNew {
		// A list's strings may be parts of its payload, which must not stay.
		id := wire.TargetID(strings.Clone(string(t.Target)))
		e = &entry{job: Job{Key: Key{id, f}, Target: id, Family: f}, index: -1, fresh: true}
		s.entries[e.job.Key] = e
	}
	job := e.job
	job.Host, job.Probe = t.Host, s.probes[slices.Index(s.probes, t.Probe)]
	job.Count, job.Gap, job.Timeout = t.Count, time.Duration(t.Gap), time.Duration(t.Timeout)
	differs = e.job != job || e.asked != time.Duration(t.Interval) || e.gone
	if differs {
		if job.Host == string(job.Target) {
			job.Host = string(job.Target)
		} else {
			job.Host = strings.Clone(job.Host)
		}
		e.job, e.asked, e.gone = job, time.Duration(t.Interval), false
	}
	e.list = s.lists
	return e, isNew, differs
}

// removeOthers takes out what the list did not name, and reports whether there
// was any. A job that the caller holds goes when he gives it back.
func (s *Schedule) removeOthers() (removed bool) {
	for key, e := range s.entries {
		switch {
		case e.list == s.lists || e.gone:
			continue
		case e.held:
			e.gone = true
		default:
			s.queue.remove(e)
			s.leave(e)
			delete(s.entries, key)
		}
		removed = true
	}
	return removed
}

// start gives new jobs their first time: soon, but not faster than the agent may
// send; in a large swarm, anywhere in their interval.
func (s *Schedule) start(added []*entry) {
	var packets float64
	for _, e := range added {
		packets += float64(e.job.Count)
	}
	soon := max(quickStart, seconds(packets/s.maxPPS))
	for _, e := range added {
		span := soon
		if s.swarm.known > quickSwarm {
			span = e.every
		}
		e.due = s.clock + s.offset(e, span)
		s.queue.Push(e)
	}
	s.queue.fix()
}

package collector

import (
	"context"
	"fmt"
	"math"
	"time"

	"swarming/collector/ingest"
	"swarming/collector/journal"
	"swarming/collector/watch"
	"swarming/shared/version"
	"swarming/shared/wire"
)

// A Status is all that a person may want to know of a running collector. It is
// what /status answers, and what the status subcommand prints.
type Status struct {
	Version  string    `json:"version"`
	Now      time.Time `json:"now"`
	Started  time.Time `json:"started"`
	Problems []string  `json:"problems"` // what needs a person; empty when all is well

	Ingest  ingest.Stats   `json:"ingest"`
	Watch   watch.Stats    `json:"watch"`
	Journal JournalStatus  `json:"journal"`
	Export  []ExportStatus `json:"export"`

	// Missing counts the results below the highest seq of their agent and boot
	// that are not stored. It is taken from the results themselves, so it needs
	// no trust in an agent's counters. What is on its way counts until it comes.
	Missing int64           `json:"missing"`
	Losses  []MissingStatus `json:"losses"` // whose they are, at most maxLosses
}

const maxLosses = 20

// JournalStatus is the state of the journal.
type JournalStatus struct {
	Results    int64     `json:"results"`
	Events     int64     `json:"events"`
	Oldest     time.Time `json:"oldest,omitzero"`
	Bytes      int64     `json:"bytes"`
	FreeBytes  int64     `json:"free_bytes"`
	Duplicates uint64    `json:"duplicates"`
	Pruned     uint64    `json:"pruned"` // results deleted by retention
	Full       bool      `json:"full"`
	Damaged    string    `json:"damaged,omitempty"` // where a damaged file was put aside
}

// MissingStatus is one process of an agent of which results are missing.
type MissingStatus struct {
	Agent   wire.AgentName `json:"agent"`
	Boot    wire.Boot      `json:"boot"`
	Missing int64          `json:"missing"`
	Since   time.Time      `json:"since"` // the first result of that process
	Last    time.Time      `json:"last"`
}

// status takes a snapshot of all parts.
func (p *parts) status(ctx context.Context) Status {
	s := Status{Version: version.String(), Now: time.Now().UTC(), Started: p.started.UTC(), Problems: []string{},
		Ingest: p.ingest.Stats(), Watch: p.watch.Stats(), Export: []ExportStatus{}, Losses: []MissingStatus{}}
	j := p.journal.Stats()
	s.Journal = JournalStatus{Results: j.Results, Events: j.Events, Oldest: j.Oldest, Bytes: j.Bytes, FreeBytes: j.FreeBytes,
		Duplicates: j.Duplicates, Pruned: j.PrunedResults, Full: j.Full, Damaged: j.Damaged}
	s.addLosses(ctx, p.journal)
	s.findProblems()
	for _, e := range p.exports {
		streams, problems := e.Status()
		s.addExport(streams, problems)
	}
	for _, c := range j.Cursors {
		if c.Lost > 0 {
			s.problem("export %s: retention deleted %d rows before they were exported", c.Name, c.Lost)
		}
	}
	return s
}

func (s *Status) problem(format string, args ...any) {
	s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
}

func (s *Status) addLosses(ctx context.Context, j *journal.Journal) {
	losses, err := j.Losses(ctx)
	if err != nil {
		return // the journal's own failure is told elsewhere
	}
	for _, l := range losses {
		s.addLoss(l)
	}
}

func (s *Status) addLoss(l journal.Loss) {
	n := l.Missing()
	if n <= 0 {
		return
	}
	// Forged seqs of 1,024 boots exceed an int64 together.
	s.Missing += min(n, math.MaxInt64-s.Missing)
	if len(s.Losses) < maxLosses {
		s.Losses = append(s.Losses, MissingStatus{l.Agent, l.Boot, n, l.First.UTC(), l.Last.UTC()})
	}
}

// findProblems lists what needs a person, of all but the exporters.
func (s *Status) findProblems() {
	for _, b := range s.Ingest.Brokers {
		if !b.Connected && b.Problem != "" {
			s.problem("broker %s is away since %s: %s%s", b.Broker, clock(b.Since), b.Problem, hint(b.Hint))
		}
	}
	if s.Journal.Full {
		s.problem("journal: the disk has %d MB left, nothing is stored until there is more; agents hold their results", s.Journal.FreeBytes>>20)
	} else if s.Ingest.JournalError != "" {
		s.problem("journal: nothing is stored since %s: %s", clock(s.Ingest.JournalSince), s.Ingest.JournalError)
	}
	if s.Journal.Damaged != "" {
		s.problem("journal: a damaged file was put aside as %s", s.Journal.Damaged)
	}
	if s.Watch.FileError != "" {
		s.problem("watch file: %s; the last good list stays in force", s.Watch.FileError)
	}
	if c := s.Watch.Conflict; c != nil {
		s.problem("watch file: %s has a later list by %q; edit the file to put it in force again", c.Broker, c.By)
	}
	for _, a := range s.Ingest.Agents {
		switch {
		case !a.Alive:
		case a.Twins:
			s.problem("agent %s: two are alive under this name; give one another --name", a.Name)
		case a.Problem != "":
			s.problem("agent %s: %s", a.Name, a.Problem)
		case a.Lost+a.Unconfirmed > 0:
			s.problem("agent %s: its outbox was full, %d results were dropped", a.Name, a.Lost+a.Unconfirmed)
		}
	}
	const most = 50
	if len(s.Problems) > most {
		s.Problems = append(s.Problems[:most], fmt.Sprintf("and %d more", len(s.Problems)-most))
	}
}

func (s *Status) addExport(streams []ExportStatus, problems []string) {
	s.Export = append(s.Export, streams...)
	s.Problems = append(s.Problems, problems...)
	for _, e := range streams {
		if !e.FailingSince.IsZero() {
			s.problem("%s takes no %s since %s: %s%s", e.To, e.Stream, clock(e.FailingSince), e.LastError, hint(e.Hint))
		}
	}
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func hint(s string) string {
	if s == "" {
		return ""
	}
	return "; " + s
}

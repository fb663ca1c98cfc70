package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"swarming/collector/journal"
	"swarming/shared/wire"
)

// statistics are what the table shows, read from the collector's journal.
type statistics struct {
	agents  []wire.AgentName
	targets []wire.TargetID
	after   int64 // the last row read; for one goroutine at a time

	mu      sync.Mutex
	count   int
	twice   int
	answers map[wire.AgentName]int
	lives   map[life]*tally
	cells   map[cellKey]*cell
}

// A life is one run of an agent, whose results are numbered from 1.
type life struct {
	agent wire.AgentName
	boot  wire.Boot
}

// A tally is what is stored of a life.
type tally struct {
	highest uint64
	stored  map[uint64]bool
}

type cellKey struct {
	agent  wire.AgentName
	target wire.TargetID
}

// A cell is what one agent measured of one target lately.
type cell struct {
	recent []wire.Result // at most keepRecent
	seen   time.Time
}

const keepRecent = 10

func newStatistics(agents []wire.AgentName, targets []demoTarget) *statistics {
	s := &statistics{agents: agents, answers: map[wire.AgentName]int{}, lives: map[life]*tally{}, cells: map[cellKey]*cell{}}
	for _, t := range targets {
		s.targets = append(s.targets, t.id)
	}
	return s
}

// follow reads results as the journal gets them, until ctx ends.
func (s *statistics) follow(ctx context.Context, dir string) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		_ = s.readAll(ctx, dir) // the journal may not be there yet
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// readAll reads what the journal got since the last call.
func (s *statistics) readAll(ctx context.Context, dir string) error {
	j, err := journal.OpenReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	defer j.Close()
	for {
		rows, err := j.ResultsAfter(ctx, s.after, 1000)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		for _, row := range rows {
			s.after = row.ID
			s.add(row.Result, row.Received)
		}
	}
}

func (s *statistics) add(r wire.Result, received time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	if r.Recv > 0 {
		s.answers[r.Agent]++
	}
	l := s.lives[life{r.Agent, r.Boot}]
	if l == nil {
		l = &tally{stored: map[uint64]bool{}}
		s.lives[life{r.Agent, r.Boot}] = l
	}
	if l.stored[r.Seq] {
		s.twice++
	}
	l.stored[r.Seq], l.highest = true, max(l.highest, r.Seq)
	key := cellKey{r.Agent, r.Target}
	c := s.cells[key]
	if c == nil {
		c = &cell{}
		s.cells[key] = c
	}
	c.recent = append(c.recent, r)
	if len(c.recent) > keepRecent {
		c.recent = c.recent[1:]
	}
	c.seen = received
}

func (s *statistics) stored() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// check returns what is wrong with what is stored, by the numbers that the
// agents gave their results.
func (s *statistics) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := 0
	for _, l := range s.lives {
		missing += int(l.highest) - len(l.stored)
	}
	if missing > 0 || s.twice > 0 {
		return fmt.Errorf("%d results are missing and %d are stored twice", missing, s.twice)
	}
	return nil
}

// silent returns the agents of which no answer is stored.
func (s *statistics) silent() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, a := range s.agents {
		if s.answers[a] == 0 {
			out = append(out, string(a))
		}
	}
	return out
}

// table has a row for each target and a column for each agent: loss, median
// and how long ago. It fits into 80 columns.
func (s *statistics) table() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	head, sub := fmt.Sprintf("%-13s", ""), fmt.Sprintf("%-13s", "")
	for _, a := range s.agents {
		head += fmt.Sprintf("  %-20s", a)
		sub += fmt.Sprintf("  %6s %8s %4s", "loss", "median", "seen")
	}
	out := []string{strings.TrimRight(head, " "), sub}
	for _, t := range s.targets {
		row := fmt.Sprintf("%-13s", t)
		for _, a := range s.agents {
			row += fmt.Sprintf("  %-20s", s.cells[cellKey{a, t}].String())
		}
		out = append(out, strings.TrimRight(row, " "))
	}
	return out
}

func (c *cell) String() string {
	if c == nil {
		return fmt.Sprintf("%6s %8s", "", "…")
	}
	var rtts []float64
	var sent, recv int
	for _, r := range c.recent {
		sent, recv = sent+r.Sent, recv+r.Recv
		for _, ms := range r.RTTs {
			if ms > 0 {
				rtts = append(rtts, ms)
			}
		}
	}
	loss, median := "-", string(c.recent[len(c.recent)-1].Cause)
	if sent > 0 {
		loss = fmt.Sprintf("%.0f%%", 100*float64(sent-recv)/float64(sent))
	}
	if len(rtts) > 0 {
		slices.Sort(rtts)
		median = fmt.Sprintf("%.3gms", rtts[len(rtts)/2])
	}
	return fmt.Sprintf("%6s %8.8s %3.0fs", loss, median, time.Since(c.seen).Seconds())
}

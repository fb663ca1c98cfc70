package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A screen shows what happens: on a terminal a table that is drawn again in
// place with the last events under it, elsewhere plain lines.
type screen struct {
	out      io.Writer
	terminal bool
	started  time.Time

	mu     sync.Mutex
	events []string // the last few
	lines  int      // drawn last time, to go back up
}

const maxEvents = 8

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, started: time.Now()}
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			s.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return s
}

// say tells of an event.
func (s *screen) say(format string, args ...any) {
	line := fmt.Sprintf("%4.0fs  %s", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...))
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal {
		fmt.Fprintln(s.out, line)
		return
	}
	s.events = append(s.events, line)
	if len(s.events) > maxEvents {
		s.events = s.events[1:]
	}
}

// run draws the table every second on a terminal, and every 10 s elsewhere,
// until ctx ends; then once more.
func (s *screen) run(ctx context.Context, table func() []string) error {
	every := time.Second
	if !s.terminal {
		every = 10 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.draw(table())
			return nil
		case <-tick.C:
			s.draw(table())
		}
	}
}

// finish draws a terminal's last picture; elsewhere all has been printed.
func (s *screen) finish(table []string) {
	if s.terminal {
		s.draw(table)
	}
}

func (s *screen) draw(table []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal {
		fmt.Fprintf(s.out, "\n%s\n\n", strings.Join(table, "\n"))
		return
	}
	all := append(append(append([]string(nil), table...), ""), s.events...)
	var b strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.lines)
	}
	for _, line := range all {
		b.WriteString("\x1b[2K" + line + "\n")
	}
	s.lines = len(all)
	io.WriteString(s.out, b.String())
}

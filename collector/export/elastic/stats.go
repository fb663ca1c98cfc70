package elastic

import (
	"log/slog"
	"sync"
	"time"
)

// Stats are what an exporter has done since it was made, and how it is.
type Stats struct {
	Results, Events StreamStats
	// TemplateProblem is why the index templates could not be put, and what to
	// do; empty if they are there.
	TemplateProblem string
}

// StreamStats are about the export of one kind of rows.
type StreamStats struct {
	Exported     uint64 // documents created
	Duplicates   uint64 // documents that were there already: sent before, or by another collector
	Rejected     uint64 // documents that Elasticsearch will never take, passed over
	LastRejected string // the last of them and why, bounded

	Cursor int64         // id of the last row that is stored with all before it
	Lag    time.Duration // since the oldest row that is read but not stored was received; 0 when all is stored

	FailingSince time.Time // zero: all is well
	LastError    string    // why it is failing
	Hint         string    // what to try
	Failures     uint64    // attempts that failed, ever
}

// Stats returns a snapshot. It may be called at any time.
func (e *Exporter) Stats() Stats {
	s := Stats{Results: e.results.snapshot(), Events: e.events.snapshot()}
	s.TemplateProblem = e.prepare.problemText()
	return s
}

func (s *stream) snapshot() StreamStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	if len(s.pending) > 0 {
		st.Lag = max(1, s.e.opts.Now().Sub(s.pending[0].since))
	}
	s.health.fill(&st)
	return st
}

// health knows whether anything of a stream is failing. A failure is logged
// when it begins, when what to do about it changes (at most once a minute), and
// when it is over.
type health struct {
	name  string
	log   *slog.Logger
	now   func() time.Time
	hints func(error) string

	mu       sync.Mutex
	failing  int // how many loops are between their first failure and success
	since    time.Time
	err      string
	hint     string
	count    uint64 // failed attempts of this failure
	failures uint64
	changes  occasional
}

// fail notes a failed attempt; first says that it is the loop's first.
func (h *health) fail(err error, first bool) {
	hint := h.hints(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	if first {
		h.failing++
	}
	begins := h.since.IsZero()
	if begins {
		h.since, h.count = h.now(), 0
	}
	changed := hint != h.hint
	h.err, h.hint = err.Error(), hint
	h.count++
	h.failures++
	if changed && !begins {
		_, changed = h.changes.allow(h.now())
	}
	if begins || changed {
		h.log.Warn("elasticsearch export is failing; it goes on trying", "stream", h.name, "err", err, "hint", hint)
	}
}

// succeed notes that a loop that had failed has succeeded.
func (h *health) succeed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failing--; h.failing == 0 {
		h.log.Info("elasticsearch export works again", "stream", h.name, "failed", h.count, "for", h.now().Sub(h.since).Round(time.Millisecond))
		h.since, h.err, h.hint = time.Time{}, "", ""
	}
}

// leave notes that a loop that had failed gave up because it was told to.
func (h *health) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing--
}

func (h *health) fill(st *StreamStats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	st.FailingSince, st.LastError, st.Hint, st.Failures = h.since, h.err, h.hint, h.failures
}

// logEvery is how often one kind of line is logged at most.
const logEvery = time.Minute

// An occasional lets one line through a minute. It is for one goroutine at a time.
type occasional struct {
	next  time.Time
	count int
}

// allow reports whether to log now, and how often it was asked since it last
// said yes.
func (o *occasional) allow(now time.Time) (n int, ok bool) {
	o.count++
	if now.Before(o.next) {
		return 0, false
	}
	n = o.count
	o.count, o.next = 0, now.Add(logEvery)
	return n, true
}

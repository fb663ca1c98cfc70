package journal

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"time"

	"swarming/shared/wire"
)

// Stats tell how a journal is doing. Counters count since Open.
type Stats struct {
	Results, Events int64     // stored now
	Oldest          time.Time // when the oldest stored result was received; zero without one

	Stored     uint64 // results and events stored
	Duplicates uint64 // ignored because they were stored already
	Invalid    uint64 // ignored because they have no identity
	Refused    uint64 // not stored for want of disk space

	PrunedResults, PrunedEvents uint64 // deleted by retention

	Bytes     int64 // pages in use, which Options.MaxBytes limits
	FileBytes int64 // all pages
	LogBytes  int64 // the write-ahead log beside the file
	FreeBytes int64 // on the disk, for this user
	Full      bool  // nothing is stored until space returns

	Damaged string // where a damaged file lies, "" if none was found

	Cursors []CursorStats // by name
}

// Stats returns the statistics. It reads one row at most, whatever the journal's size.
func (j *Journal) Stats() Stats {
	c := &j.counters
	st := Stats{
		Stored: c.stored.Load(), Duplicates: c.duplicates.Load(), Invalid: c.invalid.Load(), Refused: c.refused.Load(),
		PrunedResults: c.prunedResults.Load(), PrunedEvents: c.prunedEvents.Load(),
		Bytes: c.used.Load(), FileBytes: c.used.Load() + c.unused.Load(), FreeBytes: j.space.freeBytes.Load(), Full: j.Full(),
	}
	j.mu.RLock()
	st.Damaged = j.aside
	j.mu.RUnlock()
	_ = j.read(func(s *store) error {
		results, events := s.extents()
		st.Results, st.Events = results.count(), events.count()
		st.LogBytes = s.logBytes()
		st.Cursors = s.cursorStats()
		var err error
		st.Oldest, err = s.oldest(context.Background(), "results")
		return err
	})
	return st
}

// oldest returns when the first row of a table was received, zero without one.
func (s *store) oldest(ctx context.Context, table string) (time.Time, error) {
	var received int64
	err := s.rdb.QueryRowContext(ctx, "SELECT received FROM "+table+" ORDER BY id LIMIT 1").Scan(&received)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return msTime(received), err
}

// maxLosses is how many boots Losses returns.
const maxLosses = 100_000

// A Loss compares what one process of an agent has sent with what is stored.
type Loss struct {
	Agent          wire.AgentName
	Boot           wire.Boot
	MinSeq, MaxSeq uint64    // of the results ever stored
	Stored         int64     // how many were, whatever retention has deleted since
	First, Last    time.Time // when the first and the last of them were received
}

// Missing returns how many results between the first and the last that came
// have not come. Some may be on their way: a gap counts as lost once the agent,
// which sends again what is not acknowledged, has been heard for a while.
// Results before MinSeq were sent while this collector did not listen.
func (l Loss) Missing() int64 {
	return max(0, int64(l.MaxSeq-l.MinSeq)+1-l.Stored)
}

// Losses returns the processes of agents that have results in the journal, the
// latest first, at most 100,000.
func (j *Journal) Losses(ctx context.Context) (losses []Loss, err error) {
	err = j.read(func(s *store) error {
		losses, err = s.readLosses(ctx)
		return err
	})
	return losses, err
}

func (s *store) readLosses(ctx context.Context) (out []Loss, err error) {
	rows, err := s.rdb.QueryContext(ctx, "SELECT agent, boot, min_seq, max_seq, stored, first_received, last_received FROM boots ORDER BY id DESC LIMIT ?", maxLosses)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var l Loss
		var first, last int64
		if err := rows.Scan(&l.Agent, &l.Boot, &l.MinSeq, &l.MaxSeq, &l.Stored, &first, &last); err != nil {
			return nil, err
		}
		l.First, l.Last = msTime(first), msTime(last)
		out = append(out, l)
	}
	return out, rows.Err()
}

// faults logs the first of repeated failures, and their end.
type faults struct {
	n     int
	since time.Time
}

func (f *faults) note(log *slog.Logger, now time.Time, err error) {
	switch {
	case err == nil && f.n > 0:
		log.Info("journal is kept in order again", "failures", f.n, "after", now.Sub(f.since).Round(time.Second))
		*f = faults{}
	case err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed):
		if f.n++; f.n == 1 {
			f.since = now
			log.Error("keep journal in order", "err", err)
		}
	}
}

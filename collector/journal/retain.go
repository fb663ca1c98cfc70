package journal

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"strconv"
	"time"
)

const (
	tick        = time.Second
	chunk       = 1000 // rows deleted in one transaction, which appends wait for
	agentsEvery = 10 * time.Minute
	vacuumPages = 1000     // pages given back in one transaction
	keepUnused  = 64 << 20 // bytes of free pages that a file may keep for what comes
)

// Run applies retention and watches free space until ctx ends. It returns nil.
func (j *Journal) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	var f faults
	var agents time.Time
	for {
		_ = j.space.check()
		err := errors.Join(j.checkRemoved(ctx), j.retain(ctx))
		now := j.opts.Now()
		if now.Sub(agents).Abs() >= agentsEvery {
			agents = now
			err = errors.Join(err, j.tidyAgents(ctx))
		}
		f.note(j.opts.Log, now, err)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-j.prune:
		}
	}
}

// retain deletes what is too old or too much, a chunk at a time.
func (j *Journal) retain(ctx context.Context) error {
	for ctx.Err() == nil {
		more := false
		err := j.update(ctx, func(s *store) (err error) {
			more, err = j.cut(ctx, s)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// cut deletes a chunk or gives pages back, and reports whether there may be more to do.
func (j *Journal) cut(ctx context.Context, s *store) (more bool, err error) {
	defer j.measure(ctx, s)
	results, events := s.extents()
	lastResult, lastEvent, err := j.overdue(ctx, s, results, events)
	if err != nil {
		return false, err
	}
	if lastResult < results.first && lastEvent < events.first {
		return j.vacuum(ctx, s)
	}
	cursors := s.losses(false, results, lastResult)
	maps.Copy(cursors, s.losses(true, events, lastEvent))
	err = s.transact(ctx, func(ctx context.Context) error { return s.delete(ctx, lastResult, lastEvent, cursors) })
	if err != nil {
		return false, err
	}
	j.counters.prunedResults.Add(uint64(max(0, lastResult-results.first+1)))
	j.counters.prunedEvents.Add(uint64(max(0, lastEvent-events.first+1)))
	s.mu.Lock()
	s.results.first = max(results.first, lastResult+1)
	s.events.first = max(events.first, lastEvent+1)
	maps.Copy(s.cursors, cursors)
	s.mu.Unlock()
	return true, nil
}

// overdue returns the last ids of results and events to delete now, each below
// the first that there is if there is nothing to delete.
func (j *Journal) overdue(ctx context.Context, s *store, results, events extent) (lastResult, lastEvent int64, err error) {
	if j.opts.Retention > 0 {
		cutoff := j.opts.Now().Add(-j.opts.Retention).UnixMilli()
		if lastResult, err = maxID(ctx, s.stmts.oldResults, cutoff); err != nil {
			return 0, 0, err
		}
		if lastEvent, err = maxID(ctx, s.stmts.oldEvents, cutoff); err != nil {
			return 0, 0, err
		}
		if lastResult > 0 || lastEvent > 0 {
			return lastResult, lastEvent, nil
		}
	}
	if j.opts.MaxBytes <= 0 || j.counters.used.Load() <= j.opts.MaxBytes {
		return 0, 0, nil
	}
	// The oldest go first, whatever they are: a flood of one kind ages the other no faster.
	oldResult, err := s.oldest(ctx, "results")
	if err != nil {
		return 0, 0, err
	}
	oldEvent, err := s.oldest(ctx, "events")
	if err != nil {
		return 0, 0, err
	}
	switch {
	case oldResult.IsZero() && oldEvent.IsZero():
		return 0, 0, nil
	case oldEvent.IsZero() || !oldResult.IsZero() && !oldEvent.Before(oldResult):
		return min(results.first+chunk-1, results.last), 0, nil
	}
	return 0, min(events.first+chunk-1, events.last), nil
}

// maxID returns the last of the first chunk of rows that is older than cutoff, or
// 0. Rows between such ones that a wrong clock dated later go with them.
func maxID(ctx context.Context, stmt *sql.Stmt, cutoff int64) (int64, error) {
	var id sql.NullInt64
	err := stmt.QueryRowContext(context.WithoutCancel(ctx), chunk, cutoff).Scan(&id)
	return id.Int64, err
}

// delete deletes rows from the front, the names that only they referred to, and
// notes which exporters had not had them.
func (s *store) delete(ctx context.Context, lastResult, lastEvent int64, cursors map[string]cursor) error {
	for name, c := range cursors {
		if _, err := s.stmts.setCursor.ExecContext(ctx, name, c.id, c.lost); err != nil {
			return err
		}
	}
	if lastEvent > 0 {
		if _, err := s.stmts.cutEvents.ExecContext(ctx, lastEvent); err != nil {
			return err
		}
	}
	if lastResult == 0 {
		return nil
	}
	if _, err := s.stmts.cutResults.ExecContext(ctx, lastResult); err != nil {
		return err
	}
	return s.deleteNames(ctx, lastResult+1-usedSlack)
}

// deleteNames deletes boots and words that no result has used since before.
func (s *store) deleteNames(ctx context.Context, before int64) error {
	boots, err := s.stmts.cutBoots.QueryContext(ctx, before, chunk)
	if err != nil {
		return err
	}
	defer boots.Close()
	for boots.Next() {
		var k bootKey
		if err := boots.Scan(&k.agent, &k.boot); err != nil {
			return err
		}
		delete(s.boots, k)
	}
	if err := boots.Err(); err != nil {
		return err
	}
	words, err := s.stmts.cutWords.QueryContext(ctx, before, 8*chunk) // a result has at most seven
	if err != nil {
		return err
	}
	defer words.Close()
	for words.Next() {
		var w string
		if err := words.Scan(&w); err != nil {
			return err
		}
		delete(s.words, w)
	}
	return words.Err()
}

// vacuum gives free pages back to the file system, where a file keeps far more
// of them than it needs or the disk is nearly full.
func (j *Journal) vacuum(ctx context.Context, s *store) (more bool, err error) {
	if !j.spacious() {
		return false, nil
	}
	ctx = context.WithoutCancel(ctx)
	before := j.counters.unused.Load()
	if _, err := s.conn.ExecContext(ctx, "PRAGMA incremental_vacuum("+strconv.Itoa(vacuumPages)+")"); err != nil {
		return false, err
	}
	j.measure(ctx, s)
	if j.spacious() && j.counters.unused.Load() < before {
		return true, nil
	}
	// The file becomes shorter when the log is moved into it.
	_, err = s.conn.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)")
	return false, err
}

// spacious reports whether the file should become shorter.
func (j *Journal) spacious() bool {
	used, unused := j.counters.used.Load(), j.counters.unused.Load()
	return unused > max(keepUnused, used/4) || j.Full() && unused > 0
}

// tidyAgents forgets agents that were not seen within the retention, and those
// above the cap that were not seen for longest.
func (j *Journal) tidyAgents(ctx context.Context) error {
	return j.update(ctx, func(s *store) error {
		return s.transact(ctx, func(ctx context.Context) error {
			var n int64
			if err := s.conn.QueryRowContext(ctx, "SELECT count(*) FROM agents").Scan(&n); err != nil {
				return err
			}
			if n > MaxAgents {
				if _, err := s.stmts.cutAgents.ExecContext(ctx, n-MaxAgents); err != nil {
					return err
				}
			}
			if j.opts.Retention <= 0 {
				return nil
			}
			_, err := s.conn.ExecContext(ctx, "DELETE FROM agents WHERE seen < ?", j.opts.Now().Add(-j.opts.Retention).UnixMilli())
			return err
		})
	})
}

package journal

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"strings"
	"time"

	"swarming/shared/wire"
)

const (
	maxPage = 10_000 // rows that ResultsAfter and EventsAfter return at most
	window  = 5_000  // ids that Results and Events look at in one query

	// lateClock is how far an agent's clock may be ahead of the collector's: a
	// result from after a moment was not received more than this before it.
	lateClock = 15 * time.Minute
)

// A Filter chooses what Results and Events return. Zero fields choose all.
type Filter struct {
	Agent  wire.AgentName
	Target wire.TargetID // of results
	Since  time.Time     // by the time of measurement, of events by arrival; it also saves reading what is older
}

const selectResults = `SELECT id, boot, seq, at, received, broker, target, probe, addr, family, sent, recv, late,
	loss, min_us, avg_us, max_us, stddev_us, rtts, cause, sender, stamp FROM results `

// rawRow is a row as it lies in the table.
type rawRow struct {
	id, boot, seq, at, received int64
	broker, target, probe, addr *int64
	family, sent, recv, late    int
	loss                        *float64
	min, avg, max, stddev       *int64
	rtts                        sql.RawBytes
	cause, sender, stamp        *int64
}

func (r *rawRow) dests() []any {
	return []any{&r.id, &r.boot, &r.seq, &r.at, &r.received, &r.broker, &r.target, &r.probe, &r.addr, &r.family, &r.sent, &r.recv, &r.late,
		&r.loss, &r.min, &r.avg, &r.max, &r.stddev, &r.rtts, &r.cause, &r.sender, &r.stamp}
}

// row puts the names in place of the numbers.
func (r *rawRow) row(ctx context.Context, n *names, tx *sql.Tx) (Row, error) {
	key, err := n.boot(ctx, tx, r.boot)
	if err != nil {
		return Row{}, fmt.Errorf("result %d: find boot %d: %w", r.id, r.boot, err)
	}
	var words [7]string
	for i, id := range [...]*int64{r.broker, r.target, r.probe, r.addr, r.cause, r.sender, r.stamp} {
		if words[i], err = n.word(ctx, tx, id); err != nil {
			return Row{}, fmt.Errorf("result %d: find word %d: %w", r.id, *id, err)
		}
	}
	return Row{ID: r.id, Entry: Entry{Received: msTime(r.received), Broker: words[0], Result: wire.Result{
		V: wire.Version, Agent: key.agent, Boot: key.boot, Seq: uint64(r.seq), At: msTime(r.at),
		Target: wire.TargetID(words[1]), Probe: words[2], Addr: wordAddr(words[3]), Family: r.family,
		Sent: r.sent, Recv: r.recv, Late: r.late, Loss: r.loss,
		Min: optionalMillis(r.min), Avg: optionalMillis(r.avg), Max: optionalMillis(r.max), Stddev: optionalMillis(r.stddev),
		RTTs: unpackRTTs(r.rtts), Cause: wire.Cause(words[4]), From: wordAddr(words[5]), Stamp: wire.Stamp(words[6]),
	}}}, nil
}

// readResults returns the rows that a query, continuing selectResults, finds.
func (s *store) readResults(ctx context.Context, where string, args ...any) (out []Row, err error) {
	// One snapshot: else retention could delete a name between a row and its lookup.
	tx, err := s.rdb.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	rows, err := tx.QueryContext(ctx, selectResults+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	var raw rawRow
	dests := raw.dests()
	for rows.Next() {
		if err := rows.Scan(dests...); err != nil {
			return nil, err
		}
		row, err := raw.row(ctx, &s.names, tx)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

const selectEvents = "SELECT id, at, received, kind, agent, boot, conn, reason, broker, detail FROM events "

// readEvents is readResults for events.
func (s *store) readEvents(ctx context.Context, where string, args ...any) (out []Event, err error) {
	rows, err := s.rdb.QueryContext(ctx, selectEvents+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e Event
		var at, received int64
		var detail *string
		if err := rows.Scan(&e.ID, &at, &received, &e.Kind, &e.Agent, &e.Boot, &e.Conn, &e.Reason, &e.Broker, &detail); err != nil {
			return nil, err
		}
		e.At, e.Received = msTime(at), msTime(received)
		if detail != nil {
			e.Detail = []byte(*detail)
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

// ResultsAfter returns at most limit (and at most 10,000) results with ids above
// id, in order of arrival; fewer than there are only at the end. It may be
// called concurrently and does not wait for appends.
func (j *Journal) ResultsAfter(ctx context.Context, id int64, limit int) (rows []Row, err error) {
	err = j.read(func(s *store) error {
		rows, err = s.readResults(ctx, "WHERE id > ? ORDER BY id LIMIT ?", id, clampPage(limit))
		return err
	})
	return rows, err
}

// EventsAfter is ResultsAfter for events, which have ids of their own.
func (j *Journal) EventsAfter(ctx context.Context, id int64, limit int) (events []Event, err error) {
	err = j.read(func(s *store) error {
		events, err = s.readEvents(ctx, "WHERE id > ? ORDER BY id LIMIT ?", id, clampPage(limit))
		return err
	})
	return events, err
}

func clampPage(limit int) int { return min(max(limit, 1), maxPage) }

// Results returns the results that f chooses and that are stored when it is
// called, in order of arrival. It reads a few thousand ids at a time, so that
// a slow caller holds up nothing; what retention deletes meanwhile is left out. An
// error ends it.
func (j *Journal) Results(ctx context.Context, f Filter) iter.Seq2[Row, error] {
	var cond strings.Builder
	var args []any
	if f.Agent != "" {
		cond.WriteString(" AND boot IN (SELECT id FROM boots WHERE agent = ?)")
		args = append(args, string(f.Agent))
	}
	if f.Target != "" {
		cond.WriteString(" AND target = (SELECT id FROM words WHERE word = ?)")
		args = append(args, string(f.Target))
	}
	if !f.Since.IsZero() {
		cond.WriteString(" AND at >= ?")
		args = append(args, f.Since.UnixMilli())
	}
	return pages(ctx, j, "results", f.Since, func(s *store, after, to int64) ([]Row, error) {
		return s.readResults(ctx, "WHERE id > ? AND id <= ?"+cond.String()+" ORDER BY id", append([]any{after, to}, args...)...)
	})
}

// Events is Results for events; Target chooses nothing.
func (j *Journal) Events(ctx context.Context, f Filter) iter.Seq2[Event, error] {
	var cond strings.Builder
	var args []any
	if f.Agent != "" {
		cond.WriteString(" AND agent = ?")
		args = append(args, string(f.Agent))
	}
	if !f.Since.IsZero() {
		cond.WriteString(" AND received >= ?")
		args = append(args, f.Since.UnixMilli())
	}
	return pages(ctx, j, "events", f.Since, func(s *store, after, to int64) ([]Event, error) {
		return s.readEvents(ctx, "WHERE id > ? AND id <= ?"+cond.String()+" ORDER BY id", append([]any{after, to}, args...)...)
	})
}

// pages reads windows of ids one after the other.
func pages[T any](ctx context.Context, j *Journal, table string, since time.Time, page func(s *store, after, to int64) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		var after, last int64
		err := j.read(func(s *store) (err error) {
			after, last, err = s.bounds(ctx, table, since)
			return err
		})
		if err != nil {
			yield(none, err)
			return
		}
		for after < last {
			to := min(after+window, last)
			var got []T
			err := j.read(func(s *store) (err error) {
				got, err = page(s, after, to)
				return err
			})
			if err != nil {
				yield(none, err)
				return
			}
			for _, v := range got {
				if !yield(v, nil) {
					return
				}
			}
			after = to
		}
	}
}

// bounds returns the id before the first row that can be from since or later,
// and the last id. It trusts that the collector's clock went forward.
func (s *store) bounds(ctx context.Context, table string, since time.Time) (after, last int64, err error) {
	var lo, hi sql.NullInt64
	if err := s.rdb.QueryRowContext(ctx, fmt.Sprintf("SELECT (SELECT min(id) FROM %[1]s), (SELECT max(id) FROM %[1]s)", table)).Scan(&lo, &hi); err != nil || !lo.Valid {
		return 0, 0, err
	}
	after, last = lo.Int64-1, hi.Int64
	if since.IsZero() {
		return after, last, nil
	}
	from := since.Add(-lateClock).UnixMilli()
	probe := "SELECT received FROM " + table + " WHERE id >= ? ORDER BY id LIMIT 1"
	for end := last; after < end; {
		mid := after + (end-after)/2
		var received int64
		// There is always a row at or after mid+1: the last one, unless all have been deleted since.
		if err := s.rdb.QueryRowContext(ctx, probe, mid+1).Scan(&received); err != nil {
			return 0, 0, fmt.Errorf("find where to begin: %w", err)
		}
		if received < from {
			after = mid + 1
		} else {
			end = mid
		}
	}
	return after, last, nil
}

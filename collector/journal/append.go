package journal

import (
	"context"
	"database/sql"
	"fmt"
	"math"

	"swarming/shared/wire"
)

const insertResult = `INSERT INTO results (id, boot, seq, at, received, broker, target, probe, addr, family, sent, recv, late,
	loss, min_us, avg_us, max_us, stddev_us, rtts, cause, sender, stamp)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (boot, seq) DO NOTHING`

const insertEvent = `INSERT INTO events (id, at, received, kind, agent, boot, conn, reason, broker, detail)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent, boot, conn, reason) WHERE kind = 'rip' AND boot <> '' DO NOTHING`

// outcome is what became of the rows of a batch.
type outcome struct{ stored, duplicates, invalid int }

// addResults stores a batch in the running transaction. It returns the ids that
// the table holds then, to be remembered once the transaction is on disk.
func (s *store) addResults(ctx context.Context, entries []Entry) (extent, outcome, error) {
	e, _ := s.extents()
	var out outcome
	var touched []*bootRow
	b := resultBatch{s: s}
	for i := range entries {
		r := &entries[i].Result
		if !storable(r) {
			out.invalid++
			continue
		}
		boot, err := s.boot(ctx, bootKey{r.Agent, r.Boot}, entries[i].Received.UnixMilli(), e.last+1)
		if err != nil {
			return e, out, fmt.Errorf("find boot: %w", err)
		}
		fresh, err := b.insert(ctx, &entries[i], boot.id, e.last+1)
		if err != nil {
			return e, out, err
		}
		if !fresh {
			out.duplicates++
			continue
		}
		e.last++
		out.stored++
		if !boot.changed {
			touched = append(touched, boot)
		}
		boot.add(int64(r.Seq), entries[i].Received.UnixMilli())
	}
	if err := s.saveBoots(ctx, touched, e.last); err != nil {
		return e, out, fmt.Errorf("save boots: %w", err)
	}
	return e, out, nil
}

// storable reports whether the columns can hold r's identity. Readers of
// payloads have checked far more; this only keeps the table sound.
func storable(r *wire.Result) bool { return r.Agent != "" && r.Seq >= 1 && r.Seq <= wire.MaxSeq }

// A resultBatch inserts one result after another and reuses its memory.
type resultBatch struct {
	s    *store
	args []any
	rtts []byte
}

// insert stores one result under id; fresh is false if it was there already.
func (b *resultBatch) insert(ctx context.Context, e *Entry, boot, id int64) (fresh bool, err error) {
	r := &e.Result
	var words [7]any
	for i, w := range [...]string{e.Broker, string(r.Target), r.Probe, addrWord(r.Addr), string(r.Cause), addrWord(r.From), string(r.Stamp)} {
		if words[i], err = b.s.word(ctx, w, id); err != nil {
			return false, fmt.Errorf("find word: %w", err)
		}
	}
	var rtts any
	if len(r.RTTs) > 0 {
		b.rtts = packRTTs(b.rtts[:0], r.RTTs)
		rtts = b.rtts
	}
	b.args = append(b.args[:0], id, boot, int64(r.Seq), r.At.UnixMilli(), e.Received.UnixMilli(),
		words[0], words[1], words[2], words[3], r.Family, r.Sent, r.Recv, r.Late,
		optionalNumber(r.Loss), optionalMicros(r.Min), optionalMicros(r.Avg), optionalMicros(r.Max), optionalMicros(r.Stddev),
		rtts, words[4], words[5], words[6])
	return changed(b.s.stmts.result.ExecContext(ctx, b.args...))
}

// addEvents is addResults for events.
func (s *store) addEvents(ctx context.Context, events []Event) (extent, outcome, error) {
	_, e := s.extents()
	var out outcome
	for i := range events {
		ev := &events[i]
		fresh, err := changed(s.stmts.event.ExecContext(ctx, e.last+1, ev.At.UnixMilli(), ev.Received.UnixMilli(), ev.Kind,
			string(ev.Agent), string(ev.Boot), int64(min(ev.Conn, math.MaxInt64)), ev.Reason, ev.Broker, detailText(ev.Detail)))
		if err != nil {
			return e, out, err
		}
		if !fresh {
			out.duplicates++
			continue
		}
		e.last++
		out.stored++
	}
	return e, out, nil
}

// changed reports whether a statement stored its row.
func changed(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

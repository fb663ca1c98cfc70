package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MaxCursors is how many exporters' cursors a journal holds.
const MaxCursors = 64

// eventsSuffix tells a cursor over events from one over results.
const eventsSuffix = "-events"

// A cursor is how far an exporter is, and what it missed.
type cursor struct{ id, lost int64 }

func (s *store) loadCursors(ctx context.Context) error {
	rows, err := s.rdb.QueryContext(ctx, "SELECT name, id, lost FROM cursors")
	if err != nil {
		return err
	}
	defer rows.Close()
	cursors := make(map[string]cursor)
	for rows.Next() {
		var name string
		var c cursor
		if err := rows.Scan(&name, &c.id, &c.lost); err != nil {
			return err
		}
		cursors[name] = c
	}
	s.mu.Lock()
	s.cursors = cursors
	s.mu.Unlock()
	return rows.Err()
}

func (s *store) cursor(name string) (cursor, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.cursors[name]
	return c, ok
}

func (s *store) allCursors() map[string]cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.cursors)
}

// Cursor returns the id that was last set under name, or 0. Asking is enough to
// make the journal count, from then on, what retention deletes before the cursor
// has passed it. A cursor moves over events if its name ends in "-events", over
// results otherwise.
func (j *Journal) Cursor(ctx context.Context, name string) (int64, error) {
	var c cursor
	var known bool
	err := j.read(func(s *store) error {
		c, known = s.cursor(name)
		return ctx.Err()
	})
	if err != nil || known || j.readOnly {
		return c.id, err
	}
	err = j.SetCursor(ctx, name, 0)
	if errors.Is(err, ErrNoSpace) {
		err = nil // only the counting of losses begins later
	}
	return 0, err
}

// SetCursor stores, durably, that the exporter name has everything up to id.
// Setting it back makes everything after id be exported again.
func (j *Journal) SetCursor(ctx context.Context, name string, id int64) error {
	if name == "" || len(name) > 64 || id < 0 {
		return fmt.Errorf("cursor %.70q at %d: want a name of 1 to 64 bytes and an id of at least 0", name, id)
	}
	return j.update(ctx, func(s *store) error {
		c, known := s.cursor(name)
		if !known && len(s.allCursors()) >= MaxCursors {
			return fmt.Errorf("cursor %q is one too many: want at most %d; delete one that is not used any more", name, MaxCursors)
		}
		c.id = id
		err := s.transact(ctx, func(ctx context.Context) error {
			_, err := s.stmts.setCursor.ExecContext(ctx, name, c.id, c.lost)
			return err
		})
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.cursors[name] = c
		s.mu.Unlock()
		return nil
	})
}

// DeleteCursor forgets an exporter that is not coming back.
func (j *Journal) DeleteCursor(ctx context.Context, name string) error {
	return j.update(ctx, func(s *store) error {
		err := s.transact(ctx, func(ctx context.Context) error {
			_, err := s.stmts.cutCursor.ExecContext(ctx, name)
			return err
		})
		if err != nil {
			return err
		}
		s.mu.Lock()
		delete(s.cursors, name)
		s.mu.Unlock()
		return nil
	})
}

// losses returns the cursors of a table as they will be once its rows up to last
// are deleted, as far as that changes them.
func (s *store) losses(events bool, e extent, last int64) map[string]cursor {
	out := s.allCursors()
	for name, c := range out {
		lost := last - max(c.id, e.first-1)
		if strings.HasSuffix(name, eventsSuffix) != events || lost <= 0 {
			delete(out, name)
			continue
		}
		c.lost += lost
		out[name] = c
	}
	return out
}

// CursorStats tell how an exporter is doing.
type CursorStats struct {
	Name string
	ID   int64 // all up to it is exported
	Lag  int64 // rows that wait for it
	Lost int64 // rows that retention deleted before it had them
}

func (s *store) cursorStats() []CursorStats {
	results, events := s.extents()
	var out []CursorStats
	for name, c := range s.allCursors() {
		e := results
		if strings.HasSuffix(name, eventsSuffix) {
			e = events
		}
		out = append(out, CursorStats{Name: name, ID: c.id, Lost: c.lost, Lag: max(0, e.last-max(c.id, e.first-1))})
	}
	slices.SortFunc(out, func(a, b CursorStats) int { return strings.Compare(a.Name, b.Name) })
	return out
}

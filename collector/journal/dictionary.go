package journal

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"swarming/shared/wire"
)

const (
	maxCached = 50_000 // rows of boots and of words held in memory; full, the cache starts again
	usedSlack = 20_000 // how many results may be stored before a word's use is noted again
)

type bootKey struct {
	agent wire.AgentName
	boot  wire.Boot
}

// A bootRow is a row of the table boots.
type bootRow struct {
	id, used       int64
	minSeq, maxSeq int64
	stored         int64
	lastMS         int64 // received
	changed        bool
}

// A wordRow is a row of the table words.
type wordRow struct{ id, used int64 }

// forget empties the writer's caches.
func (s *store) forget() {
	s.boots = make(map[bootKey]*bootRow)
	s.words = make(map[string]*wordRow)
}

// boot returns the row of a process of an agent, which is added if missing.
func (s *store) boot(ctx context.Context, key bootKey, receivedMS, nextResult int64) (*bootRow, error) {
	if b, ok := s.boots[key]; ok {
		return b, nil
	}
	b := &bootRow{}
	err := s.stmts.findBoot.QueryRowContext(ctx, string(key.agent), string(key.boot)).Scan(&b.id, &b.minSeq, &b.maxSeq, &b.stored, &b.used)
	if errors.Is(err, sql.ErrNoRows) {
		b.used = nextResult
		b.id, err = insertID(s.stmts.addBoot.ExecContext(ctx, string(key.agent), string(key.boot), receivedMS, receivedMS, nextResult))
	}
	if err != nil {
		return nil, err
	}
	s.boots[key] = b
	return b, nil
}

// add notes that a result was stored.
func (b *bootRow) add(seq, receivedMS int64) {
	if b.stored == 0 || seq < b.minSeq {
		b.minSeq = seq
	}
	b.maxSeq = max(b.maxSeq, seq)
	b.stored++
	b.lastMS, b.changed = receivedMS, true
}

// saveBoots writes what add noted.
func (s *store) saveBoots(ctx context.Context, touched []*bootRow, lastResult int64) error {
	for _, b := range touched {
		if _, err := s.stmts.setBoot.ExecContext(ctx, b.minSeq, b.maxSeq, b.stored, b.lastMS, b.id); err != nil {
			return err
		}
		if lastResult > b.used+usedSlack {
			if _, err := s.stmts.useBoot.ExecContext(ctx, lastResult, b.id); err != nil {
				return err
			}
			b.used = lastResult
		}
		b.changed = false
	}
	return nil
}

// word returns the number of a word that the result nextResult will refer to:
// a column's value, nil for no word.
func (s *store) word(ctx context.Context, word string, nextResult int64) (any, error) {
	if word == "" {
		return nil, nil
	}
	w, ok := s.words[word]
	if !ok {
		w = &wordRow{}
		err := s.stmts.findWord.QueryRowContext(ctx, word).Scan(&w.id, &w.used)
		if errors.Is(err, sql.ErrNoRows) {
			w.used = nextResult
			w.id, err = insertID(s.stmts.addWord.ExecContext(ctx, word, nextResult))
		}
		if err != nil {
			return nil, err
		}
		s.words[word] = w
	}
	if nextResult > w.used+usedSlack {
		if _, err := s.stmts.useWord.ExecContext(ctx, nextResult, w.id); err != nil {
			return nil, err
		}
		w.used = nextResult
	}
	return w.id, nil
}

// trimCaches keeps the caches bounded; it is called between transactions.
func (s *store) trimCaches() {
	if len(s.boots) > maxCached || len(s.words) > maxCached {
		s.forget()
	}
}

func insertID(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// names are the rows of boots and words that readers have met. An id never
// changes its meaning, so they never go stale.
type names struct {
	mu    sync.Mutex
	boots map[int64]bootKey
	words map[int64]string
}

// lookup returns m[id], which it asks for where it is missing. The caller holds
// the lock.
func lookup[T any](m *map[int64]T, id int64, ask func() (T, error)) (T, error) {
	if v, ok := (*m)[id]; ok {
		return v, nil
	}
	v, err := ask()
	if err != nil {
		return v, err
	}
	if *m == nil || len(*m) >= maxCached {
		*m = make(map[int64]T)
	}
	(*m)[id] = v
	return v, nil
}

func (n *names) boot(ctx context.Context, tx *sql.Tx, id int64) (bootKey, error) {
	return lookup(&n.boots, id, func() (k bootKey, err error) {
		err = tx.QueryRowContext(ctx, "SELECT agent, boot FROM boots WHERE id = ?", id).Scan(&k.agent, &k.boot)
		return k, err
	})
}

func (n *names) word(ctx context.Context, tx *sql.Tx, id *int64) (string, error) {
	if id == nil {
		return "", nil
	}
	return lookup(&n.words, *id, func() (w string, err error) {
		err = tx.QueryRowContext(ctx, "SELECT word FROM words WHERE id = ?", *id).Scan(&w)
		return w, err
	})
}

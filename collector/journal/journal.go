package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Options.
const (
	DefaultRetention = 30 * 24 * time.Hour
	DefaultReserve   = 256 << 20
)

var (
	// ErrNoSpace says that nothing was stored because the disk is too full. Later
	// calls succeed when space has returned.
	ErrNoSpace = errors.New("not enough free disk space for the journal")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("journal is closed")
	// ErrReadOnly says that the journal was opened by OpenReadOnly.
	ErrReadOnly = errors.New("journal is open for reading only")
)

// Options configure a Journal. Zero values stand for the defaults.
type Options struct {
	Dir       string           // required; made if missing, with mode 0750
	Retention time.Duration    // how long after arrival results and events are kept; default 30 days, negative: for ever
	MaxBytes  int64            // pages in use beyond which the oldest are deleted; 0: no limit. The file is about as large, its log adds up to 32 MB
	Reserve   int64            // bytes of free disk space below which nothing is stored; default 256 MiB, negative: none
	Log       *slog.Logger     // nil: discard
	Now       func() time.Time // nil: time.Now
}

func (o *Options) setDefaults() {
	if o.Retention == 0 {
		o.Retention = DefaultRetention
	}
	if o.Reserve == 0 {
		o.Reserve = DefaultReserve
	}
	o.Reserve = max(o.Reserve, 0)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// A Journal is an open journal. Its methods may be called concurrently; appends
// wait for one another, readers wait for nobody.
type Journal struct {
	opts     Options
	path     string
	lock     *os.File // nil if readOnly
	readOnly bool
	changed  chan struct{} // capacity 1
	prune    chan struct{} // capacity 1: the file is over its limit
	space    spaceWatch
	counters counters

	write sync.Mutex // held by whoever uses the writing half of store

	mu     sync.RWMutex // guards the fields below; held for reading while store is read
	store  *store       // nil once closed, or while a damaged file could not be replaced
	closed bool
	carry  *carry // what a new file must continue
	aside  string // where the last damaged file went
}

// counters count since Open.
type counters struct {
	stored, duplicates, invalid, refused, prunedResults, prunedEvents atomic.Uint64
	used, unused                                                      atomic.Int64 // bytes
}

// Open opens the journal in o.Dir, or makes it. A damaged file is renamed aside
// with a loud line in the log, and a new one begun. It fails with [ErrNewer],
// [ErrForeign] or [ErrInUse] and touches nothing where that is told of them.
// The caller must call Run, for retention, and Close.
func Open(ctx context.Context, o Options) (*Journal, error) {
	o.setDefaults()
	if o.Dir == "" {
		return nil, errors.New("open journal: no directory is given")
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{opts: o, path: filepath.Join(o.Dir, FileName), lock: lock, changed: make(chan struct{}, 1), prune: make(chan struct{}, 1)}
	j.space = spaceWatch{dir: o.Dir, reserve: o.Reserve, log: o.Log, now: o.Now, free: freeSpace}
	_ = j.space.check() // only to know; there may be room when the first results come
	if j.store, err = j.openFile(ctx); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open journal: %w", j.space.explain(err))
	}
	return j, nil
}

// OpenReadOnly opens the journal in dir for reading, whether or not a collector
// has it open, and without changing it. Methods that write fail with [ErrReadOnly].
func OpenReadOnly(ctx context.Context, dir string) (*Journal, error) {
	o := Options{Dir: dir}
	o.setDefaults()
	s, err := openForReading(ctx, filepath.Join(dir, FileName))
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{opts: o, path: s.path, readOnly: true, store: s, changed: make(chan struct{}, 1)}
	j.measure(ctx, s)
	return j, nil
}

// Close ends all use of the journal. It is idempotent and waits for whoever
// reads or writes.
func (j *Journal) Close() error {
	j.write.Lock()
	defer j.write.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	var err error
	if j.store != nil {
		err = j.store.close()
		j.store = nil
	}
	if j.lock != nil {
		j.lock.Close()
	}
	if err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}

// Append stores entries in one transaction that is on disk when it returns nil.
// A result whose (agent, boot, seq) is stored already is counted as a duplicate
// and otherwise ignored; stored is the number of the others. When Append fails,
// none of the batch is stored. ctx is looked at before anything is written: once
// begun, a batch is finished, which takes tens of milliseconds.
//
// A thousand entries at a time is a good batch: a sync costs as much as some
// hundred rows.
func (j *Journal) Append(ctx context.Context, entries []Entry) (stored int, err error) {
	if len(entries) == 0 {
		return 0, ctx.Err()
	}
	var e extent
	var out outcome
	err = j.append(ctx, len(entries), func(ctx context.Context, s *store) (err error) {
		e, out, err = s.addResults(ctx, entries)
		return err
	}, func(s *store) {
		_, events := s.extents()
		s.setExtents(e, events)
	})
	if err != nil {
		return 0, err
	}
	j.count(out)
	return out.stored, nil
}

func (j *Journal) count(out outcome) {
	j.counters.stored.Add(uint64(out.stored))
	j.counters.duplicates.Add(uint64(out.duplicates))
	j.counters.invalid.Add(uint64(out.invalid))
	if out.stored > 0 {
		select {
		case j.changed <- struct{}{}:
		default:
		}
	}
}

// append runs f in a transaction, if there is room, and then committed. n is how
// many rows are refused if there is not.
func (j *Journal) append(ctx context.Context, n int, f func(context.Context, *store) error, committed func(*store)) error {
	err := j.update(ctx, func(s *store) error {
		if err := j.space.check(); err != nil {
			return err
		}
		if err := s.transact(ctx, func(ctx context.Context) error { return f(ctx, s) }); err != nil {
			return err
		}
		if committed != nil {
			committed(s)
		}
		s.trimCaches()
		j.measure(ctx, s)
		return nil
	})
	if errors.Is(err, ErrNoSpace) {
		j.counters.refused.Add(uint64(n))
	}
	if err != nil {
		return fmt.Errorf("append to journal: %w", err)
	}
	return nil
}

// update lets f use the writing half of the store. If f finds the file damaged,
// it is called again with a new one.
func (j *Journal) update(ctx context.Context, f func(*store) error) error {
	if j.readOnly {
		return ErrReadOnly
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	j.write.Lock()
	defer j.write.Unlock()
	s, err := j.current(ctx)
	if err != nil {
		return err
	}
	if err = f(s); isDamage(err) {
		if s, err = j.replace(ctx, s, err); err != nil {
			return err
		}
		err = f(s)
	}
	return j.space.explain(err)
}

// read lets f read the store, beside whoever writes.
func (j *Journal) read(f func(*store) error) error {
	j.mu.RLock()
	s, closed := j.store, j.closed
	if s == nil {
		j.mu.RUnlock()
		if closed {
			return ErrClosed
		}
		return fmt.Errorf("read journal: %w", errDamaged)
	}
	err := f(s)
	j.mu.RUnlock()
	if isDamage(err) && !j.readOnly {
		why := err
		// Whatever it does to s, the caller gets why.
		_ = j.update(context.Background(), func(now *store) error {
			if now == s {
				return why
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	return nil
}

// measure notes the size of the file and asks for pruning if it is too large.
func (j *Journal) measure(ctx context.Context, s *store) {
	used, unused, err := s.usedBytes(context.WithoutCancel(ctx))
	if err != nil {
		return // whatever is wrong, the next statement meets it too
	}
	j.counters.used.Store(used)
	j.counters.unused.Store(unused)
	if j.opts.MaxBytes > 0 && used > j.opts.MaxBytes {
		select {
		case j.prune <- struct{}{}:
		default:
		}
	}
}

// Changed returns a channel that gets a value after results or events were
// stored: one for many appends, for one receiver.
func (j *Journal) Changed() <-chan struct{} { return j.changed }

// Full reports whether appends fail for want of disk space, as last known.
func (j *Journal) Full() bool { return j.space.full.Load() }

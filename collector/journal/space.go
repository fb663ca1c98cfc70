package journal

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// nothingLeft is the free space below which any failure to write is for want of it.
const nothingLeft = 4 << 20

// A spaceWatch knows whether the disk has room.
type spaceWatch struct {
	dir     string
	reserve int64
	log     *slog.Logger
	now     func() time.Time
	free    func(dir string) (int64, error)

	full      atomic.Bool
	freeBytes atomic.Int64

	mu    sync.Mutex
	since time.Time // of full
}

// check returns ErrNoSpace if free space is below the reserve. Once it was, it
// must be a sixteenth above to count as enough, so that the state does not flicker.
func (w *spaceWatch) check() error {
	free, err := w.free(w.dir)
	if err != nil {
		return nil // where free space cannot be told, the disk says when it is full
	}
	w.freeBytes.Store(free)
	enough := w.reserve
	if w.full.Load() {
		enough += w.reserve / 16
	}
	if w.set(free < enough, free) {
		return fmt.Errorf("%w: %d MB are free in %q, %d MB must stay so", ErrNoSpace, free>>20, w.dir, w.reserve>>20)
	}
	return nil
}

// set notes whether the disk is full, which it returns, and logs a change.
func (w *spaceWatch) set(full bool, free int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if full == w.full.Swap(full) {
		return full
	}
	if full {
		w.since = w.now()
		w.log.Error("disk is nearly full: nothing more is stored until space is freed; agents keep their results meanwhile",
			"dir", w.dir, "free_mb", free>>20, "reserve_mb", w.reserve>>20)
	} else {
		w.log.Info("disk has room again: results are stored", "dir", w.dir, "free_mb", free>>20, "after", w.now().Sub(w.since).Round(time.Second))
	}
	return full
}

// explain turns SQLite's ways of saying that the disk is full into ErrNoSpace.
func (w *spaceWatch) explain(err error) error {
	switch primaryCode(err) {
	case sqlite3.SQLITE_FULL:
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		// A quota, or memory shared through a file that cannot grow.
		if free, ferr := w.free(w.dir); ferr != nil || free > nothingLeft {
			return err
		}
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("%w: another program holds a lock on the file; is it open in sqlite3?", err)
	default:
		return err
	}
	w.set(true, w.freeBytes.Load())
	return fmt.Errorf("%w: %w", ErrNoSpace, err)
}

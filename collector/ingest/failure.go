package ingest

import (
	"log/slog"
	"sync"
	"time"
)

// A failure is what the journal does not take at present, logged when it begins
// and when it is over.
type failure struct {
	log  *slog.Logger
	now  func() time.Time
	what string

	mu    sync.Mutex
	since time.Time // zero: there is none
	tries int
	err   string
}

func (f *failure) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err.Error()
	if f.tries++; f.tries == 1 {
		f.since = f.now()
		f.log.Error("journal does not take "+f.what, "err", err)
	}
}

func (f *failure) over() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tries > 0 {
		f.log.Info("journal works again", "after", f.now().Sub(f.since).Round(time.Second), "failures", f.tries)
		f.since, f.tries, f.err = time.Time{}, 0, ""
	}
}

// state returns the last error, empty when there is no failure, and since when.
func (f *failure) state() (string, time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err, f.since
}

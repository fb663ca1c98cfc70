package elastic

import (
	"context"
	"slices"
	"sync"
	"time"

	"swarming/shared/backoff"
)

// A batch is rows of a source on their way to Elasticsearch.
type batch struct {
	buf   []byte    // their documents, each an action line and a source line
	ends  []int     // where each document ends in buf
	last  int64     // id of the last row
	since time.Time // when the first row was received
	done  chan bool // gets one value: whether all of it is stored
}

func newBatch(after int64, rows int) *batch {
	const usual = 768 // bytes of a document, to allocate once
	return &batch{buf: make([]byte, 0, rows*usual), ends: make([]int, 0, rows), last: after, done: make(chan bool, 1)}
}

// end notes that the document of a row is complete.
func (b *batch) end(id int64, received time.Time) {
	if len(b.ends) == 0 {
		b.since = received
	}
	b.ends = append(b.ends, len(b.buf))
	b.last = id
}

func (b *batch) docs() [][]byte {
	docs := make([][]byte, len(b.ends))
	start := 0
	for i, end := range b.ends {
		docs[i] = b.buf[start:end:end]
		start = end
	}
	return docs
}

// A stream exports one kind of rows, in order, with a cursor of its own.
type stream struct {
	e    *Exporter
	name string // "results", "events"
	read func(ctx context.Context, after int64, limit int) (*batch, error)
	wake chan struct{} // capacity 1: rows may have been added

	health health

	mu         sync.Mutex
	stats      StreamStats
	pending    []*batch // read and not stored, oldest first
	maxBytes   int64    // of a request, as far as is known
	rejections occasional
}

func newStream(e *Exporter, name string, read func(context.Context, int64, int) (*batch, error)) *stream {
	s := &stream{e: e, name: name, read: read, wake: make(chan struct{}, 1), maxBytes: int64(e.opts.BatchBytes)}
	s.health = health{name: name, log: e.opts.Log, now: e.opts.Now, hints: func(err error) string { return hint(err, e.names) }}
	return s
}

// cursorName is what the source keeps the stream's cursor under.
func (s *stream) cursorName() string { return "elasticsearch-" + s.name }

// full reports whether a batch is as long as a request may be.
func (s *stream) full(b *batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(b.buf)) >= s.maxBytes
}

func (s *stream) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run reads batches and sends each in a goroutine of its own, inFlight at a
// time; commit awaits them in order. It returns when all its goroutines have.
func (s *stream) run(ctx context.Context) {
	var after int64
	err := s.retry(ctx, func() (err error) {
		after, err = s.e.opts.Source.Cursor(ctx, s.cursorName())
		return err
	})
	if err != nil {
		return
	}
	s.mu.Lock()
	s.stats.Cursor = after
	s.mu.Unlock()

	sent := make(chan *batch, inFlight-1) // closed below; commit holds one more
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.commit(ctx, sent) })
	defer close(sent)
	for {
		var b *batch
		err := s.retry(ctx, func() (err error) {
			b, err = s.read(ctx, after, s.e.opts.BatchRows)
			return err
		})
		if err != nil {
			return
		}
		if len(b.ends) == 0 {
			if s.idle(ctx) != nil {
				return
			}
			continue
		}
		after = b.last
		s.track(b)
		select {
		case sent <- b:
			wg.Go(func() { b.done <- s.deliver(ctx, b.docs()) == nil })
		case <-ctx.Done():
			return
		}
	}
}

// idle waits for rows, and then for more of them to share a request.
func (s *stream) idle(ctx context.Context) error {
	select {
	case <-s.wake:
		return backoff.Sleep(ctx, s.e.opts.Linger)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commit moves the cursor as batches are stored, in the order they were read.
func (s *stream) commit(ctx context.Context, sent <-chan *batch) {
	for b := range sent {
		if !<-b.done {
			// Shutting down: this batch and all after it are sent again another day.
			for b := range sent {
				<-b.done
			}
			return
		}
		_ = s.retry(ctx, func() error {
			// What is stored is noted even while shutting down: it saves sending it again.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cursorTimeout)
			defer cancel()
			return s.e.opts.Source.SetCursor(ctx, s.cursorName(), b.last)
		})
		s.untrack(b)
	}
}

// retry calls f until it succeeds, and returns nil, or until ctx ends.
func (s *stream) retry(ctx context.Context, f func() error) error {
	pause := s.e.newBackoff()
	var failed bool
	for {
		err := f()
		if err == nil {
			if failed {
				s.health.succeed()
			}
			return nil
		}
		if ctx.Err() != nil {
			if failed {
				s.health.leave()
			}
			return ctx.Err()
		}
		s.health.fail(err, !failed)
		failed = true
		_ = backoff.Sleep(ctx, pause.Next())
	}
}

func (s *stream) track(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, b)
}

func (s *stream) untrack(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Cursor = b.last
	s.pending = slices.DeleteFunc(s.pending, func(p *batch) bool { return p == b })
}

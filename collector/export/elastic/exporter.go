package elastic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"swarming/collector/journal"
	"swarming/shared/backoff"
	"swarming/shared/wire"
)

// Defaults of [Options].
const (
	DefaultIndex = "swarming"
	// DefaultBatchBytes is below 1 MiB, the longest request that nginx lets
	// through unless told otherwise.
	DefaultBatchBytes = 768 << 10
	DefaultBatchRows  = 1000
	DefaultLinger     = time.Second
	DefaultMinPause   = 500 * time.Millisecond
	DefaultMaxPause   = time.Minute
)

const (
	minBatchBytes  = 16 << 10         // however short a request must be
	inFlight       = 2                // bulk requests of one stream at a time
	pollInterval   = 10 * time.Second // how often to look without being told of a change
	requestTimeout = 2 * time.Minute  // of one request; Elasticsearch itself gives up after one
	cursorTimeout  = 5 * time.Second  // to note what was stored while shutting down
)

// A Source is what is exported; the collector's journal is one. Its methods may
// be called concurrently.
type Source interface {
	ResultsAfter(ctx context.Context, id int64, limit int) ([]journal.Row, error)
	EventsAfter(ctx context.Context, id int64, limit int) ([]journal.Event, error)
	Cursor(ctx context.Context, name string) (int64, error)
	SetCursor(ctx context.Context, name string, id int64) error
	Changed() <-chan struct{}
	Agents(ctx context.Context) ([]journal.AgentInfo, error)
}

// Options configure an Exporter. Zero values stand for the defaults.
type Options struct {
	URLs       []string // nodes of one cluster, http or https, with optional user:password; at least one
	Index      string   // prefix of the indices; "logstash" gives the names of the original. Default: swarming
	APIKeyFile string   // an API key, "id:key" or encoded; read again when it changes
	CA         string   // PEM file that https nodes are checked against; read at each connection. Default: the system's
	Source     Source   // required

	BatchRows  int           // most documents in a request; default 1000
	BatchBytes int           // most bytes in a request, give or take a document; default 768 KiB
	Linger     time.Duration // how long to gather rows once caught up; default 1 s
	MinPause   time.Duration // bound of the first pause after a failure; default 500 ms
	MaxPause   time.Duration // bound of all pauses; default 1 min

	Log *slog.Logger     // nil: discard
	Now func() time.Time // nil: time.Now
}

// An Exporter ships one source to one Elasticsearch cluster. It holds at most
// three batches of each stream in memory.
type Exporter struct {
	opts    Options
	client  *client
	names   names
	labels  labels
	results *stream
	events  *stream
	poll    time.Duration // pollInterval, except in a test

	prepare prepared
}

// New checks the options and allocates. It fails if a file that is named cannot
// be read, but does not talk to Elasticsearch.
func New(o Options) (*Exporter, error) {
	if o.Source == nil {
		return nil, errors.New("elasticsearch export without a source")
	}
	o.setDefaults()
	names, err := newNames(o.Index)
	if err != nil {
		return nil, err
	}
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	e := &Exporter{opts: o, client: c, names: names, poll: pollInterval}
	e.labels = labels{source: o.Source, now: o.Now}
	e.results = newStream(e, "results", e.readResults)
	e.events = newStream(e, "events", e.readEvents)
	return e, nil
}

func (o *Options) setDefaults() {
	setDefault(&o.Index, DefaultIndex)
	setDefault(&o.BatchRows, DefaultBatchRows)
	setDefault(&o.BatchBytes, DefaultBatchBytes)
	setDefault(&o.Linger, DefaultLinger)
	setDefault(&o.MinPause, DefaultMinPause)
	setDefault(&o.MaxPause, DefaultMaxPause)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Run exports until ctx ends, which is no error. Elasticsearch may be down at
// the start, or for days.
func (e *Exporter) Run(ctx context.Context) error {
	defer e.client.close()
	var wg sync.WaitGroup
	wg.Go(func() { e.prepareEarly(ctx) })
	wg.Go(func() { e.results.run(ctx) })
	wg.Go(func() { e.events.run(ctx) })
	e.watch(ctx)
	wg.Wait()
	return nil
}

// watch tells both streams of a change in the source.
func (e *Exporter) watch(ctx context.Context) {
	poll := time.NewTicker(e.poll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.opts.Source.Changed():
		case <-poll.C:
		}
		e.results.poke()
		e.events.poke()
	}
}

func (e *Exporter) newBackoff() *backoff.Backoff {
	return &backoff.Backoff{Base: e.opts.MinPause, Max: e.opts.MaxPause}
}

func (e *Exporter) readResults(ctx context.Context, after int64, limit int) (*batch, error) {
	rows, err := e.opts.Source.ResultsAfter(ctx, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	b := newBatch(after, len(rows))
	for i := range rows {
		r := &rows[i]
		labels, err := e.labels.of(ctx, r.Result.Agent)
		if err != nil {
			return nil, err
		}
		b.buf = appendResult(b.buf, e.names.result, r, labels)
		if b.end(r.ID, r.Received); e.results.full(b) {
			break
		}
	}
	return b, nil
}

func (e *Exporter) readEvents(ctx context.Context, after int64, limit int) (*batch, error) {
	// An event carries up to a whole heartbeat, a result never.
	rows, err := e.opts.Source.EventsAfter(ctx, after, max(1, limit*1024/wire.MaxLive))
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	b := newBatch(after, len(rows))
	for i := range rows {
		r := &rows[i]
		labels, err := e.labels.of(ctx, r.Agent)
		if err != nil {
			return nil, err
		}
		b.buf = appendEvent(b.buf, e.names.event, r, labels)
		if b.end(r.ID, r.Received); e.events.full(b) {
			break
		}
	}
	return b, nil
}

package watch

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"swarming/shared/wire"
)

// How often Run looks at the file, and does what has become due.
const (
	pollEvery = 2 * time.Second
	tickEvery = 250 * time.Millisecond
)

// maxEarly bounds what brokers may say before the state has been read, which
// takes milliseconds. Beyond it the rest is dropped; it is learnt later.
const maxEarly = 1000

// Options configure a [Keeper].
type Options struct {
	File    string             // the watch file; empty: follow what others publish
	Dir     string             // where the state is kept; empty: nowhere
	Name    wire.CollectorName // who made a list, for people
	Brokers []string           // their addresses, for people; a broker is named by its index here

	// Publish publishes payload on the topic watch, retained, at QoS 1. It must
	// neither block nor call the Keeper. A failure needs no report: what the
	// broker sends back tells. Nil: observe, and never publish.
	Publish func(broker int, payload []byte)

	BuildTime time.Time        // the clock is not set while it shows less
	Now       func() time.Time // nil: time.Now
	Log       *slog.Logger     // nil: discard
}

// A Keeper keeps one watch list and spreads it by the rules in the package
// comment. Its methods may be called concurrently, and never block on a broker
// or a disk.
type Keeper struct {
	opts Options
	log  *slog.Logger
	now  func() time.Time

	mu       sync.Mutex
	spread   *spread
	restored bool              // the state has been read
	early    []func(time.Time) // what happened before, at most maxEarly
	source   fileStatus

	wake chan struct{} // the state is to be saved
}

// fileStatus is what Run knows of the watch file. Only raw and fresh are not shown.
type fileStatus struct {
	loaded time.Time // when the list in force was read
	err    string    // why the file cannot be used now
	since  time.Time // of err
	raw    []byte    // as last judged
	fresh  []byte    // as last seen, when different: judged once it is seen twice
}

// New allocates a Keeper; Run reads its state and its file.
func New(opts Options) *Keeper {
	k := &Keeper{opts: opts, log: opts.Log, now: opts.Now, wake: make(chan struct{}, 1)}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.now == nil {
		k.now = time.Now
	}
	k.spread = newSpread(string(opts.Name), opts.Brokers, opts.BuildTime, opts.Publish, k.log)
	return k
}

// Run reads the state and the file, then polls the file every 2 s, does what
// becomes due and saves the state, until ctx ends. It returns nil.
//
// A changed file is taken when two looks in a row see the same content, so that
// one which is still being written is not; a bad one is reported, and the last
// good list stays.
func (k *Keeper) Run(ctx context.Context) error {
	k.restore()
	k.poll(true)
	poll, tick := time.NewTicker(pollEvery), time.NewTicker(tickEvery)
	defer poll.Stop()
	defer tick.Stop()
	var failing bool
	for {
		select {
		case <-ctx.Done():
			k.save(&failing)
			return nil
		case <-poll.C:
			k.poll(false)
		case <-tick.C:
			k.do(func(now time.Time) { k.spread.tick(now) })
		case <-k.wake:
		}
		k.save(&failing)
	}
}

// Subscribed says that a broker has accepted the subscription to watch.
func (k *Keeper) Subscribed(broker int) {
	k.do(func(now time.Time) { k.spread.subscribed(now, broker) })
}

// Lost says that the connection to a broker has ended.
func (k *Keeper) Lost(broker int) { k.do(func(now time.Time) { k.spread.lost(now, broker) }) }

// Message takes what a broker sent on the topic watch; it keeps payload.
func (k *Keeper) Message(broker int, payload []byte, retained bool) {
	k.do(func(now time.Time) { k.spread.message(now, broker, payload, retained) })
}

// Rev returns the rev of the list held, 0 without one.
func (k *Keeper) Rev() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spread.held == nil {
		return 0
	}
	return k.spread.held.rev
}

// List returns the list held; ok is false without one.
func (k *Keeper) List() (w wire.Watch, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spread.held == nil {
		return wire.Watch{}, false
	}
	return k.spread.held.watch, true
}

// do calls f with the state machine to itself, once the state has been read.
func (k *Keeper) do(f func(now time.Time)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.restored {
		if len(k.early) < maxEarly {
			k.early = append(k.early, f)
		}
		return
	}
	f(k.now())
	if k.spread.dirty {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

// restore reads the state, and then does what came too early.
func (k *Keeper) restore() {
	var l *list
	var owned bool
	if k.opts.Dir != "" {
		var err error
		if l, owned, err = loadState(k.opts.Dir); err != nil {
			k.log.Warn("watch state is of no use and will be replaced", "err", err)
		}
	}
	k.mu.Lock()
	if l != nil {
		k.spread.restore(l, owned && k.opts.File != "")
	}
	k.restored = true
	early := k.early
	k.early = nil
	for _, f := range early {
		f(k.now())
	}
	k.mu.Unlock()
}

// save writes the state if it changed. A failure is logged once, and tried
// again at the next tick.
func (k *Keeper) save(failing *bool) {
	k.mu.Lock()
	l, owned, dirty := k.spread.held, k.spread.owned, k.spread.dirty
	k.spread.dirty = false
	k.mu.Unlock()
	if !dirty || l == nil || k.opts.Dir == "" {
		return
	}
	if err := saveState(k.opts.Dir, l, owned); err != nil {
		if !*failing {
			k.log.Error("watch list cannot be saved: a restart would not repeat it", "err", err)
		}
		*failing = true
		k.mu.Lock()
		k.spread.dirty = true
		k.mu.Unlock()
		return
	}
	*failing = false
}

// poll looks at the file. At the start there is no second look.
func (k *Keeper) poll(start bool) {
	if k.opts.File == "" {
		return
	}
	raw, err := readLimited(k.opts.File)
	if err != nil {
		k.source.raw, k.source.fresh = nil, nil // read it again when it is back
		k.fileFails(err)
		return
	}
	if k.source.raw != nil && bytes.Equal(raw, k.source.raw) {
		k.source.fresh = nil
		return
	}
	if !start && (k.source.fresh == nil || !bytes.Equal(raw, k.source.fresh)) {
		k.source.fresh = raw
		return
	}
	k.source.raw, k.source.fresh = raw, nil
	w, err := Parse(k.opts.File, raw)
	if err != nil {
		k.fileFails(err)
		return
	}
	k.log.Info("watch file read", "file", k.opts.File, "targets", len(w.Targets))
	k.do(func(now time.Time) {
		k.source.err, k.source.loaded, k.source.since = "", now, time.Time{}
		k.spread.file(now, w)
	})
}

// fileFails notes why the file cannot be used, and logs it when it is news.
func (k *Keeper) fileFails(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.source.err == err.Error() {
		return
	}
	k.source.err, k.source.since = err.Error(), k.now()
	k.log.Warn("watch file cannot be used; the last good list stays", "err", err)
}

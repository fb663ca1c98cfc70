package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"swarming/shared/wire"
)

// MaxRounds is how many rounds an engine has in flight at most.
const MaxRounds = 4096

// EngineOptions are the settings of an [Engine].
type EngineOptions struct {
	// MaxPPS is the most packets a second over all addresses; 0, and whatever
	// is above it, stands for the constant [MaxPPS].
	MaxPPS float64
	Log    *slog.Logger // nil: discard
}

// Stats count what an engine did since it was made.
type Stats struct {
	Sent       uint64 // echo requests that left this machine
	Received   uint64 // replies in time
	Late       uint64 // replies after the timeout
	Duplicates uint64 // further replies to one request
	Errors     uint64 // ICMP errors about a request in flight
	Strangers  uint64 // messages that belong to no request in flight
	Local      uint64 // requests that could not be sent
	Refused    uint64 // rounds not taken: invalid, more than MaxRounds, or after the end
	Sockets    uint64 // sockets opened
}

type counters struct {
	sent, received, late, duplicates, failures, strangers, local, refused, sockets atomic.Uint64
}

// An Engine measures rounds. Its methods may be called from any goroutine.
//
// Run's goroutine sends and ends rounds when their time has come; a reader per
// socket records what comes back. Both do so while they hold the same lock,
// for microseconds, rather than hand each reply from one to the other: at 100
// packets a second most of the cost is waking up, and handing over made a
// quarter more futex calls (measured).
type Engine struct {
	log    *slog.Logger
	cookie cookie
	clock  func() instant
	listen listener
	count  counters
	kick   chan struct{} // holds one: there is something new to send
	reader sync.WaitGroup

	mu      sync.Mutex // guards what follows
	stopped bool
	flying  int            // rounds taken and not done
	wait    timeline       // rounds that wait for a moment
	ready   fifo           // rounds with a request to send as soon as the pace allows, first come first served
	over    []*round       // rounds whose outcome unlock is to deliver
	table   map[uint16]ref // packets in flight by sequence number
	next    uint32         // number of the next packet
	links   [2]link        // IPv4 and IPv6
	pace    pacer          // over all addresses
	space   spacer         // for each address
}

// A ref says which packet of which round a sequence number stands for.
type ref struct {
	round *round
	i     int
}

// NewEngine allocates an engine. It opens nothing; Run does, when needed.
func NewEngine(o EngineOptions) *Engine {
	e := &Engine{
		log:    o.Log,
		clock:  newClock(),
		listen: listen,
		kick:   make(chan struct{}, 1),
		table:  map[uint16]ref{},
		pace:   newPacer(o.MaxPPS),
		space:  newSpacer(),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	rand.Read(e.cookie[:]) // never fails
	for i, family := range [...]int{4, 6} {
		e.links[i] = newLink(family, e.log, e.openConn)
	}
	return e
}

// Start measures r and calls done exactly once with what became of it. It never
// blocks; rounds started before Run wait for it.
//
// done is called from a goroutine of the engine, where it must not block, and
// at the same time as that of other rounds; or from Start itself when the round
// cannot be taken: it is invalid, [MaxRounds] are in flight, or the engine has
// stopped. The outcome's Cause is local then. done may call Start.
func (e *Engine) Start(r Round, done func(Outcome)) {
	r.Addr = r.Addr.Unmap()
	r.Gap = max(r.Gap, MinGap)
	if err := r.check(); err != nil {
		e.refuse(err, false, done)
		return
	}
	e.mu.Lock()
	stopped, full := e.stopped, e.flying >= MaxRounds
	if !stopped && !full {
		e.flying++
		e.ready.push(&round{Round: r, done: done, index: -1})
	}
	e.mu.Unlock()
	switch {
	case stopped:
		e.refuse(errStopped, true, done)
	case full:
		e.refuse(fmt.Errorf("%d rounds are in flight, which is the most", MaxRounds), false, done)
	default:
		select {
		case e.kick <- struct{}{}:
		default: // it will look anyway
		}
	}
}

var errStopped = errors.New("the probe has stopped")

func (e *Engine) refuse(err error, stopped bool, done func(Outcome)) {
	e.count.refused.Add(1)
	done(Outcome{Start: time.Unix(0, e.clock().wall), Cause: wire.CauseLocal, Err: err.Error(), Stopped: stopped})
}

// Ping measures one round and returns its outcome, or ctx's error when it ends
// first. Run must be running.
func (e *Engine) Ping(ctx context.Context, r Round) (Outcome, error) {
	c := make(chan Outcome, 1)
	e.Start(r, func(o Outcome) { c <- o })
	select {
	case o := <-c:
		return o, nil
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("ping %v: %w", r.Addr, ctx.Err())
	}
}

// Stats returns the counters.
func (e *Engine) Stats() Stats {
	c := &e.count
	return Stats{
		Sent: c.sent.Load(), Received: c.received.Load(), Late: c.late.Load(), Duplicates: c.duplicates.Load(),
		Errors: c.failures.Load(), Strangers: c.strangers.Load(), Local: c.local.Load(), Refused: c.refused.Load(),
		Sockets: c.sockets.Load(),
	}
}

// Run measures until ctx ends, and then calls done of every round in flight
// with an outcome that says Stopped. The error is always nil: a machine that
// may not ping yields outcomes that say so. Call it once.
func (e *Engine) Run(ctx context.Context) error {
	e.loop(ctx)
	e.stop()
	e.reader.Wait()
	return nil
}

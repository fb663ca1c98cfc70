package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"swarming/shared/wire"
)

// MaxRounds is how many rounds an engine has in flight at most.
const MaxRounds = 4096

// maxPackets bounds the packets in flight, so that a free sequence number is
// always near.
const maxPackets = 1 << 15

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
	Refused    uint64 // rounds not taken: invalid, or more than MaxRounds
	Sockets    uint64 // sockets opened
}

type counters struct {
	sent, received, late, duplicates, failures, strangers, local, refused, sockets atomic.Uint64
}

// An Engine measures rounds. Its methods may be called from any goroutine.
type Engine struct {
	log    *slog.Logger
	cookie cookie
	clock  func() instant
	listen listener
	count  counters
	kick   chan struct{} // holds one: the inbox has something

	mu      sync.Mutex // guards what follows
	inbox   []*round
	flying  int // rounds taken and not done
	stopped bool

	// What follows belongs to Run's goroutine.
	spare  []*round // the inbox's other buffer
	wait   timeline // rounds that wait for a moment
	ready  fifo     // rounds with a request to send as soon as the pace allows, first come first served
	table  map[uint16]ref
	next   uint32 // number of the next packet
	links  [2]link
	pace   pacer
	space  spacer
	events chan event
	broken chan breakage
	reader sync.WaitGroup
	now    instant // of the current turn of the loop
}

// A ref says which packet of which round a sequence number stands for.
type ref struct {
	round *round
	i     int
}

// A breakage is the end of a socket that was not asked for.
type breakage struct {
	link *link
	conn *conn
	err  error
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
		events: make(chan event, 256),
		broken: make(chan breakage),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	rand.Read(e.cookie[:]) // never fails
	return e
}

// Start measures r and calls done exactly once with what became of it: from
// the engine's goroutine, where done must not block, or from Start itself when
// the round cannot be taken: it is invalid, [MaxRounds] are in flight, or the
// engine has stopped. The outcome's Cause is local then. Start never blocks.
// Rounds started before Run wait for it.
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
		e.inbox = append(e.inbox, &round{Round: r, done: done, index: -1})
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
	reading, stopReading := context.WithCancel(ctx)
	for i, family := range [...]int{4, 6} {
		e.links[i] = newLink(family, e.log, func(l *link) (*conn, error) { return e.openConn(reading, l) })
	}
	e.loop(ctx)
	stopReading()
	e.stop()
	e.reader.Wait()
	return nil
}

// loop turns until ctx ends: do what is due, then sleep until the next moment,
// reply or round.
func (e *Engine) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		e.now = e.clock()
		e.accept()
		e.advance()
		if d, ok := e.sleep(); ok {
			timer.Reset(d)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case ev := <-e.events:
			e.now = e.clock()
			e.handle(&ev)
			e.handleWaiting()
		case b := <-e.broken:
			b.link.broke(e.now.mono, b.conn, b.err)
		case <-e.kick:
		case <-timer.C:
		}
	}
}

// accept takes new rounds.
func (e *Engine) accept() {
	e.mu.Lock()
	e.inbox, e.spare = e.spare[:0], e.inbox
	e.mu.Unlock()
	for i, r := range e.spare {
		e.ready.push(r)
		e.spare[i] = nil
	}
}

// handleWaiting handles the events that are there already.
func (e *Engine) handleWaiting() {
	for {
		select {
		case ev := <-e.events:
			e.handle(&ev)
		default:
			return
		}
	}
}

// advance does what is due now.
func (e *Engine) advance() {
	now := e.now.mono
	for {
		r, ok := e.wait.due(now)
		if !ok {
			break
		}
		switch {
		case !r.sentAll():
			e.ready.push(r)
		case !r.closed:
			r.closed = true
			e.wait.put(r, now+lastLook)
		default:
			e.finish(r)
		}
	}
	for !e.ready.empty() && e.pace.ready(now) {
		r := e.ready.pop()
		if at := e.space.earliest(r.Addr); at > now {
			e.wait.put(r, at)
			continue
		}
		e.send(r)
	}
}

// sleep returns how long nothing is due; ok is false when nothing ever is.
func (e *Engine) sleep() (d time.Duration, ok bool) {
	var at time.Duration
	if len(e.wait) > 0 {
		at, ok = e.wait[0].at, true
	}
	if !e.ready.empty() && (!ok || e.pace.next < at) {
		at, ok = e.pace.next, true
	}
	return max(at-e.clock().mono, 0), ok
}

// stop ends every round in flight.
func (e *Engine) stop() {
	e.mu.Lock()
	e.stopped = true
	e.mu.Unlock()
	e.accept()
	rounds := append(e.ready.rest(), e.wait...)
	e.wait, e.table = nil, nil
	open := map[*conn]bool{}
	for _, r := range rounds {
		for i := range r.packets {
			if c := r.packets[i].conn; c != nil && c.retired {
				open[c] = true
			}
		}
	}
	for c := range open {
		c.close()
	}
	for i := range e.links {
		e.links[i].close()
	}
	for _, r := range rounds {
		if !r.started {
			r.start = e.now
		}
		r.done(Outcome{Start: time.Unix(0, r.start.wall), Cause: wire.CauseLocal, Err: errStopped.Error(), Stopped: true})
	}
}

// finish delivers the outcome of r, which must be in neither wait nor ready.
func (e *Engine) finish(r *round) {
	o := r.outcome(e.now)
	for i := range r.packets {
		p := &r.packets[i]
		if p.conn == nil {
			continue
		}
		delete(e.table, uint16(p.n))
		p.conn.release()
	}
	if o.Sent > 0 && o.Cause == wire.CauseTimeout && !o.Answered() {
		e.link(r.Addr).unanswered(e.now.mono, r.Addr)
	}
	e.mu.Lock()
	e.flying--
	e.mu.Unlock()
	r.done(o)
}

func (e *Engine) link(a netip.Addr) *link {
	if a.Is4() {
		return &e.links[0]
	}
	return &e.links[1]
}

// openConn opens a socket and starts its reader, which ends with reading or
// when the socket is closed.
func (e *Engine) openConn(reading context.Context, l *link) (*conn, error) {
	c := &conn{codec: codec{family: l.family, cookie: e.cookie}}
	var err error
	if c.socket, c.mode, err = e.listen(&c.codec, e.clock); err != nil {
		return nil, err
	}
	e.count.sockets.Add(1)
	emit := func(ev event) {
		select {
		case e.events <- ev:
		case <-reading.Done():
		}
	}
	e.reader.Go(func() {
		err := c.read(emit)
		select {
		case e.broken <- breakage{l, c, err}:
		case <-reading.Done():
		}
	})
	return c, nil
}

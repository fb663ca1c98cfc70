package probe

import (
	"context"
	"net/netip"
	"time"

	"swarming/shared/wire"
)

// loop turns until ctx ends: do what is due, then sleep until the next moment
// or the next new round. Replies do not wake it: at worst it wakes once more for
// a round that has ended meanwhile.
func (e *Engine) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		e.mu.Lock()
		e.advance(e.clock())
		d, ok := e.sleep()
		e.unlock()
		if ok {
			timer.Reset(d)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-e.kick:
		case <-timer.C:
		}
	}
}

// unlock releases e.mu and delivers the outcomes of the rounds that ended while
// it was held.
func (e *Engine) unlock() {
	over := e.over
	e.over = nil
	e.mu.Unlock()
	for _, r := range over {
		r.done(r.result)
	}
}

// advance does what is due now.
func (e *Engine) advance(now instant) {
	for {
		r, ok := e.wait.due(now.mono)
		if !ok {
			break
		}
		switch {
		case !r.sentAll():
			e.ready.push(r)
		case !r.closed:
			r.closed = true
			e.wait.put(r, now.mono+lastLook)
		default:
			e.finish(r, now)
		}
	}
	for !e.ready.empty() && e.pace.ready(now.mono) {
		r := e.ready.pop()
		if at := e.space.earliest(r.Addr); at > now.mono {
			e.wait.put(r, at)
			continue
		}
		e.send(r, now)
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

// receive records what a reader read.
func (e *Engine) receive(ev event) {
	e.mu.Lock()
	e.handle(&ev)
	e.unlock()
}

// handle records what came back.
func (e *Engine) handle(ev *event) {
	t, ok := e.table[ev.echo.seq]
	if !ok || !t.matches(ev) {
		e.count.strangers.Add(1)
		return
	}
	r := t.round
	if ev.cause != "" {
		if r.fail(t.i, ev) {
			e.count.failures.Add(1)
		}
	} else {
		e.answer(r, t.i, ev)
	}
	// A round that is not waiting is being sent right now, by who called this.
	if r.settled() && r.index >= 0 {
		e.wait.remove(r)
		e.finish(r, ev.at)
	}
}

func (e *Engine) answer(r *round, i int, ev *event) {
	switch fresh := r.answer(i, ev); {
	case !fresh:
		e.count.duplicates.Add(1)
	case r.packets[i].state == stateLate:
		e.count.late.Add(1)
	default:
		e.count.received.Add(1)
	}
	e.link(r.Addr).answered()
}

// matches reports whether ev is about the packet of t: the sequence number
// alone may be an older packet's.
func (t ref) matches(ev *event) bool {
	if ev.echo.whole && ev.echo.n != t.round.packets[t.i].n {
		return false
	}
	if ev.cause != "" {
		return ev.to == t.round.Addr
	}
	return ev.from == t.round.Addr
}

// finish ends r, which must be in neither wait nor ready.
func (e *Engine) finish(r *round, now instant) {
	for i := range r.packets {
		if p := &r.packets[i]; p.conn != nil {
			delete(e.table, uint16(p.n))
			p.conn.release()
		}
	}
	r.result = r.outcome(now)
	if o := &r.result; o.Sent > 0 && o.Cause == wire.CauseTimeout && !o.Answered() {
		e.link(r.Addr).unanswered(now.mono, r.Addr)
	}
	e.flying--
	e.over = append(e.over, r)
}

// stop ends every round in flight and closes every socket.
func (e *Engine) stop() {
	e.mu.Lock()
	defer e.unlock()
	e.stopped = true
	now := e.clock()
	rounds := append(e.ready.rest(), e.wait...)
	e.wait = nil
	clear(e.table)
	for _, r := range rounds {
		for i := range r.packets {
			if c := r.packets[i].conn; c != nil {
				c.release()
			}
		}
		if !r.started {
			r.start = now
		}
		r.result = Outcome{Start: time.Unix(0, r.start.wall), Cause: wire.CauseLocal, Err: errStopped.Error(), Stopped: true}
	}
	e.flying = 0
	e.over = append(e.over, rounds...)
	for i := range e.links {
		e.links[i].close()
	}
}

func (e *Engine) link(a netip.Addr) *link {
	if a.Is4() {
		return &e.links[0]
	}
	return &e.links[1]
}

// openConn opens a socket and starts its reader, which ends when the socket is
// closed or breaks.
func (e *Engine) openConn(l *link) (*conn, error) {
	c := &conn{codec: codec{family: l.family, cookie: e.cookie}}
	var err error
	if c.socket, c.mode, err = e.listen(&c.codec, e.clock); err != nil {
		return nil, err
	}
	e.count.sockets.Add(1)
	e.reader.Go(func() {
		err := c.read(e.receive)
		e.mu.Lock()
		defer e.mu.Unlock()
		l.broke(e.clock().mono, c, err)
	})
	return c, nil
}

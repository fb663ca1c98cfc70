package probe

import (
	"fmt"
	"time"
)

// maxPackets bounds the packets in flight, so that a free sequence number is
// always near.
const maxPackets = 1 << 15

// sendTries is how often one request is tried: an ICMP error about an earlier
// one, to any address, makes the next send on the socket fail.
const sendTries = 4

// send sends the next request of r, and says when r is due again.
func (e *Engine) send(r *round, now instant) {
	l := e.link(r.Addr)
	if !r.started {
		r.started, r.start = true, now
		r.packets = make([]packet, 0, r.Count)
	}
	c, err := l.get(now.mono)
	if err != nil {
		if hint := hintOf(err); hint != "" {
			err = fmt.Errorf("%w; permit it with: %s", err, hint)
		}
		// No use in trying the others one by one.
		for !r.sentAll() {
			e.unsent(r, err)
		}
		e.proceed(r, now)
		return
	}
	seq, ok := e.sequence()
	if !ok {
		e.unsent(r, fmt.Errorf("%d packets are in flight, which is the most", maxPackets))
		e.proceed(r, now)
		return
	}
	tx, err := e.write(c, r, seq)
	if err != nil {
		err = fmt.Errorf("send to %v: %w", r.Addr, err)
		l.complain(now.mono, err)
		e.unsent(r, err)
		e.proceed(r, now)
		return
	}
	if len(r.packets) == 0 {
		r.start = tx
	}
	e.table[uint16(seq)] = ref{r, len(r.packets)}
	r.packets = append(r.packets, packet{conn: c, tx: tx, n: seq})
	r.open++
	c.waiting++
	e.count.sent.Add(1)
	e.pace.sent(tx.mono)
	e.space.sent(r.Addr, tx.mono)
	e.proceed(r, tx)
}

// write sends request n of r and returns when, on both clocks, just before.
func (e *Engine) write(c *conn, r *round, n uint32) (instant, error) {
	msg, err := c.codec.request(uint16(n), n)
	if err != nil {
		return instant{}, err
	}
	for try := 1; ; try++ {
		tx := e.clock()
		err = c.send(msg, r.Addr)
		if err == nil {
			return tx, nil
		}
		// Draining also clears what the kernel keeps as the socket's pending
		// error, so it is worth a try even when the reader was first.
		c.drain(func(ev event) { e.handle(&ev) })
		if try == sendTries {
			return instant{}, err
		}
	}
}

// unsent records an attempt to send that failed on this machine.
func (e *Engine) unsent(r *round, err error) {
	r.packets = append(r.packets, packet{state: stateLocal})
	r.err = err
	e.count.local.Add(1)
}

// proceed says when r, which attempted a request at sent, is due again.
func (e *Engine) proceed(r *round, sent instant) {
	switch {
	case r.settled():
		e.finish(r, sent)
	case !r.sentAll():
		e.wait.put(r, sent.mono+r.Gap)
	default:
		e.wait.put(r, r.lastDeadline())
	}
}

// lastDeadline returns when the timeout of the last request that left ends.
func (r *round) lastDeadline() time.Duration {
	for i := len(r.packets) - 1; i >= 0; i-- {
		if p := &r.packets[i]; p.state != stateLocal {
			return p.tx.mono + r.Timeout
		}
	}
	return 0
}

// sequence returns the number of the next packet, whose lower 16 bits are not
// in use; ok is false when too many are.
func (e *Engine) sequence() (n uint32, ok bool) {
	if len(e.table) >= maxPackets {
		return 0, false
	}
	for {
		n = e.next
		e.next++
		if _, used := e.table[uint16(n)]; !used {
			return n, true
		}
	}
}

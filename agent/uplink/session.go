package uplink

import (
	"context"
	"sync"
	"time"

	"swarming/agent/outbox"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

// An ending is why a connection is given up.
type ending int

const (
	staying ending = iota
	leaving        // the context ended
	lost           // the connection failed
	barren         // no collector, or no acks; perhaps elsewhere
	aged           // long enough; the swarm spreads anew
)

// A session is one connection, from its first subscription on.
type session struct {
	u      *Uplink
	number uint64 // of the connection, in this boot
	conn   link

	done     chan confirmation // has room for all that is in flight
	inFlight int
	kick     chan struct{} // holds one: something was heard

	began     time.Time
	patience  time.Duration
	ends      time.Time // when it has become old
	lastLive  time.Time
	nextLive  time.Time
	lastIdle  time.Time // when last no result waited for an ack
	settledAt time.Time // zero: not settled
	retryAt   time.Time // when the settled try another circle
	ackSeen   time.Time // the latest ack that was acted upon
	proved    bool      // useful, and said so

	mu    sync.Mutex // guards what follows, which the connection's reader sets
	heard time.Time  // a collector
	acked time.Time  // an ack that removed something
	fresh bool       // a watch list, of which no heartbeat has told yet
}

// A confirmation is the end of one publish.
type confirmation struct {
	item outbox.Item
	err  error
}

// newSession begins an attempt to connect. Every attempt has its own number: a
// broker that thaws later may still take this one for real, and publish its will.
func (u *Uplink) newSession() *session {
	u.mu.Lock()
	u.conn++
	number := u.conn
	u.mu.Unlock()
	u.ears.begin()
	return &session{u: u, number: number, done: make(chan confirmation, Window), kick: make(chan struct{}, 1)}
}

// hear is called by the connection's reader.
func (s *session) hear(m broker.Message) {
	got := s.u.ears.hear(m)
	now := time.Now()
	s.mu.Lock()
	if got.collector {
		s.heard = now
	}
	if got.acked {
		s.acked = now
	}
	s.fresh = s.fresh || got.listed
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default: // it will look anyway
	}
}

// listTold is how long after a heartbeat, at least, another one tells what became
// of a new watch list: soon for a person who looks, and yet no flood when lists
// are.
const listTold = 10 * time.Second

// hasten brings the next heartbeat forward when there is a new watch list.
func (s *session) hasten(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.lastLive.Add(listTold); s.fresh && at.Before(s.nextLive) {
		s.nextLive = at
	}
	s.fresh = false
}

func (s *session) signs() (heard, acked time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard, s.acked
}

// serve uses the connection until there is a reason not to.
func (s *session) serve(ctx context.Context) ending {
	s.start(time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		if why := s.check(now); why != staying {
			return why
		}
		wait := s.feed()
		timer.Reset(min(wait, s.nextCheck(now)))
		select {
		case <-ctx.Done():
			return leaving
		case <-s.conn.Done():
			return lost
		case c := <-s.done:
			s.finish(c)
		case <-s.u.opts.Outbox.Wake():
		case <-s.kick:
		case <-timer.C:
		}
	}
}

func (s *session) start(now time.Time) {
	u := s.u
	s.began, s.lastIdle, s.nextLive = now, now, now
	s.patience = u.timing.Patience + time.Duration(u.random()*float64(u.timing.Patience))
	s.ends = now.Add(around(u.timing.Lifetime, u.random))
}

// check does what is due, and says whether the connection is to be kept.
func (s *session) check(now time.Time) ending {
	s.u.ears.takeOverdue(now)
	s.hasten(now)
	if !now.Before(s.nextLive) {
		s.lastLive = now
		s.nextLive = now.Add(s.u.timing.Heartbeat)
		s.conn.PublishAsync(s.u.heartbeat(s.number), nil)
	}
	if s.u.opts.Outbox.Stats().Awaiting == 0 {
		s.lastIdle = now
	}
	if !s.proved && s.useful() {
		s.proved = true
		s.u.report.works(s.u.route.broker())
	}
	if len(s.u.route.order) > 1 && !now.Before(s.ends) && s.inFlight == 0 {
		return aged
	}
	return s.judge(now)
}

// judge decides whether another broker may do better.
func (s *session) judge(now time.Time) ending {
	r := &s.u.route
	heard, acked := s.signs()
	if acked.After(s.ackSeen) {
		s.ackSeen, s.settledAt = acked, time.Time{}
		r.acked()
		s.u.report.acked(r.broker())
	}
	if s.settled() {
		if len(r.order) > 1 && !now.Before(s.retryAt) {
			r.again()
			return barren
		}
		return staying
	}
	if now.Before(s.outOfPatience(heard, acked)) {
		return staying
	}
	stay := r.outOfPatience()
	s.u.report.barren(r.broker(), !heard.IsZero(), stay)
	if !stay {
		return barren
	}
	s.settle(now)
	return staying
}

func (s *session) settled() bool { return !s.settledAt.IsZero() }

func (s *session) settle(now time.Time) {
	s.settledAt = now
	s.retryAt = now.Add(around(s.u.timing.Settle, s.u.random))
}

// outOfPatience returns when, as things are, it will have been too long without
// a collector or without an ack for results that wait for one.
func (s *session) outOfPatience(heard, acked time.Time) time.Time {
	at := later(s.began, heard)
	if s.u.opts.Outbox.Stats().Awaiting > 0 {
		if unacked := later(later(s.began, acked), s.lastIdle); unacked.Before(at) {
			at = unacked
		}
	}
	return at.Add(s.patience)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// nextCheck returns how long it is until check has something to do.
func (s *session) nextCheck(now time.Time) time.Duration {
	at := s.nextLive
	if due, ok := s.u.ears.watchDue(); ok && due.Before(at) {
		at = due
	}
	if n := len(s.u.route.order); n > 1 && s.ends.Before(at) && s.inFlight == 0 {
		at = s.ends
	}
	judge := s.retryAt
	if !s.settled() {
		judge = s.outOfPatience(s.signs())
	}
	if judge.Before(at) && judge.After(now) {
		at = judge
	}
	return max(at.Sub(now), 0)
}

// feed publishes what the window and the outbox allow, and returns how long it
// is until the outbox may have more.
func (s *session) feed() (wait time.Duration) {
	for s.inFlight < Window {
		item, wait, ok := s.u.opts.Outbox.Next()
		if !ok {
			return wait
		}
		s.inFlight++
		m := broker.Message{Topic: item.Topic, Payload: item.Payload, QoS: 1}
		s.conn.PublishAsync(m, func(err error) { s.done <- confirmation{item, err} })
	}
	return 1<<63 - 1 // a PUBACK must come first
}

func (s *session) finish(c confirmation) {
	s.inFlight--
	if c.err == nil {
		s.u.opts.Outbox.Confirmed(c.item)
	} else {
		// The connection tells why it ended; anything else would be a
		// result that cannot be published. It stays in the outbox.
		s.u.log.Debug("result not confirmed", "topic", c.item.Topic, "err", c.err)
	}
}

// collect takes the confirmations that came before the connection ended.
func (s *session) collect() {
	for {
		select {
		case c := <-s.done:
			s.finish(c)
		default:
			return
		}
	}
}

// usefulAge is how long a connection must have stood to count as one that
// worked, though no collector was heard.
const usefulAge = time.Minute

func (s *session) useful() bool {
	heard, _ := s.signs()
	return !heard.IsZero() || time.Since(s.began) >= usefulAge
}

// leave publishes what is left, says bye and closes. Of its time three fifths
// are for the results, one for the bye and one for closing.
func (s *session) leave() {
	fifth := s.u.timing.Drain / 5
	s.drain(3 * fifth)
	ctx, cancel := context.WithTimeout(context.Background(), fifth)
	defer cancel()
	bye := s.u.rip(wire.RipBye, s.number)
	if err := s.conn.Publish(ctx, *bye); err != nil {
		s.conn.Abort() // then the broker may still say it for us
	} else {
		s.conn.Close()
	}
	s.collect()
}

// drain publishes what is left. Where a collector was heard it also waits for
// its acks, which are a second away: without a state directory, what is not
// acknowledged now may be lost.
func (s *session) drain(limit time.Duration) {
	s.u.opts.Outbox.Drain()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		s.feed()
		heard, _ := s.signs()
		if s.inFlight == 0 && (heard.IsZero() || s.u.opts.Outbox.Stats().Pending == 0) {
			return
		}
		select {
		case <-s.conn.Done():
			return
		case c := <-s.done:
			s.finish(c)
		case <-s.kick:
		case <-timer.C:
			return
		}
	}
}

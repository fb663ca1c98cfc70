package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"swarming/shared/backoff"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

const (
	outLen     = 4096             // messages that may wait for one broker
	outBytes   = 4 << 20          // their bytes
	maxPacket  = 256 << 10        // bytes; larger ones are thrown away
	firstRetry = time.Second      // ceiling of the first pause
	lastRetry  = 30 * time.Second // of all pauses
	stable     = 30 * time.Second // a connection that lives so long starts the pauses anew
	farewell   = time.Second      // to send what is queued, at the end
)

// A link supervises the connection to one broker.
type link struct {
	in    *Ingest
	index int
	addr  broker.Address
	name  string // of addr, for people and the journal
	log   *slog.Logger
	out   *queue[broker.Message]
	n     uint64 // heartbeats; of run's goroutine

	mu        sync.Mutex
	up        bool
	since     time.Time // of up, or of the first failure
	failures  int       // since the last success
	problem   string    // the last
	hint      string    // to it
	messages  uint64    // received
	discarded uint64    // for lack of room
}

func newLink(in *Ingest, index int, addr broker.Address) *link {
	size := func(m broker.Message) int { return len(m.Topic) + len(m.Payload) }
	return &link{in: in, index: index, addr: addr, name: addr.String(), log: in.log.With("broker", addr.String()), out: newQueue(outLen, outBytes, size)}
}

// run connects again and again until ctx ends.
func (l *link) run(ctx context.Context) {
	pauses := backoff.Backoff{Base: firstRetry, Max: lastRetry}
	for {
		start := l.in.opts.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if l.in.opts.Now().Sub(start) >= stable {
			pauses.Reset()
		}
		l.failed(err)
		if backoff.Sleep(ctx, pauses.Next()) != nil {
			return
		}
	}
}

// session is the life of one connection. It returns why it ended, or nil when
// ctx did.
func (l *link) session(ctx context.Context) error {
	conn, err := l.in.opts.Dial(ctx, l.addr, broker.Options{
		ClientID:  fmt.Sprintf("%s-%s", l.in.opts.Name, l.in.opts.Boot),
		TLS:       l.in.opts.TLS,
		MaxPacket: maxPacket,
		OnMessage: l.receive,
		OnSkip:    l.skip,
		Log:       l.log,
	})
	if err != nil {
		return err
	}
	defer l.tell(ctx, lost) // when nothing arrives any more
	defer conn.Close()
	defer l.down()
	if err := l.subscribe(ctx, conn); err != nil {
		return err
	}
	l.works()
	l.tell(ctx, subscribed)
	return l.converse(ctx, conn)
}

// subscribe sets no time of its own. The connection ends when an answer is
// overdue, and knows that one can wait behind a stored message of 80 MB.
func (l *link) subscribe(ctx context.Context, conn Conn) error {
	err := conn.Subscribe(ctx,
		broker.Subscription{Filter: wire.TopicWatch, QoS: 1},
		broker.Subscription{Filter: wire.SubscribePing, QoS: 0},
		broker.Subscription{Filter: wire.SubscribeLive, QoS: 0},
		broker.Subscription{Filter: wire.SubscribeRip, QoS: 1})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

// converse sends what is queued, and the heartbeat, until the connection or ctx
// ends.
func (l *link) converse(ctx context.Context, conn Conn) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	l.beat(ctx, conn)
	for {
		select {
		case <-conn.Done():
			return conn.Err()
		case <-ctx.Done():
			l.drain(ctx, conn)
			return nil
		case m := <-l.out.ch:
			l.out.took(m)
			l.send(ctx, conn, m)
		case <-beat.C:
			l.beat(ctx, conn)
		}
	}
}

// send publishes m. A message of QoS 0 is awaited until the socket has it, so
// that a slow broker fills its own queue and nothing else.
func (l *link) send(ctx context.Context, conn Conn, m broker.Message) {
	if m.QoS > 0 {
		conn.PublishAsync(m, func(err error) {
			if err != nil {
				l.log.Debug("publish failed", "topic", m.Topic, "err", err)
			}
		})
		return
	}
	if err := conn.Publish(ctx, m); err != nil {
		l.log.Debug("publish failed", "topic", m.Topic, "err", err)
	}
}

// drain sends what is queued when the program ends.
func (l *link) drain(ctx context.Context, conn Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case m := <-l.out.ch:
			l.out.took(m)
			l.send(ctx, conn, m)
		default:
			return
		}
	}
}

// beat tells the agents of this broker that a collector listens.
func (l *link) beat(ctx context.Context, conn Conn) {
	if l.in.opts.Observe {
		return
	}
	l.n++
	now := l.in.opts.Now()
	live := wire.LiveCollector{Name: l.in.opts.Name, Boot: l.in.opts.Boot, N: l.n, At: now, Rev: l.in.opts.Rev()}
	if l.in.listened(now) {
		n := l.in.agents.live(now)
		live.Agents = &n
	}
	l.send(ctx, conn, broker.Message{Topic: wire.LiveCollectorTopic(l.in.opts.Name), Payload: live.Encode()})
}

// receive takes a message from the connection's reader and must not block.
func (l *link) receive(m broker.Message) {
	q := l.in.control
	if wire.KindOf(m.Topic) == wire.KindPing {
		q = l.in.results
	}
	l.put(q, inbound{broker: l.index, at: l.in.opts.Now(), message: m})
}

// skip takes note of a message too big to be received; it is called as receive.
func (l *link) skip(topic string, size int) {
	l.put(l.in.control, inbound{what: skipped, broker: l.index, at: l.in.opts.Now(), message: broker.Message{Topic: topic}, size: size})
}

func (l *link) put(q *queue[inbound], in inbound) {
	ok := q.put(in)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages++
	if !ok {
		l.discarded++
	}
}

// tell puts what happened to the connection among its messages, in order.
func (l *link) tell(ctx context.Context, what happening) {
	in := inbound{what: what, broker: l.index, at: l.in.opts.Now()}
	select {
	case l.in.control.ch <- in: // waits for room, unlike a message
	case <-ctx.Done():
	}
}

// errNoRoom: a broker takes messages more slowly than they are made for it.
var errNoRoom = errors.New("too much is queued for it already")

// enqueue queues m for the broker if it is connected. What is queued does not
// outlive the connection.
func (l *link) enqueue(m broker.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.up:
		return ErrNotConnected
	case !l.out.put(m):
		return errNoRoom
	}
	return nil
}

// works notes success and logs it if it is news.
func (l *link) works() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.in.opts.Now()
	if l.failures > 0 {
		l.log.Info("broker works again", "after", now.Sub(l.since).Round(time.Second), "failures", l.failures)
	} else {
		l.log.Info("broker connected")
	}
	l.up, l.since, l.failures, l.problem, l.hint = true, now, 0, "", ""
}

func (l *link) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = false
	l.out.clear() // acks that the agents will ask for again
}

// failed notes a failure and logs the first.
func (l *link) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problem, l.hint = err.Error(), hintOf(err)
	if l.failures++; l.failures > 1 {
		return
	}
	l.since = l.in.opts.Now()
	args := []any{"err", err}
	if l.hint != "" {
		args = append(args, "hint", l.hint)
	}
	l.log.Warn("broker fails; trying again for ever", args...)
}

func hintOf(err error) string {
	if e, ok := errors.AsType[*broker.DialError](err); ok {
		return e.Hint
	}
	return ""
}

// listened reports whether any broker has been heard long enough for every
// agent on it to have shown itself.
func (i *Ingest) listened(now time.Time) bool {
	for _, l := range i.links {
		l.mu.Lock()
		long := l.up && now.Sub(l.since) >= settle
		l.mu.Unlock()
		if long {
			return true
		}
	}
	return false
}

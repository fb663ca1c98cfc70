package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// maxInFlight bounds what is queued or unacknowledged on one connection.
const maxInFlight = 256

// handOver is how long one attempt to hand a packet to paho may take before the
// writer looks up whether the connection is still alive.
const handOver = 500 * time.Millisecond

// ErrBusy: too much is queued or unacknowledged on this connection.
var ErrBusy = fmt.Errorf("%d messages are in flight already", maxInFlight)

// A LostError says that the connection ended before the broker had confirmed
// the request. The broker may have received it all the same.
type LostError struct{ Err error }

func (e *LostError) Error() string {
	return "connection ended before the broker confirmed: " + e.Err.Error()
}

// Unwrap returns why the connection ended.
func (e *LostError) Unwrap() error { return e.Err }

// A Subscription is a topic filter and the highest quality of service wanted.
type Subscription struct {
	Filter string
	QoS    byte // 0 or 1
}

// A SubscribeError is a filter that the broker refused (SUBACK code 0x80). Not
// every broker says so: mosquitto 2.0 grants what its acl_file denies, and then
// delivers nothing.
type SubscribeError struct{ Filter string }

func (e *SubscribeError) Error() string {
	return fmt.Sprintf("the broker refused the subscription to %q: its access list must let this client read it", e.Filter)
}

// A request is a message to publish, or a filter to subscribe to.
type request struct {
	message Message
	filter  string // empty: publish
	token   mqtt.Token
	done    func(error)
}

func (r *request) String() string {
	if r.filter != "" {
		return fmt.Sprintf("the subscription to %.100q", r.filter)
	}
	return fmt.Sprintf("the message to %.100q", r.message.Topic)
}

var errUnanswered = errors.New("the broker did not acknowledge")

// Publish sends m and waits: for QoS 1 until the broker acknowledges it, for QoS
// 0 until it is handed to the socket. It also waits while 256 messages are in
// flight. The error is ctx's (the message may still be sent), a [*LostError], or
// says what is wrong with m.
func (c *Conn) Publish(ctx context.Context, m Message) error {
	if err := checkMessage(m, c.maxPacket); err != nil {
		return err
	}
	result := make(chan error, 1)
	if err := c.submit(ctx, &request{message: m, done: func(err error) { result <- err }}); err != nil {
		return err
	}
	return await(ctx, result)
}

// PublishAsync queues m and returns at once. It calls done (which may be nil)
// exactly once: with nil when the broker has acknowledged a message of QoS 1, or
// when one of QoS 0 was handed to the socket; with a [*LostError] when the
// connection ended first; with [ErrBusy] when 256 are in flight already. Callers
// who want more order than that keep their own window. The call comes from a
// goroutine of the connection, or from PublishAsync itself when m is refused: do
// not hold a lock that done takes. done must not block. The payload must not be
// changed before done. Calls for QoS 1 come in the order of publishing.
func (c *Conn) PublishAsync(m Message, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	if err := checkMessage(m, c.maxPacket); err != nil {
		done(err)
		return
	}
	select {
	case c.slots <- struct{}{}:
	default:
		done(ErrBusy)
		return
	}
	if !c.enqueue(&request{message: m, done: done}) {
		<-c.slots
		done(&LostError{c.err})
	}
}

// Subscribe subscribes to subs and waits until the broker has answered all of
// them. The error is ctx's, a [*LostError], or a [*SubscribeError] for each
// filter that was refused, joined; the others are then in force. The broker may
// grant a lower QoS.
func (c *Conn) Subscribe(ctx context.Context, subs ...Subscription) error {
	for _, s := range subs {
		if s.Filter == "" || len(s.Filter) > maxTopic || s.QoS > 1 {
			return fmt.Errorf("subscribe to %.100q with QoS %d: want a filter of 1 to %d bytes, QoS 0 or 1", s.Filter, s.QoS, maxTopic)
		}
	}
	// One filter in each packet: see exactLength.
	results := make([]chan error, len(subs))
	for i, s := range subs {
		results[i] = make(chan error, 1)
		r := &request{filter: s.Filter, message: Message{QoS: s.QoS}, done: func(err error) { results[i] <- err }}
		if err := c.submit(ctx, r); err != nil {
			return err
		}
	}
	var refused []error
	for _, result := range results {
		err := await(ctx, result)
		if _, ok := errors.AsType[*SubscribeError](err); err != nil && !ok {
			return err
		}
		refused = append(refused, err)
	}
	return errors.Join(refused...)
}

func await(ctx context.Context, result <-chan error) error {
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// submit waits for a slot and queues r, whose done is called unless submit
// returns an error.
func (c *Conn) submit(ctx context.Context, r *request) error {
	select {
	case c.slots <- struct{}{}:
	case <-c.done:
		return &LostError{c.err}
	case <-ctx.Done():
		return ctx.Err()
	}
	if !c.enqueue(r) {
		<-c.slots
		return &LostError{c.err}
	}
	return nil
}

// enqueue hands r, which has a slot, to the writer. It returns false when the
// writer has ended.
func (c *Conn) enqueue(r *request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.queue <- r // has room for every slot
	return true
}

// write hands requests to paho until the connection ends, and every one of them
// to the completer. It is alone because paho blocks while the socket is stuck.
func (c *Conn) write() {
	defer c.workers.Done()
	defer close(c.sent)
	for alive := true; alive; {
		select {
		case r := <-c.queue:
			r.token = c.hand(r)
			c.sent <- r
		case <-c.done:
			alive = false
		}
	}
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	for {
		select {
		case r := <-c.queue:
			c.sent <- r // without a token: never sent
		default:
			return
		}
	}
}

// hand gives r to paho. Paho waits for its own writer to take a packet, at most
// handOver long; then its token holds an error and nothing was sent, so that
// trying again is right as long as the connection lives. Were handOver the whole
// write timeout, a connection that died meanwhile could hold Close up as long.
func (c *Conn) hand(r *request) mqtt.Token {
	for {
		began := time.Now()
		token := c.start(r)
		if token.Error() == nil || time.Since(began) < handOver || c.Err() != nil {
			return token
		}
	}
}

func (c *Conn) start(r *request) mqtt.Token {
	if r.filter != "" {
		return c.client.Subscribe(r.filter, r.message.QoS, nil)
	}
	return c.client.Publish(r.message.Topic, r.message.QoS, r.message.Retained, r.message.Payload)
}

// complete calls the done functions in the order of sending. An
// acknowledgement that overtakes another is reported when its turn comes, at the
// latest when the connection ends.
func (c *Conn) complete() {
	defer c.workers.Done()
	overdue := time.NewTimer(c.answerTimeout)
	defer overdue.Stop()
	for r := range c.sent {
		overdue.Reset(c.answerTimeout)
		err := c.outcome(r, overdue)
		<-c.slots
		r.done(err)
	}
}

// outcome waits for the end of r or of the connection, which it ends itself when
// r is overdue: everything behind r would wait for ever.
func (c *Conn) outcome(r *request, overdue *time.Timer) error {
	if r.token == nil {
		return &LostError{c.err}
	}
	if err := c.wait(r, overdue); err != nil {
		return err
	}
	if err := r.token.Error(); err != nil {
		if cause := c.Err(); cause != nil {
			return &LostError{cause}
		}
		return err
	}
	if s, ok := r.token.(*mqtt.SubscribeToken); ok {
		for _, code := range s.Result() {
			if code > 1 {
				return &SubscribeError{Filter: r.filter}
			}
		}
	}
	return nil
}

// wait returns nil when paho knows the outcome of r. What is thrown away holds
// up the answers behind it, so that the time for them begins when it ends.
func (c *Conn) wait(r *request, overdue *time.Timer) error {
	for {
		select {
		case <-r.token.Done():
			return nil
		case <-overdue.C:
			if rest := c.answerTimeout - c.link.in.sinceSkip(); rest > 0 {
				overdue.Reset(rest)
				continue
			}
			c.fail(fmt.Errorf("%w %s within %v", errUnanswered, r, c.answerTimeout))
			c.link.drop()
			return &LostError{c.err}
		case <-c.done:
			select {
			case <-r.token.Done(): // acknowledged before the end
				return nil
			default:
				return &LostError{c.err}
			}
		}
	}
}

// maxTopic is the longest MQTT string, in bytes (MQTT 3.1.1, section 1.5.3).
const maxTopic = 65535

func checkMessage(m Message, maxPacket int) error {
	switch {
	case m.Topic == "" || len(m.Topic) > maxTopic || strings.ContainsAny(m.Topic, "+#\x00"):
		return fmt.Errorf("publish to %.100q: want a topic of 1 to %d bytes without + and #", m.Topic, maxTopic)
	case m.QoS > 1:
		return fmt.Errorf("publish to %.100q with QoS %d: want 0 or 1", m.Topic, m.QoS)
	case len(m.Topic)+len(m.Payload)+maxOverhead > maxPacket:
		return fmt.Errorf("publish %d bytes to %.100q: %w: at most %d with the topic", len(m.Payload), m.Topic, ErrPacketTooBig, maxPacket-maxOverhead)
	}
	return nil
}

// maxOverhead is the most that a PUBLISH adds to topic and payload: the fixed
// header, the length of the topic and the packet identifier.
const maxOverhead = 5 + 2 + 2

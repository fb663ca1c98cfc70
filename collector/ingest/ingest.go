package ingest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"swarming/collector/journal"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

// The defaults of [Options].
const (
	DefaultQueueLen   = 16384
	DefaultQueueBytes = 16 << 20
	DefaultRetention  = 30 * 24 * time.Hour
	DefaultMaxAgents  = 20_000
)

const (
	controlLen   = 4096    // messages other than results that may wait
	controlBytes = 8 << 20 // their bytes
	maxAhead     = 10 * time.Minute
	heartbeat    = 15 * time.Second
	settle       = 2 * time.Minute // of listening, before agents are counted
	grace        = 5 * time.Second // for the last batch and its acks
)

// A Journal is the durable store: a *journal.Journal.
type Journal interface {
	Append(ctx context.Context, entries []journal.Entry) (added int, err error)
	AppendEvents(ctx context.Context, events []journal.Event) error
	SaveAgents(ctx context.Context, agents []journal.AgentInfo) error
	Agents(ctx context.Context) ([]journal.AgentInfo, error)
}

// A Conn is a connection to a broker: a *broker.Conn.
type Conn interface {
	Subscribe(ctx context.Context, subs ...broker.Subscription) error
	Publish(ctx context.Context, m broker.Message) error
	PublishAsync(m broker.Message, done func(error))
	Done() <-chan struct{}
	Err() error
	Close()
}

// Options configure an [Ingest]. The zero value of each field but Brokers, Name
// and Journal is its default.
type Options struct {
	Brokers []broker.Address // a broker is named by its index here
	TLS     broker.TLS
	Name    wire.CollectorName
	Boot    wire.Boot // default: random
	Observe bool      // store, but never publish anything: no ack, no heartbeat, no watch list
	Journal Journal

	// Retention is how long the journal keeps a result; older ones are not
	// stored. Default 30 days.
	Retention time.Duration
	// BuildTime: a clock that shows less is not set. Default: every clock is.
	BuildTime time.Time

	// OnWatch gets every message on the topic watch; one too big to be received
	// comes without payload, as if it cleared the list. OnSubscribed says that a
	// broker has accepted the subscriptions; messages that it had stored may
	// come before. OnLost says that the connection has ended, also of one that
	// was never subscribed. The three are called by one goroutine, in order,
	// and must not block.
	OnWatch      func(brokerIndex int, m broker.Message)
	OnSubscribed func(brokerIndex int)
	OnLost       func(brokerIndex int)
	// Rev returns the rev of the watch list, for the heartbeat. Default: 0.
	Rev func() int64

	QueueLen   int // results that may wait for the journal; default 16384
	QueueBytes int // their payloads' bytes; default 16 MiB
	MaxAgents  int // agents remembered, at most 6 KB each; default 20,000

	Log  *slog.Logger     // default: discard
	Now  func() time.Time // default: time.Now
	Dial func(ctx context.Context, a broker.Address, o broker.Options) (Conn, error)
}

func (o Options) withDefaults() Options {
	o.Boot = cmp.Or(o.Boot, wire.Boot(strings.ToLower(rand.Text()[:12])))
	o.Retention = cmp.Or(o.Retention, DefaultRetention)
	o.QueueLen = cmp.Or(o.QueueLen, DefaultQueueLen)
	o.QueueBytes = cmp.Or(o.QueueBytes, DefaultQueueBytes)
	o.MaxAgents = cmp.Or(o.MaxAgents, DefaultMaxAgents)
	if o.OnWatch == nil {
		o.OnWatch = func(int, broker.Message) {}
	}
	if o.OnSubscribed == nil {
		o.OnSubscribed = func(int) {}
	}
	if o.OnLost == nil {
		o.OnLost = func(int) {}
	}
	if o.Rev == nil {
		o.Rev = func() int64 { return 0 }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Dial == nil {
		o.Dial = dial
	}
	return o
}

func dial(ctx context.Context, a broker.Address, o broker.Options) (Conn, error) {
	c, err := broker.Dial(ctx, a, o)
	if err != nil {
		return nil, err // not a nil *Conn in a Conn
	}
	return c, nil
}

// An Ingest listens to all brokers. Its methods may be called concurrently.
type Ingest struct {
	opts Options
	log  *slog.Logger

	links   []*link
	results *queue[inbound]
	control *queue[inbound]

	agents   *registry
	refused  *refusals
	events   eventBuffer
	counters counters

	storing failure // of results
	saving  failure // of events and agents
}

// An inbound is a message with its origin, or what happened to the connection.
type inbound struct {
	what    happening
	broker  int
	at      time.Time // of arrival
	message broker.Message
	size    int // of what was skipped, in bytes; message has its topic only
}

// A happening is what an inbound tells.
type happening int

const (
	arrived happening = iota
	skipped           // it was too big, and is gone
	subscribed
	lost
)

func inboundSize(m inbound) int { return len(m.message.Topic) + len(m.message.Payload) }

// counters count since the start.
type counters struct {
	received, stored, duplicates, acked, acks, acksDropped atomic.Uint64
}

// New allocates an Ingest; Run connects.
func New(opts Options) *Ingest {
	opts = opts.withDefaults()
	i := &Ingest{
		opts:    opts,
		log:     opts.Log,
		results: newQueue(opts.QueueLen, opts.QueueBytes, inboundSize),
		control: newQueue(controlLen, controlBytes, inboundSize),
		refused: newRefusals(opts.Log, opts.Now),
		storing: failure{log: opts.Log, now: opts.Now, what: "results, which are not acknowledged, so that the agents keep them"},
		saving:  failure{log: opts.Log, now: opts.Now, what: "events and agents"},
	}
	i.agents = newRegistry(opts.MaxAgents, opts.Log, i.events.add)
	for n, a := range opts.Brokers {
		i.links = append(i.links, newLink(i, n, a))
	}
	return i
}

// Run listens until ctx ends; then it stores and acknowledges what is at hand,
// for at most about 6 s, and disconnects. It returns nil.
func (i *Ingest) Run(ctx context.Context) error {
	i.remember(ctx)
	connected, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	var links, control sync.WaitGroup
	for _, l := range i.links {
		links.Go(func() { l.run(connected) })
	}
	control.Go(func() { i.controlLoop(connected) })
	i.storeLoop(ctx)
	disconnect()
	links.Wait()
	control.Wait()
	return nil
}

// remember takes over the agents that the journal knows.
func (i *Ingest) remember(ctx context.Context) {
	known, err := i.opts.Journal.Agents(ctx)
	if err != nil {
		i.log.Warn("agents of the last run are not known", "err", err)
		return
	}
	i.agents.remember(known)
}

// ErrNotConnected: the broker is not subscribed at the moment.
var ErrNotConnected = errors.New("broker is not connected")

// PublishWatch queues payload for the topic watch of one broker, retained, at
// QoS 1, and returns at once. That it arrived is seen by its coming back.
func (i *Ingest) PublishWatch(brokerIndex int, payload []byte) error {
	if i.opts.Observe {
		return errors.New("publish watch list: this collector only observes")
	}
	l := i.links[brokerIndex]
	if err := l.enqueue(broker.Message{Topic: wire.TopicWatch, Payload: payload, QoS: 1, Retained: true}); err != nil {
		return fmt.Errorf("publish watch list to %s: %w", l.name, err)
	}
	return nil
}

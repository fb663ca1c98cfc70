package uplink

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"swarming/agent/outbox"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

// MaxCollectors is the most collectors an agent listens to. Those not heard for
// ten minutes make room.
const MaxCollectors = 32

const collectorGone = 10 * time.Minute

// Reasons of this package for refusing a payload, beside those of wire.
const (
	reasonRetained   wire.Reason = "retained"   // stored by the broker on a topic whose messages are of the moment
	reasonTopic      wire.Reason = "topic"      // nothing that was subscribed to
	reasonCollectors wire.Reason = "collectors" // one collector too many
)

// Ears understand what a broker sends, and keep count of what they refused.
// Messages of one connection are heard one after the other; everything is
// guarded all the same, because the sessions ask.
type ears struct {
	agent       wire.AgentName
	outbox      *outbox.Outbox
	onWatch     func(wire.Watch)
	onCollector func(wire.LiveCollector)
	log         *slog.Logger

	watching sync.Mutex // guards watch, and keeps the calls of onWatch in order
	watch    acceptor

	mu         sync.Mutex // guards what follows
	collectors map[wire.CollectorName]time.Time
	last       wire.CollectorName // heard last
	lastAt     time.Time
	refused    map[wire.Reason]uint64
	logged     map[string]time.Time // when a complaint about a sender was last logged
}

func newEars(opts Options, log *slog.Logger) *ears {
	return &ears{
		agent: opts.Agent, outbox: opts.Outbox, onWatch: opts.OnWatch, onCollector: opts.OnCollector, log: log,
		collectors: map[wire.CollectorName]time.Time{},
		refused:    map[wire.Reason]uint64{},
		logged:     map[string]time.Time{},
	}
}

// A sign is what a message tells a session.
type sign struct {
	collector bool // one is there
	acked     bool // and stored results of ours
	listed    bool // a watch list was put into force
}

// hear understands one message.
func (e *ears) hear(m broker.Message) sign {
	kind := wire.KindOf(m.Topic)
	if m.Retained && kind != wire.KindWatch {
		return e.refuse(m.Topic, &wire.Error{Reason: reasonRetained, Kind: kind.String(), Err: errors.New("a stored message: want one of this moment")})
	}
	switch kind {
	case wire.KindWatch:
		return e.hearWatch(m)
	case wire.KindLiveCollector:
		return e.hearCollector(m)
	case wire.KindAck:
		return e.hearAck(m)
	}
	return e.refuse(m.Topic, &wire.Error{Reason: reasonTopic, Kind: "message", Err: fmt.Errorf("topic %.100q was not subscribed to", m.Topic)})
}

func (e *ears) hearWatch(m broker.Message) sign {
	w, ok, err := wire.DecodeWatch(m.Payload)
	if err != nil {
		return e.refuse(m.Topic, err)
	}
	if !ok {
		return sign{} // cleared: the list in force stays
	}
	e.watching.Lock()
	defer e.watching.Unlock()
	if !e.watch.offer(time.Now(), w, m.Retained) {
		return sign{}
	}
	if e.onWatch != nil {
		e.onWatch(w)
	}
	return sign{listed: true}
}

// takeOverdue puts a list into force that had been put off, if it is time.
func (e *ears) takeOverdue(now time.Time) {
	e.watching.Lock()
	defer e.watching.Unlock()
	if w, ok := e.watch.overdue(now); ok && e.onWatch != nil {
		e.onWatch(w)
	}
}

func (e *ears) watchDue() (time.Time, bool) {
	e.watching.Lock()
	defer e.watching.Unlock()
	return e.watch.due()
}

// begin: a new connection begins.
func (e *ears) begin() {
	e.watching.Lock()
	defer e.watching.Unlock()
	e.watch.begin()
}

func (e *ears) hearCollector(m broker.Message) sign {
	l, err := wire.DecodeLiveCollector(m.Payload)
	if err != nil {
		return e.refuse(m.Topic, err)
	}
	if !e.know(l.Name, time.Now()) {
		return e.refuse("live/collector", &wire.Error{Reason: reasonCollectors, Kind: "collector heartbeat",
			Err: fmt.Errorf("collector %q: want at most %d of them", l.Name, MaxCollectors)})
	}
	e.outbox.Heard()
	if e.onCollector != nil {
		e.onCollector(l)
	}
	return sign{collector: true}
}

// know notes that a collector was heard; false when it is one too many.
func (e *ears) know(name wire.CollectorName, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.collectors[name]; !known && len(e.collectors) >= MaxCollectors {
		maps.DeleteFunc(e.collectors, func(_ wire.CollectorName, at time.Time) bool { return now.Sub(at) > collectorGone })
		if len(e.collectors) >= MaxCollectors {
			return false
		}
	}
	e.collectors[name] = now
	e.last, e.lastAt = name, now
	return true
}

func (e *ears) hearAck(m broker.Message) sign {
	a, err := wire.DecodeAck(m.Payload)
	if err != nil {
		return e.refuse(m.Topic, err)
	}
	if a.Agent != e.agent {
		return e.refuse(m.Topic, &wire.Error{Reason: wire.ReasonName, Kind: "ack", Err: fmt.Errorf("for agent %q: want %q", a.Agent, e.agent)})
	}
	acked := e.outbox.Ack(a) > 0
	e.outbox.Heard()
	return sign{collector: true, acked: acked}
}

// maxLogged bounds the senders whose last complaint is remembered.
const maxLogged = 64

// refuse counts a payload that is dropped, and logs it once a minute and sender,
// which is its topic: MQTT tells no more.
func (e *ears) refuse(topic string, err error) sign {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refused[wire.ReasonOf(err)]++
	now := time.Now()
	if at, ok := e.logged[topic]; ok && now.Sub(at) < time.Minute {
		return sign{}
	}
	if len(e.logged) >= maxLogged {
		maps.DeleteFunc(e.logged, func(_ string, at time.Time) bool { return now.Sub(at) >= time.Minute })
		if len(e.logged) >= maxLogged {
			return sign{}
		}
	}
	e.logged[topic] = now
	e.log.Warn("message refused", "topic", topic, "err", err)
	return sign{}
}

func (e *ears) refusedTotal() (n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.refused {
		n += c
	}
	return n
}

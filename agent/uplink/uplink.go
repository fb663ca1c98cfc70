package uplink

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"swarming/agent/outbox"
	"swarming/shared/backoff"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

// Window is the most results in flight: what mosquitto keeps in flight for one
// subscriber by default.
const Window = 20

// Options say where to and for whom. Brokers may be empty: then nothing is
// delivered, and the outbox fills up.
type Options struct {
	Brokers []broker.Address
	TLS     broker.TLS
	Agent   wire.AgentName
	Boot    wire.Boot
	Outbox  *outbox.Outbox

	// Live describes the agent for its heartbeat. Agent, Boot, Conn, N and the
	// counters of outbox and uplink are filled in. Nil: nothing more is told.
	Live func() wire.LiveAgent
	// OnWatch is given each watch list that is to be in force. The calls come
	// one at a time, from goroutines of the uplink, and must not block.
	OnWatch func(wire.Watch)
	// OnCollector is given the heartbeats of at most [MaxCollectors]
	// collectors. It must not block.
	OnCollector func(wire.LiveCollector)

	Timing Timing
	Rand   func() float64 // in [0, 1); nil: math/rand/v2
	Log    *slog.Logger   // nil: discard
}

// Timing overrides durations, for tests. Zero fields are the defaults.
type Timing struct {
	Hop       time.Duration // ceiling of the pause before the next broker is tried, doubled with every circle of failures; 5 s
	MaxHop    time.Duration // ceiling of that ceiling; 60 s
	Answer    time.Duration // how long a PUBACK or SUBACK may take; 10 s
	Patience  time.Duration // without a collector or acks: between this and twice as long; 60 s
	Settle    time.Duration // until another circle is tried: half to one and a half times this; 30 min
	Lifetime  time.Duration // of a healthy connection: half to one and a half times this; 24 h
	Heartbeat time.Duration // between live messages; 1 min
	Drain     time.Duration // for everything that is left to do when the context ends; 5 s
}

func (t Timing) withDefaults() Timing {
	return Timing{
		Hop:       cmp.Or(t.Hop, 5*time.Second),
		MaxHop:    cmp.Or(t.MaxHop, time.Minute),
		Answer:    cmp.Or(t.Answer, 10*time.Second),
		Patience:  cmp.Or(t.Patience, time.Minute),
		Settle:    cmp.Or(t.Settle, 30*time.Minute),
		Lifetime:  cmp.Or(t.Lifetime, 24*time.Hour),
		Heartbeat: cmp.Or(t.Heartbeat, time.Minute),
		Drain:     cmp.Or(t.Drain, 5*time.Second),
	}
}

// A link is a connection to a broker: *broker.Conn.
type link interface {
	Subscribe(ctx context.Context, subs ...broker.Subscription) error
	Publish(ctx context.Context, m broker.Message) error
	PublishAsync(m broker.Message, done func(error))
	Done() <-chan struct{}
	Err() error
	Close()
	Abort()
}

// An Uplink delivers one agent's results. See the package comment.
type Uplink struct {
	opts   Options
	timing Timing
	random func() float64
	log    *slog.Logger
	dial   func(context.Context, broker.Address, broker.Options) (link, error)

	ears   *ears
	report *report
	route  route  // of Run's goroutine
	live   uint64 // heartbeats so far; of Run's goroutine

	mu     sync.Mutex // guards what follows
	conn   uint64     // attempts to connect so far
	broker string     // connected to; empty: none
	since  time.Time
}

// New allocates an uplink. Run opens its connection.
func New(opts Options) *Uplink {
	u := &Uplink{opts: opts, timing: opts.Timing.withDefaults(), random: opts.Rand, log: opts.Log, dial: dial}
	if u.random == nil {
		u.random = rand.Float64
	}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	u.ears = newEars(opts, u.log)
	u.report = newReport(opts.Brokers, u.log)
	return u
}

func dial(ctx context.Context, a broker.Address, o broker.Options) (link, error) {
	c, err := broker.Dial(ctx, a, o)
	if err != nil {
		return nil, err // not c: a nil *Conn would make an interface that is not nil
	}
	return c, nil
}

// Run connects and stays connected until ctx ends. Then it publishes what the
// outbox still holds, says bye and closes, in about 5 s at most. It returns nil.
func (u *Uplink) Run(ctx context.Context) error {
	if len(u.opts.Brokers) == 0 {
		u.log.Warn("no broker is given; nothing is delivered")
		<-ctx.Done()
		return nil
	}
	u.route = newRoute(len(u.opts.Brokers), u.timing, u.random)
	for ctx.Err() == nil {
		pause := u.visit(ctx, u.route.broker())
		if backoff.Sleep(ctx, pause) != nil {
			break
		}
	}
	return nil
}

// visit uses a broker for as long as it is any good, and returns how long to
// wait before the next.
func (u *Uplink) visit(ctx context.Context, i int) (pause time.Duration) {
	u.opts.Outbox.Begin() // before anything can be heard
	s := u.newSession()
	conn, err := u.connect(ctx, i, s)
	if err != nil {
		if ctx.Err() == nil {
			u.report.failed(i, err)
		}
		return u.route.failed()
	}
	s.conn = conn
	u.setBroker(u.opts.Brokers[i].String())
	u.report.connected(i)
	why := s.serve(ctx)
	u.setBroker("")
	switch why {
	case leaving:
		s.leave()
		return 0
	case lost:
		err := conn.Err()
		conn.Abort()
		s.collect()
		u.report.lost(i, err)
		return u.route.lost(s.useful())
	default: // barren, aged: the broker is well, so no will
		conn.Close()
		s.collect()
		return u.route.left(why)
	}
}

// connect dials and subscribes.
func (u *Uplink) connect(ctx context.Context, i int, s *session) (link, error) {
	conn, err := u.dial(ctx, u.opts.Brokers[i], broker.Options{
		ClientID:      string(u.opts.Agent) + "-" + string(u.opts.Boot),
		TLS:           u.opts.TLS,
		Will:          u.rip(wire.RipLost, s.number),
		AnswerTimeout: u.timing.Answer,
		OnMessage:     s.hear,
		Log:           u.log,
	})
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, u.timing.Answer)
	defer cancel()
	err = conn.Subscribe(limited,
		broker.Subscription{Filter: wire.TopicWatch, QoS: 1},
		broker.Subscription{Filter: wire.SubscribeCollector},
		broker.Subscription{Filter: wire.AckTopic(u.opts.Agent)})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (u *Uplink) rip(why wire.RipReason, number uint64) *broker.Message {
	r := wire.Rip{Agent: u.opts.Agent, Boot: u.opts.Boot, Conn: number, Reason: why}
	return &broker.Message{Topic: wire.RipTopic(u.opts.Agent), Payload: r.Encode(), QoS: 1}
}

func (u *Uplink) setBroker(address string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.broker, u.since = address, time.Now()
}

// heartbeat describes the agent as of now, on connection number.
func (u *Uplink) heartbeat(number uint64) broker.Message {
	var l wire.LiveAgent
	if u.opts.Live != nil {
		l = u.opts.Live()
	}
	u.live++
	b := u.opts.Outbox.Stats()
	l.Agent, l.Boot, l.Conn, l.N = u.opts.Agent, u.opts.Boot, number, u.live
	l.Sent, l.Resent, l.Pending, l.Unconfirmed, l.Lost = b.Sent, b.Resent, b.Pending, b.Unconfirmed, b.Lost
	l.Refused = u.ears.refusedTotal()
	if l.At.IsZero() {
		l.At = time.Now()
	}
	return broker.Message{Topic: wire.LiveAgentTopic(u.opts.Agent), Payload: l.Encode()}
}

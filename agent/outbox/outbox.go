package outbox

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"swarming/shared/wire"
)

// What zero limits stand for.
const (
	DefaultMaxResults = 16384
	DefaultMaxBytes   = 4 << 20 // about 9,500 results of 5 packets: 6 days of one target, 4 hours of 40
)

// Options say whose results are kept, and how many.
type Options struct {
	Agent wire.AgentName
	Boot  wire.Boot

	MaxResults int // results held; 0: [DefaultMaxResults]
	MaxBytes   int // bytes of memory held, bookkeeping included; 0: [DefaultMaxBytes]

	// StateFile is where Save keeps what is left and Load finds it; empty:
	// nothing is kept.
	StateFile string

	// BuildTime tells a clock that is not set: it shows less. Results taken
	// then are held back until it does not, and dated by their age. Zero: every
	// clock is believed.
	BuildTime time.Time

	Now  func() time.Time // the wall clock; nil: time.Now. Ages and pauses use the monotonic one.
	Rand func() float64   // in [0, 1); nil: math/rand/v2
	Log  *slog.Logger     // nil: discard
}

// Stats are the outbox's present contents and its counters since the start.
type Stats struct {
	Pending  int // results held
	Bytes    int // of memory they take, bookkeeping included
	Unsent   int // of them: not confirmed by any broker
	Awaiting int // of them: confirmed by a broker, to be acknowledged
	Undated  int // of them: held back until the clock is set

	Sent        uint64 // published for the first time
	Resent      uint64 // published again
	Acked       uint64 // acknowledged by a collector
	Lost        uint64 // dropped because it was full, before any broker had them; or never dated
	Unconfirmed uint64 // dropped because it was full, after a broker had them
}

// An Outbox holds an agent's results. See the package comment.
type Outbox struct {
	agent      wire.AgentName
	maxResults int
	maxBytes   int
	stateFile  string
	buildTime  time.Time
	wall       func() time.Time
	random     func() float64
	log        *slog.Logger
	start      time.Time // monotonic readings count from here
	wake       chan struct{}

	mu        sync.Mutex // guards what follows
	own       *life
	lives     map[wire.Boot]*life
	seq       uint64
	order     []*entry // all entries by age; those that are gone stay until the next compaction
	gone      int      // of order
	lists     [states]list
	confirmed int // entries that a broker confirmed
	kept      int // entries still here that the state file holds
	scratch   []byte
	stats     Stats

	// Of the present connection.
	turn    int           // whose turn is next; see Next
	flow    pace          // of the backlog
	resend  pace          // of what is awaiting
	heard   bool          // a collector was heard …
	heardAt time.Duration // … last at
	drain   bool          // it is about to end
}

// New returns an empty outbox.
func New(opts Options) *Outbox {
	o := &Outbox{
		agent: opts.Agent, maxResults: opts.MaxResults, maxBytes: opts.MaxBytes, stateFile: opts.StateFile,
		buildTime: opts.BuildTime, wall: opts.Now, random: opts.Rand, log: opts.Log,
		start: time.Now(), wake: make(chan struct{}, 1),
		own: &life{boot: opts.Boot, rank: ownRank},
	}
	o.lives = map[wire.Boot]*life{opts.Boot: o.own}
	if o.maxResults <= 0 {
		o.maxResults = DefaultMaxResults
	}
	if o.maxBytes <= 0 {
		o.maxBytes = DefaultMaxBytes
	}
	if o.wall == nil {
		o.wall = time.Now
	}
	if o.random == nil {
		o.random = rand.Float64
	}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	o.Begin()
	return o
}

// ownRank orders the present life behind all that are loaded.
const ownRank = int(^uint(0) >> 1)

// Add takes r over: it sets V, Agent, Boot and Seq and keeps its encoding. When
// the outbox is full the oldest results make room, counted as lost or
// unconfirmed. At should have a monotonic reading, as time.Now gives it: while
// the clock is not set it is all that says when the round was.
func (o *Outbox) Add(r *wire.Result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seq++
	r.V, r.Agent, r.Boot, r.Seq = wire.Version, o.agent, o.own.boot, o.seq
	o.scratch = append(o.scratch[:0], wire.PingTopic(r.Target)...)
	topicLen := len(o.scratch)
	o.scratch = r.Append(o.scratch)
	if topicLen > 255 || len(o.scratch)-topicLen > wire.MaxResult {
		o.stats.Lost++ // no collector would read it
		o.log.Error("result is too long to be sent", "target", r.Target, "bytes", len(o.scratch))
		return
	}
	e := &entry{life: o.own, seq: r.Seq, record: append([]byte(nil), o.scratch...), topicLen: uint8(topicLen), state: live}
	if r.At.Before(o.buildTime) {
		e.state, e.since = undated, r.At.Sub(o.start)
	}
	o.insert(e)
	o.date()
	o.signal()
}

// insert puts e behind everything else in its state's list, and makes room.
func (o *Outbox) insert(e *entry) {
	o.order = append(o.order, e)
	o.lists[e.state].pushBack(e)
	o.stats.Pending++
	o.stats.Bytes += e.cost()
	o.shrink()
}

// shrink drops the oldest results until the rest is within the limits.
func (o *Outbox) shrink() {
	for i := 0; o.stats.Pending > o.maxResults || o.stats.Bytes > o.maxBytes; i++ {
		e := o.order[i]
		if e.state == gone {
			continue
		}
		if e.confirmed {
			o.stats.Unconfirmed++
		} else {
			o.stats.Lost++
		}
		o.forget(e)
	}
	o.compact()
}

// forget removes e for good.
func (o *Outbox) forget(e *entry) {
	o.stats.Pending--
	o.stats.Bytes -= e.cost()
	o.lists[e.state].remove(e)
	e.state, e.record = gone, nil
	o.gone++
	if e.confirmed {
		o.confirmed--
	}
	if e.loaded {
		if o.kept--; o.kept == 0 {
			o.removeStateFile()
		}
	}
}

// compact gives the places of forgotten entries back: those at the old end at
// once, the others when they are the majority, so that it costs little each time.
func (o *Outbox) compact() {
	i := 0
	for i < len(o.order) && o.order[i].state == gone {
		o.order[i] = nil
		i++
	}
	o.order = o.order[i:]
	o.gone -= i
	if o.gone <= len(o.order)/2 {
		return
	}
	alive := make([]*entry, 0, len(o.order)-o.gone)
	for _, e := range o.order {
		if e.state != gone {
			alive = append(alive, e)
		}
	}
	o.order, o.gone = alive, 0
}

// move puts e behind the others in the list of state s.
func (o *Outbox) move(e *entry, s state) {
	o.lists[e.state].remove(e)
	e.state = s
	o.lists[s].pushBack(e)
}

// elapsed is the monotonic time since the outbox was made.
func (o *Outbox) elapsed() time.Duration { return time.Since(o.start) }

// Wake returns a channel that yields a value when [Outbox.Next] may have more
// to offer than it had: a result was added, a collector was heard.
func (o *Outbox) Wake() <-chan struct{} { return o.wake }

func (o *Outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default: // it is awake already
	}
}

// Stats returns the present contents and the counters.
func (o *Outbox) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.Undated = o.lists[undated].n
	s.Awaiting = o.confirmed
	s.Unsent = s.Pending - o.confirmed
	return s
}

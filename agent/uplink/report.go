package uplink

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"swarming/shared/broker"
)

// A report tells people how the brokers fare: one line when a broker's state
// changes, with what to try, and silence until it changes again.
type report struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	brokers []condition
}

// A condition is what was last said about a broker.
type condition struct {
	address string
	state   string // what is wrong, as one word; empty: nothing is known to be
	err     string
	since   time.Time
	count   int // how many times it was so
}

const (
	stateLost     = "lost"
	stateSilent   = "silent"   // no collector is heard
	stateUnacked  = "unacked"  // a collector is heard, but acknowledges nothing
	stateRejected = "rejected" // a subscription
)

func newReport(addresses []broker.Address, log *slog.Logger) *report {
	r := &report{log: log, brokers: make([]condition, len(addresses))}
	for i, a := range addresses {
		r.brokers[i].address = a.String()
	}
	return r
}

// become notes a state, and returns whether it is news.
func (r *report) become(i int, state, err string) (c condition, news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.brokers[i]
	news = b.state != state
	if news {
		b.state, b.since, b.count = state, time.Now(), 0
	}
	b.err = err
	b.count++
	return *b, news
}

// failed: it could not be used at all.
func (r *report) failed(i int, err error) {
	state, hint := stateLost, ""
	if _, ok := errors.AsType[*broker.SubscribeError](err); ok {
		state = stateRejected
	}
	if d, ok := errors.AsType[*broker.DialError](err); ok {
		state, hint = string(d.Kind), d.Hint
	}
	c, news := r.become(i, state, err.Error())
	if !news {
		return
	}
	args := []any{"broker", c.address, "err", err}
	if hint != "" {
		args = append(args, "hint", hint)
	}
	r.log.Warn("cannot use broker", args...)
}

// lost: a connection that had stood ended.
func (r *report) lost(i int, err error) {
	if c, news := r.become(i, stateLost, errText(err)); news {
		r.log.Warn("connection to broker lost", "broker", c.address, "err", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// connected: it lets us in. What was wrong before may still be.
func (r *report) connected(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.brokers[i]; b.state == "" {
		r.log.Info("connected to broker", "broker", b.address)
	}
}

// works: the connection proved to be of use. About acks that tells nothing.
func (r *report) works(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch b := &r.brokers[i]; b.state {
	case "", stateSilent, stateUnacked:
	default:
		r.recovered(b, "broker works again")
	}
}

// acked: a collector acknowledges results there.
func (r *report) acked(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := &r.brokers[i]; b.state != "" {
		r.recovered(b, "a collector acknowledges again")
	}
}

func (r *report) recovered(b *condition, what string) {
	r.log.Info(what, "broker", b.address, "was", b.state, "count", b.count, "after", time.Since(b.since).Round(time.Second))
	b.state, b.err, b.count, b.since = "", "", 0, time.Now()
}

// barren: patience ended. heard says whether a collector was, stay whether the
// agent stays because it is so everywhere.
func (r *report) barren(i int, heard, stay bool) {
	what, state := "no collector is heard on this broker", stateSilent
	hint := "is a collector running, and connected to this broker? may this agent read live/collector/+?"
	if heard {
		what, state = "broker accepts results, but no collector acknowledges them", stateUnacked
		hint = "does the broker's access list let this agent write ping/+ and read ack/NAME? does the collector run with --observe, or is its disk full?"
	}
	c, news := r.become(i, state, what)
	if !news {
		return
	}
	then := "trying the next broker"
	if stay {
		then = "staying; results are published, and kept until one acknowledges them"
	}
	r.log.Warn(what, "broker", c.address, "then", then, "hint", hint)
}

package uplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"swarming/agent/outbox"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

const (
	agent = wire.AgentName("garage-pi")
	boot  = wire.Boot("b1")
)

// A fakeBroker is one broker as an uplink sees it. All of a swarm share its mutex.
type fakeBroker struct {
	mu      *sync.Mutex
	address broker.Address

	down      error // why it cannot be dialled; nil: it can
	refuse    error // what Subscribe returns
	frozen    bool  // nothing is confirmed
	collector bool  // heartbeats every 15 s, the first at once
	acks      bool  // and acknowledges, a second later
	retained  []byte
	dials     []time.Time
	links     []*fakeLink
}

// A fakeLink is one connection to a fakeBroker.
type fakeLink struct {
	b         *fakeBroker
	opts      broker.Options
	began     time.Time
	subs      []broker.Subscription
	published []broker.Message
	times     []time.Time
	flying    []func(error)
	done      chan struct{}
	err       error
	how       string // it ended: "closed", "aborted", "lost"
	ended     time.Time
}

func (b *fakeBroker) dial(_ context.Context, o broker.Options) (link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dials = append(b.dials, time.Now())
	if b.down != nil {
		return nil, b.down
	}
	l := &fakeLink{b: b, opts: o, began: time.Now(), done: make(chan struct{})}
	b.links = append(b.links, l)
	return l, nil
}

func (l *fakeLink) Subscribe(_ context.Context, subs ...broker.Subscription) error {
	l.b.mu.Lock()
	refuse, retained, collector := l.b.refuse, l.b.retained, l.b.collector
	l.subs = append(l.subs, subs...)
	l.b.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	if retained != nil {
		l.opts.OnMessage(broker.Message{Topic: wire.TopicWatch, Payload: retained, Retained: true})
	}
	if collector {
		go l.heartbeats()
	}
	return nil
}

func (l *fakeLink) heartbeats() {
	for {
		l.opts.OnMessage(heartbeat("c1"))
		select {
		case <-l.done:
			return
		case <-time.After(15 * time.Second):
		}
	}
}

func heartbeat(name wire.CollectorName) broker.Message {
	c := wire.LiveCollector{Name: name, Boot: "x", N: 1, At: time.Now()}
	return broker.Message{Topic: wire.LiveCollectorTopic(name), Payload: c.Encode()}
}

func ack(seqs ...uint64) broker.Message {
	a := wire.Ack{Agent: agent, By: "c1", Boots: map[wire.Boot][]wire.Range{boot: wire.Ranges(seqs)}}
	return broker.Message{Topic: wire.AckTopic(agent), Payload: a.Encode()}
}

func (l *fakeLink) Publish(ctx context.Context, m broker.Message) error {
	result := make(chan error, 1)
	l.PublishAsync(m, func(err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *fakeLink) PublishAsync(m broker.Message, done func(error)) {
	l.b.mu.Lock()
	l.published = append(l.published, m)
	l.times = append(l.times, time.Now())
	ended, frozen, acks := l.how != "", l.b.frozen, l.b.acks
	if m.QoS == 1 && !ended && frozen {
		l.flying = append(l.flying, done)
	}
	l.b.mu.Unlock()
	if acks && !ended && wire.KindOf(m.Topic) == wire.KindPing {
		r, err := wire.DecodeResult(m.Payload)
		if err != nil {
			panic(err)
		}
		time.AfterFunc(time.Second, func() { l.opts.OnMessage(ack(r.Seq)) })
	}
	switch {
	case done == nil:
	case ended:
		done(&broker.LostError{Err: l.err})
	case m.QoS == 0 || !frozen:
		done(nil)
	}
}

func (l *fakeLink) Done() <-chan struct{} { return l.done }
func (l *fakeLink) Err() error            { return l.err }
func (l *fakeLink) Close()                { l.end("closed", broker.ErrClosed) }
func (l *fakeLink) Abort()                { l.end("aborted", broker.ErrClosed) }

func (l *fakeLink) end(how string, err error) {
	l.b.mu.Lock()
	if l.how != "" {
		l.b.mu.Unlock()
		return
	}
	l.how, l.err, l.ended = how, err, time.Now()
	flying := l.flying
	l.flying = nil
	close(l.done)
	l.b.mu.Unlock()
	for _, done := range flying {
		done(&broker.LostError{Err: err})
	}
}

var errRefused = errors.New("connection refused")

// kill ends the broker and its connections.
func (b *fakeBroker) kill() {
	b.mu.Lock()
	b.down = &broker.DialError{Address: b.address, Kind: broker.KindRefused, Hint: "start it", Err: errRefused}
	links := b.links
	b.mu.Unlock()
	for _, l := range links {
		l.end("lost", errors.New("EOF"))
	}
}

func (b *fakeBroker) set(change func(b *fakeBroker)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

// A swarm is an uplink with its fake brokers, in the order it uses them.
type swarm struct {
	t       *testing.T
	brokers []*fakeBroker
	outbox  *outbox.Outbox
	uplink  *Uplink
	cancel  context.CancelFunc
	ended   chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// Write takes log lines.
func (s *swarm) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

// lines returns what was logged since the last call.
func (s *swarm) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.TrimSpace(s.log.String())
	s.log.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// newSwarm returns an uplink to n brokers that are well, without collectors.
// It must be called, like everything else, inside a synctest bubble.
func newSwarm(t *testing.T, n int, seed uint64, opts Options) *swarm {
	t.Helper()
	s := &swarm{t: t, ended: make(chan struct{})}
	s.outbox = outbox.New(outbox.Options{Agent: agent, Boot: boot})
	var mu sync.Mutex
	byAddress := map[string]*fakeBroker{}
	for i := range n {
		a, err := broker.ParseAddress(fmt.Sprintf("broker%d.example:1883", i))
		if err != nil {
			t.Fatal(err)
		}
		opts.Brokers = append(opts.Brokers, a)
		byAddress[a.String()] = &fakeBroker{mu: &mu, address: a}
	}
	opts.Agent, opts.Boot, opts.Outbox = agent, boot, s.outbox
	opts.Log = slog.New(slog.NewTextHandler(s, nil))
	rnd := rand.New(rand.NewPCG(seed, 2))
	opts.Rand = rnd.Float64
	s.uplink = New(opts)
	s.uplink.dial = func(ctx context.Context, a broker.Address, o broker.Options) (link, error) {
		return byAddress[a.String()].dial(ctx, o)
	}
	// The order is random; tests want to know it.
	order := newRoute(n, s.uplink.timing, rand.New(rand.NewPCG(seed, 2)).Float64).order
	for _, i := range order {
		s.brokers = append(s.brokers, byAddress[opts.Brokers[i].String()])
	}
	return s
}

// run starts the uplink; it is stopped when the test ends.
func (s *swarm) run() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.ended)
		if err := s.uplink.Run(ctx); err != nil {
			s.t.Error(err)
		}
	}()
	synctest.Wait()
}

func (s *swarm) stop() time.Duration {
	began := time.Now()
	s.cancel()
	<-s.ended
	if s.current() >= 0 {
		s.t.Error("a connection is left open")
	}
	for _, b := range s.brokers {
		for _, l := range b.all() {
			l.Abort() // lets its heartbeats end
		}
	}
	return time.Since(began)
}

func (s *swarm) add(n int) {
	for range n {
		s.outbox.Add(&wire.Result{At: time.Now(), Target: "example.com", Probe: "icmp", Sent: 5, Cause: wire.CauseTimeout})
	}
	synctest.Wait()
}

func (b *fakeBroker) all() []*fakeLink {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.links)
}

// last returns the latest connection.
func (b *fakeBroker) last() *fakeLink {
	all := b.all()
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// seen returns what the latest connection looks like at this moment.
func (b *fakeBroker) seen() fakeLink {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.links) == 0 {
		return fakeLink{}
	}
	l := *b.links[len(b.links)-1]
	l.published, l.times = slices.Clone(l.published), slices.Clone(l.times)
	return l
}

func (b *fakeBroker) connected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.links)
	return n > 0 && b.links[n-1].how == ""
}

// dialled returns when connections were attempted.
func (b *fakeBroker) dialled() []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.dials)
}

// of returns the messages of a kind, over all connections.
func (b *fakeBroker) of(kind wire.Kind) (out []broker.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.links {
		for _, m := range l.published {
			if wire.KindOf(m.Topic) == kind {
				out = append(out, m)
			}
		}
	}
	return out
}

// current returns the index of the broker that is connected, -1 without one.
func (s *swarm) current() int {
	for i, b := range s.brokers {
		if b.connected() {
			return i
		}
	}
	return -1
}

// pass lets time pass, and all that is due at its end happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// until lets time pass, a second at a time, until f holds or limit is over, and
// returns how long it took.
func (s *swarm) until(limit time.Duration, f func() bool) time.Duration {
	began := time.Now()
	for !f() && time.Since(began) < limit {
		pass(time.Second)
	}
	return time.Since(began)
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// between checks a duration.
func between(t *testing.T, what string, got, lo, hi time.Duration) {
	t.Helper()
	if got < lo || got > hi {
		t.Errorf("%s: %v: want %v to %v", what, got, lo, hi)
	}
}

// logged checks that lines are as many as parts and contain them.
func logged(t *testing.T, lines []string, parts ...string) {
	t.Helper()
	ok := len(lines) == len(parts)
	for i := 0; ok && i < len(parts); i++ {
		ok = strings.Contains(strings.ReplaceAll(lines[i], `\"`, `"`), parts[i])
	}
	if !ok {
		t.Errorf("logged\n%s\nwant a line each with %q", strings.Join(lines, "\n"), parts)
	}
}

package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"swarming/collector/journal"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

// A fakeJournal keeps everything. Its func fields, when set, come first.
type fakeJournal struct {
	onAppend func() error

	mu       sync.Mutex
	stored   map[wire.ID]journal.Entry
	events   []journal.Event
	agents   map[wire.AgentName]journal.AgentInfo
	saves    int
	known    []journal.AgentInfo
	discards bool // count only
	count    int
}

func newFakeJournal() *fakeJournal {
	return &fakeJournal{stored: make(map[wire.ID]journal.Entry), agents: make(map[wire.AgentName]journal.AgentInfo)}
}

func (j *fakeJournal) Append(_ context.Context, entries []journal.Entry) (added int, err error) {
	if j.onAppend != nil {
		if err := j.onAppend(); err != nil {
			return 0, err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range entries {
		if _, ok := j.stored[e.Result.ID()]; !ok {
			added++
		}
		if !j.discards {
			j.stored[e.Result.ID()] = e
		}
	}
	j.count += added
	return added, nil
}

func (j *fakeJournal) AppendEvents(_ context.Context, events []journal.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, events...)
	return nil
}

func (j *fakeJournal) SaveAgents(_ context.Context, agents []journal.AgentInfo) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.saves++
	for _, a := range agents {
		j.agents[a.Name] = a
	}
	return nil
}

func (j *fakeJournal) Agents(context.Context) ([]journal.AgentInfo, error) { return j.known, nil }

func (j *fakeJournal) saved() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.saves
}

func (j *fakeJournal) results() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count
}

// A fakeBroker is reached by dial, and holds at most one connection.
type fakeBroker struct {
	refuse    func() error           // of a dial
	onPublish func(m broker.Message) // blocks the connection while it runs

	mu    sync.Mutex
	conn  *fakeConn
	dials int
	sent  []broker.Message
	times []time.Time
}

type fakeConn struct {
	b      *fakeBroker
	opts   broker.Options
	subs   []string
	once   sync.Once
	closed chan struct{}
}

var errCut = errors.New("cut")

func (b *fakeBroker) dial(o broker.Options) (Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dials++
	if b.refuse != nil {
		if err := b.refuse(); err != nil {
			return nil, err
		}
	}
	b.conn = &fakeConn{b: b, opts: o, closed: make(chan struct{})}
	return b.conn, nil
}

func (c *fakeConn) Subscribe(_ context.Context, subs ...broker.Subscription) error {
	for _, s := range subs {
		c.subs = append(c.subs, fmt.Sprint(s.Filter, " ", s.QoS))
	}
	return nil
}

func (c *fakeConn) Publish(ctx context.Context, m broker.Message) error {
	if c.b.onPublish != nil {
		c.b.onPublish(m)
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.sent = append(c.b.sent, m)
	c.b.times = append(c.b.times, time.Now())
	return ctx.Err()
}

func (c *fakeConn) PublishAsync(m broker.Message, done func(error)) {
	done(c.Publish(context.Background(), m))
}
func (c *fakeConn) Done() <-chan struct{} { return c.closed }
func (c *fakeConn) Err() error            { return errCut }
func (c *fakeConn) Close()                { c.cut() }
func (c *fakeConn) cut()                  { c.once.Do(func() { close(c.closed) }) }

func (b *fakeBroker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn.cut()
}

func (b *fakeBroker) dialled() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dials
}

// deliver is a message from the broker.
func (b *fakeBroker) deliver(topic string, payload []byte, retained bool) {
	b.mu.Lock()
	receive := b.conn.opts.OnMessage
	b.mu.Unlock()
	receive(broker.Message{Topic: topic, Payload: payload, Retained: retained})
}

func (b *fakeBroker) result(r wire.Result) {
	b.deliver(wire.PingTopic(r.Target), r.Append(nil), false)
}

// published returns what was sent on topics with this prefix, and when.
func (b *fakeBroker) published(prefix string) (out []broker.Message, at []time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n, m := range b.sent {
		if strings.HasPrefix(m.Topic, prefix) {
			out, at = append(out, m), append(at, b.times[n])
		}
	}
	return out, at
}

// acked returns how often each result was acknowledged on this broker.
func (b *fakeBroker) acked(t *testing.T) map[wire.ID]int {
	t.Helper()
	ids := make(map[wire.ID]int)
	messages, _ := b.published("ack/")
	for _, m := range messages {
		if m.QoS != 0 || m.Retained {
			t.Errorf("ack with QoS %d, retained %v: want 0, false", m.QoS, m.Retained)
		}
		ack, err := wire.DecodeAck(m.Payload)
		if err != nil {
			t.Fatalf("ack that agents refuse: %v", err)
		}
		if m.Topic != wire.AckTopic(ack.Agent) {
			t.Errorf("ack for %s on %s", ack.Agent, m.Topic)
		}
		for boot, ranges := range ack.Boots {
			for _, r := range ranges {
				for seq := r[0]; seq <= r[1]; seq++ {
					ids[wire.ID{Agent: ack.Agent, Boot: boot, Seq: seq}]++
				}
			}
		}
	}
	return ids
}

// A rig is an Ingest at work between fakes, in a synctest bubble.
type rig struct {
	in      *Ingest
	journal *fakeJournal
	brokers []*fakeBroker
	log     *logBuffer
	stop    func()
}

// start runs an Ingest with n brokers until stop or the end of the test.
func start(t *testing.T, n int, change func(*Options)) *rig {
	t.Helper()
	r := &rig{journal: newFakeJournal(), log: new(logBuffer)}
	byAddr := make(map[broker.Address]*fakeBroker)
	opts := Options{
		Name: "c1", Boot: "cb", Journal: r.journal,
		Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Dial: func(_ context.Context, a broker.Address, o broker.Options) (Conn, error) {
			return byAddr[a].dial(o)
		},
	}
	for i := range n {
		a, err := broker.ParseAddress(fmt.Sprintf("b%d", i))
		if err != nil {
			t.Fatal(err)
		}
		b := new(fakeBroker)
		byAddr[a] = b
		r.brokers = append(r.brokers, b)
		opts.Brokers = append(opts.Brokers, a)
	}
	if change != nil {
		change(&opts)
	}
	r.in = New(opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.in.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	synctest.Wait()
	return r
}

// lines returns how many log lines hold text.
func (r *rig) lines(text string) int { return strings.Count(r.log.String(), text) }

// sample is a result of now.
func sample(agent wire.AgentName, seq uint64) wire.Result {
	r := wire.Result{
		V: wire.Version, Agent: agent, Boot: "ab", Seq: seq, At: time.Now(), Target: "example.com", Probe: "icmp", Sent: 2, RTTs: wire.RTTs{12.5, 0},
		Cause: wire.CauseTimeout,
	}
	r.Summarise()
	return r
}

// after lets fake time pass, and then everything come to rest.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A logBuffer collects log lines. Its methods may be called concurrently.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

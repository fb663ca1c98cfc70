package elastic

import (
	"context"
	"fmt"
	"net/netip"
	"sort"
	"sync"
	"testing"
	"time"

	"swarming/collector/journal"
	"swarming/shared/wire"
)

// day is when the tests' results were measured.
var day = time.Date(2026, 11, 23, 10, 0, 0, 123e6, time.UTC)

// A memory is a Source in memory, its ids starting at 1.
type memory struct {
	mu      sync.Mutex
	rows    []journal.Row
	events  []journal.Event
	agents  []journal.AgentInfo
	cursors map[string]int64
	changed chan struct{}
	fail    error  // what every call returns, if set
	onSet   func() // called before a cursor is set, if set
	reads   int    // calls of ResultsAfter
	highest int64  // that ResultsAfter has handed out
}

func newMemory() *memory {
	return &memory{cursors: make(map[string]int64), changed: make(chan struct{}, 1)}
}

// add appends n results of one agent, a second apart.
func (m *memory) add(n int) {
	m.mu.Lock()
	for range n {
		i := len(m.rows)
		r := sample(uint64(i + 1))
		r.At = day.Add(time.Duration(i) * time.Millisecond)
		m.rows = append(m.rows, journal.Row{ID: int64(i + 1), Entry: journal.Entry{Result: r, Received: r.At.Add(5 * time.Second), Broker: "localhost:1883"}})
	}
	m.mu.Unlock()
	m.signal()
}

func (m *memory) addEvents(events ...journal.Event) {
	m.mu.Lock()
	for _, e := range events {
		e.ID = int64(len(m.events) + 1)
		m.events = append(m.events, e)
	}
	m.mu.Unlock()
	m.signal()
}

func (m *memory) signal() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func sample(seq uint64) wire.Result {
	r := wire.Result{V: 1, Agent: "garage-pi", Boot: "k3j9x2m1", Seq: seq, At: day, Target: "example.com", Probe: "icmp",
		Addr: netip.MustParseAddr("192.0.2.1"), Family: 4, Sent: 5, RTTs: wire.RTTs{12.345, 12.401, 0, 13.2, 12.399},
		Cause: wire.CauseTimeout, Stamp: wire.StampKernel}
	r.Summarise()
	return r
}

func (m *memory) ResultsAfter(_ context.Context, id int64, limit int) ([]journal.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.fail != nil {
		return nil, m.fail
	}
	i := sort.Search(len(m.rows), func(i int) bool { return m.rows[i].ID > id })
	out := m.rows[i:min(i+limit, len(m.rows))]
	if len(out) > 0 {
		m.highest = max(m.highest, out[len(out)-1].ID)
	}
	return append([]journal.Row(nil), out...), nil
}

func (m *memory) EventsAfter(_ context.Context, id int64, limit int) ([]journal.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	i := sort.Search(len(m.events), func(i int) bool { return m.events[i].ID > id })
	return append([]journal.Event(nil), m.events[i:min(i+limit, len(m.events))]...), nil
}

func (m *memory) Cursor(_ context.Context, name string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursors[name], m.fail
}

func (m *memory) SetCursor(ctx context.Context, name string, id int64) error {
	if m.onSet != nil {
		m.onSet()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if id < m.cursors[name] {
		return fmt.Errorf("cursor %s moves back from %d to %d", name, m.cursors[name], id)
	}
	m.cursors[name] = id
	return nil
}

func (m *memory) cursor() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursors["elasticsearch-results"]
}

func (m *memory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) Changed() <-chan struct{} { return m.changed }

func (m *memory) Agents(context.Context) ([]journal.AgentInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]journal.AgentInfo(nil), m.agents...), m.fail
}

// start runs an exporter until the test ends, or until stop is called. Its
// pauses are short.
func start(t testing.TB, o Options) (e *Exporter, stop func()) {
	t.Helper()
	setDefault(&o.MinPause, time.Millisecond)
	setDefault(&o.MaxPause, 20*time.Millisecond)
	setDefault(&o.Linger, time.Millisecond)
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return e, run(t, e)
}

// run runs e until the test ends, or until stop is called.
func run(t testing.TB, e *Exporter) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("Run does not return after its context has ended")
		}
	})
	t.Cleanup(stop)
	return stop
}

// wait waits until cond holds.
func wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("still not %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// exported waits until every result is stored.
func exported(t testing.TB, m *memory, e *Exporter) {
	t.Helper()
	m.mu.Lock()
	want := int64(len(m.rows))
	m.mu.Unlock()
	deadline := time.Now().Add(90 * time.Second)
	for m.cursor() != want {
		if time.Now().After(deadline) {
			t.Fatalf("the cursor is at %d: want %d; %+v", m.cursor(), want, e.Stats())
		}
		time.Sleep(2 * time.Millisecond)
	}
	wait(t, "well again", func() bool { s := e.Stats(); return s.Results.FailingSince.IsZero() && s.Results.Lag == 0 })
}

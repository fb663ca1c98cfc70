package uplink

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"swarming/agent/outbox"
	"swarming/shared/broker"
	"swarming/shared/brokertest"
	"swarming/shared/wire"
)

// A collector is the least there is: it connects to every broker, hears
// results, says that it is there, and acknowledges.
type collector struct {
	mu     sync.Mutex
	stored map[uint64]int // how often each seq arrived
	latest map[string]time.Time
	change chan struct{} // closed and replaced at each result
}

// collect runs a collector until ctx ends.
func collect(ctx context.Context, t *testing.T, c *collector, brokers []*brokertest.Mosquitto) *sync.WaitGroup {
	var wg sync.WaitGroup
	for _, b := range brokers {
		a, err := broker.ParseAddress(b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				c.attend(ctx, a)
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	return &wg
}

func newCollector() *collector {
	return &collector{stored: map[uint64]int{}, latest: map[string]time.Time{}, change: make(chan struct{})}
}

func (c *collector) attend(ctx context.Context, a broker.Address) {
	seqs := make(chan uint64, 10_000)
	conn, err := broker.Dial(ctx, a, broker.Options{DialTimeout: time.Second, OnMessage: func(m broker.Message) {
		r, err := wire.DecodeResult(m.Payload)
		if err != nil {
			panic(err)
		}
		c.store(r.Seq, a.String())
		seqs <- r.Seq
	}})
	if err != nil {
		return
	}
	defer conn.Close()
	if conn.Subscribe(ctx, broker.Subscription{Filter: wire.SubscribePing}) != nil {
		return
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		conn.PublishAsync(heartbeat("c1"), nil)
		var batch []uint64
		for len(seqs) > 0 {
			batch = append(batch, <-seqs)
		}
		if len(batch) > 0 {
			conn.PublishAsync(ack(batch...), nil)
		}
		select {
		case <-ctx.Done():
			return
		case <-conn.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *collector) store(seq uint64, from string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stored[seq]++
	c.latest[from] = time.Now()
	close(c.change)
	c.change = make(chan struct{})
}

// await waits until f, which may look at c, holds.
func (c *collector) await(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		c.mu.Lock()
		ok, change := f(), c.change
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-deadline:
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// A post is an uplink at work with real brokers and a result every 20 ms.
type post struct {
	t       *testing.T
	brokers []*brokertest.Mosquitto
	outbox  *outbox.Outbox
	uplink  *Uplink
	log     lockedBuffer

	stopAdding func()
	added      int
	stop       func() // the uplink; idempotent
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newPost(t *testing.T, brokers []*brokertest.Mosquitto, timing Timing) *post {
	t.Helper()
	p := &post{t: t, brokers: brokers}
	log := slog.New(slog.NewTextHandler(&p.log, nil))
	p.outbox = outbox.New(outbox.Options{Agent: agent, Boot: boot, Log: log})
	opts := Options{Agent: agent, Boot: boot, Outbox: p.outbox, Timing: timing, Log: log}
	for _, b := range brokers {
		a, err := broker.ParseAddress(b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		opts.Brokers = append(opts.Brokers, a)
	}
	p.uplink = New(opts)
	return p
}

func (p *post) run() {
	ctx, cancel := context.WithCancel(context.Background())
	adding, stopAdding := context.WithCancel(context.Background())
	var up, add sync.WaitGroup
	up.Go(func() { p.uplink.Run(ctx) })
	add.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for adding.Err() == nil {
			p.outbox.Add(&wire.Result{At: time.Now(), Target: "example.com", Probe: "icmp", Sent: 5, Cause: wire.CauseTimeout})
			p.added++
			<-tick.C
		}
	})
	p.stopAdding = func() { stopAdding(); add.Wait() }
	p.stop = func() { p.stopAdding(); cancel(); up.Wait() }
	p.t.Cleanup(func() {
		p.stop()
		if p.t.Failed() {
			p.t.Logf("%+v\n%+v\n%s", p.outbox.Stats(), p.uplink.Stats(), p.log.String())
		}
	})
}

// current returns the broker in use; it waits for one.
func (p *post) current(c *collector) (m *brokertest.Mosquitto) {
	p.t.Helper()
	c.await(p.t, "a connection", func() bool {
		now := p.uplink.Stats().Broker
		for _, b := range p.brokers {
			if b.Addr() == now {
				m = b
			}
		}
		return m != nil
	})
	return m
}

// arrives waits for a result through another broker than not, and returns how
// long after since it came.
func (p *post) arrives(c *collector, not *brokertest.Mosquitto, since time.Time) (took time.Duration) {
	p.t.Helper()
	c.await(p.t, "a result through another broker", func() bool {
		for from, at := range c.latest {
			if from != not.Addr() && at.After(since) {
				took = at.Sub(since)
				return true
			}
		}
		return false
	})
	return took
}

// finish stops adding and checks that every result arrived and was acknowledged.
func (p *post) finish(c *collector) {
	p.t.Helper()
	p.stopAdding()
	c.await(p.t, "all results to be stored", func() bool { return len(c.stored) == p.added })
	deadline := time.Now().Add(60 * time.Second)
	for p.outbox.Stats().Pending > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	s := p.outbox.Stats()
	want(p.t, "pending, lost, unconfirmed, acked", []any{s.Pending, s.Lost, s.Unconfirmed, s.Acked}, []any{0, 0, 0, p.added})
	p.t.Logf("%d results, %d sent again, none lost", p.added, s.Resent)
}

// start runs a collector and an uplink with n brokers.
func start(t *testing.T, n int) (*post, *collector) {
	t.Helper()
	t.Parallel()
	brokers := brokertest.Mosquittos(t, n)
	c := newCollector()
	ctx, cancel := context.WithCancel(context.Background())
	wg := collect(ctx, t, c, brokers)
	t.Cleanup(func() { cancel(); wg.Wait() })
	p := newPost(t, brokers, Timing{})
	p.run()
	return p, c
}

// Brokers are killed one after the other, while results are on their way.
func TestMosquittoKilled(t *testing.T) {
	p, c := start(t, 2)
	for range 3 {
		b := p.current(c)
		p.arrives(c, &brokertest.Mosquitto{}, time.Now())
		b.Kill()
		t.Logf("kill -9: the next result came through another broker after %v", p.arrives(c, b, time.Now()))
		if err := b.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	p.finish(c)
}

// A broker that is stopped keeps its connections open and says nothing.
func TestMosquittoFrozen(t *testing.T) {
	p, c := start(t, 2)
	b := p.current(c)
	p.arrives(c, &brokertest.Mosquitto{}, time.Now())
	if err := b.Freeze(); err != nil {
		t.Skip("needs SIGSTOP: ", err)
	}
	t.Logf("SIGSTOP: the next result came through another broker after %v", p.arrives(c, b, time.Now()))
	b.Thaw()
	p.finish(c)
}

// All brokers are restarted in turn, as in an upgrade.
func TestMosquittoRollingRestart(t *testing.T) {
	p, c := start(t, 3)
	for _, b := range p.brokers {
		p.current(c)
		p.arrives(c, &brokertest.Mosquitto{}, time.Now())
		if err := b.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	p.finish(c)
}

// The collector is away while results are confirmed by a broker that keeps
// nothing for it.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	brokers := brokertest.Mosquittos(t, 1)
	c := newCollector()
	p := newPost(t, brokers, Timing{})
	p.run()
	for p.outbox.Stats().Awaiting < 100 {
		time.Sleep(20 * time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	wg := collect(ctx, t, c, brokers)
	t.Cleanup(func() { cancel(); wg.Wait() })
	p.finish(c)
	if n := p.outbox.Stats().Resent; n < 100 {
		t.Errorf("%d results sent again: want at least the 100 that nobody heard", n)
	}
}

// The broker confirms what its access list forbids.
func TestMosquittoForbids(t *testing.T) {
	t.Parallel()
	acl := filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(acl, []byte("topic readwrite live/#\ntopic read ping/#\ntopic readwrite ack/#\ntopic read watch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	brokers := brokertest.Mosquittos(t, 1, brokertest.Options{Config: "acl_file " + acl})
	c := newCollector()
	ctx, cancel := context.WithCancel(context.Background())
	wg := collect(ctx, t, c, brokers)
	t.Cleanup(func() { cancel(); wg.Wait() })
	p := newPost(t, brokers, Timing{Patience: time.Second})
	p.run()
	const line = "broker accepts results, but no collector acknowledges them"
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(p.log.String(), line) && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	p.stop()
	want(t, "lines about it", strings.Count(p.log.String(), line), 1)
	s := p.outbox.Stats()
	want(t, "pending", s.Pending, p.added)
	want(t, "stored", len(c.stored), 0)
}

// A retained watch list that no agent can accept makes one broker useless, not
// the agent.
func TestMosquittoPoisoned(t *testing.T) {
	t.Parallel()
	brokers := brokertest.Mosquittos(t, 2)
	brokertest.Publish(t, brokers[0].Addr(), wire.TopicWatch, make([]byte, 300<<10), true)
	c := newCollector()
	ctx, cancel := context.WithCancel(context.Background())
	wg := collect(ctx, t, c, brokers)
	t.Cleanup(func() { cancel(); wg.Wait() })
	p := newPost(t, brokers, Timing{Hop: 200 * time.Millisecond})
	p.run()
	p.arrives(c, brokers[0], time.Now())
	p.finish(c)
}

// The death notices of an agent that leaves and of one that vanishes.
func TestMosquittoRip(t *testing.T) {
	t.Parallel()
	brokers := brokertest.Mosquittos(t, 1)
	watcher := brokertest.Collect(t, brokers[0].Addr(), wire.SubscribeRip, "live/agent/+")
	p := newPost(t, brokers, Timing{Hop: 200 * time.Millisecond})
	links := make(chan link, 10)
	real := p.uplink.dial
	p.uplink.dial = func(ctx context.Context, a broker.Address, o broker.Options) (link, error) {
		l, err := real(ctx, a, o)
		if err == nil {
			links <- l
		}
		return l, err
	}
	rip := func(conn uint64, why wire.RipReason) {
		watcher.Wait("the rip "+string(why), func(m brokertest.Message) bool {
			r, err := wire.DecodeRip(m.Payload)
			return m.Topic == "rip/agent/garage-pi" && err == nil && r.Conn == conn && r.Reason == why && r.Boot == boot && !m.Retained
		})
	}
	live := func(conn uint64) {
		watcher.Wait("a heartbeat", func(m brokertest.Message) bool {
			l, err := wire.DecodeLiveAgent(m.Payload)
			return m.Topic == "live/agent/garage-pi" && err == nil && l.Conn == conn
		})
	}
	p.run()
	live(1)
	(<-links).Abort()
	rip(1, wire.RipLost)
	live(2)
	p.stop()
	rip(2, wire.RipBye)
	for _, m := range watcher.All() {
		if r, err := wire.DecodeRip(m.Payload); strings.HasPrefix(m.Topic, "rip/") && err == nil && r.Conn == 2 && r.Reason == wire.RipLost {
			t.Error("the agent said bye, and the broker published its will all the same")
		}
	}
}

package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"swarming/collector/ingest"
	"swarming/collector/journal"
	"swarming/collector/watch"
	"swarming/shared/broker"
	"swarming/shared/brokertest"
	"swarming/shared/wire"
)

const deadline = time.Minute

// collect runs an ingest with a real journal and a watch list over these
// brokers until the test ends.
func collect(t testing.TB, name wire.CollectorName, addrs []broker.Address, observe bool) (*ingest.Ingest, *journal.Journal, *watch.Keeper) {
	t.Helper()
	j, err := journal.Open(t.Context(), journal.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var in *ingest.Ingest
	options := watch.Options{Name: name, Dir: t.TempDir(), Publish: func(n int, payload []byte) {
		if err := in.PublishWatch(n, payload); err != nil && !errors.Is(err, ingest.ErrNotConnected) {
			t.Errorf("PublishWatch: %v", err)
		}
	}}
	if observe {
		options.Publish = nil
	}
	for _, a := range addrs {
		options.Brokers = append(options.Brokers, a.String())
	}
	keeper := watch.New(options)
	in = ingest.New(ingest.Options{
		Brokers: addrs, Name: name, Journal: j, Observe: observe,
		OnWatch:      func(n int, m broker.Message) { keeper.Message(n, m.Payload, m.Retained) },
		OnSubscribed: keeper.Subscribed, OnLost: keeper.Lost, Rev: keeper.Rev,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{in.Run, keeper.Run, j.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return in, j, keeper
}

func addresses(t testing.TB, ms []*brokertest.Mosquitto) (addrs []broker.Address) {
	t.Helper()
	for _, m := range ms {
		a, err := broker.ParseAddress(m.Addr())
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, a)
	}
	return addrs
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(deadline)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %v for %s", deadline, what)
		}
	}
}

func connected(in *ingest.Ingest) (n int) {
	for _, b := range in.Stats().Brokers {
		if b.Connected {
			n++
		}
	}
	return n
}

// A sender is an agent stripped to its outbox: what is not acknowledged is sent
// again, over the other broker.
type sender struct {
	agent wire.AgentName
	addrs []broker.Address

	mu   sync.Mutex
	open map[uint64]bool
}

func (s *sender) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *sender) acked(m broker.Message) {
	ack, err := wire.DecodeAck(m.Payload)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range ack.Boots["boot"] {
		for seq := r[0]; seq <= r[1]; seq++ {
			delete(s.open, seq)
		}
	}
}

func (s *sender) run(ctx context.Context, n uint64) {
	s.open = make(map[uint64]bool)
	for seq := range n {
		s.open[seq+1] = true
	}
	for turn := 0; s.left() > 0 && ctx.Err() == nil; turn++ {
		s.session(ctx, s.addrs[turn%len(s.addrs)])
	}
}

// session sends what is left for 3 s, or until the connection breaks.
func (s *sender) session(ctx context.Context, a broker.Address) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := broker.Dial(ctx, a, broker.Options{OnMessage: s.acked})
	if err != nil {
		time.Sleep(50 * time.Millisecond)
		return
	}
	defer conn.Close()
	if err := conn.Subscribe(ctx, broker.Subscription{Filter: wire.AckTopic(s.agent), QoS: 1}); err != nil {
		return
	}
	s.mu.Lock()
	var seqs []uint64
	for seq := range s.open {
		seqs = append(seqs, seq)
	}
	s.mu.Unlock()
	for _, seq := range seqs {
		r := result(s.agent, seq)
		if conn.Publish(ctx, broker.Message{Topic: wire.PingTopic(r.Target), Payload: r.Append(nil), QoS: 1}) != nil {
			return
		}
	}
	for ctx.Err() == nil && s.left() > 0 {
		select {
		case <-conn.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func result(agent wire.AgentName, seq uint64) wire.Result {
	r := wire.Result{
		V: wire.Version, Agent: agent, Boot: "boot", Seq: seq, At: time.Now(), Target: "example.com", Probe: "icmp", Sent: 5, Family: 4,
		RTTs: wire.RTTs{12.345, 13.456, 11.234, 0, 12.001}, Cause: wire.CauseTimeout, Stamp: wire.StampKernel,
	}
	r.Summarise()
	return r
}

// Nothing acknowledged is lost and nothing is stored twice, while brokers are
// killed in turn.
func TestNothingIsLostWhenBrokersDie(t *testing.T) {
	brokers := brokertest.Mosquittos(t, 2)
	addrs := addresses(t, brokers)
	in, j, _ := collect(t, "c1", addrs, false)
	waitFor(t, "both brokers", func() bool { return connected(in) == 2 })

	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	const agents, each = 4, 4000
	var sending sync.WaitGroup
	for n := range agents {
		s := &sender{agent: wire.AgentName(fmt.Sprint("agent-", n)), addrs: addrs}
		sending.Go(func() {
			s.run(ctx, each)
			if left := s.left(); left > 0 {
				t.Errorf("%s: %d results were never acknowledged", s.agent, left)
			}
		})
	}
	for n := range 4 {
		before := in.Stats().Stored
		waitFor(t, "some results", func() bool { st := in.Stats().Stored; return st >= before+200 || st == agents*each })
		if n == 0 && in.Stats().Stored == agents*each {
			t.Error("everything was stored before a broker was killed")
		}
		brokers[n%2].Kill()
		if err := brokers[n%2].Restart(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the broker", func() bool { return connected(in) == 2 })
	}
	sending.Wait()
	t.Logf("%d duplicates", in.Stats().Duplicates)
	seen := make(map[wire.ID]bool)
	for row, err := range j.Results(t.Context(), journal.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[row.Result.ID()] {
			t.Errorf("%v is stored twice", row.Result.ID())
		}
		seen[row.Result.ID()] = true
	}
	if len(seen) != agents*each {
		t.Errorf("%d results in the journal, want %d", len(seen), agents*each)
	}
}

// A person retargets the swarm with any client, on any broker; a broker that was
// killed gets the list again; two collectors agree.
func TestWatchListOverRealBrokers(t *testing.T) {
	brokers := brokertest.Mosquittos(t, 2)
	addrs := addresses(t, brokers)
	in1, _, k1 := collect(t, "c1", addrs, false)
	in2, _, k2 := collect(t, "c2", addrs, false)
	waitFor(t, "both brokers", func() bool { return connected(in1) == 2 && connected(in2) == 2 })
	brokertest.Publish(t, brokers[1].Addr(), "watch", []byte("example.com example.org"), true)
	stored := func(m *brokertest.Mosquitto, want int) wire.Watch {
		var w wire.Watch
		brokertest.Collect(t, m.Addr(), "watch").Wait("a stored list with a rev", func(m brokertest.Message) bool {
			var ok bool
			w, ok, _ = wire.DecodeWatch(m.Payload)
			return ok && w.Rev > 0 && len(w.Targets) == want
		})
		return w
	}
	a, b := stored(brokers[0], 2), stored(brokers[1], 2)
	waitFor(t, "agreement", func() bool { return k1.Rev() == k2.Rev() && k1.Rev() > 0 })
	if a.ContentHash() != b.ContentHash() {
		t.Errorf("the brokers store %v and %v", a, b)
	}
	brokers[0].Kill()
	if err := brokers[0].Restart(); err != nil {
		t.Fatal(err)
	}
	if again := stored(brokers[0], 2); again.Rev != k1.Rev() {
		t.Errorf("after kill -9 the broker has rev %d, want %d", again.Rev, k1.Rev())
	}
	brokertest.Publish(t, brokers[0].Addr(), "watch", []byte(`{"targets":[]}`), true)
	stored(brokers[1], 0)
}

// An observer stores, and no client sees anything of it.
func TestObserverOverRealBrokers(t *testing.T) {
	brokers := brokertest.Mosquittos(t, 1)
	seen := brokertest.Collect(t, brokers[0].Addr(), "#")
	in, j, _ := collect(t, "c1", addresses(t, brokers), true)
	waitFor(t, "the broker", func() bool { return connected(in) == 1 })
	r := result("a1", 1)
	brokertest.Publish(t, brokers[0].Addr(), wire.PingTopic(r.Target), r.Append(nil), false)
	brokertest.Publish(t, brokers[0].Addr(), "watch", []byte("example.com"), true)
	waitFor(t, "the result", func() bool { return j.Stats().Results == 1 })
	brokertest.Publish(t, brokers[0].Addr(), "end", nil, false)
	seen.Wait("the last message", func(m brokertest.Message) bool { return m.Topic == "end" })
	if all := seen.All(); len(all) != 3 {
		t.Errorf("%d messages on the broker, want the test's own 3: %v", len(all), all)
	}
}

// An agent's will reaches the journal, and the table.
func TestWillOverRealBrokers(t *testing.T) {
	brokers := brokertest.Mosquittos(t, 1)
	addrs := addresses(t, brokers)
	in, j, _ := collect(t, "c1", addrs, false)
	waitFor(t, "the broker", func() bool { return connected(in) == 1 })
	rip := wire.Rip{Agent: "a1", Boot: "b", Conn: 1, Reason: wire.RipLost}
	conn, err := broker.Dial(t.Context(), addrs[0], broker.Options{Will: &broker.Message{Topic: wire.RipTopic("a1"), Payload: rip.Encode(), QoS: 1}})
	if err != nil {
		t.Fatal(err)
	}
	live := wire.LiveAgent{Agent: "a1", Boot: "b", Conn: 1, N: 1, At: time.Now()}
	if err := conn.Publish(t.Context(), broker.Message{Topic: wire.LiveAgentTopic("a1"), Payload: live.Encode()}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the agent", func() bool { return in.Stats().LiveAgents == 1 })
	conn.Abort()
	waitFor(t, "its end", func() bool { st := in.Stats(); return st.LiveAgents == 0 && st.Agents[0].Gone == wire.RipLost })
	waitFor(t, "both events", func() bool { return j.Stats().Events == 2 })
}

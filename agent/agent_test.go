package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"swarming/agent/config"
	"swarming/agent/probe"
	"swarming/agent/schedule"
	"swarming/shared/broker"
	"swarming/shared/brokertest"
	"swarming/shared/wire"
)

// start runs an agent on an in-process broker until the test ends, or stop is called.
func start(t *testing.T, list string) (seen *brokertest.Collector, stop func()) {
	t.Helper()
	b, err := brokertest.StartEmbedded(brokertest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	brokertest.Publish(t, b.Addr(), wire.TopicWatch, []byte(list), true)
	seen = brokertest.Collect(t, b.Addr(), "ping/#", "live/#", "rip/#")
	addr, err := broker.ParseAddress(b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	a := New(config.Config{Name: "garage-pi", Brokers: []broker.Address{addr}, Labels: map[string]string{"isp": "example"},
		AllowNet: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, MaxPPS: schedule.DefaultMaxPPS, MaxTargets: schedule.DefaultMaxTargets,
		Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	return seen, stop
}

// From the list to a result, a heartbeat and a goodbye. Whether this machine
// may ping or not, a round is a result.
func TestAgent(t *testing.T) {
	seen, stop := start(t, `{"targets":[{"target":"here","host":"127.0.0.1","count":1,"interval":"10s","timeout":"1s"},{"target":"odd","probe":"smoke"}]}`)
	m := seen.Wait("a result", func(m brokertest.Message) bool { return m.Topic == "ping/here" })
	r, err := wire.DecodeResult(m.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if r.Agent != "garage-pi" || r.Seq != 1 || r.Target != "here" || r.Addr.String() != "127.0.0.1" || r.Family != 4 {
		t.Errorf("result %s", m.Payload)
	}
	if r.Recv == 0 && r.Cause != wire.CauseLocal {
		t.Errorf("no answer from loopback, and not for want of permission: %s", m.Payload)
	}
	m = seen.Wait("a heartbeat that tells of the list", func(m brokertest.Message) bool {
		l, err := wire.DecodeLiveAgent(m.Payload)
		return m.Topic == "live/agent/garage-pi" && err == nil && l.Targets == 1
	})
	l, err := wire.DecodeLiveAgent(m.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if l.Labels["isp"] != "example" || l.OS != runtime.GOOS || len(l.Refusals) != 1 || l.Refusals[0].Target != "odd" {
		t.Errorf("heartbeat %s", m.Payload)
	}
	stop()
	seen.Wait("a goodbye", func(m brokertest.Message) bool {
		rip, err := wire.DecodeRip(m.Payload)
		return m.Topic == "rip/agent/garage-pi" && err == nil && rip.Reason == wire.RipBye && rip.Boot == r.Boot
	})
}

// A thousand targets cost no more goroutines than one.
func TestNoGoroutinePerTarget(t *testing.T) {
	const targets = 1000
	var list strings.Builder
	for i := range targets {
		fmt.Fprintf(&list, "127.1.%d.%d ", i/250, 1+i%250)
	}
	seen, _ := start(t, list.String())
	one := runtime.NumGoroutine()
	seen.WaitAll("results of many targets, others in flight", func(all []brokertest.Message) bool { return len(all) > targets/20 })
	if n := runtime.NumGoroutine(); n > one+50 {
		t.Errorf("%d goroutines with %d targets, %d at the start", n, targets, one)
	}
}

func TestNewResult(t *testing.T) {
	at := time.Date(2026, 11, 24, 1, 2, 3, 0, time.UTC)
	r := NewResult("example.com", "icmp", netip.MustParseAddr("::ffff:192.0.2.7"), probe.Outcome{
		Start: at, Sent: 3, RTTs: []time.Duration{1500 * time.Microsecond, 0, 2500 * time.Microsecond}, Cause: wire.CauseTimeout, Stamp: wire.StampUser})
	if r.Family != 4 || r.Addr != netip.MustParseAddr("192.0.2.7") || r.Recv != 2 || *r.Avg != 2 || *r.Min != 1.5 || *r.Max != 2.5 || *r.Stddev != 0.5 || r.RTTs[1] != 0 {
		t.Errorf("got %s", r.Append(nil))
	}
	unresolved := NewResult("example.com", "icmp", netip.Addr{}, probe.Outcome{Start: at, Cause: wire.CauseNoSuchHost})
	if unresolved.Loss != nil || unresolved.Family != 0 || unresolved.Sent != 0 || unresolved.Cause != wire.CauseNoSuchHost {
		t.Errorf("a name that does not exist is not 100 %% loss: %s", unresolved.Append(nil))
	}
}

// What an ending program could not measure is no result.
func TestStoppedRoundIsNoResult(t *testing.T) {
	added := 0
	m := &measurer{schedule: schedule.New(schedule.Options{Agent: "a"}), add: func(*wire.Result) { added++ },
		log: slog.New(slog.DiscardHandler), wake: make(chan struct{}, 1)}
	job := schedule.Job{Key: schedule.Key{Target: "x", Family: wire.FamilyAny}, Target: "x"}
	m.resolved(job, probe.Answer{Cause: wire.CauseResolver, Err: probe.ErrStopped})
	m.finish(job, netip.Addr{}, probe.Outcome{Stopped: true, Cause: wire.CauseLocal})
	if added != 0 {
		t.Errorf("%d results of a stopped program", added)
	}
	m.resolved(job, probe.Answer{Cause: wire.CauseResolver, Err: errors.New("server misbehaving")})
	if added != 1 {
		t.Errorf("a name server that fails is a result: %d", added)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"swarming/agent"
	agentconfig "swarming/agent/config"
	"swarming/agent/schedule"
	"swarming/collector"
	collectorconfig "swarming/collector/config"
	"swarming/shared/broker"
	"swarming/shared/brokertest"
	"swarming/shared/wire"
)

// A runner is a broker that the demo may stop and start again.
type runner interface {
	Addr() string
	Stop() error
	Restart() error
	Close()
}

// A swarm is all of the demo: brokers, agents and a collector, in one process
// and over real connections.
type swarm struct {
	brokers   []runner
	agents    []*agent.Agent
	names     []wire.AgentName
	collector *collector.Collector
	data      string // the collector's
	stats     *statistics
}

// lines are the agents of the demo, as if each were on a line of its own.
var lines = []struct {
	name   wire.AgentName
	labels map[string]string
}{
	{"kitchen-pi", map[string]string{"isp": "example-cable", "site": "home"}},
	{"office-pc", map[string]string{"isp": "example-fibre", "site": "office"}},
	{"rack-12", map[string]string{"isp": "example-hosting", "site": "datacentre"}},
}

const brokerCount = 2

func newSwarm(ctx context.Context, dir string, say func(string, ...any)) (*swarm, error) {
	s := &swarm{}
	if err := s.startBrokers(ctx, dir, say); err != nil {
		s.closeBrokers()
		return nil, err
	}
	addrs := make([]broker.Address, len(s.brokers))
	for i, b := range s.brokers {
		a, err := broker.ParseAddress(b.Addr())
		if err != nil {
			s.closeBrokers()
			return nil, err
		}
		addrs[i] = a
	}
	targets, err := s.writeWatchList(filepath.Join(dir, "watch.yaml"))
	if err != nil {
		s.closeBrokers()
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	s.data = filepath.Join(dir, "data")
	s.collector = collector.New(collectorconfig.Config{Name: "demo", Brokers: addrs, Data: s.data,
		Retention: 24 * time.Hour, WatchFile: filepath.Join(dir, "watch.yaml"), Log: log})
	for _, l := range lines {
		s.names = append(s.names, l.name)
		s.agents = append(s.agents, agent.New(agentconfig.Config{Name: l.name, Brokers: addrs, Labels: l.labels, AllowNet: allowed(targets),
			MaxPPS: schedule.DefaultMaxPPS, MaxTargets: schedule.DefaultMaxTargets, Log: log}))
	}
	s.stats = newStatistics(s.names, targets)
	return s, nil
}

func (s *swarm) startBrokers(ctx context.Context, dir string, say func(string, ...any)) error {
	for range brokerCount {
		m, err := brokertest.StartMosquitto(ctx, brokertest.Options{})
		if err == nil {
			say("broker %s is a mosquitto", m.Addr())
			s.brokers = append(s.brokers, m)
			continue
		}
		if !errors.Is(err, brokertest.ErrNotInstalled) {
			return fmt.Errorf("start mosquitto: %w", err)
		}
		e, err := brokertest.StartEmbedded(brokertest.Options{})
		if err != nil {
			return fmt.Errorf("start a broker: %w", err)
		}
		say("broker %s runs in this process (mosquitto is not installed)", e.Addr())
		s.brokers = append(s.brokers, e)
	}
	return nil
}

func (s *swarm) closeBrokers() {
	for _, b := range s.brokers {
		b.Close()
	}
}

// A demoTarget is a target of the demo; allow is what agents must permit for it.
type demoTarget struct {
	id    wire.TargetID
	host  string
	allow netip.Prefix
}

// writeWatchList writes a list of what answers on any machine, the default
// gateway, and a name that does not exist: a failed round is a result too.
func (s *swarm) writeWatchList(path string) ([]demoTarget, error) {
	targets := []demoTarget{
		{"this-host", "127.0.0.1", netip.MustParsePrefix("127.0.0.1/32")},
		{"this-host-v6", "::1", netip.MustParsePrefix("::1/128")},
	}
	if gw, ok := defaultGateway(); ok {
		targets = append(targets, demoTarget{"gateway", gw.String(), netip.PrefixFrom(gw, gw.BitLen())})
	}
	targets = append(targets, demoTarget{id: "no-such-host", host: "no-such-host.invalid"})
	var b strings.Builder
	b.WriteString("targets:\n")
	for _, t := range targets {
		fmt.Fprintf(&b, "  - {target: %s, host: %q, interval: 10s, count: 3, gap: 200ms, timeout: 2s}\n", t.id, t.host)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return nil, fmt.Errorf("write watch list: %w", err)
	}
	return targets, nil
}

func allowed(targets []demoTarget) []netip.Prefix {
	var nets []netip.Prefix
	for _, t := range targets {
		if t.allow.IsValid() {
			nets = append(nets, t.allow)
		}
	}
	return nets
}

// run runs the collector and the agents until ctx ends, then stops the brokers.
func (s *swarm) run(ctx context.Context) error {
	// The collector outlives the agents, so that it hears their last results.
	collecting, stopCollecting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCollecting()
	collected := make(chan error, 1)
	go func() { collected <- s.collector.Run(collecting) }()
	following := make(chan struct{})
	go func() {
		defer close(following)
		s.stats.follow(collecting, s.data)
	}()

	agents, actx := errgroup.WithContext(ctx)
	for _, a := range s.agents {
		agents.Go(func() error { return a.Run(actx) })
	}
	var err error
	select {
	case err = <-collected: // before its time
		stopCollecting()
	case <-actx.Done():
		err = agents.Wait()
		stopCollecting()
		err = errors.Join(err, <-collected)
	}
	<-following
	s.closeBrokers()
	return errors.Join(err, s.stats.readAll(context.WithoutCancel(ctx), s.data))
}

// story stops a broker and starts it again, over and over, and tells of it.
func (s *swarm) story(ctx context.Context, say func(string, ...any)) error {
	names := make([]string, len(s.names))
	for i, n := range s.names {
		names[i] = string(n)
	}
	say("agents: %s; one collector; a watch list of %d targets", strings.Join(names, ", "), len(s.stats.targets))
	for turn := 0; ; turn++ {
		b := s.brokers[turn%len(s.brokers)]
		if !wait(ctx, 14*time.Second) {
			return nil
		}
		before := s.stats.stored()
		say("broker %s is stopped now: its agents go to the other one", b.Addr())
		if err := b.Stop(); err != nil {
			return fmt.Errorf("stop broker: %w", err)
		}
		if !wait(ctx, 10*time.Second) {
			return nil
		}
		say("broker %s starts again; %d results were stored while it was away", b.Addr(), s.stats.stored()-before)
		if err := b.Restart(); err != nil {
			return fmt.Errorf("start broker again: %w", err)
		}
		if !wait(ctx, 20*time.Second) {
			return nil
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (s *swarm) table() []string { return s.stats.table() }

// verdict is nil if every agent has a stored result with an answer in it.
func (s *swarm) verdict(say func(string, ...any)) error {
	if silent := s.stats.silent(); len(silent) > 0 {
		return fmt.Errorf("no answer was stored of %s", strings.Join(silent, ", "))
	}
	if err := s.stats.check(); err != nil {
		return err
	}
	say("%d results, none missing and none stored twice", s.stats.stored())
	return nil
}

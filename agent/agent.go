package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"swarming/agent/config"
	"swarming/agent/outbox"
	"swarming/agent/probe"
	"swarming/agent/schedule"
	"swarming/agent/uplink"
	"swarming/shared/version"
	"swarming/shared/wire"
)

// An Agent measures what the watch list names and delivers the results.
type Agent struct {
	cfg     config.Config
	boot    wire.Boot
	started time.Time
	log     *slog.Logger

	engine   *probe.Engine
	resolver *probe.Resolver
	outbox   *outbox.Outbox
	measure  *measurer
	uplink   *uplink.Uplink
}

// NewBoot returns a fresh boot identifier: 12 random characters.
func NewBoot() wire.Boot { return wire.Boot(strings.ToLower(rand.Text()[:12])) }

// New allocates an agent. It opens nothing; Run does.
func New(cfg config.Config) *Agent {
	a := &Agent{cfg: cfg, boot: NewBoot(), started: time.Now(), log: cfg.Log}
	policy := probe.NewPolicy(cfg.AllowNet)
	a.engine = probe.NewEngine(probe.EngineOptions{MaxPPS: float64(cfg.MaxPPS), Log: cfg.Log})
	a.resolver = probe.NewResolver(probe.ResolverOptions{Policy: policy, Log: cfg.Log})
	a.outbox = outbox.New(outbox.Options{Agent: cfg.Name, Boot: a.boot, StateFile: cfg.StateFile(), BuildTime: version.BuildTime(), Log: cfg.Log})
	a.measure = &measurer{
		schedule: schedule.New(schedule.Options{Agent: cfg.Name, MaxPPS: float64(cfg.MaxPPS), MaxTargets: cfg.MaxTargets}),
		resolver: a.resolver,
		engine:   a.engine,
		add:      a.outbox.Add,
		log:      cfg.Log,
		wake:     make(chan struct{}, 1),
	}
	a.uplink = uplink.New(uplink.Options{
		Brokers: cfg.Brokers, TLS: cfg.TLS, Agent: cfg.Name, Boot: a.boot, Outbox: a.outbox, Live: a.live,
		OnWatch: a.measure.apply, OnCollector: a.measure.collector, Log: cfg.Log,
	})
	return a
}

// Run measures and delivers until ctx ends; then it drains for at most 5 s and
// says bye. The error is nil unless a part could not work at all.
func (a *Agent) Run(ctx context.Context) error {
	a.explain()
	if err := a.outbox.Load(); err != nil {
		return fmt.Errorf("load outbox: %w", err)
	}
	measuring, mctx := errgroup.WithContext(ctx)
	measuring.Go(func() error { return a.engine.Run(mctx) })
	measuring.Go(func() error { return a.resolver.Run(mctx) })
	measuring.Go(func() error { return a.measure.run(mctx) })
	// The uplink outlives the measuring: what is measured last is still sent.
	lasting, drain := context.WithCancel(context.WithoutCancel(ctx))
	defer drain()
	delivered := make(chan error, 1)
	go func() { delivered <- a.uplink.Run(lasting) }()

	err := measuring.Wait()
	drain()
	err = errors.Join(err, <-delivered)
	if serr := a.outbox.Save(); serr != nil {
		a.log.Error("cannot keep the outbox", "err", serr)
	}
	if ctx.Err() != nil {
		a.log.Info("stopped", "pending", a.outbox.Stats().Pending)
		return nil
	}
	return err
}

// explain logs once what a person wants to know first: who this is, whether it
// may ping, and whether the clock can be right.
func (a *Agent) explain() {
	a.log.Info("agent starts", "name", a.cfg.Name, "version", version.String(), "brokers", len(a.cfg.Brokers))
	for _, c := range probe.Capabilities() {
		if c.Err != nil {
			a.log.Warn("cannot ping", "family", c.Family, "err", c.Err, "hint", c.Hint)
		}
	}
	if now := time.Now(); now.Before(version.BuildTime()) {
		a.log.Warn("the clock is not set; results wait until it is", "now", now.UTC().Format(time.RFC3339), "built", version.BuildTime().UTC().Format(time.RFC3339))
	}
}

// live describes this agent for its heartbeat.
func (a *Agent) live() wire.LiveAgent {
	m := a.measure.snapshot()
	l := wire.LiveAgent{
		Agent: a.cfg.Name, Boot: a.boot, At: time.Now(), Uptime: int64(time.Since(a.started) / time.Second),
		Version: version.String(), OS: runtime.GOOS, Arch: runtime.GOARCH, Labels: a.cfg.Labels,
		Targets: m.targets, Rev: m.rev, Refusals: m.refusals, Problem: problem(),
	}
	if m.stretch > 1 {
		l.Stretch = m.stretch
	}
	return l
}

// problem says why nothing can be measured, or "".
func problem() string {
	var why string
	for _, c := range probe.Capabilities() {
		if c.Err == nil {
			return ""
		}
		if why == "" {
			why = fmt.Sprintf("cannot ping: %v; %s", c.Err, c.Hint)
		}
	}
	return why
}

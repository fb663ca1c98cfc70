package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"swarming/agent"
	"swarming/agent/config"
	"swarming/agent/probe"
	"swarming/shared/broker"
	"swarming/shared/settings"
	"swarming/shared/version"
	"swarming/shared/wire"
)

// heartbeatWait is how long check listens for a collector on each broker: one
// heartbeat is due every 15 s.
const heartbeatWait = 17 * time.Second

// A checklist prints one line a check and remembers whether one failed.
type checklist struct {
	out    io.Writer
	failed bool
}

func (c *checklist) ok(what, format string, args ...any)   { c.line("ok", what, format, args...) }
func (c *checklist) warn(what, format string, args ...any) { c.line("warn", what, format, args...) }
func (c *checklist) fail(what, format string, args ...any) {
	c.failed = true
	c.line("FAIL", what, format, args...)
}

func (c *checklist) line(status, what, format string, args ...any) {
	fmt.Fprintf(c.out, "%-5s %-28s %s\n", status, what, fmt.Sprintf(format, args...))
}

func runCheck(args []string, stdout, stderr io.Writer) error {
	cfg, done, err := load(args, stdout, stderr)
	if done || err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	list := &checklist{out: stdout}
	list.ok("name", "%s", cfg.Name)
	list.checkPing()
	list.checkClock(time.Now())
	list.checkBrokers(ctx, cfg)
	if list.failed {
		return settings.ErrReported
	}
	return nil
}

// checkPing fails only when no family works: a host without IPv6 is not broken.
func (c *checklist) checkPing() {
	capabilities := probe.Capabilities()
	works := false
	for _, p := range capabilities {
		works = works || p.Err == nil
	}
	for _, p := range capabilities {
		what := fmt.Sprintf("ping over IPv%d", p.Family)
		switch {
		case p.Err == nil:
			c.ok(what, "by %s, replies timed by the %s", p.Mode, p.Stamp)
		case works:
			c.warn(what, "%v; %s", p.Err, p.Hint)
		default:
			c.fail(what, "%v; %s", p.Err, p.Hint)
		}
	}
}

func (c *checklist) checkClock(now time.Time) {
	if now.Before(version.BuildTime()) {
		c.fail("clock", "%s is before this program was built, %s; set the clock or start a time service",
			now.UTC().Format(time.RFC3339), version.BuildTime().UTC().Format(time.RFC3339))
		return
	}
	c.ok("clock", "%s", now.UTC().Format(time.RFC3339))
}

// checkBrokers asks all brokers at once and prints their answers in order. It
// fails when none can be used.
func (c *checklist) checkBrokers(ctx context.Context, cfg config.Config) {
	if len(cfg.Brokers) == 0 {
		c.fail("broker", "none given: %v", settings.Usagef("", "name at least one, as in: swarming-agent check broker.example.org"))
		return
	}
	answers := make([]chan brokerAnswer, len(cfg.Brokers))
	for i, a := range cfg.Brokers {
		answers[i] = make(chan brokerAnswer, 1)
		go func() { answers[i] <- askBroker(ctx, a, cfg) }()
	}
	usable := 0
	for i, a := range cfg.Brokers {
		answer := <-answers[i]
		what := "broker " + a.String()
		if answer.err != nil {
			// One broker away is what the others are for.
			c.warn(what, "%v%s", answer.err, hintOf(answer.err))
			continue
		}
		usable++
		c.ok(what, "answered in %v", answer.took.Round(100*time.Microsecond))
		if answer.collector == "" {
			c.warn("collector on "+a.String(), "none heard in %v: results are published, but nobody acknowledges them", heartbeatWait)
		} else {
			c.ok("collector on "+a.String(), "%s", answer.collector)
		}
		if answer.watch == "" {
			c.warn("watch list on "+a.String(), "none: publish one with mosquitto_pub -r -q 1 -t watch -m 'example.com'")
		} else {
			c.ok("watch list on "+a.String(), "%s", answer.watch)
		}
	}
	if usable == 0 {
		c.fail("brokers", "none of %d can be used", len(cfg.Brokers))
	}
}

func hintOf(err error) string {
	if d, ok := errors.AsType[*broker.DialError](err); ok && d.Hint != "" {
		return "; " + d.Hint
	}
	return ""
}

type brokerAnswer struct {
	took      time.Duration
	collector string
	watch     string
	err       error
}

// askBroker connects, subscribes and listens for a collector's heartbeat.
func askBroker(ctx context.Context, a broker.Address, cfg config.Config) (answer brokerAnswer) {
	heard := make(chan broker.Message, 64)
	begin := time.Now()
	conn, err := broker.Dial(ctx, a, broker.Options{
		ClientID: string(cfg.Name) + "-check-" + string(agent.NewBoot()), TLS: cfg.TLS, Log: cfg.Log,
		OnMessage: func(m broker.Message) {
			select {
			case heard <- m:
			default: // more than enough was heard
			}
		},
	})
	if err != nil {
		return brokerAnswer{err: err}
	}
	defer conn.Close()
	answer.took = time.Since(begin)
	if err := conn.Subscribe(ctx, broker.Subscription{Filter: wire.TopicWatch, QoS: 1}, broker.Subscription{Filter: wire.SubscribeCollector}); err != nil {
		return brokerAnswer{err: err}
	}
	deadline := time.NewTimer(heartbeatWait)
	defer deadline.Stop()
	for answer.collector == "" {
		select {
		case m := <-heard:
			answer.hear(m)
		case <-deadline.C:
			return answer
		case <-conn.Done():
			return brokerAnswer{err: fmt.Errorf("connection ended: %w", conn.Err())}
		case <-ctx.Done():
			return brokerAnswer{err: ctx.Err()}
		}
	}
	return answer
}

func (b *brokerAnswer) hear(m broker.Message) {
	switch wire.KindOf(m.Topic) {
	case wire.KindLiveCollector:
		if l, err := wire.DecodeLiveCollector(m.Payload); err == nil && !m.Retained {
			b.collector = "heard " + string(l.Name)
		}
	case wire.KindWatch:
		w, ok, err := wire.DecodeWatch(m.Payload)
		switch {
		case err != nil:
			b.watch = fmt.Sprintf("unusable: %v", err)
		case ok:
			b.watch = fmt.Sprintf("%d targets, %d refused", len(w.Targets), len(w.Refused))
		}
	}
}

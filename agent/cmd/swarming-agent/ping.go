package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"swarming/agent"
	"swarming/agent/config"
	"swarming/agent/probe"
	"swarming/shared/settings"
	"swarming/shared/wire"
)

const pingUsage = `swarming-agent ping measures HOSTs once, with the agent's own probe, and prints
a table. It needs no broker, and private addresses are allowed.

Usage:
  swarming-agent ping [flags] HOST …

It exits with 0 when every host answered, 1 when one did not.

Flags:
`

// maxPingHosts bounds one ping command.
const maxPingHosts = 256

type pingOptions struct {
	hosts   []string
	count   int
	gap     time.Duration
	timeout time.Duration
	family  string
	json    bool
}

func runPing(args []string, stdout, stderr io.Writer) error {
	var o pingOptions
	set := settings.New(config.Program+" ping", "")
	set.Strings(&o.hosts, "host", "a host to measure; repeatable, and what stands without a flag")
	set.Int(&o.count, "count", wire.DefaultCount, fmt.Sprintf("echo requests to each host, 1 to %d", wire.MaxPackets))
	set.Duration(&o.gap, "gap", wire.DefaultGap, "time between them, at least 200ms")
	set.Duration(&o.timeout, "timeout", wire.DefaultTimeout, "how long to wait for each reply")
	set.String(&o.family, "family", "any", "version of IP: any, 4, 6 or both")
	set.Bool(&o.json, "json", false, "print one result a line, as the agent would publish it")
	set.Positional(&o.hosts, "host")
	if done, err := set.ParseOrHelp(args, pingUsage, stdout); done || err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := o.measure(ctx)
	if err != nil {
		return err
	}
	return o.print(stdout, stderr, results)
}

func (o *pingOptions) check() error {
	switch {
	case len(o.hosts) == 0:
		return settings.Usagef("name at least one, as in: swarming-agent ping example.com", "no host given")
	case len(o.hosts) > maxPingHosts:
		return settings.Usagef("name fewer", "%d hosts: want at most %d", len(o.hosts), maxPingHosts)
	case o.count < 1 || o.count > wire.MaxPackets:
		return settings.Usagef("run it again for more", "count %d: want 1 to %d", o.count, wire.MaxPackets)
	case o.gap < 200*time.Millisecond:
		return settings.Usagef("faster packets are taken for a flood", "gap %v: want at least 200ms", o.gap)
	case o.timeout <= 0 || o.timeout > time.Minute:
		return settings.Usagef("use one like 4s", "timeout %v: want above 0 and at most 1m", o.timeout)
	}
	for _, h := range o.hosts {
		if err := (wire.Target{Target: "x", Host: h, Family: wire.Family(o.family)}).Check(); err != nil {
			return settings.Usagef("name a host as you would for ping", "%v", err)
		}
	}
	return nil
}

// A pinged is the outcome for one host and family.
type pinged struct {
	result  wire.Result
	problem string // for people, when there is more to say than the cause
}

func (o *pingOptions) measure(ctx context.Context) ([]pinged, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	engine := probe.NewEngine(probe.EngineOptions{})
	resolver := probe.NewResolver(probe.ResolverOptions{})
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return engine.Run(ctx) })
	running.Go(func() error { return resolver.Run(ctx) })

	families := []wire.Family{wire.Family(o.family)}
	if o.family == string(wire.FamilyBoth) {
		families = []wire.Family{wire.Family4, wire.Family6}
	}
	results := make([]pinged, 0, len(o.hosts)*len(families))
	var all sync.WaitGroup
	for _, host := range o.hosts {
		for _, family := range families {
			results = append(results, pinged{})
			slot := &results[len(results)-1]
			all.Add(1)
			resolver.Get(time.Now(), host, family, func(a probe.Answer) { o.pingOne(engine, host, a, slot, all.Done) })
		}
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-ctx.Done():
	}
	cancel()
	if err := running.Wait(); err != nil {
		return nil, fmt.Errorf("ping: %w", err)
	}
	select {
	case <-finished:
		return results, nil
	default:
		return nil, settings.ErrReported // interrupted: nothing more to say
	}
}

func (o *pingOptions) pingOne(engine *probe.Engine, host string, a probe.Answer, slot *pinged, done func()) {
	finish := func(addr netip.Addr, out probe.Outcome) {
		slot.result = agent.NewResult(wire.TargetID(host), wire.DefaultProbe, addr, out)
		slot.problem = out.Err
		done()
	}
	if a.Cause != "" {
		out := probe.Outcome{Start: time.Now(), Cause: a.Cause}
		if a.Err != nil {
			out.Err = a.Err.Error()
		}
		finish(a.Addr, out)
		return
	}
	round := probe.Round{Addr: a.Addr, Count: o.count, Gap: o.gap, Timeout: o.timeout}
	engine.Start(round, func(out probe.Outcome) { finish(a.Addr, out) })
}

// print writes the table or the lines, and returns settings.ErrReported when a host did
// not answer.
func (o *pingOptions) print(stdout, stderr io.Writer, results []pinged) error {
	var failed error
	name, err := config.ChooseName("", "")
	if err != nil {
		return err
	}
	boot := agent.NewBoot()
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	if !o.json {
		fmt.Fprint(table, "HOST\tADDR\tSENT\tRECV\tLOSS\tMIN ms\tAVG ms\tMAX ms\tSTDDEV\tCAUSE\n")
	}
	for i, p := range results {
		r := p.result
		r.Agent, r.Boot, r.Seq = name, boot, uint64(i+1)
		if r.Recv == 0 {
			failed = settings.ErrReported
		}
		if o.json {
			fmt.Fprintf(stdout, "%s\n", r.Append(nil))
		} else {
			addr := "-"
			if r.Addr.IsValid() {
				addr = r.Addr.String()
			}
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Target, addr, r.Sent, r.Recv,
				number(r.Loss, "%.0f%%"), number(r.Min, "%.3f"), number(r.Avg, "%.3f"), number(r.Max, "%.3f"), number(r.Stddev, "%.3f"), why(r))
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	said := map[string]bool{}
	for _, p := range results {
		if p.problem != "" && !said[p.problem] {
			said[p.problem] = true
			fmt.Fprintf(stderr, "%s: %s\n", config.Program, p.problem)
		}
	}
	return failed
}

func why(r wire.Result) string {
	s := string(r.Cause)
	if r.From.IsValid() {
		s += " from " + r.From.String()
	}
	return s
}

func number(f *float64, format string) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf(format, *f)
}

// Command demo shows a living swarm on this machine with nothing installed but
// Go: two brokers, three agents that really ping, and a collector. It stops a
// broker while one looks, and starts it again.
//
// It runs until Ctrl-C, or for DEMO_SECONDS, and exits with 0 only if every
// agent has a stored result with an answer in it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"swarming/agent/probe"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	if s := os.Getenv("DEMO_SECONDS"); s != "" {
		secs, err := strconv.Atoi(s)
		if err != nil || secs < 1 {
			return fmt.Errorf("DEMO_SECONDS=%q: want a number of seconds, 30 is enough to see all", s)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(secs)*time.Second)
		defer cancel()
	}
	if err := mayPing(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "swarming-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer os.RemoveAll(dir)

	screen := newScreen(out)
	slog.SetDefault(slog.New(slog.DiscardHandler)) // libraries that log by themselves must not draw over the table
	swarm, err := newSwarm(ctx, dir, screen.say)
	if err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return swarm.run(ctx) })
	parts.Go(func() error { return swarm.story(ctx, screen.say) })
	parts.Go(func() error { return screen.run(ctx, swarm.table) })
	err = parts.Wait()
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	err = swarm.verdict(screen.say)
	screen.finish(swarm.table())
	return err
}

// mayPing returns the one command that is missing when this process may not ping.
func mayPing() error {
	var problem error
	for _, c := range probe.Capabilities() {
		if c.Err == nil {
			return nil
		}
		if problem == nil {
			problem = fmt.Errorf("cannot ping: %w\nThis permits it: %s", c.Err, c.Hint)
		}
	}
	return problem
}

// Package service runs a program in the foreground or under the system's
// service manager, and installs it there.
//
// On everything but Windows the two are the same: a service manager sends
// SIGTERM where a person presses Ctrl-C. The library is used where it knows
// what we do not: Windows' control manager, and the files that each system's
// manager wants.
package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Run calls run and returns its error. SIGINT or SIGTERM, or a stop by Windows'
// control manager, ends run's context, and run should return soon; that it
// returns the context's error is then no failure. A second signal exits the
// process at once with code 1. Under Windows' control manager a run that fails
// by itself exits the process with code 1, so that the manager's recovery
// applies. name is the service's name.
func Run(name string, run func(ctx context.Context) error) error {
	return runUnderManager(name, run)
}

// runInForeground is Run for all but Windows' control manager.
func runInForeground(name string, run func(ctx context.Context) error) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	finished := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-signals:
			cancel()
		case <-finished:
			return
		}
		select {
		case s := <-signals:
			fmt.Fprintf(os.Stderr, "%s: second signal (%v): exit at once\n", name, s)
			os.Exit(1)
		case <-finished:
		}
	}()
	err := run(ctx)
	close(finished)
	<-watched
	return withoutCancel(ctx, err)
}

// withoutCancel returns err, or nil where it only says that the context that was
// cancelled was cancelled.
func withoutCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

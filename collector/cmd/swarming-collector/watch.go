package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"swarming/collector/config"
	"swarming/collector/watch"
	"swarming/shared/broker"
	"swarming/shared/settings"
	"swarming/shared/wire"
)

const watchUsage = `swarming-collector watch shows or publishes the watch list. A collector that runs
takes a published list and spreads it to all its brokers; one that was given a
--watch-file puts the file's list back.

Usage:
  swarming-collector watch show [flags]
  swarming-collector watch set [flags] TARGET …

Flags:
`

// quiet is how long a broker may take to deliver a retained list.
const quiet = 2 * time.Second

func runWatch(args []string, stdout, stderr io.Writer) error {
	action := ""
	if len(args) > 0 {
		action = args[0]
	}
	switch action {
	case "show", "set", "help", "-h", "-help", "--help":
	default:
		return settings.Usagef("swarming-collector watch --help says more", "watch %q: want show or set", action)
	}
	var w watchCommand
	set := settings.New(config.Program+" watch", config.EnvPrefix)
	set.AlsoKnown(config.NewSettings().Set.Names()...)
	set.Strings(&w.brokers, "broker", "a broker to ask or to publish to; repeatable (default: localhost)")
	set.Bool(&w.none, "none", false, "with set: publish an empty list, so that all agents stop measuring")
	set.String(&w.tls.CA, "tls-ca", "", "PEM file of the authorities that may sign a broker's certificate (default: the system's)")
	set.String(&w.tls.Cert, "tls-cert", "", "PEM file of a client certificate")
	set.String(&w.tls.Key, "tls-key", "", "PEM file of the certificate's key")
	set.Strings(&w.targets, "target", "with set: a host to measure; repeatable, and what stands without a flag")
	set.Positional(&w.targets, "target")
	rest := args[1:]
	if action != "show" && action != "set" {
		rest = []string{"--help"}
	}
	if done, err := set.ParseOrHelp(rest, watchUsage, stdout); done || err != nil {
		return err
	}
	if len(w.brokers) == 0 {
		w.brokers = []string{"localhost"}
	}
	var err error
	if w.addrs, err = config.ParseBrokers(w.brokers); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if action == "show" {
		return w.show(ctx, stdout, stderr)
	}
	return w.set(ctx, stdout, stderr)
}

type watchCommand struct {
	brokers, targets []string
	addrs            []broker.Address
	none             bool
	tls              broker.TLS
}

func (w *watchCommand) options(onMessage func(broker.Message)) broker.Options {
	host, _ := os.Hostname()
	return broker.Options{ClientID: fmt.Sprintf("%s-watch-%s-%d", config.Program, host, time.Now().UnixNano()), TLS: w.tls, OnMessage: onMessage}
}

// onEach runs f for every broker at once and returns settings.ErrReported when one failed.
func (w *watchCommand) onEach(stderr io.Writer, f func(i int, a broker.Address) error) error {
	errs := make([]error, len(w.addrs))
	var all sync.WaitGroup
	for i, a := range w.addrs {
		all.Go(func() { errs[i] = f(i, a) })
	}
	all.Wait()
	var failed error
	for _, err := range errs {
		if err == nil {
			continue
		}
		failed = settings.ErrReported
		fmt.Fprintf(stderr, "%s: %v\n", config.Program, err)
		if d, ok := errors.AsType[*broker.DialError](err); ok && d.Hint != "" {
			fmt.Fprintf(stderr, "hint: %s\n", d.Hint)
		}
	}
	return failed
}

func (w *watchCommand) show(ctx context.Context, stdout, stderr io.Writer) error {
	if len(w.targets) > 0 || w.none {
		return settings.Usagef("to publish a list: swarming-collector watch set", "watch show takes no targets")
	}
	lists := make([]string, len(w.addrs))
	err := w.onEach(stderr, func(i int, a broker.Address) (err error) {
		lists[i], err = w.fetch(ctx, a)
		return err
	})
	for i, a := range w.addrs {
		if lists[i] != "" {
			fmt.Fprintf(stdout, "%s: %s", a, lists[i])
		}
	}
	return err
}

// fetch describes the list that a broker holds.
func (w *watchCommand) fetch(ctx context.Context, a broker.Address) (string, error) {
	heard := make(chan []byte, 1)
	conn, err := broker.Dial(ctx, a, w.options(func(m broker.Message) {
		select {
		case heard <- m.Payload:
		default: // the first is the retained one
		}
	}))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.Subscribe(ctx, broker.Subscription{Filter: wire.TopicWatch, QoS: 1}); err != nil {
		return "", err
	}
	select {
	case p := <-heard:
		return describe(p), nil
	case <-time.After(quiet):
		return "no watch list\n", nil
	case <-conn.Done():
		return "", fmt.Errorf("connection to %s ended: %w", a, conn.Err())
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func describe(payload []byte) string {
	list, ok, err := wire.DecodeWatch(payload)
	switch {
	case err != nil:
		return fmt.Sprintf("a list that cannot be used: %v\n", err)
	case !ok:
		return "no watch list\n"
	}
	var b strings.Builder
	if err := watch.Format(&b, list); err != nil {
		return fmt.Sprintf("%v\n", err)
	}
	return b.String()
}

func (w *watchCommand) set(ctx context.Context, stdout, stderr io.Writer) error {
	payload, err := w.payload()
	if err != nil {
		return err
	}
	err = w.onEach(stderr, func(_ int, a broker.Address) error {
		conn, err := broker.Dial(ctx, a, w.options(nil))
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.Publish(ctx, broker.Message{Topic: wire.TopicWatch, Payload: payload, QoS: 1, Retained: true}); err != nil {
			return fmt.Errorf("publish watch list to %s: %w", a, err)
		}
		return nil
	})
	if err == nil {
		fmt.Fprintf(stdout, "published %d targets to %d brokers\n", len(w.targets), len(w.addrs))
	}
	return err
}

// payload is the list as a person would publish it: without a rev, so that a
// collector takes it as a wish.
func (w *watchCommand) payload() ([]byte, error) {
	if w.none {
		if len(w.targets) > 0 {
			return nil, settings.Usagef("leave one of the two out", "--none and %d targets", len(w.targets))
		}
		return wire.Watch{}.Encode(), nil
	}
	if len(w.targets) == 0 {
		return nil, settings.Usagef("to stop all measuring: swarming-collector watch set --none", "no target given")
	}
	list, err := watch.ParseArgs(w.targets)
	if err != nil {
		return nil, settings.Usagef("a target is a host name or an IP address", "%v", err)
	}
	return list.Encode(), nil
}

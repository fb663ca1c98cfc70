package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"swarming/collector/config"
	"swarming/collector/journal"
	"swarming/shared/settings"
	"swarming/shared/wire"
)

const resultsUsage = `swarming-collector results prints stored results, oldest first, also while the
collector runs.

Usage:
  swarming-collector results [flags]

With --json it prints one result a line, with the wire's field names and
"received", the time it reached the collector.

Flags:
`

const eventsUsage = `swarming-collector events prints agents that came, went and restarted, oldest
first, also while the collector runs.

Usage:
  swarming-collector events [flags]

Flags:
`

// A query is what results and events are asked.
type query struct {
	data          string
	agent, target string
	since         time.Duration
	json          bool
}

// run parses a query and gives the open journal to print, which is interrupted
// by Ctrl-C.
func (q *query) run(name, usage string, args []string, stdout io.Writer, print func(context.Context, *journal.Journal, journal.Filter) error) error {
	set := settings.New(config.Program+" "+name, config.EnvPrefix)
	set.AlsoKnown(config.NewSettings().Set.Names()...)
	config.DataFlag(set, &q.data)
	set.String(&q.agent, "agent", "", "only this agent's")
	if name == "results" {
		set.String(&q.target, "target", "", "only this target's")
	}
	set.Duration(&q.since, "since", time.Hour, "how far back, such as 10m, 1h or 7d")
	set.Bool(&q.json, "json", false, "print one JSON object a line")
	if done, err := set.ParseOrHelp(args, usage, stdout); done || err != nil {
		return err
	}
	if q.since <= 0 {
		return settings.Usagef("use one like 1h", "since %v: want more than 0", q.since)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	j, err := journal.OpenReadOnly(ctx, q.data)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	defer j.Close()
	return print(ctx, j, journal.Filter{Agent: wire.AgentName(q.agent), Target: wire.TargetID(q.target), Since: time.Now().Add(-q.since)})
}

func runResults(args []string, stdout io.Writer) error {
	var q query
	return q.run("results", resultsUsage, args, stdout, func(ctx context.Context, j *journal.Journal, filter journal.Filter) error {
		if !q.json {
			fmt.Fprintf(stdout, "%-20s %-20s %-24s %9s %5s %9s %9s %9s %s\n", "AT", "AGENT", "TARGET", "RECV/SENT", "LOSS", "MIN ms", "AVG ms", "MAX ms", "CAUSE")
		}
		for row, err := range j.Results(ctx, filter) {
			if err != nil {
				return fmt.Errorf("read results: %w", err)
			}
			if q.json {
				_, err = stdout.Write(resultJSON(row.Result, row.Received))
			} else {
				err = printResult(stdout, row.Result)
			}
			if err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
		return nil
	})
}

// resultJSON is the wire's encoding with one field more, as one line.
func resultJSON(r wire.Result, received time.Time) []byte {
	b := r.Append(nil)
	b = append(b[:len(b)-1], `,"received":"`...)
	return append(wire.AppendTime(b, received), "\"}\n"...)
}

func printResult(w io.Writer, r wire.Result) error {
	cause := string(r.Cause)
	if r.From.IsValid() {
		cause += " from " + r.From.String()
	}
	_, err := fmt.Fprintf(w, "%-20s %-20s %-24s %9s %5s %9s %9s %9s %s\n", r.At.UTC().Format("2006-01-02T15:04:05Z"), r.Agent, r.Target,
		fmt.Sprintf("%d/%d", r.Recv, r.Sent), number(r.Loss, "%.0f%%"), number(r.Min, "%.3f"), number(r.Avg, "%.3f"), number(r.Max, "%.3f"), cause)
	return err
}

func number(f *float64, format string) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf(format, *f)
}

func runEvents(args []string, stdout io.Writer) error {
	var q query
	return q.run("events", eventsUsage, args, stdout, func(ctx context.Context, j *journal.Journal, filter journal.Filter) error {
		for e, err := range j.Events(ctx, filter) {
			if err != nil {
				return fmt.Errorf("read events: %w", err)
			}
			if q.json {
				err = json.NewEncoder(stdout).Encode(e)
			} else {
				_, err = fmt.Fprintf(stdout, "%s %-6s %-20s %s\n", e.Received.UTC().Format("2006-01-02T15:04:05Z"), e.Kind, e.Agent, e.Reason)
			}
			if err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
		return nil
	})
}

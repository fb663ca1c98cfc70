// Command swarming-collector listens to all brokers of a swarm, stores every
// result once, and ships the results to Elasticsearch.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"swarming/collector"
	"swarming/collector/config"
	"swarming/shared/service"
	"swarming/shared/settings"
	"swarming/shared/version"
)

const usage = `swarming-collector stores what the swarm's agents measure, each result once.

Usage:
  swarming-collector [flags] [broker …]     collect, in the foreground
  swarming-collector results [flags]        print stored results, also while it runs
  swarming-collector events [flags]         print stored events: agents that came and went
  swarming-collector status [flags]         one screen: is anything wrong, is anything lost?
  swarming-collector watch show [flags]     print the watch list that each broker holds
  swarming-collector watch set [flags] TARGET …
                                            publish a watch list
  swarming-collector --version

Each subcommand explains itself with --help.

A broker is host, host:port or a URL: mqtt:// mqtts:// ws:// wss://, with
user:password if it asks for them. Name all brokers that agents may use.

Every flag is also an environment variable (--watch-file is
SWARMING_COLLECTOR_WATCH_FILE; lists are split on white space) and a line
"watch-file FILE" in the --config file. Flags beat the environment, the
environment beats the file.

Flags:
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main without the process: it returns the exit code, 0 done, 1 failed,
// 2 wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	return settings.Exit(config.Program, version.String(), dispatch(args, stdout, stderr), stdout, stderr)
}

func dispatch(args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "results":
			return runResults(args[1:], stdout)
		case "events":
			return runEvents(args[1:], stdout)
		case "status":
			return runStatus(args[1:], stdout)
		case "watch":
			return runWatch(args[1:], stdout, stderr)
		case "help":
			args = []string{"--help"}
		}
	}
	return runCollector(args, stdout, stderr)
}

func runCollector(args []string, stdout, stderr io.Writer) error {
	s := config.NewSettings()
	cfg, err := s.Load(args, os.Environ(), stderr)
	if errors.Is(err, settings.ErrHelp) {
		fmt.Fprint(stdout, usage, s.Set.Usage())
		return nil
	}
	if err != nil {
		return err
	}
	for _, w := range s.Set.Warnings() {
		cfg.Log.Warn(w)
	}
	if s.Set.CheckOnly() {
		fmt.Fprintf(stdout, "collector name: %s\n", cfg.Name)
		s.Set.Show(stdout)
		return nil
	}
	if len(cfg.Brokers) == 0 {
		return settings.Usagef("name all of them, as in: swarming-collector broker1.example.org broker2.example.org", "no broker given: want host, host:port or a URL")
	}
	return service.Run(config.Program, func(ctx context.Context) error { return collector.New(cfg, elasticsearch).Run(ctx) })
}

// Command swarming-agent pings what the swarm's watch list names, politely, and
// publishes the statistics to one of its brokers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"swarming/agent"
	"swarming/agent/config"
	"swarming/shared/service"
	"swarming/shared/settings"
	"swarming/shared/version"
)

const usage = `swarming-agent measures how far away the world is, from here.

Usage:
  swarming-agent [flags] [broker …]         measure and publish, in the foreground
  swarming-agent ping [flags] HOST …        measure once and print; needs no broker
  swarming-agent check [flags] [broker …]   may I ping, is my clock sane, do the brokers answer?
  swarming-agent service ACTION [flags] [broker …]
                                            ACTION: install uninstall start stop restart status
  swarming-agent --version

A broker is host, host:port or a URL: mqtt:// mqtts:// ws:// wss://, with
user:password if it asks for them. Name as many as there are: the agent uses
one and goes to the next when that one falls silent.

Every flag is also an environment variable (--max-pps is SWARMING_AGENT_MAX_PPS;
lists are split on white space) and a line "max-pps 20" in the --config file.
Flags beat the environment, the environment beats the file.

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
		case "ping":
			return runPing(args[1:], stdout, stderr)
		case "check":
			return runCheck(args[1:], stdout, stderr)
		case "service":
			return runService(args[1:], stdout, stderr)
		case "help":
			args = []string{"--help"}
		}
	}
	return runAgent(args, stdout, stderr)
}

// load reads the agent's settings and answers --help and --check-config itself:
// done is true when nothing is left to do.
func load(args []string, stdout, stderr io.Writer) (cfg config.Config, done bool, err error) {
	s := config.NewSettings()
	cfg, err = s.Load(args, os.Environ(), stderr)
	if errors.Is(err, settings.ErrHelp) {
		fmt.Fprint(stdout, usage, s.Set.Usage())
		return cfg, true, nil
	}
	if err != nil {
		return cfg, false, err
	}
	for _, w := range s.Set.Warnings() {
		cfg.Log.Warn(w)
	}
	if s.Set.CheckOnly() {
		fmt.Fprintf(stdout, "agent name: %s\n", cfg.Name)
		s.Set.Show(stdout)
		return cfg, true, nil
	}
	return cfg, false, nil
}

func runAgent(args []string, stdout, stderr io.Writer) error {
	cfg, done, err := load(args, stdout, stderr)
	if done || err != nil {
		return err
	}
	if len(cfg.Brokers) == 0 {
		return settings.Usagef("name at least one, as in: swarming-agent broker.example.org", "no broker given: want host, host:port or a URL")
	}
	spareMemory()
	return service.Run(config.Program, func(ctx context.Context) error { return agent.New(cfg).Run(ctx) })
}

// gcPercent lets the heap grow by a quarter, not by its double, before garbage
// is collected: with 1000 targets over TLS 1 MB less, for processor time that
// cannot be measured. A person's GOGC beats it.
const gcPercent = 25

func spareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

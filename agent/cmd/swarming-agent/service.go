package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"swarming/agent/config"
	"swarming/shared/service"
	"swarming/shared/settings"
)

const serviceUsage = `swarming-agent service installs the agent with the system's service manager
(systemd, launchd, Windows services, …) and controls it there.

Usage:
  swarming-agent service install [flags] broker …
  swarming-agent service uninstall | start | stop | restart | status

install keeps the settings given on its command line: the service starts with
them. The flags are those of swarming-agent itself.
`

func runService(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		fmt.Fprint(stdout, serviceUsage)
		return nil
	}
	action := args[0]
	if !slices.Contains(service.Actions, action) {
		return settings.Usagef("swarming-agent service --help says more", "service %q: want one of %s", action, strings.Join(service.Actions, ", "))
	}
	cfg := service.Config{Name: config.Program, Description: "pings what the swarm watches, politely, and publishes the statistics", Out: stdout}
	if action == "install" {
		s := config.NewSettings()
		agent, err := s.Load(args[1:], nil, stderr)
		if err != nil {
			return err
		}
		if len(agent.Brokers) == 0 && !s.Set.Given("config") {
			return settings.Usagef("name at least one, as in: swarming-agent service install broker.example.org", "no broker given: want host, host:port or a URL")
		}
		if cfg.Arguments, err = s.Set.CommandLine(); err != nil {
			return fmt.Errorf("keep settings for the service: %w", err)
		}
	} else if len(args) > 1 {
		return settings.Usagef("only install takes settings", "service %s: unexpected %q", action, args[1])
	}
	return service.Control(cfg, action)
}

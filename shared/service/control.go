package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kardianos/service"
)

// Actions are what [Control] can be asked to do.
var Actions = []string{"install", "uninstall", "start", "stop", "restart", "status"}

// What [Control] returns for the action status when the service does not run.
var (
	ErrStopped      = errors.New("installed, not running")
	ErrNotInstalled = errors.New("not installed")
)

// A Config describes the service to control.
type Config struct {
	Name        string // of the service and of the program, without spaces
	Description string // one line, for people
	Arguments   []string
	Out         io.Writer // what was done, a line of text; nil: nowhere
}

// Control does one of [Actions] with the system's service manager (systemd,
// launchd, Windows' control manager, procd, OpenRC, rc.d, SysV), which it finds
// by itself. Only install reads Config's Description and Arguments; a path among
// these must be absolute, because a service starts in another directory, and
// [settings.Set.CommandLine] makes it so. The installed service starts with the
// system and is restarted when it fails.
//
// All actions but status need administrator's rights; without them the error
// says which command has them.
func Control(cfg Config, action string) error {
	if !slices.Contains(Actions, action) {
		return fmt.Errorf("service %q: want one of %s", action, strings.Join(Actions, ", "))
	}
	if action != "status" && !privileged() {
		return fmt.Errorf("%s the service %s: not permitted: %s", action, cfg.Name, howToGetRights(cfg.Name+" service "+action))
	}
	s, err := newService(cfg, action)
	if err != nil {
		return err
	}
	if err := do(s, action); err != nil {
		return fmt.Errorf("%s the service %s (%s): %w", action, cfg.Name, s.Platform(), err)
	}
	if cfg.Out != nil {
		fmt.Fprintf(cfg.Out, "%s: %s\n", cfg.Name, done(cfg.Name, action))
	}
	return nil
}

func newService(cfg Config, action string) (service.Service, error) {
	program, err := programPath()
	if err != nil {
		return nil, err
	}
	unit := ""
	if action == "install" {
		if err := checkInstall(cfg, program, service.Platform()); err != nil {
			return nil, fmt.Errorf("install the service %s: %w", cfg.Name, err)
		}
		unit = systemdUnit(cfg, program)
	}
	s, err := service.New(nobody{}, &service.Config{
		Name: cfg.Name, DisplayName: cfg.Name, Description: cfg.Description,
		Executable: program, Arguments: cfg.Arguments,
		Option: service.KeyValue{
			"SystemdScript":          unit,
			"RunAtLoad":              true,      // launchd: start with the system
			"LogOutput":              true,      // launchd, rc.d: standard error to a file under /var/log
			"OnFailure":              "restart", // Windows
			"OnFailureDelayDuration": "5s",
			"OnFailureResetPeriod":   60,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("find this system's service manager: %w", err)
	}
	return s, nil
}

// checkInstall refuses what could be installed and would not start.
func checkInstall(cfg Config, program, platform string) error {
	if strings.Contains(filepath.ToSlash(program), "/go-build") {
		return fmt.Errorf("%s is a temporary file of go run: build and install the program first", program)
	}
	for _, a := range cfg.Arguments {
		switch {
		case strings.ContainsAny(a, "\x00\r\n"):
			return fmt.Errorf("argument %q holds a control character", a)
		case strings.Contains(a, "{{"):
			return errors.New("an argument holds {{; put it into a file and use --config")
		case platform == "linux-procd" && strings.ContainsAny(a, " \t\"'\\$`"):
			// The library's script would take it for several.
			return errors.New("procd cannot be given an argument with spaces, quotes, \\, $ or `; put it into a file and use --config")
		}
	}
	return nil
}

func do(s service.Service, action string) error {
	switch action {
	case "install":
		return s.Install()
	case "uninstall":
		_ = s.Stop() // it may not be running
		return s.Uninstall()
	case "start":
		return s.Start()
	case "stop":
		return s.Stop()
	case "restart":
		return s.Restart()
	}
	return status(s)
}

func status(s service.Service) error {
	st, err := s.Status()
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		return ErrNotInstalled
	case err != nil:
		return err
	case st != service.StatusRunning:
		return ErrStopped
	}
	return nil
}

func done(name, action string) string {
	switch action {
	case "install":
		return "installed; start it with: " + name + " service start"
	case "uninstall":
		return "removed"
	case "start":
		return "started"
	case "stop":
		return "stopped"
	case "restart":
		return "restarted"
	}
	return "running"
}

func programPath() (string, error) {
	p, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's file: %w", err)
	}
	return filepath.Abs(p)
}

// nobody is what the library wants to start; Control starts nothing here.
type nobody struct{}

func (nobody) Start(service.Service) error { return nil }
func (nobody) Stop(service.Service) error  { return nil }

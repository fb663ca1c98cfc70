// Package config turns command lines, environment and settings files into the
// options of the agent's parts, and chooses the agent's name. It is the one
// place that knows what a setting is called.
package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"swarming/agent/schedule"
	"swarming/shared/broker"
	"swarming/shared/settings"
	"swarming/shared/wire"
)

// Program and EnvPrefix name the program and its environment variables.
const (
	Program   = "swarming-agent"
	EnvPrefix = "SWARMING_AGENT"
)

// A Config is everything an agent is told at its start.
type Config struct {
	Name       wire.AgentName
	Brokers    []broker.Address
	TLS        broker.TLS
	Labels     map[string]string
	AllowNet   []netip.Prefix
	MaxPPS     int
	MaxTargets int
	StateDir   string // empty: nothing is kept
	Log        *slog.Logger
}

// StateFile returns where the outbox is kept between runs, or "" without a
// state directory.
func (c Config) StateFile() string {
	if c.StateDir == "" {
		return ""
	}
	return filepath.Join(c.StateDir, "outbox")
}

// Settings declares the settings of the agent and keeps what they were set to.
type Settings struct {
	Set *settings.Set

	name               string
	brokers, labels    []string
	allow              []string
	maxPPS, maxTargets int
	stateDir           string
	tls                broker.TLS
	log                *settings.LogOptions
}

// NewSettings declares the settings, with brokers as the positional arguments.
func NewSettings() *Settings {
	s := &Settings{Set: settings.New(Program, EnvPrefix)}
	s.Set.Strings(&s.brokers, "broker", "a broker to use: host, host:port, or mqtt:// mqtts:// ws:// wss:// URL with optional user:password; repeatable")
	s.Set.String(&s.name, "name", "", "name of this agent, up to 64 printable characters without space / + # (default: the host name, made unique where it is a maker's default)")
	s.Set.Strings(&s.labels, "label", "key=value that describes this agent, such as isp=example or site=berlin; repeatable, at most 16")
	s.Set.Strings(&s.allow, "allow-net", "CIDR of a private or otherwise refused network that this agent may ping; repeatable")
	s.Set.Int(&s.maxPPS, "max-pps", schedule.DefaultMaxPPS, "echo requests per second over all targets", settings.Min(1), settings.Max(schedule.DefaultMaxPPS))
	s.Set.Int(&s.maxTargets, "max-targets", schedule.DefaultMaxTargets, "targets taken from the watch list", settings.Min(1), settings.Max(schedule.DefaultMaxTargets))
	s.Set.Path(&s.stateDir, "state-dir", "", "directory that keeps the unsent results of a clean stop, and this agent's name (default: nothing is kept)")
	s.Set.Path(&s.tls.CA, "tls-ca", "", "PEM file of the authorities that may sign a broker's certificate (default: the system's)")
	s.Set.Path(&s.tls.Cert, "tls-cert", "", "PEM file of this agent's certificate")
	s.Set.Path(&s.tls.Key, "tls-key", "", "PEM file of the certificate's key")
	s.log = s.Set.Log()
	s.Set.Positional(&s.brokers, "broker")
	return s
}

// Load reads the settings and checks every value. The error is a
// [settings.UsageError], [settings.ErrHelp] or [settings.ErrVersion]. Log lines
// go to stderr.
func (s *Settings) Load(args, environ []string, stderr io.Writer) (Config, error) {
	if err := s.Set.Parse(args, environ); err != nil {
		return Config{}, err
	}
	c := Config{TLS: s.tls, StateDir: s.stateDir, MaxPPS: s.maxPPS, MaxTargets: s.maxTargets, Log: s.log.Logger(stderr)}
	var err error
	if c.Brokers, err = broker.ParseAddresses(s.brokers); err != nil {
		return Config{}, settings.Usagef("a broker is host, host:port or a URL such as mqtts://user:password@host", "%v", err)
	}
	if c.Labels, err = parseLabels(s.labels); err != nil {
		return Config{}, err
	}
	if c.AllowNet, err = parseNets(s.allow); err != nil {
		return Config{}, err
	}
	if err := c.TLS.Check(); err != nil {
		return Config{}, settings.Usagef("--tls-cert and --tls-key go together, and both are PEM files", "%v", err)
	}
	if s.name != "" {
		if err := wire.CheckName(s.name); err != nil {
			return Config{}, settings.Usagef("leave --name out to use the host name", "--name: %v", err)
		}
	}
	c.Name, err = ChooseName(s.name, c.StateDir)
	if err != nil {
		return Config{}, err
	}
	return c, nil
}

func parseLabels(in []string) (map[string]string, error) {
	labels := make(map[string]string, len(in))
	for _, s := range in {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return nil, settings.Usagef("write it like --label isp=example", "label %q has no '='", s)
		}
		labels[k] = v
	}
	if err := wire.CheckLabels(labels); err != nil {
		return nil, settings.Usagef("write it like --label isp=example", "%v", err)
	}
	return labels, nil
}

func parseNets(in []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(in))
	for _, s := range in {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(s); err == nil {
				p, err = a.Prefix(a.BitLen())
			}
		}
		if err != nil {
			return nil, settings.Usagef("write it like --allow-net 192.168.0.0/16", "allow-net %q is neither a network nor an address", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// ChooseName returns the agent's name: the given one, else the one kept in
// stateDir, else the host name, made unique with part of the machine's identity
// where it is a maker's default. With a state directory the choice is kept, so
// that a renamed host keeps its history.
func ChooseName(given, stateDir string) (wire.AgentName, error) {
	path := filepath.Join(stateDir, "name")
	if given == "" && stateDir != "" {
		if b, err := os.ReadFile(path); err == nil {
			if kept := strings.TrimSpace(string(b)); wire.CheckName(kept) == nil {
				return wire.AgentName(kept), nil
			}
		}
	}
	name := cmp.Or(given, defaultName())
	if stateDir != "" {
		if err := os.MkdirAll(stateDir, 0o750); err != nil {
			return "", fmt.Errorf("create state directory: %w", err)
		}
		if err := os.WriteFile(path, []byte(name+"\n"), 0o640); err != nil {
			return "", fmt.Errorf("keep name in state directory: %w", err)
		}
	}
	return wire.AgentName(name), nil
}

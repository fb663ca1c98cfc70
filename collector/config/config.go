// Package config turns command lines, environment and settings files into the
// options of the collector's parts. It is the one place that knows what a
// setting is called.
package config

import (
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"swarming/shared/broker"
	"swarming/shared/settings"
	"swarming/shared/wire"
)

// Program and EnvPrefix name the program and its environment variables.
const (
	Program   = "swarming-collector"
	EnvPrefix = "SWARMING_COLLECTOR"
)

// Defaults of the settings that subcommands share.
const (
	DefaultData   = "./swarming-data"
	DefaultListen = "127.0.0.1:9717"
)

// Bounds of the settings.
const (
	minRetention = time.Hour
	maxRetention = 10 * 365 * 24 * time.Hour
	minMaxBytes  = 16 << 20
)

// A Config is everything a collector is told at its start.
type Config struct {
	Name      wire.CollectorName
	Brokers   []broker.Address
	TLS       broker.TLS
	Data      string
	Retention time.Duration
	MaxBytes  int64 // of the journal; 0 is no limit but the disk's
	Observe   bool
	WatchFile string

	Elasticsearch       []string // nodes of one cluster; empty: no export
	ElasticsearchIndex  string
	ElasticsearchAPIKey string // file
	ElasticsearchCA     string // file

	Listen string // empty: no HTTP
	Log    *slog.Logger
}

// Settings declares the settings of the collector and keeps what they were set to.
type Settings struct {
	Set *settings.Set

	cfg     Config
	name    string
	brokers []string
	log     *settings.LogOptions
}

// NewSettings declares the settings, with brokers as the positional arguments.
func NewSettings() *Settings {
	s := &Settings{Set: settings.New(Program, EnvPrefix)}
	c := &s.cfg
	s.Set.Strings(&s.brokers, "broker", "a broker to listen to: host, host:port, or mqtt:// mqtts:// ws:// wss:// URL with optional user:password; repeatable, name them all")
	s.Set.String(&s.name, "name", "", "name of this collector (default: the host name)")
	DataFlag(s.Set, &c.Data)
	s.Set.Duration(&c.Retention, "retention", 30*24*time.Hour, "how long results are kept", settings.Min(minRetention), settings.Max(maxRetention))
	s.Set.Bytes(&c.MaxBytes, "max-bytes", 0, "size of the journal beyond which the oldest results are deleted, such as 10GB, at least 16MiB (default: no limit but the disk's)")
	s.Set.Bool(&c.Observe, "observe", false, "store, but never acknowledge or publish anything")
	s.Set.Path(&c.WatchFile, "watch-file", "", "file with the watch list, plain names or YAML, read again when it changes (default: whatever people publish)")
	s.Set.Strings(&c.Elasticsearch, "elasticsearch", "URL of an Elasticsearch node, with optional user:password; repeatable for nodes of one cluster (default: no export)")
	s.Set.String(&c.ElasticsearchIndex, "elasticsearch-index", "swarming", "prefix of the indices; logstash gives the names of the original")
	s.Set.Path(&c.ElasticsearchAPIKey, "elasticsearch-api-key-file", "", "file with an API key, read again when it changes")
	s.Set.Path(&c.ElasticsearchCA, "elasticsearch-ca", "", "PEM file of the authority that signed Elasticsearch's certificate (default: the system's)")
	ListenFlag(s.Set, &c.Listen)
	s.Set.Path(&c.TLS.CA, "tls-ca", "", "PEM file of the authorities that may sign a broker's certificate (default: the system's)")
	s.Set.Path(&c.TLS.Cert, "tls-cert", "", "PEM file of this collector's certificate")
	s.Set.Path(&c.TLS.Key, "tls-key", "", "PEM file of the certificate's key")
	s.log = s.Set.Log()
	s.Set.Positional(&s.brokers, "broker")
	return s
}

// DataFlag declares --data, which subcommands that read the journal share.
func DataFlag(set *settings.Set, p *string) {
	set.Path(p, "data", DefaultData, "directory of the journal")
}

// ListenFlag declares --listen, which the status subcommand shares.
func ListenFlag(set *settings.Set, p *string) {
	set.String(p, "listen", DefaultListen, "address and port for HTTP: /healthz, /metrics and /status; off for none")
}

// Load reads the settings and checks every value. The error is a
// [settings.UsageError], [settings.ErrHelp] or [settings.ErrVersion]. Log lines
// go to stderr.
func (s *Settings) Load(args, environ []string, stderr io.Writer) (Config, error) {
	if err := s.Set.Parse(args, environ); err != nil {
		return Config{}, err
	}
	c := s.cfg
	c.Log = s.log.Logger(stderr)
	var err error
	if c.Brokers, err = ParseBrokers(s.brokers); err != nil {
		return Config{}, err
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	if c.Listen == "off" {
		c.Listen = ""
	}
	if s.name == "" {
		s.name = defaultName()
	}
	if err := wire.CheckName(s.name); err != nil {
		return Config{}, settings.Usagef("leave --name out to use the host name", "--name: %v", err)
	}
	c.Name = wire.CollectorName(s.name)
	return c, nil
}

// ParseBrokers reads broker addresses; the error is a [settings.UsageError].
func ParseBrokers(in []string) ([]broker.Address, error) {
	out, err := broker.ParseAddresses(in)
	if err != nil {
		return nil, settings.Usagef("a broker is host, host:port or a URL such as mqtts://user:password@host", "%v", err)
	}
	return out, nil
}

func (c *Config) check() error {
	if c.MaxBytes != 0 && c.MaxBytes < minMaxBytes {
		return settings.Usagef("use one like 1GB", "max-bytes %d: want at least 16MiB", c.MaxBytes)
	}
	if err := c.TLS.Check(); err != nil {
		return settings.Usagef("--tls-cert and --tls-key go together, and both are PEM files", "%v", err)
	}
	if err := CheckListen(c.Listen); err != nil {
		return err
	}
	for _, f := range []struct{ flag, path string }{
		{"watch-file", c.WatchFile}, {"elasticsearch-api-key-file", c.ElasticsearchAPIKey}, {"elasticsearch-ca", c.ElasticsearchCA}} {
		if f.path == "" {
			continue
		}
		if _, err := os.ReadFile(f.path); err != nil {
			return settings.Usagef("name a file that this program may read", "--%s: %v", f.flag, err)
		}
	}
	return c.checkElasticsearch()
}

func (c *Config) checkElasticsearch() error {
	for _, s := range c.Elasticsearch {
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return settings.Usagef("write it like http://localhost:9200", "elasticsearch %q is not an http or https URL", settings.RedactURL(s))
		}
	}
	// Elasticsearch's own rules for an index name.
	if c.ElasticsearchIndex == "" || len(c.ElasticsearchIndex) > 100 || c.ElasticsearchIndex != strings.ToLower(c.ElasticsearchIndex) ||
		strings.ContainsAny(c.ElasticsearchIndex, `\/*?"<>| ,#:`) || strings.ContainsAny(c.ElasticsearchIndex[:1], "-_+.") {
		return settings.Usagef("use lower-case letters, digits, - and _, as in swarming", "elasticsearch-index %q cannot start an index name", c.ElasticsearchIndex)
	}
	return nil
}

// CheckListen reports why s is not an address to listen on.
func CheckListen(s string) error {
	if s == "" || s == "off" {
		return nil
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		return settings.Usagef("write it like 127.0.0.1:9717, or off", "listen %q is not host:port", s)
	}
	return nil
}

func defaultName() string {
	host, _ := os.Hostname()
	if wire.CheckName(host) != nil {
		return "collector"
	}
	return host
}

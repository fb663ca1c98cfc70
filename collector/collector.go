package collector

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"swarming/collector/config"
	"swarming/collector/ingest"
	"swarming/collector/journal"
	"swarming/collector/watch"
	"swarming/shared/broker"
	"swarming/shared/version"
	"swarming/shared/wire"
)

// A Collector stores what agents publish and spreads the watch list.
type Collector struct {
	cfg       config.Config
	exporters []MakeExporter
	log       *slog.Logger
}

// New allocates a collector that exports to what exporters make. It opens
// nothing; Run does.
func New(cfg config.Config, exporters ...MakeExporter) *Collector {
	return &Collector{cfg: cfg, exporters: exporters, log: cfg.Log}
}

// parts are what a running collector consists of.
type parts struct {
	started time.Time
	journal *journal.Journal
	ingest  *ingest.Ingest
	watch   *watch.Keeper
	exports []Exporter
}

// Run collects until ctx ends; then it stores and acknowledges what is at hand
// and closes the journal. The error says what could not be opened: the journal,
// the address to listen on, or a file that settings name.
func (c *Collector) Run(ctx context.Context) (err error) {
	j, err := journal.Open(ctx, journal.Options{Dir: c.cfg.Data, Retention: c.cfg.Retention, MaxBytes: c.cfg.MaxBytes, Log: c.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	p, err := c.assemble(j)
	if err != nil {
		return err
	}
	listener, err := c.listen()
	if err != nil {
		return err
	}
	c.log.Info("collector starts", "name", c.cfg.Name, "version", version.String(), "brokers", len(c.cfg.Brokers), "data", c.cfg.Data)
	// The journal and HTTP outlive the rest, which stores and answers to the end.
	lasting, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	var keeping errgroup.Group
	keeping.Go(func() error { return j.Run(lasting) })
	if listener != nil {
		keeping.Go(func() error { return serve(lasting, listener, p) })
	}
	working, wctx := errgroup.WithContext(ctx)
	working.Go(func() error { return p.ingest.Run(wctx) })
	working.Go(func() error { return p.watch.Run(wctx) })
	for _, e := range p.exports {
		working.Go(func() error { return e.Run(wctx) })
	}
	err = working.Wait()
	finish()
	err = errors.Join(err, keeping.Wait())
	c.log.Info("collector stops", "stored", p.ingest.Stats().Stored)
	return err
}

// assemble makes the parts and connects them.
func (c *Collector) assemble(j *journal.Journal) (*parts, error) {
	p := &parts{started: time.Now(), journal: j}
	names := make([]string, len(c.cfg.Brokers))
	for i, a := range c.cfg.Brokers {
		names[i] = a.String()
	}
	publish := func(i int, payload []byte) {
		// A failure needs no report: what the broker shows tells.
		if err := p.ingest.PublishWatch(i, payload); err != nil {
			c.log.Debug("cannot publish watch list", "broker", names[i], "err", err)
		}
	}
	if c.cfg.Observe {
		publish = nil
	}
	p.watch = watch.New(watch.Options{File: c.cfg.WatchFile, Dir: c.cfg.Data, Name: c.cfg.Name, Brokers: names, Publish: publish,
		BuildTime: version.BuildTime(), Log: c.log})
	p.ingest = ingest.New(ingest.Options{
		Brokers: c.cfg.Brokers, TLS: c.cfg.TLS, Name: c.cfg.Name, Boot: wire.Boot(strings.ToLower(rand.Text()[:12])), Observe: c.cfg.Observe,
		Journal: j, Retention: c.cfg.Retention, BuildTime: version.BuildTime(), Rev: p.watch.Rev,
		OnWatch:      func(i int, m broker.Message) { p.watch.Message(i, m.Payload, m.Retained) },
		OnSubscribed: p.watch.Subscribed, OnLost: p.watch.Lost, Log: c.log,
	})
	for _, prepare := range c.exporters {
		e, err := prepare(c.cfg, j)
		if err != nil {
			return nil, fmt.Errorf("prepare export: %w", err)
		}
		if e != nil {
			p.exports = append(p.exports, e)
		}
	}
	return p, nil
}

// listen opens the address for HTTP, nil if there is none. Failing at once
// tells of a second collector on this machine, which would share the journal too.
func (c *Collector) listen() (net.Listener, error) {
	if c.cfg.Listen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", c.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another with --listen, or off", c.cfg.Listen, err)
	}
	return l, nil
}

// serve answers HTTP until ctx ends.
func serve(ctx context.Context, l net.Listener, p *parts) error {
	srv := &http.Server{Handler: p.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		stopped <- srv.Shutdown(stopping)
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	<-stopped // a client that hangs is cut off
	return nil
}

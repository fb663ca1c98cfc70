package brokertest

import (
	"fmt"
	"log/slog"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// An Embedded is an in-process broker, for unit tests and where nothing is
// installed. It is not mosquitto: queued QoS 1 messages come back in random
// order, and nothing survives a restart.
type Embedded struct {
	port int

	mu     sync.Mutex
	server *mqtt.Server // nil when stopped
}

// StartEmbedded starts a broker on loopback that lets everybody do everything.
// Of the options only Port is used.
func StartEmbedded(o Options) (*Embedded, error) {
	e := &Embedded{port: o.Port}
	if o.Port != 0 {
		if err := e.start(); err != nil {
			return nil, err
		}
		return e, nil
	}
	var err error
	for range 5 {
		if e.port, err = freePort(); err != nil {
			return nil, err
		}
		if err = e.start(); err == nil {
			return e, nil
		}
	}
	return nil, err
}

func (e *Embedded) start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	server := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		return fmt.Errorf("start embedded broker: %w", err)
	}
	if err := server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: loopback(e.port)})); err != nil {
		return fmt.Errorf("start embedded broker: %w", err)
	}
	if err := server.Serve(); err != nil { // returns once it serves
		_ = server.Close()
		return fmt.Errorf("start embedded broker: %w", err)
	}
	e.server = server
	return nil
}

// Addr returns "127.0.0.1:PORT".
func (e *Embedded) Addr() string { return loopback(e.port) }

// Port returns the port it listens on, the same over restarts.
func (e *Embedded) Port() int { return e.port }

// Stop closes every connection and the port. It may be started again.
func (e *Embedded) Stop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil {
		return nil
	}
	err := e.server.Close()
	e.server = nil
	if err != nil {
		return fmt.Errorf("stop embedded broker: %w", err)
	}
	return nil
}

// Restart stops it and starts an empty one on the same port.
func (e *Embedded) Restart() error {
	if err := e.Stop(); err != nil {
		return err
	}
	return e.start()
}

// Close stops it.
func (e *Embedded) Close() { _ = e.Stop() }

package service

import (
	"context"
	"fmt"
	"os"

	"github.com/kardianos/service"
)

func runUnderManager(name string, run func(ctx context.Context) error) error {
	if service.Interactive() {
		return runInForeground(name, run)
	}
	s, err := service.New(&managed{run: run}, &service.Config{Name: name})
	if err != nil {
		return fmt.Errorf("run as a service: %w", err)
	}
	return s.Run()
}

// managed is what the control manager starts and stops.
type managed struct {
	run      func(ctx context.Context) error
	cancel   context.CancelFunc
	finished chan error
}

// Start must return at once: the control manager waits for it.
func (m *managed) Start(service.Service) error {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.finished = make(chan error, 1)
	go func() {
		err := m.run(ctx)
		if ctx.Err() == nil {
			// Nobody asked it to end, and the library would not notice.
			os.Exit(1)
		}
		m.finished <- withoutCancel(ctx, err)
	}()
	return nil
}

// Stop waits for the goroutine that Start began.
func (m *managed) Stop(service.Service) error {
	m.cancel()
	return <-m.finished
}

//go:build unix

package brokertest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// freeze stops p and, where /proc shows it, waits until it has stopped.
func freeze(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("freeze mosquitto: %w", err)
	}
	for range 1000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
		if err != nil {
			return nil // no such /proc
		}
		if i := bytes.LastIndexByte(stat, ')'); i >= 0 && bytes.HasPrefix(stat[i:], []byte(") T")) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("freeze mosquitto: still running 1 s after SIGSTOP")
}

func thaw(p *os.Process) { _ = p.Signal(syscall.SIGCONT) }

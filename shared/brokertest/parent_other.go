//go:build !linux

package brokertest

import "syscall"

// attributes: nothing kills a child with its parent here; Close ends it.
func attributes(bool) *syscall.SysProcAttr { return nil }

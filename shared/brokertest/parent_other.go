//go:build !linux

package brokertest

import "syscall"

// dieWithParent: there is no such thing here; Close ends the child.
func dieWithParent() *syscall.SysProcAttr { return nil }

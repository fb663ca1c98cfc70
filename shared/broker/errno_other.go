//go:build !windows

package broker

import "syscall"

const (
	connRefused     = syscall.ECONNREFUSED
	connReset       = syscall.ECONNRESET
	netUnreachable  = syscall.ENETUNREACH
	hostUnreachable = syscall.EHOSTUNREACH
)

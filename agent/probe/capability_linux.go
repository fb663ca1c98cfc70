package probe

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"swarming/shared/wire"
)

const bestStamp = wire.StampKernel

// refusal explains why neither socket could be opened.
func refusal(family int, pingErr, rawErr error) error {
	if errors.Is(pingErr, unix.EAFNOSUPPORT) || errors.Is(rawErr, unix.EAFNOSUPPORT) {
		return &refusedError{msg: fmt.Sprintf("this system has no IPv%d", family), err: rawErr}
	}
	if isPermission(pingErr) || isPermission(rawErr) {
		return &refusedError{
			msg:  fmt.Sprintf("no permission to ping over IPv%d", family),
			hint: grant(),
			err:  fmt.Errorf("ping %w, raw %w", pingErr, rawErr),
		}
	}
	return &refusedError{msg: fmt.Sprintf("open socket to ping over IPv%d", family), err: fmt.Errorf("ping %w, raw %w", pingErr, rawErr)}
}

func isPermission(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }

// grant names the two commands either of which permits to ping: the first for
// every program of this network namespace, IPv6 too; the second for this one.
func grant() string {
	const everybody = `sudo sysctl -w net.ipv4.ping_group_range="0 2147483647"`
	program, err := os.Executable()
	if err != nil {
		return everybody
	}
	return everybody + " or sudo setcap cap_net_raw+ep " + program
}

// switchedOff returns an error when sockets can be had but IPv6 is switched
// off, so that no packet could leave.
func switchedOff(family int) error {
	const setting = "net.ipv6.conf.all.disable_ipv6"
	if family != 6 {
		return nil
	}
	// Without this file the kernel has no IPv6, and no socket either.
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	if err != nil || strings.TrimSpace(string(b)) != "1" || hasIPv6() {
		return nil
	}
	return &refusedError{msg: "IPv6 is switched off", err: fmt.Errorf("%s = 1", setting), hint: "sudo sysctl -w " + setting + "=0"}
}

// hasIPv6 reports whether an interface has an IPv6 address: the setting may
// have been changed back for one alone.
func hasIPv6() bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true // unknown: do not claim that it is off
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil {
			return true
		}
	}
	return false
}

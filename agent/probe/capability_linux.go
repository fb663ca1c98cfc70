package probe

import (
	"errors"
	"fmt"
	"os"

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

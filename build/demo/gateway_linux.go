package main

import (
	"bufio"
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// defaultGateway returns the IPv4 address of the default gateway.
func defaultGateway() (netip.Addr, bool) {
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return netip.Addr{}, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// Iface Destination Gateway Flags …, addresses in host byte order
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[1] != "00000000" {
			continue
		}
		n, err := strconv.ParseUint(fields[2], 16, 32)
		if err != nil || n == 0 {
			continue
		}
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], uint32(n))
		return netip.AddrFrom4(b), true
	}
	return netip.Addr{}, false
}

package probe

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"swarming/shared/wire"
)

// extended reads an entry of the error queue: what the ICMP error means, and
// who sent it. See struct sock_extended_err in ip(7).
func (c *codec) extended(control []byte) (cause wire.Cause, from netip.Addr, ok bool) {
	const size = int(unsafe.Sizeof(unix.SockExtendedErr{}))
	want := recvErr(c.family)
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return "", netip.Addr{}, false
		}
		control = rest
		if int(h.Level) != want.level || int(h.Type) != want.name || len(data) < size {
			continue
		}
		origin, typ, code := data[4], data[5], data[6]
		if origin != unix.SO_EE_ORIGIN_ICMP && origin != unix.SO_EE_ORIGIN_ICMP6 {
			return "", netip.Addr{}, false
		}
		cause, ok = causeOf(c.family, typ, code)
		return cause, offender(data[size:]), ok
	}
	return "", netip.Addr{}, false
}

// offender reads a struct sockaddr.
func offender(b []byte) netip.Addr {
	switch {
	case len(b) >= unix.SizeofSockaddrInet4 && binary.NativeEndian.Uint16(b) == unix.AF_INET:
		return netip.AddrFrom4([4]byte(b[4:8]))
	case len(b) >= unix.SizeofSockaddrInet6 && binary.NativeEndian.Uint16(b) == unix.AF_INET6:
		return netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	}
	return netip.Addr{}
}

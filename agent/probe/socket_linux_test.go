package probe

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"swarming/shared/wire"
)

// control returns one control message as the kernel writes it.
func control(level, typ int, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = int32(level), int32(typ)
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

func words(size int, values ...uint64) []byte {
	var b []byte
	for _, v := range values {
		if size == 4 {
			b = binary.NativeEndian.AppendUint32(b, uint32(v))
		} else {
			b = binary.NativeEndian.AppendUint64(b, v)
		}
	}
	return b
}

// The kernel's struct timespec has 8 bytes on 32-bit systems and 16 on others.
func TestKernelStamp(t *testing.T) {
	const want = 1_700_000_000*1e9 + 123_456_789
	other := control(unix.SOL_SOCKET, unix.SO_MARK, []byte{1, 2, 3, 4})
	for name, b := range map[string][]byte{
		"64-bit":       control(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, words(8, 1_700_000_000, 123_456_789)),
		"32-bit":       control(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, words(4, 1_700_000_000, 123_456_789)),
		"second of 2":  append(other, control(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, words(8, 1_700_000_000, 123_456_789))...),
		"after 2038":   nil,
		"none":         other,
		"odd size":     control(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, words(4, 1, 2, 3)),
		"half a head":  other[:5],
		"other option": control(unix.IPPROTO_IP, unix.SO_TIMESTAMPNS, words(8, 1, 2)),
	} {
		expected := int64(0)
		switch name {
		case "64-bit", "32-bit", "second of 2":
			expected = want
		case "after 2038":
			b, expected = control(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, words(4, 3_000_000_000, 1)), 3_000_000_000*1e9+1
		}
		if got := received(b); got != expected {
			t.Errorf("%s: got %d, want %d", name, got, expected)
		}
	}
}

// extendedError returns the control message of an error queue's entry.
func extendedError(family int, origin, typ, code byte, offender netip.Addr) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.EHOSTUNREACH))
	b = append(b, origin, typ, code, 0)
	b = append(b, make([]byte, 8)...)
	if offender.Is4() {
		b = binary.NativeEndian.AppendUint16(b, unix.AF_INET)
		b = append(append(append(b, 0, 0), offender.AsSlice()...), make([]byte, 8)...)
	} else {
		b = binary.NativeEndian.AppendUint16(b, unix.AF_INET6)
		b = append(append(append(b, 0, 0, 0, 0, 0, 0), offender.AsSlice()...), make([]byte, 4)...)
	}
	o := recvErr(family)
	return control(o.level, o.name, b)
}

func TestErrorQueueEntry(t *testing.T) {
	four, six := &codec{family: 4}, &codec{family: 6}
	for _, c := range []struct {
		name    string
		codec   *codec
		control []byte
		cause   wire.Cause
		from    netip.Addr
		ok      bool
	}{
		{"IPv4", four, extendedError(4, unix.SO_EE_ORIGIN_ICMP, 3, 13, addr("9.9.9.9")), wire.CauseProhibited, addr("9.9.9.9"), true},
		{"IPv6", six, extendedError(6, unix.SO_EE_ORIGIN_ICMP6, 3, 0, addr("2a00::9")), wire.CauseTTLExceeded, addr("2a00::9"), true},
		{"this machine's own", four, extendedError(4, unix.SO_EE_ORIGIN_LOCAL, 3, 1, addr("9.9.9.9")), "", netip.Addr{}, false},
		{"no error", four, extendedError(4, unix.SO_EE_ORIGIN_ICMP, 5, 0, addr("9.9.9.9")), "", addr("9.9.9.9"), false},
		{"the other family's option", four, extendedError(6, unix.SO_EE_ORIGIN_ICMP6, 1, 0, addr("2a00::9")), "", netip.Addr{}, false},
		{"cut", four, control(unix.IPPROTO_IP, unix.IP_RECVERR, make([]byte, 8)), "", netip.Addr{}, false},
		{"nothing", four, nil, "", netip.Addr{}, false},
	} {
		if cause, from, ok := c.codec.extended(c.control); cause != c.cause || from != c.from || ok != c.ok {
			t.Errorf("%s: got %q from %v, %v; want %q from %v, %v", c.name, cause, from, ok, c.cause, c.from, c.ok)
		}
	}
}

func FuzzControl(f *testing.F) {
	f.Add(control(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, words(8, 1, 2)))
	f.Add(extendedError(4, unix.SO_EE_ORIGIN_ICMP, 3, 13, addr("9.9.9.9")))
	f.Add(extendedError(6, unix.SO_EE_ORIGIN_ICMP6, 3, 0, addr("2a00::9")))
	f.Fuzz(func(t *testing.T, b []byte) {
		received(b)
		for _, family := range []int{4, 6} {
			if cause, _, ok := (&codec{family: family}).extended(b); ok && cause == "" {
				t.Errorf("%x: an error without a cause", b)
			}
		}
	})
}

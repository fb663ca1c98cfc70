package probe

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// The ranges and their sources: the IANA IPv4 and IPv6 Special-Purpose Address
// Registries (RFC 6890, as updated), the IPv6 address space registry and RFC 4291.
func TestRefusedRanges(t *testing.T) {
	p := NewPolicy(nil)
	p.addrs = func() ([]net.Addr, error) { return nil, nil }
	for _, c := range []struct {
		from, to string // the first and the last of the range
		source   string
	}{
		{"0.0.0.0", "0.255.255.255", "RFC 791"},
		{"10.0.0.0", "10.255.255.255", "RFC 1918"},
		{"100.64.0.0", "100.127.255.255", "RFC 6598"},
		{"127.0.0.0", "127.255.255.255", "RFC 1122"},
		{"169.254.0.0", "169.254.255.255", "RFC 3927"},
		{"172.16.0.0", "172.31.255.255", "RFC 1918"},
		{"192.0.0.0", "192.0.0.255", "RFC 6890"},
		{"192.0.2.0", "192.0.2.255", "RFC 5737"},
		{"192.88.99.0", "192.88.99.255", "RFC 7526"},
		{"192.168.0.0", "192.168.255.255", "RFC 1918"},
		{"198.18.0.0", "198.19.255.255", "RFC 2544"},
		{"198.51.100.0", "198.51.100.255", "RFC 5737"},
		{"203.0.113.0", "203.0.113.255", "RFC 5737"},
		{"224.0.0.0", "239.255.255.255", "RFC 5771"},
		{"240.0.0.0", "255.255.255.254", "RFC 1112"},
		{"255.255.255.255", "255.255.255.255", "RFC 919"},

		{"::", "::", "RFC 4291"},
		{"::1", "::1", "RFC 4291"},
		{"::2", "::ffff:ffff", "RFC 4291"}, // IPv4-compatible
		{"::ffff:0.0.0.0", "::ffff:255.255.255.255", "RFC 4291"},
		{"::ffff:8.8.8.8", "::ffff:8.8.8.8", "RFC 4291"}, // mapped, whatever it holds
		{"64:ff9b::", "64:ff9b::ffff:ffff", "RFC 6052"},
		{"64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "RFC 8215"},
		{"100::", "100::ffff:ffff:ffff:ffff", "RFC 6666"},
		{"100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", "RFC 9780"},
		{"2001::f5ff:fffe", "2001::f5ff:fffe", "RFC 4380"}, // Teredo of 10.0.0.1
		{"2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "RFC 5180"},
		{"2001:10::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4843"},
		{"2001:20::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 7343"},
		{"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 3849"},
		{"2002:a00:1::", "2002:aff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 3056"}, // 6to4 of 10/8
		{"2002:7f00:1::1", "2002:7f00:1::1", "RFC 3056"},
		{"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 9637"},
		{"5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 9602"},
		{"fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4193"},
		{"fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4291"},
		{"fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 3879"},
		{"ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4291"},
	} {
		for _, a := range []string{c.from, c.to} {
			err := p.Check(addr(a))
			if err == nil {
				t.Errorf("%s is allowed, want it refused by %s", a, c.source)
			} else if !strings.Contains(err.Error(), c.source) || !strings.Contains(err.Error(), "--allow-net "+addr(a).String()+"/") {
				t.Errorf("%s: %q does not name %s and the flag that allows it", a, err, c.source)
			}
		}
	}
	if err := p.Check(addr("fe80::1%eth0")); err == nil {
		t.Error("a link-local address with a zone is allowed")
	}
	if err := p.Check(netip.Addr{}); err == nil {
		t.Error("no address at all is allowed")
	}
}

// What borders on the refused ranges, and what looks like them, is allowed.
func TestPublicAddresses(t *testing.T) {
	p := NewPolicy(nil)
	p.addrs = func() ([]net.Addr, error) { return nil, nil }
	for _, a := range []string{
		"1.0.0.0", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
		"169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.88.98.255", "192.88.100.0",
		"192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255",
		"2001:4860:4860::8888", "2606:4700:4700::1111", "2001:db7:ffff::", "2001:db9::", "2002:808:808::1", "2001::f7f7:f7f7", // Teredo of 8.8.8.8
		"3ffe::", "3fff:1000::", "2001:30::", "64:ff9b:0:1::", "2a00::1",
	} {
		if err := p.Check(addr(a)); err != nil {
			t.Errorf("%s: %v, want it allowed", a, err)
		}
	}
}

func TestAllowNetOverrides(t *testing.T) {
	p := NewPolicy([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("9.9.9.9/32")})
	p.addrs = func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.IPv4(9, 9, 9, 9), Mask: net.CIDRMask(24, 32)}}, nil
	}
	for a, allowed := range map[string]bool{
		"127.0.0.1": true, "10.1.2.3": true, "10.2.0.0": false, "fd00:1::1": true, "fd00:2::1": false, "192.168.1.1": false,
		"9.9.9.9": true, "::ffff:10.1.2.3": false,
	} {
		if err := p.Check(addr(a)); (err == nil) != allowed {
			t.Errorf("%s: got %v, want allowed: %v", a, err, allowed)
		}
	}
}

func TestOwnAddresses(t *testing.T) {
	now := time.Unix(1e9, 0)
	asked := 0
	own := []net.Addr{&net.IPNet{IP: net.IPv4(8, 8, 4, 4), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("2a00::7"), Mask: net.CIDRMask(64, 128)}}
	var failure error
	p := NewPolicy(nil)
	p.now = func() time.Time { return now }
	p.addrs = func() ([]net.Addr, error) { asked++; return own, failure }
	check := func(a string, allowed bool) {
		t.Helper()
		if err := p.Check(addr(a)); (err == nil) != allowed {
			t.Errorf("%s: got %v, want allowed: %v", a, err, allowed)
		}
	}
	check("8.8.4.4", false)
	check("2a00::7", false)
	check("8.8.4.5", true)
	check("2a00::8", true)
	if asked != 1 {
		t.Errorf("the system was asked %d times within %v, want once", asked, ownRefresh)
	}
	own = []net.Addr{&net.IPNet{IP: net.IPv4(8, 8, 4, 5), Mask: net.CIDRMask(24, 32)}}
	now = now.Add(ownRefresh)
	check("8.8.4.4", true)
	check("8.8.4.5", false)
	failure = errors.New("made up")
	now = now.Add(ownRefresh)
	check("8.8.4.5", false) // the last known list stays
	failure = nil
	own = nil
	now = now.Add(-time.Hour) // the clock is set back
	check("8.8.4.5", true)
}

func TestOwnAddressesOfThisMachine(t *testing.T) {
	p := NewPolicy(nil)
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && !p.isOwn(ip.Unmap()) {
			t.Errorf("%v is not known as own", ip.Unmap())
		}
	}
}

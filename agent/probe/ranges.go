package probe

import "net/netip"

// A refusedNet is a range that no public host has an address in.
type refusedNet struct {
	prefix netip.Prefix
	what   string
	// embeds returns the IPv4 address that an address of this range stands
	// for; the range is refused only if that is. nil: refused as a whole.
	embeds func(netip.Addr) netip.Addr
}

// refusedNets4 and refusedNets6 follow the IANA special-purpose address
// registries (RFC 6890 and its updates), multicast (RFC 5771, RFC 4291) and
// what RFC 4291 section 4 leaves unassigned as far as it has been in use.
var (
	refusedNets4 = []refusedNet{
		whole("0.0.0.0/8", "this network, RFC 791"),
		whole("10.0.0.0/8", "private, RFC 1918"),
		whole("100.64.0.0/10", "carrier-grade NAT, RFC 6598"),
		whole("127.0.0.0/8", "loopback, RFC 1122"),
		whole("169.254.0.0/16", "link-local, RFC 3927"),
		whole("172.16.0.0/12", "private, RFC 1918"),
		whole("192.0.0.0/24", "IETF protocol assignments, RFC 6890"),
		whole("192.0.2.0/24", "documentation, RFC 5737"),
		whole("192.88.99.0/24", "6to4 relay anycast, RFC 7526"),
		whole("192.168.0.0/16", "private, RFC 1918"),
		whole("198.18.0.0/15", "benchmarking, RFC 2544"),
		whole("198.51.100.0/24", "documentation, RFC 5737"),
		whole("203.0.113.0/24", "documentation, RFC 5737"),
		whole("224.0.0.0/4", "multicast, RFC 5771"),
		whole("255.255.255.255/32", "broadcast, RFC 919"),
		whole("240.0.0.0/4", "reserved, RFC 1112"),
	}
	refusedNets6 = []refusedNet{
		whole("::/128", "unspecified, RFC 4291"),
		whole("::1/128", "loopback, RFC 4291"),
		whole("::ffff:0:0/96", "IPv4-mapped, RFC 4291"),
		whole("::/96", "IPv4-compatible, RFC 4291"),
		whole("64:ff9b:1::/48", "local NAT64, RFC 8215"),
		// A NAT64 prefix makes all of IPv4 look like one /64, which is what
		// politeness counts by.
		whole("64:ff9b::/96", "NAT64, RFC 6052"),
		whole("100::/64", "discard-only, RFC 6666"),
		whole("100:0:0:1::/64", "dummy prefix, RFC 9780"),
		{netip.MustParsePrefix("2001::/32"), "Teredo of a refused address, RFC 4380", embedTeredo},
		whole("2001:2::/48", "benchmarking, RFC 5180"),
		whole("2001:db8::/32", "documentation, RFC 3849"),
		whole("2001:10::/28", "ORCHID, RFC 4843"),
		whole("2001:20::/28", "ORCHIDv2, RFC 7343"),
		{netip.MustParsePrefix("2002::/16"), "6to4 of a refused address, RFC 3056", embed6to4},
		whole("3fff::/20", "documentation, RFC 9637"),
		whole("5f00::/16", "segment routing, RFC 9602"),
		whole("fc00::/7", "unique local, RFC 4193"),
		whole("fe80::/10", "link-local, RFC 4291"),
		whole("fec0::/10", "site-local, RFC 3879"),
		whole("ff00::/8", "multicast, RFC 4291"),
	}
)

func whole(prefix, what string) refusedNet {
	return refusedNet{prefix: netip.MustParsePrefix(prefix), what: what}
}

// refusedRange returns the range that refuses a, if one does. Where ranges
// overlap the first in the table is named.
func refusedRange(a netip.Addr) (refusedNet, bool) {
	nets := refusedNets6
	if a.Is4() {
		nets = refusedNets4
	}
	for _, n := range nets {
		if !n.prefix.Contains(a) {
			continue
		}
		if n.embeds == nil {
			return n, true
		}
		if _, refused := refusedRange(n.embeds(a)); refused {
			return n, true
		}
	}
	return refusedNet{}, false
}

func embed6to4(a netip.Addr) netip.Addr { return embedded(a, 2, 0) }

// embedTeredo returns the client's address, which is kept inverted.
func embedTeredo(a netip.Addr) netip.Addr { return embedded(a, 12, 0xff) }

func embedded(a netip.Addr, at int, mask byte) netip.Addr {
	b := a.As16()
	v4 := [4]byte(b[at : at+4])
	for i := range v4 {
		v4[i] ^= mask
	}
	return netip.AddrFrom4(v4)
}

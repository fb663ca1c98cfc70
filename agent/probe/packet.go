package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"swarming/shared/wire"
)

const (
	protoICMP   = 1  // IANA protocol numbers, what x/net/icmp calls proto
	protoICMPv6 = 58 // the same for IPv6

	// payloadHello opens every echo request, so that whoever sees one in a
	// packet capture knows what sent it.
	payloadHello = "swarming"
	payloadLen   = len(payloadHello) + cookieLen + 4

	cookieLen = 8
)

// A cookie tells an engine's packets from those of every other program, also
// from those of another engine in the same process.
type cookie [cookieLen]byte

// A codec writes and reads the ICMP messages of one socket. It holds a buffer
// for writing: one sender at a time, while any number may read.
type codec struct {
	family int // 4 or 6
	cookie cookie
	// id is the echo identifier; 0 on a ping socket, where the kernel writes
	// its own and passes on only what carries it.
	id uint16

	payload [payloadLen]byte
}

// An echo names one echo request.
type echo struct {
	seq uint16
	n   uint32 // counts an engine's packets: tells those apart that share a seq
	// whole is false when only the header of the request was quoted, as a
	// router may in an ICMP error (RFC 792 asks for 8 bytes): then n is unknown.
	whole bool
}

func (c *codec) proto() int {
	if c.family == 6 {
		return protoICMPv6
	}
	return protoICMP
}

// request returns the echo request. The kernel computes the checksum where the
// socket's kind leaves it to it.
func (c *codec) request(seq uint16, n uint32) ([]byte, error) {
	copy(c.payload[:], payloadHello)
	copy(c.payload[len(payloadHello):], c.cookie[:])
	binary.BigEndian.PutUint32(c.payload[payloadLen-4:], n)
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(c.id), Seq: int(seq), Data: c.payload[:]}}
	if c.family == 6 {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil)
	if err != nil {
		return nil, fmt.Errorf("encode echo request: %w", err)
	}
	return b, nil
}

// reply reads an ICMP message that may be the reply to one of our requests.
func (c *codec) reply(b []byte) (echo, bool) {
	// Raw sockets see replies to every program's requests: refuse those cheaply.
	if len(b) < 8+payloadLen || !c.isReply(b[0]) {
		return echo{}, false
	}
	e, ok := c.ours(b)
	return e, ok && e.whole
}

func (c *codec) isReply(typ byte) bool {
	if c.family == 6 {
		return typ == byte(ipv6.ICMPTypeEchoReply)
	}
	return typ == byte(ipv4.ICMPTypeEchoReply)
}

// ours reads identity and payload of an echo request or reply.
func (c *codec) ours(b []byte) (echo, bool) {
	m, err := icmp.ParseMessage(c.proto(), b)
	if err != nil {
		return echo{}, false
	}
	body, ok := m.Body.(*icmp.Echo)
	if !ok || c.id != 0 && body.ID != int(c.id) {
		return echo{}, false
	}
	e := echo{seq: uint16(body.Seq)}
	if len(body.Data) < payloadLen {
		return e, bytes.HasPrefix([]byte(payloadHello), body.Data[:min(len(body.Data), len(payloadHello))])
	}
	data := body.Data[:payloadLen]
	if !bytes.HasPrefix(data, []byte(payloadHello)) || !bytes.Equal(data[len(payloadHello):payloadLen-4], c.cookie[:]) {
		return echo{}, false
	}
	e.n, e.whole = binary.BigEndian.Uint32(data[payloadLen-4:]), true
	return e, true
}

// quoted reads our request as an ICMP error quotes it, from its ICMP header on.
func (c *codec) quoted(b []byte) (echo, bool) {
	if len(b) < 8 || c.isReply(b[0]) {
		return echo{}, false
	}
	return c.ours(b)
}

// failure reads a whole ICMP message that may be an error about one of our
// requests. dst is where the request went.
func (c *codec) failure(b []byte) (e echo, dst netip.Addr, cause wire.Cause, ok bool) {
	if len(b) < 8 {
		return echo{}, netip.Addr{}, "", false
	}
	if cause, ok = causeOf(c.family, b[0], b[1]); !ok {
		return echo{}, netip.Addr{}, "", false
	}
	m, err := icmp.ParseMessage(c.proto(), b)
	if err != nil {
		return echo{}, netip.Addr{}, "", false
	}
	var datagram []byte
	switch body := m.Body.(type) {
	case *icmp.DstUnreach:
		datagram = body.Data
	case *icmp.TimeExceeded:
		datagram = body.Data
	case *icmp.PacketTooBig:
		datagram = body.Data
	case *icmp.ParamProb:
		datagram = body.Data
	}
	request, dst, ok := c.unwrap(datagram)
	if !ok {
		return echo{}, netip.Addr{}, "", false
	}
	e, ok = c.quoted(request)
	return e, dst, cause, ok
}

// unwrap returns what follows the IP header of a quoted datagram, and where
// the datagram went. Ours have no IPv6 extension headers.
func (c *codec) unwrap(b []byte) (payload []byte, dst netip.Addr, ok bool) {
	if c.family == 6 {
		if len(b) < ipv6.HeaderLen || b[0]>>4 != 6 || b[6] != protoICMPv6 {
			return nil, netip.Addr{}, false
		}
		return b[ipv6.HeaderLen:], netip.AddrFrom16([16]byte(b[24:40])), true
	}
	payload, ok = stripIPv4(b)
	if !ok || b[9] != protoICMP {
		return nil, netip.Addr{}, false
	}
	return payload, netip.AddrFrom4([4]byte(b[16:20])), true
}

// stripIPv4 returns what follows the IPv4 header of b.
func stripIPv4(b []byte) ([]byte, bool) {
	if len(b) < ipv4.HeaderLen || b[0]>>4 != 4 {
		return nil, false
	}
	n := int(b[0]&0x0f) << 2
	if n < ipv4.HeaderLen || n > len(b) {
		return nil, false
	}
	return b[n:], true
}

// causeOf says what an ICMP message of this type and code means for the
// request it is about; ok is false when it is no error.
//
// IPv4: RFC 792, RFC 1812 section 5.2.7.1 (codes 9, 10, 13). IPv6: RFC 4443
// section 3.1 (code 1; 5 and 6 are "more informative subsets" of it).
func causeOf(family int, typ, code byte) (cause wire.Cause, ok bool) {
	if family == 6 {
		switch ipv6.ICMPType(typ) {
		case ipv6.ICMPTypeDestinationUnreachable:
			if code == 1 || code == 5 || code == 6 {
				return wire.CauseProhibited, true
			}
			return wire.CauseUnreachable, true
		case ipv6.ICMPTypeTimeExceeded:
			return wire.CauseTTLExceeded, true
		case ipv6.ICMPTypePacketTooBig, ipv6.ICMPTypeParameterProblem:
			return wire.CauseUnreachable, true
		}
		return "", false
	}
	switch ipv4.ICMPType(typ) {
	case ipv4.ICMPTypeDestinationUnreachable:
		if code == 9 || code == 10 || code == 13 {
			return wire.CauseProhibited, true
		}
		return wire.CauseUnreachable, true
	case ipv4.ICMPTypeTimeExceeded:
		return wire.CauseTTLExceeded, true
	case ipv4.ICMPTypeParameterProblem:
		return wire.CauseUnreachable, true
	}
	return "", false
}

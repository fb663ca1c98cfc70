package probe

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"swarming/shared/wire"
)

var testCookie = cookie{1, 2, 3, 4, 5, 6, 7, 8}

func request(t testing.TB, c *codec, seq uint16, n uint32) []byte {
	t.Helper()
	b, err := c.request(seq, n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes on the wire, once, so that no change of them goes unnoticed.
func TestRequestBytes(t *testing.T) {
	for _, c := range []struct {
		codec codec
		want  string
	}{
		{codec{family: 4, id: 0x1234, cookie: testCookie}, "0800cd601234abcd" + "737761726d696e67" + "0102030405060708" + "0001abcd"},
		{codec{family: 6, id: 0x1234, cookie: testCookie}, "800000001234abcd" + "737761726d696e67" + "0102030405060708" + "0001abcd"},
	} {
		if got := hex.EncodeToString(request(t, &c.codec, 0xabcd, 0x1abcd)); got != c.want {
			t.Errorf("IPv%d: got %s, want %s", c.codec.family, got, c.want)
		}
	}
}

// replyTo turns a request into its reply.
func replyTo(family int, b []byte) []byte {
	b = append([]byte(nil), b...)
	b[0] = byte(ipv4.ICMPTypeEchoReply)
	if family == 6 {
		b[0] = byte(ipv6.ICMPTypeEchoReply)
	}
	return b
}

func TestReplies(t *testing.T) {
	for _, family := range []int{4, 6} {
		for _, id := range []uint16{0, 77} {
			c := &codec{family: family, id: id, cookie: testCookie}
			good := replyTo(family, request(t, c, 9, 9))
			if e, ok := c.reply(good); !ok || e != (echo{9, 9, true}) {
				t.Errorf("got %+v, %v", e, ok)
			}
			if e, ok := c.reply(append(good, 0, 0)); !ok || e.n != 9 {
				t.Errorf("with padding: got %+v, %v", e, ok)
			}
			for name, edit := range map[string]func([]byte) []byte{
				"a request":        func(b []byte) []byte { b[0] = request(t, c, 9, 9)[0]; return b },
				"another greeting": func(b []byte) []byte { b[8]++; return b },
				"another cookie":   func(b []byte) []byte { b[16]++; return b },
				"cut":              func(b []byte) []byte { return b[:len(b)-1] },
				"nothing":          func(b []byte) []byte { return nil },
				"another id":       func(b []byte) []byte { b[5]++; return b },
			} {
				if name == "another id" && id == 0 {
					continue // the kernel chose it
				}
				if e, ok := c.reply(edit(append([]byte(nil), good...))); ok {
					t.Errorf("IPv%d, %s: taken as %+v", family, name, e)
				}
			}
		}
	}
}

// icmpError returns an ICMP error that quotes n bytes of a request to dst,
// 0 being all.
func icmpError(t testing.TB, c *codec, typ icmp.Type, code int, dst netip.Addr, n int) []byte {
	t.Helper()
	quote := request(t, c, 9, 70009)
	if n > 0 {
		quote = quote[:n]
	}
	var header []byte
	if c.family == 6 {
		header = make([]byte, ipv6.HeaderLen)
		header[0], header[6] = 6<<4, protoICMPv6
		copy(header[24:], dst.AsSlice())
	} else {
		h := ipv4.Header{Version: 4, Len: 24, TotalLen: 24 + len(quote), TTL: 1, Protocol: protoICMP, Src: []byte{10, 0, 0, 1}, Dst: dst.AsSlice(), Options: []byte{1, 1, 1, 1}}
		var err error
		if header, err = h.Marshal(); err != nil {
			t.Fatal(err)
		}
	}
	datagram := append(header, quote...)
	m := icmp.Message{Type: typ, Code: code, Body: &icmp.DstUnreach{Data: datagram}}
	switch typ {
	case ipv4.ICMPTypeTimeExceeded, ipv6.ICMPTypeTimeExceeded:
		m.Body = &icmp.TimeExceeded{Data: datagram}
	case ipv6.ICMPTypePacketTooBig:
		m.Body = &icmp.PacketTooBig{MTU: 1280, Data: datagram}
	case ipv4.ICMPTypeParameterProblem, ipv6.ICMPTypeParameterProblem:
		m.Body = &icmp.ParamProb{Data: datagram}
	}
	b, err := m.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		family int
		typ    icmp.Type
		code   int
		want   wire.Cause
	}{
		{4, ipv4.ICMPTypeDestinationUnreachable, 0, wire.CauseUnreachable},
		{4, ipv4.ICMPTypeDestinationUnreachable, 1, wire.CauseUnreachable},
		{4, ipv4.ICMPTypeDestinationUnreachable, 3, wire.CauseUnreachable},
		{4, ipv4.ICMPTypeDestinationUnreachable, 9, wire.CauseProhibited},
		{4, ipv4.ICMPTypeDestinationUnreachable, 10, wire.CauseProhibited},
		{4, ipv4.ICMPTypeDestinationUnreachable, 13, wire.CauseProhibited},
		{4, ipv4.ICMPTypeTimeExceeded, 0, wire.CauseTTLExceeded},
		{4, ipv4.ICMPTypeParameterProblem, 0, wire.CauseUnreachable},
		{6, ipv6.ICMPTypeDestinationUnreachable, 0, wire.CauseUnreachable},
		{6, ipv6.ICMPTypeDestinationUnreachable, 1, wire.CauseProhibited},
		{6, ipv6.ICMPTypeDestinationUnreachable, 3, wire.CauseUnreachable},
		{6, ipv6.ICMPTypeDestinationUnreachable, 5, wire.CauseProhibited},
		{6, ipv6.ICMPTypeDestinationUnreachable, 6, wire.CauseProhibited},
		{6, ipv6.ICMPTypeTimeExceeded, 0, wire.CauseTTLExceeded},
		{6, ipv6.ICMPTypePacketTooBig, 0, wire.CauseUnreachable},
		{6, ipv6.ICMPTypeParameterProblem, 0, wire.CauseUnreachable},
	} {
		codec := &codec{family: c.family, id: 77, cookie: testCookie}
		dst := addr("8.8.8.8")
		if c.family == 6 {
			dst = addr("2a00::1")
		}
		for quoted, want := range map[int]echo{0: {9, 70009, true}, 8: {seq: 9}, 12: {seq: 9}, 20: {seq: 9}} {
			e, to, cause, ok := codec.failure(icmpError(t, codec, c.typ, c.code, dst, quoted))
			if !ok || e != want || to != dst || cause != c.want {
				t.Errorf("%v code %d, %d bytes quoted: got %+v to %v, %q, %v, want %+v, %q", c.typ, c.code, quoted, e, to, cause, ok, want, c.want)
			}
		}
		other := *codec
		other.id++
		if _, _, _, ok := codec.failure(icmpError(t, &other, c.typ, c.code, dst, 8)); ok {
			t.Errorf("%v: an error about another program's request was taken", c.typ)
		}
		other = *codec
		other.cookie[3]++
		if _, _, _, ok := codec.failure(icmpError(t, &other, c.typ, c.code, dst, 0)); ok {
			t.Errorf("%v: an error about another engine's request was taken", c.typ)
		}
	}
	for _, family := range []int{4, 6} {
		c := &codec{family: family, id: 77, cookie: testCookie}
		if _, _, _, ok := c.failure(request(t, c, 9, 9)); ok {
			t.Errorf("IPv%d: a request was taken for an error", family)
		}
	}
	if _, ok := causeOf(4, byte(ipv4.ICMPTypeRedirect), 0); ok {
		t.Error("a redirect was taken for an error")
	}
}

// What strangers send is read, refused or taken, and never panics.
func FuzzMessage(f *testing.F) {
	for _, family := range []int{4, 6} {
		c := &codec{family: family, id: 77, cookie: testCookie}
		f.Add(family == 6, replyTo(family, request(f, c, 9, 9)))
		if family == 4 {
			f.Add(false, icmpError(f, c, ipv4.ICMPTypeTimeExceeded, 0, addr("8.8.8.8"), 0))
			f.Add(false, icmpError(f, c, ipv4.ICMPTypeDestinationUnreachable, 13, addr("8.8.8.8"), 8))
		} else {
			f.Add(true, icmpError(f, c, ipv6.ICMPTypePacketTooBig, 0, addr("2a00::1"), 0))
		}
	}
	f.Fuzz(func(t *testing.T, six bool, b []byte) {
		c := &codec{family: 4, id: 77, cookie: testCookie}
		if six {
			c.family = 6
		}
		before := string(b)
		if e, ok := c.reply(b); ok && (!e.whole || !strings.Contains(before, string(testCookie[:]))) {
			t.Errorf("%x was taken for a reply without our cookie", b)
		}
		if _, to, cause, ok := c.failure(b); ok && (cause == "" || to.Is4() == six) {
			t.Errorf("%x: cause %q, to %v", b, cause, to)
		}
		c.quoted(b)
		stripIPv4(b)
		if string(b) != before {
			t.Errorf("reading changed %x to %x", before, b)
		}
	})
}

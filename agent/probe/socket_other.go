//go:build !linux

package probe

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/net/icmp"

	"swarming/shared/wire"
)

const (
	bestStamp  = wire.StampUser
	readBuffer = 2048 // longer messages are cut, and are not ours

	// fruitlessReads in a row mean that the socket is of no more use.
	fruitlessReads = 64
	// sendPatience bounds a send to a full buffer.
	sendPatience = 10 * time.Millisecond
)

// listen opens an unprivileged socket where x/net/icmp has one (macOS), or else
// a raw one.
func listen(c *codec, clock func() instant) (socket, mode, error) {
	c.id = uint16(1 + rand.IntN(1<<16-1))
	udp, ip, any := "udp4", "ip4:icmp", "0.0.0.0"
	if c.family == 6 {
		udp, ip, any = "udp6", "ip6:ipv6-icmp", "::"
	}
	if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
		if conn, err := icmp.ListenPacket(udp, any); err == nil {
			return &packetSocket{codec: c, clock: clock, conn: conn, udp: true}, modePing, nil
		}
	}
	conn, err := icmp.ListenPacket(ip, any)
	if err != nil {
		return nil, modeNone, refusal(c.family, err)
	}
	return &packetSocket{codec: c, clock: clock, conn: conn}, modeRaw, nil
}

func refusal(family int, err error) error {
	msg, hint := fmt.Sprintf("open socket to ping over IPv%d", family), ""
	if errors.Is(err, os.ErrPermission) {
		msg = fmt.Sprintf("no permission to ping over IPv%d", family)
		hint = "run it as administrator (root)"
	}
	return &refusedError{msg: msg, hint: hint, err: err}
}

// switchedOff would tell that a family is; only Linux is asked.
func switchedOff(int) error { return nil }

// A packetSocket is what x/net/icmp offers on every system. It has no kernel
// timestamps and no error queue; ICMP errors are read where the system passes
// them on.
type packetSocket struct {
	codec *codec
	clock func() instant
	conn  *icmp.PacketConn
	udp   bool
}

func (s *packetSocket) close() error { return s.conn.Close() }

func (s *packetSocket) drain(func(event)) int { return 0 }

func (s *packetSocket) send(msg []byte, to netip.Addr) error {
	var dst net.Addr = &net.IPAddr{IP: to.AsSlice()}
	if s.udp {
		dst = &net.UDPAddr{IP: to.AsSlice()}
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(sendPatience)); err != nil {
		return err
	}
	_, err := s.conn.WriteTo(msg, dst)
	return err
}

func (s *packetSocket) read(emit func(event)) error {
	buf := make([]byte, readBuffer)
	for fruitless := 0; ; {
		n, from, err := s.conn.ReadFrom(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			if fruitless++; fruitless > fruitlessReads {
				return fmt.Errorf("read: %w", err)
			}
			continue
		}
		fruitless = 0
		ev := event{at: s.clock(), from: addrOf(from)}
		var ok bool
		if ev.echo, ok = s.codec.reply(buf[:n]); !ok {
			ev.echo, ev.to, ev.cause, ok = s.codec.failure(buf[:n])
		}
		if ok {
			emit(ev)
		}
	}
}

func addrOf(a net.Addr) netip.Addr {
	var ip net.IP
	switch a := a.(type) {
	case *net.UDPAddr:
		ip = a.IP
	case *net.IPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

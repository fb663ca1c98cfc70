package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer holds some 1500 replies; the default holds 256 and then
	// loses them silently (measured). The system may grant less.
	receiveBuffer = 1 << 20

	readBuffer    = 2048 // longer messages are cut, and are not ours
	controlBuffer = 512

	// fruitlessReads in a row that fail without an ICMP error to show for it
	// mean that the socket is of no more use.
	fruitlessReads = 64
)

// listen opens a ping socket, or else a raw one.
func listen(c *codec, clock func() instant) (socket, mode, error) {
	s, pingErr := listenPing(c, clock)
	if pingErr == nil {
		return s, modePing, nil
	}
	r, rawErr := listenRaw(c, clock)
	if rawErr == nil {
		return r, modeRaw, nil
	}
	return nil, modeNone, refusal(c.family, pingErr, rawErr)
}

func listenPing(c *codec, clock func() instant) (socket, error) {
	f, err := openFile(c, unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	if err := setInt(f, recvErr(c.family)); err != nil {
		f.Close()
		return nil, err
	}
	pc, err := packetConn(f)
	if err != nil {
		return nil, err
	}
	c.id = 0
	s := &pingSocket{conn: pc.(*net.UDPConn)}
	return s, s.init(pc.(*net.UDPConn), c, clock)
}

func listenRaw(c *codec, clock func() instant) (socket, error) {
	f, err := openFile(c, unix.SOCK_RAW)
	if err != nil {
		return nil, err
	}
	pc, err := packetConn(f)
	if err != nil {
		return nil, err
	}
	if err := filter(pc, c.family); err != nil {
		pc.Close()
		return nil, fmt.Errorf("filter ICMP: %w", err)
	}
	c.id = uint16(1 + rand.IntN(1<<16-1))
	s := &rawSocket{conn: pc.(*net.IPConn)}
	return s, s.init(pc.(*net.IPConn), c, clock)
}

// openFile makes a socket. icmp.ListenPacket would not let us set its options.
func openFile(c *codec, kind int) (*os.File, error) {
	domain := unix.AF_INET
	if c.family == 6 {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, c.proto())
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// Both are wishes: without the first, replies are timed by this program
	// (qemu-user does not know it); the second is capped by net.core.rmem_max.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	return os.NewFile(uintptr(fd), "icmp"), nil
}

// packetConn hands the socket to Go's poller, and closes f.
func packetConn(f *os.File) (net.PacketConn, error) {
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("wrap socket: %w", err)
	}
	return pc, nil
}

type option struct {
	level, name int
	what        string
}

func recvErr(family int) option {
	if family == 6 {
		return option{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, "IPV6_RECVERR"}
	}
	return option{unix.IPPROTO_IP, unix.IP_RECVERR, "IP_RECVERR"}
}

func setInt(f *os.File, o option) error {
	if err := unix.SetsockoptInt(int(f.Fd()), o.level, o.name, 1); err != nil {
		return os.NewSyscallError("setsockopt "+o.what, err)
	}
	return nil
}

// filter lets through only what concerns a sender of echo requests: a raw
// socket sees all ICMP of the machine.
func filter(pc net.PacketConn, family int) error {
	if family == 6 {
		var f ipv6.ICMPFilter
		f.SetAll(true)
		f.Accept(ipv6.ICMPTypeEchoReply)
		f.Accept(ipv6.ICMPTypeDestinationUnreachable)
		f.Accept(ipv6.ICMPTypePacketTooBig)
		f.Accept(ipv6.ICMPTypeTimeExceeded)
		f.Accept(ipv6.ICMPTypeParameterProblem)
		return ipv6.NewPacketConn(pc).SetICMPFilter(&f)
	}
	var f ipv4.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv4.ICMPTypeEchoReply)
	f.Accept(ipv4.ICMPTypeDestinationUnreachable)
	f.Accept(ipv4.ICMPTypeTimeExceeded)
	f.Accept(ipv4.ICMPTypeParameterProblem)
	return ipv4.NewPacketConn(pc).SetICMPFilter(&f)
}

// A sender is what both kinds of socket have in common.
type sender struct {
	codec *codec
	clock func() instant
	raw   syscall.RawConn

	// One request at a time; kept here so that sending allocates nothing.
	write func(fd uintptr) bool
	msg   []byte
	err   error
	sa    unix.Sockaddr
	sa4   unix.SockaddrInet4
	sa6   unix.SockaddrInet6
}

func (s *sender) init(conn syscall.Conn, c *codec, clock func() instant) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("wrap socket: %w", err)
	}
	s.codec, s.clock, s.raw = c, clock, raw
	s.write = func(fd uintptr) bool {
		s.err = unix.Sendto(int(fd), s.msg, unix.MSG_DONTWAIT, s.sa)
		return true // also when the buffer is full: never wait
	}
	return nil
}

func (s *sender) send(msg []byte, to netip.Addr) error {
	if to.Is4() {
		s.sa4.Addr = to.As4()
		s.sa = &s.sa4
	} else {
		s.sa6.Addr = to.As16()
		s.sa = &s.sa6
	}
	s.msg = msg
	if err := s.raw.Write(s.write); err != nil {
		return err
	}
	return s.err
}

// A pingSocket is Linux's unprivileged ICMP socket: the kernel chooses the echo
// identifier and passes on only the replies to it, and keeps ICMP errors about
// its requests in an error queue (IP_RECVERR, see ip(7)).
type pingSocket struct {
	sender
	conn *net.UDPConn
}

func (s *pingSocket) close() error { return s.conn.Close() }

func (s *pingSocket) read(emit func(event)) error {
	buf, control := make([]byte, readBuffer), make([]byte, controlBuffer)
	for fruitless := 0; ; {
		n, cn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, control)
		switch {
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // usually a pending ICMP error
			if fruitless++; s.drain(emit) > 0 {
				fruitless = 0
			}
			if fruitless > fruitlessReads {
				return fmt.Errorf("read: %w", err)
			}
			continue
		}
		fruitless = 0
		at := s.clock()
		if e, ok := s.codec.reply(buf[:n]); ok {
			emit(event{echo: e, from: from.Addr().Unmap().WithZone(""), at: at, kernel: received(control[:cn])})
		}
	}
}

func (s *pingSocket) drain(emit func(event)) int {
	buf, control := make([]byte, readBuffer), make([]byte, controlBuffer)
	total := 0
	for {
		var n, cn int
		var to unix.Sockaddr
		var err error
		cerr := s.raw.Control(func(fd uintptr) {
			n, cn, _, to, err = unix.Recvmsg(int(fd), buf, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		})
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if cerr != nil || err != nil {
			return total
		}
		total++
		ev := event{at: s.clock(), to: addrOf(to)}
		var ok bool
		if ev.cause, ev.from, ok = s.codec.extended(control[:cn]); !ok {
			continue
		}
		if ev.echo, ok = s.codec.quoted(buf[:n]); ok {
			emit(ev)
		}
	}
}

func addrOf(sa unix.Sockaddr) netip.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr)
	}
	return netip.Addr{}
}

// A rawSocket sees all echo replies and ICMP errors of the machine, filtered by type.
type rawSocket struct {
	sender
	conn *net.IPConn
}

func (s *rawSocket) close() error { return s.conn.Close() }

// drain has nothing to do: without IP_RECVERR no error stays pending.
func (s *rawSocket) drain(func(event)) int { return 0 }

func (s *rawSocket) read(emit func(event)) error {
	buf, control := make([]byte, readBuffer), make([]byte, controlBuffer)
	for fruitless := 0; ; {
		n, cn, _, from, err := s.conn.ReadMsgIP(buf, control)
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
		ev := event{at: s.clock()}
		if a, ok := netip.AddrFromSlice(from.IP); ok {
			ev.from = a.Unmap()
		}
		if s.parse(buf[:n], &ev) {
			ev.kernel = received(control[:cn])
			emit(ev)
		}
	}
}

// parse reads a message as a raw socket delivers it: IPv4 with its header,
// IPv6 without.
func (s *rawSocket) parse(b []byte, ev *event) (ok bool) {
	if s.codec.family == 4 {
		if b, ok = stripIPv4(b); !ok {
			return false
		}
	}
	if ev.echo, ok = s.codec.reply(b); ok {
		return true
	}
	ev.echo, ev.to, ev.cause, ok = s.codec.failure(b)
	return ok
}

// received returns the kernel's receive timestamp in ns since 1970, or 0.
func received(control []byte) int64 {
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS {
			return timespec(data)
		}
		control = rest
	}
	return 0
}

// timespec reads the kernel's old struct timespec, whose two fields are 4 bytes
// each on 32-bit systems and 8 on 64-bit ones. The seconds of the short form
// are read as unsigned: they last until 2106.
func timespec(b []byte) int64 {
	switch len(b) {
	case 8:
		return int64(binary.NativeEndian.Uint32(b))*1e9 + int64(binary.NativeEndian.Uint32(b[4:]))
	case 16:
		return int64(binary.NativeEndian.Uint64(b))*1e9 + int64(binary.NativeEndian.Uint64(b[8:]))
	}
	return 0
}

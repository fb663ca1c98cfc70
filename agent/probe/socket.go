package probe

import (
	"net/netip"
	"time"

	"swarming/shared/wire"
)

// A socket sends echo requests over one family of addresses and reads what
// comes back. send, drain and close are called with the engine's lock held, read
// by the socket's reader, which may call drain as well.
type socket interface {
	// send writes one ICMP message. It never blocks: a full buffer is an error.
	send(msg []byte, to netip.Addr) error
	// drain reads the ICMP errors that wait and reports how many. A pending
	// one makes the next send fail, whatever its destination.
	drain(emit func(event)) int
	// read waits for messages and emits what concerns this engine until the
	// socket is closed or of no more use, and says why.
	read(emit func(event)) error
	close() error
}

// A listener opens the best socket this machine allows for codec.family, and
// sets codec.id if the socket needs one.
type listener func(c *codec, clock func() instant) (socket, mode, error)

// A mode says what kind of socket it is.
type mode string

const (
	modePing mode = "ping socket"
	modeRaw  mode = "raw socket"
	modeNone mode = "none"
)

// An event is what a socket read about one echo request.
type event struct {
	echo  echo
	from  netip.Addr // who sent the reply or the ICMP error
	to    netip.Addr // of an ICMP error: where the request went
	cause wire.Cause // of an ICMP error; "" is a reply
	at    instant    // when this program read it
	// kernel is when the kernel received it, in ns of wall clock since 1970;
	// 0 when it does not say.
	kernel int64
}

// An instant is one moment on both clocks. Differences are taken of mono; wall
// relates it to the kernel's timestamps, and shows a clock that was stepped.
type instant struct {
	wall int64         // ns since 1970
	mono time.Duration // since some fixed moment; stands still while the machine sleeps
}

// newClock returns a clock whose mono counts from now.
func newClock() func() instant {
	epoch := time.Now()
	return func() instant {
		t := time.Now()
		return instant{t.UnixNano(), t.Sub(epoch)}
	}
}

package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/wire"
)

// A fakeNet stands for the network and the kernel: it decides what becomes of
// each request. Its times are those of a synctest bubble.
type fakeNet struct {
	// react says what comes back for the n-th request (from 0) to an address; nil: a reply after 10 ms.
	react func(to netip.Addr, n int) []reaction
	// refuse says why a request cannot be sent; nil: it can.
	refuse func(s *fakeSocket, to netip.Addr) error
	// deny says why no socket can be opened; nil: it can.
	deny func(family int) error
	// clock stands before the engine's clock; nil: it shows the bubble's time.
	clock func(true instant) instant

	mu      sync.Mutex
	sockets []*fakeSocket
	sent    []sending
	toAddr  map[netip.Addr]int
}

// A reaction is one message that comes back for a request.
type reaction struct {
	after time.Duration
	cause wire.Cause
	from  netip.Addr // default: the address asked
	edit  func(*event)
	wait  time.Duration // between the kernel's stamp and the program's; 0: no stamp
}

type sending struct {
	at   time.Time
	to   netip.Addr
	sock *fakeSocket
}

type fakeSocket struct {
	net      *fakeNet
	family   int
	clock    func() instant
	incoming chan event
	closed   chan struct{}
	once     sync.Once
	breaks   chan error

	mu      sync.Mutex
	pending []event // ICMP errors not yet read: they fail the next send
}

func (f *fakeNet) listen(c *codec, clock func() instant) (socket, mode, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deny != nil {
		if err := f.deny(c.family); err != nil {
			return nil, modeNone, err
		}
	}
	s := &fakeSocket{net: f, family: c.family, clock: clock, incoming: make(chan event, 4096), closed: make(chan struct{}), breaks: make(chan error)}
	f.sockets = append(f.sockets, s)
	return s, modePing, nil
}

func (f *fakeNet) opened() []*fakeSocket {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*fakeSocket(nil), f.sockets...)
}

func (f *fakeNet) sendings() []sending {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]sending(nil), f.sent...)
}

func (s *fakeSocket) send(msg []byte, to netip.Addr) error {
	f := s.net
	if f.refuse != nil {
		if err := f.refuse(s, to); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.toAddr == nil {
		f.toAddr = map[netip.Addr]int{}
	}
	n := f.toAddr[to]
	f.toAddr[to]++
	f.sent = append(f.sent, sending{time.Now(), to, s})
	reactions := []reaction{{after: 10 * time.Millisecond}}
	if f.react != nil {
		reactions = f.react(to, n)
	}
	e := echo{seq: binary.BigEndian.Uint16(msg[6:]), n: binary.BigEndian.Uint32(msg[len(msg)-4:]), whole: true}
	for _, r := range reactions {
		ev := event{echo: e, from: to, cause: r.cause}
		if r.from.IsValid() {
			ev.from = r.from
		}
		if r.cause != "" {
			ev.to = to
		}
		if r.edit != nil {
			r.edit(&ev)
		}
		time.AfterFunc(r.after, func() {
			ev.at = s.clock()
			if r.wait > 0 {
				ev.kernel = ev.at.wall - int64(r.wait)
			}
			s.incoming <- ev
		})
	}
	return nil
}

func (s *fakeSocket) drain(emit func(event)) int {
	s.mu.Lock()
	pending := s.pending
	s.pending = nil
	s.mu.Unlock()
	for _, ev := range pending {
		ev.at = s.clock()
		emit(ev)
	}
	return len(pending)
}

func (s *fakeSocket) read(emit func(event)) error {
	for {
		select {
		case ev := <-s.incoming:
			emit(ev)
		case err := <-s.breaks:
			return err
		case <-s.closed:
			return net.ErrClosed
		}
	}
}

func (s *fakeSocket) close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *fakeSocket) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// bubble runs f in a synctest bubble with an engine that runs on n. It fails
// if a socket is left open.
func bubble(t *testing.T, n *fakeNet, o EngineOptions, f func(t *testing.T, e *Engine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := NewEngine(o)
		e.listen = n.listen
		if real := e.clock; n.clock != nil {
			e.clock = func() instant { return n.clock(real()) }
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { e.Run(ctx); close(ended) }()
		f(t, e)
		cancel()
		<-ended
		for i, s := range n.opened() {
			if !s.isClosed() {
				t.Errorf("socket %d of %d was left open", i, len(n.opened()))
			}
		}
	})
}

// ping measures one round, which must end.
func ping(t *testing.T, e *Engine, r Round) Outcome {
	t.Helper()
	o, err := e.Ping(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// numbered returns the i-th address of a range.
func numbered(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
}

// A logBook keeps what is logged. Its methods may be called from any goroutine.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func (b *logBook) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Count(b.buf.Bytes(), []byte(text))
}

var errFake = errors.New("made up for the test")

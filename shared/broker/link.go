package broker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errSilent: paho gave the connection up, which it does for one reason only
// that the link has not seen before it.
var errSilent = errors.New("the broker fell silent: a ping was not answered")

// A link is the net.Conn that paho is given: the guarded byte stream, buffered
// reads, a deadline on every write, and a word to the Conn when it breaks.
type link struct {
	net.Conn              // carries the MQTT bytes: the TCP socket, or TLS or WebSocket over it
	raw          net.Conn // the TCP socket
	in           *guarded
	writing      sync.Mutex // paho's pings and packets come from two goroutines
	written      bool       // under writing: something was
	writeTimeout time.Duration
	fail         func(error) // of the Conn; the first call counts

	leaving atomic.Bool // see leave
	reading sync.Mutex  // when leaving, reads come from two goroutines
}

func newLink(stream, raw net.Conn, g guard, writeTimeout time.Duration, fail func(error)) *link {
	return &link{Conn: stream, raw: raw, in: newGuarded(stream, g), writeTimeout: writeTimeout, fail: fail}
}

func (l *link) Read(p []byte) (int, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	if l.leaving.Load() {
		return 0, l.drain()
	}
	n, err := l.in.Read(p)
	if err != nil {
		l.fail(readError(err))
	}
	return n, err
}

func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errClosedByPeer
	}
	return err
}

var errClosedByPeer = fmt.Errorf("the broker closed the connection: %w", io.EOF)

// Write gives each write its own deadline: paho sets one for PUBLISH only, so
// that an acknowledgement could block for ever.
func (l *link) Write(p []byte) (int, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.Conn.SetWriteDeadline(time.Now().Add(l.writeTimeout)); err != nil {
		l.fail(err)
		return 0, err
	}
	n, err := l.Conn.Write(p)
	if err != nil {
		l.fail(l.whyNotWritten(err))
		return n, err
	}
	l.written = true
	// A deadline left behind would break what TLS writes on its own behalf.
	return n, l.Conn.SetWriteDeadline(time.Time{})
}

// lastWords is how long a peer's reason for closing is waited for. It came
// before the close did.
const lastWords = time.Second

// whyNotWritten looks for a better cause than a reset. A TLS 1.3 server that
// refuses the client's certificate says so after the client's handshake is over:
// the first write can fail before anybody has read that. Paho reads nothing
// before its first packet is written, so reading here is safe.
func (l *link) whyNotWritten(err error) error {
	if !l.written && l.Conn.SetReadDeadline(time.Now().Add(lastWords)) == nil {
		if _, rerr := l.Conn.Read(make([]byte, 1)); isAlert(rerr) {
			return rerr
		}
	}
	return fmt.Errorf("write: %w", err)
}

// SetDeadline applies to reads; writes have their own.
func (l *link) SetDeadline(t time.Time) error { return l.Conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing, see Write.
func (l *link) SetWriteDeadline(time.Time) error { return nil }

// leave makes the Close that follows an orderly one, within d. A socket that is
// closed while it holds unread messages is reset, and a broker that meets the
// reset before it has read the DISCONNECT publishes the will: one time in 20
// with mosquitto under load. So what comes is thrown away until the broker, as
// it must (MQTT 3.1.1, section 3.14.4), closes its side.
func (l *link) leave(d time.Duration) {
	l.leaving.Store(true)
	_ = l.Conn.SetReadDeadline(time.Now().Add(d))
}

// drain needs reading.
func (l *link) drain() error {
	if _, err := io.Copy(io.Discard, l.Conn); err != nil {
		return err
	}
	return io.EOF
}

// Close is called by paho: after DISCONNECT, after an error that Read or Write
// has reported, or when a ping was not answered.
func (l *link) Close() error {
	l.fail(errSilent)
	if l.leaving.Load() {
		if half, ok := l.Conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		l.reading.Lock()
		_ = l.drain()
		l.reading.Unlock()
	}
	return l.Conn.Close()
}

// drop closes the socket without a word at any layer, and cannot block.
func (l *link) drop() { _ = l.raw.Close() }

package broker

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A brokenConn fails every write, and every read with something else.
type brokenConn struct {
	net.Conn
	read error
}

func (c brokenConn) Write([]byte) (int, error)        { return 0, syscall.ECONNRESET }
func (c brokenConn) Read([]byte) (int, error)         { return 0, c.read }
func (c brokenConn) SetReadDeadline(time.Time) error  { return nil }
func (c brokenConn) SetWriteDeadline(time.Time) error { return nil }

// TestWhyNotWritten: a peer's alert that lies unread explains a first write that
// failed; nothing else that could be read does.
func TestWhyNotWritten(t *testing.T) {
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}
	for _, tt := range []struct {
		read    error
		written bool
		want    string
	}{
		{read: alert, want: "remote error: tls: certificate required"},
		{read: alert, written: true, want: "write: connection reset by peer"},
		{read: syscall.ECONNRESET, want: "write: connection reset by peer"},
	} {
		var cause error
		l := newLink(brokenConn{read: tt.read}, nil, guard{max: 100}, time.Second, func(err error) { cause = err })
		l.written = tt.written
		if _, err := l.Write([]byte{0}); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v", err)
		}
		if cause == nil || !strings.HasPrefix(cause.Error(), tt.want) {
			t.Errorf("%+v: cause %v", tt, cause)
		}
	}
}

package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// openWebSocket upgrades an HTTP connection over raw. The subprotocol is the
// one of MQTT 3.1.1, section 6.
func openWebSocket(ctx context.Context, raw net.Conn, a Address, cfg *tls.Config) (net.Conn, error) {
	over := func(context.Context, string, string) (net.Conn, error) { return raw, nil }
	d := websocket.Dialer{NetDialContext: over, Subprotocols: []string{"mqtt"}, TLSClientConfig: cfg}
	ws, resp, err := d.DialContext(ctx, a.scheme+"://"+a.hostPort()+a.path, nil)
	if errors.Is(err, websocket.ErrBadHandshake) && resp != nil {
		return nil, &upgradeError{status: resp.StatusCode}
	}
	if err != nil {
		return nil, err
	}
	return &wsStream{ws: ws, Conn: ws.NetConn()}, nil
}

// An upgradeError is an HTTP answer other than 101 Switching Protocols.
type upgradeError struct{ status int }

func (e *upgradeError) Error() string {
	return fmt.Sprintf("no WebSocket there: HTTP status %d %s", e.status, http.StatusText(e.status))
}

// A wsStream is the byte stream in the binary messages of a WebSocket. An MQTT
// packet may begin and end anywhere in them (MQTT 3.1.1, section 6). One reader
// and one writer at a time.
type wsStream struct {
	net.Conn
	ws      *websocket.Conn
	message io.Reader // the rest of the current message
}

func (s *wsStream) Read(p []byte) (int, error) {
	for {
		if s.message == nil {
			kind, r, err := s.ws.NextReader()
			if err != nil {
				return 0, wsReadError(err)
			}
			if kind != websocket.BinaryMessage {
				return 0, fmt.Errorf("%w: a text message came over its WebSocket", ErrMalformed)
			}
			s.message = r
		}
		n, err := s.message.Read(p)
		if errors.Is(err, io.EOF) {
			s.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// wsReadError keeps an orderly end of the stream what it is for TCP: io.EOF.
func wsReadError(err error) error {
	if _, ok := errors.AsType[*websocket.CloseError](err); ok {
		return fmt.Errorf("%w: %w", io.EOF, err)
	}
	return err
}

func (s *wsStream) Write(p []byte) (int, error) {
	if err := s.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *wsStream) SetReadDeadline(t time.Time) error  { return s.ws.SetReadDeadline(t) }
func (s *wsStream) SetWriteDeadline(t time.Time) error { return s.ws.SetWriteDeadline(t) }
func (s *wsStream) Close() error                       { return s.ws.Close() }

package broker_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"swarming/shared/broker"
	"swarming/shared/brokertest"
)

// wantDialError dials and holds the failure against its kind and hint.
func wantDialError(t *testing.T, addr string, o broker.Options, kind broker.Kind, hint string) {
	t.Helper()
	c, err := broker.Dial(t.Context(), address(t, addr), o)
	if err == nil {
		c.Close()
		t.Fatalf("dialling %s succeeded", addr)
	}
	e, ok := errors.AsType[*broker.DialError](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	t.Logf("%v\n\thint: %s", err, e.Hint)
	if e.Kind != kind {
		t.Errorf("%v: kind %q, want %q", err, e.Kind, kind)
	}
	if !strings.Contains(e.Hint, hint) || hint == "" && e.Hint != "" {
		t.Errorf("%v: hint %q, want %q in it", err, e.Hint, hint)
	}
	if !strings.Contains(err.Error(), address(t, addr).String()) {
		t.Errorf("%q does not name the broker", err)
	}
}

func TestDialNothingThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	wantDialError(t, addr, broker.Options{}, broker.KindRefused, "`mosquitto -p")
	wantDialError(t, "mqtts://"+addr, broker.Options{}, broker.KindRefused, "is the broker running?")
	wantDialError(t, "ws://"+addr, broker.Options{}, broker.KindRefused, "is the broker running?")
}

func TestDialSomethingElse(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	webAddr := strings.TrimPrefix(web.URL, "http://")
	wantDialError(t, "mqtts://"+webAddr, broker.Options{}, broker.KindTLS, "does not speak TLS: try mqtt://"+webAddr)
	wantDialError(t, "ws://"+webAddr, broker.Options{}, broker.KindNotMQTT, "a web server answers, but not with a WebSocket at /mqtt (HTTP status 404)")
	wantDialError(t, "wss://"+webAddr, broker.Options{}, broker.KindTLS, "does not speak TLS: try ws://"+webAddr)

	ssh := fake(t, saying([]byte("SSH-2.0-OpenSSH_9.2p1\r\n")))
	wantDialError(t, ssh, broker.Options{}, broker.KindNotMQTT, "an SSH server answers")

	teapot := fake(t, saying([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")))
	wantDialError(t, teapot, broker.Options{}, broker.KindNotMQTT, "a web server answers there")
	alert := fake(t, saying([]byte{0x15, 3, 1, 0, 2, 2, 70}))
	wantDialError(t, alert, broker.Options{}, broker.KindNotMQTT, "the port speaks TLS: try mqtts://"+alert)
	mute := fake(t, drain)
	wantDialError(t, mute, broker.Options{DialTimeout: 200 * time.Millisecond}, broker.KindTimeout, "says nothing")

	closing := fake(t, func(net.Conn) {})
	wantDialError(t, closing, broker.Options{}, broker.KindClosed, "closes them without an answer: it may want TLS (try mqtts://"+closing)
	wantDialError(t, "mqtts://"+closing, broker.Options{}, broker.KindClosed, "it may be a plain one (try mqtt://"+closing)
}

func TestDialReturnCodes(t *testing.T) {
	for code, want := range []struct {
		kind broker.Kind
		hint string
	}{
		1: {broker.KindOther, "does not speak MQTT 3.1.1"},
		2: {broker.KindClientID, "--name"},
		3: {broker.KindUnavailable, "starting"},
		4: {broker.KindAuth, "mqtt://user:password@host"},
		5: {broker.KindAuth, "mqtt://user:password@host"},
		6: {broker.KindNotMQTT, "is the port right?"}, // paho alone takes it for success
	} {
		if code > 0 {
			wantDialError(t, fake(t, saying([]byte{0x20, 2, 0, byte(code)})), broker.Options{}, want.kind, want.hint)
		}
	}
}

func TestDialAuth(t *testing.T) {
	m := brokertest.Mosquittos(t, 1, brokertest.Options{Config: "allow_anonymous false"})[0]
	wantDialError(t, m.Addr(), broker.Options{}, broker.KindAuth, "allow_anonymous true")
	wantDialError(t, "mqtt://user:hunter@"+m.Addr(), broker.Options{}, broker.KindAuth, "user and password")
}

func TestDialFrozen(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	o := broker.Options{DialTimeout: 300 * time.Millisecond}
	for _, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
		wantDialError(t, scheme+"://"+m.Addr(), o, broker.KindTimeout, "a broker that hangs")
	}
	m.Thaw()
	dial(t, m.Addr(), broker.Options{})
}

// TestDialCancel: every stage of a dial ends with its context.
func TestDialCancel(t *testing.T) {
	for _, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
		ctx, cancel := context.WithCancel(t.Context())
		addr := fake(t, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 1)) // the client has begun to speak
			cancel()
			drain(conn)
		})
		_, err := broker.Dial(ctx, address(t, scheme+"://"+addr), broker.Options{DialTimeout: 10 * deadline})
		if e, ok := errors.AsType[*broker.DialError](err); !ok || e.Kind != broker.KindCanceled || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

func TestDialTLS(t *testing.T) {
	m := brokertest.Mosquittos(t, 1, brokertest.Options{TLS: true})[0]
	url := "mqtts://" + m.Addr()
	dial(t, url, broker.Options{TLS: broker.TLS{CA: m.CA().File()}})
	wantDialError(t, url, broker.Options{}, broker.KindTLS, "give its file with --tls-ca")
	wantDialError(t, m.Addr(), broker.Options{}, broker.KindClosed, "it may want TLS (try mqtts://"+m.Addr())

	plain := brokertest.Mosquittos(t, 1)[0]
	wantDialError(t, "mqtts://"+plain.Addr(), broker.Options{}, broker.KindClosed, "it may be a plain one (try mqtt://"+plain.Addr())
}

func TestDialTLSServerCertificate(t *testing.T) {
	m := brokertest.Mosquittos(t, 1, brokertest.Options{TLS: true, Config: "log_type all"})[0]
	ca := m.CA()
	serve := func(c brokertest.Certificate) string {
		cert, key, err := ca.Issue(c)
		if err != nil {
			t.Fatal(err)
		}
		other := brokertest.Mosquittos(t, 1, brokertest.Options{Config: "cafile " + ca.File() + "\ncertfile " + cert + "\nkeyfile " + key})[0]
		return "mqtts://" + other.Addr()
	}
	o := broker.Options{TLS: broker.TLS{CA: ca.File()}}
	wantDialError(t, serve(brokertest.Certificate{Name: "x", Hosts: []string{"broker.example", "192.0.2.1"}}), o, broker.KindTLS,
		`not for "127.0.0.1" but for ["broker.example" "192.0.2.1"]`)
	wantDialError(t, serve(brokertest.Certificate{Name: "x", Hosts: []string{"127.0.0.1"}, NotAfter: -time.Hour}), o, broker.KindTLS, "is this machine's clock right?")
}

func TestDialTLSClientCertificate(t *testing.T) {
	m := brokertest.Mosquittos(t, 1, brokertest.Options{TLS: true, ClientCerts: true})[0]
	url, ca := "mqtts://"+m.Addr(), m.CA().File()
	issue := func(ca *brokertest.CA, life time.Duration) broker.TLS {
		cert, key, err := ca.Issue(brokertest.Certificate{Name: "agent-1", NotAfter: life})
		if err != nil {
			t.Fatal(err)
		}
		return broker.TLS{CA: m.CA().File(), Cert: cert, Key: key}
	}
	dial(t, url, broker.Options{TLS: issue(m.CA(), 0)})
	stranger, err := brokertest.NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	wantDialError(t, url, broker.Options{TLS: broker.TLS{CA: ca}}, broker.KindTLS, "give one with --tls-cert and --tls-key")
	wantDialError(t, url, broker.Options{TLS: issue(stranger, 0)}, broker.KindTLS, "does not trust the authority")
	wantDialError(t, url, broker.Options{TLS: issue(m.CA(), -time.Hour)}, broker.KindTLS, "for expired")
}

func TestDialTLSFiles(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, files := range []broker.TLS{{CA: filepath.Join(dir, "none.pem")}, {CA: empty}, {Cert: empty}, {Key: empty}, {Cert: empty, Key: empty}} {
		wantDialError(t, "mqtts://127.0.0.1:1", broker.Options{TLS: files}, broker.KindFiles, "--tls-ca, --tls-cert and --tls-key")
	}
}

// TestDialRenewedFiles: a certificate that was replaced is used by the next dial.
func TestDialRenewedFiles(t *testing.T) {
	m := brokertest.Mosquittos(t, 1, brokertest.Options{TLS: true})[0]
	file := filepath.Join(t.TempDir(), "ca.pem")
	stranger, err := brokertest.NewCA(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	o := broker.Options{TLS: broker.TLS{CA: stranger.File()}}
	wantDialError(t, "mqtts://"+m.Addr(), o, broker.KindTLS, "--tls-ca")
	right, err := os.ReadFile(m.CA().File())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, right, 0o600); err != nil {
		t.Fatal(err)
	}
	dial(t, "mqtts://"+m.Addr(), o)
}

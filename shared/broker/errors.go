package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
)

// A Kind says in one word, fit for a metric's label, why a dial failed. The list
// is append-only.
type Kind string

// The kinds of a [DialError].
const (
	KindRefused     Kind = "refused"      // nothing listens there
	KindTimeout     Kind = "timeout"      // no answer in time
	KindUnreachable Kind = "unreachable"  // no route
	KindNoSuchHost  Kind = "no_such_host" // the name does not exist
	KindResolver    Kind = "resolver"     // the name could not be looked up
	KindTLS         Kind = "tls"          // no secure connection, or one side's certificate is refused
	KindFiles       Kind = "files"        // this side's TLS files cannot be used
	KindNotMQTT     Kind = "not_mqtt"     // something answers that is no MQTT broker
	KindClosed      Kind = "closed"       // accepted and closed without an answer
	KindAuth        Kind = "auth"         // user, password or rights
	KindClientID    Kind = "client_id"    // the client id is not accepted
	KindUnavailable Kind = "unavailable"  // the broker says that it is not available
	KindCanceled    Kind = "canceled"     // the caller's context ended
	KindOther       Kind = "other"
)

// A DialError is why a broker could not be connected.
type DialError struct {
	Address Address
	Kind    Kind
	Hint    string // what to try, for a person; may be empty
	Err     error
}

func (e *DialError) Error() string { return fmt.Sprintf("connect to %s: %v", e.Address, e.Err) }

// Unwrap returns the underlying error.
func (e *DialError) Unwrap() error { return e.Err }

// A returnCode is the refusal in a CONNACK (MQTT 3.1.1, table 3.1).
type returnCode byte

func (r returnCode) Error() string {
	text := map[returnCode]string{1: "protocol version not accepted", 2: "client id not accepted", 3: "server unavailable",
		4: "bad user name or password", 5: "not authorised"}[r]
	return fmt.Sprintf("the broker refused the client: %s (code %d)", text, byte(r))
}

// explain finds the kind of err and what a person can do about it.
func explain(a Address, err error) *DialError {
	e := &DialError{Address: a, Err: err}
	e.Kind, e.Hint = classify(a, err)
	return e
}

func classify(a Address, err error) (Kind, string) {
	if code, ok := errors.AsType[returnCode](err); ok {
		return classifyReturnCode(code)
	}
	if _, ok := errors.AsType[*fileError](err); ok {
		return KindFiles, "check the files given by --tls-ca, --tls-cert and --tls-key"
	}
	if e, ok := errors.AsType[*upgradeError](err); ok {
		return KindNotMQTT, fmt.Sprintf("a web server answers, but not with a WebSocket at %s (HTTP status %d): is the path right?", a.path, e.status)
	}
	if kind, hint, ok := classifyTLS(a, err); ok {
		return kind, hint
	}
	if errors.Is(err, ErrNotMQTT) || errors.Is(err, ErrMalformed) || errors.Is(err, ErrPacketTooBig) {
		return KindNotMQTT, hintNotMQTT(a, err)
	}
	return classifyNetwork(a, err)
}

func classifyReturnCode(code returnCode) (Kind, string) {
	switch code {
	case 2:
		return KindClientID, "the broker does not accept this client id: choose another --name"
	case 3:
		return KindUnavailable, "the broker is up but not ready: it may be starting, or overloaded"
	case 4, 5:
		return KindAuth, "give a user and password as mqtt://user:password@host; a mosquitto that is meant to be open needs `allow_anonymous true`"
	}
	return KindOther, "the broker does not speak MQTT 3.1.1"
}

func classifyNetwork(a Address, err error) (Kind, string) {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return KindNoSuchHost, fmt.Sprintf("no name server knows %q: is it spelled right?", a.host)
		}
		return KindResolver, fmt.Sprintf("the name server did not answer for %q: is this machine online?", a.host)
	}
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		return KindCanceled, ""
	case errors.Is(err, connRefused):
		return KindRefused, hintRefused(a)
	case errors.Is(err, errNoAnswer):
		return KindTimeout, fmt.Sprintf("%s accepts connections but says nothing: a broker that hangs, or no broker at all; is the port right?", a.hostPort())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isNet && netErr.Timeout():
		return KindTimeout, fmt.Sprintf("%s did not answer: a firewall in between, or a wrong address", a.hostPort())
	case errors.Is(err, netUnreachable), errors.Is(err, hostUnreachable):
		return KindUnreachable, fmt.Sprintf("there is no route to %s: is this machine online?", a.host)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, connReset), errors.Is(err, syscall.EPIPE):
		return KindClosed, hintClosed(a)
	}
	return KindOther, ""
}

func hintRefused(a Address) string {
	if ip, err := netip.ParseAddr(a.host); a.host == "localhost" || err == nil && ip.IsLoopback() {
		return fmt.Sprintf("nothing listens on port %s of this machine: is the broker running? `mosquitto -p %s` starts one", a.port, a.port)
	}
	return fmt.Sprintf("nothing listens on %s: is the broker running? mosquitto listens on loopback only unless configured: add `listener %s` and `allow_anonymous true`", a.hostPort(), a.port)
}

func hintClosed(a Address) string {
	if a.usesTLS() {
		return fmt.Sprintf("the port accepts connections but closes them during TLS: it may be a plain one (try %s), or the broker is at its limit of connections", other(a))
	}
	return fmt.Sprintf("the port accepts connections but closes them without an answer: it may want TLS (try %s), or the broker is at its limit of connections", other(a))
}

func hintNotMQTT(a Address, err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, `"HTTP/`):
		return "a web server answers there; is the port right? MQTT over WebSocket needs ws:// or wss://"
	case strings.Contains(text, `"SSH-`):
		return "an SSH server answers there; is the port right?"
	case strings.Contains(text, `"\x15\x03`):
		return fmt.Sprintf("the port speaks TLS: try %s", other(a))
	}
	return "is the port right?"
}

// other is the address with TLS switched on or off, as a person would type it.
func other(a Address) string {
	scheme := map[string]string{"mqtt": "mqtts", "mqtts": "mqtt", "ws": "wss", "wss": "ws"}[a.scheme]
	return scheme + "://" + a.hostPort() + a.path
}

// classifyTLS knows what goes wrong between two sides of TLS.
func classifyTLS(a Address, err error) (Kind, string, bool) {
	if !a.usesTLS() {
		return "", "", false
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return KindTLS, fmt.Sprintf("the port does not speak TLS: try %s", other(a)), true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return KindTLS, "the broker's certificate comes from an authority unknown here: give its file with --tls-ca", true
	}
	if host, ok := errors.AsType[x509.HostnameError](err); ok {
		return KindTLS, fmt.Sprintf("the broker's certificate is not for %q but for %s: use a name that it holds", host.Host, namesOf(host.Certificate)), true
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return KindTLS, "the broker's certificate is expired or not valid yet: is this machine's clock right?", true
		}
		return KindTLS, "the broker's certificate cannot be used", true
	}
	return classifyAlert(err)
}

// isAlert tells whether err is what the peer's TLS said. Go has no type for that.
func isAlert(err error) bool {
	return err != nil && strings.Contains(err.Error(), "remote error: tls:")
}

func classifyAlert(err error) (Kind, string, bool) {
	if !isAlert(err) {
		return "", "", false
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "certificate required"), strings.Contains(text, "handshake failure"):
		return KindTLS, "the broker wants a client certificate: give one with --tls-cert and --tls-key", true
	case strings.Contains(text, "unknown certificate authority"):
		return KindTLS, "the broker does not trust the authority of the certificate given with --tls-cert", true
	case strings.Contains(text, "expired certificate"):
		return KindTLS, "the broker takes the certificate given with --tls-cert for expired: renew it, or check the broker's clock", true
	case strings.Contains(text, "revoked certificate"):
		return KindTLS, "the broker holds the certificate given with --tls-cert for revoked", true
	case strings.Contains(text, "certificate"):
		return KindTLS, "the broker does not accept the certificate given with --tls-cert", true
	}
	return KindTLS, "", true
}

func namesOf(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name at all"
	}
	return fmt.Sprintf("%.100q", names[:min(len(names), 5)])
}

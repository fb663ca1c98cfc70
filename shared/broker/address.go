package broker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// An Address says where a broker listens and how to speak to it. Addresses are
// comparable; the zero Address is not valid. Get one from [ParseAddress].
type Address struct {
	scheme         string // mqtt, mqtts, ws or wss
	host, port     string
	user, password string
	path           string // of ws and wss: absolute, escaped
}

// defaultPorts are the registered ports of the schemes (IANA: 1883 mqtt, 8883
// secure-mqtt) and, under WebSocket, those of the web (RFC 6455, section 3).
var defaultPorts = map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}

// defaultPath is where brokers commonly serve MQTT over WebSocket; mosquitto
// accepts any path.
const defaultPath = "/mqtt"

const addressWanted = "want host, host:port, or mqtt://, mqtts://, ws:// or wss://[user:password@]host[:port]"

// ParseAddress reads "host", "host:port", "[::1]:1883" or a URL. The default
// ports are 1883 (mqtt), 8883 (mqtts), 80 (ws) and 443 (wss); the default path
// of ws and wss is /mqtt. An error quotes s with the password taken out and says
// what was expected.
func ParseAddress(s string) (Address, error) {
	a, err := parseAddress(s)
	if err != nil {
		return Address{}, fmt.Errorf("broker %q: %w", Redact(s), err)
	}
	return a, nil
}

func parseAddress(s string) (Address, error) {
	if !strings.Contains(s, "://") {
		if strings.Contains(s, "@") {
			return Address{}, errors.New("a user or password needs the form mqtt://user:password@host")
		}
		return parseHostPort(s)
	}
	// The text of url.Parse's error is not shown: it can hold parts of the password.
	u, err := url.Parse(s)
	if err != nil {
		return Address{}, errors.New("not a URL: " + addressWanted + ", where a character like @ / : % in user or password is written %40 %2F %3A %25")
	}
	if _, ok := defaultPorts[u.Scheme]; !ok {
		return Address{}, fmt.Errorf("unknown scheme %q: want mqtt, mqtts (TLS), ws or wss", u.Scheme)
	}
	a, err := newAddress(u.Scheme, u.Hostname(), u.Port())
	if err != nil {
		return Address{}, err
	}
	web := u.Scheme == "ws" || u.Scheme == "wss"
	switch {
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return Address{}, errors.New("a query or fragment has no meaning here: " + addressWanted)
	case web && u.Path == "":
		a.path = defaultPath
	case web:
		a.path = u.EscapedPath()
	case u.Path != "" && u.Path != "/":
		return Address{}, errors.New("a path has a meaning only with ws:// and wss://")
	}
	if u.User != nil {
		a.user = u.User.Username()
		a.password, _ = u.User.Password()
		if a.user == "" {
			return Address{}, errors.New("a password needs a user (MQTT 3.1.1, section 3.1.2.9)")
		}
	}
	return a, nil
}

func parseHostPort(s string) (Address, error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Is6() {
		return newAddress("mqtt", s, "")
	}
	if !strings.Contains(s, ":") {
		return newAddress("mqtt", s, "")
	}
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		return newAddress("mqtt", strings.TrimSuffix(inner, "]"), "")
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || port == "" {
		return Address{}, errors.New(addressWanted)
	}
	return newAddress("mqtt", host, port)
}

func newAddress(scheme, host, port string) (Address, error) {
	if host == "" {
		return Address{}, errors.New("no host: " + addressWanted)
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsValid() {
		if strings.ContainsFunc(host, badInHost) {
			return Address{}, fmt.Errorf("host %q is neither a name nor an address", host)
		}
	}
	if port == "" {
		port = defaultPorts[scheme]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Address{}, fmt.Errorf("port %q: want 1 to 65535", port)
	}
	return Address{scheme: scheme, host: host, port: port}, nil
}

func badInHost(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`/\?#@:[]%"<>`, r) }

// String returns "host:port" for plain MQTT and a URL otherwise; never a user or
// a password. It is unique among the brokers of one program.
func (a Address) String() string {
	if a.scheme == "mqtt" {
		return a.hostPort()
	}
	return a.scheme + "://" + a.hostPort() + a.path
}

func (a Address) hostPort() string { return net.JoinHostPort(a.host, a.port) }

func (a Address) usesTLS() bool { return a.scheme == "mqtts" || a.scheme == "wss" }

func (a Address) usesWebSocket() bool { return a.scheme == "ws" || a.scheme == "wss" }

// Redact returns s, which may be no valid address, with anything that could be
// a password taken out.
func Redact(s string) string {
	start := 0
	if i := strings.Index(s, "://"); i >= 0 {
		start = i + len("://")
	}
	at := strings.LastIndexByte(s, '@')
	if at < start {
		return s
	}
	user, _, ok := strings.Cut(s[start:at], ":")
	if !ok {
		return s
	}
	return s[:start] + user + ":xxxxx" + s[at:]
}

// MaxAddresses is the most brokers that a program is given.
const MaxAddresses = 64

// ParseAddresses reads a list of addresses; see [ParseAddress].
func ParseAddresses(list []string) ([]Address, error) {
	if len(list) > MaxAddresses {
		return nil, fmt.Errorf("%d brokers: want at most %d", len(list), MaxAddresses)
	}
	out := make([]Address, 0, len(list))
	for _, s := range list {
		a, err := ParseAddress(s)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

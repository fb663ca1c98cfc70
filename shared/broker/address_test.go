package broker

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct{ in, text, hostPort, user, password string }{
		{"localhost", "localhost:1883", "localhost:1883", "", ""},
		{"localhost:1884", "localhost:1884", "localhost:1884", "", ""},
		{"192.0.2.1", "192.0.2.1:1883", "192.0.2.1:1883", "", ""},
		{"[::1]:1884", "[::1]:1884", "[::1]:1884", "", ""},
		{"[::1]", "[::1]:1883", "[::1]:1883", "", ""},
		{"::1", "[::1]:1883", "[::1]:1883", "", ""},
		{"[fe80::1%eth0]:1883", "[fe80::1%eth0]:1883", "[fe80::1%eth0]:1883", "", ""},
		{"mqtt://broker.example", "broker.example:1883", "broker.example:1883", "", ""},
		{"mqtt://broker.example/", "broker.example:1883", "broker.example:1883", "", ""},
		{"MQTTS://broker.example", "mqtts://broker.example:8883", "broker.example:8883", "", ""},
		{"mqtts://u:p%40ss%2F@broker.example:8884", "mqtts://broker.example:8884", "broker.example:8884", "u", "p@ss/"},
		{"mqtt://u@broker.example", "broker.example:1883", "broker.example:1883", "u", ""},
		{"ws://broker.example", "ws://broker.example:80/mqtt", "broker.example:80", "", ""},
		{"wss://broker.example:444/a/b%20c", "wss://broker.example:444/a/b%20c", "broker.example:444", "", ""},
		{"mqtts://[2001:db8::1]", "mqtts://[2001:db8::1]:8883", "[2001:db8::1]:8883", "", ""},
	} {
		a, err := ParseAddress(tt.in)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		if a.String() != tt.text || a.hostPort() != tt.hostPort || a.user != tt.user || a.password != tt.password {
			t.Errorf("%q: got %s (%s, user %q, password %q)", tt.in, a, a.hostPort(), a.user, a.password)
		}
		if back, err := ParseAddress(a.String()); err != nil || back.String() != a.String() {
			t.Errorf("%q: its text %q reads back as %v, %v", tt.in, a, back, err)
		}
	}
}

func TestParseAddressErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", `broker "": no host: want host, host:port`},
		{"localhost:", `broker "localhost:": want host, host:port`},
		{":1883", `no host`},
		{"localhost:0", `port "0": want 1 to 65535`},
		{"localhost:65536", `port "65536": want 1 to 65535`},
		{"localhost:mqtt", `port "mqtt": want 1 to 65535`},
		{"a:b:c", `want host, host:port`},
		{"two words", `host "two words" is neither a name nor an address`},
		{"host/path", `host "host/path" is neither`},
		{"tcp://localhost", `unknown scheme "tcp": want mqtt, mqtts (TLS), ws or wss`},
		{"http://localhost", `unknown scheme "http"`},
		{"mqtt://", `no host`},
		{"mqtt://localhost/topic", `a path has a meaning only with ws:// and wss://`},
		{"ws://localhost/mqtt?x=1", `a query or fragment has no meaning here`},
		{"mqtt://localhost:99999", `port "99999": want 1 to 65535`},
		{"mqtt://:hunter@localhost", `a password needs a user`},
		{"user:hunter@localhost", `a user or password needs the form mqtt://user:password@host`},
		{"mqtt://user:hun/ter@localhost", `written %40 %2F %3A %25`},
		{"mqtt://user:hun%zzter@localhost", `written %40 %2F %3A %25`},
		{"mqtt://user:hunter@local host", `not a URL`},
	} {
		_, err := ParseAddress(tt.in)
		if err == nil {
			t.Errorf("%q: no error", tt.in)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %q, want %q in it", tt.in, err, tt.want)
		}
		if strings.Contains(err.Error(), "hun") {
			t.Errorf("%q: the error shows the password: %q", tt.in, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"localhost:1883", "mqtts://u:p@h:1", "wss://[::1]:1/p", "::1", "ws://h/%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		back, err := ParseAddress(a.String())
		if err != nil {
			t.Fatalf("%q gives %q, which is none: %v", s, a, err)
		}
		if back.String() != a.String() {
			t.Fatalf("%q gives %q, then %q", s, a, back)
		}
	})
}

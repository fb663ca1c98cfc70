package settings

import (
	"bytes"
	"flag"
	"strings"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		in, shown string
		want      time.Duration
	}{
		{"0", "0s", 0},
		{"90s", "1m30s", 90 * time.Second},
		{"1m", "1m", time.Minute},
		{"1h0m0s", "1h", time.Hour},
		{"1h0m5s", "1h0m5s", time.Hour + 5*time.Second},
		{"200ms", "200ms", 200 * time.Millisecond},
		{"24h", "1d", 24 * time.Hour},
		{"30d", "30d", 720 * time.Hour},
		{"1d12h", "36h", 36 * time.Hour},
		{"0d", "0s", 0},
		{"106751d", "106751d", 106751 * 24 * time.Hour},
	} {
		got, err := parseDuration(c.in)
		if err != nil || got != c.want {
			t.Errorf("parseDuration(%q) = %v, %v, want %v", c.in, got, err, c.want)
		}
		if s := formatDuration(got); s != c.shown {
			t.Errorf("formatDuration(%v) = %q, want %q", got, s, c.shown)
		}
	}
	for _, in := range []string{"", "5", "-1s", "-1d", "d", "1.5d", "1d-1h", "1d 1h", "106752d", "106751d24h", "9223372036854775807d", "1w", "1h30"} {
		if got, err := parseDuration(in); err == nil {
			t.Errorf("parseDuration(%q) = %v, want an error", in, got)
		}
	}
}

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		in, shown string
		want      int64
	}{
		{"0", "0", 0},
		{"1", "1B", 1},
		{"4096", "4KiB", 4096},
		{"10GB", "10GB", 1e10},
		{"10 gb", "10GB", 1e10},
		{"512MiB", "512MiB", 512 << 20},
		{"7B", "7B", 7},
		{"8388607TiB", "8388607TiB", 8388607 << 40},
	} {
		got, err := parseBytes(c.in)
		if err != nil || got != c.want {
			t.Errorf("parseBytes(%q) = %d, %v, want %d", c.in, got, err, c.want)
		}
		if s := formatBytes(got); s != c.shown {
			t.Errorf("formatBytes(%d) = %q, want %q", got, s, c.shown)
		}
	}
	for _, in := range []string{"", "GB", "-1", "10G", "10M", "1.5GB", "1e3", "8388608TiB", "99999999999999999999", "0x10", "10GBs"} {
		if got, err := parseBytes(in); err == nil {
			t.Errorf("parseBytes(%q) = %d, want an error", in, got)
		}
	}
}

func TestRedactURL(t *testing.T) {
	for in, want := range map[string]string{
		"localhost":                            "localhost",
		"localhost:1884":                       "localhost:1884",
		"[::1]:1883":                           "[::1]:1883",
		"mqtt://host:1883":                     "mqtt://host:1883",
		"mqtt://user:pass@host":                "mqtt://user:xxxxx@host",
		"mqtts://user:pass@host:8883/x":        "mqtts://user:xxxxx@host:8883/x",
		"mqtt://user@host":                     "mqtt://user@host",
		"mqtt://:pass@host":                    "mqtt://:xxxxx@host",
		"mqtt://user:p:a:s@host":               "mqtt://user:xxxxx@host",
		"mqtt://user:p@ss@host":                "mqtt://user:xxxxx@host",
		"mqtt://user:pa/ss@host":               "mqtt://user:xxxxx@host",
		"mqtt://user:12/34@host":               "mqtt://user:xxxxx@host",
		"mqtt://user:pa?s#s@host":              "mqtt://user:xxxxx@host",
		"user:pass@host":                       "user:xxxxx@host",
		"https://elastic:geheim@es.example/_a": "https://elastic:xxxxx@es.example/_a",
		"http://host:9200/a@b":                 "http://host:xxxxx@b", // might be a password with a slash
		"mail=a@b":                             "mail=a@b",
	} {
		if got := RedactURL(in); got != want {
			t.Errorf("RedactURL(%q) = %q, want %q", in, got, want)
		}
	}
}

// pin is a Value of a program's own.
type pin struct{ all []string }

func (p *pin) Set(s string) error { p.all = append(p.all, s); return nil }
func (p *pin) String() string     { return strings.Join(p.all, ",") }
func (p *pin) IsSecret() bool     { return true }

func TestVar(t *testing.T) {
	var _ flag.Value = (*pin)(nil)
	p := new(pin)
	s := New("prog", "PROG")
	s.Var(p, "pin", "what opens the door")
	if err := s.Parse([]string{"--pin", "1234", "--pin=5678"}, []string{"PROG_PIN=9999"}); err != nil {
		t.Fatal(err)
	}
	if p.String() != "1234,5678" {
		t.Errorf("values %q, want the command line's only", p)
	}
	var shown bytes.Buffer
	s.Show(&shown)
	if strings.Contains(shown.String(), "1234") || !strings.Contains(shown.String(), hidden) {
		t.Errorf("a secret is shown:\n%s", &shown)
	}
}

func TestLogger(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "level=INFO msg=in\nlevel=ERROR msg=up\n"},
		{[]string{"--log-level=error"}, "level=ERROR msg=up\n"},
		{[]string{"--log-format", "json", "--log-level", "error"}, `{"level":"ERROR","msg":"up"}` + "\n"},
	} {
		s := New("prog", "PROG")
		o := s.Log()
		if err := s.Parse(c.args, nil); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		log := o.Logger(&out)
		log.Debug("de")
		log.Info("in")
		log.Error("up")
		if got := withoutTime(out.String()); got != c.want {
			t.Errorf("%q logged:\n%swant:\n%s", c.args, got, c.want)
		}
	}
}

func withoutTime(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if rest, ok := strings.CutPrefix(line, `{"time":"`); ok {
			_, rest, _ = strings.Cut(rest, `",`)
			line = "{" + rest
		} else if strings.HasPrefix(line, "time=") {
			_, line, _ = strings.Cut(line, " ")
		}
		b.WriteString(line)
	}
	return b.String()
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{"name x\n", "# c\nbroker a # b\r\nbroker\t c", "observe\nmax-pps 5\n", "\ufeffname \x00", "name=x", "--name x", "config x", "name \"a\""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, _ := newSet()
		for line := range strings.Lines(text) {
			if err := s.parseLine("f:1", line); err != nil {
				if msg := err.Error(); !strings.HasPrefix(msg, "f:1: ") || strings.ContainsAny(msg, "\n\x1b") {
					t.Fatalf("error of %q: %q", line, msg)
				}
			}
		}
		if err := s.apply(); err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Fatalf("error %q", err)
		}
		var shown bytes.Buffer
		s.Show(&shown)
		if strings.Contains(shown.String(), "\x1b") {
			t.Fatalf("a terminal sequence is shown: %q", &shown)
		}
	})
}

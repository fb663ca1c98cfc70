package config

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"swarming/shared/settings"
	"swarming/shared/wire"
)

func TestNameFrom(t *testing.T) {
	id := func() string { return "0123456789abcdef0123456789abcdef" }
	other := func() string { return "another machine's identity" }
	for _, tt := range []struct{ host, want string }{
		{"garage-pi", "garage-pi"},
		{"garage.example.org", "garage.example.org"},
		{"my machine/2", "my-machine-2"},
		{"OpenWrt", "OpenWrt-"},
		{"raspberrypi", "raspberrypi-"},
		{"", "agent-"},
		{strings.Repeat("x", 80), strings.Repeat("x", 57) + "-"},
	} {
		got := nameFrom(tt.host, id)
		if strings.HasSuffix(tt.want, "-") {
			if !strings.HasPrefix(got, tt.want) || len(got) != len(tt.want)+6 {
				t.Errorf("%q becomes %q, want %s and six digits", tt.host, got, tt.want)
			}
			if again := nameFrom(tt.host, other); again == got {
				t.Errorf("%q is %q on two machines", tt.host, got)
			}
		} else if got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.host, got, tt.want)
		}
		if err := wire.CheckName(got); err != nil {
			t.Error(err)
		}
	}
}

// The state directory keeps the name of a host that is renamed.
func TestChooseName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for _, tt := range []struct{ given, dir, want string }{
		{"one", dir, "one"}, {"", dir, "one"}, {"two", dir, "two"}, {"", dir, "two"}, {"three", "", "three"},
	} {
		if got, err := ChooseName(tt.given, tt.dir); err != nil || string(got) != tt.want {
			t.Errorf("ChooseName(%q, %q) = %q, %v, want %q", tt.given, tt.dir, got, err, tt.want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "name"), []byte("not a name\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ChooseName("", dir); err != nil || strings.Contains(string(got), " ") {
		t.Errorf("a damaged name file gives %q, %v", got, err)
	}
}

func TestLoad(t *testing.T) {
	s := NewSettings()
	c, err := s.Load([]string{"localhost", "--name", "a", "mqtts://u:p@b.example:8884", "--label", "isp=x", "--label", "note=a=b", "--allow-net", "10.1.2.3/8", "--allow-net", "192.0.2.1"}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Brokers) != 2 || c.Brokers[0].String() != "localhost:1883" || strings.Contains(c.Brokers[1].String(), "p@") {
		t.Errorf("brokers %v", c.Brokers)
	}
	if c.Labels["isp"] != "x" || c.Labels["note"] != "a=b" {
		t.Errorf("labels %v", c.Labels)
	}
	if len(c.AllowNet) != 2 || c.AllowNet[0].String() != "10.0.0.0/8" || c.AllowNet[1].String() != "192.0.2.1/32" {
		t.Errorf("networks %v", c.AllowNet)
	}
	if c.StateFile() != "" {
		t.Errorf("state file %q without a directory", c.StateFile())
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"host:0"}, {"ftp://host"}, {"--label", "x"}, {"--label", "a b=c"}, {"--allow-net", "ten"}, {"--name", "a#b"},
		{"--max-pps", "0"}, {"--max-pps", "100000"}, {"--max-targets", "0"}, {"--tls-cert", "cert.pem"}, {"--tls-ca", "/does/not/exist"},
	} {
		_, err := NewSettings().Load(append(args, "--name=x"), nil, io.Discard)
		if args[0] == "--name" {
			_, err = NewSettings().Load(args, nil, io.Discard)
		}
		if _, ok := err.(*settings.UsageError); !ok {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
}

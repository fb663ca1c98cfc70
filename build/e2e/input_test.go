//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Wrong usage exits with 2, quotes what was wrong and gives one hint.
func TestWrongUsage(t *testing.T) {
	long(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "bad.conf")
	if err := os.WriteFile(config, []byte("# settings\nbroker localhost\nintervall 5s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		want []string // on stderr
	}{
		{"swarming-agent", nil, []string{"no broker"}},
		{"swarming-agent", []string{"--nmae", "x", "localhost"}, []string{"nmae", "--name"}},
		{"swarming-agent", []string{"localhost:99999"}, []string{"localhost:99999"}},
		{"swarming-agent", []string{"--max-pps", "fast", "localhost"}, []string{`"fast"`}},
		{"swarming-agent", []string{"--label", "isp", "localhost"}, []string{`"isp"`}},
		{"swarming-agent", []string{"--allow-net", "10.0.0.0/99", "localhost"}, []string{`"10.0.0.0/99"`}},
		{"swarming-agent", []string{"--config", config}, []string{"bad.conf:3", "intervall"}},
		{"swarming-agent", []string{"--config", filepath.Join(dir, "missing")}, []string{"missing"}},
		{"swarming-agent", []string{"--name", "a/b", "localhost"}, []string{`"a/b"`}},
		{"swarming-agent", []string{"--tls-cert", "x.pem", "localhost"}, []string{"key"}},
		{"swarming-agent", []string{"ping"}, []string{"no host"}},
		{"swarming-agent", []string{"ping", "--count", "21", "localhost"}, []string{"21"}},
		{"swarming-agent", []string{"service", "instal"}, []string{`"instal"`}},
		{"swarming-collector", nil, []string{"no broker"}},
		{"swarming-collector", []string{"localhost", "--retention", "forever"}, []string{`"forever"`}},
		{"swarming-collector", []string{"localhost", "--elasticsearch", "localhost:9200"}, []string{"localhost:9200", "http://"}},
		{"swarming-collector", []string{"localhost", "--watch-file", filepath.Join(dir, "missing")}, []string{"missing"}},
		{"swarming-collector", []string{"localhost", "--listen", "9717"}, []string{`"9717"`}},
		{"swarming-collector", []string{"watch", "ste"}, []string{`"ste"`}},
		{"swarming-collector", []string{"watch", "set"}, []string{"no target"}},
		{"swarming-collector", []string{"results", "--since", "yesterday"}, []string{`"yesterday"`}},
	} {
		t.Run(tt.name+" "+strings.Join(tt.args, " "), func(t *testing.T) {
			stdout, stderr, code := runToEnd(t, nil, tt.name, tt.args...)
			if code != 2 {
				t.Errorf("exit %d, want 2", code)
			}
			if stdout != "" {
				t.Errorf("stdout: %q", stdout)
			}
			if !strings.Contains(stderr, "\nhint: ") && !strings.Contains(stderr, ": want ") {
				t.Errorf("stderr says neither what was expected nor what to try:\n%s", stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr lacks %q:\n%s", want, stderr)
				}
			}
		})
	}
}

// --check-config shows what is in force and keeps passwords to itself; a wrong
// variable in the environment is a warning.
func TestCheckConfig(t *testing.T) {
	long(t)
	env := []string{"SWARMING_AGENT_BROKER=mqtt://me:secret@one.example  two.example", "SWARMING_AGENT_MAX_PSS=3"}
	stdout, stderr, code := runToEnd(t, env, "swarming-agent", "--check-config", "--name", "x")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if strings.Contains(stdout+stderr, "secret") {
		t.Errorf("a password is shown:\n%s%s", stdout, stderr)
	}
	for _, want := range []string{"one.example", "two.example", "environment"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("stdout lacks %q:\n%s", want, stdout)
		}
	}
	if !strings.Contains(stderr, "SWARMING_AGENT_MAX_PSS") {
		t.Errorf("no warning of the unknown variable:\n%s", stderr)
	}
}

// A broker that cannot be used is one line in the log with what to try.
func TestNoBroker(t *testing.T) {
	long(t)
	port := freePort(t)
	agent := startAgent(t, "a", fmt.Sprintf("127.0.0.1:%d", port))
	agent.await("hint=")
	if !strings.Contains(agent.output(), "listen") {
		t.Errorf("the hint says nothing of a broker that must listen:\n%s", agent.output())
	}
	_, stderr, code := runToEnd(t, nil, "swarming-agent", "check", "--name", "a", fmt.Sprintf("127.0.0.1:%d", port))
	if code != 1 {
		t.Errorf("check exits with %d, want 1: %s", code, stderr)
	}
}

package main

import (
	"bytes"
	"strings"
	"testing"

	"swarming/agent/config"
	"swarming/agent/probe"
	"swarming/shared/brokertest"
	"swarming/shared/wire"
)

func command(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return out.String(), errs.String(), code
}

func TestHelp(t *testing.T) {
	stdout, stderr, code := command("--help")
	if code != 0 || stderr != "" {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	for _, name := range config.NewSettings().Set.Names() {
		if !strings.Contains(stdout, "--"+name) {
			t.Errorf("help lacks --%s", name)
		}
	}
	for _, args := range [][]string{{"ping", "--help"}, {"service", "--help"}, {"help"}} {
		if stdout, _, code := command(args...); code != 0 || !strings.Contains(stdout, "Usage:") {
			t.Errorf("%q: exit %d, %q", args, code, stdout)
		}
	}
}

func TestVersion(t *testing.T) {
	if stdout, _, code := command("--version"); code != 0 || !strings.HasPrefix(stdout, "swarming-agent ") {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

// mayPing skips a test where this machine does not permit echo requests.
func mayPing(t *testing.T) {
	t.Helper()
	for _, c := range probe.Capabilities() {
		if c.Family == 4 && c.Err != nil {
			t.Skipf("needs permission to ping: %s", c.Hint)
		}
	}
}

func TestPing(t *testing.T) {
	mayPing(t)
	stdout, stderr, code := command("ping", "--count", "2", "--gap", "200ms", "127.0.0.1")
	if code != 0 || !strings.Contains(stdout, "HOST") || !strings.Contains(stdout, "127.0.0.1") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	// An IPv4 address has no IPv6 side, which is found without asking a name server.
	stdout, _, code = command("ping", "--count", "1", "--json", "--family", "both", "127.0.0.1")
	if code != 1 {
		t.Errorf("exit %d with a host that has no such address, want 1", code)
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %q", len(lines), stdout)
	}
	for i, line := range lines {
		r, err := wire.DecodeResult([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if answered := r.Recv == 1; answered != (i == 0) {
			t.Errorf("line %d: %s", i, line)
		}
	}
}

func TestCheck(t *testing.T) {
	b, err := brokertest.StartEmbedded(brokertest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	brokertest.Publish(t, b.Addr(), "watch", []byte("one.example two.example"), true)
	// A collector's heartbeat would not be stored by a broker; the test is one.
	stop := make(chan struct{})
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		for {
			select {
			case <-stop:
				return
			default:
				brokertest.Publish(t, b.Addr(), "live/collector/c1", wire.LiveCollector{Name: "c1", Boot: "b"}.Encode(), false)
			}
		}
	}()
	stdout, _, _ := command("check", "--name", "a", b.Addr())
	close(stop)
	<-beating
	for _, want := range []string{"ping over IPv4", "clock", "broker " + b.Addr(), "heard c1", "2 targets, 0 refused"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("check lacks %q:\n%s", want, stdout)
		}
	}
	if stdout, _, code := command("check", "--name", "a"); code != 1 || !strings.Contains(stdout, "FAIL") {
		t.Errorf("without a broker: exit %d, %q", code, stdout)
	}
}

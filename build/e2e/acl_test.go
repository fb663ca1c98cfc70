//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"swarming/collector/watch"
	"swarming/shared/brokertest"
)

const examples = "../../packaging/examples"

// closed starts a broker with the ACL of the examples and three users, each
// with the password "secret".
func closed(t *testing.T) *brokertest.Mosquitto {
	t.Helper()
	dir, err := os.MkdirTemp("", "swarming-acl-") // mosquitto gives up root: it must reach this
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	acl, err := os.ReadFile(filepath.Join(examples, "mosquitto.acl"))
	if err != nil {
		t.Fatal(err)
	}
	passwords := filepath.Join(dir, "passwd")
	var users strings.Builder
	for _, u := range []string{"garage", "attic", "collector"} {
		fmt.Fprintf(&users, "%s:secret\n", u)
	}
	for name, content := range map[string]string{filepath.Join(dir, "acl"): string(acl), passwords: users.String()} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	needClients(t)
	if out, err := exec.Command("mosquitto_passwd", "-U", passwords).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	if err := os.Chmod(passwords, 0o644); err != nil {
		t.Fatal(err)
	}
	return brokertest.Mosquittos(t, 1, brokertest.Options{Config: fmt.Sprintf("allow_anonymous false\npassword_file %s\nacl_file %s\n", passwords, filepath.Join(dir, "acl"))})[0]
}

// With the ACL of the README a known agent is heard, one that uses another's
// name is not, and an agent cannot change the watch list.
func TestACL(t *testing.T) {
	long(t)
	b := closed(t)
	as := func(user string) string { return fmt.Sprintf("mqtt://%s:secret@%s", user, b.Addr()) }
	c := startCollector(t, as("collector"))
	if _, stderr, code := runToEnd(t, nil, "swarming-collector", append([]string{"watch", "set", "--broker", as("collector")}, loopbacks(20)...)...); code != 0 {
		t.Fatalf("watch set: exit %d: %s", code, stderr)
	}
	agent := startAgent(t, "garage", as("garage"))
	eventually(t, "results of a known agent", func() error { return has(c, "garage", "127.0.1.1") })

	// mosquitto confirms what its ACL drops.
	if _, stderr, code := runToEnd(t, nil, "swarming-collector", "watch", "set", "--broker", as("attic"), "--none"); code != 0 {
		t.Fatalf("watch set: exit %d: %s", code, stderr)
	}
	stdout, stderr, code := runToEnd(t, nil, "swarming-collector", "watch", "show", "--broker", as("collector"))
	if code != 0 || !strings.Contains(stdout, "127.0.1.20") {
		t.Errorf("an agent's user changed the list: exit %d: %s%s", code, stdout, stderr)
	}
	wrong := startAgent(t, "garage2", fmt.Sprintf("mqtt://garage:wrong@%s", b.Addr()))
	wrong.await("hint=")
	if said := wrong.output(); !strings.Contains(said, "password") || strings.Contains(said, ":wrong@") {
		t.Errorf("a wrong password is not explained, or shown:\n%s", said)
	}
	agent.stop()
	eventually(t, "all results", func() error {
		rows := c.results()
		if len(rows) == 0 {
			return errors.New("none")
		}
		return missing(rows)
	})
}

// The examples are what the programs take.
func TestExamples(t *testing.T) {
	long(t)
	for program, file := range map[string]string{"swarming-agent": "agent.conf", "swarming-collector": "collector.conf"} {
		stdout, stderr, code := runToEnd(t, nil, program, "--check-config", "--config", filepath.Join(examples, file))
		if code != 0 || !strings.Contains(stdout, file+":") || strings.Contains(stdout, "secret") {
			t.Errorf("%s: exit %d\n%s%s", file, code, stdout, stderr)
		}
	}
	if w, err := watch.ReadFile(filepath.Join(examples, "watch.yaml")); err != nil || len(w.Targets) != 3 {
		t.Errorf("watch.yaml: %d targets, %v", len(w.Targets), err)
	}
}

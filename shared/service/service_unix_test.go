//go:build unix

package service

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSignalEndsRun(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := start(t, "waits")
		p.says(t, "ready")
		if err := p.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		p.says(t, "stopping")
		if code := p.ends(t); code != 0 {
			t.Errorf("after %v: exit code %d, want 0", s, code)
		}
	}
}

func TestSecondSignalExitsAtOnce(t *testing.T) {
	p := start(t, "stubborn")
	p.says(t, "ready")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.says(t, "stopping")
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.ends(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

func TestControlWithoutRights(t *testing.T) {
	if os.Geteuid() == 0 {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("root: the test runs again as nobody, %s", exe)
		runAsNobody(t, exe)
		return
	}
	err := Control(Config{Name: "swarming-test"}, "install")
	if err == nil || !strings.Contains(err.Error(), "use sudo swarming-test service install") {
		t.Errorf("Control = %v, want the command that has the rights", err)
	}
}

// runAsNobody runs this test again in a process that has no rights.
func runAsNobody(t *testing.T, exe string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "service-test")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "service.test")
	program, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied, "-test.run=^TestControlWithoutRights$", "-test.v")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestControlWithoutRights") {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// What systemd itself says about the unit.
func TestSystemdUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("this system has no systemd-analyze to ask")
	}
	path := filepath.Join(t.TempDir(), "swarming-test.service")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := systemdUnit(Config{Name: "swarming-test", Description: "A test, 100% harmless", Arguments: []string{"--label=site=main street", `a"b\c$d%e`}}, exe)
	if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), path) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

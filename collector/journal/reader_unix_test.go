//go:build unix

package journal

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// readAsNobody reads the journal in dir in a process without the right to write
// there, and returns what it says.
func readAsNobody(t *testing.T, dir string) string {
	t.Helper()
	if os.Getuid() != 0 {
		lacks(t, "needs root to start a process of another user")
	}
	// A copy of the test binary, and a way to it and to dir that anybody may go.
	binary := filepath.Join(dir, "reader")
	b, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(binary, b, 0o755))
	defer os.Remove(binary)
	for d := dir; d != os.TempDir() && d != "/" && strings.HasPrefix(d, os.TempDir()); d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	cmd := exec.Command(binary)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), readDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// People without any right to write read the journal of a running and of a
// stopped collector; of one that was killed they are told what to do.
func TestReaderWithoutRights(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	fill(t, j, 2)
	if got := readAsNobody(t, dir); got != "2000" {
		t.Errorf("running: %s, want 2000", got)
	}
	killed := killedCopy(t, dir)
	must(t, j.Close())
	if got := readAsNobody(t, dir); got != "2000" {
		t.Errorf("stopped: %s, want 2000", got)
	}
	must(t, os.Chmod(filepath.Join(killed, FileName), 0o644))
	must(t, os.Chmod(filepath.Join(killed, FileName+"-wal"), 0o644))
	if got := readAsNobody(t, killed); got != "2000" && !strings.Contains(got, "copy the directory") {
		t.Errorf("killed: %s, want 2000 or what to do", got)
	}
	j = open(t, Options{Dir: dir})
	fill(t, j, 3)
}

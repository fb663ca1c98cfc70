package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const childVar = "SERVICE_TEST_CHILD"

// TestMain makes the test binary its own child: a program that runs under Run.
func TestMain(m *testing.M) {
	if how := os.Getenv(childVar); how != "" {
		os.Exit(child(how))
	}
	os.Exit(m.Run())
}

func child(how string) int {
	err := Run("child", func(ctx context.Context) error {
		fmt.Println("ready")
		switch how {
		case "ends":
			return nil
		case "fails":
			return errors.New("broken")
		case "stubborn":
			<-ctx.Done()
			fmt.Println("stopping")
			select {} // until the second signal
		}
		<-ctx.Done()
		fmt.Println("stopping")
		return fmt.Errorf("wait: %w", ctx.Err())
	})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// A program is a running child.
type program struct {
	cmd   *exec.Cmd
	lines chan string
}

func start(t *testing.T, how string) *program {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel) // kills a child that hangs
	p := &program{cmd: exec.CommandContext(ctx, exe), lines: make(chan string, 16)}
	p.cmd.Env = append(os.Environ(), childVar+"="+how)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p
}

// says waits for the child's next line.
func (p *program) says(t *testing.T, want string) {
	t.Helper()
	if got, ok := <-p.lines; got != want {
		t.Fatalf("the child says %q (more: %v), want %q", got, ok, want)
	}
}

// ends waits for the child's end and returns its exit code.
func (p *program) ends(t *testing.T) int {
	t.Helper()
	for line := range p.lines {
		t.Fatalf("the child says %q, want its end", line)
	}
	_ = p.cmd.Wait() // the code says it
	return p.cmd.ProcessState.ExitCode()
}

func TestRunEndsByItself(t *testing.T) {
	p := start(t, "ends")
	p.says(t, "ready")
	if code := p.ends(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	p = start(t, "fails")
	p.says(t, "ready")
	p.says(t, "error: broken")
	if code := p.ends(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

func TestUnknownAction(t *testing.T) {
	err := Control(Config{Name: "swarming-test"}, "explode")
	if err == nil || !strings.Contains(err.Error(), `"explode": want one of install, uninstall`) {
		t.Errorf("Control = %v, want an error that quotes the action and lists the known ones", err)
	}
}

func TestCheckInstall(t *testing.T) {
	for _, c := range []struct {
		program, platform string
		arguments         []string
		want              string // part of the error; "" for none
	}{
		{"/usr/local/bin/swarming-agent", "linux-systemd", []string{"--label=site=main street", "a$b%c"}, ""},
		{"/usr/local/bin/swarming-agent", "linux-procd", []string{"--broker=localhost"}, ""},
		{"/usr/local/bin/swarming-agent", "linux-procd", []string{"--label=site=main street"}, "--config"},
		{"/usr/local/bin/swarming-agent", "linux-systemd", []string{"a\nExecStartPre=/bin/sh"}, "control character"},
		{"/usr/local/bin/swarming-agent", "linux-systemd", []string{"{{Name}}"}, "{{"},
		{"/tmp/go-build123/b001/exe/swarming-agent", "linux-systemd", nil, "go run"},
	} {
		err := checkInstall(Config{Name: "swarming-agent", Arguments: c.arguments}, c.program, c.platform)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s on %s with %q: %v, want %q", c.program, c.platform, c.arguments, err, c.want)
		}
	}
}

func TestSystemdWord(t *testing.T) {
	for in, want := range map[string]string{
		"plain":          `"plain"`,
		"two words":      `"two words"`,
		`q"u\o`:          `"q\"u\\o"`,
		"100%":           `"100%%"`,
		"$HOME ${PATH}":  `"$$HOME $${PATH}"`,
		"--broker=a:1/é": `"--broker=a:1/é"`,
	} {
		if got := systemdWord(in); got != want {
			t.Errorf("systemdWord(%q) = %s, want %s", in, got, want)
		}
	}
}

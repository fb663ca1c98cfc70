//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"swarming/shared/brokertest"
)

// deadline is how long anything may take that should happen within seconds:
// a bound on liveness, not a measurement.
const deadline = 90 * time.Second

// programs is the directory of the two programs, built once.
var programs string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "swarming-e2e-")
	if err != nil {
		return 0, fmt.Errorf("make directory for programs: %w", err)
	}
	defer os.RemoveAll(dir)
	programs = dir
	build := exec.Command("go", "build", "-o", dir, "swarming/agent/cmd/swarming-agent", "swarming/collector/cmd/swarming-collector")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build programs: %w\n%s", err, out)
	}
	// The tests wait for brokers and intervals far more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		return 0, fmt.Errorf("run tests beside each other: %w", err)
	}
	return m.Run(), nil
}

// long marks a test that mostly waits: it is left out of short runs and runs
// beside others.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("short")
	}
	t.Parallel()
}

// A process is a program that runs until the test stops it.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd

	mu      sync.Mutex
	out     bytes.Buffer // stdout and stderr
	changed chan struct{}
	done    chan struct{}
	err     error
}

// start starts a program, built or installed, and kills it when the test ends.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	path := name
	if strings.HasPrefix(name, "swarming-") {
		path = filepath.Join(programs, name)
	}
	p := &process{t: t, name: name, cmd: exec.Command(path, args...), changed: make(chan struct{}), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGCONT)
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s %s said:\n%s", name, strings.Join(args, " "), p.output())
		}
	})
	return p
}

// Write takes what the process says.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Write(b)
	close(p.changed)
	p.changed = make(chan struct{})
	return len(b), nil
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// await returns when the process has said text.
func (p *process) await(text string) {
	p.t.Helper()
	timeout := time.After(deadline)
	for {
		p.mu.Lock()
		found, changed := strings.Contains(p.out.String(), text), p.changed
		p.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-p.done:
			p.t.Fatalf("%s ended without saying %q:\n%s", p.name, text, p.output())
		case <-timeout:
			p.t.Fatalf("%s did not say %q within %v:\n%s", p.name, text, deadline, p.output())
		}
	}
}

// stop sends SIGTERM and returns the exit code.
func (p *process) stop() int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	return p.wait()
}

func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait()
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s with %v: %v", p.name, s, err)
	}
}

func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(deadline):
		p.t.Fatalf("%s did not end within %v:\n%s", p.name, deadline, p.output())
	}
	return p.cmd.ProcessState.ExitCode()
}

// runToEnd runs a program that ends by itself.
func runToEnd(t *testing.T, env []string, name string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, name), args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatalf("run %s: %v", name, err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// eventually asks again and again until what is true, and fails the test with
// its last answer after the deadline.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	eventuallyWithin(t, deadline, what, ask)
}

func eventuallyWithin(t *testing.T, limit time.Duration, what string, ask func() error) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(limit)
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not within %v: %s: %v", limit, what, err)
		}
	}
}

// freePort returns a loopback port that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A collectorProcess is a running swarming-collector and where to find it.
type collectorProcess struct {
	*process
	t      *testing.T
	data   string
	listen string
	args   []string
}

// startCollector starts a collector with a journal of its own.
func startCollector(t *testing.T, args ...string) *collectorProcess {
	t.Helper()
	c := &collectorProcess{t: t, data: t.TempDir(), listen: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	c.args = append([]string{"--data", c.data, "--listen", c.listen}, args...)
	c.again()
	return c
}

// again starts it, anew after it ended, on the same journal.
func (c *collectorProcess) again() {
	c.t.Helper()
	c.process = start(c.t, "swarming-collector", c.args...)
	c.await("collector starts") // its journal is open
}

// A row is one line of `swarming-collector results --json`.
type row struct {
	Agent, Boot, Target, Cause string
	Seq                        uint64
	Sent, Recv                 int
	At, Received               time.Time
}

// results reads the journal by the collector's own subcommand.
func (c *collectorProcess) results() []row {
	c.t.Helper()
	stdout, stderr, code := runToEnd(c.t, nil, "swarming-collector", "results", "--data", c.data, "--since", "1d", "--json")
	if code != 0 {
		c.t.Fatalf("results: exit %d: %s", code, stderr)
	}
	var rows []row
	for lines := bufio.NewScanner(strings.NewReader(stdout)); lines.Scan(); {
		var r row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			c.t.Fatalf("results line %q: %v", lines.Text(), err)
		}
		rows = append(rows, r)
	}
	return rows
}

// checkComplete fails the test when a result is stored twice or one below the
// highest seq of its agent and boot is missing. It returns how many there are.
func checkComplete(t *testing.T, rows []row) int {
	t.Helper()
	type life struct{ agent, boot string }
	seen := map[life]map[uint64]bool{}
	highest := map[life]uint64{}
	for _, r := range rows {
		l := life{r.Agent, r.Boot}
		if seen[l] == nil {
			seen[l] = map[uint64]bool{}
		}
		if seen[l][r.Seq] {
			t.Errorf("%v seq %d is stored twice", l, r.Seq)
		}
		seen[l][r.Seq] = true
		highest[l] = max(highest[l], r.Seq)
	}
	for l, n := range highest {
		if got := uint64(len(seen[l])); got != n {
			t.Errorf("%v: %d results stored of %d", l, got, n)
		}
	}
	return len(rows)
}

// get reads a page of the collector's HTTP.
func (c *collectorProcess) get(path string) (status int, body string, err error) {
	resp, err := http.Get("http://" + c.listen + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	return resp.StatusCode, b.String(), err
}

// startAgent starts an agent that may ping loopback.
func startAgent(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return start(t, "swarming-agent", append([]string{"--name", name, "--allow-net", "127.0.0.0/8", "--allow-net", "::1/128"}, args...)...)
}

// addrs returns the addresses of brokers, as command lines name them.
func addrs(brokers []*brokertest.Mosquitto) []string {
	out := make([]string, len(brokers))
	for i, b := range brokers {
		out[i] = b.Addr()
	}
	return out
}

// fast is a watch list whose targets have as many results as politeness allows.
func fast(targets ...string) string {
	type entry struct {
		Target   string `json:"target"`
		Interval string `json:"interval"`
		Count    int    `json:"count"`
		Gap      string `json:"gap"`
		Timeout  string `json:"timeout"`
	}
	list := struct {
		Targets []entry `json:"targets"`
	}{}
	for _, t := range targets {
		list.Targets = append(list.Targets, entry{t, "10s", 1, "200ms", "1s"})
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// loopbacks returns n addresses that all answer on Linux.
func loopbacks(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("127.0.%d.%d", 1+i/250, 1+i%250)
	}
	return out
}

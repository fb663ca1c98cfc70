// Package estest starts a real Elasticsearch node on loopback for tests, from
// the kit in build/elasticsearch.
//
// A node costs seconds and some 400 MB, so a package's tests share one:
//
//	var node estest.Shared // TestMain closes it
//
//	func TestX(t *testing.T) { n := node.Get(t, estest.Options{}); … }
//
// A test process that dies, however it dies, takes its nodes along.
package estest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// ErrNotInstalled says that this machine has not what the kit needs.
var ErrNotInstalled = errors.New("needs a JDK with javac, mvn and curl (apt-get install default-jdk-headless maven curl openssl)")

// startTimeout is generous: a first start fetches 125 MB.
const startTimeout = 10 * time.Minute

// Options say what kind of node to start. The zero value is a node without
// security on a free port.
type Options struct {
	Secure   bool     // TLS with an own CA, the user elastic, API keys
	Heap     string   // default 256m
	Settings []string // lines of elasticsearch.yml: "cluster.max_shards_per_node: 1"
}

// A Node is a running Elasticsearch node and a cluster of its own. Its methods
// are for one goroutine at a time.
type Node struct {
	URL      string // http://127.0.0.1:PORT, https with Options.Secure
	CA       string // PEM file; empty without Options.Secure
	User     string
	Password string

	opts Options
	dir  string
	port int
	cmd  *exec.Cmd
	in   io.WriteCloser
}

// Start starts a node and waits until it answers. It fails with
// [ErrNotInstalled] on a machine without the tools.
func Start(ctx context.Context, o Options) (*Node, error) {
	for _, tool := range []string{"bash", "javac", "mvn", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotInstalled, err)
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	// Not t.TempDir: Elasticsearch runs under another user when we are root, and must reach it.
	dir, err := os.MkdirTemp("/var/tmp", "swarming-estest-")
	if err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	n := &Node{opts: o, dir: dir, port: port}
	if err := n.run(ctx); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// run starts start.sh on the node's directory and reads what it prints once
// the node is ready.
func (n *Node) run(ctx context.Context) error {
	script, err := findScript()
	if err != nil {
		return err
	}
	heap := n.opts.Heap
	if heap == "" {
		heap = "256m"
	}
	args := []string{script, "run", n.dir, "-p", strconv.Itoa(n.port), "-x", heap, "-w"}
	if n.opts.Secure {
		args = append(args, "-S")
	}
	for _, s := range n.opts.Settings {
		args = append(args, "-E", s)
	}
	cmd := exec.Command("bash", args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start node: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start node: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node: %w", err)
	}
	n.cmd, n.in = cmd, in
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	if err := n.read(out); err != nil {
		n.wait()
		return fmt.Errorf("start node: %w\n%s", err, log.Bytes())
	}
	return nil
}

// read takes NAME=value lines until the last of them.
func (n *Node) read(out io.Reader) error {
	last := "ES_PID"
	if n.opts.Secure {
		last = "ES_CA"
	}
	for sc := bufio.NewScanner(out); sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), "=")
		switch name {
		case "ES_URL":
			n.URL = value
		case "ES_USER":
			n.User = value
		case "ES_PASSWORD":
			n.Password = value
		case "ES_CA":
			n.CA = value
		}
		if name == last {
			return nil
		}
	}
	return errors.New("start.sh ended before the node was ready")
}

// wait closes the script's stdin, which stops the node, and waits for it. The
// script would take its stdin's end for our death and remove the data, too.
func (n *Node) wait() {
	if n.cmd == nil {
		return
	}
	_, _ = io.WriteString(n.in, "keep\n") // fails if the script has ended
	n.in.Close()
	_ = n.cmd.Wait()
	n.cmd = nil
}

// Stop stops the node as an administrator would; its data stay.
func (n *Node) Stop() { n.wait() }

// Kill ends the node with SIGKILL; its data stay as a crash leaves them.
func (n *Node) Kill() error {
	pid, err := n.PID()
	if err != nil {
		return err
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("kill node: %w", err)
	}
	if err := p.Kill(); err != nil {
		return fmt.Errorf("kill node: %w", err)
	}
	n.wait()
	return nil
}

// PID returns the process id of the node.
func (n *Node) PID() (int, error) {
	b, err := os.ReadFile(filepath.Join(n.dir, "es.pid"))
	if err != nil {
		return 0, fmt.Errorf("read pid: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// Restart starts the node again after Stop or Kill, on the same port and data,
// and waits until it answers.
func (n *Node) Restart(ctx context.Context) error { return n.run(ctx) }

// Close stops the node and removes its data.
func (n *Node) Close() {
	n.wait()
	_ = os.RemoveAll(n.dir)
}

// A Shared is one node for all the tests of a package. Its zero value is ready;
// TestMain calls Close after the tests.
type Shared struct {
	once sync.Once
	node *Node
	err  error
}

// Get returns the node, starting it on the first call. Without the tools it
// skips the test, or fails it where CI=true. Only the first call's options count.
func (s *Shared) Get(t testing.TB, o Options) *Node {
	t.Helper()
	s.once.Do(func() { s.node, s.err = Start(context.Background(), o) })
	check(t, s.err)
	return s.node
}

// Close stops the node, if any test asked for one.
func (s *Shared) Close() {
	if s.node != nil {
		s.node.Close()
	}
}

// New starts a node for one test, stopped when the test ends. Without the
// tools it skips the test, or fails it where CI=true.
func New(t testing.TB, o Options) *Node {
	t.Helper()
	n, err := Start(t.Context(), o)
	check(t, err)
	t.Cleanup(n.Close)
	return n
}

func check(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrNotInstalled) && os.Getenv("CI") != "true":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// findScript looks for the kit upward from the working directory, which in a
// test is the package's.
func findScript() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find start.sh: %w", err)
	}
	for {
		script := filepath.Join(dir, "build", "elasticsearch", "start.sh")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find start.sh: no build/elasticsearch above the working directory")
		}
		dir = up
	}
}

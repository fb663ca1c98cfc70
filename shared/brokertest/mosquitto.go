package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// ErrNotInstalled says that there is no mosquitto on this machine.
var ErrNotInstalled = errors.New("mosquitto is not installed (Debian: apt-get install mosquitto)")

// Options for a broker. The zero value is a broker as a new user has it.
type Options struct {
	Port int // 0: a free one, kept over restarts
	// Config holds lines of mosquitto.conf. When it and all the fields below
	// are empty, mosquitto runs without a file, as `mosquitto -p PORT`. Otherwise
	// its file is `listener PORT 127.0.0.1`, `allow_anonymous true` (unless
	// Config has an allow_anonymous of its own), and then these lines.
	Config      string
	Persistence bool      // keep sessions and retained messages over a Stop, in Dir
	Dir         string    // for configuration, certificates and persistence; default: a temporary one, removed by Close
	Log         io.Writer // gets what mosquitto prints, too; writes come from one goroutine
	TLS         bool      // the listener speaks TLS, with a certificate for localhost and 127.0.0.1 from CA
	ClientCerts bool      // with TLS: clients need a certificate from CA; its CN is their user name
	CA          *CA       // default with TLS: a new one in Dir
}

// A Mosquitto is one mosquitto process at a time. Its methods may be called
// concurrently.
type Mosquitto struct {
	options Options
	program string
	dir     string
	ownDir  bool
	log     logBuffer

	mu     sync.Mutex
	port   int
	cmd    *exec.Cmd
	exited chan struct{} // closed once cmd has been waited for
}

// StartMosquitto starts a mosquitto and waits until it accepts connections.
// ctx bounds the wait, not the life of the process, which ends with Close or,
// on Linux, with this process. [ErrNotInstalled] when there is none.
func StartMosquitto(ctx context.Context, o Options) (*Mosquitto, error) {
	program, err := findMosquitto()
	if err != nil {
		return nil, err
	}
	m := &Mosquitto{options: o, program: program, dir: o.Dir, log: logBuffer{also: o.Log}}
	if m.dir == "" && !m.plain() {
		if m.dir, err = os.MkdirTemp("", "mosquitto-"); err != nil {
			return nil, fmt.Errorf("start mosquitto: %w", err)
		}
		m.ownDir = true
	}
	if o.TLS && o.CA == nil {
		if m.options.CA, err = NewCA(m.dir); err != nil {
			m.Close()
			return nil, fmt.Errorf("start mosquitto: %w", err)
		}
	}
	if err := m.startSomewhere(ctx); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// findMosquitto looks where Debian installs it, too: not in an ordinary user's PATH.
func findMosquitto() (string, error) {
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNotInstalled
}

// startSomewhere tries other ports when the one found free was taken meanwhile.
func (m *Mosquitto) startSomewhere(ctx context.Context) error {
	if m.options.Port != 0 {
		m.port = m.options.Port
		return m.start(ctx)
	}
	var err error
	for range 5 {
		if m.port, err = freePort(); err != nil {
			return err
		}
		if err = m.start(ctx); err == nil || ctx.Err() != nil || !bytes.Contains([]byte(m.Log()), []byte("Address already in use")) {
			return err
		}
	}
	return err
}

// start runs the process on m.port and waits until it accepts.
func (m *Mosquitto) start(ctx context.Context) error {
	args, err := m.arguments()
	if err != nil {
		return fmt.Errorf("start mosquitto: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running() {
		return errors.New("start mosquitto: it is running")
	}
	from := m.log.len()
	cmd := exec.Command(m.program, args...)
	cmd.Stdout, cmd.Stderr = &m.log, &m.log
	cmd.SysProcAttr = attributes(m.plain())
	exited := make(chan struct{})
	started := make(chan error)
	go func() {
		// The kernel's "parent" of a dying parent is this thread: it must live
		// as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start mosquitto: %w", err)
	}
	m.cmd, m.exited = cmd, exited
	if err := m.awaitReady(ctx, from); err != nil {
		_ = cmd.Process.Kill()
		<-exited
		return fmt.Errorf("start mosquitto on port %d: %w; it printed:\n%s", m.port, err, m.log.from(from))
	}
	return nil
}

// awaitReady waits for the port, and for the log to say that it is ours.
func (m *Mosquitto) awaitReady(ctx context.Context, from int) error {
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.exited:
			return fmt.Errorf("it ended at once: %v", m.cmd.ProcessState)
		case <-tick.C:
		}
		// A config may have turned the log off.
		if !bytes.Contains(m.log.from(from), []byte(" running")) && time.Since(began) < 5*time.Second {
			continue
		}
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", m.Addr())
		if err == nil {
			_ = conn.Close()
			return nil
		}
	}
}

// Addr returns "127.0.0.1:PORT".
func (m *Mosquitto) Addr() string { return loopback(m.port) }

// Port returns the port it listens on, the same over restarts.
func (m *Mosquitto) Port() int { return m.port }

// CA returns the authority of its certificate; nil without TLS.
func (m *Mosquitto) CA() *CA { return m.options.CA }

// Log returns what it has printed, over all restarts.
func (m *Mosquitto) Log() string { return string(m.log.from(0)) }

// PID returns the process id; 0 when it is not running.
func (m *Mosquitto) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running() {
		return 0
	}
	return m.cmd.Process.Pid
}

// running needs mu.
func (m *Mosquitto) running() bool {
	if m.cmd == nil {
		return false
	}
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// Stop ends it in order (SIGTERM: it publishes wills and saves what is to
// persist) and waits. One that has not ended after 5 s is killed, which is an
// error. Stopping what is not running is not.
func (m *Mosquitto) Stop() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running() {
		return nil
	}
	thaw(m.cmd.Process)
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		_ = m.cmd.Process.Kill() // Windows has no SIGTERM
		<-m.exited
		return nil
	}
	select {
	case <-m.exited:
		return nil
	case <-time.After(5 * time.Second):
		_ = m.cmd.Process.Kill()
		<-m.exited
		return errors.New("stop mosquitto: still there 5 s after SIGTERM")
	}
}

// Kill ends it at once (SIGKILL: no wills, nothing saved) and waits.
func (m *Mosquitto) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running() {
		_ = m.cmd.Process.Kill()
		<-m.exited
	}
}

// Freeze stops the process without ending it (SIGSTOP): its connections stay
// open and silent, new ones are accepted by the kernel only.
func (m *Mosquitto) Freeze() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running() {
		return errors.New("freeze mosquitto: it is not running")
	}
	return freeze(m.cmd.Process)
}

// Thaw lets a frozen process go on.
func (m *Mosquitto) Thaw() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running() {
		thaw(m.cmd.Process)
	}
}

// Restart stops it if it is running and starts it again with the same port and
// configuration, and waits until it accepts, at most 10 s.
func (m *Mosquitto) Restart() error {
	if err := m.Stop(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return m.start(ctx)
}

// Close kills it, waits, and removes its temporary directory. It is idempotent.
func (m *Mosquitto) Close() {
	m.Kill()
	if m.ownDir {
		_ = os.RemoveAll(m.dir)
	}
}

// plain tells whether it runs without a configuration file.
func (m *Mosquitto) plain() bool {
	return m.options.Config == "" && !m.options.TLS && !m.options.Persistence
}

// arguments writes the configuration file, if there is to be one.
func (m *Mosquitto) arguments() ([]string, error) {
	o := m.options
	if m.plain() {
		return []string{"-p", strconv.Itoa(m.port)}, nil
	}
	var b bytes.Buffer
	if os.Geteuid() == 0 {
		b.WriteString("user root\n") // otherwise it becomes a user who may not read our files
	}
	if !bytes.Contains([]byte(o.Config), []byte("allow_anonymous")) {
		b.WriteString("allow_anonymous true\n")
	}
	if o.Persistence {
		fmt.Fprintf(&b, "persistence true\npersistence_location %s/\n", m.dir)
	}
	fmt.Fprintf(&b, "listener %d 127.0.0.1\n", m.port)
	if o.TLS {
		cert, key, err := o.CA.Issue(Certificate{Name: "localhost", Hosts: []string{"localhost", "127.0.0.1"}})
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "cafile %s\ncertfile %s\nkeyfile %s\n", o.CA.File(), cert, key)
		if o.ClientCerts {
			b.WriteString("require_certificate true\nuse_identity_as_username true\n")
		}
	}
	b.WriteString(o.Config)
	b.WriteByte('\n')
	file := filepath.Join(m.dir, "mosquitto.conf")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return nil, err
	}
	return []string{"-c", file}, nil
}

// maxLog bounds what is kept of a log, in bytes.
const maxLog = 4 << 20

// A logBuffer keeps what is printed.
type logBuffer struct {
	mu   sync.Mutex
	b    []byte
	also io.Writer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.b) < maxLog {
		l.b = append(l.b, p...)
	}
	if l.also != nil {
		return l.also.Write(p)
	}
	return len(p), nil
}

func (l *logBuffer) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.b)
}

func (l *logBuffer) from(i int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b[i:])
}

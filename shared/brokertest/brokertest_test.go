package brokertest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

func answers(addr string, within time.Duration) error {
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr).SetProtocolVersion(4).SetConnectTimeout(within))
	t := c.Connect()
	t.Wait()
	if t.Error() == nil {
		c.Disconnect(250)
	}
	return t.Error()
}

func TestMosquittoLife(t *testing.T) {
	m := Mosquittos(t, 1)[0]
	addr, pid := m.Addr(), m.PID()
	if err := answers(addr, Deadline); err != nil {
		t.Fatal(err)
	}
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := answers(addr, 200*time.Millisecond); err == nil {
		t.Error("it answers though it is frozen")
	}
	m.Thaw()
	if err := answers(addr, Deadline); err != nil {
		t.Errorf("after thawing: %v", err)
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	if m.Addr() != addr || m.PID() == pid || m.PID() == 0 {
		t.Errorf("restarted on %s as %d, was %s as %d", m.Addr(), m.PID(), addr, pid)
	}
	for _, end := range []func(){m.Kill, func() {
		if err := m.Freeze(); err != nil {
			t.Error(err)
		}
		if err := m.Stop(); err != nil {
			t.Errorf("stop a frozen one: %v", err)
		}
	}} {
		end()
		if m.PID() != 0 {
			t.Errorf("it has pid %d though it has ended", m.PID())
		}
		if err := answers(addr, Deadline); err == nil {
			t.Error("it answers though it has ended")
		}
		if err := m.Freeze(); err == nil {
			t.Error("it could be frozen though it has ended")
		}
		if err := m.Restart(); err != nil {
			t.Fatal(err)
		}
		if err := answers(addr, Deadline); err != nil {
			t.Fatal(err)
		}
	}
	m.Close()
	m.Close()
	if err := answers(addr, Deadline); err == nil {
		t.Error("it answers though it is closed")
	}
}

// TestMosquittoCleansUp: Close removes the directory it made, and no other.
func TestMosquittoCleansUp(t *testing.T) {
	m := Mosquittos(t, 1, Options{Config: "log_type error"})[0]
	if _, err := os.Stat(m.dir); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if _, err := os.Stat(m.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is still there: %v", err)
	}
	dir := t.TempDir()
	m = Mosquittos(t, 1, Options{Config: "log_type error", Dir: dir})[0]
	m.Close()
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("a directory that was given: %v", err)
	}
}

func TestMosquittoPersistence(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		m := Mosquittos(t, 1, Options{Persistence: keeps})[0]
		Publish(t, m.Addr(), "watch", []byte("example.com"), true)
		if err := m.Restart(); err != nil {
			t.Fatal(err)
		}
		seen := Collect(t, m.Addr(), "watch", "end")
		Publish(t, m.Addr(), "end", nil, false)
		seen.Wait("the end", func(m Message) bool { return m.Topic == "end" })
		all := seen.All()
		if kept := all[0].Topic == "watch"; kept != keeps {
			t.Errorf("persistence %v: got %v", keeps, all)
		}
	}
}

func TestMosquittoTLS(t *testing.T) {
	m := Mosquittos(t, 1, Options{TLS: true, ClientCerts: true})[0]
	pem, err := os.ReadFile(m.CA().File())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	cert, key, err := m.CA().Issue(Certificate{Name: "agent-1"})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	connect := func(certs ...tls.Certificate) error {
		o := paho.NewClientOptions().AddBroker("ssl://localhost:" + strconv.Itoa(m.Port())).SetProtocolVersion(4)
		c := paho.NewClient(o.SetTLSConfig(&tls.Config{RootCAs: roots, Certificates: certs}))
		token := c.Connect()
		token.Wait()
		if token.Error() == nil {
			c.Disconnect(250)
		}
		return token.Error()
	}
	if err := connect(pair); err != nil {
		t.Error(err)
	}
	if err := connect(); err == nil {
		t.Error("it takes clients without a certificate")
	}
}

func TestMosquittoErrors(t *testing.T) {
	m := Mosquittos(t, 1)[0]
	ctx, cancel := context.WithTimeout(t.Context(), Deadline)
	defer cancel()
	_, err := StartMosquitto(ctx, Options{Config: "no_such_setting 1"})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("bad configuration: %v", err)
	}
	_, err = StartMosquitto(ctx, Options{Port: m.Port()})
	if err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("port taken: %v", err)
	}
	t.Setenv("PATH", "")
	if _, err := findMosquitto(); err != nil {
		t.Errorf("not found outside of PATH: %v", err)
	}
}

// TestMosquittoDiesWithParent runs this test binary again, which starts a broker
// and is then killed.
func TestMosquittoDiesWithParent(t *testing.T) {
	if os.Getenv("BROKERTEST_PARENT") != "" {
		m, err := StartMosquitto(t.Context(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(m.PID(), m.Addr())
		select {}
	}
	if attributes(true) == nil {
		t.Skip("needs Linux")
	}
	Mosquittos(t, 1) // skips where there is none
	parent := exec.Command(os.Args[0], "-test.run=^TestMosquittoDiesWithParent$")
	parent.Env = append(os.Environ(), "BROKERTEST_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var addr string
	_, err = fmt.Fscan(out, &pid, &addr)
	_ = parent.Process.Kill()
	_ = parent.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(Deadline); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return // it is gone
		}
		_ = conn.Close()
		if time.Now().After(end) {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
			t.Fatalf("the broker at %s has outlived its parent", addr)
		}
	}
}

func TestEmbeddedLife(t *testing.T) {
	e, err := StartEmbedded(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	addr := e.Addr()
	for range 3 {
		seen := Collect(t, addr, "ping/#")
		Publish(t, addr, "ping/x", []byte("hello"), false)
		seen.Wait("the message", func(m Message) bool { return string(m.Payload) == "hello" })
		if err := e.Restart(); err != nil || e.Addr() != addr {
			t.Fatalf("restart: %v on %s, was %s", err, e.Addr(), addr)
		}
	}
	if err := e.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := answers(addr, Deadline); err == nil {
		t.Error("it answers though it is stopped")
	}
	if _, err := StartEmbedded(Options{Port: Mosquittos(t, 1)[0].Port()}); err == nil {
		t.Error("it started on a port that is taken")
	}
}

package broker_test

import (
	"net"
	"sync"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// fake listens on loopback and gives every connection to serve, which it closes
// when serve returns. All have ended when the test ends.
func fake(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		open []net.Conn
	)
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// accepting serves like a broker up to the CONNACK, then calls then.
func accepting(then func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := packets.ReadPacket(conn); err != nil {
			return
		}
		if _, err := conn.Write([]byte{0x20, 2, 0, 0}); err != nil {
			return
		}
		then(conn)
	}
}

// drain reads until the peer closes.
func drain(conn net.Conn) {
	b := make([]byte, 4096)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}

// saying writes b and reads on.
func saying(b []byte) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := conn.Write(b); err == nil {
			drain(conn)
		}
	}
}

// silent neither reads nor writes until the test ends.
func silent(t testing.TB) func(net.Conn) {
	return func(net.Conn) { <-t.Context().Done() }
}

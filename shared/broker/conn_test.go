package broker_test

import (
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"

	"swarming/shared/broker"
	"swarming/shared/brokertest"
)

// TestNothingLeaks: 200 connections, half of them closed in order, leave no
// goroutine and no descriptor behind.
func TestNothingLeaks(t *testing.T) {
	m := brokertest.Mosquittos(t, 1, brokertest.Options{TLS: true})[0]
	plain := brokertest.Mosquittos(t, 1)[0]
	cycle := func(i int) {
		addr, o := plain.Addr(), broker.Options{OnMessage: func(broker.Message) {}}
		if i%4 == 0 {
			addr, o.TLS = "mqtts://"+m.Addr(), broker.TLS{CA: m.CA().File()}
		}
		c, err := broker.Dial(t.Context(), address(t, addr), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Subscribe(within(t), broker.Subscription{Filter: "ping/#"}); err != nil {
			t.Fatal(err)
		}
		c.PublishAsync(broker.Message{Topic: "ping/x", QoS: 1}, nil)
		if i%2 == 0 {
			c.Close()
		} else {
			c.Abort()
		}
		c.Close()
		_, _ = broker.Dial(t.Context(), address(t, "127.0.0.1:1"), o)
	}
	cycle(0) // what is set up once
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for i := range 200 {
		cycle(i)
	}
	// Goroutines of the runtime's own timers may need a moment to go.
	for end := time.Now().Add(deadline); runtime.NumGoroutine() > goroutines+1; runtime.Gosched() {
		if time.Now().After(end) {
			var all strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&all, 1)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), goroutines, all.String())
		}
	}
	if now := descriptors(t); now > files {
		t.Errorf("%d descriptors, %d before", now, files)
	}
}

// descriptors counts those of this process; 0 where /proc does not show them.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(all)
}

// TestAsyncExactlyOnce: while brokers die under many publishers, every done is
// called once.
func TestAsyncExactlyOnce(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	for _, end := range []string{"kill", "close", "abort"} {
		c := dial(t, m.Addr(), broker.Options{})
		var called atomic.Int64
		var wg sync.WaitGroup
		started := make(chan struct{}, 1000)
		const publishers, each = 4, 3000
		for range publishers {
			wg.Go(func() {
				for range each {
					c.PublishAsync(broker.Message{Topic: "ping/x", QoS: 1, Payload: []byte("x")}, func(error) { called.Add(1) })
					select {
					case started <- struct{}{}:
					default:
					}
				}
			})
		}
		for range 500 {
			<-started
		}
		switch end {
		case "kill":
			m.Kill()
		case "close":
			c.Close()
		case "abort":
			c.Abort()
		}
		wg.Wait()
		_ = awaitDone(t, c)
		c.Close() // waits for the goroutines that call done
		if n := called.Load(); n != publishers*each {
			t.Errorf("%s: done was called %d times for %d messages", end, n, publishers*each)
		}
		if end == "kill" {
			if err := m.Restart(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSubscribeRefused needs a fake: mosquitto's acl_file grants every
// subscription and then delivers nothing; only its plugins refuse.
func TestSubscribeRefused(t *testing.T) {
	addr := fake(t, accepting(func(conn net.Conn) {
		for {
			p, err := packets.ReadPacket(conn)
			if err != nil {
				return
			}
			s, ok := p.(*packets.SubscribePacket)
			if !ok {
				return
			}
			code := byte(0)
			if s.Topics[0] == "secret/#" {
				code = 0x80
			}
			_, _ = conn.Write([]byte{0x90, 3, byte(s.MessageID >> 8), byte(s.MessageID), code})
		}
	}))
	c := dial(t, addr, broker.Options{})
	err := c.Subscribe(within(t), broker.Subscription{Filter: "ping/#"}, broker.Subscription{Filter: "secret/#", QoS: 1})
	refused, ok := errors.AsType[*broker.SubscribeError](err)
	if !ok || refused.Filter != "secret/#" {
		t.Fatalf("subscribe: %v", err)
	}
	if !strings.Contains(err.Error(), `"secret/#"`) || strings.Contains(err.Error(), "ping") || !strings.Contains(err.Error(), "access list") {
		t.Errorf("error: %v", err)
	}
	if err := c.Subscribe(within(t), broker.Subscription{Filter: "ping/x", QoS: 1}); err != nil {
		t.Errorf("what is allowed: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	c := dial(t, fake(t, accepting(drain)), broker.Options{MaxPacket: 1000})
	for _, m := range []broker.Message{
		{Topic: ""}, {Topic: "ping/+"}, {Topic: "ping/#"}, {Topic: "a\x00b"}, {Topic: strings.Repeat("x", 70_000)}, {Topic: "x", QoS: 2}, {Topic: "x", Payload: make([]byte, 1000)},
	} {
		async := make(chan error, 1)
		c.PublishAsync(m, func(err error) { async <- err })
		if err := c.Publish(within(t), m); err == nil || (<-async).Error() != err.Error() || len(err.Error()) > 300 {
			t.Errorf("%.20q: %v", m.Topic, err)
		}
	}
	for _, s := range []broker.Subscription{{}, {Filter: "x", QoS: 2}, {Filter: strings.Repeat("x", 70_000)}} {
		if err := c.Subscribe(within(t), s); err == nil {
			t.Errorf("subscription %.20q with QoS %d was accepted", s.Filter, s.QoS)
		}
	}
	if _, err := broker.Dial(t.Context(), c.Addr(), broker.Options{Will: &broker.Message{Topic: "rip/+"}}); err == nil {
		t.Error("a will with a wildcard was accepted")
	}
	if _, err := broker.Dial(t.Context(), broker.Address{}, broker.Options{}); err == nil {
		t.Error("the zero address was dialled")
	}
}

// TestTooBigFromBroker: a retained message over the limit ends the connection
// and says so.
func TestTooBigFromBroker(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	brokertest.Publish(t, m.Addr(), "watch", make([]byte, 300<<10), true)
	c := dial(t, m.Addr(), broker.Options{})
	_ = c.Subscribe(within(t), broker.Subscription{Filter: "watch"})
	if err := awaitDone(t, c); !errors.Is(err, broker.ErrPacketTooBig) {
		t.Errorf("cause: %v", err)
	}
	big := make(chan int, 1)
	c = dial(t, m.Addr(), broker.Options{MaxPacket: 1 << 20, OnMessage: func(m broker.Message) { big <- len(m.Payload) }})
	if err := c.Subscribe(within(t), broker.Subscription{Filter: "watch"}); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-big:
		if n != 300<<10 {
			t.Errorf("got %d bytes", n)
		}
	case <-within(t).Done():
		t.Error("nothing came with a higher limit")
	}
}

// TestPayloadMayBeKept: no payload changes after OnMessage has returned.
func TestPayloadMayBeKept(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	got := make(chan broker.Message, 1000)
	c := dial(t, m.Addr(), broker.Options{OnMessage: func(m broker.Message) { got <- m }})
	if err := c.Subscribe(within(t), broker.Subscription{Filter: "ping/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	const n = 200
	for i := range n {
		if err := c.Publish(within(t), broker.Message{Topic: "ping/x", Payload: []byte{byte(i), byte(i), byte(i)}, QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for end := within(t); len(got) < n; runtime.Gosched() {
		if end.Err() != nil {
			t.Fatalf("got %d", len(got))
		}
	}
	for i := range n {
		if m := <-got; string(m.Payload) != string([]byte{byte(i), byte(i), byte(i)}) {
			t.Fatalf("message %d holds % x", i, m.Payload)
		}
	}
}

// TestCloseUnderLoad: a DISCONNECT is heard even while messages pour in.
func TestCloseUnderLoad(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	seen := brokertest.Collect(t, m.Addr(), "rip/#")
	flood := dial(t, m.Addr(), broker.Options{})
	const n = 60
	for range n {
		c := dial(t, m.Addr(), broker.Options{Will: &broker.Message{Topic: "rip/x", Payload: []byte("lost")}})
		if err := c.Subscribe(within(t), broker.Subscription{Filter: "ping/#", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			flood.PublishAsync(broker.Message{Topic: "ping/x", Payload: make([]byte, 400)}, nil)
		}
		c.Close()
	}
	brokertest.Publish(t, m.Addr(), "rip/end", nil, false)
	seen.Wait("the end", func(m brokertest.Message) bool { return m.Topic == "rip/end" })
	if wills := len(seen.All()) - 1; wills > 0 {
		t.Errorf("%d of %d closed connections published their will", wills, n)
	}
}

// TestCloseFrozen: a broker that does not answer the DISCONNECT holds nobody up.
func TestCloseFrozen(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	c := dial(t, m.Addr(), broker.Options{})
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan time.Duration, 1)
	go func() {
		began := time.Now()
		c.Close()
		closed <- time.Since(began)
	}()
	select {
	case took := <-closed:
		t.Logf("Close took %v", took)
	case <-within(t).Done():
		t.Error("Close has not returned")
	}
	if !errors.Is(c.Err(), broker.ErrClosed) {
		t.Errorf("cause: %v", c.Err())
	}
}

// webSocketTo serves MQTT over WebSocket in front of a broker, cutting the stream
// into messages of a few bytes so that packets cross their boundaries.
func webSocketTo(t *testing.T, addr string) *httptest.Server {
	t.Helper()
	up := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		tcp, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer tcp.Close()
		go func() {
			defer tcp.Close()
			for {
				_, b, err := ws.ReadMessage()
				if err != nil {
					return
				}
				if _, err := tcp.Write(b); err != nil {
					return
				}
			}
		}()
		b := make([]byte, 3)
		for {
			n, err := tcp.Read(b)
			if err != nil {
				return
			}
			if err := ws.WriteMessage(websocket.BinaryMessage, b[:n]); err != nil {
				return
			}
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(s.Close)
	return s
}

func TestWebSocket(t *testing.T) {
	m := brokertest.Mosquittos(t, 1)[0]
	plain := webSocketTo(t, m.Addr())
	plain.Start()
	secure := webSocketTo(t, m.Addr())
	secure.StartTLS()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{strings.Replace(plain.URL, "http", "ws", 1) + "/mqtt", strings.Replace(secure.URL, "https", "wss", 1)} {
		got := make(chan broker.Message, 10)
		o := broker.Options{TLS: broker.TLS{CA: ca}, MaxPacket: 2000, OnMessage: func(m broker.Message) { got <- m }}
		c := dial(t, url, o)
		if err := c.Subscribe(within(t), broker.Subscription{Filter: "ping/#", QoS: 1}); err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if err := c.Publish(within(t), broker.Message{Topic: "ping/x", Payload: make([]byte, 500), QoS: 1}); err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		select {
		case m := <-got:
			if len(m.Payload) != 500 {
				t.Errorf("%s: got %d bytes", url, len(m.Payload))
			}
		case <-within(t).Done():
			t.Fatalf("%s: nothing came back", url)
		}
		brokertest.Publish(t, m.Addr(), "ping/x", make([]byte, 3000), false)
		if err := awaitDone(t, c); !errors.Is(err, broker.ErrPacketTooBig) {
			t.Errorf("%s: cause: %v", url, err)
		}
		c.Close()
	}
	wantDialError(t, strings.Replace(secure.URL, "https", "wss", 1), broker.Options{}, broker.KindTLS, "--tls-ca")
}

package broker_test

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"swarming/shared/broker"
	"swarming/shared/brokertest"
)

// payload is as long as a usual result.
var payload = make([]byte, 360)

func plainPaho(b *testing.B, addr string, handle func()) paho.Client {
	b.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetProtocolVersion(4).SetAutoReconnect(false)
	o.SetDefaultPublishHandler(func(paho.Client, paho.Message) { handle() })
	c := paho.NewClient(o)
	if t := c.Connect(); t.Wait() && t.Error() != nil {
		b.Fatal(t.Error())
	}
	b.Cleanup(func() { c.Disconnect(250) })
	return c
}

// BenchmarkReceive is the rate of the receiving client alone: the peer writes
// prepared packets as fast as they are taken. Through a mosquitto the rate is the
// broker's, see BenchmarkReceiveMosquitto.
func BenchmarkReceive(b *testing.B) {
	for qos := range byte(2) {
		b.Run(fmt.Sprintf("qos%d/broker", qos), func(b *testing.B) {
			benchmarkReceive(b, qos, func(addr string, handle func()) {
				c := dial(b, addr, broker.Options{OnMessage: func(broker.Message) { handle() }})
				if err := c.Subscribe(b.Context(), broker.Subscription{Filter: "#", QoS: qos}); err != nil {
					b.Fatal(err)
				}
			})
		})
		b.Run(fmt.Sprintf("qos%d/paho", qos), func(b *testing.B) {
			benchmarkReceive(b, qos, func(addr string, handle func()) {
				plainPaho(b, addr, handle).Subscribe("#", qos, nil).Wait()
			})
		})
	}
}

func benchmarkReceive(b *testing.B, qos byte, subscribe func(addr string, handle func())) {
	begin := make(chan struct{})
	addr := fake(b, accepting(func(conn net.Conn) { pour(conn, qos, begin, b.N) }))
	n, all := 0, make(chan struct{})
	subscribe(addr, func() {
		if n++; n == b.N {
			close(all)
		}
	})
	b.ResetTimer()
	close(begin)
	<-all
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(0, "ns/op")
}

// pour answers the SUBSCRIBE and writes n messages.
func pour(conn net.Conn, qos byte, begin <-chan struct{}, n int) {
	p, err := packets.ReadPacket(conn)
	if err != nil {
		return
	}
	id := p.Details().MessageID
	_, _ = conn.Write([]byte{0x90, 3, byte(id >> 8), byte(id), qos})
	<-begin
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		drain(conn)
	}()
	// Closing with acknowledgements unread would throw away what is still to be sent.
	defer func() { <-drained }()
	chunk := make([]byte, 0, 128<<10)
	for i := range n {
		length := 2 + 11 + 2*int(qos) + len(payload)
		chunk = append(chunk, 0x30|qos<<1, byte(length)|0x80, byte(length>>7), 0, 11)
		chunk = append(chunk, "ping/target"...)
		if qos > 0 {
			id := uint16(i%65535 + 1)
			chunk = append(chunk, byte(id>>8), byte(id))
		}
		if chunk = append(chunk, payload...); len(chunk) > 64<<10 || i == n-1 {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
			chunk = chunk[:0]
		}
	}
}

// BenchmarkPublishMosquitto is the rate of QoS 1 with 20 and with 200 messages
// in flight.
func BenchmarkPublishMosquitto(b *testing.B) {
	m := brokertest.Mosquittos(b, 1, brokertest.Options{Config: "log_type error"})[0]
	for _, window := range []int{20, 200} {
		b.Run(fmt.Sprintf("window%d/broker", window), func(b *testing.B) {
			c := dial(b, m.Addr(), broker.Options{})
			free := make(chan struct{}, window)
			b.ResetTimer()
			for range b.N {
				free <- struct{}{}
				c.PublishAsync(broker.Message{Topic: "ping/x", QoS: 1, Payload: payload}, func(err error) {
					if err != nil {
						b.Error(err)
					}
					<-free
				})
			}
			for range window {
				free <- struct{}{}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
		b.Run(fmt.Sprintf("window%d/paho", window), func(b *testing.B) {
			c := plainPaho(b, m.Addr(), func() {})
			tokens := make(chan paho.Token, window)
			var all sync.WaitGroup
			all.Go(func() {
				for t := range tokens {
					t.Wait()
				}
			})
			b.ResetTimer()
			for range b.N {
				tokens <- c.Publish("ping/x", 1, false, payload)
			}
			close(tokens)
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkReceiveMosquitto is the rate through a real broker, from four
// publishers of QoS 0.
func BenchmarkReceiveMosquitto(b *testing.B) {
	m := brokertest.Mosquittos(b, 1, brokertest.Options{Config: "log_type error\nmax_queued_messages 0\nset_tcp_nodelay true"})[0]
	for _, name := range []string{"broker", "paho"} {
		b.Run("qos0/"+name, func(b *testing.B) {
			got := make(chan struct{}, 1<<16)
			if name == "paho" {
				plainPaho(b, m.Addr(), func() { got <- struct{}{} }).Subscribe("ping/#", 0, nil).Wait()
			} else {
				c := dial(b, m.Addr(), broker.Options{OnMessage: func(broker.Message) { got <- struct{}{} }})
				if err := c.Subscribe(b.Context(), broker.Subscription{Filter: "ping/#"}); err != nil {
					b.Fatal(err)
				}
			}
			conn, err := net.Dial("tcp", m.Addr())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			_, _ = conn.Write([]byte{0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, 0})
			if _, err := packets.ReadPacket(conn); err != nil {
				b.Fatal(err)
			}
			packet := append([]byte{0x30, 0xee, 2, 0, 4}, "ping"...)
			packet = append(packet[:4], append([]byte{4}, append([]byte("ping"), payload...)...)...)
			b.ResetTimer()
			sent, received := 0, 0
			for received < b.N {
				for sent < b.N && sent-received < 200 { // what mosquitto holds for a subscriber without dropping
					if _, err := conn.Write(packet); err != nil {
						b.Fatal(err)
					}
					sent++
				}
				select {
				case <-got:
					received++
				case <-time.After(deadline):
					b.Fatalf("got %d of %d", received, sent)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkConn is what one idle connection costs.
func BenchmarkConn(b *testing.B) {
	m := brokertest.Mosquittos(b, 1, brokertest.Options{TLS: true})[0]
	plain := brokertest.Mosquittos(b, 1)[0]
	const n = 50
	measure := func(b *testing.B, open func()) {
		before, goroutines := inUse(), runtime.NumGoroutine()
		for range n {
			open()
		}
		b.ReportMetric(float64(inUse()-before)/n, "B/conn")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/n, "goroutines/conn")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("broker", func(b *testing.B) { measure(b, func() { dial(b, plain.Addr(), broker.Options{}) }) })
	b.Run("broker/tls", func(b *testing.B) {
		measure(b, func() { dial(b, "mqtts://"+m.Addr(), broker.Options{TLS: broker.TLS{CA: m.CA().File()}}) })
	})
	b.Run("paho", func(b *testing.B) { measure(b, func() { plainPaho(b, plain.Addr(), func() {}) }) })
}

// inUse is heap and stacks, in bytes.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc + s.StackInuse
}

package probe

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// processor returns the time all threads of this process have used, the
// kernel's work for them included: on loopback also that of answering.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// local returns the i-th address of 127.0.0.0/8 from 127.1.0.0 on.
func local(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)})
}

func benchmarkModes(b *testing.B, f func(b *testing.B, n *netns)) {
	for _, m := range []mode{modePing, modeRaw} {
		b.Run(fmt.Sprintf("socket=%.4s", string(m)), func(b *testing.B) {
			n := newNetns(b)
			n.prepare(m)
			f(b, n)
		})
	}
}

// measure runs rounds of one packet each, rate of them a second (0: as many as
// go) at different addresses of the loopback, and reports what one echo costs.
func measure(b *testing.B, e *Engine, rounds, rate int) {
	b.Helper()
	const inFlight = 256
	slots := make(chan struct{}, inFlight)
	lost := make(chan int, 1)
	lost <- 0
	done := func(o Outcome) {
		if !o.Answered() {
			lost <- 1 + <-lost
		}
		<-slots
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, begin := processor(b), time.Now()
	for i := range rounds {
		if rate > 0 {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
		slots <- struct{}{}
		e.Start(Round{Addr: local(i % 60000), Count: 1, Timeout: 2 * time.Second}, done)
	}
	for range inFlight {
		slots <- struct{}{}
	}
	cpu = processor(b) - cpu
	runtime.ReadMemStats(&after)
	per := float64(rounds)
	b.ReportMetric(float64(cpu.Microseconds())/per, "cpu-µs/echo")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/per, "allocs/echo")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/per, "B/echo")
	b.ReportMetric(float64(<-lost), "lost")
}

// Without a pace: what an echo costs when the work comes in heaps.
func BenchmarkEcho(b *testing.B) {
	benchmarkModes(b, func(b *testing.B, n *netns) {
		e := n.unpaced(b)
		b.ResetTimer()
		measure(b, e, b.N, 0)
	})
}

// A thousand targets with a packet every 10 s each: 100 a second, where every
// one wakes the process. It takes 10 s; run it with -benchtime=1x.
func BenchmarkThousandTargets(b *testing.B) {
	benchmarkModes(b, func(b *testing.B, n *netns) {
		e := n.engine()
		b.ResetTimer()
		for range b.N {
			measure(b, e, 1000, 100)
		}
	})
}

// What the kernel's stamp takes out of a round-trip time: how much later than
// the kernel this process sees a reply, on an idle machine and on a busy one.
func BenchmarkStamp(b *testing.B) {
	for name, spinners := range map[string]int{"idle": 0, "busy": 2 * runtime.NumCPU()} {
		b.Run(name, func(b *testing.B) {
			n := newNetns(b)
			e := n.unpaced(b)
			late := make(chan time.Duration, b.N)
			e.listen = func(c *codec, clock func() instant) (socket, mode, error) {
				s, m, err := n.listen(c, clock)
				return &observed{s, late}, m, err
			}
			var stop atomic.Bool
			for range spinners {
				go func() {
					for !stop.Load() { // spins on purpose: a busy processor
					}
				}()
			}
			b.ResetTimer()
			for i := range b.N {
				if _, err := e.Ping(b.Context(), Round{Addr: local(i % 60000), Count: 1, Timeout: time.Second}); err != nil {
					b.Fatal(err)
				}
			}
			stop.Store(true)
			delays := make([]time.Duration, 0, b.N)
			for range len(late) {
				delays = append(delays, <-late)
			}
			slices.Sort(delays)
			if len(delays) > 0 {
				b.ReportMetric(float64(delays[len(delays)/2])/1e3, "p50-µs")
				b.ReportMetric(float64(delays[len(delays)*99/100])/1e3, "p99-µs")
			}
		})
	}
}

// An observed socket reports how late its events are.
type observed struct {
	socket
	late chan<- time.Duration
}

func (o *observed) read(emit func(event)) error {
	return o.socket.read(func(ev event) {
		if ev.kernel != 0 {
			select {
			case o.late <- time.Duration(ev.at.wall - ev.kernel):
			default:
			}
		}
		emit(ev)
	})
}

// unpaced returns a running engine that sends as fast as it can.
func (n *netns) unpaced(b *testing.B) *Engine {
	b.Helper()
	e := NewEngine(EngineOptions{})
	e.listen = n.listen
	e.pace.interval = 0
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { e.Run(ctx); close(ended) }()
	b.Cleanup(func() { cancel(); <-ended })
	return e
}

// Encoding a request and decoding its reply, of which x/net/icmp does most.
func BenchmarkCodec(b *testing.B) {
	c := &codec{family: 4, id: 77, cookie: testCookie}
	b.ReportAllocs()
	for i := range b.N {
		if _, ok := c.reply(replyTo(4, request(b, c, uint16(i), uint32(i)))); !ok {
			b.Fatal("not a reply")
		}
	}
}

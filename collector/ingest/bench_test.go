package ingest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"swarming/shared/broker"
	"swarming/shared/brokertest"
	"swarming/shared/wire"
)

const (
	benchAgents = 2000
	benchWindow = 30_000 // results published and not acknowledged, at most
	publishEnv  = "INGEST_BENCH_PUBLISH"
)

// TestMain lets the test binary be the publisher, in a process of its own so
// that its CPU time is not the collector's.
func TestMain(m *testing.M) {
	if job := os.Getenv(publishEnv); job != "" {
		if err := publishAll(job); err != nil {
			fmt.Fprintln(os.Stderr, "publish:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// BenchmarkIngest is results a second from the publisher's socket over two real
// brokers into the journal (synchronous=FULL) and back to the publisher as
// acknowledgements, with the CPU time of the collector beside that of
// mosquitto_sub processes subscribed to the same.
//
//	go test -run - -bench Ingest ./collector/ingest
func BenchmarkIngest(b *testing.B) {
	for b.Loop() {
		ingestAll(b, benchResults)
	}
	b.ReportMetric(0, "ns/op")
}

// benchResults is so many that the ends of a run, when acks are awaited, do not matter.
const benchResults = 300_000

func ingestAll(b *testing.B, n int) {
	brokers := brokertest.Mosquittos(b, 2)
	addrs := addresses(b, brokers)
	in, j, _ := collect(b, "c1", addrs, false)
	waitFor(b, "both brokers", func() bool { return connected(in) == 2 })
	var subs []*exec.Cmd
	for _, m := range brokers {
		host, port, _ := strings.Cut(m.Addr(), ":")
		sub := exec.Command("mosquitto_sub", "-h", host, "-p", port, "-t", "ping/#")
		if err := sub.Start(); err != nil {
			b.Skip("needs mosquitto_sub: ", err)
		}
		subs = append(subs, sub)
	}
	publish := exec.Command(os.Args[0])
	publish.Env = append(os.Environ(), publishEnv+"="+strings.Join([]string{brokers[0].Addr(), brokers[1].Addr(), strconv.Itoa(n)}, " "))
	publish.Stderr = os.Stderr
	out, err := publish.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := publish.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() { // it is ready
		b.Fatal("the publisher did not start")
	}
	began, cpu := time.Now(), ownCPU()
	if err := publish.Wait(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began)
	cpu = ownCPU() - cpu
	var subCPU time.Duration
	for _, sub := range subs {
		if err := sub.Process.Kill(); err != nil {
			b.Error(err)
		}
		sub.Wait() // it was killed
		subCPU += sub.ProcessState.UserTime() + sub.ProcessState.SystemTime()
	}
	st := in.Stats()
	if int(j.Stats().Results) != n {
		b.Errorf("%d results in the journal, want %d; stats %+v", j.Stats().Results, n, st.Results)
	}
	b.ReportMetric(float64(n)/took.Seconds(), "acked/s")
	b.ReportMetric(cpu.Seconds()*1e6/float64(n), "ms-CPU/1000")
	b.ReportMetric(subCPU.Seconds()*1e6/float64(n), "ms-CPU/1000-mosquitto_sub")
	b.ReportMetric(float64(st.Acks)/float64(n)*1000, "acks/1000")
	b.ReportMetric(float64(st.Duplicates)/float64(n)*100, "%resent")
}

// publishAll is the publisher's whole life: "ADDR ADDR COUNT". It says "ready",
// then publishes COUNT results over both brokers, and sends again what is not
// acknowledged within 10 s.
func publishAll(job string) error {
	words := strings.Fields(job)
	n, err := strconv.Atoi(words[2])
	if err != nil {
		return err
	}
	p := &publisher{payloads: make([][]byte, n), acked: make([]atomic.Bool, n), window: make(chan struct{}, benchWindow)}
	for i := range n {
		r := result(wire.AgentName(fmt.Sprintf("agent-%04d", i%benchAgents)), uint64(i/benchAgents)+1)
		p.payloads[i] = r.Append(nil)
	}
	for _, addr := range words[:2] {
		a, err := broker.ParseAddress(addr)
		if err != nil {
			return err
		}
		conn, err := broker.Dial(context.Background(), a, broker.Options{OnMessage: p.ack})
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.Subscribe(context.Background(), broker.Subscription{Filter: "ack/#"}); err != nil {
			return err
		}
		p.conns = append(p.conns, conn)
	}
	fmt.Println("ready")
	return p.run()
}

type publisher struct {
	conns    []*broker.Conn
	payloads [][]byte
	acked    []atomic.Bool
	done     atomic.Int64
	window   chan struct{}
}

func (p *publisher) ack(m broker.Message) {
	var ack wire.Ack
	if json.Unmarshal(m.Payload, &ack) != nil {
		return
	}
	agent, _ := strconv.Atoi(strings.TrimPrefix(string(ack.Agent), "agent-"))
	for _, r := range ack.Boots["boot"] {
		for seq := r[0]; seq <= r[1]; seq++ {
			if i := int(seq-1)*benchAgents + agent; !p.acked[i].Swap(true) {
				p.done.Add(1)
				<-p.window
			}
		}
	}
}

func (p *publisher) run() error {
	var sending sync.WaitGroup
	errs := make(chan error, 2*100)
	next := make(chan int)
	for n := range cap(errs) { // each with one publish in flight
		sending.Go(func() {
			for i := range next {
				if err := p.conns[n%2].Publish(context.Background(), broker.Message{Topic: "ping/example.com", Payload: p.payloads[i], QoS: 1}); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	for i := range p.payloads {
		p.window <- struct{}{}
		next <- i
	}
	last, since := int64(0), time.Now()
	for p.done.Load() < int64(len(p.payloads)) {
		time.Sleep(10 * time.Millisecond)
		if d := p.done.Load(); d != last {
			last, since = d, time.Now()
		} else if time.Since(since) > 10*time.Second {
			since = time.Now()
			for i := range p.payloads {
				if !p.acked[i].Load() {
					next <- i
				}
			}
		}
		select {
		case err := <-errs:
			return err
		default:
		}
	}
	close(next)
	sending.Wait()
	return nil
}

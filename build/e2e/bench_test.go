//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"swarming/shared/brokertest"
)

// BenchmarkAgentSize prints the size of the agent as make build and make cross
// build it.
func BenchmarkAgentSize(b *testing.B) {
	for _, arch := range []string{"amd64", "mipsle"} {
		b.Run("linux-"+arch, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(len(buildAgent(b, arch)))/1e6, "MB")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// buildAgent returns the agent's program, stripped and built without inlining.
func buildAgent(b *testing.B, arch string) []byte {
	b.Helper()
	out := filepath.Join(b.TempDir(), "agent")
	cmd := exec.Command("go", "build", "-trimpath", "-gcflags", "all=-l", "-ldflags", "-s -w", "-o", out, "swarming/agent/cmd/swarming-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOMIPS=softfloat")
	if msg, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, msg)
	}
	program, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	return program
}

// BenchmarkAgentMemory prints the peak memory of an agent that measures over
// TLS for half a minute, each result confirmed by a mosquitto; beside it that of
// mosquitto_sub, a C program that does nothing but listen.
func BenchmarkAgentMemory(b *testing.B) {
	program := filepath.Join(b.TempDir(), "swarming-agent")
	if err := os.WriteFile(program, buildAgent(b, "amd64"), 0o755); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("targets=%d", n), func(b *testing.B) {
			for b.Loop() {
				measureMemory(b, program, n)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func measureMemory(b *testing.B, program string, targets int) {
	m := brokertest.Mosquittos(b, 1, brokertest.Options{TLS: true})[0]
	url := fmt.Sprintf("mqtts://localhost:%d", m.Port())
	port := strconv.Itoa(m.Port())
	pub := exec.Command("mosquitto_pub", "-h", "localhost", "-p", port, "--cafile", m.CA().File(), "-r", "-q", "1", "-t", "watch", "-m", fast(loopbacks(targets)...))
	if out, err := pub.CombinedOutput(); err != nil {
		b.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
	sub := exec.Command("mosquitto_sub", "-h", "localhost", "-p", port, "--cafile", m.CA().File(), "-t", "ping/+")
	agent := exec.Command(program, "--name", "a", "--allow-net", "127.0.0.0/8", "--tls-ca", m.CA().File(), url)
	for _, c := range []*exec.Cmd{sub, agent} {
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() { c.Process.Kill(); c.Wait() }()
	}
	<-time.After(30 * time.Second) // the measurement itself
	for name, pid := range map[string]int{"agent": agent.Process.Pid, "mosquitto_sub": sub.Process.Pid} {
		peak, err := peakRSS(pid)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(peak/1e6, name+"-MB")
	}
}

// peakRSS returns the most memory a process had resident so far, in bytes.
func peakRSS(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb * 1024, err
		}
	}
	return 0, errors.New("no VmHWM")
}

// BenchmarkFailover prints how long after the used broker died the next result
// arrives through another.
func BenchmarkFailover(b *testing.B) {
	for _, how := range []struct {
		name string
		do   func(*brokertest.Mosquitto) error
	}{
		{"killed", func(m *brokertest.Mosquitto) error { m.Kill(); return nil }},
		{"frozen", (*brokertest.Mosquitto).Freeze},
	} {
		b.Run(how.name, func(b *testing.B) {
			var worst time.Duration
			for b.Loop() {
				worst = max(worst, failover(b, how.do))
			}
			b.ReportMetric(worst.Seconds(), "worst-s")
		})
	}
}

func failover(b *testing.B, die func(*brokertest.Mosquitto) error) time.Duration {
	brokers := brokertest.Mosquittos(b, 2)
	for _, m := range brokers {
		brokertest.Publish(b, m.Addr(), "watch", []byte(fast(loopbacks(40)...)), true)
	}
	agent := exec.Command(filepath.Join(programs, "swarming-agent"), append([]string{"--name", "a", "--allow-net", "127.0.0.0/8"}, addrs(brokers)...)...)
	if err := agent.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { agent.Process.Kill(); agent.Wait() }()
	arrived := make(chan int, 2)
	collectors := make([]*brokertest.Collector, 2)
	for i, m := range brokers {
		collectors[i] = brokertest.Collect(b, m.Addr(), "ping/#")
		go func() {
			collectors[i].Wait("a result", func(brokertest.Message) bool { return true })
			arrived <- i
		}()
	}
	used := <-arrived
	begin := time.Now()
	if err := die(brokers[used]); err != nil {
		b.Fatal(err)
	}
	<-arrived
	return time.Since(begin)
}

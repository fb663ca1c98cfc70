//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"swarming/shared/broker"
	"swarming/shared/brokertest"
)

const hostileBytes = 80 << 20 // of the largest payload

// Whoever may publish sends rubbish on every topic, stored and not, up to 80 MB.
// Both programs live on in little memory and say what they refused in few lines;
// the honest agent's results are complete, and the list stays the good one.
func TestHostileInput(t *testing.T) {
	long(t)
	needClients(t)
	brokers := brokertest.Mosquittos(t, 2)
	c := startCollector(t, addrs(brokers)...)
	agent := startAgent(t, "honest", addrs(brokers)...)
	publishList(t, brokers[0], fast(loopbacks(10)...))
	for _, b := range brokers {
		holds(t, b, "127.0.1.10")
	}
	awaitMore(t, c, 10)
	boot := honest(t, c)[0].Boot

	// While nothing else is on its way: acks of all that will ever be sent.
	forge(t, brokers, boot, 1)
	awaitMore(t, c, 10)

	for _, b := range brokers {
		publishRubbish(t, b)
	}
	forge(t, brokers, boot, 1_000_000)
	file := bigFile(t)
	for _, topic := range []string{"ping/x", "rip/agent/x", "live/agent/x", "ping/" + strings.Repeat("long", 10_000)} {
		publishFile(t, brokers[0], topic, file, "-q", "1")
		publishFile(t, brokers[1], topic, file, "-q", "0", "-r")
	}
	// What an agent listens to. It leaves the broker that sends it such a thing,
	// and finds the other.
	used := brokers[0]
	if strings.Contains(agent.output(), "connected to broker\" broker="+brokers[1].Addr()) {
		used = brokers[1]
	}
	for _, topic := range []string{"watch", "live/collector/x", "ack/honest"} {
		publishFile(t, used, topic, file, "-q", "0")
		publishFile(t, used, topic, file, "-q", "0", "-r")
	}
	agent.await("packet too big")
	holds(t, used, "127.0.1.10") // again
	// A connection that finds all of it stored.
	eventually(t, "the collector has heard all of it", func() error {
		return refusedAll(c, map[string]uint64{"ping": 4, "rip": 2, "live_agent": 2, "watch": 2, "live_collector": 2})
	})
	checkRefusals(t, c, map[string][]string{
		"ping":           {"empty", "syntax", "size", "name", "range", "clock", "version"},
		"live_agent":     {"empty", "syntax", "size", "name"},
		"live_collector": {"empty", "syntax", "size", "range", "version"},
		"rip":            {"syntax", "size", "name", "version"},
		"unknown":        {"topic"},
		"watch":          {"size"},
	})
	first := c.process
	checkPeak(t, first, 200)
	if code := c.stop(); code != 0 {
		t.Errorf("collector exits with %d after SIGTERM", code)
	}
	checkLog(t, first, 100)
	c.again()
	awaitMore(t, c, 10)
	for _, b := range brokers {
		publishNames(t, b, 20_000)
	}
	awaitMore(t, c, 20)

	checkRefusals(t, c, map[string][]string{
		"ping": {"size", "retained"}, "rip": {"size", "retained"}, "live_agent": {"size", "retained"}, "live_collector": {"size", "retained"},
	})
	checkPeak(t, c.process, 200)
	checkPeak(t, agent, 40)
	for _, b := range brokers {
		holds(t, b, "127.0.1.10")
	}
	if code := agent.stop(); code != 0 {
		t.Errorf("agent exits with %d after SIGTERM", code)
	}
	eventually(t, "nothing of the honest agent is missing", func() error { return missing(honest(t, c)) })
	t.Logf("%d results of the honest agent are complete", checkComplete(t, honest(t, c)))
	if code := c.stop(); code != 0 {
		t.Errorf("collector exits with %d after SIGTERM", code)
	}
	checkLog(t, c.process, 100)
	checkLog(t, agent, 50)
}

// honest returns the honest agent's results.
func honest(t *testing.T, c *collectorProcess) (rows []row) {
	t.Helper()
	stdout, stderr, code := runToEnd(t, nil, "swarming-collector", "results", "--data", c.data, "--agent", "honest", "--since", "1d", "--json")
	if code != 0 {
		t.Fatalf("results: exit %d: %s", code, stderr)
	}
	for line := range strings.Lines(stdout) {
		var r row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("results line %q: %v", line, err)
		}
		rows = append(rows, r)
	}
	return rows
}

// awaitMore waits for n more results of the honest agent with an answer.
func awaitMore(t *testing.T, c *collectorProcess, n int) {
	t.Helper()
	before := -1
	eventually(t, fmt.Sprintf("%d more results", n), func() error {
		var now int
		for _, r := range honest(t, c) {
			if r.Recv > 0 {
				now++
			}
		}
		if before < 0 {
			before = now
		}
		if now < before+n {
			return fmt.Errorf("%d results, %d before", now, before)
		}
		return nil
	})
}

// connect is a connection of a stranger, whose will names somebody else.
func connect(t *testing.T, b *brokertest.Mosquitto, will string) *broker.Conn {
	t.Helper()
	a, err := broker.ParseAddress(b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c, err := broker.Dial(t.Context(), a, broker.Options{Will: &broker.Message{Topic: "rip/agent/" + will, Payload: []byte(will), QoS: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func publish(t *testing.T, c *broker.Conn, m broker.Message) {
	t.Helper()
	if err := c.Publish(t.Context(), m); err != nil {
		t.Fatalf("publish to %.100q: %v", m.Topic, err)
	}
}

// forge acknowledges all results of a boot from seq on.
func forge(t *testing.T, brokers []*brokertest.Mosquitto, boot string, seq uint64) {
	t.Helper()
	for _, b := range brokers {
		c := connect(t, b, "honest")
		for range 3 {
			ack := fmt.Sprintf(`{"v":1,"agent":"honest","by":"evil","boots":{%q:[[%d,9007199254740991]]}}`, boot, seq)
			publish(t, c, broker.Message{Topic: "ack/honest", Payload: []byte(ack), QoS: 1})
		}
	}
}

// rubbish is what is published on every topic. No line of it is a list of host
// names, which anybody may publish on watch.
func rubbish() (all []string) {
	deep := strings.Repeat(`{"targets":[`, 10_000)
	all = []string{
		"", "{", `{"v":1,"agent":"x","boot":"b","seq":1,"at":"20`, deep, deep + strings.Repeat("]}", 10_000), `{"v":` + strings.Repeat("[", 10_000),
		`{"targets":17}`, `{"targets":{"a":[]}}`, `{"v":"1","agent":[],"boot":{},"seq":"x"}`, `{"targets":[{"target":NaN}]}`, `{"v":1e308}`, `{"v":2,"targets":["x"]}`,
		"{\x00\x1b[2J\xff\xfe", `{"a":"` + strings.Repeat("x", 200_000) + `"}`,
	}
	result := `{"v":1,"agent":%s,"boot":"b","seq":%s,"at":"%s","target":"x","probe":"icmp","sent":1,"recv":1,"loss":0,"min":%s,"avg":1,"max":1,"stddev":0,"rtts":[1]}`
	now := time.Now().UTC().Format(time.RFC3339)
	for _, name := range []string{`"a/b"`, `"+"`, `"#"`, `"\u001b[31m\u0007"`, `"` + strings.Repeat("n", 65) + `"`, `"\u202egnp.exe"`, `17`} {
		all = append(all, fmt.Sprintf(result, name, "1", now, "1"))
	}
	for _, seq := range []string{"-1", "0", "18446744073709551615", "1e308", "9007199254740993", "NaN"} {
		all = append(all, fmt.Sprintf(result, `"evil"`, seq, now, "1"))
	}
	for _, at := range []string{"1970-01-01T00:00:00Z", "2099-12-31T23:59:59Z", "0000-00-00", "\u001b"} {
		all = append(all, fmt.Sprintf(result, `"evil"`, "1", at, "1"))
	}
	for _, ms := range []string{"NaN", "1e308", "-1", "1e999", "null", `"1"`} {
		all = append(all, fmt.Sprintf(result, `"evil"`, "1", now, ms))
	}
	for _, agents := range []string{"-1", "1e308", "9223372036854775807", "18446744073709551616", `"many"`} {
		all = append(all, fmt.Sprintf(`{"v":1,"name":"evil","boot":"b","n":1,"at":%q,"rev":9223372036854775807,"agents":%s}`, now, agents))
	}
	return append(all, `{"v":1,"agent":"honest","boot":"forged","conn":18446744073709551615,"n":-1,"pending":-5}`,
		`{"v":1,"agent":"honest","by":"evil","boots":{"x":[[5,1]]}}`, `{"v":1,"agent":"honest","by":"evil","boots":{"x":[[-1,1e308]]}}`)
}

// publishRubbish publishes everything on every topic, stored and not.
func publishRubbish(t *testing.T, b *brokertest.Mosquitto) {
	t.Helper()
	c := connect(t, b, "honest")
	topics := []string{"ping/x", "live/agent/x", "live/agent/honest", "live/collector/x", "rip/agent/x", "rip/agent/honest", "watch", "ack/honest",
		"ping/", "ping/a/b/c", "ping/\u202egnp.exe", "live/elsewhere", "live/agent/", "rip/", "rip/agent/\u2028", "ping/" + strings.Repeat("/", 150), "live/agent/" + strings.Repeat("y", 30_000)}
	for _, topic := range topics {
		for _, payload := range rubbish() {
			for _, retained := range []bool{false, true} {
				publish(t, c, broker.Message{Topic: topic, Payload: []byte(payload), QoS: 1, Retained: retained})
			}
		}
	}
	c.Abort() // the will says that the honest agent died
}

// bigFile makes a payload too big for anybody.
func bigFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(name, make([]byte, hostileBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func publishFile(t *testing.T, b *brokertest.Mosquitto, topic, file string, args ...string) {
	t.Helper()
	args = append([]string{"-h", "127.0.0.1", "-p", fmt.Sprint(b.Port()), "-t", topic, "-f", file}, args...)
	if out, err := exec.Command("mosquitto_pub", args...).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
}

// publishNames publishes a heartbeat and a result of each of n new agents.
func publishNames(t *testing.T, b *brokertest.Mosquitto, n int) {
	t.Helper()
	c := connect(t, b, "name-1")
	now := time.Now().UTC().Format(time.RFC3339)
	for i := range n {
		live := fmt.Sprintf(`{"v":1,"agent":"name-%d","boot":"b%d","conn":1,"n":1,"at":%q,"labels":{"isp":"%s"}}`, i, i, now, strings.Repeat("z", 64))
		publish(t, c, broker.Message{Topic: "live/agent/x", Payload: []byte(live)})
		result := fmt.Sprintf(`{"v":1,"agent":"name-%d","boot":"b%d","seq":%d,"at":%q,"target":"x","probe":"icmp","sent":1,"recv":1,"loss":0,"min":1,"avg":1,"max":1,"stddev":0,"rtts":[1]}`, i, i, int64(1)<<40+int64(i), now)
		publish(t, c, broker.Message{Topic: "ping/x", Payload: []byte(result)})
	}
}

// refused reads what the collector refused, by kind and reason.
func refused(c *collectorProcess) (map[string]map[string]uint64, error) {
	code, body, err := c.get("/status")
	if err != nil || code != 200 {
		return nil, fmt.Errorf("GET /status: %d, %v", code, err)
	}
	var s struct {
		Ingest struct {
			Refused map[string]map[string]uint64 `json:"refused"`
		} `json:"ingest"`
	}
	err = json.Unmarshal([]byte(body), &s)
	return s.Ingest.Refused, err
}

// refusedAll returns nil when so many of each kind were refused for their size.
func refusedAll(c *collectorProcess, want map[string]uint64) error {
	got, err := refused(c)
	if err != nil {
		return err
	}
	for kind, n := range want {
		if got[kind]["size"] < n {
			return fmt.Errorf("%d of %d of kind %s: %v", got[kind]["size"], n, kind, got)
		}
	}
	return nil
}

// checkRefusals wants what was refused, kind by kind and reason by reason, in
// /status and in /metrics.
func checkRefusals(t *testing.T, c *collectorProcess, want map[string][]string) {
	t.Helper()
	got, err := refused(c)
	if err != nil {
		t.Fatal(err)
	}
	_, metrics, err := c.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for kind, reasons := range want {
		for _, reason := range reasons {
			if got[kind][reason] == 0 || !strings.Contains(metrics, fmt.Sprintf("swarming_messages_refused_total{kind=%q,reason=%q}", kind, reason)) {
				t.Errorf("no %s is refused for %s in both /status and /metrics: %v", kind, reason, got)
			}
		}
	}
	t.Logf("refused: %v", got)
}

// checkPeak wants the most memory a running process ever had, in MB, below a bound.
func checkPeak(t *testing.T, p *process, most int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skipf("needs /proc: %v", err)
	}
	found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(b)
	if found == nil {
		t.Fatalf("no VmHWM in %s", b)
	}
	kb, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s had at most %.1f MB", p.name, float64(kb)/1024)
	if kb > most<<10 {
		t.Errorf("%s had %.1f MB, want at most %d", p.name, float64(kb)/1024, most)
	}
}

// checkLog wants few lines, all of them short and printable.
func checkLog(t *testing.T, p *process, most int) {
	t.Helper()
	lines := 0
	for s := bufio.NewScanner(strings.NewReader(p.output())); s.Scan(); lines++ {
		if line := s.Text(); len(line) > 2000 || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("log line of %d bytes: %.300q", len(line), line)
		}
	}
	t.Logf("%s said %d lines", p.name, lines)
	if lines > most || lines == 0 {
		t.Errorf("%s said %d lines, want 1 to %d", p.name, lines, most)
	}
}

//go:build unix

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"swarming/build/elasticsearch/estest"
	"swarming/shared/brokertest"
)

// vanilla starts a stock mosquitto_sub that shows all results and rips.
func vanilla(t *testing.T, b *brokertest.Mosquitto) *process {
	t.Helper()
	needClients(t)
	return start(t, "mosquitto_sub", "-h", "127.0.0.1", "-p", fmt.Sprint(b.Port()), "-t", "ping/+", "-t", "rip/#", "-v")
}

// publishList publishes a watch list as a person does.
func publishList(t *testing.T, b *brokertest.Mosquitto, list string) {
	t.Helper()
	needClients(t)
	out, err := exec.Command("mosquitto_pub", "-h", "127.0.0.1", "-p", fmt.Sprint(b.Port()), "-r", "-q", "1", "-t", "watch", "-m", list).CombinedOutput()
	if err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
}

func needClients(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("needs mosquitto_sub and mosquitto_pub (Debian: apt-get install mosquitto-clients)")
		}
		t.Skip("needs mosquitto_sub and mosquitto_pub (Debian: apt-get install mosquitto-clients)")
	}
}

// has returns nil when the journal has a result of agent for target with an answer.
func has(c *collectorProcess, agent, target string) error {
	for _, r := range c.results() {
		if r.Agent == agent && r.Target == target && r.Recv > 0 {
			return nil
		}
	}
	return fmt.Errorf("no result of %s for %s with an answer", agent, target)
}

// The founding walk, as the README tells it: vanilla brokers and clients, a list
// by mosquitto_pub, brokers stopped and started, agents added, the list changed.
// At the end every result is in the journal once, and in Elasticsearch once.
func TestFoundingWalk(t *testing.T) {
	long(t)
	brokers := brokertest.Mosquittos(t, 2)
	node := estest.New(t, estest.Options{})
	subs := []*process{vanilla(t, brokers[0]), vanilla(t, brokers[1])}
	first := startAgent(t, "first", addrs(brokers)...)
	c := startCollector(t, append(addrs(brokers), "--elasticsearch", node.URL)...)

	publishList(t, brokers[0], "127.0.0.1")
	eventually(t, "the first result", func() error { return has(c, "first", "127.0.0.1") })
	// A vanilla subscriber on the broker in use sees it as well.
	eventually(t, "a vanilla subscriber shows results", func() error {
		if !strings.Contains(subs[0].output()+subs[1].output(), "ping/127.0.0.1 {") {
			return errors.New("nothing yet")
		}
		return nil
	})

	publishList(t, brokers[1], fast(loopbacks(5)...))
	eventually(t, "the list of the other broker is in force", func() error { return has(c, "first", "127.0.1.3") })

	for _, b := range brokers {
		if err := b.Stop(); err != nil {
			t.Fatal(err)
		}
		before := len(c.results())
		eventually(t, "results go on with a broker stopped", func() error {
			if n := len(c.results()); n < before+3 {
				return fmt.Errorf("%d results, %d before", n, before)
			}
			return nil
		})
		if err := b.Restart(); err != nil {
			t.Fatal(err)
		}
	}

	second := startAgent(t, "second", addrs(brokers)...)
	eventually(t, "results of a second agent", func() error { return has(c, "second", "127.0.1.1") })

	brokers[0].Kill()
	if err := brokers[0].Restart(); err != nil { // empty: the collector gives it the list again
		t.Fatal(err)
	}
	list := brokertest.Collect(t, brokers[0].Addr(), "watch")
	list.Wait("the list on a broker that lost it", func(m brokertest.Message) bool {
		return strings.Contains(string(m.Payload), "127.0.1.5")
	})

	for _, agent := range []*process{first, second} {
		if code := agent.stop(); code != 0 {
			t.Errorf("agent exits with %d after SIGTERM", code)
		}
	}
	var stored int
	eventually(t, "all results are in Elasticsearch", func() error {
		stored = len(c.results())
		if n := node.Count(t, "swarming-ping-*"); n != stored {
			return fmt.Errorf("%d documents, %d results", n, stored)
		}
		return nil
	})
	rows := c.results()
	if checkComplete(t, rows); len(rows) < 20 {
		t.Errorf("only %d results in the whole walk", len(rows))
	}
	t.Logf("%d results stored once in the journal and once in Elasticsearch", stored)
	checkEvents(t, c)
	if code := c.stop(); code != 0 {
		t.Errorf("collector exits with %d after SIGTERM", code)
	}
}

// checkEvents wants both agents' goodbyes among the events, which the collector
// writes at its leisure.
func checkEvents(t *testing.T, c *collectorProcess) {
	t.Helper()
	eventually(t, "both agents' goodbyes are stored", func() error {
		stdout, stderr, code := runToEnd(t, nil, "swarming-collector", "events", "--data", c.data, "--json")
		if code != 0 {
			return fmt.Errorf("exit %d: %s", code, stderr)
		}
		byes := map[string]bool{}
		for line := range strings.Lines(stdout) {
			var e struct{ Kind, Agent, Reason string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return fmt.Errorf("event line %q: %w", line, err)
			}
			if e.Kind == "rip" && e.Reason == "bye" {
				byes[e.Agent] = true
			}
		}
		if !byes["first"] || !byes["second"] {
			return fmt.Errorf("byes of %v only:\n%s", byes, stdout)
		}
		return nil
	})
}

// The used broker is killed with -9 or frozen: the next results arrive through
// the other one, and none is missing afterwards.
func TestBrokerDies(t *testing.T) {
	long(t)
	for _, how := range []struct {
		name string
		do   func(*brokertest.Mosquitto) error
	}{
		{"killed", func(b *brokertest.Mosquitto) error { b.Kill(); return nil }},
		{"frozen", (*brokertest.Mosquitto).Freeze},
	} {
		t.Run(how.name, func(t *testing.T) {
			brokers := brokertest.Mosquittos(t, 2)
			seen := []*brokertest.Collector{brokertest.Collect(t, brokers[0].Addr(), "ping/#"), brokertest.Collect(t, brokers[1].Addr(), "ping/#")}
			c := startCollector(t, addrs(brokers)...)
			publishList(t, brokers[0], fast(loopbacks(20)...))
			agent := startAgent(t, "a", addrs(brokers)...)
			used := -1
			eventually(t, "the first result", func() error {
				for i := range seen {
					if len(seen[i].All()) > 0 {
						used = i
						return nil
					}
				}
				return errors.New("nothing yet")
			})
			if err := how.do(brokers[used]); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			seen[1-used].Wait("a result through the other broker", func(brokertest.Message) bool { return true })
			t.Logf("the next result came through the other broker after %.1f s", time.Since(begin).Seconds())
			agent.stop()
			eventually(t, "nothing is missing", func() error {
				rows := c.results()
				if len(rows) == 0 {
					return errors.New("no results")
				}
				return missing(rows)
			})
			checkComplete(t, c.results())
		})
	}
}

// missing says how many results below the highest seq are not stored.
func missing(rows []row) error {
	highest, count := map[string]uint64{}, map[string]uint64{}
	for _, r := range rows {
		key := r.Agent + " " + r.Boot
		highest[key] = max(highest[key], r.Seq)
		count[key]++
	}
	for key, n := range highest {
		if count[key] < n {
			return fmt.Errorf("%s: %d of %d results", key, count[key], n)
		}
	}
	return nil
}

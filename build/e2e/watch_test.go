//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"swarming/shared/brokertest"
)

// holds waits until a broker's retained list names a target.
func holds(t *testing.T, b *brokertest.Mosquitto, target string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s holds %s", b.Addr(), target), func() error {
		stdout, stderr, code := runToEnd(t, nil, "swarming-collector", "watch", "show", "--broker", b.Addr())
		if code != 0 || !strings.Contains(stdout, target) {
			return fmt.Errorf("exit %d: %s%s", code, stdout, stderr)
		}
		return nil
	})
}

// A person's list on one broker reaches the others, and a broker that was away
// when the list changed is corrected.
func TestListReachesAllBrokers(t *testing.T) {
	long(t)
	brokers := brokertest.Mosquittos(t, 3, brokertest.Options{Persistence: true})
	startCollector(t, addrs(brokers)...).await("level=INFO")
	publishList(t, brokers[0], "one.example")
	for _, b := range brokers {
		holds(t, b, "one.example")
	}
	if err := brokers[2].Stop(); err != nil { // keeps the old list on its disk
		t.Fatal(err)
	}
	publishList(t, brokers[1], "two.example")
	holds(t, brokers[0], "two.example")
	if err := brokers[2].Restart(); err != nil {
		t.Fatal(err)
	}
	holds(t, brokers[2], "two.example")
}

// A file is read again when it changes; a bad one keeps the last good list and
// is shown; a person cannot overrule it.
func TestWatchFile(t *testing.T) {
	long(t)
	brokers := brokertest.Mosquittos(t, 2)
	file := filepath.Join(t.TempDir(), "watch.yaml")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("targets: [one.example]\n")
	c := startCollector(t, append(addrs(brokers), "--watch-file", file)...)
	holds(t, brokers[0], "one.example")
	holds(t, brokers[1], "one.example")

	write("targets: [two.example\n")
	c.await("watch.yaml")
	eventually(t, "status shows the mistake", func() error {
		_, body, err := c.get("/status")
		if err == nil && !strings.Contains(body, "watch.yaml:") {
			err = fmt.Errorf("status is silent: %s", body)
		}
		return err
	})
	holds(t, brokers[0], "one.example")

	write("three.example\n")
	holds(t, brokers[0], "three.example")
	publishList(t, brokers[1], "person.example")
	holds(t, brokers[1], "three.example")
}

// Two collectors with different files do not correct each other for ever.
func TestDisagreeingCollectors(t *testing.T) {
	long(t)
	brokers := brokertest.Mosquittos(t, 2)
	lists := brokertest.Collect(t, brokers[0].Addr(), "watch")
	var collectors []*collectorProcess
	for _, name := range []string{"one", "two"} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(name+".example\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		collectors = append(collectors, startCollector(t, append(addrs(brokers), "--name", name, "--watch-file", file)...))
	}
	// One of them falls silent and says who else there is.
	eventually(t, "one collector warns of the other", func() error {
		for _, c := range collectors {
			if strings.Contains(c.output(), "level=WARN") {
				return nil
			}
		}
		return fmt.Errorf("no warning")
	})
	if n := len(lists.All()); n > 6 {
		t.Errorf("%d lists published: a storm", n)
	}
}

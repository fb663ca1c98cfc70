//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"swarming/build/elasticsearch/estest"
	"swarming/shared/brokertest"
)

// Each result is stored once, in the journal and in Elasticsearch, though the
// collector is killed with -9 again and again and Elasticsearch in between.
func TestOnceThroughCrashes(t *testing.T) {
	long(t)
	brokers := brokertest.Mosquittos(t, 2)
	node := estest.New(t, estest.Options{})
	c := startCollector(t, append(addrs(brokers), "--elasticsearch", node.URL)...)
	publishList(t, brokers[0], fast(loopbacks(30)...))
	agents := []*keeping{startKeeping(t, "a", addrs(brokers)...), startKeeping(t, "b", addrs(brokers)...)}
	crash(t, c, node)
	publishList(t, brokers[0], `{"targets":[]}`)
	settle(t, c, node, agents...)
}

// The same over TLS, with an API key that may only create documents.
func TestOnceOverTLS(t *testing.T) {
	long(t)
	ca, err := brokertest.NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	brokers := brokertest.Mosquittos(t, 2, brokertest.Options{TLS: true, ClientCerts: true, CA: ca})
	node := estest.New(t, estest.Options{Secure: true})
	// Whoever runs the cluster puts the templates; the collector's key may not.
	_, key := node.APIKey(t, "swarming-*", []string{"create_doc", "auto_configure"}, nil)
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	urls := make([]string, len(brokers))
	for i, b := range brokers {
		urls[i] = fmt.Sprintf("mqtts://localhost:%d", b.Port())
	}
	c := startCollector(t, append(urls, append(clientTLS(t, ca, "collector"), "--elasticsearch", node.URL,
		"--elasticsearch-api-key-file", keyFile, "--elasticsearch-ca", node.CA)...)...)
	watchSet := append(append([]string{"watch", "set", "--broker", urls[0]}, loopbacks(60)...), clientTLS(t, ca, "person")...)
	if _, stderr, code := runToEnd(t, nil, "swarming-collector", watchSet...); code != 0 {
		t.Fatalf("watch set: exit %d: %s", code, stderr)
	}
	agent := startKeeping(t, "a", append(urls, clientTLS(t, ca, "a")...)...)
	crash(t, c, node)
	watchNone := append([]string{"watch", "set", "--broker", urls[0], "--none"}, clientTLS(t, ca, "person")...)
	if _, stderr, code := runToEnd(t, nil, "swarming-collector", watchNone...); code != 0 {
		t.Fatalf("watch set --none: exit %d: %s", code, stderr)
	}
	settle(t, c, node, agent)
}

// clientTLS returns the flags of a client with a certificate of its own.
func clientTLS(t *testing.T, ca *brokertest.CA, name string) []string {
	t.Helper()
	cert, key, err := ca.Issue(brokertest.Certificate{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--tls-ca", ca.File(), "--tls-cert", cert, "--tls-key", key}
}

// crash kills the collector three times, and Elasticsearch once, while results come in.
func crash(t *testing.T, c *collectorProcess, node *estest.Node) {
	t.Helper()
	more := func() {
		t.Helper()
		before := len(c.results())
		eventually(t, "more results are stored", func() error {
			if n := len(c.results()); n < before+2 {
				return fmt.Errorf("%d results, %d before", n, before)
			}
			return nil
		})
	}
	more()
	for i := range 3 {
		c.kill()
		if i == 1 {
			if err := node.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		c.again()
		more()
		if i == 1 {
			if err := node.Restart(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A keeping is an agent with a state directory.
type keeping struct {
	*process
	name  string
	state string
	args  []string
}

func startKeeping(t *testing.T, name string, args ...string) *keeping {
	t.Helper()
	k := &keeping{name: name, state: t.TempDir()}
	k.args = append([]string{"--state-dir", k.state}, args...)
	k.process = startAgent(t, name, k.args...)
	return k
}

// deliver stops the agent, which may leave results in its state directory, and
// starts it again until all of them are acknowledged.
func (k *keeping) deliver() {
	k.t.Helper()
	if code := k.stop(); code != 0 {
		k.t.Errorf("agent exits with %d after SIGTERM", code)
	}
	k.process = startAgent(k.t, k.name, k.args...)
	eventually(k.t, "what was kept is acknowledged", func() error {
		_, err := os.Stat(filepath.Join(k.state, "outbox"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("state file still there (%v)", err)
	})
	k.stop()
}

// settle wants all that the agents measured in the journal and in Elasticsearch.
func settle(t *testing.T, c *collectorProcess, node *estest.Node, agents ...*keeping) {
	t.Helper()
	for _, a := range agents {
		a.deliver()
	}
	eventually(t, "journal complete, Elasticsearch equal", func() error {
		rows := c.results()
		if len(rows) == 0 {
			return errors.New("no results")
		}
		if err := missing(rows); err != nil {
			return err
		}
		if n := node.Count(t, "swarming-ping-*"); n != len(rows) {
			return fmt.Errorf("%d documents, %d results", n, len(rows))
		}
		return nil
	})
	t.Logf("%d results, each stored once in the journal and in Elasticsearch", checkComplete(t, c.results()))
}

package checks

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// notInAgent is what must not be linked into the agent, which has to fit onto a
// router with 16 MB of flash and 64 MB of memory. A name stands for the packages
// below it too.
var notInAgent = map[string]string{
	"database/sql":                "the agent keeps results in a fixed piece of memory",
	"modernc.org":                 "4 MB of SQLite, and there is none for MIPS",
	"github.com/elastic":          "exporting is the collector's work",
	"github.com/prometheus":       "the agent listens on no port, so nobody can scrape it",
	"github.com/mochi-mqtt":       "a broker is for tests and the demo",
	"go.yaml.in":                  "the watch file is the collector's",
	"gopkg.in/yaml.v3":            "the watch file is the collector's",
	"github.com/rogpeppe":         "for tests",
	"github.com/peterbourgon":     "shared/settings does without",
	"text/template":               "calls methods by name, which keeps the linker from dropping unused ones",
	"html/template":               "calls methods by name, which keeps the linker from dropping unused ones",
	"testing":                     "for tests; registers flags in every program",
	"net/http/pprof":              "registers handlers; the agent listens on no port",
	"expvar":                      "registers handlers; the agent listens on no port",
	"net/rpc":                     "the agent listens on no port",
	"plugin":                      "needs cgo",
	"encoding/gob":                "compiles types at run time; results are JSON",
	"encoding/xml":                "results are JSON",
	"go/ast":                      "a parser for Go has no work there",
	module + "/collector":         "agent and collector meet on the wire only",
	module + "/build":             "for building and testing",
	module + "/shared/brokertest": "for tests and the demo",
}

// notInCollector likewise.
var notInCollector = map[string]string{
	"github.com/mochi-mqtt":       "a broker is for tests and the demo",
	"github.com/rogpeppe":         "for tests",
	"testing":                     "for tests; registers flags in every program",
	"net/http/pprof":              "registers handlers on the default mux",
	"golang.org/x/net/icmp":       "measuring is the agents' work",
	module + "/agent":             "agent and collector meet on the wire only",
	module + "/build":             "for building and testing",
	module + "/shared/brokertest": "for tests and the demo",
}

func TestAgentClosure(t *testing.T) {
	checkClosure(t, "./agent/cmd/swarming-agent", notInAgent)
}

func TestCollectorClosure(t *testing.T) {
	checkClosure(t, "./collector/cmd/swarming-collector", notInCollector)
}

func checkClosure(t *testing.T, program string, forbidden map[string]string) {
	for _, goos := range []string{"linux", "windows", "darwin", "freebsd"} {
		deps := dependencies(t, goos, program)
		if len(deps) < 50 {
			t.Errorf("%s for %s depends on %d packages only: asked the wrong question?", program, goos, len(deps))
		}
		for _, d := range deps {
			for f, why := range forbidden {
				if d == f || strings.HasPrefix(d, f+"/") {
					t.Errorf("%s for %s contains %s: %s", program, goos, d, why)
				}
			}
		}
	}
}

func dependencies(t *testing.T, goos, program string) []string {
	t.Helper()
	return strings.Fields(goCommand(t, append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0"), "list", "-deps", program))
}

func goCommand(t *testing.T, environ []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = environ
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

// dependsOn says what each module in go.mod is for. One that is not here is not
// wanted; one that is here and not in go.mod is no longer needed.
var dependsOn = map[string]string{
	"github.com/eclipse/paho.mqtt.golang":    "MQTT 3.1.1, of which shared/broker uses one connection at a time",
	"github.com/elastic/go-elasticsearch/v8": "Elasticsearch's own client, for the exporter",
	"github.com/gorilla/websocket":           "MQTT over ws and wss, which paho brings along anyway",
	"github.com/kardianos/service":           "Windows' control manager, launchd and the other service managers",
	"github.com/mochi-mqtt/server/v2":        "an embedded broker for unit tests and make demo; in no program",
	"github.com/prometheus/client_golang":    "the collector's /metrics",
	"github.com/rogpeppe/go-internal":        "txtar and testscript for tests; in no program",
	"go.yaml.in/yaml/v3":                     "the collector's watch file",
	"golang.org/x/net":                       "ICMP messages",
	"golang.org/x/sync":                      "errgroup: goroutines with one owner that waits",
	"golang.org/x/sys":                       "socket options, timestamps and rights of each system",
	"modernc.org/sqlite":                     "the journal, without cgo",
}

func TestEveryDependencyHasAReason(t *testing.T) {
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal([]byte(goCommand(t, os.Environ(), "mod", "edit", "-json")), &mod); err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for _, r := range mod.Require {
		if r.Indirect {
			continue
		}
		direct[r.Path] = true
		if dependsOn[r.Path] == "" {
			t.Errorf("go.mod requires %s: say in dependsOn what for, or do without", r.Path)
		}
	}
	for p := range dependsOn {
		if !direct[p] {
			t.Errorf("go.mod does not require %s: take it out of dependsOn", p)
		}
	}
}

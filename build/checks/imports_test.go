package checks

import (
	"strconv"
	"strings"
	"testing"
)

// ranks says where the packages of each side stand. A package imports those of a
// lower rank of its side, and shared; none of its own rank, so that each can be
// read alone.
var ranks = map[string]int{
	// Core: pure or passive, knows no network.
	"agent/schedule":    1,
	"agent/outbox":      1,
	"collector/journal": 1,
	"collector/watch":   1,
	// Adapters: each to one part of the world outside.
	"agent/probe":              2,
	"agent/uplink":             2,
	"collector/ingest":         2,
	"collector/export/elastic": 2,
	// What a person may set.
	"agent/config":     3,
	"collector/config": 3,
	// Assembly.
	"agent":     4,
	"collector": 4,
	// Programs.
	"agent/cmd/swarming-agent":         5,
	"collector/cmd/swarming-collector": 5,
}

func TestImportDirections(t *testing.T) {
	for _, s := range mustSources(t) {
		side, _, _ := strings.Cut(s.dir, "/")
		if (side == "agent" || side == "collector") && ranks[s.dir] == 0 {
			t.Errorf("%s: say in ranks where this package stands", s.dir)
		}
		for _, spec := range s.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why := forbidden(s, imported); why != "" {
				t.Errorf("%s imports %s: %s", s.path, imported, why)
			}
		}
	}
}

// forbidden says why s must not import a package, "" if it may.
func forbidden(s source, imported string) string {
	from, _, _ := strings.Cut(s.dir, "/")
	dir, ours := strings.CutPrefix(imported, module+"/")
	if s.dir == "shared/wire" && !s.test {
		if first, _, _ := strings.Cut(imported, "/"); ours || strings.Contains(first, ".") {
			return "the wire contract needs nothing but the standard library"
		}
	}
	if !ours {
		return ""
	}
	to, _, _ := strings.Cut(dir, "/")
	switch {
	case from == "build":
		return ""
	case to == "build" && !s.test:
		return "build is for building and testing; a program must not contain it"
	case strings.HasPrefix(dir, "shared/brokertest") && !s.test && s.dir != "shared/brokertest":
		return "brokertest is for tests and the demo"
	case from == "shared" && (to == "agent" || to == "collector"):
		return "shared knows neither side"
	case from != to && to != "shared" && to != "build":
		return "agent and collector meet on the wire only"
	case from == to && from != "shared" && dir != s.dir && ranks[dir] >= ranks[s.dir] && !s.test:
		return "imports point inwards: cmd, assembly, config, adapters, core"
	}
	return ""
}

// The rules themselves, so that a slip in forbidden does not permit everything.
func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		from     string
		test     bool
		imported string
		ok       bool
	}{
		{"shared/wire", false, "encoding/json", true},
		{"shared/wire", false, "golang.org/x/net/icmp", false},
		{"shared/wire", false, "swarming/shared/version", false},
		{"shared/broker", false, "golang.org/x/net/icmp", true},
		{"shared/broker", false, "swarming/shared/wire", true},
		{"shared/broker", false, "swarming/agent/probe", false},
		{"shared/broker", true, "swarming/collector", false},
		{"shared/broker", true, "swarming/shared/brokertest", true},
		{"shared/broker", false, "swarming/shared/brokertest", false},
		{"agent", false, "swarming/collector/journal", false},
		{"agent", true, "swarming/collector/journal", false},
		{"collector", false, "swarming/agent", false},
		{"agent", false, "swarming/agent/config", true},
		{"agent/config", false, "swarming/agent", false},
		{"agent/probe", false, "swarming/agent/schedule", true},
		{"agent/schedule", false, "swarming/agent/probe", false},
		{"agent/schedule", false, "swarming/agent/outbox", false},
		{"agent/uplink", false, "swarming/build/lab", false},
		{"agent/uplink", true, "swarming/build/lab", true},
		{"build/e2e", false, "swarming/agent", true},
		{"build/e2e", false, "swarming/collector", true},
	} {
		why := forbidden(source{dir: c.from, test: c.test}, c.imported)
		if (why == "") != c.ok {
			t.Errorf("%s (test: %v) imports %s: %q, want permitted: %v", c.from, c.test, c.imported, why, c.ok)
		}
	}
}

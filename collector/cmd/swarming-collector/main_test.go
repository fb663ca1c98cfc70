package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"swarming/collector"
	"swarming/collector/config"
	"swarming/collector/ingest"
	"swarming/collector/journal"
	"swarming/collector/watch"
	"swarming/shared/brokertest"
	"swarming/shared/wire"
)

func command(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return out.String(), errs.String(), code
}

func TestHelp(t *testing.T) {
	stdout, stderr, code := command("--help")
	if code != 0 || stderr != "" {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	for _, name := range config.NewSettings().Set.Names() {
		if !strings.Contains(stdout, "--"+name) {
			t.Errorf("help lacks --%s", name)
		}
	}
	for _, sub := range []string{"results", "events", "status", "watch"} {
		if stdout, _, code := command(sub, "--help"); code != 0 || !strings.Contains(stdout, "Usage:") {
			t.Errorf("%s --help: exit %d, %q", sub, code, stdout)
		}
	}
}

// fill makes a journal with two results and an event.
func fill(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	j, err := journal.Open(context.Background(), journal.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	now := time.Now()
	lost := wire.Result{Agent: "a", Boot: "b", Seq: 1, At: now, Target: "one.example", Probe: "icmp", Sent: 2, Cause: wire.CauseTimeout}
	well := wire.Result{Agent: "c", Boot: "b", Seq: 1, At: now, Target: "two.example", Probe: "icmp", Sent: 2, RTTs: wire.RTTs{1, 3}}
	lost.Summarise()
	well.Summarise()
	if _, err := j.Append(context.Background(), []journal.Entry{{Result: lost, Received: now}, {Result: well, Received: now}}); err != nil {
		t.Fatal(err)
	}
	if err := j.AppendEvents(context.Background(), []journal.Event{{Received: now, Kind: journal.KindRip, Agent: "a", Boot: "b", Conn: 1, Reason: "bye"}}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestResultsAndEvents(t *testing.T) {
	dir := fill(t)
	stdout, stderr, code := command("results", "--data", dir)
	if code != 0 || !strings.Contains(stdout, "one.example") || !strings.Contains(stdout, "timeout") || !strings.Contains(stdout, "2.000") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	stdout, _, _ = command("results", "--data", dir, "--target", "two.example", "--json")
	if strings.Count(stdout, "\n") != 1 {
		t.Fatalf("want one line: %q", stdout)
	}
	if r, err := wire.DecodeResult([]byte(stdout)); err != nil || r.Agent != "c" || *r.Avg != 2 || !strings.Contains(stdout, `"received":"`) {
		t.Errorf("%v: %s", err, stdout)
	}
	stdout, _, code = command("events", "--data", dir, "--agent", "a")
	if code != 0 || !strings.Contains(stdout, "rip") || !strings.Contains(stdout, "bye") {
		t.Errorf("exit %d, %q", code, stdout)
	}
	if _, stderr, code := command("results", "--data", t.TempDir()); code != 1 || !strings.Contains(stderr, "--data") {
		t.Errorf("no journal: exit %d, %q", code, stderr)
	}
}

func TestWatchSetAndShow(t *testing.T) {
	b, err := brokertest.StartEmbedded(brokertest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if stdout, _, code := command("watch", "show", "--broker", b.Addr()); code != 0 || !strings.Contains(stdout, "no watch list") {
		t.Errorf("empty broker: exit %d, %q", code, stdout)
	}
	if stdout, stderr, code := command("watch", "set", "one.example", "two.example", "--broker", b.Addr()); code != 0 || !strings.Contains(stdout, "2 targets") {
		t.Errorf("set: exit %d, %q, %q", code, stdout, stderr)
	}
	if stdout, _, code := command("watch", "show", "--broker", b.Addr()); code != 0 || !strings.Contains(stdout, "two.example") {
		t.Errorf("show: exit %d, %q", code, stdout)
	}
	if _, stderr, code := command("watch", "set", "no/host", "--broker", b.Addr()); code != 2 || !strings.Contains(stderr, "no/host") {
		t.Errorf("bad target: exit %d, %q", code, stderr)
	}
}

func TestStatus(t *testing.T) {
	now := time.Now()
	s := collector.Status{Version: "v1", Now: now, Started: now.Add(-time.Hour), Missing: 4,
		Losses: []collector.MissingStatus{{Agent: "a", Boot: "b", Missing: 4, Since: now, Last: now}},
		Ingest: ingest.Stats{Name: "c1", Stored: 12, Refused: map[string]map[string]uint64{"ping": {"syntax": 3}},
			Brokers: []ingest.BrokerStats{{Broker: "one:1883", Connected: true}}, Agents: []ingest.AgentStats{{Name: "a", Alive: true, Stretch: 2.5}}},
		Watch: watch.Stats{Targets: 5, Source: "file", Brokers: []watch.BrokerStats{{Shows: "ours"}}}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(s) }))
	defer srv.Close()
	listen := strings.TrimPrefix(srv.URL, "http://")
	stdout, stderr, code := command("status", "--listen", listen)
	for _, want := range []string{"all is well", "12 stored", "4 missing", "4 of agent a", "3 ping (syntax)", "one:1883", "ours", "2.5×"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("status lacks %q", want)
		}
	}
	if code != 0 || stderr != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	s.Problems = []string{"broker two is away"}
	if stdout, _, code := command("status", "--listen", listen); code != 1 || !strings.Contains(stdout, "PROBLEM  broker two is away") {
		t.Errorf("exit %d, %q", code, stdout)
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }))
	defer other.Close()
	if _, stderr, code := command("status", "--listen", strings.TrimPrefix(other.URL, "http://")); code != 1 || !strings.Contains(stderr, "no collector") {
		t.Errorf("something else answers: exit %d, %q", code, stderr)
	}
}

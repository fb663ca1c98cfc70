package collector

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"swarming/collector/config"
	"swarming/collector/ingest"
	"swarming/collector/watch"
	"swarming/shared/broker"
	"swarming/shared/brokertest"
	"swarming/shared/wire"
)

// freeAddr returns a loopback address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func address(t *testing.T, s string) broker.Address {
	t.Helper()
	a, err := broker.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// await asks until the answer is as wanted, at most for the deadline.
func await(t *testing.T, what string, ask func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(brokertest.Deadline)
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func get(addr, path string) (int, string, error) {
	resp, err := http.Get("http://" + addr + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// A result is stored, acknowledged and counted once however often it comes; a
// broker that is away and what was refused are told over HTTP.
func TestCollector(t *testing.T) {
	b, err := brokertest.StartEmbedded(brokertest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	away := freeAddr(t)
	listen := freeAddr(t)
	c := New(config.Config{Name: "c1", Brokers: []broker.Address{address(t, b.Addr()), address(t, away)}, Data: filepath.Join(t.TempDir(), "data"),
		Retention: 24 * time.Hour, Listen: listen, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	seen := brokertest.Collect(t, b.Addr(), "ack/#", "live/collector/#")
	seen.Wait("the collector's heartbeat", func(m brokertest.Message) bool { return m.Topic == "live/collector/c1" })

	r := wire.Result{Agent: "a", Boot: "b", Seq: 7, At: time.Now(), Target: "example.com", Probe: "icmp", Sent: 1, Cause: wire.CauseTimeout}
	r.Summarise()
	for range 3 {
		brokertest.Publish(t, b.Addr(), "ping/example.com", r.Append(nil), false)
	}
	brokertest.Publish(t, b.Addr(), "ping/example.com", []byte("rubbish"), false)
	seen.Wait("an ack", func(m brokertest.Message) bool {
		a, err := wire.DecodeAck(m.Payload)
		return m.Topic == "ack/a" && err == nil && a.By == "c1" && len(a.Boots["b"]) == 1 && a.Boots["b"][0] == wire.Range{7, 7}
	})

	await(t, "status", func() error {
		_, body, err := get(listen, "/status")
		if err != nil {
			return err
		}
		var s Status
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			return err
		}
		if s.Ingest.Stored != 1 || s.Ingest.Duplicates != 2 || s.Journal.Results != 1 || s.Ingest.Refused["ping"]["syntax"] != 1 || s.Missing != 0 {
			return fmt.Errorf("not as wanted: %s", body)
		}
		if len(s.Problems) != 1 || !strings.Contains(s.Problems[0], away) {
			return fmt.Errorf("problems: %q", s.Problems)
		}
		return nil
	})
	if code, body, err := get(listen, "/healthz"); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, away) {
		t.Errorf("healthz: %d %q %v", code, body, err)
	}
	_, body, err := get(listen, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"swarming_results_stored_total 1\n", "swarming_results_duplicate_total 2\n",
		`swarming_messages_refused_total{kind="ping",reason="syntax"} 1` + "\n",
		fmt.Sprintf("swarming_broker_up{broker=%q} 1\n", address(t, b.Addr())), fmt.Sprintf("swarming_broker_up{broker=%q} 0\n", address(t, away)),
		"swarming_problems 1\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// What cannot be opened ends Run at once, and the error says what to do.
func TestRunFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := config.Config{Name: "c1", Data: t.TempDir(), Retention: time.Hour, Listen: l.Addr().String(), Log: slog.New(slog.DiscardHandler)}
	if err := New(cfg).Run(context.Background()); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("an address in use: %v", err)
	}
	cfg.Data = filepath.Join(cfg.Data, "journal.db", "below a file")
	if err := New(cfg).Run(context.Background()); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a directory that cannot be: %v", err)
	}
}

// Each thing that needs a person is one line.
func TestFindProblems(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	s := Status{
		Ingest: ingest.Stats{
			Brokers: []ingest.BrokerStats{{Broker: "up:1883", Connected: true}, {Broker: "down:1883", Since: now, Problem: "refused", Hint: "start it"}},
			Agents: []ingest.AgentStats{
				{Name: "well", Alive: true}, {Name: "twin", Alive: true, Twins: true}, {Name: "full", Alive: true, Lost: 2, Unconfirmed: 3},
				{Name: "mute", Alive: true, Problem: "cannot ping"}, {Name: "gone", Lost: 9}},
		},
		Watch:   watch.Stats{FileError: "list:3: bad", Conflict: &watch.Conflict{Broker: "up:1883", By: "c2"}},
		Journal: JournalStatus{Full: true, FreeBytes: 5 << 20, Damaged: "journal.db.damaged"},
	}
	s.findProblems()
	s.addExport([]ExportStatus{{To: "elasticsearch", Stream: "results", FailingSince: now, LastError: "status 429", Hint: "add nodes"},
		{To: "elasticsearch", Stream: "events"}}, []string{"elasticsearch: no templates"})
	want := []string{"broker down:1883 is away since 2026-11-24T12:00:00Z: refused; start it", "5 MB left", "journal.db.damaged", "list:3: bad",
		`"c2"`, "agent twin:", "5 results were dropped", "agent mute: cannot ping", "no results since 2026-11-24T12:00:00Z: status 429; add nodes", "no templates"}
	if len(s.Problems) != len(want) {
		t.Errorf("%d problems, want %d: %q", len(s.Problems), len(want), s.Problems)
	}
	all := strings.Join(s.Problems, "\n")
	for _, w := range want {
		if !strings.Contains(all, w) {
			t.Errorf("problems lack %q:\n%s", w, all)
		}
	}
}

// No more requests are answered at once than memory is there for.
func TestLimited(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := limited(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-leave
	}))
	ask := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/status", nil))
		return w.Code
	}
	codes := make(chan int, maxRequests)
	for range maxRequests {
		go func() { codes <- ask() }()
		<-entered
	}
	if code := ask(); code != http.StatusServiceUnavailable {
		t.Errorf("one request too many is answered with %d", code)
	}
	close(leave)
	for range maxRequests {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("an answered request has code %d", code)
		}
	}
}

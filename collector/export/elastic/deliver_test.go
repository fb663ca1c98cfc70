package elastic

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Whatever answers in place of an answer, the same documents are sent again
// until they are stored.
func TestWholeRequestFailsAndIsRepeated(t *testing.T) {
	const failures = 3
	tests := []struct {
		name string
		fail func(w http.ResponseWriter, body []byte)
		want string // in LastError
		hint string
	}{
		{"overloaded", func(w http.ResponseWriter, _ []byte) {
			problem(w, 429, "es_rejected_execution_exception", "rejected execution of coordinating operation")
		}, "status 429: es_rejected_execution_exception", "overloaded"},
		{"unavailable", func(w http.ResponseWriter, _ []byte) { problem(w, 503, "master_not_discovered_exception", "") }, "status 503", "is the cluster up?"},
		{"unauthorized", func(w http.ResponseWriter, _ []byte) { problem(w, 401, "security_exception", "invalid credentials") }, "status 401", "valid API key"},
		{"forbidden", func(w http.ResponseWriter, _ []byte) { problem(w, 403, "security_exception", "is unauthorized") }, "status 403", "create_doc and auto_configure on swarming-*"},
		{"bad request", func(w http.ResponseWriter, _ []byte) {
			problem(w, 400, "document_parsing_exception", "not about a document here")
		}, "status 400", ""},
		{"error as a string", func(w http.ResponseWriter, _ []byte) {
			w.WriteHeader(500)
			fmt.Fprint(w, `{"error":"something broke"}`)
		}, "status 500: something broke", ""},
		{"a proxy's page", func(w http.ResponseWriter, _ []byte) {
			w.WriteHeader(502)
			fmt.Fprint(w, "<html>\nBad Gateway</html>")
		}, `status 502: "<html>\nBad Gateway</html>"`, "is the cluster up?"},
		{"redirect", func(w http.ResponseWriter, _ []byte) { w.Header().Set("Location", "/login"); w.WriteHeader(302) }, "status 302", "not to be Elasticsearch's"},
		{"rubbish", func(w http.ResponseWriter, _ []byte) { fmt.Fprint(w, "hello") }, `read answer "hello"`, ""},
		{"empty", func(http.ResponseWriter, []byte) {}, `read answer ""`, ""},
		{"too few items", func(w http.ResponseWriter, _ []byte) { fmt.Fprint(w, `{"items":[{"create":{"status":201}}]}`) }, "about 1 documents: want 20", ""},
		{"items without status", func(w http.ResponseWriter, _ []byte) {
			fmt.Fprintf(w, `{"items":[%s{}]}`, strings.Repeat(`{"create":{}},`, 19))
		}, "has no status for document 0", ""},
		{"endless", func(w http.ResponseWriter, _ []byte) {
			for range maxAnswer/1024 + 2 {
				fmt.Fprint(w, strings.Repeat(" ", 1024))
			}
		}, "longer than", ""},
		{"cut off", func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"items":[`)
		}, "read answer: unexpected EOF", ""},
		{"no answer", func(http.ResponseWriter, []byte) { panic(http.ErrAbortHandler) }, "EOF", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var n atomic.Int32
			var seen atomic.Value
			f, m := newFake(t), newMemory()
			release := make(chan struct{})
			f.before = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				if r.URL.Path != "/_bulk" {
					return false
				}
				if n.Add(1) <= failures {
					tt.fail(w, body)
					return true
				}
				<-release
				return false
			}
			f.up()
			m.add(20)
			e, _ := start(t, Options{URLs: []string{f.URL}, Source: m})
			wait(t, "failed often enough", func() bool {
				s := e.Stats().Results
				seen.Store(s)
				return s.Failures == failures
			})
			s := seen.Load().(StreamStats)
			if !strings.Contains(s.LastError, tt.want) || !strings.Contains(s.Hint, tt.hint) {
				t.Errorf("error %q, hint %q: want them to contain %q and %q", s.LastError, s.Hint, tt.want, tt.hint)
			}
			if s.FailingSince.IsZero() || s.Lag == 0 || m.cursor() != 0 {
				t.Errorf("failing since %v, lag %v, cursor %d: want a time, a lag, and 0", s.FailingSince, s.Lag, m.cursor())
			}
			close(release)
			exported(t, m, e)
			if s := e.Stats().Results; f.count() != 20 || s.Exported != 20 || s.Rejected != 0 || s.LastError != "" {
				t.Errorf("%d documents, %+v: want 20, none rejected, no error", f.count(), s)
			}
		})
	}
}

// A failure of single documents holds the cursor before them, unless it is the
// documents' own.
func TestItemFailureHoldsTheCursor(t *testing.T) {
	tests := []struct {
		status       int
		kind, reason string
		hint         string
	}{
		{429, "es_rejected_execution_exception", "rejected execution of primary operation", "overloaded"},
		{429, "cluster_block_exception", "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];", "free disk space"},
		{403, "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)];", "remove the block"},
		{403, "security_exception", "action [indices:data/write/bulk[s]] is unauthorized", "create_doc"},
		{400, "validation_exception", "Validation Failed: 1: this action would add [1] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;", "cluster.max_shards_per_node"},
		{400, "index_closed_exception", "closed", "open the index"},
		{400, "illegal_argument_exception", "unknown", ""},
		{404, "index_not_found_exception", "no such index [x] and [action.auto_create_index] is [false]", "action.auto_create_index"},
		{503, "unavailable_shards_exception", "primary shard is not active", "is the cluster up?"},
		{500, "", "", ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d %s", tt.status, tt.kind), func(t *testing.T) {
			f, m := newFake(t), newMemory()
			var lifted atomic.Bool
			f.judge = func(id string) (int, string, string) {
				if id == "garage-pi/k3j9x2m1/15" && !lifted.Load() {
					return tt.status, tt.kind, tt.reason
				}
				return 0, "", ""
			}
			f.up()
			m.add(40)
			e, _ := start(t, Options{URLs: []string{f.URL}, Source: m, BatchRows: 10})
			wait(t, "failed three times", func() bool { return e.Stats().Results.Failures >= 3 })
			s := e.Stats().Results
			if m.cursor() > 10 || s.Rejected != 0 {
				t.Errorf("cursor %d, %d rejected: want the cursor at most at 10 and none", m.cursor(), s.Rejected)
			}
			if want := fmt.Sprintf("status %d", tt.status); !strings.Contains(s.LastError, want) || !strings.Contains(s.LastError, tt.kind) || !strings.Contains(s.Hint, tt.hint) {
				t.Errorf("error %q, hint %q: want %q, %q, %q", s.LastError, s.Hint, want, tt.kind, tt.hint)
			}
			lifted.Store(true)
			exported(t, m, e)
			if s := e.Stats().Results; f.count() != 40 || s.Exported != 40 || s.Duplicates != 0 {
				t.Errorf("%d documents, %+v: want 40, each sent until it was stored and not again", f.count(), s)
			}
		})
	}
}

// The cursor passes a batch only with all before it, though a later batch may
// be stored first.
func TestCursorMovesInOrder(t *testing.T) {
	f, m := newFake(t), newMemory()
	var lifted atomic.Bool
	f.judge = func(id string) (int, string, string) {
		if id == "garage-pi/k3j9x2m1/1" && !lifted.Load() {
			return 429, "es_rejected_execution_exception", ""
		}
		return 0, "", ""
	}
	f.up()
	m.add(1000)
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m, BatchRows: 10})
	wait(t, "stored all but one of two batches", func() bool { return f.count() == 19 })
	wait(t, "failed five times", func() bool { return e.Stats().Results.Failures >= 5 })
	if m.cursor() != 0 {
		t.Errorf("the cursor is at %d though the first document is not stored", m.cursor())
	}
	m.mu.Lock()
	highest := m.highest
	m.mu.Unlock()
	if highest > 30 {
		t.Errorf("%d rows were read while the first was failing: want at most the 30 of three batches", highest)
	}
	lifted.Store(true)
	exported(t, m, e)
	if f.most > inFlight {
		t.Errorf("%d requests at a time: want at most %d", f.most, inFlight)
	}
}

func TestUnparsableDocumentIsPassedOver(t *testing.T) {
	for _, kind := range []string{"document_parsing_exception", "mapper_parsing_exception", "strict_dynamic_mapping_exception"} {
		f, m := newFake(t), newMemory()
		f.judge = func(id string) (int, string, string) {
			if id == "garage-pi/k3j9x2m1/3" || id == "garage-pi/k3j9x2m1/7" {
				return 400, kind, "failed to parse field [seq]"
			}
			return 0, "", ""
		}
		f.up()
		m.add(10)
		e, _ := start(t, Options{URLs: []string{f.URL}, Source: m})
		exported(t, m, e)
		s := e.Stats().Results
		if f.count() != 8 || s.Exported != 8 || s.Rejected != 2 || s.Failures != 0 {
			t.Errorf("%s: %d documents, %+v: want 8, two rejected, no failure", kind, f.count(), s)
		}
		if !strings.Contains(s.LastRejected, "garage-pi/k3j9x2m1/7") || !strings.Contains(s.LastRejected, kind) {
			t.Errorf("last rejected %q: want the document and the reason", s.LastRejected)
		}
	}
}

// A request that is too long is halved; a document that is too long alone is
// passed over.
func TestTooLongIsHalved(t *testing.T) {
	const limit = 4000
	f, m := newFake(t), newMemory()
	f.before = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if len(body) <= limit {
			return false
		}
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return true
	}
	m.add(99)
	m.rows[50].Result.Target = "a-long-one"
	m.rows[50].Broker = strings.Repeat("x", limit)
	f.up()
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m})
	exported(t, m, e)
	s := e.Stats().Results
	if f.count() != 98 || s.Exported != 98 || s.Rejected != 1 || s.Failures != 0 {
		t.Errorf("%d documents, %+v: want 98, one rejected, no failure", f.count(), s)
	}
	if !strings.Contains(s.LastRejected, "garage-pi/k3j9x2m1/51") || !strings.Contains(s.LastRejected, "413") {
		t.Errorf("last rejected %q: want document 51 and 413", s.LastRejected)
	}
}

// Once a request was too long, later batches are not even tried at that length.
func TestTooLongIsRemembered(t *testing.T) {
	const limit = 40_000
	f, m := newFake(t), newMemory()
	var refused atomic.Int32
	f.before = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if len(body) <= limit {
			return false
		}
		refused.Add(1)
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return true
	}
	m.add(2000)
	f.up()
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m, BatchRows: 200})
	exported(t, m, e)
	// Ten batches of some 130 kB; at most three were read before the first was refused.
	if n := refused.Load(); f.count() != 2000 || n == 0 || n > 8 {
		t.Errorf("%d documents, %d requests refused: want 2000 and a few", f.count(), n)
	}
}

// A node that has not the memory for a request of ours gets smaller ones: it
// would refuse the same one for ever.
func TestOverloadMeansSmallerRequests(t *testing.T) {
	f, m := newFake(t), newMemory()
	f.before = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.URL.Path != "/_bulk" || len(body) <= 3000 {
			return false
		}
		problem(w, 429, "es_rejected_execution_exception", "rejected execution of coordinating operation")
		return true
	}
	m.add(100)
	f.up()
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m})
	exported(t, m, e)
	if s := e.Stats().Results; f.count() != 100 || s.Failures == 0 || s.Rejected != 0 {
		t.Errorf("%d documents, %+v: want 100, after failures", f.count(), s)
	}
}

// After a partial failure only what failed is sent again.
func TestOnlyFailedDocumentsAreSentAgain(t *testing.T) {
	f, m := newFake(t), newMemory()
	var refused atomic.Int32
	f.judge = func(id string) (int, string, string) {
		if (id == "garage-pi/k3j9x2m1/2" || id == "garage-pi/k3j9x2m1/4") && refused.Add(1) <= 2 {
			return 429, "es_rejected_execution_exception", ""
		}
		return 0, "", ""
	}
	f.up()
	m.add(5)
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m})
	exported(t, m, e)
	got := f.requests()
	if len(got) != 2 || len(got[0]) != 5 || fmt.Sprint(got[1]) != "[garage-pi/k3j9x2m1/2 garage-pi/k3j9x2m1/4]" {
		t.Errorf("requests %v: want all five, then 2 and 4", got)
	}
}

// An answer that is lost leaves documents stored that are then sent again.
func TestDuplicatesAreSuccess(t *testing.T) {
	f, m := newFake(t), newMemory()
	var n atomic.Int32
	f.before = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.URL.Path == "/_bulk" && n.Add(1) == 1 {
			f.bulk(discard{}, body)
			panic(http.ErrAbortHandler)
		}
		return false
	}
	f.up()
	m.add(30)
	e, stop := start(t, Options{URLs: []string{f.URL}, Source: m})
	exported(t, m, e)
	if s := e.Stats().Results; f.count() != 30 || s.Duplicates != 30 || s.Exported != 0 {
		t.Errorf("%d documents, %+v: want 30 and 30 duplicates", f.count(), s)
	}
	stop()

	// A second collector with the same results adds nothing.
	m.cursors = map[string]int64{}
	e, _ = start(t, Options{URLs: []string{f.URL}, Source: m})
	exported(t, m, e)
	if f.count() != 30 {
		t.Errorf("%d documents after exporting again: want 30", f.count())
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// A collector that is told to stop does not wait for Elasticsearch, and goes on
// where it was.
func TestStopWhileElasticsearchHangs(t *testing.T) {
	f, m := newFake(t), newMemory()
	hang := make(chan struct{})
	var n atomic.Int32
	f.before = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == "/_bulk" && n.Add(1) == 2 {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
			return true
		}
		return false
	}
	f.up()
	defer close(hang)
	m.add(10)
	e, stop := start(t, Options{URLs: []string{f.URL}, Source: m})
	exported(t, m, e)
	m.add(10)
	wait(t, "asked twice", func() bool { return n.Load() == 2 })
	stop() // fails the test if Run does not return
	if m.cursor() != 10 {
		t.Errorf("the cursor is at %d: want 10", m.cursor())
	}
	e, _ = start(t, Options{URLs: []string{f.URL}, Source: m})
	exported(t, m, e)
	if f.count() != 20 {
		t.Errorf("%d documents: want 20", f.count())
	}
}

// What is stored by the time of the stop is noted, and not sent again.
func TestStopNotesWhatIsStored(t *testing.T) {
	f, m := newFake(t).up(), newMemory()
	m.add(10)
	e, err := New(Options{URLs: []string{f.URL}, Source: m})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m.onSet = cancel
	if err := e.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if m.cursor() != 10 {
		t.Errorf("the cursor is at %d: want 10", m.cursor())
	}
}

// Batches are bounded in bytes, too.
func TestBatchBytes(t *testing.T) {
	f, m := newFake(t), newMemory()
	var longest atomic.Int64
	f.before = func(_ http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.URL.Path == "/_bulk" && int64(len(body)) > longest.Load() {
			longest.Store(int64(len(body)))
		}
		return false
	}
	f.up()
	m.add(200)
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m, BatchBytes: 10_000})
	exported(t, m, e)
	if f.count() != 200 || longest.Load() > 12_000 {
		t.Errorf("%d documents, a request of %d bytes: want 200, and at most a document more than 10000", f.count(), longest.Load())
	}
}

// A journal that cannot be read is retried like Elasticsearch.
func TestSourceFails(t *testing.T) {
	f, m := newFake(t).up(), newMemory()
	m.setFail(fmt.Errorf("disk on fire"))
	m.add(3)
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m})
	wait(t, "failing", func() bool { return strings.Contains(e.Stats().Results.LastError, "disk on fire") })
	m.setFail(nil)
	exported(t, m, e)
	if f.count() != 3 {
		t.Errorf("%d documents: want 3", f.count())
	}
}

// Rows that arrive while an export is idle are exported at once, not at the
// next poll.
func TestChangedWakes(t *testing.T) {
	f, m := newFake(t).up(), newMemory()
	e, err := New(Options{URLs: []string{f.URL}, Source: m, Linger: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	e.poll = time.Hour
	run(t, e)
	wait(t, "idle", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.reads > 0 })
	m.add(1)
	exported(t, m, e)
}

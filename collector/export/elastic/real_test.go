package elastic

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"swarming/build/elasticsearch/estest"
	"swarming/collector/journal"
)

// The tests here are against a real Elasticsearch: one node without security
// and one with it, each started by the first test that asks.
var plain, secure estest.Shared

func TestMain(m *testing.M) {
	code := m.Run()
	plain.Close()
	secure.Close()
	os.Exit(code)
}

// startReal pauses longer than start, for the sake of the node.
func startReal(t testing.TB, o Options) (*Exporter, func()) {
	t.Helper()
	o.MinPause, o.MaxPause, o.Linger = 20*time.Millisecond, 500*time.Millisecond, 20*time.Millisecond
	return start(t, o)
}

func plainNode(t testing.TB) *estest.Node {
	if testing.Short() {
		t.Skip("needs a real Elasticsearch: not with -short")
	}
	return plain.Get(t, estest.Options{})
}

func TestRealDocuments(t *testing.T) {
	n := plainNode(t)
	m := newMemory()
	m.agents = []journal.AgentInfo{{Name: "garage-pi", Labels: map[string]string{"isp": "acme", "site.name": "home"}}}
	m.add(3)
	m.rows[2].Result.At = day.AddDate(0, 0, 1)
	m.addEvents(journal.Event{At: day, Received: day, Kind: "rip", Agent: "garage-pi", Boot: "k3j9x2m1", Conn: 1, Reason: "bye", Detail: json.RawMessage(`{"a":{"b":1}}`)})
	e, _ := startReal(t, Options{URLs: []string{n.URL}, Source: m, Index: "documents"})
	exported(t, m, e)
	wait(t, "exported the event", func() bool { return e.Stats().Events.Exported == 1 })
	if a, b, c := n.Count(t, "documents-ping-2026.11.23"), n.Count(t, "documents-ping-2026.11.24"), n.Count(t, "documents-event-2026.11.23"); a != 2 || b != 1 || c != 1 {
		t.Errorf("%d, %d and %d documents: want 2, 1 and an event", a, b, c)
	}
	// Each field is what Kibana needs it to be: asking by it finds the document.
	for _, query := range []string{
		`{"range":{"@timestamp":{"gte":"2026-11-23T10:00:00.123Z","lte":"2026-11-23T10:00:00.123Z"}}}`,
		`{"term":{"addr":"192.0.2.0/24"}}`, `{"term":{"target":"example.com"}}`, `{"range":{"rtts":{"gt":13.1}}}`,
		`{"range":{"avg":{"gt":12.5,"lt":12.6}}}`, `{"term":{"labels.isp":"acme"}}`, `{"term":{"labels.site.name":"home"}}`,
		`{"term":{"seq":1}}`, `{"match":{"message":"timeout"}}`, `{"term":{"@version":"1"}}`, `{"range":{"received":{"gt":"2026-11-23T10:00:04Z"}}}`,
	} {
		var out struct {
			Hits struct{ Total struct{ Value int } }
		}
		n.Must(t, "POST", "/documents-ping-*/_search", `{"query":`+query+`}`, &out)
		if out.Hits.Total.Value == 0 {
			t.Errorf("%s finds nothing", query)
		}
	}
	var mapping map[string]struct {
		Mappings struct {
			Dynamic    string
			Properties map[string]struct{ Type string }
		}
	}
	n.Must(t, "GET", "/documents-*/_mapping", nil, &mapping)
	for index, x := range mapping {
		if x.Mappings.Dynamic != "false" || x.Mappings.Properties["labels"].Type != "flattened" {
			t.Errorf("index %s does not follow the template: %+v", index, x)
		}
	}
}

// Each result is stored exactly once though the node is killed in the middle
// of the load, twice.
func TestRealNodeIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real Elasticsearch: not with -short")
	}
	n := estest.New(t, estest.Options{})
	m := newMemory()
	const total = 60_000
	m.add(total)
	e, _ := startReal(t, Options{URLs: []string{n.URL}, Source: m, BatchRows: 500})
	for round := 1; round <= 2; round++ {
		wait(t, "a third further", func() bool { return m.cursor() > int64(round*total/4) })
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		wait(t, "failing", func() bool { return !e.Stats().Results.FailingSince.IsZero() })
		if m.cursor() == total {
			t.Fatal("the node was killed after the load: the test shows nothing")
		}
		if err := n.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	exported(t, m, e)
	s := e.Stats().Results
	t.Logf("exported %d, duplicates %d, failures %d", s.Exported, s.Duplicates, s.Failures)
	if got := n.Count(t, "swarming-ping-*"); got != total || s.Rejected != 0 {
		t.Errorf("%d documents, %d rejected: want %d and none", got, s.Rejected, total)
	}
}

// A node that rejects for want of memory gets everything in the end.
func TestRealOverload(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real Elasticsearch: not with -short")
	}
	n := estest.New(t, estest.Options{Settings: []string{"indexing_pressure.memory.limit: 300kb"}})
	m := newMemory()
	m.add(5000)
	e, _ := startReal(t, Options{URLs: []string{n.URL}, Source: m, BatchBytes: 250 << 10})
	exported(t, m, e)
	s := e.Stats().Results
	if s.Failures == 0 {
		t.Error("nothing was rejected: the test shows nothing")
	}
	if got := n.Count(t, "swarming-ping-*"); got != 5000 || s.Rejected != 0 {
		t.Errorf("%d documents, %d rejected: want 5000 and none", got, s.Rejected)
	}
}

// Refusals that are not the documents' fault, provoked and lifted.
func TestRealRefusals(t *testing.T) {
	n := plainNode(t)
	tests := []struct {
		name          string
		provoke, lift func(t *testing.T, index string)
		want, hint    string
	}{
		{"shard limit",
			func(t *testing.T, _ string) {
				n.Must(t, "PUT", "/fills-the-limit", nil, nil)
				cluster(t, n, "cluster.max_shards_per_node", 1)
			},
			func(t *testing.T, _ string) { cluster(t, n, "cluster.max_shards_per_node", nil) },
			"maximum", "cluster.max_shards_per_node"},
		{"closed index",
			func(t *testing.T, index string) {
				n.Must(t, "PUT", "/"+index, nil, nil)
				n.Must(t, "POST", "/"+index+"/_close", nil, nil)
			},
			func(t *testing.T, index string) { n.Must(t, "POST", "/"+index+"/_open", nil, nil) },
			"index_closed_exception", "_open"},
		{"write block",
			func(t *testing.T, index string) {
				n.Must(t, "PUT", "/"+index, nil, nil)
				block(t, n, index, "write", true)
			},
			func(t *testing.T, index string) { block(t, n, index, "write", nil) },
			"cluster_block_exception", "index.blocks.write"},
		{"flood stage",
			func(t *testing.T, index string) {
				n.Must(t, "PUT", "/"+index, nil, nil)
				block(t, n, index, "read_only_allow_delete", true)
			},
			func(t *testing.T, index string) { block(t, n, index, "read_only_allow_delete", nil) },
			"flood-stage", "free disk space"},
		{"no index may be made",
			func(t *testing.T, _ string) { cluster(t, n, "action.auto_create_index", "false") },
			func(t *testing.T, _ string) { cluster(t, n, "action.auto_create_index", nil) },
			"index_not_found_exception", "action.auto_create_index"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			prefix := "refused-" + strings.ReplaceAll(tt.name, " ", "-")
			index := prefix + "-ping-2026.11.23"
			tt.provoke(t, index)
			m := newMemory()
			m.add(50)
			e, _ := startReal(t, Options{URLs: []string{n.URL}, Source: m, Index: prefix})
			wait(t, "failing", func() bool { return e.Stats().Results.Failures >= 3 })
			s := e.Stats().Results
			if !strings.Contains(s.LastError, tt.want) || !strings.Contains(s.Hint, tt.hint) || m.cursor() != 0 || s.Rejected != 0 {
				t.Errorf("error %q, hint %q, cursor %d, %d rejected: want %q, %q, 0, none", s.LastError, s.Hint, m.cursor(), s.Rejected, tt.want, tt.hint)
			}
			tt.lift(t, index)
			exported(t, m, e)
			if got := n.Count(t, index); got != 50 {
				t.Errorf("%d documents: want 50", got)
			}
		})
	}
}

func cluster(t testing.TB, n *estest.Node, setting string, value any) {
	t.Helper()
	n.Must(t, "PUT", "/_cluster/settings", map[string]any{"persistent": map[string]any{setting: value}}, nil)
}

func block(t testing.TB, n *estest.Node, index, name string, value any) {
	t.Helper()
	n.Must(t, "PUT", "/"+index+"/_settings", map[string]any{"index.blocks." + name: value}, nil)
}

// One document that the mapping cannot take is passed over; its neighbours are
// stored.
func TestRealPoison(t *testing.T) {
	n := plainNode(t)
	n.Must(t, "PUT", "/poison-ping-2026.11.23", `{"mappings":{"properties":{"cause":{"type":"date"}}}}`, nil)
	m := newMemory()
	m.add(10)
	for i := range m.rows {
		if i != 4 {
			m.rows[i].Result.Cause = ""
		}
	}
	e, _ := startReal(t, Options{URLs: []string{n.URL}, Source: m, Index: "poison"})
	exported(t, m, e)
	s := e.Stats().Results
	if got := n.Count(t, "poison-ping-*"); got != 9 || s.Rejected != 1 || s.Failures != 0 {
		t.Errorf("%d documents, %+v: want 9, one rejected, no failure", got, s)
	}
	if !strings.Contains(s.LastRejected, "garage-pi/k3j9x2m1/5") || !strings.Contains(s.LastRejected, "document_parsing_exception") {
		t.Errorf("last rejected %q: want document 5 and why", s.LastRejected)
	}
}

// A key that may only create documents is enough, over TLS; one that is revoked
// stops the export until another is in the file.
func TestRealSecurity(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real Elasticsearch: not with -short")
	}
	n := secure.Get(t, estest.Options{Secure: true})
	file := filepath.Join(t.TempDir(), "key")
	id, key := n.APIKey(t, "swarming-*", []string{"create_doc", "auto_configure"}, nil)
	write(t, file, key+"\n")
	m := newMemory()
	m.add(10)
	e, _ := startReal(t, Options{URLs: []string{n.URL}, Source: m, CA: n.CA, APIKeyFile: file})
	exported(t, m, e)
	if s := e.Stats(); !strings.Contains(s.TemplateProblem, "manage_index_templates") || s.Results.Failures != 0 {
		t.Errorf("%+v: want no failure, but a word about the template", s)
	}

	n.RevokeAPIKey(t, id)
	m.add(10)
	wait(t, "failing", func() bool { return e.Stats().Results.Failures >= 3 })
	if s := e.Stats().Results; !strings.Contains(s.LastError, "status 401") || !strings.Contains(s.Hint, "API key") || m.cursor() != 10 {
		t.Errorf("error %q, hint %q, cursor %d: want 401, a word about the key, and 10", s.LastError, s.Hint, m.cursor())
	}
	_, key = n.APIKey(t, "swarming-*", []string{"create_doc", "auto_configure"}, nil)
	write(t, file, key+"\n")
	exported(t, m, e)

	// Sent again by a collector that does not know of the first: still 20.
	m.cursors = map[string]int64{}
	e, _ = startReal(t, Options{URLs: []string{n.URL}, Source: m, CA: n.CA, APIKeyFile: file})
	exported(t, m, e)
	if s := e.Stats().Results; n.Count(t, "swarming-ping-*") != 20 || s.Duplicates != 20 {
		t.Errorf("%d documents, %+v: want 20, all of them duplicates", n.Count(t, "swarming-ping-*"), s)
	}
}

// A key that may manage templates puts them; a password in the URL does, too.
func TestRealTemplateRights(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real Elasticsearch: not with -short")
	}
	n := secure.Get(t, estest.Options{Secure: true})
	file := filepath.Join(t.TempDir(), "key")
	_, key := n.APIKey(t, "rights-*", []string{"create_doc", "auto_configure"}, []string{"manage_index_templates"})
	write(t, file, key)
	for _, o := range []Options{
		{Index: "rights", URLs: []string{n.URL}, APIKeyFile: file},
		{Index: "password", URLs: []string{strings.Replace(n.URL, "://", "://"+n.User+":"+n.Password+"@", 1)}},
	} {
		m := newMemory()
		m.add(1)
		o.Source, o.CA = m, n.CA
		e, _ := startReal(t, o)
		exported(t, m, e)
		if s := e.Stats(); s.TemplateProblem != "" {
			t.Errorf("%s: %s", o.Index, s.TemplateProblem)
		}
		var out struct {
			Templates []struct{ Name string } `json:"index_templates"`
		}
		n.Must(t, "GET", "/_index_template/"+o.Index+"-*", nil, &out)
		var got []string
		for _, x := range out.Templates {
			got = append(got, x.Name)
		}
		slices.Sort(got)
		if want := fmt.Sprintf("[%s-event %[1]s-ping]", o.Index); fmt.Sprint(got) != want {
			t.Errorf("templates %v: want %s", got, want)
		}
	}
}

// The longest request that Elasticsearch takes may be below ours.
func TestRealTooLong(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real Elasticsearch: not with -short")
	}
	n := estest.New(t, estest.Options{Settings: []string{"http.max_content_length: 64kb"}})
	m := newMemory()
	m.add(3000)
	e, _ := startReal(t, Options{URLs: []string{n.URL}, Source: m})
	exported(t, m, e)
	s := e.Stats().Results
	t.Logf("failures %d, last error %q", s.Failures, s.LastError)
	if got := n.Count(t, "swarming-ping-*"); got != 3000 || s.Rejected != 0 {
		t.Errorf("%d documents, %d rejected: want 3000 and none", got, s.Rejected)
	}
}

// The names of the original, beside Elasticsearch's own templates.
func TestRealLogstashNames(t *testing.T) {
	n := plainNode(t)
	m := newMemory()
	m.add(2)
	m.addEvents(journal.Event{At: day, Received: day, Kind: "live", Agent: "a", Boot: "b", Conn: 1})
	e, _ := startReal(t, Options{URLs: []string{n.URL}, Source: m, Index: "logstash"})
	exported(t, m, e)
	wait(t, "exported the event", func() bool { return e.Stats().Events.Exported == 1 })
	if a, b := n.Count(t, "logstash-2026.11.23"), n.Count(t, "logstash-event-2026.11.23"); a != 2 || b != 1 {
		t.Errorf("%d results, %d events: want 2 and 1", a, b)
	}
}

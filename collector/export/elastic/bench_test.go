package elastic

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/elastic/go-elasticsearch/v8"
	"github.com/elastic/go-elasticsearch/v8/esutil"

	"swarming/build/elasticsearch/estest"
)

// BenchmarkAgainstBulkIndexer exports documents to a real node, in turns with
// the client's own BulkIndexer that is fed the same documents ready-made: same
// node, same templates, two requests at a time on either side. The first turns
// warm the node up and do not count. The figures are the medians of the turns.
//
//	go test -run '^$' -bench AgainstBulkIndexer -benchtime 5x ./collector/export/elastic
func BenchmarkAgainstBulkIndexer(b *testing.B) {
	n := estest.New(b, estest.Options{Heap: "512m"})
	const docs = 50_000
	m := newMemory()
	m.add(docs)
	var ready [][]byte
	for i := range m.rows {
		_, doc, _ := bytes.Cut(appendResult(nil, "x-", &m.rows[i], nil), []byte("\n"))
		ready = append(ready, bytes.TrimSuffix(doc, []byte("\n")))
	}
	putTemplates(b, n, "exporter")
	putTemplates(b, n, "indexer")
	for range 3 {
		export(b, n, m)
		index(b, n, m, ready)
	}
	var ours, theirs []float64
	for range b.N {
		ours = append(ours, docs/export(b, n, m).Seconds())
		theirs = append(theirs, docs/index(b, n, m, ready).Seconds())
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	our, their := ours[len(ours)/2], theirs[len(theirs)/2]
	b.ReportMetric(our, "docs/s")
	b.ReportMetric(their, "bulkindexer-docs/s")
	b.ReportMetric(100*our/their, "%of-bulkindexer")
	b.ReportMetric(0, "ns/op")
}

func putTemplates(b *testing.B, n *estest.Node, prefix string) {
	templates, err := Templates(prefix, "")
	if err != nil {
		b.Fatal(err)
	}
	for _, t := range templates {
		n.Must(b, "PUT", "/_index_template/"+t.Name, t.Body, nil)
	}
}

// export takes m to a new index and returns how long that took.
func export(b *testing.B, n *estest.Node, m *memory) time.Duration {
	defer clean(b, n, "exporter-ping-2026.11.23", len(m.rows))
	m.mu.Lock()
	clear(m.cursors)
	m.mu.Unlock()
	begin := time.Now()
	e, stop := start(b, Options{URLs: []string{n.URL}, Source: m, Index: "exporter"})
	exported(b, m, e)
	took := time.Since(begin)
	stop()
	return took
}

// index does the same with the client's own means.
func index(b *testing.B, n *estest.Node, m *memory, ready [][]byte) time.Duration {
	const name = "indexer-ping-2026.11.23"
	defer clean(b, n, name, len(ready))
	begin := time.Now()
	es, err := elasticsearch.NewClient(elasticsearch.Config{Addresses: []string{n.URL}})
	if err != nil {
		b.Fatal(err)
	}
	bi, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{Client: es, Index: name, NumWorkers: inFlight, FlushBytes: DefaultBatchBytes,
		FilterPath: []string{"errors", "items.*.status", "items.*.error"}})
	if err != nil {
		b.Fatal(err)
	}
	var failed atomic.Int64
	for i, doc := range ready {
		err := bi.Add(context.Background(), esutil.BulkIndexerItem{Action: "create", DocumentID: resultID(m.rows[i].Result.ID()), Body: bytes.NewReader(doc),
			OnFailure: func(context.Context, esutil.BulkIndexerItem, esutil.BulkIndexerResponseItem, error) { failed.Add(1) }})
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := bi.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	if failed.Load() > 0 {
		b.Fatalf("the bulk indexer failed for %d documents", failed.Load())
	}
	return took
}

func clean(b *testing.B, n *estest.Node, name string, want int) {
	if got := n.Count(b, name); got != want {
		b.Fatalf("%s has %d documents: want %d", name, got, want)
	}
	n.Must(b, "DELETE", "/"+name, nil, nil)
}

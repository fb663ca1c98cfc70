package journal

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const benchBatch = 1000

// refill gives every entry the next sequence number.
func refill(batch []Entry, step uint64) {
	for i := range batch {
		batch[i].Result.Seq += step
		batch[i].Received = batch[i].Received.Add(time.Second)
	}
}

func perSecond(b *testing.B, unit string, n int) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), unit)
}

// BenchmarkAppend is 100 agents' results in batches of 1000, each batch on disk,
// beside what the same machine does at best at the same moment: the encoded
// bytes written to a plain file with a sync for each batch, and rows of one
// integer in SQLite.
func BenchmarkAppend(b *testing.B) {
	b.Run("journal", func(b *testing.B) {
		for _, size := range []int{1, 100, benchBatch} {
			b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
				j := open(b, Options{})
				batch := entries(min(size, 100), max(1, size/100), 1)
				for b.Loop() {
					if n, err := j.Append(b.Context(), batch); err != nil || n != size {
						b.Fatalf("stored %d: %v", n, err)
					}
					refill(batch, uint64(max(1, size/100)))
				}
				perSecond(b, "results/s", b.N*size)
				b.ReportMetric(float64(j.Stats().Bytes)/float64(b.N*size), "B/result")
			})
		}
	})
	b.Run("duplicates", func(b *testing.B) {
		j := open(b, Options{})
		batch := entries(100, benchBatch/100, 1)
		if _, err := j.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if n, err := j.Append(b.Context(), batch); err != nil || n != 0 {
				b.Fatalf("stored %d: %v", n, err)
			}
		}
		perSecond(b, "results/s", b.N*benchBatch)
	})
	b.Run("plain-file", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		batch := entries(100, benchBatch/100, 1)
		var buf []byte
		for b.Loop() {
			buf = buf[:0]
			for i := range batch {
				buf = batch[i].Result.Append(buf)
			}
			if _, err := f.Write(buf); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		perSecond(b, "results/s", b.N*benchBatch)
		b.ReportMetric(float64(len(buf))/benchBatch, "B/result")
	})
	b.Run("sqlite-one-integer", func(b *testing.B) {
		db, err := sql.Open("sqlite", dsn(filepath.Join(b.TempDir(), "raw.db"), writerParams))
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		db.SetMaxOpenConns(1)
		if _, err := db.Exec("CREATE TABLE t (n INTEGER PRIMARY KEY)"); err != nil {
			b.Fatal(err)
		}
		stmt, err := db.Prepare("INSERT INTO t VALUES (?)")
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for b.Loop() {
			tx, err := db.Begin()
			if err != nil {
				b.Fatal(err)
			}
			for range benchBatch {
				n++
				if _, err := tx.Stmt(stmt).Exec(n); err != nil {
					b.Fatal(err)
				}
			}
			if err := tx.Commit(); err != nil {
				b.Fatal(err)
			}
		}
		perSecond(b, "rows/s", b.N*benchBatch)
	})
}

// fill stores n batches.
func fill(tb testing.TB, j *Journal, n int) {
	tb.Helper()
	batch := entries(100, benchBatch/100, 1)
	for range n {
		if _, err := j.Append(tb.Context(), batch); err != nil {
			tb.Fatal(err)
		}
		refill(batch, benchBatch/100)
	}
}

// BenchmarkResultsAfter reads as an exporter does.
func BenchmarkResultsAfter(b *testing.B) {
	j := open(b, Options{})
	fill(b, j, 200)
	var after int64
	n := 0
	for b.Loop() {
		rows, err := j.ResultsAfter(b.Context(), after, benchBatch)
		if err != nil || len(rows) != benchBatch {
			b.Fatalf("%d rows: %v", len(rows), err)
		}
		n += len(rows)
		if after = rows[len(rows)-1].ID; after == 200*benchBatch {
			after = 0
		}
	}
	perSecond(b, "results/s", n)
}

// BenchmarkAtLimit is BenchmarkAppend/journal/batch=1000 in a journal that has
// reached its limit, while Run deletes as many results as are stored.
func BenchmarkAtLimit(b *testing.B) {
	const limit = 32 << 20
	j := open(b, Options{MaxBytes: limit})
	fill(b, j, 400)
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = j.Run(ctx) })
	batch := entries(100, benchBatch/100, 1_000_000)
	var longest time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := j.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		longest = max(longest, time.Since(start))
		refill(batch, benchBatch/100)
	}
	perSecond(b, "results/s", b.N*benchBatch)
	stop()
	running.Wait()
	if err := j.retain(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(j.Stats().FileBytes)/limit, "file/limit")
	b.ReportMetric(longest.Seconds()*1000, "ms-longest-append")
}

// BenchmarkResultsFilter looks for one agent's results among all.
func BenchmarkResultsFilter(b *testing.B) {
	j := open(b, Options{})
	fill(b, j, 200)
	for b.Loop() {
		n := 0
		for _, err := range j.Results(b.Context(), Filter{Agent: "raspberrypi-0007"}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 2000 {
			b.Fatalf("%d results: want 2000", n)
		}
	}
	b.ReportMetric(float64(b.N*200*benchBatch)/b.Elapsed().Seconds(), "scanned/s")
}

package outbox

import (
	"runtime"
	"testing"

	"swarming/shared/wire"
)

// BenchmarkResult is a result's whole life: added, published, confirmed, acknowledged.
func BenchmarkResult(b *testing.B) {
	o := New(Options{Agent: agent, Boot: boot})
	r := result("example.com")
	b.ReportAllocs()
	seq := uint64(0)
	for b.Loop() {
		o.Add(r)
		it, _, _ := o.Next()
		o.Confirmed(it)
		seq++
		o.Ack(ack(boot, wire.Range{seq, seq}))
	}
	if n := o.Stats().Pending; n != 0 {
		b.Fatal(n, "results are left")
	}
}

// BenchmarkAddFull adds to an outbox that is full: an outage of days.
func BenchmarkAddFull(b *testing.B) {
	o := New(Options{Agent: agent, Boot: boot})
	r := result("example.com")
	for range DefaultMaxResults {
		o.Add(r)
	}
	b.ReportAllocs()
	for b.Loop() {
		o.Add(r)
	}
	b.ReportMetric(float64(o.Stats().Pending), "results")
}

// BenchmarkAckWorst is the worst ack a stranger can make: a full outbox in which
// nothing was published, and as many ranges as an ack may have, all of them wide.
func BenchmarkAckWorst(b *testing.B) {
	o := New(Options{Agent: agent, Boot: boot})
	for range DefaultMaxResults {
		o.Add(result("example.com"))
	}
	ranges := make([]wire.Range, wire.MaxAckRanges)
	for b.Loop() {
		for i := range ranges {
			ranges[i] = wire.Range{uint64(len(ranges) - i), wire.MaxSeq}
		}
		o.Ack(ack(boot, ranges...))
	}
}

// BenchmarkMemory reports the bytes of heap that a held result takes, next to
// what the outbox counts, and those of an outbox of 10.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		for _, c := range []struct {
			n    int
			name string
		}{{10, "heap-of-10"}, {DefaultMaxResults, "heap/result"}} {
			before := heap()
			o := New(Options{Agent: agent, Boot: boot})
			for range c.n {
				o.Add(result("example.com"))
			}
			held := heap() - before
			s := o.Stats()
			if c.n == 10 {
				b.ReportMetric(float64(held), c.name)
				continue
			}
			b.ReportMetric(float64(held)/float64(s.Pending), c.name)
			b.ReportMetric(float64(s.Bytes)/float64(s.Pending), "counted/result")
			b.ReportMetric(float64(len(o.order[len(o.order)-1].payload())), "payload")
			b.ReportMetric(float64(s.Pending), "results")
			runtime.KeepAlive(o)
		}
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

package schedule

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"swarming/shared/wire"
)

var sizes = []int{1000, 10_000}

// unlimited returns a schedule that takes any number of targets, to see how it
// would grow beyond its limits.
func unlimited() *Schedule {
	s := New(Options{Agent: "bench", Rand: rand.New(rand.NewPCG(1, 1)).Float64})
	s.maxTargets, s.maxPPS, s.tokens = 1e9, 1e9, 1e9
	return s
}

// BenchmarkRound is one job's way through Next, Admit, Done and Wake.
func BenchmarkRound(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("targets=%d", n), func(b *testing.B) {
			s, now := unlimited(), t0
			s.Apply(now, names(n, wire.Target{}))
			b.ReportAllocs()
			for b.Loop() {
				at, _ := s.Wake()
				job, ok := s.Next(at)
				if !ok {
					b.Fatal("no job at Wake")
				}
				if s.Admit(at, job.Key, perName(job)) {
					s.Done(at, job.Key)
				}
			}
		})
	}
}

// BenchmarkApply is a list that changes one target, and one that changes none.
func BenchmarkApply(b *testing.B) {
	for _, n := range sizes {
		w := [2]wire.Watch{names(n, wire.Target{}), names(n, wire.Target{})}
		for _, c := range []string{"equal", "changed"} {
			b.Run(fmt.Sprintf("%s/targets=%d", c, n), func(b *testing.B) {
				if c == "changed" {
					w[1].Targets[n/2].Interval = wire.Duration(5 * time.Minute)
				}
				s := unlimited()
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					s.Apply(t0, w[i%2])
				}
			})
		}
	}
}

// BenchmarkMemory reports the bytes a target costs, its address included.
func BenchmarkMemory(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("targets=%d", n), func(b *testing.B) {
			w := names(n, wire.Target{})
			var s *Schedule
			var before, after runtime.MemStats
			for b.Loop() {
				s = nil
				runtime.GC()
				runtime.ReadMemStats(&before)
				s = unlimited()
				s.Apply(t0, w)
				for range n {
					at, _ := s.Wake()
					if job, ok := s.Next(at); ok && s.Admit(at, job.Key, perName(job)) {
						s.Done(at, job.Key)
					}
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
			}
			runtime.KeepAlive(w)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(s.entries)), "B/target")
		})
	}
}

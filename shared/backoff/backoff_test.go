package backoff

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// fixed returns a random source that always draws f.
func fixed(f float64) func() float64 { return func() float64 { return f } }

func TestNextDoublesUpToMax(t *testing.T) {
	b := Backoff{Base: 100 * time.Millisecond, Max: time.Second, Rand: fixed(0)} // 0 draws the ceiling itself
	for i, want := range []time.Duration{100, 200, 400, 800, 1000, 1000, 1000} {
		if got := b.Next(); got != want*time.Millisecond {
			t.Errorf("pause %d = %v, want %v", i, got, want*time.Millisecond)
		}
	}
	b.Reset()
	if got := b.Next(); got != 100*time.Millisecond {
		t.Errorf("after Reset: %v, want 100ms", got)
	}
}

func TestNextWithoutALimit(t *testing.T) {
	b := Backoff{Max: math.MaxInt64, Rand: fixed(0)}
	var last time.Duration
	for range 200 {
		last = b.Next()
	}
	if last != longest {
		t.Errorf("pause 200 = %v, want %v", last, longest)
	}
}

func TestNextStaysInRange(t *testing.T) {
	for _, b := range []Backoff{
		{},
		{Base: time.Nanosecond, Max: time.Nanosecond},
		{Base: time.Hour, Max: time.Second},
		{Base: 1, Max: math.MaxInt64},
		{Base: -1, Max: -1},
	} {
		limit := b.Max
		if limit <= 0 {
			limit = DefaultMax
		}
		for _, r := range []func() float64{nil, fixed(0), fixed(math.Nextafter(1, 0))} {
			b.Rand = r
			for range 200 { // far beyond what 63 doublings would overflow
				if d := b.Next(); d <= 0 || d > limit {
					t.Fatalf("%+v: pause %v outside (0, %v]", b, d, limit)
				}
			}
			b.Reset()
		}
	}
}

func TestNextSpreadsOverTheWholeRange(t *testing.T) {
	b := Backoff{Base: time.Second, Max: time.Second}
	var low, high int
	for range 1000 {
		if d := b.Next(); d < 250*time.Millisecond {
			low++
		} else if d > 750*time.Millisecond {
			high++
		}
	}
	// Expected 250 each, standard deviation 14: 100 is ten deviations away.
	if low < 100 || high < 100 {
		t.Errorf("of 1000 pauses up to 1s, %d are below 250ms and %d above 750ms: not evenly spread", low, high)
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if err := Sleep(t.Context(), time.Minute); err != nil {
			t.Errorf("Sleep: %v", err)
		}
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("slept %v, want 1m", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		if err := Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Sleep cut short: %v, want the context's error", err)
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("cut short after %v, want 1s", d)
		}
		if err := Sleep(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Sleep(0) with an ended context: %v, want its error", err)
		}
	})
}

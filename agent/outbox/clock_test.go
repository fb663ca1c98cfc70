package outbox

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/wire"
)

// A router boots in 1970, measures, and learns the time later: its results tell
// when they were taken by the new clock.
func TestClockNotSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var step time.Duration // of the wall clock; the monotonic one knows nothing of it
		built := time.Now().Add(1000 * time.Hour)
		o := New(Options{Agent: `a"at":"b`, Boot: boot, BuildTime: built, Now: func() time.Time { return time.Now().Add(step) }})
		add(o, 1)
		time.Sleep(100 * time.Second)
		add(o, 1)
		_, wait, ok := o.Next()
		if ok || wait > time.Second {
			t.Fatalf("offered %v, wait %v: want nothing while the clock is not set, and to look again in a second", ok, wait)
		}
		want(t, "undated", o.Stats().Undated, 2)
		check(t, o)

		time.Sleep(50 * time.Second)
		step = 2000 * time.Hour
		now := time.Now().Add(step)
		r := result("example.com")
		r.At = r.At.Add(step)
		o.Add(r)
		var ats []time.Duration
		for {
			it, wait, ok := o.Next()
			if !ok && wait > time.Minute {
				break
			}
			if !ok {
				time.Sleep(wait)
				continue
			}
			ats = append(ats, now.Sub(decode(t, it).At))
		}
		want(t, "ages", ats, []time.Duration{0, 150 * time.Second, 50 * time.Second})
		want(t, "undated", o.Stats().Undated, 0)
		check(t, o)
	})
}

// Without a date a result means nothing to the next process.
func TestNeverDated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "outbox")
	o := New(Options{Agent: agent, Boot: boot, BuildTime: time.Now().Add(time.Hour), StateFile: file})
	add(o, 3)
	want(t, "removed by a forged ack", o.Ack(ack(boot, wire.Range{1, 3})), 0)
	if err := o.Save(); err != nil {
		t.Fatal(err)
	}
	want(t, "lost, pending", []any{o.Stats().Lost, o.Stats().Pending}, []any{3, 0})
	want(t, "file exists", exists(file), false)
}

package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"swarming/shared/wire"
)

// A clock is a time that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func received(batch []Entry, at time.Time) []Entry {
	for i := range batch {
		batch[i].Received = at
	}
	return batch
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func appendAll(t testing.TB, j *Journal, batch []Entry) {
	t.Helper()
	if n, err := j.Append(t.Context(), batch); err != nil || n != len(batch) {
		t.Fatalf("stored %d of %d: %v", n, len(batch), err)
	}
}

func TestRetentionByAge(t *testing.T) {
	c := &clock{t: day}
	j := open(t, Options{Retention: 24 * time.Hour, Now: c.now})
	appendAll(t, j, received(entries(5, 300, 1), day))                       // ids 1 to 1500
	appendAll(t, j, received(entries(5, 10, 301), day.Add(48*time.Hour)))    // to 1550: a wrong clock
	appendAll(t, j, received(entries(5, 300, 311), day.Add(10*time.Minute))) // to 3050
	appendAll(t, j, received(entries(5, 20, 611), day.Add(20*time.Hour)))    // to 3150
	must(t, j.AppendEvents(t.Context(), []Event{{Kind: "live", Agent: "a", Received: day}, {Kind: "live", Agent: "a", Received: day.Add(20 * time.Hour)}}))
	for name, id := range map[string]int64{"behind": 100, "ahead": 3100} {
		must(t, j.SetCursor(t.Context(), name, id))
	}
	if id, err := j.Cursor(t.Context(), "behind-events"); id != 0 || err != nil {
		t.Fatalf("new cursor at %d: %v", id, err)
	}

	must(t, j.retain(t.Context()))
	if st := j.Stats(); st.PrunedResults != 0 || st.Results != 3150 {
		t.Errorf("stats %+v; want nothing deleted yet", st)
	}
	c.set(day.Add(25 * time.Hour))
	must(t, j.retain(t.Context()))
	rows, err := j.ResultsAfter(t.Context(), 0, 1000)
	if err != nil || len(rows) != 100 || rows[0].ID != 3051 {
		t.Fatalf("%d rows: %v; want the last 100", len(rows), err)
	}
	st := j.Stats()
	if st.Results != 100 || st.PrunedResults != 3050 || st.Events != 1 || st.PrunedEvents != 1 || !st.Oldest.Equal(day.Add(20*time.Hour)) {
		t.Errorf("stats %+v; want 100 results, 3050 deleted, 1 event, 1 deleted", st)
	}
	want := []CursorStats{{"ahead", 3100, 50, 0}, {"behind", 100, 100, 2950}, {"behind-events", 0, 1, 1}}
	if fmt.Sprint(st.Cursors) != fmt.Sprint(want) {
		t.Errorf("cursors %+v, want %+v", st.Cursors, want)
	}

	// Everything goes; ids go on.
	c.set(day.Add(100 * time.Hour))
	must(t, j.retain(t.Context()))
	must(t, j.Close())
	j = open(t, Options{Dir: j.opts.Dir, Now: c.now})
	st = j.Stats()
	if st.Results != 0 || st.Events != 0 || !st.Oldest.IsZero() || st.Cursors[1].Lost != 3050 {
		t.Errorf("stats %+v; want nothing left, 3050 lost for the exporter behind", st)
	}
	appendAll(t, j, received(entries(1, 1, 9999), c.now()))
	if rows, err := j.ResultsAfter(t.Context(), 0, 10); err != nil || len(rows) != 1 || rows[0].ID != 3151 {
		t.Errorf("rows %+v, %v; want id 3151", rows, err)
	}
	must(t, j.DeleteCursor(t.Context(), "behind"))
	if st := j.Stats(); len(st.Cursors) != 2 {
		t.Errorf("cursors %+v, want two", st.Cursors)
	}
}

func TestCursorsAreBounded(t *testing.T) {
	j := open(t, Options{})
	for i := range MaxCursors {
		must(t, j.SetCursor(t.Context(), fmt.Sprint("c", i), 1))
	}
	wants(t, j.SetCursor(t.Context(), "one more", 1), nil, "one too many")
	must(t, j.SetCursor(t.Context(), "c3", 2))
	for _, name := range []string{"", strings.Repeat("x", 65)} {
		wants(t, j.SetCursor(t.Context(), name, 1), nil, "1 to 64 bytes")
	}
	wants(t, j.SetCursor(t.Context(), "c1", -1), nil, "at least 0")
}

// At its limit the file stops growing, whatever is stored and deleted, names that
// occur only once included.
func TestRetentionBySize(t *testing.T) {
	const limit = 2 << 20
	j := open(t, Options{MaxBytes: limit})
	ctx, stop := context.WithCancel(t.Context())
	running := make(chan error, 1)
	go func() { running <- j.Run(ctx) }()
	defer func() {
		stop()
		if err := <-running; err != nil {
			t.Error(err)
		}
	}()
	var sizes []int64
	seq := 0
	for range 6 {
		for range 20 {
			batch := make([]Entry, 500)
			for i := range batch {
				seq++
				r := result(fmt.Sprint("agent-", seq%7), wire.Boot(fmt.Sprint("boot-", seq/1000)), uint64(seq), fmt.Sprint("target-", seq/20))
				batch[i] = Entry{Result: r, Received: day.Add(time.Duration(seq) * time.Second)}
			}
			appendAll(t, j, batch)
		}
		deadline := time.Now().Add(30 * time.Second)
		for j.Stats().Bytes > limit {
			if time.Now().After(deadline) {
				t.Fatalf("%d bytes in use for 30 s: want at most %d", j.Stats().Bytes, limit)
			}
			time.Sleep(5 * time.Millisecond)
		}
		sizes = append(sizes, j.Stats().FileBytes)
	}
	t.Logf("file sizes after each 10000 results at a limit of %d: %d", limit, sizes)
	if last := sizes[len(sizes)-1]; last > limit*3/2 || last > sizes[3]*5/4 {
		t.Errorf("file grows: %d", sizes)
	}
	var boots, words int
	must(t, j.read(func(s *store) error {
		return s.rdb.QueryRow("SELECT (SELECT count(*) FROM boots), (SELECT count(*) FROM words)").Scan(&boots, &words)
	}))
	results := int(j.Stats().Results)
	if most := (results + usedSlack + 2000); boots > most/1000*7+14 || words > most/20+20 {
		t.Errorf("%d boots and %d words for %d results: those of deleted results are kept", boots, words, results)
	}
	// What is left can be read, so nothing it refers to was deleted.
	if n := count(t, j, Filter{}); n != results || n == 0 {
		t.Errorf("%d results can be read, want %d", n, results)
	}
}

// A name deleted with the results that used it may come back.
func TestForgottenNameComesBack(t *testing.T) {
	c := &clock{t: day}
	j := open(t, Options{Retention: time.Hour, Now: c.now})
	first := entries(1, 1, 1)
	appendAll(t, j, received(first, day))
	other := Entry{Received: day}
	for i := range usedSlack/1000 + 2 {
		batch := make([]Entry, 1000)
		for k := range batch {
			other.Result = result("other", "b", uint64(i*1000+k+1), "elsewhere.example")
			batch[k] = other
		}
		appendAll(t, j, batch)
	}
	c.set(day.Add(2 * time.Hour))
	must(t, j.retain(t.Context()))
	if losses, err := j.Losses(t.Context()); err != nil || len(losses) != 1 || losses[0].Agent != "other" {
		t.Fatalf("losses %+v, %v; want only the agent that came last", losses, err)
	}
	appendAll(t, j, received(first, c.now()))
	rows, err := j.ResultsAfter(t.Context(), 0, 10)
	if err != nil || len(rows) != 1 || rows[0].Result.Agent != first[0].Result.Agent || rows[0].Result.Target != first[0].Result.Target {
		t.Errorf("rows %+v, %v; want the first result again", rows, err)
	}
}

// A flood of events does not push results out before their time.
func TestOldestGoFirst(t *testing.T) {
	j := open(t, Options{MaxBytes: 1 << 20})
	appendAll(t, j, received(entries(10, 100, 1), day.Add(time.Hour)))
	for i := range 20 {
		events := make([]Event, 500)
		for k := range events {
			events[k] = Event{Kind: "live", Agent: "flood", Received: day.Add(time.Duration(i) * time.Second), Detail: []byte(`"` + strings.Repeat("x", 200) + `"`)}
		}
		must(t, j.AppendEvents(t.Context(), events))
	}
	must(t, j.retain(t.Context()))
	if st := j.Stats(); st.PrunedEvents == 0 || st.PrunedResults != 0 || st.Bytes > 1<<20 {
		t.Errorf("stats %+v; want the older events deleted, no result", st)
	}
}

func TestAgentsAreForgotten(t *testing.T) {
	c := &clock{t: day}
	j := open(t, Options{Retention: time.Hour, Now: c.now})
	must(t, j.SaveAgents(t.Context(), []AgentInfo{{Name: "old", Seen: day.Add(-2 * time.Hour)}, {Name: "new", Seen: day}}))
	must(t, j.tidyAgents(t.Context()))
	if agents, err := j.Agents(t.Context()); err != nil || len(agents) != 1 || agents[0].Name != "new" {
		t.Errorf("agents %+v, %v; want the new one", agents, err)
	}
	run(t, j, fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO agents SELECT 'flood-' || i, 'b', '{}', '', '', '', %d + i FROM n`, MaxAgents, day.UnixMilli()))
	must(t, j.tidyAgents(t.Context()))
	var agents, unseen int
	must(t, j.store.rdb.QueryRow("SELECT count(*), count(*) FILTER (WHERE name = 'new') FROM agents").Scan(&agents, &unseen))
	if agents != MaxAgents || unseen != 0 {
		t.Errorf("%d agents, %d of them the one not seen for longest; want %d and 0", agents, unseen, MaxAgents)
	}
}

// A file that was far larger gives its space back.
func TestVacuum(t *testing.T) {
	j := open(t, Options{})
	for i := range 80 {
		events := make([]Event, 100)
		for k := range events {
			events[k] = Event{Kind: "live", Agent: "a", Received: day.Add(time.Duration(i) * time.Second), Detail: []byte(`"` + strings.Repeat("x", 12_000) + `"`)}
		}
		must(t, j.AppendEvents(t.Context(), events))
	}
	before := j.Stats().FileBytes
	j.opts.MaxBytes = 1 << 20
	j.measure(t.Context(), j.store)
	must(t, j.retain(t.Context()))
	st := j.Stats()
	info, err := os.Stat(j.path)
	must(t, err)
	if before < 90<<20 || st.Bytes > 1<<20 || st.FileBytes > keepUnused+1<<20 || info.Size() > keepUnused+2<<20 {
		t.Errorf("%d bytes before; %d in use, %d in all, file of %d: want far less", before, st.Bytes, st.FileBytes, info.Size())
	}
}

func TestResultsFilter(t *testing.T) {
	j := open(t, Options{})
	for i := range 12 { // more than one window of ids
		batch := make([]Entry, 1000)
		for k := range batch {
			r := result(fmt.Sprint("agent-", k%4), "b", uint64(i*1000+k+1), fmt.Sprint("target-", k%5))
			r.At = day.Add(time.Duration(i) * time.Hour)
			batch[k] = Entry{Result: r, Received: r.At.Add(time.Second)}
		}
		batch[999].Received = day.Add(11 * time.Hour) // one that came late
		appendAll(t, j, batch)
	}
	for _, c := range []struct {
		f    Filter
		want int
	}{
		{Filter{}, 12000},
		{Filter{Agent: "agent-3"}, 3000},
		{Filter{Target: "target-4"}, 2400},
		{Filter{Agent: "agent-3", Target: "target-4"}, 600},
		{Filter{Agent: "nobody"}, 0},
		{Filter{Target: "nothing"}, 0},
		{Filter{Since: day.Add(10 * time.Hour)}, 2000},
		{Filter{Since: day.Add(9*time.Hour + time.Millisecond)}, 2000},
		{Filter{Since: day.Add(-time.Hour)}, 12000},
		{Filter{Since: day.Add(24 * time.Hour)}, 0},
		{Filter{Since: day.Add(10 * time.Hour), Agent: "agent-3"}, 500},
	} {
		if n := count(t, j, c.f); n != c.want {
			t.Errorf("%+v: %d results, want %d", c.f, n, c.want)
		}
	}
	// Where to begin is found, not read up to.
	must(t, j.read(func(s *store) error {
		after, last, err := s.bounds(t.Context(), "results", day.Add(10*time.Hour))
		if after < 8000 || after > 10000 || last != 12000 {
			t.Errorf("begins after %d of %d, want near 10000", after, last)
		}
		return err
	}))
}

// Somebody who reads slowly holds up neither retention nor the log.
func TestSlowReader(t *testing.T) {
	j := open(t, Options{MaxBytes: 1 << 20})
	fill(t, j, 10)
	n := 0
	for row, err := range j.Results(t.Context(), Filter{}) {
		must(t, err)
		if n++; n == 1 {
			// Stored and deleted meanwhile, many times over.
			batch := entries(100, 10, 1_000_000)
			for range 25 {
				appendAll(t, j, batch)
				refill(batch, 10)
			}
			must(t, j.retain(t.Context()))
		}
		if row.ID > 10_000 {
			t.Fatalf("row %d was stored after the reader began", row.ID)
		}
	}
	if n != window {
		t.Errorf("%d rows, want the %d read before the rest was deleted", n, window)
	}
	run(t, j, "PRAGMA wal_checkpoint(TRUNCATE)")
	if size := j.Stats().LogBytes; size != 0 {
		t.Errorf("the log could not be emptied: %d bytes", size)
	}
}

func TestFaultsAreLoggedOnce(t *testing.T) {
	log, text := logged()
	var f faults
	for i := range 5 {
		f.note(log, day.Add(time.Duration(i)*time.Second), errors.New("oops"))
	}
	f.note(log, day.Add(5*time.Second), nil)
	f.note(log, day.Add(6*time.Second), nil)
	f.note(log, day, context.Canceled)
	if got := text(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "failures=5 after=5s") {
		t.Errorf("log: %s", got)
	}
}

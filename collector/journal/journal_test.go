package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"swarming/shared/wire"
)

var day = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// result returns a result as an agent sends it.
func result(agent string, boot wire.Boot, seq uint64, target string) wire.Result {
	r := wire.Result{V: wire.Version, Agent: wire.AgentName(agent), Boot: boot, Seq: seq, At: day.Add(time.Duration(seq) * time.Second),
		Target: wire.TargetID(target), Probe: "icmp", Addr: netip.MustParseAddr("93.184.216.34"), Family: 4, Sent: 5,
		RTTs: wire.RTTs{12.345, 12.401, 13.2, 12.399, 0.001}, Stamp: wire.StampKernel}
	r.Summarise()
	// What arrives has gone over the wire, in µs.
	r, err := wire.DecodeResult(r.Append(nil))
	if err != nil {
		panic(err)
	}
	return r
}

func entries(agents, n int, firstSeq uint64) []Entry {
	out := make([]Entry, 0, agents*n)
	for i := range n {
		for a := range agents {
			r := result(fmt.Sprintf("raspberrypi-%04x", a), "k3j9x2m1", firstSeq+uint64(i), fmt.Sprintf("www.example%02d.com", rand.IntN(50)))
			out = append(out, Entry{Result: r, Received: r.At.Add(7 * time.Second), Broker: "localhost:1883"})
		}
	}
	return out
}

func open(t testing.TB, o Options) *Journal {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Reserve == 0 {
		o.Reserve = -1
	}
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		appendForEver(dir)
	}
	if dir := os.Getenv(readDir); dir != "" {
		readOnce(dir)
	}
	os.Exit(m.Run())
}

func ptr(f float64) *float64 { return &f }

func TestAppendStoresEverythingOnce(t *testing.T) {
	j := open(t, Options{})
	want := entries(3, 100, 1)
	for round := range 2 {
		n, err := j.Append(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		if wanted := (1 - round) * len(want); n != wanted {
			t.Errorf("append no. %d stored %d, want %d", round+1, n, wanted)
		}
	}
	rows, err := j.ResultsAfter(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(want) {
		t.Fatalf("%d rows, want %d", len(rows), len(want))
	}
	for i, row := range rows {
		if row.ID != int64(i+1) || !reflect.DeepEqual(row.Entry, want[i]) {
			t.Fatalf("row %d is\n%+v, want\n%+v", i, row, want[i])
		}
	}
	if st := j.Stats(); st.Stored != 300 || st.Duplicates != 300 || st.Results != 300 {
		t.Errorf("stats %+v, want 300 stored, 300 duplicates, 300 results", st)
	}
}

// Everything that a result may lack or exaggerate comes back as it was sent.
func TestRoundTrip(t *testing.T) {
	plain := result("garage-pi", "b", 1, "example.com")
	vary := func(seq uint64, f func(*wire.Result)) wire.Result {
		r := plain
		r.Seq = seq
		f(&r)
		return r
	}
	results := []wire.Result{
		plain,
		vary(2, func(r *wire.Result) { r.RTTs = wire.RTTs{0, 3_600_000, 0.001, 0, 17.5}; r.Summarise(); r.At = day }),
		vary(3, func(r *wire.Result) { // a name that does not resolve
			r.Addr, r.Family, r.Sent, r.RTTs, r.Stamp, r.Cause = netip.Addr{}, 0, 0, nil, "", wire.CauseNoSuchHost
			r.Summarise()
		}),
		vary(4, func(r *wire.Result) { // nothing comes back
			r.RTTs, r.Cause, r.From, r.Late = wire.RTTs{0, 0, 0, 0, 0}, wire.CauseUnreachable, netip.MustParseAddr("2001:db8::1"), 5
			r.Summarise()
		}),
		{V: 1, Agent: "old", Boot: "2014", Seq: 1, At: day, Target: "example.com", Probe: "icmp", Loss: ptr(33.333333333333336), Min: ptr(0.5), Avg: ptr(0), Max: ptr(2), Stddev: ptr(0.25)},
		vary(wire.MaxSeq, func(r *wire.Result) { r.Agent, r.Boot = "Küche-ŭ", "boot with 'quotes' \"and\" spaces; --" }),
		vary(5, func(r *wire.Result) { r.At = time.Date(1970, 1, 1, 0, 0, 0, 1e6, time.UTC) }),
		vary(6, func(r *wire.Result) { r.At = time.Date(1969, 12, 31, 23, 59, 59, 999e6, time.UTC) }),
	}
	j := open(t, Options{})
	var want []Entry
	for i, r := range results {
		if i == 1 {
			// Past the wire's own rounding.
			r, _ = wire.DecodeResult(r.Append(nil))
		}
		for _, ms := range []*float64{r.Avg, r.Stddev} {
			if ms != nil {
				*ms = millis(micros(*ms))
			}
		}
		want = append(want, Entry{Result: r, Received: day.Add(time.Duration(i) * time.Millisecond), Broker: []string{"", "localhost:1883"}[i%2]})
	}
	if n, err := j.Append(t.Context(), want); err != nil || n != len(want) {
		t.Fatalf("stored %d of %d: %v", n, len(want), err)
	}
	i := 0
	for row, err := range j.Results(t.Context(), Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(row.Entry, want[i]) {
			t.Errorf("row %d is\n%+v, want\n%+v", i, row.Entry, want[i])
		}
		i++
	}
	if i != len(want) {
		t.Errorf("%d rows, want %d", i, len(want))
	}
}

// People read the journal with the sqlite3 program.
func TestReadableView(t *testing.T) {
	j := open(t, Options{})
	appendAll(t, j, entries(1, 1, 3))
	var agent, at, addr, stamp string
	var target string
	var loss, least float64
	must(t, j.store.rdb.QueryRow("SELECT agent, at, target, addr, stamp, loss, min FROM readable WHERE cause IS NULL").Scan(&agent, &at, &target, &addr, &stamp, &loss, &least))
	if agent != "raspberrypi-0000" || at != "2026-11-23T10:00:03.000Z" || !strings.HasPrefix(target, "www.example") || addr != "93.184.216.34" || stamp != "kernel" || loss != 0 || least != 0.001 {
		t.Errorf("%s %s %s %s %s %v %v", agent, at, target, addr, stamp, loss, least)
	}
}

// A batch may hold one result twice, and one without an identity harms no other.
func TestOddBatch(t *testing.T) {
	j := open(t, Options{})
	e := entries(1, 1, 1)[0]
	noAgent, noSeq := e, e
	noAgent.Result.Agent, noSeq.Result.Seq = "", 0
	n, err := j.Append(t.Context(), []Entry{noAgent, e, e, noSeq})
	if err != nil || n != 1 {
		t.Errorf("stored %d, %v; want 1", n, err)
	}
	if st := j.Stats(); st.Stored != 1 || st.Duplicates != 1 || st.Invalid != 2 {
		t.Errorf("stats %+v, want 1 stored, 1 duplicate, 2 invalid", st)
	}
}

// When a batch fails half-way nothing of it is stored, and nothing that was
// cached for it is believed later.
func TestFailedBatchLeavesNothing(t *testing.T) {
	j := open(t, Options{})
	batch := entries(5, 4, 1)
	run(t, j, "CREATE TRIGGER fail BEFORE INSERT ON results WHEN NEW.seq = 3 BEGIN SELECT RAISE(ABORT, 'no threes today'); END")
	if n, err := j.Append(t.Context(), batch); err == nil || n != 0 || !strings.Contains(err.Error(), "no threes today") {
		t.Fatalf("stored %d, %v; want the trigger's error", n, err)
	}
	if rows, err := j.ResultsAfter(t.Context(), 0, 100); err != nil || len(rows) != 0 {
		t.Errorf("%d rows, %v; want none", len(rows), err)
	}
	run(t, j, "DROP TRIGGER fail")
	if n, err := j.Append(t.Context(), batch); err != nil || n != len(batch) {
		t.Fatalf("stored %d: %v", n, err)
	}
	rows, err := j.ResultsAfter(t.Context(), 0, 100)
	if err != nil || len(rows) != len(batch) {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	for i := range rows {
		if rows[i].ID != int64(i+1) || !reflect.DeepEqual(rows[i].Entry, batch[i]) {
			t.Fatalf("row %d is\n%+v, want\n%+v", i, rows[i], batch[i])
		}
	}
	if losses, err := j.Losses(t.Context()); err != nil || len(losses) != 5 || losses[0].Stored != 4 {
		t.Errorf("losses %+v, %v; want 5 boots with 4 results each", losses, err)
	}
}

// run runs SQL on the writing connection.
func run(t testing.TB, j *Journal, sql string, args ...any) {
	t.Helper()
	err := j.update(t.Context(), func(s *store) error {
		_, err := s.conn.ExecContext(t.Context(), sql, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir() + "/a b?c#d%20e"
	j := open(t, Options{Dir: dir})
	batch := entries(2, 3, 1)
	if _, err := j.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), batch); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v, want ErrClosed", err)
	}
	if _, err := j.ResultsAfter(t.Context(), 0, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("read after close: %v, want ErrClosed", err)
	}
	if files := list(t, dir); !slices.Equal(files, []string{FileName, lockName}) {
		t.Errorf("a closed journal leaves %q, want its file and its lock", files)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("directory has mode %v, %v; want nothing for others", info.Mode(), err)
	}

	j = open(t, Options{Dir: dir})
	more := append(batch, entries(2, 1, 4)...)
	if n, err := j.Append(t.Context(), more); err != nil || n != 2 {
		t.Errorf("stored %d, %v; want the 2 new ones", n, err)
	}
	if rows, err := j.ResultsAfter(t.Context(), 6, 100); err != nil || len(rows) != 2 || rows[0].ID != 7 || !reflect.DeepEqual(rows[0].Entry, more[6]) {
		t.Errorf("rows after the 6th: %+v, %v; want two, from 7", rows, err)
	}
	if st := j.Stats(); st.Results != 8 || st.Duplicates != 6 {
		t.Errorf("stats %+v, want 8 results, 6 duplicates", st)
	}
}

func list(t testing.TB, dir string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func TestCancelled(t *testing.T) {
	j := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Append(ctx, entries(1, 1, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("append: %v, want context.Canceled", err)
	}
	if st := j.Stats(); st.Results != 0 {
		t.Errorf("%d results, want none", st.Results)
	}
}

func TestEventsAreStoredOnceWhereTheyHaveAnIdentity(t *testing.T) {
	j := open(t, Options{})
	rip := Event{At: day, Received: day.Add(time.Second), Kind: KindRip, Agent: "garage-pi", Boot: "b", Conn: 2, Reason: "lost", Broker: "localhost:1883"}
	bye, later, anonymous, live := rip, rip, rip, rip
	bye.Reason, later.Conn = "bye", 3
	anonymous.Boot, anonymous.Conn, anonymous.At = "", 0, time.Time{}
	live.Kind, live.Detail = "live", []byte(`{"version": "1.2"}`)
	odd := live
	odd.Detail = []byte("no JSON")
	if err := j.AppendEvents(t.Context(), []Event{rip, bye, later, anonymous, live, rip, bye, anonymous, live, odd}); err != nil {
		t.Fatal(err)
	}
	if err := j.AppendEvents(t.Context(), []Event{rip}); err != nil {
		t.Fatal(err)
	}
	if string(odd.Detail) != "no JSON" {
		t.Error("the caller's event was changed")
	}
	odd.Detail = []byte(`"no JSON"`)
	want := []Event{rip, bye, later, anonymous, live, anonymous, live, odd}
	for i := range want {
		want[i].ID = int64(i + 1)
	}
	got, err := j.EventsAfter(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("events\n%+v, want\n%+v", got, want)
	}
	if st := j.Stats(); st.Events != 8 || st.Duplicates != 3 {
		t.Errorf("stats %+v, want 8 events, 3 duplicates", st)
	}
	if got, err = j.EventsAfter(t.Context(), 6, 1); err != nil || len(got) != 1 || got[0].ID != 7 {
		t.Errorf("one event after the 6th: %+v, %v", got, err)
	}
	n := 0
	for e, err := range j.Events(t.Context(), Filter{Agent: "garage-pi", Since: day}) {
		if err != nil || e.ID != want[n].ID {
			t.Errorf("event %+v, %v; want id %d", e, err, want[n].ID)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d events of the agent, want %d", n, len(want))
	}
}

func TestAgents(t *testing.T) {
	j := open(t, Options{})
	pi := AgentInfo{Name: "garage-pi", Boot: "b2", Labels: map[string]string{"isp": "Orange", "site": "Lyon"}, Version: "1.0", OS: "linux", Arch: "arm", Seen: day}
	bare := AgentInfo{Name: "bare", Boot: "b1", Seen: day}
	if err := j.SaveAgents(t.Context(), []AgentInfo{pi, bare}); err != nil {
		t.Fatal(err)
	}
	old := pi
	old.Boot, old.Seen = "b1", day.Add(-time.Second)
	newer := bare
	newer.Labels, newer.Seen = map[string]string{"isp": "Free"}, day.Add(time.Second)
	if err := j.SaveAgents(t.Context(), []AgentInfo{old, newer}); err != nil {
		t.Fatal(err)
	}
	got, err := j.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if len(got[i].Labels) == 0 {
			got[i].Labels = nil
		}
	}
	if want := []AgentInfo{newer, pi}; !reflect.DeepEqual(got, want) {
		t.Errorf("agents\n%+v, want\n%+v", got, want)
	}
}

func TestLosses(t *testing.T) {
	j := open(t, Options{})
	batch := entries(1, 10, 5) // seq 5 to 14
	late := batch[3]
	batch = slices.Delete(batch, 3, 6) // without 8, 9, 10
	if _, err := j.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	missing := func() Loss {
		t.Helper()
		losses, err := j.Losses(t.Context())
		if err != nil || len(losses) != 1 {
			t.Fatalf("losses %+v, %v; want one boot", losses, err)
		}
		return losses[0]
	}
	want := Loss{Agent: batch[0].Result.Agent, Boot: batch[0].Result.Boot, MinSeq: 5, MaxSeq: 14, Stored: 7, First: batch[0].Received, Last: batch[6].Received}
	if l := missing(); l != want || l.Missing() != 3 {
		t.Errorf("loss %+v, %d missing; want %+v, 3 missing", l, l.Missing(), want)
	}
	if _, err := j.Append(t.Context(), []Entry{late}); err != nil {
		t.Fatal(err)
	}
	if l := missing(); l.Missing() != 2 || l.Stored != 8 {
		t.Errorf("loss %+v, %d missing; want 2 after one of them came late", l, l.Missing())
	}
}

func TestChanged(t *testing.T) {
	j := open(t, Options{})
	select {
	case <-j.Changed():
		t.Error("told of a change in a new journal")
	default:
	}
	for i := range 3 {
		if _, err := j.Append(t.Context(), entries(1, 1, uint64(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-j.Changed():
	default:
		t.Error("not told of a change")
	}
	if _, err := j.Append(t.Context(), entries(1, 1, 1)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-j.Changed():
		t.Error("told of a change by a duplicate")
	default:
	}
}

// Appends, readers, an exporter and retention use one journal at once; nothing
// is seen twice or out of order.
func TestConcurrentUse(t *testing.T) {
	j := open(t, Options{MaxBytes: 1 << 20})
	ctx, stop := context.WithCancel(t.Context())
	const writers, batches, size = 3, 30, 200
	var writing, others sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for b := range batches {
				batch := make([]Entry, size)
				for i := range batch {
					r := result(fmt.Sprint("agent-", w), "b", uint64(b*size+i+1), "example.com")
					batch[i] = Entry{Result: r, Received: day}
				}
				if n, err := j.Append(ctx, batch); err != nil || n != size {
					t.Errorf("stored %d: %v", n, err)
				}
				if err := j.AppendEvents(ctx, []Event{{Kind: "live", Agent: batch[0].Result.Agent, Received: day}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	others.Go(func() { _ = j.Run(ctx) })
	others.Go(func() {
		var after int64
		for ctx.Err() == nil {
			rows, err := j.ResultsAfter(ctx, after, 100)
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			for _, r := range rows {
				if r.ID <= after {
					t.Errorf("id %d after %d", r.ID, after)
				}
				after = r.ID
			}
			if len(rows) == 0 {
				select {
				case <-j.Changed():
				case <-ctx.Done():
				}
			} else if err := j.SetCursor(ctx, "exporter", after); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			j.Stats()
		}
	})
	others.Go(func() {
		for ctx.Err() == nil {
			var last int64
			for r, err := range j.Results(ctx, Filter{Agent: "agent-1"}) {
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				if err == nil && (r.ID <= last || r.Result.Agent != "agent-1") {
					t.Errorf("row %d of %s after %d", r.ID, r.Result.Agent, last)
				}
				last = r.ID
			}
		}
	})
	writing.Wait()
	stop()
	others.Wait()
	if err := j.retain(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := j.Stats()
	if st.Results+int64(st.PrunedResults) != writers*batches*size || st.Bytes > 1<<20 || st.PrunedResults == 0 {
		t.Errorf("stats %+v, want %d results in all, some of them deleted", st, writers*batches*size)
	}
}

func FuzzRTTs(f *testing.F) {
	f.Add(packRTTs(nil, wire.RTTs{12.345, 0, 0.001, 3_600_000}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		rtts := unpackRTTs(b)
		for i, ms := range rtts {
			rtts[i] = min(ms, wire.MaxMillis)
		}
		if again := unpackRTTs(packRTTs(nil, rtts)); !slices.Equal(again, rtts) {
			t.Errorf("%v becomes %v", rtts, again)
		}
	})
}

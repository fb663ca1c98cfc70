package elastic

import (
	"context"
	"testing"
	"time"

	"swarming/collector/journal"
)

// From the real journal to the real Elasticsearch, while results come in and
// the collector is restarted: each result is stored once, with its agent's
// labels.
func TestRealJournal(t *testing.T) {
	n := plainNode(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	now := time.Now().UTC().Truncate(time.Millisecond)
	var j *journal.Journal
	dir := t.TempDir()
	openJournal := func() {
		var err error
		if j, err = journal.Open(ctx, journal.Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
	}
	openJournal()
	if err := j.SaveAgents(ctx, []journal.AgentInfo{{Name: "garage-pi", Boot: "b", Labels: map[string]string{"isp": "acme"}, Seen: now}}); err != nil {
		t.Fatal(err)
	}
	const batches, size = 40, 50
	add := func(from, to int) {
		for i := from; i < to; i++ {
			entries := make([]journal.Entry, size)
			for k := range entries {
				r := sample(uint64(i*size + k + 1))
				r.At = now.Add(time.Duration(k) * time.Millisecond)
				entries[k] = journal.Entry{Result: r, Received: now, Broker: "localhost:1883"}
			}
			if _, err := j.Append(ctx, entries); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := j.AppendEvents(ctx, []journal.Event{{Received: now, Kind: "rip", Agent: "garage-pi", Boot: "b", Conn: 1, Reason: "bye"}}); err != nil {
		t.Fatal(err)
	}
	stored := func(e *Exporter, id int64) func() bool {
		return func() bool { s := e.Stats(); return s.Results.Cursor == id && s.Events.Cursor == 1 }
	}
	o := Options{URLs: []string{n.URL}, Source: j, Index: "journal", BatchRows: 70}
	e, stop := startReal(t, o)
	add(0, batches/2)
	wait(t, "stored half", stored(e, batches/2*size))
	stop()
	add(batches/2, batches*3/4)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	openJournal()
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	o.Source = j
	e, stop = startReal(t, o)
	defer stop()
	add(batches*3/4, batches)
	wait(t, "stored all", stored(e, batches*size))
	if got := n.Count(t, "journal-ping-*"); got != batches*size {
		t.Errorf("%d documents: want %d", got, batches*size)
	}
	if s := e.Stats().Results; s.Duplicates != 0 {
		t.Errorf("%d documents were sent again after a clean stop: want none", s.Duplicates)
	}
	var out struct{ Count int }
	n.Must(t, "POST", "/journal-ping-*/_count", `{"query":{"term":{"labels.isp":"acme"}}}`, &out)
	if out.Count != batches*size {
		t.Errorf("%d documents have the agent's label: want all", out.Count)
	}
	if got := n.Count(t, "journal-event-*"); got != 1 {
		t.Errorf("%d events: want 1", got)
	}
	for _, c := range j.Stats().Cursors {
		if c.Lag != 0 || c.Lost != 0 {
			t.Errorf("cursor %+v: want no lag and no loss", c)
		}
	}
}

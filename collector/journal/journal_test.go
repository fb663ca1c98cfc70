package journal

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
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

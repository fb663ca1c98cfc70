package journal

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestReserve(t *testing.T) {
	c := &clock{t: day}
	log, text := logged()
	j := open(t, Options{Reserve: 160 << 20, Log: log, Now: c.now})
	free := int64(200 << 20)
	j.space.free = func(string) (int64, error) { return free, nil }
	appendAll(t, j, entries(1, 10, 1))

	free = 100 << 20
	for range 3 {
		n, err := j.Append(t.Context(), entries(1, 10, 11))
		if n != 0 || !errors.Is(err, ErrNoSpace) {
			t.Fatalf("stored %d, %v; want ErrNoSpace", n, err)
		}
		wants(t, err, ErrNoSpace, "100 MB", "160 MB", j.opts.Dir)
	}
	wants(t, j.AppendEvents(t.Context(), []Event{{Kind: "live", Received: day}}), ErrNoSpace)
	if st := j.Stats(); !j.Full() || !st.Full || st.Refused != 31 || st.Results != 10 || st.FreeBytes != free {
		t.Errorf("stats %+v; want full, 31 refused, 10 results", st)
	}
	// Exporters go on: what they note takes room only from the reserve.
	must(t, j.SetCursor(t.Context(), "exporter", 10))

	free = 165 << 20 // not clearly enough
	if _, err := j.Append(t.Context(), entries(1, 10, 11)); !errors.Is(err, ErrNoSpace) {
		t.Errorf("append at the edge: %v, want ErrNoSpace", err)
	}
	c.set(day.Add(90 * time.Second))
	free = 170 << 20
	appendAll(t, j, entries(1, 10, 11))
	if j.Full() {
		t.Error("still full")
	}
	if got := text(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "after=1m30s") {
		t.Errorf("log %s; want one line when it began, one when it ended", got)
	}

	j.space.free = func(string) (int64, error) { return 0, errors.New("cannot tell") }
	appendAll(t, j, entries(1, 10, 21))
}

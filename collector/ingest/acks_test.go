package ingest

import (
	"fmt"
	"testing"
	"time"

	"swarming/shared/wire"
)

// Whatever waits, each ack is one that agents accept, an agent gets one a
// second, and in the end everything was acknowledged once.
func TestAcksFitTheirLimits(t *testing.T) {
	a := newAcks()
	want := make(map[wire.ID]bool)
	add := func(boot int, seq uint64) {
		id := wire.ID{Agent: "a1", Boot: wire.Boot(fmt.Sprintf("boot-%04d", boot)), Seq: seq}
		want[id] = true
		a.add(0, id)
	}
	for n := range uint64(5000) {
		add(1, wire.MaxSeq-2*n) // the longest ranges there are
	}
	for boot := range 100 {
		for n := range uint64(100) {
			add(boot+2, wire.MaxSeq-3*n)
		}
	}
	for boot := range 100 {
		add(boot+200, 1)
	}
	now := time.Unix(1e9, 0)
	for round := 0; a.seqs > 0 && round < 200; round++ {
		sent := 0
		a.due(now, "c1", func(_ int, ack wire.Ack, n int) {
			sent++
			back, err := wire.DecodeAck(ack.Encode())
			if err != nil {
				t.Fatalf("agents refuse it: %v", err)
			}
			var seqs int
			for boot, ranges := range back.Boots {
				for _, r := range ranges {
					for seq := r[0]; seq <= r[1]; seq++ {
						seqs++
						id := wire.ID{Agent: "a1", Boot: boot, Seq: seq}
						if !want[id] {
							t.Errorf("%v acknowledged twice, or never stored", id)
						}
						delete(want, id)
					}
				}
			}
			if seqs != n {
				t.Errorf("ack of %d results says %d", seqs, n)
			}
		})
		if sent != 1 {
			t.Errorf("%d acks at once, want 1", sent)
		}
		a.due(now.Add(ackEvery-1), "c1", func(int, wire.Ack, int) { t.Error("two acks within a second") })
		now = now.Add(ackEvery)
	}
	if len(want) > 0 || a.seqs != 0 {
		t.Errorf("%d results never acknowledged, %d counted as waiting", len(want), a.seqs)
	}
	a.due(now, "c1", nil)
	if len(a.agents) != 0 {
		t.Errorf("%d agents are remembered with nothing to wait for", len(a.agents))
	}
}

func TestAcksAreBounded(t *testing.T) {
	a := newAcks()
	for n := range uint64(maxAckSeqs + 10) {
		a.add(0, wire.ID{Agent: "a1", Boot: "b", Seq: n + 1})
	}
	if a.seqs != maxAckSeqs || a.dropped != 10 {
		t.Errorf("%d wait, %d dropped: want %d and 10", a.seqs, a.dropped, maxAckSeqs)
	}
	a = newAcks()
	for n := range maxAckKeys + 10 {
		a.add(0, wire.ID{Agent: wire.AgentName(fmt.Sprint(n)), Boot: "b", Seq: 1})
	}
	if len(a.agents) != maxAckKeys || a.dropped != 10 {
		t.Errorf("%d agents wait, %d dropped: want %d and 10", len(a.agents), a.dropped, maxAckKeys)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue(3, 10, func(s string) int { return len(s) })
	for _, c := range []struct {
		s  string
		ok bool
	}{{"12345", true}, {"123456", false}, {"12345", true}, {"", true}, {"", false}} {
		if got := q.put(c.s); got != c.ok {
			t.Errorf("put %q: %v, want %v", c.s, got, c.ok)
		}
	}
	if st := q.stats(); st.Length != 3 || st.Bytes != 10 || st.Discarded != 2 {
		t.Errorf("stats %+v", st)
	}
	if n := q.clear(); n != 3 || q.stats().Bytes != 0 {
		t.Errorf("cleared %d, %d bytes left", n, q.stats().Bytes)
	}
}

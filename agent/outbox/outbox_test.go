package outbox

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/wire"
)

const (
	agent = wire.AgentName("garage-pi")
	boot  = wire.Boot("b2")
)

func result(target string) *wire.Result {
	r := &wire.Result{At: time.Now(), Target: wire.TargetID(target), Probe: "icmp", Addr: netip.MustParseAddr("192.0.2.1"), Family: 4,
		Sent: 5, RTTs: wire.RTTs{10.123, 11.456, 12.789, 0, 14.001}, Cause: wire.CauseTimeout, Stamp: wire.StampKernel}
	r.Summarise()
	return r
}

func add(o *Outbox, n int) {
	for range n {
		o.Add(result("example.com"))
	}
}

// publish takes all that may go out now, and confirms it.
func publish(t *testing.T, o *Outbox) (seqs []uint64) {
	t.Helper()
	for {
		it, _, ok := o.Next()
		if !ok {
			return seqs
		}
		seqs = append(seqs, decode(t, it).Seq)
		o.Confirmed(it)
	}
}

func decode(t *testing.T, it Item) wire.Result {
	t.Helper()
	r, err := wire.DecodeResult(it.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if want := wire.PingTopic(r.Target); it.Topic != want {
		t.Fatalf("topic %q: want %q", it.Topic, want)
	}
	return r
}

func ack(b wire.Boot, ranges ...wire.Range) wire.Ack {
	return wire.Ack{Agent: agent, By: "c1", Boots: map[wire.Boot][]wire.Range{b: ranges}}
}

// check verifies what must hold after every operation.
func check(t *testing.T, o *Outbox) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	var alive, bytes, confirmed, kept int
	inState := map[state]int{}
	for i, e := range o.order {
		if i > 0 && o.order[i-1].compare(e.life.rank, e.seq) >= 0 {
			t.Fatalf("entry %d is out of order", i)
		}
		if e.state == gone {
			continue
		}
		alive++
		bytes += e.cost()
		inState[e.state]++
		if e.confirmed {
			confirmed++
		}
		if e.loaded {
			kept++
		}
	}
	for s, l := range o.lists {
		n := 0
		for e := l.head; e != nil; e = e.next {
			if n++; e.state != state(s) || (e.next != nil && e.next.prev != e) || (e.next == nil && l.tail != e) {
				t.Fatalf("list %d is broken at entry %d", s, n)
			}
		}
		if n != l.n || n != inState[state(s)] {
			t.Fatalf("list %d has %d entries, says %d, and %d are in its state", s, n, l.n, inState[state(s)])
		}
	}
	if alive != o.stats.Pending || bytes != o.stats.Bytes || confirmed != o.confirmed || kept != o.kept {
		t.Fatalf("%d entries, %d bytes, %d confirmed, %d kept: the counts say %d, %d, %d, %d",
			alive, bytes, confirmed, kept, o.stats.Pending, o.stats.Bytes, o.confirmed, o.kept)
	}
	if alive > o.maxResults || bytes > o.maxBytes {
		t.Fatalf("%d results, %d bytes: the limits are %d and %d", alive, bytes, o.maxResults, o.maxBytes)
	}
	if dead := len(o.order) - alive; dead > len(o.order)/2 {
		t.Fatalf("%d of %d places are taken by entries that are gone", dead, len(o.order))
	}
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestAddGivesIdentity(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot})
	for i := range 3 {
		r := result("example.com")
		o.Add(r)
		want(t, "identity", r.ID(), wire.ID{Agent: agent, Boot: boot, Seq: uint64(i + 1)})
		it, _, ok := o.Next()
		if !ok {
			t.Fatal("a fresh result is not offered")
		}
		published := decode(t, it)
		want(t, "published identity", published.ID(), wire.ID{Agent: agent, Boot: boot, Seq: uint64(i + 1)})
	}
	check(t, o)
}

// What was never published cannot have been stored, whoever says so.
func TestForgedAckRemovesNothing(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot})
	add(o, 3)
	want(t, "removed before publishing", o.Ack(ack(boot, wire.Range{1, wire.MaxSeq})), 0)
	it, _, _ := o.Next()
	for name, a := range map[string]wire.Ack{
		"another agent": {Agent: "garage", By: "c1", Boots: map[wire.Boot][]wire.Range{boot: {{1, 3}}}},
		"another boot":  ack("b1", wire.Range{1, 3}),
		"nothing":       ack(boot),
	} {
		want(t, "removed by an ack for "+name, o.Ack(a), 0)
	}
	// In flight is published: its ack may overtake its PUBACK.
	want(t, "removed after publishing one", o.Ack(ack(boot, wire.Range{1, wire.MaxSeq})), 1)
	o.Confirmed(it)
	want(t, "pending", o.Stats().Pending, 2)
	want(t, "published next", publish(t, o), []uint64{2, 3})
	check(t, o)
}

func TestAckRanges(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot})
	add(o, 20)
	publish(t, o)
	// Out of order, overlapping, beyond the end.
	want(t, "removed", o.Ack(ack(boot, wire.Range{12, 14}, wire.Range{1, 2}, wire.Range{13, 15}, wire.Range{20, 99}, wire.Range{2, 2})), 7)
	want(t, "removed again", o.Ack(ack(boot, wire.Range{1, 2})), 0)
	check(t, o)
	o.Begin()
	var left []uint64
	for _, e := range o.order {
		if e.state != gone {
			left = append(left, e.seq)
		}
	}
	want(t, "left", left, []uint64{3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19})
}

func TestFullDropsOldest(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot, MaxResults: 3})
	add(o, 2)
	publish(t, o) // 1 and 2 are with a broker
	add(o, 1)
	if _, _, ok := o.Next(); !ok { // 3 is on its way to one
		t.Fatal("nothing to publish")
	}
	add(o, 4) // 4 to 7: 1, 2, 3, 4 make room
	s := o.Stats()
	want(t, "pending, unconfirmed, lost", []any{s.Pending, s.Unconfirmed, s.Lost}, []any{3, 2, 2})
	want(t, "left", publish(t, o), []uint64{5, 6, 7})
	check(t, o)
}

func TestFullByBytes(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot, MaxBytes: 10_000})
	add(o, 100)
	check(t, o)
	s := o.Stats()
	if s.Bytes < 9_000 || s.Pending+int(s.Lost) != 100 {
		t.Errorf("%d results in %d of 10000 bytes, %d lost", s.Pending, s.Bytes, s.Lost)
	}
	want(t, "seq of the newest", o.order[len(o.order)-1].seq, 100)
}

// A connection that ends makes backlog of what it did not confirm, oldest first.
func TestConnectionEnds(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot})
	add(o, 5)
	var items []Item
	for range 4 {
		it, _, _ := o.Next()
		items = append(items, it)
	}
	o.Confirmed(items[1])
	o.Begin()
	o.Confirmed(items[2]) // of the connection before: says nothing about this one
	check(t, o)
	o.Drain() // no pauses
	want(t, "published next", publish(t, o), []uint64{1, 3, 4, 5})
	s := o.Stats()
	want(t, "sent, resent, awaiting", []any{s.Sent, s.Resent, s.Awaiting}, []any{5, 3, 5})
}

// A payload in the hands of a connection does not change when its entry goes.
func TestOverwrittenInFlight(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot, MaxResults: 1})
	add(o, 1)
	it, _, _ := o.Next()
	before := string(it.Payload)
	add(o, 5)
	want(t, "payload", string(it.Payload), before)
	o.Confirmed(it)
	check(t, o)
	want(t, "lost", o.Stats().Lost, 5)
}

func TestRefusesWhatNobodyReads(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot})
	r := result("example.com")
	r.Probe = strings.Repeat("x", wire.MaxResult)
	o.Add(r)
	want(t, "pending, lost", []any{o.Stats().Pending, o.Stats().Lost}, []any{0, 1})
}

// The order's memory follows what is held, though one result is never acknowledged.
func TestStuckResultHoldsNoMemory(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot})
	add(o, 1)
	publish(t, o)
	for seq := uint64(2); seq < 10_000; seq++ {
		add(o, 1)
		publish(t, o)
		o.Ack(ack(boot, wire.Range{seq, seq}))
		if len(o.order) > 8 || cap(o.order) > 32 {
			t.Fatalf("after %d results the order of 1 has length %d, capacity %d", seq, len(o.order), cap(o.order))
		}
	}
	check(t, o)
}

// Random operations against the simplest model there is: a set of what was
// added and neither acknowledged nor dropped.
func TestModel(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			o := New(Options{Agent: agent, Boot: boot, MaxResults: 50, Rand: rnd.Float64})
			published := map[uint64]bool{}
			alive := map[uint64]bool{}
			var flying []Item
			for seq := uint64(1); seq < 500; {
				switch rnd.IntN(8) {
				case 0, 1:
					add(o, 1)
					alive[seq] = true
					if seq > 50 { // the oldest makes room, if it is full
						for k := uint64(1); len(alive) > 50; k++ {
							delete(alive, k)
						}
					}
					seq++
				case 2, 3:
					if it, _, ok := o.Next(); ok {
						published[decode(t, it).Seq] = true
						flying = append(flying, it)
					}
				case 4:
					if n := len(flying); n > 0 {
						k := rnd.IntN(n)
						o.Confirmed(flying[k])
						flying = append(flying[:k], flying[k+1:]...)
					}
				case 5:
					lo := rnd.Uint64N(seq) + 1
					hi := lo + rnd.Uint64N(4)
					removed := 0
					for k := lo; k <= hi; k++ {
						if alive[k] && published[k] {
							delete(alive, k)
							removed++
						}
					}
					want(t, "acked", o.Ack(ack(boot, wire.Range{lo, hi})), removed)
				case 6:
					time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
					o.Heard()
				case 7:
					if rnd.IntN(10) == 0 {
						o.Begin()
						flying = nil
					}
				}
				if check(t, o); o.Stats().Pending != len(alive) {
					t.Fatalf("seed %d, seq %d: %d pending, the model has %d", seed, seq, o.Stats().Pending, len(alive))
				}
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	o := New(Options{Agent: agent, Boot: boot, MaxResults: 100})
	var wg sync.WaitGroup
	for _, f := range []func(i int){
		func(int) { add(o, 1) },
		func(int) {
			if it, _, ok := o.Next(); ok {
				o.Confirmed(it)
			}
		},
		func(i int) { o.Ack(ack(boot, wire.Range{uint64(i + 1), uint64(i + 3)})) },
		func(i int) {
			o.Heard()
			if i%100 == 0 {
				o.Begin()
			}
		},
		func(int) { o.Stats() },
	} {
		wg.Go(func() {
			for i := range 2000 {
				f(i)
			}
		})
	}
	wg.Wait()
	check(t, o)
	s := o.Stats()
	if sum := s.Acked + s.Lost + s.Unconfirmed + uint64(s.Pending); sum != 2000 {
		t.Errorf("%d of 2000 results are accounted for: %+v", sum, s)
	}
}

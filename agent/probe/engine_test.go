package probe

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"net/netip"

	"swarming/shared/wire"
)

var (
	target = addr("12.0.0.1")
	router = addr("12.9.9.9")
)

const ms = time.Millisecond

// script answers the n-th request with the n-th list.
func script(lists ...[]reaction) func(netip.Addr, int) []reaction {
	return func(_ netip.Addr, n int) []reaction { return lists[n] }
}

func TestRoundEndsWithTheLastReply(t *testing.T) {
	n := &fakeNet{react: script([]reaction{{after: 30 * ms}}, []reaction{{after: 50 * ms}}, []reaction{{after: 20 * ms}})}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		begin := time.Now()
		o := ping(t, e, Round{Addr: target, Count: 3, Gap: time.Second, Timeout: 4 * time.Second})
		if took := time.Since(begin); took != 2020*ms {
			t.Errorf("the round took %v, want until the last reply, 2.02s", took)
		}
		if !o.Start.Equal(begin) {
			t.Errorf("Start is %v, want %v", o.Start, begin)
		}
		if want := []time.Duration{30 * ms, 50 * ms, 20 * ms}; o.Sent != 3 || !slices.Equal(o.RTTs, want) {
			t.Errorf("got %d sent, %v, want 3, %v", o.Sent, o.RTTs, want)
		}
		if o.Cause != "" || o.Late != 0 || o.Stamp != wire.StampUser || o.Err != "" || !o.Answered() {
			t.Errorf("got %+v", o)
		}
	})
}

func TestLossAndLateness(t *testing.T) {
	n := &fakeNet{react: script(
		nil,
		[]reaction{{after: 1500 * ms}, {after: 1600 * ms}}, // late, and late twice
		[]reaction{{after: 999 * ms}},
		[]reaction{{after: 10 * ms}, {after: 12 * ms}}, // a duplicate
		nil,
	)}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		begin := time.Now()
		o := ping(t, e, Round{Addr: target, Count: 5, Gap: time.Second, Timeout: time.Second})
		if took, want := time.Since(begin), 5*time.Second+lastLook; took != want {
			t.Errorf("the round took %v, want until the last timeout, %v", took, want)
		}
		if want := []time.Duration{0, 0, 999 * ms, 10 * ms, 0}; o.Sent != 5 || !slices.Equal(o.RTTs, want) {
			t.Errorf("got %d sent, %v, want 5, %v", o.Sent, o.RTTs, want)
		}
		if o.Late != 1 || o.Cause != wire.CauseTimeout || o.From.IsValid() {
			t.Errorf("got %+v, want 1 late, cause timeout", o)
		}
		if s := e.Stats(); s.Sent != 5 || s.Received != 2 || s.Late != 1 || s.Duplicates != 2 {
			t.Errorf("got %+v", s)
		}
	})
}

// Only the very reply counts: from the address asked, with this packet's number.
func TestStrangersDoNotCount(t *testing.T) {
	n := &fakeNet{react: script([]reaction{
		{after: 1 * ms, from: addr("11.0.0.2")},
		{after: 2 * ms, edit: func(ev *event) { ev.echo.n += 1 << 16 }}, // the same seq, another time
		{after: 3 * ms, edit: func(ev *event) { ev.echo.seq++ }},
		{after: 4 * ms, cause: wire.CauseUnreachable, edit: func(ev *event) { ev.to = addr("11.0.0.2") }},
		{after: 5 * ms, cause: wire.CauseUnreachable, edit: func(ev *event) { ev.echo.n++ }},
		{after: 2 * time.Second}, // after the round
	})}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		o := ping(t, e, Round{Addr: target, Count: 1, Timeout: time.Second})
		if o.Sent != 1 || o.Answered() || o.Late != 0 || o.Cause != wire.CauseTimeout {
			t.Errorf("got %+v", o)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := e.Stats(); s.Strangers != 6 || s.Received != 0 || s.Errors != 0 {
			t.Errorf("got %+v, want 6 strangers", s)
		}
	})
}

func TestErrorsBecomeCauses(t *testing.T) {
	failed := func(c wire.Cause) []reaction { return []reaction{{after: 5 * ms, cause: c, from: router}} }
	short := []reaction{{after: 5 * ms, cause: wire.CauseProhibited, from: router, edit: func(ev *event) { ev.echo.n, ev.echo.whole = 0, false }}}
	answered := []reaction{{after: 10 * ms}}
	for _, c := range []struct {
		name  string
		react [][]reaction
		cause wire.Cause
		from  netip.Addr
		late  int
	}{
		{"all", [][]reaction{failed(wire.CauseUnreachable), failed(wire.CauseUnreachable)}, wire.CauseUnreachable, router, 0},
		{"only the header quoted", [][]reaction{short, short}, wire.CauseProhibited, router, 0},
		{"the most frequent", [][]reaction{nil, failed(wire.CauseTTLExceeded), nil}, wire.CauseTimeout, netip.Addr{}, 0},
		{"on a tie the one that says more", [][]reaction{nil, failed(wire.CauseTTLExceeded), answered}, wire.CauseTTLExceeded, router, 0},
		{"an answer beats an error", [][]reaction{{{after: 5 * ms, cause: wire.CauseUnreachable, from: router}, {after: 7 * ms}}, nil}, wire.CauseTimeout, netip.Addr{}, 0},
		{"an error after the answer is nothing", [][]reaction{{{after: 5 * ms}, {after: 7 * ms, cause: wire.CauseUnreachable}}, answered}, "", netip.Addr{}, 0},
		{"late is a timeout", [][]reaction{{{after: 1100 * ms}}, nil}, wire.CauseTimeout, netip.Addr{}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, &fakeNet{react: script(c.react...)}, EngineOptions{}, func(t *testing.T, e *Engine) {
				o := ping(t, e, Round{Addr: target, Count: len(c.react), Timeout: time.Second})
				if o.Sent != len(c.react) || o.Cause != c.cause || o.From != c.from || o.Late != c.late {
					t.Errorf("got %+v, want cause %q from %v", o, c.cause, c.from)
				}
			})
		})
	}
}

// A round of nothing but ICMP errors need not wait for the timeout.
func TestErrorsEndTheRound(t *testing.T) {
	n := &fakeNet{react: func(netip.Addr, int) []reaction {
		return []reaction{{after: 5 * ms, cause: wire.CauseUnreachable, from: router}}
	}}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		begin := time.Now()
		ping(t, e, Round{Addr: target, Count: 2, Gap: time.Second, Timeout: 4 * time.Second})
		if took := time.Since(begin); took != 1005*ms {
			t.Errorf("took %v, want 1.005s", took)
		}
	})
}

func TestRoundTrip(t *testing.T) {
	const hour = int64(time.Hour)
	tx := instant{wall: 1000 * hour, mono: 500 * ms}
	for _, c := range []struct {
		name   string
		at     instant
		kernel int64
		want   time.Duration
		stamp  wire.Stamp
	}{
		{"no kernel stamp", instant{tx.wall + int64(20*ms), 520 * ms}, 0, 20 * ms, wire.StampUser},
		{"kernel stamp", instant{tx.wall + int64(20*ms), 520 * ms}, tx.wall + int64(15*ms), 15 * ms, wire.StampKernel},
		{"no delay at all", instant{tx.wall + int64(20*ms), 520 * ms}, tx.wall + int64(20*ms), 20 * ms, wire.StampKernel},
		{"clock stepped back on the way", instant{tx.wall - hour, 520 * ms}, tx.wall - hour - int64(5*ms), 15 * ms, wire.StampKernel},
		{"clock stepped back after the stamp", instant{tx.wall - hour, 520 * ms}, tx.wall + int64(15*ms), 20 * ms, wire.StampUser},
		{"clock stepped forward after the stamp", instant{tx.wall + hour, 520 * ms}, tx.wall + int64(15*ms), 20 * ms, wire.StampUser},
		{"stamp before the send", instant{tx.wall + int64(20*ms), 520 * ms}, tx.wall, 20 * ms, wire.StampUser},
		{"no time at all", instant{tx.wall, 500 * ms}, 0, 1, wire.StampUser},
	} {
		if got, stamp := roundTrip(tx, &event{at: c.at, kernel: c.kernel}); got != c.want || stamp != c.stamp {
			t.Errorf("%s: got %v by %s, want %v by %s", c.name, got, stamp, c.want, c.stamp)
		}
	}
}

// The stamp is the kernel's only if all replies had one.
func TestStampOfARound(t *testing.T) {
	with, without := []reaction{{after: 10 * ms, wait: 2 * ms}}, []reaction{{after: 10 * ms}}
	for _, c := range []struct {
		react [][]reaction
		want  wire.Stamp
	}{
		{[][]reaction{with, with}, wire.StampKernel},
		{[][]reaction{with, nil}, wire.StampKernel},
		{[][]reaction{with, without}, wire.StampUser},
		{[][]reaction{nil, nil}, ""},
	} {
		bubble(t, &fakeNet{react: script(c.react...)}, EngineOptions{}, func(t *testing.T, e *Engine) {
			if o := ping(t, e, Round{Addr: target, Count: 2, Timeout: time.Second}); o.Stamp != c.want {
				t.Errorf("got stamp %q, want %q: %+v", o.Stamp, c.want, o)
			}
		})
	}
}

// Whatever step the wall clock makes against the monotonic one, be it NTP or
// the machine's sleep, a round that saw it has no statistics.
func TestClockStep(t *testing.T) {
	for _, c := range []struct {
		step  time.Duration
		local bool
	}{{-3 * time.Hour, true}, {501 * ms, true}, {499 * ms, false}, {-499 * ms, false}} {
		n := &fakeNet{clock: func(i instant) instant {
			if i.mono > 300*ms {
				i.wall += int64(c.step)
			}
			return i
		}}
		bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
			o := ping(t, e, Round{Addr: target, Count: 3, Timeout: time.Second})
			switch {
			case !c.local && (o.Cause != "" || o.Sent != 3):
				t.Errorf("step %v: got %+v, want it ignored", c.step, o)
			case c.local && (o.Cause != wire.CauseLocal || o.Sent != 0 || len(o.RTTs) != 0 || !strings.Contains(o.Err, "clock stepped by "+c.step.String())):
				t.Errorf("step %v: got %+v, want local, nothing sent, an explanation", c.step, o)
			}
		})
	}
}

// Two rounds to one address, each asking for no gap at all, do not send
// faster together than one may.
func TestSpacingByAddress(t *testing.T) {
	n := &fakeNet{}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		done := make(chan Outcome, 3)
		for _, a := range []netip.Addr{target, netip.AddrFrom16(target.As16()), router} {
			e.Start(Round{Addr: a, Count: 10, Timeout: time.Second}, func(o Outcome) { done <- o })
		}
		for range 3 {
			if o := <-done; o.Sent != 10 || o.Cause != "" {
				t.Errorf("got %+v", o)
			}
		}
		last := map[netip.Addr]time.Time{}
		for _, s := range n.sendings() {
			if gap := s.at.Sub(last[s.to]); gap < MinGap {
				t.Fatalf("two requests to %v are %v apart, want at least %v", s.to, gap, MinGap)
			}
			last[s.to] = s.at
		}
		if n := len(n.sendings()); n != 30 {
			t.Errorf("%d requests, want 30", n)
		}
	})
}

// checkPace fails if any interval sees more than its share of packets.
func checkPace(t *testing.T, sent []sending, pps float64) {
	t.Helper()
	interval := time.Duration(float64(time.Second) / pps)
	for i := range sent {
		for _, span := range []int{2, 10, 100} {
			// One may be early by an interval: that is the catching up.
			if j := i + span; j < len(sent) && sent[j].at.Sub(sent[i].at) < time.Duration(span-1)*interval {
				t.Fatalf("%d packets in %v, at most one per %v is allowed", span, sent[j].at.Sub(sent[i].at), interval)
			}
		}
	}
}

func TestPace(t *testing.T) {
	for _, c := range []struct{ asked, want float64 }{{0, 200}, {50, 50}, {0.5, 0.5}, {1e9, 200}, {-1, 200}} {
		n := &fakeNet{}
		bubble(t, n, EngineOptions{MaxPPS: c.asked}, func(t *testing.T, e *Engine) {
			const rounds = 300
			done := make(chan Outcome, rounds)
			time.Sleep(10 * time.Second) // a rest is not saved up
			begin := time.Now()
			for i := range rounds {
				e.Start(Round{Addr: numbered(i), Count: 1, Timeout: time.Second}, func(o Outcome) { done <- o })
			}
			for range rounds {
				if o := <-done; !o.Answered() {
					t.Fatalf("got %+v: waiting for its turn must not count against the timeout", o)
				}
			}
			checkPace(t, n.sendings(), c.want)
			// It is not slower than allowed either.
			if took, want := time.Since(begin).Seconds(), rounds/c.want; took > want*1.01+0.02 {
				t.Errorf("MaxPPS %g: %d packets took %.2fs, want %.2fs", c.asked, rounds, took, want)
			}
		})
	}
}

// A thousand targets, as W1 (1 packet every 10 s) and as W2 (5 every minute).
func TestThousandTargets(t *testing.T) {
	for _, c := range []struct {
		count    int
		interval time.Duration
	}{{1, 10 * time.Second}, {5, time.Minute}} {
		n := &fakeNet{react: func(to netip.Addr, n int) []reaction {
			if (int(to.As4()[3])+n)%10 == 0 {
				return nil
			}
			return []reaction{{after: time.Duration(1+to.As4()[3]) * ms}}
		}}
		bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
			const targets, rounds = 1000, 5
			done := make(chan Outcome, targets*rounds)
			for k := range rounds {
				for i := range targets {
					at := time.Duration(k)*c.interval + c.interval*time.Duration(i)/targets
					time.AfterFunc(at, func() {
						e.Start(Round{Addr: numbered(i), Count: c.count, Gap: time.Second, Timeout: 4 * time.Second}, func(o Outcome) { done <- o })
					})
				}
			}
			sent, lost := 0, 0
			for range targets * rounds {
				o := <-done
				sent += o.Sent
				for _, rtt := range o.RTTs {
					if rtt == 0 {
						lost++
					}
				}
			}
			want := 0
			for i := range targets {
				for k := range rounds * c.count {
					if (int(numbered(i).As4()[3])+k)%10 == 0 {
						want++
					}
				}
			}
			if all := targets * rounds * c.count; sent != all || lost != want {
				t.Errorf("%d sent, %d lost; want %d, %d", sent, lost, all, want)
			}
			checkPace(t, n.sendings(), MaxPPS)
			e.mu.Lock()
			defer e.mu.Unlock()
			if len(e.table) != 0 || e.flying != 0 {
				t.Errorf("%d packets and %d rounds are still held", len(e.table), e.flying)
			}
		})
	}
}

// Sequence numbers have 16 bits, and wrap around those that are in use.
func TestSequenceWraps(t *testing.T) {
	n := &fakeNet{react: func(to netip.Addr, _ int) []reaction {
		if to == target {
			return []reaction{{after: 3 * time.Second}}
		}
		return []reaction{{after: ms}}
	}}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		setNext := func(n uint32) { e.mu.Lock(); e.next = n; e.mu.Unlock() }
		setNext(1<<32 - 3)
		slow := make(chan Outcome, 1)
		e.Start(Round{Addr: target, Count: 1, Timeout: 4 * time.Second}, func(o Outcome) { slow <- o })
		synctest.Wait()
		setNext(1<<16 - 10) // soon at the slow one's number again
		for i := range 20 {
			if o := ping(t, e, Round{Addr: numbered(100 + i), Count: 1, Timeout: time.Second}); !o.Answered() {
				t.Fatalf("got %+v", o)
			}
		}
		if o := <-slow; !o.Answered() || o.RTTs[0] != 3*time.Second {
			t.Errorf("got %+v", o)
		}
	})
}

func TestBounds(t *testing.T) {
	n := &fakeNet{react: func(netip.Addr, int) []reaction { return nil }}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		done := make(chan Outcome, MaxRounds)
		for i := range MaxRounds {
			e.Start(Round{Addr: numbered(i), Count: 1, Timeout: time.Minute}, func(o Outcome) { done <- o })
		}
		var over *Outcome
		e.Start(Round{Addr: target, Count: 1, Timeout: time.Second}, func(o Outcome) { over = &o })
		if over == nil || over.Cause != wire.CauseLocal || over.Sent != 0 || !strings.Contains(over.Err, "4096 rounds are in flight") {
			t.Errorf("one round too many: got %+v", over)
		}
		for range MaxRounds {
			<-done
		}
		if o := ping(t, e, Round{Addr: target, Count: 1, Timeout: time.Second}); o.Sent != 1 {
			t.Errorf("after the rush: got %+v", o)
		}
	})
}

func TestInvalidRounds(t *testing.T) {
	good := Round{Addr: target, Count: 1, Timeout: time.Second}
	for want, edit := range map[string]func(*Round){
		"no address":   func(r *Round) { r.Addr = netip.Addr{} },
		"zone":         func(r *Round) { r.Addr = addr("fe80::1%eth0") },
		"count 0":      func(r *Round) { r.Count = 0 },
		"count 21":     func(r *Round) { r.Count = 21 },
		"timeout 0s":   func(r *Round) { r.Timeout = 0 },
		"timeout -1ns": func(r *Round) { r.Timeout = -1 },
	} {
		r := good
		edit(&r)
		var o Outcome
		NewEngine(EngineOptions{}).Start(r, func(got Outcome) { o = got })
		if o.Cause != wire.CauseLocal || !strings.Contains(o.Err, want) || o.Start.IsZero() || o.Stopped {
			t.Errorf("want an error with %q, got %+v", want, o)
		}
	}
}

// Every round that was started is done exactly once when the engine ends,
// also those that had not begun, and those that come too late.
func TestStop(t *testing.T) {
	n := &fakeNet{react: func(netip.Addr, int) []reaction { return nil }}
	outcomes := map[int]int{}
	var e *Engine
	bubble(t, n, EngineOptions{MaxPPS: 100}, func(t *testing.T, running *Engine) {
		e = running
		for i := range 500 {
			e.Start(Round{Addr: numbered(i), Count: 2, Timeout: time.Minute}, func(o Outcome) {
				outcomes[i]++
				if !o.Stopped || o.Cause != wire.CauseLocal || o.Sent != 0 || o.Start.IsZero() {
					t.Errorf("round %d: got %+v", i, o)
				}
			})
		}
		time.Sleep(2 * time.Second)
	})
	if len(outcomes) != 500 || slices.ContainsFunc(sortedValues(outcomes), func(n int) bool { return n != 1 }) {
		t.Errorf("%d of 500 rounds were done, or some twice", len(outcomes))
	}
	var late Outcome
	e.Start(Round{Addr: target, Count: 1, Timeout: time.Second}, func(o Outcome) { late = o })
	if !late.Stopped {
		t.Errorf("after the end: got %+v", late)
	}
}

func sortedValues[K cmp.Ordered](m map[K]int) []int {
	v := make([]int, 0, len(m))
	for _, n := range m {
		v = append(v, n)
	}
	slices.Sort(v)
	return v
}

// A round that could be read in time but was not, because the machine was
// busy, is not lost.
func TestLastLook(t *testing.T) {
	n := &fakeNet{react: script([]reaction{{after: time.Second + 5*ms, wait: 5 * ms}})}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		o := ping(t, e, Round{Addr: target, Count: 1, Timeout: time.Second})
		if !o.Answered() || o.RTTs[0] != time.Second {
			t.Errorf("got %+v, want a reply in 1s", o)
		}
	})
}

package ingest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"swarming/collector/journal"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

func TestAcknowledgesOnlyWhatIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := start(t, 2, func(o *Options) {
			o.Journal.(*fakeJournal).onAppend = func() error { <-gate; return nil }
		})
		r.brokers[1].result(sample("a1", 7))
		after(10 * time.Second)
		if got := r.brokers[1].acked(t); len(got) != 0 {
			t.Errorf("acknowledged before the journal had it: %v", got)
		}
		close(gate)
		synctest.Wait()
		if got := r.brokers[1].acked(t); len(got) != 1 || got[wire.ID{Agent: "a1", Boot: "ab", Seq: 7}] != 1 {
			t.Errorf("acknowledged %v, want a1 ab 7", got)
		}
		if got := r.brokers[0].acked(t); len(got) != 0 {
			t.Errorf("acknowledged on a broker it did not come from: %v", got)
		}
		e := r.journal.stored[wire.ID{Agent: "a1", Boot: "ab", Seq: 7}]
		if e.Broker != "b1:1883" || *e.Result.Avg != 12.5 || e.Received.IsZero() {
			t.Errorf("stored %+v", e)
		}
	})
}

// A result that comes back is a duplicate, and is acknowledged again.
func TestAcknowledgesDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		for range 3 {
			r.brokers[0].result(sample("a1", 1))
			after(2 * time.Second)
		}
		if n := r.brokers[0].acked(t)[wire.ID{Agent: "a1", Boot: "ab", Seq: 1}]; n != 3 {
			t.Errorf("acknowledged %d times, want 3", n)
		}
		if st := r.in.Stats(); st.Stored != 1 || st.Duplicates != 2 || st.Acked != 3 {
			t.Errorf("stored %d, duplicates %d, acked %d: want 1, 2, 3", st.Stored, st.Duplicates, st.Acked)
		}
	})
}

// However many results come, an agent gets one ack a second and broker, and
// every result is in one.
func TestAcksAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		const n = 1000
		for seq := range uint64(n) {
			r.brokers[0].result(sample("a1", seq+1))
			after(10 * time.Millisecond)
		}
		after(2 * time.Second)
		if got := r.brokers[0].acked(t); len(got) != n {
			t.Errorf("%d results acknowledged, want %d", len(got), n)
		}
		_, at := r.brokers[0].published("ack/a1")
		if len(at) > 12 {
			t.Errorf("%d acks in 10 s", len(at))
		}
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < time.Second {
				t.Errorf("two acks within %v", d)
			}
		}
	})
}

func TestResultsOutsideTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, func(o *Options) { o.Retention = time.Hour })
		var want int
		for seq, c := range []struct {
			off    time.Duration
			stored bool
		}{
			{0, true}, {9 * time.Minute, true}, {11 * time.Minute, false}, {-59 * time.Minute, true}, {-61 * time.Minute, false},
			{-40 * 365 * 24 * time.Hour, false}, {80 * 365 * 24 * time.Hour, false},
		} {
			res := sample("a1", uint64(seq+1))
			res.At = res.At.Add(c.off)
			r.brokers[0].result(res)
			if c.stored {
				want++
			}
		}
		after(time.Second)
		if got := r.journal.results(); got != want {
			t.Errorf("%d stored, want %d", got, want)
		}
		if got := r.brokers[0].acked(t); len(got) != 7 {
			t.Errorf("%d acknowledged, want all 7", len(got))
		}
		if got := r.in.Stats().Refused["ping"]["clock"]; got != 4 {
			t.Errorf("%d counted under clock, want 4", got)
		}
		if n := r.lines("message refused"); n != 1 {
			t.Errorf("%d lines logged about one sender in a minute, want 1:\n%s", n, r.log)
		}
	})
}

// While this machine's clock is not set, the agents keep their results.
func TestOwnClockNotSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // synctest's clock shows 2000
		r := start(t, 1, func(o *Options) { o.BuildTime = time.Now().Add(time.Hour) })
		r.brokers[0].result(sample("a1", 1))
		after(time.Second)
		if r.journal.results() != 0 || len(r.brokers[0].acked(t)) != 0 || r.in.Stats().Refused["ping"]["unset"] != 1 {
			t.Errorf("stored %d, acked %v, refused %v: want nothing but a count", r.journal.results(), r.brokers[0].acked(t), r.in.Stats().Refused)
		}
		after(time.Hour)
		r.brokers[0].result(sample("a1", 1))
		after(time.Second)
		if r.journal.results() != 1 || len(r.brokers[0].acked(t)) != 1 {
			t.Errorf("with the clock set: stored %d, acked %v", r.journal.results(), r.brokers[0].acked(t))
		}
	})
}

func TestObserveStoresAndIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, func(o *Options) { o.Observe = true })
		r.brokers[0].result(sample("a1", 1))
		after(10 * time.Minute)
		if err := r.in.PublishWatch(0, []byte("x")); err == nil {
			t.Error("PublishWatch of an observer succeeded")
		}
		synctest.Wait()
		if r.journal.results() != 1 {
			t.Errorf("%d stored, want 1", r.journal.results())
		}
		if all, _ := r.brokers[0].published(""); len(all) != 0 {
			t.Errorf("published %v", all)
		}
	})
}

// While the journal fails the batch is kept, the queue fills and overflows, and
// nothing is acknowledged; then everything that was kept is.
func TestJournalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		full.Store(true)
		r := start(t, 1, func(o *Options) {
			o.QueueLen = 10
			o.Journal.(*fakeJournal).onAppend = func() error {
				if full.Load() {
					return journal.ErrNoSpace
				}
				return nil
			}
		})
		r.brokers[0].result(sample("a1", 1))
		after(time.Second)
		for seq := range uint64(15) {
			r.brokers[0].result(sample("a1", seq+2))
		}
		r.brokers[0].deliver("live/agent/a1", wire.LiveAgent{Agent: "a1", Boot: "ab", At: time.Now()}.Encode(), false)
		after(10 * time.Minute)
		st := r.in.Stats()
		if st.JournalError == "" || len(r.brokers[0].acked(t)) != 0 || st.Results.Discarded != 5 || st.Brokers[0].Discarded != 5 {
			t.Errorf("error %q, acked %v, discarded %d and %d: want an error, nothing, 5, 5", st.JournalError, r.brokers[0].acked(t), st.Results.Discarded, st.Brokers[0].Discarded)
		}
		if len(st.Agents) != 1 || st.Agents[0].Boot != "ab" {
			t.Errorf("heartbeats wait for the journal: agents %+v", st.Agents)
		}
		full.Store(false)
		after(10 * time.Second)
		if got := r.brokers[0].acked(t); len(got) != 11 || r.journal.results() != 11 {
			t.Errorf("acked %d, stored %d: want 11", len(got), r.journal.results())
		}
		if a, b := r.lines("journal does not take results"), r.lines("journal works again"); a != 1 || b != 1 {
			t.Errorf("%d lines about the failure and %d about its end: want 1 each\n%s", a, b, r.log)
		}
		if st := r.in.Stats(); st.JournalError != "" {
			t.Errorf("error %q is still shown", st.JournalError)
		}
	})
}

// A broker that takes nothing delays no other.
func TestStuckBrokerDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		r := start(t, 2, nil)
		r.brokers[0].onPublish = func(broker.Message) { <-stuck }
		defer close(stuck)
		for seq := range uint64(20_000) {
			r.brokers[0].result(sample(wire.AgentName(fmt.Sprint("s", seq)), 1))
			if seq%1000 == 0 {
				after(100 * time.Millisecond)
			}
		}
		r.brokers[1].result(sample("a1", 1))
		after(time.Second)
		if got := r.brokers[1].acked(t); len(got) != 1 {
			t.Errorf("the other broker's agents got %d acks, want 1", len(got))
		}
		if st := r.in.Stats(); st.AcksDropped == 0 || st.Stored != 20_001 {
			t.Errorf("acks dropped %d, stored %d: want some, 20001", st.AcksDropped, st.Stored)
		}
	})
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, func(o *Options) { o.Rev = func() int64 { return 42 } })
		beats := func() (out []wire.LiveCollector) {
			ms, _ := r.brokers[0].published("live/collector/c1")
			for _, m := range ms {
				l, err := wire.DecodeLiveCollector(m.Payload)
				if err != nil || m.QoS != 0 || m.Retained {
					t.Fatalf("heartbeat %+v: %v", m, err)
				}
				out = append(out, l)
			}
			return out
		}
		if got := beats(); len(got) != 1 || got[0].Agents != nil || got[0].Rev != 42 || got[0].Boot != "cb" || got[0].N != 1 {
			t.Fatalf("right after the subscription: %+v, want one without agents", got)
		}
		if want := []string{"watch 1", "ping/# 0", "live/# 0", "rip/# 1"}; !slices.Equal(r.brokers[0].conn.subs, want) {
			t.Errorf("subscribed to %q, want %q", r.brokers[0].conn.subs, want)
		}
		r.brokers[0].result(sample("a1", 1))
		after(90 * time.Second)
		r.brokers[0].deliver("live/agent/a2", wire.LiveAgent{Agent: "a2", Boot: "ab", At: time.Now()}.Encode(), false)
		after(20 * time.Second)
		if got := beats(); len(got) != 8 || got[7].Agents != nil {
			t.Fatalf("after 110 s: %d heartbeats, the last %+v: want 8 without agents", len(got), got[len(got)-1])
		}
		after(15 * time.Second)
		if got := beats(); *got[len(got)-1].Agents != 2 {
			t.Errorf("after 2 min: %d agents, want 2", *got[len(got)-1].Agents)
		}
		after(90 * time.Second)
		if got := beats(); *got[len(got)-1].Agents != 1 {
			t.Errorf("3 min after a1's last word: %d agents, want 1", *got[len(got)-1].Agents)
		}
	})
}

// A broker that is down is tried for ever, and logged when it fails and when it
// works again, not in between.
func TestReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var happened []string
		r := start(t, 1, func(o *Options) {
			o.OnSubscribed = func(n int) { happened = append(happened, fmt.Sprint("subscribed ", n)) }
			o.OnLost = func(n int) { happened = append(happened, fmt.Sprint("lost ", n)) }
			o.OnWatch = func(n int, m broker.Message) { happened = append(happened, "watch "+string(m.Payload)) }
		})
		down := &broker.DialError{Kind: broker.KindRefused, Hint: "start it", Err: errors.New("connection refused")}
		r.brokers[0].deliver("watch", []byte("one"), true)
		after(time.Minute)
		r.brokers[0].mu.Lock()
		r.brokers[0].refuse = func() error { return down }
		r.brokers[0].mu.Unlock()
		r.brokers[0].cut()
		after(time.Hour)
		if st := r.in.Stats().Brokers[0]; st.Connected || st.Hint != "start it" || st.Failures < 100 {
			t.Errorf("after an hour down: %+v", st)
		}
		if n := r.brokers[0].dialled(); n > 1500 {
			t.Errorf("%d dials in an hour", n)
		}
		r.brokers[0].mu.Lock()
		r.brokers[0].refuse = nil
		r.brokers[0].mu.Unlock()
		after(30 * time.Second)
		if st := r.in.Stats().Brokers[0]; !st.Connected || st.Problem != "" {
			t.Errorf("back again: %+v", st)
		}
		if a, b := r.lines("broker fails"), r.lines("broker works again"); a != 1 || b != 1 {
			t.Errorf("%d lines about failing, %d about working: want 1 each\n%s", a, b, r.log)
		}
		r.brokers[0].deliver("watch", []byte("two"), false)
		synctest.Wait()
		if want := []string{"subscribed 0", "watch one", "lost 0", "subscribed 0", "watch two"}; !slices.Equal(happened, want) {
			t.Errorf("told %q, want %q", happened, want)
		}
	})
}

// The first attempt after a loss comes within a second, but a broker that ends
// every connection at once is not dialled once a second.
func TestFirstRetryIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		for range 100 {
			if r.in.Stats().Brokers[0].Connected {
				r.brokers[0].cut()
			}
			after(time.Second)
		}
		if n := r.brokers[0].dialled(); n > 30 {
			t.Errorf("%d dials in 100 s", n)
		}
		for range 5 {
			after(time.Minute)
			before := r.brokers[0].dialled()
			r.brokers[0].cut()
			after(time.Second)
			if n := r.brokers[0].dialled() - before; n != 1 {
				t.Errorf("%d dials in the second after the loss, want 1", n)
			}
		}
	})
}

// At the end nothing is acknowledged that the journal did not take.
func TestStopWhileJournalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, func(o *Options) {
			o.Journal.(*fakeJournal).onAppend = func() error { return journal.ErrNoSpace }
		})
		for seq := range uint64(2500) {
			r.brokers[0].result(sample("a1", seq+1))
		}
		after(time.Minute)
		before := time.Now()
		r.stop()
		if took := time.Since(before); took > grace+2*time.Second {
			t.Errorf("the end took %v", took)
		}
		if got := r.brokers[0].acked(t); len(got) != 0 {
			t.Errorf("%d results acknowledged that are not stored", len(got))
		}
	})
}

func TestStopStoresAndAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		for seq := range uint64(5000) {
			r.brokers[0].result(sample("a1", seq+1))
		}
		r.stop()
		if got := r.brokers[0].acked(t); len(got) != 5000 || r.journal.results() != 5000 {
			t.Errorf("at the end %d acknowledged, %d stored: want 5000", len(got), r.journal.results())
		}
		if len(r.journal.agents) != 1 {
			t.Errorf("%d agents saved, want 1", len(r.journal.agents))
		}
	})
}

func TestLegacyResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		for range 3 {
			r.brokers[0].deliver("ping/example.com", []byte(`["old","ok",{"loss":0.0,"Round trip":[1,2,3,0.5],"Error":null}]`), false)
		}
		r.brokers[0].deliver("ping/example.com", []byte(`["old","error","no route"]`), false)
		r.brokers[0].deliver("ping/example.com", []byte(`["old"`), false)
		after(time.Second)
		if r.journal.results() != 4 {
			t.Errorf("%d stored, want 4 of their own", r.journal.results())
		}
		for id, e := range r.journal.stored {
			if id.Boot != "2014" || e.Result.At.IsZero() || !id.Valid() {
				t.Errorf("stored %+v", e)
			}
		}
		if acks, _ := r.brokers[0].published("ack/"); len(acks) != 0 {
			t.Errorf("acknowledged %v to an agent that does not know acks", acks)
		}
		if got := r.in.Stats().Refused["ping"]["syntax"]; got != 1 {
			t.Errorf("%d refused, want 1", got)
		}
	})
}

// Whatever a stranger sends is counted, and the next good result is stored.
func TestHostilePayloads(t *testing.T) {
	good := func(change string) string {
		s := sample("a1", 1)
		from, to, _ := strings.Cut(change, "→")
		return strings.Replace(string(s.Append(nil)), from, to, 1)
	}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		b := r.brokers[0]
		for n, c := range []struct {
			topic, payload string
			retained       bool
			kind, reason   string
			acked          bool
		}{
			{"ping/x", "", false, "ping", "empty", false},
			{"ping/x", `{"v":1,"agent":"a1","bo`, false, "ping", "syntax", false},
			{"ping/x", strings.Repeat("[", 8000), false, "ping", "syntax", false},
			{"ping/x", strings.Repeat(`{"a":`, 10_000) + strings.Repeat("}", 10_000), false, "ping", "size", false},
			{"ping/x", good(`"sent":2→"sent":NaN`), false, "ping", "syntax", false},
			{"ping/x", good(`"avg":12.5→"avg":1e308`), false, "ping", "range", true},
			{"ping/x", good(`"avg":12.5→"avg":1e999`), false, "ping", "syntax", true},
			{"ping/x", good(`"seq":1→"seq":-1`), false, "ping", "syntax", false},
			{"ping/x", good(`"seq":1→"seq":0`), false, "ping", "range", false},
			{"ping/x", good(`"seq":1→"seq":18446744073709551615`), false, "ping", "range", false},
			{"ping/x", good(`"at":"2→"at":"1`), false, "ping", "clock", true},
			{"ping/x", good(`"agent":"a1"→"agent":"a/1"`), false, "ping", "name", false},
			{"ping/x", good(`"agent":"a1"→"agent":"+"`), false, "ping", "name", false},
			{"ping/x", good(`"agent":"a1"→"agent":"a\u001b[31m"`), false, "ping", "name", false},
			{"ping/x", good(`"target":"example.com"→"target":"#"`), false, "ping", "name", true},
			{"ping/x", good(`"v":1→"v":9`), false, "ping", "version", true},
			{"ping/x", good(``), true, "ping", "retained", false},
			{"live/agent/x", "\x00\x01", false, "live_agent", "syntax", false},
			{"live/agent/x", `{"v":1,"agent":"x","boot":"b","labels":{"a":"` + strings.Repeat("x", 65) + `"}}`, false, "live_agent", "name", false},
			{"live/agent/x", `{}`, true, "live_agent", "retained", false},
			{"live/collector/x", `[]`, false, "live_collector", "syntax", false},
			{"live/elsewhere", `x`, false, "unknown", "topic", false},
			{"rip/agent/x", `{`, false, "rip", "syntax", false},
			{"rip/agent/x", ``, true, "rip", "retained", false},
			{"rip/agent/\x1b", ``, false, "rip", "name", false},
			{"rip/", ``, false, "rip", "name", false},
		} {
			before, ackedBefore := r.in.Stats().Refused[c.kind][c.reason], r.in.Stats().Acked
			b.deliver(c.topic, []byte(c.payload), c.retained)
			after(2 * time.Second)
			if got := r.in.Stats().Refused[c.kind][c.reason] - before; got != 1 {
				t.Errorf("%d: %.60q is not counted under %s %s: %v", n, c.payload, c.kind, c.reason, r.in.Stats().Refused)
			}
			if got := r.in.Stats().Acked - ackedBefore; got != map[bool]uint64{true: 1}[c.acked] {
				t.Errorf("%d: %.60q acknowledged %d times", n, c.payload, got)
			}
		}
		if r.journal.results() != 0 {
			t.Errorf("%d stored, want none", r.journal.results())
		}
		b.result(sample("a1", 1))
		after(time.Second)
		if r.journal.results() != 1 {
			t.Error("a good result after all that was not stored")
		}
		if strings.ContainsAny(r.log.String(), "\x1b\x00") {
			t.Errorf("the log holds control characters: %q", r.log)
		}
	})
}

// TestMessagesTooBig: what was too big to be received is refused by the kind of
// its topic, and logged once for each topic and minute.
func TestMessagesTooBig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var watch []broker.Message
		r := start(t, 1, func(o *Options) {
			o.OnWatch = func(_ int, m broker.Message) { watch = append(watch, m) }
		})
		for range 5 {
			for _, topic := range []string{"ping/x", "live/agent/\x1b[2J", "watch"} {
				r.brokers[0].conn.opts.OnSkip(topic, 80<<20)
			}
		}
		after(time.Second)
		stats := r.in.Stats()
		for _, kind := range []string{"ping", "live_agent", "watch"} {
			if got := stats.Refused[kind]["size"]; got != 5 {
				t.Errorf("refused %d of kind %s, want 5: %v", got, kind, stats.Refused)
			}
		}
		if len(watch) != 5 || len(watch[0].Payload) != 0 {
			t.Errorf("watch was told %v, want 5 without a payload", watch)
		}
		if got := stats.Brokers[0].Messages; got != 15 {
			t.Errorf("%d messages, want 15", got)
		}
		if n := r.lines("packet of 83886080 bytes: want at most 262144"); n != 3 || r.lines("\x1b") > 0 {
			t.Errorf("%d lines, want 3:\n%s", n, r.log)
		}
		r.brokers[0].result(sample("a", 1))
		after(time.Second)
		if got := r.journal.results(); got != 1 {
			t.Errorf("%d results stored afterwards, want 1", got)
		}
	})
}

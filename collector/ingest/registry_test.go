package ingest

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"swarming/collector/journal"
	"swarming/shared/wire"
)

func (r *rig) beat(boot wire.Boot, conn, n uint64) {
	l := wire.LiveAgent{
		Agent: "a1", Boot: boot, Conn: conn, N: n, At: time.Now().Add(-3 * time.Second), Version: "v1", Labels: map[string]string{"isp": "x"},
		Lost: 4, Refusals: []wire.Refusal{{Target: "t", Reason: "no"}},
	}
	r.brokers[0].deliver("live/agent/a1", l.Encode(), false)
	synctest.Wait()
}

func (r *rig) rip(boot wire.Boot, conn uint64) {
	r.brokers[0].deliver("rip/agent/a1", wire.Rip{Agent: "a1", Boot: boot, Conn: conn, Reason: wire.RipLost}.Encode(), false)
	synctest.Wait()
}

func TestAgentsAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		r.beat("b1", 3, 1)
		r.brokers[0].result(sample("a1", 1)) // of an earlier boot, kept over a restart
		after(10 * time.Second)
		a := r.in.Stats().Agents
		if len(a) != 1 || a[0].Boot != "b1" || a[0].Conn != 3 || !a[0].Alive || a[0].Labels["isp"] != "x" || a[0].Lost != 4 ||
			a[0].ClockOffset != -3 || a[0].Broker != "b0:1883" || a[0].Results != 1 || len(a[0].Refusals) != 1 {
			t.Fatalf("agents %+v", a)
		}
		if got := r.journal.agents["a1"]; got.Boot != "b1" || got.Labels["isp"] != "x" || got.Version != "v1" {
			t.Errorf("saved %+v", got)
		}
		saves := r.journal.saved()
		for n := range uint64(10) {
			for seq := range uint64(12) {
				r.brokers[0].result(sample("a1", 12*n+seq+2))
				after(5 * time.Second)
			}
			r.beat("b1", 3, n+2)
		}
		if more := r.journal.saved() - saves; more < 9 || more > 11 {
			t.Errorf("saved %d times in 10 min without news, want about 10", more)
		}
		after(4 * time.Minute)
		if st := r.in.Stats(); st.Agents[0].Alive || st.LiveAgents != 0 {
			t.Errorf("alive 4 min after its last word")
		}
	})
}

// Events: first seen, a new boot, back after silence; not every heartbeat.
func TestLiveEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		for n := range uint64(5) {
			r.beat("b1", 1, n+1)
			after(time.Minute)
		}
		r.beat("b2", 1, 1)
		after(10 * time.Minute)
		r.beat("b2", 2, 2)
		after(time.Second)
		var got []string
		for _, e := range r.journal.events {
			got = append(got, fmt.Sprint(e.Kind, e.Reason, e.Boot))
		}
		if want := "[livefirstb1 livebootb2 livebackb2]"; fmt.Sprint(got) != want {
			t.Errorf("events %v, want %s", got, want)
		}
	})
}

// What the journal knows from an earlier run is no news.
func TestRestartIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, func(o *Options) {
			o.Journal.(*fakeJournal).known = []journal.AgentInfo{
				{Name: "a1", Boot: "b1", Seen: time.Now().Add(-time.Hour)}, {Name: "a2", Boot: "b2", Seen: time.Now().Add(-time.Minute)},
			}
		})
		if st := r.in.Stats(); len(st.Agents) != 2 || st.LiveAgents != 0 {
			t.Errorf("%d agents known, %d alive: want 2 and 0", len(st.Agents), st.LiveAgents)
		}
		r.beat("b1", 1, 1)
		after(time.Second)
		if len(r.journal.events) != 0 {
			t.Errorf("events %+v, want none", r.journal.events)
		}
	})
}

// A rip counts only if it is about the latest connection of the latest boot.
func TestRips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		r.beat("b1", 2, 1)
		for _, stale := range []struct {
			boot wire.Boot
			conn uint64
		}{{"b0", 2}, {"b1", 1}, {"b1", 3}} {
			after(time.Second)
			r.rip(stale.boot, stale.conn)
			if a := r.in.Stats().Agents[0]; a.Gone != "" || !a.Alive {
				t.Errorf("a rip of %s %d counts for b1 2", stale.boot, stale.conn)
			}
		}
		r.brokers[0].deliver("rip/agent/a1", nil, false)
		after(time.Second)
		if got := r.in.Stats().Refused["rip"]["stale"]; got != 4 {
			t.Errorf("%d stale, want 4", got)
		}
		r.rip("b1", 2)
		if a := r.in.Stats().Agents[0]; a.Gone != wire.RipLost || a.Alive {
			t.Errorf("after its rip: %+v", a)
		}
		after(time.Second)
		if len(r.journal.events) != 1+5 {
			t.Errorf("%d events, want the first heartbeat and 5 rips", len(r.journal.events))
		}
		r.beat("b1", 3, 2)
		if a := r.in.Stats().Agents[0]; a.Gone != "" || !a.Alive {
			t.Errorf("after the next connection: %+v", a)
		}
	})
}

func TestTwins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		// A restart, with one heartbeat of the old boot late on its way.
		for _, boot := range []wire.Boot{"b1", "b1", "b2", "b1", "b2", "b2", "b2"} {
			if boot == "b2" {
				after(time.Second)
			}
			r.beat(boot, 1, 1)
		}
		if r.in.Stats().Agents[0].Twins || r.lines("two agents") > 0 {
			t.Error("a restart with a late heartbeat is taken for twins")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		for n := range uint64(10) {
			r.beat("b1", 1, n)
			after(30 * time.Second)
			r.beat("b2", 1, n)
			after(30 * time.Second)
		}
		if !r.in.Stats().Agents[0].Twins {
			t.Error("two boots that take turns are not noticed")
		}
		if n := r.lines("two agents are alive under one name"); n < 5 || n > 10 {
			t.Errorf("%d warnings in 10 min, want one a minute", n)
		}
		for n := range uint64(5) {
			r.beat("b1", 1, n+10)
			after(time.Minute)
		}
		if r.in.Stats().Agents[0].Twins {
			t.Error("twins are still shown after one has gone")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		for range 5 { // a machine with two systems, started in turn
			for _, boot := range []wire.Boot{"b1", "b2"} {
				r.beat(boot, 1, 1)
				after(4 * time.Minute)
			}
		}
		if r.lines("two agents") > 0 {
			t.Error("boots minutes apart are taken for twins")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		for n := range 10 { // an agent that restarts again and again
			r.beat(wire.Boot(fmt.Sprint("b", n)), 1, 1)
			after(10 * time.Second)
		}
		if r.in.Stats().Agents[0].Twins || r.lines("two agents") > 0 {
			t.Error("restarts are taken for twins")
		}
	})
}

// A flood of names: every result is stored and acknowledged, but no more agents
// are remembered than the cap, and no more lines logged than the limit.
func TestFloodOfNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, func(o *Options) { o.MaxAgents = 1000; o.Journal.(*fakeJournal).discards = true })
		var before, behind runtime.MemStats
		const n = 100_000
		for i := range n {
			if i == 20_000 {
				runtime.GC()
				runtime.ReadMemStats(&before)
			}
			res := sample(wire.AgentName(fmt.Sprintf("flood-%06d", i)), 1)
			if i%2 == 0 {
				res.At = res.At.Add(time.Hour) // refused, and worth a line
			}
			r.brokers[0].result(res)
			if i%1000 == 0 {
				after(100 * time.Millisecond)
			}
		}
		after(5 * time.Second)
		runtime.GC()
		runtime.ReadMemStats(&behind)
		st := r.in.Stats()
		if st.Stored != n/2 || st.Acked+st.AcksDropped != n {
			t.Errorf("stored %d, acked %d, acks dropped %d: want %d, and %d together", st.Stored, st.Acked, st.AcksDropped, n/2, n)
		}
		if len(st.Agents) != 1000 || st.AgentsOverCap == 0 {
			t.Errorf("%d agents remembered, %d over the cap: want 1000 and more than 0", len(st.Agents), st.AgentsOverCap)
		}
		if lines := r.lines("message refused"); lines > maxSenders {
			t.Errorf("%d lines logged in seconds, want at most %d", lines, maxSenders)
		}
		if len(r.in.refused.logged) > maxSenders {
			t.Errorf("%d senders remembered", len(r.in.refused.logged))
		}
		t.Logf("heap grew %d KB over the last 80,000 names (fakes included)", (int64(behind.HeapAlloc)-int64(before.HeapAlloc))/1024)
	})
}

// The long silent make room.
func TestForgetsTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var later atomic.Int64
		r := start(t, 1, func(o *Options) {
			o.MaxAgents = 2
			o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
		})
		for i, name := range []wire.AgentName{"a", "b", "c"} {
			r.brokers[0].result(sample(name, 1))
			after(time.Second)
			if got := len(r.in.Stats().Agents); got != min(i+1, 2) {
				t.Errorf("%d agents known after %d", got, i+1)
			}
		}
		later.Store(int64(25 * time.Hour))
		res := sample("c", 2)
		res.At = res.At.Add(25 * time.Hour)
		r.brokers[0].result(res)
		after(time.Second)
		if st := r.in.Stats(); len(st.Agents) != 1 || st.Agents[0].Name != "c" {
			t.Errorf("agents %+v, want only c", st.Agents)
		}
	})
}

func TestOtherCollectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 1, nil)
		for n := range 100 {
			l := wire.LiveCollector{Name: wire.CollectorName(fmt.Sprint("x", n)), Boot: "b", Rev: 7, At: time.Now()}
			r.brokers[0].deliver("live/collector/x", l.Encode(), false)
		}
		for _, boot := range []wire.Boot{"cb", "other", "other"} {
			r.brokers[0].deliver("live/collector/c1", wire.LiveCollector{Name: "c1", Boot: boot, At: time.Now()}.Encode(), false)
		}
		synctest.Wait()
		if got := r.in.Stats().Collectors; len(got) != maxCollectors || got[0].Rev != 7 {
			t.Errorf("%d others known, want %d", len(got), maxCollectors)
		}
		if n := r.lines("another collector has this one's name"); n != 1 {
			t.Errorf("%d warnings about a collector of the same name, want 1", n)
		}
	})
}

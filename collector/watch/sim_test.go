package watch

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"swarming/shared/wire"
)

// A sim is collectors' state machines and brokers that know nothing of each
// other, with messages that take their time and links that break. A broker's
// messages keep their order, as in MQTT.
type sim struct {
	rng     *rand.Rand
	now     time.Time
	brokers []simBroker
	nodes   []*simNode
}

type simBroker struct {
	stored []byte // retained
	listed int    // retained publishes that arrived
}

type simNode struct {
	*spread
	skew  time.Duration
	links []simLink
	sent  int
}

type simLink struct {
	up       bool
	toBroker []packet
	toNode   []packet
}

type packet struct {
	at       time.Time
	payload  []byte
	retained bool
	suback   bool
}

// newSim connects collectors to brokers. skews are what their clocks are off.
func newSim(seed uint64, brokers int, skews ...time.Duration) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), brokers: make([]simBroker, brokers)}
	var addrs []string
	for b := range brokers {
		addrs = append(addrs, fmt.Sprint("b", b))
	}
	for n, skew := range skews {
		node := &simNode{skew: skew, links: make([]simLink, brokers)}
		floor := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		node.spread = newSpread(fmt.Sprint("c", n), addrs, floor, func(b int, payload []byte) {
			node.sent++
			l := &node.links[b]
			l.toBroker = append(l.toBroker, packet{at: s.after(l.toBroker), payload: payload, retained: true})
		}, slog.New(slog.DiscardHandler))
		node.wall = func(now time.Time) int64 { return now.Add(node.skew).UnixMilli() }
		s.nodes = append(s.nodes, node)
	}
	return s
}

// after returns when a packet sent now arrives: 1 to 300 ms later, and after
// those before it.
func (s *sim) after(queue []packet) time.Time {
	at := s.now.Add(time.Duration(1+s.rng.IntN(300)) * time.Millisecond)
	if n := len(queue); n > 0 && queue[n-1].at.After(at) {
		at = queue[n-1].at
	}
	return at
}

func (s *sim) connect(n, b int) {
	l := &s.nodes[n].links[b]
	if l.up {
		return
	}
	l.up = true
	if p := s.brokers[b].stored; p != nil {
		l.toNode = append(l.toNode, packet{at: s.after(l.toNode), payload: p, retained: true})
	}
	l.toNode = append(l.toNode, packet{at: s.after(l.toNode), suback: true})
}

func (s *sim) disconnect(n, b int) {
	l := &s.nodes[n].links[b]
	if !l.up {
		return
	}
	*l = simLink{}
	s.nodes[n].lost(s.now, b)
}

func (s *sim) connectAll() {
	for n := range s.nodes {
		for b := range s.brokers {
			s.connect(n, b)
		}
	}
}

// publish is what a person or a collector sends to a broker.
func (s *sim) publish(b int, payload []byte, retained bool) {
	if retained {
		s.brokers[b].listed++
		if s.brokers[b].stored = payload; len(payload) == 0 {
			s.brokers[b].stored = nil
		}
	}
	for n := range s.nodes {
		if l := &s.nodes[n].links[b]; l.up {
			l.toNode = append(l.toNode, packet{at: s.after(l.toNode), payload: payload})
		}
	}
}

// run lets time pass in steps of 10 ms.
func (s *sim) run(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); {
		s.now = s.now.Add(10 * time.Millisecond)
		for _, n := range s.rng.Perm(len(s.nodes)) {
			for _, b := range s.rng.Perm(len(s.brokers)) {
				s.step(n, b)
			}
			s.nodes[n].tick(s.now)
		}
	}
}

func (s *sim) step(n, b int) {
	l := &s.nodes[n].links[b]
	for len(l.toBroker) > 0 && !l.toBroker[0].at.After(s.now) {
		p := l.toBroker[0]
		l.toBroker = l.toBroker[1:]
		s.publish(b, p.payload, true)
	}
	for len(l.toNode) > 0 && !l.toNode[0].at.After(s.now) {
		p := l.toNode[0]
		l.toNode = l.toNode[1:]
		if p.suback {
			s.nodes[n].subscribed(s.now, b)
		} else {
			s.nodes[n].message(s.now, b, p.payload, p.retained)
		}
	}
}

func (s *sim) file(n int, ids ...string) { s.nodes[n].file(s.now, names(ids...)) }

// sent is how many lists all collectors published.
func (s *sim) sent() (sum int) {
	for _, n := range s.nodes {
		sum += n.sent
	}
	return sum
}

// wantEverywhere checks that every broker stores this list, with a rev.
func (s *sim) wantEverywhere(t *testing.T, ids ...string) {
	t.Helper()
	want := names(ids...).ContentHash()
	for b := range s.brokers {
		w, ok, err := wire.DecodeWatch(s.brokers[b].stored)
		if err != nil || !ok || w.Rev == 0 || w.ContentHash() != want {
			t.Errorf("broker %d stores %q, want %v with a rev", b, s.brokers[b].stored, ids)
		}
	}
}

// wantQuiet checks that nothing more is published.
func (s *sim) wantQuiet(t *testing.T) {
	t.Helper()
	before := s.sent()
	s.run(20 * time.Minute)
	if n := s.sent() - before; n > 0 {
		t.Errorf("%d more publishes after all was settled", n)
	}
}

// Two and three collectors with files that contradict each other, links that
// break and brokers that forget: few publishes, and one list everywhere.
func TestDisagreeingCollectorsConverge(t *testing.T) {
	most, sum := 0, 0
	const seeds = 24
	for seed := range uint64(seeds) {
		s := newSim(seed, 3, make([]time.Duration, 2+seed%2)...)
		for n := range s.nodes {
			if n < 2 || seed%4 == 1 { // the third has a file sometimes
				s.file(n, "own", fmt.Sprint("list", n))
			}
		}
		for range 20 {
			for n := range s.nodes {
				for b := range s.brokers {
					if s.rng.IntN(3) > 0 {
						s.connect(n, b)
					} else {
						s.disconnect(n, b)
					}
				}
			}
			if s.rng.IntN(4) == 0 {
				s.brokers[s.rng.IntN(3)].stored = nil // killed: it has forgotten
			}
			s.run(time.Duration(s.rng.IntN(8000)) * time.Millisecond)
		}
		s.connectAll()
		s.run(time.Minute)
		before := s.sent()
		s.file(0, "the", "last", "change")
		s.run(30 * time.Second)
		s.wantEverywhere(t, "the", "last", "change")
		if n := s.sent() - before; n > 9 {
			t.Errorf("seed %d: %d publishes for one change on 3 brokers", seed, n)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		most, sum = max(most, before), sum+before
	}
	t.Logf("%d storms of 20 partitions: %.1f publishes on average, at most %d", seeds, float64(sum)/seeds, most)
	if most > 120 {
		t.Errorf("%d publishes in one storm", most)
	}
}

// Two collectors, two files, two brokers, all at once: the case that gave 513
// publishes in 5 s with a naive rule.
func TestTwoFilesAtOnce(t *testing.T) {
	for seed := range uint64(20) {
		s := newSim(seed, 2, 0, 0)
		s.file(0, "a")
		s.file(1, "b")
		s.connectAll()
		s.run(10 * time.Second)
		if n := s.sent(); n > 8 {
			t.Errorf("seed %d: %d publishes", seed, n)
		}
		if string(s.brokers[0].stored) != string(s.brokers[1].stored) {
			t.Errorf("seed %d: brokers store %q and %q", seed, s.brokers[0].stored, s.brokers[1].stored)
		}
		silent := 0
		for _, n := range s.nodes {
			if n.rival != nil {
				silent++
			}
		}
		if silent != 1 {
			t.Errorf("seed %d: %d collectors are silent, want the one whose list was earlier", seed, silent)
		}
	}
	s := newSim(1, 2, 0, 0)
	s.file(0, "a")
	s.file(1, "b")
	s.connectAll()
	s.run(10 * time.Second)
	s.wantQuiet(t)
}

// A person's list spreads from one broker to all; of two collectors without a
// file both may adopt it, and agree.
func TestPersonsListSpreads(t *testing.T) {
	for seed := range uint64(20) {
		s := newSim(seed, 3, 0, 0)
		s.connectAll()
		s.run(5 * time.Second)
		s.publish(1, []byte("example.com example.org"), seed%2 == 0)
		s.run(10 * time.Second)
		s.wantEverywhere(t, "example.com", "example.org")
		s.publish(0, []byte("second.example"), true)
		s.run(10 * time.Second)
		s.wantEverywhere(t, "second.example")
		if n := s.sent(); n > 24 {
			t.Errorf("seed %d: %d publishes for two lists on 3 brokers", seed, n)
		}
	}
}

// A file overrules a person, also when another collector without a file would
// have adopted the list.
func TestFileOverrulesPerson(t *testing.T) {
	for seed := range uint64(20) {
		s := newSim(seed, 2, 0, 0)
		s.file(0, "from", "file")
		s.connectAll()
		s.run(time.Minute)
		s.wantEverywhere(t, "from", "file")
		s.publish(1, []byte("by.hand"), true)
		s.run(10 * time.Second)
		s.wantEverywhere(t, "from", "file")
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// Clocks in 1970, years ahead and forged revs: whoever changes last wins.
func TestNoClockFreezesTheSwarm(t *testing.T) {
	const year = 365 * 24 * time.Hour
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		skews  []time.Duration
		forged int64
	}{
		"1970":               {[]time.Duration{-56 * year, 0}, 0},
		"both in 1970":       {[]time.Duration{-56 * year, -56 * year}, 0},
		"4 years ahead":      {[]time.Duration{0, 4 * year}, 0},
		"73 years ahead":     {[]time.Duration{0, 73 * year}, 0},
		"forged, greatest":   {[]time.Duration{0, 0}, wire.MaxSeq},
		"forged, credible":   {[]time.Duration{0, 0}, now.Add(horizon).UnixMilli() - 1},
		"forged, and 1970":   {[]time.Duration{-56 * year, 0}, now.Add(horizon).UnixMilli() - 1},
		"forged, 5 years":    {[]time.Duration{0, 0}, now.Add(5 * year).UnixMilli()},
		"forged, 5 s skew":   {[]time.Duration{-5 * time.Second, 0}, now.Add(horizon).UnixMilli() + 1000},
		"forged, with files": {[]time.Duration{0, 0, 0}, wire.MaxSeq},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(4) {
				s := newSim(seed, 2, c.skews...)
				s.file(0, "first")
				s.connectAll()
				s.run(10 * time.Second)
				if c.forged != 0 {
					w := names("forged")
					w.Rev, w.By = c.forged, "mallory"
					s.publish(0, w.Encode(), true)
					s.run(30 * time.Second)
				}
				for round := range 3 {
					for _, n := range []int{0, 1} {
						id := fmt.Sprint("edit-", round, "-by-", n)
						before := s.sent()
						s.file(n, id)
						s.run(time.Minute)
						if others := c.skews[1] > horizon && n == 0; !others {
							s.wantEverywhere(t, id)
						}
						if sent := s.sent() - before; sent > 24 {
							t.Errorf("%d publishes after %s", sent, id)
						}
					}
				}
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

// A collector whose clock is decades ahead, and one that does not believe it:
// no list wins, but no storm either, and it ends when the clock is mended.
func TestClockDecadesAheadIsNoStorm(t *testing.T) {
	s := newSim(1, 2, 0, 73*365*24*time.Hour)
	s.file(0, "a")
	s.file(1, "b")
	s.connectAll()
	s.run(time.Hour)
	if n := s.sent(); n > 4*20 {
		t.Errorf("%d publishes in an hour on 2 brokers", n)
	}
	s.nodes[1].skew = 0
	s.run(time.Minute)
	s.file(1, "mended")
	s.run(time.Minute)
	s.wantEverywhere(t, "mended")
	s.wantQuiet(t)
}

// One collector says what it learnt to brokers that were away.
func TestBrokerReturnsWithAnOldList(t *testing.T) {
	s := newSim(1, 2, 0)
	s.file(0, "old")
	s.connectAll()
	s.run(5 * time.Second)
	s.wantEverywhere(t, "old")
	s.disconnect(0, 1)
	s.file(0, "new")
	s.run(5 * time.Second)
	s.connect(0, 1)
	s.run(5 * time.Second)
	s.wantEverywhere(t, "new")
	s.disconnect(0, 1)
	s.brokers[1].stored = nil
	s.connect(0, 1)
	s.run(5 * time.Second)
	s.wantEverywhere(t, "new")
	if got := []int{s.brokers[0].listed, s.brokers[1].listed}; !slices.Equal(got, []int{2, 3}) {
		t.Errorf("lists published: %v, want [2 3]", got)
	}
}

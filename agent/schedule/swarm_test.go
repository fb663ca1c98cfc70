package schedule

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"swarming/shared/wire"
)

// The swarm's budget: what all agents together send one address.
func TestSwarmBudget(t *testing.T) {
	for _, c := range []struct {
		agents int
		t      wire.Target
		every  time.Duration // expected interval of each agent
	}{
		{1, wire.Target{}, 60 * time.Second},
		{3, wire.Target{}, 60 * time.Second},
		{8, wire.Target{}, 60 * time.Second},
		{9, wire.Target{}, 80 * time.Second},
		{200, wire.Target{}, 1280 * time.Second},
		{200, every(time.Hour), time.Hour},
		{200, wire.Target{Count: 1}, 256 * time.Second},
	} {
		t.Run(fmt.Sprintf("%d agents, %v×%d", c.agents, time.Duration(c.t.Interval), c.t.Count), func(t *testing.T) {
			const runs = 4
			var all []sentRound
			for i := range c.agents {
				d := newDriver(t, Options{Agent: wire.AgentName(fmt.Sprintf("agent-%d", i)), Rand: rand.New(rand.NewPCG(uint64(i), 9)).Float64})
				d.resolve = oneAddress
				d.s.SetAgents(d.now, c.agents)
				d.s.Apply(d.now, names(1, c.t))
				d.run((runs + 2) * c.every)
				all = append(all, d.rounds...)
			}
			if c.agents > quickSwarm {
				spread(t, all, 0, c.every, c.agents)
			}
			// Leave out the first rounds of a small swarm, which come at once.
			all = slices.DeleteFunc(all, func(r sentRound) bool { return r.at < 2*c.every })
			packets := 0
			for _, r := range all {
				packets += r.job.Count
			}
			span := runs * c.every
			want := float64(c.agents*cmp.Or(c.t.Count, 5)) / c.every.Seconds()
			got := float64(packets) / span.Seconds()
			if got > SwarmPPS || got < 0.9*want || got > 1.1*want {
				t.Errorf("%.3f packets/s for the address, want %.3f and never over %d", got, want, SwarmPPS)
			}
		})
	}
}

// spread checks that no tenth of an interval has more than its share of rounds:
// a swarm that pinged in step would have them all in one.
func spread(t *testing.T, rounds []sentRound, from, interval time.Duration, agents int) {
	t.Helper()
	tenths := map[time.Duration]int{}
	for _, r := range rounds {
		tenths[(r.at-from)*10/interval]++
	}
	for at, n := range tenths {
		if n > agents/4 {
			t.Errorf("%d of %d agents in tenth %d of their intervals", n, agents, at)
		}
	}
}

// The list is there before the first collector is heard: who has not begun yet
// takes a place in the whole interval.
func TestSwarmIsKnownLate(t *testing.T) {
	const agents = 200
	var all []sentRound
	for i := range agents {
		d := newDriver(t, Options{Agent: wire.AgentName(fmt.Sprintf("agent-%d", i))})
		d.resolve = oneAddress
		d.s.Apply(d.now, names(1, wire.Target{}))
		d.s.SetAgents(d.now, agents)
		d.run(1280 * time.Second)
		all = append(all, d.rounds...)
	}
	spread(t, all, 0, 1280*time.Second, agents)
}

// A collector that tells of a swarm grown to 200 must not leave it in step.
func TestSwarmGrowsAndShrinks(t *testing.T) {
	const agents = 200
	var all []sentRound
	hour := time.Hour
	for i := range agents {
		d := newDriver(t, Options{Agent: wire.AgentName(fmt.Sprintf("agent-%d", i)), Rand: rand.New(rand.NewPCG(uint64(i), 3)).Float64})
		d.resolve = oneAddress
		d.s.Apply(d.now, names(1, wire.Target{}))
		d.run(30 * time.Second)
		d.s.SetAgents(d.now, agents)
		d.run(3*hour - 30*time.Second)
		d.s.SetAgents(d.now, 3)
		d.run(hour)
		all = append(all, d.rounds...)
	}
	var grown, shrunk []sentRound
	for _, r := range all {
		switch {
		case r.at > hour && r.at <= 3*hour:
			grown = append(grown, r)
		case r.at > 3*hour+2*time.Minute:
			shrunk = append(shrunk, r)
		}
	}
	if pps := float64(5*len(grown)) / (2 * hour).Seconds(); pps > SwarmPPS {
		t.Errorf("%.2f packets/s from 200 agents", pps)
	}
	spread(t, grown, hour, 1280*time.Second, agents)
	if want := agents * 58; len(shrunk) < want*98/100 || len(shrunk) > want*102/100 {
		t.Errorf("%d rounds in 58 min after the swarm shrank, want about %d", len(shrunk), want)
	}
	spread(t, shrunk, 3*hour+2*time.Minute, time.Minute, agents)
}

func TestSetAgents(t *testing.T) {
	s := New(Options{})
	at := t0
	for i, c := range []struct {
		after time.Duration
		n     int
		want  int
	}{
		{0, 0, 1}, {0, -5, 1}, {0, 3, 4}, {0, 4, 4}, {0, 5, 8},
		{time.Minute, 200, 256},             // a rise at once
		{5 * time.Minute, 3, 256},           // another collector sees fewer
		{4*time.Minute + 59e9, 3, 256},      // 9:59 after the report of 200
		{time.Second, 3, 4},                 // 10:00
		{0, 100, 128},                       // and up again
		{3 * time.Hour, 100, 128},           // long silence, then the same
		{time.Second, 1 << 30, maxAgents},   // nonsense is bounded
		{10 * time.Minute, 1, 1},            // and forgotten
		{time.Second, 1<<20 - 1, maxAgents}, // rounded up
	} {
		at = at.Add(c.after)
		s.SetAgents(at, c.n)
		if got := s.Stats().Agents; got != c.want {
			t.Errorf("step %d: %d agents in force after a report of %d, want %d", i, got, c.n, c.want)
		}
	}
	s = New(Options{})
	s.SetAgents(t0, 1<<20)
	s.Apply(t0, names(1, wire.Target{Interval: wire.Duration(time.Minute)}))
	if e := s.entries[Key{"host-0.example", "any"}]; e.every != MaxSwarmInterval {
		t.Errorf("interval %v in an endless swarm, want %v", e.every, MaxSwarmInterval)
	}
}

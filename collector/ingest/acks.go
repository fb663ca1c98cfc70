package ingest

import (
	"slices"
	"time"

	"swarming/shared/wire"
)

// Bounds of the acks that wait. An ack that does not fit is dropped: the agent
// sends the result again, and it is acknowledged as a duplicate.
const (
	ackEvery   = time.Second
	maxAckKeys = 1 << 16 // agents, counted on each broker
	maxAckSeqs = 1 << 20 // results
)

// acks collects what the journal has on disk until it may be acknowledged. It
// belongs to one goroutine.
type acks struct {
	agents  map[ackKey]*pendingAck
	seqs    int // in all of agents
	dropped uint64
}

type ackKey struct {
	broker int
	agent  wire.AgentName
}

type pendingAck struct {
	last  time.Time // when the last ack was sent
	boots map[wire.Boot][]uint64
}

func newAcks() *acks { return &acks{agents: make(map[ackKey]*pendingAck)} }

func (a *acks) add(broker int, id wire.ID) {
	key := ackKey{broker, id.Agent}
	p := a.agents[key]
	if a.seqs >= maxAckSeqs || p == nil && len(a.agents) >= maxAckKeys {
		a.dropped++
		return
	}
	if p == nil {
		p = &pendingAck{boots: make(map[wire.Boot][]uint64, 1)}
		a.agents[key] = p
	}
	p.boots[id.Boot] = append(p.boots[id.Boot], id.Seq)
	a.seqs++
}

// due calls send for every agent that may have an ack now, and forgets those
// that have nothing to wait for. seqs is how many results the ack confirms.
func (a *acks) due(now time.Time, by wire.CollectorName, send func(broker int, ack wire.Ack, seqs int)) {
	for key, p := range a.agents {
		if now.Sub(p.last) < ackEvery && !now.Before(p.last) {
			continue
		}
		if len(p.boots) == 0 {
			delete(a.agents, key)
			continue
		}
		ack := wire.Ack{Agent: key.agent, By: by}
		var n int
		ack.Boots, n = p.take()
		a.seqs -= n
		p.last = now
		send(key.broker, ack, n)
	}
}

// take removes what fits into one ack and returns it with the number of seqs.
// The rest waits for the next one.
func (p *pendingAck) take() (map[wire.Boot][]wire.Range, int) {
	boots := make(map[wire.Boot][]wire.Range, len(p.boots))
	room, taken := wire.MaxAckRanges, 0 // in all boots, so that the ack stays below wire.MaxAck
	for boot, seqs := range p.boots {
		if room == 0 || len(boots) == wire.MaxAckBoots {
			break
		}
		ranges := wire.Ranges(seqs) // sorts seqs
		n := len(seqs)
		if len(ranges) > room {
			ranges = ranges[:room]
			n, _ = slices.BinarySearch(seqs, ranges[room-1][1]+1)
		}
		if boots[boot] = ranges; n == len(seqs) {
			delete(p.boots, boot)
		} else {
			p.boots[boot] = seqs[n:]
		}
		room -= len(ranges)
		taken += n
	}
	return boots, taken
}

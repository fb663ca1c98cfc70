package ingest

import (
	"context"
	"fmt"
	"time"

	"swarming/collector/journal"
	"swarming/shared/backoff"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

const (
	maxBatch = 1000                   // results in one transaction
	maxWait  = 50 * time.Millisecond  // of a result for others to share its transaction
	tidy     = 100 * time.Millisecond // how often acks, events and agents are looked at
)

// legacyBoot is the boot of results in the format of 2014, which have none.
const legacyBoot wire.Boot = "2014"

// Reasons of refusal beside those of package wire.
const (
	reasonClock    wire.Reason = "clock"    // the result's time is outside what is stored
	reasonUnset    wire.Reason = "unset"    // this machine's clock is not set; not acknowledged
	reasonRetained wire.Reason = "retained" // a stored message where none belongs
	reasonTopic    wire.Reason = "topic"    // nothing is read from this topic
	reasonStale    wire.Reason = "stale"    // a death notice of an earlier life
)

// A batch is what goes into one transaction, and what is acknowledged after it.
type batch struct {
	entries []journal.Entry
	acks    []ackItem
	from    []int  // the broker of each entry
	lastSeq uint64 // made up for a result of 2014
}

type ackItem struct {
	broker int
	id     wire.ID
}

func (b *batch) empty() bool { return len(b.entries) == 0 && len(b.acks) == 0 }

func (b *batch) reset() {
	clear(b.entries) // their strings and slices
	b.entries, b.acks, b.from = b.entries[:0], b.acks[:0], b.from[:0]
}

// storeLoop is the only goroutine that uses the journal. When ctx ends it stores
// what it has and returns.
func (i *Ingest) storeLoop(ctx context.Context) {
	var b batch
	a := newAcks()
	keeper := newSaver(i)
	tick := time.NewTicker(tidy)
	defer tick.Stop()
	wait := time.NewTimer(maxWait)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			i.lastStore(ctx, &b, a, keeper)
			return
		case m := <-i.results.ch:
			if b.empty() {
				wait.Reset(maxWait)
			}
			i.fill(&b, m)
			if len(b.entries) < maxBatch && len(b.acks) < maxBatch {
				continue
			}
			i.store(ctx, &b, a)
		case <-wait.C:
			i.store(ctx, &b, a)
		case <-tick.C:
			keeper.save(ctx)
		}
		i.sendAcks(a)
	}
}

// fill decodes m and what else waits into b, up to a whole batch.
func (i *Ingest) fill(b *batch, m inbound) {
	for {
		i.results.took(m)
		i.take(b, m)
		if len(b.entries) >= maxBatch || len(b.acks) >= maxBatch {
			return
		}
		select {
		case m = <-i.results.ch:
		default:
			return
		}
	}
}

// lastStore is given a little time when the program ends.
func (i *Ingest) lastStore(ctx context.Context, b *batch, a *acks, keeper *saver) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case m := <-i.results.ch:
			i.fill(b, m)
		default:
			i.store(ctx, b, a)
			keeper.all(ctx)
			a.release()
			i.sendAcks(a)
			return
		}
		i.store(ctx, b, a)
	}
}

// take decodes one message into b.
func (i *Ingest) take(b *batch, m inbound) {
	i.counters.received.Add(1)
	msg := m.message
	switch {
	case msg.Retained:
		i.refused.add(wire.KindPing, reasonRetained, msg.Topic, i.addr(m.broker), nil)
		return
	case m.at.Before(i.opts.BuildTime):
		i.refused.add(wire.KindPing, reasonUnset, "", i.addr(m.broker), fmt.Errorf("this machine's clock shows %s: set it", m.at.UTC().Format(time.RFC3339)))
		return
	case len(msg.Payload) > 0 && msg.Payload[0] == '[':
		i.takeLegacy(b, m)
		return
	}
	r, err := wire.DecodeResult(msg.Payload)
	id := r.ID()
	if err != nil {
		sender := msg.Topic
		if id.Valid() {
			b.acks = append(b.acks, ackItem{m.broker, id})
			sender = string(id.Agent)
		}
		i.refused.add(wire.KindPing, wire.ReasonOf(err), sender, i.addr(m.broker), err)
		return
	}
	b.acks = append(b.acks, ackItem{m.broker, id})
	if r.At.Before(m.at.Add(-i.opts.Retention)) || r.At.After(m.at.Add(maxAhead)) {
		i.refused.add(wire.KindPing, reasonClock, string(r.Agent), i.addr(m.broker),
			fmt.Errorf("result of %s: want one of the last %v, at most %v ahead", r.At.UTC().Format(time.RFC3339), i.opts.Retention, maxAhead))
		return
	}
	b.add(r, m, i.addr(m.broker))
}

// takeLegacy decodes a result of 2014. It has no identity, so that it is stored
// each time it arrives, and there is nothing to acknowledge.
func (i *Ingest) takeLegacy(b *batch, m inbound) {
	r, err := wire.DecodeLegacy(m.message.Topic, m.message.Payload)
	if err != nil {
		i.refused.add(wire.KindPing, wire.ReasonOf(err), m.message.Topic, i.addr(m.broker), err)
		return
	}
	b.lastSeq = max(b.lastSeq+1, uint64(max(m.at.UnixMicro(), 1)))
	r.Boot, r.Seq, r.At = legacyBoot, b.lastSeq, m.at.UTC()
	b.add(r, m, i.addr(m.broker))
}

func (b *batch) add(r wire.Result, m inbound, addr string) {
	b.entries = append(b.entries, journal.Entry{Result: r, Received: m.at, Broker: addr})
	b.from = append(b.from, m.broker)
}

// store appends b to the journal, however often it takes, notes the acks and
// empties b. When ctx ends first, b stays as it is.
func (i *Ingest) store(ctx context.Context, b *batch, a *acks) {
	if len(b.entries) > 0 && !i.appendResults(ctx, b.entries, a) {
		return
	}
	i.agents.heard(b.entries, b.from)
	for _, item := range b.acks {
		a.add(item.broker, item.id)
	}
	b.reset()
}

// appendResults tries until the journal has entries, or ctx ends. One attempt is
// made in any case, and no attempt is cut short.
func (i *Ingest) appendResults(ctx context.Context, entries []journal.Entry, a *acks) bool {
	pauses := backoff.Backoff{Base: 100 * time.Millisecond, Max: 5 * time.Second}
	for {
		added, err := i.opts.Journal.Append(context.WithoutCancel(ctx), entries)
		if err == nil {
			i.counters.stored.Add(uint64(added))
			i.counters.duplicates.Add(uint64(len(entries) - added))
			i.storing.over()
			return true
		}
		i.storing.note(err)
		i.sendAcks(a) // of earlier batches
		if backoff.Sleep(ctx, pauses.Next()) != nil {
			return false
		}
	}
}

// sendAcks hands the acks that are due to their brokers.
func (i *Ingest) sendAcks(a *acks) {
	a.due(i.opts.Now(), i.opts.Name, func(n int, ack wire.Ack, seqs int) {
		if i.opts.Observe {
			return
		}
		m := broker.Message{Topic: wire.AckTopic(ack.Agent), Payload: ack.Encode()}
		if i.links[n].enqueue(m) != nil {
			i.counters.acksDropped.Add(uint64(seqs))
			return
		}
		i.counters.acks.Add(1)
		i.counters.acked.Add(uint64(seqs))
	})
	i.counters.acksDropped.Add(a.dropped)
	a.dropped = 0
}

// release makes every ack that waits due at once.
func (a *acks) release() {
	for _, p := range a.agents {
		p.last = time.Time{}
	}
}

func (i *Ingest) addr(n int) string { return i.links[n].name }

package outbox

import (
	"slices"
	"sort"
	"time"

	"swarming/shared/wire"
)

// An Item is a result to publish at QoS 1 on Topic. Its Payload must not be
// changed; it stays valid whatever happens to the outbox.
type Item struct {
	Topic   string
	Payload []byte
	entry   *entry
}

// Begin tells the outbox that a new connection begins: what was in flight on
// the one before is in the backlog again, and a collector is yet to be heard.
func (o *Outbox) Begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.elapsed()
	o.heard, o.drain = false, false
	o.flow.restart(BacklogRate, now, 0)
	o.resend.restart(MinResendRate, now, 0)
	o.rebuild()
}

// rebuild sorts what is on its way into backlog and awaiting again, by age.
func (o *Outbox) rebuild() {
	o.lists[live], o.lists[backlog], o.lists[inFlight], o.lists[awaiting] = list{}, list{}, list{}, list{}
	for _, e := range o.order {
		switch {
		case e.state == gone || e.state == undated:
			continue
		case e.confirmed:
			e.state = awaiting
		default:
			e.state = backlog
		}
		o.lists[e.state].pushBack(e)
	}
}

// Drain tells the outbox that the present connection is about to end for good:
// the backlog is no longer paced, and nothing is resent.
func (o *Outbox) Drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drain = true
	o.signal()
}

// never is a pause that only an event can end; see [Outbox.Wake].
const never = time.Duration(1<<63 - 1)

// Next returns the next result to publish and counts it as in flight on the
// present connection. Without one, ok is false and wait is how long it will be
// until there may be one, if nothing wakes the outbox before. What Next
// returned is either confirmed or part of the next connection's backlog.
func (o *Outbox) Next() (it Item, wait time.Duration, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.date()
	now := o.elapsed()
	wait = never
	for range sources {
		e, due := o.candidate(o.turn, now)
		o.turn = (o.turn + 1) % sources
		if e != nil && due <= now {
			o.launch(e, now)
			return Item{Topic: e.topic(), Payload: e.payload(), entry: e}, 0, true
		}
		if e != nil {
			wait = min(wait, due-now)
		}
	}
	if o.lists[undated].n > 0 {
		wait = min(wait, datePoll)
	}
	return Item{}, wait, false
}

// sources is the number of lists that take turns in Next.
const sources = 3

// candidate returns the first entry of a source, nil without one, and when it
// may go out.
func (o *Outbox) candidate(source int, now time.Duration) (e *entry, due time.Duration) {
	switch source {
	case 0:
		return o.lists[live].head, now
	case 1:
		if o.drain {
			return o.lists[backlog].head, now
		}
		return o.lists[backlog].head, o.flow.next
	}
	e = o.lists[awaiting].head
	if e == nil || !o.heard || o.drain || now-o.heardAt > collectorSilent {
		return nil, 0
	}
	return e, max(o.resend.next, e.since+Grace)
}

// launch puts e in flight.
func (o *Outbox) launch(e *entry, now time.Duration) {
	switch e.state {
	case backlog:
		o.flow.sent(now)
	case awaiting:
		o.resend.resent(now)
	}
	if e.published {
		o.stats.Resent++
	} else {
		o.stats.Sent++
	}
	e.published = true
	e.since = now
	o.move(e, inFlight)
}

// Confirmed tells the outbox that a broker confirmed it: the PUBACK came.
func (o *Outbox) Confirmed(it Item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := it.entry
	if e == nil || e.state != inFlight {
		return // acknowledged or overwritten meanwhile, or of an earlier connection
	}
	if !e.confirmed {
		e.confirmed = true
		o.confirmed++
	}
	e.since = o.elapsed()
	o.move(e, awaiting)
}

// Heard tells the outbox that a collector was heard on the present connection,
// so that acknowledgements can come. The first resend waits up to a second at
// random: a collector that comes up is heard by all agents at once.
func (o *Outbox) Heard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.elapsed()
	if !o.heard || now-o.heardAt > collectorSilent {
		o.resend.restart(MinResendRate, now, time.Duration(o.random()*float64(time.Second)))
		o.signal()
	}
	o.heard, o.heardAt = true, now
}

// Ack removes what a names and what was published at least once, by any of
// this agent's lives, and returns how many results those were. It is for this
// agent only if the names agree. The ranges of a are sorted in place; its cost
// is bounded by the number of results held and of ranges, not by their width.
func (o *Outbox) Ack(a wire.Ack) (removed int) {
	if a.Agent != o.agent {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for boot, ranges := range a.Boots {
		if l := o.lives[boot]; l != nil {
			removed += o.ackLife(l, ranges)
		}
	}
	if removed == 0 {
		return 0
	}
	o.stats.Acked += uint64(removed)
	o.resend.acked(o.elapsed())
	o.compact()
	o.signal()
	return removed
}

func (o *Outbox) ackLife(l *life, ranges []wire.Range) (removed int) {
	slices.SortFunc(ranges, func(a, b wire.Range) int { return slices.Compare(a[:], b[:]) })
	i := 0
	for _, r := range ranges {
		// Entries are sorted, those that are gone included.
		rest := o.order[i:]
		i += sort.Search(len(rest), func(k int) bool { return rest[k].compare(l.rank, r[0]) >= 0 })
		for ; i < len(o.order) && o.order[i].life == l && o.order[i].seq <= r[1]; i++ {
			if e := o.order[i]; e.state != gone && e.published {
				o.forget(e)
				removed++
			}
		}
	}
	return removed
}

package schedule

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"
)

// MaxAddresses is how many addresses a schedule remembers: twice what a full
// list of two-family targets needs. When so many were pinged so lately that none
// may be forgotten, new ones have to wait.
const MaxAddresses = 4 * DefaultMaxTargets

// An address is one IPv4 address or one IPv6 /64 that has been pinged lately. It
// outlives the targets that led to it, so that taking a target out of the list
// and putting it back gains nothing.
type address struct {
	key  netip.Addr
	last load          // of the last round
	free time.Duration // the earliest time of the next one, on the schedule's clock

	round   *entry   // in flight
	turn    *entry   // goes next, once the address is free; nobody else may
	waiting []*entry // go after that, first come first served
}

// address returns the record of addr, or nil if there is no room for it.
func (s *Schedule) address(addr netip.Addr) *address {
	key := addr.Unmap().WithZone("")
	if key.Is6() {
		key = netip.PrefixFrom(key, 64).Masked().Addr()
	}
	a := s.addresses[key]
	if a != nil {
		return a
	}
	if s.clock >= s.nextSweep {
		s.sweep()
	}
	if len(s.addresses) >= MaxAddresses {
		return nil
	}
	a = &address{key: key}
	s.addresses[key] = a
	return a
}

// sweep forgets the addresses that are free and that nobody waits for.
func (s *Schedule) sweep() {
	for key, a := range s.addresses {
		if s.clock >= a.free && a.round == nil && a.turn == nil && len(a.waiting) == 0 {
			delete(s.addresses, key)
		}
	}
	s.nextSweep = s.clock + time.Second
}

// wait puts e in the line of a, or keeps its turn.
func (s *Schedule) wait(e *entry, a *address) {
	if e.at == nil {
		e.at = a
		a.waiting = append(a.waiting, e)
		s.nextTurn(a)
		return
	}
	e.due = max(s.clock, a.free)
	heap.Push(&s.queue, e)
}

// leave takes e away from its address, whatever it did there.
func (s *Schedule) leave(e *entry) {
	a := e.at
	if a == nil {
		return
	}
	e.at = nil
	switch e {
	case a.round:
		a.round = nil
	case a.turn:
		a.turn = nil
	default:
		i := slices.Index(a.waiting, e)
		a.waiting = slices.Delete(a.waiting, i, i+1)
	}
	s.nextTurn(a)
}

// nextTurn gives the turn to the first in line, unless a round is in flight.
func (s *Schedule) nextTurn(a *address) {
	if a.round != nil || a.turn != nil || len(a.waiting) == 0 {
		return
	}
	e := a.waiting[0]
	a.waiting = slices.Delete(a.waiting, 0, 1)
	a.turn = e
	e.due = max(s.clock, a.free)
	heap.Push(&s.queue, e)
}

package probe

import (
	"net/netip"
	"time"
)

// What an engine never exceeds, whatever it is asked.
const (
	// MaxPPS is the most echo requests an engine sends a second, to all
	// addresses together: 110 kbit/s of small packets.
	MaxPPS = 200
	// MinGap is the shortest time between two requests to one address.
	// Providers drop packets 20 ms apart as a flood (measured).
	MinGap = 200 * time.Millisecond
)

// A pacer spreads packets evenly: one per interval, never a burst. What was
// not sent in time may be caught up by one interval and no more, which makes up
// for timers that wake late.
type pacer struct {
	interval time.Duration
	next     time.Duration // when the next packet may leave
}

func newPacer(pps float64) pacer {
	if !(pps > 0 && pps < MaxPPS) {
		pps = MaxPPS
	}
	return pacer{interval: time.Duration(float64(time.Second) / pps)}
}

func (p *pacer) ready(now time.Duration) bool { return now >= p.next }

func (p *pacer) sent(now time.Duration) { p.next = max(p.next, now-p.interval) + p.interval }

// A spacer knows when each address was last sent to, as far as that is less
// than MinGap ago: two generations of at most MinGap × MaxPPS addresses each.
type spacer struct {
	young, old map[netip.Addr]time.Duration
	turned     time.Duration
}

func newSpacer() spacer {
	return spacer{young: map[netip.Addr]time.Duration{}, old: map[netip.Addr]time.Duration{}}
}

// earliest returns when a packet may leave for a.
func (s *spacer) earliest(a netip.Addr) time.Duration {
	last, ok := s.young[a]
	if !ok {
		last, ok = s.old[a]
	}
	if !ok {
		return 0
	}
	return last + MinGap
}

func (s *spacer) sent(a netip.Addr, now time.Duration) {
	if now-s.turned >= MinGap {
		s.young, s.old = s.old, s.young
		clear(s.young)
		s.turned = now
	}
	s.young[a] = now
}

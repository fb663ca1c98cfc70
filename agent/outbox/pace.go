package outbox

import "time"

// How fast results go out that are not fresh, per second and agent.
const (
	// BacklogRate is for results that no broker confirmed, from before the
	// present connection. Twenty agents at this rate fill mosquitto's queue of
	// a subscriber that stalls in a second; one burst of a single agent would
	// do so alone.
	BacklogRate = 50.0

	// Results that a broker confirmed and no collector acknowledged are resent
	// at a rate between these. It doubles, at most once a second, while acks
	// come, and falls back when none came for ackQuiet.
	MinResendRate = 1.0
	MaxResendRate = 20.0
)

const (
	// Grace is how long after its PUBACK a result is not resent. Collectors
	// coalesce acks for a second; ten leave room for a slow disk and line.
	Grace = 10 * time.Second

	ackQuiet = 5 * time.Second

	// collectorSilent is how long after its last sign a collector counts as
	// heard: three of its heartbeats.
	collectorSilent = 45 * time.Second
)

// A pace says when the next of a stream of results may go out. Times are
// monotonic readings.
type pace struct {
	rate     float64 // per second
	next     time.Duration
	lastSent time.Duration
	lastAck  time.Duration
	lastStep time.Duration
}

// restart begins anew with rate, the first result due at now+delay.
func (p *pace) restart(rate float64, now, delay time.Duration) {
	*p = pace{rate: rate, next: now + delay, lastSent: now, lastAck: now, lastStep: now}
}

// sent notes that a result went out.
func (p *pace) sent(now time.Duration) {
	p.lastSent = now
	p.next = now + time.Duration(float64(time.Second)/p.rate)
}

// resent notes that a result went out again: without acks the rate falls back.
func (p *pace) resent(now time.Duration) {
	if now-p.lastAck > ackQuiet {
		p.rate = MinResendRate
	}
	p.sent(now)
}

// acked notes that an ack did remove results. Acks that come while nothing is
// resent say nothing about how much more can be taken.
func (p *pace) acked(now time.Duration) {
	p.lastAck = now
	if now-p.lastSent > ackQuiet || now-p.lastStep < time.Second {
		return
	}
	p.lastStep = now
	p.rate = min(2*p.rate, MaxResendRate)
	p.next = min(p.next, p.lastSent+time.Duration(float64(time.Second)/p.rate))
}

package uplink

import (
	"time"
)

// A route decides which broker is used next, after what pause, and when it is
// better to stay. It is pure: it starts nothing and looks at no clock.
type route struct {
	order  []int // the brokers, shuffled once
	pos    int
	timing Timing
	random func() float64

	failures int // in a row, without a connection that was of use in between

	// barren counts the brokers of the present circle that were tried without
	// an ack, those that could not be reached included: a circle starts with
	// one that was reached.
	barren int
}

func newRoute(n int, t Timing, random func() float64) route {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	// Fisher-Yates, on the injected source.
	for i := n - 1; i > 0; i-- {
		j := min(int(random()*float64(i+1)), i)
		order[i], order[j] = order[j], order[i]
	}
	return route{order: order, timing: t, random: random}
}

// broker returns the index of the broker to use now.
func (r *route) broker() int { return r.order[r.pos] }

func (r *route) next() { r.pos = (r.pos + 1) % len(r.order) }

// failed: the broker could not be used at all.
func (r *route) failed() (pause time.Duration) {
	r.next()
	r.failures++
	if r.failures >= len(r.order) {
		r.barren = 0 // none can be reached: that tells nothing about collectors
	} else if r.barren > 0 {
		r.barren++
	}
	return r.pause()
}

// lost: the connection ended by itself. useful says whether it had served long
// or well enough that the next attempt is the first of its kind.
func (r *route) lost(useful bool) (pause time.Duration) {
	if useful {
		r.failures = 0
		r.next()
		return r.pause()
	}
	return r.failed()
}

// left: the connection worked and was given up for another broker.
func (r *route) left(why ending) (pause time.Duration) {
	r.failures = 0
	r.next()
	if why == aged {
		return 0 // its end was random already
	}
	return r.pause()
}

// pause is drawn evenly from a range that doubles with every circle of
// failures (full jitter).
func (r *route) pause() time.Duration {
	ceiling := r.timing.Hop
	for circles := r.failures / len(r.order); circles > 0 && ceiling < r.timing.MaxHop; circles-- {
		ceiling *= 2
	}
	return time.Duration(r.random() * float64(min(ceiling, r.timing.MaxHop)))
}

// acked: a collector acknowledged results; all is well here.
func (r *route) acked() { r.barren = 0 }

// outOfPatience: no ack or no collector here. It returns whether that is so
// everywhere, and leaving would not help.
func (r *route) outOfPatience() (stay bool) {
	r.barren++
	return r.settled()
}

// settled says whether a whole circle was tried in vain.
func (r *route) settled() bool { return r.barren >= len(r.order) }

// again: the settled agent tries another circle, starting elsewhere.
func (r *route) again() { r.barren = 1 }

// around returns a random duration from a half to one and a half times d.
func around(d time.Duration, random func() float64) time.Duration {
	return d/2 + time.Duration(random()*float64(d))
}

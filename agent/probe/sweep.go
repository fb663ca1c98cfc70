package probe

import (
	"context"
	"fmt"
	"time"

	"swarming/shared/wire"
)

// sweepUntil answers those who wait too long for a lookup's turn, and forgets
// what nobody asks for, until ctx ends.
func (r *Resolver) sweepUntil(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.sweep(time.Now())
		}
	}
}

func (r *Resolver) sweep(now time.Time) {
	type late struct {
		waiter
		name string
	}
	var answered []late
	r.mu.Lock()
	if now.Sub(r.swept) >= forgetAfter/6 {
		r.forget(now)
	}
	if r.waiting > 0 {
		for _, h := range r.hosts {
			kept := h.waiting[:0]
			for _, w := range h.waiting {
				if now.Sub(w.since) < patience {
					kept = append(kept, w)
				} else {
					answered = append(answered, late{w, h.name})
				}
			}
			clear(h.waiting[len(kept):])
			h.waiting = kept
		}
	}
	r.waiting -= len(answered)
	r.count.Late += uint64(len(answered))
	r.mu.Unlock()
	for _, l := range answered {
		l.done(Answer{Cause: wire.CauseResolver, Err: fmt.Errorf("look up %q: no turn in %v, the resolver is slow", l.name, patience)})
	}
}

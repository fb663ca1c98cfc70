// Package backoff spaces out attempts that keep failing, so that many clients
// of one server that comes back do not all arrive at once.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// What a zero Base and Max stand for.
const (
	DefaultBase = time.Second
	DefaultMax  = time.Minute
)

// longest keeps a pause exact as a float64, and doubling it from overflowing.
const longest = 100 * 24 * time.Hour

// A Backoff yields growing pauses with full jitter: the n-th is drawn evenly
// from (0, min(Max, Base·2ⁿ)], n from 0. Of the usual schemes this one does the
// least work in total when many clients compete
// (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
//
// The zero value is ready for use. A Backoff is for one goroutine at a time.
type Backoff struct {
	Base time.Duration  // ceiling of the first pause; 0 or less: DefaultBase
	Max  time.Duration  // ceiling of every pause, up to 100 days; 0 or less: DefaultMax
	Rand func() float64 // in [0, 1); nil: math/rand/v2

	ceiling time.Duration // of the next pause; 0: start from Base
}

// Next returns the next pause, at least a nanosecond and at most Max.
func (b *Backoff) Next() time.Duration {
	limit := b.Max
	if limit <= 0 {
		limit = DefaultMax
	}
	limit = min(limit, longest)
	if b.ceiling == 0 {
		b.ceiling = b.Base
		if b.ceiling <= 0 {
			b.ceiling = DefaultBase
		}
	}
	ceiling := min(b.ceiling, limit)
	if b.ceiling <= limit/2 {
		b.ceiling *= 2
	} else {
		b.ceiling = limit
	}
	random := b.Rand
	if random == nil {
		random = rand.Float64
	}
	// 1 - [0, 1) is (0, 1]: a pause of nothing would be no pause.
	return max(1, time.Duration((1-random())*float64(ceiling)))
}

// Reset makes the next pause start from Base again: call it after a success.
func (b *Backoff) Reset() {
	b.ceiling = 0
}

// Sleep waits for d and returns nil, or returns ctx's error as soon as ctx
// ends. With d of 0 or less it returns at once.
func Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

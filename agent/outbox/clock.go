package outbox

import (
	"bytes"
	"time"

	"swarming/shared/wire"
)

// datePoll is how often the wall clock is looked at while results wait for a date.
const datePoll = time.Second

// date gives results taken while the clock was not set their time, once it is:
// the monotonic clock tells how long ago each round began. They join the
// backlog in their order.
func (o *Outbox) date() {
	if o.lists[undated].head == nil {
		return
	}
	wall := o.wall().Round(0)
	if wall.Before(o.buildTime) {
		return
	}
	now := o.elapsed()
	for e := o.lists[undated].head; e != nil; e = o.lists[undated].head {
		stamp(e.payload(), wall.Add(e.since-now))
		o.move(e, backlog)
	}
}

// at precedes the time in a payload. The quotes keep it from occurring inside a
// string, where they would be escaped.
var at = []byte(`,"at":"`)

// stamp overwrites the time in a payload, which always has the same length.
func stamp(payload []byte, t time.Time) {
	i := bytes.Index(payload, at)
	if i < 0 {
		return
	}
	i += len(at)
	copy(payload[i:], wire.AppendTime(nil, t))
}

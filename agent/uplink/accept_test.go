package uplink

import (
	"testing"
	"time"

	"swarming/shared/wire"
)

func list(rev int64, targets ...wire.TargetID) wire.Watch {
	w := wire.Watch{V: 1, Rev: rev}
	for _, id := range targets {
		w.Targets = append(w.Targets, wire.Target{Target: id})
	}
	return w
}

func TestAcceptor(t *testing.T) {
	const (
		live   = false
		stored = true
		huge   = int64(wire.MaxSeq)
	)
	// A step offers a list, or begins a connection, or lets time pass; then
	// the list in force has the given rev.
	type step struct {
		do       string // "offer", "begin", "wait"
		wait     time.Duration
		list     wire.Watch
		retained bool
		taken    bool
		rev      int64
	}
	offer := func(w wire.Watch, retained, taken bool, rev int64) step {
		return step{do: "offer", list: w, retained: retained, taken: taken, rev: rev}
	}
	wait := func(d time.Duration, taken bool, rev int64) step {
		return step{do: "wait", wait: d, taken: taken, rev: rev}
	}
	begin := step{do: "begin", rev: 9}
	for name, steps := range map[string][]step{
		"the first":                     {offer(list(9, "a"), stored, true, 9)},
		"the first, none in it":         {offer(list(9), stored, true, 9)},
		"live, whatever its rev":        {offer(list(9, "a"), stored, true, 9), offer(list(3, "b"), live, true, 3)},
		"stored, higher":                {offer(list(9, "a"), stored, true, 9), offer(list(10, "b"), stored, true, 10)},
		"stored, same rev":              {offer(list(9, "a"), stored, true, 9), offer(list(9, "b"), stored, true, 9)},
		"stored, without rev":           {offer(list(9, "a"), stored, true, 9), offer(list(0, "b"), stored, true, 0)},
		"equal":                         {offer(list(9, "a"), live, true, 9), offer(list(9, "a"), live, false, 9), offer(list(9, "a"), stored, false, 9)},
		"equal but for the rev":         {offer(list(9, "a"), live, true, 9), offer(list(10, "a"), live, true, 10)},
		"stored, lower: after a minute": {offer(list(9, "a"), live, true, 9), offer(list(3, "b"), stored, false, 9), wait(59*time.Second, false, 9), wait(time.Second, true, 3)},
		"… and once":                    {offer(list(9, "a"), live, true, 9), offer(list(3, "b"), stored, false, 9), wait(time.Hour, true, 3), wait(time.Hour, false, 3)},
		"… unless another comes":        {offer(list(9, "a"), live, true, 9), offer(list(3, "b"), stored, false, 9), offer(list(10, "c"), live, true, 10), wait(time.Hour, false, 10)},
		"… even an equal one":           {offer(list(9, "a"), live, true, 9), offer(list(3, "b"), stored, false, 9), offer(list(9, "a"), live, false, 9), wait(time.Hour, false, 9)},
		"… another stored starts anew":  {offer(list(9, "a"), live, true, 9), offer(list(3, "b"), stored, false, 9), wait(59*time.Second, false, 9), offer(list(4, "c"), stored, false, 9), wait(59*time.Second, false, 9), wait(time.Second, true, 4)},
		"… on this connection":          {offer(list(9, "a"), live, true, 9), offer(list(3, "b"), stored, false, 9), begin, wait(time.Hour, false, 9)},
		"a forged rev freezes nothing": {offer(list(huge, "evil"), live, true, huge), offer(list(9, "a"), live, true, 9),
			offer(list(huge, "evil"), stored, true, huge), offer(list(10, "a"), stored, false, huge), wait(time.Minute, true, 10)},
	} {
		t.Run(name, func(t *testing.T) {
			var a acceptor
			now := time.Unix(1e9, 0)
			for i, s := range steps {
				var taken bool
				switch s.do {
				case "offer":
					taken = a.offer(now, s.list, s.retained)
				case "begin":
					a.begin()
				case "wait":
					now = now.Add(s.wait)
					_, taken = a.overdue(now)
				}
				if taken != s.taken || a.rev != s.rev {
					t.Fatalf("step %d, %s: taken %v, rev %d in force: want %v, %d", i, s.do, taken, a.rev, s.taken, s.rev)
				}
			}
		})
	}
}

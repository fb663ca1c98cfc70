package probe

import (
	"container/heap"
	"fmt"
	"net/netip"
	"time"

	"swarming/shared/wire"
)

// A Round asks for one burst of echo requests to one address.
type Round struct {
	Addr    netip.Addr    // IPv4 or IPv6, without zone; v4-mapped counts as IPv4
	Count   int           // echo requests, 1 to [wire.MaxPackets]
	Gap     time.Duration // from one to the next; below [MinGap] it is MinGap
	Timeout time.Duration // how long to wait for each reply, above 0
}

// An Outcome is what became of a round.
type Outcome struct {
	Start time.Time // wall clock when the first request was sent, or when none could be
	// Sent counts the requests that left this machine, RTTs has one entry for
	// each of them in the order sent: 0 for a lost one.
	Sent int
	RTTs []time.Duration
	// Late counts replies that came after Timeout but before the round ended,
	// which it does Timeout after its last request. They are lost in RTTs.
	Late  int
	Cause wire.Cause // why packets were lost: the most frequent; "" if none was
	From  netip.Addr // who sent the ICMP error behind Cause, if one did
	Stamp wire.Stamp // what timed the replies: kernel only if it timed all; "" without replies
	Err   string     // for people, when Cause is local
	// Stopped is set when the engine ended first: nothing was measured, and
	// Cause is local.
	Stopped bool
}

// Answered reports whether at least one reply came in time.
func (o Outcome) Answered() bool {
	for _, d := range o.RTTs {
		if d > 0 {
			return true
		}
	}
	return false
}

func (r *Round) check() error {
	switch {
	case !r.Addr.IsValid():
		return fmt.Errorf("round has no address: want an IPv4 or IPv6 address")
	case r.Addr.Zone() != "":
		return fmt.Errorf("address %q has a zone: want one without", r.Addr)
	case r.Count < 1 || r.Count > wire.MaxPackets:
		return fmt.Errorf("count %d: want 1 to %d", r.Count, wire.MaxPackets)
	case r.Timeout <= 0:
		return fmt.Errorf("timeout %v: want one above 0", r.Timeout)
	}
	return nil
}

// clockSlack is how far wall and monotonic clock may part during a round. More
// means that the machine slept or its clock was stepped, and that round-trip
// times can be anything.
const clockSlack = 500 * time.Millisecond

// lastLook is how long a round that is over waits for replies that have
// arrived but were not read yet: a machine that was too busy to wake this
// program in time did not lose them.
const lastLook = 10 * time.Millisecond

// A round is a Round in flight. The engine's lock guards it.
type round struct {
	Round
	done func(Outcome)

	at     time.Duration // when it is next due, by instant.mono
	index  int           // in the heap; -1 when it is not there
	closed bool          // due is the last look

	start   instant
	started bool
	packets []packet // one for each attempt to send
	open    int      // packets sent and neither answered nor failed
	err     error    // of the last packet that could not be sent

	result Outcome // once it has ended
}

// A packet is one echo request of a round, or the attempt at one.
type packet struct {
	conn  *conn // nil: it did not leave this machine
	tx    instant
	rtt   time.Duration
	n     uint32
	state state
	stamp wire.Stamp
	cause wire.Cause // of an ICMP error
	from  netip.Addr
}

type state uint8

const (
	stateOpen state = iota
	stateAnswered
	stateLate
	stateFailed // an ICMP error came
	stateLocal  // not sent
)

// sentAll reports whether the round has no more requests to send.
func (r *round) sentAll() bool { return len(r.packets) == r.Count }

// settled reports whether nothing more is to be waited for.
func (r *round) settled() bool { return r.sentAll() && r.open == 0 }

// answer records the reply to packet i; fresh is false for a duplicate.
func (r *round) answer(i int, ev *event) (fresh bool) {
	p := &r.packets[i]
	switch p.state {
	case stateAnswered, stateLate:
		return false
	case stateOpen:
		r.open--
	}
	p.rtt, p.stamp = roundTrip(p.tx, ev)
	p.state = stateAnswered
	if p.rtt > r.Timeout {
		p.state = stateLate
	}
	return true
}

// fail records an ICMP error about packet i.
func (r *round) fail(i int, ev *event) (fresh bool) {
	p := &r.packets[i]
	if p.state != stateOpen {
		return false
	}
	p.state, p.cause, p.from = stateFailed, ev.cause, ev.from
	r.open--
	return true
}

// roundTrip returns the time from tx to the reply. The kernel's receive stamp
// takes out how long this program was not given the processor: subtracting
// just that delay, a difference of microseconds on the wall clock, is immune to
// steps of the clock while the packet was under way. It is used only if it
// leaves a time above 0 and at most what the monotonic clock measured.
func roundTrip(tx instant, ev *event) (time.Duration, wire.Stamp) {
	rtt := max(ev.at.mono-tx.mono, 1) // 0 would mean lost
	if ev.kernel == 0 {
		return rtt, wire.StampUser
	}
	delay := time.Duration(ev.at.wall - ev.kernel)
	if delay < 0 || delay >= rtt {
		return rtt, wire.StampUser
	}
	return rtt - delay, wire.StampKernel
}

// outcome sums the round up at now.
func (r *round) outcome(now instant) Outcome {
	o := Outcome{Start: time.Unix(0, r.start.wall)}
	if step := time.Duration(now.wall-r.start.wall) - (now.mono - r.start.mono); step.Abs() > clockSlack {
		o.Cause = wire.CauseLocal
		o.Err = fmt.Sprintf("clock stepped by %v during the round", step.Round(time.Millisecond))
		return o
	}
	o.RTTs = make([]time.Duration, 0, len(r.packets))
	var t tally
	kernel := 0
	for i := range r.packets {
		p := &r.packets[i]
		if p.state == stateLocal {
			t.add(wire.CauseLocal, netip.Addr{})
			continue
		}
		switch p.state {
		case stateAnswered:
			o.RTTs = append(o.RTTs, p.rtt)
			if p.stamp == wire.StampKernel {
				kernel++
			}
			continue
		case stateLate:
			o.Late++
			t.add(wire.CauseTimeout, netip.Addr{})
		case stateFailed:
			t.add(p.cause, p.from)
		default:
			t.add(wire.CauseTimeout, netip.Addr{})
		}
		o.RTTs = append(o.RTTs, 0)
	}
	o.Sent = len(o.RTTs)
	if n := len(r.packets) - t.total; n > 0 {
		o.Stamp = wire.StampUser
		if kernel == n {
			o.Stamp = wire.StampKernel
		}
	}
	o.Cause, o.From = t.most()
	if o.Cause == wire.CauseLocal && r.err != nil {
		o.Err = r.err.Error()
	}
	return o
}

// causes in the order that breaks a tie: an ICMP error says more than silence.
var causes = [...]wire.Cause{wire.CauseProhibited, wire.CauseUnreachable, wire.CauseTTLExceeded, wire.CauseLocal, wire.CauseTimeout}

// A tally counts lost packets by cause.
type tally struct {
	total int
	n     [len(causes)]int
	from  [len(causes)]netip.Addr // the first to say so
}

func (t *tally) add(c wire.Cause, from netip.Addr) {
	t.total++
	for i := range causes {
		if causes[i] == c {
			if t.n[i] == 0 {
				t.from[i] = from
			}
			t.n[i]++
		}
	}
}

func (t *tally) most() (wire.Cause, netip.Addr) {
	best := 0
	for i, n := range t.n {
		if n > t.n[best] {
			best = i
		}
	}
	if t.n[best] == 0 {
		return "", netip.Addr{}
	}
	return causes[best], t.from[best]
}

// A timeline holds the rounds that wait for a moment, the earliest first.
type timeline []*round

func (t timeline) Len() int           { return len(t) }
func (t timeline) Less(i, j int) bool { return t[i].at < t[j].at }
func (t timeline) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is for package heap.
func (t *timeline) Push(x any) {
	r := x.(*round)
	r.index = len(*t)
	*t = append(*t, r)
}

// Pop is for package heap.
func (t *timeline) Pop() any {
	last := len(*t) - 1
	r := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	r.index = -1
	return r
}

func (t *timeline) put(r *round, at time.Duration) {
	r.at = at
	heap.Push(t, r)
}

// due takes the earliest round if its moment has come.
func (t *timeline) due(now time.Duration) (*round, bool) {
	if len(*t) == 0 || (*t)[0].at > now {
		return nil, false
	}
	return heap.Pop(t).(*round), true
}

func (t *timeline) remove(r *round) {
	if r.index >= 0 {
		heap.Remove(t, r.index)
	}
}

// A fifo holds the rounds that wait for their turn. The zero value is empty.
type fifo struct {
	rounds []*round
	head   int
}

func (f *fifo) empty() bool { return f.head == len(f.rounds) }

func (f *fifo) push(r *round) { f.rounds = append(f.rounds, r) }

func (f *fifo) pop() *round {
	r := f.rounds[f.head]
	f.rounds[f.head] = nil
	f.head++
	if f.empty() || f.head > MaxRounds { // reuse what has been popped
		n := copy(f.rounds, f.rounds[f.head:])
		clear(f.rounds[n:])
		f.rounds, f.head = f.rounds[:n], 0
	}
	return r
}

// rest takes all that wait.
func (f *fifo) rest() []*round {
	rest := f.rounds[f.head:]
	*f = fifo{}
	return rest
}

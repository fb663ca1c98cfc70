package schedule

import (
	"container/heap"
	"time"
)

const (
	maxLate = 5 * time.Second  // see advance
	setBack = 10 * time.Second // a step back by more is a clock that was set
	maxStep = time.Hour        // longer than anything is remembered
)

// advance moves the schedule's clock to now.
//
// The clock stops while a job has waited for maxLate: after a sleep of the
// machine, or when the caller cannot keep up, everything moves to later together
// rather than being made up for at once. It never goes back. Callers that took
// their time in another order than they call find it unchanged; a clock that was
// set back far counts from there.
func (s *Schedule) advance(now time.Time) {
	if s.last.IsZero() {
		s.last = now
		return
	}
	step := now.Sub(s.last)
	if step < 0 {
		if step < -setBack {
			s.last = now
		}
		return
	}
	s.last = now
	step = min(step, maxStep)
	s.tokens = min(s.burst(), s.tokens+step.Seconds()*s.maxPPS)
	if len(s.queue) > 0 {
		step = min(step, max(0, s.queue[0].due+maxLate-s.clock))
	}
	s.clock += step
}

// burst returns how many packets may be due at one time: a second's worth.
func (s *Schedule) burst() float64 { return s.maxPPS }

// A queue is a heap of the jobs that wait for their time.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due < q[j].due }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	e.index = -1
	return e
}

func (q *queue) remove(e *entry) {
	if e.index >= 0 {
		heap.Remove(q, e.index)
	}
}

func (q *queue) fix() { heap.Init(q) }

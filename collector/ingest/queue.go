package ingest

import "sync/atomic"

// A queue is bounded by count and by bytes. put never blocks; any number of
// goroutines may put, and receive from ch followed by took.
type queue[T any] struct {
	ch       chan T
	size     func(T) int
	bytes    atomic.Int64
	maxBytes int64
	full     atomic.Uint64 // items that did not fit
}

func newQueue[T any](count, bytes int, size func(T) int) *queue[T] {
	return &queue[T]{ch: make(chan T, count), size: size, maxBytes: int64(bytes)}
}

// put reports whether there was room for v.
func (q *queue[T]) put(v T) bool {
	n := int64(q.size(v))
	if q.bytes.Add(n) <= q.maxBytes {
		select {
		case q.ch <- v:
			return true
		default:
		}
	}
	q.bytes.Add(-n)
	q.full.Add(1)
	return false
}

// took gives back the room of v, which was received from ch.
func (q *queue[T]) took(v T) { q.bytes.Add(-int64(q.size(v))) }

// clear discards what waits and returns how much that was.
func (q *queue[T]) clear() (n int) {
	for {
		select {
		case v := <-q.ch:
			q.took(v)
			n++
		default:
			return n
		}
	}
}

// QueueStats is the state of a bounded queue.
type QueueStats struct {
	Length    int    `json:"length"`
	Capacity  int    `json:"capacity"`
	Bytes     int64  `json:"bytes"`
	MaxBytes  int64  `json:"max_bytes"`
	Discarded uint64 `json:"discarded"` // what did not fit
}

func (q *queue[T]) stats() QueueStats {
	return QueueStats{len(q.ch), cap(q.ch), q.bytes.Load(), q.maxBytes, q.full.Load()}
}

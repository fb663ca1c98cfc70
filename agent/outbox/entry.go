package outbox

import (
	"cmp"
	"time"
	"unsafe"

	"swarming/shared/wire"
)

// A life is one process start of an agent: the present one, or an earlier one
// whose results came out of the state file. Ranks follow age.
type life struct {
	boot wire.Boot
	rank int
}

// An entry is one result. Its record is immutable once published, so a
// connection may hold on to it while the entry itself is overwritten.
type entry struct {
	life   *life
	seq    uint64
	record []byte // the topic, then the payload

	// since is a monotonic reading: when the round began (undated), when it
	// was handed to the connection (in flight), when the PUBACK came (awaiting).
	since time.Duration

	prev, next *entry // in the list of its state

	topicLen  uint8
	state     state
	published bool // at least once: only then can an ack be about it
	confirmed bool // by a broker, at least once
	loaded    bool // from the state file
}

// overhead is what an entry costs beside its record: itself, in a size class
// of the allocator, and its place in the order.
const overhead = (int(unsafe.Sizeof(entry{}))+15)/16*16 + int(unsafe.Sizeof((*entry)(nil)))

func (e *entry) cost() int       { return cap(e.record) + overhead }
func (e *entry) topic() string   { return string(e.record[:e.topicLen]) }
func (e *entry) payload() []byte { return e.record[e.topicLen:] }

// compare orders entries by age: by life, then by seq.
func (e *entry) compare(rank int, seq uint64) int {
	return cmp.Or(cmp.Compare(e.life.rank, rank), cmp.Compare(e.seq, seq))
}

// A state is where an entry is on its way; see the package comment.
type state uint8

const (
	gone state = iota
	undated
	live
	backlog
	inFlight
	awaiting
	states
)

// A list links the entries of one state.
type list struct {
	head, tail *entry
	n          int
}

func (l *list) pushBack(e *entry) {
	e.prev, e.next = l.tail, nil
	if l.tail == nil {
		l.head = e
	} else {
		l.tail.next = e
	}
	l.tail = e
	l.n++
}

func (l *list) remove(e *entry) {
	if e.prev == nil {
		l.head = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.tail = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
	l.n--
}

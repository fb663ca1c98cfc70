package broker

import (
	"cmp"
	"encoding/binary"
	"io"
	"math"
	"sync/atomic"
	"time"
)

// maxSkipTopic is how much of the topic of a skipped PUBLISH is told.
const maxSkipTopic = 128

// A bigPublish is what is kept of a PUBLISH while it is thrown away.
type bigPublish struct {
	at    int    // bytes seen after the length of the topic
	topic []byte // its beginning
	id    [2]byte
}

// throwAway is next within a PUBLISH over max. The notice is passed on only
// after its last byte, so that it is not acknowledged before it has come.
func (g *guard) throwAway(p []byte) (out []byte, n int, err error) {
	n = min(g.left, len(p))
	o, end := &g.over, g.over.at+n
	if o.at < maxSkipTopic && o.at < g.topic {
		o.topic = append(o.topic, p[:min(n, min(g.topic, maxSkipTopic)-o.at)]...)
	}
	for i := range g.idLength() {
		if at := g.topic + i; o.at <= at && at < end {
			o.id[i] = p[at-o.at]
		}
	}
	o.at = end
	if g.left -= n; g.left > 0 {
		return nil, n, nil
	}
	g.endIfComplete()
	return g.notice(), n, nil
}

// notice returns a small PUBLISH instead of the one that was thrown away, with
// its flags and packet identifier, so that paho answers it as the broker
// expects: one that is never acknowledged would clog the broker's window of
// messages in flight for ever. Its topic is empty, which no other can be; its
// payload is the size of the packet (4 bytes) and the beginning of its topic.
func (g *guard) notice() []byte {
	b := append(g.held[:0], g.kind<<4|g.flags)
	b = binary.AppendUvarint(b, uint64(2+g.idLength()+4+len(g.over.topic))) // MQTT's lengths are encoded alike
	b = append(b, 0, 0)
	b = append(b, g.over.id[:g.idLength()]...)
	b = binary.BigEndian.AppendUint32(b, uint32(g.size()))
	g.held = append(b, g.over.topic...)
	return g.held
}

// readNotice reads the payload of a notice.
func readNotice(payload []byte) (topic string, size int) {
	return string(payload[4:]), int(binary.BigEndian.Uint32(payload))
}

// readBuffer is the size of reads from the socket. Paho reads a packet in four
// small pieces; without a buffer each is a system call, which costs more than
// half of the receive rate.
const readBuffer = 64 << 10

// signOfLife is how often paho is told that the broker lives while a packet is
// thrown away: paho counts whole packets only, and the answer to its ping waits
// behind this one. It is shorter than the shortest wait for that answer, 1 s.
const signOfLife = 250 * time.Millisecond

// pingresp is a whole PINGRESP. One that no ping asked for does no harm.
var pingresp = []byte{typePingresp << 4, 0}

// guarded is a buffered reader of what its guard passes on. One goroutine at a
// time may read.
type guarded struct {
	r     io.Reader
	guard guard
	buf   []byte
	in    []byte // part of buf that was read and is not checked yet
	out   []byte // checked: part of buf, of the guard, or pingresp
	rerr  error  // what the last read said; it comes after in

	began   time.Time
	skipped atomic.Int64 // since began, when a byte was thrown away last; negative: never
	sign    time.Time    // of life, the last
}

func newGuarded(r io.Reader, g guard) *guarded {
	s := &guarded{r: r, guard: g, buf: make([]byte, readBuffer), began: time.Now()}
	s.skipped.Store(-1)
	return s
}

func (s *guarded) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if err := s.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// advance checks what has been read, or else reads.
func (s *guarded) advance() error {
	if len(s.in) == 0 {
		if err := cmp.Or(s.guard.err, s.rerr); err != nil {
			return err
		}
		n, err := s.r.Read(s.buf)
		s.in, s.rerr = s.buf[:n], err
		return nil
	}
	skipping := s.guard.state == atSkip
	out, n, err := s.guard.next(s.in)
	s.in = s.in[n:]
	if s.out = out; skipping {
		s.threwAway()
	}
	return err
}

// threwAway notes the progress of skipping.
func (s *guarded) threwAway() {
	now := time.Now()
	s.skipped.Store(int64(now.Sub(s.began)))
	if len(s.out) == 0 && now.Sub(s.sign) >= signOfLife {
		s.sign, s.out = now, pingresp
	}
}

// sinceSkip returns how long ago a byte was thrown away last. It may be called
// concurrently with Read.
func (s *guarded) sinceSkip() time.Duration {
	at := s.skipped.Load()
	if at < 0 {
		return math.MaxInt64
	}
	return time.Since(s.began) - time.Duration(at)
}

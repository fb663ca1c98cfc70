package broker

import (
	"errors"
	"fmt"
)

// Reasons for which the frame guard ends a connection; see [Conn.Err].
var (
	// ErrPacketTooBig: the peer began a packet longer than Options.MaxPacket.
	ErrPacketTooBig = errors.New("packet too big")
	// ErrMalformed: the peer sent what no MQTT 3.1.1 server may send.
	ErrMalformed = errors.New("malformed packet")
	// ErrNotMQTT: the first bytes from the peer are no answer to a CONNECT.
	ErrNotMQTT = errors.New("not an MQTT broker")
)

// MQTT control packet types (MQTT 3.1.1, table 2.1) that a server sends.
const (
	typeConnack  = 2
	typePublish  = 3
	typePuback   = 4
	typePubrec   = 5
	typePubrel   = 6
	typePubcomp  = 7
	typeSuback   = 9
	typeUnsuback = 11
	typePingresp = 13
)

// exactLength is the remaining length of the packets whose length is fixed. A
// SUBACK has one return code because every SUBSCRIBE of this package has one
// filter: paho indexes its filters by the position of a code and would panic.
var exactLength = map[byte]int{
	typeConnack: 2, typePuback: 2, typePubrec: 2, typePubrel: 2, typePubcomp: 2, typeSuback: 3, typeUnsuback: 2, typePingresp: 0,
}

// maxReturnCode is the highest CONNACK code of MQTT 3.1.1. Paho takes one it
// does not know for success.
const maxReturnCode = 5

// A guard follows the packets in a byte stream, across any boundaries of reads,
// and passes on what paho may see: whole packets up to the first that must not
// reach it. Of a PUBLISH over max it passes, when told to skip, only a notice.
type guard struct {
	max  int  // bytes of a whole packet
	skip bool // see notice

	state  guardState
	kind   byte // of the current packet
	flags  byte
	length int    // remaining length, so far
	digits int    // of the remaining length, read so far
	left   int    // bytes of the current packet not seen yet
	topic  int    // length of a PUBLISH's topic
	held   []byte // of the current packet, until its header is judged; at most maxHeld bytes
	over   bigPublish
	opened bool
	head   []byte // what the peer said first, for the error and its hint
	err    error
}

type guardState byte

const (
	atType guardState = iota
	atLength
	atTopicHigh
	atTopicLow
	atReturnCode // the two bytes of a CONNACK
	atBody
	atSkip // the body of a PUBLISH that is thrown away
)

const (
	maxHead = 16        // how much of a stream that is not MQTT is kept for the error
	maxHeld = 1 + 4 + 2 // type, length and the length of a topic
)

// next reads from the beginning of p, which is not empty, and returns how many
// bytes it took and what is to be passed on instead of them: nothing, a part of
// p, or bytes that are valid until the next call. Its first error is final.
func (g *guard) next(p []byte) (out []byte, n int, err error) {
	if g.err != nil {
		return nil, 0, g.err
	}
	switch g.state {
	case atBody:
		n = min(g.left, len(p))
		g.left -= n
		g.endIfComplete()
		return p[:n], n, nil
	case atSkip:
		return g.throwAway(p)
	case atType:
		g.held = g.held[:0]
	}
	if !g.opened {
		g.head = append(g.head, p[:min(len(p), maxHead-len(g.head))]...)
	}
	for n < len(p) {
		b := p[n]
		g.held = append(g.held, b)
		n++
		if g.err = g.step(b); g.err != nil {
			return nil, n, g.err
		}
		switch g.state {
		case atType, atBody:
			return g.held, n, nil
		case atSkip:
			return nil, n, nil
		}
	}
	return nil, n, nil
}

// step reads one byte outside of a body.
func (g *guard) step(b byte) error {
	switch g.state {
	case atType:
		g.kind, g.flags, g.length, g.digits = b>>4, b&0x0f, 0, 0
		g.state = atLength
		return g.checkType()
	case atLength:
		g.length |= int(b&0x7f) << (7 * g.digits)
		g.digits++
		if b&0x80 == 0 {
			return g.checkLength()
		}
		if g.digits == 4 {
			return g.malformed("remaining length of more than 4 bytes")
		}
		return nil
	case atTopicHigh:
		g.topic = int(b) << 8
		g.state = atTopicLow
	case atTopicLow:
		g.topic |= int(b)
		return g.checkTopic()
	case atReturnCode:
		if g.left == 1 && b > maxReturnCode {
			return g.notMQTT()
		}
	}
	g.left--
	g.endIfComplete()
	return nil
}

func (g *guard) checkType() error {
	_, known := exactLength[g.kind]
	switch {
	case !g.opened && g.kind != typeConnack:
		return g.notMQTT()
	case g.opened && g.kind == typeConnack:
		return g.malformed("second CONNACK")
	case g.kind == typePublish && g.flags>>1&3 == 3:
		return g.malformed("PUBLISH with QoS 3")
	case !known && g.kind != typePublish:
		return g.malformed(fmt.Sprintf("packet type %d from a server", g.kind))
	}
	return nil
}

func (g *guard) checkLength() error {
	if size := g.size(); g.opened && size > g.max && !(g.skip && g.kind == typePublish) {
		return fmt.Errorf("%w: %d bytes of type %d, at most %d are accepted", ErrPacketTooBig, size, g.kind, g.max)
	}
	want, fixed := exactLength[g.kind]
	switch {
	case !g.opened && g.length != want:
		return g.notMQTT()
	case fixed && g.length != want:
		return g.malformed(fmt.Sprintf("type %d of length %d, want %d", g.kind, g.length, want))
	case !fixed && g.length < 2+g.idLength():
		return g.malformed(fmt.Sprintf("PUBLISH of length %d", g.length))
	}
	g.left = g.length
	switch {
	case g.kind == typePublish:
		g.state = atTopicHigh
	case g.kind == typeConnack:
		g.state = atReturnCode
	default:
		g.state = atBody
	}
	g.endIfComplete()
	return nil
}

// checkTopic refuses an empty topic (MQTT 3.1.1, section 4.7.3) because that is
// the sign of a notice.
func (g *guard) checkTopic() error {
	need := 2 + g.topic + g.idLength()
	switch {
	case g.topic == 0:
		return g.malformed("PUBLISH without a topic")
	case need > g.length:
		return g.malformed(fmt.Sprintf("topic of %d bytes in a packet of %d", g.topic, g.length))
	}
	g.left--
	if g.state = atBody; g.size() > g.max {
		g.state, g.over = atSkip, bigPublish{topic: g.over.topic[:0]}
	}
	return nil
}

// size is the length of the current packet with its header.
func (g *guard) size() int { return 1 + g.digits + g.length }

func (g *guard) endIfComplete() {
	if g.left == 0 {
		g.state, g.opened = atType, true
	}
}

// idLength is the length of the packet identifier of a PUBLISH.
func (g *guard) idLength() int {
	if g.flags>>1&3 == 0 {
		return 0
	}
	return 2
}

func (g *guard) malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

func (g *guard) notMQTT() error {
	return fmt.Errorf("%w: its answer begins with %q", ErrNotMQTT, g.head)
}

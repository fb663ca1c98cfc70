package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// Limits of an ack.
const (
	MaxAck       = 64 << 10 // bytes of payload
	MaxAckBoots  = 16       // boots in one ack
	MaxAckRanges = 1000     // ranges of one boot in one ack
)

// An Ack tells an agent which of its results one collector has on disk. It is
// coalesced, at most one a second and agent, and published on the broker the
// results came from. It needs no memory in the collector: a result resent is
// acknowledged again.
type Ack struct {
	V     int              `json:"v"`
	Agent AgentName        `json:"agent"`
	By    CollectorName    `json:"by"`
	Boots map[Boot][]Range `json:"boots"`
}

// A Range is the sequence numbers from the first to the last, both included.
type Range [2]uint64

// Ranges returns the fewest ranges that hold exactly seqs, in ascending order.
// It sorts seqs in place.
func Ranges(seqs []uint64) []Range {
	slices.Sort(seqs)
	var out []Range
	for _, s := range seqs {
		if n := len(out); n > 0 && s-out[n-1][1] <= 1 {
			out[n-1][1] = s
			continue
		}
		out = append(out, Range{s, s})
	}
	return out
}

// Encode returns a as one JSON value.
func (a Ack) Encode() []byte { a.V = Version; return encode(a) }

// DecodeAck reads an ack.
func DecodeAck(payload []byte) (Ack, error) {
	const kind = "ack"
	var a Ack
	if err := unmarshal(kind, payload, MaxAck, &a); err != nil {
		return Ack{}, err
	}
	if err := checkVersion(kind, a.V); err != nil {
		return Ack{}, err
	}
	if err := firstError(CheckName(string(a.Agent)), CheckName(string(a.By))); err != nil {
		return Ack{}, &Error{Reason: ReasonName, Kind: kind, Err: err}
	}
	if len(a.Boots) > MaxAckBoots {
		return Ack{}, refuse(ReasonRange, kind, "%d boots: want at most %d", len(a.Boots), MaxAckBoots)
	}
	for boot, ranges := range a.Boots {
		if err := checkBoot(boot); err != nil {
			return Ack{}, &Error{Reason: ReasonName, Kind: kind, Err: err}
		}
		if len(ranges) > MaxAckRanges {
			return Ack{}, refuse(ReasonRange, kind, "%d ranges: want at most %d", len(ranges), MaxAckRanges)
		}
		for _, r := range ranges {
			if r[0] < 1 || r[1] < r[0] || r[1] > MaxSeq {
				return Ack{}, refuse(ReasonRange, kind, "range %d: want first to last, from 1 to %d", r, uint64(MaxSeq))
			}
		}
	}
	return a, nil
}

// encode marshals one of this package's own types, none of which can fail.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it would make '<' six times as long
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("wire: encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

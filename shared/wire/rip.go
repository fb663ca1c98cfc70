package wire

// MaxRip is the most bytes of a death notice.
const MaxRip = 1 << 10

// A Rip is a death notice, a hint and no proof: a broker that shuts down
// publishes the wills of all its clients, one that is killed none, and the will
// of a half-open connection comes late. Whether it is about the agent's present
// life is told by Boot and Conn.
type Rip struct {
	V      int       `json:"v"`
	Agent  AgentName `json:"agent"`
	Boot   Boot      `json:"boot"`
	Conn   uint64    `json:"conn"` // which connection of that boot, from 1
	Reason RipReason `json:"reason"`
}

// A RipReason says who published a rip.
type RipReason string

// The reasons of a rip.
const (
	RipLost RipReason = "lost" // the broker, as the agent's will
	RipBye  RipReason = "bye"  // the agent itself, leaving
)

// Encode returns r as one JSON value.
func (r Rip) Encode() []byte { r.V = Version; return encode(r) }

// DecodeRip reads a death notice. An empty payload is accepted, as a Rip
// without any name: the topic is all there is.
func DecodeRip(payload []byte) (Rip, error) {
	const kind = "rip"
	if len(payload) == 0 {
		return Rip{}, nil
	}
	var r Rip
	if err := unmarshal(kind, payload, MaxRip, &r); err != nil {
		return Rip{}, err
	}
	if err := checkVersion(kind, r.V); err != nil {
		return Rip{}, err
	}
	if err := firstError(CheckName(string(r.Agent)), checkBoot(r.Boot), checkWord("reason", string(r.Reason))); err != nil {
		return Rip{}, &Error{Reason: ReasonName, Kind: kind, Err: err}
	}
	if r.Conn > MaxSeq {
		return Rip{}, refuse(ReasonRange, kind, "conn %d: want at most %d", r.Conn, uint64(MaxSeq))
	}
	return r, nil
}

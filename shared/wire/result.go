package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode"
)

// Limits of a result.
const (
	MaxResult  = 8 << 10     // bytes of payload; ours are under 400 for 5 packets
	MaxPackets = 20          // echo requests in a round
	MaxSeq     = 1<<53 - 1   // what a JSON number carries exactly everywhere
	MaxMillis  = 3_600_000.0 // longest round-trip time in a result: an hour
	maxWord    = 32          // bytes of probe, cause and stamp
)

// A Result is the statistics of one round: one burst of echo requests to one
// address of one target. (Agent, Boot, Seq) is its identity: a result that
// arrives five times is one result.
type Result struct {
	V     int       `json:"v"`
	Agent AgentName `json:"agent"`
	Boot  Boot      `json:"boot"`
	Seq   uint64    `json:"seq"` // from 1, given when the result enters the outbox
	At    time.Time `json:"at"`  // UTC wall clock at the start of the round, in ms

	Target TargetID   `json:"target"`
	Probe  string     `json:"probe"`
	Addr   netip.Addr `json:"addr,omitzero"`    // once resolved
	Family int        `json:"family,omitempty"` // 4 or 6, once resolved

	Sent int `json:"sent"`
	Recv int `json:"recv"`
	Late int `json:"late,omitempty"` // replies after the timeout; they count as lost

	Loss   *float64 `json:"loss,omitempty"` // percent, 0 to 100; nil if nothing was sent
	Min    *float64 `json:"min,omitempty"`  // ms; nil, like the next three, if nothing came back
	Avg    *float64 `json:"avg,omitempty"`
	Max    *float64 `json:"max,omitempty"`
	Stddev *float64 `json:"stddev,omitempty"` // of the population

	RTTs  RTTs       `json:"rtts,omitempty"`
	Cause Cause      `json:"cause,omitempty"` // the most frequent, when packets were lost
	From  netip.Addr `json:"from,omitzero"`   // who sent the ICMP error
	Stamp Stamp      `json:"stamp,omitempty"`
}

// RTTs are the round-trip times of a round's packets in the order sent, in ms.
// A lost packet is 0, and null on the wire: no packet returns in no time.
type RTTs []float64

// A Cause says why packets of a round were lost. The list is append-only, and
// readers keep a cause they do not know.
type Cause string

// The causes.
const (
	CauseTimeout     Cause = "timeout"      // no answer in time
	CauseUnreachable Cause = "unreachable"  // an ICMP error said so; see From
	CauseProhibited  Cause = "prohibited"   // an ICMP error: administratively prohibited
	CauseNoSuchHost  Cause = "no_such_host" // the resolver answered: no such name
	CauseResolver    Cause = "resolver"     // the resolver did not answer
	CausePolicy      Cause = "policy"       // the address is in a refused range
	CauseLocal       Cause = "local"        // the agent's own machine: no permission, no route, a clock step
	CauseTTLExceeded Cause = "ttl_exceeded" // an ICMP error: time to live exceeded in transit
)

// A Stamp says what clock timed the replies of a round.
type Stamp string

// The stamps.
const (
	StampKernel Stamp = "kernel" // the kernel's receive timestamp
	StampUser   Stamp = "user"   // the program's own clock
)

// An ID is a result's identity, from which every store derives its key.
type ID struct {
	Agent AgentName
	Boot  Boot
	Seq   uint64
}

// ID returns the identity of r.
func (r *Result) ID() ID { return ID{r.Agent, r.Boot, r.Seq} }

// Valid reports whether id could be the identity of a result, and so whether
// the result can be acknowledged.
func (id ID) Valid() bool {
	return CheckName(string(id.Agent)) == nil && checkBoot(id.Boot) == nil && id.Seq >= 1 && id.Seq <= MaxSeq
}

// Summarise sets Recv, Loss, Min, Avg, Max and Stddev from Sent and RTTs.
func (r *Result) Summarise() {
	var n int
	var sum, sumSq float64
	lo, hi := math.Inf(1), 0.0
	for _, ms := range r.RTTs {
		if ms == 0 {
			continue
		}
		n++
		sum += ms
		lo, hi = min(lo, ms), max(hi, ms)
	}
	r.Recv = n
	r.Loss, r.Min, r.Avg, r.Max, r.Stddev = nil, nil, nil, nil, nil
	if r.Sent > 0 {
		loss := float64(r.Sent-n) * 100 / float64(r.Sent)
		r.Loss = &loss
	}
	if n == 0 {
		return
	}
	avg := sum / float64(n)
	for _, ms := range r.RTTs {
		if ms != 0 {
			sumSq += (ms - avg) * (ms - avg)
		}
	}
	dev := math.Sqrt(sumSq / float64(n))
	r.Min, r.Avg, r.Max, r.Stddev = &lo, &avg, &hi, &dev
}

// DecodeResult reads one result. When it fails, the returned result still has
// Agent, Boot and Seq if they could be read: the payload is refused, but can be
// acknowledged, or its agent would send it for ever.
func DecodeResult(payload []byte) (Result, error) {
	var r Result
	var err error
	if len(payload) > MaxResult || !r.scan(payload) {
		r = Result{}
		err = unmarshal("result", payload, MaxResult, &r)
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return identityOf(payload), err
	}
	r.At = millis(r.At)
	return r, nil
}

// identityOf reads what it can of a refused payload's identity.
func identityOf(payload []byte) Result {
	if len(payload) > MaxResult {
		return Result{}
	}
	var id struct {
		Agent AgentName `json:"agent"`
		Boot  Boot      `json:"boot"`
		Seq   uint64    `json:"seq"`
	}
	if err := unmarshal("result", payload, MaxResult, &id); err != nil {
		return Result{}
	}
	return Result{Agent: id.Agent, Boot: id.Boot, Seq: id.Seq}
}

func (r *Result) check() error {
	const kind = "result"
	if err := checkVersion(kind, r.V); err != nil {
		return err
	}
	for _, err := range []error{CheckName(string(r.Agent)), checkBoot(r.Boot), CheckName(string(r.Target)),
		checkWord("probe", r.Probe), checkWord("cause", string(r.Cause)), checkWord("stamp", string(r.Stamp))} {
		if err != nil {
			return &Error{Reason: ReasonName, Kind: kind, Err: err}
		}
	}
	if err := r.checkNumbers(); err != nil {
		return &Error{Reason: ReasonRange, Kind: kind, Err: err}
	}
	return nil
}

func (r *Result) checkNumbers() error {
	switch {
	case r.Seq < 1 || r.Seq > MaxSeq:
		return fmt.Errorf("seq %d: want 1 to %d", r.Seq, uint64(MaxSeq))
	case millis(r.At).IsZero():
		return errors.New("at is missing or far out: want the time the round began, in the years 1 to 9999")
	case r.Sent < 0 || r.Sent > MaxPackets:
		return fmt.Errorf("sent %d: want 0 to %d", r.Sent, MaxPackets)
	case r.Recv < 0 || r.Recv > r.Sent:
		return fmt.Errorf("recv %d: want 0 to sent, %d", r.Recv, r.Sent)
	case r.Late < 0 || r.Late > r.Sent-r.Recv:
		return fmt.Errorf("late %d: want 0 to the %d lost", r.Late, r.Sent-r.Recv)
	case r.Family != 0 && r.Family != 4 && r.Family != 6:
		return fmt.Errorf("family %d: want 4 or 6", r.Family)
	case len(r.RTTs) > MaxPackets:
		return fmt.Errorf("%d rtts: want at most %d", len(r.RTTs), MaxPackets)
	case r.Loss != nil && !(*r.Loss >= 0 && *r.Loss <= 100):
		return fmt.Errorf("loss %g: want 0 to 100", *r.Loss)
	case r.Addr.Zone() != "" || r.From.Zone() != "":
		return errors.New("an address has a zone: want one without")
	}
	for _, ms := range []*float64{r.Min, r.Avg, r.Max, r.Stddev} {
		if ms != nil && !(*ms >= 0 && *ms <= MaxMillis) {
			return fmt.Errorf("%g ms: want 0 to %.0f", *ms, MaxMillis)
		}
	}
	for _, ms := range r.RTTs {
		if !(ms >= 0 && ms <= MaxMillis) {
			return fmt.Errorf("%g ms: want 0 to %.0f", ms, MaxMillis)
		}
	}
	return nil
}

func checkWord(field, s string) error {
	if len(s) > maxWord || strings.ContainsFunc(s, func(c rune) bool { return c == ' ' || !unicode.IsPrint(c) }) {
		return fmt.Errorf("%s %.40q: want one word of at most %d bytes", field, s, maxWord)
	}
	return nil
}

// MarshalJSON writes 0 as null.
func (t RTTs) MarshalJSON() ([]byte, error) { return appendRTTs(nil, t), nil }

var _ json.Marshaler = RTTs(nil)

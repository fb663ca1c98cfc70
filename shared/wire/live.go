package wire

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of heartbeats.
const (
	MaxLive     = 16 << 10 // bytes of payload
	MaxLabels   = 16       // labels of an agent
	MaxLabel    = 64       // bytes of a label's key, and of its value
	MaxRefusals = 10       // refused targets named in one heartbeat
	maxText     = 200      // bytes of version, os, arch and of a refusal's reason
	maxStretch  = 1e9
)

// A LiveAgent is an agent's heartbeat, published when it connects and every minute.
type LiveAgent struct {
	V       int               `json:"v"`
	Agent   AgentName         `json:"agent"`
	Boot    Boot              `json:"boot"`
	Conn    uint64            `json:"conn"`   // which connection of that boot, from 1
	N       uint64            `json:"n"`      // which heartbeat of that boot, from 1
	At      time.Time         `json:"at"`     // the agent's clock
	Uptime  int64             `json:"uptime"` // seconds since the process started
	Version string            `json:"version,omitempty"`
	OS      string            `json:"os,omitempty"`
	Arch    string            `json:"arch,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"` // isp, site, …

	Targets     int    `json:"targets"`     // accepted from the watch list
	Rev         int64  `json:"rev"`         // of the watch list in force; 0 without one
	Sent        uint64 `json:"sent"`        // results published for the first time
	Resent      uint64 `json:"resent"`      // results published again
	Pending     int    `json:"pending"`     // results waiting for an acknowledgement
	Unconfirmed uint64 `json:"unconfirmed"` // dropped from a full outbox after a broker had them
	Lost        uint64 `json:"lost"`        // dropped from a full outbox before any broker had them
	Refused     uint64 `json:"refused"`     // payloads refused

	Refusals []Refusal `json:"refusals,omitempty"` // the first refused targets
	Stretch  float64   `json:"stretch,omitempty"`  // how many times longer than asked the intervals are; absent when not over-committed
	Problem  string    `json:"problem,omitempty"`  // why it cannot measure, and what mends it
}

// A Refusal is a target that an agent does not measure, and why.
type Refusal struct {
	Target TargetID `json:"target"`
	Reason string   `json:"reason"`
}

// A LiveCollector is a collector's heartbeat, published to every broker right
// after it has subscribed there and every 15 s. An agent that hears it knows
// that acknowledgements can come on this broker.
type LiveCollector struct {
	V      int           `json:"v"`
	Name   CollectorName `json:"name"`
	Boot   Boot          `json:"boot"`
	N      uint64        `json:"n"`
	At     time.Time     `json:"at"`
	Rev    int64         `json:"rev"`              // of its watch list; 0 without one
	Agents *int          `json:"agents,omitempty"` // live agents; nil until it has listened for 2 min
}

// Encode returns l as one JSON value, its time in ms. More refusals or longer
// texts than the limits allow are cut.
func (l LiveAgent) Encode() []byte {
	l.V, l.At = Version, millis(l.At)
	if !(l.Stretch >= 0 && l.Stretch <= maxStretch) {
		l.Stretch = maxStretch
	}
	l.Refusals = append([]Refusal(nil), l.Refusals[:min(len(l.Refusals), MaxRefusals)]...)
	for i, r := range l.Refusals {
		l.Refusals[i] = Refusal{TargetID(clipText(string(r.Target))), clipText(r.Reason)}
	}
	l.Version, l.OS, l.Arch, l.Problem = clipText(l.Version), clipText(l.OS), clipText(l.Arch), clipText(l.Problem)
	return encode(l)
}

// Encode returns l as one JSON value, its time in ms.
func (l LiveCollector) Encode() []byte {
	l.V, l.At = Version, millis(l.At)
	return encode(l)
}

// DecodeLiveAgent reads an agent's heartbeat.
func DecodeLiveAgent(payload []byte) (LiveAgent, error) {
	const kind = "agent heartbeat"
	var l LiveAgent
	if err := unmarshal(kind, payload, MaxLive, &l); err != nil {
		return LiveAgent{}, err
	}
	if err := checkVersion(kind, l.V); err != nil {
		return LiveAgent{}, err
	}
	err := firstError(CheckName(string(l.Agent)), checkBoot(l.Boot), checkText("version", l.Version), checkText("os", l.OS),
		checkText("arch", l.Arch), checkText("problem", l.Problem), CheckLabels(l.Labels))
	if err != nil {
		return LiveAgent{}, &Error{Reason: ReasonName, Kind: kind, Err: err}
	}
	switch {
	case max(l.Conn, l.N, l.Sent, l.Resent, l.Unconfirmed, l.Lost, l.Refused) > MaxSeq:
		err = fmt.Errorf("a counter is above %d", uint64(MaxSeq))
	case l.Uptime < 0 || l.Targets < 0 || l.Pending < 0:
		err = fmt.Errorf("uptime %d, targets %d or pending %d is negative", l.Uptime, l.Targets, l.Pending)
	case l.Rev < 0 || l.Rev > MaxSeq:
		err = fmt.Errorf("rev %d: want 0 to %d", l.Rev, uint64(MaxSeq))
	case !(l.Stretch >= 0 && l.Stretch <= maxStretch):
		err = fmt.Errorf("stretch %g: want 0 to %g", l.Stretch, maxStretch)
	case len(l.Refusals) > MaxRefusals:
		err = fmt.Errorf("%d refusals: want at most %d", len(l.Refusals), MaxRefusals)
	}
	if err != nil {
		return LiveAgent{}, &Error{Reason: ReasonRange, Kind: kind, Err: err}
	}
	for _, r := range l.Refusals {
		if err := firstError(checkText("target", string(r.Target)), checkText("reason", r.Reason)); err != nil {
			return LiveAgent{}, &Error{Reason: ReasonName, Kind: kind, Err: err}
		}
	}
	l.At = millis(l.At)
	return l, nil
}

// DecodeLiveCollector reads a collector's heartbeat.
func DecodeLiveCollector(payload []byte) (LiveCollector, error) {
	const kind = "collector heartbeat"
	var l LiveCollector
	if err := unmarshal(kind, payload, MaxLive, &l); err != nil {
		return LiveCollector{}, err
	}
	if err := checkVersion(kind, l.V); err != nil {
		return LiveCollector{}, err
	}
	if err := firstError(CheckName(string(l.Name)), checkBoot(l.Boot)); err != nil {
		return LiveCollector{}, &Error{Reason: ReasonName, Kind: kind, Err: err}
	}
	if l.Agents != nil && *l.Agents < 0 || l.Rev < 0 || l.Rev > MaxSeq || l.N > MaxSeq {
		return LiveCollector{}, refuse(ReasonRange, kind, "agents, rev or n is out of range")
	}
	l.At = millis(l.At)
	return l, nil
}

// CheckLabels reports why labels cannot describe an agent: at most [MaxLabels],
// each key a name and each value printable, both at most [MaxLabel] bytes.
func CheckLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("%d labels: want at most %d", len(labels), MaxLabels)
	}
	for k, v := range labels {
		if err := CheckName(k); err != nil {
			return fmt.Errorf("label: %w", err)
		}
		if len(v) > MaxLabel || !printable(v) {
			return fmt.Errorf("label %s has value %.70q: want at most %d printable bytes", k, v, MaxLabel)
		}
	}
	return nil
}

func checkText(field, s string) error {
	if len(s) > maxText || !printable(s) {
		return fmt.Errorf("%s %.70q: want at most %d printable bytes", field, s, maxText)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

// clipText makes s pass checkText.
func clipText(s string) string { return clipTo(s, maxText) }

// clipTo makes s one line of at most n bytes of printable UTF-8.
func clipTo(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

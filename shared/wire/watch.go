package wire

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Limits of a watch list.
const (
	MaxWatch   = 200 << 10 // bytes of payload: below the packet that agents' connections accept
	MaxTargets = 10_000    // targets in a list
	maxNeeds   = 16        // words in needs
)

// The defaults of a target's settings.
const (
	DefaultInterval = 60 * time.Second
	DefaultCount    = 5
	DefaultGap      = time.Second
	DefaultTimeout  = 4 * time.Second
	DefaultProbe    = "icmp"
)

// A Watch is a watch list: what the swarm measures.
type Watch struct {
	V       int      `json:"v"`
	Rev     int64    `json:"rev,omitempty"` // orders lists between collectors, in ms since 1970; 0 in a person's list
	By      string   `json:"by,omitempty"`  // who made it, for people
	Targets []Target `json:"targets"`

	// Refused are the entries that were left out, with the reason: a mistake
	// in one target does not stop the others.
	Refused []Refusal `json:"-"`
}

// A Target is one entry of a watch list. Zero values stand for the defaults.
type Target struct {
	Target   TargetID `json:"target"`
	Host     string   `json:"host,omitempty"`     // default: Target
	Probe    string   `json:"probe,omitempty"`    // default: icmp
	Interval Duration `json:"interval,omitempty"` // from round to round
	Count    int      `json:"count,omitempty"`    // echo requests in a round
	Gap      Duration `json:"gap,omitempty"`      // between them
	Timeout  Duration `json:"timeout,omitempty"`  // how long to wait for each reply
	Family   Family   `json:"family,omitempty"`
	Needs    []string `json:"needs,omitempty"` // what a reader must know; unknown words refuse the target
}

// A Family says over which version of IP a target is measured.
type Family string

// The families.
const (
	FamilyAny  Family = "any" // whichever address the resolver gives first
	Family4    Family = "4"
	Family6    Family = "6"
	FamilyBoth Family = "both" // two results a round
)

// A Duration is written as time.Duration prints, "1m0s", and read like that or
// as a number of seconds. It is never negative and at most a week.
type Duration time.Duration

const maxDuration = 7 * 24 * time.Hour

// MarshalText writes d as "1m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalJSON reads "1m30s" or a number of seconds.
func (d *Duration) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		return d.UnmarshalText([]byte(s))
	}
	var secs float64
	if err := json.Unmarshal(b, &secs); err != nil {
		return fmt.Errorf("duration %.40q: want one like \"60s\"", b)
	}
	if !(secs >= 0 && secs <= maxDuration.Seconds()) {
		return fmt.Errorf("duration %g s: want 0 to %v", secs, maxDuration)
	}
	*d = Duration(secs * float64(time.Second))
	return nil
}

// UnmarshalText reads "1m30s".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %.40q: want one like \"60s\"", b)
	}
	if v < 0 || v > maxDuration {
		return fmt.Errorf("duration %.40q: want 0 to %v", b, maxDuration)
	}
	*d = Duration(v)
	return nil
}

// DecodeWatch reads a watch list: a JSON object, or host names separated by
// white space. ok is false for an empty or blank payload, which is no list; a
// list without targets means stop. Entries with a mistake are left out and
// named in Refused, but a list of nothing but mistakes is an error, and so is
// markup or a binary file, some words of which could be names: rubbish never
// stops the swarm.
func DecodeWatch(payload []byte) (w Watch, ok bool, err error) {
	const kind = "watch list"
	if len(payload) > MaxWatch {
		return Watch{}, false, refuse(ReasonSize, kind, "%d bytes: want at most %d", len(payload), MaxWatch)
	}
	payload = bytes.TrimSpace(bytes.TrimPrefix(payload, []byte("\ufeff"))) // some editors begin with that mark
	switch {
	case len(payload) == 0:
		return Watch{}, false, nil
	case payload[0] == '{':
		w, err = decodeWatchJSON(kind, payload)
	default:
		w, err = decodeWatchPlain(kind, payload)
	}
	if err != nil {
		return Watch{}, false, err
	}
	if len(w.Targets) == 0 && len(w.Refused) > 0 {
		r := w.Refused[0]
		return Watch{}, false, refuse(ReasonName, kind, "none of %d targets can be used; the first, %.70q: %s", len(w.Refused), string(r.Target), r.Reason)
	}
	return w, true, nil
}

func decodeWatchJSON(kind string, payload []byte) (Watch, error) {
	var raw struct {
		V       int                `json:"v"`
		Rev     int64              `json:"rev"`
		By      string             `json:"by"`
		Targets *[]json.RawMessage `json:"targets"`
	}
	if err := unmarshal(kind, payload, MaxWatch, &raw); err != nil {
		return Watch{}, err
	}
	if err := checkVersion(kind, raw.V); err != nil {
		return Watch{}, err
	}
	switch {
	case raw.Targets == nil:
		return Watch{}, refuse(ReasonSyntax, kind, "%.80q has no \"targets\"", clip(payload))
	case raw.Rev < 0 || raw.Rev > MaxSeq:
		return Watch{}, refuse(ReasonRange, kind, "rev %d: want 0 to %d", raw.Rev, uint64(MaxSeq))
	case len(*raw.Targets) > MaxTargets:
		return Watch{}, refuse(ReasonRange, kind, "%d targets: want at most %d", len(*raw.Targets), MaxTargets)
	}
	if err := checkText("by", raw.By); err != nil {
		return Watch{}, &Error{Reason: ReasonName, Kind: kind, Err: err}
	}
	w := Watch{V: Version, Rev: raw.Rev, By: raw.By, Targets: make([]Target, 0, len(*raw.Targets))}
	for i, b := range *raw.Targets {
		var t Target
		if b[0] != '{' {
			w.refuse(TargetID(fmt.Sprintf("targets[%d]", i)), fmt.Errorf("%.60q: want an object like {\"target\":\"example.com\"}", clip(b)))
		} else if err := json.Unmarshal(b, &t); err != nil {
			w.refuse(cmp.Or(t.Target, TargetID(fmt.Sprintf("targets[%d]", i))), fmt.Errorf("%.60q: %w", clip(b), err))
		} else if err := t.Check(); err != nil {
			w.refuse(t.Target, err)
		} else {
			w.Targets = append(w.Targets, t)
		}
	}
	return w, nil
}

func decodeWatchPlain(kind string, payload []byte) (Watch, error) {
	words := strings.Fields(string(payload))
	if payload[0] == '<' || !printable(strings.Join(words, "")) {
		return Watch{}, refuse(ReasonSyntax, kind, "%.80q: want a JSON object, or host names separated by white space", clip(payload))
	}
	if len(words) > MaxTargets {
		return Watch{}, refuse(ReasonRange, kind, "%d targets: want at most %d", len(words), MaxTargets)
	}
	w := Watch{V: Version, Targets: make([]Target, 0, len(words))}
	for _, word := range words {
		t := Target{Target: TargetID(word)}
		if err := t.Check(); err != nil {
			w.refuse(t.Target, err)
			continue
		}
		w.Targets = append(w.Targets, t)
	}
	return w, nil
}

func (w *Watch) refuse(id TargetID, err error) {
	w.Refused = append(w.Refused, Refusal{TargetID(clipText(string(id))), clipText(err.Error())})
}

// Check reports why t cannot be an entry of a watch list. It does not know
// which probes and needs a reader supports, nor a reader's caps.
func (t Target) Check() error {
	if err := CheckName(string(t.Target)); err != nil {
		return err
	}
	if err := CheckHost(t.HostOrTarget()); err != nil {
		return err
	}
	switch t.Family {
	case "", FamilyAny, Family4, Family6, FamilyBoth:
	default:
		return fmt.Errorf("family %.40q: want any, 4, 6 or both", string(t.Family))
	}
	if t.Count < 0 || t.Count > MaxPackets {
		return fmt.Errorf("count %d: want 1 to %d", t.Count, MaxPackets)
	}
	if len(t.Needs) > maxNeeds {
		return fmt.Errorf("%d needs: want at most %d", len(t.Needs), maxNeeds)
	}
	for _, n := range t.Needs {
		if err := checkWord("needs", n); err != nil {
			return err
		}
	}
	return checkWord("probe", t.Probe)
}

// HostOrTarget returns what to look up.
func (t Target) HostOrTarget() string { return cmp.Or(t.Host, string(t.Target)) }

// WithDefaults returns t with every default spelled out.
func (t Target) WithDefaults() Target {
	t.Host = t.HostOrTarget()
	t.Probe = cmp.Or(t.Probe, DefaultProbe)
	t.Interval = cmp.Or(t.Interval, Duration(DefaultInterval))
	t.Count = cmp.Or(t.Count, DefaultCount)
	t.Gap = cmp.Or(t.Gap, Duration(DefaultGap))
	t.Timeout = cmp.Or(t.Timeout, Duration(DefaultTimeout))
	t.Family = cmp.Or(t.Family, FamilyAny)
	return t
}

// Encode returns w as one JSON value.
func (w Watch) Encode() []byte {
	w.V = Version
	if w.Targets == nil {
		w.Targets = []Target{}
	}
	return encode(w)
}

// ContentHash returns a digest of the targets with their defaults spelled out,
// in their order: two lists with the same hash ask for the same.
func (w Watch) ContentHash() string {
	c := Watch{Targets: make([]Target, len(w.Targets))}
	for i, t := range w.Targets {
		c.Targets[i] = t.WithDefaults()
	}
	sum := sha256.Sum256(c.Encode())
	return hex.EncodeToString(sum[:16])
}

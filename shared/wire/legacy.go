package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// DecodeLegacy reads what the original of 2014 published on ping/{target}:
//
//	["agent","ok",{"loss":0.0,"Round trip":[min,avg,max,stddev],"Error":null}]
//	["agent","error","text"]
//
// The result has no boot, no seq, no time and no counts: the reader who stores
// it makes them up. The topic names the target.
func DecodeLegacy(topic string, payload []byte) (Result, error) {
	const kind = "2014 result"
	var parts []json.RawMessage
	if err := unmarshal(kind, payload, MaxResult, &parts); err != nil {
		return Result{}, err
	}
	if len(parts) < 2 {
		return Result{}, refuse(ReasonSyntax, kind, "%.80q: want [agent, status, …]", clip(payload))
	}
	var agent, status string
	if err := firstError(json.Unmarshal(parts[0], &agent), json.Unmarshal(parts[1], &status)); err != nil {
		return Result{}, refuse(ReasonSyntax, kind, "%.80q: %w", clip(payload), err)
	}
	r := Result{V: Version, Agent: AgentName(agent), Probe: DefaultProbe}
	if rest, ok := bytes.CutPrefix([]byte(topic), []byte("ping/")); ok {
		r.Target = TargetID(bytes.ReplaceAll(rest, []byte("/"), []byte("."))) // RabbitMQ's levels were dots
	}
	if err := firstError(CheckName(agent), CheckName(string(r.Target))); err != nil {
		return Result{}, &Error{Reason: ReasonName, Kind: kind, Err: err}
	}
	switch status {
	case "error":
		r.Cause = CauseLocal
		return r, nil
	case "ok":
	default:
		return Result{}, refuse(ReasonSyntax, kind, "status %.40q: want ok or error", status)
	}
	if len(parts) < 3 {
		return Result{}, refuse(ReasonSyntax, kind, "%.80q has no statistics", clip(payload))
	}
	var stats legacyStats
	if err := json.Unmarshal(parts[2], &stats); err != nil {
		return Result{}, refuse(ReasonSyntax, kind, "%.80q: %w", clip(parts[2]), err)
	}
	if err := r.setLegacyStats(stats); err != nil {
		return Result{}, &Error{Reason: ReasonRange, Kind: kind, Err: err}
	}
	return r, nil
}

type legacyStats struct {
	Loss      *float64   `json:"loss"`
	RoundTrip []*float64 `json:"Round trip"`
}

func (r *Result) setLegacyStats(stats legacyStats) error {
	if stats.Loss != nil && !(*stats.Loss >= 0 && *stats.Loss <= 100) {
		return fmt.Errorf("loss %g: want 0 to 100", *stats.Loss)
	}
	r.Loss = stats.Loss
	if len(stats.RoundTrip) >= 4 {
		r.Min, r.Avg, r.Max, r.Stddev = stats.RoundTrip[0], stats.RoundTrip[1], stats.RoundTrip[2], stats.RoundTrip[3]
	}
	for _, ms := range []*float64{r.Min, r.Avg, r.Max, r.Stddev} {
		if ms != nil && !(*ms >= 0 && *ms <= MaxMillis) {
			return fmt.Errorf("%g ms: want 0 to %.0f", *ms, MaxMillis)
		}
	}
	return nil
}

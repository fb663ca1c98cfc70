package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A Reason says, in one word fit for a metric's label, why a payload was
// refused. The list is append-only.
type Reason string

// The reasons of this package. Readers of payloads add their own (a clock that
// is off, a name over a cap) under words of their own.
const (
	ReasonEmpty   Reason = "empty"   // no payload where one is needed
	ReasonSize    Reason = "size"    // longer than the limit of its kind
	ReasonSyntax  Reason = "syntax"  // not one JSON value of the right shape
	ReasonVersion Reason = "version" // v is higher than this reader knows
	ReasonName    Reason = "name"    // a name, boot or host breaks its rules
	ReasonRange   Reason = "range"   // a number or a list is outside its limits
)

// An Error is why a payload was refused. Its text quotes the input and says what
// was expected; it is one line of printable UTF-8 of at most 400 bytes, whatever
// the payload, fit for a log.
type Error struct {
	Reason Reason
	Kind   string // what was being read: "result", "watch list", "ack", …
	Err    error
}

func (e *Error) Error() string { return clipTo("read "+e.Kind+": "+e.Err.Error(), maxError) }

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason that err carries, or [ReasonSyntax] for an error
// that is not an [*Error].
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ReasonSyntax
}

const maxError = 400

func refuse(reason Reason, kind, format string, args ...any) *Error {
	return &Error{Reason: reason, Kind: kind, Err: fmt.Errorf(format, args...)}
}

// unmarshal reads the first JSON value of payload into v, which must be a zero
// value. The usual payload is exactly one value and takes the faster path.
func unmarshal(kind string, payload []byte, limit int, v any) error {
	if len(payload) > limit {
		return refuse(ReasonSize, kind, "%d bytes: want at most %d", len(payload), limit)
	}
	err := json.Unmarshal(payload, v)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		// Perhaps only because of bytes after the first value.
		err = json.NewDecoder(bytes.NewReader(payload)).Decode(v)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return refuse(ReasonEmpty, kind, "payload is empty")
	}
	return refuse(ReasonSyntax, kind, "%.200q: %w", clip(payload), err)
}

func checkVersion(kind string, v int) error {
	if v < 0 {
		return refuse(ReasonRange, kind, "version %d: want 0 to %d", v, Version)
	}
	if v > Version {
		return refuse(ReasonVersion, kind, "version %d: this program knows versions up to %d; a newer one is needed", v, Version)
	}
	return nil
}

// clip bounds what of a payload may reach a log line.
func clip(payload []byte) []byte { return payload[:min(len(payload), 80)] }

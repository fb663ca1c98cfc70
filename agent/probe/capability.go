package probe

import (
	"errors"

	"swarming/shared/wire"
)

// A Capability says whether and how this program may ping over one family.
type Capability struct {
	Family int        // 4 or 6
	Mode   string     // "ping socket", "raw socket", "none", …
	Stamp  wire.Stamp // what can time replies; "" when Mode is "none"
	Err    error      // why Mode is "none"
	Hint   string     // the command that would change that, "" if none would
}

// Capabilities tries to open a socket of each family and closes it again.
func Capabilities() []Capability {
	found := make([]Capability, 0, 2)
	for _, family := range [...]int{4, 6} {
		found = append(found, capability(family))
	}
	return found
}

func capability(family int) Capability {
	s, m, err := listen(&codec{family: family}, newClock())
	if err != nil {
		return Capability{Family: family, Mode: string(modeNone), Err: err, Hint: hintOf(err)}
	}
	s.close()
	if err := switchedOff(family); err != nil {
		return Capability{Family: family, Mode: string(modeNone), Err: err, Hint: hintOf(err)}
	}
	return Capability{Family: family, Mode: string(m), Stamp: bestStamp}
}

// A refusedError is why no socket could be opened, with what would help.
type refusedError struct {
	msg  string
	hint string
	err  error
}

func (e *refusedError) Error() string { return e.msg + ": " + e.err.Error() }

// Unwrap returns the system's error.
func (e *refusedError) Unwrap() error { return e.err }

func hintOf(err error) string {
	if r, ok := errors.AsType[*refusedError](err); ok {
		return r.hint
	}
	return ""
}

package settings

import (
	"errors"
	"fmt"
	"io"
)

// ErrHelp and ErrVersion are returned by [Set.Parse] when --help (or -h) or
// --version was asked for: the caller prints it and exits with 0.
var (
	ErrHelp    = errors.New("help requested")
	ErrVersion = errors.New("version requested")
)

// A UsageError is a wrong command line, environment or settings file; the
// program exits with 2. Msg says what was found and what was expected, Hint
// what to do about it; it may be empty.
type UsageError struct {
	Msg  string
	Hint string
}

// Error returns the message without the hint.
func (e *UsageError) Error() string { return e.Msg }

// Usagef returns a [*UsageError] with a formatted message. Redact what may hold
// a password.
func Usagef(hint, format string, args ...any) error {
	return &UsageError{Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// PrintUsageError writes the message and, where there is one, the hint on a
// line of its own.
func PrintUsageError(w io.Writer, program string, e *UsageError) {
	fmt.Fprintf(w, "%s: %s\n", program, e.Msg)
	if e.Hint != "" {
		fmt.Fprintf(w, "hint: %s\n", e.Hint)
	}
}

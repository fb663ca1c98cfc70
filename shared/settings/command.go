package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrReported ends a program with 1 when everything has been said already.
var ErrReported = errors.New("reported")

// Exit turns the error of a program's or subcommand's work into its exit code,
// and says on the way what has not been said: 0 done, 1 failed, 2 wrong usage.
// What --version asks for is written to stdout, the rest to stderr.
func Exit(program, version string, err error, stdout, stderr io.Writer) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrVersion):
		fmt.Fprintln(stdout, program, version)
		return 0
	case errors.Is(err, ErrReported):
		return 1
	}
	if u, ok := errors.AsType[*UsageError](err); ok {
		PrintUsageError(stderr, program, u)
		return 2
	}
	fmt.Fprintf(stderr, "%s: %v\n", program, err)
	return 1
}

// ParseOrHelp is Parse with the environment of the process, for a subcommand
// that has nothing else to load. Asked for help it prints intro and the flags,
// and done is true.
func (s *Set) ParseOrHelp(args []string, intro string, stdout io.Writer) (done bool, err error) {
	err = s.Parse(args, os.Environ())
	if errors.Is(err, ErrHelp) {
		fmt.Fprint(stdout, intro, s.Usage())
		return true, nil
	}
	return false, err
}

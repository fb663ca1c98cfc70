// Command testreport makes a short report of what go test -json writes: a line
// for each package, everything a failed test said, why tests were skipped, and
// the totals as the last line.
//
//	go test -json ./... | go run ./build/testreport
//
// It ends with 1 when a test or a build failed, when there was no test at all,
// or when a test was skipped because of something that this machine lacks: such
// a test says so with a reason that begins with "needs ". With -short such skips
// are no failure: it is for a run of go test -short beside a whole one.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	short := flag.Bool("short", false, "permit tests to skip whatever they need")
	flag.Parse()
	r := newReport(os.Stdout)
	r.short = *short
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	if !r.finish() {
		os.Exit(1)
	}
}

// An event is one line of go test -json; see go doc test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64
	Output  string
}

type report struct {
	w      io.Writer
	short  bool
	output map[[2]string]*strings.Builder // by package and test, until they end

	packages, passed, failed int // tests at the top level
	broken                   int // packages that failed
	skipped, lacking         []string
}

func newReport(w io.Writer) *report {
	return &report{w: w, output: map[[2]string]*strings.Builder{}}
}

// read passes on what is not JSON: the line that make prints.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil && e.Action != "" {
			r.event(e)
		} else {
			fmt.Fprintf(r.w, "%s", line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

func (r *report) event(e event) {
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "output":
		if r.output[key] == nil {
			r.output[key] = new(strings.Builder)
		}
		r.output[key].WriteString(e.Output)
		return
	case "build-output":
		fmt.Fprint(r.w, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	said := ""
	if b := r.output[key]; b != nil {
		said = b.String()
		delete(r.output, key)
	}
	if e.Test == "" {
		r.packageEnd(e, said)
	} else {
		r.testEnd(e, said)
	}
}

func (r *report) packageEnd(e event, said string) {
	switch e.Action {
	case "fail":
		r.broken++
		for line := range strings.Lines(said) {
			if line != "FAIL\n" && !strings.HasPrefix(line, "FAIL\t") { // said below
				fmt.Fprint(r.w, line)
			}
		}
		// Of a test that a panic or a deadline cut off there is no end.
		for key, b := range r.output {
			if key[0] == e.Package {
				fmt.Fprint(r.w, b)
				delete(r.output, key)
			}
		}
		fmt.Fprintf(r.w, "FAIL  %s  %.1fs\n", e.Package, e.Elapsed)
	case "pass":
		fmt.Fprintf(r.w, "ok    %s  %.1fs\n", e.Package, e.Elapsed)
	default:
		return // no test files
	}
	r.packages++
}

// reason finds what a skipped test said: "    name_test.go:12: reason".
var reason = regexp.MustCompile(`(?m)^\s+[\w.-]+\.go:\d+: (.*)$`)

func (r *report) testEnd(e event, said string) {
	top := !strings.Contains(e.Test, "/")
	switch e.Action {
	case "pass":
		if top {
			r.passed++
		}
	case "fail":
		if top {
			r.failed++
		}
		fmt.Fprint(r.w, said)
	case "skip":
		why := "no reason given"
		if all := reason.FindAllStringSubmatch(said, -1); all != nil {
			why = all[len(all)-1][1]
		}
		line := fmt.Sprintf("%s %s: %s", e.Package, e.Test, why)
		r.skipped = append(r.skipped, line)
		if strings.HasPrefix(why, "needs ") {
			r.lacking = append(r.lacking, line)
		}
	}
}

// finish prints what is known at the end, and reports whether all is well.
func (r *report) finish() bool {
	for _, s := range r.skipped {
		fmt.Fprintln(r.w, "skip ", s)
	}
	ok := r.failed == 0 && r.broken == 0 && r.passed > 0
	if len(r.lacking) > 0 && !r.short {
		ok = false
		fmt.Fprintf(r.w, "%d of the skipped tests need what this machine lacks\n", len(r.lacking))
	}
	verdict := "ok"
	if !ok {
		verdict = "FAILED"
	}
	fmt.Fprintf(r.w, "go test %s: %d packages (%d failed), %d tests passed, %d failed, %d skipped (%d for what is lacking)\n",
		verdict, r.packages, r.broken, r.passed, r.failed, len(r.skipped), len(r.lacking))
	return ok
}

package settings

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A Value is a setting of a kind that this package does not know. Set is called
// once for each value that the strongest source gives, in order; its error
// should say what was expected ("want …"). A Value with a method IsBoolFlag
// that returns true takes no argument on the command line; one with a method
// IsSecret that returns true is redacted wherever it is shown.
type Value = flag.Value

// A Set holds the settings of one program or subcommand. It costs no more than
// its settings: subcommands make their own.
type Set struct {
	program   string
	envPrefix string

	settings   []*setting // in the order declared
	byName     map[string]*setting
	foreign    map[string]bool
	positional *setting

	config    string
	checkOnly bool
	warnings  []string
}

// A setting is one flag and what it was given.
type setting struct {
	name        string
	usage       string
	placeholder string // "" takes no argument on the command line
	value       Value
	def         string // as shown; "" for none
	list        bool   // repeatable
	secret      bool
	path        bool
	given       []given
}

// A given is one value and where it came from.
type given struct {
	raw    string
	source source
}

// A source orders where values come from, the weakest first.
type source struct {
	kind sourceKind
	at   string // environment variable, or FILE:LINE
}

type sourceKind int

const (
	fromFile sourceKind = iota + 1
	fromEnv
	fromLine
)

// New returns an empty set for program, which names it in hints ("swarming-agent
// ping"). Environment variables are called envPrefix, an underscore and the
// setting's name in capitals with underscores for dashes. With an empty
// envPrefix neither the environment nor a file is read.
func New(program, envPrefix string) *Set {
	s := &Set{program: program, envPrefix: envPrefix, byName: map[string]*setting{}, foreign: map[string]bool{}}
	if envPrefix != "" {
		s.Path(&s.config, "config", "", "`FILE` with settings, one \"name value\" a line")
		s.Bool(&s.checkOnly, "check-config", false, "show the settings in force and where each came from, then exit")
	}
	return s
}

// add declares a setting. A name declared twice is a mistake in the program.
func (s *Set) add(st *setting) *setting {
	if s.byName[st.name] != nil {
		panic("settings: " + st.name + " declared twice")
	}
	if word, rest, ok := quotedWord(st.usage); ok {
		st.placeholder, st.usage = word, rest
	}
	s.settings = append(s.settings, st)
	s.byName[st.name] = st
	return st
}

// quotedWord takes the `word` that stands for the value out of a usage text.
func quotedWord(usage string) (word, rest string, ok bool) {
	before, after, ok := strings.Cut(usage, "`")
	if !ok {
		return "", usage, false
	}
	word, after, ok = strings.Cut(after, "`")
	return word, before + word + after, ok
}

// String declares a setting of any text, held in p. Its usage may name what
// stands for the value in `backquotes`, as all usages may.
func (s *Set) String(p *string, name, def, usage string) {
	*p = def
	s.add(&setting{name: name, usage: usage, placeholder: "TEXT", value: (*stringValue)(p), def: def})
}

// Path is String for a file or directory: [Set.CommandLine] makes it absolute.
func (s *Set) Path(p *string, name, def, usage string) {
	*p = def
	s.add(&setting{name: name, usage: usage, placeholder: "PATH", value: (*stringValue)(p), def: def, path: true})
}

// Word declares a setting that is one of words.
func (s *Set) Word(p *string, name, def, usage string, words ...string) {
	*p = def
	s.add(&setting{name: name, usage: usage, placeholder: strings.Join(words, "|"), value: &wordValue{p, words}, def: def})
}

// Strings declares a repeatable setting, held in p, without a default. Its
// environment variable is split on white space.
func (s *Set) Strings(p *[]string, name, usage string) {
	*p = nil
	s.add(&setting{name: name, usage: usage, placeholder: "TEXT", value: (*stringsValue)(p), list: true})
}

// Bool declares a switch: --name, --name=false; in the environment and the file
// true, false, yes, no, on, off, 1 or 0.
func (s *Set) Bool(p *bool, name string, def bool, usage string) {
	*p = def
	st := &setting{name: name, usage: usage, value: (*boolValue)(p)}
	if def {
		st.def = "true"
	}
	s.add(st)
}

// Int declares a whole number.
func (s *Set) Int(p *int, name string, def int, usage string, limits ...Limit[int]) {
	*p = def
	s.add(&setting{name: name, usage: usage, placeholder: "N", def: fmt.Sprint(def),
		value: &number[int]{p, parseInt, func(n int) string { return fmt.Sprint(n) }, limits}})
}

// Duration declares a duration such as 90s, 1m30s, 12h or 30d, never negative.
func (s *Set) Duration(p *time.Duration, name string, def time.Duration, usage string, limits ...Limit[time.Duration]) {
	*p = def
	s.add(&setting{name: name, usage: usage, placeholder: "DURATION", def: formatDuration(def),
		value: &number[time.Duration]{p, parseDuration, formatDuration, limits}})
}

// Bytes declares a size such as 512MiB or 10GB, at most 8 EiB, never negative.
// A number without a unit is bytes; K, M and G alone are refused, because
// programs disagree about them.
func (s *Set) Bytes(p *int64, name string, def int64, usage string, limits ...Limit[int64]) {
	*p = def
	st := &setting{name: name, usage: usage, placeholder: "SIZE",
		value: &number[int64]{p, parseBytes, formatBytes, limits}}
	if def != 0 {
		st.def = formatBytes(def)
	}
	s.add(st)
}

// Var declares a setting of the caller's own kind. It may be repeated.
func (s *Set) Var(v Value, name, usage string) {
	st := &setting{name: name, usage: usage, placeholder: "VALUE", value: v, def: v.String(), list: true}
	if b, ok := v.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
		st.placeholder, st.list = "", false
	}
	if x, ok := v.(interface{ IsSecret() bool }); ok && x.IsSecret() {
		st.secret = true
	}
	s.add(st)
}

// Secret marks a declared setting as one whose value is never shown. Passwords
// inside URLs are redacted without it.
func (s *Set) Secret(name string) { s.mustHave(name).secret = true }

// Positional makes the arguments that are not flags values of the repeatable
// setting name, in the order they stand on the command line. Without it such an
// argument is an error.
func (s *Set) Positional(p *[]string, name string) {
	st := s.mustHave(name)
	if v, ok := st.value.(*stringsValue); !ok || (*[]string)(v) != p {
		panic("settings: " + name + " was not declared with Strings and the same variable")
	}
	s.positional = st
}

// AlsoKnown names settings of the program's other commands. In the environment
// and the file they are no mistake, so that all commands can share one file;
// here they have no effect. On the command line they stay unknown.
func (s *Set) AlsoKnown(names ...string) {
	for _, n := range names {
		s.foreign[n] = true
	}
}

// Names returns the names of all declared settings, in the order declared.
func (s *Set) Names() []string {
	names := make([]string, len(s.settings))
	for i, st := range s.settings {
		names[i] = st.name
	}
	return names
}

// CheckOnly reports whether --check-config was given: show the settings and exit.
func (s *Set) CheckOnly() bool { return s.checkOnly }

// Given reports whether any source names the setting.
func (s *Set) Given(name string) bool { return len(s.mustHave(name).given) > 0 }

// Warnings returns what is suspicious and did no harm, after [Set.Parse]:
// environment variables with the program's prefix that are no setting, at most
// 20 of them.
func (s *Set) Warnings() []string { return slices.Clone(s.warnings) }

func (s *Set) mustHave(name string) *setting {
	st := s.byName[name]
	if st == nil {
		panic("settings: " + name + " was not declared")
	}
	return st
}

// envName returns the name of a setting's environment variable.
func (s *Set) envName(name string) string {
	return s.envPrefix + "_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// similar returns the candidate most like name, or "" if none is near enough to
// be what was meant.
func similar(name string, candidates []string) string {
	best, distance := "", math.MaxInt
	for _, c := range candidates {
		if d := editDistance(name, c); d < distance {
			best, distance = c, d
		}
	}
	switch {
	case distance <= 1, distance == 2 && len(best) > 3, distance == 3 && len(best) > 8:
		return best
	}
	return ""
}

// editDistance counts the bytes to insert, delete or replace to get from a to b.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return math.MaxInt
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

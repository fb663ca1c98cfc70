package settings

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// maxWarnings bounds what a full environment can make a program say.
const maxWarnings = 20

// Parse reads the command line without the program's name, the environment as
// [os.Environ] gives it, and the file that --config (or its environment
// variable) names, and sets the variables. It is called once.
//
// Flags are --name VALUE or --name=VALUE, with one dash as well, anywhere on the
// line; -- ends them. Of a setting that is not repeatable, the last value of the
// strongest source counts. Values that a stronger source replaces are not
// looked at.
//
// The error is [ErrHelp], [ErrVersion] or a [*UsageError].
func (s *Set) Parse(args, environ []string) error {
	if err := s.parseArgs(args); err != nil {
		return err
	}
	if s.envPrefix == "" {
		return s.apply()
	}
	s.parseEnviron(environ)
	// Where the file is, has to be known before the other settings.
	if err := s.byName["config"].apply(); err != nil {
		return err
	}
	if s.config != "" {
		if err := s.parseFile(s.config); err != nil {
			return err
		}
	}
	return s.apply()
}

func (s *Set) parseArgs(args []string) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			for _, a := range args {
				if err := s.addPositional(a); err != nil {
					return err
				}
			}
			return nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			if err := s.addPositional(arg); err != nil {
				return err
			}
			continue
		}
		used, err := s.parseFlag(arg, args)
		if err != nil {
			return err
		}
		args = args[used:]
	}
	return nil
}

// parseFlag reads arg, a flag, whose value may be the first of rest. It returns
// how many of rest it used.
func (s *Set) parseFlag(arg string, rest []string) (used int, err error) {
	name, value, hasValue := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	st := s.byName[name]
	switch {
	case st != nil:
	case name == "help" || name == "h":
		return 0, ErrHelp
	case name == "version":
		return 0, ErrVersion
	default:
		// Not the value: it may be a password whose flag was misspelt.
		return 0, s.unknownFlag(arg[:len(arg)-len(value)], name)
	}
	if hasValue {
		st.give(value, source{fromLine, "--" + name})
		return 0, nil
	}
	if st.placeholder == "" {
		st.give("true", source{fromLine, "--" + name})
		return 0, nil
	}
	if len(rest) == 0 {
		return 0, Usagef(fmt.Sprintf("write --%s %s", name, st.placeholder), "--%s: want a value, found the end of the command line", name)
	}
	// A value that looks like a flag is almost always a value forgotten.
	if strings.HasPrefix(rest[0], "--") {
		return 0, Usagef(fmt.Sprintf("write --%s=VALUE for a value that begins with a dash", name), "--%s: want a value, found %q", name, redact(rest[0]))
	}
	st.give(rest[0], source{fromLine, "--" + name})
	return 1, nil
}

func (s *Set) unknownFlag(arg, name string) error {
	hint := s.program + " --help lists all flags"
	if m := similar(name, append(s.Names(), "help", "version")); m != "" {
		hint = "did you mean --" + m + "?"
	}
	return Usagef(hint, "unknown flag %q", strings.TrimSuffix(arg, "="))
}

func (s *Set) addPositional(arg string) error {
	if s.positional == nil {
		return Usagef(s.program+" --help shows what it takes", "unexpected argument %q", redact(arg))
	}
	s.positional.give(arg, source{fromLine, s.positional.name})
	return nil
}

// parseEnviron takes the variables with the program's prefix. An empty one is
// unset: unit files and scripts often have no other way to leave one out.
func (s *Set) parseEnviron(environ []string) {
	settings := make(map[string]*setting, len(s.settings))
	for _, st := range s.settings {
		if st.name != "check-config" {
			settings[s.envName(st.name)] = st
		}
	}
	foreign := make(map[string]bool, len(s.foreign))
	for name := range s.foreign {
		foreign[s.envName(name)] = true
	}
	var unknown []string
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if value == "" || !strings.HasPrefix(name, s.envPrefix+"_") {
			continue
		}
		st := settings[name]
		if st == nil {
			if !foreign[name] {
				unknown = append(unknown, name)
			}
			continue
		}
		values := []string{value}
		if st.list {
			values = strings.Fields(value)
		}
		for _, v := range values {
			st.give(v, source{fromEnv, name})
		}
	}
	s.warnUnknown(unknown, slices.Collect(maps.Keys(settings)))
}

func (s *Set) warnUnknown(unknown, known []string) {
	slices.Sort(unknown)
	slices.Sort(known) // similar takes the first of equals
	for _, name := range unknown[:min(len(unknown), maxWarnings)] {
		w := fmt.Sprintf("environment variable %.100q is not a setting of %s", name, s.program)
		if m := similar(name, known); m != "" {
			w += "; did you mean " + m + "?"
		}
		s.warnings = append(s.warnings, w)
	}
}

// give adds a value. A stronger source drops what weaker ones gave, a weaker one
// than has been heard is not listened to.
func (st *setting) give(raw string, from source) {
	if len(st.given) > 0 {
		switch c := cmp.Compare(from.kind, st.given[0].source.kind); {
		case c < 0:
			return
		case c > 0:
			st.given = nil
		}
	}
	st.given = append(st.given, given{raw, from})
}

// apply sets all variables.
func (s *Set) apply() error {
	for _, st := range s.settings {
		if st.name == "config" && s.envPrefix != "" {
			continue // done before the file was read
		}
		if err := st.apply(); err != nil {
			return err
		}
	}
	return nil
}

func (st *setting) apply() error {
	for _, g := range st.given {
		if err := st.value.Set(g.raw); err != nil {
			return Usagef("", "%s %s: %v", st.describe(g.source), st.quote(g.raw), err)
		}
	}
	return nil
}

// describe names the setting as its source does.
func (st *setting) describe(from source) string {
	if from.kind == fromFile {
		return from.at + ": " + st.name
	}
	return from.at
}

// quote shows a value in an error.
func (st *setting) quote(raw string) string {
	if st.secret {
		return "(hidden)"
	}
	return fmt.Sprintf("%.200q", redact(raw))
}

// CommandLine returns what the command line gave, as flags with relative paths
// made absolute, to be repeated by a service manager in another directory, and
// without --check-config. Passwords are in it.
func (s *Set) CommandLine() ([]string, error) {
	var args []string
	for _, st := range s.settings {
		if len(st.given) == 0 || st.given[0].source.kind != fromLine || st.value == (*boolValue)(&s.checkOnly) {
			continue
		}
		for _, g := range st.given {
			v := g.raw
			if st.path && v != "" {
				var err error
				if v, err = filepath.Abs(v); err != nil {
					return nil, fmt.Errorf("make --%s absolute: %w", st.name, err)
				}
			}
			args = append(args, "--"+st.name+"="+v)
		}
	}
	return args, nil
}

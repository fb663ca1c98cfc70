package settings

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
)

// maxFile is the size in bytes beyond which a settings file is taken for
// something else.
const maxFile = 1 << 20

func (s *Set) parseFile(path string) error {
	text, err := readFile(path)
	if err != nil {
		from := s.byName["config"].given
		return Usagef("name a file that this program may read", "%s: %v", from[len(from)-1].source.at, err)
	}
	// Editors on Windows write a byte order mark and carriage returns.
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if err := s.parseLine(fmt.Sprintf("%s:%d", path, n), string(line)); err != nil {
			return err
		}
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: larger than %s", path, formatBytes(maxFile))
	}
	return text, nil
}

// parseLine reads one line; at is FILE:LINE.
func (s *Set) parseLine(at, line string) error {
	line = stripComment(line)
	if line == "" {
		return nil
	}
	name, value := line, ""
	if i := strings.IndexFunc(line, unicode.IsSpace); i >= 0 {
		name, value = line[:i], strings.TrimSpace(line[i:])
	}
	st := s.byName[name]
	switch {
	case name == "config" || name == "check-config" || name == "help" || name == "version":
		return Usagef("leave the line out", "%s: %q is for the command line only", at, name)
	case st == nil && s.foreign[name]:
		return nil
	case st == nil:
		return s.unknownInFile(at, name)
	case value == "" && st.placeholder == "":
		value = "true"
	case value == "":
		return Usagef(fmt.Sprintf("write %s %s, or leave the line out", name, st.placeholder), "%s: %s: want a value", at, name)
	case value[0] == '=':
		return Usagef(fmt.Sprintf("write %s %s", name, st.placeholder), "%s: %s: the value begins with =", at, name)
	case quoted(value):
		return Usagef("a value goes to the end of its line and needs no quotes", "%s: %s: the value is in quotes", at, name)
	}
	st.give(value, source{fromFile, at})
	return nil
}

// stripComment removes white space at both ends, and a # that begins the line or
// follows white space with all after it.
func stripComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
			break
		}
	}
	return strings.TrimSpace(line)
}

func quoted(v string) bool {
	return len(v) > 1 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0]
}

// unknownInFile explains a name that is no setting. What follows a = or : is not
// shown: it may be a password.
func (s *Set) unknownInFile(at, name string) error {
	hint := s.program + " --help lists all settings; a line is one without its dashes"
	word := strings.TrimLeft(name, "-")
	if i := strings.IndexAny(word, "=:"); i >= 0 {
		word = word[:i]
		name = name[:strings.IndexAny(name, "=:")+1]
	}
	if s.byName[word] != nil {
		return Usagef(fmt.Sprintf("write %s %s", word, s.byName[word].placeholder), "%s: unknown setting %.64q", at, name)
	}
	if m := similar(word, s.Names()); m != "" {
		hint = "did you mean " + m + "?"
	}
	return Usagef(hint, "%s: unknown setting %.64q", at, name)
}

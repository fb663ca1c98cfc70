package settings

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
)

// hidden stands for a password.
const hidden = "xxxxx"

// usageWidth is the column at which usage texts are wrapped.
const usageWidth = 80

// Show writes every setting in force, a line for each value, with where it came
// from: default, environment, FILE:LINE or command line. Secrets and the
// passwords inside URLs are redacted.
func (s *Set) Show(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, st := range s.settings {
		if st.name == "check-config" {
			continue
		}
		switch {
		case len(st.given) == 0:
			fmt.Fprintf(table, "%s\t%s\tdefault\n", st.name, st.display(st.value.String()))
		case st.list:
			for _, g := range st.given {
				fmt.Fprintf(table, "%s\t%s\t%s\n", st.name, st.display(g.raw), g.source)
			}
		default:
			fmt.Fprintf(table, "%s\t%s\t%s\n", st.name, st.display(st.value.String()), st.given[len(st.given)-1].source)
		}
	}
	table.Flush()
}

// String says where a value came from.
func (f source) String() string {
	switch f.kind {
	case fromLine:
		return "command line"
	case fromEnv:
		return "environment " + f.at
	case fromFile:
		return f.at
	}
	return "default"
}

// display shows a value in a table: - for nothing, quoted where it would
// mislead or do something to a terminal.
func (st *setting) display(v string) string {
	switch {
	case v == "":
		return "-"
	case st.secret:
		return hidden
	}
	v = redact(v)
	if v == "-" || strings.ContainsFunc(v, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return strconv.Quote(v)
	}
	return v
}

// RedactURL replaces the password in a URL, or in what was meant to be one:
// user:password@host without a scheme, and URLs that do not parse, are redacted
// too. When in doubt it hides too much.
func RedactURL(s string) string { return redact(s) }

func redact(s string) string {
	start := 0
	if i := strings.Index(s, "://"); i >= 0 {
		start = i + len("://")
	}
	at := strings.LastIndexByte(s, '@')
	if at < start {
		return s
	}
	colon := strings.IndexByte(s[start:at], ':')
	if colon < 0 {
		return s
	}
	return s[:start+colon+1] + hidden + s[at:]
}

// Usage returns the flags, each with its unit, meaning and default, as lines
// that end with a newline.
func (s *Set) Usage() string {
	var b strings.Builder
	for _, st := range s.settings {
		fmt.Fprintf(&b, "  --%s", st.name)
		if st.placeholder != "" {
			b.WriteString(" " + st.placeholder)
		}
		b.WriteByte('\n')
		text := st.usage
		if l, ok := st.value.(interface{ rangeText() string }); ok && l.rangeText() != "" {
			text += ", " + l.rangeText()
		}
		if st.def != "" && !strings.Contains(text, "(default") {
			text += " (default " + st.display(st.def) + ")"
		}
		wrap(&b, text)
	}
	b.WriteString("  --help, --version\n")
	return b.String()
}

// wrap writes text in lines of at most usageWidth columns, indented.
func wrap(b *strings.Builder, text string) {
	const indent = "        "
	column := 0
	for word := range strings.FieldsSeq(text) {
		if n := len([]rune(word)); column == 0 || column+1+n > usageWidth {
			if column > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(indent + word)
			column = len(indent) + n
		} else {
			b.WriteString(" " + word)
			column += 1 + n
		}
	}
	b.WriteByte('\n')
}

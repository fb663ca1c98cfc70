package settings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// vars are the settings of the program that the tests pretend to be.
type vars struct {
	brokers, labels []string
	name, state     string
	token, family   string
	pps             int
	every, keep     time.Duration
	size            int64
	observe         bool
	log             *LogOptions
}

func newSet() (*Set, *vars) {
	v := new(vars)
	s := New("prog", "PROG")
	s.Strings(&v.brokers, "broker", "a broker, `HOST` or URL; repeatable")
	s.Strings(&v.labels, "label", "key=value; repeatable")
	s.String(&v.name, "name", "", "name of this agent (default: the host name)")
	s.Path(&v.state, "state-dir", "", "directory for what is left")
	s.String(&v.token, "token", "", "what opens the door")
	s.Secret("token")
	s.Word(&v.family, "family", "any", "version of IP", "any", "4", "6")
	s.Int(&v.pps, "max-pps", 50, "packets per second", Min(1), Max(1000))
	s.Duration(&v.every, "interval", time.Minute, "time between rounds", Min(10*time.Second))
	s.Duration(&v.keep, "retention", 30*24*time.Hour, "how long results are kept", Max(3650*24*time.Hour))
	s.Bytes(&v.size, "max-bytes", 0, "size of the journal", Min[int64](16<<20))
	s.Bool(&v.observe, "observe", false, "never publish")
	v.log = s.Log()
	s.Positional(&v.brokers, "broker")
	s.AlsoKnown("target", "json")
	return s, v
}

// parseArchive runs a testdata file in a directory of its own: the text before
// the first file is the command line, a word a line; env is the environment,
// want the expected output, and every other file is put beside the program.
func parseArchive(t *testing.T, path string) (set *Set, want string, parsed error) {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	var environ []string
	found := false
	for _, f := range a.Files {
		switch f.Name {
		case "env":
			environ = lines(f.Data)
		case "want":
			want, found = string(f.Data), true
		default:
			if err := os.WriteFile(f.Name, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found {
		t.Fatalf("%s has no file \"want\"", path)
	}
	s, _ := newSet()
	return s, want, s.Parse(lines(a.Comment), environ)
}

func lines(b []byte) []string {
	var out []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// Each file in testdata/mistakes is one mistake with the exact message it gets.
func TestMistakes(t *testing.T) {
	for name, path := range archives(t, "mistakes") {
		t.Run(name, func(t *testing.T) {
			_, want, err := parseArchive(t, path)
			u, ok := errors.AsType[*UsageError](err)
			if !ok {
				t.Fatalf("Parse = %v, want a *UsageError", err)
			}
			var got strings.Builder
			PrintUsageError(&got, "prog", u)
			if got.String() != want {
				t.Errorf("got:\n%swant:\n%s", &got, want)
			}
		})
	}
}

// Each file in testdata/good is a set of sources with what --check-config and
// the warnings say about them.
func TestGood(t *testing.T) {
	for name, path := range archives(t, "good") {
		t.Run(name, func(t *testing.T) {
			s, want, err := parseArchive(t, path)
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			var got strings.Builder
			s.Show(&got)
			for _, w := range s.Warnings() {
				got.WriteString("warning: " + w + "\n")
			}
			if got.String() != want {
				t.Errorf("got:\n%swant:\n%s", &got, want)
			}
		})
	}
}

func archives(t *testing.T, dir string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files in testdata/%s (%v)", dir, err)
	}
	m := make(map[string]string, len(paths))
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			t.Fatal(err)
		}
		m[strings.TrimSuffix(filepath.Base(p), ".txt")] = abs
	}
	return m
}

func TestHelpAndVersion(t *testing.T) {
	for _, c := range []struct {
		args []string
		want error
	}{
		{[]string{"--help"}, ErrHelp},
		{[]string{"-help"}, ErrHelp},
		{[]string{"-h"}, ErrHelp},
		{[]string{"--version"}, ErrVersion},
		{[]string{"localhost", "--max-pps", "nonsense", "--help"}, ErrHelp},
		{[]string{"--config", "/does/not/exist", "--version"}, ErrVersion},
	} {
		s, _ := newSet()
		if err := s.Parse(c.args, nil); err != c.want {
			t.Errorf("Parse(%q) = %v, want %v", c.args, err, c.want)
		}
	}
	s, v := newSet()
	if err := s.Parse([]string{"--", "--help"}, nil); err != nil || len(v.brokers) != 1 {
		t.Errorf("--help after --: %v, brokers %q; want it to be an argument", err, v.brokers)
	}
}

func TestVariables(t *testing.T) {
	s, v := newSet()
	err := s.Parse([]string{"one", "-max-pps=20", "two", "--observe", "--interval", "1d12h", "--max-bytes", "1GB", "--family=6",
		"--broker", "three", "--", "four"}, []string{"PROG_RETENTION=90m", "PROG_LABEL= a=b \t c=d "})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(v.brokers, " "); got != "one two three four" {
		t.Errorf("brokers %q, want them in the order of the command line", got)
	}
	if got := strings.Join(v.labels, " "); got != "a=b c=d" {
		t.Errorf("labels %q, want a=b c=d", got)
	}
	if v.pps != 20 || !v.observe || v.every != 36*time.Hour || v.size != 1e9 || v.family != "6" || v.keep != 90*time.Minute {
		t.Errorf("parsed %+v", *v)
	}
	if !s.Given("interval") || s.Given("name") || s.CheckOnly() {
		t.Errorf("interval given %v, name given %v, check only %v; want true, false, false", s.Given("interval"), s.Given("name"), s.CheckOnly())
	}
}

func TestCheckOnly(t *testing.T) {
	s, _ := newSet()
	if err := s.Parse([]string{"--check-config"}, nil); err != nil || !s.CheckOnly() {
		t.Errorf("Parse = %v, CheckOnly %v; want nil, true", err, s.CheckOnly())
	}
}

// A set without a prefix reads its command line and nothing else.
func TestWithoutEnvironment(t *testing.T) {
	var name string
	s := New("prog ping", "")
	s.String(&name, "name", "nobody", "")
	if err := s.Parse(nil, []string{"_NAME=x", "NAME=y"}); err != nil || name != "nobody" || len(s.Warnings()) != 0 {
		t.Errorf("Parse = %v, name %q, warnings %q; want the default and no warning", err, name, s.Warnings())
	}
	s = New("prog ping", "")
	if err := s.Parse([]string{"--config", "x"}, nil); err == nil {
		t.Error("--config is taken although no file can have a name for these settings")
	}
}

func TestWarningsAreBounded(t *testing.T) {
	var environ []string
	for i := range 1000 {
		environ = append(environ, "PROG_"+strings.Repeat("X", i+10)+"=1")
	}
	s, _ := newSet()
	if err := s.Parse(nil, environ); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Warnings()); n != maxWarnings {
		t.Errorf("%d warnings, want %d", n, maxWarnings)
	}
}

func TestCommandLine(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("agent.conf", []byte("name n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newSet()
	if err := s.Parse([]string{"localhost", "--state-dir", "state", "--config=agent.conf", "--observe", "-max-pps", "5", "--check-config"}, []string{"PROG_INTERVAL=20s"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.CommandLine()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"--config=" + filepath.Join(dir, "agent.conf"), "--broker=localhost", "--state-dir=" + filepath.Join(dir, "state"), "--max-pps=5", "--observe=true"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("CommandLine = %q, want %q", got, want)
	}
	// The proof that it says the same: parse it again, elsewhere.
	t.Chdir(t.TempDir())
	again, v := newSet()
	if err := again.Parse(got, nil); err != nil || v.state != filepath.Join(dir, "state") || v.name != "n" {
		t.Errorf("parsed again: %v, state-dir %q, name %q", err, v.state, v.name)
	}
}

func TestUsage(t *testing.T) {
	s, _ := newSet()
	got := s.Usage()
	for _, want := range []string{
		"  --broker HOST\n        a broker, HOST or URL; repeatable\n",
		"  --name TEXT\n        name of this agent (default: the host name)\n",
		"  --max-pps N\n        packets per second, 1 to 1000 (default 50)\n",
		"  --interval DURATION\n        time between rounds, at least 10s (default 1m)\n",
		"  --retention DURATION\n        how long results are kept, at most 3650d (default 30d)\n",
		"  --observe\n        never publish\n",
		"  --family any|4|6\n",
		"  --help, --version\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("Usage lacks:\n%s", want)
		}
	}
	for line := range strings.Lines(got) {
		if len(strings.TrimSuffix(line, "\n")) > usageWidth {
			t.Errorf("line longer than %d: %q", usageWidth, line)
		}
	}
	if t.Failed() {
		t.Logf("usage:\n%s", got)
	}
}

package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"swarming/shared/wire"
)

func TestParse(t *testing.T) {
	want := wire.Watch{V: 1, Targets: []wire.Target{
		{Target: "example.com"},
		{Target: "dns", Host: "192.0.2.53", Interval: wire.Duration(30 * time.Second), Count: 3, Gap: wire.Duration(500 * time.Millisecond),
			Timeout: wire.Duration(2 * time.Second), Family: "4", Probe: "icmp", Needs: []string{"a", "b"}},
	}}
	const long = `# the swarm's targets
targets:
  - example.com
  - target: dns
    host: 192.0.2.53
    interval: 30s
    count: 3
    gap: 0.5
    timeout: 2
    family: 4
    probe: icmp
    needs: [a, b]
`
	for name, c := range map[string]struct {
		data string
		want wire.Watch
	}{
		"plain":         {"example.com  example.org # two\n\n# none\nfe80::1\n", names("example.com", "example.org", "fe80::1")},
		"plain, CRLF":   {"example.com\r\nexample.org\r\n", names("example.com", "example.org")},
		"plain, BOM":    {"\ufeffexample.com", names("example.com")},
		"YAML":          {long, want},
		"YAML, names":   {"---\ntargets: [example.com, 192.0.2.1]\n", names("example.com", "192.0.2.1")},
		"YAML, stop":    {"targets: []\n", names()},
		"JSON":          {`{"targets":["example.com",{"target":"example.org"}]}`, names("example.com", "example.org")},
		"YAML, comment": {"# hello\n\ntargets: # all\n- example.com # one\n", names("example.com")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse("list", []byte(c.data))
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Encode()) != string(c.want.Encode()) {
				t.Errorf("got  %s\nwant %s", got.Encode(), c.want.Encode())
			}
		})
	}
}

// Every mistake names its line and quotes what is wrong.
func TestParseMistakes(t *testing.T) {
	many := strings.Repeat("x", 60)
	tooLong := new(strings.Builder)
	for i := range 3000 {
		fmt.Fprintf(tooLong, "%s%04d\n", many, i)
	}
	for name, c := range map[string]struct{ data, want string }{
		"empty":             {"", `list: has no targets; a list that stops the swarm is written "targets: []"`},
		"comments only":     {"# nothing\n", `list: has no targets; a list that stops the swarm is written "targets: []"`},
		"slash":             {"example.com\na/b\n", `list:2: name "a/b" has '/': want printable characters without space, '/', '+' and '#'`},
		"control":           {"a\x1b[31m\n", `list:1: name "a\x1b[31m" has '\x1b': want printable characters without space, '/', '+' and '#'`},
		"twice":             {"a\nb a\n", `list:2: target "a" occurs twice, first in line 1`},
		"unknown key":       {"targets: []\ntarget: []\n", `list:2: unknown key "target": want "targets"`},
		"unknown field":     {"targets:\n- target: a\n  intervall: 5s\n", `list:3: unknown key "intervall": want target, host, probe, interval, count, gap, timeout, family or needs`},
		"duration":          {"targets:\n- target: a\n  gap: soon\n", `list:3: gap: duration "soon": want one like "60s"`},
		"negative":          {"targets:\n- target: a\n  gap: -5s\n", `list:3: gap: duration "-5s": want 0 to 168h0m0s`},
		"count":             {"targets:\n- target: a\n  count: 21\n", `list:3: count "21": want 1 to 20`},
		"family":            {"targets:\n- target: a\n  family: 5\n", `list:2: family "5": want any, 4, 6 or both`},
		"no name":           {"targets:\n- host: a\n", `list:2: name is empty: want 1 to 64 printable characters`},
		"key twice":         {"targets:\n- target: a\n  target: b\n", `list:3: key "target" occurs twice`},
		"targets twice":     {"targets: []\ntargets: []\n", `list:2: key "targets" occurs twice`},
		"not a list":        {"targets: a\n", `list:1: targets is "a": want a list; one that stops the swarm is written "targets: []"`},
		"nothing":           {"targets:\n", `list:1: targets is "": want a list; one that stops the swarm is written "targets: []"`},
		"list at the top":   {"- a\n", `list:1: want a mapping with the key "targets" at the top`},
		"YAML syntax":       {"targets:\n- a: b: c\n", `list:2: mapping values are not allowed in this context`},
		"two documents":     {"targets: []\n---\ntargets: []\n", `list: holds more than one YAML document: want one`},
		"rev":               {`{"v":1,"rev":5,"targets":[]}`, `list:1: key "v" is made by the collector: remove it`},
		"nested name":       {"targets:\n- [a]\n", `list:2: want a target's name or a mapping like "target: example.com"`},
		"needs":             {"targets:\n- target: a\n  needs: b\n", `list:3: needs is "b": want a list of words`},
		"structured value":  {"targets:\n- target: a\n  host: [b]\n", `list:3: "host": want one value`},
		"alias to nowhere":  {"targets:\n- *a\n", `list: unknown anchor 'a' referenced`},
		"too long":          {tooLong.String(), `list: list of 3000 targets takes 234114 bytes on the wire: want at most 204800, which is what agents accept; use fewer targets or shorter names`},
		"document, no list": {"---\n", `list:2: want a mapping with the key "targets" at the top`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("list", []byte(c.data))
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
			if _, ok := errors.AsType[*FileError](err); !ok {
				t.Errorf("%T, want *FileError", err)
			}
		})
	}
}

func TestParseArgs(t *testing.T) {
	w, err := ParseArgs([]string{"example.com", "::1"})
	if err != nil || string(w.Encode()) != string(names("example.com", "::1").Encode()) {
		t.Errorf("got %s, %v", w.Encode(), err)
	}
	if _, err := ParseArgs([]string{"a b"}); err == nil || !strings.Contains(err.Error(), `"a b"`) {
		t.Errorf("a space in a name: error %v, want it quoted", err)
	}
	if _, err := ParseArgs([]string{"a", "a"}); err == nil || err.Error() != `target "a" occurs twice` {
		t.Errorf("a name twice: error %v", err)
	}
}

func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "list")
	if _, err := ReadFile(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: error %v, want not exist", err)
	}
	if err := os.WriteFile(name, make([]byte, MaxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(name); err == nil || !strings.Contains(err.Error(), "is longer than") {
		t.Errorf("a file over the limit: error %v", err)
	}
}

func TestFormat(t *testing.T) {
	b := new(strings.Builder)
	w := names("example.com", "example.org")
	w.Rev, w.By = 1795000000000, "c1"
	w.Refused = []wire.Refusal{{Target: "a/b", Reason: "no"}}
	if err := Format(b, w); err != nil {
		t.Fatal(err)
	}
	const want = `rev 1795000000000 (2026-11-18T11:06:40Z) by c1
TARGET       HOST         PROBE  INTERVAL  COUNT  GAP  TIMEOUT  FAMILY  NEEDS
example.com  example.com  icmp   1m0s      5      1s   4s       any     -
example.org  example.org  icmp   1m0s      5      1s   4s       any     -
left out: "a/b": no
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b, want)
	}
}

// FuzzParse: no input panics, and what is accepted can be published and read.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a b\n", "targets: [a]", "targets:\n- target: a\n  gap: 1s\n", "{", "---\n", "? a", "targets: &a [*a]", "%YAML"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := Parse("list", data)
		if err != nil {
			return
		}
		back, ok, err := wire.DecodeWatch(w.Encode())
		if err != nil || !ok || len(back.Refused) > 0 || back.ContentHash() != w.ContentHash() {
			t.Errorf("%q was accepted, but published as %s it reads as %v %v %v", data, w.Encode(), back, ok, err)
		}
	})
}

func names(ids ...string) wire.Watch {
	w := wire.Watch{V: wire.Version}
	for _, id := range ids {
		w.Targets = append(w.Targets, wire.Target{Target: wire.TargetID(id)})
	}
	return w
}

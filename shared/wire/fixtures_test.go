package wire

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// A fixture is a file of testdata; see testdata/README.md for its form.
type fixture struct {
	name    string
	header  map[string][]string
	payload []byte
}

func (f fixture) get(name string) string {
	if v := f.header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func readFixtures(t testing.TB, dir string) []fixture {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures in testdata/%s: %v", dir, err)
	}
	fixtures := make([]fixture, len(paths))
	for i, path := range paths {
		fixtures[i] = readFixture(t, path)
	}
	return fixtures
}

func readFixture(t testing.TB, path string) fixture {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, payload, _ := bytes.Cut(b, []byte("\n\n"))
	payload, ok := bytes.CutSuffix(payload, []byte("\n"))
	if !ok {
		t.Fatalf("%s: want header lines, an empty line, a payload and a newline", path)
	}
	f := fixture{strings.TrimSuffix(filepath.Base(path), ".txt"), map[string][]string{}, payload}
	for line := range strings.SplitSeq(string(head), "\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !slices.Contains([]string{"expect", "means", "reason", "refuses", "identity", "topic"}, name) {
			t.Fatalf("%s: header line %q", path, line)
		}
		f.header[name] = append(f.header[name], strings.TrimPrefix(value, " "))
	}
	return f
}

// A reading is what one of the decoders makes of a payload.
type reading struct {
	encoded []byte // what was read, written again
	none    bool   // a watch list: there is none
	refused []Refusal
	id      ID // of a result
	err     error
}

// readers are the decoders, by the directory of their fixtures.
var readers = map[string]func(topic string, payload []byte) reading{
	"result": func(_ string, p []byte) reading {
		r, err := DecodeResult(p)
		return reading{encoded: r.Append(nil), id: r.ID(), err: err}
	},
	"legacy": func(topic string, p []byte) reading {
		r, err := DecodeLegacy(topic, p)
		return reading{encoded: r.Append(nil), err: err}
	},
	"watch": func(_ string, p []byte) reading {
		w, ok, err := DecodeWatch(p)
		return reading{encoded: w.Encode(), none: !ok && err == nil, refused: w.Refused, err: err}
	},
	"ack": func(_ string, p []byte) reading {
		a, err := DecodeAck(p)
		return reading{encoded: a.Encode(), err: err}
	},
	"rip": func(_ string, p []byte) reading {
		r, err := DecodeRip(p)
		return reading{encoded: r.Encode(), err: err}
	},
	"live_agent": func(_ string, p []byte) reading {
		l, err := DecodeLiveAgent(p)
		return reading{encoded: l.Encode(), err: err}
	},
	"live_collector": func(_ string, p []byte) reading {
		l, err := DecodeLiveCollector(p)
		return reading{encoded: l.Encode(), err: err}
	},
}

func TestFixtures(t *testing.T) {
	for dir, read := range readers {
		for _, f := range readFixtures(t, dir) {
			t.Run(dir+"/"+f.name, func(t *testing.T) {
				payload := bytes.Clone(f.payload)
				got := read(f.get("topic"), payload)
				if !bytes.Equal(payload, f.payload) {
					t.Error("the decoder changed its input")
				}
				switch expect := f.get("expect"); expect {
				case "ok":
					wantOK(t, f, got, read)
				case "none":
					if got.err != nil || !got.none {
						t.Errorf("got %s, %v: want no list and no error", got.encoded, got.err)
					}
				case "refused":
					wantRefused(t, f, got)
				default:
					t.Errorf("expect: %q", expect)
				}
			})
		}
	}
}

func wantOK(t *testing.T, f fixture, got reading, read func(string, []byte) reading) {
	t.Helper()
	if got.err != nil || got.none {
		t.Fatalf("none %v, error %v", got.none, got.err)
	}
	if want := f.header["means"]; want == nil {
		return
	} else if string(got.encoded) != want[0] {
		t.Errorf("read  %s\nmeans %s", got.encoded, want[0])
	}
	var refused []string
	for _, r := range got.refused {
		refused = append(refused, string(r.Target))
		if r.Reason == "" {
			t.Errorf("%q is refused without a reason", r.Target)
		}
	}
	if want := f.header["refuses"]; !slices.Equal(refused, want) {
		t.Errorf("left out %q, want %q", refused, want)
	}
	if f.header["topic"] != nil {
		return // what was published in 2014 is only read
	}
	again := read("", got.encoded)
	if again.err != nil || !bytes.Equal(again.encoded, got.encoded) {
		t.Errorf("written and read again it is %s, %v", again.encoded, again.err)
	}
}

func wantRefused(t *testing.T, f fixture, got reading) {
	t.Helper()
	if got.err == nil {
		t.Fatalf("read as %s", got.encoded)
	}
	if want := Reason(f.get("reason")); ReasonOf(got.err) != want {
		t.Errorf("refused for %q, want %q: %v", ReasonOf(got.err), want, got.err)
	}
	if err := checkErrorText(got.err); err != nil {
		t.Error(err)
	}
	id := ""
	if got.id.Valid() {
		id = fmt.Sprintf("%s %s %d", got.id.Agent, got.id.Boot, got.id.Seq)
	}
	if want := f.get("identity"); id != want {
		t.Errorf("identity %q, want %q", id, want)
	}
}

// checkErrorText says why the text of err cannot be a line of a log.
func checkErrorText(err error) error {
	s := err.Error()
	switch {
	case len(s) >= 600:
		return fmt.Errorf("error text of %d bytes: %.100q…", len(s), s)
	case !utf8.ValidString(s) || !printable(s):
		return fmt.Errorf("error text is not one printable line: %q", s)
	case !errors.As(err, new(*Error)):
		return fmt.Errorf("error is a %T, want an *Error", err)
	}
	return nil
}

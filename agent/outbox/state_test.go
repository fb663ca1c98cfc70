package outbox

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/wire"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// saved leaves a state file of boot b1 with a result of each kind: 1 is
// confirmed, 2 published, 3 and 4 neither.
func saved(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "outbox")
	o := New(Options{Agent: agent, Boot: "b1", StateFile: file})
	add(o, 4)
	it, _, _ := o.Next()
	o.Confirmed(it)
	o.Next()
	if err := o.Save(); err != nil {
		t.Fatal(err)
	}
	return file
}

func load(t *testing.T, opts Options) *Outbox {
	t.Helper()
	o := New(opts)
	if err := o.Load(); err != nil {
		t.Fatal(err)
	}
	check(t, o)
	return o
}

func TestStateRoundTrip(t *testing.T) {
	file := saved(t)
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Fatalf("state file: %v, %v: want mode 0600", info.Mode(), err)
	}
	want(t, "temporary file exists", exists(file+".tmp"), false)

	o := load(t, Options{Agent: agent, Boot: boot, StateFile: file})
	s := o.Stats()
	want(t, "pending, unsent, awaiting", []any{s.Pending, s.Unsent, s.Awaiting}, []any{4, 3, 1})
	add(o, 1)
	want(t, "removed: only what was published", o.Ack(ack("b1", wire.Range{1, 4})), 2)
	want(t, "removed of this boot", o.Ack(ack(boot, wire.Range{1, 4})), 0)
	check(t, o)

	o.Begin()
	o.Drain()
	var ids []wire.ID
	for {
		it, _, ok := o.Next()
		if !ok {
			break
		}
		r := decode(t, it)
		ids = append(ids, r.ID())
		o.Confirmed(it)
	}
	want(t, "published", ids, []wire.ID{{Agent: agent, Boot: "b1", Seq: 3}, {Agent: agent, Boot: "b1", Seq: 4}, {Agent: agent, Boot: boot, Seq: 1}})
	want(t, "removed", o.Ack(ack("b1", wire.Range{3, 3})), 1)
	want(t, "file exists while one is left", exists(file), true)
	want(t, "removed", o.Ack(ack("b1", wire.Range{4, 4})), 1)
	want(t, "file exists when all are acknowledged", exists(file), false)
	want(t, "pending", o.Stats().Pending, 1)
	check(t, o)
}

// What is left goes on through any number of lives, oldest first.
func TestStateOfManyBoots(t *testing.T) {
	file := filepath.Join(t.TempDir(), "outbox")
	for _, b := range []wire.Boot{"b1", "b3", "b2"} {
		o := load(t, Options{Agent: agent, Boot: b, StateFile: file})
		add(o, 2)
		if err := o.Save(); err != nil {
			t.Fatal(err)
		}
	}
	o := load(t, Options{Agent: agent, Boot: "b0", StateFile: file})
	add(o, 1)
	o.Drain()
	var got []string
	for {
		it, _, ok := o.Next()
		if !ok {
			break
		}
		got = append(got, string(decode(t, it).Boot))
	}
	want(t, "boots", got[1:], "[b1 b1 b3 b3 b2 b2]") // b0 had its turn first: it is fresh
	removed := o.Ack(wire.Ack{Agent: agent, By: "c1", Boots: map[wire.Boot][]wire.Range{"b3": {{2, 9}}, "b1": {{1, 1}}, "b0": {{1, 1}}}})
	want(t, "removed", removed, 3)
	check(t, o)
}

// What was measured before the file was read is still the newest.
func TestLoadAfterAdd(t *testing.T) {
	file := saved(t)
	o := New(Options{Agent: agent, Boot: boot, StateFile: file, MaxResults: 4})
	add(o, 2)
	if err := o.Load(); err != nil {
		t.Fatal(err)
	}
	check(t, o)
	o.Begin()
	o.Drain()
	want(t, "published", publish(t, o), []uint64{3, 4, 1, 2})
}

// Loaded results that are overwritten are no reason to keep the file.
func TestStateFileGoesWithItsResults(t *testing.T) {
	file := saved(t)
	o := load(t, Options{Agent: agent, Boot: boot, StateFile: file, MaxResults: 4})
	add(o, 3)
	want(t, "file exists", exists(file), true)
	add(o, 1)
	want(t, "file exists", exists(file), false)
	s := o.Stats()
	want(t, "lost, unconfirmed", []any{s.Lost, s.Unconfirmed}, []any{3, 1})
}

func TestNothingToSave(t *testing.T) {
	file := saved(t)
	o := load(t, Options{Agent: agent, Boot: boot, StateFile: file})
	o.Drain()
	publish(t, o)
	o.Ack(ack("b1", wire.Range{1, 4}))
	if err := o.Save(); err != nil {
		t.Fatal(err)
	}
	want(t, "file exists", exists(file), false)
	if err := New(Options{Agent: agent, Boot: boot}).Save(); err != nil {
		t.Error("without a state file:", err)
	}
	if err := New(Options{Agent: agent, Boot: boot}).Load(); err != nil {
		t.Error("without a state file:", err)
	}
}

// A failed save tells, and leaves the old file as it was.
func TestSaveFails(t *testing.T) {
	file := saved(t)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o := load(t, Options{Agent: agent, Boot: boot, StateFile: file})
	if err := os.Mkdir(file+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := o.Save(); err == nil || !strings.Contains(err.Error(), "save outbox: ") {
		t.Errorf("error %v: want one that says what failed", err)
	}
	after, _ := os.ReadFile(file)
	want(t, "file is unchanged", bytes.Equal(before, after), true)
}

func TestLoadIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "outbox")
	o := New(Options{Agent: agent, Boot: "b1", StateFile: file})
	add(o, 30)
	publish(t, o)
	add(o, 70)
	if err := o.Save(); err != nil {
		t.Fatal(err)
	}
	o = load(t, Options{Agent: agent, Boot: boot, StateFile: file, MaxResults: 10})
	s := o.Stats()
	want(t, "pending, unconfirmed, lost", []any{s.Pending, s.Unconfirmed, s.Lost}, []any{10, 30, 60})
	want(t, "oldest", o.order[0].seq, 91)
	o = load(t, Options{Agent: agent, Boot: boot, StateFile: file, MaxBytes: 5000})
	if n := o.Stats().Pending; n < 5 || n > 15 {
		t.Errorf("%d results in 5000 bytes", n)
	}
}

func TestUnusableStateFile(t *testing.T) {
	good, err := os.ReadFile(saved(t))
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("the state file has no %q", old)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	for _, c := range []struct {
		name string
		file []byte
		boot wire.Boot
		want string // in the warning
	}{
		{"empty", nil, boot, "read header: EOF"},
		{"cut", good[:len(good)-100], boot, "read result 4: EOF"},
		{"a line less", bytes.TrimSuffix(good, lines[4]), boot, "3 results with checksum"},
		{"a bit flipped", replace("12.789", "12.788"), boot, "with checksum"},
		{"zeros", make([]byte, len(good)), boot, "read header"},
		{"endless line", bytes.Repeat([]byte("x"), 1<<20), boot, "read header: bufio: buffer full"},
		{"newer", replace(`{"v":1`, `{"v":2`), boot, "a newer one is needed"},
		{"no version", replace(`{"v":1`, `{"w":1`), boot, "version 0"},
		{"another agent's", replace(`"agent":"garage-pi"`, `"agent":"attic-pi"`), boot, `results of agent "attic-pi"`},
		{"another agent's result", replace(`c {"v":1,"agent":"garage-pi"`, `c {"v":1,"agent":"attic-pi"`), boot, `result of agent "attic-pi"`},
		{"this boot's", good, "b1", "want one of an earlier boot"},
		{"out of order", bytes.Join([][]byte{lines[0], lines[2], lines[1], lines[3], lines[4]}, nil), boot, "seq 1 is out of order"},
		{"unknown mark", replace("\nn ", "\nx "), boot, "unknown mark 'x'"},
		{"no mark", replace("\nn ", "\n"), boot, "want a mark and a result"},
		{"no result", replace("\nn {", "\nn ["), boot, "read result: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "outbox")
			if err := os.WriteFile(file, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			o := load(t, Options{Agent: agent, Boot: c.boot, StateFile: file, Log: slog.New(slog.NewTextHandler(&log, nil))})
			want(t, "pending", o.Stats().Pending, 0)
			aside, err := os.ReadFile(file + asideSuffix)
			if err != nil || !bytes.Equal(aside, c.file) || exists(file) {
				t.Errorf("the file was not renamed aside as it was: %v", err)
			}
			line := strings.ReplaceAll(log.String(), `\"`, `"`)
			if strings.Count(line, "\n") != 1 || !strings.Contains(line, c.want) {
				t.Errorf("logged %swant one line with %q", line, c.want)
			}
			add(o, 1) // and life goes on
			want(t, "published", publish(t, o), []uint64{1})
		})
	}
}

// A resend of what was confirmed before the restart waits for a collector and
// the grace, like any other.
func TestLoadedAreResent(t *testing.T) {
	file := saved(t)
	synctest.Test(t, func(t *testing.T) {
		o := load(t, Options{Agent: agent, Boot: boot, StateFile: file, Rand: func() float64 { return 0 }})
		o.Begin()
		r := &rig{t: t, o: o}
		want(t, "published", r.run(2*time.Second, false), [][]uint64{{2, 3, 4}, nil})
		o.Heard()
		want(t, "published", r.run(10*time.Second, false)[8][0], 1)
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("{\"v\":1,\"agent\":\"garage-pi\",\"results\":0,\"crc32\":0}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := loader{agent: agent, own: boot, maxResults: 10, maxBytes: 10_000, lives: map[wire.Boot]*life{}}
		err := s.read(bytes.NewReader(b))
		if err == nil && len(s.entries) > 10 {
			t.Errorf("%d results: want at most 10", len(s.entries))
		}
	})
}

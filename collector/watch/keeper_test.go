package watch

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/wire"
)

// A desk is a Keeper at work in a synctest bubble, with one broker that stores
// and sends back what is published.
type desk struct {
	k      *Keeper
	log    *logBuffer
	mu     sync.Mutex
	stored []byte
	lists  int // published
	stop   func()
}

// open starts a Keeper on dir, whose watch file is dir/list if it has one.
// stored is what the broker shows.
func open(t *testing.T, dir string, stored []byte) *desk {
	t.Helper()
	d := &desk{log: new(logBuffer), stored: stored}
	echo := make(chan []byte, 100)
	opts := Options{
		Dir: dir, Name: "me", Brokers: []string{"one:1883"}, Log: slog.New(slog.NewTextHandler(d.log, nil)),
		Publish: func(_ int, payload []byte) {
			d.mu.Lock()
			d.stored = payload
			d.lists++
			d.mu.Unlock()
			echo <- payload
		},
	}
	if _, err := os.Stat(filepath.Join(dir, "list")); err == nil {
		opts.File = filepath.Join(dir, "list")
	}
	d.k = New(opts)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.k.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	running.Go(func() {
		for {
			select {
			case payload := <-echo:
				d.k.Message(0, payload, false)
			case <-ctx.Done():
				return
			}
		}
	})
	d.stop = func() { cancel(); running.Wait() }
	t.Cleanup(d.stop)
	synctest.Wait()
	if stored != nil {
		d.k.Message(0, stored, true)
	}
	d.k.Subscribed(0)
	after(5 * time.Second)
	return d
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (d *desk) shows(t *testing.T, want string) wire.Watch {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	w, ok, err := wire.DecodeWatch(d.stored)
	if err != nil || ok != (want != "") || ids(w) != want {
		t.Fatalf("the broker shows %q, %v: want %s", d.stored, err, want)
	}
	return w
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		write(t, dir, "a b\n")
		d := open(t, dir, nil)
		first := d.shows(t, "a,b")
		if first.By != "me" || first.Rev != d.k.Rev() || first.Rev == 0 {
			t.Errorf("the broker shows %+v", first)
		}
		write(t, dir, "a b c\n")
		after(5 * time.Second)
		if second := d.shows(t, "a,b,c"); second.Rev <= first.Rev {
			t.Errorf("rev %d after %d", second.Rev, first.Rev)
		}

		// One that is written slowly is taken when it is done.
		for _, text := range []string{"x", "x y", "x y z", "x y z long"} {
			write(t, dir, text)
			after(pollEvery)
			d.shows(t, "a,b,c")
		}
		after(2 * pollEvery)
		d.shows(t, "x,y,z,long")

		// A bad one is reported, once, and the list stays.
		write(t, dir, "x\ny/y\n")
		after(time.Minute)
		d.shows(t, "x,y,z,long")
		st := d.k.Stats()
		if !strings.HasSuffix(st.FileError, `list:2: name "y/y" has '/': want printable characters without space, '/', '+' and '#'`) || st.FailedAt.IsZero() {
			t.Errorf("error shown: %q", st.FileError)
		}
		if n := strings.Count(d.log.String(), "watch file cannot be used"); n != 1 {
			t.Errorf("%d lines about it, want 1", n)
		}
		if err := os.Remove(filepath.Join(dir, "list")); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		d.shows(t, "x,y,z,long")
		if st := d.k.Stats(); !strings.Contains(st.FileError, "no such file") && !strings.Contains(st.FileError, "cannot find") {
			t.Errorf("error shown: %q", st.FileError)
		}

		// Good again, and the same as before: nothing to publish.
		lists := d.lists
		write(t, dir, "targets: [x, y, z, long]\n")
		after(5 * time.Second)
		if st := d.k.Stats(); st.FileError != "" || d.lists != lists || st.Source != "file" || st.Brokers[0].Shows != "ours" || st.Targets != 4 {
			t.Errorf("after it was mended: %+v, %d more lists", st, d.lists-lists)
		}
	})
}

// A restart repeats list and rev; a file that changed meanwhile is a change.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		write(t, dir, "a b\n")
		d := open(t, dir, nil)
		rev := d.k.Rev()
		d.stop()

		d = open(t, dir, nil) // the broker was killed and has forgotten
		if got := d.shows(t, "a,b").Rev; got != rev {
			t.Errorf("rev %d after a restart, want %d again", got, rev)
		}
		d.stop()

		d = open(t, dir, ranked(rev+5000, "other", "other"))
		d.shows(t, "other") // made later, and our file has not changed
		if c := d.k.Stats().Conflict; c == nil || c.By != "other" || c.Broker != "one:1883" {
			t.Errorf("conflict %+v", c)
		}
		d.stop()

		write(t, dir, "changed\n")
		d = open(t, dir, ranked(rev+5000, "other", "other"))
		if got := d.shows(t, "changed").Rev; got <= rev+5000 {
			t.Errorf("rev %d, want one above %d", got, rev+5000)
		}
		d.stop()

		// Without the file it follows.
		if err := os.Remove(filepath.Join(dir, "list")); err != nil {
			t.Fatal(err)
		}
		d = open(t, dir, nil)
		d.shows(t, "changed")
		d.k.Message(0, []byte("by.hand"), false)
		after(5 * time.Second)
		d.shows(t, "by.hand")
		if st := d.k.Stats(); st.Source != "followed" {
			t.Errorf("source %q", st.Source)
		}
		d.stop()
		d = open(t, dir, nil)
		d.shows(t, "by.hand")
	})
}

// A state file that is rubbish is no list and no reason to stop.
func TestBrokenState(t *testing.T) {
	for _, text := range []string{"", "{", `{"rev":1,"payload":"{"}`, `{"rev":1,"payload":""}`, `{"rev":1,"payload":"x"}`, "\x00\x01"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			d := open(t, dir, nil)
			d.shows(t, "")
			if _, ok := d.k.List(); ok || d.k.Rev() != 0 {
				t.Errorf("state %q gives a list", text)
			}
			d.k.Message(0, ranked(5, "other", "x"), false)
			after(time.Second)
			d.stop()
			if l, _, err := loadState(dir); err != nil || l == nil || l.rev != 5 {
				t.Errorf("state %q was not replaced: %v, %v", text, l, err)
			}
		})
	}
}

// What cannot be saved is said once, and saved when it can be.
func TestStateCannotBeSaved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	synctest.Test(t, func(t *testing.T) {
		d := open(t, dir, ranked(5, "other", "x"))
		after(time.Minute)
		if n := strings.Count(d.log.String(), "cannot be saved"); n != 1 {
			t.Errorf("%d lines, want 1:\n%s", n, d.log)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		if l, owned, err := loadState(dir); err != nil || l == nil || l.rev != 5 || owned {
			t.Errorf("saved %v, %v, %v", l, owned, err)
		}
	})
}

// What brokers say before the state has been read is judged after it.
func TestBrokersAreQuickerThanTheDisk(t *testing.T) {
	dir := t.TempDir()
	if err := saveState(dir, newList(watchOf(1000, "me", "x"), nil), false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		shown []byte
		rev   int64
	}{{ranked(2000, "other", "y"), 2000}, {ranked(999, "other", "y"), 1000}} {
		k := New(Options{Brokers: []string{"one"}, Dir: dir, Name: "me"})
		k.Message(0, c.shown, true)
		k.Subscribed(0)
		for range 2 * maxEarly {
			k.Lost(0)
		}
		if len(k.early) != maxEarly {
			t.Errorf("%d events wait, want %d", len(k.early), maxEarly)
		}
		k.restore()
		if k.Rev() != c.rev {
			t.Errorf("holds rev %d, want %d", k.Rev(), c.rev)
		}
	}
}

func watchOf(rev int64, by string, targets ...string) wire.Watch {
	w := names(targets...)
	w.Rev, w.By = rev, by
	return w
}

// Without Publish nothing is published.
func TestObserver(t *testing.T) {
	k := New(Options{Brokers: []string{"one"}, Name: "me"})
	now := time.Now()
	k.spread.subscribed(now, 0)
	k.spread.file(now, names("x"))
	k.spread.tick(now.Add(time.Minute))
	if k.Rev() == 0 || k.Stats().Published != 0 {
		t.Errorf("rev %d, %d published", k.Rev(), k.Stats().Published)
	}
}

// A logBuffer collects log lines. Its methods may be called concurrently.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tmpfs mounts a file system of its own for a test.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		lacks(t, "needs root to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// hog fills a file system but for a few bytes.
func hog(t *testing.T, dir string, leave int64) string {
	t.Helper()
	free, err := freeSpace(dir)
	must(t, err)
	path := filepath.Join(dir, "hog")
	must(t, os.WriteFile(path, make([]byte, max(0, free-leave)), 0o600))
	return path
}

// A filler stores batches of results, which it counts, and older events, to
// fill a disk quickly.
type filler struct {
	j      *Journal
	batch  []Entry
	stored int
}

func (f *filler) results(t *testing.T) {
	t.Helper()
	appendAll(t, f.j, f.batch)
	f.stored += len(f.batch)
	refill(f.batch, 10)
}

// fill goes on until there is no space, and returns the error that says so.
func (f *filler) fill(t *testing.T) error {
	t.Helper()
	events := make([]Event, 50)
	for i := range events {
		events[i] = Event{Kind: "live", Agent: "a", Received: day.Add(-time.Hour), Detail: []byte(`"` + strings.Repeat("x", 12_000) + `"`)}
	}
	for range 500 {
		n, err := f.j.Append(t.Context(), f.batch)
		if err == nil {
			f.stored += n
			refill(f.batch, 10)
			err = f.j.AppendEvents(t.Context(), events)
		}
		if err != nil {
			wants(t, err, ErrNoSpace)
			return err
		}
	}
	t.Fatal("the disk does not fill up")
	return nil
}

// check finds everything that was stored.
func (f *filler) check(t *testing.T) {
	t.Helper()
	if n := count(t, f.j, Filter{}); n != f.stored {
		t.Errorf("%d results, want %d", n, f.stored)
	}
}

// A disk that fills up, by us or by others, costs nothing that was promised, and
// the journal goes on by itself when there is room again.
func TestDiskFull(t *testing.T) {
	for _, c := range []struct {
		name    string
		reserve int64
	}{{"with a reserve", 4 << 20}, {"without", -1}} {
		t.Run(c.name, func(t *testing.T) {
			dir := tmpfs(t, "32m")
			data := filepath.Join(dir, "data")
			j := open(t, Options{Dir: data, Reserve: c.reserve})
			defer j.Close() // before the file system goes
			f := filler{j: j, batch: entries(100, 10, 1)}
			err := f.fill(t)
			if f.stored == 0 || !j.Full() {
				t.Fatalf("stored %d, full %v", f.stored, j.Full())
			}
			free, _ := freeSpace(dir)
			t.Logf("%d results stored, then: %v; %d kB free", f.stored, err, free>>10)
			if c.reserve > 0 && free < c.reserve-(2<<20) {
				t.Errorf("%d bytes free: want the reserve of %d, or nearly so", free, c.reserve)
			}
			f.check(t)

			if c.reserve > 0 {
				// Even when the disk is full, deleting works: that is what the reserve is for.
				j.opts.MaxBytes = 4 << 20
				j.measure(t.Context(), j.store)
				must(t, j.retain(t.Context()))
				if st := j.Stats(); st.Bytes > 4<<20 || st.PrunedEvents == 0 {
					t.Errorf("stats %+v; want at most 4 MB in use", st)
				}
				must(t, j.space.check())
			} else {
				must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"))
			}
			f.results(t)

			// Others fill the rest; there may be room in the log for a batch or two.
			path := hog(t, dir, 0)
			f.fill(t)
			f.check(t)
			must(t, os.Remove(path))
			f.results(t)
			must(t, j.Close())
			j = open(t, Options{Dir: data, Reserve: c.reserve})
			defer j.Close()
			if st := j.Stats(); st.Damaged != "" || st.Results != int64(f.stored) {
				t.Errorf("opened again: %+v, want %d results", st, f.stored)
			}
		})
	}
}

// A journal on a read-only file system can be read, where SQLite's index of the
// log is not needed; otherwise the error says what to do.
func TestReadOnlyFileSystem(t *testing.T) {
	dir := tmpfs(t, "32m")
	j := open(t, Options{Dir: dir})
	fill(t, j, 2)
	killed := killedCopy(t, dir)
	must(t, j.Close())
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	ro, err := OpenReadOnly(t.Context(), dir)
	must(t, err)
	if n := count(t, ro, Filter{}); n != 2000 {
		t.Errorf("%d results, want 2000", n)
	}
	must(t, ro.Close())
	wants(t, openErr(t, dir), nil, "not writable", dir)

	dir2 := tmpfs(t, "32m")
	for _, name := range list(t, killed) {
		b, err := os.ReadFile(filepath.Join(killed, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir2, name), b, 0o640))
	}
	must(t, unix.Mount("tmpfs", dir2, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	ro, err = OpenReadOnly(t.Context(), dir2)
	if err == nil {
		// SQLite found a way by itself; then it must have found everything.
		if n := count(t, ro, Filter{}); n != 2000 {
			t.Errorf("%d results, want 2000", n)
		}
		must(t, ro.Close())
	} else if !strings.Contains(err.Error(), "copy the directory") {
		t.Errorf("error %v does not say what to do", err)
	}
	t.Log(fmt.Sprint("log without index on a read-only file system: ", err))
}

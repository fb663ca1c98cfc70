package journal

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// logged returns a logger and what it wrote so far.
func logged() (*slog.Logger, func() string) {
	var b bytes.Buffer // slog's handler locks its writes; tests read when nobody writes
	return slog.New(slog.NewTextHandler(&b, nil)), b.String
}

// lacks skips a test that cannot run on this machine; in CI that is a failure.
func lacks(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// openErr returns why a journal does not open.
func openErr(t *testing.T, dir string) error {
	t.Helper()
	j, err := Open(t.Context(), Options{Dir: dir, Reserve: -1})
	if err == nil {
		j.Close()
	}
	return err
}

// wants fails unless err is target and says every one of words.
func wants(t *testing.T, err, target error, words ...string) {
	t.Helper()
	if target != nil && !errors.Is(err, target) {
		t.Errorf("error %v, want %v", err, target)
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %v does not say %q", err, w)
		}
	}
}

// closedJournal returns the directory of a closed journal with n batches of 1000.
func closedJournal(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	fill(t, j, n)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runSQL runs SQL in a closed journal, as another program could.
func runSQL(t *testing.T, dir, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, FileName), "_pragma=busy_timeout(5000)"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedFilesAreNotTouched(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(t *testing.T) string
		err   error
		words []string
	}{
		"newer version": {func(t *testing.T) string {
			dir := closedJournal(t, 1)
			runSQL(t, dir, "PRAGMA user_version = 2")
			return dir
		}, ErrNewer, []string{"version 2", "up to 1", FileName}},
		"another program's": {func(t *testing.T) string {
			dir := t.TempDir()
			runSQL(t, dir, "PRAGMA application_id = 7; CREATE TABLE theirs (a)")
			return dir
		}, ErrForeign, []string{"0x7", FileName}},
		"some program's": {func(t *testing.T) string {
			dir := t.TempDir()
			runSQL(t, dir, "CREATE TABLE theirs (a)")
			return dir
		}, ErrForeign, nil},
		"directory": {func(t *testing.T) string {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, FileName), 0o755); err != nil {
				t.Fatal(err)
			}
			return dir
		}, nil, []string{"not a file"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := c.make(t)
			path := filepath.Join(dir, FileName)
			before, _ := os.ReadFile(path)
			wants(t, openErr(t, dir), c.err, c.words...)
			if _, err := OpenReadOnly(t.Context(), dir); err == nil || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("open for reading: %v, want %v", err, c.err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
			if olds, _ := filepath.Glob(path + ".*"); len(olds) > 0 {
				t.Errorf("%q beside it", olds)
			}
		})
	}
}

// The version may stand only in the write-ahead log of a newer program that was
// killed.
func TestNewerVersionInTheLog(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	run(t, j, "PRAGMA user_version = 2")
	wants(t, openErr(t, killedCopy(t, dir)), ErrNewer)
}

// killedCopy returns a directory with what a killed process would leave of the
// open journal in dir: the file and the log.
func killedCopy(t *testing.T, dir string) string {
	t.Helper()
	killed := t.TempDir()
	for _, name := range []string{FileName, FileName + "-wal"} {
		// Not by this process: when it closes the file, SQLite's own locks on it are gone.
		b, err := exec.Command("cat", filepath.Join(dir, name)).Output()
		if err != nil {
			lacks(t, "needs cat to read a file from another process: %v", err)
		}
		if err := os.WriteFile(filepath.Join(killed, name), b, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return killed
}

func TestDirectory(t *testing.T) {
	wants(t, openErr(t, ""), nil, "no directory")

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wants(t, openErr(t, filepath.Join(file, "data")), nil, "make directory", file)

	if _, err := OpenReadOnly(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("read an empty directory: %v, want a hint at --data", err)
	}
}

func TestOneCollectorAtATime(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	wants(t, openErr(t, dir), ErrInUse, dir, fmt.Sprint(os.Getpid()))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openErr(t, dir); err != nil {
		t.Errorf("after the first has closed: %v", err)
	}
}

// damage overwrites length bytes from offset.
func damage(t *testing.T, path string, offset int64, length int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, length), offset); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedFileIsRenamed(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"not a database": func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("all work and no play\n"), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"header": func(t *testing.T, path string) { damage(t, path, 0, 100) },
		"schema": func(t *testing.T, path string) { damage(t, path, 100, 3900) },
		"pages":  func(t *testing.T, path string) { damage(t, path, 40*4096, 10*4096) },
		"cut": func(t *testing.T, path string) {
			if err := os.Truncate(path, 20*4096+17); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := closedJournal(t, 5)
			path := filepath.Join(dir, FileName)
			spoil(t, path)
			spoilt, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			log, text := logged()
			j := open(t, Options{Dir: dir, Log: log})
			st := j.Stats()
			if kept, err := os.ReadFile(st.Damaged); err != nil || !bytes.Equal(kept, spoilt) {
				t.Errorf("kept in %q: %v, %d bytes, want the %d of the damaged file", st.Damaged, err, len(kept), len(spoilt))
			}
			if !strings.Contains(text(), "level=ERROR") || !strings.Contains(text(), st.Damaged) {
				t.Errorf("log is not loud: %s", text())
			}
			if n, err := j.Append(t.Context(), entries(1, 10, 1)); err != nil || n != 10 {
				t.Errorf("stored %d in the new file: %v", n, err)
			}
		})
	}
}

// A file that is empty, or holds nothing yet, is what a crash at the first start
// leaves, and no damage.
func TestUnfinishedFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := openErr(t, dir); err != nil {
		t.Errorf("empty file: %v", err)
	}
	dir = t.TempDir()
	runSQL(t, dir, "PRAGMA journal_mode = WAL")
	j := open(t, Options{Dir: dir})
	if st := j.Stats(); st.Damaged != "" {
		t.Errorf("a file without tables counts as damaged: %s", st.Damaged)
	}
}

func TestDamagedFilesDoNotFillTheDisk(t *testing.T) {
	dir := closedJournal(t, 1)
	path := filepath.Join(dir, FileName)
	for i := range maxAside {
		if err := os.WriteFile(fmt.Sprintf("%s.damaged-2026112%dT100000.000Z", path, i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage(t, path, 0, 100)
	wants(t, openErr(t, dir), nil, "move them away", dir)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// spoilOpenFile damages what a running journal reads next: its file behind its
// back, once the log has been moved into it and the caches are cold.
func spoilOpenFile(t *testing.T, j *Journal) {
	t.Helper()
	run(t, j, "PRAGMA wal_checkpoint(TRUNCATE)")
	run(t, j, "PRAGMA shrink_memory")
	// The process must not open the file itself: closing it would drop SQLite's locks.
	cmd := exec.Command("dd", "if=/dev/urandom", "of="+j.path, "bs=4096", "seek=1", "count=400", "conv=notrunc")
	if out, err := cmd.CombinedOutput(); err != nil {
		lacks(t, "needs dd to damage a file from another process: %v: %s", err, out)
	}
	// What a connection has cached it does not read again, so new ones.
	j.mu.Lock()
	defer j.mu.Unlock()
	j.store.rdb.Close()
	if err := j.store.openReaders(j.path, readerParams); err != nil {
		t.Fatal(err)
	}
}

// Damage that shows while the journal is in use: an exporter that was reading
// goes on with higher ids, and is told what it missed.
func TestDamageAtRunTime(t *testing.T) {
	log, text := logged()
	j := open(t, Options{Log: log})
	fill(t, j, 5)
	if err := j.SetCursor(t.Context(), "exporter", 4000); err != nil {
		t.Fatal(err)
	}
	spoilOpenFile(t, j)
	if _, err := j.ResultsAfter(t.Context(), 0, 1000); err == nil {
		t.Fatal("damaged pages were read")
	}
	if n, err := j.Append(t.Context(), entries(1, 10, 1)); err != nil || n != 10 {
		t.Fatalf("stored %d in the new file: %v", n, err)
	}
	st := j.Stats()
	if st.Damaged == "" || !strings.Contains(text(), st.Damaged) {
		t.Errorf("damaged file is in %q; log: %s", st.Damaged, text())
	}
	rows, err := j.ResultsAfter(t.Context(), 4000, 100)
	if err != nil || len(rows) != 10 || rows[0].ID != 5001 {
		t.Errorf("%d rows, %v; want 10 from id 5001", len(rows), err)
	}
	if id, err := j.Cursor(t.Context(), "exporter"); err != nil || id != 4000 {
		t.Errorf("cursor %d, %v; want 4000", id, err)
	}
	if c := st.Cursors; len(c) != 1 || c[0].Lost != 1000 || c[0].Lag != 10 {
		t.Errorf("cursors %+v; want 1000 lost, 10 to come", c)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, Options{Dir: j.opts.Dir})
	if st := j.Stats(); len(st.Cursors) != 1 || st.Cursors[0].Lost != 1000 || st.Results != 10 {
		t.Errorf("opened again: %+v; want 1000 lost, 10 results", st)
	}
}

func TestDamageMetByAppend(t *testing.T) {
	j := open(t, Options{})
	fill(t, j, 5)
	run(t, j, "PRAGMA wal_checkpoint(TRUNCATE)")
	// A page of the schema that sqlite refuses to use, written by the journal's own connection.
	run(t, j, "PRAGMA writable_schema = ON")
	run(t, j, "UPDATE sqlite_schema SET rootpage = 99999 WHERE name = 'results'")
	run(t, j, "PRAGMA writable_schema = RESET")
	n, err := j.Append(t.Context(), entries(1, 10, 100))
	if err != nil || n != 10 {
		t.Fatalf("stored %d: %v", n, err)
	}
	if st := j.Stats(); st.Damaged == "" || st.Results != 10 {
		t.Errorf("stats %+v; want a damaged file aside and 10 results", st)
	}
}

func TestRemovedFileIsBegunAgain(t *testing.T) {
	log, text := logged()
	dir := filepath.Join(t.TempDir(), "data")
	j := open(t, Options{Dir: dir, Log: log})
	fill(t, j, 1)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := j.checkRemoved(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := j.Append(t.Context(), entries(1, 10, 1)); err != nil || n != 10 {
		t.Fatalf("stored %d: %v", n, err)
	}
	if !strings.Contains(text(), "removed while in use") {
		t.Errorf("log: %s", text())
	}
	wants(t, openErr(t, dir), ErrInUse)
	ro, err := OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	if rows, err := ro.ResultsAfter(t.Context(), 0, 100); err != nil || len(rows) != 10 || rows[0].ID != 1001 {
		t.Errorf("%d rows, %v; want 10 from id 1001", len(rows), err)
	}
	if err := j.checkRemoved(t.Context()); err != nil || strings.Count(text(), "removed") != 1 {
		t.Errorf("removed twice? %v: %s", err, text())
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	fill(t, j, 2)
	check := func(state string, want int) {
		t.Helper()
		ro, err := OpenReadOnly(t.Context(), dir)
		if err != nil {
			t.Fatalf("%s: %v", state, err)
		}
		defer ro.Close()
		if n := count(t, ro, Filter{}); n != want {
			t.Errorf("%s: %d results, want %d", state, n, want)
		}
		if st := ro.Stats(); st.Results != int64(want) || st.Bytes == 0 {
			t.Errorf("%s: stats %+v", state, st)
		}
		_, err = ro.Append(t.Context(), entries(1, 1, 1))
		for _, err := range []error{err, ro.SetCursor(t.Context(), "c", 1), ro.AppendEvents(t.Context(), []Event{{Kind: "live"}})} {
			wants(t, err, ErrReadOnly)
		}
		if id, err := ro.Cursor(t.Context(), "c"); id != 0 || err != nil {
			t.Errorf("%s: cursor %d, %v", state, id, err)
		}
	}
	check("running", 2000)
	fill(t, j, 3) // the first two are duplicates
	check("running on", 3000)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	check("stopped", 3000)
	j = open(t, Options{Dir: dir})
	fill(t, j, 4)
	check("started after having been read", 4000)
}

func count(t testing.TB, j *Journal, f Filter) (n int) {
	t.Helper()
	for _, err := range j.Results(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// A collector that was killed leaves a log, and perhaps no index of it.
func TestReadAfterKill(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	fill(t, j, 2)
	killed := killedCopy(t, dir)
	for range 2 {
		ro, err := OpenReadOnly(context.Background(), killed)
		if err != nil {
			t.Fatal(err)
		}
		if n := count(t, ro, Filter{}); n != 2000 {
			t.Errorf("%d results, want 2000", n)
		}
		ro.Close()
	}
	j = open(t, Options{Dir: killed})
	if n := count(t, j, Filter{}); n != 2000 {
		t.Errorf("%d results for the next collector, want 2000", n)
	}
}

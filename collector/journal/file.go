package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	lockName  = "journal.lock"
	dirMode   = 0o750
	checkTime = 5 * time.Second // how long the file is checked when opened
)

var (
	// ErrNewer says that the file was written by a newer collector. It was not touched.
	ErrNewer = errors.New("journal was written by a newer version of this program")
	// ErrForeign says that the file is another program's database. It was not touched.
	ErrForeign = errors.New("file is another program's database")
	// ErrInUse says that another collector writes to the directory.
	ErrInUse = errors.New("journal is in use by another collector")
)

// lockDir makes dir if it is missing and takes its lock, which ends when the
// returned file is closed.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("make directory of the journal: %w", err)
	}
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("directory of the journal is not writable: %w", err)
	}
	held, err := lockFile(f)
	switch {
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("lock %q: %w", path, err)
	case held:
		pid := make([]byte, 20)
		n, _ := f.ReadAt(pid, 0)
		f.Close()
		return nil, fmt.Errorf("%w: %q is locked by process %s: stop it, or give each collector a directory of its own", ErrInUse, path, strings.TrimSpace(string(pid[:n])))
	}
	// For the message above, in the other process.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return f, nil
}

// dsn returns what opens path with the given parameters.
func dsn(path, params string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	p := filepath.ToSlash(abs)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // C:/…
	}
	return (&url.URL{Scheme: "file", Path: p}).String() + "?" + params
}

// inspect looks at a file before anything is written to it. fresh means that
// there is nothing in it yet.
func inspect(ctx context.Context, path string) (fresh bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%q is not a file", path)
	case info.Size() == 0:
		return true, nil
	}
	db, err := sql.Open("sqlite", dsn(path, "mode=ro&_pragma=busy_timeout(5000)"))
	if err != nil {
		return false, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if fresh, err = identify(ctx, db, path); fresh || err != nil {
		return fresh, err
	}
	return false, quickCheck(ctx, db)
}

// identify tells whose database it is, and of which version.
func identify(ctx context.Context, db *sql.DB, path string) (fresh bool, err error) {
	var app, version int64
	var tables int
	for _, q := range []struct {
		sql  string
		dest any
	}{{"PRAGMA application_id", &app}, {"PRAGMA user_version", &version}, {"SELECT count(*) FROM sqlite_schema", &tables}} {
		if err := db.QueryRowContext(ctx, q.sql).Scan(q.dest); err != nil {
			return false, err
		}
	}
	switch {
	case app == 0 && version == 0 && tables == 0:
		return true, nil // begun, but never finished
	case app != applicationID:
		return false, fmt.Errorf("%w: %q has application id %#x: want %#x; give the collector a directory of its own", ErrForeign, path, uint32(app), applicationID)
	case version > schemaVersion:
		return false, fmt.Errorf("%w: %q has version %d: this one knows up to %d; use the newer program, or another directory", ErrNewer, path, version, schemaVersion)
	}
	return false, nil
}

// quickCheck looks for damage, for a while: a journal of many gigabytes takes
// minutes, and what is not found now is found when it is read.
func quickCheck(ctx context.Context, db *sql.DB) error {
	limited, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var answer string
	err := db.QueryRowContext(limited, "PRAGMA quick_check(1)").Scan(&answer)
	switch {
	case limited.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case answer != "ok":
		return fmt.Errorf("%w: %s", errDamaged, answer)
	}
	return nil
}

// primaryCode returns SQLite's result code without its extension, or 0.
func primaryCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return sqlite3.SQLITE_OK
}

func isDamage(err error) bool {
	c := primaryCode(err)
	return c == sqlite3.SQLITE_CORRUPT || c == sqlite3.SQLITE_NOTADB || errors.Is(err, errDamaged)
}

package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	sqlite3 "modernc.org/sqlite/lib"
)

// Settings of SQLite for the one connection that writes.
//   - auto_vacuum 2 (incremental): retention can give space back.
//   - wal_autocheckpoint in pages: 16 MB of log, because moving a page back to
//     its place costs a sync each time, and busy pages are then moved once for
//     many commits. journal_size_limit: what a slow reader let grow is cut again.
//   - fullfsync is for macOS, where a plain fsync does not reach the disk.
const writerParams = "_auto_vacuum=2&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
	"&_pragma=wal_autocheckpoint(4000)&_pragma=journal_size_limit(33554432)&_pragma=cache_size(-16384)" +
	"&_pragma=fullfsync(1)&_pragma=checkpoint_fullfsync(1)&_pragma=temp_store(MEMORY)&_pragma=trusted_schema(0)"

// Settings for the connections that read.
const (
	readerParams = "mode=ro&_pragma=busy_timeout(5000)&_pragma=cache_size(-4096)&_pragma=trusted_schema(0)"
	maxReaders   = 4
)

// A store is one open file. The part that writes is used by one caller at a
// time, which Journal ensures.
type store struct {
	path string
	rdb  *sql.DB // readers

	wdb   *sql.DB // these four are nil in a store that only reads
	conn  *sql.Conn
	stmts statements
	boots map[bootKey]*bootRow // the two tables' rows lately used, at most maxCached each
	words map[string]*wordRow

	names names // what readers know

	mu      sync.Mutex
	results extent
	events  extent
	cursors map[string]cursor
}

// An extent is the ids that a table holds. Rows are only ever added at the end
// and deleted at the front, so it has no gaps.
type extent struct{ first, last int64 } // first is last+1 if there are none

func (e extent) count() int64 { return e.last - e.first + 1 }

// statements are prepared once on the writing connection.
type statements struct {
	all []*sql.Stmt

	result, event, agent                *sql.Stmt
	findBoot, addBoot, setBoot, useBoot *sql.Stmt
	findWord, addWord, useWord          *sql.Stmt
	oldResults, oldEvents               *sql.Stmt
	cutResults, cutEvents               *sql.Stmt
	cutBoots, cutWords, cutAgents       *sql.Stmt
	setCursor, cutCursor                *sql.Stmt
}

// openStore opens a file for writing, and makes it if fresh.
func openStore(ctx context.Context, path string, fresh bool) (_ *store, err error) {
	s := &store{path: path}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.wdb, err = sql.Open("sqlite", dsn(path, writerParams)); err != nil {
		return nil, err
	}
	s.wdb.SetMaxOpenConns(1)
	if s.conn, err = s.wdb.Conn(ctx); err != nil {
		return nil, err
	}
	var mode string
	if err = s.conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return nil, err
	}
	if mode != "wal" {
		return nil, fmt.Errorf("journal mode is %q: want \"wal\"; is %q on a network file system?", mode, filepath.Dir(path))
	}
	if fresh {
		if err = s.create(ctx); err != nil {
			return nil, fmt.Errorf("create tables: %w", err)
		}
	}
	if err = s.prepare(ctx); err != nil {
		return nil, fmt.Errorf("prepare statements: %w", err)
	}
	if err = s.openReaders(path, readerParams); err != nil {
		return nil, err
	}
	s.forget()
	if err = s.loadCursors(ctx); err != nil {
		return nil, fmt.Errorf("read cursors: %w", err)
	}
	return s, s.measure(ctx)
}

func (s *store) create(ctx context.Context) error {
	err := s.transact(ctx, func(ctx context.Context) error {
		_, err := s.conn.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", applicationID, schemaVersion))
		return err
	})
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.path))
}

func (s *store) openReaders(path, params string) (err error) {
	if s.rdb, err = sql.Open("sqlite", dsn(path, params)); err != nil {
		return err
	}
	s.rdb.SetMaxOpenConns(maxReaders)
	s.rdb.SetMaxIdleConns(maxReaders)
	return nil
}

// measure reads the extents of the tables.
func (s *store) measure(ctx context.Context) error {
	for table, e := range map[string]*extent{"results": &s.results, "events": &s.events} {
		var first, last, seq sql.NullInt64
		row := s.rdb.QueryRowContext(ctx, fmt.Sprintf("SELECT (SELECT min(id) FROM %[1]s), (SELECT max(id) FROM %[1]s), (SELECT seq FROM sqlite_sequence WHERE name = '%[1]s')", table))
		if err := row.Scan(&first, &last, &seq); err != nil {
			return fmt.Errorf("measure %s: %w", table, err)
		}
		e.last = max(last.Int64, seq.Int64)
		e.first = e.last + 1
		if first.Valid {
			e.first = first.Int64
		}
	}
	return nil
}

// transact runs f in a transaction that is on disk when it returns nil. A
// context that ends does not interrupt it: it is short, and half of one is worth nothing.
func (s *store) transact(ctx context.Context, f func(ctx context.Context) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if _, err := s.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.forget() // what was cached may not have been stored
			// SQLite has already rolled back after some errors, and then says so.
			_, _ = s.conn.ExecContext(ctx, "ROLLBACK")
		}
	}()
	if err := f(ctx); err != nil {
		return err
	}
	_, err = s.conn.ExecContext(ctx, "COMMIT")
	return err
}

func (s *store) close() error {
	var errs []error
	// SQLite keeps a connection half open while it has statements, and then the log too.
	for _, stmt := range s.stmts.all {
		errs = append(errs, stmt.Close())
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.rdb != nil {
		errs = append(errs, s.rdb.Close())
	}
	if s.wdb != nil {
		errs = append(errs, s.wdb.Close()) // the last to go moves the log into the file
	}
	return errors.Join(errs...)
}

// extents returns the ids that the tables hold.
func (s *store) extents() (results, events extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.results, s.events
}

func (s *store) setExtents(results, events extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results, s.events = results, events
}

// logBytes returns the size of the write-ahead log.
func (s *store) logBytes() int64 {
	info, err := os.Stat(s.path + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

// usedBytes returns the bytes of the pages in use, and of free ones inside the file.
func (s *store) usedBytes(ctx context.Context) (used, free int64, err error) {
	var pages, unused, size int64
	query := s.rdb.QueryRowContext
	if s.conn != nil {
		query = s.conn.QueryRowContext
	}
	err = query(ctx, "SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&pages, &unused, &size)
	return (pages - unused) * size, unused * size, err
}

func (s *store) prepare(ctx context.Context) error {
	p := &s.stmts
	for _, q := range []struct {
		stmt **sql.Stmt
		sql  string
	}{
		{&p.result, insertResult},
		{&p.event, insertEvent},
		{&p.agent, upsertAgent},
		{&p.findBoot, "SELECT id, min_seq, max_seq, stored, used FROM boots WHERE agent = ? AND boot = ?"},
		{&p.addBoot, "INSERT INTO boots (agent, boot, min_seq, max_seq, stored, first_received, last_received, used) VALUES (?, ?, 0, 0, 0, ?, ?, ?)"},
		{&p.setBoot, "UPDATE boots SET min_seq = ?, max_seq = ?, stored = ?, last_received = ? WHERE id = ?"},
		{&p.useBoot, "UPDATE boots SET used = ? WHERE id = ?"},
		{&p.findWord, "SELECT id, used FROM words WHERE word = ?"},
		{&p.addWord, "INSERT INTO words (word, used) VALUES (?, ?)"},
		{&p.useWord, "UPDATE words SET used = ? WHERE id = ?"},
		{&p.oldResults, "SELECT max(id) FROM (SELECT id, received FROM results ORDER BY id LIMIT ?) WHERE received < ?"},
		{&p.oldEvents, "SELECT max(id) FROM (SELECT id, received FROM events ORDER BY id LIMIT ?) WHERE received < ?"},
		{&p.cutResults, "DELETE FROM results WHERE id <= ?"},
		{&p.cutEvents, "DELETE FROM events WHERE id <= ?"},
		{&p.cutBoots, "DELETE FROM boots WHERE id IN (SELECT id FROM boots WHERE used < ? ORDER BY used LIMIT ?) RETURNING agent, boot"},
		{&p.cutWords, "DELETE FROM words WHERE id IN (SELECT id FROM words WHERE used < ? ORDER BY used LIMIT ?) RETURNING word"},
		{&p.cutAgents, "DELETE FROM agents WHERE name IN (SELECT name FROM agents ORDER BY seen LIMIT ?)"},
		{&p.setCursor, "INSERT INTO cursors (name, id, lost) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET id = excluded.id, lost = excluded.lost"},
		{&p.cutCursor, "DELETE FROM cursors WHERE name = ?"},
	} {
		stmt, err := s.conn.PrepareContext(ctx, q.sql)
		if err != nil {
			return fmt.Errorf("%q: %w", q.sql, err)
		}
		*q.stmt = stmt
		p.all = append(p.all, stmt)
	}
	return nil
}

// A carry is what a new file continues of a damaged one, so that ids stay
// unique for exporters that are running.
type carry struct {
	results, events int64 // the last ids
	cursors         map[string]cursor
}

func (s *store) carry() *carry {
	results, events := s.extents()
	cursors := s.losses(false, results, results.last)
	maps.Copy(cursors, s.losses(true, events, events.last))
	all := s.allCursors()
	maps.Copy(all, cursors)
	return &carry{results: results.last, events: events.last, cursors: all}
}

// resume makes an empty store go on from c; one that is not empty is the old
// one, which turned out to be sound.
func (s *store) resume(ctx context.Context, c *carry) error {
	if results, events := s.extents(); results.last > 0 || events.last > 0 {
		return nil
	}
	err := s.transact(ctx, func(ctx context.Context) error {
		if _, err := s.conn.ExecContext(ctx, "INSERT INTO sqlite_sequence (name, seq) VALUES ('results', ?), ('events', ?)", c.results, c.events); err != nil {
			return err
		}
		for name, cur := range c.cursors {
			if _, err := s.stmts.setCursor.ExecContext(ctx, name, cur.id, cur.lost); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.cursors = c.cursors
	s.mu.Unlock()
	return s.measure(ctx)
}

// openForReading opens a file that another process may be writing.
func openForReading(ctx context.Context, path string) (*store, error) {
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("no journal in %q: is it the directory of a collector (--data)?", filepath.Dir(path))
		}
		return nil, err
	}
	s := &store{path: path}
	err := s.tryReading(ctx, readerParams)
	if c := primaryCode(err); c == sqlite3.SQLITE_CANTOPEN || c == sqlite3.SQLITE_READONLY {
		err = s.readImmutable(ctx, err)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *store) tryReading(ctx context.Context, params string) error {
	if err := s.openReaders(s.path, params); err != nil {
		return err
	}
	fresh, err := identify(ctx, s.rdb, s.path)
	if err != nil {
		return err
	}
	if fresh {
		return fmt.Errorf("journal %q is empty", s.path)
	}
	if err := s.loadCursors(ctx); err != nil {
		return err
	}
	return s.measure(ctx)
}

// readImmutable opens a file in a directory where SQLite may not put its index of
// the log, which it needs even to read. Without a log it can be done without.
func (s *store) readImmutable(ctx context.Context, why error) error {
	if s.logBytes() > 0 {
		return fmt.Errorf("%w: %q is not writable, and the journal was not closed: copy the directory and read the copy (--data)", why, filepath.Dir(s.path))
	}
	s.rdb.Close()
	return s.tryReading(ctx, readerParams+"&immutable=1")
}

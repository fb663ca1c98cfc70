package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxAside is how many damaged files may lie in a directory. A disk that damages
// everything must not be filled with them.
const maxAside = 10

var (
	errDamaged = errors.New("journal is damaged")
	errRemoved = fmt.Errorf("%w: its file was removed", errDamaged)
)

// openFile opens the file, or a new one in the place of a damaged one.
func (j *Journal) openFile(ctx context.Context) (*store, error) {
	s, err := j.tryFile(ctx)
	if isDamage(err) {
		if err := j.setAside(err); err != nil {
			return nil, err
		}
		s, err = j.tryFile(ctx)
	}
	return s, err
}

func (j *Journal) tryFile(ctx context.Context) (*store, error) {
	fresh, err := inspect(ctx, j.path)
	if err != nil {
		return nil, err
	}
	s, err := openStore(ctx, j.path, fresh)
	if err != nil {
		return nil, err
	}
	if j.carry != nil {
		if err := s.resume(ctx, j.carry); err != nil {
			s.close()
			return nil, fmt.Errorf("continue in a new file: %w", err)
		}
		j.carry = nil
	}
	j.measure(ctx, s)
	return s, nil
}

// current returns the store, which it opens if that failed before. The caller
// holds write.
func (j *Journal) current(ctx context.Context) (*store, error) {
	j.mu.RLock()
	s, closed := j.store, j.closed
	j.mu.RUnlock()
	switch {
	case closed:
		return nil, ErrClosed
	case s != nil:
		return s, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s, err := j.openFile(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("open journal again: %w", err)
	}
	j.store = s
	return s, nil
}

// replace puts a new file in the place of a damaged one. Where that fails, the
// next caller of current tries again. The caller holds write.
func (j *Journal) replace(ctx context.Context, s *store, why error) (*store, error) {
	j.mu.Lock() // waits for readers
	j.carry = s.carry()
	j.store = nil
	_ = s.close() // it is damaged, so it may say anything
	err := j.setAside(why)
	j.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return j.current(ctx)
}

// setAside renames the damaged file, loudly. The caller holds mu, or is alone.
func (j *Journal) setAside(why error) error {
	if errors.Is(why, errRemoved) {
		j.opts.Log.Error("journal was removed while in use: a new one is begun, what was in it is lost", "dir", j.opts.Dir)
		return j.relock()
	}
	aside, err := setAside(j.path, j.opts.Now())
	if err != nil {
		return fmt.Errorf("%w (because of: %w)", err, why)
	}
	j.aside = aside
	j.opts.Log.Error("journal is damaged: it was renamed, and a new one begun", "err", why, "kept", aside)
	return nil
}

// relock makes the directory and its lock again, where they went with the file.
func (j *Journal) relock() error {
	if _, err := os.Stat(filepath.Join(j.opts.Dir, lockName)); err == nil {
		return nil
	}
	lock, err := lockDir(j.opts.Dir)
	if err != nil {
		return err
	}
	j.lock.Close()
	j.lock = lock
	return nil
}

// checkRemoved begins a new file when somebody has removed the one in use, into
// which SQLite would go on writing as if nothing had happened.
func (j *Journal) checkRemoved(ctx context.Context) error {
	if _, err := os.Stat(j.path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	told := false
	return j.update(ctx, func(*store) error {
		if told {
			return nil // this is the new one
		}
		told = true
		return errRemoved
	})
}

// setAside renames a damaged file and what belongs to it, and returns its new path.
func setAside(path string, now time.Time) (string, error) {
	olds, _ := filepath.Glob(globEscape(path) + ".damaged-*Z")
	if len(olds) >= maxAside {
		return "", fmt.Errorf("%d damaged journals are in %q already: move them away", len(olds), filepath.Dir(path))
	}
	aside := path + ".damaged-" + now.UTC().Format("20060102T150405.000Z")
	// The log first: should we be stopped half-way, the rest is found damaged
	// again, whereas a new file would take an old log for its own.
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && (suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
			return "", fmt.Errorf("rename damaged journal: %w", err)
		}
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return "", fmt.Errorf("rename damaged journal: %w", err)
	}
	return aside, nil
}

func globEscape(path string) string {
	if filepath.Separator == '\\' {
		return path // there, no character is an escape
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

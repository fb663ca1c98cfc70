package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"swarming/shared/wire"
)

// stateFile is what a restart repeats, in the collector's data directory.
const stateFile = "watch.json"

// A state is what stateFile holds.
type state struct {
	Rev     int64  `json:"rev"`
	By      string `json:"by"`
	Hash    string `json:"hash"`
	Owned   bool   `json:"owned"`   // the list is the file's
	Payload string `json:"payload"` // the list, exactly as published
}

// loadState reads the list an earlier process held. Without one it returns nil
// and no error.
func loadState(dir string) (l *list, owned bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read watch state: %w", err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, false, fmt.Errorf("read watch state %s: %w", filepath.Join(dir, stateFile), err)
	}
	w, ok, err := wire.DecodeWatch([]byte(s.Payload))
	if err != nil {
		return nil, false, fmt.Errorf("read watch state %s: %w", filepath.Join(dir, stateFile), err)
	}
	if !ok || w.Rev == 0 {
		return nil, false, nil
	}
	return newList(w, []byte(s.Payload)), s.Owned, nil
}

// saveState replaces the state file in one step, so that a crash leaves the old
// or the new one.
func saveState(dir string, l *list, owned bool) error {
	b, err := json.Marshal(state{l.rev, l.watch.By, l.hash, owned, string(l.payload)})
	if err == nil {
		err = replaceFile(filepath.Join(dir, stateFile), b)
	}
	if err != nil {
		return fmt.Errorf("save watch state: %w", err)
	}
	return nil
}

func replaceFile(name string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

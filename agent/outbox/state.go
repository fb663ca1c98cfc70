package outbox

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"

	"swarming/shared/wire"
)

// The state file is text: a header of one line of JSON, then a line for each
// result, oldest first: a mark, a space and the payload as it was or would have
// been published. It is written once, at a clean stop, and never changed.

// stateVersion is the format's version; a higher one is not read.
const stateVersion = 1

// A header is the first line of a state file.
type header struct {
	V       int            `json:"v"`
	Agent   wire.AgentName `json:"agent"`
	Results int            `json:"results"`
	CRC32   uint32         `json:"crc32"` // IEEE, of all that follows the header's line
}

// How far a result had come.
const (
	markNew       = 'n' // never published
	markPublished = 'p' // published, not confirmed
	markConfirmed = 'c' // confirmed by a broker, not acknowledged
)

func (e *entry) mark() byte {
	switch {
	case e.confirmed:
		return markConfirmed
	case e.published:
		return markPublished
	}
	return markNew
}

// Save writes what is left to the state file, or removes the file when nothing
// is. Results that never got a date are lost: their age means nothing to the
// next process. Without a StateFile it does nothing. The file appears complete
// or not at all, with mode 0600.
func (o *Outbox) Save() error {
	if o.stateFile == "" {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.date()
	for e := o.lists[undated].head; e != nil; e = o.lists[undated].head {
		o.stats.Lost++
		o.forget(e)
	}
	o.compact()
	if o.stats.Pending == 0 {
		o.removeStateFile()
		return nil
	}
	if err := writeFile(o.stateFile, o.writeState); err != nil {
		return fmt.Errorf("save outbox: %w", err)
	}
	return nil
}

func (o *Outbox) writeState(w io.Writer) error {
	h := header{V: stateVersion, Agent: o.agent, Results: o.stats.Pending}
	var line []byte
	each := func(yield func(line []byte) error) error {
		for _, e := range o.order {
			if e.state == gone {
				continue
			}
			line = append(append(append(line[:0], e.mark(), ' '), e.payload()...), '\n')
			if err := yield(line); err != nil {
				return err
			}
		}
		return nil
	}
	each(func(line []byte) error { h.CRC32 = crc32.Update(h.CRC32, crc32.IEEETable, line); return nil })
	first, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if _, err := w.Write(append(first, '\n')); err != nil {
		return err
	}
	return each(func(line []byte) error { _, err := w.Write(line); return err })
}

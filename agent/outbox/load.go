package outbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"swarming/shared/wire"
)

// maxLine bounds a line of the state file, in bytes: a mark, a space, a
// payload, a newline.
const maxLine = wire.MaxResult + 3

// asideSuffix is what the name of a state file gets that cannot be used. Only
// the latest one is kept.
const asideSuffix = ".aside"

// Load takes over what an earlier process saved, with the identity it had; it
// is the oldest in the outbox. Call it once, before the first connection. The
// file stays until every result in it is acknowledged or overwritten. One that
// is damaged, written by a newer version or another agent's is renamed aside
// with a warning; the error is for a file that exists and may not be read.
func (o *Outbox) Load() error {
	if o.stateFile == "" {
		return nil
	}
	f, err := os.Open(o.stateFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open saved outbox: %w", err)
	case err != nil:
		o.setAside(err)
		return nil
	}
	s := loader{agent: o.agent, own: o.own.boot, maxResults: o.maxResults, maxBytes: o.maxBytes, lives: map[wire.Boot]*life{}}
	err = s.read(f)
	f.Close() // before a rename: Windows insists
	if err != nil {
		o.setAside(err)
		return nil
	}
	o.adopt(&s)
	return nil
}

// adopt puts what was loaded before everything else.
func (o *Outbox) adopt(s *loader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Lost += s.lost
	o.stats.Unconfirmed += s.unconfirmed
	if len(s.entries) == 0 {
		o.removeStateFile()
		return
	}
	for boot, l := range s.lives {
		o.lives[boot] = l
	}
	now := o.elapsed()
	for _, e := range s.entries {
		e.since, e.state = now, backlog // rebuild tells which are awaiting
		if e.confirmed {
			o.confirmed++
		}
	}
	o.kept = len(s.entries)
	o.stats.Pending += len(s.entries)
	o.stats.Bytes += s.bytes
	o.order = append(s.entries, o.order...)
	o.rebuild()
	o.shrink()
	o.log.Info("saved results taken over", "results", len(s.entries), "file", o.stateFile)
	o.signal()
}

func (o *Outbox) setAside(why error) {
	aside := o.stateFile + asideSuffix
	if err := os.Rename(o.stateFile, aside); err != nil {
		o.log.Warn("saved results cannot be used, nor renamed aside", "file", o.stateFile, "err", why, "rename", err)
		return
	}
	o.log.Warn("saved results cannot be used; renamed aside", "file", o.stateFile, "to", aside, "err", why)
}

func (o *Outbox) removeStateFile() {
	if err := os.Remove(o.stateFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.log.Warn("cannot remove saved results; they will be sent again", "file", o.stateFile, "err", err)
	}
}

// A loader reads a state file. What exceeds the outbox's limits is dropped as
// it goes, the oldest first.
type loader struct {
	agent      wire.AgentName
	own        wire.Boot
	maxResults int
	maxBytes   int

	entries           []*entry
	bytes             int
	lives             map[wire.Boot]*life
	lost, unconfirmed uint64
}

func (s *loader) read(r io.Reader) error {
	b := bufio.NewReaderSize(r, maxLine)
	line, err := b.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read header: %w", err)
	}
	var h header
	if err := json.Unmarshal(line, &h); err != nil {
		return fmt.Errorf("read header %.80q: %w", line, err)
	}
	switch {
	case h.V > stateVersion:
		return fmt.Errorf("version %d: this program knows versions up to %d; a newer one is needed", h.V, stateVersion)
	case h.V < 1:
		return fmt.Errorf("version %d: want 1 to %d", h.V, stateVersion)
	case h.Agent != s.agent:
		return fmt.Errorf("results of agent %.70q: want those of %q", string(h.Agent), string(s.agent))
	}
	var sum uint32
	n := 0
	for ; ; n++ {
		line, err := b.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil {
			return fmt.Errorf("read result %d: %w", n+1, err)
		}
		sum = crc32.Update(sum, crc32.IEEETable, line)
		if err := s.add(line); err != nil {
			return fmt.Errorf("result %d: %w", n+1, err)
		}
	}
	if n != h.Results || sum != h.CRC32 {
		return fmt.Errorf("%d results with checksum %08x: want %d with %08x", n, sum, h.Results, h.CRC32)
	}
	return nil
}

// add takes a line over.
func (s *loader) add(line []byte) error {
	if len(line) < 3 || line[1] != ' ' {
		return fmt.Errorf("%.80q: want a mark and a result", line)
	}
	payload := line[2 : len(line)-1]
	r, err := wire.DecodeResult(payload)
	if err != nil {
		return err
	}
	if r.Agent != s.agent || r.Boot == s.own {
		return fmt.Errorf("result of agent %q, boot %q: want one of an earlier boot of %q", r.Agent, r.Boot, s.agent)
	}
	l := s.lives[r.Boot]
	if l == nil {
		l = &life{boot: r.Boot, rank: len(s.lives)}
		s.lives[r.Boot] = l
	}
	if n := len(s.entries); n > 0 && s.entries[n-1].compare(l.rank, r.Seq) >= 0 {
		return fmt.Errorf("boot %q, seq %d is out of order", r.Boot, r.Seq)
	}
	topic := wire.PingTopic(r.Target)
	record := make([]byte, 0, len(topic)+len(payload))
	e := &entry{life: l, seq: r.Seq, record: append(append(record, topic...), payload...), topicLen: uint8(len(topic)), loaded: true}
	switch line[0] {
	case markNew:
	case markPublished:
		e.published = true
	case markConfirmed:
		e.published, e.confirmed = true, true
	default:
		return fmt.Errorf("%.80q: unknown mark %q", line, line[0])
	}
	s.entries = append(s.entries, e)
	s.bytes += e.cost()
	s.trim()
	return nil
}

func (s *loader) trim() {
	for len(s.entries) > s.maxResults || s.bytes > s.maxBytes {
		e := s.entries[0]
		s.entries[0] = nil
		s.entries = s.entries[1:]
		s.bytes -= e.cost()
		if e.confirmed {
			s.unconfirmed++
		} else {
			s.lost++
		}
	}
}

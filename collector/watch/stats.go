package watch

import "time"

// Stats is a snapshot for people and metrics.
type Stats struct {
	Rev       int64     `json:"rev"`             // of the list held; 0 without one
	By        string    `json:"by,omitempty"`    // who made it
	Hash      string    `json:"hash,omitempty"`  // of its content
	Targets   int       `json:"targets"`         // in it
	Source    string    `json:"source"`          // "file", "followed" or "none"
	Pending   bool      `json:"pending"`         // the file changed and waits for the brokers to show what they hold
	File      string    `json:"file,omitempty"`  // as configured
	Loaded    time.Time `json:"loaded,omitzero"` // when the file was last read well
	FileError string    `json:"file_error,omitempty"`
	FailedAt  time.Time `json:"file_failed,omitzero"`
	Conflict  *Conflict `json:"conflict,omitempty"` // the file's list is not in force
	Published uint64    `json:"published"`          // lists published
	Refused   uint64    `json:"refused"`            // messages on the topic watch that were no list

	Brokers []BrokerStats `json:"brokers"`
}

// A Conflict is a later list with other content than the own file's.
type Conflict struct {
	Broker  string `json:"broker"` // that showed it
	Rev     int64  `json:"rev"`
	By      string `json:"by"`
	Targets int    `json:"targets"`
}

// BrokerStats is what one broker shows.
type BrokerStats struct {
	Broker string `json:"broker"`
	Up     bool   `json:"up"`
	Shows  string `json:"shows"` // "ours", "other", "none", "newer version" or "unknown"
	Rev    int64  `json:"rev"`
	By     string `json:"by,omitempty"`
}

// Stats returns a snapshot.
func (k *Keeper) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.spread
	st := Stats{
		Source: "none", Pending: s.change != nil, File: k.opts.File, Loaded: k.source.loaded, FileError: k.source.err,
		FailedAt: k.source.since, Published: s.sent, Refused: s.mistakes,
	}
	if s.held != nil {
		st.Rev, st.By, st.Hash, st.Targets, st.Source = s.held.rev, s.held.watch.By, s.held.hash, len(s.held.watch.Targets), "followed"
		if s.owned {
			st.Source = "file"
		}
	}
	if s.rival != nil {
		st.Conflict = &Conflict{s.brokers[s.rivalAt], s.rival.rev, s.rival.watch.By, len(s.rival.watch.Targets)}
	}
	for i, v := range s.views {
		st.Brokers = append(st.Brokers, BrokerStats{s.brokers[i], v.up, s.shows(v), v.shown.rev, v.by})
	}
	return st
}

func (s *spread) shows(v view) string {
	switch {
	case !v.known:
		return "unknown"
	case v.newer:
		return "newer version"
	case v.shown == rank{}:
		return "none"
	case s.held != nil && v.shown == s.held.rank:
		return "ours"
	}
	return "other"
}

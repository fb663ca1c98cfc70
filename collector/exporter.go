package collector

import (
	"context"
	"time"

	"swarming/collector/config"
	"swarming/collector/journal"
)

// An Exporter ships the journal to another system at its own pace. What it
// needs to be built is its own affair: whoever makes the collector brings the
// exporters, so that a program without them does not contain their libraries.
type Exporter interface {
	// Run exports until ctx ends. It returns at once only for mistakes in the
	// settings: a system that is down is waited for.
	Run(ctx context.Context) error
	// Status returns the state of each stream, and what needs a person beyond
	// a stream that fails. It may be called at any time.
	Status() (streams []ExportStatus, problems []string)
}

// A MakeExporter makes an exporter of a journal, or nil if the settings ask for
// none.
type MakeExporter func(cfg config.Config, j *journal.Journal) (Exporter, error)

// ExportStatus is the state of one stream of an exporter.
type ExportStatus struct {
	To           string    `json:"to"` // "elasticsearch"
	Stream       string    `json:"stream"`
	Exported     uint64    `json:"exported"`
	Duplicates   uint64    `json:"duplicates"`
	Rejected     uint64    `json:"rejected"`
	LastRejected string    `json:"last_rejected,omitempty"`
	Lag          float64   `json:"lag_seconds"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	LastError    string    `json:"last_error,omitempty"`
	Hint         string    `json:"hint,omitempty"`
	Failures     uint64    `json:"failures"`
}

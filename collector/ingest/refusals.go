package ingest

import (
	"log/slog"
	"maps"
	"sync"
	"time"

	"swarming/shared/wire"
)

// maxSenders bounds the senders whose refusals are logged in one minute. Those
// of others are only counted.
const maxSenders = 256

// refusals counts what was refused, by kind and reason, and logs it once for
// each sender and minute.
type refusals struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	counts map[string]map[string]uint64 // bounded: kinds and reasons are words of this program
	logged map[string]bool              // senders, in this minute
	minute time.Time
	silent uint64 // not logged in this minute because of maxSenders
}

func newRefusals(log *slog.Logger, now func() time.Time) *refusals {
	return &refusals{log: log, now: now, counts: make(map[string]map[string]uint64), logged: make(map[string]bool)}
}

// add counts one refusal. sender is an agent's name, or the topic where no name
// could be read; only its first 80 bytes count.
func (r *refusals) add(kind wire.Kind, reason wire.Reason, sender, broker string, err error) {
	sender = sender[:min(len(sender), 80)]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.countLocked(kind, reason)
	if !r.mayLog(sender) {
		return
	}
	args := []any{"kind", kind.String(), "reason", string(reason), "sender", sender, "broker", broker}
	if err != nil {
		args = append(args, "err", err)
	}
	r.log.Warn("message refused; others of this sender within a minute are only counted", args...)
}

// count counts one that is not worth a line in the log.
func (r *refusals) count(kind wire.Kind, reason wire.Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.countLocked(kind, reason)
}

func (r *refusals) countLocked(kind wire.Kind, reason wire.Reason) {
	byReason := r.counts[kind.String()]
	if byReason == nil {
		byReason = make(map[string]uint64)
		r.counts[kind.String()] = byReason
	}
	byReason[string(reason)]++
}

func (r *refusals) mayLog(sender string) bool {
	now := r.now()
	if d := now.Sub(r.minute); d >= time.Minute || d < 0 {
		if r.silent > 0 {
			r.log.Warn("more senders were refused than are logged in a minute", "messages", r.silent)
		}
		clear(r.logged)
		r.minute, r.silent = now, 0
	}
	if r.logged[sender] {
		return false
	}
	if len(r.logged) >= maxSenders {
		r.silent++
		return false
	}
	r.logged[sender] = true
	return true
}

// snapshot returns the counts by kind and reason.
func (r *refusals) snapshot() map[string]map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]map[string]uint64, len(r.counts))
	for kind, byReason := range r.counts {
		out[kind] = maps.Clone(byReason)
	}
	return out
}

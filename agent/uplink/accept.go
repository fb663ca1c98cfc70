package uplink

import (
	"time"

	"swarming/shared/wire"
)

// staleWait is how long a stored list that is older than the one in force must
// be all there is on a connection before it is believed.
const staleWait = time.Minute

// An acceptor decides which watch list is in force. A list is taken at once
// when it came live, has no rev, or has at least the rev of the one in force. A
// stored one with a lower rev is what a broker says that was away while the
// list changed: it is taken only after a minute on the connection without
// another. So no clock that was wrong and no forged rev can freeze the swarm.
// It is pure: times are passed in, and one caller at a time.
type acceptor struct {
	any  bool // a list is in force
	rev  int64
	hash string

	stale   *wire.Watch // stored, with a lower rev
	staleAt time.Time   // when it came
}

// begin forgets what was heard on the connection before.
func (a *acceptor) begin() { a.stale = nil }

// offer returns whether w is to be put into force now. A list equal to the one
// in force is not.
func (a *acceptor) offer(now time.Time, w wire.Watch, retained bool) bool {
	if a.any && retained && w.Rev != 0 && w.Rev < a.rev {
		a.stale, a.staleAt = &w, now
		return false
	}
	a.stale = nil
	return a.take(w)
}

// due returns when the list put off is to be taken.
func (a *acceptor) due() (at time.Time, ok bool) {
	return a.staleAt.Add(staleWait), a.stale != nil
}

// overdue returns the list put off if its time has come and it differs from the
// one in force.
func (a *acceptor) overdue(now time.Time) (w wire.Watch, ok bool) {
	at, ok := a.due()
	if !ok || now.Before(at) {
		return wire.Watch{}, false
	}
	w, a.stale = *a.stale, nil
	return w, a.take(w)
}

func (a *acceptor) take(w wire.Watch) bool {
	hash := w.ContentHash()
	if a.any && hash == a.hash && w.Rev == a.rev && len(w.Refused) == 0 {
		return false
	}
	a.any, a.rev, a.hash = true, w.Rev, hash
	return true
}

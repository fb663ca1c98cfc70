package watch

import (
	"log/slog"
	"time"
	"unicode/utf8"

	"swarming/shared/wire"
)

// The times of the protocol; see the package comment.
const (
	quietTime  = 2 * time.Second
	settleTime = 3 * time.Second
	wishTime   = time.Second
	adoptTime  = 10 * time.Second
	retryMin   = 2 * time.Second
	retryMax   = 10 * time.Minute
	retryReset = time.Hour // without a publish, after which the pauses start again from retryMin
	warnEvery  = time.Minute
	horizon    = 20 * 365 * 24 * time.Hour
)

// A rank orders lists. The zero rank is that of no list, of a person's and of
// rubbish: anything is later.
type rank struct {
	rev  int64
	hash string
}

func (r rank) before(o rank) bool { return r.rev < o.rev || r.rev == o.rev && r.hash < o.hash }

// A list is a watch list with its rank and the exact bytes to publish.
type list struct {
	rank
	watch   wire.Watch
	payload []byte
}

func newList(w wire.Watch, payload []byte) *list {
	if payload == nil || !utf8.Valid(payload) { // the state file holds text
		payload = w.Encode()
	}
	return &list{rank{w.Rev, w.ContentHash()}, w, payload}
}

// A view is what this collector knows of one broker.
type view struct {
	up    bool
	since time.Time // of the SUBACK
	known bool      // whether shown is what the broker holds
	shown rank
	by    string // who made what is shown
	newer bool   // it holds a list of a newer version

	published time.Time // when the list held was last published there
	tries     int       // how often, since the pauses last started anew
	next      time.Time // not again before
}

// A wish is a person's list that waits to be adopted.
type wish struct {
	watch  wire.Watch
	hash   string
	broker int
	due    time.Time
}

// A spread is the protocol as a state machine: no goroutine, no clock, no file.
// The time is passed in and must not run backwards by much. One caller at a time.
type spread struct {
	name    string
	brokers []string                  // addresses, for people
	floor   time.Time                 // the clock is not set while it shows less
	wall    func(now time.Time) int64 // ms since 1970: what may be wrong, unlike time that passes
	publish func(broker int, payload []byte)
	log     *slog.Logger

	held     *list       // what this collector wants; nil at first
	owned    bool        // held is its own file's list
	change   *wire.Watch // the file's new list, waiting for its rev
	rival    *list       // a later list that contradicts the own file
	rivalAt  int         // the broker that showed it
	wish     *wish       // live
	stored   *wish       // retained
	highest  int64       // rev seen anywhere, within the horizon
	views    []view
	firstUp  time.Time
	dirty    bool // held or owned changed since the state was saved
	warned   map[string]time.Time
	sent     uint64 // lists published
	mistakes uint64 // payloads on the topic that were no list
}

func newSpread(name string, brokers []string, floor time.Time, publish func(int, []byte), log *slog.Logger) *spread {
	return &spread{
		name: name, brokers: brokers, floor: floor, wall: time.Time.UnixMilli, publish: publish, log: log,
		views: make([]view, len(brokers)), warned: make(map[string]time.Time),
	}
}

// subscribed says that a broker has accepted the subscription. What it holds
// may have arrived before.
func (s *spread) subscribed(now time.Time, i int) {
	v := &s.views[i]
	v.up, v.since = true, now
	if s.firstUp.IsZero() {
		s.firstUp = now
	}
	s.tick(now)
}

// lost says that the connection to a broker has ended.
func (s *spread) lost(now time.Time, i int) {
	s.views[i] = view{}
	if s.wish != nil && s.wish.broker == i {
		s.wish.due = now // nobody can object any more
	}
	s.tick(now)
}

// file says what this collector's own file asks for. Only a change of content
// is a change.
func (s *spread) file(now time.Time, w wire.Watch) {
	s.change = &w
	if s.held != nil && s.owned && s.held.hash == w.ContentHash() {
		s.change = nil
	}
	s.tick(now)
}

// message takes what a broker sent on the topic watch.
func (s *spread) message(now time.Time, i int, payload []byte, retained bool) {
	v := &s.views[i]
	w, ok, err := wire.DecodeWatch(payload)
	v.known, v.shown, v.by, v.newer = true, rank{}, w.By, false
	if s.wish != nil && s.wish.broker == i && w.Rev == 0 {
		s.wish = nil // taken back, or wished again below
	}
	switch {
	case err != nil:
		s.mistakes++
		v.newer = wire.ReasonOf(err) == wire.ReasonVersion
		s.warn(now, "mistake", "watch list refused", "broker", s.brokers[i], "err", err)
	case !ok: // cleared
	case w.Rev == 0:
		s.person(now, i, w, retained)
	case s.beyond(now, w.Rev):
		s.mistakes++
		s.warn(now, "horizon", "watch list ignored: its rev lies more than 20 years ahead, so it is forged or its maker's clock is wrong", "broker", s.brokers[i], "by", w.By, "rev", w.Rev)
	default:
		l := newList(w, payload)
		v.shown = l.rank
		s.ranked(now, i, l)
	}
	s.tick(now)
}

// ranked judges a list that has a rev.
func (s *spread) ranked(now time.Time, i int, l *list) {
	s.highest = max(s.highest, l.rev)
	if s.wish != nil && s.wish.broker == i && (s.held == nil || l.hash == s.wish.hash || !l.before(s.held.rank)) {
		s.wish = nil // overruled by a file, or adopted by another collector
	}
	switch {
	case s.held != nil && !s.held.before(l.rank): // earlier, or our own come back
	case !s.owned || s.held.hash == l.hash:
		s.hold(l)
	case s.rival == nil || s.rival.before(l.rank):
		s.rival, s.rivalAt = l, i
	}
}

// person judges a list without rev.
func (s *spread) person(now time.Time, i int, w wire.Watch, retained bool) {
	hash := w.ContentHash()
	switch {
	case s.held != nil && s.held.hash == hash: // agreed; it gets its rev back
	case retained:
		if s.held == nil && s.stored == nil {
			s.stored = &wish{w, hash, i, now.Add(adoptTime)}
		}
	case s.owned || s.change != nil:
		if s.rival == nil {
			s.warn(now, "overruled", "a list published by hand is overruled by this collector's file; edit the file instead", "broker", s.brokers[i])
		}
	default:
		s.wish = &wish{w, hash, i, now.Add(wishTime)}
	}
}

// tick does what has become due.
func (s *spread) tick(now time.Time) {
	for i := range s.views {
		if v := &s.views[i]; v.up && !v.known && now.Sub(v.since) >= quietTime {
			v.known = true
		}
	}
	s.recheck(now)
	if s.change != nil && s.settled(now) {
		s.take(now)
	}
	if s.wish != nil && !now.Before(s.wish.due) {
		s.adopt(now, s.wish)
		s.wish = nil
	}
	if s.held != nil { // a broker has shown a rev, or somebody made one
		s.stored = nil
	}
	if s.stored != nil && s.change == nil && !now.Before(s.stored.due) {
		s.adopt(now, s.stored)
		s.stored = nil
	}
	if s.rival != nil {
		s.warn(now, "rival", "watch list of this collector's file is not in force: another was made later; edit the file to make it the latest, or agree",
			"by", s.rival.watch.By, "rev", s.rival.rev, "own_rev", s.held.rev, "broker", s.brokers[s.rivalAt])
	}
	s.spread(now)
}

// settled reports whether enough brokers have shown what they hold for a change
// of the file to get a rev above it.
func (s *spread) settled(now time.Time) bool {
	up := 0
	for i := range s.views {
		if v := &s.views[i]; v.up {
			if up++; !v.known {
				return false
			}
		}
	}
	return up > 0 && (up == len(s.views) || now.Sub(s.firstUp) >= settleTime)
}

// take makes the file's changed list the one held.
func (s *spread) take(now time.Time) {
	hash := s.change.ContentHash()
	l := s.held
	if s.rival != nil {
		l = s.rival // the latest of all
	}
	if l == nil || l.hash != hash {
		w := *s.change
		w.Rev, w.By = s.nextRev(now), s.name
		l = newList(w, nil)
	}
	s.change, s.wish, s.owned = nil, nil, true
	s.hold(l)
}

// adopt makes a person's list the swarm's.
func (s *spread) adopt(now time.Time, p *wish) {
	w := p.watch
	w.Rev, w.By = s.nextRev(now), s.name
	l := newList(w, nil)
	if len(l.payload) > wire.MaxWatch {
		s.mistakes++
		s.warn(now, "mistake", "list published by hand refused: it is too long with its rev", "bytes", len(l.payload), "max", wire.MaxWatch)
		return
	}
	s.log.Info("watch list adopted from a person", "broker", s.brokers[p.broker], "targets", len(w.Targets), "left_out", len(w.Refused), "rev", w.Rev)
	s.hold(l)
}

// hold makes l the list to spread. Everything about earlier ones is over.
func (s *spread) hold(l *list) {
	s.held, s.dirty = l, true
	s.highest = max(s.highest, l.rev)
	if s.rival != nil && !l.before(s.rival.rank) {
		s.rival = nil
	}
	for i := range s.views {
		v := &s.views[i]
		v.tries, v.next, v.newer = 0, time.Time{}, false
	}
}

// spread publishes the list held where a broker shows an earlier one.
func (s *spread) spread(now time.Time) {
	if s.publish == nil || s.held == nil || s.change != nil || s.rival != nil {
		return
	}
	for i := range s.views {
		v := &s.views[i]
		if !v.up || !v.known || v.newer || !v.shown.before(s.held.rank) || now.Before(v.next) {
			continue
		}
		if s.wish != nil && s.wish.broker == i {
			continue // not over a wish that is about to be granted
		}
		if now.Sub(v.published) > retryReset {
			v.tries = 0
		}
		if v.tries >= 3 {
			s.warn(now, "fight", "broker does not keep the watch list: another overwrites it, or this collector may not write the topic watch", "broker", s.brokers[i], "shown_by", v.by, "published", v.tries)
		}
		v.published, v.next = now, now.Add(pause(v.tries))
		v.tries++
		s.sent++
		s.publish(i, s.held.payload)
	}
}

// pause returns how long to wait after the publish numbered tries, from 0.
func pause(tries int) time.Duration {
	return min(retryMin<<min(tries, 20), retryMax)
}

// clock returns now in ms since 1970, or that of the build if the clock shows
// less, and never so much that a rev could pass wire.MaxSeq.
func (s *spread) clock(now time.Time) int64 {
	const most = wire.MaxSeq - 2*int64(horizon/time.Millisecond)
	return min(max(s.wall(now), s.floor.UnixMilli()), most)
}

// restore sets what an earlier process held.
func (s *spread) restore(l *list, owned bool) {
	s.owned = owned
	s.hold(l)
	s.dirty = false
}

// recheck forgets what lies beyond the horizon since the clock was set right. A
// list held gets a new rev then, because others would not follow it.
func (s *spread) recheck(now time.Time) {
	for i := range s.views {
		if v := &s.views[i]; s.beyond(now, v.shown.rev) {
			v.shown = rank{}
		}
	}
	if s.rival != nil && s.beyond(now, s.rival.rev) {
		s.rival = nil
	}
	if s.held != nil && s.beyond(now, s.held.rev) {
		w := s.held.watch
		w.Rev = s.nextRev(now)
		s.hold(newList(w, nil))
	}
}

// beyond reports whether rev lies so far ahead that it counts as none.
func (s *spread) beyond(now time.Time, rev int64) bool {
	return rev > s.clock(now)+horizon.Milliseconds()
}

// nextRev returns a rev above everything seen.
func (s *spread) nextRev(now time.Time) int64 {
	if s.beyond(now, s.highest) {
		s.highest = 0
	}
	return max(s.clock(now), s.highest+1)
}

// warn logs at most once a minute and matter. Matters are few and named by this file.
func (s *spread) warn(now time.Time, matter, msg string, args ...any) {
	if last, ok := s.warned[matter]; ok && now.Sub(last) < warnEvery && !now.Before(last) {
		return
	}
	s.warned[matter] = now
	s.log.Warn(msg, args...)
}

package watch

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"swarming/shared/wire"
)

// A stand is one state machine without any time that passes by itself.
type stand struct {
	*spread
	t    *testing.T
	now  time.Time
	sent []string // "broker rev by targets"
	log  *bytes.Buffer
}

func newStand(t *testing.T, brokers int) *stand {
	s := &stand{t: t, now: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), log: new(bytes.Buffer)}
	addrs := []string{"one:1883", "two:1883", "three:1883"}[:brokers]
	s.spread = newSpread("me", addrs, time.Time{}, func(b int, payload []byte) {
		w, ok, err := wire.DecodeWatch(payload)
		if err != nil || !ok {
			t.Errorf("published %q: %v", payload, err)
		}
		s.sent = append(s.sent, fmt.Sprint(b, " ", w.Rev, " ", w.By, " ", ids(w)))
	}, slog.New(slog.NewTextHandler(s.log, nil)))
	return s
}

func ids(w wire.Watch) string {
	var out []string
	for _, t := range w.Targets {
		out = append(out, string(t.Target))
	}
	return strings.Join(out, ",")
}

// pass lets d go by in small steps.
func (s *stand) pass(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); {
		s.now = s.now.Add(100 * time.Millisecond)
		s.tick(s.now)
	}
}

func (s *stand) ms() int64 { return s.now.UnixMilli() }

func ranked(rev int64, by string, targets ...string) []byte {
	return watchOf(rev, by, targets...).Encode()
}

// want checks and forgets what was published.
func (s *stand) want(sent ...string) {
	s.t.Helper()
	if fmt.Sprint(s.sent) != fmt.Sprint(sent) {
		s.t.Errorf("published %q, want %q", s.sent, sent)
	}
	s.sent = nil
}

// held by a collector whose list is in force on its only broker.
func inForce(t *testing.T) *stand {
	s := newStand(t, 1)
	s.subscribed(s.now, 0)
	s.message(s.now, 0, ranked(1000, "other", "x"), true)
	s.file(s.now, names("x"))
	if s.want(); s.held == nil || s.held.rev != 1000 || !s.owned {
		t.Fatalf("the file has the list that is in force: held %+v", s.held)
	}
	return s
}

// Nothing retained within 2 s of the SUBACK: the broker shows none.
func TestPublishesWhereABrokerShowsNone(t *testing.T) {
	s := newStand(t, 2)
	s.file(s.now, names("x"))
	s.pass(time.Minute)
	s.want()
	s.subscribed(s.now, 0)
	s.subscribed(s.now, 1)
	s.pass(1900 * time.Millisecond)
	s.want()
	s.pass(100 * time.Millisecond)
	s.want(fmt.Sprintf("0 %d me x", s.ms()), fmt.Sprintf("1 %d me x", s.ms()))
}

// A change waits until it is known what it must rank above, but not for a
// broker that is down.
func TestChangeWaitsForTheBrokers(t *testing.T) {
	s := newStand(t, 2)
	future := s.ms() + 1e6
	s.file(s.now, names("x"))
	s.subscribed(s.now, 0)
	s.message(s.now, 0, ranked(1000, "other", "y"), true)
	s.pass(time.Second)
	s.want()
	s.subscribed(s.now, 1)
	s.message(s.now, 1, ranked(future, "other", "z"), true)
	s.want(fmt.Sprintf("0 %d me x", future+1), fmt.Sprintf("1 %d me x", future+1))

	s = newStand(t, 2)
	s.file(s.now, names("x"))
	s.subscribed(s.now, 0)
	s.message(s.now, 0, ranked(1000, "other", "y"), true)
	s.pass(2900 * time.Millisecond)
	s.want()
	s.pass(100 * time.Millisecond)
	s.want(fmt.Sprintf("0 %d me x", s.ms()))
}

// Of the same content it takes the later rev, with its bytes.
func TestTakesTheRevOfItsOwnContent(t *testing.T) {
	s := inForce(t)
	payload := bytes.Replace(ranked(2000, "other", "x"), []byte("{"), []byte(`{"new":"field",`), 1)
	s.message(s.now, 0, payload, false)
	s.pass(time.Minute)
	s.want()
	if s.held.rev != 2000 || !bytes.Equal(s.held.payload, payload) || !s.owned {
		t.Errorf("holds %d %q", s.held.rev, s.held.payload)
	}
}

// A later list with other content silences it, until its own file changes.
func TestLaterListSilences(t *testing.T) {
	s := inForce(t)
	s.message(s.now, 0, ranked(2000, "rival\u00e9", "y"), false)
	s.pass(10 * time.Minute)
	s.message(s.now, 0, []byte("by.hand"), false)
	s.message(s.now, 0, nil, false)
	s.pass(time.Minute)
	s.file(s.now, names("x")) // read again, not changed
	s.pass(time.Second)
	s.want()
	if n := strings.Count(s.log.String(), "is not in force"); n < 10 || n > 12 {
		t.Errorf("%d warnings in 11 min, want one a minute", n)
	}
	if !strings.Contains(s.log.String(), "by=rival\u00e9") {
		t.Errorf("the warning does not name the rival:\n%s", s.log)
	}
	s.file(s.now, names("z"))
	s.want(fmt.Sprintf("0 %d me z", s.ms()))
	s.message(s.now, 0, ranked(s.ms(), "me", "z"), false) // it comes back
	s.pass(time.Minute)
	s.want()
}

// The two agree again.
func TestSilenceEndsInAgreement(t *testing.T) {
	s := inForce(t)
	s.message(s.now, 0, ranked(2000, "rival", "y"), false)
	s.message(s.now, 0, ranked(3000, "rival", "x"), false)
	s.pass(time.Minute)
	s.want()
	if s.rival != nil || s.held.rev != 3000 {
		t.Errorf("rival %v, held %v", s.rival, s.held)
	}
	s.message(s.now, 0, nil, false)
	s.want("0 3000 rival x")
}

// An earlier list, an empty payload and rubbish are replaced.
func TestRestores(t *testing.T) {
	for name, payload := range map[string][]byte{
		"earlier": ranked(999, "other", "y"), "cleared": nil, "blank": []byte(" \n"), "rubbish": []byte("{\x00"), "by hand": []byte("y"),
		"forged": ranked(wire.MaxSeq, "mallory", "y"), "no rev": ranked(0, "", "x"), "too long": bytes.Repeat([]byte("a "), wire.MaxWatch),
	} {
		t.Run(name, func(t *testing.T) {
			for _, retained := range []bool{true, false} {
				s := inForce(t)
				s.message(s.now, 0, payload, retained)
				s.pass(time.Second)
				s.want("0 1000 other x")
			}
		})
	}
}

// A forged rev is not followed, and not spread.
func TestForgedListIsNotFollowed(t *testing.T) {
	s := newStand(t, 2)
	s.subscribed(s.now, 0)
	s.subscribed(s.now, 1)
	s.message(s.now, 0, ranked(1000, "other", "x"), true)
	s.message(s.now, 1, ranked(1000, "other", "x"), true)
	s.message(s.now, 0, ranked(s.ms()+horizon.Milliseconds()+1000, "mallory", "y"), false)
	s.pass(time.Second)
	s.want("0 1000 other x")
	if s.held.rev != 1000 || !strings.Contains(s.log.String(), "by=mallory") {
		t.Errorf("holds rev %d; log:\n%s", s.held.rev, s.log)
	}
	s.message(s.now, 0, ranked(s.ms()+horizon.Milliseconds()-1000, "early", "z"), false) // within bounds
	s.want(fmt.Sprintf("1 %d early z", s.ms()+horizon.Milliseconds()-1000))
}

// Of two lists with one rev all collectors prefer the same.
func TestOneRevTwoContents(t *testing.T) {
	a, b := names("a"), names("b")
	if a.ContentHash() > b.ContentHash() {
		a, b = b, a
	}
	for _, c := range []struct {
		own, other wire.Watch
		silent     bool
	}{{a, b, true}, {b, a, false}} {
		s := newStand(t, 1)
		s.subscribed(s.now, 0)
		s.message(s.now, 0, ranked(1000, "me", ids(c.own)), true)
		s.file(s.now, c.own)
		s.message(s.now, 0, ranked(1000, "other", ids(c.other)), false)
		s.pass(time.Second)
		if got := s.rival != nil; got != c.silent {
			t.Errorf("own %s, other %s: silent %v, want %v", ids(c.own), ids(c.other), got, c.silent)
		}
		if c.silent {
			s.want()
		} else {
			s.want("0 1000 me " + ids(c.own))
		}
	}
}

// A clock that is not set does not make today's revs look forged, nor own ones
// look old.
func TestClockIsNotSet(t *testing.T) {
	s := newStand(t, 1)
	s.floor = s.now.Add(-30 * 24 * time.Hour)
	s.wall = func(now time.Time) int64 { return now.UnixMilli() - s.ms() } // 1970
	other := s.ms()
	s.subscribed(s.now, 0)
	s.message(s.now, 0, ranked(other, "other", "x"), true)
	s.file(s.now, names("y"))
	s.want(fmt.Sprintf("0 %d me y", other+1))
	s.message(s.now, 0, ranked(other+2, "other", "x"), false)
	s.pass(time.Minute)
	s.want()
}

// A list of a newer version is left alone until the own content changes.
func TestNewerVersionIsLeftAlone(t *testing.T) {
	s := inForce(t)
	s.message(s.now, 0, []byte(`{"v":2,"rev":5,"targets":[]}`), true)
	s.pass(time.Hour)
	s.want()
	s.file(s.now, names("y"))
	s.want(fmt.Sprintf("0 %d me y", s.ms()))
}

// The pauses between publishes of one list double, and start anew when the
// list changes.
func TestPausesGrow(t *testing.T) {
	s := inForce(t)
	var at []time.Duration
	began := s.now
	for s.now.Sub(began) < 2*time.Hour {
		s.message(s.now, 0, ranked(999, "stubborn", "y"), false)
		if len(s.sent) > 0 {
			at = append(at, s.now.Sub(began))
			s.sent = nil
		}
		s.pass(time.Second)
	}
	if len(at) < 12 || len(at) > 22 {
		t.Errorf("%d publishes in 2 h of being overwritten at once", len(at))
	}
	for i := 2; i < len(at)-1; i++ {
		if a, b := at[i]-at[i-1], at[i+1]-at[i]; b < a-time.Second && i < 9 {
			t.Errorf("pause %v after %v", b, a)
		}
	}
	if !strings.Contains(s.log.String(), "does not keep the watch list") {
		t.Error("no warning")
	}
	s.file(s.now, names("changed"))
	if len(s.sent) != 1 {
		t.Errorf("a change of the own file waits: published %q", s.sent)
	}
}

// A stored list without rev is adopted by who holds nothing, after 10 s in which
// no broker showed a rev.
func TestStoredListWithoutRev(t *testing.T) {
	s := newStand(t, 2)
	s.subscribed(s.now, 0)
	s.message(s.now, 0, []byte("by.hand"), true)
	s.subscribed(s.now, 1)
	s.pass(9900 * time.Millisecond)
	s.want()
	s.pass(100 * time.Millisecond)
	s.want(fmt.Sprintf("0 %d me by.hand", s.ms()), fmt.Sprintf("1 %d me by.hand", s.ms()))

	s = newStand(t, 2)
	s.subscribed(s.now, 0)
	s.message(s.now, 0, []byte("by.hand"), true)
	s.pass(9 * time.Second)
	s.subscribed(s.now, 1)
	s.message(s.now, 1, ranked(1000, "other", "x"), true)
	s.message(s.now, 0, ranked(1000, "other", "x"), false) // what it published comes back
	s.pass(time.Minute)
	s.want("0 1000 other x")
}

// A person may take a wish back before it is granted.
func TestWishTakenBack(t *testing.T) {
	s := newStand(t, 1)
	s.subscribed(s.now, 0)
	s.pass(10 * time.Second)
	s.message(s.now, 0, []byte("oops"), false)
	s.pass(500 * time.Millisecond)
	s.message(s.now, 0, nil, false)
	s.pass(time.Minute)
	s.want()
	s.message(s.now, 0, []byte("oops"), false)
	s.message(s.now, 0, []byte("right"), false)
	s.pass(time.Second)
	s.want(fmt.Sprintf("0 %d me right", s.ms()))
}

// A person's list that only fits without rev is refused, not published cut.
func TestWishTooLong(t *testing.T) {
	s := newStand(t, 1)
	s.subscribed(s.now, 0)
	s.pass(10 * time.Second)
	var b bytes.Buffer
	for i := range 9000 {
		fmt.Fprintf(&b, "long-name-%d ", i)
	}
	s.message(s.now, 0, b.Bytes(), false)
	s.pass(time.Minute)
	s.want()
	if !strings.Contains(s.log.String(), "too long") {
		t.Errorf("no warning:\n%s", s.log)
	}
}

// A list made while the own clock was decades ahead gets a rev that others can
// follow.
func TestRecoversFromItsOwnFuture(t *testing.T) {
	s := newStand(t, 1)
	l := newList(names("x"), nil)
	l.rev = s.ms() + 2*horizon.Milliseconds()
	l.watch.Rev = l.rev
	s.restore(l, true)
	s.file(s.now, names("x"))
	s.subscribed(s.now, 0)
	s.message(s.now, 0, l.payload, true)
	s.pass(time.Second)
	if len(s.sent) != 1 || s.held.rev > s.ms() {
		t.Errorf("published %q, holds rev %d", s.sent, s.held.rev)
	}
}

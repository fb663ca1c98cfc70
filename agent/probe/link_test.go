package probe

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/wire"
)

func one(a netip.Addr) Round { return Round{Addr: a, Count: 1, Timeout: time.Second} }

// An ICMP error that is pending makes the next send fail, whatever its
// destination: it is read, credited to its own round, and the send repeated.
func TestPendingErrorFailsTheNextSend(t *testing.T) {
	var pending event
	n := &fakeNet{}
	n.react = func(to netip.Addr, _ int) []reaction {
		if to != router {
			return []reaction{{after: 10 * ms}}
		}
		return []reaction{{after: time.Hour, cause: wire.CauseUnreachable, from: addr("11.7.7.7"), edit: func(ev *event) { pending = *ev }}}
	}
	n.refuse = func(s *fakeSocket, to netip.Addr) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if to == target && len(s.pending) > 0 {
			return fmt.Errorf("no route to host: %w", errFake)
		}
		return nil
	}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		failed := make(chan Outcome, 1)
		e.Start(one(router), func(o Outcome) { failed <- o })
		synctest.Wait()
		s := n.opened()[0]
		s.mu.Lock()
		s.pending = []event{pending}
		s.mu.Unlock()
		if o := ping(t, e, one(target)); !o.Answered() || o.Cause != "" {
			t.Errorf("the innocent round: got %+v", o)
		}
		if o := <-failed; o.Cause != wire.CauseUnreachable || o.From != addr("11.7.7.7") || o.Sent != 1 {
			t.Errorf("the round in error: got %+v", o)
		}
	})
}

// What this machine refuses to send is not the network's loss.
func TestRequestsThatCannotBeSent(t *testing.T) {
	book := &logBook{}
	for _, c := range []struct {
		refused func(n int) bool
		sent    int
		cause   wire.Cause
	}{
		{func(int) bool { return true }, 0, wire.CauseLocal},
		{func(n int) bool { return n == 1 }, 2, wire.CauseLocal},
		{func(n int) bool { return n > 0 }, 1, wire.CauseLocal},
	} {
		attempt := 0
		n := &fakeNet{}
		n.refuse = func(*fakeSocket, netip.Addr) error {
			defer func() { attempt++ }()
			if c.refused(attempt / sendTries) {
				return errFake
			}
			attempt += sendTries - 1
			return nil
		}
		bubble(t, n, EngineOptions{Log: book.logger()}, func(t *testing.T, e *Engine) {
			begin := time.Now()
			o := ping(t, e, Round{Addr: target, Count: 3, Timeout: 4 * time.Second})
			if o.Sent != c.sent || len(o.RTTs) != c.sent || o.Cause != c.cause || !strings.Contains(o.Err, "send to 12.0.0.1: made up") {
				t.Errorf("got %+v, want %d sent", o, c.sent)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("took %v although there was nothing to wait for", took)
			}
			if got := e.Stats().Local; int(got) != 3-c.sent {
				t.Errorf("counted %d as local, want %d", got, 3-c.sent)
			}
		})
	}
	if n := book.count("cannot send from this machine"); n != 3 {
		t.Errorf("%d lines in the log, want one for each engine", n)
	}
}

// Without permission rounds end at once with the command that grants it; the
// log says so once, and once that it is over.
func TestNoPermission(t *testing.T) {
	book := &logBook{}
	denied := true
	n := &fakeNet{}
	n.deny = func(family int) error {
		if denied {
			return &refusedError{msg: "no permission", hint: "sudo something", err: errFake}
		}
		return nil
	}
	bubble(t, n, EngineOptions{Log: book.logger()}, func(t *testing.T, e *Engine) {
		for range 100 {
			begin := time.Now()
			o := ping(t, e, Round{Addr: target, Count: 5, Timeout: 4 * time.Second})
			if o.Sent != 0 || o.Cause != wire.CauseLocal || !strings.Contains(o.Err, "no permission") || !strings.Contains(o.Err, "sudo something") {
				t.Fatalf("got %+v", o)
			}
			if took := time.Since(begin); took != 0 {
				t.Fatalf("took %v", took)
			}
			time.Sleep(10 * time.Second)
		}
		if n := book.count("level=WARN"); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
		n.mu.Lock()
		denied = false
		n.mu.Unlock()
		time.Sleep(2 * time.Minute) // longer than any pause between attempts
		if o := ping(t, e, one(target)); !o.Answered() {
			t.Errorf("with permission: got %+v", o)
		}
		if n := book.count("can ping again"); n != 1 {
			t.Errorf("the recovery was logged %d times, want once", n)
		}
	})
}

// A family that cannot be had does not disturb the other.
func TestOneFamilyOnly(t *testing.T) {
	n := &fakeNet{deny: func(family int) error {
		if family == 6 {
			return errFake
		}
		return nil
	}}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		if o := ping(t, e, one(addr("2001:db8::1"))); o.Cause != wire.CauseLocal {
			t.Errorf("IPv6: got %+v", o)
		}
		if o := ping(t, e, one(target)); !o.Answered() {
			t.Errorf("IPv4: got %+v", o)
		}
	})
}

func TestBrokenSocketIsReplaced(t *testing.T) {
	n := &fakeNet{}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		ping(t, e, one(target))
		n.opened()[0].breaks <- errFake
		synctest.Wait()
		if o := ping(t, e, one(router)); o.Cause != wire.CauseLocal || !strings.Contains(o.Err, "made up") {
			t.Errorf("right after it broke: got %+v", o)
		}
		time.Sleep(time.Second + time.Millisecond) // the first pause at its longest
		if o := ping(t, e, one(target)); !o.Answered() {
			t.Errorf("later: got %+v", o)
		}
		if s := n.opened(); len(s) != 2 || !s[0].isClosed() {
			t.Errorf("%d sockets, want a second and the first closed", len(s))
		}
	})
}

// Three different addresses without any reply in between call for a new
// socket, at most once a minute; the old one still hears what comes for it.
func TestSilenceRenewsTheSocket(t *testing.T) {
	n := &fakeNet{}
	n.react = func(to netip.Addr, _ int) []reaction {
		if to == target {
			return []reaction{{after: 10 * ms}}
		}
		if to == router {
			return []reaction{{after: 11 * time.Second}}
		}
		if to == numbered(99) {
			return []reaction{{after: 10 * time.Second}}
		}
		return nil
	}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		slow := make(chan Outcome, 2)
		for _, a := range []netip.Addr{router, numbered(99)} {
			e.Start(Round{Addr: a, Count: 1, Timeout: 12 * time.Second}, func(o Outcome) { slow <- o })
		}
		sockets := func(want int, when string) {
			t.Helper()
			if got := len(n.opened()); got != want {
				t.Errorf("%s: %d sockets, want %d", when, got, want)
			}
		}
		for range 5 {
			ping(t, e, one(numbered(1)))
		}
		sockets(1, "one silent address")
		ping(t, e, one(numbered(2)))
		ping(t, e, one(target))
		ping(t, e, one(numbered(3)))
		ping(t, e, one(numbered(4)))
		sockets(1, "a reply in between")
		ping(t, e, one(numbered(5)))
		ping(t, e, one(numbered(6)))
		sockets(2, "three silent addresses")
		if n.opened()[0].isClosed() {
			t.Error("the old socket was closed with a packet in flight")
		}
		for range 2 { // the first must not close it for the second
			if o := <-slow; !o.Answered() {
				t.Errorf("a reply through the old socket: got %+v", o)
			}
		}
		if !n.opened()[0].isClosed() {
			t.Error("the old socket stays open")
		}
		for i := range 9 {
			ping(t, e, one(numbered(10+i)))
		}
		sockets(2, "within the minute")
		time.Sleep(freshGap)
		for i := range 4 {
			ping(t, e, one(numbered(10+i)))
		}
		sockets(3, "after a minute")
	})
}

// An echo identifier does not live for ever.
func TestSocketIsRenewedEveryHour(t *testing.T) {
	n := &fakeNet{}
	bubble(t, n, EngineOptions{}, func(t *testing.T, e *Engine) {
		const hours = 60
		for range hours * 6 {
			if o := ping(t, e, one(target)); !o.Answered() {
				t.Fatalf("got %+v", o)
			}
			time.Sleep(10 * time.Minute)
		}
		if got := len(n.opened()); got < hours*3/4 || got > hours*6/5+1 {
			t.Errorf("%d sockets in %d hours", got, hours)
		}
	})
}

// When the hourly socket cannot be had the old one goes on.
func TestOldSocketBeatsNone(t *testing.T) {
	book := &logBook{}
	n := &fakeNet{}
	n.deny = func(int) error {
		if len(n.sockets) > 0 { // n.mu is held
			return errFake
		}
		return nil
	}
	bubble(t, n, EngineOptions{Log: book.logger()}, func(t *testing.T, e *Engine) {
		for range 5 {
			if o := ping(t, e, one(target)); !o.Answered() {
				t.Fatalf("got %+v", o)
			}
			time.Sleep(time.Hour)
		}
		if n := book.count("cannot ping"); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
	})
}

// The end of an engine is no failure, and is not told as one.
func TestEndIsNoFailure(t *testing.T) {
	book := &logBook{}
	bubble(t, &fakeNet{}, EngineOptions{Log: book.logger()}, func(t *testing.T, e *Engine) {
		if o := ping(t, e, one(target)); !o.Answered() {
			t.Fatalf("got %+v", o)
		}
	})
	if n := book.count("cannot ping"); n != 0 {
		t.Errorf("%d warnings of an engine that was told to stop", n)
	}
}

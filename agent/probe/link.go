package probe

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"swarming/shared/backoff"
)

const (
	// socketLife is how long a socket is used, give or take a sixth. NAT boxes
	// and firewalls remember an echo identifier, and some end up dropping it.
	socketLife = time.Hour
	// silentAddrs different addresses in a row without any reply, in one
	// family, raise the suspicion that the identifier is being dropped …
	silentAddrs = 3
	// … and a new socket is tried, at most this often.
	freshGap = time.Minute

	// complainGap is the shortest time between two log lines about sends that fail.
	complainGap = 10 * time.Minute
)

// A conn is one socket and the packets that count on it.
type conn struct {
	socket
	codec   codec
	mode    mode
	waiting int  // packets in flight
	retired bool // to be closed once nothing waits
}

func (c *conn) release() {
	c.waiting--
	if c.retired && c.waiting == 0 {
		c.close()
	}
}

func (c *conn) retire() {
	c.retired = true
	if c.waiting == 0 {
		c.close()
	}
}

// A link is the way out over one family of addresses: an open socket, or the
// reason why there is none. The engine's lock guards it.
type link struct {
	family int
	open   func(*link) (*conn, error) // opens a socket and starts its reader
	log    *slog.Logger

	conn    *conn
	expires time.Duration // when conn is to be replaced
	fresh   time.Duration // when conn was last replaced because of silence

	err       error // why there is no socket
	retry     backoff.Backoff
	retryAt   time.Duration
	downSince time.Duration
	downCount int // attempts that failed since

	silent []netip.Addr // up to silentAddrs different ones, none of which answered

	complained time.Duration // when sends that fail were last logged
	unsaid     int           // those since
}

func newLink(family int, log *slog.Logger, open func(*link) (*conn, error)) link {
	return link{family: family, log: log, open: open, fresh: -freshGap, complained: -complainGap}
}

// get returns the socket to send with, and opens or replaces it when it is time to.
func (l *link) get(now time.Duration) (*conn, error) {
	if l.conn != nil && now < l.expires {
		return l.conn, nil
	}
	if l.err == nil || now >= l.retryAt {
		l.renew(now)
	}
	if l.conn == nil {
		return nil, l.err
	}
	return l.conn, nil // after a failure to replace it: an old socket beats none
}

// renew opens a socket; the one before stays until its packets are settled.
func (l *link) renew(now time.Duration) {
	c, err := l.open(l)
	if err != nil {
		l.failed(now, err)
		return
	}
	if l.err != nil {
		l.log.Info("can ping again", "family", l.family, "by", c.mode, "attempts", l.downCount, "after", (now - l.downSince).Round(time.Second))
		l.err, l.downCount = nil, 0
		l.retry.Reset()
	}
	if l.conn != nil {
		l.conn.retire()
	}
	l.conn = c
	l.expires = now + socketLife*5/6 + rand.N(socketLife/3)
	l.silent = l.silent[:0]
}

func (l *link) failed(now time.Duration, err error) {
	if l.err == nil {
		l.downSince = now
		l.log.Warn("cannot ping", "family", l.family, "err", err, "hint", hintOf(err))
	}
	l.err = err
	l.downCount++
	l.retryAt = now + l.retry.Next()
}

// broke gives up on c, whose reader ended with err.
func (l *link) broke(now time.Duration, c *conn, err error) {
	if !c.retired {
		c.retire()
	}
	if l.conn == c {
		l.conn = nil
		l.failed(now, err)
	}
}

// answered hears that a reply came: replies do get through.
func (l *link) answered() { l.silent = l.silent[:0] }

// unanswered hears of a round that met with nothing but silence.
func (l *link) unanswered(now time.Duration, addr netip.Addr) {
	if len(l.silent) < silentAddrs && !slices.Contains(l.silent, addr) {
		l.silent = append(l.silent, addr)
	}
	if len(l.silent) == silentAddrs && now-l.fresh >= freshGap {
		l.log.Debug("nothing answers, trying a new socket", "family", l.family)
		l.fresh = now
		l.expires = now // replaced by the next send
		l.silent = l.silent[:0]
	}
}

// complain logs that a request could not be sent, seldom.
func (l *link) complain(now time.Duration, err error) {
	l.unsaid++
	if now-l.complained < complainGap {
		return
	}
	l.log.Warn("cannot send from this machine", "family", l.family, "err", err, "packets", l.unsaid)
	l.complained, l.unsaid = now, 0
}

// close closes the current socket at once.
func (l *link) close() {
	c := l.conn
	l.conn = nil // so that the end of its reader is no failure
	if c != nil && !c.retired {
		c.retired = true
		c.close()
	}
}

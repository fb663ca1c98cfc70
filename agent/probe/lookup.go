package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"swarming/shared/wire"
)

// A previous is what a new answer is to agree with if it can.
type previous struct {
	addr   netip.Addr
	failed bool
}

// lookup asks the system.
func (r *Resolver) lookup(ctx context.Context, q question, prev previous) Answer {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	network := "ip"
	if q.family != wire.FamilyAny {
		network = "ip" + string(q.family)
	}
	addrs, err := r.ask(ctx, network, absolute(q.name))
	if err != nil {
		return Answer{Cause: causeOfLookup(err), Err: err}
	}
	return r.choose(q, addrs, prev)
}

// absolute keeps a resolver from trying a name with a dot in the search domains.
func absolute(name string) string {
	if strings.Contains(name, ".") && !strings.HasSuffix(name, ".") {
		return name + "."
	}
	return name
}

// causeOfLookup tells a name that does not exist from a resolver that does not work.
func causeOfLookup(err error) wire.Cause {
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound && !e.IsTimeout && !e.IsTemporary {
		return wire.CauseNoSuchHost
	}
	// The name has addresses, but of the other family only.
	if _, ok := errors.AsType[*net.AddrError](err); ok {
		return wire.CauseNoSuchHost
	}
	return wire.CauseResolver
}

// choose picks the first allowed address in the system's order, or rather the
// previous one if it still is among them. When that one does not answer and the
// system now prefers the other family, it is let go: this machine may have lost
// its way out over that family.
func (r *Resolver) choose(q question, addrs []netip.Addr, prev previous) Answer {
	var first netip.Addr
	var refused error
	keep := false
	for _, a := range addrs {
		a = a.Unmap().WithZone("") // LookupNetIP gives IPv4 addresses as v4-mapped
		if !fits(a, q.family) {
			continue
		}
		if err := r.check(a); err != nil {
			if refused == nil {
				refused = err
			}
			continue
		}
		if !first.IsValid() {
			first = a
		}
		keep = keep || a == prev.addr
	}
	switch {
	case keep && !(prev.failed && first.Is4() != prev.addr.Is4()):
		return Answer{Addr: prev.addr}
	case first.IsValid():
		return Answer{Addr: first}
	case refused != nil:
		return Answer{Cause: wire.CausePolicy, Err: fmt.Errorf("%s: %w", q.name, refused)}
	}
	return Answer{Cause: wire.CauseNoSuchHost, Err: fmt.Errorf("%s has no address of family %s", q.name, q.family)}
}

// An outage is a row of lookups that all failed.
type outage struct {
	since time.Time
	count int
}

// outageAfter failures in a row are worth a line in the log: fewer can be one
// domain's own fault.
const outageAfter = 4

// watch logs when the resolver seems to be down, and when it works again.
// r.mu is held.
func (r *Resolver) watch(now time.Time, a Answer) {
	if a.Cause != wire.CauseResolver {
		if r.outage.count >= outageAfter {
			r.log.Info("names can be looked up again", "failures", r.outage.count, "after", now.Sub(r.outage.since).Round(time.Second))
		}
		r.outage = outage{}
		return
	}
	if r.outage.count == 0 {
		r.outage.since = now
	}
	if r.outage.count++; r.outage.count == outageAfter {
		r.log.Warn("cannot look up names", "err", a.Err)
	}
}

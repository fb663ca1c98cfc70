package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"swarming/shared/wire"
)

const (
	// MaxHosts is how many hosts, each with each family asked for, a resolver
	// remembers, and how many questions wait for an answer.
	MaxHosts = 8192

	lookups       = 4               // at a time
	lookupTimeout = 5 * time.Second // for each
	refreshAfter  = 5 * time.Minute // give or take a fifth
	failedAfter   = time.Minute     // shortest time between lookups after rounds without a reply
	refusedFor    = time.Minute     // how long "no such host" and refused addresses are believed, give or take a fifth
	brokenFor     = 20 * time.Second
	forgetAfter   = time.Hour        // since a host was last asked for
	patience      = 15 * time.Second // how long a question waits for its turn
	sweepEvery    = 5 * time.Second
)

// ErrStopped is the error of an answer that the end of [Resolver.Run] cut short.
var ErrStopped = errors.New("the resolver has stopped")

// ResolverOptions are the settings of a [Resolver].
type ResolverOptions struct {
	Policy *Policy // nil: every address is allowed
	// Lookup asks the system; network is "ip", "ip4" or "ip6".
	// nil: net.DefaultResolver.LookupNetIP.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	Log    *slog.Logger   // nil: discard
	Rand   func() float64 // in [0, 1); nil: math/rand/v2
}

// An Answer is a host's address, or why there is none.
type Answer struct {
	Addr  netip.Addr // valid if Cause is ""
	Cause wire.Cause // "", no_such_host, resolver, policy, or local when stopped
	Err   error      // for people; nil if Cause is ""
}

// A Resolver turns hosts into addresses that may be measured, and remembers
// them: a host's address stays the same for as long as the host has it, so that
// its statistics stay comparable. An address past its time is still answered at
// once, while it is looked up again in the background, so that a slow resolver
// delays no measurement; and it is kept for as long as the resolver fails.
//
// Its methods may be called from any goroutine.
type Resolver struct {
	policy *Policy
	ask    func(ctx context.Context, network, host string) ([]netip.Addr, error)
	log    *slog.Logger
	rand   func() float64
	work   chan struct{} // holds one: the queue has something

	mu      sync.Mutex // guards what follows
	hosts   map[question]*host
	queue   []*host // to look up, first come first served; a host at most once
	waiting int     // callers, over all hosts
	stopped bool
	swept   time.Time
	outage  outage
	count   ResolverStats
}

// ResolverStats count what a resolver did since it was made.
type ResolverStats struct {
	Hosts   int    // remembered now
	Waiting int    // questions without an answer now
	Lookups uint64 // asked of the system
	Failed  uint64 // of those, without an answer
	Refused uint64 // answers without an address that the policy allows
	Full    uint64 // questions refused because MaxHosts was reached
	Late    uint64 // questions that waited in vain for their turn
}

type question struct {
	name   string // lower case
	family wire.Family
}

// A host is what is known of one question.
type host struct {
	question
	answer  Answer    // the last; Addr may be old while a resolver fails
	known   bool      // there has been an answer
	asked   time.Time // by a caller
	looked  time.Time // when the last lookup ended
	expires time.Time // when answer is to be refreshed
	failed  bool      // the last round at Addr had no reply
	queued  bool      // in queue or being looked up
	waiting []waiter
}

type waiter struct {
	since time.Time
	done  func(Answer)
}

// NewResolver allocates a resolver. Run does the lookups.
func NewResolver(o ResolverOptions) *Resolver {
	r := &Resolver{
		policy: o.Policy, ask: o.Lookup, log: o.Log, rand: o.Rand,
		work:  make(chan struct{}, 1),
		hosts: map[question]*host{},
	}
	if r.ask == nil {
		r.ask = net.DefaultResolver.LookupNetIP
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.rand == nil {
		r.rand = rand.Float64
	}
	return r
}

// Get calls done exactly once with the address of name in family ("any" or "",
// "4", "6"): before it returns when that is known already or the question cannot be
// taken, and from a goroutine of Run otherwise, at most about 20 s later. name is
// an IP address, or a host name, looked up as an absolute one if it has a dot.
func (r *Resolver) Get(now time.Time, name string, family wire.Family, done func(Answer)) {
	family = cmp.Or(family, wire.FamilyAny)
	if addr, err := netip.ParseAddr(name); err == nil {
		done(r.literal(addr, family))
		return
	}
	if a, ok := r.get(now, question{strings.ToLower(name), family}, done); ok {
		done(a)
	}
}

// get answers at once, or keeps done for later.
func (r *Resolver) get(now time.Time, q question, done func(Answer)) (Answer, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return stoppedAnswer, true
	}
	h, ok := r.hosts[q]
	if !ok {
		if len(r.hosts) >= MaxHosts && !r.forget(now) {
			r.count.Full++
			return Answer{Cause: wire.CauseResolver, Err: fmt.Errorf("look up %q: %d hosts are known, which is the most", q.name, MaxHosts)}, true
		}
		h = &host{question: q}
		r.hosts[q] = h
	}
	h.asked = now
	stale := !now.Before(h.expires)
	if h.known && (h.answer.Addr.IsValid() || !stale) {
		if stale {
			r.enqueue(h)
		}
		return h.answer, true
	}
	if r.waiting >= MaxHosts {
		r.count.Full++
		return Answer{Cause: wire.CauseResolver, Err: fmt.Errorf("look up %q: %d questions wait, which is the most", q.name, MaxHosts)}, true
	}
	r.waiting++
	h.waiting = append(h.waiting, waiter{now, done})
	r.enqueue(h)
	return Answer{}, false
}

var stoppedAnswer = Answer{Cause: wire.CauseLocal, Err: ErrStopped}

// literal answers for an address.
func (r *Resolver) literal(a netip.Addr, family wire.Family) Answer {
	if !fits(a.Unmap(), family) {
		return Answer{Cause: wire.CauseNoSuchHost, Err: fmt.Errorf("%v is not an IPv%s address", a, family)}
	}
	if err := r.check(a); err != nil {
		return Answer{Cause: wire.CausePolicy, Err: err}
	}
	return Answer{Addr: a.Unmap()}
}

func fits(a netip.Addr, family wire.Family) bool {
	switch family {
	case wire.Family4:
		return a.Is4()
	case wire.Family6:
		return a.Is6()
	}
	return true
}

func (r *Resolver) check(a netip.Addr) error {
	if r.policy == nil {
		return nil
	}
	return r.policy.Check(a)
}

// Failed hears that a round at the host's address had no reply: perhaps the
// host has moved. It is looked up again, at most once a minute.
func (r *Resolver) Failed(name string, family wire.Family) {
	q := question{strings.ToLower(name), cmp.Or(family, wire.FamilyAny)}
	r.mu.Lock()
	defer r.mu.Unlock()
	h, ok := r.hosts[q]
	if !ok || !h.answer.Addr.IsValid() {
		return
	}
	h.failed = true
	if time.Since(h.looked) >= failedAfter {
		r.enqueue(h)
	}
}

// Stats returns the counters.
func (r *Resolver) Stats() ResolverStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.count
	s.Hosts, s.Waiting = len(r.hosts), r.waiting
	return s
}

// enqueue has h looked up. r.mu is held.
func (r *Resolver) enqueue(h *host) {
	if h.queued || r.stopped {
		return
	}
	h.queued = true
	r.queue = append(r.queue, h)
	select {
	case r.work <- struct{}{}:
	default: // somebody will look anyway
	}
}

// forget drops what nobody has asked for in an hour and reports whether there
// is room now. r.mu is held.
func (r *Resolver) forget(now time.Time) bool {
	if now.Sub(r.swept) < time.Minute && !r.swept.IsZero() {
		return len(r.hosts) < MaxHosts
	}
	r.swept = now
	for q, h := range r.hosts {
		if !h.queued && now.Sub(h.asked) >= forgetAfter {
			delete(r.hosts, q)
		}
	}
	return len(r.hosts) < MaxHosts
}

// Run looks up what is asked for until ctx ends, and then answers what still
// waits with [ErrStopped]. The error is always nil. Call it once.
func (r *Resolver) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range lookups {
		workers.Go(func() { r.lookupAll(ctx) })
	}
	r.sweepUntil(ctx)
	workers.Wait()
	r.mu.Lock()
	r.stopped = true
	var left []waiter
	for _, h := range r.hosts {
		left = append(left, h.waiting...)
		h.waiting = nil
	}
	r.queue, r.waiting = nil, 0
	r.mu.Unlock()
	for _, w := range left {
		w.done(stoppedAnswer)
	}
	return nil
}

// lookupAll looks up one host after the other.
func (r *Resolver) lookupAll(ctx context.Context) {
	for {
		h := r.take()
		if h == nil {
			select {
			case <-ctx.Done():
				return
			case <-r.work:
			}
			continue
		}
		answer := r.lookup(ctx, h.question, r.previous(h))
		if ctx.Err() != nil {
			return // Run answers the waiting
		}
		r.settle(time.Now(), h, answer)
	}
}

// take returns the next host to look up, or nil. It passes the word on when
// there is more than one.
func (r *Resolver) take() *host {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return nil
	}
	h := r.queue[0]
	r.queue[0] = nil
	if r.queue = r.queue[1:]; len(r.queue) > 0 {
		select {
		case r.work <- struct{}{}:
		default: // somebody will look anyway
		}
	} else {
		r.queue = nil
	}
	r.count.Lookups++
	return h
}

func (r *Resolver) previous(h *host) previous {
	r.mu.Lock()
	defer r.mu.Unlock()
	return previous{h.answer.Addr, h.failed}
}

// settle takes an answer and tells those who wait for it.
func (r *Resolver) settle(now time.Time, h *host, a Answer) {
	r.mu.Lock()
	h.looked, h.queued, h.failed = now, false, false
	r.watch(now, a)
	switch {
	case a.Cause == "":
		h.expires = now.Add(r.about(refreshAfter))
		if h.answer.Addr.IsValid() && h.answer.Addr != a.Addr {
			r.log.Debug("host has moved", "host", h.name, "from", h.answer.Addr, "to", a.Addr)
		}
		h.answer = a
	case a.Cause == wire.CauseResolver:
		r.count.Failed++
		h.expires = now.Add(r.about(brokenFor))
		if !h.answer.Addr.IsValid() {
			h.answer = a
		}
	default:
		if a.Cause == wire.CausePolicy {
			r.count.Refused++
		}
		h.expires = now.Add(r.about(refusedFor))
		h.answer = a
	}
	h.known = true
	a = h.answer
	waiting := h.waiting
	h.waiting = nil
	r.waiting -= len(waiting)
	r.mu.Unlock()
	for _, w := range waiting {
		w.done(a)
	}
}

// about returns d give or take a fifth.
func (r *Resolver) about(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(r.rand()*float64(d)*2/5)
}

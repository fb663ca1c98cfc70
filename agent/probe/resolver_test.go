package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"swarming/shared/wire"
)

// A fakeDNS stands for the system's resolver.
type fakeDNS struct {
	answer func(ctx context.Context, network, host string) ([]netip.Addr, error)

	mu     sync.Mutex
	asked  []string // "network host"
	busy   int
	busier int // the most lookups at a time
}

func (d *fakeDNS) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	d.asked = append(d.asked, network+" "+host)
	d.busy++
	d.busier = max(d.busier, d.busy)
	answer := d.answer
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.busy--
		d.mu.Unlock()
	}()
	return answer(ctx, network, host)
}

// says makes every further answer this one.
func (d *fakeDNS) says(err error, addrs ...string) {
	var as []netip.Addr
	for _, a := range addrs {
		as = append(as, addr(a))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = func(context.Context, string, string) ([]netip.Addr, error) { return as, err }
}

func (d *fakeDNS) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.asked)
}

// never is a resolver that does not answer before its time is up.
func never(ctx context.Context, network, host string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host, IsTimeout: true}
}

var (
	errNXDomain = &net.DNSError{Err: "no such host", IsNotFound: true}
	errServFail = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
)

// resolving runs f in a synctest bubble with a running resolver.
func resolving(t *testing.T, d *fakeDNS, o ResolverOptions, f func(t *testing.T, r *Resolver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.Lookup = d.lookup
		if o.Rand == nil {
			o.Rand = func() float64 { return 0.5 } // no jitter
		}
		r := NewResolver(o)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Run(ctx); close(ended) }()
		f(t, r)
		cancel()
		<-ended
		if n := r.Stats().Waiting; n != 0 {
			t.Errorf("%d questions are still waiting after the end", n)
		}
	})
}

// get waits for the answer.
func get(r *Resolver, name string, family wire.Family) Answer {
	c := make(chan Answer, 1)
	r.Get(time.Now(), name, family, func(a Answer) { c <- a })
	return <-c
}

func TestLookup(t *testing.T) {
	policy := NewPolicy(nil)
	policy.addrs = func() ([]net.Addr, error) { return nil, nil }
	for _, c := range []struct {
		name   string
		host   string
		family wire.Family
		addrs  string
		err    error
		asked  string
		want   string
		cause  wire.Cause
	}{
		{name: "the first", host: "example.com", family: wire.FamilyAny, addrs: "2a00::1 8.8.8.8", asked: "ip example.com.", want: "2a00::1"},
		{name: "no family is any", host: "example.com", addrs: "8.8.8.8 2a00::1", asked: "ip example.com.", want: "8.8.8.8"},
		{name: "IPv4", host: "example.com", family: wire.Family4, addrs: "8.8.8.8", asked: "ip4 example.com.", want: "8.8.8.8"},
		{name: "IPv6", host: "example.com", family: wire.Family6, addrs: "2a00::1", asked: "ip6 example.com.", want: "2a00::1"},
		{name: "v4-mapped, as LookupNetIP gives it", host: "example.com", family: wire.Family4, addrs: "::ffff:8.8.8.8", asked: "ip4 example.com.", want: "8.8.8.8"},
		{name: "absolute already", host: "Example.com.", addrs: "8.8.8.8", asked: "ip example.com.", want: "8.8.8.8"},
		{name: "no dot", host: "router", addrs: "8.8.8.8", asked: "ip router", want: "8.8.8.8"},
		{name: "the other family", host: "example.com", family: wire.Family6, addrs: "8.8.8.8", asked: "ip6 example.com.", cause: wire.CauseNoSuchHost},
		{name: "the other family, from a hosts file", host: "example.com", family: wire.Family6, err: &net.AddrError{Err: "no suitable address found"}, asked: "ip6 example.com.", cause: wire.CauseNoSuchHost},
		{name: "none at all", host: "example.com", asked: "ip example.com.", cause: wire.CauseNoSuchHost},
		{name: "no such host", host: "example.com", err: errNXDomain, asked: "ip example.com.", cause: wire.CauseNoSuchHost},
		{name: "no such host for now", host: "example.com", err: &net.DNSError{IsNotFound: true, IsTemporary: true}, asked: "ip example.com.", cause: wire.CauseResolver},
		{name: "a server that fails", host: "example.com", err: errServFail, asked: "ip example.com.", cause: wire.CauseResolver},
		{name: "a timeout", host: "example.com", err: &net.DNSError{IsTimeout: true}, asked: "ip example.com.", cause: wire.CauseResolver},
		{name: "something else", host: "example.com", err: errFake, asked: "ip example.com.", cause: wire.CauseResolver},
		{name: "the first that is allowed", host: "example.com", addrs: "10.0.0.1 ::1 8.8.8.8", asked: "ip example.com.", want: "8.8.8.8"},
		{name: "none that is allowed", host: "example.com", addrs: "10.0.0.1 ::1", asked: "ip example.com.", cause: wire.CausePolicy},
		{name: "an address", host: "8.8.8.8", family: wire.FamilyAny, want: "8.8.8.8"},
		{name: "an address of the other family", host: "8.8.8.8", family: wire.Family6, cause: wire.CauseNoSuchHost},
		{name: "a refused address", host: "192.168.1.1", family: wire.Family4, cause: wire.CausePolicy},
		{name: "a v4-mapped address", host: "::ffff:8.8.8.8", cause: wire.CausePolicy},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &fakeDNS{}
			d.says(c.err, strings.Fields(c.addrs)...)
			resolving(t, d, ResolverOptions{Policy: policy}, func(t *testing.T, r *Resolver) {
				a := get(r, c.host, c.family)
				if c.want != "" && a != (Answer{Addr: addr(c.want)}) || c.want == "" && (a.Cause != c.cause || a.Err == nil || a.Addr.IsValid()) {
					t.Errorf("got %+v, want %s%s", a, c.want, c.cause)
				}
				if got := strings.Join(d.asked, ", "); got != c.asked {
					t.Errorf("asked %q, want %q", got, c.asked)
				}
			})
		})
	}
}

// Without a policy everything is allowed: a person pings at home.
func TestNoPolicy(t *testing.T) {
	d := &fakeDNS{}
	d.says(nil, "10.0.0.1")
	resolving(t, d, ResolverOptions{}, func(t *testing.T, r *Resolver) {
		if a := get(r, "nas.home", ""); a.Addr != addr("10.0.0.1") {
			t.Errorf("got %+v", a)
		}
		if a := get(r, "::ffff:10.0.0.1", wire.Family4); a.Addr != addr("10.0.0.1") {
			t.Errorf("got %+v", a)
		}
	})
}

// An address is answered at once, for as long as it likes, and looked up again
// in the background when its time is up; it is kept while the host has it.
func TestAddressIsKept(t *testing.T) {
	d := &fakeDNS{}
	d.says(nil, "8.8.8.8", "8.8.4.4")
	resolving(t, d, ResolverOptions{}, func(t *testing.T, r *Resolver) {
		expect := func(want string, lookups int) {
			t.Helper()
			at := time.Now()
			if a := get(r, "dns.example", ""); a.Addr.String() != want || a.Cause != "" {
				t.Errorf("got %+v, want %s", a, want)
			}
			if took := time.Since(at); took != 0 {
				t.Errorf("the answer took %v", took)
			}
			synctest.Wait()
			if n := d.count(); n != lookups {
				t.Errorf("%d lookups, want %d", n, lookups)
			}
		}
		expect("8.8.8.8", 1)
		time.Sleep(refreshAfter - time.Second)
		expect("8.8.8.8", 1)
		d.says(nil, "8.8.4.4", "8.8.8.8") // another order
		time.Sleep(time.Second)
		expect("8.8.8.8", 2)
		expect("8.8.8.8", 2)
		d.says(nil, "8.8.4.4", "9.9.9.9") // it has moved
		time.Sleep(refreshAfter)
		expect("8.8.8.8", 3)
		expect("8.8.4.4", 3)
		d.says(errServFail) // the resolver fails: the last good one stays
		time.Sleep(refreshAfter)
		expect("8.8.4.4", 4)
		expect("8.8.4.4", 4)
		time.Sleep(brokenFor)
		expect("8.8.4.4", 5)
		d.says(nil, "8.8.4.4")
		time.Sleep(brokenFor)
		expect("8.8.4.4", 6)
		d.says(errNXDomain) // the host is gone: that is an answer
		time.Sleep(refreshAfter)
		expect("8.8.4.4", 7)
		if a := get(r, "dns.example", ""); a.Cause != wire.CauseNoSuchHost {
			t.Errorf("got %+v", a)
		}
	})
}

func TestJitter(t *testing.T) {
	for random, want := range map[float64]time.Duration{0: 4 * time.Minute, 0.5: 5 * time.Minute, 1: 6 * time.Minute} {
		r := NewResolver(ResolverOptions{Rand: func() float64 { return random }})
		if got := r.about(refreshAfter); got != want {
			t.Errorf("random %g: %v, want %v", random, got, want)
		}
	}
}

// "No such host" is not asked about more often than once a minute.
func TestFailureIsRemembered(t *testing.T) {
	for _, c := range []struct {
		err  error
		hold time.Duration
	}{{errNXDomain, refusedFor}, {errServFail, brokenFor}} {
		d := &fakeDNS{}
		d.says(c.err)
		resolving(t, d, ResolverOptions{}, func(t *testing.T, r *Resolver) {
			begin := time.Now()
			for time.Since(begin) < 10*time.Minute {
				if a := get(r, "nowhere.example", ""); a.Err == nil {
					t.Fatalf("got %+v", a)
				}
				time.Sleep(5 * time.Second)
			}
			if n, want := d.count(), int(10*time.Minute/c.hold); n != want {
				t.Errorf("%v: %d lookups in 10 min, want %d", c.err, n, want)
			}
		})
	}
}

// A round without any reply has the host looked up again, at most once a minute.
func TestFailedRounds(t *testing.T) {
	d := &fakeDNS{}
	d.says(nil, "8.8.8.8")
	resolving(t, d, ResolverOptions{}, func(t *testing.T, r *Resolver) {
		get(r, "Moved.example", "")
		r.Failed("moved.example", wire.FamilyAny)
		synctest.Wait()
		if n := d.count(); n != 1 {
			t.Errorf("%d lookups right after the first, want no second", n)
		}
		for range 30 { // 5 minutes
			time.Sleep(10 * time.Second)
			r.Failed("moved.example", "")
			r.Failed("unknown.example", "")
		}
		synctest.Wait()
		if n := d.count(); n != 6 {
			t.Errorf("%d lookups, want 6: one a minute", n)
		}
		d.says(nil, "8.8.4.4")
		time.Sleep(failedAfter)
		r.Failed("moved.example", "")
		synctest.Wait()
		if a := get(r, "moved.example", ""); a.Addr != addr("8.8.4.4") {
			t.Errorf("got %+v", a)
		}
	})
}

// An address that does not answer is kept while the host has it, unless the
// system now prefers the other family.
func TestFailedAddressAmongOthers(t *testing.T) {
	for _, c := range []struct{ first, later, want string }{
		{"8.8.8.8", "8.8.4.4 8.8.8.8 2a00::1", "8.8.8.8"},
		{"2a00::1", "8.8.4.4 2a00::1", "8.8.4.4"},
		{"2a00::1", "2a00::2 2a00::1 8.8.4.4", "2a00::1"},
	} {
		d := &fakeDNS{}
		d.says(nil, c.first)
		resolving(t, d, ResolverOptions{}, func(t *testing.T, r *Resolver) {
			get(r, "a.example", "")
			time.Sleep(failedAfter)
			d.says(nil, strings.Fields(c.later)...)
			r.Failed("a.example", "")
			synctest.Wait()
			if a := get(r, "a.example", ""); a.Addr != addr(c.want) {
				t.Errorf("after %s, of %s: got %v, want %s", c.first, c.later, a.Addr, c.want)
			}
		})
	}
}

// A name that comes to point into a private network is refused from then on.
func TestRebinding(t *testing.T) {
	d := &fakeDNS{}
	d.says(nil, "8.8.8.8")
	resolving(t, d, ResolverOptions{Policy: NewPolicy(nil)}, func(t *testing.T, r *Resolver) {
		get(r, "evil.example", "")
		d.says(nil, "192.168.0.1")
		time.Sleep(refreshAfter)
		get(r, "evil.example", "")
		synctest.Wait()
		if a := get(r, "evil.example", ""); a.Cause != wire.CausePolicy || !strings.Contains(a.Err.Error(), "192.168.0.0/16") {
			t.Errorf("got %+v", a)
		}
	})
}

// A resolver that hangs gets four questions at a time, each for 5 s, and those
// who wait hear within 20 s that it is slow.
func TestSlowResolver(t *testing.T) {
	book := &logBook{}
	d := &fakeDNS{answer: never}
	resolving(t, d, ResolverOptions{Log: book.logger()}, func(t *testing.T, r *Resolver) {
		const hosts = 1000
		begin := time.Now()
		answers := make(chan Answer, hosts)
		for i := range hosts {
			r.Get(time.Now(), fmt.Sprintf("h%d.example", i), "", func(a Answer) { answers <- a })
		}
		for range hosts {
			if a := <-answers; a.Cause != wire.CauseResolver || a.Err == nil {
				t.Fatalf("got %+v", a)
			}
		}
		if took := time.Since(begin); took > patience+sweepEvery {
			t.Errorf("the last answer took %v", took)
		}
		d.mu.Lock()
		if d.busier != lookups {
			t.Errorf("%d lookups at a time, want %d", d.busier, lookups)
		}
		d.mu.Unlock()
		if n := book.count("cannot look up names"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
		d.says(nil, "8.8.8.8")
		time.Sleep(time.Minute)
		if a := get(r, "h999.example", ""); a.Addr != addr("8.8.8.8") {
			t.Errorf("once it works: got %+v", a)
		}
		if n := book.count("names can be looked up again"); n != 1 {
			t.Errorf("the recovery was logged %d times, want once", n)
		}
	})
}

// Many who ask for one host cause one lookup.
func TestOneLookupForMany(t *testing.T) {
	d := &fakeDNS{answer: func(context.Context, string, string) ([]netip.Addr, error) {
		time.Sleep(time.Second)
		return []netip.Addr{addr("8.8.8.8")}, nil
	}}
	resolving(t, d, ResolverOptions{}, func(t *testing.T, r *Resolver) {
		answers := make(chan Answer, 100)
		for range 100 {
			r.Get(time.Now(), "busy.example", "", func(a Answer) { answers <- a })
		}
		for range 100 {
			if a := <-answers; a.Addr != addr("8.8.8.8") {
				t.Fatalf("got %+v", a)
			}
		}
		if n := d.count(); n != 1 {
			t.Errorf("%d lookups, want 1", n)
		}
	})
}

// The cache is bounded; what nobody asks for is forgotten after an hour.
func TestCacheIsBounded(t *testing.T) {
	d := &fakeDNS{}
	d.says(nil, "8.8.8.8")
	resolving(t, d, ResolverOptions{}, func(t *testing.T, r *Resolver) {
		for i := range MaxHosts {
			if a := get(r, fmt.Sprintf("h%d.example", i), ""); a.Cause != "" {
				t.Fatalf("host %d: got %+v", i, a)
			}
		}
		if a := get(r, "more.example", ""); a.Cause != wire.CauseResolver || !strings.Contains(a.Err.Error(), "8192 hosts") {
			t.Errorf("one more: got %+v", a)
		}
		if s := r.Stats(); s.Hosts != MaxHosts || s.Full != 1 {
			t.Errorf("got %+v", s)
		}
		time.Sleep(30 * time.Minute)
		get(r, "h7.example", "")
		time.Sleep(40 * time.Minute)
		if s := r.Stats(); s.Hosts != 1 {
			t.Errorf("%d hosts are remembered, want the one asked for within the hour", s.Hosts)
		}
		if a := get(r, "more.example", ""); a.Cause != "" {
			t.Errorf("with room again: got %+v", a)
		}
	})
}

func TestQuestionsAreBounded(t *testing.T) {
	d := &fakeDNS{answer: never}
	resolving(t, d, ResolverOptions{}, func(t *testing.T, r *Resolver) {
		answered := 0
		var mu sync.Mutex
		for range MaxHosts {
			r.Get(time.Now(), "same.example", "", func(Answer) { mu.Lock(); answered++; mu.Unlock() })
		}
		var over Answer
		r.Get(time.Now(), "same.example", "", func(a Answer) { over = a })
		if over.Cause != wire.CauseResolver || !strings.Contains(over.Err.Error(), "8192 questions wait") {
			t.Errorf("one more: got %+v", over)
		}
		time.Sleep(lookupTimeout)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if answered != MaxHosts {
			t.Errorf("%d answers, want %d", answered, MaxHosts)
		}
	})
}

// Every question is answered exactly once, also by the end.
func TestResolverStops(t *testing.T) {
	d := &fakeDNS{answer: never}
	var r *Resolver
	answers := make(map[int]int)
	resolving(t, d, ResolverOptions{}, func(t *testing.T, running *Resolver) {
		r = running
		for i := range 50 {
			r.Get(time.Now(), fmt.Sprintf("h%d.example", i), "", func(a Answer) {
				answers[i]++
				if !errors.Is(a.Err, ErrStopped) || a.Cause != wire.CauseLocal {
					t.Errorf("got %+v", a)
				}
			})
		}
		synctest.Wait()
	})
	if len(answers) != 50 {
		t.Errorf("%d answers, want 50", len(answers))
	}
	for i, n := range answers {
		if n != 1 {
			t.Errorf("question %d was answered %d times", i, n)
		}
	}
	if a := get(r, "late.example", ""); !errors.Is(a.Err, ErrStopped) {
		t.Errorf("after the end: got %+v", a)
	}
}

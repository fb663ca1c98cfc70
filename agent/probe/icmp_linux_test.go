package probe

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"swarming/shared/wire"
)

// All that can happen to a packet, at the same time on the same sockets: no
// target's misfortune is another's loss.
func TestOutcomesOnARealNetwork(t *testing.T) {
	modes(t, func(t *testing.T, want mode) {
		l := newLab(t)
		l.agent.prepare(want)
		e := l.agent.engine()
		type expectation struct {
			addr  string
			cause wire.Cause
			from  string
		}
		cases := []expectation{
			{"10.10.0.1", wire.CauseUnreachable, "10.1.0.2"},
			{"10.11.0.1", wire.CauseProhibited, "10.1.0.2"},
			{"10.12.0.1", wire.CauseTimeout, ""},
			{"fd0a::1", wire.CauseUnreachable, "fd01::2"},
			{"fd0b::1", wire.CauseProhibited, "fd01::2"},
			{"fd0c::1", wire.CauseTimeout, ""},
			{"10.13.0.1", wire.CauseTTLExceeded, "10.2.0.2"},
			{"fd0d::1", wire.CauseTTLExceeded, "fd02::2"},
		}
		for i := range 20 {
			cases = append(cases, expectation{addr: spread(addr("10.3.0.0"), 1+i).String()}, expectation{addr: spread(addr("fd03::"), 1+i).String()})
		}
		type result struct {
			i int
			o Outcome
		}
		results := make(chan result, len(cases))
		for i, c := range cases {
			e.Start(Round{Addr: addr(c.addr), Count: 5, Timeout: time.Second}, func(o Outcome) { results <- result{i, o} })
		}
		for range cases {
			r := <-results
			c, o := cases[r.i], r.o
			var from netip.Addr
			if c.from != "" {
				from = addr(c.from)
			}
			// Of two routers in a circle either may see the last hop.
			if o.Cause == wire.CauseTTLExceeded {
				if !o.From.IsValid() {
					t.Errorf("%s: from nobody", c.addr)
				}
				from = o.From
			}
			if o.Sent != 5 || o.Cause != c.cause || o.From != from || o.Answered() != (c.cause == "") {
				t.Errorf("%s: got %+v, want cause %q from %q", c.addr, o, c.cause, c.from)
			}
			if c.cause == "" && o.Stamp != wire.StampKernel {
				t.Errorf("%s: timed by %q, want the kernel: %+v", c.addr, o.Stamp, o)
			}
		}
		if s := e.Stats(); s.Sent != uint64(5*len(cases)) || s.Received != 200 || s.Errors != 30 || s.Local != 0 || s.Sockets != 2 {
			t.Errorf("got %+v", s)
		}
	})
}

// A firewall's reject, with the words of nftables.
func TestReject(t *testing.T) {
	modes(t, func(t *testing.T, want mode) {
		l := newLab(t)
		l.agent.prepare(want)
		l.router.nft(`
table inet refuse {
	chain forward {
		type filter hook forward priority 0
		ip daddr 10.3.0.1 reject with icmp type admin-prohibited
		ip6 daddr fd03::1 reject with icmpv6 type admin-prohibited
		ip daddr 10.3.0.2 reject with icmp type net-unreachable
		ip6 daddr fd03::2 reject with icmpv6 type no-route
		ip daddr 10.3.0.3 reject with icmp type port-unreachable
		ip6 daddr fd03::3 reject with icmpv6 type port-unreachable
	}
}`)
		e := l.agent.engine()
		for a, cause := range map[string]wire.Cause{
			"10.3.0.1": wire.CauseProhibited, "fd03::1": wire.CauseProhibited, "10.3.0.2": wire.CauseUnreachable, "fd03::2": wire.CauseUnreachable,
			"10.3.0.3": wire.CauseUnreachable, "fd03::3": wire.CauseUnreachable, "10.3.0.4": "", "fd03::4": "",
		} {
			if o := ping(t, e, Round{Addr: addr(a), Count: 2, Timeout: time.Second}); o.Cause != cause || o.Sent != 2 {
				t.Errorf("%s: got %+v, want cause %q", a, o, cause)
			}
		}
	})
}

// What this machine itself refuses is local: no route, its own firewall.
func TestLocalFailures(t *testing.T) {
	modes(t, func(t *testing.T, want mode) {
		n := newNetns(t)
		n.prepare(want)
		n.nft(`
table inet own {
	chain output {
		type filter hook output priority 0
		ip daddr 127.0.0.2 drop
	}
}`)
		e := n.engine()
		for a, why := range map[string]string{
			"127.0.0.1": "", "::1": "",
			"127.0.0.2": "operation not permitted",
			"10.0.0.1":  "network is unreachable", "fd00::1": "", // IPv6's words depend on the kernel
		} {
			o := ping(t, e, Round{Addr: addr(a), Count: 2, Timeout: time.Second})
			if o.Answered() && (a == "127.0.0.1" || a == "::1") {
				continue
			}
			if o.Sent != 0 || len(o.RTTs) != 0 || o.Cause != wire.CauseLocal || !strings.Contains(o.Err, "send to "+a) || !strings.Contains(o.Err, why) {
				t.Errorf("%s: got %+v, want it local, %q", a, o, why)
			}
		}
	})
}

// A neighbour that does not exist: the kernel itself says so, after a while.
func TestNoSuchNeighbour(t *testing.T) {
	modes(t, func(t *testing.T, want mode) {
		t.Parallel()
		l := newLab(t)
		l.agent.prepare(want)
		e := l.agent.engine()
		results := make(chan Outcome, 2)
		for _, a := range []string{"10.1.0.99", "fd01::99"} {
			e.Start(Round{Addr: addr(a), Count: 1, Timeout: 20 * time.Second}, func(o Outcome) { results <- o })
		}
		for range 2 {
			o := <-results
			if own := o.From; o.Cause != wire.CauseUnreachable || own != addr("10.1.0.1") && own != addr("fd01::1") {
				t.Errorf("got %+v, want it unreachable, from the machine itself", o)
			}
		}
	})
}

// Without any right to ping it is the agent that says what is missing, and a
// kernel without IPv6 is not mistaken for that.
func TestNoRights(t *testing.T) {
	n := newNetns(t)
	var found []Capability
	n.do(func() {
		if err := dropNetRaw(); err != nil {
			t.Errorf("drop CAP_NET_RAW: %v", err)
			return
		}
		found = Capabilities()
	})
	for _, c := range found {
		if c.Mode != "none" || c.Err == nil || !strings.Contains(c.Err.Error(), "no permission") || c.Stamp != "" ||
			!strings.Contains(c.Hint, `sudo sysctl -w net.ipv4.ping_group_range="0 2147483647"`) || !strings.Contains(c.Hint, "sudo setcap cap_net_raw+ep "+os.Args[0]) {
			t.Errorf("got %+v", c)
		}
	}
	n.permit()
	n.do(func() {
		if err := dropNetRaw(); err != nil {
			t.Errorf("drop CAP_NET_RAW: %v", err)
			return
		}
		found = Capabilities()
	})
	for _, c := range found {
		if c.Mode != "ping socket" || c.Err != nil || c.Hint != "" || c.Stamp != wire.StampKernel {
			t.Errorf("permitted: got %+v", c)
		}
	}
}

// The engine starts to measure once the right is granted, without a restart.
func TestRightsGrantedLater(t *testing.T) {
	n := newNetns(t)
	e := NewEngine(EngineOptions{})
	e.listen = func(c *codec, clock func() instant) (s socket, m mode, err error) {
		n.do(func() {
			if err = dropNetRaw(); err == nil {
				s, m, err = listen(c, clock)
			}
		})
		return s, m, err
	}
	go e.Run(t.Context())
	if o := ping(t, e, one(addr("127.0.0.1"))); o.Cause != wire.CauseLocal || !strings.Contains(o.Err, "ping_group_range") {
		t.Errorf("got %+v", o)
	}
	n.permit()
	for deadline := time.Now().Add(time.Minute); ; {
		o := ping(t, e, one(addr("127.0.0.1")))
		if o.Answered() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still no answer: %+v", o)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func dropNetRaw() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_RAW
	return unix.Capset(&header, &data[0])
}

func TestIPv6SwitchedOff(t *testing.T) {
	n := newNetns(t)
	n.permit()
	n.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
	var found []Capability
	n.do(func() { found = Capabilities() })
	if c := found[0]; c.Err != nil {
		t.Errorf("IPv4: got %+v", c)
	}
	if c := found[1]; c.Mode != "none" || c.Err == nil || !strings.Contains(c.Err.Error(), "IPv6 is switched off") || !strings.Contains(c.Hint, "disable_ipv6=0") {
		t.Errorf("IPv6: got %+v", c)
	}
}

func TestRefusalTellsAMissingFamily(t *testing.T) {
	err := refusal(6, unix.EAFNOSUPPORT, unix.EAFNOSUPPORT)
	if !strings.Contains(err.Error(), "this system has no IPv6") || hintOf(err) != "" {
		t.Errorf("got %v, hint %q", err, hintOf(err))
	}
}

// Loss, packet by packet, against the counters of the firewall that makes it.
func TestLossIsCountedExactly(t *testing.T) {
	modes(t, func(t *testing.T, want mode) {
		l := newLab(t)
		l.agent.prepare(want)
		l.router.nft(`
table inet loss {
	counter asked {}
	counter dropped4 {}
	counter dropped6 {}
	chain forward {
		type filter hook forward priority 0
		icmp type echo-request counter name asked
		icmpv6 type echo-request counter name asked
		icmp type echo-request numgen random mod 100 < 20 counter name dropped4 drop
		icmpv6 type echo-reply numgen random mod 100 < 20 counter name dropped6 drop
	}
}`)
		e := l.agent.engine()
		const targets, count = 40, 5
		lost := map[bool]int{}
		sent := 0
		type result struct {
			four bool
			o    Outcome
		}
		results := make(chan result, 2*targets)
		for i := range targets {
			for _, prefix := range []string{"10.3.0.0", "fd03::"} {
				a := spread(addr(prefix), 1+i)
				e.Start(Round{Addr: a, Count: count, Timeout: time.Second}, func(o Outcome) { results <- result{a.Is4(), o} })
			}
		}
		for range 2 * targets {
			r := <-results
			sent += r.o.Sent
			for _, rtt := range r.o.RTTs {
				if rtt == 0 {
					lost[r.four]++
				}
			}
			if r.o.Late != 0 || r.o.Cause != "" && r.o.Cause != wire.CauseTimeout {
				t.Errorf("got %+v", r.o)
			}
		}
		asked, dropped4, dropped6 := l.router.counter("asked"), l.router.counter("dropped4"), l.router.counter("dropped6")
		if sent != 2*targets*count || sent != asked || lost[true] != dropped4 || lost[false] != dropped6 {
			t.Errorf("sent %d, lost %d of IPv4 and %d of IPv6; the router saw %d, dropped %d and %d", sent, lost[true], lost[false], asked, dropped4, dropped6)
		}
		if dropped4 == 0 || dropped6 == 0 {
			t.Error("nothing was dropped")
		}
	})
}

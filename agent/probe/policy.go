package probe

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ownRefresh is how old the list of this machine's own addresses may be.
const ownRefresh = 30 * time.Second

// A Policy says which addresses may be measured: those of the public internet,
// and what this machine's owner allows beyond. A watch list, which may come
// from a stranger, can never widen it. Its methods may be called from any
// goroutine.
type Policy struct {
	allow []netip.Prefix
	now   func() time.Time
	addrs func() ([]net.Addr, error)

	mu      sync.Mutex // guards what follows
	own     map[netip.Addr]bool
	checked time.Time
}

// NewPolicy returns a policy that permits what is in allow, whatever it is, and
// otherwise only public addresses that are not this machine's own.
func NewPolicy(allow []netip.Prefix) *Policy {
	return &Policy{allow: allow, now: time.Now, addrs: net.InterfaceAddrs}
}

// Check returns nil if a may be measured. The error names the range that
// refuses it and the flag that would allow it.
func (p *Policy) Check(a netip.Addr) error {
	if !a.IsValid() {
		return fmt.Errorf("no address: want an IPv4 or IPv6 address")
	}
	a = a.WithZone("")
	for _, allowed := range p.allow {
		if allowed.Contains(a) {
			return nil
		}
	}
	if r, ok := refusedRange(a); ok {
		return fmt.Errorf("%v is in %v (%s): refused, unless this agent runs with --allow-net %v", a, r.prefix, r.what, netip.PrefixFrom(a, a.BitLen()))
	}
	if p.isOwn(a) {
		return fmt.Errorf("%v is this machine's own address: refused, unless this agent runs with --allow-net %v", a, netip.PrefixFrom(a, a.BitLen()))
	}
	return nil
}

func (p *Policy) isOwn(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.now(); p.own == nil || now.Sub(p.checked) >= ownRefresh || now.Before(p.checked) {
		p.refresh(now)
	}
	return p.own[a]
}

// refresh lists the addresses of this machine's interfaces, or keeps the list
// when the system does not tell.
func (p *Policy) refresh(now time.Time) {
	p.checked = now
	addrs, err := p.addrs()
	if err != nil {
		return
	}
	p.own = make(map[netip.Addr]bool, len(addrs))
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				p.own[a.Unmap()] = true
			}
		}
	}
}

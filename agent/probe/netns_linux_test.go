package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A netns is a network namespace of its own for the duration of a test.
type netns struct {
	t    testing.TB
	file *os.File
}

// newNetns makes a network namespace with nothing in it but a loopback that
// is up. Without the rights to do so the test is skipped; in CI it fails.
func newNetns(t testing.TB) *netns {
	t.Helper()
	n := &netns{t: t}
	var err error
	onThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
	})
	if err != nil {
		needs(t, "root, to make a network namespace: "+err.Error())
	}
	t.Cleanup(func() { n.file.Close() })
	n.run("ip", "link", "set", "lo", "up")
	return n
}

// needs skips the test on a stranger's machine.
func needs(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}

// onThread runs f on an operating system thread that ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is not fit for others
		f()
	}()
	<-done
}

// do runs f inside the namespace.
func (n *netns) do(f func()) {
	n.t.Helper()
	var err error
	onThread(func() {
		if err = unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err == nil {
			f()
		}
	})
	if err != nil {
		n.t.Fatalf("enter network namespace: %v", err)
	}
}

// run runs a command inside and returns what it printed.
func (n *netns) run(name string, args ...string) string {
	n.t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if err != nil {
			path, err = exec.LookPath(dir + name)
		}
	}
	if err != nil {
		needs(n.t, "the command "+name+" (Debian: apt-get install iproute2 nftables)")
	}
	var out []byte
	n.do(func() { out, err = exec.Command(path, args...).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ip runs one "ip" command.
func (n *netns) ip(format string, args ...any) {
	n.t.Helper()
	n.run("ip", strings.Fields(fmt.Sprintf(format, args...))...)
}

// nft loads a ruleset.
func (n *netns) nft(ruleset string) {
	n.t.Helper()
	n.run("nft", ruleset)
}

// sysctl sets a kernel setting, given as a path.
func (n *netns) sysctl(path, value string) {
	n.t.Helper()
	var err error
	n.do(func() { err = os.WriteFile("/proc/sys/"+path, []byte(value), 0) })
	if err != nil {
		n.t.Fatalf("set %s: %v", path, err)
	}
}

// permit lets everybody ping without privileges, so that ping sockets are used.
func (n *netns) permit() { n.sysctl("net/ipv4/ping_group_range", "0 2147483647") }

// connect joins n and peer by a cable; each end is named after the other side.
func (n *netns) connect(peer *netns, near, far string) {
	n.t.Helper()
	n.ip("link add %s type veth peer name %s netns /proc/%d/fd/%d", near, far, os.Getpid(), peer.file.Fd())
	n.ip("link set %s up", near)
	peer.ip("link set %s up", far)
}

// listen opens sockets inside.
func (n *netns) listen(c *codec, clock func() instant) (s socket, m mode, err error) {
	n.do(func() { s, m, err = listen(c, clock) })
	return s, m, err
}

// engine returns a running engine whose sockets are inside.
func (n *netns) engine() *Engine {
	e := NewEngine(EngineOptions{})
	e.listen = n.listen
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { e.Run(ctx); close(ended) }()
	n.t.Cleanup(func() { cancel(); <-ended })
	return e
}

// A lab is an agent, a router and a host behind it:
//
//	agent 10.1.0.1, fd01::1 — 10.1.0.2, fd01::2 router 10.2.0.1, fd02::1 — 10.2.0.2, fd02::2 host
//
// The host also answers for all of 10.3.0.0/16 and fd03::/64. The router
// answers for what nobody is: 10.10/16 and fd0a:: unreachable, 10.11/16 and
// fd0b:: prohibited, 10.12/16 and fd0c:: not at all; what goes to 10.13/16 and
// fd0d:: goes round in circles.
type lab struct{ agent, router, host *netns }

func newLab(t testing.TB) lab {
	t.Helper()
	l := lab{newNetns(t), newNetns(t), newNetns(t)}
	for _, n := range []*netns{l.agent, l.router, l.host} {
		n.sysctl("net/ipv6/conf/default/accept_dad", "0")
	}
	l.router.sysctl("net/ipv4/ip_forward", "1")
	l.router.sysctl("net/ipv6/conf/all/forwarding", "1")
	l.router.sysctl("net/ipv4/icmp_ratelimit", "0") // of errors: tests ask for many
	l.router.sysctl("net/ipv6/icmp/ratelimit", "0")
	l.agent.connect(l.router, "wan", "agent")
	l.router.connect(l.host, "host", "wan")
	l.agent.ip("addr add 10.1.0.1/24 dev wan")
	l.agent.ip("addr add fd01::1/64 dev wan nodad")
	l.router.ip("addr add 10.1.0.2/24 dev agent")
	l.router.ip("addr add fd01::2/64 dev agent nodad")
	l.router.ip("addr add 10.2.0.1/24 dev host")
	l.router.ip("addr add fd02::1/64 dev host nodad")
	l.host.ip("addr add 10.2.0.2/24 dev wan")
	l.host.ip("addr add fd02::2/64 dev wan nodad")
	l.agent.ip("route add default via 10.1.0.2")
	l.agent.ip("-6 route add default via fd01::2")
	l.host.ip("route add default via 10.2.0.1")
	l.host.ip("-6 route add default via fd02::1")
	l.host.ip("route add local 10.3.0.0/16 dev lo")
	l.host.ip("-6 route add local fd03::/64 dev lo")
	l.router.ip("route add 10.3.0.0/16 via 10.2.0.2")
	l.router.ip("-6 route add fd03::/64 via fd02::2")
	l.router.ip("-6 route add unreachable fd0a::/64")
	l.router.ip("-6 route add prohibit fd0b::/64")
	l.router.ip("route add blackhole 10.12.0.0/16")
	l.router.ip("-6 route add blackhole fd0c::/64")
	// For IPv4 not by routes: those errors are limited to one a second.
	l.router.ip("route add 10.10.0.0/15 via 10.2.0.2")
	l.router.nft(`
table ip lab {
	chain forward {
		type filter hook forward priority 0
		ip daddr 10.10.0.0/16 reject with icmp type host-unreachable
		ip daddr 10.11.0.0/16 reject with icmp type admin-prohibited
	}
}`)
	l.router.ip("route add 10.13.0.0/16 via 10.2.0.2")
	l.router.ip("-6 route add fd0d::/64 via fd02::2")
	l.host.sysctl("net/ipv4/ip_forward", "1")
	l.host.sysctl("net/ipv6/conf/all/forwarding", "1")
	return l
}

// modes runs f with each kind of socket.
func modes(t *testing.T, f func(t *testing.T, want mode)) {
	for _, m := range []mode{modePing, modeRaw} {
		t.Run(strings.ReplaceAll(string(m), " ", "-"), func(t *testing.T) { f(t, m) })
	}
}

// prepare grants in n what leads to sockets of the wanted kind.
func (n *netns) prepare(want mode) {
	n.t.Helper()
	if want == modePing {
		n.permit()
	}
	for _, family := range []int{4, 6} {
		s, got, err := n.listen(&codec{family: family}, newClock())
		if err != nil || got != want {
			n.t.Fatalf("IPv%d: got a %s, %v, want a %s", family, got, err, want)
		}
		s.close()
	}
}

// spread returns the i-th address of a prefix.
func spread(prefix netip.Addr, i int) netip.Addr {
	b := prefix.AsSlice()
	b[len(b)-2], b[len(b)-1] = byte(i>>8), byte(i)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// counter reads a named counter of table inet loss.
func (n *netns) counter(name string) int {
	n.t.Helper()
	out := n.run("nft", "list", "counter", "inet", "loss", name)
	var packets int
	_, rest, _ := strings.Cut(out, "packets ")
	if _, err := fmt.Sscan(rest, &packets); err != nil {
		n.t.Fatalf("read counter %s: %v\n%s", name, err, out)
	}
	return packets
}

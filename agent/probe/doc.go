// Package probe measures round-trip times with ICMP echo requests, precisely,
// politely and cheaply, and holds what goes with it: which addresses may be
// measured ([Policy]), what a host's address is ([Resolver]), and whether this
// machine allows it at all ([Capabilities]).
//
// One [Engine] serves all targets with one socket per family of addresses, one
// goroutine for all rounds and one reader per socket; a round costs no
// goroutine. It prefers Linux's unprivileged ping socket and falls back to a
// raw one. Round-trip times end at the kernel's receive timestamp where the
// system has one, so that a busy processor does not look like a slow network.
package probe

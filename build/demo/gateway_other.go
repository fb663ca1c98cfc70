//go:build !linux

package main

import "net/netip"

// defaultGateway is known on Linux only; elsewhere the demo does without.
func defaultGateway() (netip.Addr, bool) { return netip.Addr{}, false }

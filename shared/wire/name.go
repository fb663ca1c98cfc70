package wire

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Version is the highest payload version this package reads, and the one it writes.
const Version = 1

// MaxName is the longest name of an agent, a collector or a target, and the
// longest boot identifier, in bytes.
const MaxName = 64

// MaxHost is the longest host name in bytes (RFC 1035, section 2.3.4: 255
// octets on the wire, 253 characters in text).
const MaxHost = 253

// An AgentName names an agent in its payloads and topics: "garage-pi".
type AgentName string

// A CollectorName names a collector: "collector-1".
type CollectorName string

// A TargetID names a target in results and in the topic ping/{target}; without
// a host of its own it is also the host to ping: "example.com".
type TargetID string

// A Boot is chosen at random by each process start of an agent or a collector.
// It is opaque: 1 to 64 bytes without control characters.
type Boot string

// CheckName reports why s cannot name an agent, a collector or a target: it
// must be 1 to [MaxName] bytes of printable UTF-8 without space, '/', '+' or '#',
// and without U+FFFD, which encoding/json puts where bytes are not UTF-8.
// The error quotes s.
func CheckName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("name is empty: want 1 to %d printable characters", MaxName)
	case len(s) > MaxName:
		return fmt.Errorf("name %.70q is %d bytes long: want at most %d", s, len(s), MaxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("name %q is not UTF-8", s)
	}
	for _, c := range s {
		if c == '/' || c == '+' || c == '#' || c == ' ' || c == utf8.RuneError || !unicode.IsPrint(c) {
			return fmt.Errorf("name %q has %q: want printable characters without space, '/', '+' and '#'", s, c)
		}
	}
	return nil
}

// CheckHost reports why s is neither an IP address nor a host name that could
// be looked up. The error quotes s.
func CheckHost(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("host is empty: want a host name or an IP address")
	case len(s) > MaxHost:
		return fmt.Errorf("host %.70q is %d bytes long: want at most %d", s, len(s), MaxHost)
	case !utf8.ValidString(s):
		return fmt.Errorf("host %q is not UTF-8", s)
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return fmt.Errorf("host %q has a zone: want an address without one", s)
		}
		return nil
	}
	for _, c := range s {
		if !isHostRune(c) {
			return fmt.Errorf("host %q has %q: want a host name or an IP address", s, c)
		}
	}
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "-") || strings.Contains(s, "..") {
		return fmt.Errorf("host %q has an empty label or starts with '-': want a host name or an IP address", s)
	}
	return nil
}

func isHostRune(c rune) bool {
	if c < utf8.RuneSelf {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_'
	}
	return unicode.IsLetter(c) || unicode.IsMark(c) || unicode.IsDigit(c)
}

func checkBoot(b Boot) error {
	if b == "" || len(b) > MaxName {
		return fmt.Errorf("boot %.70q is %d bytes long: want 1 to %d", string(b), len(b), MaxName)
	}
	if strings.ContainsFunc(string(b), unicode.IsControl) || !utf8.ValidString(string(b)) {
		return fmt.Errorf("boot %q is not text", string(b))
	}
	return nil
}

package config

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"strings"

	"swarming/shared/wire"
)

// makersDefaults are host names that thousands of devices share as they leave
// the factory or an installer. Two agents of one name would be taken for one.
var makersDefaults = map[string]bool{
	"": true, "localhost": true, "localhost.localdomain": true, "openwrt": true, "lede": true, "raspberrypi": true,
	"debian": true, "ubuntu": true, "fedora": true, "alpine": true, "archlinux": true, "archarm": true, "armbian": true,
	"orangepi": true, "bananapi": true, "rockpi": true, "dietpi": true, "raspbian": true, "centos": true, "freebsd": true,
	"home": true, "router": true, "gateway": true, "turris": true, "gl-inet": true, "ubnt": true, "macbook-pro": true,
	"macbook-pro.local": true, "macbook-air": true, "macbook-air.local": true, "mac-mini.local": true, "raspberrypi.local": true,
}

// defaultName derives a name from the host's.
func defaultName() string {
	host, _ := os.Hostname() // without one it is a maker's default
	return nameFrom(host, machineID)
}

func nameFrom(host string, id func() string) string {
	clean := strings.Map(func(c rune) rune {
		if wire.CheckName(string(c)) != nil {
			return '-'
		}
		return c
	}, strings.ToValidUTF8(strings.TrimSpace(host), "-"))
	if !makersDefaults[strings.ToLower(clean)] && len(clean) <= wire.MaxName {
		return clean
	}
	if clean == "" {
		clean = "agent"
	}
	sum := sha256.Sum256([]byte("swarming:" + id()))
	suffix := "-" + hex.EncodeToString(sum[:3])
	return strings.ToValidUTF8(clean[:min(len(clean), wire.MaxName-len(suffix))], "") + suffix
}

// machineID returns what tells this machine from others of its make: systemd's
// or D-Bus's machine id, else the first hardware address, else chance (which
// --state-dir makes last).
func machineID() string {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if b, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(b))) >= 16 {
			return strings.TrimSpace(string(b))
		}
	}
	if ifaces, err := net.Interfaces(); err == nil {
		for _, i := range ifaces {
			if i.Flags&net.FlagLoopback == 0 && len(i.HardwareAddr) == 6 && i.HardwareAddr[0]&2 == 0 {
				return i.HardwareAddr.String()
			}
		}
	}
	return rand.Text()
}

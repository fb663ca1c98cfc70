package service

import (
	"strings"
)

// systemdUnit returns the unit for program. It runs as root with one capability,
// so that it may ping without the distribution's leave and still read a key that
// only root can; everything else that systemd can take away without knowing
// where the state directory is, it takes.
func systemdUnit(cfg Config, program string) string {
	command := systemdWord(program)
	for _, a := range cfg.Arguments {
		command += " " + systemdWord(a)
	}
	return `[Unit]
Description=` + strings.ReplaceAll(cfg.Description, "%", "%%") + `
After=network.target
StartLimitIntervalSec=0

[Service]
ExecStart=` + command + `
Restart=always
RestartSec=5
TimeoutStopSec=15
LimitNOFILE=65536
CapabilityBoundingSet=CAP_NET_RAW
NoNewPrivileges=yes
ProtectSystem=full
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0027

[Install]
WantedBy=multi-user.target
`
}

// systemdWord quotes a word of a command line as systemd.service(5) and
// systemd.syntax(7) want it: % and $ are doubled, or they would be expanded.
func systemdWord(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\t", `\t`).Replace(s)
	return `"` + s + `"`
}

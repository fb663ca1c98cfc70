// Package version tells which build of the programs this is, and when it was
// made. The build sets both with
//
//	-ldflags "-X swarming/shared/version.version=v1.2.3 -X swarming/shared/version.date=1795000000"
package version

import (
	"strconv"
	"time"
)

// Set by the linker: what git describe says, and Unix seconds (the time of the
// commit, so that equal sources give equal binaries).
var version, date string

// floor is older than any build of this source.
var floor = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// String returns the version, such as "v1.2.3" or "v1.2.3-4-gabcdef0", or
// "devel" for a build that was not told.
func String() string {
	if version == "" {
		return "devel"
	}
	return version
}

// BuildTime returns when this build's source was committed, in UTC, never
// earlier than 2026-11-01 and so never zero. A clock that shows less is not
// set: routers without a battery start in 1970.
func BuildTime() time.Time {
	return buildTime(date)
}

func buildTime(date string) time.Time {
	sec, err := strconv.ParseInt(date, 10, 64)
	if t := time.Unix(sec, 0).UTC(); err == nil && t.After(floor) {
		return t
	}
	return floor
}

package version

import (
	"testing"
	"time"
)

func TestBuildTime(t *testing.T) {
	for _, c := range []struct {
		date string
		want time.Time
	}{
		{"", floor},
		{"yesterday", floor},
		{"0", floor},
		{"-1", floor},
		{"1577836800", floor}, // 2020: older than the source can be
		{"1798761600", time.Date(2027, time.January, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if got := buildTime(c.date); !got.Equal(c.want) || got.Location() != time.UTC {
			t.Errorf("buildTime(%q) = %v, want %v", c.date, got, c.want)
		}
	}
}

func TestString(t *testing.T) {
	defer func(v string) { version = v }(version)
	version = ""
	if got := String(); got != "devel" {
		t.Errorf("without a linker flag: %q, want devel", got)
	}
	version = "v1.2.3"
	if got := String(); got != "v1.2.3" {
		t.Errorf("with a linker flag: %q, want v1.2.3", got)
	}
}

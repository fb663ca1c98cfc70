package journal

import (
	"math"

	"golang.org/x/sys/windows"
)

// freeSpace returns the bytes that this user may still write in the file system of dir.
func freeSpace(dir string) (int64, error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(p, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(min(free, math.MaxInt64)), nil
}

// syncDir does nothing: NTFS keeps names in its own journal.
func syncDir(string) error { return nil }

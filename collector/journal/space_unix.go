//go:build unix

package journal

import "golang.org/x/sys/unix"

// freeSpace returns the bytes that this user may still write in the file system of dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	// The fields' types differ between systems; FreeBSD's may be negative, when only root has room left.
	return max(int64(st.Bavail), 0) * int64(st.Bsize), nil
}

// syncDir makes a change of names in dir durable.
func syncDir(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

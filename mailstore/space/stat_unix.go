//go:build linux || darwin || freebsd

package space

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// stat asks for what a process without privileges may use.
func stat(folder string) (Free, error) {
	var s unix.Statfs_t
	for {
		err := unix.Statfs(folder, &s)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return Free{}, &fs.PathError{Op: "statfs", Path: folder, Err: err}
		}
	}
	// The fields have other types on other systems.
	return Free{Octets: int64(s.Bavail) * int64(s.Bsize), Inodes: int64(s.Ffree), Files: int64(s.Files)}, nil //nolint:unconvert // on this system
}

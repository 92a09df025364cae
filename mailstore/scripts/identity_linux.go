package scripts

import (
	"io/fs"
	"syscall"
	"time"
)

// An identity is what the system says of a file: while it is the same, so is the text. Whatever changes a file sets its
// status time, which programs cannot choose.
type identity struct {
	device, inode    uint64
	size             int64
	modified, status syscall.Timespec
}

func (i identity) changed() time.Time {
	modified, status := time.Unix(i.modified.Unix()), time.Unix(i.status.Unix())
	if modified.After(status) {
		return modified
	}
	return status
}

func identityOf(s *syscall.Stat_t) identity {
	return identity{device: s.Dev, inode: s.Ino, size: s.Size, modified: s.Mtim, status: s.Ctim}
}

// identify opens a file and returns its identity. Of a file on another machine that is as it is there now, and not as it
// was seconds ago: NFS asks when a file is opened.
func identify(path string) (identity, error) {
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return identity{}, err
		}
		defer syscall.Close(fd)
		var s syscall.Stat_t
		if err := syscall.Fstat(fd, &s); err != nil {
			return identity{}, err
		}
		return identityOf(&s), nil
	}
}

// identityIn returns the identity of an open file; ok is false where the system does not say.
func identityIn(f interface{ Stat() (fs.FileInfo, error) }) (id identity, ok bool) {
	info, err := f.Stat()
	if err != nil {
		return identity{}, false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, false
	}
	return identityOf(s), true
}

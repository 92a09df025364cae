package maildir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// A disk is what the store does to the file system when it changes something. Tests put one in that fails.
type disk interface {
	Create(name string) (file, error) // for writing; it must not exist
	SetTime(name string, t time.Time) error
	Rename(from, to string) error
	Link(from, to string) error
	Remove(name string) error
	Mkdir(name string) error
	Rmdir(name string) error
	Sync(dir string) error // a directory
}

type file interface {
	io.Writer
	Sync() error
	Close() error
}

// osDisk is the real one. It makes plain system calls: os.File would try to register every file with the poller.
type osDisk struct{}

func (osDisk) Create(name string) (file, error) {
	const flags = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_EXCL | syscall.O_CLOEXEC
	for {
		fd, err := syscall.Open(name, flags, 0o600)
		if err == nil {
			return &osFile{fd, name}, nil
		}
		if err != syscall.EINTR {
			return nil, &fs.PathError{Op: "create", Path: name, Err: err}
		}
	}
}

func (osDisk) SetTime(name string, t time.Time) error {
	ts := syscall.NsecToTimespec(t.UnixNano())
	if err := syscall.UtimesNano(name, []syscall.Timespec{ts, ts}); err != nil {
		return &fs.PathError{Op: "set time of", Path: name, Err: err}
	}
	return nil
}

func (osDisk) Rename(from, to string) error {
	if err := syscall.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (osDisk) Link(from, to string) error { return os.Link(from, to) }

func (osDisk) Remove(name string) error {
	if err := syscall.Unlink(name); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

func (osDisk) Mkdir(name string) error { return os.Mkdir(name, 0o700) }

func (osDisk) Rmdir(name string) error {
	if err := syscall.Rmdir(name); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

func (osDisk) Sync(dir string) error {
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	f := osFile{fd, dir}
	return errors.Join(f.Sync(), f.Close())
}

type osFile struct {
	fd   int
	name string
}

func (f *osFile) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := syscall.Write(f.fd, p[done:])
		if err == syscall.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return done, &fs.PathError{Op: "write", Path: f.name, Err: err}
		}
		done += n
	}
	return done, nil
}

func (f *osFile) Sync() error {
	for {
		err := syscall.Fsync(f.fd)
		if err == nil {
			return nil
		}
		if err != syscall.EINTR {
			return &fs.PathError{Op: "sync", Path: f.name, Err: err}
		}
	}
}

func (f *osFile) Close() error {
	// An interrupted close has closed the file; trying again might close somebody else's.
	if err := syscall.Close(f.fd); err != nil && err != syscall.EINTR {
		return &fs.PathError{Op: "close", Path: f.name, Err: err}
	}
	return nil
}

// A dirSyncer syncs directories for many at once: whoever comes while a directory is being synced shares the next sync
// of it with all others that came meanwhile.
type dirSyncer struct {
	disk disk

	mu   sync.Mutex
	dirs map[string]*dirState
}

type dirState struct {
	users   int        // guarded by dirSyncer.mu
	next    *syncRound // open to joiners; guarded by dirSyncer.mu
	running sync.Mutex // held by the one that syncs
}

type syncRound struct {
	done chan struct{}
	err  error
}

// Sync returns once everything that was done to dir before the call would survive a power cut.
func (s *dirSyncer) Sync(dir string) error {
	s.mu.Lock()
	d := s.dirs[dir]
	if d == nil {
		d = new(dirState)
		s.dirs[dir] = d
	}
	d.users++
	r := d.next
	leads := r == nil
	if leads {
		r = &syncRound{done: make(chan struct{})}
		d.next = r
	}
	s.mu.Unlock()

	if leads {
		d.running.Lock()
		s.mu.Lock()
		d.next = nil // whoever comes from now on may be too late for this one
		s.mu.Unlock()
		r.err = s.disk.Sync(dir)
		d.running.Unlock()
		close(r.done)
	} else {
		<-r.done
	}

	s.mu.Lock()
	if d.users--; d.users == 0 {
		delete(s.dirs, dir)
	}
	s.mu.Unlock()
	return r.err
}

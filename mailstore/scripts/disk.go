package scripts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A disk is what the store does to files, so that tests can let each of it fail.
type disk interface {
	Mkdir(path string) error
	Create(path string) (file, error) // a new one
	Append(path string) (file, error) // made if need be
	Rename(from, to string) error
	Link(from, to string) error
	Symlink(to, path string) error
	Remove(path string) error
	SyncDir(path string) error
}

type file interface {
	io.WriteCloser
	Sync() error
}

type osDisk struct{}

func (osDisk) Create(path string) (file, error) {
	return open(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW)
}

func (osDisk) Append(path string) (file, error) {
	return open(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW)
}

func open(path string, flags int) (file, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File is no nil file
	}
	return f, nil
}

func (osDisk) Mkdir(path string) error       { return os.Mkdir(path, 0o700) }
func (osDisk) Rename(from, to string) error  { return os.Rename(from, to) }
func (osDisk) Link(from, to string) error    { return os.Link(from, to) }
func (osDisk) Symlink(to, path string) error { return os.Symlink(to, path) }
func (osDisk) Remove(path string) error      { return os.Remove(path) }

func (osDisk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeFolders makes path and what is missing above it, below root, each durable.
func makeFolders(d disk, root, path string) error {
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	at := filepath.Clean(root)
	for element := range strings.SplitSeq(rel, string(filepath.Separator)) {
		if element == "." {
			continue
		}
		parent := at
		at = filepath.Join(at, element)
		if info, err := os.Stat(at); err == nil && info.IsDir() {
			continue
		}
		if err := d.Mkdir(at); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := d.SyncDir(parent); err != nil {
			return err
		}
	}
	return nil
}

// patience is how long another process may hold the lock of an account.
const patience = 10 * time.Second

var errLocked = fmt.Errorf("another program has been changing them for more than %s", patience)

// lock keeps every other change to what is below dir waiting, in this process and in others, until unlock is called or
// the process ends.
func lock(ctx context.Context, d disk, users, dir string) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := makeFolders(d, filepath.Dir(filepath.Clean(users)), dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	end := time.NewTimer(patience)
	defer end.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // which unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-again.C:
		case <-end.C:
			return nil, errors.Join(errLocked, f.Close())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}

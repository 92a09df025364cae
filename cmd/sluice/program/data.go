package program

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// makeFolder makes the data folder and its parents, if need be, and checks that it can be written.
func makeFolder(data string) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make the data folder %s: %w", data, cause(err))
	}
	if err := probe(data); err != nil {
		return fmt.Errorf("the data folder %s cannot be written: %w", data, cause(err))
	}
	return nil
}

// hasFolder returns nil if there is a data folder.
func hasFolder(data string) error {
	if _, err := os.Stat(data); err != nil {
		return fmt.Errorf("the data folder %s: %w", data, cause(err))
	}
	return nil
}

// probe writes a file into a folder and takes it away.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString("written to see whether it can be\n")
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// spoolFolder makes the folder in which large messages wait while they arrive, and removes what a crash has left there:
// nobody has answered for it. The caller owns the data folder.
func spoolFolder(data string) (string, error) {
	dir := filepath.Join(data, "spool")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, cause(err))
	}
	left, err := filepath.Glob(filepath.Join(dir, ".spool-*"))
	if err != nil {
		return "", fmt.Errorf("look into %s: %w", dir, err)
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil {
			return "", fmt.Errorf("remove %s: %w", file, cause(err))
		}
	}
	return dir, nil
}

// cause returns what the system said, without the call and the path.
func cause(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// An ownedError says which other process owns a data folder.
type ownedError struct {
	data    string
	pid     int // 0 where that is not known
	command string
}

func (e ownedError) Error() string {
	switch {
	case e.pid == 0:
		return fmt.Sprintf("another sluice uses the data folder %s; stop it, or name another folder with --data", e.data)
	case e.command == serving:
		return fmt.Sprintf("another sluice serve (pid %d) uses the data folder %s; stop it, or name another folder with --data", e.pid, e.data)
	}
	return fmt.Sprintf("sluice %s (pid %d) uses the data folder %s; try again when it has ended", e.command, e.pid, e.data)
}

// lock makes this process, which runs a command, the owner of the data folder until the file is closed or the process ends,
// however it ends. If another process is, the error is an [ownedError].
func lock(data, command string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder %s: %w", data, cause(err))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner := ownerOf(f)
		_ = f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the data folder %s: %w", data, err)
		}
		owner.data = data
		return nil, owner
	}
	text := fmt.Sprintf("%d %s\n", os.Getpid(), command)
	if err := errors.Join(f.Truncate(0), writeAt(f, text)); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the data folder %s: %w", data, cause(err))
	}
	return f, nil
}

// lockSoon is lock for a server, which starts although a command owns the folder for a moment.
func lockSoon(data string, pause func()) (*os.File, error) {
	for range 50 {
		f, err := lock(data, serving)
		if !errors.As(err, new(ownedError)) {
			return f, err
		}
		pause()
	}
	return lock(data, serving)
}

// serving is the command that answers orders and signals.
const serving = "serve"

// ownerOf reads from the lock who owns the folder.
func ownerOf(lock *os.File) ownedError {
	text := make([]byte, 64)
	n, _ := lock.ReadAt(text, 0) // less than 64 octets end in an error
	first, command, _ := strings.Cut(strings.TrimSpace(string(text[:n])), " ")
	pid, err := strconv.Atoi(first)
	if err != nil || pid <= 1 {
		return ownedError{}
	}
	// Older versions wrote the number alone.
	return ownedError{pid: pid, command: cmp.Or(command, serving)}
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

const secretSize = 32

// secret returns the key that signs mail we hand over to an MTA and take back. It is made once.
func secret(data string) ([]byte, error) {
	path := filepath.Join(data, "secret")
	key, err := os.ReadFile(path)
	switch {
	case err == nil && len(key) == secretSize:
		return key, nil
	case err == nil:
		return nil, fmt.Errorf("%s has %d octets, not %d; remove it, and a new one is made", path, len(key), secretSize)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read %s: %w", path, cause(err))
	}
	key = make([]byte, secretSize)
	rand.Read(key) // never fails
	return key, writeFile(path, key, 0o600)
}

// A disk is what writing a file does to the file system, so that tests can let each of it fail.
type disk interface {
	CreateTemp(dir, pattern string) (file, error)
	Rename(from, to string) error
	Link(from, to string) error // fails where to is there
	Remove(path string) error
	SyncFolder(path string) error
}

type file interface {
	io.WriteCloser
	Name() string
	Chmod(mode fs.FileMode) error
	Sync() error
}

type osDisk struct{}

func (osDisk) CreateTemp(dir, pattern string) (file, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err // not f: a nil *os.File is no nil file
	}
	return f, nil
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) Link(from, to string) error   { return os.Link(from, to) }
func (osDisk) Remove(path string) error     { return os.Remove(path) }
func (osDisk) SyncFolder(path string) error { return syncFolder(path) }

// writeFile writes a file so that it is there whole or not at all, also after a power cut.
func writeFile(path string, text []byte, mode fs.FileMode) error {
	return writeFileTo(osDisk{}, path, text, mode)
}

func writeFileTo(d disk, path string, text []byte, mode fs.FileMode) (err error) {
	f, err := d.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, cause(err))
	}
	defer func() {
		if err != nil {
			_ = d.Remove(f.Name()) // gone already, where only the folder's sync failed
			err = fmt.Errorf("write %s: %w", path, cause(err))
		}
	}()
	_, err = bytes.NewReader(text).WriteTo(f)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = d.Rename(f.Name(), path); err != nil {
		return err
	}
	return d.SyncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

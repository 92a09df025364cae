// Package files is what stores do to the files of the machine, so that each can ask for it by an interface of its own, and
// tests can let each of it fail.
package files

import (
	"errors"
	"io"
	"os"
)

// A File is a new file that is being written.
type File interface {
	io.WriteCloser
	Sync() error
}

// Disk is the machine's own. The zero value is ready.
type Disk struct{}

// Create makes a file for its owner alone; one that is there is an error.
func (Disk) Create(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File is no nil File
	}
	return f, nil
}

// Rename gives a file another name, in place of what bore it.
func (Disk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove removes a file.
func (Disk) Remove(path string) error { return os.Remove(path) }

// SyncDir returns once the names in a folder would survive a power cut.
func (Disk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package quarantine

import "sluice/mailstore/files"

// A disk is what the store does to files, so that tests can let each of it fail.
type disk interface {
	Create(path string) (files.File, error) // a new one
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error
}

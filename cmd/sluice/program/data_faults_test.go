package program

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// faultyDisk fails its n-th call with err; a write that fails has written half.
type faultyDisk struct {
	osDisk
	n    int
	err  error
	did  []string
	fell string
}

func (d *faultyDisk) next(what string) error {
	d.did = append(d.did, what)
	if len(d.did) == d.n {
		d.fell = what
		return d.err
	}
	return nil
}

func (d *faultyDisk) CreateTemp(dir, pattern string) (file, error) {
	if err := d.next("create"); err != nil {
		return nil, err
	}
	f, err := d.osDisk.CreateTemp(dir, pattern)
	return &faultyFile{f, d}, err
}

func (d *faultyDisk) Rename(from, to string) error {
	if err := d.next("rename"); err != nil {
		return err
	}
	return d.osDisk.Rename(from, to)
}

func (d *faultyDisk) SyncFolder(path string) error {
	if err := d.next("sync folder"); err != nil {
		return err
	}
	return d.osDisk.SyncFolder(path)
}

type faultyFile struct {
	file
	d *faultyDisk
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.d.next("write"); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *faultyFile) Chmod(m fs.FileMode) error {
	if err := f.d.next("chmod"); err != nil {
		return err
	}
	return f.file.Chmod(m)
}

func (f *faultyFile) Sync() error {
	if err := f.d.next("sync"); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *faultyFile) Close() error { return errors.Join(f.file.Close(), f.d.next("close")) }

// Secret, certificate and key are written by writeFile. Whatever of it fails, the old file or the new one is there,
// whole, and nothing beside it.
func TestNthOfWritingAFileFails(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, io.ErrShortWrite} {
		for _, old := range []string{"", "the old one"} {
			var fell []string
			for n := 1; ; n++ {
				dir := t.TempDir()
				path := filepath.Join(dir, "secret")
				if old != "" {
					if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				d := &faultyDisk{n: n, err: fault}
				err := writeFileTo(d, path, []byte("the new one"), 0o600)
				if d.fell == "" {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				fell = append(fell, d.fell)
				if !errors.Is(err, fault) || !strings.HasPrefix(err.Error(), "write "+path+": ") {
					t.Errorf("%s: %v", d.fell, err)
				}
				want := old
				if d.fell == "sync folder" { // it is in place, and may be gone after a power cut
					want = "the new one"
				}
				text, err := os.ReadFile(path)
				if string(text) != want || (err != nil) != (want == "") {
					t.Errorf("%s fails: the file is %q, want %q; %v", d.fell, text, want, err)
				}
				names, err := os.ReadDir(dir)
				if err != nil || len(names) > 1 || len(names) == 1 && names[0].Name() != "secret" {
					t.Errorf("%s fails: left over: %v, %v", d.fell, names, err)
				}
			}
			if want := []string{"create", "write", "chmod", "sync", "close", "rename", "sync folder"}; !slices.Equal(fell, want) {
				t.Errorf("what failed in turn: %v, want %v", fell, want)
			}
		}
	}
}

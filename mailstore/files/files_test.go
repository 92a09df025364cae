package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	f, err := Disk{}.Create(one)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(one); err != nil || info.Mode() != 0o600 {
		t.Errorf("it can be read by others: %v, %v", info, err)
	}
	if f, err := (Disk{}).Create(one); !errors.Is(err, fs.ErrExist) || f != nil {
		t.Errorf("made over another: %v, %v", f, err)
	}
	if err := errors.Join(Disk{}.Rename(one, two), Disk{}.SyncDir(dir), Disk{}.Remove(two)); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{"remove": Disk{}.Remove(two), "rename": Disk{}.Rename(one, two), "sync": Disk{}.SyncDir(two)} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s what is not there: %v", what, err)
		}
	}
}

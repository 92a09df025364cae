package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s\n got %s\nwant %s", what, g, w)
	}
}

func open(t testing.TB, path string) *DB {
	t.Helper()
	d, err := Open(t.Context(), path)
	check(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func message(uid uint32, modseq uint64) Message {
	return Message{
		UID: uid, File: fmt.Sprintf("f%d", uid), Flags: "S", Keywords: "a b", Size: 12, Disk: 10,
		Date: time.Unix(1700000000, 5), ModSeq: modseq,
	}
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	d := open(t, path)
	_, err := d.AddFolder(t.Context(), Folder{Name: ".a", Validity: 7, Next: 1, ModSeq: 1}, nil)
	check(t, err)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		st, err := os.Stat(path + suffix)
		check(t, err)
		equal(t, "mode of index.db"+suffix, st.Mode().Perm(), os.FileMode(0o600))
	}
}

func TestChangesLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a%20b?c#d", "index.db") // names of accounts may have such characters
	check(t, os.Mkdir(filepath.Dir(path), 0o700))
	d := open(t, path)
	var many []Message
	for uid := uint32(1); uid <= 120; uid++ {
		many = append(many, message(uid, 1))
	}
	f, err := d.AddFolder(t.Context(), Folder{Name: ".a", Validity: 7, Next: 121, ModSeq: 1}, many)
	check(t, err)
	check(t, d.Apply(t.Context(), Change{
		Folder: f.ID, Next: 123, ModSeq: 2,
		Add:    []Message{message(121, 2), message(122, 2)},
		Update: []Message{{UID: 1, Flags: "FS", Keywords: "c", ModSeq: 2}},
		Remove: []uint32{2, 3},
	}))
	check(t, d.Apply(t.Context(), Change{Folder: f.ID, Forget: []uint32{122}, Next: 1, ModSeq: 1}))
	check(t, d.SetMarks(t.Context(), 4, 9))
	check(t, d.Close())
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}

	d = open(t, path)
	check(t, d.Check(t.Context()))
	g, ok, err := d.Folder(t.Context(), ".a")
	check(t, err)
	equal(t, "folder", fmt.Sprint(g, ok), fmt.Sprint(Folder{ID: f.ID, Name: ".a", Validity: 7, Next: 123, ModSeq: 2}, true))
	list, err := d.Messages(t.Context(), f.ID)
	check(t, err)
	equal(t, "messages", len(list), 119)
	first := message(1, 2)
	first.Flags, first.Keywords = "FS", "c"
	equal(t, "changed", list[0], first)
	equal(t, "added", list[118], message(121, 2))
	uids, all, err := d.Vanished(t.Context(), f.ID, 1)
	check(t, err)
	equal(t, "vanished", fmt.Sprint(uids, all), "[2 3] true")
	uids, _, err = d.Vanished(t.Context(), f.ID, 2)
	check(t, err)
	equal(t, "vanished later", len(uids), 0)
	generation, validity, err := d.Marks(t.Context())
	check(t, err)
	equal(t, "marks", fmt.Sprint(generation, validity), "4 9")
	_, ok, err = d.Folder(t.Context(), ".b")
	check(t, err)
	equal(t, "a folder that is not there", ok, false)
	if _, err := d.AddFolder(t.Context(), Folder{Name: ".a"}, nil); err == nil {
		t.Error("a folder was added twice")
	}
}

func TestAllOrNone(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "index.db"))
	f, err := d.AddFolder(t.Context(), Folder{Name: "", Validity: 1, Next: 2, ModSeq: 1}, []Message{message(1, 1)})
	check(t, err)
	err = d.Apply(t.Context(),
		Change{Folder: f.ID, ModSeq: 5, Next: 9, Remove: []uint32{1}},
		Change{Folder: f.ID, Add: []Message{message(8, 5), message(8, 5)}})
	if err == nil {
		t.Fatal("one UID was given twice")
	}
	g, _, err := d.Folder(t.Context(), "")
	check(t, err)
	equal(t, "folder", g, f)
	list, err := d.Messages(t.Context(), f.ID)
	check(t, err)
	equal(t, "messages", len(list), 1)
}

func TestRenameAndDrop(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "index.db"))
	add := func(name string, validity uint32) {
		t.Helper()
		_, err := d.AddFolder(t.Context(), Folder{Name: name, Validity: validity, Next: 2, ModSeq: 1}, []Message{message(1, 1)})
		check(t, err)
	}
	next := uint32(100)
	rename := func(from, to string) {
		t.Helper()
		check(t, d.Rename(t.Context(), []Renaming{{from, to}}, func() (uint32, error) { next++; return next, nil }))
	}
	validity := func(name string) uint32 {
		t.Helper()
		f, _, err := d.Folder(t.Context(), name)
		check(t, err)
		return f.Validity
	}
	add(".a", 10)
	rename(".a", ".b")
	equal(t, "it keeps its UIDVALIDITY under a name that is new", validity(".b"), 10)
	add(".a", 20)
	check(t, d.Drop(t.Context(), ".a"))
	rename(".b", ".a")
	equal(t, "not where there was a larger one", validity(".a"), 101)
	rename(".nothing", ".a")
	equal(t, "what a folder we do not know replaces is gone", validity(".a"), 0)
	_, largest, err := d.Marks(t.Context())
	check(t, err)
	equal(t, "the largest is remembered", largest, 101)
	failed := errors.New("no more")
	add(".c", 1)
	err = d.Rename(t.Context(), []Renaming{{".c", ".d"}, {".d", ".b"}}, func() (uint32, error) { return 0, failed })
	if !errors.Is(err, failed) {
		t.Errorf("error is %v", err)
	}
	equal(t, "all or none", validity(".c"), 1)
	check(t, d.Drop(t.Context(), ".never"))
}

func TestVanishedAreForgotten(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "index.db"))
	f, err := d.AddFolder(t.Context(), Folder{Name: "", Validity: 1, Next: 1, ModSeq: 1}, nil)
	check(t, err)
	uid := uint32(1)
	for modseq := uint64(2); modseq <= 9; modseq++ {
		c := Change{Folder: f.ID, ModSeq: modseq}
		for range 2*keepVanished/8 + 1 {
			c.Remove = append(c.Remove, uid)
			uid++
		}
		check(t, d.Apply(t.Context(), c))
	}
	uids, all, err := d.Vanished(t.Context(), f.ID, 1)
	check(t, err)
	if all || len(uids) > 2*keepVanished {
		t.Errorf("%d are remembered, all is %v", len(uids), all)
	}
	uids, all, err = d.Vanished(t.Context(), f.ID, 8)
	check(t, err)
	if !all || len(uids) != 2*keepVanished/8+1 {
		t.Errorf("of the last change %d are remembered, all is %v", len(uids), all)
	}
}

func TestDamage(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"garbage":  strings.Repeat("garbage ", 1000),
		"its head": "SQLite format 3\x00" + strings.Repeat("x", 5000),
	} {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := Open(t.Context(), path); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "no folder", "index.db")); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

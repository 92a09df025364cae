package scripts

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/storetest"
)

func exist(_ context.Context, account string) (bool, error) {
	return slices.Contains([]string{storetest.Anna, storetest.Ben, storetest.Small}, account), nil
}

func openIn(t testing.TB, users string) *Store {
	t.Helper()
	s, err := Open(Config{
		Users: users, Exists: exist,
		Limits: Limits{Count: storetest.ScriptCount, Size: storetest.ScriptSize, Total: storetest.ScriptTotal},
	})
	check(t, err)
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	storetest.Scripts(t, func(t testing.TB) mailstore.Scripts { return openIn(t, filepath.Join(t.TempDir(), "users")) })
}

const anna = storetest.Anna

// TestLayout: what Pigeonhole's admins expect, and what somebody may have put there.
func TestLayout(t *testing.T) {
	users := t.TempDir()
	s := openIn(t, users)
	check(t, s.Put(t.Context(), anna, "work", []byte("keep;")))
	check(t, s.Put(t.Context(), anna, "a/b", []byte("stop;")))
	check(t, s.Activate(t.Context(), anna, "work"))
	home := filepath.Join(users, "example.org", "anna")
	if to, err := os.Readlink(filepath.Join(home, ".dovecot.sieve")); err != nil || to != "sieve/work.sieve" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	info, err := os.Stat(filepath.Join(home, "sieve", "work.sieve"))
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v", info.Mode())
	}
	// Things of others: none is a script of a name that clients could use.
	put := func(name, text string) {
		t.Helper()
		check(t, os.WriteFile(filepath.Join(home, "sieve", name), []byte(text), 0o600))
	}
	put("mine.sieve", "discard;")
	put("work.svbin", "compiled")
	put("bad\nname.sieve", "x")
	put("e\u0301.sieve", "not in NFC")
	put("=0123.sieve", "its name is lost")
	put("=0456.name", "a name without a script")
	put("=0456.sieve", "of another name than its hash says")
	put(".sieve", "x")
	check(t, os.Mkdir(filepath.Join(home, "sieve", "folder.sieve"), 0o700))
	check(t, syscall.Mkfifo(filepath.Join(home, "sieve", "pipe.sieve"), 0o600))
	check(t, os.Symlink("nowhere", filepath.Join(home, "sieve", "dangling.sieve")))
	list, err := s.List(t.Context(), anna)
	check(t, err)
	var names []string
	for _, x := range list {
		names = append(names, x.Name)
	}
	if !slices.Equal(names, []string{"a/b", "mine", "work"}) {
		t.Errorf("there are %q", names)
	}
	for _, name := range []string{"folder", "pipe"} {
		if _, err := s.Script(t.Context(), anna, name); err == nil {
			t.Errorf("%s can be read", name)
		}
	}
}

// TestLinks: where the link leads is the business of whoever may write into the folder, and never out of it.
func TestLinks(t *testing.T) {
	users := t.TempDir()
	s := openIn(t, users)
	var log bytes.Buffer
	s.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	check(t, s.Put(t.Context(), anna, "work", []byte("keep;")))
	home := filepath.Join(users, "example.org", "anna")
	check(t, os.WriteFile(filepath.Join(users, "secret.sieve"), []byte("not for anna"), 0o600))
	point := filepath.Join(home, link)
	for _, tt := range []struct{ to, want string }{
		{"sieve/work.sieve", "work"},
		{filepath.Join(home, "sieve/work.sieve"), "work"}, // as some configurations of Pigeonhole make it
		{"sieve/../sieve/work.sieve", "work"},
		{"sieve/gone.sieve", "no such script"},
		{"../../secret.sieve", "is no script of this account"},
		{"sieve/../../../secret.sieve", "is no script of this account"},
		{"sieve", "is no script of this account"},
		{"/etc/passwd", "is no script of this account"},
	} {
		check(t, os.Symlink(tt.to, point))
		name, _, _, err := s.Active(t.Context(), anna, "")
		if err == nil && name != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q, %v; want %s", tt.to, name, err, tt.want)
		}
		check(t, os.Remove(point))
	}
	if !strings.Contains(log.String(), "the active script is gone") {
		t.Errorf("the log says %q of a link that leads nowhere", log.String())
	}
	check(t, os.WriteFile(point, []byte("keep;"), 0o600))
	for _, err := range []error{
		func() error { _, _, _, err := s.Active(t.Context(), anna, ""); return err }(),
		s.Activate(t.Context(), anna, "work"),
		s.Activate(t.Context(), anna, ""),
	} {
		if err == nil || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("a file instead of the link: %v", err)
		}
	}
	if text, err := os.ReadFile(point); err != nil || string(text) != "keep;" {
		t.Errorf("somebody's script has gone: %q, %v", text, err)
	}
}

// TestLocked: another process is changing them.
func TestLocked(t *testing.T) {
	s := openIn(t, t.TempDir())
	x, err := s.shelf(t.Context(), anna)
	check(t, err)
	unlock, err := x.lock(t.Context())
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Put(ctx, anna, "work", nil) }() // ends with ctx
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	go func() { ended <- s.Put(t.Context(), anna, "work", nil) }() // ends when it is unlocked
	unlock()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

var errDisk = errors.New("the disk is on fire")

// A failing disk fails at its n-th operation. A write that fails has written a half.
type failing struct {
	disk
	n   int
	did string
}

func (d *failing) fails(what string) error {
	if d.n--; d.n == 0 {
		d.did = what
		return errDisk
	}
	return nil
}

func (d *failing) Mkdir(p string) error {
	if err := d.fails("mkdir"); err != nil {
		return err
	}
	return d.disk.Mkdir(p)
}

func (d *failing) Rename(a, b string) error {
	if err := d.fails("rename"); err != nil {
		return err
	}
	return d.disk.Rename(a, b)
}

func (d *failing) Link(a, b string) error {
	if err := d.fails("link"); err != nil {
		return err
	}
	return d.disk.Link(a, b)
}

func (d *failing) Symlink(a, b string) error {
	if err := d.fails("symlink"); err != nil {
		return err
	}
	return d.disk.Symlink(a, b)
}

func (d *failing) Remove(p string) error {
	if err := d.fails("remove"); err != nil {
		return err
	}
	return d.disk.Remove(p)
}

func (d *failing) SyncDir(p string) error {
	if err := d.fails("sync folder"); err != nil {
		return err
	}
	return d.disk.SyncDir(p)
}

func (d *failing) Create(p string) (file, error) {
	if err := d.fails("create"); err != nil {
		return nil, err
	}
	return d.wrap(d.disk.Create(p))
}

func (d *failing) Append(p string) (file, error) {
	if err := d.fails("append"); err != nil {
		return nil, err
	}
	return d.wrap(d.disk.Append(p))
}

func (d *failing) wrap(f file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return &failingFile{f, d}, nil
}

type failingFile struct {
	file
	d *failing
}

func (f *failingFile) Write(p []byte) (int, error) {
	if err := f.d.fails("write"); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *failingFile) Sync() error {
	if err := f.d.fails("sync"); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *failingFile) Close() error {
	return errors.Join(f.d.fails("close"), f.file.Close())
}

// Each operation of a change fails in turn: the scripts are as before or as after, the active one is a whole one, nothing
// is left over that shows, and the change can be made again.
func TestChangesFail(t *testing.T) {
	long := strings.Repeat("𝄞", 100)
	for _, test := range []struct {
		name  string
		do    func(ctx context.Context, s *Store) error
		after string
	}{
		{"the first", func(ctx context.Context, s *Store) error { return s.Put(ctx, storetest.Ben, "a", []byte("1")) }, "*work=one play=two"},
		{"put", func(ctx context.Context, s *Store) error { return s.Put(ctx, anna, "new", []byte("three")) }, "new=three *work=one play=two"},
		{"put in place", func(ctx context.Context, s *Store) error { return s.Put(ctx, anna, "work", []byte("three")) }, "*work=three play=two"},
		{"put a long name", func(ctx context.Context, s *Store) error { return s.Put(ctx, anna, long, []byte("three")) }, long + "=three *work=one play=two"},
		{"activate", func(ctx context.Context, s *Store) error { return s.Activate(ctx, anna, "play") }, "work=one *play=two"},
		{"activate none", func(ctx context.Context, s *Store) error { return s.Activate(ctx, anna, "") }, "work=one play=two"},
		{"delete", func(ctx context.Context, s *Store) error { return s.Delete(ctx, anna, "play") }, "*work=one"},
		{"rename", func(ctx context.Context, s *Store) error { return s.Rename(ctx, anna, "play", "new") }, "*work=one new=two"},
		{"rename the active", func(ctx context.Context, s *Store) error { return s.Rename(ctx, anna, "work", long) }, "*" + long + "=one play=two"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for n := 1; ; n++ {
				s := openIn(t, filepath.Join(t.TempDir(), "users"))
				check(t, s.Put(t.Context(), anna, "work", []byte("one")))
				check(t, s.Put(t.Context(), anna, "play", []byte("two")))
				check(t, s.Activate(t.Context(), anna, "work"))
				before := state(t, s)
				d := &failing{disk: osDisk{}, n: n}
				s.disk = d
				err := test.do(t.Context(), s)
				s.disk = osDisk{}
				got := state(t, s)
				want := words(test.after)
				if d.did == "" {
					check(t, err)
					if !slices.Equal(got, want) {
						t.Errorf("there is %q, want %q", got, want)
					}
					if n < 3 {
						t.Error("nothing failed")
					}
					return
				}
				// Where a name was to go, both may be there, and the active one is either.
				both := strings.HasPrefix(test.name, "rename") && len(got) == 3
				if !slices.Equal(got, before) && !slices.Equal(got, want) && !both {
					t.Errorf("operation %d (%s) failed: there is %q, before %q", n, d.did, got, before)
				}
				if err == nil && !slices.Equal(got, want) {
					t.Errorf("operation %d (%s) failed, and nobody was told", n, d.did)
				}
				if err != nil && !errors.Is(err, errDisk) {
					t.Errorf("operation %d (%s) failed: %v", n, d.did, err)
				}
				err = test.do(t.Context(), s)
				if done := errors.Is(err, mailstore.ErrNoScript) || errors.Is(err, mailstore.ErrExists); err != nil && !done {
					t.Errorf("once more after operation %d (%s): %v", n, d.did, err)
				}
				if test.name == "put" {
					leftover(t, s)
				}
			}
		})
	}
}

func words(s string) []string {
	all := strings.Fields(s)
	slices.Sort(all)
	return all
}

func state(t *testing.T, s *Store) (all []string) {
	t.Helper()
	list, err := s.List(t.Context(), anna)
	check(t, err)
	active, activeText, _, err := s.Active(t.Context(), anna, "")
	if err != nil && !errors.Is(err, mailstore.ErrNoScript) {
		t.Fatal(err)
	}
	for _, x := range list {
		text, err := s.Script(t.Context(), anna, x.Name)
		check(t, err)
		line := x.Name + "=" + string(text)
		if x.Active {
			if active != x.Name || !bytes.Equal(text, activeText) {
				t.Errorf("%q is active, and not: %q", x.Name, active)
			}
			line = "*" + line
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

// leftover: what a failure has left unfinished is gone after the next change.
func leftover(t *testing.T, s *Store) {
	t.Helper()
	check(t, filepath.WalkDir(s.cfg.Users, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), temporary) {
			t.Errorf("%s is left over", path)
		}
		return err
	}))
}

func TestNoRoomOnTheDisk(t *testing.T) {
	s := openIn(t, t.TempDir())
	s.disk = fullDisk{osDisk{}}
	if err := s.Put(t.Context(), anna, "work", nil); !errors.Is(err, mailstore.ErrFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the error is %v", err)
	}
}

type fullDisk struct{ disk }

func (fullDisk) Create(string) (file, error) { return nil, syscall.ENOSPC }

// BenchmarkActive is the look at a script for each mail: read, and known already.
func BenchmarkActive(b *testing.B) {
	s := openIn(b, b.TempDir())
	s.now = func() time.Time { return time.Now().Add(time.Hour) }
	check(b, s.Put(b.Context(), anna, "work", bytes.Repeat([]byte("keep;"), 200)))
	check(b, s.Activate(b.Context(), anna, "work"))
	_, _, version, err := s.Active(b.Context(), anna, "")
	check(b, err)
	for _, have := range []string{"", version} {
		b.Run(map[bool]string{true: "read", false: "known"}[have == ""], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, _, err := s.Active(b.Context(), anna, have); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/refile"
)

// everything is all that a run must bring back: the tree with modes, times and contents, and all keywords. What is ours
// alone, the largest UIDVALIDITY, is left out.
func everything(t testing.TB, s *Store) string {
	t.Helper()
	dir := filepath.Join(s.cfg.Root, "example.org", "anna")
	var b strings.Builder
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(d.Name(), marksFile) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%v %q", info.Mode(), name)
		if !d.IsDir() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", data)
			if d.Name() != "subscriptions" && d.Name() != "maildirfolder" { // those are written anew
				fmt.Fprintf(&b, " %v", info.ModTime().UnixNano())
			}
		}
		b.WriteByte('\n')
		return nil
	}))
	lines := strings.Split(places(t, s), "\n")
	slices.Sort(lines)
	return b.String() + strings.Join(lines, "\n")
}

// hasty is a disk that nobody waits for: what is tested is what a process leaves behind, not a machine.
type hasty struct {
	disk
	before func()
}

type hastyFile struct{ file }

func (hastyFile) Sync() error { return nil }

func (d hasty) Sync(string) error { return nil }

func (d hasty) Create(name string) (file, error) {
	d.before()
	f, err := d.disk.Create(name)
	if err != nil {
		return nil, err
	}
	return hastyFile{f}, nil
}

func (d hasty) Rename(from, to string) error {
	d.before()
	return d.disk.Rename(from, to)
}

func (d hasty) Remove(name string) error {
	d.before()
	return d.disk.Remove(name)
}

func (d hasty) Mkdir(name string) error {
	d.before()
	return d.disk.Mkdir(name)
}

func (d hasty) Rmdir(name string) error {
	d.before()
	return d.disk.Rmdir(name)
}

// fillMailbox fills a mailbox: mail that is new and that is not, with flags, with keywords in the index and in names, under
// names as other programs write them, in folders of all sorts.
func fillMailbox(t testing.TB, s *Store, rnd *rand.Rand) {
	t.Helper()
	folders := []string{"INBOX", "Junk", "Lists/go", "Entwürfe"}
	for _, f := range folders[1:] {
		check(t, s.Make(t.Context(), anna, f))
	}
	check(t, os.WriteFile(filepath.Join(s.cfg.Root, "example.org", "anna", "dovecot-keywords"), []byte("0 $Junk\n1 todo\n"), 0o600))
	odd := []string{"cur/%d.a.host:2,", "cur/%d.b.host", "cur/%d.c.host:2,FSabz", "cur/%d.d.host:2,RS,Dovecot", "new/%d.e.host", "new/%d.f.host:2,S"}
	for i := range rnd.IntN(6) {
		place := fmt.Sprintf(odd[rnd.IntN(len(odd))], 1000+i)
		if rnd.IntN(2) == 0 {
			place = ".Junk/" + place
		}
		put(t, s, place)
	}
	for i := range 1 + rnd.IntN(6) {
		_, err := s.Deliver(t.Context(), []mailstore.Item{{
			Account: anna, Folder: folders[rnd.IntN(len(folders))], ID: fmt.Sprint("id", i), Flags: someFlags(rnd),
			Date: time.Unix(1_600_000_000+rnd.Int64N(1e8), rnd.Int64N(1e9)), Content: strings.NewReader(hello),
		}})
		check(t, err)
	}
	for _, name := range folders {
		list := survey(t, s, name)
		if len(list) == 0 || rnd.IntN(2) == 0 {
			continue
		}
		f := openFolder(t, s, name)
		if rnd.IntN(2) == 0 {
			_, err := f.Messages(t.Context())
			check(t, err)
		}
		_, err := f.SetFlags(t.Context(), []uint32{uint32(1 + rnd.IntN(len(list)))}, mailstore.FlagsReplace, someFlags(rnd))
		check(t, err)
	}
}

func someFlags(rnd *rand.Rand) (flags []string) {
	for _, f := range []string{`\Seen`, `\Flagged`, `\Answered`, "$Forwarded", "$Junk", "todo", "own", "Other"} {
		if rnd.IntN(4) == 0 {
			flags = append(flags, f)
		}
	}
	return flags
}

// sorting makes moves as rules would: mail of every folder to another, to one that is to be made, or to none but with other
// flags.
func sorting(t testing.TB, s *Store, rnd *rand.Rand) (moves []refile.Move) {
	t.Helper()
	folders, err := s.Tree(t.Context(), anna)
	check(t, err)
	names := []string{"Neu/1", "Neu/2", "Made"}
	for _, f := range folders {
		if !f.Missing {
			names = append(names, f.Name)
		}
	}
	for _, name := range names[3:] {
		for _, x := range survey(t, s, name) {
			to := mailstore.Spot{Folder: names[rnd.IntN(len(names))], File: x.File, Flags: slices.Concat(x.Flags, someFlags(rnd))}
			switch rnd.IntN(4) {
			case 0:
				continue
			case 1:
				to.Folder = name
			}
			slices.Sort(to.Flags)
			to.Flags = slices.Compact(to.Flags)
			if to.Folder == name && slices.Equal(to.Flags, x.Flags) {
				continue
			}
			moves = append(moves, refile.Move{From: x, To: to, By: "rules/random"})
		}
	}
	return moves
}

// TestRuns: whatever is moved, undoing it gives the identical tree, and what a user has touched meanwhile is as the user left
// it.
func TestRuns(t *testing.T) {
	moved := 0
	for round := range 40 {
		rnd := rand.New(rand.NewPCG(7, uint64(round)))
		s := open(t, t.TempDir())
		s.setDisk(hasty{osDisk{}, func() {}})
		fillMailbox(t, s, rnd)
		before := everything(t, s)
		moves := sorting(t, s, rnd)
		runs := refile.Dir{Path: filepath.Join(t.TempDir(), "refile")}
		r, err := runs.Create(refile.Head{Account: anna}, moves)
		check(t, err)
		check(t, r.Apply(t.Context(), s, nil))
		moved += len(moves)
		if n := r.Counts()[refile.Done]; n != len(moves) {
			t.Fatalf("round %d: %d of %d done: %+v", round, n, len(moves), r.All)
		}
		for _, x := range r.All {
			want := x.To.Folder + " " + x.Now.At + fmt.Sprint(x.To.Flags)
			if !strings.Contains("\n"+places(t, s)+"\n", "\n"+want+"\n") {
				t.Fatalf("round %d: no %s in\n%s", round, want, places(t, s))
			}
		}
		touched := map[string]string{} // by file, where the user has left it
		if round%2 == 1 {
			touched = touch(t, s, rnd, r)
		}
		check(t, r.Revert(t.Context(), s, nil))
		after := everything(t, s)
		if len(touched) == 0 && after != before {
			t.Fatalf("round %d: not as it was\n%s\nbefore\n%s", round, after, before)
		}
		for _, x := range r.All {
			if where, ok := touched[x.From.File]; ok != (x.State == refile.Stays) {
				t.Errorf("round %d: %s was left in %q and %s", round, x.From.File, where, x.State)
			} else if ok && where != whereIs(t, s, x.From.File) {
				t.Errorf("round %d: %s lies in %q, not in %q", round, x.From.File, whereIs(t, s, x.From.File), where)
			} else if !ok && !strings.Contains(after, "\n"+x.From.Folder+" "+x.From.At+fmt.Sprint(x.From.Flags)) {
				t.Errorf("round %d: %s is not back at %s%v:\n%s", round, x.From.File, x.From.At, x.From.Flags, after)
			}
		}
		check(t, r.Close())
	}
	if moved < 100 {
		t.Errorf("only %d mails were moved", moved)
	}
}

func whereIs(t testing.TB, s *Store, file string) string {
	t.Helper()
	for line := range strings.SplitSeq(places(t, s), "\n") {
		if strings.Contains(line, "/"+file) {
			folder, rest, _ := strings.Cut(line, " ")
			return folder + rest[strings.LastIndexByte(rest, '['):]
		}
	}
	return "nowhere"
}

// touch does to some mails what users do, and returns where those are then.
func touch(t testing.TB, s *Store, rnd *rand.Rand, r *refile.Run) map[string]string {
	t.Helper()
	touched := map[string]string{}
	for _, x := range r.All {
		if rnd.IntN(3) > 0 {
			continue
		}
		f := openFolder(t, s, x.To.Folder)
		var uid uint32
		for _, m := range list(t, f).Messages {
			if m.File == x.From.File {
				uid = m.UID
			}
		}
		var err error
		switch rnd.IntN(3) {
		case 0:
			_, err = f.SetFlags(t.Context(), []uint32{uid}, mailstore.FlagsAdd, []string{"touched"})
		case 1:
			check(t, s.Make(t.Context(), anna, "Own"))
			_, err = f.Move(t.Context(), []uint32{uid}, "Own")
		default:
			err = f.Remove(t.Context(), []uint32{uid})
		}
		check(t, err)
		touched[x.From.File] = whereIs(t, s, x.From.File)
	}
	return touched
}

// A witness calls before ahead of everything that a store does.
type witness struct {
	*Store
	before func()
}

func (w witness) Make(ctx context.Context, account, folder string) error {
	w.before()
	return w.Store.Make(ctx, account, folder)
}

func (w witness) Unmake(ctx context.Context, account, folder string, unsubscribe bool) (string, error) {
	w.before()
	defer w.before()
	return w.Store.Unmake(ctx, account, folder, unsubscribe)
}

func (w witness) Refile(ctx context.Context, account string, list []mailstore.Refiling) ([]mailstore.Refiled, error) {
	w.before()
	defer w.before()
	return w.Store.Refile(ctx, account, list)
}

// TestRunsKilled takes a picture of all files at every step of a run and of its undoing, as a kill -9 there would leave them,
// and goes on from each with a new process: the run can be completed, and the run can be undone.
func TestRunsKilled(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 9))
	data := t.TempDir()
	s := open(t, data)
	s.setDisk(hasty{osDisk{}, func() {}})
	fillMailbox(t, s, rnd)
	before := everything(t, s)
	moves := sorting(t, s, rnd)
	if len(moves) < 5 {
		t.Fatalf("only %d moves", len(moves))
	}
	var pictures []string
	shot := func() {
		dir := t.TempDir()
		copyAll(t, data, dir)
		pictures = append(pictures, dir)
	}
	runs := refile.Dir{Path: filepath.Join(data, "refile")}
	r, err := runs.Create(refile.Head{Account: anna}, moves)
	check(t, err)
	s.setDisk(hasty{osDisk{}, shot})
	check(t, r.Apply(t.Context(), witness{s, shot}, nil))
	s.setDisk(hasty{osDisk{}, func() {}})
	after := everything(t, s)
	applying := len(pictures)
	s.setDisk(hasty{osDisk{}, shot})
	check(t, r.Revert(t.Context(), witness{s, shot}, nil))
	check(t, r.Close())
	if applying < 20 || len(pictures)-applying < 20 {
		t.Fatalf("only %d and %d steps", applying, len(pictures)-applying)
	}
	goOn := func(dir string, f func(r *refile.Run, s *Store) error) string {
		t.Helper()
		s := open(t, dir)
		s.setDisk(hasty{osDisk{}, func() {}})
		r, err := refile.Dir{Path: filepath.Join(dir, "refile")}.Open(r.ID)
		check(t, err)
		check(t, f(r, s))
		check(t, r.Close())
		got := everything(t, s)
		check(t, s.Close())
		return got
	}
	for i, dir := range pictures {
		other := t.TempDir()
		copyAll(t, dir, other)
		if i < applying {
			if got := goOn(other, func(r *refile.Run, s *Store) error { return r.Apply(t.Context(), s, nil) }); got != after {
				t.Errorf("completed after step %d:\n%s\nwant\n%s", i, got, after)
			}
		}
		if got := goOn(dir, func(r *refile.Run, s *Store) error { return r.Revert(t.Context(), s, nil) }); got != before {
			t.Errorf("undone after step %d:\n%s\nwant\n%s", i, got, before)
		}
		if i < applying {
			continue
		}
		err := error(nil)
		goOn(dir, func(r *refile.Run, s *Store) error { err = r.Apply(t.Context(), s, nil); return nil })
		if !errors.Is(err, refile.ErrUndone) {
			t.Errorf("completed while it is undone: %v", err)
		}
	}
	t.Logf("%d moves, %d and %d steps", len(moves), applying, len(pictures)-applying)
}

// copyAll copies what a killed process leaves behind. SQLite makes its -shm anew.
func copyAll(t testing.TB, from, to string) {
	t.Helper()
	check(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasSuffix(path, "-shm") {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if d.IsDir() {
			return os.MkdirAll(target, info.Mode().Perm())
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, text, info.Mode().Perm()); err != nil {
			return err
		}
		return os.Chtimes(target, info.ModTime(), info.ModTime())
	}))
}

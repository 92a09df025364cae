package refile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
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

// A shelf is a mailbox in memory: what is in it by file, with its folders. It keeps to the contract of mailstore.Refiler;
// the Maildir does so with real files, see TestRuns there.
type shelf struct {
	mails   map[string]mailstore.Spot
	folders map[string]bool // and whether they are subscribed
	fails   int             // the Refile that fails after half of what it was asked; 0: none
	calls   int
}

func newShelf(folder string, files ...string) *shelf {
	s := &shelf{mails: map[string]mailstore.Spot{}, folders: map[string]bool{mailstore.Inbox: false, folder: false}}
	for _, f := range files {
		s.mails[f] = mailstore.Spot{Folder: folder, File: f, At: "cur/" + f}
	}
	return s
}

// String shows what is where: "INBOX(a b[\Seen]) Lists+(c)".
func (s *shelf) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(s.folders)) {
		var in []string
		for _, f := range slices.Sorted(maps.Keys(s.mails)) {
			if m := s.mails[f]; m.Folder == name {
				if len(m.Flags) > 0 {
					f += fmt.Sprint(m.Flags)
				}
				in = append(in, f)
			}
		}
		if s.folders[name] {
			name += "+"
		}
		all = append(all, name+"("+strings.Join(in, " ")+")")
	}
	return strings.Join(all, " ")
}

func (s *shelf) Tree(context.Context, string) (list []mailstore.FolderInfo, err error) {
	for name, on := range s.folders {
		list = append(list, mailstore.FolderInfo{Name: name, Subscribed: on})
	}
	return list, nil
}

func (s *shelf) Survey(_ context.Context, _, folder string) (list []mailstore.Spot, err error) {
	for _, f := range slices.Sorted(maps.Keys(s.mails)) {
		if s.mails[f].Folder == folder {
			list = append(list, s.mails[f])
		}
	}
	return list, nil
}

func (s *shelf) Make(_ context.Context, _, folder string) error {
	s.folders[folder] = true
	return nil
}

func (s *shelf) Unmake(_ context.Context, _, folder string, _ bool) (string, error) {
	for _, m := range s.mails {
		if m.Folder == folder {
			return "there is mail in it", nil
		}
	}
	delete(s.folders, folder)
	return "", nil
}

var errBroken = errors.New("broken")

func (s *shelf) Refile(_ context.Context, _ string, list []mailstore.Refiling) (results []mailstore.Refiled, err error) {
	s.calls++
	for i, r := range list {
		if s.calls == s.fails && i == len(list)/2 {
			return results, errBroken
		}
		m, ok := s.mails[r.From.File]
		is := func(x mailstore.Spot) bool { return m.Folder == x.Folder && slices.Equal(m.Flags, x.Flags) }
		_, there := s.folders[r.To.Folder]
		switch {
		case !ok:
			results = append(results, mailstore.Refiled{Left: mailstore.LeftGone})
		case !there:
			results = append(results, mailstore.Refiled{Left: mailstore.LeftFolder})
		case is(r.From), r.Again && is(r.To):
			m.Folder, m.Flags = r.To.Folder, r.To.Flags
			s.mails[m.File] = m
			results = append(results, mailstore.Refiled{Now: m})
		case m.Folder != r.From.Folder:
			results = append(results, mailstore.Refiled{Left: mailstore.LeftMoved, Now: mailstore.Spot{Folder: m.Folder, File: m.File}})
		default:
			results = append(results, mailstore.Refiled{Left: mailstore.LeftFlags})
		}
	}
	return results, nil
}

func moves(s *shelf, to map[string]mailstore.Spot) (list []Move) {
	for _, f := range slices.Sorted(maps.Keys(to)) {
		x := to[f]
		x.File = f
		list = append(list, Move{From: s.mails[f], To: x, By: "rules/test"})
	}
	return list
}

func four() (*shelf, []Move) {
	s := newShelf(mailstore.Inbox, "a", "b", "c", "d", "e")
	return s, moves(s, map[string]mailstore.Spot{
		"a": {Folder: "Lists"}, "b": {Folder: "Lists", Flags: []string{`\Seen`}}, "c": {Folder: "INBOX", Flags: []string{"x"}},
		"d": {Folder: "Junk"},
	})
}

const (
	fourBefore = "INBOX(a b c d e)"
	fourAfter  = `INBOX(c[x] e) Junk+(d) Lists+(a b[\Seen])`
)

var head = Head{Account: "anna@example.org", Folder: "INBOX", Rules: []string{"x.yaml"}, Plan: "p", Seen: 5}

func TestRun(t *testing.T) {
	box, list := four()
	d := Dir{Path: filepath.Join(t.TempDir(), "refile")}
	none, err := d.List()
	check(t, err)
	equal(t, "runs", len(none), 0)
	r, err := d.Create(head, list)
	check(t, err)
	var told []string
	tell := func(n int, x Tracked) {
		told = append(told, fmt.Sprintf("%d %s %s %s%s", n, x.From.File, x.State, x.To.Folder, x.Left))
	}
	// Somebody else has the mail in hand meanwhile.
	box.mails["b"] = mailstore.Spot{Folder: "Own", File: "b"}
	box.folders["Own"] = true
	check(t, r.Apply(t.Context(), box, tell))
	equal(t, "told", strings.Join(told, ", "), "1 c done INBOX, 2 d done Junk, 3 a done Lists, 4 b left Listsmoved")
	equal(t, "after", box, "INBOX(c[x] e) Junk+(d) Lists+(a) Own+(b)")
	equal(t, "status", r.Status(), "done")
	if _, err := d.Open(r.ID); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	check(t, r.Apply(t.Context(), box, tell)) // nothing is left to do
	equal(t, "told", len(told), 4)
	check(t, r.Close())

	runs, err := d.List()
	check(t, err)
	equal(t, "runs", len(runs), 1)
	equal(t, "counts", runs[0].Counts(), "map[done:3 left:1]")
	if err := runs[0].Apply(t.Context(), box, tell); err != nil {
		t.Errorf("an ended run: %v", err)
	}

	r, err = d.Open(r.ID)
	check(t, err)
	box.mails["a"] = mailstore.Spot{Folder: "Lists", File: "a", Flags: []string{`\Flagged`}} // touched
	told = nil
	check(t, r.Revert(t.Context(), box, tell))
	equal(t, "told", strings.Join(told, ", "), "1 c back INBOX, 2 d back Junk, 3 a stays Listsflags")
	equal(t, "after", box, `INBOX(c d e) Lists+(a[\Flagged]) Own+(b)`)
	equal(t, "folders", fmt.Sprintf("%+v %+v", *r.Folders[0], *r.Folders[1]),
		"{Folder:Junk Subscribed:false Gone:true Kept:} {Folder:Lists Subscribed:false Gone:false Kept:there is mail in it}")
	equal(t, "status", r.Status(), "undone")
	check(t, r.Revert(t.Context(), box, tell)) // nothing is left to do
	if err := r.Apply(t.Context(), box, tell); !errors.Is(err, ErrUndone) {
		t.Errorf("apply after undo: %v", err)
	}
	equal(t, "told", len(told), 3)
	check(t, r.Close())
}

// failing is a disk of which the n-th operation fails, and everything after it: it is full, or gone.
type failing struct {
	disk
	n, count int
}

func (d *failing) next() error {
	if d.count++; d.count >= d.n {
		return errBroken
	}
	return nil
}

func (d *failing) MakeFolder(path string) error {
	if err := d.next(); err != nil {
		return err
	}
	return d.disk.MakeFolder(path)
}

func (d *failing) Create(path string) (file, error) {
	if err := d.next(); err != nil {
		return nil, err
	}
	f, err := d.disk.Create(path)
	return failingFile{f, d}, err
}

func (d *failing) Append(path string) (file, error) {
	f, err := d.disk.Append(path)
	return failingFile{f, d}, err
}

func (d *failing) Rename(from, to string) error {
	if err := d.next(); err != nil {
		return err
	}
	return d.disk.Rename(from, to)
}

func (d *failing) SyncFolder(path string) error {
	if err := d.next(); err != nil {
		return err
	}
	return d.disk.SyncFolder(path)
}

type failingFile struct {
	file
	d *failing
}

func (f failingFile) Write(p []byte) (int, error) {
	if err := f.d.next(); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f failingFile) Sync() error {
	if err := f.d.next(); err != nil {
		return err
	}
	return f.file.Sync()
}

// TestWritesFail fails each operation on the run file in turn, the disk staying full. Nothing that was not announced has
// been done, and once there is room the run can be completed, and another time undone.
func TestWritesFail(t *testing.T) {
	for _, undo := range []bool{false, true} {
		for n := 1; ; n++ {
			box, list := four()
			bad := &failing{disk: osDisk{}, n: n}
			d := Dir{Path: filepath.Join(t.TempDir(), "refile"), disk: bad}
			r, err := d.Create(head, list)
			if err == nil {
				err = r.Apply(t.Context(), box, nil)
				if e := r.Close(); e != nil {
					t.Error(e)
				}
			}
			ended := err == nil
			if !ended && !errors.Is(err, errBroken) {
				t.Fatalf("operation %d: %v", n, err)
			}
			d.disk = nil
			runs, err := d.List()
			check(t, err)
			if len(runs) == 0 {
				equal(t, fmt.Sprintf("operation %d: no run, and", n), box, fourBefore)
				continue
			}
			r, err = d.Open(runs[0].ID)
			check(t, err)
			moved := 0
			for _, x := range r.All {
				if m := box.mails[x.From.File]; m.Folder != x.From.Folder || len(m.Flags) > 0 {
					moved++
					if x.State == Planned {
						t.Errorf("operation %d: %s was moved and not announced", n, m.File)
					}
				}
			}
			if undo {
				check(t, r.Revert(t.Context(), box, nil))
				equal(t, fmt.Sprintf("operation %d: undone", n), box, fourBefore)
			} else {
				check(t, r.Apply(t.Context(), box, nil))
				equal(t, fmt.Sprintf("operation %d: completed", n), box, fourAfter)
			}
			check(t, r.Close())
			if ended {
				if n < 10 {
					t.Errorf("only %d operations", n)
				}
				break
			}
		}
	}
}

// TestUndoFails is TestWritesFail for the way back.
func TestUndoFails(t *testing.T) {
	for n := 1; ; n++ {
		box, list := four()
		d := Dir{Path: filepath.Join(t.TempDir(), "refile")}
		r, err := d.Create(head, list)
		check(t, err)
		check(t, r.Apply(t.Context(), box, nil))
		check(t, r.Close())
		d.disk = &failing{disk: osDisk{}, n: n}
		r, err = d.Open(r.ID)
		check(t, err)
		failed := r.Revert(t.Context(), box, nil)
		check(t, r.Close())
		if failed != nil && !errors.Is(failed, errBroken) {
			t.Fatal(failed)
		}
		d.disk = nil
		r, err = d.Open(r.ID)
		check(t, err)
		if err := r.Apply(t.Context(), box, nil); n > 1 && !errors.Is(err, ErrUndone) {
			t.Errorf("operation %d: a run half undone is completed: %v", n, err)
		}
		check(t, r.Revert(t.Context(), box, nil))
		equal(t, fmt.Sprintf("operation %d: undone", n), box, fourBefore)
		check(t, r.Close())
		if failed == nil {
			if n < 8 {
				t.Errorf("only %d operations", n)
			}
			return
		}
	}
}

// TestBoxFails: the store fails in the middle of a batch.
func TestBoxFails(t *testing.T) {
	for n := 1; n <= 3; n++ {
		box, list := four()
		box.fails = n
		d := Dir{Path: t.TempDir()}
		r, err := d.Create(head, list)
		check(t, err)
		if err := r.Apply(t.Context(), box, nil); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		if err := r.Apply(t.Context(), box, nil); err != nil { // also without opening it anew
			t.Fatal(err)
		}
		equal(t, "completed", box, fourAfter)
		box.fails = box.calls + n
		if err := r.Revert(t.Context(), box, nil); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		check(t, r.Revert(t.Context(), box, nil))
		equal(t, "undone", box, fourBefore)
		check(t, r.Close())
	}
}

// TestStop: a run that is told to stop does so between two batches, and can be gone on with.
func TestStop(t *testing.T) {
	var files []string
	to := map[string]mailstore.Spot{}
	for i := range 3*batch - 7 {
		f := fmt.Sprintf("m%03d", i)
		files = append(files, f)
		to[f] = mailstore.Spot{Folder: "Lists"}
	}
	box := newShelf("INBOX", files...)
	before := box.String()
	d := Dir{Path: t.TempDir()}
	r, err := d.Create(head, moves(box, to))
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	err = r.Apply(ctx, box, func(n int, _ Tracked) {
		if n == batch+3 {
			cancel()
		}
	})
	if !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	equal(t, "counts", r.Counts(), fmt.Sprintf("map[done:%d planned:%d]", 2*batch, batch-7))
	equal(t, "status", r.Status(), "broken off")
	check(t, r.Close())
	r, err = d.Open(r.ID)
	check(t, err)
	check(t, r.Apply(t.Context(), box, nil))
	equal(t, "counts", r.Counts(), fmt.Sprintf("map[done:%d]", len(files)))
	if err := r.Revert(ctx, box, nil); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	equal(t, "status", r.Status(), "being undone")
	check(t, r.Revert(t.Context(), box, nil))
	equal(t, "undone", box, before)
	check(t, r.Close())
}

// hasty is a disk that nobody waits for.
type hasty struct{ disk }

type hastyFile struct{ file }

func (hastyFile) Sync() error { return nil }

func (d hasty) Append(path string) (file, error) {
	f, err := d.disk.Append(path)
	return hastyFile{f}, err
}

// TestTornFile cuts a run file off at every octet, as a power cut may: what is left can be gone on with, and what was done
// after the last line is found out.
func TestTornFile(t *testing.T) {
	box, list := four()
	d := Dir{Path: t.TempDir()}
	r, err := d.Create(head, list)
	check(t, err)
	whole, err := os.ReadFile(d.path(r.ID))
	check(t, err)
	planned := len(whole)
	check(t, r.Apply(t.Context(), box, nil))
	check(t, r.Close())
	whole, err = os.ReadFile(d.path(r.ID))
	check(t, err)
	d.disk = hasty{osDisk{}}
	for n := range whole {
		check(t, os.WriteFile(d.path(r.ID), whole[:n], 0o600))
		again, err := d.Open(r.ID)
		if n < planned {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%d octets of a plan: %v", n, err)
			}
			continue
		}
		check(t, err)
		box, _ := four()
		for _, m := range again.Folders {
			box.folders[m.Folder] = true
		}
		for _, x := range again.All {
			// What was begun may have been done, or not.
			if x.State == Done || x.State == Begun && n%2 == 0 {
				box.mails[x.To.File] = x.To
			}
		}
		check(t, again.Apply(t.Context(), box, nil))
		equal(t, "completed", box, fourAfter)
		check(t, again.Close())
		text, err := os.ReadFile(d.path(r.ID))
		check(t, err)
		if _, _, err := read(bytes.NewReader(text), "run"); err != nil {
			t.Fatalf("cut off at %d: %v", n, err)
		}
	}
}

func TestDamage(t *testing.T) {
	const run = `{"what":"run","run":{"version":1,"id":"20261122-abcdef","started":"2026-11-22T00:00:00Z","account":"a@b","folder":"INBOX","seen":1,"moves":1}}` + "\n"
	const move = `{"what":"move","n":1,"move":{"from":{"folder":"INBOX","file":"f"},"to":{"folder":"Lists","file":"f"},"by":"r"}}` + "\n"
	for _, test := range []struct{ text, want string }{
		{"", "20261122-abcdef.jsonl: the run file is damaged: it has 0 moves of 0"},
		{run, ".jsonl: the run file is damaged: it has 0 moves of 1"},
		{move, ".jsonl:1: the run file is damaged: a run file begins with one line"},
		{run + run, ".jsonl:2: the run file is damaged: a run file begins with one line"},
		{run + move + "\x00\x00\n" + `{"what":"end"}` + "\n", ".jsonl:3: the run file is damaged: this is no line of JSON"},
		{run + move + move, ".jsonl:3: the run file is damaged: it is no move that could stand here"},
		{run + strings.Replace(move, `"file":"f"`, `"file":"g"`, 1), ".jsonl:2: the run file is damaged: it is no move"},
		{run + move + `{"what":"begin","n":1,"to":2}` + "\n", ".jsonl:3: the run file is damaged: there are no moves 1 to 2 to begin"},
		{run + move + `{"what":"done","n":1}` + "\n", ".jsonl:3: the run file is damaged: move 1 is planned and cannot be done"},
		{run + move + `{"what":"begin","n":1,"to":1}` + "\n" + `{"what":"done","n":1,"spot":{"folder":"x","file":"other"}}` + "\n", ":4: the run file is damaged: move 1 is about another mail"},
		{run + move + `{"what":"left","n":7}` + "\n", ".jsonl:3: the run file is damaged: there is no move 7"},
		{run + move + `{"what":"undo-begin","n":1,"to":1}` + "\n", ":3: the run file is damaged: there are no moves 1 to 1 to begin"},
		{run + move + `{"what":"unmade","folder":"x"}` + "\n", `:3: the run file is damaged: folder "x" was not made`},
		{run + move + `{"what":"dance"}` + "\n", `:3: the run file is damaged: "dance" is nothing that a run file says`},
		{strings.Replace(run, `"version":1`, `"version":2`, 1), ":1: the run file was written by a newer version: version 2, this program knows 1"},
		{strings.Replace(run, "abcdef", "abcdeg", 1) + move, `it is about run "20261122-abcdeg"`},
		{run + strings.Repeat("x", maxLine+1), fmt.Sprintf(":2: the run file is damaged: the line is longer than %d octets", maxLine)},
	} {
		d := Dir{Path: t.TempDir()}
		const id = "20261122-abcdef"
		check(t, os.WriteFile(d.path(id), []byte(test.text), 0o600))
		_, err := d.Open(id)
		if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Errorf("%.60q: %v\nwant %s", test.text, err, test.want)
		}
		if runs, err := d.List(); len(runs) > 0 || err == nil {
			t.Errorf("%.60q is listed: %v", test.text, err)
		}
	}
	for _, id := range []string{"", "..", "../x", "x/y", "none", "-x", "A"} {
		if _, err := (Dir{Path: t.TempDir()}).Open(id); !errors.Is(err, ErrNoRun) {
			t.Errorf("run %q: %v", id, err)
		}
	}
}

// TestSweep: a run that was never wholly written down does not stay.
func TestSweep(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	old, fresh := filepath.Join(d.Path, ".20250101-aaaaaa"), filepath.Join(d.Path, ".20250101-bbbbbb")
	for _, path := range []string{old, fresh} {
		check(t, os.WriteFile(path, []byte("{"), 0o600))
	}
	hours := time.Now().Add(-2 * time.Hour)
	check(t, os.Chtimes(old, hours, hours))
	box, list := four()
	r, err := d.Create(head, list)
	check(t, err)
	check(t, r.Apply(t.Context(), box, nil))
	check(t, r.Close())
	_, gone := os.Stat(old)
	_, there := os.Stat(fresh)
	if !os.IsNotExist(gone) || there != nil {
		t.Errorf("the old one: %v; the one that may be another's: %v", gone, there)
	}
}

// TestExpire: old runs go, but not while somebody carries them out.
func TestExpire(t *testing.T) {
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	d := Dir{Path: t.TempDir(), Now: func() time.Time { return at }}
	var open *Run
	for range 4 {
		box, list := four()
		r, err := d.Create(head, list)
		check(t, err)
		check(t, r.Apply(t.Context(), box, nil))
		if open == nil {
			open = r // it stays open
		} else {
			check(t, r.Close())
		}
		at = at.Add(24 * time.Hour)
	}
	check(t, os.WriteFile(d.path("20200101-damage"), []byte("rubbish\n{}\n"), 0o600))
	n, err := d.Expire(t.Context(), time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC))
	check(t, err)
	equal(t, "removed", n, 1)
	check(t, open.Close())
	n, err = d.Expire(t.Context(), time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC))
	check(t, err)
	equal(t, "removed", n, 1)
	runs, err := d.List()
	equal(t, "left", len(runs), 2)
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("the damaged one: %v", err)
	}
	for account, want := range map[string]int{"bob@example.org": 0, head.Account: 2} {
		n, err := d.Forget(t.Context(), account)
		check(t, err)
		equal(t, "forgotten of "+account, n, want)
	}
	if n, err := (Dir{Path: filepath.Join(d.Path, "none")}).Expire(t.Context(), at); n != 0 || err != nil {
		t.Errorf("no runs: %d, %v", n, err)
	}
}

func FuzzRead(f *testing.F) {
	box, list := four()
	d := Dir{Path: f.TempDir()}
	r, err := d.Create(head, list)
	check(f, err)
	check(f, r.Apply(f.Context(), box, nil))
	check(f, r.Revert(f.Context(), box, nil))
	check(f, r.Close())
	text, err := os.ReadFile(d.path(r.ID))
	check(f, err)
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, good, err := read(bytes.NewReader(text), "run")
		if err != nil {
			return
		}
		if len(r.All) != r.Moves || good > int64(len(text)) {
			t.Fatalf("%d moves of %d, %d octets of %d", len(r.All), r.Moves, good, len(text))
		}
		again, all, err := read(bytes.NewReader(text[:good]), "run")
		check(t, err)
		equal(t, "what is good", fmt.Sprintf("%+v %d", again.Counts(), all), fmt.Sprintf("%+v %d", r.Counts(), good))
	})
}

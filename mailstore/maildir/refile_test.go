package maildir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/mailstore"
)

// places lists where the messages of all folders lie: "INBOX new/1.a[]".
func places(t testing.TB, s *Store) string {
	t.Helper()
	folders, err := s.Tree(t.Context(), anna)
	check(t, err)
	var lines []string
	for _, f := range folders {
		if f.Missing {
			continue
		}
		list, err := s.Survey(t.Context(), anna, f.Name)
		check(t, err)
		for _, x := range list {
			lines = append(lines, fmt.Sprintf("%s %s%v", f.Name, x.At, x.Flags))
		}
	}
	return strings.Join(lines, "\n")
}

func survey(t testing.TB, s *Store, folder string) []mailstore.Spot {
	t.Helper()
	list, err := s.Survey(t.Context(), anna, folder)
	check(t, err)
	return list
}

func refileAll(t testing.TB, s *Store, list ...mailstore.Refiling) []mailstore.Refiled {
	t.Helper()
	done, err := s.Refile(t.Context(), anna, list)
	check(t, err)
	equal(t, "results", len(done), len(list))
	return done
}

// put writes a file as another program does.
func put(t testing.TB, s *Store, place string) {
	t.Helper()
	path := filepath.Join(s.cfg.Root, "example.org", "anna", place)
	check(t, os.MkdirAll(filepath.Dir(path), 0o700))
	check(t, os.WriteFile(path, []byte(strings.ReplaceAll(hello, "\r", "")), 0o600))
}

// TestRefile takes mail elsewhere and back: files come back under the very names they had, with their keywords, and what
// nobody has looked at is new again. Those who have the folders open see it go and come.
func TestRefile(t *testing.T) {
	s := open(t, t.TempDir())
	deliver(t, s, "", hello)                               // in new
	deliver(t, s, "", hello, `\Seen`, "$Label1", "urgent") // in cur, with keywords in the index
	deliver(t, s, "", hello, "urgent")                     // in new, with a keyword
	put(t, s, "cur/1.old.host:2,")                         // no flags, but a place for them
	put(t, s, "cur/2.odd.host")                            // in cur without any
	put(t, s, "cur/3.letters.host:2,FSaz")                 // a is $Junk to Dovecot, z means nothing
	put(t, s, "cur/4.behind.host:2,RS,Dovecot")            // with something of another program behind
	check(t, os.WriteFile(filepath.Join(s.cfg.Root, "example.org", "anna", "dovecot-keywords"), []byte("0 $Junk\n"), 0o600))
	inbox := openFolder(t, s, "INBOX")
	before := places(t, s)
	files := treeOf(t, s)
	for _, want := range []string{"INBOX new/", "urgent]", `cur/3.letters.host:2,FSaz[$Junk \Flagged \Seen]`} {
		if !strings.Contains(before, want) {
			t.Fatalf("no %q in\n%s", want, before)
		}
	}
	check(t, s.Make(t.Context(), anna, "Lists/go"))
	lists := openFolder(t, s, "Lists/go")
	changed, stop := lists.Watch()
	defer stop()

	there := survey(t, s, "INBOX")
	var all []mailstore.Refiling
	for i, x := range there {
		to := mailstore.Spot{Folder: "Lists/go", File: x.File, Flags: x.Flags}
		if i%2 == 0 {
			to.Folder = "INBOX" // flags alone
		}
		to.Flags = append(slices.Clone(x.Flags), `\Flagged`, "sorted")
		all = append(all, mailstore.Refiling{From: x, To: to})
	}
	done := refileAll(t, s, all...)
	<-changed
	var undo []mailstore.Refiling
	for i, r := range done {
		if r.Left != "" || r.Now.Folder != all[i].To.Folder || !slices.Contains(r.Now.Flags, "sorted") ||
			!slices.Contains(r.Now.Flags, `\Flagged`) || !strings.HasPrefix(r.Now.At, "cur/") {
			t.Errorf("%s: %+v", all[i].From.At, r)
		}
		undo = append(undo, mailstore.Refiling{From: r.Now, To: all[i].From})
	}
	if l := list(t, lists); len(l.Messages) != 3 || len(survey(t, s, "INBOX")) != 4 {
		t.Errorf("%s, and in the inbox %v", show(l), survey(t, s, "INBOX"))
	}
	if more := refileAll(t, s, again(all)...); slices.ContainsFunc(more, func(r mailstore.Refiled) bool { return r.Left != "" }) {
		t.Errorf("once more: %+v", more)
	}
	for i, r := range refileAll(t, s, undo...) {
		if r.Left != "" || r.Now.At != there[i].At {
			t.Errorf("back: %+v, not %s", r, there[i].At)
		}
	}
	equalAsSets(t, places(t, s), before)
	equal(t, "the files", treeOf(t, s), files)
	if kept, err := s.Unmake(t.Context(), anna, "Lists/go", true); kept != "" || err != nil {
		t.Errorf("the folder is kept: %s, %v", kept, err)
	}
	folders, err := s.Tree(t.Context(), anna)
	check(t, err)
	equal(t, "folders", fmt.Sprint(folders), "[{INBOX false  false false}]")
	if _, err := lists.Messages(t.Context()); !errors.Is(err, mailstore.ErrNoFolder) {
		t.Errorf("a session goes on in a folder that was removed: %v", err)
	}

	// No UID is given twice.
	uids := map[uint32]bool{}
	for _, m := range list(t, inbox).Messages {
		if uids[m.UID] {
			t.Errorf("UID %d twice", m.UID)
		}
		uids[m.UID] = true
	}
}

func treeOf(t testing.TB, s *Store) string {
	return tree(t, filepath.Join(s.cfg.Root, "example.org", "anna", "cur"))
}

func again(list []mailstore.Refiling) []mailstore.Refiling {
	list = slices.Clone(list)
	for i := range list {
		list[i].Again = true
	}
	return list
}

func equalAsSets(t testing.TB, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	slices.Sort(g)
	slices.Sort(w)
	equal(t, "places", strings.Join(g, "\n"), strings.Join(w, "\n"))
}

// TestRefileLeaves: what somebody has done with a message since it was seen stands.
func TestRefileLeaves(t *testing.T) {
	for _, test := range []struct {
		name  string
		touch func(t *testing.T, s *Store, x mailstore.Spot)
		again bool
		left  mailstore.Left
		in    string // where it lies then
	}{
		{name: "nothing", touch: func(*testing.T, *Store, mailstore.Spot) {}, in: "Lists"},
		{name: "looked at", touch: func(t *testing.T, s *Store, _ mailstore.Spot) { list(t, openFolder(t, s, "INBOX")) }, in: "Lists"},
		{name: "flagged", left: mailstore.LeftFlags, in: "INBOX", touch: func(t *testing.T, s *Store, _ mailstore.Spot) {
			_, err := openFolder(t, s, "INBOX").SetFlags(t.Context(), []uint32{1}, mailstore.FlagsAdd, []string{"mine"})
			check(t, err)
		}},
		{name: "flagged by another program", left: mailstore.LeftFlags, in: "INBOX", touch: func(t *testing.T, s *Store, x mailstore.Spot) {
			check(t, os.Rename(x.Path, filepath.Join(filepath.Dir(filepath.Dir(x.Path)), "cur", x.File+":2,S")))
		}},
		{name: "moved", left: mailstore.LeftMoved, in: "Other", touch: func(t *testing.T, s *Store, _ mailstore.Spot) {
			_, err := openFolder(t, s, "INBOX").Move(t.Context(), []uint32{1}, "Other")
			check(t, err)
		}},
		{name: "moved to where it should go", left: mailstore.LeftMoved, in: "Lists", touch: func(t *testing.T, s *Store, _ mailstore.Spot) {
			_, err := openFolder(t, s, "INBOX").Move(t.Context(), []uint32{1}, "Lists")
			check(t, err)
		}},
		{name: "moved by us, perhaps", again: true, in: "Lists", touch: func(t *testing.T, s *Store, _ mailstore.Spot) {
			_, err := openFolder(t, s, "INBOX").Move(t.Context(), []uint32{1}, "Lists")
			check(t, err)
		}},
		{name: "moved by us, perhaps, and flagged", again: true, left: mailstore.LeftFlags, in: "Lists", touch: func(t *testing.T, s *Store, _ mailstore.Spot) {
			_, err := openFolder(t, s, "INBOX").Move(t.Context(), []uint32{1}, "Lists")
			check(t, err)
			_, err = openFolder(t, s, "Lists").SetFlags(t.Context(), []uint32{1}, mailstore.FlagsAdd, []string{"mine"})
			check(t, err)
		}},
		{name: "deleted", left: mailstore.LeftGone, touch: func(t *testing.T, s *Store, _ mailstore.Spot) {
			check(t, openFolder(t, s, "INBOX").Remove(t.Context(), []uint32{1}))
		}},
		{name: "twice", left: mailstore.LeftTaken, in: "INBOX", touch: func(t *testing.T, s *Store, x mailstore.Spot) {
			put(t, s, ".Lists/cur/"+x.File+":2,")
		}},
		{name: "folder gone", left: mailstore.LeftFolder, in: "INBOX", touch: func(t *testing.T, s *Store, _ mailstore.Spot) {
			check(t, os.RemoveAll(filepath.Join(s.cfg.Root, "example.org", "anna", ".Lists")))
		}},
		{name: "folder and mail gone", left: mailstore.LeftGone, touch: func(t *testing.T, s *Store, x mailstore.Spot) {
			check(t, os.RemoveAll(filepath.Join(s.cfg.Root, "example.org", "anna", ".Lists")))
			check(t, os.Remove(x.Path))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			deliver(t, s, "", hello)
			check(t, s.Make(t.Context(), anna, "Lists"))
			check(t, s.Make(t.Context(), anna, "Other"))
			x := survey(t, s, "INBOX")[0]
			test.touch(t, s, x)
			tree := places(t, s)
			r := refileAll(t, s, mailstore.Refiling{
				From: x, To: mailstore.Spot{Folder: "Lists", File: x.File, Flags: []string{"sorted"}}, Again: test.again,
			})[0]
			equal(t, "left", r.Left, test.left)
			if test.in != "" || r.Left == mailstore.LeftGone {
				in := r.Now.Folder
				if test.left == mailstore.LeftTaken {
					in = test.in // it is in both
				}
				equal(t, "in", in, test.in)
			}
			if test.left != "" {
				equal(t, "places", places(t, s), tree)
			} else {
				equal(t, "flags", survey(t, s, "Lists")[0].Flags, []string{"sorted"})
			}
		})
	}
}

// TestRefileFails fails each operation in turn: the message is where it was or where it should go, never in both or
// neither, and whoever asks again gets it done.
func TestRefileFails(t *testing.T) {
	for _, to := range []string{"Lists", "INBOX"} {
		for n := 1; ; n++ {
			s := open(t, t.TempDir())
			deliver(t, s, "", hello, "own")
			check(t, s.Make(t.Context(), anna, "Lists"))
			x := survey(t, s, "INBOX")[0]
			r := []mailstore.Refiling{{From: x, To: mailstore.Spot{Folder: to, File: x.File, Flags: []string{`\Seen`, "sorted"}}}}
			want := to + " cur/" + x.File + `:2,S[\Seen sorted]`
			d := &failing{disk: osDisk{}, n: n}
			s.setDisk(d)
			_, err := s.Refile(t.Context(), anna, r)
			s.setDisk(osDisk{})
			if d.did == "" {
				check(t, err)
				equal(t, "places", places(t, s), want)
				if n < 3 {
					t.Error("nothing failed")
				}
				break
			}
			if !errors.Is(err, errDisk) {
				t.Errorf("operation %d (%s): %v", n, d.did, err)
			}
			if got := places(t, s); got != want && got != "INBOX "+x.At+"[own]" {
				t.Errorf("operation %d (%s) failed: %s", n, d.did, got)
			}
			equal(t, "left", refileAll(t, s, again(r)...)[0].Left, "")
			equal(t, "places", places(t, s), want)
		}
	}
}

// TestRefileRaces: another program gives the file another name just when it is to be moved. What it has set stands.
func TestRefileRaces(t *testing.T) {
	for _, to := range []string{"Lists", "INBOX"} {
		for _, test := range []struct {
			name string
			left mailstore.Left
		}{{"cur/%s:2,S", mailstore.LeftFlags}, {"cur/%s:2,", ""}, {".Other/cur/%s:2,", mailstore.LeftMoved}, {"", mailstore.LeftGone}} {
			s := open(t, t.TempDir())
			deliver(t, s, "", hello)
			check(t, s.Make(t.Context(), anna, "Lists"))
			check(t, s.Make(t.Context(), anna, "Other"))
			x := survey(t, s, "INBOX")[0]
			once := false
			s.setDisk(hasty{osDisk{}, func() {
				if once {
					return
				}
				once = true
				if test.name == "" {
					check(t, os.Remove(x.Path))
					return
				}
				check(t, os.Rename(x.Path, filepath.Join(s.cfg.Root, "example.org", "anna", fmt.Sprintf(test.name, x.File))))
			}})
			r := refileAll(t, s, mailstore.Refiling{From: x, To: mailstore.Spot{Folder: to, File: x.File, Flags: []string{`\Flagged`}}})[0]
			if r.Left != test.left {
				t.Errorf("to %s, renamed to %s: left %q, not %q", to, test.name, r.Left, test.left)
			}
			if got := places(t, s); test.left == "" && got != to+" cur/"+x.File+`:2,F[\Flagged]` || test.left == mailstore.LeftFlags && got != "INBOX cur/"+x.File+`:2,S[\Seen]` {
				t.Errorf("to %s, renamed to %s: %s", to, test.name, got)
			}
		}
	}
}

// TestUnmake: a folder with anything in it stays as it is, whatever fails.
func TestUnmake(t *testing.T) {
	s := open(t, t.TempDir())
	dir := filepath.Join(s.cfg.Root, "example.org", "anna", ".Lists")
	for _, test := range []struct{ file, kept string }{
		{"", ""},
		{"cur/1.a.b:2,", "there is mail in it"},
		{"new/1.a.b", "there is mail in it"},
		{"tmp/1.a.b", "there is mail in it"},
		{"dovecot-uidlist", "another program keeps dovecot-uidlist in it"},
	} {
		for n := 1; ; n++ {
			check(t, s.Make(t.Context(), anna, "Lists"))
			check(t, s.Make(t.Context(), anna, "Lists")) // and nothing else
			if test.file != "" {
				put(t, s, ".Lists/"+test.file)
			}
			before := tree(t, dir)
			d := &failing{disk: osDisk{}, n: n}
			s.setDisk(d)
			kept, err := s.Unmake(t.Context(), anna, "Lists", true)
			s.setDisk(osDisk{})
			if d.did == "" || test.file == "dovecot-uidlist" {
				check(t, err)
				equal(t, "kept", kept, test.kept)
				if kept != "" {
					equal(t, "tree", tree(t, dir), before)
				} else if _, err := os.Stat(dir); !os.IsNotExist(err) {
					t.Errorf("it is still there: %v", err)
				}
				break
			}
			if _, err := os.Stat(filepath.Join(dir, test.file)); test.file != "" && err != nil {
				t.Errorf("%s is lost after operation %d (%s) has failed: %v", test.file, n, d.did, err)
			}
			if err == nil && test.file == "" {
				t.Errorf("operation %d (%s) has failed, and nobody is told", n, d.did)
			}
		}
		check(t, os.RemoveAll(dir))
	}
	if _, err := s.Unmake(t.Context(), anna, "inbox", true); !errors.Is(err, mailstore.ErrName) {
		t.Errorf("the inbox: %v", err)
	}
	if kept, err := s.Unmake(t.Context(), anna, "never/there", true); kept != "" || err != nil {
		t.Errorf("a folder that is not there: %s, %v", kept, err)
	}
}

// TestRefileNames: what could lead out of the mailbox is refused.
func TestRefileNames(t *testing.T) {
	s := open(t, t.TempDir())
	deliver(t, s, "", hello)
	x := survey(t, s, "INBOX")[0]
	to := mailstore.Spot{Folder: "INBOX", File: x.File}
	for _, r := range []mailstore.Refiling{
		{From: mailstore.Spot{Folder: "INBOX", File: "../x"}, To: mailstore.Spot{Folder: "INBOX", File: "../x"}},
		{From: mailstore.Spot{Folder: "INBOX"}, To: mailstore.Spot{Folder: "INBOX"}},
		{From: x, To: mailstore.Spot{Folder: "INBOX", File: "other"}},
		{From: x, To: mailstore.Spot{Folder: "INBOX", File: x.File, At: "tmp/" + x.File}},
		{From: x, To: mailstore.Spot{Folder: "INBOX", File: x.File, At: "cur/../" + x.File}},
		{From: x, To: mailstore.Spot{Folder: "INBOX", File: x.File, At: "cur/other:2,S"}},
		{From: x, To: mailstore.Spot{Folder: "a//b", File: x.File}},
		{From: mailstore.Spot{Folder: "~x", File: x.File}, To: to},
		{From: x, To: mailstore.Spot{Folder: "INBOX", File: x.File, Flags: []string{"no keyword"}}},
	} {
		if _, err := s.Refile(t.Context(), anna, []mailstore.Refiling{r}); !errors.Is(err, mailstore.ErrName) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	s.cfg.Folders = 2
	check(t, s.Make(t.Context(), anna, "one"))
	check(t, s.Make(t.Context(), anna, "one"))
	if err := s.Make(t.Context(), anna, "two"); err == nil || !strings.Contains(err.Error(), "there are 2 folders: at most 2 are allowed") {
		t.Errorf("too many folders: %v", err)
	}
	s.cfg.Keywords = 2
	to.Flags = []string{"a", "b", "c"}
	equal(t, "left", refileAll(t, s, mailstore.Refiling{From: x, To: to})[0].Left, mailstore.LeftKeys)
}

// BenchmarkRefile moves mail to another folder and back, as runs do: 64 at a time.
func BenchmarkRefile(b *testing.B) {
	s := open(b, b.TempDir())
	for range 64 {
		deliver(b, s, "", hello, `\Seen`)
	}
	check(b, s.Make(b.Context(), anna, "Lists"))
	var there, back []mailstore.Refiling
	for _, x := range survey(b, s, "INBOX") {
		to := mailstore.Spot{Folder: "Lists", File: x.File, Flags: append([]string{"$Label1"}, x.Flags...)}
		there = append(there, mailstore.Refiling{From: x, To: to})
		back = append(back, mailstore.Refiling{From: to, To: x})
	}
	for b.Loop() {
		refileAll(b, s, there...)
		refileAll(b, s, back...)
	}
	b.ReportMetric(float64(2*64*b.N)/b.Elapsed().Seconds(), "mails/s")
}

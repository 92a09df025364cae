package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/storetest"
)

const (
	anna  = storetest.Anna
	hello = "Subject: hello\r\n\r\nHello!\r\n"
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

func deliver(t testing.TB, s *Store, folder, text string, flags ...string) string {
	t.Helper()
	placed, err := s.Deliver(t.Context(), []mailstore.Item{
		{Account: anna, Folder: folder, Flags: flags, ID: "id", Content: strings.NewReader(text)},
	})
	check(t, err)
	return placed[0].File
}

func openFolder(t testing.TB, s *Store, name string) *folder {
	t.Helper()
	a, err := s.Account(t.Context(), anna)
	check(t, err)
	t.Cleanup(func() { _ = a.Close() })
	f, err := a.Open(t.Context(), name)
	check(t, err)
	return f.(*folder)
}

func list(t testing.TB, f mailstore.Folder) mailstore.Listing {
	t.Helper()
	l, err := f.Messages(t.Context())
	check(t, err)
	return l
}

// show renders a listing as "V5 N3: 1[\Seen] 2[]".
func show(l mailstore.Listing) string {
	s := fmt.Sprintf("V%d N%d:", l.UIDValidity, l.UIDNext)
	for _, m := range l.Messages {
		s += fmt.Sprintf(" %d%v", m.UID, m.Flags)
	}
	return s
}

// tree lists everything below dir with its mode, files with their content.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%v %s", info.Mode(), name)
		if !d.IsDir() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", data)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

func TestLayout(t *testing.T) {
	data := t.TempDir()
	ids := 0
	s := open(t, data, func(c *Config) {
		c.Now = func() time.Time { return time.Unix(1700000000, 0) }
		c.NewID = func() string { ids++; return fmt.Sprintf("new%d", ids) }
		c.Hostname = "mx/1:2,3"
	})
	_, err := s.Deliver(t.Context(), []mailstore.Item{
		{Account: anna, ID: "Zx81", Content: strings.NewReader("Subject: a\r\n\r\nb\r\n")},
		{Account: anna, Folder: "Lists/Gärten", ID: "Zx81", Flags: []string{`\Seen`, `\Flagged`}, Content: strings.NewReader("a\n")},
		{Account: anna, Folder: "Junk", ID: "not/an id", Flags: []string{"$Junk", "x:y"}, Content: strings.NewReader("a")},
	})
	check(t, err)
	got := tree(t, filepath.Join(data, "mail"))
	// The items are written at once: the order of the subscriptions is open.
	got = strings.ReplaceAll(got, `Junk\nLists\tG&AOQ-rten\n`, `Lists\tG&AOQ-rten\nJunk\n`)
	equal(t, "tree", got, `drwx------ .
drwx------ example.org
drwx------ example.org/anna
drwx------ example.org/anna/.Junk
drwx------ example.org/anna/.Junk/cur
-rw------- example.org/anna/.Junk/maildirfolder ""
drwx------ example.org/anna/.Junk/new
-rw------- example.org/anna/.Junk/new/1700000000.new1_3.mx\0571\0722\0543,S=1,W=1,K=$Junk+x%3Ay "a"
drwx------ example.org/anna/.Junk/tmp
drwx------ example.org/anna/.Lists.G&AOQ-rten
drwx------ example.org/anna/.Lists.G&AOQ-rten/cur
-rw------- example.org/anna/.Lists.G&AOQ-rten/cur/1700000000.Zx81_2.mx\0571\0722\0543,S=2,W=3:2,FS "a\n"
-rw------- example.org/anna/.Lists.G&AOQ-rten/maildirfolder ""
drwx------ example.org/anna/.Lists.G&AOQ-rten/new
drwx------ example.org/anna/.Lists.G&AOQ-rten/tmp
drwx------ example.org/anna/cur
drwx------ example.org/anna/new
-rw------- example.org/anna/new/1700000000.Zx81_1.mx\0571\0722\0543,S=14,W=17 "Subject: a\n\nb\n"
-rw------- example.org/anna/subscriptions "V\t2\n\nLists\tG&AOQ-rten\nJunk\n"
drwx------ example.org/anna/tmp
`)
	f := openFolder(t, s, "Junk")
	equal(t, "keywords", list(t, f).Messages[0].Flags, []string{"$Junk", "x:y"})
	equal(t, "moved to cur when listed", names(t, f.dir()), []string{`cur/1700000000.new1_3.mx\0571\0722\0543,S=1,W=1,K=$Junk+x%3Ay:2,`})
	_, err = f.Copy(t.Context(), []uint32{1}, "INBOX")
	check(t, err)
	equal(t, "a copy keeps the id", names(t, s.mailboxes[anna].dir)[1], `new/1700000000.new1_4.mx\0571\0722\0543,S=1,W=1`)
	marks, err := os.ReadFile(filepath.Join(data, "mail/example.org/anna/sluice-uidvalidity"))
	check(t, err)
	equal(t, "marks", string(marks), "1 1700000001 1\n")
	if _, err := os.Stat(filepath.Join(data, "users/example.org/anna/index.db")); err != nil {
		t.Error(err)
	}
}

// names lists the files in new, cur and tmp of a Maildir.
func names(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	for _, sub := range []string{"new", "cur", "tmp"} {
		list, err := readNames(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		check(t, err)
		for _, n := range list {
			all = append(all, sub+"/"+n)
		}
	}
	slices.Sort(all)
	return all
}

// A failing disk fails its n-th operation; 0: none. It counts them.
type failing struct {
	disk
	op string // counts only these; "": all
	n  int

	mu    sync.Mutex
	count int
	did   string // what failed
}

var errDisk = errors.New("disk failure")

func (d *failing) next(op string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.op != "" && d.op != op {
		return nil
	}
	d.count++
	if d.count == d.n {
		d.did = op
		return fmt.Errorf("%s: %w", op, errDisk)
	}
	return nil
}

func (d *failing) Create(name string) (file, error) {
	if err := d.next("create"); err != nil {
		return nil, err
	}
	f, err := d.disk.Create(name)
	return &failingFile{f, d}, err
}

func (d *failing) SetTime(name string, at time.Time) error {
	if err := d.next("set time"); err != nil {
		return err
	}
	return d.disk.SetTime(name, at)
}

func (d *failing) Rename(from, to string) error {
	if err := d.next("rename"); err != nil {
		return err
	}
	return d.disk.Rename(from, to)
}

func (d *failing) Link(from, to string) error {
	if err := d.next("link"); err != nil {
		return err
	}
	return d.disk.Link(from, to)
}

func (d *failing) Rmdir(name string) error {
	if err := d.next("rmdir"); err != nil {
		return err
	}
	return d.disk.Rmdir(name)
}

func (d *failing) Mkdir(name string) error {
	if err := d.next("mkdir"); err != nil {
		return err
	}
	return d.disk.Mkdir(name)
}

func (d *failing) Sync(dir string) error {
	if err := d.next("sync folder"); err != nil {
		return err
	}
	return d.disk.Sync(dir)
}

type failingFile struct {
	file
	d *failing
}

func (f *failingFile) Write(p []byte) (int, error) {
	if err := f.d.next("write"); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *failingFile) Sync() error {
	if err := f.d.next("sync"); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *failingFile) Close() error {
	err := f.file.Close()
	if err := f.d.next("close"); err != nil {
		return err
	}
	return err
}

// TestDeliverFails fails each operation of a delivery to three recipients in turn: nothing may appear in any folder, and
// nothing may be left in tmp. Operations are counted by kind, since files are written at once.
func TestDeliverFails(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "close", "set time", "rename", "mkdir", "sync folder"} {
		t.Run(op, func(t *testing.T) {
			n := 1
			for deliverFails(t, &failing{disk: osDisk{}, op: op, n: n}) {
				n++
			}
			if n <= 3 {
				t.Errorf("%s failed %d times only", op, n-1)
			}
		})
	}
}

// deliverFails reports whether an operation has failed.
func deliverFails(t *testing.T, d *failing) bool {
	s := open(t, t.TempDir())
	s.setDisk(d)
	_, err := s.Deliver(t.Context(), []mailstore.Item{
		{Account: anna, ID: "x", Content: strings.NewReader(hello)},
		{Account: storetest.Ben, ID: "x", Flags: []string{`\Seen`}, Content: strings.NewReader(hello)},
		{Account: storetest.Small, ID: "x", Folder: "Lists/a", Content: strings.NewReader(strings.Repeat("x\r\n", 100_000))},
	})
	files := 0
	check(t, filepath.WalkDir(s.cfg.Root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && slices.Contains([]string{"new", "cur", "tmp"}, filepath.Base(filepath.Dir(path))) {
			files++
		}
		return err
	}))
	if d.did == "" {
		check(t, err)
		equal(t, "files", files, 3)
		return false
	}
	if !errors.Is(err, errDisk) {
		t.Fatalf("%s %d failed, Deliver says %v", d.op, d.n, err)
	}
	if files != 0 {
		t.Fatalf("%s %d failed and %d files are left", d.op, d.n, files)
	}
	// The next try, with a disk that works again, goes well.
	s.setDisk(osDisk{})
	deliver(t, s, "Lists/a", hello)
	return true
}

// TestChangesFail fails each operation of a session's changes in turn: a message is never lost, and never there twice
// under one UID; what reported an error can be tried again.
func TestChangesFail(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(ctx context.Context, f *folder) error
		want string // texts in INBOX | to, once it went well
		fail []string
	}{
		{"append", func(ctx context.Context, f *folder) error {
			_, err := f.Append(ctx, strings.NewReader("3"), []string{`\Seen`, "k"}, time.Time{})
			return err
		}, "1 2 3 | ", []string{"1 2 | "}},
		{"copy", func(ctx context.Context, f *folder) error {
			_, err := f.Copy(ctx, []uint32{1, 2}, "to")
			return err
		}, "1 2 | 1 2", []string{"1 2 | "}},
		{"move", func(ctx context.Context, f *folder) error {
			_, err := f.Move(ctx, []uint32{1, 2}, "to")
			return err
		}, " | 1 2", []string{"1 2 | "}},
		{"expunge", func(ctx context.Context, f *folder) error {
			_, err := f.Expunge(ctx, nil)
			return err
		}, "1 | ", []string{"1 | "}}, // the file is gone, only the sync failed
		{"flags", func(ctx context.Context, f *folder) error {
			_, err := f.SetFlags(ctx, []uint32{1, 2}, mailstore.FlagsAdd, []string{`\Seen`, "k"})
			return err
		}, "1 2 | ", []string{"1 2 | "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for n := 1; ; n++ {
				s := open(t, t.TempDir())
				inbox := openFolder(t, s, "INBOX")
				check(t, inbox.account.Create(t.Context(), "to"))
				to := openFolder(t, s, "to")
				for i, flags := range [][]string{nil, {`\Deleted`}} {
					_, err := inbox.Append(t.Context(), strings.NewReader(fmt.Sprint(i+1)), flags, time.Time{})
					check(t, err)
				}
				list(t, inbox)
				list(t, to)
				d := &failing{disk: osDisk{}, n: n}
				s.setDisk(d)
				err := test.do(t.Context(), inbox)
				s.setDisk(osDisk{})
				texts := func() string {
					return strings.Join(texts(t, inbox), " ") + " | " + strings.Join(texts(t, to), " ")
				}
				if d.did == "" {
					check(t, err)
					equal(t, "texts", texts(), test.want)
					if n < 2 {
						t.Error("nothing failed")
					}
					break
				}
				if !errors.Is(err, errDisk) {
					t.Fatalf("operation %d (%s) failed: %v", n, d.did, err)
				}
				if got := texts(); !slices.Contains(test.fail, got) {
					t.Fatalf("operation %d (%s) failed: %q", n, d.did, got)
				}
				for _, f := range []*folder{inbox, to} {
					for _, name := range names(t, f.dir()) {
						if strings.HasPrefix(name, "tmp/") {
							t.Fatalf("operation %d (%s) failed: %s", n, d.did, name)
						}
					}
				}
				check(t, test.do(t.Context(), inbox))
				equal(t, fmt.Sprintf("texts after operation %d (%s) failed, and another try", n, d.did), texts(), test.want)
			}
		})
	}
}

func texts(t testing.TB, f mailstore.Folder) []string {
	t.Helper()
	var all []string
	for _, m := range list(t, f).Messages {
		c, err := f.Content(t.Context(), m.UID)
		check(t, err)
		p, err := io.ReadAll(c)
		check(t, err)
		check(t, c.Close())
		all = append(all, string(p))
	}
	return all
}

func TestForeignChanges(t *testing.T) {
	s := open(t, t.TempDir())
	f := openFolder(t, s, "INBOX")
	one := deliver(t, s, "", "Subject: 1\n\n")
	before := list(t, f)
	dir := f.dir()
	move := func(from, to string) {
		t.Helper()
		check(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
	}
	// mutt sets a flag.
	move("cur/"+one+":2,", "cur/"+one+":2,FS")
	c, err := f.Content(t.Context(), 1)
	check(t, err)
	check(t, c.Close())
	l := list(t, f)
	equal(t, "flags", l.Messages[0].Flags, []string{`\Flagged`, `\Seen`})
	if l.ModSeq <= before.ModSeq || l.Messages[0].ModSeq != l.ModSeq {
		t.Errorf("modification sequences: %+v, %+v", before, l)
	}
	// A change by us meets one by it: neither is lost.
	move("cur/"+one+":2,FS", "cur/"+one+":2,FRS")
	got, err := f.SetFlags(t.Context(), []uint32{1}, mailstore.FlagsRemove, []string{`\Flagged`})
	check(t, err)
	equal(t, "flags", got[0].Flags, []string{`\Answered`, `\Seen`})
	// A program that knows neither sizes nor flags adds files, one of them to cur; one has CRLF line ends.
	check(t, os.WriteFile(filepath.Join(dir, "new/1700000001.x.host"), []byte("a\nb\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "cur/1700000002.y.host:2,T"), []byte("a\r\nb\r\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "cur/1700000003.liar,S=1,W=99"), []byte("a\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "cur/.hidden"), nil, 0o600))
	check(t, os.Mkdir(filepath.Join(dir, "cur/folder"), 0o700))
	check(t, os.Symlink("/etc/passwd", filepath.Join(dir, "cur/1700000004.link")))
	l = list(t, f)
	equal(t, "messages", len(l.Messages), 4)
	equal(t, "sizes", []int64{l.Messages[1].Size, l.Messages[2].Size, l.Messages[3].Size}, []int64{6, 6, 3})
	for i, m := range texts(t, f)[1:] {
		if int64(len(m)) != l.Messages[i+1].Size || strings.Contains(strings.ReplaceAll(m, "\r\n", ""), "\n") {
			t.Errorf("text %q", m)
		}
	}
	// It deletes; it moves from new to cur behind our back.
	check(t, os.Remove(filepath.Join(dir, "cur/1700000002.y.host:2,T")))
	two := deliver(t, s, "", hello)
	uid := l.UIDNext
	if _, err := f.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	move("new/"+two, "cur/"+two+":2,S")
	l = list(t, f)
	equal(t, "listing", show(mailstore.Listing{Messages: l.Messages[3:]}), fmt.Sprintf("V0 N0: %d[\\Seen]", uid))
	equal(t, "expunged by somebody else", len(l.Messages), 4)
	if c, err := f.Content(t.Context(), 2); err == nil {
		_ = c.Close()
	}
	// A message that is gone.
	check(t, os.Remove(filepath.Join(dir, "cur/"+two+":2,S")))
	_, err = f.Content(t.Context(), uid)
	if !errors.Is(err, mailstore.ErrNoMessage) {
		t.Errorf("content of a removed message: %v", err)
	}
	// The same file, brought back: UIDs do not come back.
	check(t, os.WriteFile(filepath.Join(dir, "cur/"+two+":2,S"), []byte("x"), 0o600))
	l = list(t, f)
	if last := l.Messages[len(l.Messages)-1]; last.UID <= uid {
		t.Errorf("UID %d of a removed message is used again", last.UID)
	}
	// Folders come, lose parts, and go.
	check(t, os.MkdirAll(filepath.Join(dir, ".Stra&AN8-e.x/cur"), 0o700))
	check(t, os.MkdirAll(filepath.Join(dir, ".Grün"), 0o700))
	check(t, os.MkdirAll(filepath.Join(dir, "..odd"), 0o700))
	infos, err := f.account.Folders(t.Context())
	check(t, err)
	var found []string
	for _, i := range infos {
		found = append(found, i.Name)
	}
	equal(t, "folders", found, []string{"INBOX", "Grün", "Straße", "Straße/x"})
	check(t, os.Remove(filepath.Join(dir, "new")))
	deliver(t, s, "", hello)
	deliver(t, s, "Grün", hello)
	g := openFolder(t, s, "Grün")
	equal(t, "delivered to the folder there is", len(list(t, g).Messages), 1)
	_, err = g.Append(t.Context(), strings.NewReader("x"), nil, time.Time{})
	check(t, err)
	check(t, os.RemoveAll(filepath.Join(dir, ".Grün")))
	if _, err := g.Messages(t.Context()); !errors.Is(err, mailstore.ErrNoFolder) {
		t.Errorf("messages of a removed folder: %v", err)
	}
	deliver(t, s, "Straße/x", hello)
	check(t, os.RemoveAll(filepath.Join(dir, ".Stra&AN8-e.x")))
	deliver(t, s, "Straße/x", hello)
	check(t, os.RemoveAll(dir))
	deliver(t, s, "", hello)
	equal(t, "after the whole tree went", len(list(t, f).Messages), 1)
}

// TestSameTick changes a folder many times right after it was read, when the time of the directory may not change.
func TestSameTick(t *testing.T) {
	s := open(t, t.TempDir())
	f := openFolder(t, s, "INBOX")
	for i := range 300 {
		check(t, os.WriteFile(filepath.Join(f.dir(), "cur", fmt.Sprintf("%d.x.h,S=0,W=0:2,", i)), nil, 0o600))
		deadline := time.Now().Add(time.Minute)
		for len(list(t, f).Messages) != i+1 {
			if time.Now().After(deadline) {
				t.Fatalf("message %d is not seen", i)
			}
		}
	}
}

func TestWatchForeign(t *testing.T) {
	ticks := make(chan time.Time)
	ended := make(chan struct{})
	s := open(t, t.TempDir(), func(c *Config) {
		c.Ticks = func() (<-chan time.Time, func()) { return ticks, func() { close(ended) } }
	})
	f := openFolder(t, s, "INBOX")
	list(t, f)
	changed, stop := f.Watch()
	check(t, os.WriteFile(filepath.Join(f.dir(), "new/1.x.h"), []byte("x"), 0o600))
	ticks <- time.Time{}
	<-changed
	equal(t, "messages", len(list(t, f).Messages), 1)
	stop()
	<-ended
}

func TestReopen(t *testing.T) {
	data := t.TempDir()
	s := open(t, data)
	f := openFolder(t, s, "INBOX")
	deliver(t, s, "", "1")
	deliver(t, s, "", "2", `\Seen`, "$Label1")
	deliver(t, s, "", "3")
	_, err := f.SetFlags(t.Context(), []uint32{1}, mailstore.FlagsAdd, []string{"other"})
	check(t, err)
	check(t, f.Remove(t.Context(), []uint32{3}))
	list(t, f)
	want := list(t, f) // nothing is recent any more
	check(t, s.Close())

	s = open(t, data)
	f = openFolder(t, s, "INBOX")
	equal(t, "listing after reopening", list(t, f), want)
	uids, all, err := f.account.db.Vanished(t.Context(), f.row.ID, 0)
	check(t, err)
	equal(t, "vanished", fmt.Sprint(uids, all), "[3] true")
	deliver(t, s, "", "4")
	l := list(t, f)
	equal(t, "the UID of a removed message is not used again", l.Messages[2].UID, 4)
}

// TestIndexLost loses the index in all ways, with and without mail in between. A UID that a client has seen must not
// name another mail.
func TestIndexLost(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, index, old string)
		keep   bool // UIDVALIDITY stays
	}{
		{"nothing happens", func(t *testing.T, index, old string) {}, true},
		{"deleted", func(t *testing.T, index, old string) { check(t, os.Remove(index)) }, false},
		{"empty", func(t *testing.T, index, old string) { check(t, os.Truncate(index, 0)) }, false},
		{"garbage", func(t *testing.T, index, old string) {
			check(t, os.WriteFile(index, []byte(strings.Repeat("garbage ", 1000)), 0o600))
		}, false},
		{"damaged in the middle", func(t *testing.T, index, old string) {
			data, err := os.ReadFile(index)
			check(t, err)
			for i := 4096; i < len(data); i++ {
				data[i] ^= 0x55
			}
			check(t, os.WriteFile(index, data, 0o600))
		}, false},
		{"an old copy", func(t *testing.T, index, old string) {
			data, err := os.ReadFile(old)
			check(t, err)
			check(t, os.WriteFile(index, data, 0o600))
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := t.TempDir()
			index, old := filepath.Join(data, "users/example.org/anna/index.db"), filepath.Join(data, "old.db")
			seen := map[string]string{}
			see := func(f *folder) {
				l := list(t, f)
				for _, m := range l.Messages {
					key := fmt.Sprintf("%d/%d", l.UIDValidity, m.UID)
					if was := seen[key]; was != "" && was != m.File {
						t.Errorf("%s was %s and is %s", key, was, m.File)
					}
					seen[key] = m.File
				}
			}
			s := open(t, data)
			f := openFolder(t, s, "INBOX")
			deliver(t, s, "", "1")
			see(f)
			check(t, s.Close())
			copied, err := os.ReadFile(index)
			check(t, err)
			check(t, os.WriteFile(old, copied, 0o600))

			s = open(t, data)
			f = openFolder(t, s, "INBOX")
			deliver(t, s, "", "2")
			see(f)
			check(t, f.Remove(t.Context(), []uint32{2}))
			deliver(t, s, "", "3")
			see(f)
			before := list(t, f)
			check(t, s.Close())

			test.damage(t, index, old)
			s = open(t, data)
			f = openFolder(t, s, "INBOX")
			deliver(t, s, "", "4")
			see(f)
			after := list(t, f)
			if test.keep != (after.UIDValidity == before.UIDValidity) || after.UIDValidity < before.UIDValidity {
				t.Errorf("UIDVALIDITY was %d and is %d", before.UIDValidity, after.UIDValidity)
			}
			equal(t, "messages", len(after.Messages), 3)
		})
	}
}

// TestKilled takes the tree as a kill between two steps would leave it.
func TestKilled(t *testing.T) {
	data := t.TempDir()
	s := open(t, data)
	f := openFolder(t, s, "INBOX")
	deliver(t, s, "", "1")
	list(t, f)
	// A row whose file never came: killed within Append.
	m := &message{}
	m.File, m.Date = "2.never.h,S=1,W=1", time.Now()
	check(t, f.account.db.Apply(t.Context(), f.adding([]*message{m})))
	// A file that the index has not seen: killed before the transaction. One left in tmp long ago, one just now.
	deliver(t, s, "", "3", "$Junk")
	old := filepath.Join(f.dir(), "tmp/1000000000.old.h")
	check(t, os.WriteFile(old, nil, 0o600))
	check(t, os.Chtimes(old, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	late := filepath.Join(f.dir(), fmt.Sprintf("tmp/%d.late.h", time.Now().Unix()))
	check(t, os.WriteFile(late, nil, 0o600))
	check(t, os.Chtimes(late, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	// A folder on its way out.
	check(t, os.MkdirAll(filepath.Join(f.dir(), trashPrefix+"1/cur"), 0o700))
	check(t, s.Close())

	s = open(t, data)
	f = openFolder(t, s, "INBOX")
	l := list(t, f)
	equal(t, "listing", strings.TrimPrefix(show(l), fmt.Sprintf("V%d ", l.UIDValidity)), "N4: 1[] 3[$Junk]")
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of long ago is still in tmp: %v", err)
	}
	if _, err := os.Stat(late); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(f.dir(), trashPrefix+"1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a deleted folder is still there: %v", err)
	}
}

func TestNewerIndexIsRefused(t *testing.T) {
	data := t.TempDir()
	s := open(t, data)
	f := openFolder(t, s, "INBOX")
	list(t, f)
	check(t, s.Close())
	raw := openSQL(t, filepath.Join(data, "users/example.org/anna/index.db"))
	_, err := raw.Exec("PRAGMA user_version = 99")
	check(t, err)
	check(t, raw.Close())
	s = open(t, data)
	_, err = s.Account(t.Context(), anna)
	if err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("error is %v", err)
	}
	deliver(t, s, "", hello) // mail still arrives
}

func TestDamageWhileOpen(t *testing.T) {
	data := t.TempDir()
	s := open(t, data)
	f := openFolder(t, s, "INBOX")
	before := list(t, f)
	f.account.damaged.Store(true) // as an operation has found out
	index := filepath.Join(data, "users/example.org/anna/index.db")
	raw := openSQL(t, index)
	_, err := raw.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	check(t, err)
	check(t, raw.Close())
	check(t, os.WriteFile(index, []byte(strings.Repeat("garbage ", 1000)), 0o600))
	g := openFolder(t, s, "INBOX")
	after := list(t, g)
	if after.UIDValidity <= before.UIDValidity {
		t.Errorf("UIDVALIDITY was %d and is %d", before.UIDValidity, after.UIDValidity)
	}
	if _, err := os.Stat(index + ".damaged"); err != nil {
		t.Error(err)
	}
}

func TestTakeover(t *testing.T) {
	data := t.TempDir()
	root := filepath.Join(data, "mail/example.org/anna")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		check(t, os.WriteFile(path, []byte(text), 0o600))
	}
	write("dovecot-uidlist", `3 V1275660208 N25022 G3085f01b7f11094c501100008c4a11c1
25006 :1276528487.M364837P9451.kurkku,S=4,W=6:2,
25017 W7 :1276533073.M242911P3632.kurkku:2,F
25018 :gone.file
garbage
7 :not.rising
25019 P34 :new.one,S=1,W=1
`)
	write("dovecot-keywords", "0 $Junk\n1 work\n27 ignored\nx y\n")
	write("cur/1276528487.M364837P9451.kurkku,S=4,W=6:2,RSab", "a\nb\n")
	write("cur/1276533073.M242911P3632.kurkku:2,Fc", "a\nbcd")
	write("new/new.one,S=1,W=1", "x")
	write("cur/unlisted:2,b", "y")
	write(".Old.Sent/dovecot-uidlist", "1 1200000000 3\n2 one\n")
	write(".Old.Sent/cur/one:2,S", "")
	write(".Broken/dovecot-uidlist", "3 what\n")
	write(".Broken/new/one", "")
	write("subscriptions", "V\t2\n\nOld\tSent\nINBOX\n")

	s := open(t, data)
	f := openFolder(t, s, "INBOX")
	equal(t, "inbox", show(list(t, f)),
		`V1275660208 N25023: 25006[$Junk \Answered \Seen work] 25017[\Flagged] 25019[] 25022[work]`)
	equal(t, "size from the list", list(t, f).Messages[1].Size, 7)
	sent := openFolder(t, s, "Old/Sent")
	equal(t, "sent", show(list(t, sent)), `V1200000000 N3: 2[\Seen]`)
	broken := list(t, openFolder(t, s, "Broken"))
	if broken.UIDValidity <= 1275660208 {
		t.Errorf("UIDVALIDITY of a folder whose list is broken: %d", broken.UIDValidity)
	}
	infos, err := f.account.Folders(t.Context())
	check(t, err)
	equal(t, "folders", infos, []mailstore.FolderInfo{
		{Name: "INBOX", Subscribed: true}, {Name: "Broken"}, {Name: "Old", Missing: true, Children: true},
		{Name: "Old/Sent", Subscribed: true},
	})

	// Dovecot, alongside, takes off one letter and sets another: keywords follow. Ours that it has letters for go there.
	check(t, os.Rename(filepath.Join(root, "cur/1276528487.M364837P9451.kurkku,S=4,W=6:2,RSab"),
		filepath.Join(root, "cur/1276528487.M364837P9451.kurkku,S=4,W=6:2,Sb")))
	_, err = f.SetFlags(t.Context(), []uint32{25017}, mailstore.FlagsAdd, []string{"WORK", "ours", `\Seen`})
	check(t, err)
	equal(t, "inbox", show(mailstore.Listing{Messages: list(t, f).Messages[:2]}),
		`V0 N0: 25006[\Seen work] 25017[WORK \Flagged \Seen ours]`)
	if _, err := os.Stat(filepath.Join(root, "cur/1276533073.M242911P3632.kurkku:2,FSbc")); err != nil {
		t.Error(err, names(t, root))
	}

	// A list that is out of date must not be taken over again.
	check(t, s.Close())
	check(t, os.Remove(filepath.Join(data, "users/example.org/anna/index.db")))
	s = open(t, data)
	for _, name := range []string{"INBOX", "Old/Sent"} {
		if l := list(t, openFolder(t, s, name)); l.UIDValidity <= broken.UIDValidity {
			t.Errorf("UIDVALIDITY of %s after the loss of the index: %d", name, l.UIDValidity)
		}
	}
	// A folder brought here later, with a list newer than all we know, is.
	write(".Late/dovecot-uidlist", "3 V4000000000 N10\n9 :one\n")
	write(".Late/cur/one:2,", "")
	late := openFolder(t, s, "Late")
	equal(t, "late", show(list(t, late)), "V4000000000 N10: 9[]")
}

// TestTakeoverDovecot takes over a tree as Dovecot 2.3.19 wrote it, file by file.
func TestTakeoverDovecot(t *testing.T) {
	data := t.TempDir()
	root := filepath.Join(data, "mail/example.org/anna")
	for name, text := range map[string]string{
		"subscriptions":                                              "V\t2\n\nJunk\nLists\tG&AOQ-rten\na&-b\nEntw&-APw-rfe\nINBOX\n",
		"dovecot-uidlist":                                            "3 V1795309732 N3 Gae907c2aa240026b9126000083ecc375\n1 :1795309731.M41103P9878.vm,S=20,W=23\n2 :1795309731.M77760P9880.vm,S=20,W=23\n",
		"dovecot-keywords":                                           "0 $Junk\n1 Work\n",
		"dovecot-uidvalidity":                                        "6b0240a6",
		"dovecot-uidvalidity.6b0240a6":                               "",
		"dovecot.index.log":                                          "\x01\x02",
		"new/1795309731.M77760P9880.vm,S=20,W=23:2,Fb":               "Subject: two\n\nHello\n",
		"new/1795309731.M41103P9878.vm,S=20,W=23:2,Sab":              "Subject: one\n\nHello\n",
		".Junk/maildirfolder":                                        "",
		".Junk/dovecot-uidlist":                                      "3 V1795309730 N1 Gac907c2aa240026b9126000083ecc375\n",
		".Junk/cur/.keep":                                            "",
		".Entw&-APw-rfe/maildirfolder":                               "",
		".Entw&-APw-rfe/dovecot-uidlist":                             "3 V1795309734 N1 Gb0907c2aa240026b9126000083ecc375\n",
		".a&-b/maildirfolder":                                        "",
		".Lists.G&AOQ-rten/dovecot-uidlist":                          "3 V1795309731 N2 Gad907c2aa240026b9126000083ecc375\n1 :1795309731.M120339P9882.vm,S=22,W=25\n",
		".Lists.G&AOQ-rten/new/1795309731.M120339P9882.vm,S=22,W=25": "Subject: three\n\nHello\n",
	} {
		path := filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		check(t, os.WriteFile(path, []byte(text), 0o600))
	}
	s := open(t, data, func(c *Config) { c.Now = func() time.Time { return time.Unix(1700000000, 0) } })
	inbox := openFolder(t, s, "INBOX")
	for name, want := range map[string]string{
		"INBOX":        `V1795309732 N3: 1[$Junk Work \Seen] 2[Work \Flagged]`,
		"Junk":         `V1795309730 N1:`,
		"Entw&APw-rfe": `V1795309734 N1:`,
		"Lists/Gärten": `V1795309731 N2: 1[]`,
		"a&b":          `V1795309735 N1:`, // without a list: larger than all that Dovecot gave
	} {
		equal(t, name, show(list(t, openFolder(t, s, name))), want)
	}
	infos, err := inbox.account.Folders(t.Context())
	check(t, err)
	equal(t, "folders", infos, []mailstore.FolderInfo{
		{Name: "INBOX", Subscribed: true}, {Name: "Entw&APw-rfe", Subscribed: true}, {Name: "Junk", Subscribed: true, Use: `\Junk`},
		{Name: "Lists", Missing: true, Children: true}, {Name: "Lists/Gärten", Subscribed: true}, {Name: "a&b", Subscribed: true},
	})
	check(t, inbox.account.Subscribe(t.Context(), "Junk", false))
	text, err := os.ReadFile(filepath.Join(root, "subscriptions"))
	check(t, err)
	equal(t, "subscriptions", string(text), "V\t2\n\nLists\tG&AOQ-rten\na&-b\nEntw&-APw-rfe\nINBOX\n")
}

func TestSubscriptionFiles(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"none", "", "[]"},
		{"version 2", "V\t2\n\nINBOX\nLists\tG&AOQ-rten\n", "[INBOX Lists/Gärten]"},
		{"version 2, escaped", "V\t2\n\na\x01tb\n", "[a\tb]"},
		{"version 1", "inbox\nLists.G&AOQ-rten\nA/b\n\n", "[INBOX Lists/Gärten A/b]"},
		{"twice, without an end", "a\na\nb", "[a b]"},
	} {
		s := open(t, t.TempDir())
		f := openFolder(t, s, "INBOX")
		if test.text != "" {
			check(t, os.WriteFile(filepath.Join(f.dir(), "subscriptions"), []byte(test.text), 0o600))
		}
		got, err := f.box().subscriptions()
		check(t, err)
		equal(t, test.name, fmt.Sprint(got), test.want)
	}
}

func TestLimits(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) { c.Limits = Limits{Folders: 4, Keywords: 2, IdleAccounts: 1} })
	f := openFolder(t, s, "INBOX")
	check(t, f.account.Create(t.Context(), "a/b"))
	check(t, f.account.Create(t.Context(), "c"))
	if err := f.account.Create(t.Context(), "d"); err == nil || !strings.Contains(err.Error(), "at most 4 are allowed") {
		t.Errorf("a fifth folder: %v", err)
	}
	uid, err := f.Append(t.Context(), strings.NewReader("x"), []string{"a", "b"}, time.Time{})
	check(t, err)
	for _, op := range []mailstore.FlagOp{mailstore.FlagsAdd, mailstore.FlagsReplace} {
		_, err = f.SetFlags(t.Context(), []uint32{uid}, op, []string{"c", "d", "e"})
		if err == nil || !strings.Contains(err.Error(), "at most 2 are allowed") {
			t.Errorf("a third keyword: %v", err)
		}
	}
	if _, err := f.Append(t.Context(), strings.NewReader("x"), []string{"a", "b", "c"}, time.Time{}); err == nil {
		t.Error("a third keyword in Append")
	}
	_, err = s.Deliver(t.Context(), []mailstore.Item{{Account: anna, Flags: []string{"a", "b", "c"}, Content: strings.NewReader("x")}})
	if err == nil {
		t.Error("a third keyword in Deliver")
	}
	// Idle accounts: one stays open.
	for _, name := range []string{storetest.Ben, storetest.Small} {
		a, err := s.Account(t.Context(), name)
		check(t, err)
		check(t, a.Close())
	}
	equal(t, "ben is closed", s.mailboxes[storetest.Ben].opened == nil, true)
	equal(t, "small is open", s.mailboxes[storetest.Small].opened != nil, true)
	a, err := s.Account(t.Context(), storetest.Ben)
	check(t, err)
	_, err = a.Open(t.Context(), "INBOX")
	check(t, err)
	check(t, a.Close())
}

func TestQuotaNoticesOthers(t *testing.T) {
	s := open(t, t.TempDir())
	small := storetest.Small
	_, err := s.Deliver(t.Context(), []mailstore.Item{{Account: small, Content: strings.NewReader(strings.Repeat("x", 10_000))}})
	check(t, err)
	if err := s.Room(t.Context(), small, 1); !errors.Is(err, mailstore.ErrQuota) {
		t.Fatal(err)
	}
	dir := s.mailboxes[small].dir
	check(t, os.Remove(filepath.Join(dir, names(t, dir)[0])))
	check(t, s.Room(t.Context(), small, 10_000))
	check(t, os.WriteFile(filepath.Join(dir, "cur/without.sizes"), make([]byte, 9_000), 0o600))
	s.mailboxes[small].usage.counted = time.Now().Add(-time.Hour)
	if err := s.Room(t.Context(), small, 1001); !errors.Is(err, mailstore.ErrQuota) {
		t.Fatal(err)
	}
	check(t, s.Room(t.Context(), small, 1000))
}

func TestTemporaryErrors(t *testing.T) {
	down := errors.New("users are down")
	s := open(t, t.TempDir(), func(c *Config) {
		c.Exists = func(context.Context, string) (bool, error) { return false, down }
	})
	_, err := s.Deliver(t.Context(), []mailstore.Item{{Account: anna, Content: strings.NewReader("x")}})
	if !errors.Is(err, down) || errors.Is(err, mailstore.ErrNoAccount) {
		t.Errorf("error is %v", err)
	}
	for _, c := range []Config{{}, {Root: "x"}, {Root: "x", Users: "y"}} {
		if _, err := Open(c); err == nil {
			t.Errorf("%+v was opened", c)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, nil, 0o600))
	if _, err := Open(Config{Root: file, Users: file, Exists: exists}); err == nil || !strings.Contains(err.Error(), "not a folder") {
		t.Errorf("error is %v", err)
	}
}

func TestADeletedAccountIsForgotten(t *testing.T) {
	for _, noticed := range []bool{true, false} { // by some command before the name comes back
		gone := false
		data := t.TempDir()
		s := open(t, data, func(c *Config) {
			c.Exists = func(context.Context, string) (bool, error) { return !gone, nil }
		})
		deliver(t, s, "Junk", hello)
		before := list(t, openFolder(t, s, "Junk"))
		gone = true
		if noticed {
			if _, err := s.Account(t.Context(), anna); !errors.Is(err, mailstore.ErrNoAccount) {
				t.Fatalf("error is %v", err)
			}
		}
		check(t, os.RemoveAll(filepath.Join(data, "mail")))
		check(t, os.RemoveAll(filepath.Join(data, "users")))
		gone = false

		deliver(t, s, "Junk", hello)
		first := list(t, openFolder(t, s, "Junk"))
		equal(t, "messages", len(first.Messages), 1)
		if first.UIDValidity == before.UIDValidity && first.Messages[0].File != before.Messages[0].File &&
			first.Messages[0].UID == before.Messages[0].UID {
			t.Errorf("noticed %t: UID %d of %d names another message", noticed, first.Messages[0].UID, first.UIDValidity)
		}
		check(t, s.Close())
		again := list(t, openFolder(t, open(t, data), "Junk"))
		equal(t, fmt.Sprintf("noticed %t: what a restart finds", noticed), show(again), show(first))
	}
}

func TestUniqueNames(t *testing.T) {
	s := open(t, t.TempDir())
	shape := regexp.MustCompile(`^\d+\.[0-9A-Za-z]+_\d+\.mx\.example\.org$`)
	for _, id := range []string{"abc", "", "a/b", "..", strings.Repeat("x", 100)} {
		u := s.unique(id)
		if !shape.MatchString(u) {
			t.Errorf("%q: %q", id, u)
		}
	}
	equal(t, "id", uniqueID("1700000000.Zx81_2.mx.example.org,S=1,W=1"), "Zx81")
	for _, foreign := range []string{"1276533073.M242911P3632.kurkku,S=1", "x", "1.a_b.c", "1._1.c"} {
		equal(t, foreign, uniqueID(foreign), "")
	}
}

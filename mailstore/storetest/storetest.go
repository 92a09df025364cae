// Package storetest is one suite that every mailstore.Store passes: what the contract's comments promise, in tests.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"sluice/mailstore"
)

// The accounts that a store under test has to have, and one it must not have. Their mail is empty.
const (
	Anna   = "anna@example.org"
	Ben    = "ben+lists@localhost"
	Small  = "small@example.org" // with a quota of SmallQuota octets
	Nobody = "nobody@example.org"

	SmallQuota = 10_000
)

// Test runs the suite. open returns a store with the accounts above, a new and empty one each time, and sees to it
// that it is closed when t ends.
func Test(t *testing.T, open func(t testing.TB) mailstore.Store) {
	for _, test := range []struct {
		name string
		run  func(t *T)
	}{
		{"deliver: the message is in the inbox", deliverInbox},
		{"deliver: several items", deliverSeveral},
		{"deliver: a folder is made and subscribed", deliverMakesFolder},
		{"deliver: into a folder that exists", deliverExisting},
		{"deliver: what users have written", deliverWish},
		{"deliver: an error leaves nothing", deliverError},
		{"deliver: flags and keywords", deliverFlags},
		{"deliver: names that are refused", deliverRefused},
		{"deliver: line ends", deliverLineEnds},
		{"room", room},
		{"accounts", accounts},
		{"locate", locate},
		{"folders: create and list", foldersCreate},
		{"folders: names", foldersNames},
		{"folders: delete", foldersDelete},
		{"folders: rename", foldersRename},
		{"folders: rename the inbox", foldersRenameInbox},
		{"folders: special use", foldersUse},
		{"folders: subscriptions", foldersSubscribe},
		{"listing: UIDs rise and stay", listingUIDs},
		{"listing: recent", listingRecent},
		{"listing: snapshots", listingSnapshot},
		{"status", status},
		{"content", content},
		{"content: a large message in pieces", contentLarge},
		{"append", appendMessage},
		{"append: quota", appendQuota},
		{"append: an error leaves nothing", appendError},
		{"flags", flags},
		{"copy", copyMessages},
		{"move", moveMessages},
		{"move within a folder", moveWithin},
		{"expunge", expunge},
		{"remove", remove},
		{"watch", watch},
		{"sessions share a folder", sessionsShare},
		{"many at once", manyAtOnce},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&T{T: t, store: open(t), ctx: t.Context()})
		})
	}
}

// T is a test with a store and shorthands that fail it.
type T struct {
	*testing.T
	store mailstore.Store
	ctx   context.Context
}

// day is when messages of the suite were received.
var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (t *T) no(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t *T) is(err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v; want %v", err, want)
	}
}

func same[V any](t *T, what string, got, want V) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s\n got %s\nwant %s", what, g, w)
	}
}

// deliver files one message.
func (t *T) deliver(account, folder, text string, flags ...string) mailstore.Placed {
	t.Helper()
	placed, err := t.store.Deliver(t.ctx, []mailstore.Item{
		{Account: account, Folder: folder, Flags: flags, ID: "abc123", Date: day, Content: strings.NewReader(text)},
	})
	t.no(err)
	if len(placed) != 1 {
		t.Fatalf("one item was placed %d times", len(placed))
	}
	return placed[0]
}

func (t *T) account(name string) mailstore.Account {
	t.Helper()
	a, err := t.store.Account(t.ctx, name)
	t.no(err)
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (t *T) folder(account, name string) mailstore.Folder {
	t.Helper()
	f, err := t.account(account).Open(t.ctx, name)
	t.no(err)
	return f
}

func (t *T) list(f mailstore.Folder) mailstore.Listing {
	t.Helper()
	l, err := f.Messages(t.ctx)
	t.no(err)
	var last uint32
	for _, m := range l.Messages {
		if m.UID <= last || m.UID >= l.UIDNext {
			t.Fatalf("UID %d after %d, UIDNEXT %d", m.UID, last, l.UIDNext)
		}
		if m.ModSeq > l.ModSeq || m.ModSeq == 0 {
			t.Fatalf("UID %d has modification sequence %d, the folder %d", m.UID, m.ModSeq, l.ModSeq)
		}
		last = m.UID
	}
	if l.UIDValidity == 0 {
		t.Fatal("UIDVALIDITY is 0")
	}
	return l
}

func (t *T) uids(f mailstore.Folder) []uint32 {
	t.Helper()
	var uids []uint32
	for _, m := range t.list(f).Messages {
		uids = append(uids, m.UID)
	}
	return uids
}

func (t *T) text(f mailstore.Folder, uid uint32) string {
	t.Helper()
	c, err := f.Content(t.ctx, uid)
	t.no(err)
	defer func() { t.no(c.Close()) }()
	p, err := io.ReadAll(c)
	t.no(err)
	if c.Size() != int64(len(p)) {
		t.Fatalf("size is %d, %d octets were read", c.Size(), len(p))
	}
	return string(p)
}

// texts reads the whole folder.
func (t *T) texts(f mailstore.Folder) []string {
	t.Helper()
	var list []string
	for _, m := range t.list(f).Messages {
		s := t.text(f, m.UID)
		if int64(len(s)) != m.Size {
			t.Fatalf("UID %d has %d octets, the listing says %d", m.UID, len(s), m.Size)
		}
		list = append(list, s)
	}
	return list
}

func (t *T) append(f mailstore.Folder, text string, flags ...string) uint32 {
	t.Helper()
	uid, err := f.Append(t.ctx, strings.NewReader(text), flags, day)
	t.no(err)
	return uid
}

func (t *T) names(a mailstore.Account) []string {
	t.Helper()
	infos, err := a.Folders(t.ctx)
	t.no(err)
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
	}
	return names
}

func (t *T) info(a mailstore.Account, name string) mailstore.FolderInfo {
	t.Helper()
	infos, err := a.Folders(t.ctx)
	t.no(err)
	for _, i := range infos {
		if i.Name == name {
			return i
		}
	}
	t.Fatalf("folder %q is not listed", name)
	return mailstore.FolderInfo{}
}

const hello = "Subject: hello\r\n\r\nHello!\r\n"

func deliverInbox(t *T) {
	p := t.deliver(Anna, "", hello)
	same(t, "folder", p.Folder, "INBOX")
	if !strings.Contains(p.File, "abc123") {
		t.Errorf("file %q lacks the id", p.File)
	}
	inbox := t.folder(Anna, "inbox")
	same(t, "name", inbox.Name(), "INBOX")
	l := t.list(inbox)
	same(t, "messages", len(l.Messages), 1)
	m := l.Messages[0]
	same(t, "file", m.File, p.File)
	same(t, "size", m.Size, int64(len(hello)))
	same(t, "date", m.Date.UTC(), day)
	same(t, "flags", m.Flags, nil)
	same(t, "text", t.text(inbox, m.UID), hello)

	placed, err := t.store.Deliver(t.ctx, nil)
	t.no(err)
	same(t, "no items, nothing placed", len(placed), 0)
}

func deliverSeveral(t *T) {
	var items []mailstore.Item
	for i, account := range []string{Anna, Ben, Anna} {
		items = append(items, mailstore.Item{
			Account: account, ID: "several", Date: day, Content: strings.NewReader(fmt.Sprintf("To: %d\r\n\r\n", i)),
		})
	}
	placed, err := t.store.Deliver(t.ctx, items)
	t.no(err)
	same(t, "placed", len(placed), 3)
	if placed[0].File == placed[1].File || placed[0].File == placed[2].File {
		t.Errorf("names are not unique: %v", placed)
	}
	got := t.texts(t.folder(Anna, mailstore.Inbox))
	slices.Sort(got)
	same(t, "anna's", got, []string{"To: 0\r\n\r\n", "To: 2\r\n\r\n"})
	same(t, "ben's", t.texts(t.folder(Ben, mailstore.Inbox)), []string{"To: 1\r\n\r\n"})
}

func deliverMakesFolder(t *T) {
	same(t, "placed in", t.deliver(Anna, "Junk", hello).Folder, "Junk")
	t.deliver(Anna, "Lists/go", hello)
	a := t.account(Anna)
	same(t, "junk", t.info(a, "Junk"), mailstore.FolderInfo{Name: "Junk", Subscribed: true, Use: `\Junk`})
	if i := t.info(a, "Lists/go"); i.Missing || !i.Subscribed {
		t.Errorf("Lists/go: %+v", i)
	}
	same(t, "messages", len(t.uids(t.folder(Anna, "Lists/go"))), 1)
	t.no(a.Subscribe(t.ctx, "Junk", false))
	t.deliver(Anna, "Junk", hello)
	same(t, "a folder that exists is not subscribed again", t.info(a, "Junk").Subscribed, false)
}

func deliverExisting(t *T) {
	t.deliver(Anna, "Lists/go", hello)
	for _, test := range []struct{ folder, want string }{
		{"Lists/go", "Lists/go"}, {"Lists/Go", "INBOX"}, {"", "INBOX"}, {"inbox", "INBOX"}, {"Work", "INBOX"},
	} {
		placed, err := t.store.Deliver(t.ctx, []mailstore.Item{
			{Account: Anna, Folder: test.folder, Existing: true, ID: "x", Content: strings.NewReader(hello)},
		})
		t.no(err)
		same(t, test.folder, placed[0].Folder, test.want)
	}
	if names := t.names(t.account(Anna)); slices.Contains(names, "Work") || slices.Contains(names, "Lists/Go") {
		t.Errorf("a folder was made: %q", names)
	}
}

func deliverWish(t *T) {
	for _, folder := range []string{"a//b", "~x", "a\x00b", "a/../b", "\xff", strings.Repeat("x", 300)} {
		for _, existing := range []bool{false, true} {
			placed, err := t.store.Deliver(t.ctx, []mailstore.Item{
				{Account: Anna, Folder: folder, Wish: true, Existing: existing, ID: "x", Content: strings.NewReader(hello)},
			})
			t.no(err)
			same(t, folder, placed[0].Folder, mailstore.Inbox)
		}
	}
	flags := []string{`\Seen`, "not a keyword", "", "$Label1", strings.Repeat("k", 5000)}
	for i := range 1000 {
		flags = append(flags, fmt.Sprintf("k%d", i))
	}
	placed, err := t.store.Deliver(t.ctx, []mailstore.Item{
		{Account: Anna, Folder: "Made", Wish: true, Flags: flags, ID: "x", Content: strings.NewReader(hello)},
	})
	t.no(err)
	same(t, "placed", placed[0].Folder, "Made")
	m := t.list(t.folder(Anna, "Made")).Messages[0]
	for _, f := range []string{`\Seen`, "$Label1", "k0"} {
		if !slices.Contains(m.Flags, f) {
			t.Errorf("%s is not among the %d flags", f, len(m.Flags))
		}
	}
}

var errBroken = errors.New("broken")

func deliverError(t *T) {
	t.deliver(Anna, "Lists", hello)
	item := func(account, folder string, r io.Reader) mailstore.Item {
		return mailstore.Item{Account: account, Folder: folder, ID: "x", Date: day, Content: r}
	}
	for _, test := range []struct {
		name string
		last mailstore.Item
		want error
	}{
		{"content fails", item(Ben, "", io.MultiReader(strings.NewReader("Subject: x\r\n"), iotest.ErrReader(errBroken))), errBroken},
		{"no account", item(Nobody, "", strings.NewReader(hello)), mailstore.ErrNoAccount},
		{"bad name", item(Ben, "a//b", strings.NewReader(hello)), mailstore.ErrName},
		{"bad account", item("../x@example.org", "", strings.NewReader(hello)), mailstore.ErrName},
	} {
		_, err := t.store.Deliver(t.ctx, []mailstore.Item{
			item(Anna, "", strings.NewReader(hello)), item(Anna, "Lists", strings.NewReader(hello)), test.last,
		})
		t.is(err, test.want)
		same(t, test.name+": inbox", len(t.uids(t.folder(Anna, mailstore.Inbox))), 0)
		same(t, test.name+": Lists", len(t.uids(t.folder(Anna, "Lists"))), 1)
		same(t, test.name+": ben", len(t.uids(t.folder(Ben, mailstore.Inbox))), 0)
	}
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	if _, err := t.store.Deliver(ctx, []mailstore.Item{item(Anna, "", strings.NewReader(hello))}); err == nil {
		t.Error("a delivery that was called off went well")
	}
	same(t, "called off", len(t.uids(t.folder(Anna, mailstore.Inbox))), 0)
}

func deliverFlags(t *T) {
	t.deliver(Anna, "", hello, `\Seen`, `\flagged`, "$Junk", "a+b,c:d/e=f_g")
	t.deliver(Anna, "Lists", hello, "$Label1", "$LABEL1")
	m := t.list(t.folder(Anna, mailstore.Inbox)).Messages[0]
	same(t, "flags", m.Flags, []string{"$Junk", `\Flagged`, `\Seen`, "a+b,c:d/e=f_g"})
	m = t.list(t.folder(Anna, "Lists")).Messages[0]
	same(t, "flags", m.Flags, []string{"$Label1"})
	same(t, "recent", m.Recent, true)
	_, err := t.store.Deliver(t.ctx, []mailstore.Item{
		{Account: Anna, Flags: []string{"not a keyword"}, ID: "x", Content: strings.NewReader(hello)},
	})
	t.is(err, mailstore.ErrName)
}

func deliverRefused(t *T) {
	for _, folder := range []string{"a//b", "/a", "a/", "~x", "a\x00b", "a\nb", "..", "a/../b", "\xff", strings.Repeat("x", 300)} {
		_, err := t.store.Deliver(t.ctx, []mailstore.Item{{Account: Anna, Folder: folder, ID: "x", Content: strings.NewReader(hello)}})
		if !errors.Is(err, mailstore.ErrName) {
			t.Errorf("folder %q: %v", folder, err)
		}
	}
	for _, account := range []string{"", "anna", "@example.org", "anna@", "../anna@example.org", "a/b@example.org", ".a@example.org",
		"a@..", "a@b/c", "a\x00@b", "a..b@example.org"} {
		_, err := t.store.Deliver(t.ctx, []mailstore.Item{{Account: account, ID: "x", Content: strings.NewReader(hello)}})
		if !errors.Is(err, mailstore.ErrName) {
			t.Errorf("account %q: %v", account, err)
		}
		t.is(t.store.Room(t.ctx, account, 1), mailstore.ErrName)
	}
	same(t, "folders", t.names(t.account(Anna)), []string{"INBOX"})
}

func deliverLineEnds(t *T) {
	long := strings.Repeat("x", 200_000)
	for _, test := range []struct{ in, want string }{
		{"", ""},
		{"a", "a"},
		{"a\n", "a\r\n"},
		{"a\r\n", "a\r\n"},
		{"\n\n", "\r\n\r\n"},
		{"a\r\nb\nc", "a\r\nb\r\nc"},
		{"a\rb\r\n", "a\rb\r\n"},
		{"a\r", "a\r"},
		{"From x\r\n.\r\n..\r\n", "From x\r\n.\r\n..\r\n"},
		{long + "\r\n" + long, long + "\r\n" + long},
		{"\xff\x00\x80\r\n", "\xff\x00\x80\r\n"},
	} {
		for _, slow := range []bool{false, true} {
			var r io.Reader = strings.NewReader(test.in)
			if slow && len(test.in) < 1000 {
				r = iotest.OneByteReader(r)
			}
			p, err := t.store.Deliver(t.ctx, []mailstore.Item{{Account: Anna, ID: "x", Content: r}})
			t.no(err)
			f := t.folder(Anna, mailstore.Inbox)
			l := t.list(f)
			m := l.Messages[len(l.Messages)-1]
			same(t, "file", m.File, p[0].File)
			if got := t.text(f, m.UID); got != test.want {
				t.Errorf("%.20q (%d) became %.20q (%d)", test.in, len(test.in), got, len(got))
			}
			same(t, "size", m.Size, int64(len(test.want)))
			t.no(f.Remove(t.ctx, []uint32{m.UID}))
		}
	}
}

func room(t *T) {
	t.no(t.store.Room(t.ctx, Anna, 1<<50))
	t.is(t.store.Room(t.ctx, Nobody, 1), mailstore.ErrNoAccount)
	t.no(t.store.Room(t.ctx, Small, 0))
	t.no(t.store.Room(t.ctx, Small, SmallQuota))
	t.is(t.store.Room(t.ctx, Small, SmallQuota+1), mailstore.ErrQuota)
	t.deliver(Small, "Lists", strings.Repeat("x", SmallQuota-100))
	t.no(t.store.Room(t.ctx, Small, 0))
	t.no(t.store.Room(t.ctx, Small, 100))
	t.is(t.store.Room(t.ctx, Small, 101), mailstore.ErrQuota)
	t.deliver(Small, "", strings.Repeat("x", 100))
	t.is(t.store.Room(t.ctx, Small, 0), mailstore.ErrQuota)
	f := t.folder(Small, "Lists")
	t.no(f.Remove(t.ctx, t.uids(f)))
	t.no(t.store.Room(t.ctx, Small, SmallQuota-100))
	t.no(t.account(Small).Delete(t.ctx, "Lists"))
	t.no(t.store.Room(t.ctx, Small, SmallQuota-100))
}

func accounts(t *T) {
	_, err := t.store.Account(t.ctx, Nobody)
	t.is(err, mailstore.ErrNoAccount)
	for _, name := range []string{Anna, Ben} {
		a := t.account(name)
		same(t, "name", a.Name(), name)
		same(t, "folders", t.names(a), []string{"INBOX"})
	}
	// Any number of sessions may hold one.
	a, err := t.store.Account(t.ctx, Anna)
	t.no(err)
	b := t.account(Anna)
	t.no(a.Close())
	t.no(a.Close())
	t.append(t.folder(Anna, mailstore.Inbox), hello)
	f, err := b.Open(t.ctx, mailstore.Inbox)
	t.no(err)
	same(t, "messages", len(t.uids(f)), 1)
}

func locate(t *T) {
	p := t.deliver(Anna, "Lists/go", hello)
	folder, path, err := t.store.Locate(t.ctx, Anna, p.File)
	t.no(err)
	same(t, "folder", folder, "Lists/go")
	if !strings.Contains(path, p.File) {
		t.Errorf("path is %q", path)
	}
	f := t.folder(Anna, "Lists/go")
	uids := t.uids(f)
	_, err = f.SetFlags(t.ctx, uids, mailstore.FlagsAdd, []string{`\Seen`})
	t.no(err)
	_, path, err = t.store.Locate(t.ctx, Anna, p.File+":2,F") // as some program has seen it once
	t.no(err)
	if !strings.Contains(path, p.File) {
		t.Errorf("path is %q", path)
	}
	_, err = f.Move(t.ctx, uids, mailstore.Inbox)
	t.no(err)
	folder, _, err = t.store.Locate(t.ctx, Anna, p.File)
	t.no(err)
	same(t, "folder after a move", folder, "INBOX")
	_, _, err = t.store.Locate(t.ctx, Ben, p.File)
	t.is(err, mailstore.ErrNoMessage)
	_, _, err = t.store.Locate(t.ctx, Anna, "../"+p.File[:5])
	t.is(err, mailstore.ErrNoMessage)
	_, _, err = t.store.Locate(t.ctx, Nobody, p.File)
	t.is(err, mailstore.ErrNoAccount)
}

func foldersCreate(t *T) {
	a := t.account(Anna)
	t.no(a.Create(t.ctx, "b/c/d"))
	t.no(a.Create(t.ctx, "a"))
	t.no(a.Create(t.ctx, "inbox/x"))
	same(t, "folders", t.names(a), []string{"INBOX", "INBOX/x", "a", "b", "b/c", "b/c/d"})
	same(t, "a parent", t.info(a, "b"), mailstore.FolderInfo{Name: "b", Children: true})
	same(t, "a child", t.info(a, "b/c/d"), mailstore.FolderInfo{Name: "b/c/d"})
	for _, name := range []string{"a", "b/c", "INBOX", "inbox", "Inbox/x"} {
		t.is(a.Create(t.ctx, name), mailstore.ErrExists)
	}
	if _, err := a.Open(t.ctx, "B"); !errors.Is(err, mailstore.ErrNoFolder) {
		t.Errorf("names of folders are compared exactly: %v", err)
	}
	same(t, "ben's", t.names(t.account(Ben)), []string{"INBOX"})
}

func foldersNames(t *T) {
	a := t.account(Anna)
	good := []string{"Entwürfe", "送信済み", "a&b", "&", "😀", "x y", "-", "a*b%c", "O'Neil \"q\" \\", "&AOQ-"}
	for _, name := range good {
		t.no(a.Create(t.ctx, name))
		f, err := a.Open(t.ctx, name)
		t.no(err)
		same(t, "name", f.Name(), name)
		t.append(f, hello)
	}
	got := t.names(a)[1:]
	slices.Sort(good)
	same(t, "names", got, good)
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "~root", "a\tb", "a\x7f", "\xff", "..", "../x", strings.Repeat("ä", 200)} {
		err := a.Create(t.ctx, name)
		if !errors.Is(err, mailstore.ErrName) && !(name == "" && errors.Is(err, mailstore.ErrExists)) {
			t.Errorf("create %q: %v", name, err)
		}
		if name != "" {
			if err := a.Rename(t.ctx, "&", name); !errors.Is(err, mailstore.ErrName) {
				t.Errorf("rename to %q: %v", name, err)
			}
		}
	}
	same(t, "names", t.names(a)[1:], good)
}

func foldersDelete(t *T) {
	a := t.account(Anna)
	t.no(a.Create(t.ctx, "a/b"))
	f, err := a.Open(t.ctx, "a")
	t.no(err)
	t.append(f, hello)
	t.append(f, hello)
	before := t.list(f)
	t.no(a.Delete(t.ctx, "a"))
	same(t, "its children stay", t.info(a, "a/b"), mailstore.FolderInfo{Name: "a/b"})
	same(t, "it is a mere parent", t.info(a, "a"), mailstore.FolderInfo{Name: "a", Missing: true, Children: true})
	_, err = a.Open(t.ctx, "a")
	t.is(err, mailstore.ErrNoFolder)
	_, err = f.Messages(t.ctx)
	t.is(err, mailstore.ErrNoFolder)
	_, err = f.Append(t.ctx, strings.NewReader(hello), nil, day)
	t.is(err, mailstore.ErrNoFolder)
	t.is(a.Delete(t.ctx, "a"), mailstore.ErrNoFolder)
	if err := a.Delete(t.ctx, "Inbox"); err == nil {
		t.Error("the inbox was deleted")
	}
	// The same name, made again: what clients remember of the old one must not fit.
	t.no(a.Create(t.ctx, "a"))
	f, err = a.Open(t.ctx, "a")
	t.no(err)
	after := t.list(f)
	same(t, "messages", len(after.Messages), 0)
	if after.UIDValidity <= before.UIDValidity {
		t.Errorf("UIDVALIDITY was %d and is %d", before.UIDValidity, after.UIDValidity)
	}
}

func foldersRename(t *T) {
	a := t.account(Anna)
	t.no(a.Create(t.ctx, "a/b/c"))
	t.no(a.Create(t.ctx, "ab"))
	f, err := a.Open(t.ctx, "a/b")
	t.no(err)
	uid := t.append(f, hello, `\Flagged`, "$Label1")
	before := t.list(f)
	t.no(a.Rename(t.ctx, "a", "new/place"))
	same(t, "folders", t.names(a), []string{"INBOX", "ab", "new", "new/place", "new/place/b", "new/place/b/c"})
	same(t, "the open folder knows", f.Name(), "new/place/b")
	after := t.list(f)
	same(t, "messages", after.Messages[0].UID, uid)
	same(t, "flags", after.Messages[0].Flags, before.Messages[0].Flags)
	same(t, "text", t.text(f, uid), hello)
	t.append(f, hello)
	_, err = a.Open(t.ctx, "a/b")
	t.is(err, mailstore.ErrNoFolder)

	t.is(a.Rename(t.ctx, "a", "x"), mailstore.ErrNoFolder)
	t.is(a.Rename(t.ctx, "new", "ab"), mailstore.ErrExists)
	t.is(a.Rename(t.ctx, "new", "INBOX"), mailstore.ErrExists)
	t.is(a.Rename(t.ctx, "new", "new/below"), mailstore.ErrName)

	// A new folder of the old name is not the old one.
	t.no(a.Create(t.ctx, "a/b"))
	g, err := a.Open(t.ctx, "a/b")
	t.no(err)
	if l := t.list(g); l.UIDValidity <= before.UIDValidity || len(l.Messages) != 0 {
		t.Errorf("UIDVALIDITY was %d and is %d", before.UIDValidity, l.UIDValidity)
	}
	// And what is brought to a name that was in use must not be taken for what was there.
	t.no(a.Delete(t.ctx, "a/b"))
	t.no(a.Rename(t.ctx, "new/place/b", "a/b"))
	if l := t.list(f); l.UIDValidity <= before.UIDValidity+1 || len(l.Messages) != 2 {
		t.Errorf("UIDVALIDITY is %d, there are %d messages", l.UIDValidity, len(l.Messages))
	}
	// A mere parent.
	t.no(a.Delete(t.ctx, "new/place"))
	t.no(a.Delete(t.ctx, "new"))
}

func foldersRenameInbox(t *T) {
	a := t.account(Anna)
	t.no(a.Create(t.ctx, "INBOX/child"))
	t.deliver(Anna, "", hello, `\Seen`)
	t.deliver(Anna, "", "Subject: 2\r\n\r\n")
	t.no(a.Rename(t.ctx, "inbox", "old/mail"))
	same(t, "folders", t.names(a), []string{"INBOX", "INBOX/child", "old", "old/mail"})
	same(t, "inbox", len(t.uids(t.folder(Anna, mailstore.Inbox))), 0)
	same(t, "moved", len(t.uids(t.folder(Anna, "old/mail"))), 2)
	t.is(a.Rename(t.ctx, "INBOX", "old/mail"), mailstore.ErrExists)
}

func foldersUse(t *T) {
	a := t.account(Anna)
	for _, name := range []string{"Drafts", "Sent", "Junk", "Trash", "Archive", "Other/Sent"} {
		t.no(a.Create(t.ctx, name))
	}
	got := map[string]string{}
	infos, err := a.Folders(t.ctx)
	t.no(err)
	for _, i := range infos {
		got[i.Name] = i.Use
	}
	same(t, "uses", got, map[string]string{
		"INBOX": "", "Drafts": `\Drafts`, "Sent": `\Sent`, "Junk": `\Junk`, "Trash": `\Trash`, "Archive": `\Archive`,
		"Other": "", "Other/Sent": "",
	})
}

func foldersSubscribe(t *T) {
	a := t.account(Anna)
	t.no(a.Create(t.ctx, "Ähren/x"))
	for _, name := range []string{"inbox", "Ähren/x", "not there/yet"} {
		t.no(a.Subscribe(t.ctx, name, true))
		t.no(a.Subscribe(t.ctx, name, true))
	}
	same(t, "inbox", t.info(a, "INBOX").Subscribed, true)
	same(t, "folder", t.info(a, "Ähren/x").Subscribed, true)
	same(t, "parent", t.info(a, "Ähren").Subscribed, false)
	same(t, "missing", t.info(a, "not there/yet"), mailstore.FolderInfo{Name: "not there/yet", Subscribed: true, Missing: true})
	t.no(a.Subscribe(t.ctx, "Ähren/x", false))
	t.no(a.Subscribe(t.ctx, "not there/yet", false))
	t.no(a.Subscribe(t.ctx, "never was", false))
	same(t, "folder", t.info(a, "Ähren/x").Subscribed, false)
	same(t, "folders", t.names(a), []string{"INBOX", "Ähren", "Ähren/x"})
	t.is(a.Subscribe(t.ctx, "a//b", true), mailstore.ErrName)
}

func listingUIDs(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	empty := t.list(f)
	same(t, "empty", len(empty.Messages), 0)
	seen := map[uint32]string{}
	for i := range 5 {
		file := t.deliver(Anna, "", fmt.Sprintf("Subject: %d\r\n\r\n", i)).File
		l := t.list(f)
		m := l.Messages[len(l.Messages)-1]
		same(t, "the newest is the last", m.File, file)
		if old, ok := seen[m.UID]; ok {
			t.Fatalf("UID %d was %s and is %s", m.UID, old, file)
		}
		seen[m.UID] = file
		same(t, "UIDVALIDITY", l.UIDValidity, empty.UIDValidity)
		if i%2 == 0 {
			t.no(f.Remove(t.ctx, []uint32{m.UID}))
		}
	}
	for _, m := range t.list(f).Messages {
		same(t, "file", seen[m.UID], m.File)
	}
	status, err := f.Status(t.ctx)
	t.no(err)
	same(t, "UIDNEXT of status and listing", status.UIDNext, t.list(f).UIDNext)
}

func listingRecent(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	t.deliver(Anna, "", hello)
	for range 2 {
		s, err := f.Status(t.ctx)
		t.no(err)
		same(t, "status does not look", s.Recent, 1)
	}
	same(t, "recent", t.list(f).Messages[0].Recent, true)
	same(t, "recent once", t.list(f).Messages[0].Recent, false)
	s, err := f.Status(t.ctx)
	t.no(err)
	same(t, "recent in status", s.Recent, 0)
}

func listingSnapshot(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	uid := t.append(f, hello)
	t.append(f, hello)
	t.list(f)
	before := t.list(f)
	was := fmt.Sprintf("%+v", before)
	_, err := f.SetFlags(t.ctx, []uint32{uid}, mailstore.FlagsAdd, []string{`\Seen`, "x"})
	t.no(err)
	t.no(f.Remove(t.ctx, []uint32{uid}))
	t.append(f, hello)
	t.list(f)
	same(t, "a listing does not change", fmt.Sprintf("%+v", before), was)
}

func status(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	t.append(f, hello, `\Seen`)
	t.append(f, hello, `\Deleted`)
	uid := t.append(f, hello+"more\r\n", `\Seen`, `\Deleted`, "x")
	s, err := f.Status(t.ctx)
	t.no(err)
	l := t.list(f)
	same(t, "status", s, mailstore.Status{
		Messages: 3, Unseen: 1, Deleted: 2, Size: int64(3*len(hello) + len("more\r\n")),
		UIDNext: uid + 1, UIDValidity: l.UIDValidity, ModSeq: l.ModSeq,
	})
	_, err = f.Expunge(t.ctx, nil)
	t.no(err)
	s, err = f.Status(t.ctx)
	t.no(err)
	same(t, "messages", s.Messages, 1)
	if s.ModSeq <= l.ModSeq {
		t.Errorf("the modification sequence stayed at %d", s.ModSeq)
	}
}

func content(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	uid := t.append(f, "A: 1\nB: 2\n\nbody\n")
	const want = "A: 1\r\nB: 2\r\n\r\nbody\r\n"
	c, err := f.Content(t.ctx, uid)
	t.no(err)
	if err := iotest.TestReader(io.NewSectionReader(c, 0, c.Size()), []byte(want)); err != nil {
		t.Error(err)
	}
	p := make([]byte, 100)
	n, err := c.ReadAt(p, 3)
	same(t, "end", err, io.EOF)
	same(t, "rest", string(p[:n]), want[3:])
	if n, err = c.ReadAt(p, 1000); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if _, err = c.ReadAt(p, -1); err == nil {
		t.Error("a negative offset is no error")
	}
	// A message that goes away while it is read can be read to its end.
	t.no(f.Remove(t.ctx, []uint32{uid}))
	rest, err := io.ReadAll(c)
	t.no(err)
	same(t, "text", string(rest), want)
	t.no(c.Close())
	_, err = f.Content(t.ctx, uid)
	t.is(err, mailstore.ErrNoMessage)
	_, err = f.Content(t.ctx, 4711)
	t.is(err, mailstore.ErrNoMessage)
}

func contentLarge(t *T) {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < 1_500_000 {
		b.WriteString(strings.Repeat("x", r.IntN(200)))
		b.WriteString([]string{"\r\n", "\r\n", "\r\n", "\r"}[r.IntN(4)])
		b.WriteString("y")
	}
	want := b.String()
	f := t.folder(Anna, mailstore.Inbox)
	uid, err := f.Append(t.ctx, strings.NewReader(strings.ReplaceAll(want, "\r\n", "\n")), nil, day)
	t.no(err)
	if got := t.text(f, uid); got != want {
		t.Fatalf("%d octets came back as %d others", len(want), len(got))
	}
	c, err := f.Content(t.ctx, uid)
	t.no(err)
	defer func() { t.no(c.Close()) }()
	var group sync.WaitGroup
	for seed := range 4 {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(seed), 3))
			for range 200 {
				off := r.IntN(len(want))
				p := make([]byte, r.IntN(100_000))
				n, err := c.ReadAt(p, int64(off))
				end := min(len(want), off+len(p))
				if string(p[:n]) != want[off:end] || (err == io.EOF) != (off+len(p) > len(want)) {
					t.Errorf("%d octets at %d: %d, %v", len(p), off, n, err)
				}
			}
		})
	}
	group.Wait()
}

func appendMessage(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	date := time.Date(1999, 12, 31, 23, 59, 59, 0, time.FixedZone("", 3600))
	uid, err := f.Append(t.ctx, strings.NewReader(hello), []string{`\Draft`, `\seen`, "$Forwarded", "$MDNSent"}, date)
	t.no(err)
	l := t.list(f)
	same(t, "messages", len(l.Messages), 1)
	m := l.Messages[0]
	same(t, "UID", m.UID, uid)
	same(t, "flags", m.Flags, []string{"$Forwarded", "$MDNSent", `\Draft`, `\Seen`})
	same(t, "date", m.Date.Unix(), date.Unix())
	same(t, "size", m.Size, int64(len(hello)))
	_, err = f.Append(t.ctx, strings.NewReader(hello), []string{"not a keyword"}, date)
	t.is(err, mailstore.ErrName)
	for _, odd := range []time.Time{{}, time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		_, err = f.Append(t.ctx, strings.NewReader(hello), nil, odd)
		t.no(err)
	}
	same(t, "messages", len(t.uids(f)), 4)
}

func appendQuota(t *T) {
	f := t.folder(Small, mailstore.Inbox)
	t.append(f, strings.Repeat("x", SmallQuota-10))
	_, err := f.Append(t.ctx, strings.NewReader(strings.Repeat("x", 11)), nil, day)
	t.is(err, mailstore.ErrQuota)
	t.append(f, strings.Repeat("x", 10))
	_, err = f.Append(t.ctx, strings.NewReader("x"), nil, day)
	t.is(err, mailstore.ErrQuota)
	same(t, "messages", len(t.uids(f)), 2)
}

func appendError(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	_, err := f.Append(t.ctx, io.MultiReader(strings.NewReader(hello), iotest.ErrReader(errBroken)), nil, day)
	t.is(err, errBroken)
	same(t, "messages", len(t.uids(f)), 0)
}

func flags(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	one, two := t.append(f, hello), t.append(f, hello, `\Answered`, "Old")
	modseq := t.list(f).ModSeq
	set := func(op mailstore.FlagOp, uids []uint32, flags ...string) string {
		t.Helper()
		got, err := f.SetFlags(t.ctx, uids, op, flags)
		t.no(err)
		var s []string
		for _, m := range got {
			s = append(s, fmt.Sprintf("%d%v", m.UID-one, m.Flags))
		}
		return strings.Join(s, " ")
	}
	both := []uint32{one, two}
	same(t, "add", set(mailstore.FlagsAdd, both, `\SEEN`, "new", `\Recent`, `\Foo`), `0[\Seen new] 1[Old \Answered \Seen new]`)
	l := t.list(f)
	if l.ModSeq <= modseq || l.Messages[0].ModSeq != l.ModSeq || l.Messages[1].ModSeq != l.ModSeq {
		t.Errorf("modification sequences: %d, then %+v", modseq, l)
	}
	same(t, "add again", set(mailstore.FlagsAdd, both, `\Seen`, "NEW"), `0[\Seen new] 1[Old \Answered \Seen new]`)
	same(t, "no change, no sequence", t.list(f).ModSeq, l.ModSeq)
	same(t, "remove", set(mailstore.FlagsRemove, both, `\Seen`, "OLD", `\Flagged`), `0[new] 1[\Answered new]`)
	same(t, "replace", set(mailstore.FlagsReplace, []uint32{two, 4711}, `\Draft`, `\Deleted`), `1[\Deleted \Draft]`)
	l = t.list(f)
	if l.Messages[0].ModSeq >= l.Messages[1].ModSeq {
		t.Errorf("modification sequences: %+v", l)
	}
	same(t, "replace with none", set(mailstore.FlagsReplace, both), `0[] 1[]`)
	_, err := f.SetFlags(t.ctx, both, mailstore.FlagsAdd, []string{"a b"})
	t.is(err, mailstore.ErrName)
	same(t, "texts", t.texts(f), []string{hello, hello})
}

func copyMessages(t *T) {
	a := t.account(Anna)
	t.no(a.Create(t.ctx, "to"))
	f, to := t.folder(Anna, mailstore.Inbox), t.folder(Anna, "to")
	t.append(to, hello)
	one, two := t.append(f, "Subject: 1\r\n\r\n", `\Flagged`, "$Label1"), t.append(f, "Subject: 2\r\n\r\n")
	c, err := f.Copy(t.ctx, []uint32{two, one, 4711}, "to")
	t.no(err)
	same(t, "UIDVALIDITY", c.UIDValidity, t.list(to).UIDValidity)
	same(t, "from", c.From, []uint32{one, two})
	l := t.list(to)
	same(t, "to", c.To, []uint32{l.Messages[1].UID, l.Messages[2].UID})
	same(t, "flags", l.Messages[1].Flags, []string{"$Label1", `\Flagged`})
	same(t, "date", l.Messages[1].Date.UTC(), day)
	same(t, "texts", t.texts(to), []string{hello, "Subject: 1\r\n\r\n", "Subject: 2\r\n\r\n"})
	same(t, "the originals stay", t.uids(f), []uint32{one, two})
	if l.Messages[1].File == t.list(f).Messages[0].File {
		t.Error("original and copy have one name")
	}
	// They are two messages from now on.
	_, err = to.SetFlags(t.ctx, c.To, mailstore.FlagsReplace, []string{`\Seen`})
	t.no(err)
	same(t, "flags of the original", t.list(f).Messages[0].Flags, []string{"$Label1", `\Flagged`})
	t.no(f.Remove(t.ctx, []uint32{one, two}))
	same(t, "texts", t.texts(to), []string{hello, "Subject: 1\r\n\r\n", "Subject: 2\r\n\r\n"})

	_, err = f.Copy(t.ctx, []uint32{one}, "nowhere")
	t.is(err, mailstore.ErrNoFolder)
	c, err = f.Copy(t.ctx, []uint32{one}, "to")
	t.no(err)
	same(t, "nothing to copy", len(c.From)+len(c.To), 0)
	c, err = to.Copy(t.ctx, []uint32{l.Messages[0].UID}, "to")
	t.no(err)
	same(t, "copied within the folder", len(c.To), 1)
	same(t, "messages", len(t.uids(to)), 4)
}

func moveMessages(t *T) {
	a := t.account(Anna)
	t.no(a.Create(t.ctx, "to"))
	f, to := t.folder(Anna, mailstore.Inbox), t.folder(Anna, "to")
	one, two := t.append(f, "Subject: 1\r\n\r\n", `\Flagged`, "$Label1"), t.append(f, "Subject: 2\r\n\r\n")
	before := t.list(f).ModSeq
	c, err := f.Move(t.ctx, []uint32{one, 4711}, "to")
	t.no(err)
	same(t, "from", c.From, []uint32{one})
	l := t.list(to)
	same(t, "to", c.To, []uint32{l.Messages[0].UID})
	same(t, "flags", l.Messages[0].Flags, []string{"$Label1", `\Flagged`})
	same(t, "texts", t.texts(to), []string{"Subject: 1\r\n\r\n"})
	same(t, "left", t.uids(f), []uint32{two})
	if t.list(f).ModSeq <= before {
		t.Error("the folder's modification sequence did not rise")
	}
	// There and back again it is another message.
	c, err = to.Move(t.ctx, c.To, "inbox")
	t.no(err)
	if c.To[0] <= two {
		t.Errorf("UID %d was given again", c.To[0])
	}
	same(t, "flags", t.list(f).Messages[1].Flags, []string{"$Label1", `\Flagged`})
	same(t, "left", t.uids(to), nil)
	_, err = f.Move(t.ctx, []uint32{two}, "nowhere")
	t.is(err, mailstore.ErrNoFolder)
	same(t, "messages", len(t.uids(f)), 2)
}

func moveWithin(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	one, two := t.append(f, "Subject: 1\r\n\r\n", "x"), t.append(f, "Subject: 2\r\n\r\n")
	c, err := f.Move(t.ctx, []uint32{one}, "INBOX")
	t.no(err)
	if c.To[0] <= two {
		t.Errorf("UID %d was given again", c.To[0])
	}
	same(t, "messages", t.uids(f), []uint32{two, c.To[0]})
	same(t, "texts", t.texts(f), []string{"Subject: 2\r\n\r\n", "Subject: 1\r\n\r\n"})
}

func expunge(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	var uids []uint32
	for i := range 4 {
		var flags []string
		if i != 1 {
			flags = []string{`\Deleted`}
		}
		uids = append(uids, t.append(f, hello, flags...))
	}
	got, err := f.Expunge(t.ctx, []uint32{uids[3], uids[1], uids[0], 4711})
	t.no(err)
	same(t, "only those named, and marked", got, []uint32{uids[0], uids[3]})
	got, err = f.Expunge(t.ctx, []uint32{})
	t.no(err)
	same(t, "none named", len(got), 0)
	got, err = f.Expunge(t.ctx, nil)
	t.no(err)
	same(t, "all", got, []uint32{uids[2]})
	same(t, "left", t.uids(f), []uint32{uids[1]})
}

func remove(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	one, two := t.append(f, hello), t.append(f, hello, `\Flagged`)
	t.no(f.Remove(t.ctx, []uint32{two, 4711}))
	same(t, "left", t.uids(f), []uint32{one})
	t.no(f.Remove(t.ctx, []uint32{two}))
	t.no(f.Remove(t.ctx, nil))
	same(t, "left", t.uids(f), []uint32{one})
}

func watch(t *T) {
	f := t.folder(Anna, mailstore.Inbox)
	t.list(f)
	changed, stop := f.Watch()
	other, stopOther := f.Watch()
	defer stopOther()
	wait := func(what string, c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not noticed", what)
		}
	}
	t.deliver(Anna, "", hello)
	wait("a delivery", changed)
	wait("a delivery", other)
	uids := t.uids(f)
	drain(changed)
	_, err := f.SetFlags(t.ctx, uids, mailstore.FlagsAdd, []string{`\Deleted`})
	t.no(err)
	wait("a flag", changed)
	// Nobody listens: the writer goes on.
	for range 3 {
		t.append(f, hello)
	}
	wait("an append", changed)
	drain(changed)
	_, err = f.Expunge(t.ctx, nil)
	t.no(err)
	wait("an expunge", changed)
	stop()
	stop()
	t.deliver(Anna, "", hello)
	wait("a delivery after one watcher has left", other)
}

func drain(c <-chan struct{}) {
	for {
		select {
		case <-c:
		default:
			return
		}
	}
}

func sessionsShare(t *T) {
	one, two := t.folder(Anna, mailstore.Inbox), t.folder(Anna, mailstore.Inbox)
	uid := t.append(one, hello)
	same(t, "the other sees it", t.uids(two), []uint32{uid})
	_, err := two.SetFlags(t.ctx, []uint32{uid}, mailstore.FlagsAdd, []string{`\Deleted`})
	t.no(err)
	same(t, "flags", t.list(one).Messages[0].Flags, []string{`\Deleted`})
	_, err = two.Expunge(t.ctx, nil)
	t.no(err)
	_, err = one.Content(t.ctx, uid)
	t.is(err, mailstore.ErrNoMessage)
}

// manyAtOnce has deliveries and sessions work on one account, and checks that nothing is lost and no UID names two mails.
func manyAtOnce(t *T) {
	const deliverers, each = 4, 15
	a := t.account(Anna)
	t.no(a.Create(t.ctx, "sorted"))
	inbox, sorted := t.folder(Anna, mailstore.Inbox), t.folder(Anna, "sorted")
	var mu sync.Mutex
	names := map[string]string{}
	see := func(f mailstore.Folder) []mailstore.Message {
		l, err := f.Messages(t.ctx)
		if err != nil {
			t.Error(err)
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, m := range l.Messages {
			key := fmt.Sprintf("%d/%d", l.UIDValidity, m.UID)
			if was, ok := names[key]; ok && was != m.File {
				t.Errorf("%s is %s and was %s", key, m.File, was)
			}
			names[key] = m.File
		}
		return l.Messages
	}
	var work, sessions sync.WaitGroup
	done := make(chan struct{})
	for i := range deliverers {
		work.Go(func() {
			for j := range each {
				_, err := t.store.Deliver(t.ctx, []mailstore.Item{
					{Account: Anna, ID: "m", Date: day, Content: strings.NewReader(fmt.Sprintf("Subject: %d-%d\r\n\r\n", i, j))},
					{Account: Ben, ID: "m", Date: day, Content: strings.NewReader(hello)},
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 3 {
		sessions.Go(func() {
			for last := false; ; {
				for _, m := range see(inbox) {
					var err error
					switch (int(m.UID) + i) % 3 {
					case 0:
						_, err = inbox.Move(t.ctx, []uint32{m.UID}, "sorted")
					case 1:
						_, err = inbox.SetFlags(t.ctx, []uint32{m.UID}, mailstore.FlagsAdd, []string{`\Seen`, "x"})
					case 2:
						var c mailstore.Content
						if c, err = inbox.Content(t.ctx, m.UID); err == nil {
							_, err = io.Copy(io.Discard, c)
							err = errors.Join(err, c.Close())
						} else if errors.Is(err, mailstore.ErrNoMessage) {
							err = nil
						}
					}
					if err != nil {
						t.Error(err)
					}
				}
				see(sorted)
				if last {
					return
				}
				select {
				case <-done:
					last = true
				default:
				}
			}
		})
	}
	work.Wait()
	close(done)
	sessions.Wait()
	count := map[string]int{}
	for _, text := range append(t.texts(inbox), t.texts(sorted)...) {
		count[text]++
	}
	for i := range deliverers {
		for j := range each {
			if text := fmt.Sprintf("Subject: %d-%d\r\n\r\n", i, j); count[text] != 1 {
				t.Errorf("%q is there %d times", text, count[text])
			}
		}
	}
	same(t, "messages", len(count), deliverers*each)
	same(t, "ben's", len(t.uids(t.folder(Ben, mailstore.Inbox))), deliverers*each)
}

package imap

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/mailstore"
	"sluice/protocols/peertest"
)

// hostPort returns where the site listens, in two.
func (s *site) hostPort() (host, port string) {
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	return host, port
}

const imaplibScript = `
import imaplib, sys, time
host, port = sys.argv[1], int(sys.argv[2])
m = imaplib.IMAP4(host, port)
def ok(r, what=None):
    assert r[0] == 'OK', r
    return r[1]
assert 'IMAP4REV1' in m.capabilities
try:
    m.login('me', 'wrong')
    raise SystemExit('a wrong password was right')
except imaplib.IMAP4.error as e:
    assert 'AUTHENTICATIONFAILED' in str(e), e
ok(m.authenticate('PLAIN', lambda _: b'\0me@localhost\0open sesame'))
ok(m.create('Archive/2026'))
names = sorted(l.decode().rsplit(' ', 1)[1] for l in ok(m.list()))
assert names == ['"Archive"', '"Archive/2026"', 'INBOX'], names
assert ok(m.select('INBOX')) == [b'2']
assert ok(m.search(None, 'SUBJECT', '"two"')) == [b'2']
data = ok(m.fetch('1', '(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])'))
assert data[0][1] == b'Subject: one\r\n\r\n', data
data = ok(m.fetch('2', '(RFC822)'))
assert b'The text of two.' in data[0][1], data
data = ok(m.uid('FETCH', '1:*', '(UID FLAGS)'))
assert len(data) == 2 and b'\\Seen' in data[1], data
ok(m.append('INBOX', r'(\Flagged)', imaplib.Time2Internaldate(time.time()), b'Subject: three\r\n\r\nbody\r\n'))
assert ok(m.noop()) is not None
assert m.untagged_responses.get('EXISTS', [b'3'])[-1] == b'3'
data = ok(m.fetch('3', '(FLAGS)'))
assert b'\\Flagged' in data[0], data
ok(m.store('1', '+FLAGS', r'(\Deleted $Junk)'))
assert ok(m.copy('2', 'Archive/2026'))
ok(m.uid('MOVE', '2', 'Archive/2026'))
ok(m.expunge())
assert ok(m.search(None, 'ALL')) == [b'1']
assert ok(m.status('Archive/2026', '(MESSAGES UIDNEXT)')) == [b'"Archive/2026" (MESSAGES 2 UIDNEXT 3)']
ok(m.close())
assert ok(m.select('Archive/2026', readonly=True)) == [b'2']
ok(m.unselect())
ok(m.rename('Archive/2026', 'Archive/last'))
ok(m.subscribe('Archive/last'))
assert len(ok(m.lsub())) == 1
ok(m.delete('Archive/last'))
m.logout()
print('done')
`

func TestImaplib(t *testing.T) {
	peertest.Need(t, "python3")
	s := start(t, options{})
	s.deliver("", letter("one"), letter("two"))
	host, port := s.hostPort()
	if out := peertest.Python(t, imaplibScript, host, port); strings.TrimSpace(out) != "done" {
		t.Errorf("it says %q", out)
	}
	left := s.messages("INBOX")
	if len(left) != 1 || left[0].UID != 3 || !hasFlag(left[0].Flags, `\Flagged`) {
		t.Errorf("left in the inbox: %+v", left)
	}
}

func TestCurl(t *testing.T) {
	peertest.Need(t, "curl")
	s := start(t, options{})
	s.deliver("", letter("one"), letter("two"))
	login := []string{"--user", "me:" + password}
	base := "imap://" + s.address
	curl := func(args ...string) string { return peertest.Curl(t, append(slices.Clone(login), args...)...) }
	if out := curl(base + "/"); !strings.Contains(out, `* LIST (\HasNoChildren) "/" INBOX`) {
		t.Errorf("list: %q", out)
	}
	if out := curl(base + "/INBOX;UID=2"); out != letter("two") {
		t.Errorf("fetch: %q", out)
	}
	if out := curl(base+"/INBOX", "-X", "SEARCH SUBJECT one"); strings.TrimSpace(out) != "* SEARCH 1" {
		t.Errorf("search: %q", out)
	}
	file := filepath.Join(t.TempDir(), "mail")
	if err := os.WriteFile(file, []byte(letter("three")), 0o600); err != nil {
		t.Fatal(err)
	}
	curl("-T", file, base+"/INBOX")
	if out := curl("--ssl-reqd", "--insecure", base+"/INBOX;UID=3"); out != letter("three") {
		t.Errorf("fetch over TLS: %q", out)
	}
}

// Two-way synchronisation with mbsync: flags, deletions and new mail on both sides, until nothing is left to do.
func TestMbsync(t *testing.T) {
	peertest.Need(t, "mbsync")
	s := start(t, options{})
	s.deliver("", letter("one"), letter("two"), letter("three"))
	s.deliver("Lists/go", letter("gopher"))
	host, port := s.hostPort()
	home := t.TempDir()
	local := filepath.Join(home, "mail")
	if err := os.MkdirAll(local, 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(home, "mbsyncrc")
	text := fmt.Sprintf(`IMAPAccount a
Host %s
Port %s
User me
Pass "%s"
%s
AuthMechs PLAIN

IMAPStore far
Account a

MaildirStore near
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
`, host, port, password, tlsNone(t), local, local)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sync := func() {
		t.Helper()
		if out, code := peertest.Run(t, "mbsync", "-c", config, "-V", "all"); code != 0 {
			t.Fatalf("mbsync: exit code %d\n%s\n%s", code, out, s.log.String())
		}
	}
	files := func(folder string) []string {
		t.Helper()
		var all []string
		for _, sub := range []string{"cur", "new"} {
			found, err := filepath.Glob(filepath.Join(local, folder, sub, "*"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, found...)
		}
		return all
	}
	find := func(subject string) string {
		t.Helper()
		for _, f := range files("INBOX") {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), "Subject: "+subject) {
				return f
			}
		}
		t.Fatalf("no local mail %q", subject)
		return ""
	}
	sync()
	if n, m := len(files("INBOX")), len(files("Lists/go")); n != 3 || m != 1 {
		t.Fatalf("%d and %d local messages", n, m)
	}

	// Near: flag one, delete two, a new one. Far: flag three, a new one.
	rename(t, find("one"), "FS")
	rename(t, find("two"), "ST")
	if err := os.WriteFile(filepath.Join(local, "INBOX", "new", "1.2.near"), []byte(strings.ReplaceAll(letter("near"), "\r\n", "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	inbox := s.folder("INBOX")
	if _, err := inbox.SetFlags(ctx, []uint32{3}, mailstore.FlagsAdd, []string{`\Answered`, `\Seen`}); err != nil {
		t.Fatal(err)
	}
	s.deliver("", letter("far"))
	sync()
	byUID := map[uint32][]string{}
	for _, m := range s.messages("INBOX") {
		byUID[m.UID] = m.Flags
	}
	if len(byUID) != 4 || !slices.Equal(byUID[1], []string{`\Flagged`, `\Seen`}) || byUID[2] != nil {
		t.Errorf("far: %v", byUID)
	}
	if f := find("three"); !strings.HasSuffix(f, ":2,RS") {
		t.Errorf("near: %s", f)
	}
	find("far")
	if n := len(files("INBOX")); n != 4 {
		t.Errorf("%d local messages", n)
	}

	// Far: delete one, and another by flag. Then both sides are the same and stay so.
	if err := inbox.Remove(ctx, []uint32{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := inbox.SetFlags(ctx, []uint32{3}, mailstore.FlagsAdd, []string{`\Deleted`}); err != nil {
		t.Fatal(err)
	}
	sync()
	before := s.messages("INBOX")
	if n, m := len(files("INBOX")), len(before); n != 2 || m != 2 {
		t.Errorf("%d messages near, %d far", n, m)
	}
	sync()
	if after := s.messages("INBOX"); len(after) != len(before) || after[0].UID != before[0].UID || after[1].UID != before[1].UID {
		t.Errorf("not at rest: %v, then %v", before, after)
	}
}

// rename gives a local message other flags.
func rename(t *testing.T, file, flags string) {
	t.Helper()
	base, _, _ := strings.Cut(filepath.Base(file), ":")
	if err := os.Rename(file, filepath.Join(filepath.Dir(filepath.Dir(file)), "cur", base+":2,"+flags)); err != nil {
		t.Fatal(err)
	}
}

// tlsNone says "no TLS" in the words of the mbsync at hand: they changed in 1.5.
func tlsNone(t *testing.T) string {
	t.Helper()
	out, _ := peertest.Run(t, "mbsync", "--version")
	var major, minor int
	if _, err := fmt.Sscanf(out, "isync %d.%d", &major, &minor); err == nil && (major > 1 || minor >= 5) {
		return "TLSType None"
	}
	return "SSLType None"
}

package peertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A reader is somebody with mail in Sluice and a home folder for their mail program.
type reader struct {
	*Sluice
	home string
}

// nobody is who runs the programs that refuse to be run by root.
const nobody = 65534

// startReader starts a Sluice with mails of these subjects in the inbox of me@example.org. Another account is
// you@example.org.
func startReader(t *testing.T, subjects ...string) reader {
	t.Helper()
	s := StartSluice(t, SluiceConfig{
		YAML:     "domains: [example.org]\nfolders: []\npipeline:\n  - rules: {files: [rules.yaml]}\n",
		Files:    map[string]string{"rules.yaml": "rules:\n  - name: marked\n    when: has(\"X-Marked\")\n    score: 1\n"},
		Accounts: []string{"me@example.org", "you@example.org"},
	})
	r := reader{s, TempDir(t)}
	if os.Geteuid() == 0 {
		if err := os.Chown(r.home, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	r.deliver(subjects...)
	return r
}

// letter is a mail as it is sent, and is found again, but for the fields that are added above it.
func letter(subject string) string {
	return fmt.Sprintf("From: Ann <ann@sender.example>\r\nTo: me@example.org\r\nSubject: %s\r\nMessage-ID: <%[1]s@sender.example>\r\n"+
		"Date: Sat, 21 Nov 2026 09:30:00 +0000\r\n\r\nThe text of %[1]s.\r\nFrom here on\r\n.nothing but = dots.\r\n", subject)
}

// deliver brings mails to the inbox by LMTP.
func (r reader) deliver(subjects ...string) {
	r.t.Helper()
	c, err := DialClient(r.LMTP)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Expect("250", "LHLO mta.example"); err != nil {
		r.t.Fatal(err)
	}
	for _, subject := range subjects {
		text := strings.ReplaceAll(letter(subject), "\r\n.", "\r\n..")
		replies, err := c.Mail(true, "ann@sender.example", []string{"me@example.org"}, text)
		if err != nil || !strings.HasPrefix(replies[0], "250") {
			r.t.Fatalf("%q, %v", replies, err)
		}
	}
}

// write makes a file in the home folder, with $HOME, the ports $IMAP, $POP3, $SMTP and $PASSWORD replaced, and returns
// its path.
func (r reader) write(name, text string) string {
	r.t.Helper()
	text = strings.NewReplacer("$HOME", r.home, "$IMAP", Port(r.IMAP), "$POP3", Port(r.POP3), "$SMTP", Port(r.SMTP), "$PASSWORD", Password).Replace(text)
	path := filepath.Join(r.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.own()
	return path
}

// own gives everything at home to the reader.
func (r reader) own() {
	r.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	err := filepath.WalkDir(r.home, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// mailer runs a mail program at home, not as root, and returns what it said and its exit code.
func (r reader) mailer(program string, args ...string) (output string, code int) {
	r.t.Helper()
	Need(r.t, program)
	path, _ := lookPath(program)
	cmd := exec.Command(path, args...)
	cmd.Dir = r.home
	cmd.Env = []string{"HOME=" + r.home, "PATH=/usr/local/bin:/usr/bin:/bin", "TERM=xterm", "LC_ALL=C.UTF-8", "SHELL=/bin/sh", "USER=me", "LOGNAME=me"}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return finish(r.t, cmd)
}

// must is mailer, and fails the test if the program does.
func (r reader) must(program string, args ...string) string {
	r.t.Helper()
	out, code := r.mailer(program, args...)
	if code != 0 {
		r.t.Fatalf("%s: exit code %d:\n%s", program, code, out)
	}
	return out
}

// far returns what the server has, a line for each folder without mail ("Lists") and for each mail
// ("INBOX: one \Flagged \Seen"), sorted.
func (r reader) far() []string {
	r.t.Helper()
	return slices.Sorted(strings.Lines(Python(r.t, `
import imaplib, re, sys
m = imaplib.IMAP4("127.0.0.1", int(sys.argv[1]))
m.login("me@example.org", sys.argv[2])
for f in m.list()[1]:
    name = re.fullmatch(rb'\(.*?\) "/" "?(.*?)"?', f).group(1).decode()
    ok, n = m.select('"' + name + '"', readonly=True)
    assert ok == "OK", n
    if n == [b"0"]:
        print(name)
        continue
    ok, data = m.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    for d in data:
        if isinstance(d, tuple):
            flags = sorted(x.decode() for x in imaplib.ParseFlags(d[0]) if x != b"\\Recent")
            print(name + ":", d[1].decode().split(":", 1)[1].strip(), *flags)
m.logout()
`, Port(r.IMAP), Password)))
}

// wantFar fails the test unless the server has this.
func (r reader) wantFar(want ...string) {
	r.t.Helper()
	got := r.far()
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		r.t.Errorf("on the server there are\n\t%s\nnot\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// edit changes what the server has, as another client of the account would: statements of Python with m logged in, and
// INBOX selected. do(r) fails unless the answer is OK.
func (r reader) edit(program string) {
	r.t.Helper()
	Python(r.t, `
import imaplib, sys
m = imaplib.IMAP4("127.0.0.1", int(sys.argv[1]))
def do(r):
    assert r[0] == "OK", r
    return r[1]
m.login("me@example.org", sys.argv[2])
do(m.select())
`+program+"\nm.logout()\n", Port(r.IMAP), Password)
}

// maildir returns the mails of a local Maildir by their subjects: the paths of their files.
func (r reader) maildir(name string) map[string]string {
	r.t.Helper()
	files := map[string]string{}
	for _, sub := range []string{"new", "cur"} {
		found, err := filepath.Glob(filepath.Join(r.home, name, sub, "*"))
		if err != nil {
			r.t.Fatal(err)
		}
		for _, f := range found {
			b, err := os.ReadFile(f)
			if err != nil {
				r.t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				if subject, ok := strings.CutPrefix(line, "Subject: "); ok {
					if subject = strings.TrimSpace(subject); files[subject] != "" {
						r.t.Errorf("%s has %q twice", name, subject)
					}
					files[subject] = f
				}
			}
			r.whole(string(b))
		}
	}
	return files
}

// whole fails the test unless text, with line ends of any kind, ends with a letter as it was sent.
func (r reader) whole(text string) {
	r.t.Helper()
	_, rest, _ := strings.Cut(text, "Subject: ")
	subject, _, _ := strings.Cut(rest, "\n")
	_, want, _ := strings.Cut(strings.ReplaceAll(letter(strings.TrimSpace(subject)), "\r\n", "\n"), "\n\n")
	_, got, _ := strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n")
	if strings.TrimRight(got, "\n") != strings.TrimRight(want, "\n") {
		r.t.Errorf("it was sent as\n%q\nand arrived as\n%q", want, got)
	}
}

// wantMaildir fails the test unless a local Maildir has these mails, each its subject and its flags ("one FS"), and
// nothing else.
func (r reader) wantMaildir(name string, want ...string) {
	r.t.Helper()
	var got []string
	for subject, file := range r.maildir(name) {
		_, flags, _ := strings.Cut(filepath.Base(file), ":2,")
		got = append(got, strings.TrimSpace(subject+" "+flags))
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		r.t.Errorf("in %s there are %q, not %q", name, got, want)
	}
}

// flag gives a local mail other flags, as a mail program does.
func (r reader) flag(name, subject, flags string) {
	r.t.Helper()
	file := r.maildir(name)[subject]
	base, _, _ := strings.Cut(filepath.Base(file), ":")
	if err := os.Rename(file, filepath.Join(r.home, name, "cur", base+":2,"+flags)); err != nil {
		r.t.Fatal(err)
	}
}

// remove removes a local mail.
func (r reader) remove(name, subject string) {
	r.t.Helper()
	if err := os.Remove(r.maildir(name)[subject]); err != nil {
		r.t.Fatal(err)
	}
}

// makeMaildir makes a local folder with mails.
func (r reader) makeMaildir(name string, subjects ...string) {
	r.t.Helper()
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(r.home, name, sub), 0o700); err != nil {
			r.t.Fatal(err)
		}
	}
	for n, subject := range subjects {
		r.write(filepath.Join(name, "new", "1700000000."+strconv.Itoa(n)+"."+subject), strings.ReplaceAll(letter(subject), "\r\n", "\n"))
	}
	r.own()
}

func TestMbsync(t *testing.T) {
	Need(t, "mbsync", "python3")
	r := startReader(t, "one", "two", "three", "four")
	r.edit(`
do(m.create("Lists/go"))
do(m.copy("4", "Lists/go"))
do(m.store("3", "+FLAGS", "($Label1 $Forwarded)"))`)
	near := filepath.Join(r.home, "mail")
	if err := os.Mkdir(near, 0o700); err != nil {
		t.Fatal(err)
	}
	tls := "SSLType" // until 1.5
	var major, minor int
	if _, err := fmt.Sscanf(r.must("mbsync", "--version"), "isync %d.%d", &major, &minor); err == nil && (major > 1 || minor >= 5) {
		tls = "TLSType"
	}
	config := r.write("mbsyncrc", `IMAPAccount a
Host 127.0.0.1
Port $IMAP
User me@example.org
Pass "$PASSWORD"
`+tls+` None
AuthMechs PLAIN

IMAPStore far
Account a

MaildirStore near
Path $HOME/mail/
Inbox $HOME/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
`)
	sync := func() {
		t.Helper()
		r.own()
		r.must("mbsync", "-c", config, "all")
	}
	sync()
	r.wantMaildir("mail/INBOX", "one", "two", "three P", "four")
	r.wantMaildir("mail/Lists/go", "four")

	t.Log("flags, deletions and new mail on both sides")
	r.flag("mail/INBOX", "one", "FS")
	r.remove("mail/INBOX", "two")
	r.flag("mail/INBOX", "three", "PR")
	r.makeMaildir("mail/INBOX", "near")
	r.edit(`do(m.store("4", "+FLAGS", "(\\Deleted)")); do(m.expunge())`)
	r.deliver("far")
	sync()
	r.wantFar(`INBOX: one \Flagged \Seen`, `INBOX: three $Forwarded $Label1 \Answered`, "INBOX: near", "INBOX: far", "Lists", "Lists/go: four")
	r.wantMaildir("mail/INBOX", "one FS", "three PR", "near", "far")

	t.Log("a folder is made on each side")
	r.makeMaildir("mail/Work", "plan")
	r.edit(`do(m.create("Archive/2026")); do(m.uid("MOVE", "3", "Archive/2026"))`)
	sync()
	r.wantFar(`INBOX: one \Flagged \Seen`, "INBOX: near", "INBOX: far", "Lists", "Lists/go: four", "Work: plan",
		"Archive", `Archive/2026: three $Forwarded $Label1 \Answered`)
	r.wantMaildir("mail/Archive/2026", "three PR")

	t.Log("one is renamed, and one emptied and deleted")
	r.edit(`
do(m.rename("Archive/2026", "Archive/last"))
do(m.select("Lists/go"))
do(m.store("1:*", "+FLAGS", "(\\Deleted)"))
do(m.close())
do(m.delete("Lists/go"))`)
	r.remove("mail/Work", "plan")
	sync()
	r.wantFar(`INBOX: one \Flagged \Seen`, "INBOX: near", "INBOX: far", "Lists", "Work", "Archive", `Archive/last: three $Forwarded $Label1 \Answered`)
	r.wantMaildir("mail/Archive/last", "three PR")

	t.Log("both sides are the same, and stay so")
	uids := func() string {
		return Python(t, imaplib, Port(r.IMAP), "me@example.org", Password)
	}
	before := uids()
	sync()
	if after := uids(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestMutt(t *testing.T) {
	Need(t, "mutt", "script", "python3")
	r := startReader(t, "one", "two", "three", "four", "five")
	config := r.write("muttrc", `set folder="imap://127.0.0.1:$IMAP/" spoolfile="=INBOX" record="=Sent"
set imap_user="me@example.org" imap_pass="$PASSWORD" ssl_starttls=no ssl_force_tls=no
set smtp_url="smtp://127.0.0.1:$SMTP" from="me@example.org" hostname="example.org" use_from=yes realname="Me"
set sort=mailbox-order confirmcreate=no confirmappend=no delete=yes move=no mark_old=no quit=yes
set auto_tag=no beep=no wait_key=no pager_stop=yes help=no sleep_time=0
set header_cache="" tmpdir="$HOME" imap_check_subscribed=no
`)
	mutt := func(keys string) {
		t.Helper()
		out, code := r.mailer("script", "-q", "-e", "-c", fmt.Sprintf("mutt -F %s -e 'push %q'", config, keys), "/dev/null")
		if code != 0 {
			t.Fatalf("mutt: exit code %d:\n%s", code, out)
		}
	}
	to := func(folder string) string { return "<kill-line>=" + folder + "<enter>" }
	mutt("<jump>1<enter><flag-message><jump>2<enter><save-message>" + to("Saved") + "<jump>3<enter><copy-message>" + to("Copies") +
		"<jump>4<enter><delete-message><jump>5<enter><display-message><exit><sync-mailbox><quit>")
	r.wantFar(`INBOX: one \Flagged`, `INBOX: three`, `INBOX: five \Seen`, "Saved: two", `Copies: three`)

	t.Log("in other folders: read, mark as answered, move back, undelete")
	mutt("<change-folder>" + to("Copies") + "<jump>1<enter><set-flag>r<save-message>" + to("Saved") + "<change-folder>" + to("Saved") +
		"<tag-pattern>~A<enter><tag-prefix><clear-flag>N<untag-pattern>~A<enter><jump>1<enter><delete-message><jump>1<enter><undelete-message><sync-mailbox><quit>")
	r.wantFar(`INBOX: one \Flagged`, `INBOX: three`, `INBOX: five \Seen`, `Saved: two \Seen`, `Saved: three \Answered \Seen`, `Copies`)

	t.Log("send one, with a copy in Sent")
	r.write("text", "Grüße\n")
	if out, code := r.mailer("sh", "-c", "mutt -F "+config+" -s 'a greeting' you@example.org <text"); code != 0 {
		t.Fatalf("mutt: exit code %d:\n%s", code, out)
	}
	mail := r.Mails("you@example.org", "", 1)[0]
	if !strings.Contains(mail, "Subject: a greeting\n") || !strings.Contains(mail, "From: Me <me@example.org>\n") {
		t.Errorf("the mail:\n%s", mail)
	}
	r.wantFar(`INBOX: one \Flagged`, `INBOX: three`, `INBOX: five \Seen`, `Saved: two \Seen`, `Saved: three \Answered \Seen`, `Copies`, `Sent: a greeting \Seen`)
}

func TestFetchmail(t *testing.T) {
	Need(t, "fetchmail", "python3")
	for _, protocol := range []string{"imap", "pop3"} {
		t.Run(protocol, func(t *testing.T) {
			r := startReader(t, "one", "two")
			poll := func(options string) (said string, code int) {
				t.Helper()
				port := "$IMAP"
				if protocol == "pop3" {
					port = "$POP3 uidl"
				}
				config := r.write("fetchmailrc", fmt.Sprintf("set no bouncemail\npoll 127.0.0.1 protocol %s port %s\n"+
					"user \"me@example.org\" password \"$PASSWORD\" is \"me\" here\n%s\n", protocol, port, options))
				return r.mailer("fetchmail", "-f", config, "--nosyslog", "-v", "--pidfile", filepath.Join(r.home, "pid"), "--idfile", filepath.Join(r.home, "ids"))
			}
			mustPoll := func(want int, options string) {
				t.Helper()
				if out, code := poll(options); code != want {
					t.Fatalf("fetchmail: exit code %d, not %d:\n%s", code, want, out)
				}
			}
			const got, nothing = 0, 1
			r.makeMaildir("kept")
			mda := func(folder string) string {
				return `mda "sh -c 'cat >` + r.home + `/` + folder + `/new/$$.mail'" fetchsizelimit 0 `
			}

			// Kept on the server, and not fetched again: IMAP knows by the flag, POP3 by a list of UIDLs.
			mustPoll(got, mda("kept")+"sslproto '' keep")
			r.wantMaildir("kept", "one", "two")
			mustPoll(nothing, mda("kept")+"sslproto '' keep")
			r.deliver("three")
			mustPoll(got, mda("kept")+"sslproto '' keep")
			r.wantMaildir("kept", "one", "two", "three")
			seen := ""
			if protocol == "imap" {
				seen = ` \Seen`
			}
			r.wantFar("INBOX: one"+seen, "INBOX: two"+seen, "INBOX: three"+seen)

			// What the mail program does not take stays.
			r.deliver("four")
			if out, code := poll(`mda "sh -c 'cat >/dev/null; exit 75'" sslproto '' no keep`); code == nothing {
				t.Errorf("exit code %d:\n%s", code, out)
			}
			if far := strings.Join(r.far(), ""); !strings.Contains(far, "four") {
				t.Errorf("left on the server:\n%s", far)
			}

			// All of them, over TLS, handed on by SMTP, and removed.
			mustPoll(got, "smtphost 127.0.0.1/$SMTP smtpname \"you@example.org\" fetchall no keep no sslcertck")
			r.wantFar("INBOX")
			for _, mail := range r.Mails("you@example.org", "", 4) {
				r.whole(mail)
			}
			mustPoll(nothing, mda("kept")+"sslproto '' no keep")

			if out, code := poll(`mda "cat" sslproto '' password "wrong"`); code != 3 { // PS_AUTHFAIL
				t.Errorf("with a wrong password: exit code %d:\n%s", code, out)
			}
		})
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestGetmail(t *testing.T) {
	Need(t, "getmail", "python3")
	for _, tt := range []struct{ name, retriever, port string }{
		{"imap", "SimpleIMAPRetriever", "$IMAP"},
		{"pop3", "SimplePOP3Retriever", "$POP3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startReader(t, "one", "two")
			r.makeMaildir("mail")
			get := func(options, destination string) string {
				t.Helper()
				r.write("getmail/getmailrc", `[retriever]
type = `+tt.retriever+`
server = 127.0.0.1
port = `+tt.port+`
username = me@example.org
password = $PASSWORD
[destination]
`+destination+`
[options]
verbose = 2
delivered_to = false
received = false
`+options)
				return r.must("getmail", "--getmaildir", filepath.Join(r.home, "getmail"))
			}
			const toMaildir = "type = Maildir\npath = $HOME/mail/"

			// Kept on the server, and not fetched again.
			get("read_all = false\ndelete = false", toMaildir)
			r.wantMaildir("mail", "one", "two")
			r.deliver("three")
			get("read_all = false\ndelete = false", toMaildir)
			r.wantMaildir("mail", "one", "two", "three")
			if n := len(r.far()); n != 3 {
				t.Errorf("%d mails on the server", n)
			}

			// Fetched and removed, by a program that takes one mail at a time.
			get("read_all = true\ndelete = true", "type = MDA_external\npath = /bin/sh\narguments = (\"-c\", \"cat >> $HOME/box\")")
			box := read(t, filepath.Join(r.home, "box"))
			for _, subject := range []string{"one", "two", "three"} {
				if !strings.Contains(box, "The text of "+subject+".") {
					t.Errorf("%s is missing:\n%s", subject, box)
				}
			}
			r.wantFar("INBOX")
		})
	}
}

func TestOfflineimap(t *testing.T) {
	Need(t, "offlineimap", "python3")
	r := startReader(t, "one", "two", "three")
	r.edit(`do(m.create("Lists/go")); do(m.copy("3", "Lists/go")); do(m.store("3", "+FLAGS", "($Label1)"))`)
	config := r.write("offlineimaprc", `[general]
accounts = a
metadata = $HOME/state
ui = basic
[Account a]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = $HOME/mail
sep = .
[Repository far]
type = IMAP
remotehost = 127.0.0.1
remoteport = $IMAP
remoteuser = me@example.org
remotepass = $PASSWORD
ssl = no
starttls = no
auth_mechanisms = PLAIN
`)
	sync := func() {
		t.Helper()
		r.own()
		if out := r.must("offlineimap", "-c", config); strings.Contains(out, "ERROR") {
			t.Fatalf("offlineimap:\n%s", out)
		}
	}
	sync()
	r.wantMaildir("mail/INBOX", "one", "two", "three")
	r.wantMaildir("mail/Lists.go", "three")

	t.Log("flags, deletions, new mail and new folders on both sides")
	r.flag("mail/INBOX", "one", "FS")
	r.remove("mail/INBOX", "two")
	r.makeMaildir("mail/Work", "plan")
	r.edit(`do(m.store("3", "+FLAGS", "(\\Answered)")); do(m.create("Archive"))`)
	r.deliver("far")
	sync()
	r.wantFar(`INBOX: one \Flagged \Seen`, `INBOX: three $Label1 \Answered`, "INBOX: far", "Lists", "Lists/go: three", "Work: plan", "Archive")
	r.wantMaildir("mail/INBOX", "one FS", "three R", "far")
	r.wantMaildir("mail/Archive")

	t.Log("a mail is deleted on the server, and one marked so here; then both sides stay the same")
	r.edit(`do(m.store("1", "+FLAGS", "(\\Deleted)")); do(m.expunge())`)
	r.flag("mail/INBOX", "far", "ST")
	sync()
	r.wantMaildir("mail/INBOX", "three R", "far ST")
	before := r.far()
	sync()
	if after := r.far(); !slices.Equal(before, after) {
		t.Errorf("%q, then %q", before, after)
	}
	r.wantFar(`INBOX: three $Label1 \Answered`, `INBOX: far \Deleted \Seen`, "Lists", "Lists/go: three", "Work: plan", "Archive")
}

func TestImaplib(t *testing.T) {
	Need(t, "python3")
	r := startReader(t, "one", "two", "three")
	r.edit(`
import time
# folders
do(m.create("Work/plans"))
do(m.create('"Gr&APwA3w-e"'))
do(m.rename("Work/plans", "Work/done"))
assert m.create("Work/done")[0] == "NO"
assert m.select("Nowhere")[0] == "NO"
do(m.subscribe("Work/done"))
assert [f.rsplit(b" ", 1)[1] for f in do(m.lsub())] == [b'"Work/done"']
do(m.unsubscribe("Work/done"))
assert do(m.lsub()) == [None]
do(m.delete('"Gr&APwA3w-e"'))
# flags and keywords
do(m.select())
do(m.store("1:2", "+FLAGS", r"(\Flagged $Label1 NonJunk)"))
do(m.store("2", "-FLAGS", "(nonjunk)"))
do(m.uid("STORE", "3", "FLAGS.SILENT", r"(\Draft)"))
assert do(m.search(None, "KEYWORD", "NonJunk")) == [b"1"]
assert do(m.search(None, "FLAGGED", "UNKEYWORD", "NonJunk")) == [b"2"]
assert do(m.search("UTF-8", "OR", "SUBJECT", '"three"', "FROM", '"nobody"')) == [b"3"]
# a mail of one's own, as it was written
text = "Subject: draft\r\n\r\nGr\u00fc\u00dfe\r\n.\r\nFrom here\r\n".encode()
m.create("Drafts") # it may be there
do(m.append("Drafts", r"(\Draft \Seen)", imaplib.Time2Internaldate(1700000000), text))
do(m.select("Drafts"))
data = do(m.fetch("1", "(INTERNALDATE RFC822.SIZE BODY[])"))
assert data[0][1] == text, data
assert time.mktime(imaplib.Internaldate2tuple(data[0][0])) == 1700000000, data
assert b"RFC822.SIZE %d" % len(text) in data[0][0], data
# copies and moves keep the flags
do(m.select())
do(m.copy("1", "Work/done"))
do(m.uid("MOVE", "2", "Work/done"))
do(m.store("2", "+FLAGS", r"(\Deleted)"))
assert do(m.expunge())[-1] == b"2" # after that of MOVE
assert m.copy("1", "Nowhere")[0] == "NO"
# read-only
do(m.select("Work/done", readonly=True))
assert m.store("1", "+FLAGS", r"(\Answered)")[0] == "NO"
do(m.unselect())
status = do(m.status("Work/done", "(MESSAGES UIDNEXT UNSEEN)"))
assert status == [b'"Work/done" (MESSAGES 2 UIDNEXT 3 UNSEEN 2)'], status
`)
	r.wantFar(`INBOX: one $Label1 NonJunk \Flagged`, "Work", `Work/done: one $Label1 NonJunk \Flagged`, `Work/done: two $Label1 \Flagged`, `Drafts: draft \Draft \Seen`)
	r.Restart()
	r.wantFar(`INBOX: one $Label1 NonJunk \Flagged`, "Work", `Work/done: one $Label1 NonJunk \Flagged`, `Work/done: two $Label1 \Flagged`, `Drafts: draft \Draft \Seen`)
}

func TestPoplib(t *testing.T) {
	Need(t, "python3")
	r := startReader(t, "one", "two", "three")
	pop := func(program string) {
		t.Helper()
		Python(t, `
import poplib, ssl, sys
def dial():
    return poplib.POP3("127.0.0.1", int(sys.argv[1]))
def login():
    p = dial()
    p.user("me@example.org")
    p.pass_(sys.argv[2])
    return p
def refused(f, *args):
    try:
        f(*args)
    except poplib.error_proto as e:
        return str(e)
    raise SystemExit("%s%s is not refused" % (f.__name__, args))
`+program, Port(r.POP3), Password)
	}
	pop(`
p = dial()
refused(p.stat)
p.user("me@example.org")
assert "AUTH" in refused(p.pass_, "wrong")
p.quit()
p = login()
caps = p.capa()
assert {"TOP", "UIDL", "USER", "PIPELINING", "RESP-CODES"} <= set(caps), caps
n, size = p.stat()
assert n == 3, n
assert [int(l.split()[0]) for l in p.list()[1]] == [1, 2, 3]
assert sum(int(l.split()[1]) for l in p.list()[1]) == size
uids = [l.split()[1] for l in p.uidl()[1]]
assert len(set(uids)) == 3, uids
_, lines, _ = p.retr(2)
assert sum(len(l) + 2 for l in lines) == int(p.list(2).split()[2]), lines
assert b"Subject: two" in lines and lines[-3:] == [b"The text of two.", b"From here on", b".nothing but = dots."], lines
_, top, _ = p.top(2, 1)
assert top[-1] == b"The text of two." and top == lines[:-2], top
_, top, _ = p.top(2, 0)
assert top[-1] == b"", top
# a second one at the same time waits for the first to end
other = dial()
other.user("me@example.org")
assert "IN-USE" in refused(other.pass_, sys.argv[2])
p.dele(1)
refused(p.retr, 1)
refused(p.dele, 1)
refused(p.retr, 4)
p.rset()
p.dele(2)
p.noop()
p.close() # without QUIT nothing is removed
`)
	r.wantFar("INBOX: one", "INBOX: two", "INBOX: three")
	pop(`
for _ in range(100): # until the server has seen the end of the connection before
    try:
        p = login()
        break
    except poplib.error_proto as e:
        assert "IN-USE" in str(e), e
before = p.uidl()[1]
p.dele(2)
p.quit()
c = ssl.create_default_context()
c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
p = dial()
p.stls(c)
p.user("me@example.org")
p.pass_(sys.argv[2])
after = p.uidl()[1]
assert [l.split()[1] for l in after] == [before[0].split()[1], before[2].split()[1]], (before, after)
p.quit()
`)
	r.wantFar("INBOX: one", "INBOX: three")
}

package peertest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unpackSendmail unpacks Debian's Sendmail below root without installing it: its package and Postfix's exclude one
// another. With the libraries beside it, root can be its root folder.
func unpackSendmail(t *testing.T, root string) {
	t.Helper()
	Need(t, "apt-get", "apt-cache", "dpkg", "ldd", "cp")
	packages := []string{"sendmail-bin", "sendmail-cf"}
	said, code := Run(t, "apt-cache", "depends", "sendmail-bin")
	if code != 0 || !strings.Contains(said, "Depends: ") { // where nobody has asked what there is
		if out, code := Run(t, "apt-get", "-q", "update"); code != 0 {
			lack(t, "sendmail: apt-get update: "+out)
		}
		if said, code = Run(t, "apt-cache", "depends", "sendmail-bin"); code != 0 {
			lack(t, "sendmail: apt-cache: "+said)
		}
	}
	for line := range strings.Lines(said) { // its libraries may not be installed either
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(name, "lib") && name != "libc6" {
			packages = append(packages, name)
		}
	}
	debs := TempDir(t)
	download := exec.Command("apt-get", append([]string{"-q", "download"}, packages...)...)
	download.Dir = debs
	if out, err := download.CombinedOutput(); err != nil {
		lack(t, fmt.Sprintf("sendmail: apt-get download: %v\n%s", err, out))
	}
	found, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(found) != len(packages) {
		t.Fatalf("apt-get download: %q for %q, %v", found, packages, err)
	}
	for _, deb := range found {
		if out, code := Run(t, "dpkg", "-x", deb, root); code != 0 {
			t.Fatalf("dpkg -x %s: %s", deb, out)
		}
	}
	ldd := exec.Command("ldd", filepath.Join(root, sendmailProgram))
	own, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu*"))
	if err != nil {
		t.Fatal(err)
	}
	ldd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(own, ":"))
	libs, err := ldd.CombinedOutput()
	if err != nil {
		t.Fatalf("ldd: %v: %s", err, libs)
	}
	for word := range strings.FieldsSeq(string(libs)) {
		if !filepath.IsAbs(word) || strings.HasPrefix(word, root) {
			continue
		}
		to := filepath.Join(root, word)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, code := Run(t, "cp", "-L", word, to); code != 0 {
			t.Fatal(out)
		}
	}
}

// sendmailProgram is where Debian has it.
const sendmailProgram = "usr/libexec/sendmail/sendmail"

// sendmailMC is a Sendmail that asks a milter and gives what it accepts for example.org to LMTP. $DIR, $PORT, $MILTER and
// $LMTP are replaced.
const sendmailMC = `
OSTYPE(linux)dnl
define(MAIL_SETTINGS_DIR, $DIR/)dnl
define(QUEUE_DIR, $DIR/queue)dnl
define(STATUS_FILE, $DIR/statistics)dnl
define(HELP_FILE, $DIR/helpfile)dnl
define(ALIAS_FILE, )dnl
define(confPID_FILE, $DIR/sendmail.pid)dnl
define(confDOMAIN_NAME, mta.example)dnl
define(confDONT_PROBE_INTERFACES, True)dnl
define(confTO_IDENT, 0s)dnl
define(confDELIVERY_MODE, i)dnl
FEATURE(no_default_msa)dnl
FEATURE(nocanonify)dnl
FEATURE(accept_unresolvable_domains)dnl
DAEMON_OPTIONS(` + "`Family=inet, Name=MTA, Port=$PORT, Addr=127.0.0.1'" + `)dnl
INPUT_MAIL_FILTER(sluice, ` + "`S=local:$MILTER, F=T, T=C:10s;S:30s;R:30s;E:60s'" + `)dnl
MAILER(smtp)dnl
MAILER_DEFINITIONS
Msluice,	P=[IPC], F=mDFMuXz, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\r\n, L=2040, T=DNS/RFC822/SMTP, A=FILE $LMTP
LOCAL_RULE_0
R$* < @ example.org . > $*	$#sluice $@ localhost $: $1 < @ example.org . > $2
`

// A sendmail is a running Sendmail.
type sendmail struct {
	address string
	root    string
	out     bytes.Buffer // to be read once the process has ended
}

// startSendmail starts a Sendmail in front of s, whose folder is below root, and ends it after the test. It runs with
// root as its root folder: at its start it looks for its name in /etc/hosts, and sleeps for a minute where it finds none
// that has a dot.
func startSendmail(t *testing.T, root string, s *Sluice) *sendmail {
	t.Helper()
	Need(t, "m4")
	m := &sendmail{address: Address(t), root: root}
	unpackSendmail(t, root)
	below := func(path string) string { return strings.TrimPrefix(path, root) }
	mc := strings.NewReplacer("$DIR", "/mail", "$PORT", Port(m.address), "$MILTER", below(s.MilterSocket), "$LMTP", below(s.LMTPSocket)).Replace(sendmailMC)
	cf, code := run(t, mc, "m4", "-D_CF_DIR_="+root+"/usr/share/sendmail/cf/", root+"/usr/share/sendmail/cf/m4/cf.m4", "-")
	if code != 0 {
		t.Fatalf("m4: %s", cf)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"mail/queue", "etc", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"mail/sendmail.cf":   cf,
		"mail/relay-domains": "example.org\n",
		"etc/hosts":          "127.0.0.1 localhost.example localhost mta.example " + host + "\n",
		"etc/nsswitch.conf":  "hosts: files\n",
		"etc/passwd":         "root:x:0:0::/:/\nmail:x:8:8::/:/\nnobody:x:65534:65534::/:/\n",
		"etc/group":          "root:x:0:\nmail:x:8:\nnogroup:x:65534:\n",
		"dev/null":           "",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/"+sendmailProgram, "-bD", "-C", "/mail/sendmail.cf", "-X", "/mail/traffic")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &m.out, &m.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	p, err := start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(10 * time.Second); err != nil {
			t.Errorf("stop sendmail: %v", err)
		}
		if t.Failed() {
			traffic, _ := os.ReadFile(filepath.Join(root, "mail/traffic"))
			t.Logf("Sendmail says:\n%s\nand its traffic:\n%s", m.out.String(), tail(string(traffic), 100))
		}
	})
	if err := eventually(func() error { return answers(m.address) }, p.done); err != nil {
		t.Fatalf("start sendmail: %v", err)
	}
	return m
}

func (m *sendmail) send(t *testing.T, subject, id string, to ...string) (transcript string, code int) {
	t.Helper()
	return Swaks(t, "--server", m.address, "--helo", "client.example", "--from", "a@sender.example", "--to", strings.Join(to, ","),
		"--data", fmt.Sprintf("Subject: %s\nMessage-ID: <%s@sender.example>\nFrom: a@sender.example\nTo: %s\n\nthe text of %s\n",
			subject, id, to[0], id))
}

// The other MTA that speaks the milter protocol. It hands the mail on to LMTP.
func TestMailThroughSendmail(t *testing.T) {
	Need(t, "swaks")
	if os.Geteuid() != 0 {
		lack(t, "sendmail: needs root")
	}
	root := filepath.Join(TempDir(t), "root")
	dir := filepath.Join(root, "sluice")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := StartSluice(t, SluiceConfig{
		Dir: dir,
		YAML: `domains: [example.org]
trusted: [127.0.0.0/8]
pipeline:
  - rules: {files: [rules.yaml], junk: 5}
`,
		Files:    map[string]string{"rules.yaml": strings.Replace(theRules, "when: dnsbl.zen.listed", `when: helo == "listed.example"`, 1)},
		Accounts: []string{"alice@example.org", "bob@example.org", "carol@example.org", "me@example.org"},
	})
	m := startSendmail(t, root, s)

	t.Run("accepted with our fields", func(t *testing.T) {
		out, code := m.send(t, "hello world", "fine", "alice@example.org")
		if code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
		mail := s.Mails("alice@example.org", "", 1)[0]
		for _, want := range []string{"X-Sluice-Hits: greeting=1\n", "Subject: hello world\n", "the text of fine\n", "by mta.example (8."} {
			if !strings.Contains(mail, want) {
				t.Errorf("the mail has no %q:\n%s", want, mail)
			}
		}
		if n := strings.Count(mail, "X-Sluice-Id: "); n != 1 {
			t.Errorf("the mail has %d hand-over fields:\n%s", n, mail)
		}
		// The milter decided, LMTP recognised the mail and filed it: one record, which knows the client that Sendmail saw.
		records := s.records("fine@sender.example")
		if len(records) != 1 {
			t.Fatalf("%d records", len(records))
		}
		r := records[0]
		if r.Door != "milter" || r.Greeting != "client.example" || r.Client.Addr.String() != "127.0.0.1" || r.QueueID == "" {
			t.Errorf("the record: %+v", r)
		}
	})

	tests := []struct {
		name, subject, to string
		want              string
	}{
		{"refused at its end", "a bank", "alice@example.org", "550 5.7.1 no banks here"},
		{"refused at RCPT", "hello", "carol@example.org", "550 5.7.1 <carol@example.org>... carol takes no mail"}, // Sendmail names the recipient
	}
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, code := m.send(t, tt.subject, fmt.Sprintf("no%d", n), tt.to)
			if code == 0 || !strings.Contains(out, tt.want) {
				t.Errorf("exit code %d:\n%s", code, out)
			}
		})
	}

	t.Run("a per cent sign in a refusal", func(t *testing.T) {
		out, code := Swaks(t, "--server", m.address, "--helo", "listed.example", "--from", "a@sender.example", "--to", "me@example.org")
		if code == 0 || !strings.Contains(out, "550 5.7.1 <me@example.org>... listed by zen, 100% sure") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
	})

	t.Run("removed for one, filed as junk for the other", func(t *testing.T) {
		if out, code := m.send(t, "pills at the party", "party", "Bob@example.org", "me@example.org"); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
		s.Mails("me@example.org", "Junk", 1)
		if n := len(s.Files("bob@example.org", "")) + len(s.Files("bob@example.org", "Junk")); n != 0 {
			t.Errorf("bob has %d mails", n)
		}
		if list := s.Run("quarantine", "list"); !strings.Contains(list, "bob@example.org") {
			t.Errorf("in quarantine:\n%s", list)
		}
	})

	t.Run("a second mail of a connection, and one that was given up", func(t *testing.T) {
		c, err := DialClient(m.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, line := range []string{
			"250 EHLO many.example", "250 MAIL FROM:<a@sender.example>", "250 RCPT TO:<me@example.org>", "250 RSET",
		} {
			code, line, _ := strings.Cut(line, " ")
			if _, err := c.Expect(code, "%s", line); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 2 {
			text := fmt.Sprintf("Subject: hello\r\nMessage-ID: <many%d@sender.example>\r\n\r\ntext\r\n", n)
			replies, err := c.Mail(false, "a@sender.example", []string{"me@example.org"}, text)
			if err != nil || !strings.HasPrefix(replies[0], "250") {
				t.Fatalf("%q, %v", replies, err)
			}
		}
		s.Mails("me@example.org", "", 2)
		for n := range 2 {
			r := s.records(fmt.Sprintf("many%d@sender.example", n))
			if len(r) != 1 || r[0].Greeting != "many.example" || r[0].Client.Addr.String() != "127.0.0.1" {
				t.Errorf("mail %d: %+v", n, r)
			}
		}
	})

	t.Run("nothing waits in the queue of Sendmail", func(t *testing.T) {
		Eventually(t, func() error {
			left, err := filepath.Glob(filepath.Join(m.root, "mail/queue/*"))
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("in the queue: %q", left)
			}
			return err
		})
	})
}

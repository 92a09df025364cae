package program

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"sluice/protocols/peertest"
)

// A site is a program that runs in a folder of its own.
type site struct {
	*running
	dir  string
	door map[string]string
}

// startSite writes files into a new folder and runs `sluice serve` there.
func startSite(t *testing.T, files map[string]string, args ...string) *site {
	t.Helper()
	return startSiteWith(t, files, nil, append([]string{"sluice", "serve"}, args...)...)
}

// startSiteWith hands open sockets to the command that becomes `sluice serve`.
func startSiteWith(t *testing.T, files map[string]string, sockets []*os.File, command ...string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), door: map[string]string{}}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.run(t, "secret", "user", "add", "me@example.org", "--password-stdin")
	r := &running{cmd: exec.Command(command[0], command[1:]...), log: newWatched(), exited: make(chan error, 1)}
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr, r.cmd.ExtraFiles = s.dir, io.Discard, r.log, sockets
	if err := r.launch(); err != nil {
		t.Fatal(err)
	}
	s.running = r
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.exited
	})
	line, ok := r.log.wait(readyLine, r.exited)
	if !ok {
		t.Fatalf("not ready:\n%s", r.log)
	}
	for _, d := range openDoor.FindAllStringSubmatch(line, -1) {
		s.door[d[1]] = d[2]
	}
	return s
}

// run runs another subcommand and returns what it prints.
func (s *site) run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("sluice", args...)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = s.dir, strings.NewReader(stdin), &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("sluice %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// explain waits until `sluice explain` says want, records being written soon and not at once, and returns all it says.
func (s *site) explain(t *testing.T, want string, args ...string) (said string) {
	t.Helper()
	peertest.Eventually(t, func() error {
		cmd := exec.Command("sluice", append([]string{"explain"}, args...)...)
		cmd.Dir = s.dir
		out, err := cmd.CombinedOutput()
		if said = string(out); err != nil || !strings.Contains(said, want) {
			return fmt.Errorf("explain %s: %v, and not %q in\n%s", strings.Join(args, " "), err, want, said)
		}
		return nil
	})
	return said
}

func (s *site) dial(t *testing.T, door string) *textproto.Conn {
	t.Helper()
	return s.dialFor(t, door, 2*time.Minute)
}

func (s *site) dialFor(t *testing.T, door string, most time.Duration) *textproto.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.door[door])
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(most)); err != nil {
		t.Fatal(err)
	}
	c := textproto.NewConn(conn)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// say sends a line and expects a reply of this code.
func say(t *testing.T, c *textproto.Conn, code int, line string) string {
	t.Helper()
	if line != "" {
		if err := c.PrintfLine("%s", line); err != nil {
			t.Fatal(err)
		}
	}
	got, text, err := c.ReadResponse(code)
	if err != nil {
		t.Fatalf("%s: %d %s, %v; want %d", line, got, text, err, code)
	}
	return text
}

func begin(t *testing.T, c *textproto.Conn) {
	t.Helper()
	say(t, c, 220, "")
	say(t, c, 250, "EHLO test.example")
	say(t, c, 250, "MAIL FROM:<a@b.example>")
	say(t, c, 250, "RCPT TO:<me@example.org>")
	say(t, c, 354, "DATA")
	if err := c.PrintfLine("Subject: slow\r\nMessage-ID: <slow@b.example>\r\n\r\nfirst half"); err != nil {
		t.Fatal(err)
	}
}

// Told to stop, the program closes idle connections at once and lets mail on its way in arrive.
func TestStopLetsMailArrive(t *testing.T) {
	s := startSite(t, nil, "--listen", "smtp=127.0.0.1:0", "--listen", "imap=127.0.0.1:0")
	idle, busy, reader := s.dial(t, "smtp"), s.dial(t, "smtp"), s.dial(t, "imap")
	say(t, idle, 220, "")
	begin(t, busy)
	if _, err := reader.ReadLine(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if line, err := idle.ReadLine(); !strings.HasPrefix(line, "421 ") {
		t.Errorf("an idle client hears %q, %v", line, err)
	}
	if line, err := reader.ReadLine(); !strings.HasPrefix(line, "* BYE ") {
		t.Errorf("an idle reader hears %q, %v", line, err)
	}
	say(t, busy, 250, "second half\r\n.")
	if err := <-s.exited; err != nil {
		t.Errorf("ended with %v\n%s", err, s.log)
	}
	if out := s.run(t, "", "explain", "slow@b.example"); !strings.Contains(out, "delivered to INBOX") {
		t.Errorf("explained as\n%s", out)
	}
}

// A mail that does not end in time stays with its sender, and the program ends within 10 s.
func TestStopEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 8 s")
	}
	t.Parallel()
	s := startSite(t, nil, "--listen", "smtp=127.0.0.1:0")
	busy := s.dial(t, "smtp")
	begin(t, busy)
	told := time.Now()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	say(t, busy, 421, "")
	<-s.exited
	if took := time.Since(told); took > time.Minute || took < 7*time.Second { // 10 s, but on a machine that is busy
		t.Errorf("ended after %v\n%s", took, s.log)
	}
	mails, err := filepath.Glob(filepath.Join(s.dir, "sluice-data/mail/example.org/me/new/*"))
	if err != nil || len(mails) != 0 {
		t.Errorf("half a mail was filed: %v, %v", mails, err)
	}
}

// An MTA hands what it is given to an LMTP door, as Postfix would.
type mta struct {
	lmtp string
	seen chan string
}

func (m *mta) NewSession(*smtp.Conn) (smtp.Session, error) { return &mtaSession{mta: m}, nil }

type mtaSession struct {
	*mta
	from, to string
}

func (s *mtaSession) Reset()                                      {}
func (s *mtaSession) Logout() error                               { return nil }
func (s *mtaSession) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }
func (s *mtaSession) Rcpt(to string, _ *smtp.RcptOptions) error   { s.to = to; return nil }
func (s *mtaSession) Data(r io.Reader) error {
	mail, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.seen <- string(mail)
	conn, err := net.Dial("tcp", s.lmtp)
	if err != nil {
		return err
	}
	c := smtp.NewClientLMTP(conn)
	defer c.Close()
	if err := c.Hello("mta.example"); err != nil {
		return err
	}
	if err := c.Mail(s.from, nil); err != nil {
		return err
	}
	if err := c.Rcpt(s.to, nil); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(mail); err != nil {
		return err
	}
	return w.Close()
}

// A mail held for somebody without an account goes to the MTA behind us, and when it comes back it is not judged again.
func TestReleaseToAnMTA(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	behind := &mta{seen: make(chan string, 1)}
	server := smtp.NewServer(behind)
	go func() { _ = server.Serve(listener) }() // until Close, below
	t.Cleanup(func() { _ = server.Close() })

	s := startSite(t, map[string]string{"sluice.yaml": `
listen: {smtp: ["127.0.0.1:0"], lmtp: ["127.0.0.1:0"]}
aliases: {info@example.net: [me@example.org]}
quarantine: {release_to: "smtp:` + listener.Addr().String() + `"}
pipeline:
  - rules: {rules: [{name: hold, when: has("Hold"), quarantine: true}]}
`}, "-c", "sluice.yaml")
	behind.lmtp = s.door["lmtp"]

	c := s.dial(t, "smtp")
	last, err := converse(c, "a@b.example", "info@example.net",
		[]byte("Subject: held\r\nHold: yes\r\nMessage-ID: <held@b.example>\r\n\r\nLine one.\r\n"))
	if err != nil {
		t.Fatal(last, err)
	}
	// Without the alias the address is nobody's here, as at a site whose MTA delivers.
	relay := strings.ReplaceAll(read(t, s.dir, "sluice.yaml"), "aliases: {info@example.net: [me@example.org]}\n", "")
	if err := os.WriteFile(filepath.Join(s.dir, "relay.yaml"), []byte(relay), 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.Fields(s.run(t, "", "quarantine", "list", "-c", "sluice.yaml"))[0]
	out := s.run(t, "", "quarantine", "release", "-c", "relay.yaml", id)
	if want := id + " released: handed to " + listener.Addr().String() + "\n"; out != want {
		t.Errorf("release says %q, want %q", out, want)
	}
	mail := <-behind.seen
	marked := regexp.MustCompile(`(?m)^X-Sluice-Id: (\S+) \S+\r$`).FindStringSubmatch(mail)
	if marked == nil || strings.Count(strings.ToLower(mail), "x-sluice-id:") != 1 || strings.Contains(mail, "Return-Path") {
		t.Fatalf("the MTA gets\n%s", mail)
	}
	if held := s.run(t, "", "quarantine", "list", "-c", "sluice.yaml"); held != "" {
		t.Errorf("held again:\n%s", held)
	}
	// The record says first that it was handed over, and a moment after it has come back where it was filed.
	explained := s.explain(t, "delivered to INBOX", marked[1], "-c", "sluice.yaml")
	for _, want := range []string{"keep", "released from quarantine"} {
		if !strings.Contains(explained, want) {
			t.Errorf("%q is not said in\n%s", want, explained)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(s.dir, "sluice-data/mail/example.org/me/new/*")); len(files) != 1 {
		t.Errorf("%d mails arrived, want 1: %v", len(files), files)
	}
	s.explain(t, "handed to "+listener.Addr().String(), id, "-c", "sluice.yaml")
}

// A mark that somebody else has made is worth nothing.
func TestForgedMark(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": `
listen: {lmtp: ["127.0.0.1:0"]}
pipeline:
  - rules: {rules: [{name: hold, when: has("Hold"), quarantine: true}]}
`}, "-c", "sluice.yaml")
	m := &mta{lmtp: s.door["lmtp"], seen: make(chan string, 1)}
	session := &mtaSession{mta: m, from: "a@b.example", to: "me@example.org"}
	mail := "X-Sluice-Id: 0123456789abcdef AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\nHold: yes\r\nSubject: forged\r\n\r\nx\r\n"
	if err := session.Data(strings.NewReader(mail)); err != nil {
		t.Fatal(err)
	}
	if held := s.run(t, "", "quarantine", "list", "-c", "sluice.yaml"); !strings.Contains(held, `"forged"`) {
		t.Errorf("held: %q", held)
	}
}

// A record can be read soon after the reply by another process, while the server runs: promised is half a second, which a
// busy machine needs to start that process.
func TestRecordsAreReadableSoon(t *testing.T) {
	s := startSite(t, nil, "--listen", "smtp=127.0.0.1:0")
	for i := range 2 {
		id := fmt.Sprintf("soon%d@b.example", i)
		if last, err := converse(s.dial(t, "smtp"), "a@b.example", "me@example.org", []byte("Message-ID: <"+id+">\r\n\r\nx\r\n")); err != nil {
			t.Fatal(last, err)
		}
		s.explain(t, "delivered to INBOX", id)
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

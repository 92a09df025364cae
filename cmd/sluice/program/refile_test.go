package program

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/maildir"
	"sluice/mailstore/refile"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

const refileConfig = `
listen: {smtp: ["127.0.0.1:0"], imap: ["127.0.0.1:0"]}
pipeline: [{rules: {rules: []}}]
`

const refileRules = `
rules:
  - {name: even, when: subject endsWith "0" or subject endsWith "2" or subject endsWith "4", file: Lists/even, flag: [$Label1]}
  - {name: five, when: subject endsWith "5", flag: ['\Flagged']}
`

// putMail puts mails that came from elsewhere into the inbox of me@example.org, and returns what then lies there.
func putMail(t testing.TB, dir string, n int) map[string]string {
	t.Helper()
	inbox := filepath.Join(dir, "sluice-data/mail/example.org/me")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(inbox, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// What a run of many prints does not fit into a pipe: it cannot end before somebody has read of it.
	long := strings.Repeat("long ", 36)
	for i := range n {
		name := fmt.Sprintf("cur/%d.M%d.elsewhere:2,S", 1_600_000_000+i, i)
		if i%3 == 0 {
			name = fmt.Sprintf("new/%d.M%d.elsewhere", 1_600_000_000+i, i)
		}
		text := fmt.Sprintf("From: a@b.example\nMessage-ID: <%d@b.example>\nSubject: %s number %d\n\n%s\n", i, long, i, strings.Repeat("x", i%50))
		if err := os.WriteFile(filepath.Join(inbox, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1_600_000_000+i), 0)
		if err := os.Chtimes(filepath.Join(inbox, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	return mailFiles(t, dir)
}

// mailFiles returns the content and time of every mail by its path.
func mailFiles(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	root := filepath.Join(dir, "sluice-data/mail")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if sub := filepath.Base(filepath.Dir(path)); err != nil || d.IsDir() || sub != "cur" && sub != "new" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		files[strings.TrimPrefix(path, root)] = fmt.Sprint(info.ModTime().UnixNano(), string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// differences names what is only in one of two sets of files, or other there.
func differences(a, b map[string]string) (all []string) {
	for path, x := range a {
		if y, ok := b[path]; !ok || x != y {
			all = append(all, "-"+path)
		}
	}
	for path := range b {
		if _, ok := a[path]; !ok {
			all = append(all, "+"+path)
		}
	}
	slices.Sort(all)
	return all
}

// An imapClient speaks lines.
type imapClient struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	n    int
}

func newIMAPClient(t *testing.T, s *site) *imapClient {
	t.Helper()
	conn, err := net.Dial("tcp", s.door["imap"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := &imapClient{t: t, conn: conn, in: bufio.NewReader(conn)}
	c.until("* OK")
	c.do("LOGIN me@example.org secret")
	return c
}

// until returns all lines up to one that begins with this.
func (c *imapClient) until(begin string) (lines []string) {
	c.t.Helper()
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatalf("waiting for %q after %q: %v", begin, lines, err)
		}
		lines = append(lines, strings.TrimRight(line, "\r\n"))
		if strings.HasPrefix(line, begin) {
			return lines
		}
	}
}

// do returns what the server answers to a command, which must succeed.
func (c *imapClient) do(command string) string {
	c.t.Helper()
	c.n++
	tag := fmt.Sprintf("t%d", c.n)
	if _, err := fmt.Fprintf(c.conn, "%s %s\r\n", tag, command); err != nil {
		c.t.Fatal(err)
	}
	lines := c.until(tag + " ")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, tag+" OK") {
		c.t.Fatalf("%s: %s", command, last)
	}
	return strings.Join(lines, "\n")
}

// TestRefileIsSeen: a mail program that has the folder open is told as of any other move: what goes, what comes, under new
// UIDs that are never used again.
func TestRefileIsSeen(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": refileConfig, "sort.yaml": refileRules}, "-c", "sluice.yaml")
	putMail(t, s.dir, 6)
	c, other := newIMAPClient(t, s), newIMAPClient(t, s)
	if said := c.do("SELECT INBOX"); !strings.Contains(said, "* 6 EXISTS") || !strings.Contains(said, "[UIDNEXT 7]") {
		t.Fatalf("before: %s", said)
	}
	before := mailFiles(t, s.dir) // now nothing is new any more
	if _, err := fmt.Fprint(c.conn, "i IDLE\r\n"); err != nil {
		t.Fatal(err)
	}
	c.until("+ ")
	out := s.run(t, "", "refile", "-c", "sluice.yaml", "--rules", "sort.yaml", "--mailbox", "me@example.org", "--apply")
	if !strings.Contains(out, "4 moved or flagged; to take it back: sluice undo ") {
		t.Fatal(out)
	}
	// 0, 2 and 4 go, which stand at 1, 3 and 5; 5 is flagged and has become the third.
	var said []string
	for expunged := 0; expunged < 3; {
		line := c.until("* ")
		said = append(said, line...)
		if strings.HasSuffix(line[len(line)-1], "EXPUNGE") {
			expunged++
		}
	}
	if _, err := fmt.Fprint(c.conn, "DONE\r\n"); err != nil {
		t.Fatal(err)
	}
	said = append(said, c.until("i OK")...)
	if all := strings.Join(said, "\n"); !strings.Contains(all, `\Flagged`) {
		t.Errorf("nobody is told of the flag:\n%s", all)
	}
	if said := c.do("UID SEARCH ALL"); !strings.Contains(said, "2 4 6") {
		t.Errorf("what stays: %s", said)
	}
	said = strings.Split(other.do("SELECT Lists/even"), "\n")
	if !slices.Contains(said, "* 3 EXISTS") {
		t.Errorf("there: %s", said)
	}
	if said := other.do("UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])"); strings.Count(said, "$Label1") != 3 ||
		!strings.Contains(said, "number 0") || !strings.Contains(said, "number 4") {
		t.Errorf("there: %s", said)
	}
	other.do("CLOSE") // a folder that is open may go as well: then its session ends, as when somebody deletes it
	id := regexp.MustCompile(`undo (\S+)`).FindStringSubmatch(out)[1]
	s.run(t, "", "undo", "-c", "sluice.yaml", id)
	if said := c.do("NOOP"); !strings.Contains(said, "* 6 EXISTS") {
		t.Errorf("back: %s", said)
	}
	if said := c.do("UID SEARCH ALL"); !strings.Contains(said, "2 4 6 7 8 9") {
		t.Errorf("those that are back have UIDs of their own: %s", said)
	}
	if d := differences(before, mailFiles(t, s.dir)); len(d) > 0 {
		t.Errorf("not as it was: %q", d)
	}
	if said := c.do(`LIST "" "*"`); strings.Contains(said, "even") {
		t.Errorf("the folder is still there: %s", said)
	}
}

// TestRefileMeanwhile moves, flags and delivers mail while runs go on, several at once: nothing is lost, and what users did
// stands.
func TestRefileMeanwhile(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": refileConfig, "sort.yaml": refileRules}, "-c", "sluice.yaml")
	const mails = 400
	before := putMail(t, s.dir, mails)
	c := newIMAPClient(t, s)
	c.do("CREATE Own")
	c.do("SELECT INBOX")
	var wait sync.WaitGroup
	outs := make([]string, 2)
	for i := range outs {
		wait.Go(func() {
			cmd := exec.Command("sluice", "refile", "-c", "sluice.yaml", "--rules", "sort.yaml", "--mailbox", "me@example.org", "--apply")
			cmd.Dir = s.dir
			out, err := cmd.CombinedOutput()
			if outs[i] = string(out); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	mine := 0
	for uid := mails; uid > mails-60; uid -= 2 {
		if said := c.do(fmt.Sprintf("UID MOVE %d Own", uid)); strings.Contains(said, "COPYUID") {
			mine++
		}
	}
	wait.Wait()
	own := 0
	for path := range mailFiles(t, s.dir) {
		if strings.Contains(path, "/.Own/") {
			own++
		}
	}
	if own != mine || mine == 0 {
		t.Errorf("the user has moved %d, and %d lie there", mine, own)
	}
	moved := 0
	for _, out := range outs {
		var n int
		if m := regexp.MustCompile(`(?m)^(\d+) moved or flagged`).FindStringSubmatch(out); m != nil {
			fmt.Sscan(m[1], &n)
		}
		moved += n
	}
	lists := 0
	for _, line := range strings.Split(s.run(t, "", "refile", "list", "-c", "sluice.yaml"), "\n") {
		id, _, _ := strings.Cut(line, " ")
		if id == "" {
			continue
		}
		lists++
		s.run(t, "", "undo", "-c", "sluice.yaml", id)
	}
	if lists == 0 || moved == 0 {
		t.Errorf("%d runs, %d moved", lists, moved)
	}
	after := mailFiles(t, s.dir)
	if len(after) != len(before) {
		t.Errorf("%d mails of %d are left", len(after), len(before))
	}
	unique := func(path string) string {
		name, _, _ := strings.Cut(filepath.Base(path), ":")
		return name
	}
	was := map[string]string{}
	for path, text := range before {
		was[unique(path)] = text
	}
	for path, text := range after {
		if was[unique(path)] != text {
			t.Errorf("%s is not what it was", path)
		}
		if strings.Contains(path, "/.Lists") {
			t.Errorf("%s is not back", path)
		}
	}
	t.Logf("%d moved by %d runs, %d by the user", moved, lists, mine)
}

// TestRefileKilled kills the program with SIGKILL while it moves mail, beside a server and alone: the run can be completed,
// and it can be undone.
func TestRefileKilled(t *testing.T) {
	for round, serve := range []bool{false, false, true} {
		dir := t.TempDir()
		if serve {
			dir = startSite(t, map[string]string{"sluice.yaml": refileConfig}, "-c", "sluice.yaml").dir
		} else {
			run(t, dir, "echo secret | sluice user add me@example.org --password-stdin")
		}
		for name, text := range map[string]string{"sluice.yaml": refileConfig, "sort.yaml": refileRules} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before := putMail(t, dir, 1200)
		cmd := exec.Command("sluice", "refile", "-c", "sluice.yaml", "--rules", "sort.yaml", "--mailbox", "me@example.org", "--apply")
		cmd.Dir = dir
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var id string
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if rest, ok := strings.CutPrefix(lines.Text(), "run "); ok {
				id = rest
			}
			if n == 1+70*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || id == "" {
			t.Fatalf("it was not killed: %v, run %q", err, id)
		}
		if d := differences(before, mailFiles(t, dir)); len(d) == 0 && round > 0 {
			t.Error("nothing was moved yet")
		}
		if said := run(t, dir, "sluice refile list -c sluice.yaml"); !strings.Contains(said, "broken off: ") {
			t.Errorf("list says %s", said)
		}
		if round == 0 {
			said := run(t, dir, "sluice refile --resume "+id+" -c sluice.yaml")
			if !strings.Contains(said, "480 moved or flagged; to take it back") {
				t.Errorf("completed: %s", said)
			}
			n := 0
			for path := range mailFiles(t, dir) {
				if strings.Contains(path, "/.Lists.even/") {
					n++
				}
			}
			if n != 360 {
				t.Errorf("%d mails were sorted", n)
			}
		}
		run(t, dir, "sluice undo "+id+" -c sluice.yaml")
		if d := differences(before, mailFiles(t, dir)); len(d) > 0 {
			t.Errorf("round %d: not as it was: %q", round, d)
		}
	}
}

// TestRefileInterrupted: Ctrl-C ends a run between two batches, and says how to go on.
func TestRefileInterrupted(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "echo secret | sluice user add me@example.org --password-stdin")
	for name, text := range map[string]string{"sluice.yaml": refileConfig, "sort.yaml": refileRules} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := putMail(t, dir, 1200)
	cmd := exec.Command("sluice", "refile", "-c", "sluice.yaml", "--rules", "sort.yaml", "--mailbox", "me@example.org", "--apply")
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, n := bufio.NewScanner(out), 0
	for ; lines.Scan(); n++ {
		if n == 3 {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("it ended with %v after %d lines", err, n)
	}
	m := regexp.MustCompile(`(?m)^sluice: run (\S+): stopped before the end\nsluice: to go on: sluice refile --resume (\S+); to take back what was done: sluice undo (\S+)\n$`).
		FindStringSubmatch(stderr.String())
	if m == nil || m[1] != m[2] || m[1] != m[3] {
		t.Fatalf("it says %s", stderr.String())
	}
	run(t, dir, "sluice refile --resume "+m[1]+" -c sluice.yaml")
	run(t, dir, "sluice undo "+m[1]+" -c sluice.yaml")
	if d := differences(before, mailFiles(t, dir)); len(d) > 0 {
		t.Errorf("not as it was: %q", d)
	}
}

// TestRefileWithoutServer: when the server that moves the mail ends in the middle, the run says so and can be completed.
func TestRefileWithoutServer(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": refileConfig, "sort.yaml": refileRules}, "-c", "sluice.yaml")
	before := putMail(t, s.dir, 1200)
	cmd := exec.Command("sluice", "refile", "-c", "sluice.yaml", "--rules", "sort.yaml", "--mailbox", "me@example.org", "--apply")
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = s.dir, &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines, n := bufio.NewScanner(out), 0; lines.Scan(); n++ {
		if n == 3 {
			if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it does not notice that the server is gone")
	}
	m := regexp.MustCompile(`the running server (?:has ended|ended before it answered)(?s:.*)to go on: sluice refile --resume (\S+);`).FindStringSubmatch(stderr.String())
	if m == nil {
		t.Fatalf("it says %s", stderr.String())
	}
	if said := s.run(t, "", "refile", "--resume", m[1], "-c", "sluice.yaml"); !strings.Contains(said, "480 moved or flagged") {
		t.Error(said)
	}
	s.run(t, "", "undo", m[1], "-c", "sluice.yaml")
	if d := differences(before, mailFiles(t, s.dir)); len(d) > 0 {
		t.Errorf("not as it was: %q", d)
	}
}

// TestRefileJSON: what programs read has a version, and says of each mail what became of it.
func TestRefileJSON(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "echo secret | sluice user add me@example.org --password-stdin")
	for name, text := range map[string]string{"sluice.yaml": refileConfig, "sort.yaml": refileRules} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	putMail(t, dir, 7)
	var planned, done refileResult
	const command = "sluice refile -c sluice.yaml --rules sort.yaml --mailbox me@example.org --json"
	for _, x := range []struct {
		result  *refileResult
		command string
	}{{&planned, command}, {&done, command + " --apply"}} {
		if err := json.Unmarshal([]byte(run(t, dir, x.command)), x.result); err != nil {
			t.Fatal(err)
		}
		if x.result.Version != refileVersion || x.result.Seen != 7 || x.result.Bare != 7 || len(x.result.Moves) != 4 {
			t.Errorf("%+v", x.result)
		}
	}
	if planned.Run != "" || planned.Moves[0].State != refile.Planned || done.Run == "" || done.Moves[0].State != refile.Done {
		t.Errorf("%+v, %+v", planned, done)
	}
	var undone shownRun
	if err := json.Unmarshal([]byte(run(t, dir, "sluice undo --json -c sluice.yaml "+done.Run)), &undone); err != nil {
		t.Fatal(err)
	}
	if undone.Status != "undone" || len(undone.Moves) != 4 || undone.Moves[3].State != refile.Back || undone.Folders[0].Folder != "Lists/even" {
		t.Errorf("%+v", undone)
	}
}

// TestUnsort: what a run has moved says nothing about what the owner thinks of it.
func TestUnsort(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "echo secret | sluice user add me@example.org --password-stdin")
	for name, text := range map[string]string{"sluice.yaml": refileConfig, "sort.yaml": "rules: [{name: junk, when: 'size > 0', file: Junk, flag: [$Junk]}]"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	putMail(t, dir, 3)
	run(t, dir, "sluice refile -c sluice.yaml --rules sort.yaml --mailbox me@example.org --apply")
	c := &config.Config{Data: filepath.Join(dir, "sluice-data")}
	w := &whereabouts{junk: []string{"Junk"}, runs: sortedByRuns(c)}
	for _, tt := range []struct {
		filed string
		now   maildir.Seen
		want  string
	}{
		{"INBOX", maildir.Seen{Folder: "Junk", Flags: []string{"$Junk"}}, "unknown: unread where it was filed"},
		{"INBOX", maildir.Seen{Folder: "Junk", Flags: []string{"$Junk", `\Answered`}}, "ham: replied to"},
		{"INBOX", maildir.Seen{Folder: "INBOX", Flags: []string{"$Junk"}}, "ham: moved out of Junk"},
		{"INBOX", maildir.Seen{Folder: "Trash", Flags: []string{"$Junk"}}, "unknown: moved from Junk to Trash"},
		{"Junk", maildir.Seen{Folder: "Junk", Flags: []string{"$Junk"}}, "ham: moved out of Junk"}, // before the run
	} {
		tt.now.File = "1600000001.M1.elsewhere"
		x, now := w.runs.unsort(pipeline.RecipientRecord{
			Recipient: pipeline.Recipient{Account: "me@example.org"}, Folder: tt.filed,
		}, tt.now)
		got := w.judge(&x, now, []string{"INBOX", "Junk", "Trash"})
		if s := fmt.Sprintf("%s: %s", got.Label, got.Why); s != tt.want {
			t.Errorf("filed in %s, now %+v: %s; want %s", tt.filed, tt.now, s, tt.want)
		}
		other := maildir.Seen{File: "other", Folder: tt.now.Folder}
		if y, now := w.runs.unsort(x, other); y.Folder != x.Folder || now.Folder != other.Folder {
			t.Errorf("a mail that no run has touched: %+v, %+v", y, now)
		}
	}
}

// TestRefileDamagedRecord: a mail of which the record cannot be read is left alone, and so is one of which the journal is
// damaged: nobody knows what its rules would say.
func TestRefileDamagedRecord(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": refileConfig, "sort.yaml": refileRules}, "-c", "sluice.yaml")
	for i := range 2 {
		if last, taken := offer(s.door["smtp"], "smtp", "me@example.org", fmt.Sprintf("Message-ID: <%d@b.example>\r\nSubject: number 2\r\n\r\n", i)); !taken {
			t.Fatal(last)
		}
	}
	s.stop(t)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, "sluice-data/journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE records SET record = '{' WHERE message_id = '0@b.example'"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	const command = "sluice refile -c sluice.yaml --rules sort.yaml --mailbox me@example.org"
	if said := run(t, s.dir, command); !strings.Contains(said, "left alone: 1 with a record that cannot be read: ") ||
		!strings.Contains(said, "of 2 mails 1 would be moved or flagged") {
		t.Error(said)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Remove(filepath.Join(s.dir, "sluice-data/journal.db"+suffix)) // perhaps there is none
	}
	if err := os.WriteFile(filepath.Join(s.dir, "sluice-data/journal.db"), bytes.Repeat([]byte("rubbish "), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := shell(s.dir, os.Environ(), command+" --apply"); err == nil || !strings.Contains(said, "damaged") {
		t.Errorf("%v: %s", err, said)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "sluice-data/refile")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a run was begun: %v", err)
	}
}

// BenchmarkRefileDecide decides about mail of some 300 octets that has no record.
func BenchmarkRefileDecide(b *testing.B) {
	dir := b.TempDir()
	for name, text := range map[string]string{"sluice.yaml": refileConfig, "sort.yaml": refileRules} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	putMail(b, dir, 100)
	p := &program{ctx: b.Context(), kinds: Stages(), now: time.Now, configFile: filepath.Join(dir, "sluice.yaml")}
	settings, err := p.settings()
	if err != nil {
		b.Fatal(err)
	}
	s := &sorter{settings: settings, account: "me@example.org"}
	if s.plan, err = planWith(p, settings, "", []string{filepath.Join(dir, "sort.yaml")}); err != nil {
		b.Fatal(err)
	}
	if s.address, err = mime.ParseAddress(s.account); err != nil {
		b.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "sluice-data/mail/example.org/me/*/*.elsewhere*"))
	if err != nil {
		b.Fatal(err)
	}
	moves := 0
	for b.Loop() {
		moves = 0
		for _, f := range files {
			d, err := s.decide(b.Context(), mailstore.Spot{Folder: "INBOX", File: filepath.Base(f), Path: f})
			if err != nil {
				b.Fatal(err)
			}
			if d.move != nil {
				moves++
			}
		}
	}
	if moves != 40 {
		b.Errorf("%d of 100 would be moved", moves)
	}
	b.ReportMetric(float64(100*b.N)/b.Elapsed().Seconds(), "mails/s")
}

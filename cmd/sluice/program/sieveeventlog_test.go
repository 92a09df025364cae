package program

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/protocols/imap"
)

// What is kept is found again, in order, without what is dealt with; what cannot be read stays, and is named.
func TestEventLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	l, left, _, err := openEventLog(osDisk{}, dir, time.Unix(1000, 0))
	if err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
	event := func(n uint32) imap.Event {
		return imap.Event{Account: "me@localhost", Cause: imap.CauseCopy, Folder: "Größe\n", From: "INBOX", UIDs: []uint32{n, 100, 200}, UIDValidity: 7, Flags: []string{`\Seen`}}
	}
	var kept []waitingEvent
	for n := range uint32(12) {
		path, err := l.keep(event(n))
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, waitingEvent{event(n), path})
	}
	if err := errors.Join(kept[0].done(0), kept[0].done(200), l.forget(kept[3])); err != nil {
		t.Fatal(err)
	}
	torn, err := os.OpenFile(kept[1].path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = torn.WriteString("10")
	odd := filepath.Join(dir, "odd.json")
	if err := errors.Join(err, torn.Close(), os.WriteFile(odd, []byte(`{"version":2}`+"\n"), 0o600), os.WriteFile(filepath.Join(dir, ".new-1"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	l, left, strange, err := openEventLog(osDisk{}, dir, time.Unix(2000, 0))
	if err != nil || !reflect.DeepEqual(strange, []string{odd}) {
		t.Fatal(strange, err)
	}
	want := append([]waitingEvent{kept[0]}, append(kept[1:3:3], kept[4:]...)...)
	want[0].UIDs = []uint32{100}
	if !reflect.DeepEqual(left, want) {
		t.Errorf("left are\n%v, want\n%v", left, want)
	}
	if path, err := l.keep(event(1)); err != nil || path <= kept[11].path {
		t.Errorf("%s is not after %s: %v", path, kept[11].path, err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".new-1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was begun is still there: %v", err)
	}
}

// An event that cannot be kept leaves nothing behind.
func TestEventNotKept(t *testing.T) {
	for n := 1; ; n++ {
		d := &faultyDisk{err: errors.New("disk full")}
		dir := filepath.Join(t.TempDir(), "events")
		l, _, _, err := openEventLog(d, dir, time.Unix(1000, 0))
		if err != nil {
			t.Fatal(err)
		}
		d.n = len(d.did) + n
		_, err = l.keep(imap.Event{Account: "me@localhost", UIDs: []uint32{1}})
		files, _ := os.ReadDir(dir)
		if d.fell == "" {
			if err != nil || len(files) != 1 || n < 5 {
				t.Errorf("after %d calls: %v, %d files", n, err, len(files))
			}
			return
		}
		if err == nil || len(files) != 0 {
			t.Errorf("%s fails: %v, and there are %v", d.fell, err, files)
		}
	}
}

// What a mail client was told is done is seen by the scripts, however often the server is killed; mail that was dealt with
// when it was killed is not dealt with again, but for the one at hand.
func TestKilledBeforeScriptsRan(t *testing.T) {
	const mails, kills = 10, 2
	dir := t.TempDir()
	learnt := filepath.Join(dir, "learnt")
	if err := syscall.Mkfifo(learnt, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sluice.yaml": "data: data\nhostname: mx.example.org\nlisten: {imap: [\"127.0.0.1:0\"]}\npipeline: []\nsieve:\n  programs:\n" +
			"    learn: {command: [/bin/sh, -c, 'cat >/dev/null; echo \"$1\" >learnt', sh], dir: " + dir + "}\n" +
			"  imap: [{folder: Junk, script: junk.sieve}]\n",
		"junk.sieve": `require ["imapsieve", "variables", "vnd.dovecot.pipe", "copy"];` + "\n" +
			`if header :matches "subject" "*" { pipe :copy "learn" "${1}"; }` + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Open for both: neither side waits for the other, nor ends with it.
	fifo, err := os.OpenFile(learnt, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fifo.Close()
	lines := bufio.NewReader(fifo)
	seen := map[string]int{}
	read := func(until int) {
		t.Helper()
		for len(seen) < until {
			if err := fifo.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
				t.Fatal(err)
			}
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("of %d mails %d were learnt: %v", mails, len(seen), err)
			}
			seen[strings.TrimSpace(line)]++
		}
	}
	s := &site{dir: dir, door: map[string]string{}}
	s.run(t, "secret", "-c", "sluice.yaml", "user", "add", "me@example.org", "--password-stdin")
	for round := range kills + 1 {
		r, err := start(dir, os.Environ(), io.Discard, "sluice", "-c", "sluice.yaml", "serve")
		if err != nil {
			t.Fatal(err)
		}
		line, ok := r.log.wait(readyLine, r.exited)
		if !ok {
			t.Fatalf("not ready:\n%s", r.log)
		}
		if round == 0 {
			s.door["imap"] = openDoor.FindStringSubmatch(line)[2]
			fileInJunk(t, s, mails)
		}
		if round < kills {
			read(3 * round)
			_ = r.cmd.Process.Kill()
			<-r.exited
			continue
		}
		read(mails)
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		if err := <-r.exited; err != nil {
			t.Errorf("%v\n%s", err, r.log)
		}
	}
	if twice := sum(seen) - mails; len(seen) != mails || twice > kills {
		t.Errorf("of %d mails %d were learnt, %d times in all", mails, len(seen), sum(seen))
	}
	if left, err := os.ReadDir(filepath.Join(dir, "data", "events")); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// fileInJunk has a client put mails into the inbox and copy them into Junk, all at once.
func fileInJunk(t *testing.T, s *site, n int) {
	t.Helper()
	c := s.dial(t, "imap")
	told := func(tag string) {
		t.Helper()
		for {
			line, err := c.ReadLine()
			if err != nil {
				t.Fatal(err)
			}
			if rest, ok := strings.CutPrefix(line, tag+" "); ok {
				if !strings.HasPrefix(rest, "OK") {
					t.Fatal(line)
				}
				return
			}
		}
	}
	do := func(tag, command string) {
		t.Helper()
		if err := c.PrintfLine("%s %s", tag, command); err != nil {
			t.Fatal(err)
		}
		told(tag)
	}
	do("a", "LOGIN me@example.org secret")
	for i := range n {
		mail := fmt.Sprintf("From: a@b.example\r\nSubject: mail %d\r\n\r\nhello\r\n", i)
		do(fmt.Sprintf("b%d", i), fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(mail), mail))
	}
	do("c", "SELECT INBOX")
	do("d", "COPY 1:* Junk")
}

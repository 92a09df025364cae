package program

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/protocols/peertest"
)

// smallDisk mounts a file system of this size for the length of the test.
func smallDisk(t *testing.T, octets int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", octets)); err != nil {
		if os.Getenv("SLUICE_REQUIRE_PEERS") == "1" {
			t.Fatalf("a small file system is needed, and is required: %v", err)
		}
		t.Skipf("a small file system is needed, and cannot be mounted here (are you root?): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A sent is a mail that was offered, with what is only in this one.
type sent struct {
	id, body string
	taken    bool   // the sender was told 250: it keeps the mail no more
	reply    string // else what it was told
}

// fill offers mail with several clients at once until the disk is full and a good while longer.
func fill(t *testing.T, s *site, door, local string, clients, each int) []*sent {
	t.Helper()
	all := make([]*sent, clients*each)
	var wait sync.WaitGroup
	for c := range clients {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 7))
			for i := range each {
				m := &sent{id: fmt.Sprintf("%s-%d-%d@b.example", door, c, i)}
				var b strings.Builder
				for size := 1000 << random.IntN(8); b.Len() < size; {
					fmt.Fprintf(&b, "%s %016x\r\n", m.id, random.Uint64())
				}
				m.body = b.String()
				all[c*each+i] = m
				what := "Subject: filling\r\nMessage-ID: <" + m.id + ">\r\n"
				if random.IntN(3) == 0 {
					what += "Hold: yes\r\n"
				}
				m.reply, m.taken = offer(s.door[door], door, local+"@example.org", what+"\r\n"+m.body)
			}
		})
	}
	wait.Wait()
	return all
}

// offer sends one mail and returns the last reply. A connection that breaks off is no reply: the sender keeps the mail.
func offer(address, door, to, mail string) (reply string, taken bool) {
	conn, err := net.DialTimeout("tcp", address, time.Minute)
	if err != nil {
		return err.Error(), false
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err.Error(), false
	}
	c := textproto.NewConn(conn)
	hello := "EHLO client.example"
	if door == "lmtp" {
		hello = "LHLO client.example"
	}
	for _, x := range []struct {
		code int
		line string
	}{{220, ""}, {250, hello}, {250, fmt.Sprintf("MAIL FROM:<a@b.example> SIZE=%d", len(mail))}, {250, "RCPT TO:<" + to + ">"}, {354, "DATA"}, {250, mail + "."}} {
		if x.line != "" {
			if err := c.PrintfLine("%s", x.line); err != nil {
				return err.Error(), false
			}
		}
		if _, reply, err = c.ReadResponse(x.code); err != nil {
			return err.Error(), false
		}
	}
	return reply, true
}

// whole returns the files below the folders that a mail lies in, and fails the test for each that is half of one.
func whole(t *testing.T, data string, offered []*sent) map[string]int {
	t.Helper()
	byID := map[string]*sent{}
	for _, m := range offered {
		byID[m.id] = m
	}
	found := map[string]int{}
	for _, pattern := range []string{"mail/*/*/new/*", "mail/*/*/cur/*", "mail/*/*/.*/new/*", "quarantine/mail/*"} {
		files, err := filepath.Glob(filepath.Join(data, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, id, _ := bytes.Cut(text, []byte("Message-ID: <"))
			id, _, _ = bytes.Cut(id, []byte(">"))
			m := byID[string(id)]
			if m == nil {
				t.Errorf("%s is no mail that was offered: %.80q", file, text)
				continue
			}
			_, body, _ := bytes.Cut(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
			if got, want := string(body), strings.ReplaceAll(m.body, "\r\n", "\n"); got != want {
				t.Errorf("%s is not the whole mail: %d octets of its body, of %d", file, len(got), len(want))
			}
			found[string(id)]++
		}
	}
	return found
}

const fullConfig = `
domain: example.org
limits: {disk_free: %s, disk_inodes: 0}
pipeline:
  - rules: {rules: [{name: hold, when: has("Hold"), quarantine: true}]}
`

// A disk that gets full while mail comes in: each mail stays with its sender, or we have it, whole.
func TestFullDisk(t *testing.T) {
	for _, tt := range []struct {
		size, ballast int
		free          string
	}{
		{4 << 20, 1 << 20, "0"},
		{18 << 20, 3 << 20, "12MiB"}, // room for what the databases write before they tidy up
	} {
		free := tt.free
		t.Run("disk_free "+free, func(t *testing.T) {
			data := filepath.Join(smallDisk(t, tt.size), "data")
			ballast := filepath.Join(filepath.Dir(data), "ballast")
			s := startSite(t, map[string]string{"sluice.yaml": "data: " + data + fmt.Sprintf(fullConfig, free)},
				"-c", "sluice.yaml", "--listen", "smtp=127.0.0.1:0", "--listen", "lmtp=127.0.0.1:0", "--listen", "pop3=127.0.0.1:0", "--listen", "imap=127.0.0.1:0",
				"--listen", "admin=127.0.0.1:0")
			s.run(t, "secret", "user", "add", "you@example.org", "--password-stdin", "-c", "sluice.yaml")
			s.run(t, "secret", "user", "add", "me@example.org", "--password-stdin", "-c", "sluice.yaml")
			if err := os.WriteFile(ballast, make([]byte, tt.ballast), 0o600); err != nil {
				t.Fatal(err)
			}
			offered := fill(t, s, "smtp", "me", 4, 20)
			offered = append(offered, fill(t, s, "lmtp", "you", 4, 10)...)

			refused := map[string]int{}
			for _, m := range offered {
				if !m.taken {
					refused[m.reply]++
					if !strings.HasPrefix(m.reply, "4") {
						t.Errorf("%s: %s", m.id, m.reply)
					}
				}
			}
			t.Logf("%d offered; not taken: %v", len(offered), refused)
			// Whether the guard has seen it coming or a write has failed; what a database says of it may be anything.
			if refused[`452 "4.3.1 insufficient system storage, please try again later"`] == 0 {
				t.Errorf("the disk did not fill, or the wrong answer was given: %v", refused)
			}
			kept := func(when string) {
				t.Helper()
				found := whole(t, data, offered)
				for _, m := range offered {
					if m.taken && found[m.id] == 0 {
						t.Errorf("%s: %s was taken and is lost", when, m.id)
					}
					if found[m.id] > 1 {
						t.Errorf("%s: %s is there %d times", when, m.id, found[m.id])
					}
				}
			}
			kept("full")
			if free != "0" {
				watching(t, s)
			}

			// It may be killed and started again on the full disk; what it has stays whole.
			if err := s.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-s.exited
			kept("killed")

			// With room, mail comes in again.
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			removed := 0
			files, err := filepath.Glob(filepath.Join(data, "mail/example.org/me/[nc][eu][wr]/*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err := errors.Join(err, os.Remove(file)); err != nil {
					t.Fatal(err)
				}
				removed++
				for _, m := range offered {
					if bytes.Contains(text, []byte("<"+m.id+">")) {
						m.taken = false // somebody has read it and thrown it away
					}
				}
			}
			again, err := start(s.dir, os.Environ(), io.Discard, "sluice", "serve", "-c", "sluice.yaml", "--listen", "smtp=127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = again.cmd.Process.Kill()
				<-again.exited
			})
			t.Logf("%d mails removed", removed)
			line, ok := again.log.wait(readyLine, again.exited)
			if !ok {
				t.Fatalf("does not start again:\n%s", again.log)
			}
			opened := openDoor.FindStringSubmatch(line)[2]
			if reply, ok := offer(opened, "smtp", "me@example.org", "Message-ID: <last@b.example>\r\n\r\nlast\r\n"); !ok {
				t.Errorf("with %d mails less: %s\n%s", removed, reply, again.log)
			}
			offered = append(offered, &sent{id: "last@b.example", body: "last\r\n", taken: true})
			kept("with room again")
		})
	}
}

// watching says what those see who look at a program that puts mail off.
func watching(t *testing.T, s *site) {
	t.Helper()
	for end := time.Now().Add(peertest.Patience); ; {
		answer, err := http.Get("http://" + s.door["admin"] + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err == nil && answer.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(text), "no room on the disk") &&
			strings.Contains(s.log.String(), "the disk is nearly full") { // the one that counts what is on its way may come before
			break
		}
		if time.Now().After(end) {
			t.Fatalf("ready, with a full disk: %s %s %v", answer.Status, text, err)
		}
	}
	if alarms := strings.Count(s.log.String(), "the disk is nearly full"); alarms != 1 {
		t.Errorf("%d alarms\n%s", alarms, s.log)
	}
	// Readers are served, for what is kept free has room for their indexes.
	c := s.dial(t, "pop3")
	for _, line := range []string{"", "USER me@example.org", "PASS secret", "RETR 1"} {
		if line != "" {
			if err := c.PrintfLine("%s", line); err != nil {
				t.Fatal(err)
			}
		}
		if answer, err := c.ReadLine(); err != nil || !strings.HasPrefix(answer, "+OK") {
			t.Fatalf("POP3 %s: %s %v", line, answer, err)
		}
	}
	_ = c.Close()
	// What they upload has to wait.
	c = s.dial(t, "imap")
	for _, x := range [][2]string{{"", "* OK"}, {"a login me@example.org secret", "a OK"}, {"b append INBOX {5+}\r\nhello", "b NO [UNAVAILABLE] the server has no room"}} {
		if x[0] != "" {
			if err := c.PrintfLine("%s", x[0]); err != nil {
				t.Fatal(err)
			}
		}
		if answer, err := c.ReadLine(); err != nil || !strings.HasPrefix(answer, x[1]) {
			t.Fatalf("IMAP %s: %s %v", x[0], answer, err)
		}
	}
}

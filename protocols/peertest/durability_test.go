package peertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// quiet is a Sluice with the simplest pipeline and one account.
func quiet(t *testing.T) *Sluice {
	t.Helper()
	return StartSluice(t, SluiceConfig{
		YAML:     "domains: [example.org]\npipeline:\n  - rules: {files: [rules.yaml]}\n",
		Files:    map[string]string{"rules.yaml": "rules:\n  - name: marked\n    when: has(\"X-Marked\")\n    score: 1\n"},
		Accounts: []string{"me@example.org"},
	})
}

// Postfix's own load generator reports an error for every answer that isn't a success.
func TestEvery250OfSMTPSourceIsOneFile(t *testing.T) {
	Need(t, "smtp-source")
	const mails, sessions, size = 2000, 50, 10 << 10
	for _, door := range []string{"smtp", "lmtp"} {
		t.Run(door, func(t *testing.T) {
			s := quiet(t)
			args := []string{"-s", fmt.Sprint(sessions), "-m", fmt.Sprint(mails), "-l", fmt.Sprint(size), "-f", "a@sender.example", "-t", "me@example.org"}
			target := "inet:" + s.SMTP
			if door == "lmtp" {
				args, target = append(args, "-L"), "unix:"+s.LMTPSocket
			}
			begin := time.Now()
			if out, code := Run(t, "smtp-source", append(args, target)...); code != 0 || out != "" {
				t.Fatalf("smtp-source: exit code %d: %s", code, out)
			}
			t.Logf("%d mails in %v", mails, time.Since(begin).Round(time.Millisecond))
			files := s.Files("me@example.org", "")
			if len(files) != mails {
				t.Errorf("%d files for %d mails that were accepted", len(files), mails)
			}
			for _, f := range files {
				info, err := os.Stat(f)
				if err != nil {
					t.Fatal(err)
				}
				if info.Size() < size {
					t.Errorf("%s has %d octets", f, info.Size())
				}
			}
		})
	}
}

// A load delivers mails over several connections and notes each that was accepted.
type load struct {
	sluice *Sluice
	quit   chan struct{}
	ended  sync.WaitGroup
	next   atomic.Int64

	mu       sync.Mutex
	accepted []int64
}

func startLoad(s *Sluice, workers int) *load {
	l := &load{sluice: s, quit: make(chan struct{})}
	for n := range workers {
		l.ended.Go(func() { // ends with stop
			for {
				select {
				case <-l.quit:
					return
				default:
				}
				if err := l.connection(n%2 == 1); err != nil {
					time.Sleep(5 * time.Millisecond) // it is being killed, or is not back yet
				}
			}
		})
	}
	return l
}

// connection sends mails over one connection until it breaks or the load ends.
func (l *load) connection(lmtp bool) error {
	address, hello := l.sluice.SMTP, "EHLO load.example"
	if lmtp {
		address, hello = l.sluice.LMTP, "LHLO load.example"
	}
	c, err := DialClient(address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Expect("250", "%s", hello); err != nil {
		return err
	}
	for range 50 {
		select {
		case <-l.quit:
			return nil
		default:
		}
		n := l.next.Add(1)
		text := fmt.Sprintf("Subject: load\r\nX-Number: %d\r\n\r\n%s\r\nend %d\r\n", n, strings.Repeat("a line of text\r\n", 1+rand.IntN(200)), n)
		replies, err := c.Mail(lmtp, "a@sender.example", []string{"me@example.org"}, text)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(replies[0], "250") {
			return errors.New(replies[0])
		}
		l.mu.Lock()
		l.accepted = append(l.accepted, n)
		l.mu.Unlock()
	}
	return nil
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

func (l *load) stop() []int64 {
	close(l.quit)
	l.ended.Wait()
	return l.accepted
}

// Whatever was answered with 250 is there, whole, after kill -9 twenty times under load; and nothing that is there is
// half a mail.
func TestEvery250SurvivesKill9(t *testing.T) {
	const kills = 20
	s := quiet(t)
	l := startLoad(s, 10)
	for range kills {
		before := l.count()
		Eventually(t, func() error {
			if l.count() < before+20 {
				return fmt.Errorf("only %d mails were accepted since the last kill", l.count()-before)
			}
			return nil
		})
		time.Sleep(rand.N(50 * time.Millisecond)) // a kill may come at any moment
		s.Kill9()
		s.Start()
	}
	accepted := l.stop()
	found := map[int64]int{}
	for _, f := range s.Files("me@example.org", "") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nX-Number: ")
		var n int64
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Errorf("%s is no mail of ours: %.200q", f, b)
			continue
		}
		if !strings.HasSuffix(string(b), fmt.Sprintf("\nend %d\n", n)) {
			t.Errorf("%s is cut off: it has %d octets", f, len(b))
		}
		found[n]++
	}
	for _, n := range accepted {
		if found[n] == 0 {
			t.Errorf("mail %d was accepted and is lost", n)
		}
	}
	t.Logf("%d mails accepted, %d found after %d kills", len(accepted), len(found), kills)
	if len(accepted) < 20*kills {
		t.Errorf("only %d mails were accepted", len(accepted))
	}
	// The folder is served after all that: each file has one UID.
	got := Python(t, imaplib, Port(s.IMAP), "me@example.org", Password)
	if want := fmt.Sprintf("INBOX %d\n", len(s.Files("me@example.org", ""))); !strings.Contains(got, want) {
		t.Errorf("imaplib does not say %q but %.200q", want, got)
	}
}

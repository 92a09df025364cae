package smtp_test

import (
	"fmt"
	netsmtp "net/smtp"
	"strings"
	"sync"
	"testing"

	"sluice/protocols/peertest"
)

// Every 250 is one copy, with many clients at once.
func TestManyClients(t *testing.T) {
	d := open(t, nil)
	const clients, mails = 20, 10
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for j := range mails {
				text := fmt.Sprintf("Subject: %d of %d\r\n\r\n%s\r\n", j, i, strings.Repeat("text\r\n.\r\n", 100))
				err := netsmtp.SendMail(d.l.Addr().String(), nil, "s@client.example", []string{"me@example.org", "you@example.org"}, []byte(text))
				if err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	for _, account := range []string{"me@example.org", "you@example.org"} {
		got := d.store.got(account)
		seen := map[string]bool{}
		for _, m := range got {
			_, text, _ := strings.Cut(m.text, "Subject: ")
			subject, body, _ := strings.Cut(text, "\r\n\r\n")
			if body != strings.Repeat("text\r\n.\r\n", 100)+"\r\n" {
				t.Fatalf("%s: the body was changed: %q", subject, body)
			}
			seen[subject] = true
		}
		if len(got) != clients*mails || len(seen) != clients*mails {
			t.Errorf("%s: %d mails, %d different", account, len(got), len(seen))
		}
	}
}

// Postfix's load generator, by both protocols.
func TestSMTPSource(t *testing.T) {
	peertest.Need(t, "smtp-source")
	for _, protocol := range []string{"SMTP", "LMTP"} {
		t.Run(protocol, func(t *testing.T) {
			args := []string{"-s", "10", "-m", "200", "-l", "10240", "-f", "s@client.example", "-t", "me@example.org"}
			d := open(t, func(d *door) {
				if protocol == "LMTP" {
					lmtp(d)
					args = append(args, "-L")
				}
			})
			if out, code := peertest.Run(t, "smtp-source", append(args, d.l.Addr().String())...); code != 0 {
				t.Fatalf("exit %d: %s", code, out)
			}
			if n := len(d.store.got("me@example.org")); n != 200 {
				t.Errorf("%d mails", n)
			}
		})
	}
}

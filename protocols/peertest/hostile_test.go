package peertest

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// smuggled is what a client hides in a body: if a server takes what stands before it for the end of the data, this is a
// second mail.
const smuggled = "MAIL FROM:<evil@sender.example>\r\nRCPT TO:<me@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n"

// Only CR LF . CR LF ends a message (RFC 5321, 4.1.1.4).
func TestNothingElseEndsAMessage(t *testing.T) {
	s := quiet(t)
	for _, door := range []string{"SMTP", "LMTP"} {
		for _, end := range []string{
			"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n", "\r\n.\x00\r\n", "\x00\r\n\x00.\r\n",
			"\r\r\n.\r\r\n", "\n\n.\n\n", "\r\n .\r\n",
		} {
			t.Run(fmt.Sprintf("%s %q", door, end), func(t *testing.T) {
				address, hello := s.SMTP, "EHLO"
				if door == "LMTP" {
					address, hello = s.LMTP, "LHLO"
				}
				c, err := DialClient(address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for _, line := range []string{"250 " + hello + " client.example", "250 MAIL FROM:<a@sender.example>", "250 RCPT TO:<me@example.org>", "354 DATA"} {
					code, line, _ := strings.Cut(line, " ")
					if _, err := c.Expect(code, "%s", line); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := io.WriteString(c, "Subject: outer\r\n\r\ntext"+end+smuggled+"QUIT\r\n"); err != nil {
					t.Fatal(err)
				}
				// One answer to one message, whatever it is; then the answer to QUIT, or the end.
				replies := c.Rest()
				if n := strings.Count(replies, "250 "); n > 1 {
					t.Errorf("%d mails were accepted:\n%s", n, replies)
				}
			})
		}
	}
	for _, folder := range []string{"", "Junk"} {
		for _, mail := range s.texts("me@example.org", folder) {
			if strings.Contains(mail, "Return-Path: <evil@sender.example>") || strings.HasPrefix(mail, "Subject: smuggled") {
				t.Errorf("a smuggled mail was filed:\n%s", mail)
			}
		}
	}
}

// texts returns the mails that a folder has now.
func (s *Sluice) texts(account, folder string) []string {
	return s.Mails(account, folder, len(s.Files(account, folder)))
}

// A read timeout inside DATA ends the connection: what comes after it is no command.
func TestATimeoutInDATAEndsTheConnection(t *testing.T) {
	for _, door := range []string{"smtp", "lmtp"} {
		t.Run(door, func(t *testing.T) {
			s := StartSluice(t, SluiceConfig{
				YAML:     "domains: [example.org]\nlimits: {read_timeout: 2s, smtp: {command_timeout: 10s}, lmtp: {command_timeout: 10s}}\npipeline: []\n",
				Accounts: []string{"me@example.org"},
			})
			address, hello := s.SMTP, "EHLO"
			if door == "lmtp" {
				address, hello = s.LMTP, "LHLO"
			}
			c, err := DialClient(address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, line := range []string{"250 " + hello + " client.example", "250 MAIL FROM:<a@sender.example>", "250 RCPT TO:<me@example.org>", "354 DATA"} {
				code, line, _ := strings.Cut(line, " ")
				if _, err := c.Expect(code, "%s", line); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.WriteString(c, "Subject: slow\r\n\r\nhalf a mail\r\n"); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			first, err := c.Reply() // it comes when the server has waited long enough
			if err == nil && !strings.HasPrefix(first, "421") {
				t.Errorf("the server says %q", first)
			}
			if waited := time.Since(begin); waited > time.Minute {
				t.Errorf("after %v", waited)
			}
			// The rest of the body, with commands in it, as if nothing had happened.
			_, _ = io.WriteString(c, "RSET\r\n"+smuggled) // the connection may be closed already
			if rest := c.Rest(); strings.Contains(rest, "250") || strings.Contains(rest, "354") {
				t.Errorf("the body was taken for commands:\n%s", rest)
			}
			if n := len(s.Files("me@example.org", "")); n != 0 {
				t.Errorf("%d mails were filed", n)
			}
		})
	}
}

// A stage that cannot answer meets the policy that the configuration says, and the record says so. No mail is lost, and
// none passes silently.
func TestStagesThatFail(t *testing.T) {
	for _, does := range []string{"fail", "panic", "hang"} {
		for policy, want := range map[string]string{"skip": "250", "postpone": "451", "refuse": "550"} {
			t.Run(does+" "+policy, func(t *testing.T) {
				t.Parallel()
				s := StartSluice(t, SluiceConfig{
					Main: "protocols/peertest/testdata/moody",
					YAML: fmt.Sprintf("domains: [example.org]\npipeline:\n  - moody: {does: %s, on_error: %s, timeout: 300ms}\n"+
						"  - rules: {files: [rules.yaml]}\n", does, policy),
					Files: map[string]string{"rules.yaml": "rules:\n  - name: good_mood\n    when: moody.mood == \"good\"\n    score: 1\n" +
						"  - name: no_bad_mood\n    when: moody.mood != \"bad\"\n    reject: 5.7.1 the mood is not bad\n"},
					Accounts: []string{"me@example.org"},
				})
				for n := range 3 { // it goes on working, or not working
					c, err := DialClient(s.SMTP)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					if _, err := c.Expect("250", "EHLO client.example"); err != nil {
						t.Fatal(err)
					}
					id := fmt.Sprintf("mood%d@sender.example", n)
					replies, err := c.Mail(false, "a@sender.example", []string{"me@example.org"}, "Message-ID: <"+id+">\r\n\r\ntext\r\n")
					if err != nil || !strings.HasPrefix(replies[0], want) {
						t.Fatalf("%q, %v; want %s", replies, err, want)
					}
					r := s.records(id)
					if len(r) != 1 || len(r[0].Steps) != 2 {
						t.Fatalf("the records are %+v", r)
					}
					stage := r[0].Steps[0].Stages[0]
					if stage.State != "error" || stage.OnError == nil || stage.OnError.String() != policy || stage.Why == "" {
						t.Errorf("the record says %+v", stage)
					}
					// What is not known is neither good nor not bad.
					if len(r[0].Steps[1].Hits) != 0 {
						t.Errorf("rules held: %+v", r[0].Steps[1].Hits)
					}
				}
				filed := 0
				if policy == "skip" {
					filed = 3
				}
				s.Mails("me@example.org", "", filed)
				if policy == "skip" {
					if text := s.Explain("mood0@sender.example"); !strings.Contains(text, "could not be decided") {
						t.Errorf("explain does not say that rules were left undecided:\n%s", text)
					}
				}
			})
		}
	}
}

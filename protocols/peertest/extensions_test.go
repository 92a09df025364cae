package peertest

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

func extended(t *testing.T) *Sluice {
	t.Helper()
	return StartSluice(t, SluiceConfig{
		YAML: "domains: [example.org, bücher.example]\npipeline:\n  - rules: {files: [rules.yaml]}\n",
		Files: map[string]string{"rules.yaml": `rules:
  - {name: named, when: client.name == "bad.example", reject: 5.7.1 says named}
  - {name: known, when: client.ip == "192.0.2.7" and not client.trusted, score: 1}
  - {name: ours, when: client.login == "me@example.org", score: 2}
`},
		Accounts: []string{"me@example.org", "grüße@bücher.example", "plain@bücher.example"},
	})
}

func TestXCLIENTBySwaks(t *testing.T) {
	Need(t, "swaks")
	s := extended(t)
	send := func(id string, args ...string) (string, int) {
		return Swaks(t, append([]string{"--server", s.SMTP, "--from", "a@sender.example", "--to", "me@example.org", "--helo", "client.example",
			"--data", "Subject: hello\nMessage-ID: <" + id + "@sender.example>\n\ntext\n"}, args...)...)
	}
	if out, code := send("plain", "--xclient-addr", "192.0.2.7", "--xclient-name", "client.example", "--xclient-delim", "--xclient-login", "me@example.org"); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	r := s.records("plain@sender.example")[0]
	if r.Client.Addr.String() != "192.0.2.7" || r.Client.Name != "client.example" || r.Client.Login != "me@example.org" || r.Client.Trusted || r.Greeting != "client.example" {
		t.Errorf("recorded %+v, %q", r.Client, r.Greeting)
	}
	mail := s.Mails("me@example.org", "", 1)[0]
	for _, want := range []string{"from client.example ([192.0.2.7]) by sluice.example.org with ESMTPA", "X-Sluice-Hits: known=1, ours=2\n"} {
		if !strings.Contains(strings.ReplaceAll(mail, "\n ", " "), want) {
			t.Errorf("no %q in\n%s", want, mail)
		}
	}
	if out, code := send("bad", "--xclient", "ADDR=192.0.2.8 NAME=bad.example"); code == 0 || !strings.Contains(out, "550 5.7.1 says named") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// Postfix passes SMTPUTF8 on, and what the sender asked for, by LMTP; the account is found by any form of its address.
func TestSMTPUTF8ThroughPostfix(t *testing.T) {
	s := extended(t)
	p := StartPostfix(t, PostfixConfig{Main: map[string]string{
		"virtual_mailbox_domains": "example.org, xn--bcher-kva.example, bücher.example", "virtual_transport": "lmtp:unix:" + s.LMTPSocket,
		"smtputf8_enable": "yes",
	}})
	for n, address := range []string{s.SMTP, p.Address} {
		c, err := DialClient(address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		id := fmt.Sprintf("utf8.%d@sender.example", n)
		for _, line := range []string{
			"250 EHLO client.example", "250 MAIL FROM:<jörg@sender.example> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=e+2B1",
			"250 RCPT TO:<gru\u0308ße@bücher.example> NOTIFY=FAILURE ORCPT=utf-8;gr\\x{FC}\\x{DF}e@b\\x{FC}cher.example", "354 DATA",
			"250 Subject: häm\r\nMessage-ID: <" + id + ">\r\n\r\nüü\r\n.",
		} {
			code, line, _ := strings.Cut(line, " ")
			if _, err := c.Expect(code, "%s", line); err != nil {
				t.Fatal(err)
			}
		}
		mails := s.Mails("grüße@bücher.example", "", n+1)
		mail := mails[len(mails)-1]
		for _, want := range []string{"Return-Path: <jörg@sender.example>\n", "Delivered-To: grüße@bücher.example\n", "Subject: häm\n", "\n\nüü\n"} {
			if !strings.Contains(mail, want) {
				t.Errorf("%d: no %q in\n%s", n, want, mail)
			}
		}
		if with := []string{"with UTF8SMTP", "with UTF8LMTP"}[n]; !strings.Contains(strings.ReplaceAll(mail, "\n ", " "), with) {
			t.Errorf("no %q in\n%s", with, mail)
		}
		r := s.records(id)[0]
		if !r.Asked.UTF8 || r.Asked.Body != "8BITMIME" || r.Asked.Return != "HDRS" || r.Asked.EnvelopeID != "e+2B1" ||
			r.Recipients[0].Notify != "FAILURE" || r.Recipients[0].Original.Local != "grüße" {
			t.Errorf("%d: recorded %+v, %+v", n, r.Asked, r.Recipients[0].Recipient)
		}
	}
	// Without the parameter there is only ASCII: the other name of the same domain leads there too.
	c, err := DialClient(s.SMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, line := range []string{
		"250 EHLO client.example", "555 MAIL FROM:<a@sender.example> REQUIRETLS", "250 MAIL FROM:<a@sender.example>",
		"553 RCPT TO:<grüße@bücher.example>", "550 RCPT TO:<nobody@xn--bcher-kva.example>", "550 RCPT TO:<me@elsewhere.example>",
		"250 RCPT TO:<plain@XN--bcher-kva.example>", "354 DATA", "250 Subject: x\r\n\r\ntext\r\n.",
	} {
		code, line, _ := strings.Cut(line, " ")
		if _, err := c.Expect(code, "%s", line); err != nil {
			t.Error(err)
		}
	}
	mail := s.Mails("plain@bücher.example", "", 1)[0]
	if !strings.Contains(mail, "Delivered-To: plain@xn--bcher-kva.example\n") || strings.Contains(mail, "ü") {
		t.Errorf("not ASCII:\n%s", mail)
	}
}

// What is sent with BODY=8BITMIME is read again octet for octet, by DATA and by BDAT.
func TestEightBitsEndToEnd(t *testing.T) {
	Need(t, "curl")
	s := extended(t)
	var all strings.Builder
	for c := range 256 {
		if c != '\r' && c != '\n' {
			all.WriteByte(byte(c))
		}
	}
	body := all.String() + "\r\n.\r\n..x\r\n \r\n" + strings.Repeat("\xfc", 5000) + "\r\n\r\nno line end but this\r\n"
	for n, by := range []string{"DATA", "BDAT"} {
		c, err := DialClient(s.SMTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, line := range []string{"250 EHLO client.example", "250 MAIL FROM:<a@sender.example> BODY=8BITMIME", "250 RCPT TO:<me@example.org>"} {
			code, line, _ := strings.Cut(line, " ")
			if _, err := c.Expect(code, "%s", line); err != nil {
				t.Fatal(err)
			}
		}
		text := "Subject: bits\r\n\r\n" + body
		if by == "DATA" {
			if _, err := c.Expect("354", "DATA"); err != nil {
				t.Fatal(err)
			}
			text = strings.ReplaceAll(text, "\r\n.", "\r\n..") + ".\r\n"
		} else {
			text = fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text)
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if reply, err := c.Reply(); err != nil || !strings.HasPrefix(reply, "250") {
			t.Fatalf("%s: %q, %v", by, reply, err)
		}
		got := Curl(t, "--user", "me@example.org:"+Password, fmt.Sprintf("imap://%s/INBOX;MAILINDEX=%d;SECTION=TEXT", s.IMAP, n+1))
		if got != body {
			t.Errorf("%s: read %q, sent %q", by, got, body)
		}
	}
}

// A stranger's message with a CR or LF alone is refused and its connection ended, whatever follows. From others it is
// mended: nothing on disk, and nothing that goes on, ends a line that was none.
func TestBareNewlines(t *testing.T) {
	s := extended(t)
	for _, end := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\r\n.\r\r\n", "\r\n.\r\r\n"} {
		for _, from := range []string{"192.0.2.7", ""} {
			before := len(s.Files("me@example.org", ""))
			c, err := DialClient(s.SMTP)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			lines := []string{"250 EHLO client.example", "250 MAIL FROM:<a@sender.example>", "250 RCPT TO:<me@example.org>", "354 DATA"}
			if from != "" {
				lines = append([]string{"220 XCLIENT ADDR=" + from}, lines...)
			}
			for _, line := range lines {
				code, line, _ := strings.Cut(line, " ")
				if _, err := c.Expect(code, "%s", line); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.WriteString(c, "Subject: outer\r\n\r\ntext"+end+smuggled+"QUIT\r\n"); err != nil {
				t.Fatal(err)
			}
			replies := c.Rest()
			if from != "" {
				if !strings.HasPrefix(replies, "550 5.5.2 bare ") || strings.Count(replies, "\n") != 1 {
					t.Errorf("%q from a stranger: %q", end, replies)
				}
				if n := len(s.Files("me@example.org", "")); n != before {
					t.Errorf("%q from a stranger: filed", end)
				}
				continue
			}
			if strings.Count(replies, "250 ") != 1 {
				t.Errorf("%q from a trusted client: %q", end, replies)
			}
			files := s.Files("me@example.org", "")
			if len(files) != before+1 {
				t.Fatalf("%q from a trusted client: %d files more", end, len(files)-before)
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(b), "\r") {
					t.Errorf("%q from a trusted client: there is a CR on disk: %q", end, b)
				}
			}
		}
	}
}

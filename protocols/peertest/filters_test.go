package peertest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"sluice/pipeline"
)

// Mail goes through opendkim, rspamd and SpamAssassin, and comes out as the example says. Without one of them it goes on
// as the configuration says.
func TestExampleBesideRspamd(t *testing.T) {
	Need(t, "swaks", "rspamd", "spamd", "opendkim")
	rspamd, spamd := StartRspamd(t, ""), StartSpamd(t, "header SENDER EnvelopeFrom =~ /@sender\\.example$/\nscore SENDER 6\n")
	opendkim := StartOpendkim(t, OpendkimConfig{Unix: true, Text: "AlwaysAddARHeader yes\n"})
	dir, smtp, imap := TempDir(t), Address(t), Address(t)
	moved := strings.NewReplacer(
		"/var/lib/sluice", filepath.Join(dir, "sluice-data"), `":25"`, strconv.Quote(smtp), `":143"`, strconv.Quote(imap),
		"/run/opendkim/opendkim.sock", opendkim.Socket, "127.0.0.1:11333", rspamd.Address, "127.0.0.1:11332", rspamd.Milter,
		"127.0.0.1:783", spamd.Address,
	)
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join(root(), "examples", "beside-rspamd", file))
		if err != nil {
			t.Fatal(err)
		}
		return moved.Replace(string(b))
	}
	s := NewSluice(t, SluiceConfig{
		Dir: dir, Whole: true, YAML: read("sluice.yaml"), Accounts: []string{"me@example.org"},
		Files: map[string]string{"theirs.yaml": read("theirs.yaml"), "ours.yaml": read("ours.yaml")},
	})
	rspamd.Stop()
	s.Run("check") // which asks nobody
	rspamd.Start()
	s.Start()
	send := func(id, body string) (transcript string, code int) {
		return Swaks(t, "--server", smtp, "--from", "a@sender.example", "--to", "me@example.org", "--helo", "client.example",
			"--header", "Message-Id: <"+id+">", "--header", "Subject: you have won a prize", "--body", body)
	}

	if out, code := send("ham@x", "hello"); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	if mail := s.Mails("me@example.org", "", 1)[0]; !strings.Contains(mail, "\nAuthentication-Results: mx.example.org;") {
		t.Errorf("opendkim's field is not in\n%s", mail)
	}
	said := s.Explain("ham@x")
	for _, want := range []string{
		`action: "no action"`, "rules: [SENDER]", " [{name: Authentication-Results", "candidate                    (shadow: recorded only)\n      scanned          true",
		"ours/spamassassin_alone", "ours/prize",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("explain does not say %q:\n%s", want, said)
		}
	}

	if out, code := send("spam@x", GTUBE); code == 0 || !strings.Contains(out, "550 5.7.1 this looks like spam") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if said := s.Explain("spam@x"); !strings.Contains(said, "GTUBE") {
		t.Errorf("explain:\n%s", said)
	}

	spamd.Stop()
	opendkim.Stop()
	if out, code := send("two@x", "hello"); code != 0 {
		t.Errorf("without SpamAssassin and opendkim: exit code %d:\n%s", code, out)
	}
	if said := s.Explain("two@x"); !strings.Contains(said, "ask spamd at "+spamd.Address) || !strings.Contains(said, "ask opendkim at "+opendkim.Socket) {
		t.Errorf("explain does not say who is away:\n%s", said)
	}
	rspamd.Stop()
	if out, code := send("three@x", "hello"); code == 0 || !strings.Contains(out, "451 4.7.1 our filter is away") {
		t.Errorf("without rspamd: exit code %d:\n%s", code, out)
	}
	rspamd.Start()
	if out, code := send("four@x", "hello"); code != 0 {
		t.Errorf("with rspamd again: exit code %d:\n%s", code, out)
	}
	s.Mails("me@example.org", "", 3)
}

// signedBy signs a mail with bare LF, and returns it with the key's record in the DNS.
func signedBy(t *testing.T, domain, selector, mail string) (text, record string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = dkim.Sign(&b, strings.NewReader(strings.ReplaceAll(mail, "\n", "\r\n")), &dkim.SignOptions{
		Domain: domain, Selector: selector, Signer: private, HeaderKeys: []string{"From", "To", "Subject", "Message-ID"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(b.String(), "\r\n", "\n"), "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)
}

// Postfix asks us by the milter protocol, and we ask rspamd, SpamAssassin and opendkim: what they say is told to Postfix's
// client, what opendkim writes is in the mail that is filed, and who is away is named.
func TestFiltersBehindPostfix(t *testing.T) {
	Need(t, "postfix", "swaks", "rspamd", "spamd", "opendkim")
	const domain = "sender.example"
	mail := func(id, body string) string {
		return "From: a@" + domain + "\nTo: me@example.org\nSubject: folded\n  and spaced\nMessage-ID: <" + id + ">\n\n" + body + "\n"
	}
	signed, record := signedBy(t, domain, "s1", mail("clean@x", "hello"))
	rspamd, spamd := StartRspamd(t, ""), StartSpamd(t, "header SENDER EnvelopeFrom =~ /@sender\\.example$/\nscore SENDER 2\n")
	opendkim := StartOpendkim(t, OpendkimConfig{Keys: map[string]string{"s1._domainkey." + domain: record}})
	s := StartSluice(t, SluiceConfig{
		YAML: fmt.Sprintf(`domains: [example.org]
trusted: [127.0.0.0/8]
pipeline:
  - milter: {name: opendkim, address: "inet:%s", act: [headers]}
  - rspamd: {address: %q, on_error: postpone}
  - spamd: {address: %q}
  - rules: {files: [rules.yaml]}
`, opendkim.Address, rspamd.Address, spamd.Address),
		Files: map[string]string{"rules.yaml": `rules:
  - {name: both, when: rspamd.action == "reject" and spamd.spam, reject: 5.7.1 both say spam}
  - {name: one, when: rspamd.action == "reject" or spamd.spam, reject: 5.7.1 one says spam}
`},
		Accounts: []string{"me@example.org"},
	})
	postfix := StartPostfix(t, PostfixConfig{Main: map[string]string{
		"smtpd_milters": "unix:" + s.MilterSocket, "milter_default_action": "tempfail", "virtual_transport": "lmtp:unix:" + s.LMTPSocket,
	}})
	send := func(text, want string) {
		t.Helper()
		out, code := Swaks(t, "--server", postfix.Address, "--xclient", "ADDR=192.0.2.7 NAME=client.example", "--helo", "client.example",
			"--from", "a@"+domain, "--to", "me@example.org", "--data", text)
		if (code == 0) != strings.HasPrefix(want, "250") || !strings.Contains(out, want) {
			t.Fatalf("exit code %d, no %q:\n%s", code, want, out)
		}
	}

	const forged = "Authentication-Results: mx.example.org; dkim=pass header.d=bank.example\n"
	send(forged+signed, "250 2.0.0 Ok: queued")
	filed := s.Mails("me@example.org", "", 1)[0]
	head, _, _ := strings.Cut(strings.ReplaceAll(filed, "\n\t", " "), "\n\n")
	var results []string
	for line := range strings.Lines(head) {
		if strings.HasPrefix(line, "Authentication-Results:") {
			results = append(results, line)
		}
	}
	if len(results) != 1 || !strings.Contains(results[0], "mx.example.org;") || !strings.Contains(results[0], "dkim=pass") ||
		!strings.Contains(results[0], domain) {
		t.Errorf("opendkim's own field, and none in its name, is not in\n%s", filed)
	}
	known := map[string]string{} // by step, what it found at the milter door
	for _, r := range s.records("clean@x") {
		if r.Door != pipeline.Milter {
			continue
		}
		for _, step := range r.Steps {
			if step.Fact == nil {
				continue
			}
			var b bytes.Buffer
			if err := json.Compact(&b, step.Fact); err != nil {
				t.Errorf("%s: %v", step.Name, err)
			}
			known[step.Name] = b.String()
		}
	}
	for step, want := range map[string]string{"opendkim": "dkim=pass", "rspamd": `"action":"no action"`, "spamd": `"SENDER"`} {
		if fact := known[step]; !strings.Contains(fact, want) {
			t.Errorf("the record says of %s: %s", step, fact)
		}
	}

	send(mail("spam@x", GTUBE), "550 5.7.1 both say spam")
	if said := s.Explain("spam@x"); !strings.Contains(said, "GTUBE") || !strings.Contains(said, "rules/both") {
		t.Errorf("explain:\n%s", said)
	}

	spamd.Stop() // which is skipped
	send(mail("second@x", "hello"), "250 2.0.0 Ok: queued")
	send(mail("spam2@x", GTUBE), "550 5.7.1 one says spam")
	if said := s.Explain("second@x"); !strings.Contains(said, "ask spamd at "+spamd.Address) {
		t.Errorf("explain does not say who is away:\n%s", said)
	}
	rspamd.Stop() // without which nothing is taken
	send(mail("third@x", "hello"), "451 4.")
	if said := s.Explain("third@x"); !strings.Contains(said, "ask rspamd at "+rspamd.Address) {
		t.Errorf("explain does not say who is away:\n%s", said)
	}
	rspamd.Start()
	send(mail("third@x", "hello"), "250 2.0.0 Ok: queued")
	s.Mails("me@example.org", "", 3)
}

package peertest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
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
		`action: "no action"`, "rules: [SENDER]", "headers: [{name: Authentication-Results", "verdict: accept} (shadow: recorded only)",
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

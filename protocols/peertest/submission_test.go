package peertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Real mail programs hand in mail, and it goes to the world by a real Postfix as smarthost; a refusal of it comes back as a
// report and is counted.
func TestSubmissionByPostfix(t *testing.T) {
	Need(t, "swaks", "python3", "mutt")
	far := StartSluice(t, SluiceConfig{YAML: "domains: [far.example]\npipeline: []\n", Accounts: []string{"friend@far.example"}})
	p := StartPostfix(t, PostfixConfig{Main: map[string]string{
		"virtual_mailbox_domains": "far.example",
		"virtual_transport":       "lmtp:unix:" + far.LMTPSocket,
		"virtual_mailbox_maps":    "inline:{friend@far.example=x}",
	}})
	starttls, implicit, imap := Address(t), Address(t), Address(t)
	near := StartSluice(t, SluiceConfig{
		Whole: true,
		YAML: fmt.Sprintf(`hostname: sluice.example.org
data: $DIR/sluice-data
domain: example.org
listen: {submission: [%q], submissions: [%q], imap: [%q]}
relay: {smarthost: [%q], tls: none}
pipeline: []
outgoing:
  - rules: {rules: [{name: prize, when: 'subject contains "prize"', reject: 5.7.1 no prizes from here}]}
`, starttls, implicit, imap, p.Address),
		Accounts: []string{"me@example.org"},
	})
	send := func(id, to string, args ...string) (string, int) {
		return Swaks(t, append([]string{"--from", "me@example.org", "--to", to, "--data",
			fmt.Sprintf("From: me@example.org\nTo: %s\nMessage-ID: <%s>\nSubject: %s\n\n%s\n", to, id, id, "text")}, args...)...)
	}
	for _, tt := range []struct {
		name string
		args []string
		ok   bool
		says string
	}{
		{"plain", []string{"--server", starttls, "--tls", "--auth", "PLAIN", "-au", "me@example.org", "-ap", Password}, true, "235 2.7.0"},
		{"login", []string{"--server", implicit, "--tlsc", "--auth", "LOGIN", "-au", "me", "-ap", Password}, true, "235 2.7.0"},
		{"pipelined", []string{"--server", starttls, "--tls", "--pipeline", "--auth", "PLAIN", "-au", "me", "-ap", Password}, true, "250 2.0.0"},
		{"nobody", []string{"--server", starttls, "--tls"}, false, "530 5.7.0"},
		{"wrong", []string{"--server", starttls, "--tls", "--auth", "PLAIN", "-au", "me", "-ap", "wrong"}, false, "535 5.7.8"},
		{"prize", []string{"--server", implicit, "--tlsc", "--auth", "PLAIN", "-au", "me", "-ap", Password}, false, "550 5.7.1 no prizes from here"},
	} {
		if out, code := send(tt.name, "friend@far.example", tt.args...); (code == 0) != tt.ok || !strings.Contains(out, tt.says) {
			t.Errorf("%s: exit %d\n%s", tt.name, code, out)
		}
	}
	Python(t, `
import smtplib, ssl, sys
context = ssl._create_unverified_context()
host, port = sys.argv[1].rsplit(":", 1)
with smtplib.SMTP(host, int(port)) as c:
    c.starttls(context=context)
    c.login("me", sys.argv[2])
    c.sendmail("me@example.org", ["friend@far.example"], b"From: me@example.org\r\nMessage-ID: <python>\r\nSubject: python\r\n\r\n.\r\ntext\r\n",
        mail_options=["RET=HDRS"], rcpt_options=["NOTIFY=FAILURE"])
    try:
        c.sendmail("you@example.org", ["friend@far.example"], b"From: me@example.org\r\n\r\ntext\r\n")
        raise SystemExit("somebody else's sender was taken")
    except smtplib.SMTPSenderRefused as e:
        assert e.smtp_code == 550, e
`, starttls, Password)
	mutt(t, near, implicit)
	got := strings.Join(far.Mails("friend@far.example", "", 5), "\n")
	for _, id := range []string{"plain", "login", "pipelined", "python", "by mutt"} {
		if n := strings.Count(got, "Subject: "+id+"\n"); n != 1 {
			t.Errorf("%s has arrived %d times\n%s", id, n, got)
		}
	}
	if !strings.Contains(got, "\n\n.\ntext\n") || strings.Contains(got, "127.0.0.1]) by sluice.example.org") {
		t.Errorf("it has arrived as\n%s", got)
	}

	// Postfix refuses a recipient: the sender gets a report, and the account has one failure more.
	if out, code := send("gone", "nobody@far.example", "--server", implicit, "--tlsc", "--auth", "PLAIN", "-au", "me", "-ap", Password); code != 0 {
		t.Fatal(out)
	}
	report := near.Mails("me@example.org", "", 1)[0]
	if !strings.Contains(report, "multipart/report") || !strings.Contains(report, "nobody@far.example") {
		t.Errorf("the report\n%s", report)
	}
	Eventually(t, func() error {
		if out := near.Run("user", "show", "me@example.org"); !strings.Contains(out, "1 recipients in a day that there are not") {
			return fmt.Errorf("user show says\n%s", out)
		}
		return nil
	})
}

// mutt sends a mail. It takes the certificate of the server for one that its user has accepted.
func mutt(t *testing.T, s *Sluice, address string) {
	t.Helper()
	certificates, err := filepath.Glob(filepath.Join(s.Data, "*", "cert.pem"))
	if err != nil || len(certificates) == 0 {
		t.Fatalf("no certificate in %s", s.Data)
	}
	rc := filepath.Join(TempDir(t), "muttrc")
	text := fmt.Sprintf(`set from = "me@example.org" realname = "Me" use_envelope_from = yes envelope_from_address = "me@example.org"
set smtp_url = "smtps://me@%s" smtp_pass = %q smtp_authenticators = "plain"
set ssl_verify_host = no ssl_verify_dates = no certificate_file = %q ssl_force_tls = yes
set copy = no hostname = "laptop.example.org"
`, address, Password, certificates[0])
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := Run(t, "sh", "-c", `echo "sent by mutt" | mutt -F "$1" -s "by mutt" friend@far.example`, "sh", rc); code != 0 {
		t.Fatalf("mutt: %d\n%s", code, out)
	}
}

package peertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Postfix's pipe(8) hands mail to sluice deliver as somebody who is in deliver_group and deliver_users, and reads its exit
// codes.
func TestPostfixPipe(t *testing.T) {
	Need(t, "postfix", "swaks")
	if os.Geteuid() != 0 {
		lack(t, "postfix: needs root")
	}
	s := StartSluice(t, SluiceConfig{
		YAML: "domains: [example.org]\ndeliver_group: \"65534\"\ndeliver_users: [\"65534\"]\npipeline:\n  - rules: {files: [rules.yaml]}\n",
		Files: map[string]string{"rules.yaml": "rules:\n  - name: known\n    when: client.ip == \"192.0.2.7\" and helo == \"client.example\"\n" +
			"    file: Known\n  - name: later\n    when: subject == \"later\"\n    tempfail: 4.7.1 not yet\n"},
		Accounts: []string{"me@example.org"},
	})
	if out, err := exec.Command("chmod", "a+x", s.Dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program := filepath.Join(s.Dir, "sluice")
	if out, err := exec.Command("install", "-m", "0755", s.program, program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p := StartPostfix(t, PostfixConfig{
		Main: map[string]string{
			"virtual_mailbox_domains": "example.org", "virtual_transport": "sluice", "sluice_destination_recipient_limit": "1",
			"local_recipient_maps": "", "smtpd_recipient_restrictions": "reject_unauth_destination",
		},
		MasterText: "sluice unix - n n - - pipe flags=DR user=nobody argv=" + program + " --data " + s.Data + " deliver\n" +
			"  --from=${sender} --client-ip=${client_address} --helo=${client_helo} -- ${recipient}\n",
	})
	send := func(to, subject string) {
		t.Helper()
		out, code := Swaks(t, "--server", p.Address, "--from", "a@sender.example", "--to", to, "--xclient", "ADDR=192.0.2.7 NAME=client.example",
			"--helo", "client.example", "--header", "Subject: "+subject)
		if code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
	}
	send("me@example.org", "hello")
	mail := s.Mails("me@example.org", "Known", 1)[0]
	for field, n := range map[string]int{"Return-Path: <a@sender.example>": 1, "Return-Path:": 1, "Delivered-To: me@example.org": 1, "Delivered-To:": 1} {
		if got := strings.Count(mail, field); got != n {
			t.Errorf("%d times %q:\n%s", got, field, mail)
		}
	}
	send("nobody@example.org", "hello")
	p.WaitLog("dsn=5.1.1, status=bounced (nobody@example.org: no such user here")
	send("me@example.org", "later")
	p.WaitLog("dsn=4.7.1, status=deferred (me@example.org: not yet")
	s.Stop()
	send("me@example.org", "away")
	p.WaitLog("status=deferred (temporary failure. Command output: sluice: no server answers")
}

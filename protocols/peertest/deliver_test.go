package peertest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sluice/pipeline"
)

// forEverybody installs the program where every user of the machine can run it.
func (s *Sluice) forEverybody() (program string) {
	s.t.Helper()
	if out, err := exec.Command("chmod", "a+x", s.Dir).CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	program = filepath.Join(s.Dir, "sluice")
	if out, err := exec.Command("install", "-m", "0755", s.program, program).CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	return program
}

// housemates returns two users of the machine, neither root, who have a primary group in common: local(8) drops all
// others. Every Debian has some in nogroup.
func housemates(t *testing.T) (group string, first, second *user.User) {
	t.Helper()
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]*user.User{}
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, ":")
		u, err := user.Lookup(name)
		if err != nil || u.Uid == "0" || u.Gid == "0" || u.Username == "postfix" {
			continue
		}
		if first := seen[u.Gid]; first != nil {
			return u.Gid, first, u
		}
		seen[u.Gid] = u
	}
	lack(t, "two users with one primary group are needed")
	return "", nil, nil
}

// Postfix's local(8) runs sluice deliver as the recipient: as mailbox_command, and from a .forward. What that says of
// the client counts of a user in deliver_users only; of others what Postfix has written into the mail does.
func TestPostfixLocal(t *testing.T) {
	Need(t, "postfix", "swaks")
	if os.Geteuid() != 0 {
		lack(t, "postfix: needs root")
	}
	group, boxed, forwarding := housemates(t)
	first, second := boxed.Username+"@example.org", forwarding.Username+"@example.org"
	s := StartSluice(t, SluiceConfig{
		YAML: fmt.Sprintf("domains: [example.org]\ndeliver_group: %q\ndeliver_users: [%s]\npipeline:\n  - rules: {files: [rules.yaml]}\n", group, boxed.Username),
		Files: map[string]string{"rules.yaml": "rules:\n  - name: told\n    when: client.ip == \"192.0.2.7\" and helo == \"told-client.example\"\n" +
			"    file: Told\n  - name: read\n    when: client.ip == \"192.0.2.7\" and helo == \"client.example\"\n    file: Read\n" +
			"  - name: later\n    when: subject == \"later\"\n    tempfail: 4.7.1 not yet\n"},
		Accounts: []string{first, second},
	})
	command := s.forEverybody() + " --data " + s.Data + " deliver"
	dir := TempDir(t)
	forward := filepath.Join(dir, "forward-"+forwarding.Username)
	pipe := `"|` + command + ` --from=\"$SENDER\" --client-ip=203.0.113.9 --helo=forged.example -- \"$RECIPIENT\""` + "\n"
	if err := os.WriteFile(forward, []byte(pipe), 0o600); err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(forwarding.Uid)
	gid, _ := strconv.Atoi(forwarding.Gid)
	if err := os.Chown(forward, uid, gid); err != nil {
		t.Fatal(err)
	}
	p := StartPostfix(t, PostfixConfig{Dir: dir, Main: map[string]string{
		"virtual_mailbox_domains": "", "mydestination": "example.org", "forward_path": "$DIR/forward-$user",
		"mailbox_command": command + ` --from="$SENDER" --client-ip="$CLIENT_ADDRESS" --helo="told-$CLIENT_HELO" -- "$RECIPIENT"`,
	}})
	send := func(to, subject string) {
		t.Helper()
		out, code := Swaks(t, "--server", p.Address, "--from", "a@sender.example", "--to", to, "--xclient", "ADDR=192.0.2.7 NAME=client.example",
			"--helo", "client.example", "--header", "Subject: "+subject, "--header", "Message-Id: <"+subject+"."+to+">")
		if code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
	}
	for _, x := range []struct{ to, folder, greeting string }{{first, "Told", "told-client.example"}, {second, "Read", "client.example"}} {
		send(x.to, "hello")
		mail := s.Mails(x.to, x.folder, 1)[0]
		for field, n := range map[string]int{"Return-Path: <a@sender.example>": 1, "Return-Path:": 1, "Delivered-To: " + x.to: 1, "Delivered-To:": 1} {
			if got := strings.Count(mail, field); got != n {
				t.Errorf("%s: %d times %q:\n%s", x.to, got, field, mail)
			}
		}
		r := s.records("hello." + x.to)[0]
		if r.Door != pipeline.Deliver || r.Client.Addr.String() != "192.0.2.7" || r.Greeting != x.greeting {
			t.Errorf("%s: recorded %s, %+v, %q", x.to, r.Door, r.Client, r.Greeting)
		}
	}
	if log := s.Log(); strings.Count(log, "it is not believed") != 1 || !strings.Contains(log, "203.0.113.9 forged.example") {
		t.Errorf("the log does not say, once, that somebody was not believed:\n%s", log)
	}
	send(first, "later")
	p.WaitLog("to=<" + first + ">, relay=local")
	p.WaitLog("dsn=4.7.1, status=deferred (")
	send(second, "later")
	p.WaitLog("to=<" + second + ">, relay=local")
	if strings.Contains(p.Log(), "status=bounced") {
		t.Error("bounced")
	}
}

// A pipe(8) that hands over several recipients at once comes again for all of them when one is postponed: nobody gets
// the mail twice.
func TestPostfixPipeForSeveral(t *testing.T) {
	Need(t, "postfix", "swaks")
	if os.Geteuid() != 0 {
		lack(t, "postfix: needs root")
	}
	later := "rules:\n  - name: later\n    when: rcpt.local == \"later\"\n    tempfail: 4.7.1 not yet\n"
	s := StartSluice(t, SluiceConfig{
		YAML:     "domains: [example.org]\ndeliver_group: \"65534\"\npipeline:\n  - rules: {files: [rules.yaml]}\n",
		Files:    map[string]string{"rules.yaml": later},
		Accounts: []string{"me@example.org", "you@example.org", "later@example.org"},
	})
	p := StartPostfix(t, PostfixConfig{
		Main: map[string]string{"virtual_mailbox_domains": "example.org", "virtual_transport": "sluice", "sluice_destination_recipient_limit": "10"},
		MasterText: "sluice unix - n n - - pipe flags=R user=nobody argv=" + s.forEverybody() + " --data " + s.Data + " deliver\n" +
			"  --from=${sender} -- ${recipient}\n",
	})
	out, code := Swaks(t, "--server", p.Address, "--from", "a@sender.example", "--to", "me@example.org,later@example.org,you@example.org")
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	Eventually(t, func() error {
		if n := strings.Count(s.Log(), "repeated=2"); n < 2 {
			return fmt.Errorf("tried again %d times", n)
		}
		return nil
	})
	s.write("rules.yaml", strings.Replace(later, `"later"`, `"nobody"`, 1))
	s.Run("reload")
	for _, to := range []string{"later@example.org", "me@example.org", "you@example.org"} {
		s.Mails(to, "", 1)
	}
	p.WaitLog("status=sent (delivered via sluice service")
}

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
	program := s.forEverybody()
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

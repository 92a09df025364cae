package peertest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sieveConnect runs sieve-connect over STARTTLS as a user of s.
func (s *Sluice) sieveConnect(account string, args ...string) (output string, code int) {
	s.t.Helper()
	return run(s.t, Password+"\n", "sieve-connect", append([]string{
		"--nosrv", "--4", "--server", "127.0.0.1", "--port", Port(s.ManageSieve), "--notlsverify", "--noclearchan",
		"--user", account, "--passwordfd", "0",
	}, args...)...)
}

// sieve-connect uploads, lists, activates, downloads and deletes scripts over STARTTLS.
func TestSieveConnect(t *testing.T) {
	Need(t, "sieve-connect")
	const user = "user@example.org"
	s := StartSluice(t, SluiceConfig{YAML: "pipeline: []\n", Accounts: []string{user}})
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(s.Dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	do := func(args ...string) string {
		t.Helper()
		out, code := s.sieveConnect(user, args...)
		if code != 0 {
			t.Fatalf("sieve-connect %s: exit code %d:\n%s", strings.Join(args, " "), code, out)
		}
		return out
	}
	const text = "require [\"fileinto\", \"mailbox\"];\nif header :contains \"Subject\" \"\u00fcber\" {\n  fileinto :create \"Work\";\n}\n"
	work := file("work.sieve", text)
	do("--localsieve", work, "--remotesieve", "work", "--upload")
	do("--localsieve", file("other.sieve", "keep;\n"), "--remotesieve", "other one", "--upload")
	do("--remotesieve", "work", "--activate")
	if out := do("--list"); !strings.Contains(out, `"work" ACTIVE`) || !strings.Contains(out, `"other one"`) {
		t.Errorf("list says %q", out)
	}
	back := filepath.Join(s.Dir, "back.sieve")
	do("--remotesieve", "work", "--localsieve", back, "--download")
	if got, err := os.ReadFile(back); err != nil || string(got) != text {
		t.Errorf("it comes back as %q, %v", got, err)
	}
	if got := s.Run("user", "sieve", "show", user, "work"); got != text {
		t.Errorf("it is kept as %q", got)
	}
	broken := file("broken.sieve", "require \"fileinto\";\nfileinto;\n")
	out, code := s.sieveConnect(user, "--localsieve", broken, "--remotesieve", "work", "--upload")
	if code == 0 || !strings.Contains(out, "line 2: column 1: ") {
		t.Errorf("a script with errors: exit code %d, %q", code, out)
	}
	if out, _ := s.sieveConnect(user, "--localsieve", broken, "--checkscript"); !strings.Contains(out, "line 2: column 1: ") {
		t.Errorf("checkscript says %q", out)
	}
	do("--remotesieve", "other one", "--delete")
	if out, code := s.sieveConnect(user, "--remotesieve", "work", "--delete"); code == 0 && !strings.Contains(out, "the script is active") {
		t.Errorf("the active script can be deleted: %q", out)
	}
	do("--deactivate")
	if out := do("--list"); strings.Contains(out, "ACTIVE") || strings.Contains(out, "other") || !strings.Contains(out, `"work"`) {
		t.Errorf("in the end list says %q", out)
	}
}

// A user of Roundcube makes a filter in the browser, and then another script with sieve-connect. The one that is active sorts
// the mail that Postfix brings.
func TestRoundcube(t *testing.T) {
	Need(t, "php", "postfix", "swaks", "sieve-connect")
	const user = "user@example.org"
	s := StartSluice(t, SluiceConfig{YAML: "pipeline:\n  - sieve: {}\n", Accounts: []string{user}})
	p := StartPostfix(t, PostfixConfig{Transport: []string{"example.org lmtp:unix:" + s.LMTPSocket}})
	u := StartRoundcube(t, s).Login(user, Password)
	u.Filter("Invoices & more", "Subject", `invoice "42"`, "Archive")
	if marks := u.Raw("roundcube", "require \"fileinto\";\nfileinto;\nkeep;\nnonsense;\n"); len(marks) != 2 ||
		!strings.HasPrefix(marks["2"], " column 1: fileinto lacks") || !strings.Contains(marks["4"], "nonsense") {
		t.Errorf("of a script with errors the editor marks %q", marks)
	}
	list := s.Run("user", "sieve", "list", user)
	name := list[strings.LastIndex(strings.TrimSpace(list), " ")+1:]
	if text := s.Run("user", "sieve", "show", user, strings.TrimSpace(name)); !strings.HasPrefix(list, "active ") ||
		!strings.Contains(text, `fileinto "Archive"`) {
		t.Errorf("there is %s\n%s", list, text)
	}
	send := func(subject string) {
		t.Helper()
		out, code := Swaks(t, "--server", p.Address, "--from", "a@sender.example", "--to", user, "--header", "Subject: "+subject)
		if code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
	}
	send(`your Invoice "42"`)
	send("your invoice")
	if mail := s.Mails(user, "Archive", 1)[0]; !strings.Contains(mail, `Subject: your Invoice "42"`) {
		t.Errorf("what was filed is\n%s", mail)
	}
	if mail := s.Mails(user, "", 1)[0]; !strings.Contains(mail, "Subject: your invoice\n") {
		t.Errorf("in the inbox is\n%s", mail)
	}

	file := filepath.Join(s.Dir, "offers.sieve")
	if err := os.WriteFile(file, []byte("require \"fileinto\";\nfileinto \"Junk\";\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, do := range [][]string{{"--localsieve", file, "--remotesieve", "offers", "--upload"}, {"--remotesieve", "offers", "--activate"}} {
		if out, code := s.sieveConnect(user, do...); code != 0 {
			t.Fatalf("sieve-connect %q: exit code %d:\n%s", do, code, out)
		}
	}
	send("an offer")
	if mail := s.Mails(user, "Junk", 1)[0]; !strings.Contains(mail, "Subject: an offer\n") {
		t.Errorf("what was filed is\n%s", mail)
	}
	if log := s.Run("user", "log", user); log != "" {
		t.Errorf("something went wrong: %s", log)
	}
}

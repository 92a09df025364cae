package peertest

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// An example is a folder below examples/ with its paths and ports led elsewhere, and nothing else changed.
type example struct {
	postfix *Postfix
	sluice  *Sluice
}

func startExample(t *testing.T, name string, accounts ...string) example {
	t.Helper()
	Need(t, "postfix", "swaks")
	if os.Geteuid() != 0 {
		lack(t, "postfix: needs root")
	}
	dir := TempDir(t)
	queue := filepath.Join(dir, "queue")
	imap, imaps, released := Address(t), Address(t), Address(t)
	moved := strings.NewReplacer(
		"/var/spool/postfix", queue,
		"/var/lib/sluice", filepath.Join(dir, "sluice-data"),
		`":143"`, strconv.Quote(imap), `":993"`, strconv.Quote(imaps),
		"127.0.0.1:10026", released,
	)
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join(root(), "examples", name, file))
		if err != nil {
			if os.IsNotExist(err) {
				return ""
			}
			t.Fatal(err)
		}
		return moved.Replace(string(b))
	}

	// README's first step.
	if want := "install -d -o root -g postfix -m 0750 " + filepath.Join(queue, "sluice"); !strings.Contains(read("README.md"), want) {
		t.Errorf("README.md does not say %q", want)
	}
	group, err := user.LookupGroup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(queue, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := Run(t, "install", "-d", "-o", "root", "-g", group.Gid, "-m", "0750", filepath.Join(queue, "sluice")); code != 0 {
		t.Fatal(out)
	}
	s := NewSluice(t, SluiceConfig{
		Dir: dir, Whole: true, YAML: read("sluice.yaml"),
		Files:    map[string]string{"rules.yaml": read("rules.yaml")},
		Accounts: accounts,
	})
	s.IMAP = imap
	s.Run("check")
	s.Start()
	// What a site has already, and the example leaves alone, is only what makes Postfix private to this test.
	p := StartPostfix(t, PostfixConfig{Dir: dir, Chroot: true, MainText: read("main.cf"), MasterText: read("master.cf"), Main: map[string]string{
		"virtual_transport": "discard",
	}})
	return example{p, s}
}

func (e example) send(to, subject string, more ...string) (transcript string, code int) {
	e.sluice.t.Helper()
	return Swaks(e.sluice.t, append([]string{
		"--server", e.postfix.Address, "--from", "a@sender.example", "--to", to, "--xclient", "ADDR=192.0.2.7 NAME=client.example",
		"--helo", "client.example", "--header", "Subject: " + subject,
	}, more...)...)
}

func TestExamplePostfixMilter(t *testing.T) {
	e := startExample(t, "postfix-milter")
	if out, code := e.send("me@example.org", "hello"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	e.postfix.WaitLog("to=<me@example.org>, relay=none")
	out, code := e.send("me@example.org", "hello", "--header", `Content-Type: application/x; name="run.exe"`)
	if code == 0 || !strings.Contains(out, "550 5.7.1 programs are not accepted by mail here") {
		t.Errorf("exit code %d:\n%s", code, out)
	}

	// Held, shown, released through the service that asks no milter.
	if out, code := e.send("me@example.org", "please hold this mail"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	list := e.sluice.Run("quarantine", "list")
	if !strings.Contains(list, "me@example.org") || !strings.Contains(list, "please hold this mail") {
		t.Fatalf("in quarantine:\n%s", list)
	}
	var id string
	for line := range strings.Lines(list) {
		if strings.Contains(line, "me@example.org") {
			id = strings.Fields(line)[0]
		}
	}
	e.sluice.Run("quarantine", "release", id)
	e.postfix.WaitLog("postfix/released/smtpd")
	if list := e.sluice.Run("quarantine", "list"); strings.Contains(list, "please hold this mail") {
		t.Errorf("still in quarantine:\n%s", list)
	}

	// From a program on this machine.
	if out, code := e.postfix.Submit("Subject: from cron\n\ntext\n", "-f", "cron@example.org", "local@example.org"); code != 0 {
		t.Fatal(out)
	}
	e.postfix.WaitLog("to=<local@example.org>, relay=none")

	// While Sluice is away nothing comes in unfiltered, and nothing is turned away for good.
	e.sluice.Stop()
	if out, code := e.send("me@example.org", "hello"); code == 0 || !strings.Contains(out, "451 4.7.1") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	e.sluice.Start()
	if out, code := e.send("me@example.org", "hello"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestExamplePostfixLMTP(t *testing.T) {
	e := startExample(t, "postfix-lmtp", "me@example.org", "robot@example.org")
	if out, code := e.send("me@example.org", "hello"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	mail := e.sluice.Mails("me@example.org", "", 1)[0]
	if n := strings.Count(mail, "X-Sluice-Id: "); n != 1 {
		t.Errorf("the mail has %d hand-over fields:\n%s", n, mail)
	}
	if out, code := e.send("me@example.org", "you have won"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	e.sluice.Mails("me@example.org", "Junk", 1)
	if out, code := e.send("me@example.org", "news", "--header", "List-Id: <l.sender.example>"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	e.sluice.Mails("me@example.org", "Lists", 1)

	out, code := e.send("robot@example.org", "re", "--header", "In-Reply-To: <x@example.org>")
	if code == 0 || !strings.Contains(out, "550 5.7.1 nobody reads mail to this address") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	// Nobody of that name: refused at RCPT, so nobody gets a bounce.
	out, code = e.send("nobody@example.org", "hello")
	if code == 0 || !strings.Contains(out, " 550 5.1.1 ") || strings.Contains(out, " 354 ") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if strings.Contains(e.postfix.Log(), "sender non-delivery notification") {
		t.Error("Postfix has bounced")
	}
	got := Curl(t, "--user", "me@example.org:"+Password, "imap://"+e.sluice.IMAP+"/Lists;MAILINDEX=1")
	if !strings.Contains(got, "Subject: news\r\n") {
		t.Errorf("curl reads %q", got)
	}
}

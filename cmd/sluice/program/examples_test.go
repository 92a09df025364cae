package program

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/protocols/peertest"
)

// example copies a folder below examples/, with what is to be replaced replaced, and returns where it is.
func example(t *testing.T, name string, replace ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "examples", name))); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	replacer := strings.NewReplacer(replace...)
	for _, e := range entries {
		text := replacer.Replace(read(t, dir, e.Name()))
		file := filepath.Join(dir, e.Name())
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o600); err != nil { // fetchmail insists
			t.Fatal(err)
		}
	}
	return dir
}

// up starts a server in a folder, and returns where its doors are.
func up(t *testing.T, dir string, args ...string) map[string]string {
	t.Helper()
	_, at := upWith(t, dir, nil, args...)
	return at
}

// upWith is up with more in the environment; end ends the server before the test does, and returns its log.
func upWith(t *testing.T, dir string, env []string, args ...string) (end func() (log string), at map[string]string) {
	t.Helper()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r, err := start(dir, append(os.Environ(), env...), out, args[0], args[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	end = func() string {
		_ = r.cmd.Process.Signal(os.Interrupt)
		<-r.exited
		return r.log.String()
	}
	t.Cleanup(func() {
		end()
		if t.Failed() {
			t.Logf("log of %v:\n%s", args, r.log)
		}
	})
	line, ok := r.log.wait(readyLine, r.exited)
	if !ok {
		t.Fatalf("not ready:\n%s", r.log)
	}
	at = map[string]string{}
	for _, d := range openDoor.FindAllStringSubmatch(line, -1) {
		at[d[1]] = d[2]
	}
	return end, at
}

// run runs a shell command in a folder, which must succeed, and returns what it says.
func run(t *testing.T, dir, command string) string {
	t.Helper()
	out, err := shell(dir, os.Environ(), command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("SLUICE_REQUIRE_PEERS") != "" {
				t.Fatalf("%s is not here", p)
			}
			t.Skipf("%s is not here", p)
		}
	}
}

func TestExampleStandalone(t *testing.T) {
	need(t, "curl")
	const free = `"127.0.0.1:0"`
	dir := example(t, "standalone", "/var/lib/sluice", "data", `":25"`, free, `":143"`, free, `":993"`, free, `":995"`, free, `":4190"`, free,
		"tls: {certificate: /etc/sluice/cert.pem, key: /etc/sluice/key.pem}\n", "",
		"- dnsbl: {lists: {zen: {zone: zen.spamhaus.org}}}", "- dnsbl: {lists: {zen: {zone: zen.invalid}}}")
	for _, account := range []string{"me", "you"} {
		run(t, dir, "echo secret | sluice -c sluice.yaml user add "+account+"@example.org --password-stdin")
	}
	run(t, dir, "sluice -c sluice.yaml user set you@example.org quota=20GiB")
	run(t, dir, "sluice -c sluice.yaml check")
	at := up(t, dir, "sluice", "-c", "sluice.yaml", "serve")
	send := func(to, from, fields string) (string, error) {
		mail := fmt.Sprintf("From: %s\\r\\nDate: Sun, 22 Nov 2026 10:00:00 +0000\\r\\n%s\\r\\ntext\\r\\n", from, fields)
		return shell(dir, os.Environ(), fmt.Sprintf(`printf '%s' | curl -sS smtp://%s/client.example --mail-from a@b.example --mail-rcpt %s -T -`, mail, at["smtp"], to))
	}
	for _, tt := range []struct{ to, fields, account, folder string }{
		{"info@example.org", "Subject: one\\r\\n", "you", "INBOX"},
		{"info@example.org", "Subject: one\\r\\n", "me", "INBOX"},
		{"whoever@example.org", "Subject: whoever\\r\\n", "me", "INBOX"},
		{"postmaster@example.org", "Subject: postmaster\\r\\n", "me", "INBOX"},
		{"sales@example.org", "Subject: list\\r\\nList-Id: <l.b.example>\\r\\n", "you", "Lists"},
		{"me@example.org", "Subject: you have won\\r\\n", "me", "Junk"},
	} {
		if out, err := send(tt.to, "a@b.example", tt.fields); err != nil {
			t.Errorf("to %s: %v\n%s", tt.to, err, out)
		}
		subject, _, _ := strings.Cut(tt.fields, "\\r")
		out := run(t, dir, fmt.Sprintf("curl -sSk --user %s:secret imaps://%s/%s -X 'FETCH 1:* BODY[HEADER]' -v 2>&1", tt.account, at["imaps"], tt.folder))
		if !strings.Contains(out, subject+"\r\n") {
			t.Errorf("to %s: not in %s of %s:\n%s", tt.to, tt.folder, tt.account, out)
		}
	}
	if out, err := send("me@example.org", "a@b.example, me@example.org", "Subject: two\\r\\n"); err != nil {
		t.Errorf("%v\n%s", err, out) // scored, and not refused
	}
	if out, err := send("me@example.com", "a@b.example", ""); err == nil || !strings.Contains(out, "550") {
		t.Errorf("relaying: %v\n%s", err, out)
	}
	if out := run(t, dir, "sluice -c sluice.yaml alias check info@example.org"); out != "me@example.org\nyou@example.org\n" {
		t.Errorf("alias check: %s", out)
	}
	folders := run(t, dir, fmt.Sprintf("curl -sSk --user me:secret imaps://%s/", at["imaps"]))
	for _, name := range []string{"Drafts", "Sent", "Junk", "Trash", "Archive"} {
		if !strings.Contains(folders, name) {
			t.Errorf("no folder %s:\n%s", name, folders)
		}
	}
	run(t, dir, "sluice -c sluice.yaml reload")
}

func TestExampleOwnStage(t *testing.T) {
	need(t, "curl")
	dir := t.TempDir()
	own := filepath.Join(dir, "own")
	if out, err := exec.Command("go", "build", "-ldflags=-w", "-o", own, filepath.Join(root, "examples", "own-stage")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := read(t, root, "examples/own-stage/sluice.yaml")
	if err := os.WriteFile(filepath.Join(dir, "sluice.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "echo secret | ./own -c sluice.yaml user add me@localhost --password-stdin")
	at := up(t, dir, own, "-c", "sluice.yaml", "serve", "--listen", "smtp=127.0.0.1:0")
	send := func(from string) (string, error) {
		return shell(dir, os.Environ(), fmt.Sprintf(`printf 'From: %s\r\nMessage-ID: <one@b.example>\r\n\r\ntext\r\n' | curl -sS smtp://%s --mail-from a@b.example --mail-rcpt me@localhost -T - -v 2>&1`, from, at["smtp"]))
	}
	if out, err := send(`"Ann  BOSS" <ann.boss@free.example>`); err == nil || !strings.Contains(out, "550 5.7.1 this name belongs to somebody else") {
		t.Errorf("somebody else: %v\n%s", err, out)
	}
	if out, err := send(`Ann Boss <Ann@Example.org>`); err != nil {
		t.Errorf("herself: %v\n%s", err, out)
	}
	if out := run(t, dir, "./own -c sluice.yaml explain one@b.example"); !strings.Contains(out, "impostor") {
		t.Errorf("explain says nothing of the stage:\n%s", out)
	}
	lines := strings.Count(read(t, root, "examples/own-stage/main.go"), "\n")
	if stage := strings.Count(read(t, root, "examples/own-stage/impostor.go"), "\n"); lines > 10 || stage > 80 {
		t.Errorf("the main has %d lines, the stage %d", lines, stage)
	}
}

// systemd's own programs find nothing wrong with the unit, and little that it could do.
func TestExampleSystemd(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not here") // nor need it be: it is no peer
	}
	sluice, err := exec.LookPath("sluice")
	if err != nil {
		t.Fatal(err)
	}
	dir := example(t, "systemd", "/usr/local/bin/sluice", sluice)
	unit := filepath.Join(dir, "sluice.service")
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "sluice.service") {
			t.Errorf("systemd-analyze verify: %s", line) // what it says of other units is not ours
		}
	}
	if err != nil && !t.Failed() {
		t.Logf("systemd-analyze verify: %v\n%s", err, out)
	}
	text := read(t, dir, "sluice.service")
	for _, want := range []string{"ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
		"SystemCallFilter=@system-service", "StateDirectory=sluice", "User=sluice"} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("the unit does not say %s", want)
		}
	}
	out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", unit).CombinedOutput()
	if strings.Contains(string(out), "unrecognized option") {
		t.Skip("this systemd-analyze looks at running units only")
	}
	level := regexp.MustCompile(`Overall exposure level for sluice.service: .*`).FindString(string(out))
	if err != nil {
		t.Errorf("systemd-analyze security: %v: %s\n%s", err, level, out)
	}
	t.Log(level)
}

func TestExampleFetchmail(t *testing.T) {
	need(t, "fetchmail", "curl")
	// The provider is a Sluice, too.
	provider := t.TempDir()
	run(t, provider, "echo secret | sluice --data data user add me.myself@localhost --password-stdin")
	there := up(t, provider, "sluice", "--data", "data", "serve", "--listen", "smtp=127.0.0.1:0", "--listen", "pop3=127.0.0.1:0")
	sluice, err := exec.LookPath("sluice")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	group := fmt.Sprint(os.Getgid())
	if os.Geteuid() == 0 {
		group = "65534"
	}
	_, port, err := net.SplitHostPort(there["pop3"])
	if err != nil {
		t.Fatal(err)
	}
	dir := example(t, "fetchmail", "/var/lib/sluice", data, "sluice-deliver", fmt.Sprintf("%q", group), `"127.0.0.1:143"`, `"127.0.0.1:0"`,
		"pop.provider.example protocol pop3 uidl", "127.0.0.1 protocol pop3 uidl port "+port, "    ssl\n", "    sslproto ''\n",
		"/usr/local/bin/sluice", sluice)
	const fetch = `fetchmail -f fetchmailrc --nosyslog --pidfile pid --idfile ids 2>&1`
	run(t, dir, "echo secret | sluice -c sluice.yaml user add me@example.org --password-stdin")
	bring := func(subject, field string) {
		t.Helper()
		run(t, dir, fmt.Sprintf(`printf 'From: a@b.example\r\nSubject: %s\r\n%s\r\ntext\r\n' | curl -sS smtp://%s --mail-from a@b.example --mail-rcpt me.myself@localhost -T -`, subject, field, there["smtp"]))
	}

	// While the server is away mail stays where it is.
	bring("one", "")
	if out, err := shell(dir, os.Environ(), fetch); !strings.Contains(out, "no server answers") || !strings.Contains(out, "not flushed") {
		t.Errorf("without a server: %v\n%s", err, out)
	}
	here := up(t, dir, "sluice", "-c", "sluice.yaml", "serve")
	bring("two", `X-Provider-Spam: yes\r\n`)
	run(t, dir, fetch)
	for folder, subject := range map[string]string{"INBOX": "one", "Junk": "two"} {
		out := run(t, dir, fmt.Sprintf("curl -sS --user me:secret 'imap://%s/%s;MAILINDEX=1'", here["imap"], folder))
		if !strings.Contains(out, "Subject: "+subject+"\r\n") || !strings.Contains(out, "Return-Path: <a@b.example>") ||
			!strings.Contains(out, "Delivered-To: me@example.org") || strings.Count(out, "Return-Path:") != 1 {
			t.Errorf("in %s:\n%s", folder, out)
		}
	}
	if out, err := shell(dir, os.Environ(), fetch); err == nil {
		t.Errorf("fetched again:\n%s", out)
	}
	for end := time.Now().Add(peertest.Patience); ; { // records are written soon, not at once
		out, err := shell(dir, os.Environ(), "sluice -c sluice.yaml explain $(basename "+data+"/mail/example.org/me/*/*,S=*)")
		if err == nil && strings.Contains(out, "at deliver") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("explain: %v\n%s", err, out)
		}
	}
}

package program

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// call runs sluice deliver as an MTA does, and returns what it ends with.
func (s *site) call(t *testing.T, mail string, rcpts ...string) (code int, says string) {
	t.Helper()
	says, code = s.tried(t, mail, append([]string{"-c", "sluice.yaml", "deliver", "--from", "a@b.example", "--"}, rcpts...)...)
	return code, says
}

// tried runs a subcommand that may fail.
func (s *site) tried(t *testing.T, stdin string, args ...string) (says string, code int) {
	t.Helper()
	cmd := exec.Command("sluice", args...)
	cmd.Dir, cmd.Stdin = s.dir, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (s *site) inboxes(t *testing.T) (mails map[string]int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "sluice-data/mail/example.org/*/new/*"))
	if err != nil {
		t.Fatal(err)
	}
	mails = map[string]int{}
	for _, f := range files {
		mails[filepath.Base(filepath.Dir(filepath.Dir(f)))]++
	}
	return mails
}

// One exit code is about all recipients. When an MTA calls again because one was postponed, the others have the mail
// already, and get it once: also where the server has crashed meanwhile.
func TestDeliverAgainAfterAPartialFailure(t *testing.T) {
	rules := func(when string) string {
		return "\naliases: {you@example.org: [me@example.org]}\npipeline:\n  - rules: {rules: [{name: later, when: '" + when + "', tempfail: 4.7.1 not yet}]}\n"
	}
	s := startSite(t, map[string]string{"sluice.yaml": rules(`rcpt.local == "later"`)}, "-c", "sluice.yaml", "--listen", "smtp=127.0.0.1:0")
	s.run(t, "secret", "user", "add", "later@example.org", "--password-stdin")
	const mail = "Message-ID: <one@b.example>\nSubject: one\n\ntext\n"
	again := "Received: from pop.example by here with POP3 (fetchmail-6.4.37)\n\tfor <me@localhost> (single-drop); now\n" + mail
	expect := func(step, mail string, code, me, later int, rcpts ...string) {
		t.Helper()
		got, says := s.call(t, mail, rcpts...)
		if n := s.inboxes(t); got != code || n["me"] != me || n["later"] != later {
			t.Fatalf("%s: exit code %d, want %d; %d and %d mails, want %d and %d\n%s", step, got, code, n["me"], n["later"], me, later, says)
		}
	}
	expect("the first attempt", mail, 75, 1, 0, "me@example.org", "later@example.org")
	expect("the second", again, 75, 1, 0, "me@example.org", "later@example.org")
	expect("another mail", strings.Replace(mail, "one@", "two@", 1), 0, 2, 0, "me@example.org")
	expect("for others", mail, 0, 3, 0, "you@example.org")

	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.exited
	expect("without a server", mail, 75, 3, 0, "me@example.org", "later@example.org")
	if err := os.WriteFile(filepath.Join(s.dir, "sluice.yaml"), []byte(rules("false")), 0o600); err != nil {
		t.Fatal(err)
	}
	restarted, err := start(s.dir, os.Environ(), io.Discard, "sluice", "serve", "-c", "sluice.yaml", "--listen", "smtp=127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = restarted.cmd.Process.Kill()
		<-restarted.exited
	})
	if _, ok := restarted.log.wait(readyLine, restarted.exited); !ok {
		t.Fatalf("does not start again:\n%s", restarted.log)
	}
	expect("the last attempt", again, 0, 3, 1, "me@example.org", "later@example.org")
	// The line of a mail may come after its answer.
	repeated := regexp.MustCompile(`.*became="(delivered=1,repeated=1|repeated=1,delivered=1)".*\n`)
	if line, ok := restarted.log.wait(repeated, restarted.exited); !ok || !strings.Contains(line, "served by ") {
		t.Errorf("the log does not say that it was a repeated call:\n%s", restarted.log)
	}
	out := s.explain(t, "nothing again: 250 2.0.0 accepted before as ", "-c", "sluice.yaml", "one@b.example")
	for _, want := range []string{"decided by an earlier attempt", "served by "} {
		if !strings.Contains(out, want) {
			t.Errorf("explain does not say %q:\n%s", want, out)
		}
	}
	expect("the same mail, sent once more", mail, 0, 4, 2, "me@example.org", "later@example.org")
}

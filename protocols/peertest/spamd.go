package peertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A Spamd is a running spamd of SpamAssassin that knows GTUBE and the rules it was given: nothing of the network, no
// Bayes.
type Spamd struct {
	Address string
	Dir     string

	t       testing.TB
	process *process
}

// GTUBE is the line that every filter takes for spam.
const GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

// StartSpamd starts a spamd for the test. rules are lines for its configuration besides GTUBE; "" is none.
func StartSpamd(t testing.TB, rules string) *Spamd {
	t.Helper()
	Need(t, "spamd")
	s := &Spamd{t: t, Address: Address(t), Dir: TempDir(t)}
	for name, text := range map[string]string{
		"rules/10.cf": "required_score 5\nbody GTUBE /XJS\\*C4JDBQADN1\\.NSBN3\\*2IDNEN\\*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL\\*C\\.34X/\n" +
			"score GTUBE 1000\n" + rules,
		"site/init.pre": "loadplugin Mail::SpamAssassin::Plugin::Check\n",
		"home/empty":    "",
	} {
		file := filepath.Join(s.Dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("the log of spamd:\n%s", tail(s.Log(), 60))
		}
	})
	s.Start()
	return s
}

// Start starts it, again if it was stopped or killed, and waits until it listens.
func (s *Spamd) Start() {
	s.t.Helper()
	path, err := lookPath("spamd")
	if err != nil {
		s.t.Fatal(err)
	}
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close() // the program has its own copy
	home := filepath.Join(s.Dir, "home")
	args := []string{
		"--local", "--nouser-config", "--listen", s.Address, "--max-children=2", "--min-children=1", "--min-spare=1",
		"--max-spare=1", "--configpath", filepath.Join(s.Dir, "rules"), "--siteconfigpath", filepath.Join(s.Dir, "site"),
		"--helper-home-dir", home, "--syslog", "stderr", "--pidfile", filepath.Join(s.Dir, "pid"),
	}
	if os.Geteuid() == 0 {
		args = append(args, "--username", "nobody") // it does not scan as root
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = s.Dir, append(os.Environ(), fmt.Sprintf("HOME=%s", home))
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = start(cmd); err != nil {
		s.t.Fatal(err)
	}
	if err := eventually(func() error { return answers(s.Address) }, s.process.done); err != nil {
		s.t.Fatalf("start spamd: %v\n%s", err, tail(s.Log(), 60))
	}
}

// Stop ends it at once, with its children.
func (s *Spamd) Stop() {
	if s.process != nil {
		s.process.kill(syscall.SIGKILL)
		<-s.process.done
		s.process = nil
	}
}

// Log returns what spamd has logged so far.
func (s *Spamd) Log() string {
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *Spamd) logPath() string { return filepath.Join(s.Dir, "log") }

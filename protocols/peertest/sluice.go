package peertest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// SluiceConfig says how Sluice is run.
type SluiceConfig struct {
	// YAML is the configuration without `listen:`, `data:` and `hostname:`, which are written here. $DIR in it is the
	// folder of this Sluice.
	YAML string
	// Whole says that YAML is all there is.
	Whole bool
	// Files are written beside the configuration: rule files, say.
	Files map[string]string
	// Accounts are made before the first start, each with the password "secret".
	Accounts []string
	// Main is the folder of another main package to build, relative to the module; "" is cmd/sluice.
	Main string
	// Args are further arguments of serve.
	Args []string
	// Dir is the folder to use, from TempDir; "" makes one.
	Dir string
}

// Password is the password of all accounts.
const Password = "secret"

// A Sluice is the real program, built from this tree, with a data folder of its own.
type Sluice struct {
	// Addresses of its doors.
	SMTP, LMTP, Milter, IMAP, POP3, ManageSieve string
	// LMTPSocket and MilterSocket are unix sockets that Postfix may use.
	LMTPSocket, MilterSocket string

	Dir  string // everything of this Sluice
	Data string // its data folder

	t       testing.TB
	program string
	args    []string
	process *process
}

// StartSluice builds the program, makes the accounts, and starts `sluice serve` on free ports. It returns once all doors
// are open, and ends it after the test.
func StartSluice(t testing.TB, c SluiceConfig) *Sluice {
	t.Helper()
	s := NewSluice(t, c)
	s.Start()
	return s
}

// NewSluice is StartSluice without the start.
func NewSluice(t testing.TB, c SluiceConfig) *Sluice {
	t.Helper()
	dir := c.Dir
	if dir == "" {
		dir = TempDir(t)
	}
	s := &Sluice{
		SMTP: Address(t), LMTP: Address(t), Milter: Address(t), IMAP: Address(t), POP3: Address(t), ManageSieve: Address(t),
		LMTPSocket: filepath.Join(dir, "lmtp.sock"), MilterSocket: filepath.Join(dir, "milter.sock"),
		Dir: dir, Data: filepath.Join(dir, "sluice-data"),
		t: t, program: build(t, c.Main), args: c.Args,
	}
	text := strings.ReplaceAll(c.YAML, "$DIR", dir)
	if !c.Whole {
		text = s.head() + text
	}
	s.write("sluice.yaml", text)
	for name, text := range c.Files {
		s.write(name, text)
	}
	for _, a := range c.Accounts {
		s.AddUser(a, Password)
	}
	t.Cleanup(func() {
		if s.process != nil {
			if err := s.process.stop(Patience); err != nil {
				t.Errorf("stop sluice: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("the log of Sluice:\n%s", tail(s.Log(), 100))
		}
	})
	return s
}

// head is the part of the configuration that every test has alike.
func (s *Sluice) head() string {
	socket := func(path string) string {
		if os.Geteuid() != 0 {
			return fmt.Sprintf("{address: %q}", "unix:"+path)
		}
		return fmt.Sprintf("{address: %q, mode: 0666}", "unix:"+path)
	}
	return fmt.Sprintf(`hostname: sluice.example.org
data: %q
listen:
  smtp: [%q]
  lmtp: [%q, %s]
  milter: [%q, %s]
  imap: [%q]
  pop3: [%q]
  managesieve: [%q]
`, s.Data, s.SMTP, s.LMTP, socket(s.LMTPSocket), s.Milter, socket(s.MilterSocket), s.IMAP, s.POP3, s.ManageSieve)
}

func (s *Sluice) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

var ready = regexp.MustCompile(`(?m)msg"?[=:] ?"?ready\b`)

// Start starts the program, again if it was stopped or killed, and waits until it is ready.
func (s *Sluice) Start() {
	s.t.Helper()
	begin := len(s.Log())
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close() // the program has its own copy
	cmd := s.Command(append([]string{"serve"}, s.args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = start(cmd); err != nil {
		s.t.Fatal(err)
	}
	err = eventually(func() error {
		if !ready.MatchString(s.Log()[begin:]) {
			return errors.New("the program has not said that it is ready")
		}
		return nil
	}, s.process.done)
	if err != nil {
		s.t.Fatalf("start sluice: %v\n%s", err, tail(s.Log()[begin:], 60))
	}
}

// Stop ends the program as an administrator would, and fails the test if it does not end, or with an error.
func (s *Sluice) Stop() {
	s.t.Helper()
	if err := s.process.stop(Patience); err != nil {
		s.t.Errorf("stop sluice: %v", err)
	}
	if s.process.err != nil {
		s.t.Errorf("stop sluice: %v", s.process.err)
	}
}

// Kill9 ends the program as a power cut would, but for what the system still writes.
func (s *Sluice) Kill9() {
	s.t.Helper()
	s.process.kill(syscall.SIGKILL)
	<-s.process.done
}

// Restart is Stop and Start.
func (s *Sluice) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// Log returns what the program has written so far.
func (s *Sluice) Log() string {
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		return ""
	}
	return string(b)
}

func (s *Sluice) logPath() string { return filepath.Join(s.Dir, "sluice.log") }

// Command returns a run of the program with this configuration.
func (s *Sluice) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.program, append([]string{"-c", filepath.Join(s.Dir, "sluice.yaml")}, args...)...)
	cmd.Dir = s.Dir
	return cmd
}

// Run runs a subcommand and returns what it has written on standard output. It fails the test if the program does.
func (s *Sluice) Run(args ...string) string {
	s.t.Helper()
	out, err := s.try("", args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *Sluice) try(stdin string, args ...string) (string, error) {
	cmd := s.Command(args...)
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("sluice %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return out.String(), nil
}

// AddUser makes an account.
func (s *Sluice) AddUser(account, password string) {
	s.t.Helper()
	if _, err := s.try(password+"\n", "user", "add", account, "--password-stdin"); err != nil {
		s.t.Fatal(err)
	}
}

// Explain waits until `sluice explain` finds the record of key, with what shadow steps have found, and returns what it says.
func (s *Sluice) Explain(key string, args ...string) string {
	s.t.Helper()
	var out string
	Eventually(s.t, func() (err error) {
		out, err = s.try("", append([]string{"explain", key}, args...)...)
		if err == nil && strings.Contains(out, "not finished: it is asked after the door has answered") {
			return errors.New("shadow steps are still asked")
		}
		return err
	})
	return out
}

// Files returns the paths of the mails in a folder of an account, by name; "" is the inbox.
func (s *Sluice) Files(account, folder string) []string {
	s.t.Helper()
	local, domain, _ := strings.Cut(account, "@")
	dir := filepath.Join(s.Data, "mail", domain, local)
	if folder != "" {
		dir = filepath.Join(dir, "."+strings.ReplaceAll(folder, "/", "."))
	}
	var files []string
	for _, sub := range []string{"new", "cur"} {
		found, err := filepath.Glob(filepath.Join(dir, sub, "*"))
		if err != nil {
			s.t.Fatal(err)
		}
		files = append(files, found...)
	}
	return files
}

// Mails waits until a folder of an account has n mails and returns them.
func (s *Sluice) Mails(account, folder string, n int) []string {
	s.t.Helper()
	var files []string
	Eventually(s.t, func() error {
		if files = s.Files(account, folder); len(files) != n {
			return fmt.Errorf("%s %s has %d mails, not %d", account, folder, len(files), n)
		}
		return nil
	})
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, string(b))
	}
	return out
}

// Port returns the port of an address.
func Port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// built are the programs that were built, by main package.
type built struct {
	mu       sync.Mutex
	programs map[string]string
}

var allBuilt = built{programs: map[string]string{}}

// build builds a main package of this module, once in each test process.
func build(t testing.TB, main string) string {
	t.Helper()
	if main == "" {
		main = "cmd/sluice"
	}
	allBuilt.mu.Lock()
	defer allBuilt.mu.Unlock()
	if p := allBuilt.programs[main]; p != "" {
		return p
	}
	Need(t, "go")
	dir := buildDir(t)
	program := filepath.Join(dir, strings.ReplaceAll(main, "/", "-"))
	cmd := exec.Command("go", "build", "-ldflags=-w", "-o", program, "./"+main) // nobody debugs it
	cmd.Dir = root()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build ./%s: %v\n%s", main, err, out)
	}
	allBuilt.programs[main] = program
	return program
}

// root returns the module's folder.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// buildDir returns a folder for the programs of this process. There is no moment at which the last test is known to be
// over, so each process removes the folders of those that have ended.
func buildDir(t testing.TB) string {
	t.Helper()
	all := filepath.Join(os.TempDir(), "sluice-peertest-"+strconv.Itoa(os.Getuid()))
	old, _ := filepath.Glob(filepath.Join(all, "*"))
	for _, dir := range old {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir)
		}
	}
	dir := filepath.Join(all, strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

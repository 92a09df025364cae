// Package peertest starts real mail programs for tests: Postfix, swaks, curl, and Sluice itself. Everything runs
// privately, with its own configuration and spool in a temporary folder and on loopback ports that are free. Nothing
// under /etc is read for writing, no service is touched, and what was started is ended by its process id.
//
// On a machine without a program the tests that need it are skipped and say so. With SLUICE_REQUIRE_PEERS=1 in the
// environment, as in CI, they fail.
package peertest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for something that a program is going to do. What takes a moment takes its time on a
// machine with two processors and more to do.
const Patience = 2 * time.Minute

// Need skips the test if one of the programs is not installed; with SLUICE_REQUIRE_PEERS=1 it fails. Programs are looked
// for in PATH and where system programs are.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	var missing []string
	for _, p := range programs {
		if _, err := lookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		lack(t, strings.Join(missing, ", ")+": not installed")
	}
}

// lack skips the test, or fails it where peers are required.
func lack(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("SLUICE_REQUIRE_PEERS") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + program); err == nil {
			return path, nil
		}
	}
	return "", err
}

// TempDir makes a folder with a short name that every user of the machine can enter, and removes it after the test.
// Short, because the path of a unix socket has at most 107 octets; open, because mail programs change their user.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "peer") //nolint:usetesting // its folders have long names and are closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ports remembers which ports were given out, so that two programs that start at once don't get the same: not two of this
// process, and, since packages are tested at the same time, not two of two processes.
type ports struct {
	mu    sync.Mutex
	given map[int]bool
	locks *os.File // one octet is one port, locked by the process that gave it out; the system unlocks it when that ends
}

var allPorts = ports{given: map[int]bool{}}

// reserve makes port ours until this process ends, or says that it belongs to another process.
func (p *ports) reserve(port int) (bool, error) {
	if p.given[port] {
		return false, nil
	}
	if p.locks == nil {
		path := filepath.Join(os.TempDir(), fmt.Sprintf("sluice-test-ports-%d", os.Getuid()))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return false, err
		}
		p.locks = f
	}
	err := syscall.FcntlFlock(p.locks.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Start: int64(port), Len: 1})
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", p.locks.Name(), err)
	}
	p.given[port] = true
	return true, nil
}

// Address returns an address on loopback, "127.0.0.1:23456", that nobody listens on and that no other test is given until
// this process ends. It lies below the range from which the system takes ports for outgoing connections.
func Address(t testing.TB) string {
	t.Helper()
	allPorts.mu.Lock()
	defer allPorts.mu.Unlock()
	for range 1000 {
		port := 12000 + rand.IntN(20000)
		ours, err := allPorts.reserve(port)
		if err != nil {
			t.Fatal(err)
		}
		if !ours {
			continue
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		_ = l.Close()
		return address
	}
	t.Fatal("no free port")
	return ""
}

// Eventually waits until ok returns nil, and fails the test with its last error if that takes longer than Patience.
func Eventually(t testing.TB, ok func() error) {
	t.Helper()
	if err := eventually(ok, nil); err != nil {
		t.Fatal(err)
	}
}

// eventually asks ok again and again until it is content, Patience is at its end, or dead is closed.
func eventually(ok func() error, dead <-chan struct{}) error {
	timeout := time.After(Patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-dead:
			return fmt.Errorf("it has ended: %w", err)
		case <-timeout:
			return fmt.Errorf("after %v: %w", Patience, err)
		}
	}
}

// answers reports whether somebody listens at address, "host:port" or a path.
func answers(address string) error {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// A process is a program in a process group of its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of Wait, once done
}

// start runs cmd with a process group of its own.
func start(cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the process
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// kill sends sig to the process and, with SIGKILL, to its whole group.
func (p *process) kill(sig syscall.Signal) {
	pid := p.cmd.Process.Pid
	if sig == syscall.SIGKILL {
		_ = syscall.Kill(-pid, sig) // what it has started
	}
	select {
	case <-p.done: // the id may belong to another process by now
	default:
		_ = syscall.Kill(pid, sig)
	}
}

// stop asks the process to end, and ends what is left of its group after a time.
func (p *process) stop(within time.Duration) error {
	p.kill(syscall.SIGTERM)
	var err error
	select {
	case <-p.done:
	case <-time.After(within):
		err = fmt.Errorf("still there %v after SIGTERM", within)
	}
	p.kill(syscall.SIGKILL)
	<-p.done
	return err
}

// run runs a program and returns what it has said, on both streams, and its exit code. It has three minutes.
func run(t testing.TB, stdin string, program string, args ...string) (output string, code int) {
	t.Helper()
	Need(t, program)
	path, _ := lookPath(program)
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	return finish(t, cmd)
}

// finish runs cmd, which has three minutes, and returns what it has said, on both streams, and its exit code.
func finish(t testing.TB, cmd *exec.Cmd) (output string, code int) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(3 * time.Minute):
		p.kill(syscall.SIGKILL)
		<-p.done
		t.Fatalf("%s takes longer than three minutes; so far it said:\n%s", cmd, out.String())
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		t.Fatalf("%s: %v", cmd, p.err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// Run runs a program with nothing to read and returns what it has said, on both streams, and its exit code.
func Run(t testing.TB, program string, args ...string) (output string, code int) {
	t.Helper()
	return run(t, "", program, args...)
}

// Swaks sends one mail with swaks and returns the transcript and swaks's exit code: 0 if the mail was accepted.
func Swaks(t testing.TB, args ...string) (transcript string, code int) {
	t.Helper()
	return run(t, "", "swaks", args...)
}

// Curl runs curl and returns what it has written. It fails the test if curl does.
func Curl(t testing.TB, args ...string) string {
	t.Helper()
	out, code := run(t, "", "curl", append([]string{"--silent", "--show-error", "--max-time", "120"}, args...)...)
	if code != 0 {
		t.Fatalf("curl %s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

// Python runs a Python program with arguments and returns what it has written. It fails the test if the program does.
func Python(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, code := run(t, program, "python3", append([]string{"-"}, args...)...)
	if code != 0 {
		t.Fatalf("python3: exit code %d: %s", code, out)
	}
	return out
}

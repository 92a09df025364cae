package program

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/protocols/peertest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sluice": func() { Main(Stages()...) },
		"own":    func() { Main(append(Stages(), moody())...) }, // a site's own program with a stage of its own
		"noon":   func() { mainAt(noon(), Stages()) },           // sluice, begun at noon, UTC, of the day that NOON names
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			servers := &servers{running: map[string]*running{}}
			e.Values[serversKey{}] = servers
			e.Defer(servers.killAll)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":      serveScript,
			"finish":     finishScript,
			"eventually": eventuallyScript,
			"password":   passwordScript,
			"stale":      staleScript,
			"nobody":     nobodyScript,
			"send":       sendScript,
			"talk":       talkScript,
			"greeting":   greetingScript,
			"hangup":     hangupScript,
			"as":         asScript,
			"explains":   explainsScript,
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("no condition %q", name)
		},
	})
}

type serversKey struct{}

// servers are the programs that a script has started.
type servers struct{ running map[string]*running }

type running struct {
	cmd    *exec.Cmd
	log    *watched
	exited chan error
}

func (s *servers) killAll() {
	for _, r := range s.running {
		_ = r.cmd.Process.Kill()
		<-r.exited
	}
}

// watched is a log that can be waited for.
type watched struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newWatched() *watched { return &watched{changed: make(chan struct{})} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
	return w.text.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// wait returns once the text matches, or false when until is closed before.
func (w *watched) wait(want *regexp.Regexp, until <-chan error) (match string, ok bool) {
	deadline := time.After(peertest.Patience)
	for last := false; ; {
		w.mu.Lock()
		match, changed := want.FindString(w.text.String()), w.changed
		w.mu.Unlock()
		if match != "" || last {
			return match, match != ""
		}
		select {
		case <-changed:
		case <-deadline:
			last = true
		case <-until:
			last = true // all it has said is there now
		}
	}
}

var (
	readyLine = regexp.MustCompile(`(?m)^.*("msg":"ready"|msg=ready ).*$`)
	openDoor  = regexp.MustCompile(`\b(smtp|lmtp|milter|submission|submissions|imap|imaps|pop3|pop3s|managesieve|admin)"?[=:]"?([^\s"]+)`)
)

// serve NAME PROGRAM ARGS… starts a program, waits until it is ready, and sets $smtp, $imap … to where its
// doors are. What it prints is in NAME.out and, after finish, its log in NAME.log.
func serveScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: serve NAME PROGRAM ARGS…")
	}
	out, err := os.Create(ts.MkAbs(args[0] + ".out"))
	ts.Check(err)
	defer out.Close()
	r, err := start(ts.MkAbs("."), environment(ts), out, args[1], args[2:]...)
	ts.Check(err)
	ts.Value(serversKey{}).(*servers).running[args[0]] = r
	line, ok := r.log.wait(readyLine, r.exited)
	if !ok {
		ts.Fatalf("%s did not get ready:\n%s", args[0], r.log)
	}
	for _, door := range openDoor.FindAllStringSubmatch(line, -1) {
		ts.Setenv(door[1], door[2])
	}
}

func environment(ts *testscript.TestScript) []string {
	env := os.Environ()
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

func start(dir string, env []string, out io.Writer, name string, args ...string) (*running, error) {
	r := &running{cmd: exec.Command(executable(env, name), args...), log: newWatched(), exited: make(chan error, 1)}
	r.cmd.Dir, r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = dir, env, out, r.log
	return r, r.launch()
}

func (r *running) launch() error {
	if err := r.cmd.Start(); err != nil {
		return err
	}
	go func() { // until the program has ended
		r.exited <- r.cmd.Wait()
		close(r.exited)
	}()
	return nil
}

// executable returns the path of a program: the last PATH of env counts.
func executable(env []string, name string) string {
	path := name
	for _, e := range env {
		if dirs, ok := strings.CutPrefix(e, "PATH="); ok {
			for _, d := range filepath.SplitList(dirs) {
				if p := filepath.Join(d, name); isExecutable(p) {
					path = p
					break
				}
			}
		}
	}
	return path
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// [!] finish NAME [-KILL] ends a program, which must end well.
func finishScript(ts *testscript.TestScript, neg bool, args []string) {
	all := ts.Value(serversKey{}).(*servers)
	if len(args) == 0 || all.running[args[0]] == nil {
		ts.Fatalf("usage: finish NAME [-KILL]; it must run")
	}
	r := all.running[args[0]]
	delete(all.running, args[0])
	sig := syscall.SIGTERM
	if len(args) > 1 && args[1] == "-KILL" {
		sig = syscall.SIGKILL
	}
	ts.Check(r.cmd.Process.Signal(sig))
	select {
	case err := <-r.exited:
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+".log"), []byte(r.log.String()), 0o600))
		if sig == syscall.SIGTERM && (err != nil) != neg {
			ts.Fatalf("%s ended with %v:\n%s", args[0], err, r.log)
		}
	case <-time.After(peertest.Patience):
		_ = r.cmd.Process.Kill()
		ts.Fatalf("%s did not end within %s:\n%s", args[0], peertest.Patience, r.log)
	}
}

// eventually PROGRAM ARGS… runs a program until it succeeds, for as long as a test has patience.
func eventuallyScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: eventually PROGRAM ARGS…")
	}
	var err error
	for end := time.Now().Add(peertest.Patience); time.Now().Before(end); {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
	}
	ts.Fatalf("%s: %v", strings.Join(args, " "), err)
}

// password FILE sets $password to what the program showed there.
func passwordScript(ts *testscript.TestScript, _ bool, args []string) {
	match := regexp.MustCompile(`(?m)^  password  (\S+)$`).FindStringSubmatch(ts.ReadFile(args[0]))
	if match == nil {
		ts.Fatalf("no password in %s", args[0])
	}
	ts.Setenv("password", match[1])
}

// stale PATH leaves a unix socket that nobody listens at.
func staleScript(ts *testscript.TestScript, _ bool, args []string) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	ts.Check(err)
	path := ts.MkAbs(cmp.Or(args[0], "socket"))
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		ts.Fatalf("bind %s: %v", path, err)
	}
	ts.Check(syscall.Close(fd))
	if _, err := os.Lstat(path); err != nil {
		ts.Fatalf("%s", fmt.Sprint(err))
	}
}

// nobody ADDRESS keeps the port of a server that has ended: whoever connects is refused, and no other program gets it.
func nobodyScript(ts *testscript.TestScript, _ bool, args []string) {
	address, err := netip.ParseAddrPort(args[0])
	ts.Check(err)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	ts.Check(err)
	ts.Defer(func() { _ = syscall.Close(fd) })
	ts.Check(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)) // connections of before may linger
	ts.Check(syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}))
}

// [!] as UID GID STDIN PROGRAM ARGS… runs a program as somebody else with a file as its standard input.
func asScript(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 4 {
		ts.Fatalf("usage: as UID GID STDIN PROGRAM ARGS…")
	}
	uid, err := strconv.ParseUint(args[0], 10, 32)
	ts.Check(err)
	gid, err := strconv.ParseUint(args[1], 10, 32)
	ts.Check(err)
	in, err := os.Open(ts.MkAbs(args[2]))
	ts.Check(err)
	defer in.Close()
	env := environment(ts)
	path := executable(env, args[3])
	for _, dir := range []string{ts.MkAbs("."), filepath.Dir(path)} { // others may pass through
		for ; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
			info, err := os.Stat(dir)
			ts.Check(err)
			ts.Check(os.Chmod(dir, info.Mode().Perm()|0o011))
		}
	}
	cmd := exec.Command(path, args[4:]...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), env, in, ts.Stdout(), ts.Stderr()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	err = cmd.Run()
	fmt.Fprintf(ts.Stdout(), "exit %d\n", cmd.ProcessState.ExitCode())
	if (err != nil) != neg {
		ts.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
}

// [!] send ADDRESS FROM TO FILE sends a mail by SMTP; the last reply is what stdout matches.
func sendScript(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: send ADDRESS FROM TO FILE")
	}
	c, err := textproto.Dial("tcp", args[0])
	ts.Check(err)
	defer c.Close()
	mail := bytes.ReplaceAll([]byte(ts.ReadFile(args[3])), []byte("\n"), []byte("\r\n"))
	last, err := converse(c, args[1], args[2], mail)
	fmt.Fprintln(ts.Stdout(), last)
	if (err != nil) != neg {
		ts.Fatalf("%s: %v", last, err)
	}
}

// greeting ADDRESS prints the first line of a server.
func greetingScript(ts *testscript.TestScript, _ bool, args []string) {
	c, err := textproto.Dial("tcp", args[0])
	ts.Check(err)
	defer c.Close()
	line, err := c.ReadLine()
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), line)
}

// hangup NAME PATTERN sends SIGHUP to a program and waits until its log matches.
func hangupScript(ts *testscript.TestScript, _ bool, args []string) {
	all := ts.Value(serversKey{}).(*servers)
	if len(args) != 2 || all.running[args[0]] == nil {
		ts.Fatalf("usage: hangup NAME PATTERN; it must run")
	}
	r := all.running[args[0]]
	ts.Check(r.cmd.Process.Signal(syscall.SIGHUP))
	if _, ok := r.log.wait(regexp.MustCompile(args[1]), r.exited); !ok {
		ts.Fatalf("%s is not in the log:\n%s", args[1], r.log)
	}
}

// converse sends a mail and returns the last reply, with an error if that is no success.
func converse(c *textproto.Conn, from, to string, mail []byte) (last string, err error) {
	code, last, err := c.ReadResponse(220)
	for _, step := range []struct {
		expect int
		line   string
	}{{250, "EHLO test.example"}, {250, "MAIL FROM:<" + from + ">"}, {250, "RCPT TO:<" + to + ">"}, {354, "DATA"}} {
		if err != nil {
			return fmt.Sprint(code, " ", last), err
		}
		if err := c.PrintfLine("%s", step.line); err != nil {
			return last, err
		}
		code, last, err = c.ReadResponse(step.expect)
	}
	if err != nil {
		return fmt.Sprint(code, " ", last), err
	}
	w := c.DotWriter()
	if _, err := w.Write(mail); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	code, last, err = c.ReadResponse(250)
	return fmt.Sprint(code, " ", last), err
}

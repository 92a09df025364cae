package listen_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sluice/protocols/listen"
)

// The test runs itself as the process that systemd starts.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_ACTIVATED") == "" {
		os.Exit(m.Run())
	}
	if err := activated(); err != nil {
		fmt.Println("error:", err)
	}
}

// activated answers one client on each socket that it was given.
func activated() error {
	if os.Getenv("LISTEN_PID") == "self" {
		if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
			return err
		}
	}
	in, err := listen.Inherit()
	if err != nil {
		return err
	}
	fmt.Println("left:", in.Left())
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if _, ok := os.LookupEnv(name); ok {
			return errors.New(name + " is still there")
		}
	}
	// It ends with an error where one of them is not open.
	child, _ := exec.Command("readlink", "/proc/self/fd/3", "/proc/self/fd/4", "/proc/self/fd/5").Output()
	fmt.Println("sockets of a child:", strings.Count(string(child), "socket:"))
	for _, name := range strings.Fields(os.Getenv("TEST_ACTIVATED")) {
		l, err := listen.Open(context.Background(), listen.Config{Address: "systemd:" + name, Banner: name}, listen.Options{Inherited: in})
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(c, "%s\n", c.(*listen.Conn).Banner())
		if err := errors.Join(c.Close(), l.Close()); err != nil {
			return err
		}
	}
	return nil
}

type filer interface{ File() (*os.File, error) }

func activate(t *testing.T, env []string, sockets ...filer) (out *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	for _, s := range sockets {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return bufio.NewScanner(pipe)
}

func line(t *testing.T, out *bufio.Scanner) string {
	t.Helper()
	if !out.Scan() {
		t.Fatalf("it says no more: %v", out.Err())
	}
	return out.Text()
}

func TestSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lmtp.sock")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{
		"TEST_ACTIVATED=smtp lmtp smtp udp none", "LISTEN_PID=self", "LISTEN_FDS=3", "LISTEN_FDNAMES=smtp:lmtp:udp",
	}
	out := activate(t, env, tcp.(filer), unix.(filer), datagrams.(filer))
	if got := line(t, out); got != "left: [smtp lmtp udp]" {
		t.Errorf("it is given %q", got)
	}
	if got := line(t, out); got != "sockets of a child: 0" {
		t.Error(got)
	}
	for _, x := range []struct{ network, address, want string }{
		{"tcp", tcp.Addr().String(), "smtp\n"}, {"unix", path, "lmtp\n"},
	} {
		c, err := net.Dial(x.network, x.address)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := bufio.NewReader(c).ReadString('\n'); got != x.want {
			t.Errorf("at %s it says %q, %v", x.address, got, err)
		}
		_ = c.Close()
	}
	for _, want := range []string{
		`error: listen on systemd:smtp: systemd has opened no socket "smtp"; there are udp (FileDescriptorName= names them)`,
		`error: listen on systemd:udp: the socket of systemd is no stream; use ListenStream=`,
		`error: listen on systemd:none: systemd has opened no such socket for us; start its .socket unit, not only the .service`,
	} {
		if got := line(t, out); got != want {
			t.Errorf("it says\n%s, want\n%s", got, want)
		}
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Error("it has removed the socket of systemd")
	}
}

func TestSystemdOfAnotherProcess(t *testing.T) {
	out := activate(t, []string{"TEST_ACTIVATED=smtp", "LISTEN_PID=1", "LISTEN_FDS=1"})
	if got := line(t, out); got != "left: []" {
		t.Errorf("it is given %q", got)
	}
}

func TestSystemdNonsense(t *testing.T) {
	out := activate(t, []string{"TEST_ACTIVATED=smtp", "LISTEN_PID=self", "LISTEN_FDS=-1"})
	if got := line(t, out); got != `error: LISTEN_FDS is "-1", which is no number of sockets` {
		t.Errorf("it says %q", got)
	}
}

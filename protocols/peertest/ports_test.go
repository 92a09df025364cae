package peertest

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Packages are tested by processes of their own, at the same time: a port is given to one of them.
func TestPortsOfTwoProcesses(t *testing.T) {
	if os.Getenv("SLUICE_TEST_HOLD_PORT") != "" {
		os.Stdout.WriteString("holds " + Port(Address(t)) + "\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPortsOfTwoProcesses$")
	cmd.Env = append(os.Environ(), "SLUICE_TEST_HOLD_PORT=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "holds ") {
	}
	port, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "holds "))
	if err != nil {
		t.Fatal(err)
	}
	reserve := func() bool {
		allPorts.mu.Lock()
		defer allPorts.mu.Unlock()
		ours, err := allPorts.reserve(port)
		if err != nil {
			t.Fatal(err)
		}
		return ours
	}
	if reserve() {
		t.Errorf("port %d, which another process holds, is given out", port)
	}
	_ = in.Close()
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !reserve() {
		t.Errorf("port %d is free and not given out", port)
	}
	if reserve() {
		t.Errorf("port %d is given out twice", port)
	}
}

// A Postfix whose port has gone to somebody else is not mistaken for the one that answers there.
func TestStartKnowsItsOwn(t *testing.T) {
	Need(t, "postfix")
	if os.Geteuid() != 0 {
		lack(t, "postfix: needs root")
	}
	dir := TempDir(t)
	p := &Postfix{t: t, Address: Address(t), Dir: dir, Queue: filepath.Join(dir, "queue")}
	p.write(PostfixConfig{})
	t.Cleanup(p.stop)
	l, err := net.Listen("tcp", p.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = p.start()
	if err == nil || !strings.Contains(err.Error(), "it has ended") {
		t.Errorf("start beside another listener: %v", err)
	}
}

//go:build linux

package listen_test

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"sluice/protocols/listen"
)

// as calls f as another user, on a thread of its own that ends with it.
func as(t *testing.T, uid int, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root becomes somebody else")
	}
	done := make(chan syscall.Errno)
	go func() { // ends with f, and its thread with it: it is never unlocked
		runtime.LockOSThread()
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		if errno == 0 {
			f()
		}
		done <- errno
	}()
	if errno := <-done; errno != 0 {
		t.Fatal(errno)
	}
}

func TestUserOfPeer(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "s")
	l := open(t, listen.Config{Address: "unix:" + path, Mode: 0o666}, listen.Options{})
	_, c := connect(t, l)
	if uid, err := c.User(); err != nil || int(uid) != os.Getuid() {
		t.Errorf("our own process: %d, %v", uid, err)
	}

	as(t, 65534, func() {
		client, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = client.Close() })
		raw, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		if uid, err := raw.(*listen.Conn).User(); err != nil || uid != 65534 {
			t.Errorf("somebody else's: %d, %v", uid, err)
		}
		_ = raw.Close()
	})

	_, far := connect(t, open(t, listen.Config{}, listen.Options{}))
	if uid, err := far.User(); err == nil {
		t.Errorf("over TCP: %d", uid)
	}
}

package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Inherited are sockets that somebody else has opened for this process: systemd's socket activation.
type Inherited struct {
	mu      sync.Mutex
	sockets []inherited
}

type inherited struct {
	name string
	file *os.File
}

const firstInherited = 3 // sd_listen_fds(3): SD_LISTEN_FDS_START

// Inherit takes the sockets that the environment names (LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES, as in
// sd_listen_fds(3)) and removes those variables. No process that we start inherits the sockets. nil if there are none
// for this process. Call it once, before a process is started.
func Inherit() (*Inherited, error) {
	pid, fds, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	var errs []error
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		errs = append(errs, os.Unsetenv(name))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("take the sockets of systemd: %w", err)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > 1024 {
		return nil, fmt.Errorf("LISTEN_FDS is %q, which is no number of sockets", fds)
	}
	all := &Inherited{}
	each := strings.Split(names, ":")
	for i := range n {
		name := "unknown" // as sd_listen_fds_with_names(3) calls them
		if i < len(each) && each[i] != "" {
			name = each[i]
		}
		fd := firstInherited + i
		syscall.CloseOnExec(fd)
		all.sockets = append(all.sockets, inherited{name, os.NewFile(uintptr(fd), "systemd:"+name)})
	}
	return all, nil
}

// Count returns how many sockets of this name have not been taken.
func (in *Inherited) Count(name string) (n int) {
	for _, x := range in.Left() {
		if x == name {
			n++
		}
	}
	return n
}

// Left returns the names of the sockets that have not been taken.
func (in *Inherited) Left() (names []string) {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.sockets {
		names = append(names, s.name)
	}
	return names
}

// take returns the next socket of this name.
func (in *Inherited) take(name string) (net.Listener, error) {
	i := slices.Index(in.Left(), name)
	if i < 0 {
		return nil, in.missing(name)
	}
	in.mu.Lock()
	s := in.sockets[i]
	in.sockets = slices.Delete(in.sockets, i, i+1)
	in.mu.Unlock()
	defer s.file.Close() // the listener has a copy
	if err := listening(s.file); err != nil {
		return nil, err
	}
	l, err := net.FileListener(s.file)
	if err != nil {
		return nil, fmt.Errorf("the socket of systemd cannot be used: %w", err)
	}
	return l, nil
}

func (in *Inherited) missing(name string) error {
	left := in.Left()
	if len(left) == 0 {
		return errors.New("systemd has opened no such socket for us; start its .socket unit, not only the .service")
	}
	slices.Sort(left)
	return fmt.Errorf("systemd has opened no socket %q; there are %s (FileDescriptorName= names them)",
		name, strings.Join(slices.Compact(left), ", "))
}

// listening says what is wrong with a socket that cannot accept connections.
func listening(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var kind, accepts int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		var errs [2]error
		kind, errs[0] = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TYPE)
		accepts, errs[1] = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		failed = errors.Join(errs[:]...)
	}); err != nil {
		return err
	}
	switch {
	case failed != nil:
		return errors.New("what systemd has opened is no socket")
	case kind != syscall.SOCK_STREAM:
		return errors.New("the socket of systemd is no stream; use ListenStream=")
	case accepts == 0:
		return errors.New("the socket of systemd is one connection; use Accept=no")
	}
	return nil
}

package listen

import (
	"errors"
	"fmt"
	"syscall"
)

// User returns the number of the user whose process is at the other end of a unix socket, as the kernel knows it
// (SO_PEERCRED): of the moment when that process connected. It fails on any other connection.
func (c *Conn) User() (uid uint32, err error) {
	raw, ok := c.sock.Conn.(syscall.Conn)
	if !c.Local() || !ok {
		return 0, errors.New("whose process is at the other end is known for unix sockets only")
	}
	rc, err := raw.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask whose process is at the other end: %w", err)
	}
	var cred *syscall.Ucred
	if e := rc.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); e != nil {
		err = e
	}
	if err != nil {
		return 0, fmt.Errorf("ask whose process is at the other end: %w", err)
	}
	return cred.Uid, nil
}

package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"sluice/cmd/sluice/program/config"
	"sluice/protocols/listen"
)

// deliverUsers returns the users who may tell deliver's door of somebody else: root, ourselves and deliver_users.
func deliverUsers(c *config.Config) (map[uint32]bool, error) {
	believed := map[uint32]bool{0: true, uint32(os.Geteuid()): true}
	var errs []error
	for i, name := range c.DeliverUsers {
		id, err := lookUp(name, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", fmt.Errorf("deliver_users[%d]: there is no user %q", i, name)
			}
			return u.Uid, nil
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		believed[uint32(id)] = true
	}
	return believed, errors.Join(errs...)
}

// believes reports whether the process that has connected to deliver's door may tell of somebody else.
func (s *service) believes(conn *listen.Conn) bool {
	uid, err := conn.User()
	if err != nil {
		s.log.Warn("nobody is believed at deliver's socket", "err", err)
		return false
	}
	return s.now.Load().believed[uid]
}

// lookUp returns the number of a user or group, which may be given as one.
func lookUp(name string, find func(string) (string, error)) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int(n), nil
	}
	id, err := find(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

// openDeliver opens deliver's socket in the data folder, and the way to it: for deliver_group, or for ourselves alone.
func (s *service) openDeliver(x protocol) error {
	c := s.started
	if err := runFolder(c.Data); err != nil {
		return err
	}
	path := deliverSocket(c.Data)
	if err := letThrough(c, filepath.Dir(path)); err != nil {
		return err
	}
	socket := config.Socket{Config: listen.Config{Address: "unix:" + path, TLS: x.tls, Group: c.DeliverGroup}}
	if err := socket.Check(); err != nil {
		s.log.Warn("sluice deliver is not available", "err", err) // which is no reason for the doors that were asked for
		return nil
	}
	l, err := listen.Open(s.ctx, socket.Config, x.options)
	if err != nil {
		return fmt.Errorf("deliver: %w", err)
	}
	s.doors.all = append(s.doors.all, &door{name: "deliver", socket: socket, server: x.server, listener: l})
	return nil
}

// deliverGroup returns the number of deliver_group, -1 for none.
func deliverGroup(c *config.Config) (int, error) {
	if c.DeliverGroup == "" {
		return -1, nil
	}
	return lookUp(c.DeliverGroup, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", fmt.Errorf("deliver_group: there is no group %q", name)
		}
		return g.Gid, nil
	})
}

// letThrough gives the data folder and the one in it to deliver_group to pass through, not to look into. Without such a
// group they are closed.
func letThrough(c *config.Config, run string) error {
	if c.DeliverGroup == "" {
		if info, err := os.Stat(c.Data); err == nil && info.Mode().Perm() == 0o710 { // there was one
			if err := os.Chmod(c.Data, 0o700); err != nil { //nolint:gosec // it is a folder
				return fmt.Errorf("close %s: %w", c.Data, cause(err))
			}
		}
		if err := os.Chmod(run, 0o700); err != nil { //nolint:gosec // it is a folder
			return fmt.Errorf("close %s: %w", run, cause(err))
		}
		return nil
	}
	gid, err := deliverGroup(c)
	if err != nil {
		return err
	}
	for _, dir := range []string{c.Data, run} {
		err := os.Lchown(dir, -1, gid)
		if err == nil {
			err = os.Chmod(dir, 0o710) //nolint:gosec // it is a folder, and the group passes through
		}
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("deliver_group: give %s to the group %s: %w; run serve as a member of it, or as root", dir, c.DeliverGroup, cause(err))
		}
		if err != nil {
			return fmt.Errorf("deliver_group: give %s to the group %s: %w", dir, c.DeliverGroup, cause(err))
		}
	}
	return nil
}

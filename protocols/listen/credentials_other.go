//go:build !linux

package listen

import "errors"

// User fails: how to ask whose process is at the other end is not known on this system.
func (c *Conn) User() (uid uint32, err error) {
	return 0, errors.New("whose process is at the other end is not known on this system")
}

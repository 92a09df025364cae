package config

import (
	"fmt"
	"net"
	"net/netip"
)

// checkRelay reports what is wrong with the way out.
func (c *Config) checkRelay() {
	for _, x := range c.Relay.Problems() {
		c.d.wrong("relay."+x.Setting, x.Text, x.Remedy)
	}
	for i, s := range c.Relay.Smarthost {
		if door := c.ownDoor(s); door != "" {
			c.d.wrong(fmt.Sprintf("relay.smarthost[%d]", i), fmt.Sprintf("%s is our own door %s, and takes no mail for others", s, door),
				"name the address of the other server")
		}
	}
}

// ownDoor returns the door that the file opens at an address of this machine, "" for another's. Only the addresses that are
// surely ours count: loopback, and what the socket itself names.
func (c *Config) ownDoor(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !c.HasListen() {
		return ""
	}
	ip, _ := netip.ParseAddr(host) // a name is none
	for _, door := range []string{"smtp", "lmtp", "submission", "submissions"} {
		for _, s := range *c.Listen.Door(door) {
			h, p, err := net.SplitHostPort(s.Address)
			if err != nil || p != port {
				continue
			}
			at, _ := netip.ParseAddr(h)
			everywhere := h == "" || at.IsValid() && at.IsUnspecified()
			if ip.IsValid() && ip == at || everywhere && (host == "localhost" || ip.IsValid() && ip.IsLoopback()) {
				return door
			}
		}
	}
	return ""
}

// Where returns a problem with a setting, with its place.
func (c *Config) Where(setting, text string) Problem {
	if c.d == nil {
		return Problem{File: c.file, Text: setting + ": " + text}
	}
	p := c.placed(setting)
	p.Text = text
	return p
}

package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// A Mode says how a listener uses TLS.
type Mode string

const (
	NoTLS    Mode = "none"     // never
	StartTLS Mode = "starttls" // when the client asks for it
	Implicit Mode = "implicit" // from the first octet
)

// UnmarshalText reads none, starttls or implicit.
func (m *Mode) UnmarshalText(text []byte) error {
	x := Mode(text)
	if err := x.check(); err != nil {
		return err
	}
	*m = x
	return nil
}

func (m Mode) check() error {
	switch m {
	case "", NoTLS, StartTLS, Implicit:
		return nil
	}
	return fmt.Errorf("tls: %q is none of none, starttls, implicit", string(m))
}

// Config is one listener of the configuration. An address alone is short for a mapping with nothing else in it.
type Config struct {
	// Address is HOST:PORT, :PORT or unix:PATH.
	Address string `yaml:"address"`
	// TLS is none, starttls or implicit. The default is starttls where the protocol has it and the address is no unix
	// socket, else none.
	TLS Mode `yaml:"tls"`
	// Mode is the file mode of a unix socket. The default is 0660.
	Mode fs.FileMode `yaml:"mode"`
	// Owner is the user that a unix socket belongs to, by name or number. The default is who runs the program.
	Owner string `yaml:"owner"`
	// Group is the group that a unix socket belongs to, by name or number ("postfix").
	Group string `yaml:"group"`
}

// UnmarshalYAML reads an address, or a mapping with the fields of Config.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	var address string
	if err := unmarshal(&address); err == nil {
		*c = Config{Address: address}
		return c.Check()
	}
	type plain Config // without this method
	p := plain(*c)
	if err := unmarshal(&p); err != nil {
		return err
	}
	*c = Config(p)
	return c.Check()
}

// Check says what is wrong with c, as far as that can be seen without opening it.
func (c Config) Check() error {
	path, unix := c.unix()
	switch {
	case c.Address == "":
		return errors.New(`a listener needs an address: "HOST:PORT" or "unix:PATH"`)
	case unix && path == "":
		return errors.New(`unix: needs a path, as in "unix:/run/sluice/lmtp.sock"`)
	case unix && len(path) > maxUnixPath:
		return fmt.Errorf("the path of a unix socket is at most %d octets long; %s has %d", maxUnixPath, path, len(path))
	case unix && c.Mode&^fs.ModePerm != 0:
		return fmt.Errorf("mode: %#o is no file mode; write for example 0660", uint32(c.Mode))
	case !unix && !strings.Contains(c.Address, ":"):
		return fmt.Errorf("%q names no port; write %q or %q", c.Address, c.Address+":PORT", "unix:"+c.Address)
	case !unix && (c.Mode != 0 || c.Owner != "" || c.Group != ""):
		return fmt.Errorf("%s: mode, owner and group are for unix sockets", c.Address)
	}
	return c.TLS.check()
}

// maxUnixPath is what sockaddr_un holds on Linux, without the NUL.
const maxUnixPath = 107

func (c Config) unix() (path string, ok bool) { return strings.CutPrefix(c.Address, "unix:") }

// Limits bound connections. In a zero field the default counts.
type Limits struct {
	// Connections is how many may be open at once. The default is 1000.
	Connections int `yaml:"connections"`
	// PerAddress is how many may be open at once from one address (IPv6: one /64). The default is 50. Loopback, unix
	// sockets and trusted networks have none.
	PerAddress int `yaml:"connections_per_address"`
	// ReadTimeout is how long one read may wait for the client. The default is 5 minutes (RFC 5321, 4.5.3.2.7).
	ReadTimeout time.Duration `yaml:"read_timeout"`
	// WriteTimeout is how long one write may wait for the client. The default is 1 minute.
	WriteTimeout time.Duration `yaml:"write_timeout"`
	// HandshakeTimeout is how long a TLS handshake may take. The default is 30 seconds.
	HandshakeTimeout time.Duration `yaml:"tls_handshake_timeout"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{
		Connections:      1000,
		PerAddress:       50,
		ReadTimeout:      5 * time.Minute,
		WriteTimeout:     time.Minute,
		HandshakeTimeout: 30 * time.Second,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.Connections <= 0 {
		l.Connections = d.Connections
	}
	if l.PerAddress <= 0 {
		l.PerAddress = d.PerAddress
	}
	if l.ReadTimeout <= 0 {
		l.ReadTimeout = d.ReadTimeout
	}
	if l.WriteTimeout <= 0 {
		l.WriteTimeout = d.WriteTimeout
	}
	if l.HandshakeTimeout <= 0 {
		l.HandshakeTimeout = d.HandshakeTimeout
	}
	return l
}

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
	// Address is HOST:PORT, :PORT, unix:PATH, or systemd:NAME for the sockets that systemd has opened under this name
	// (FileDescriptorName= of the .socket unit; by default the unit's own name, "sluice.socket").
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
	// Proxy is for a load balancer before us: every connection begins with a PROXY header, version 1 or 2, that names
	// the client (HAProxy's send-proxy and send-proxy-v2). Peers that are not trusted are refused. The default is false.
	Proxy bool `yaml:"proxy"`
	// Hostname is who this listener says we are, in greetings and the trace fields of mail it takes. The default is the
	// hostname of the configuration. The milter protocol shows none.
	Hostname string `yaml:"hostname"`
	// Banner is what the greeting of this listener says after the host name, up to 200 printable ASCII characters
	// without < and >. An SMTP client may look for "ESMTP" in it. The default is what the protocol usually says.
	Banner string `yaml:"banner"`
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
	name, systemd := c.systemd()
	switch {
	case c.Address == "":
		return errors.New(`a listener needs an address: "HOST:PORT" or "unix:PATH"`)
	case unix && path == "":
		return errors.New(`unix: needs a path, as in "unix:/run/sluice/lmtp.sock"`)
	case unix && len(path) > maxUnixPath:
		return fmt.Errorf("the path of a unix socket is at most %d octets long; %s has %d", maxUnixPath, path, len(path))
	case unix && c.Mode&^fs.ModePerm != 0:
		return fmt.Errorf("mode: %#o is no file mode; write for example 0660", uint32(c.Mode))
	case systemd && (name == "" || strings.ContainsAny(name, ": \t")):
		return errors.New(`systemd: needs the name of a socket, as in "systemd:smtp"`)
	case !unix && !strings.Contains(c.Address, ":"):
		return fmt.Errorf("%q names no port; write %q or %q", c.Address, c.Address+":PORT", "unix:"+c.Address)
	case !unix && (c.Mode != 0 || c.Owner != "" || c.Group != ""):
		return fmt.Errorf("%s: mode, owner and group are for unix sockets", c.Address)
	case len(c.Banner) > maxBanner || strings.ContainsFunc(c.Banner, notInBanner):
		return fmt.Errorf("banner: %q is not at most %d printable ASCII characters without < and >", c.Banner, maxBanner)
	}
	return c.TLS.check()
}

// maxBanner leaves room for a host name in a reply line (RFC 5321, 4.5.3.1.5; RFC 1939, 3).
const maxBanner = 200

// notInBanner reports whether a greeting cannot have r: between < and > POP3 puts a time stamp (RFC 1939, 7).
func notInBanner(r rune) bool { return r < ' ' || r > '~' || r == '<' || r == '>' }

// maxUnixPath is what sockaddr_un holds on Linux, without the NUL.
const maxUnixPath = 107

func (c Config) systemd() (name string, ok bool) { return strings.CutPrefix(c.Address, "systemd:") }

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
	// ProxyTimeout is how long a load balancer may take to name the client, at a listener with `proxy: true`. The default
	// is 5 seconds.
	ProxyTimeout time.Duration `yaml:"proxy_timeout"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{
		Connections:      1000,
		PerAddress:       50,
		ReadTimeout:      5 * time.Minute,
		WriteTimeout:     time.Minute,
		HandshakeTimeout: 30 * time.Second,
		ProxyTimeout:     5 * time.Second,
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
	if l.ProxyTimeout <= 0 {
		l.ProxyTimeout = d.ProxyTimeout
	}
	return l
}

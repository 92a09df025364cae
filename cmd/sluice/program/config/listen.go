package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"sluice/protocols/listen"
)

// Listen names the sockets of each door, each as `HOST:PORT`, `:PORT`, `unix:PATH`, `systemd:NAME` or a mapping of the keys
// of Socket.
type Listen struct {
	// SMTP takes mail from clients that we hold ourselves.
	SMTP []Socket `yaml:"smtp"`
	// LMTP takes mail from an MTA whose queue stands before us.
	LMTP []Socket `yaml:"lmtp"`
	// Milter answers an MTA that asks about mail it holds.
	Milter []Socket `yaml:"milter"`
	// Submission takes mail from our own users, who log in. It is smtp for mail programs (RFC 6409).
	Submission []Socket `yaml:"submission"`
	// Submissions is short for submission with `tls: implicit` (RFC 8314).
	Submissions []Socket `yaml:"submissions"`
	// IMAP serves mail to its readers.
	IMAP []Socket `yaml:"imap"`
	// IMAPS is short for imap with `tls: implicit`.
	IMAPS []Socket `yaml:"imaps"`
	// POP3 serves the inbox to simple readers.
	POP3 []Socket `yaml:"pop3"`
	// POP3S is short for pop3 with `tls: implicit`.
	POP3S []Socket `yaml:"pop3s"`
	// ManageSieve lets users manage their Sieve scripts (RFC 5804).
	ManageSieve []Socket `yaml:"managesieve"`
	// Admin answers whoever watches, over HTTP: /metrics, /healthz and /readyz. It asks for no password.
	Admin []Socket `yaml:"admin"`
}

// Doors are the names of the doors, in the order in which they open.
func Doors() []string {
	return []string{"smtp", "lmtp", "milter", "submission", "submissions", "imap", "imaps", "pop3", "pop3s", "managesieve", "admin"}
}

// Door returns the sockets of a door by its name, nil for a name that is none.
func (l *Listen) Door(name string) *[]Socket {
	switch name {
	case "smtp":
		return &l.SMTP
	case "lmtp":
		return &l.LMTP
	case "milter":
		return &l.Milter
	case "submission":
		return &l.Submission
	case "submissions":
		return &l.Submissions
	case "imap":
		return &l.IMAP
	case "imaps":
		return &l.IMAPS
	case "pop3":
		return &l.POP3
	case "pop3s":
		return &l.POP3S
	case "managesieve":
		return &l.ManageSieve
	case "admin":
		return &l.Admin
	}
	return nil
}

// A Socket is one address that a door listens at.
type Socket struct {
	listen.Config `yaml:",inline"`
	// Refuse is for an lmtp peer that still holds its client: a refusal is answered with 550, not held in quarantine.
	Refuse bool `yaml:"refuse"`
}

// UnmarshalYAML reads an address alone, or a mapping.
func (s *Socket) UnmarshalYAML(unmarshal func(any) error) error {
	var alone scalarText
	if unmarshal(&alone) == nil {
		s.Address = string(alone)
		return nil
	}
	var keys struct {
		Socket socketKeys `yaml:",inline"`
		Refuse bool       `yaml:"refuse"`
	}
	err := unmarshal(&keys)
	s.Config, s.Refuse = listen.Config(keys.Socket), keys.Refuse
	return err
}

// scalarText takes any scalar as it stands in the file.
type scalarText string

// UnmarshalText takes it.
func (s *scalarText) UnmarshalText(text []byte) error {
	*s = scalarText(text)
	return nil
}

// socketKeys are the keys of listen.Config, without its way to read itself.
type socketKeys listen.Config

// Unix returns the path of a unix socket.
func (s Socket) Unix() (path string, ok bool) { return strings.CutPrefix(s.Address, "unix:") }

// Systemd returns the name of a socket that systemd opens.
func (s Socket) Systemd() (name string, ok bool) { return strings.CutPrefix(s.Address, "systemd:") }

func (s Socket) check() error {
	address := s.Address
	if _, ok := s.Systemd(); ok {
		return s.Check()
	}
	if path, unix := s.Unix(); unix {
		if path == "" {
			return &remedied{"the path of the unix socket is missing", "write unix:PATH"}
		}
		return s.Check()
	}
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return &remedied{fmt.Sprintf("%q is no address to listen at", address), "write HOST:PORT, :PORT or unix:PATH"}
	}
	host, port := address[:colon], address[colon+1:]
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return &remedied{fmt.Sprintf("%q is no port", port), "write a number from 0 to 65535; 0 takes a free one"}
	}
	if strings.Contains(host, ":") && (!strings.HasPrefix(host, "[") || !strings.HasSuffix(host, "]")) {
		return &remedied{fmt.Sprintf("%q is no host", host), fmt.Sprintf("write an IPv6 address in brackets: [%s]:%s", host, port)}
	}
	return s.Check()
}

// ParseListen reads DOOR=ADDRESS as the command line gives it and adds it to l.
func (l *Listen) ParseListen(s string) error {
	name, address, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("--listen %s: write DOOR=ADDRESS, for example smtp=127.0.0.1:2525", s)
	}
	door := l.Door(name)
	if door == nil {
		return fmt.Errorf("--listen %s: there is no door %q; there are %s", s, name, strings.Join(Doors(), ", "))
	}
	socket := Socket{Config: listen.Config{Address: address}}
	if err := socket.check(); err != nil {
		return fmt.Errorf("--listen %s: %w", s, err)
	}
	*door = append(*door, socket)
	return nil
}

// TLS says what the doors prove themselves with. All files are read again on a reload.
type TLS struct {
	// Certificate is a file with the certificate and those between it and its root, in PEM. Clients that ask for no name,
	// or for one that no certificate is for, get this one. Default: the first of certificates, else a self-signed one.
	Certificate string `yaml:"certificate" example:"/etc/sluice/cert.pem"`
	// Key is a file with the private key, in PEM.
	Key string `yaml:"key" example:"/etc/sluice/key.pem"`
	// Certificates are more of them: a client gets the first that is for the name it asks for (SNI).
	Certificates []Certificate `yaml:"certificates" example:"[{certificate: /etc/sluice/b.example.pem, key: /etc/sluice/b.example.key}]"`
}

// A Certificate is a certificate and its key.
type Certificate struct {
	// Certificate is a file with the certificate and those between it and its root, in PEM.
	Certificate string `yaml:"certificate" example:"/etc/sluice/cert.pem"`
	// Key is a file with the private key, in PEM.
	Key string `yaml:"key" example:"/etc/sluice/key.pem"`
}

// DefaultListen returns the doors that open without `listen:`: all of them, on loopback.
func DefaultListen() Listen {
	at := func(port string) []Socket { return []Socket{{Config: listen.Config{Address: "127.0.0.1:" + port}}} }
	return Listen{
		SMTP: at("2525"), LMTP: at("2424"), Milter: at("8891"), Submission: at("1587"), Submissions: at("1465"),
		IMAP: at("1143"), IMAPS: at("1993"), POP3: at("1110"), POP3S: at("1995"), ManageSieve: at("4190"),
	}
}

// HasListen reports whether the file says which doors open.
func (c *Config) HasListen() bool {
	if c.d == nil {
		return false
	}
	_, ok := c.d.places["listen"]
	return ok
}

func (c *Config) checkDoor(name string) {
	for i, s := range *c.Listen.Door(name) {
		path := fmt.Sprintf("listen.%s[%d]", name, i)
		if s.Address == "" {
			c.d.wrong(path, "the address to listen at is missing", "write address: HOST:PORT, :PORT or unix:PATH")
			continue
		}
		if err := s.check(); err != nil {
			c.d.problem(c.d.where(path), "", err)
			continue
		}
		if s.Refuse && name != "lmtp" {
			c.d.wrong(path+".refuse", "refuse is for lmtp; this is "+name, "leave it out")
		}
		if s.Hostname != "" && !IsHostname(s.Hostname) {
			c.d.wrong(path+".hostname", fmt.Sprintf("%q is no host name", s.Hostname), "write for example mx.example.org")
		}
		if name == "milter" && (s.Banner != "" || s.Hostname != "") {
			c.d.wrong(path, "the milter protocol shows neither banner nor hostname", "leave them out")
		}
		implicit := name == "imaps" || name == "pop3s" || name == "submissions"
		switch {
		case implicit && s.TLS != "" && s.TLS != listen.Implicit:
			c.d.wrong(path+".tls", fmt.Sprintf("%s is %s with implicit TLS", name, name[:len(name)-1]),
				fmt.Sprintf("name this socket under %s", name[:len(name)-1]))
		case name == "milter" && s.TLS == listen.StartTLS:
			c.d.wrong(path+".tls", "the milter protocol has no STARTTLS", "write implicit or none")
		case name == "admin" && s.TLS == listen.StartTLS:
			c.d.wrong(path+".tls", "HTTP has no STARTTLS", "write implicit or none")
		}
	}
}

// All letters there are make it large: most commands have no need of it, and start in less time.
var hostname = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[\pL\pN_]([\pL\pN_-]*[\pL\pN_])?(\.[\pL\pN_]([\pL\pN_-]*[\pL\pN_])?)*$`)
})

// IsHostname reports whether s is a name that a machine or a domain can have, with or without dots.
func IsHostname(s string) bool { return len(s) <= 253 && hostname().MatchString(s) }

func isAddress(s string) bool {
	at := strings.LastIndexByte(s, '@')
	return at > 0 && IsHostname(s[at+1:]) && !strings.ContainsFunc(s[:at], func(r rune) bool { return r <= ' ' || r == 0x7f })
}

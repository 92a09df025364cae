package relay

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/protocols/sasl"
)

// A Config says how mail leaves. Without smarthost and direct, and for domains without a route of their own, nothing leaves:
// it waits in the queue, which says so.
type Config struct {
	// Smarthost are the servers that take all mail, HOST:PORT each, tried in this order: "[::1]:25" and names both do. The
	// usual is the Postfix beside us, on another port than ours. At port 465 TLS comes first (RFC 8314).
	Smarthost []string `yaml:"smarthost" example:"[\"mail.example.net:587\"]"`
	// Direct sends to the servers that the DNS names for each domain (MX). It needs port 25 open to the world.
	Direct bool `yaml:"direct"`
	// TLS says what the connection must be: none, may (TLS where it is offered, else without), require (TLS, whoever it is
	// with) or verify (TLS, and a certificate for the host's name; with direct that is the name that the DNS gives). DANE and
	// MTA-STS demand more where a domain publishes them. Default: may; where there is a login: verify.
	TLS Level `yaml:"tls"`
	// Login is who we are to the smarthost.
	Login Login `yaml:"login"`
	// CA is a file with the certificates that sign those of servers, in PEM. Default: those the system trusts.
	CA string `yaml:"ca" example:"/etc/sluice/ca.pem"`
	// Routes are other ways for some domains: `example.org: {smarthost: ["192.0.2.1:25"]}`. A key `.example.org` is for all
	// domains below it. A domain of ours that has a key of its own goes that way as well.
	Routes map[string]Route `yaml:"routes" example:"{partner.example: {direct: true, tls: verify}}"`
	// DANE heeds TLSA records (RFC 7672), where resolver.trust_ad says that the resolver validates.
	DANE bool `yaml:"dane"`
	// MTASTS heeds the policies of RFC 8461, which it fetches by HTTPS.
	MTASTS bool `yaml:"mta_sts"`
	// Port is where servers that the DNS names are asked.
	Port int `yaml:"port"`
	// Reach are networks that mail may be sent to although the DNS of somebody else names them: loopback, link-local and
	// unspecified addresses are otherwise passed over.
	Reach []netip.Prefix `yaml:"reach" example:"[127.0.0.0/8]"`

	// Connections is how many connections there are at once, in all.
	Connections int `yaml:"connections"`
	// PerDestination is how many connections there are at once to one destination: a domain, or a smarthost.
	PerDestination int `yaml:"per_destination"`
	// PerConnection is how many mails a connection carries at most.
	PerConnection int `yaml:"per_connection"`
	// Idle is how long a connection without a mail is kept.
	Idle time.Duration `yaml:"idle"`
	// Recipients is how many recipients are named in one transaction; more take another.
	Recipients int `yaml:"recipients"`
	// Hosts is how many addresses of servers are tried for one mail.
	Hosts int `yaml:"hosts"`
	// BackOff is how long a destination is left alone when none of its servers can be talked to. It doubles each time.
	BackOff time.Duration `yaml:"back_off"`
	// BackOffMost is the longest that it becomes.
	BackOffMost time.Duration `yaml:"back_off_most"`
	// ReplyLine is how many octets a line of a server's reply may have.
	ReplyLine int `yaml:"reply_line"`
	// ReplyLines is how many lines one reply may have.
	ReplyLines int `yaml:"reply_lines"`
	// Timeouts bound what a server may take.
	Timeouts Timeouts `yaml:"timeouts"`
}

// A Route is a way for some domains.
type Route struct {
	// Smarthost are servers, HOST:PORT each, tried in this order.
	Smarthost []string `yaml:"smarthost" example:"[\"192.0.2.1:25\"]"`
	// LMTP is a server that speaks LMTP: HOST:PORT or unix:PATH.
	LMTP string `yaml:"lmtp" example:"\"unix:/run/lists/lmtp\""`
	// Direct sends to the servers that the DNS names.
	Direct bool `yaml:"direct"`
	// TLS is as above. Default: what stands above; none for a unix socket.
	TLS Level `yaml:"tls"`
	// Login is who we are to this server; the one above is for the smarthost above alone.
	Login Login `yaml:"login"`
	// CA is a file with the certificates that sign those of servers, in PEM. Default: what stands above.
	CA string `yaml:"ca" example:"/etc/sluice/ca.pem"`
}

// A Login is a name and a password.
type Login struct {
	// User is the name.
	User string `yaml:"user" example:"sluice@example.org"`
	// PasswordFile is a file with the password.
	PasswordFile string `yaml:"password_file" example:"/etc/sluice/smarthost.password"`
	// Cleartext allows the login without TLS.
	Cleartext bool `yaml:"cleartext"`
	// Mechanisms are those that may be used, the strongest one first that the server offers: SCRAM-SHA-256-PLUS,
	// SCRAM-SHA-256, SCRAM-SHA-1-PLUS, SCRAM-SHA-1, PLAIN, LOGIN. The default is all; where a server refuses SCRAM, PLAIN or
	// LOGIN is tried once, too, if its certificate has been verified. Without those two it never sees the password.
	Mechanisms []string `yaml:"mechanisms" example:"[SCRAM-SHA-256, SCRAM-SHA-1]"`
}

// Timeouts bound what a server may take. RFC 5321, 4.5.3.2 has the defaults, but for those it does not name.
type Timeouts struct {
	// Connect is for a connection to one address.
	Connect time.Duration `yaml:"connect"`
	// Greeting is for the first reply.
	Greeting time.Duration `yaml:"greeting"`
	// TLS is for a handshake.
	TLS time.Duration `yaml:"tls"`
	// Command is for the reply to EHLO, MAIL, RCPT and others.
	Command time.Duration `yaml:"command"`
	// Data is for the reply to DATA.
	Data time.Duration `yaml:"data"`
	// Block is for taking 32 KiB of a message.
	Block time.Duration `yaml:"block"`
	// End is for the reply to the end of the data. Shorter, mail is sent twice to servers that take their time.
	End time.Duration `yaml:"end"`
	// Mail is for one mail in all, from its first command to its last reply.
	Mail time.Duration `yaml:"mail"`
	// Quit is for the reply to QUIT.
	Quit time.Duration `yaml:"quit"`
}

// DefaultConfig returns what New takes for fields that are zero, and the policies that are on by default.
func DefaultConfig() Config {
	return Config{
		DANE: true, MTASTS: true, Port: 25,
		Connections: 100, PerDestination: 20, PerConnection: 100, Idle: 5 * time.Second, Recipients: 100, Hosts: 8,
		BackOff: time.Minute, BackOffMost: 15 * time.Minute, ReplyLine: 4096, ReplyLines: 100,
		Timeouts: Timeouts{
			Connect: 30 * time.Second, Greeting: 5 * time.Minute, TLS: time.Minute, Command: 5 * time.Minute,
			Data: 2 * time.Minute, Block: 3 * time.Minute, End: 10 * time.Minute, Mail: time.Hour, Quit: 5 * time.Second,
		},
	}
}

// filled returns c with defaults for what is zero.
func (c Config) filled() Config {
	d := DefaultConfig()
	for to, from := range map[*int]int{
		&c.Port: d.Port, &c.Connections: d.Connections, &c.PerDestination: d.PerDestination, &c.PerConnection: d.PerConnection,
		&c.Recipients: d.Recipients, &c.Hosts: d.Hosts, &c.ReplyLine: d.ReplyLine, &c.ReplyLines: d.ReplyLines,
	} {
		*to = cmp.Or(*to, from)
	}
	t, dt := &c.Timeouts, d.Timeouts
	for to, from := range map[*time.Duration]time.Duration{
		&c.Idle: d.Idle, &c.BackOff: d.BackOff, &c.BackOffMost: d.BackOffMost, &t.Connect: dt.Connect, &t.Greeting: dt.Greeting,
		&t.TLS: dt.TLS, &t.Command: dt.Command, &t.Data: dt.Data, &t.Block: dt.Block, &t.End: dt.End, &t.Mail: dt.Mail, &t.Quit: dt.Quit,
	} {
		*to = cmp.Or(*to, from)
	}
	return c
}

// A Level says what a connection must be.
type Level string

// The words for Level.
const (
	NoTLS   Level = "none"    // never
	May     Level = "may"     // TLS where it is offered
	Require Level = "require" // TLS, whoever it is with
	Verify  Level = "verify"  // TLS, and a certificate for the host's name
)

// UnmarshalText reads a word; "" is the default.
func (l *Level) UnmarshalText(text []byte) error {
	switch x := Level(text); x {
	case "", NoTLS, May, Require, Verify:
		*l = x
		return nil
	}
	return fmt.Errorf("%q is none of %s, %s, %s, %s", text, NoTLS, May, Require, Verify)
}

// A Problem is something wrong with a setting.
type Problem struct {
	Setting string // "routes.example.org.lmtp"
	Text    string
	Remedy  string
}

// Error implements error.
func (p *Problem) Error() string { return p.Setting + ": " + p.Text + "; " + p.Remedy }

// Problems returns everything that is wrong with c, as far as that can be seen without the files it names.
func (c Config) Problems() (all []*Problem) {
	wrong := func(setting, text, remedy string) { all = append(all, &Problem{setting, text, remedy}) }
	c.way().problems("", wrong)
	for domain, r := range c.Routes {
		at := "routes." + domain
		name := strings.TrimPrefix(domain, ".")
		if _, err := asciiDomain(name); err != nil && !isLiteral(name) || domain != strings.ToLower(domain) {
			wrong(at, fmt.Sprintf("%q is no domain", domain), "write example.org, or .example.org for all below it, in lower case")
		}
		r.problems(at+".", wrong)
		ways := 0
		for _, one := range []bool{len(r.Smarthost) > 0, r.LMTP != "", r.Direct} {
			if one {
				ways++
			}
		}
		if ways > 1 {
			wrong(at, "this is more than one way", "say one of smarthost, lmtp and direct")
		}
	}
	if c.Smarthost != nil && c.Direct {
		wrong("direct", "mail goes to the smarthost already", "say smarthost or direct; single domains can have a route of their own")
	}
	if c.Port < 0 || c.Port > 65535 {
		wrong("port", fmt.Sprintf("%d is no port", c.Port), "write 25")
	}
	for _, x := range []struct {
		name string
		n    int
	}{
		{"connections", c.Connections}, {"per_destination", c.PerDestination}, {"per_connection", c.PerConnection},
		{"recipients", c.Recipients}, {"hosts", c.Hosts}, {"reply_line", c.ReplyLine}, {"reply_lines", c.ReplyLines},
		{"idle", int(c.Idle)}, {"back_off", int(c.BackOff)}, {"back_off_most", int(c.BackOffMost)},
	} {
		if x.n < 0 {
			wrong(x.name, x.name+" is below zero", "leave the key out for its default")
		}
	}
	return all
}

// way returns what c says for all domains as a route.
func (c Config) way() Route {
	return Route{Smarthost: c.Smarthost, Direct: c.Direct, TLS: c.TLS, Login: c.Login, CA: c.CA}
}

func (r Route) problems(at string, wrong func(setting, text, remedy string)) {
	for i, s := range r.Smarthost {
		if err := checkServer(s); err != nil {
			wrong(fmt.Sprintf("%ssmarthost[%d]", at, i), err.Error(), "write HOST:PORT, for example mail.example.net:587")
		}
	}
	if path, unix := strings.CutPrefix(r.LMTP, "unix:"); r.LMTP != "" && !unix {
		if err := checkServer(r.LMTP); err != nil {
			wrong(at+"lmtp", err.Error(), "write HOST:PORT or unix:PATH")
		}
	} else if unix && path == "" {
		wrong(at+"lmtp", "the path of the unix socket is missing", "write unix:PATH")
	}
	if (r.Login.User == "") != (r.Login.PasswordFile == "") {
		wrong(at+"login", "a name and its password go together", "set both, user and password_file")
	}
	if strings.ContainsAny(r.Login.User, "\x00\r\n") {
		wrong(at+"login.user", "it has a control character", "write the name as the server knows it")
	}
	for i, m := range r.Login.Mechanisms {
		if !slices.Contains(sasl.Known(), m) {
			wrong(fmt.Sprintf("%slogin.mechanisms[%d]", at, i), fmt.Sprintf("there is no %q", m), "write "+strings.Join(sasl.Known(), ", "))
		}
	}
	if r.Login.User != "" && len(r.Smarthost) == 0 && r.LMTP == "" {
		wrong(at+"login", "there is no server to log in to", "set smarthost")
	}
	if r.Login.User != "" && r.TLS == NoTLS && !r.Login.Cleartext {
		wrong(at+"login", "the password would go in the clear", "leave tls out, or say cleartext: true")
	}
}

func checkServer(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is no server", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q is no port", port)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if _, err := asciiDomain(host); err != nil {
		return fmt.Errorf("%q is no host", host)
	}
	return nil
}

// errNoDomain says that something is not the name of a domain.
var errNoDomain = errors.New("no domain name")

// Package config reads Sluice's configuration: one YAML file, strictly, with everything that is wrong with it found at
// once, each with its place and a remedy.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"sluice/pipeline"
)

// A Config is the whole configuration. Every key has a default: a file with only `pipeline:` is complete.
type Config struct {
	// Hostname is the name of this machine in greetings and trace fields. Default: what the system says.
	Hostname string `yaml:"hostname"`
	// Data is the folder for everything that Sluice keeps, made with mode 0700. Default: sluice-data.
	Data string `yaml:"data"`
	// Domain completes a login without one: `me` means me@DOMAIN. Default: localhost.
	Domain string `yaml:"domain"`
	// Domains are local besides those that have an account or an alias: an unknown user in them is answered 550 5.1.1.
	Domains []string `yaml:"domains"`
	// Trusted are the networks whose word counts: they may name another client, log in over cleartext, hand mail over
	// that was scanned already, and are not asked about. Default: loopback.
	Trusted []Network `yaml:"trusted"`
	// Postmaster is the account that gets mail for postmaster without a domain. Default: the first account.
	Postmaster string `yaml:"postmaster"`
	// Aliases lead from an address to one or more accounts.
	Aliases map[string][]string `yaml:"aliases"`
	// Listen names the sockets of each door. With it only the doors named here open; without it the loopback doors
	// smtp 2525, lmtp 2424, milter 8891, imap 1143, imaps 1993, pop3 1110 and pop3s 1995 do.
	Listen Listen `yaml:"listen"`
	// TLS is the certificate for all doors. Default: a self-signed one, made once and kept in the data folder.
	TLS TLS `yaml:"tls"`
	// Limits bound what a client, a message and the program may use.
	Limits Limits `yaml:"limits"`
	// Quarantine is the store of held mail.
	Quarantine Quarantine `yaml:"quarantine"`
	// Journal keeps the records of decisions.
	Journal Journal `yaml:"journal"`
	// Resolver asks the DNS.
	Resolver Resolver `yaml:"resolver"`
	// Log is what the program says while it runs, on standard error.
	Log Log `yaml:"log"`
	// Speak says when a refusal that is decided early is spoken: at `rcpt`, so that the record has the recipients, or
	// `earliest`. Default: rcpt.
	Speak Speak `yaml:"speak"`
	// Pipeline is the list of steps that a mail passes, in the order of decision: `- KIND: {its settings}`. Each step
	// also takes name, on_error (skip, postpone or refuse), timeout, at (the phase before which it is not asked) and
	// shadow (recorded, never acted on). Default: a few header rules that refuse nothing.
	Pipeline []pipeline.Step `yaml:"-"`

	file string
	dir  string
	d    *decoder
}

// Listen names the sockets of each door, each as `HOST:PORT`, `:PORT`, `unix:PATH` or a mapping of the keys of Socket.
type Listen struct {
	// SMTP takes mail from clients that we hold ourselves.
	SMTP []Socket `yaml:"smtp"`
	// LMTP takes mail from an MTA whose queue stands before us.
	LMTP []Socket `yaml:"lmtp"`
	// Milter answers an MTA that asks about mail it holds.
	Milter []Socket `yaml:"milter"`
	// IMAP serves mail to its readers.
	IMAP []Socket `yaml:"imap"`
	// IMAPS is short for imap with `tls: implicit`.
	IMAPS []Socket `yaml:"imaps"`
	// POP3 serves the inbox to simple readers.
	POP3 []Socket `yaml:"pop3"`
	// POP3S is short for pop3 with `tls: implicit`.
	POP3S []Socket `yaml:"pop3s"`
}

// Doors are the names of the doors, in the order in which they open.
func Doors() []string {
	return []string{"smtp", "lmtp", "milter", "imap", "imaps", "pop3", "pop3s"}
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
	case "imap":
		return &l.IMAP
	case "imaps":
		return &l.IMAPS
	case "pop3":
		return &l.POP3
	case "pop3s":
		return &l.POP3S
	}
	return nil
}

// A Socket is one address that a door listens at.
type Socket struct {
	// Address is `HOST:PORT`, `:PORT` for all addresses of the machine, or `unix:PATH`.
	Address string `yaml:"address"`
	// TLS is `starttls` (offered where the protocol can), `implicit` (from the first octet) or `none`. Default:
	// starttls, at imaps and pop3s implicit, at milter and on unix sockets none.
	TLS TLSMode `yaml:"tls"`
	// Mode is the mode of a unix socket. Default: 0660.
	Mode Mode `yaml:"mode"`
	// Owner is the user that a unix socket belongs to, by name or number. Default: ours.
	Owner string `yaml:"owner"`
	// Group is the group that a unix socket belongs to, by name or number. Default: ours.
	Group string `yaml:"group"`
	// Refuse is for an lmtp peer that still holds its client: a refusal is answered with 550, not held in quarantine.
	Refuse bool `yaml:"refuse"`
}

// UnmarshalText reads a socket that is written as its address alone.
func (s *Socket) UnmarshalText(text []byte) error {
	s.Address = string(text)
	return nil
}

// Network returns "tcp" or "unix" and the address for net.Listen.
func (s Socket) Network() (network, address string) {
	if path, ok := strings.CutPrefix(s.Address, "unix:"); ok {
		return "unix", path
	}
	return "tcp", s.Address
}

func (s Socket) check() error {
	network, address := s.Network()
	if network == "unix" {
		switch {
		case address == "":
			return &remedied{"the path of the unix socket is missing", "write unix:PATH"}
		case len(address) > 107: // sun_path of Linux, with its NUL
			return &remedied{fmt.Sprintf("the path of the unix socket has %d octets", len(address)), "the system takes at most 107"}
		}
		return nil
	}
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return &remedied{fmt.Sprintf("%q is no address to listen at", address), "write HOST:PORT, :PORT or unix:PATH"}
	}
	host, port := address[:colon], address[colon+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return &remedied{fmt.Sprintf("%q is no port", port), "write a number from 0 to 65535; 0 takes a free one"}
	}
	if strings.Contains(host, ":") && (!strings.HasPrefix(host, "[") || !strings.HasSuffix(host, "]")) {
		return &remedied{fmt.Sprintf("%q is no host", host), fmt.Sprintf("write an IPv6 address in brackets: [%s]:%s", host, port)}
	}
	return nil
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
	socket := Socket{Address: address}
	if err := socket.check(); err != nil {
		return fmt.Errorf("--listen %s: %w", s, err)
	}
	*door = append(*door, socket)
	return nil
}

// TLSMode says how a door uses TLS.
type TLSMode string

// The words for TLSMode; the empty one is the door's default.
const (
	StartTLS    TLSMode = "starttls"
	ImplicitTLS TLSMode = "implicit"
	NoTLS       TLSMode = "none"
)

// UnmarshalText reads a mode.
func (m *TLSMode) UnmarshalText(text []byte) error {
	return choose((*string)(m), text, string(StartTLS), string(ImplicitTLS), string(NoTLS))
}

// Speak says when a refusal that is decided early is spoken.
type Speak string

// The words for Speak.
const (
	SpeakRcpt     Speak = "rcpt"
	SpeakEarliest Speak = "earliest"
)

// UnmarshalText reads a word.
func (s *Speak) UnmarshalText(text []byte) error {
	return choose((*string)(s), text, string(SpeakRcpt), string(SpeakEarliest))
}

func choose(to *string, text []byte, words ...string) error {
	if !slices.Contains(words, string(text)) {
		remedy := "write " + strings.Join(words, " or ")
		if near := Nearest(string(text), words); near != "" {
			remedy = fmt.Sprintf("did you mean %q?", near)
		}
		return &remedied{fmt.Sprintf("there is no %q", text), remedy}
	}
	*to = string(text)
	return nil
}

// A Mode is the mode of a file, written in octal: 0660.
type Mode fs.FileMode

// UnmarshalText reads a mode.
func (m *Mode) UnmarshalText(text []byte) error {
	x, err := strconv.ParseUint(strings.TrimPrefix(string(text), "0o"), 8, 32)
	if err != nil || x > 0o777 {
		return &remedied{fmt.Sprintf("%q is no mode of a file", text), "write it in octal: 0660"}
	}
	*m = Mode(x)
	return nil
}

// A Network is a range of addresses: 192.0.2.0/24, or one address.
type Network netip.Prefix

// UnmarshalText reads a network or an address.
func (n *Network) UnmarshalText(text []byte) error {
	if a, err := netip.ParseAddr(string(text)); err == nil && a.Zone() == "" {
		*n = Network(netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		return &remedied{fmt.Sprintf("%q is no network", text), "write for example 192.0.2.0/24, 192.0.2.1 or 2001:db8::/32"}
	}
	if p != p.Masked() {
		return &remedied{fmt.Sprintf("%q has bits set beyond its length", text), fmt.Sprintf("write %s", p.Masked())}
	}
	*n = Network(p)
	return nil
}

// TLS is a certificate and its key.
type TLS struct {
	// Certificate is a file with the certificate and those between it and its root, in PEM.
	Certificate string `yaml:"certificate"`
	// Key is a file with the private key, in PEM.
	Key string `yaml:"key"`
}

// A Size is a number of octets, written as a number or with KB, MB, GB, KiB, MiB or GiB.
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for _, u := range []struct {
		name string
		size int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}} {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	x, err := strconv.ParseInt(number, 10, 64)
	if err != nil || x < 0 || x > (1<<62)/unit {
		return &remedied{fmt.Sprintf("%q is no size", text), "write for example 50MiB, 10MB or a number of octets"}
	}
	*s = Size(x * unit)
	return nil
}

// Limits bound what a client, a message and the program may use. Reaching one is a clear answer, never a lost mail.
type Limits struct {
	// Connections bounds the connections of one door.
	Connections int `yaml:"connections"`
	// PerAddress bounds the connections of one address to a door; trusted ones are not counted.
	PerAddress int `yaml:"per_address"`
	// Handshake bounds a TLS handshake.
	Handshake time.Duration `yaml:"handshake"`
	// Command bounds the wait for a client's next command.
	Command time.Duration `yaml:"command"`
	// Read bounds the wait for the next octets of a message.
	Read time.Duration `yaml:"read"`
	// Idle bounds the wait of a reader's connection (IMAP, POP3) for its next command.
	Idle time.Duration `yaml:"idle"`
	// Line bounds a command line, in octets.
	Line int `yaml:"line"`
	// Message bounds a message.
	Message Size `yaml:"message"`
	// Header bounds the header section of a message.
	Header Size `yaml:"header"`
	// HeaderFields bounds the fields of a header section.
	HeaderFields int `yaml:"header_fields"`
	// Recipients bounds the recipients of a message.
	Recipients int `yaml:"recipients"`
	// UnknownRecipients is how many unknown ones an untrusted client may name before it is shown the door with 421.
	UnknownRecipients int `yaml:"unknown_recipients"`
	// Received bounds the Received fields of a message: more is a loop.
	Received int `yaml:"received"`
	// Depth bounds the nesting of multiparts and messages that is looked into.
	Depth int `yaml:"depth"`
	// Parts bounds the parts of a message that are looked at.
	Parts int `yaml:"parts"`
	// Parameters bounds the parameters of one header field that are looked at.
	Parameters int `yaml:"parameters"`
	// Text bounds the decoded text of a message that rules see, for plain text and HTML each.
	Text Size `yaml:"text"`
	// FailedLogins is how many failed logins end a connection.
	FailedLogins int `yaml:"failed_logins"`
	// Quota bounds the mail of one account; 0 is no bound.
	Quota Size `yaml:"quota"`
	// Workers bounds the questions about single recipients that one mail has under way.
	Workers int `yaml:"workers"`
	// Abandoned bounds the calls of one stage that have outlived their deadline and still hang.
	Abandoned int `yaml:"abandoned"`
	// Phase bounds the answer of all stages before the content of a mail is here.
	Phase time.Duration `yaml:"phase"`
	// Content bounds the answer of all stages about the content.
	Content time.Duration `yaml:"content"`
	// Shutdown is what a transaction under way gets to end when the program is told to stop.
	Shutdown time.Duration `yaml:"shutdown"`
}

// Quarantine is the store of held mail.
type Quarantine struct {
	// Keep is how long mail is held before it is removed.
	Keep time.Duration `yaml:"keep"`
	// ReleaseTo takes released mail for recipients that have no account here: `smtp:HOST:PORT`, the MTA behind us.
	ReleaseTo string `yaml:"release_to"`
}

// Journal keeps the records of decisions.
type Journal struct {
	// Keep is how long a record is kept.
	Keep time.Duration `yaml:"keep"`
}

// Resolver asks the DNS.
type Resolver struct {
	// Servers are asked in order, each `HOST` or `HOST:PORT`. Default: those of /etc/resolv.conf.
	Servers []string `yaml:"servers"`
}

// Log is what the program says while it runs, on standard error.
type Log struct {
	// Format is `text` or `json`.
	Format LogFormat `yaml:"format"`
	// Level is `debug`, `info`, `warn` or `error`: less than this is not said.
	Level Level `yaml:"level"`
}

// LogFormat is the form of log lines.
type LogFormat string

// UnmarshalText reads a format.
func (f *LogFormat) UnmarshalText(text []byte) error {
	return choose((*string)(f), text, "text", "json")
}

// Level is the weight of a log line.
type Level string

// UnmarshalText reads a level.
func (l *Level) UnmarshalText(text []byte) error {
	return choose((*string)(l), text, "debug", "info", "warn", "error")
}

// Slog returns the level for package slog.
func (l Level) Slog() slog.Level {
	switch l {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// Default returns the configuration without a file, but for the pipeline.
func Default() *Config {
	loopback := []Network{
		Network(netip.MustParsePrefix("127.0.0.0/8")),
		Network(netip.MustParsePrefix("::1/128")),
	}
	return &Config{
		Data:    "sluice-data",
		Domain:  "localhost",
		Trusted: loopback,
		Limits: Limits{
			Connections:       1000,
			PerAddress:        20,
			Handshake:         30 * time.Second,
			Command:           5 * time.Minute,  // RFC 5321, 4.5.3.2.7
			Read:              3 * time.Minute,  // RFC 5321, 4.5.3.2.5
			Idle:              30 * time.Minute, // RFC 9051, 5.4; RFC 1939, 3 asks for 10
			Line:              2048,
			Message:           50 << 20,
			Header:            256 << 10,
			HeaderFields:      1000,
			Recipients:        100, // RFC 5321, 4.5.3.1.8: at least
			UnknownRecipients: 10,
			Received:          50,
			Depth:             32,
			Parts:             1000,
			Parameters:        100,
			Text:              2 << 20,
			FailedLogins:      3,
			Workers:           8,
			Abandoned:         64,
			Phase:             20 * time.Second,
			Content:           4 * time.Minute,
			Shutdown:          8 * time.Second,
		},
		Quarantine: Quarantine{Keep: 30 * 24 * time.Hour},
		Journal:    Journal{Keep: 90 * 24 * time.Hour},
		Log:        Log{Format: "text", Level: "info"},
		Speak:      SpeakRcpt,
	}
}

// DefaultListen returns the doors that open without `listen:`: all of them, on loopback.
func DefaultListen() Listen {
	at := func(port string) []Socket { return []Socket{{Address: "127.0.0.1:" + port}} }
	return Listen{
		SMTP: at("2525"), LMTP: at("2424"), Milter: at("8891"),
		IMAP: at("1143"), IMAPS: at("1993"), POP3: at("1110"), POP3S: at("1995"),
	}
}

// Load reads the file of this name. Its error is Problems, in the order of the file.
func Load(path string, kinds []pipeline.Kind) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		var p *fs.PathError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, Problems{{File: path, Text: "there is no such file"}}
		case errors.As(err, &p):
			return nil, Problems{{File: path, Text: "cannot be read: " + p.Err.Error()}}
		}
		return nil, Problems{{File: path, Text: err.Error()}}
	}
	return Parse(path, string(text), kinds)
}

// Parse reads the text of a configuration. path is its name in messages, and what it names is relative to its folder.
func Parse(path, text string, kinds []pipeline.Kind) (*Config, error) {
	d := &decoder{file: path, places: map[string]place{}, anchors: map[string]ast.Node{}}
	c := Default()
	c.file, c.dir, c.d = path, filepath.Dir(path), d
	root := d.parse(text)
	if root == nil {
		return c.checked()
	}
	if root = d.resolve(root); root == nil {
		return c.checked()
	}
	entries, ok := d.mapping(root)
	if _, null := root.(*ast.NullNode); !ok && !null {
		d.at(placeOf(root), "a configuration is a mapping of keys and values, not "+describe(root), "")
	}
	steps := slices.IndexFunc(entries, func(e entry) bool { return e.key == "pipeline" })
	outer := struct {
		*Config
		Pipeline struct{} `yaml:"pipeline"` // so that misspellings are told about it
	}{Config: c}
	for _, e := range entries {
		if e.key == "pipeline" {
			continue
		}
		d.entries("", []entry{e}, reflectOf(&outer))
	}
	if steps >= 0 {
		c.Pipeline = d.steps(entries[steps], kinds)
	}
	return c.checked()
}

// File returns the name of the file that was read, "" for a configuration without one.
func (c *Config) File() string { return c.file }

// Path returns a path that the configuration names, relative to the file that names it.
func (c *Config) Path(name string) string {
	if name == "" || filepath.IsAbs(name) || c.dir == "" {
		return name
	}
	return filepath.Join(c.dir, name)
}

// At turns an error about a step into Problems with its place: pos is the step's Pos.
func (c *Config) At(pos string, text string) Problem {
	p := Problem{File: c.file, Text: text}
	rest := strings.TrimPrefix(pos, c.file+":")
	line, column, _ := strings.Cut(rest, ":")
	p.Line, _ = strconv.Atoi(line)
	p.Column, _ = strconv.Atoi(column)
	if c.d != nil && p.Line > 0 && p.Line <= len(c.d.lines) {
		p.Source = c.d.lines[p.Line-1]
	}
	return p
}

// HasListen reports whether the file says which doors open.
func (c *Config) HasListen() bool {
	if c.d == nil {
		return false
	}
	_, ok := c.d.places["listen"]
	return ok
}

// HasPipeline reports whether the file lists the steps.
func (c *Config) HasPipeline() bool {
	if c.d == nil {
		return false
	}
	_, ok := c.d.places["pipeline"]
	return ok
}

// checked completes c: defaults that depend on other settings, and what single values cannot tell.
func (c *Config) checked() (*Config, error) {
	d := c.d
	if c.Hostname != "" && !isHostname(c.Hostname) {
		d.wrong("hostname", fmt.Sprintf("%q is no host name", c.Hostname), "write for example mx.example.org")
	}
	if c.Data == "" {
		d.wrong("data", "the data folder has no name", "leave the key out for sluice-data")
	}
	if !isHostname(c.Domain) {
		d.wrong("domain", fmt.Sprintf("%q is no domain", c.Domain), "write for example example.org")
	}
	for i, x := range c.Domains {
		if !isHostname(x) {
			d.wrong(fmt.Sprintf("domains[%d]", i), fmt.Sprintf("%q is no domain", x), "write for example example.org")
		}
	}
	if c.Postmaster != "" && !isAddress(c.Postmaster) {
		d.wrong("postmaster", fmt.Sprintf("%q is no account", c.Postmaster), "write NAME@DOMAIN")
	}
	for from, to := range c.Aliases {
		if !isAddress(from) {
			d.wrong("aliases."+from, fmt.Sprintf("%q is no address", from), "write NAME@DOMAIN")
		}
		if len(to) == 0 {
			d.wrong("aliases."+from, fmt.Sprintf("the alias %s leads nowhere", from), "name at least one account")
		}
		for i, x := range to {
			if !isAddress(x) {
				d.wrong(fmt.Sprintf("aliases.%s[%d]", from, i), fmt.Sprintf("%q is no account", x), "write NAME@DOMAIN")
			}
		}
	}
	for _, name := range Doors() {
		c.checkDoor(name)
	}
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		d.wrong("tls", "a certificate and its key go together", "set both, tls.certificate and tls.key, or neither")
	}
	c.checkLimits()
	if c.Quarantine.Keep == 0 {
		d.wrong("quarantine.keep", "mail would be held for no time at all", "write for example 30d")
	}
	if c.Journal.Keep == 0 {
		d.wrong("journal.keep", "records would be kept for no time at all", "write for example 90d")
	}
	if to := c.Quarantine.ReleaseTo; to != "" {
		address, ok := strings.CutPrefix(to, "smtp:")
		if !ok || (Socket{Address: address}).check() != nil || strings.HasPrefix(address, ":") || strings.HasPrefix(address, "unix:") {
			d.wrong("quarantine.release_to", fmt.Sprintf("%q is no server", to), "write smtp:HOST:PORT")
		}
	}
	for i, x := range c.Resolver.Servers {
		if x == "" || strings.ContainsAny(x, " /") {
			d.wrong(fmt.Sprintf("resolver.servers[%d]", i), fmt.Sprintf("%q is no server", x), "write HOST or HOST:PORT")
		}
	}
	if err := d.problems.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) checkDoor(name string) {
	for i, s := range *c.Listen.Door(name) {
		path := fmt.Sprintf("listen.%s[%d]", name, i)
		var r *remedied
		if s.Address == "" {
			c.d.wrong(path, "the address to listen at is missing", "write address: HOST:PORT, :PORT or unix:PATH")
			continue
		}
		if err := s.check(); errors.As(err, &r) {
			c.d.wrong(path, r.text, r.remedy)
			continue
		}
		if network, _ := s.Network(); network == "tcp" && (s.Mode != 0 || s.Owner != "" || s.Group != "") {
			c.d.wrong(path, "mode, owner and group are for unix sockets", "leave them out")
		}
		if s.Refuse && name != "lmtp" {
			c.d.wrong(path+".refuse", "refuse is for lmtp; this is "+name, "leave it out")
		}
		implicit := name == "imaps" || name == "pop3s"
		switch {
		case implicit && s.TLS != "" && s.TLS != ImplicitTLS:
			c.d.wrong(path+".tls", fmt.Sprintf("%s is %s with implicit TLS", name, name[:len(name)-1]),
				fmt.Sprintf("name this socket under %s", name[:len(name)-1]))
		case name == "milter" && s.TLS == StartTLS:
			c.d.wrong(path+".tls", "the milter protocol has no STARTTLS", "write implicit or none")
		}
	}
}

func (c *Config) checkLimits() {
	for _, x := range []struct {
		key   string
		value int64
		least int64
	}{
		{"connections", int64(c.Limits.Connections), 1},
		{"per_address", int64(c.Limits.PerAddress), 1},
		{"handshake", int64(c.Limits.Handshake), int64(time.Millisecond)},
		{"command", int64(c.Limits.Command), int64(time.Millisecond)},
		{"read", int64(c.Limits.Read), int64(time.Millisecond)},
		{"idle", int64(c.Limits.Idle), int64(time.Millisecond)},
		{"line", int64(c.Limits.Line), 512}, // RFC 5321, 4.5.3.1.4
		{"message", int64(c.Limits.Message), 1024},
		{"header", int64(c.Limits.Header), 1024},
		{"header_fields", int64(c.Limits.HeaderFields), 1},
		{"recipients", int64(c.Limits.Recipients), 1},
		{"unknown_recipients", int64(c.Limits.UnknownRecipients), 1},
		{"received", int64(c.Limits.Received), 1},
		{"depth", int64(c.Limits.Depth), 1},
		{"parts", int64(c.Limits.Parts), 1},
		{"parameters", int64(c.Limits.Parameters), 1},
		{"text", int64(c.Limits.Text), 1024},
		{"failed_logins", int64(c.Limits.FailedLogins), 1},
		{"quota", int64(c.Limits.Quota), 0},
		{"workers", int64(c.Limits.Workers), 1},
		{"abandoned", int64(c.Limits.Abandoned), 1},
		{"phase", int64(c.Limits.Phase), int64(time.Millisecond)},
		{"content", int64(c.Limits.Content), int64(time.Millisecond)},
		{"shutdown", int64(c.Limits.Shutdown), 0},
	} {
		if x.value < x.least {
			least := strconv.FormatInt(x.least, 10)
			if x.least == int64(time.Millisecond) {
				least = "1ms"
			}
			c.d.wrong("limits."+x.key, fmt.Sprintf("limits.%s is too small to work with", x.key), "the least is "+least)
		}
	}
	if most := 9 * time.Second; c.Limits.Shutdown > most {
		c.d.wrong("limits.shutdown", "limits.shutdown is longer than the program has to end, which is 10s", "the most is 9s")
	}
}

var hostname = regexp.MustCompile(`^[\pL\pN_]([\pL\pN_-]*[\pL\pN_])?(\.[\pL\pN_]([\pL\pN_-]*[\pL\pN_])?)*$`)

func isHostname(s string) bool { return len(s) <= 253 && hostname.MatchString(s) }

func isAddress(s string) bool {
	at := strings.LastIndexByte(s, '@')
	return at > 0 && isHostname(s[at+1:]) && !strings.ContainsFunc(s[:at], func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// common are the settings that every step takes.
type common struct {
	// Name is what rules and records call the step. Default: its kind.
	Name string `yaml:"name"`
	// OnError says what an unanswered question becomes: skip, postpone or refuse. Default: the kind's own.
	OnError *pipeline.OnError `yaml:"on_error"`
	// Timeout bounds one question.
	Timeout time.Duration `yaml:"timeout"`
	// At is the phase before which the step is not asked: connect, helo, mail, rcpt, data or content.
	At *pipeline.Phase `yaml:"at"`
	// Shadow records what the step says and never acts on it.
	Shadow bool `yaml:"shadow"`
}

var stepName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// steps decodes the list of steps.
func (d *decoder) steps(e entry, kinds []pipeline.Kind) []pipeline.Step {
	d.places["pipeline"] = e.place
	list, ok := d.resolve(e.value).(*ast.SequenceNode)
	if !ok {
		d.at(placeOf(e.value), "pipeline wants a list of steps, not "+describe(e.value), "write - KIND: {…} for each step")
		return nil
	}
	var steps []pipeline.Step
	names := map[string]place{}
	for i, item := range list.Values {
		path := fmt.Sprintf("pipeline[%d]", i)
		d.places[path] = placeOf(item)
		step, ok := d.step(path, item, kinds)
		if !ok {
			continue
		}
		name, where := cmp.Or(step.Name, step.Kind.Name), d.where(path+".name")
		if first, ok := names[name]; ok {
			remedy := fmt.Sprintf("the first is in line %d; give this one a name: {name: %s_2, …}", first.line, name)
			d.at(where, fmt.Sprintf("a second step is called %q", name), remedy)
			continue
		}
		names[name] = where
		steps = append(steps, step)
	}
	return steps
}

func (d *decoder) step(path string, item ast.Node, kinds []pipeline.Kind) (pipeline.Step, bool) {
	resolved := d.resolve(item)
	entries, ok := d.mapping(resolved)
	if !ok {
		if resolved == nil {
			return pipeline.Step{}, false
		}
		remedy := "write - KIND: {…}"
		if text, ok := scalar(resolved); ok {
			remedy = fmt.Sprintf("write - %s: {}", text)
		}
		d.at(placeOf(item), "a step is a mapping of its kind and settings, not "+describe(resolved), remedy)
		return pipeline.Step{}, false
	}
	if len(entries) == 0 {
		d.at(placeOf(item), "a step without a kind", "write - KIND: {…}")
		return pipeline.Step{}, false
	}
	if len(entries) > 1 {
		remedy := "begin a new step with -"
		if slices.Contains(append(Keys(common{}), "files"), entries[1].key) {
			remedy = "indent it further, below " + entries[0].key
		}
		d.at(entries[1].place, fmt.Sprintf("%q stands beside the kind %q", entries[1].key, entries[0].key), remedy)
		return pipeline.Step{}, false
	}
	e := entries[0]
	at := slices.IndexFunc(kinds, func(k pipeline.Kind) bool { return k.Name == e.key })
	if at < 0 {
		var names []string
		for _, k := range kinds {
			names = append(names, k.Name)
		}
		remedy := "there are " + strings.Join(names, ", ")
		if near := Nearest(e.key, names); near != "" {
			remedy = fmt.Sprintf("did you mean %q?", near)
		}
		d.at(e.place, fmt.Sprintf("there is no kind of step %q", e.key), remedy)
		return pipeline.Step{}, false
	}
	step := pipeline.Step{Kind: kinds[at], Pos: fmt.Sprintf("%s:%d:%d", d.file, e.place.line, e.place.column)}
	if step.Kind.Config != nil {
		step.Config = step.Kind.Config()
	} else {
		step.Config = &struct{}{}
	}
	before := len(d.problems)
	d.settings(path, e, &step)
	return step, len(d.problems) == before
}

// settings decodes what stands below a step's kind: the settings of every step and the kind's own.
func (d *decoder) settings(path string, e entry, step *pipeline.Step) {
	d.places[path] = e.place
	if e.value == nil {
		return
	}
	n := d.resolve(e.value)
	if _, null := n.(*ast.NullNode); n == nil || null {
		return
	}
	entries, ok := d.mapping(n)
	if !ok {
		d.at(placeOf(n), fmt.Sprintf("the settings of %s are a mapping, not %s", e.key, describe(n)), "write {} for the defaults")
		return
	}
	var c common
	shared := Keys(c)
	own := Keys(step.Config)
	for _, x := range entries {
		switch {
		case slices.Contains(shared, x.key):
			d.entries(path, []entry{x}, reflectOf(&c))
		case slices.Contains(own, x.key):
			d.entries(path, []entry{x}, reflectOf(step.Config))
		default:
			d.unknown(e.key, x, append(shared, own...))
		}
	}
	step.Name, step.OnError, step.Timeout, step.At, step.Shadow = c.Name, c.OnError, c.Timeout, c.At, c.Shadow
	if c.Name == "" {
		return
	}
	switch {
	case !stepName.MatchString(c.Name):
		d.wrong(path+".name", fmt.Sprintf("%q cannot be the name of a step", c.Name), "write lower-case letters, digits and _, a letter first")
	case slices.Contains(reserved(), c.Name):
		d.wrong(path+".name", fmt.Sprintf("%q is a word of the rule language", c.Name), "choose another name")
	}
}

// reserved are the words that rules use themselves: a step of this name could not be asked about.
func reserved() []string {
	return strings.Fields(`
		and or not in matches contains startsWith endsWith let if else true false nil
		all any none one filter map count sum find findIndex findLast findLastIndex groupBy sortBy reduce
		len abs ceil floor round int float string trim lower upper split join indexOf now date duration
		type get keys values first last take min max mean median concat flatten uniq reverse sort
		has header known hit client helo from rcpt rcpts header_from subject size received body text html
		attachments links anomalies message headers score tests rules`)
}

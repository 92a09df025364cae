// Package config reads Sluice's configuration: one YAML file, strictly, with everything that is wrong with it found at
// once, each with its place and a remedy.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"sluice/mailstore/journal"
	"sluice/mailstore/maildir"
	"sluice/mailstore/quarantine"
	"sluice/mailstore/queue"
	"sluice/mailstore/scripts"
	"sluice/mailstore/state"
	"sluice/mailstore/users"
	"sluice/pipeline"
	"sluice/pipeline/lookalike"
	"sluice/protocols/imap"
	"sluice/protocols/listen"
	"sluice/protocols/managesieve"
	"sluice/protocols/milter"
	"sluice/protocols/pop3"
	"sluice/protocols/relay"
	"sluice/protocols/smtp"
	"sluice/scanners/resolve"
)

// A Config is the whole configuration. Every key has a default: a file with only `pipeline:` is complete.
type Config struct {
	// Hostname is the name of this machine in greetings and trace fields. Default: what the system says.
	Hostname string `yaml:"hostname" example:"mx.example.org"`
	// Data is the folder for everything that Sluice keeps, made with mode 0700. Default: sluice-data.
	Data string `yaml:"data"`
	// Users says what there is besides the accounts: domain, domains, aliases, postmaster, passwords.
	Users users.Config `yaml:",inline"`
	// Trusted are the networks whose word counts: they may name another client, log in over cleartext, hand mail over
	// that was scanned already, and are not asked about. Default: loopback.
	Trusted []Network `yaml:"trusted"`
	// Listen names the sockets of each door. With it only the doors named here open; without it the loopback doors
	// smtp 2525, lmtp 2424, milter 8891, submission 1587, submissions 1465, imap 1143, imaps 1993, pop3 1110, pop3s 1995
	// and managesieve 4190 do.
	Listen Listen `yaml:"listen"`
	// Folders are made and subscribed when somebody logs in for the first time. Those that their owner removes stay away.
	Folders []string `yaml:"folders"`
	// Annotations are texts about the server that all accounts see (RFC 5464), such as /shared/admin and /shared/comment; what
	// `sluice user metadata` sets for an account counts first. Scripts read them with servermetadata; a script that
	// /shared/imapsieve/script names runs when a mail client changes something, where an account has one of that name.
	Annotations map[string]string `yaml:"annotations" example:"{/shared/admin: \"mailto:postmaster@example.org\"}"`
	// DeliverGroup is the group whose members may use `sluice deliver` besides root and whoever runs the server: its socket
	// DATA/run/deliver.sock is theirs, and DATA and DATA/run let them through. Default: nobody else.
	DeliverGroup string `yaml:"deliver_group"`
	// DeliverUsers are users, by name or number, who are believed when their `sluice deliver` says with --client-ip and
	// --helo who brought the mail; root and whoever runs the server always are.
	DeliverUsers []string `yaml:"deliver_users"`
	// TLS holds the certificates for all doors. Default: a self-signed one, made once and kept in the data folder.
	TLS TLS `yaml:"tls"`
	// Limits bound what a client, a message and the program may use.
	Limits Limits `yaml:"limits"`
	// Quarantine is the store of held mail.
	Quarantine Quarantine `yaml:"quarantine"`
	// Journal keeps the records of decisions.
	Journal journal.Config `yaml:"journal"`
	// Relay says how mail leaves. Without it none does: it waits.
	Relay relay.Config `yaml:"relay"`
	// Queue keeps mail that is to leave, until it has.
	Queue queue.Config `yaml:"queue"`
	// Resolver asks the DNS.
	Resolver resolve.Config `yaml:"resolver"`
	// State keeps counters and small values with an expiry.
	State state.Config `yaml:"state"`
	// Signing says how mail of ours is signed when it leaves.
	Signing Signing `yaml:"signing"`
	// Forwarding says how mail of others is handed on.
	Forwarding Forwarding `yaml:"forwarding"`
	// DMARCReports says what other domains are told about mail in their name.
	DMARCReports DMARCReports `yaml:"dmarc_reports"`
	// Log is what the program says while it runs, on standard error.
	Log Log `yaml:"log"`
	// Speak says when a refusal that is decided early is spoken: at `rcpt`, so that the record has the recipients, or
	// `earliest`. Default: rcpt.
	Speak Speak `yaml:"speak"`
	// Sieve says what scripts may do besides sorting mail, and where besides at delivery they run. That they run at all is a
	// `sieve` step's doing.
	Sieve Sieve `yaml:"sieve"`
	// Submission is how mail of our own users leaves.
	Submission Submission `yaml:"submission"`
	// Pipeline is the list of steps that a mail passes, in the order of decision: `- KIND: {its settings}`. Default: a few
	// header rules that refuse nothing.
	Pipeline []pipeline.Step `yaml:"-" key:"pipeline"`
	// Outgoing is the list of steps that mail of our own users passes on its way out, from the doors submission and
	// submissions: of the same kinds, but for those that sort somebody's mail. What they refuse is refused for logged-in
	// clients, too. Default: none.
	Outgoing []pipeline.Step `yaml:"-" key:"outgoing"`

	aliasFiles  []string
	aliasPlaces map[string]Problem // of aliases in files, by name in lower case

	file   string
	dir    string
	source [2]string // of Pipeline: path and text
	own    [2]string // of the file that was read, and of Outgoing
	d      *decoder
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
	return choose((*string)(s), text, speaks()...)
}

func speaks() []string { return []string{string(SpeakRcpt), string(SpeakEarliest)} }

func choose(to *string, text []byte, words ...string) error {
	if !slices.Contains(words, string(text)) {
		remedy := "write " + strings.Join(words, " or ")
		if near := lookalike.Nearest(string(text), words); near != "" {
			remedy = fmt.Sprintf("did you mean %q?", near)
		}
		return &remedied{fmt.Sprintf("there is no %q", text), remedy}
	}
	*to = string(text)
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

// String returns the network as a configuration writes it.
func (n Network) String() string {
	if p := netip.Prefix(n); !p.IsSingleIP() {
		return p.String()
	}
	return netip.Prefix(n).Addr().String()
}

// Quarantine is the store of held mail.
type Quarantine struct {
	// Store says how long mail is held.
	Store quarantine.Config `yaml:",inline"`
	// ReleaseTo takes released mail for recipients that have no account here: `smtp:HOST:PORT`, the MTA behind us.
	ReleaseTo string `yaml:"release_to" example:"\"smtp:127.0.0.1:10026\""`
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
	return choose((*string)(f), text, logFormats()...)
}

func logFormats() []string { return []string{"text", "json"} }

// Level is the weight of a log line.
type Level string

// UnmarshalText reads a level.
func (l *Level) UnmarshalText(text []byte) error {
	return choose((*string)(l), text, levels()...)
}

func levels() []string { return []string{"debug", "info", "warn", "error"} }

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
	accounts := users.DefaultConfig()
	accounts.Domain = "localhost"
	c := &Config{
		Data:    "sluice-data",
		Users:   accounts,
		Trusted: loopback,
		Folders: []string{"Drafts", "Sent", "Junk", "Trash", "Archive"},
		Limits: Limits{
			Sockets:        listen.DefaultLimits(),
			MessageSize:    50 << 20,
			HeaderSize:     256 << 10,
			HeaderFields:   1000,
			Recipients:     100, // RFC 5321, 4.5.3.1.8: at least
			MIMEDepth:      32,
			MIMEParts:      1000,
			MIMEParameters: 100,
			Text:           2 << 20,
			SMTP:           smtp.DefaultLimits(),
			Submission:     smtp.DefaultLimits(),
			LMTP:           smtp.DefaultLimits(),
			Milter:         milter.DefaultLimits(),
			IMAP:           imap.DefaultLimits(),
			POP3:           pop3.DefaultLimits(),
			ManageSieve:    managesieve.DefaultLimits(),
			Scripts:        scripts.DefaultLimits(),
			ScriptLog:      scripts.DefaultLogLimits(),
			Accounts:       maildir.DefaultLimits(),
			PhaseTimeout:   20 * time.Second,
			ContentTimeout: 4 * time.Minute,
			Workers:        8,
			Abandoned:      64,
			Shadow:         pipeline.DefaultTrialLimits(),
			DiskFree:       200 << 20,
			DiskInodes:     1000,
			Shutdown:       8 * time.Second,
		},
		Submission:   DefaultSubmission(),
		Quarantine:   Quarantine{Store: quarantine.Config{Keep: 30 * 24 * time.Hour}},
		Journal:      journal.DefaultConfig(),
		Relay:        relay.DefaultConfig(),
		Queue:        queue.DefaultConfig(),
		Sieve:        defaultSieve(),
		Resolver:     resolve.DefaultConfig(),
		State:        state.DefaultConfig(),
		Forwarding:   Forwarding{Lifetime: 21 * 24 * time.Hour},
		DMARCReports: DMARCReports{Size: 10 << 20, Addresses: 5},
		Log:          Log{Format: "text", Level: "info"},
		Speak:        SpeakRcpt,
	}
	sizes, numbers := c.Limits.followers()
	for x := range sizes {
		*x = 0
	}
	for x := range numbers {
		*x = 0
	}
	return c
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
//
// After an error the configuration is what could be read of it, with stand-ins for the steps that could not be (see
// pipeline.Step.Failed): good for finding out what else is wrong, and for nothing else. It is nil where nothing could be
// read.
func Parse(path, text string, kinds []pipeline.Kind) (*Config, error) {
	d := &decoder{file: path, places: map[string]place{}, stepPaths: map[string]string{}, anchors: map[string]ast.Node{}}
	c := Default()
	c.file, c.dir, c.d = path, filepath.Dir(path), d
	c.source, c.own = [2]string{path, text}, [2]string{path, text}
	root := d.parse(text)
	if root != nil {
		root = d.resolve(root)
	}
	entries, ok := d.mapping(root)
	switch _, null := root.(*ast.NullNode); {
	case root == nil && len(d.problems) > 0:
		return nil, d.problems.err()
	case root == nil, null:
	case !ok:
		d.at(placeOf(root), "a configuration is a mapping of keys and values, not "+describe(root), "")
		return nil, d.problems.err()
	}
	lists := map[string]*[]pipeline.Step{"pipeline": &c.Pipeline, "outgoing": &c.Outgoing}
	for _, e := range d.known("", "", entries, append(Keys(c), slices.Collect(maps.Keys(lists))...)) {
		if list := lists[e.key]; list != nil {
			*list = d.steps(e, kinds)
			continue
		}
		d.entries("", []entry{e}, reflectOf(c))
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

// At turns an error about a step into Problems with its place: pos is the step's Pos. Where the text begins with a
// setting of the step, "files[1]: …", the place is that of the setting.
func (c *Config) At(pos string, text string) Problem {
	p := Problem{File: c.file, Text: text}
	rest := strings.TrimPrefix(pos, c.file+":")
	line, column, _ := strings.Cut(rest, ":")
	p.Line, _ = strconv.Atoi(line)
	p.Column, _ = strconv.Atoi(column)
	if c.d == nil {
		return p
	}
	if path := c.d.setting(pos, text); path != "" {
		at := c.d.places[path]
		p.Line, p.Column, p.follows = at.line, at.column, c.d.hides(path)
	}
	if p.Line > 0 && p.Line <= len(c.d.lines) {
		p.Source = c.d.lines[p.Line-1]
	}
	return p
}

// setting returns the path of the setting that a text about the step at pos begins with, or of the one around it that is
// written; the step's own path if it begins with none, and "" where there is no such step.
func (d *decoder) setting(pos, text string) string {
	step := d.stepPaths[pos]
	if step == "" {
		return ""
	}
	path := step
	for rest := text; ; {
		key, after, ok := strings.Cut(rest, ": ")
		if !ok {
			return path
		}
		at := d.written(path + "." + key)
		if len(at) <= len(path) {
			return path
		}
		path, rest = at, after
	}
}

// checked completes c: defaults that depend on other settings, and what single values cannot tell.
func (c *Config) checked() (*Config, error) {
	d := c.d
	if c.Hostname != "" && !IsHostname(c.Hostname) {
		d.wrong("hostname", fmt.Sprintf("%q is no host name", c.Hostname), "write for example mx.example.org")
	}
	if c.Data == "" {
		d.wrong("data", "the data folder has no name", "leave the key out for sluice-data")
	}
	if !IsHostname(c.Users.Domain) {
		d.wrong("domain", fmt.Sprintf("%q is no domain", c.Users.Domain), "write for example example.org")
	}
	for i, x := range c.Users.Domains {
		if !IsHostname(x) {
			d.wrong(fmt.Sprintf("domains[%d]", i), fmt.Sprintf("%q is no domain", x), "write for example example.org")
		}
	}
	if c.Users.Postmaster != "" && !isAddress(c.Users.Postmaster) {
		d.wrong("postmaster", fmt.Sprintf("%q is no account", c.Users.Postmaster), "write NAME@DOMAIN")
	}
	c.checkAliases()
	c.checkSieve()
	c.checkAnnotations()
	for i, name := range c.Folders {
		if err := maildir.CheckFolder(name); err != nil || name == "" {
			d.wrong(fmt.Sprintf("folders[%d]", i), fmt.Sprintf("%q is no name for a folder", name), "write for example Drafts or Lists/go")
		}
	}
	for _, name := range Doors() {
		c.checkDoor(name)
	}
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		d.wrong("tls", "a certificate and its key go together", "set both, tls.certificate and tls.key, or neither")
	}
	for i, x := range c.TLS.Certificates {
		if x.Certificate == "" || x.Key == "" {
			d.wrong(fmt.Sprintf("tls.certificates[%d]", i), "a certificate and its key go together", "set both, certificate and key")
		}
	}
	c.checkSubmission()
	c.checkLimits()
	if c.Quarantine.Store.Keep == 0 {
		d.wrong("quarantine.keep", "mail would be held for no time at all", "write for example 30d")
	}
	if c.Journal.Keep == 0 {
		d.wrong("journal.keep", "records would be kept for no time at all", "write for example 90d")
	}
	c.checkQueue()
	for i, x := range c.Journal.PrivateRules {
		if step, rule, ok := strings.Cut(x, "/"); !ok || step == "" || rule == "" {
			d.wrong(fmt.Sprintf("journal.private_rules[%d]", i), fmt.Sprintf("%q names no rule of a step", x),
				"write step/rule, for example rules/fraud_* or rules/*")
		}
	}
	if to := c.Quarantine.ReleaseTo; to != "" {
		address, ok := strings.CutPrefix(to, "smtp:")
		if !ok || (Socket{Config: listen.Config{Address: address}}).check() != nil || strings.HasPrefix(address, ":") || strings.HasPrefix(address, "unix:") {
			d.wrong("quarantine.release_to", fmt.Sprintf("%q is no server", to), "write smtp:HOST:PORT")
		}
	}
	c.checkRelay()
	for i, x := range c.Resolver.Servers {
		_, bare := netip.ParseAddr(x)
		if _, withPort := netip.ParseAddrPort(x); bare != nil && withPort != nil {
			d.wrong(fmt.Sprintf("resolver.servers[%d]", i), fmt.Sprintf("%q is no address of a server", x),
				"write 192.0.2.1 or [2001:db8::1]:53")
		}
	}
	c.checkSigning()
	c.Limits.shared()
	return c, d.problems.err()
}

// Trusts reports whether an address is in a trusted network.
func (c *Config) Trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(c.Trusted, func(n Network) bool { return netip.Prefix(n).Contains(a) })
}

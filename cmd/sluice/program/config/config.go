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
	"reflect"
	"regexp"
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
	"sluice/pipeline/mime"
	"sluice/protocols/imap"
	"sluice/protocols/listen"
	"sluice/protocols/managesieve"
	"sluice/protocols/milter"
	"sluice/protocols/pop3"
	"sluice/protocols/relay"
	"sluice/protocols/smtp"
	"sluice/rules"
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
	// Sockets bounds the connections of each protocol.
	Sockets listen.Limits `yaml:",inline"`
	// MessageSize is the size of a message at every door that has no other of its own.
	MessageSize Size `yaml:"message_size"`
	// HeaderSize is the size of the header section of a message.
	HeaderSize Size `yaml:"header_size"`
	// HeaderFields is how many fields a header section may have.
	HeaderFields int `yaml:"header_fields"`
	// Recipients is how many recipients a message may have at smtp, lmtp and milter.
	Recipients int `yaml:"recipients"`
	// MIMEDepth is how deep multiparts and messages may nest: what is deeper is not looked into.
	MIMEDepth int `yaml:"mime_depth"`
	// MIMEParts is how many parts of a message are looked at.
	MIMEParts int `yaml:"mime_parts"`
	// MIMEParameters is how many parameters of one header field are looked at.
	MIMEParameters int `yaml:"mime_parameters"`
	// Text is how much decoded text of a message rules see, of plain text and HTML each.
	Text Size `yaml:"text"`
	// Quota is how much mail an account may keep; 0 is as much as there is room for.
	Quota Size `yaml:"quota"`
	// SMTP bounds what one client of the smtp door may do.
	SMTP smtp.Limits `yaml:"smtp"`
	// Submission bounds what one client of the submission doors may do.
	Submission smtp.Limits `yaml:"submission"`
	// LMTP bounds what one client of the lmtp door may do.
	LMTP smtp.Limits `yaml:"lmtp"`
	// Milter bounds what an MTA may make us hold.
	Milter milter.Limits `yaml:"milter"`
	// IMAP bounds what a reader may ask for.
	IMAP imap.Limits `yaml:"imap"`
	// POP3 bounds what a reader may ask for.
	POP3 pop3.Limits `yaml:"pop3"`
	// ManageSieve bounds what a client that manages scripts may ask for.
	ManageSieve managesieve.Limits `yaml:"managesieve"`
	// Scripts bounds the Sieve scripts that an account may keep.
	Scripts scripts.Limits `yaml:"scripts"`
	// ScriptLog bounds what is kept of what went wrong when an account's scripts ran: `sluice user log` shows it.
	ScriptLog scripts.LogLimits `yaml:"script_log"`
	// Accounts bounds what an account can hold besides its quota.
	Accounts maildir.Limits `yaml:"accounts"`
	// PhaseTimeout bounds the answer of all steps at one moment before the content of a mail is here.
	PhaseTimeout time.Duration `yaml:"phase_timeout"`
	// ContentTimeout bounds the answer of all steps about the content.
	ContentTimeout time.Duration `yaml:"content_timeout"`
	// Workers is how many questions about single recipients one mail may have under way.
	Workers int `yaml:"workers"`
	// Abandoned is how many calls of one stage may hang beyond their deadline before it fails at once.
	Abandoned int `yaml:"abandoned"`
	// Shadow bounds what shadow steps and shadow rules are asked after a mail has been answered.
	Shadow pipeline.TrialLimits `yaml:"shadow"`
	// DiskFree is how much room is kept free on the disk: with less, mail is put off (452) until there is more again.
	DiskFree Size `yaml:"disk_free"`
	// DiskInodes is the same for the number of files. Both: 0 is no such limit.
	DiskInodes int `yaml:"disk_inodes"`
	// Shutdown is what mail on its way in gets to arrive when the program is told to stop.
	Shutdown time.Duration `yaml:"shutdown"`
}

// MIME returns the limits for reading a message.
func (l Limits) MIME() mime.Limits {
	return mime.Limits{
		HeaderSize: int(l.HeaderSize), HeaderFields: l.HeaderFields,
		Depth: l.MIMEDepth, Parts: l.MIMEParts, Parameters: l.MIMEParameters, Text: int(l.Text),
	}
}

// shared gives the doors the limits that stand for all of them, where they have none of their own.
func (l *Limits) shared() {
	sizes, numbers := l.followers()
	for to, from := range sizes {
		*to = cmp.Or(*to, int64(from))
	}
	for to, from := range numbers {
		*to = cmp.Or(*to, from)
	}
}

// followers are the limits of single doors that have no defaults of their own: they follow what is said for all doors
// under the same key.
func (l *Limits) followers() (sizes map[*int64]Size, numbers map[*int]int) {
	return map[*int64]Size{
			&l.SMTP.MessageSize:       l.MessageSize,
			&l.Submission.MessageSize: l.MessageSize,
			&l.LMTP.MessageSize:       l.MessageSize,
			&l.Milter.MessageSize:     l.MessageSize,
			&l.IMAP.MessageSize:       l.MessageSize,
			&l.Milter.HeaderSize:      l.HeaderSize,
		}, map[*int]int{
			&l.SMTP.Recipients:       l.Recipients,
			&l.Submission.Recipients: l.Recipients,
			&l.LMTP.Recipients:       l.Recipients,
			&l.Milter.Recipients:     l.Recipients,
			&l.Milter.HeaderFields:   l.HeaderFields,
			&l.IMAP.Depth:            l.MIMEDepth,
			&l.IMAP.Parts:            l.MIMEParts,
		}
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

// DefaultListen returns the doors that open without `listen:`: all of them, on loopback.
func DefaultListen() Listen {
	at := func(port string) []Socket { return []Socket{{Config: listen.Config{Address: "127.0.0.1:" + port}}} }
	return Listen{
		SMTP: at("2525"), LMTP: at("2424"), Milter: at("8891"), Submission: at("1587"), Submissions: at("1465"),
		IMAP: at("1143"), IMAPS: at("1993"), POP3: at("1110"), POP3S: at("1995"), ManageSieve: at("4190"),
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
//
// After an error the configuration is what could be read of it, with stand-ins for the steps that could not be (see
// pipeline.Step.Failed): good for finding out what else is wrong, and for nothing else.
func Parse(path, text string, kinds []pipeline.Kind) (*Config, error) {
	d := &decoder{file: path, places: map[string]place{}, stepPaths: map[string]string{}, anchors: map[string]ast.Node{}}
	c := Default()
	c.file, c.dir, c.d = path, filepath.Dir(path), d
	c.source, c.own = [2]string{path, text}, [2]string{path, text}
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
	outer := struct {
		*Config
		Pipeline struct{} `yaml:"pipeline"` // so that misspellings are told about it
		Outgoing struct{} `yaml:"outgoing"`
	}{Config: c}
	lists := map[string]*[]pipeline.Step{"pipeline": &c.Pipeline, "outgoing": &c.Outgoing}
	for _, e := range entries {
		if lists[e.key] != nil {
			continue
		}
		d.entries("", []entry{e}, reflectOf(&outer))
	}
	for _, e := range entries {
		if list := lists[e.key]; list != nil && *list == nil {
			*list = d.steps(e, kinds)
		}
	}
	return c.checked()
}

// TakePipeline takes the steps of another configuration.
func (c *Config) TakePipeline(other *Config) { c.Pipeline, c.source = other.Pipeline, other.source }

// PipelineSource returns the name and the text of the configuration that the steps come from.
func (c *Config) PipelineSource() (path, text string) { return c.source[0], c.source[1] }

// OutgoingSource returns the name and the text of the configuration that the steps for outgoing mail come from.
func (c *Config) OutgoingSource() (path, text string) { return c.own[0], c.own[1] }

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
	key, _, _ := strings.Cut(text, ": ")
	if at, ok := c.d.places[c.d.stepPaths[pos]+"."+key]; ok && c.d.stepPaths[pos] != "" {
		p.Line, p.Column = at.line, at.column
	}
	if p.Line > 0 && p.Line <= len(c.d.lines) {
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

func (c *Config) checkLimits() {
	for _, x := range []struct {
		key   string
		value int64
		least int64
	}{
		{"message_size", int64(c.Limits.MessageSize), 1024},
		{"header_size", int64(c.Limits.HeaderSize), 1024},
		{"header_fields", int64(c.Limits.HeaderFields), 1},
		{"recipients", int64(c.Limits.Recipients), 1},
		{"mime_depth", int64(c.Limits.MIMEDepth), 1},
		{"mime_parts", int64(c.Limits.MIMEParts), 1},
		{"mime_parameters", int64(c.Limits.MIMEParameters), 1},
		{"text", int64(c.Limits.Text), 1024},
		{"phase_timeout", int64(c.Limits.PhaseTimeout), int64(time.Millisecond)},
		{"content_timeout", int64(c.Limits.ContentTimeout), int64(time.Millisecond)},
		{"workers", int64(c.Limits.Workers), 1},
		{"abandoned", int64(c.Limits.Abandoned), 1},
	} {
		if x.value < x.least {
			least := strconv.FormatInt(x.least, 10)
			if x.least == int64(time.Millisecond) {
				least = "1ms"
			}
			c.d.wrong("limits."+x.key, fmt.Sprintf("limits.%s is too small to work with", x.key), "the least is "+least)
		}
	}
	c.checkNegative()
	if most := 9 * time.Second; c.Limits.Shutdown > most {
		c.d.wrong("limits.shutdown", "limits.shutdown is longer than the program has to end, which is 10s", "the most is 9s")
	}
}

// checkNegative finds numbers below zero in the sections of others: they have their defaults for zero.
func (c *Config) checkNegative() {
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		collect(v, func(name, options string, f reflect.Value) {
			switch {
			case f.Kind() == reflect.Struct:
				walk(join(path, name), f)
			case f.CanInt() && f.Int() < 0 && options != negative && name != "cache_size": // below zero: no cache
				c.d.wrong(join(path, name), fmt.Sprintf("%s is below zero", join(path, name)), "leave the key out for its default")
			}
		})
	}
	walk("limits", reflectOf(&c.Limits))
	walk("resolver", reflectOf(&c.Resolver))
	walk("state", reflectOf(&c.State))
	walk("relay.timeouts", reflectOf(&c.Relay.Timeouts))
	walk("journal", reflectOf(&c.Journal))
	walk("queue", reflectOf(&c.Queue))
}

var hostname = regexp.MustCompile(`^[\pL\pN_]([\pL\pN_-]*[\pL\pN_])?(\.[\pL\pN_]([\pL\pN_-]*[\pL\pN_])?)*$`)

// IsHostname reports whether s is a name that a machine or a domain can have, with or without dots.
func IsHostname(s string) bool { return len(s) <= 253 && hostname.MatchString(s) }

func isAddress(s string) bool {
	at := strings.LastIndexByte(s, '@')
	return at > 0 && IsHostname(s[at+1:]) && !strings.ContainsFunc(s[:at], func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// common are the settings that every step takes.
type common struct {
	// Name is what rules and records call the step. Default: its kind, but where that is a word of the rule language.
	Name string `yaml:"name"`
	// OnError says what an unanswered question becomes: skip, postpone or refuse. Default: the kind's own.
	OnError *pipeline.OnError `yaml:"on_error"`
	// Timeout bounds one question. Default: 10s, and 60s for questions about content.
	Timeout time.Duration `yaml:"timeout" example:"10s"`
	// At is the phase before which the step is not asked: connect, helo, mail, rcpt, data or content.
	At *pipeline.Phase `yaml:"at" example:"content"`
	// Shadow records what the step says and never acts on it; `sluice shadow report` says what it would have done. It is asked
	// after the mail has been answered, and only shadow steps and shadow rules can read what it finds.
	Shadow bool `yaml:"shadow"`
}

var stepName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// steps decodes the list of steps.
func (d *decoder) steps(e entry, kinds []pipeline.Kind) []pipeline.Step {
	d.places[e.key] = e.place
	list, ok := d.resolve(e.value).(*ast.SequenceNode)
	if !ok {
		d.at(placeOf(e.value), e.key+" wants a list of steps, not "+describe(e.value), "write - KIND: {…} for each step")
		return nil
	}
	var steps []pipeline.Step
	names := map[string]place{}
	for i, item := range list.Values {
		path := fmt.Sprintf("%s[%d]", e.key, i)
		d.places[path] = placeOf(item)
		step, ok := d.step(path, item, kinds)
		step.Failed = !ok
		d.stepPaths[step.Pos] = path
		name, where := cmp.Or(step.Name, step.Kind.StepName()), d.where(path+".name")
		switch first, twice := names[name]; {
		case step.Config == nil: // its kind, and so its name, is a guess
		case twice:
			remedy := fmt.Sprintf("the first is in line %d; give this one a name: {name: %s_2, …}", first.line, name)
			d.at(where, fmt.Sprintf("a second step is called %q", name), remedy)
			step.Failed = true // which of the two is meant nobody knows
		default:
			names[name] = where
		}
		steps = append(steps, step)
	}
	return steps
}

// step decodes one step. Where something is wrong with it ok is false, and it has the kind and the name that it seems to
// have, if any.
func (d *decoder) step(path string, item ast.Node, kinds []pipeline.Kind) (step pipeline.Step, ok bool) {
	resolved := d.resolve(item)
	entries, ok := d.mapping(resolved)
	if !ok {
		if resolved == nil {
			return step, false
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
	e := entries[0]
	kind := func(name string) int {
		return slices.IndexFunc(kinds, func(k pipeline.Kind) bool { return k.Name == name })
	}
	if len(entries) > 1 {
		if at := kind(e.key); at >= 0 {
			step.Kind, step.Name = kinds[at], d.nameOf(e)
		}
		remedy := "begin a new step with -"
		if slices.Contains(append(Keys(common{}), "files"), entries[1].key) {
			remedy = "indent it further, below " + entries[0].key
		}
		d.at(entries[1].place, fmt.Sprintf("%q stands beside the kind %q", entries[1].key, entries[0].key), remedy)
		return step, false
	}
	at := kind(e.key)
	if at < 0 {
		var names []string
		for _, k := range kinds {
			names = append(names, k.Name)
		}
		near := lookalike.Nearest(e.key, names)
		remedy := "there are " + strings.Join(names, ", ")
		if near != "" {
			remedy = fmt.Sprintf("did you mean %q?", near)
			step.Kind = kinds[kind(near)]
		}
		d.at(e.place, fmt.Sprintf("there is no kind of step %q", e.key), remedy)
		if name := d.nameOf(e); name != "" {
			step.Name = name
		}
		return step, false
	}
	step = pipeline.Step{Kind: kinds[at], Pos: fmt.Sprintf("%s:%d:%d", d.file, e.place.line, e.place.column)}
	if step.Kind.Config != nil {
		step.Config = step.Kind.Config()
	} else {
		step.Config = &struct{}{}
	}
	before := len(d.problems)
	d.settings(path, e, &step)
	return step, len(d.problems) == before
}

// nameOf returns the name that a step of no known kind is given, "" for none.
func (d *decoder) nameOf(e entry) string {
	var values []*ast.MappingValueNode
	switch m := e.value.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	}
	for _, v := range values {
		if key, ok := scalar(v.Key); ok && key == "name" {
			name, _ := scalar(v.Value)
			return name
		}
	}
	return ""
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
	case rules.IsWord(c.Name):
		d.wrong(path+".name", fmt.Sprintf("%q is a word of the rule language", c.Name), "choose another name")
	}
}

// Trusts reports whether an address is in a trusted network.
func (c *Config) Trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(c.Trusted, func(n Network) bool { return netip.Prefix(n).Contains(a) })
}

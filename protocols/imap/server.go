package imap

import (
	"context"
	"log/slog"
	"net"
	"time"

	"sluice/mailstore"
	"sluice/protocols/listen"
)

// What listeners for IMAP write to a client that is one too many, and to one that is idle when the server ends.
const (
	Busy    = "* BYE [UNAVAILABLE] too many connections, try again later\r\n"
	Goodbye = "* BYE the server is shutting down\r\n"
)

// Config is what a Server works with. Store and Directory are needed.
type Config struct {
	Store     mailstore.Store
	Directory mailstore.Directory
	Keys      mailstore.Keyring // nil: no SCRAM
	Logins    *listen.Logins    // guards against guessing, best one for all doors; nil: one of its own
	Hostname  string            // for the greeting; may be ""
	Log       *slog.Logger      // nil: slog.Default
	Events    Events            // hears of what clients do with mail; nil: nobody does
	Limits    Limits
}

// Limits bound what a client may ask for. In a zero field the default counts.
type Limits struct {
	// MessageSize is the most octets of a message that a client may append. The default is 50 MiB.
	MessageSize int64 `yaml:"message_size"`
	// CommandLine is the length of a command without its literals, in octets. The default is 16384 (RFC 9051, 4 wants
	// room for 8192), the most 32768.
	CommandLine int `yaml:"command_line"`
	// Literal is the length of a string sent as a literal, in octets; messages are not meant. The default is 4096, the
	// most 16384.
	Literal int `yaml:"literal"`
	// Literals is how many strings of one command may be sent as literals. The default is 32.
	Literals int `yaml:"literals"`
	// LoginLine is the length of a command before login, in octets. The default is 2048.
	LoginLine int `yaml:"login_command_line"`
	// LoginLiteral is the length of a literal before login, in octets. The default is 512.
	LoginLiteral int `yaml:"login_literal"`
	// LoginOctets is how much a client may send before login, in octets. The default is 32768.
	LoginOctets int64 `yaml:"login_octets"`
	// LoginTime is how long a client may take to log in. The default is 3 minutes.
	LoginTime time.Duration `yaml:"login_time"`
	// FailedLogins is how many wrong passwords end a connection. The default is 3.
	FailedLogins int `yaml:"failed_logins"`
	// BadCommands is how many commands that are none, or out of place, end a connection before login. The default is 10.
	BadCommands int `yaml:"bad_commands"`
	// SearchNesting bounds nested parentheses in a command, and NOT and OR in a search. The default is 100, the most 500.
	SearchNesting int `yaml:"search_nesting"`
	// Idle is how long a logged-in client may be silent. The default is 31 minutes (RFC 9051, 5.4: at least 30).
	Idle time.Duration `yaml:"idle"`
	// Depth is how deep multiparts and messages may nest; what is deeper is shown as one part. The default is 32.
	Depth int `yaml:"mime_depth"`
	// Parts is how many parts of a message are told apart. The default is 1000.
	Parts int `yaml:"mime_parts"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{
		MessageSize:   50 << 20,
		CommandLine:   16 << 10,
		Literal:       4 << 10,
		Literals:      32,
		LoginLine:     2048,
		LoginLiteral:  512,
		LoginOctets:   32 << 10,
		LoginTime:     3 * time.Minute,
		FailedLogins:  3,
		BadCommands:   10,
		SearchNesting: 100,
		Idle:          31 * time.Minute,
		Depth:         32,
		Parts:         1000,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		MessageSize:   or(l.MessageSize, d.MessageSize),
		CommandLine:   min(or(l.CommandLine, d.CommandLine), 32<<10),
		Literal:       min(or(l.Literal, d.Literal), 16<<10),
		Literals:      or(l.Literals, d.Literals),
		LoginLine:     min(or(l.LoginLine, d.LoginLine), 32<<10),
		LoginLiteral:  min(or(l.LoginLiteral, d.LoginLiteral), 16<<10),
		LoginOctets:   or(l.LoginOctets, d.LoginOctets),
		LoginTime:     or(l.LoginTime, d.LoginTime),
		FailedLogins:  or(l.FailedLogins, d.FailedLogins),
		BadCommands:   or(l.BadCommands, d.BadCommands),
		SearchNesting: min(or(l.SearchNesting, d.SearchNesting), 500),
		Idle:          or(l.Idle, d.Idle),
		Depth:         min(or(l.Depth, d.Depth), 100),
		Parts:         or(l.Parts, d.Parts),
	}
}

func or[T int | int64 | time.Duration](x, d T) T {
	if x <= 0 {
		return d
	}
	return x
}

// A Server serves IMAP on any number of listeners.
type Server struct {
	cfg      Config
	sessions listen.Sessions
}

// New returns a server.
func New(cfg Config) *Server {
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Logins == nil {
		cfg.Logins = &listen.Logins{Log: cfg.Log}
	}
	s := &Server{cfg: cfg}
	s.sessions.Protocol, s.sessions.Talk = "imap", s.serve
	return s
}

// Serve accepts connections from l, which hands out *listen.Conn, until l is closed or Shutdown is called; then it
// returns nil.
func (s *Server) Serve(l net.Listener) error { return s.sessions.Serve(l) }

// Shutdown stops accepting, closes idle connections at once, and waits for commands under way until ctx ends. It returns
// when all connections have gone; the error is ctx's if some had to be cut.
func (s *Server) Shutdown(ctx context.Context) error { return s.sessions.Shutdown(ctx) }

// serve takes one connection from its greeting to its end.
func (s *Server) serve(conn *listen.Conn) {
	defer conn.Close()
	c := newClient(s, conn)
	account, err := c.login()
	if err == nil && account != nil {
		err = c.serve(account)
	}
	c.leave(err)
}

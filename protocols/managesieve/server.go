package managesieve

import (
	"context"
	"log/slog"
	"net"
	"time"

	"sluice/mailstore"
	"sluice/protocols/listen"
)

// What listeners for ManageSieve write to a client that is one too many, and to one that is idle when the server ends.
const (
	Busy    = "BYE (TRYLATER) \"too many connections, try again later\"\r\n"
	Goodbye = "BYE (TRYLATER) \"the server is shutting down\"\r\n"
)

// Config is what a Server works with. Scripts, Directory and Check are needed.
type Config struct {
	Scripts   mailstore.Scripts
	Directory mailstore.Directory
	Keys      mailstore.Keyring // nil: no SCRAM
	Logins    *listen.Logins    // guards against guessing, best one for all doors; nil: one of its own
	// Check returns what is wrong with a script of an account, and what may be a mistake in it, one line for each with its
	// place: "work: line 3: column 5: …". A script with problems is not kept.
	Check func(ctx context.Context, account, name string, text []byte) (warnings, problems []string)
	// Implementation, Sieve, Notify and MaxRedirects are what the capabilities of these names say (RFC 5804, 1.7): who we
	// are, extensions of Sieve, methods of notification ("mailto"; nil is none), and how often a script may redirect a mail
	// (less than 0: not said).
	Implementation string
	Sieve, Notify  []string
	MaxRedirects   int
	Hostname       string       // for the greeting; may be ""
	Log            *slog.Logger // nil: slog.Default
	Limits         Limits
}

// Limits bound what a client may ask for. In a zero field the default counts.
type Limits struct {
	// CommandLine is the length of a command without its literals, in octets. The default is 8192.
	CommandLine int `yaml:"command_line"`
	// Literal is how large a literal may be that is read only to be refused, in octets: a script that is over its limit is
	// answered so, a larger one ends the connection. The default is 16 MiB.
	Literal int64 `yaml:"literal"`
	// LoginOctets is how much a client may send before login, in octets. The default is 16384.
	LoginOctets int64 `yaml:"login_octets"`
	// LoginTime is how long a client may take to log in. The default is 3 minutes.
	LoginTime time.Duration `yaml:"login_time"`
	// FailedLogins is how many wrong passwords end a connection. The default is 3.
	FailedLogins int `yaml:"failed_logins"`
	// BadCommands is how many commands that are none, or out of place, end a connection. The default is 20.
	BadCommands int `yaml:"bad_commands"`
	// Idle is how long a logged-in client may be silent. The default is 30 minutes (RFC 5804, 1.2: at least that).
	Idle time.Duration `yaml:"idle"`
	// ScriptSize is how large a script may be to be read, in octets: what may be kept is a limit of its own. The default
	// is 1 MiB.
	ScriptSize int64 `yaml:"-"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{
		CommandLine:  8 << 10,
		Literal:      16 << 20,
		LoginOctets:  16 << 10,
		LoginTime:    3 * time.Minute,
		FailedLogins: 3,
		BadCommands:  20,
		Idle:         30 * time.Minute,
		ScriptSize:   1 << 20,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		CommandLine:  or(l.CommandLine, d.CommandLine),
		Literal:      or(l.Literal, d.Literal),
		LoginOctets:  or(l.LoginOctets, d.LoginOctets),
		LoginTime:    or(l.LoginTime, d.LoginTime),
		FailedLogins: or(l.FailedLogins, d.FailedLogins),
		BadCommands:  or(l.BadCommands, d.BadCommands),
		Idle:         or(l.Idle, d.Idle),
		ScriptSize:   or(l.ScriptSize, d.ScriptSize),
	}
}

func or[T int | int64 | time.Duration](x, d T) T {
	if x <= 0 {
		return d
	}
	return x
}

// A Server serves ManageSieve on any number of listeners.
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
	s.sessions.Protocol, s.sessions.Talk = "managesieve", s.serve
	return s
}

// Serve accepts connections from l, which hands out *listen.Conn, until l is closed or Shutdown is called; then it
// returns nil.
func (s *Server) Serve(l net.Listener) error { return s.sessions.Serve(l) }

// Shutdown stops accepting, closes idle connections at once, and waits for commands under way until ctx ends. It returns
// when all connections have gone; the error is ctx's if some had to be cut.
func (s *Server) Shutdown(ctx context.Context) error { return s.sessions.Shutdown(ctx) }

package pop3

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"sluice/mailstore"
	"sluice/protocols/listen"
)

// What listeners for POP3 write to a client that is one too many, and to one that is idle when the server ends.
const (
	Busy    = "-ERR [SYS/TEMP] too many connections, try again later\r\n"
	Goodbye = "-ERR [SYS/TEMP] the server is shutting down\r\n"
)

// Config is what a Server works with. Store and Directory are needed.
type Config struct {
	Store     mailstore.Store
	Directory mailstore.Directory
	Keys      mailstore.Keyring // nil: no SCRAM
	Logins    *listen.Logins    // guards against guessing, best one for all doors; nil: one of its own
	Hostname  string            // for the greeting; may be ""
	Log       *slog.Logger      // nil: slog.Default
	Limits    Limits
	Locks     *Locks // of accounts, shared by servers of one Store; nil: locks of its own
}

// Locks keep two sessions from having one inbox (RFC 1939, 4). The zero value is ready to use.
type Locks struct {
	mu   sync.Mutex
	held map[string]bool
}

// lock takes an account for one session; false if another one holds it.
func (l *Locks) lock(account string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[account] {
		return false
	}
	if l.held == nil {
		l.held = map[string]bool{}
	}
	l.held[account] = true
	return true
}

func (l *Locks) unlock(account string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, account)
}

// Limits bound what a client may ask for. In a zero field the default counts.
type Limits struct {
	// CommandLine is the length of a command, in octets. The default is 1024 (RFC 2449, 4 wants 255; passwords are longer).
	CommandLine int `yaml:"command_line"`
	// LoginOctets is how much a client may send before login, in octets. The default is 16384.
	LoginOctets int64 `yaml:"login_octets"`
	// LoginTime is how long a client may take to log in. The default is 3 minutes.
	LoginTime time.Duration `yaml:"login_time"`
	// FailedLogins is how many wrong passwords end a connection. The default is 3.
	FailedLogins int `yaml:"failed_logins"`
	// BadCommands is how many commands that are none, or out of place, end a connection. The default is 20.
	BadCommands int `yaml:"bad_commands"`
	// Idle is how long a logged-in client may be silent. The default is 10 minutes (RFC 1939, 3: at least that).
	Idle time.Duration `yaml:"idle"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{
		CommandLine:  1024,
		LoginOctets:  16 << 10,
		LoginTime:    3 * time.Minute,
		FailedLogins: 3,
		BadCommands:  20,
		Idle:         10 * time.Minute,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		CommandLine:  or(l.CommandLine, d.CommandLine),
		LoginOctets:  or(l.LoginOctets, d.LoginOctets),
		LoginTime:    or(l.LoginTime, d.LoginTime),
		FailedLogins: or(l.FailedLogins, d.FailedLogins),
		BadCommands:  or(l.BadCommands, d.BadCommands),
		Idle:         or(l.Idle, d.Idle),
	}
}

func or[T int | int64 | time.Duration](x, d T) T {
	if x <= 0 {
		return d
	}
	return x
}

// A Server serves POP3 on any number of listeners.
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
	if cfg.Locks == nil {
		cfg.Locks = &Locks{}
	}
	s := &Server{cfg: cfg}
	s.sessions.Protocol, s.sessions.Talk = "pop3", s.serve
	return s
}

// Serve accepts connections from l, which hands out *listen.Conn, until l is closed or Shutdown is called; then it
// returns nil.
func (s *Server) Serve(l net.Listener) error { return s.sessions.Serve(l) }

// Shutdown stops accepting, closes idle connections at once, and waits for commands under way until ctx ends. It returns
// when all connections have gone; the error is ctx's if some had to be cut.
func (s *Server) Shutdown(ctx context.Context) error { return s.sessions.Shutdown(ctx) }

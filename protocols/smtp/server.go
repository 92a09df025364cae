package smtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/spool"
	"sluice/protocols/listen"
)

// Goodbye and Busy are what a listener of this package's doors says to clients it closes or turns away.
const (
	Goodbye = "421 4.3.2 shutting down, please try again later\r\n"
	Busy    = "421 4.7.0 too many connections, please try again later\r\n"
)

// Limits bound what one client may do. In a zero field the default counts.
type Limits struct {
	// MessageSize is how many octets a message may have. The default is 50 MiB.
	MessageSize int64 `yaml:"message_size"`
	// Recipients is how many recipients one message may have. The default is 100 (RFC 5321, 4.5.3.1.8).
	Recipients int `yaml:"recipients"`
	// UnknownRecipients is how many unknown users a stranger may name in one connection. The default is 10.
	UnknownRecipients int `yaml:"unknown_recipients"`
	// Hops is how many Received fields make a message count as going in circles. The default is 50, as in Postfix.
	Hops int `yaml:"received_hops"`
	// CommandLine is how many octets a command may have, its line end included. The default is 2048.
	CommandLine int `yaml:"command_line"`
	// CommandTimeout is how long a client may take for one command. The default is 5 minutes (RFC 5321, 4.5.3.2.7).
	CommandTimeout time.Duration `yaml:"command_timeout"`
	// CommandErrors is how many commands may be wrong in one connection. The default is 20.
	CommandErrors int `yaml:"command_errors"`
	// FailedLogins is how many wrong passwords end a connection, at the submission doors. The default is 3.
	FailedLogins int `yaml:"failed_logins"`
	// BareNewlines says what becomes of a message in which a CR or LF stands alone: `refuse` it, `refuse_strangers`, or
	// `mend` it, which makes LF a line end and CR a space. The default is refuse_strangers at smtp, and mend at lmtp, where
	// a refusal would become a bounce.
	BareNewlines BareNewlines `yaml:"bare_newlines"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{
		MessageSize:       50 << 20,
		Recipients:        100,
		UnknownRecipients: 10,
		Hops:              50,
		CommandLine:       2048,
		CommandTimeout:    5 * time.Minute,
		CommandErrors:     20,
		FailedLogins:      3,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.MessageSize <= 0 {
		l.MessageSize = d.MessageSize
	}
	for _, x := range []struct{ limit, value *int }{
		{&l.Recipients, &d.Recipients}, {&l.UnknownRecipients, &d.UnknownRecipients}, {&l.Hops, &d.Hops},
		{&l.CommandLine, &d.CommandLine}, {&l.CommandErrors, &d.CommandErrors},
		{&l.FailedLogins, &d.FailedLogins},
	} {
		if *x.limit <= 0 {
			*x.limit = *x.value
		}
	}
	if l.CommandTimeout <= 0 {
		l.CommandTimeout = d.CommandTimeout
	}
	return l
}

// Config is what a door needs. Plan, Directory, Store and Quarantine must be set.
type Config struct {
	// LMTP: an MTA's queue stands before us, and each recipient is answered.
	LMTP bool
	// Refuse: the LMTP peer still holds its client, so that a refusal reaches the sender and does not become a bounce.
	Refuse bool
	// Submission makes an SMTP door one for our own users; nil: it is none.
	Submission *Submission
	// Believe makes an LMTP door that of `sluice deliver`, and reports whether the program at the other end may say who
	// brought the mail to it. Others are asked no more than at LMTP.
	Believe func(*listen.Conn) bool
	// State remembers at the door of `sluice deliver` whom a call has served that will be repeated; nil: nobody is
	// remembered, and a repeated call serves them again.
	State pipeline.State
	// Hostname is who we say we are. The default is what the system says.
	Hostname string
	// Plan returns the plan for a new connection, or at LMTP for a new message.
	Plan       func() *pipeline.Plan
	Directory  mailstore.Directory
	Store      mailstore.Store
	Quarantine mailstore.Quarantine
	// Outbox takes what leaves because of a mail; nil: nothing can, and a mail for whom something is to is postponed.
	Outbox mailstore.Outbox
	// Results says for the seal of a mail that is handed on what a transaction has found out (see
	// [mailstore.Outgoing.Results]); nil: nothing is known.
	Results func(*pipeline.Record) string
	// Run gives a program that an administrator lists a mail of an account's; nil: there are none.
	Run func(ctx context.Context, account string, r pipeline.Run, mail io.Reader) error
	// Back finds out whose mail a report is about that comes to a sender which we have rewritten; nil: none was.
	Back Back
	// Recall finds the record of a transaction that another of our doors has decided; nil, or no record, is that it is
	// gone.
	Recall func(ctx context.Context, id string) (*pipeline.Record, error)
	// Handover recognises the mail that another of our doors has decided. The zero value recognises nothing.
	Handover pipeline.Handover
	// Resolver finds the names of clients; nil: they are unknown.
	Resolver pipeline.Resolver
	// Trusted reports whether an address is in a trusted network; nil: none is.
	Trusted func(netip.Addr) bool
	Limits  Limits
	MIME    mime.Limits
	// Space says whether the disk has room for a message of so many octets (0: unknown); nil: it has.
	Space func(size int64) error
	// SpoolDir is where a message that is too large for memory is kept while it arrives; "" is the system's folder.
	SpoolDir string
	Now      func() time.Time // nil: time.Now
	Log      *slog.Logger     // nil: slog.Default
}

// A Server is an SMTP or an LMTP door. It may serve any number of listeners.
type Server struct {
	cfg    Config
	door   pipeline.Door
	memory spool.Pool // of messages

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	down      bool
	running   sync.WaitGroup // calls of Serve
}

// New returns a door.
func New(c Config) *Server {
	c.Limits = c.Limits.withDefaults()
	if c.Limits.BareNewlines == "" && c.LMTP {
		c.Limits.BareNewlines = Mend
	}
	c.Limits.BareNewlines = cmp.Or(c.Limits.BareNewlines, RefuseStrangers)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Trusted == nil {
		c.Trusted = func(netip.Addr) bool { return false }
	}
	if c.Hostname == "" {
		c.Hostname, _ = os.Hostname() // "" is answered below
	}
	if c.Hostname == "" {
		c.Hostname = "localhost"
	}
	return &Server{cfg: c, door: c.door(), listeners: map[net.Listener]struct{}{}}
}

// Serve answers the connections of l, which should come from package listen. It returns when l has been closed, or
// Shutdown called, and all its connections have ended; nil then.
func (s *Server) Serve(l net.Listener) error {
	if !s.add(l) {
		return l.Close()
	}
	defer s.remove(l)

	// Two servers, because go-smtp offers STARTTLS on each connection of a server that can do TLS. TLS itself is ours:
	// after the handshake the conversation goes on with the second server.
	feeds := [...]*feed{newFeed(l.Addr()), newFeed(l.Addr())}
	plain, secure := feeds[0], feeds[1]
	hostname := s.cfg.Hostname
	if l, ok := l.(*listen.Listener); ok {
		hostname = cmp.Or(l.Config().Hostname, hostname)
	}
	var libs, conversations sync.WaitGroup
	for i, f := range feeds {
		lib := s.library(i == 0, hostname)
		libs.Go(func() { _ = lib.Serve(f) }) // ends when f is closed
	}
	var err error
	for {
		var raw net.Conn
		if raw, err = l.Accept(); err != nil {
			break
		}
		conn, ok := raw.(*listen.Conn)
		if !ok {
			conn = listen.Wrap(raw, listen.Options{Trusted: s.cfg.Trusted, Goodbye: Goodbye})
		}
		c := newConversation(s, conn)
		conversations.Add(1)
		c.ended = conversations.Done
		c.goOn = func(w *wire) {
			if conn.CanStartTLS() {
				plain.offer(w)
			} else {
				secure.offer(w)
			}
		}
		c.goOn(newWire(c))
	}
	conversations.Wait()
	for _, f := range feeds {
		_ = f.Close()
	}
	libs.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("accept %s connections: %w", s.door, err)
}

func (s *Server) library(startTLS bool, hostname string) *smtp.Server {
	lib := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		w := c.Conn().(*wire)
		return session{w.c, w}, nil
	}))
	lib.Domain = hostname
	lib.LMTP = s.cfg.LMTP
	lib.ErrorLog = libraryLog{s.cfg.Log}
	lib.MaxRecipients = s.cfg.Limits.Recipients
	// go-smtp refuses a message that has just as many octets as it may. The wire names our limit to clients.
	lib.MaxMessageBytes = s.cfg.Limits.MessageSize + 1
	lib.MaxLineLength = 0 // the wire's task, and only for commands
	lib.EnableSMTPUTF8 = true
	lib.EnableDSN = true // the wire leaves it out where it is not offered
	if startTLS {
		lib.TLSConfig = &tls.Config{} // only so that it is offered: STARTTLS never reaches go-smtp
	}
	return lib
}

func (s *Server) add(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return false
	}
	s.listeners[l] = struct{}{}
	s.running.Add(1)
	return true
}

func (s *Server) remove(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	s.running.Done()
}

// Shutdown closes idle connections with a 421, lets messages that are being sent come to their end until ctx ends, and
// then breaks them off with a 421. It returns when all has ended, or soon after ctx has.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.down = true
	var all []net.Listener
	for l := range s.listeners {
		all = append(all, l)
	}
	s.mu.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, l := range all {
		wg.Go(func() {
			if l, ok := l.(*listen.Listener); ok {
				errs[i] = l.Shutdown(ctx)
				return
			}
			errs[i] = l.Close()
		})
	}
	wg.Wait()
	ended := make(chan struct{})
	go func() { // ends with the last conversation; all connections are closed
		s.running.Wait()
		close(ended)
	}()
	grace := time.NewTimer(recordGrace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C: // a stage that hangs keeps its conversation
	}
	return errors.Join(errs...)
}

// recordGrace is how long Shutdown waits for conversations whose connections are closed to hand over their records.
const recordGrace = 500 * time.Millisecond

// A feed is a listener that hands out the connections offered to it.
type feed struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newFeed(a net.Addr) *feed {
	return &feed{addr: a, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (f *feed) offer(c net.Conn) { f.conns <- c }

func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

func (f *feed) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

func (f *feed) Addr() net.Addr { return f.addr }

// libraryLog takes what go-smtp has to say. It says when connections break, which is no news, and when it catches a
// panic, which is.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if len(text) > 5 && text[:5] == "panic" {
		l.log.Error("the SMTP library caught a panic", "panic", text)
		return
	}
	l.log.Debug("SMTP connection ended", "why", text)
}

func (l libraryLog) Println(v ...any) { l.Printf("%s", fmt.Sprintln(v...)) }

package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/protocols/sasl"
)

// A session is a connection to a server, and what is known of who is there. One goroutine uses it at a time.
type session struct {
	server *server
	config *Config
	raw    net.Conn // below TLS
	conn   net.Conn
	r      *bufio.Reader
	out    []byte // commands not sent yet

	offers map[string]string // extensions in capitals, and what stands behind them
	tls    *tls.ConnectionState
	proof  string // what vouches for the server: "dane", "mta-sts", "certificate"
	note   string // what an MTA-STS policy that is only tested has against it

	until time.Time // when all must be over; zero is never
	over  bool      // nothing more can be said
	broke *failure  // why nothing more can be heard
	dirty bool      // a transaction was begun and not ended
	used  int       // mails
	// expire ends it when it was idle for too long.
	expire *time.Timer
}

// opener makes sessions.
type opener struct {
	config   *Config
	hostname string
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
}

// open connects to a server and gets as far as it takes mail. ctx ends the dialogue while open runs.
func (o *opener) open(ctx context.Context, to *server) (*session, *failure) {
	s, no := o.try(ctx, to, to.security.level != NoTLS)
	// RFC 7435: where nothing more is asked for, a TLS that does not work is no worse than none.
	if no != nil && no.at == atTLS && to.security.level == May && ctx.Err() == nil {
		s, no = o.try(ctx, to, false)
	}
	if no != nil {
		no.server = to
	}
	return s, no
}

// atTLS is where a failure lies in TLS.
const atTLS = "STARTTLS"

func (o *opener) try(ctx context.Context, to *server, secure bool) (_ *session, no *failure) {
	t := o.config.Timeouts
	dialing, cancel := context.WithTimeout(ctx, t.Connect)
	defer cancel()
	conn, err := o.dial(dialing, to.network, to.address)
	if err != nil {
		return nil, unasked("connect", "4.4.1", plainly(err, t.Connect))
	}
	s := &session{server: to, config: o.config, raw: conn, conn: conn, r: bufio.NewReaderSize(conn, o.config.ReplyLine)}
	defer s.heed(ctx)()
	defer func() {
		if no != nil {
			s.close()
		}
	}()
	if to.implicit {
		if no := s.handshake(ctx); no != nil {
			return nil, no
		}
	}
	greeting, no := s.hear("greeting", t.Greeting)
	if no != nil {
		return nil, no
	}
	if greeting.code != 220 {
		f := said("greeting", greeting)
		f.mail = false
		// RFC 7504: no mail here, ever. Others that refuse to talk may mean us, and only for now.
		f.permanent = greeting.code == 521 || greeting.code == 554
		return nil, f
	}
	if no := s.hello(o.hostname); no != nil {
		return nil, no
	}
	if secure && !to.implicit {
		if no := s.secure(ctx, o.hostname); no != nil {
			return nil, no
		}
	}
	if to.login.User != "" {
		if no := s.logIn(to.login); no != nil {
			return nil, no
		}
	}
	return s, nil
}

// heed makes the session end with ctx until the function it returns is called.
func (s *session) heed(ctx context.Context) (done func()) {
	s.until, _ = ctx.Deadline()
	stop := context.AfterFunc(ctx, func() {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) { // limit sees to that
			_ = s.raw.Close() // what waits for it says so
		}
	})
	return func() { stop() }
}

// close ends the connection without a word. It goes below TLS, whose own end could hang.
func (s *session) close() {
	s.over = true
	_ = s.raw.Close() // nobody is left to tell
}

// limit sets the deadline of what comes next, and returns how long that is: less than d where the time for all is short.
func (s *session) limit(d time.Duration) time.Duration {
	if left := time.Until(s.until); !s.until.IsZero() && left < d {
		d = max(left, 0).Round(time.Millisecond)
	}
	s.conn.SetDeadline(time.Now().Add(d))
	return d
}

// say keeps a command for flush.
func (s *session) say(format string, args ...any) {
	s.out = append(fmt.Appendf(s.out, format, args...), '\r', '\n')
}

// flush sends what was said. at is what it is called where that fails.
func (s *session) flush(at string) *failure {
	within := s.limit(s.config.Timeouts.Command)
	_, err := s.conn.Write(s.out)
	if s.out = s.out[:0]; err != nil {
		s.over = true
		return unasked(at, "4.4.2", plainly(err, within))
	}
	return nil
}

// hear reads a reply. A 421 ends the session (RFC 5321, 3.8).
func (s *session) hear(at string, within time.Duration) (reply, *failure) {
	if s.broke != nil {
		return reply{}, s.broke
	}
	within = s.limit(within)
	r, err := readReply(s.r, s.config.ReplyLines)
	if err != nil {
		s.over = true
		s.broke = unasked(at, "4.4.2", plainly(err, within))
		return reply{}, s.broke
	}
	if r.code == 421 {
		s.over = true
	}
	return r, nil
}

// ask says a command and returns the answer.
func (s *session) ask(at, format string, args ...any) (reply, *failure) {
	s.say(format, args...)
	if no := s.flush(at); no != nil {
		return reply{}, no
	}
	return s.hear(at, s.config.Timeouts.Command)
}

// hello introduces us, and learns what the server offers.
func (s *session) hello(hostname string) *failure {
	verb := "EHLO"
	if s.server.lmtp {
		verb = "LHLO"
	}
	r, no := s.ask(verb, "%s %s", verb, hostname)
	if no != nil {
		return no
	}
	if r.class() == 5 && !s.server.lmtp { // RFC 5321, 3.2: an old one
		verb = "HELO"
		if r, no = s.ask(verb, "HELO %s", hostname); no != nil {
			return no
		}
		r.lines = r.lines[:min(len(r.lines), 1)]
	}
	if r.class() != 2 {
		f := said(verb, r)
		f.mail, f.permanent = false, false
		return f
	}
	s.offers = map[string]string{}
	for _, line := range r.lines[min(len(r.lines), 1):] {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name, argument, old := strings.Cut(word, "="); old && strings.EqualFold(name, "AUTH") {
			word, rest = name, argument+" "+rest // as servers said it before RFC 2554, and some say it still
		}
		word = strings.ToUpper(word)
		s.offers[word] = strings.TrimSpace(s.offers[word] + " " + rest)
	}
	return nil
}

func (s *session) offer(extension string) bool {
	_, ok := s.offers[extension]
	return ok
}

// secure begins TLS (RFC 3207), as far as the server's security asks for it.
func (s *session) secure(ctx context.Context, hostname string) *failure {
	if !s.offer("STARTTLS") {
		if s.server.security.level == May {
			return nil
		}
		return unasked(atTLS, "4.7.10", fmt.Errorf("the server offers no TLS, and %s asks for it", s.server.security.by))
	}
	r, no := s.ask(atTLS, "STARTTLS")
	if no != nil {
		no.at = atTLS
		return no
	}
	if r.code != 220 {
		return &failure{at: atTLS, err: fmt.Errorf("refused: %s", r), status: "4.7.10"}
	}
	if s.r.Buffered() > 0 { // it would count as said within TLS
		return unasked(atTLS, "4.7.5", errors.New("the server says something before TLS begins that would count within it"))
	}
	if no := s.handshake(ctx); no != nil {
		return no
	}
	s.offers = nil // RFC 3207, 4.2: all that was said before is forgotten
	return s.hello(hostname)
}

func (s *session) handshake(ctx context.Context) *failure {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeouts.TLS)
	defer cancel()
	s.limit(s.config.Timeouts.TLS)
	settings := s.server.security.settings(s)
	conn := tls.Client(s.raw, settings)
	if err := conn.HandshakeContext(ctx); err != nil {
		s.over = true
		err = plainly(err, s.config.Timeouts.TLS)
		return unasked(atTLS, "4.7.5", fmt.Errorf("no TLS with the server: %w", err))
	}
	state := conn.ConnectionState()
	s.tls, s.conn = &state, conn
	s.r.Reset(conn)
	return nil
}

// logIn says who we are: RFC 4954, by the strongest mechanism that both know. What goes wrong is about us, not about a mail.
//
// Some servers offer SCRAM and have no keys for it. Where one refuses that, the password is sent after all, unless the
// configuration lists other mechanisms, and only to a server that has shown who it is.
func (s *session) logIn(l credentials) *failure {
	if s.tls == nil && !l.cleartext {
		return unasked("AUTH", badLogin, errors.New("no login without TLS; login: {cleartext: true} would allow it"))
	}
	offered := strings.Fields(strings.ToUpper(s.offers["AUTH"]))
	usable := sasl.Choose(offered, l.mechanisms, s.tls)
	if len(usable) == 0 {
		list := l.mechanisms
		if list == nil {
			list = sasl.Known()
		}
		return unasked("AUTH", badLogin, fmt.Errorf("the server offers none of %s", strings.Join(list, ", ")))
	}
	no := s.logInBy(usable[0], l, offered)
	weaker := slices.IndexFunc(usable, sasl.SendsPassword)
	if no != nil && weaker > 0 && no.reply.class() == 5 && !s.over && (s.proof != "" || s.tls == nil) {
		no = s.logInBy(usable[weaker], l, offered)
	}
	return no
}

const badLogin = "4.7.8"

func (s *session) logInBy(mechanism string, l credentials, offered []string) *failure {
	login, err := sasl.NewLogin(mechanism, l.User, l.password, offered, s.tls)
	if err != nil {
		return unasked("AUTH", badLogin, err)
	}
	step := "AUTH " + mechanism
	if response, ok := login.Initial(); ok {
		step += " " + response
	}
	for {
		r, no := s.ask("AUTH", "%s", step)
		if no != nil {
			return no
		}
		switch r.code {
		case 235:
			if err := login.Proved(); err != nil {
				return unasked("AUTH", badLogin, err)
			}
			return nil
		case 334:
			challenge := ""
			if len(r.lines) > 0 {
				challenge = r.lines[0]
			}
			if step, err = login.Next(challenge); err != nil {
				return unasked("AUTH", badLogin, err)
			}
		default:
			return &failure{at: "AUTH", reply: r, status: badLogin}
		}
	}
}

// quit says goodbye, if that does not take long.
func (s *session) quit() {
	if !s.over {
		s.until = time.Now().Add(s.config.Timeouts.Quit)
		_, _ = s.ask("QUIT", "QUIT") // whatever it says
	}
	s.close()
}

// how says to an operator how the mail went.
func (s *session) how() string {
	if s.tls == nil {
		return "without TLS"
	}
	text := "TLS " + s.version()
	switch s.proof {
	case "dane":
		text += ", verified by DANE"
	case "mta-sts":
		text += ", verified as its MTA-STS policy asks"
	case "certificate":
		text += ", certificate verified"
	default:
		text += ", not verified"
	}
	if s.note != "" {
		text += "; " + s.note
	}
	return text
}

func (s *session) version() string {
	if s.tls == nil {
		return ""
	}
	return strings.TrimPrefix(tls.VersionName(s.tls.Version), "TLS ")
}

// size returns the largest message the server takes; 0 is not known.
func (s *session) size() int64 {
	n, err := strconv.ParseInt(s.offers["SIZE"], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

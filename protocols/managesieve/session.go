package managesieve

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"sluice/mailstore"
	"sluice/protocols/listen"
	"sluice/protocols/sasl"
)

// A session is one connection.
type session struct {
	*Server
	conn *listen.Conn
	ctx  context.Context
	log  *slog.Logger
	in   reader
	bw   *bufio.Writer

	account  string // "" before login
	before   int64  // octets read when the client was last logged out
	failures int
	bads     int
}

var (
	errThrottled = reply{"TRYLATER", "too many failed logins, try again later"}
	errLogin     = reply{"", "wrong name or password"}
	errBinding   = reply{"", sasl.ErrBinding.Error()}
	errTemp      = reply{"TRYLATER", "this failed, try again later"}
	errFull      = reply{"TRYLATER", "the server's disk is full, try again later"}
	errUnknown   = reply{"", "unknown command"}
	errStranger  = reply{"", "log in first"}
	errKnown     = reply{"", "you have logged in already"}
	errPrivate   = reply{"ENCRYPT-NEEDED", "begin TLS first"}
)

var errLogout = errors.New("logged out")

// A farewell ends the connection with a last word.
type farewell struct{ code, text string }

func (f farewell) Error() string { return f.text }

// serve takes one connection from its greeting to its end.
func (s *Server) serve(conn *listen.Conn) {
	defer conn.Close()
	c := &session{
		Server: s, conn: conn, ctx: conn.Context(), bw: bufio.NewWriter(conn),
		log: s.cfg.Log.With("door", "managesieve", "client", conn.Peer()),
	}
	c.in = reader{br: bufio.NewReader(conn), line: s.cfg.Limits.CommandLine}
	err := c.run()
	var bye farewell
	switch {
	case errors.As(err, &bye):
		c.say(answer("BYE", bye.code, bye.text))
	case errors.Is(err, listen.ErrShutdown):
		c.say(Goodbye)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.say(answer("BYE", "", "you have been silent for too long"))
	case !errors.Is(err, errLogout) && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed):
		c.log.Debug("managesieve connection ended", "error", err)
	}
	_ = c.bw.Flush()
}

// say writes an answer. The buffer keeps its first error for Flush.
func (c *session) say(s string) { _, _ = c.bw.WriteString(s) }

func (c *session) ok(text string) { c.say(answer("OK", "", text)) }

// private reports whether a password may be sent: over TLS, or where nobody reads along.
func (c *session) private() bool {
	_, ok := c.conn.TLS()
	return ok || c.conn.Loopback() || c.conn.Trusted()
}

// logout makes the session one that has not logged in.
func (c *session) logout() {
	c.account, c.before = "", c.conn.BytesRead()
	c.conn.ReadUntil(time.Now().Add(c.cfg.Limits.LoginTime))
	c.conn.SetReadTimeout(0)
	// Nothing that somebody unknown sends is kept for long, or read only to be refused.
	c.in.literal, c.in.drop = min(mostResponse, c.cfg.Limits.LoginOctets), 0
}

// mostResponse is how long a literal before login may be, in octets: a password has at most 1024.
const mostResponse = 4096

// run serves until an error ends the connection.
func (c *session) run() error {
	c.logout()
	if err := c.conn.Handshake(); err != nil {
		return err
	}
	c.capabilities()
	c.ok(strings.TrimSpace(cmp.Or(c.conn.Hostname(), c.cfg.Hostname) + " " + cmp.Or(c.conn.Banner(), "ready")))
	for {
		if c.account == "" && c.conn.BytesRead()-c.before > c.cfg.Limits.LoginOctets {
			return farewell{"", "too much before login"}
		}
		cmd, err := read(c, c.in.command)
		if err == nil {
			err = c.command(cmd)
		}
		var syntax syntaxError
		if errors.As(err, &syntax) {
			c.bads++
			err = reply{"", string(syntax)}
		}
		if no, ok := errors.AsType[reply](err); ok {
			c.say(no.line())
			switch no {
			case errLogin, errBinding, errThrottled:
				c.failures++
			case errUnknown, errStranger, errKnown:
				c.bads++
			default:
			}
			err = nil
		}
		switch {
		case err != nil:
			return err
		case c.failures >= c.cfg.Limits.FailedLogins:
			return farewell{"", "too many failed logins"}
		case c.bads >= c.cfg.Limits.BadCommands:
			return farewell{"", "too many bad commands"}
		}
	}
}

// read calls f for what the client sends next. What is to be said is said before waiting for it; answers to commands that
// came together go together.
func read[T any](c *session, f func() (T, error)) (x T, err error) {
	if c.in.br.Buffered() == 0 {
		if err := c.bw.Flush(); err != nil {
			return x, err
		}
		c.conn.SetBusy(false)
	}
	x, err = f()
	switch {
	case errors.Is(err, errLine), errors.Is(err, errLiteral):
		return x, farewell{"", err.Error()}
	case err != nil && !errors.As(err, new(syntaxError)):
		return x, err
	case !c.conn.SetBusy(true):
		return x, net.ErrClosed
	}
	return x, err
}

// takes checks the arguments of a command: "s" is a string, "n" a number, "t" a string that may be a script.
func (cmd *command) takes(what string) bool {
	if len(cmd.args) != len(what) {
		return false
	}
	for i, a := range cmd.args {
		if a.number != (what[i] == 'n') || a.large && what[i] != 't' {
			return false
		}
	}
	return true
}

// command carries out one command.
func (c *session) command(cmd *command) error {
	switch cmd.name {
	case "CAPABILITY":
		if !cmd.takes("") {
			return reply{"", "CAPABILITY takes nothing"}
		}
		c.capabilities()
		c.ok("this is what can be asked")
		return nil
	case "NOOP":
		return c.noop(cmd)
	case "LOGOUT":
		if !cmd.takes("") {
			return reply{"", "LOGOUT takes nothing"}
		}
		c.ok("bye")
		return errLogout
	}
	if c.account == "" {
		return c.unknown(cmd)
	}
	return c.known(cmd)
}

// noop answers NOOP, with the tag that a client may look for (RFC 5804, 2.13).
func (c *session) noop(cmd *command) error {
	switch {
	case cmd.takes(""):
		c.ok("nothing done")
	case cmd.takes("s"):
		c.say(answer("OK", "TAG "+str(cmd.args[0].text), "nothing done"))
	default:
		return reply{"", "NOOP takes a string or nothing"}
	}
	return nil
}

// capabilities says what may be asked of the server now (RFC 5804, 1.7).
func (c *session) capabilities() {
	list := [][2]string{
		{"IMPLEMENTATION", cmp.Or(c.cfg.Implementation, "Sluice")},
		{"SIEVE", strings.Join(c.cfg.Sieve, " ")},
	}
	list = append(list, [2]string{"SASL", c.mechanisms()})
	for _, x := range list {
		c.say(str(x[0]) + " " + str(x[1]) + "\r\n")
	}
	if c.account == "" && c.conn.CanStartTLS() {
		c.say("\"STARTTLS\"\r\n")
	}
	if len(c.cfg.Notify) > 0 {
		c.say(`"NOTIFY" ` + str(strings.Join(c.cfg.Notify, " ")) + "\r\n")
	}
	if c.cfg.MaxRedirects >= 0 {
		c.say(`"MAXREDIRECTS" ` + str(number(c.cfg.MaxRedirects)) + "\r\n")
	}
	c.say("\"LANGUAGE\" \"en\"\r\n\"UNAUTHENTICATE\"\r\n")
	if c.account != "" {
		c.say(`"OWNER" ` + str(c.account) + "\r\n")
	}
	c.say("\"VERSION\" \"1.0\"\r\n")
}

// unknown carries out a command of a client that has not logged in.
func (c *session) unknown(cmd *command) error {
	switch cmd.name {
	case "STARTTLS":
		return c.startTLS(cmd)
	case "AUTHENTICATE":
		return c.authenticate(cmd)
	case "UNAUTHENTICATE", "HAVESPACE", "PUTSCRIPT", "LISTSCRIPTS", "SETACTIVE", "GETSCRIPT", "DELETESCRIPT", "RENAMESCRIPT",
		"CHECKSCRIPT":
		return errStranger
	}
	return errUnknown
}

// startTLS begins TLS. Octets that came before the handshake never count after it (CVE-2011-0411).
func (c *session) startTLS(cmd *command) error {
	if !cmd.takes("") || !c.conn.CanStartTLS() {
		return reply{"", "STARTTLS is not available"}
	}
	c.ok("begin TLS now")
	if err := c.bw.Flush(); err != nil {
		return err
	}
	if err := c.conn.StartTLS(c.in.br.Buffered()); err != nil {
		c.log.Debug("starttls failed", "error", err)
		return net.ErrClosed // nothing more in clear
	}
	c.in.br.Reset(c.conn)
	c.bw.Reset(c.conn)
	// RFC 5804, 2.2: what the client has learnt before does not count.
	c.capabilities()
	c.ok("TLS has begun")
	return nil
}

// sasl logs clients in.
func (c *session) sasl() *sasl.Server {
	return &sasl.Server{Door: "managesieve", Directory: c.cfg.Directory, Keys: c.cfg.Keys, Logins: c.cfg.Logins, Log: c.log}
}

// mechanisms are what AUTHENTICATE takes now.
func (c *session) mechanisms() string {
	if !c.private() {
		return ""
	}
	return strings.Join(c.sasl().Mechanisms(c.ctx, sasl.ClientOf(c.conn)), " ")
}

// authenticate logs in by SASL, with or without an initial response (RFC 5804, 2.1).
func (c *session) authenticate(cmd *command) error {
	if !cmd.takes("s") && !cmd.takes("ss") {
		return reply{"", "AUTHENTICATE takes a mechanism and, if you like, a response"}
	}
	if !c.private() {
		return errPrivate
	}
	var asking error // why there is no answer
	x := sasl.Exchange{Mechanism: cmd.args[0].text, Last: true, Ask: func(challenge string) (answer string, err error) {
		c.say(str(challenge) + "\r\n")
		answer, asking = read(c, c.in.answer)
		return answer, asking
	}}
	if len(cmd.args) == 2 {
		x.Initial, x.Has = cmd.args[1].text, true
	}
	name, last, err := c.sasl().Authenticate(c.ctx, sasl.ClientOf(c.conn), x)
	switch {
	case asking != nil:
		return asking
	case errors.Is(err, sasl.ErrMechanism):
		switch strings.ToUpper(x.Mechanism) {
		case "LOGIN", "ANONYMOUS", "CRAM-MD5", "DIGEST-MD5":
			return reply{"AUTH-TOO-WEAK", "the mechanisms are " + c.mechanisms()}
		}
		return reply{"", "the mechanisms are " + c.mechanisms()}
	case errors.Is(err, sasl.ErrCancelled):
		return reply{"", "AUTHENTICATE cancelled"}
	case errors.Is(err, sasl.ErrResponse):
		return reply{"", "this is no response of " + strings.ToUpper(x.Mechanism)}
	case errors.Is(err, sasl.ErrProxy):
		return reply{"", sasl.ErrProxy.Error()}
	case errors.Is(err, sasl.ErrBinding):
		return errBinding
	case errors.Is(err, mailstore.ErrPassword):
		return errLogin
	case errors.Is(err, listen.ErrThrottled):
		return errThrottled
	case err == nil:
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	default:
		c.log.Error("managesieve cannot log in", "error", err)
		return errTemp
	}
	c.account = name
	c.conn.ReadUntil(time.Time{})
	c.conn.SetReadTimeout(c.cfg.Limits.Idle)
	c.in.literal, c.in.drop = c.cfg.Limits.ScriptSize, c.cfg.Limits.Literal
	code := ""
	if last != "" {
		code = "SASL " + str(last)
	}
	c.say(answer("OK", code, "you are "+name))
	return nil
}

package imap

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

// A client is one connection.
type client struct {
	*Server
	conn     *listen.Conn
	ctx      context.Context
	log      *slog.Logger
	br       *bufio.Reader
	commands commandReader
}

func newClient(s *Server, conn *listen.Conn) *client {
	c := &client{Server: s, conn: conn, ctx: conn.Context()}
	c.log = s.cfg.Log.With("door", "imap", "client", conn.Peer())
	c.br = bufio.NewReader(conn)
	c.commands = commandReader{br: c.br, leave: func() error { return c.write("+ go ahead\r\n") }}
	return c
}

func (c *client) write(lines ...string) error {
	_, err := io.WriteString(c.conn, strings.Join(lines, ""))
	return err
}

// leave says why the connection ends, where the client can still hear it.
func (c *client) leave(err error) {
	var bye *farewell
	switch {
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
	case errors.As(err, &bye):
		_ = c.write("* BYE ", bye.text, "\r\n")
	case errors.Is(err, listen.ErrShutdown):
		_ = c.write(Goodbye)
	case errors.Is(err, os.ErrDeadlineExceeded):
		_ = c.write("* BYE you have been silent for too long\r\n")
	default:
		c.log.Debug("imap connection ended", "error", err)
	}
}

// capabilities returns what may be asked of the server now.
func (c *client) capabilities() string {
	s := "IMAP4rev1 SASL-IR LITERAL-"
	if c.conn.CanStartTLS() {
		s += " STARTTLS"
	}
	if c.private() {
		return s + " AUTH=" + strings.Join(c.mechanisms(), " AUTH=")
	}
	return s + " LOGINDISABLED"
}

// greeting names us.
func (c *client) greeting() string {
	return strings.TrimSpace(cmp.Or(c.conn.Hostname(), c.cfg.Hostname) + " " + cmp.Or(c.conn.Banner(), "ready"))
}

// private reports whether a password may be sent: over TLS, or where nobody reads along.
func (c *client) private() bool {
	_, ok := c.conn.TLS()
	return ok || c.conn.Loopback() || c.conn.Trusted()
}

// login serves the client until it has logged in, and returns its mail, nil if it left. Everything before login happens
// here: the library never hears of it.
func (c *client) login() (account mailstore.Account, err error) {
	lim := c.cfg.Limits
	c.conn.ReadUntil(time.Now().Add(lim.LoginTime))
	if err := c.conn.Handshake(); err != nil {
		return nil, err
	}
	if err := c.write("* OK [CAPABILITY ", c.capabilities(), "] ", c.greeting(), "\r\n"); err != nil {
		return nil, err
	}
	failures, bads := 0, 0
	for {
		c.conn.SetBusy(false)
		if c.conn.BytesRead() > lim.LoginOctets {
			return nil, &farewell{"too much before login"}
		}
		cmd, err := c.commands.read(commandLimits{line: lim.LoginLine, literal: int64(lim.LoginLiteral), literals: 2})
		if err == nil {
			if !c.conn.SetBusy(true) {
				return nil, nil
			}
			account, err = c.notAuthenticated(cmd)
		}
		var no *refusal
		switch {
		case err == nil && account != nil:
			c.conn.ReadUntil(time.Time{})
			return account, nil
		case err == nil:
			continue
		case errors.Is(err, errLogout):
			return nil, nil
		case errors.As(err, &no):
		default:
			return nil, err
		}
		if err := c.write(no.line()); err != nil {
			return nil, err
		}
		if strings.HasPrefix(no.status, "NO [AUTH") || strings.HasPrefix(no.status, "NO [UNAV") {
			failures++
		} else {
			bads++
		}
		switch {
		case failures >= lim.FailedLogins:
			return nil, &farewell{"too many failed logins"}
		case bads >= lim.BadCommands:
			return nil, &farewell{"too many bad commands"}
		}
	}
}

var errLogout = errors.New("logged out")

// notAuthenticated carries out a command of the not authenticated state (RFC 9051, 6.2).
func (c *client) notAuthenticated(cmd *command) (account mailstore.Account, err error) {
	args := scanner{cmd.args}
	switch cmd.name {
	case "CAPABILITY":
		return nil, c.write("* CAPABILITY ", c.capabilities(), "\r\n", cmd.tag, " OK CAPABILITY completed\r\n")
	case "NOOP":
		return nil, c.write(cmd.tag, " OK NOOP completed\r\n")
	case "LOGOUT":
		if err := c.write("* BYE logging out\r\n", cmd.tag, " OK LOGOUT completed\r\n"); err != nil {
			return nil, err
		}
		return nil, errLogout
	case "STARTTLS":
		return nil, c.startTLS(cmd)
	case "LOGIN":
		if !c.private() {
			return nil, &refusal{cmd.tag, "NO [PRIVACYREQUIRED]", "begin TLS first"}
		}
		name, ok1 := args.astring()
		sp := args.accept(" ")
		password, ok2 := args.astring()
		if !ok1 || !sp || !ok2 || !args.end() {
			return nil, bad(cmd.tag, "LOGIN takes a name and a password")
		}
		account, err := c.sasl().Password(c.ctx, sasl.ClientOf(c.conn), name, password)
		return c.enter(cmd, account, err)
	case "AUTHENTICATE":
		return c.authenticate(cmd)
	case "SELECT", "EXAMINE", "LIST", "LSUB", "STATUS", "APPEND", "IDLE", "NAMESPACE", "ENABLE", "FETCH", "UID FETCH",
		"SEARCH", "UID SEARCH", "STORE", "UID STORE", "COPY", "UID COPY", "MOVE", "UID MOVE", "CREATE", "DELETE", "RENAME",
		"SUBSCRIBE", "UNSUBSCRIBE", "CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "UID EXPUNGE":
		return nil, bad(cmd.tag, "log in first")
	}
	return nil, bad(cmd.tag, "unknown command")
}

// startTLS begins TLS. Octets that came before the handshake never count after it (CVE-2011-0411).
func (c *client) startTLS(cmd *command) error {
	switch {
	case cmd.args != "":
		return bad(cmd.tag, "STARTTLS takes nothing")
	case !c.conn.CanStartTLS():
		return bad(cmd.tag, "STARTTLS is not available")
	}
	if err := c.write(cmd.tag, " OK begin TLS now\r\n"); err != nil {
		return err
	}
	if err := c.conn.StartTLS(c.br.Buffered()); err != nil {
		c.log.Debug("starttls failed", "error", err)
		return net.ErrClosed // nothing more in clear
	}
	c.br.Reset(c.conn)
	return nil
}

// sasl logs clients in.
func (c *client) sasl() *sasl.Server {
	return &sasl.Server{Door: "imap", Directory: c.cfg.Directory, Keys: c.cfg.Keys, Logins: c.cfg.Logins, Log: c.log}
}

func (c *client) mechanisms() []string { return c.sasl().Mechanisms(c.ctx, sasl.ClientOf(c.conn)) }

// authenticate logs in by SASL, with or without an initial response (RFC 4959).
func (c *client) authenticate(cmd *command) (mailstore.Account, error) {
	if !c.private() {
		return nil, &refusal{cmd.tag, "NO [PRIVACYREQUIRED]", "begin TLS first"}
	}
	var over error // why the connection ends
	x := sasl.Exchange{Ask: func(challenge string) (line string, err error) {
		line, over = c.ask(challenge)
		return line, over
	}}
	x.Mechanism, x.Initial, x.Has = strings.Cut(cmd.args, " ")
	name, _, err := c.sasl().Authenticate(c.ctx, sasl.ClientOf(c.conn), x)
	switch {
	case errors.Is(over, errLong):
		return nil, bad(cmd.tag, "the response is too long")
	case over != nil:
		return nil, over
	case errors.Is(err, sasl.ErrMechanism):
		return nil, &refusal{cmd.tag, "NO", "the mechanisms are " + strings.Join(c.mechanisms(), " ")}
	case errors.Is(err, sasl.ErrCancelled):
		return nil, bad(cmd.tag, "AUTHENTICATE cancelled")
	case errors.Is(err, sasl.ErrResponse):
		return nil, bad(cmd.tag, "this is no response of %s", strings.ToUpper(x.Mechanism))
	case errors.Is(err, sasl.ErrProxy):
		return nil, &refusal{cmd.tag, "NO [AUTHORIZATIONFAILED]", sasl.ErrProxy.Error()}
	case errors.Is(err, sasl.ErrBinding):
		return nil, &refusal{cmd.tag, "NO [AUTHENTICATIONFAILED]", sasl.ErrBinding.Error()}
	}
	return c.enter(cmd, name, err)
}

// ask sends a challenge and returns the answer.
func (c *client) ask(challenge string) (string, error) {
	if err := c.write("+ ", challenge, "\r\n"); err != nil {
		return "", err
	}
	line, _, err := c.commands.readLine(c.cfg.Limits.LoginLine, 2*c.cfg.Limits.LoginLine)
	return string(line), err
}

// enter opens the mail of who has logged in and says so, unless the login failed.
func (c *client) enter(cmd *command, name string, err error) (mailstore.Account, error) {
	var account mailstore.Account
	if err == nil {
		account, err = c.cfg.Store.Account(c.ctx, name)
	}
	switch {
	case err == nil:
		return account, c.write(cmd.tag, " OK [CAPABILITY ", c.loggedInCapabilities(), "] ", cmd.name, " completed\r\n")
	case errors.Is(err, mailstore.ErrPassword):
		return nil, &refusal{cmd.tag, "NO [AUTHENTICATIONFAILED]", "wrong name or password"}
	case errors.Is(err, listen.ErrThrottled):
		return nil, &refusal{cmd.tag, "NO [UNAVAILABLE]", "too many failed logins, try again later"}
	case c.ctx.Err() != nil:
		return nil, context.Cause(c.ctx)
	}
	c.log.Error("cannot log in", "account", name, "error", err)
	return nil, &refusal{cmd.tag, "NO [UNAVAILABLE]", "logins are not possible now, try again later"}
}

package imap

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"sluice/mailstore"
	"sluice/protocols/listen"
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
		return s + " AUTH=PLAIN"
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
		return c.authenticate(cmd, name, password)
	case "AUTHENTICATE":
		return c.authenticatePlain(cmd)
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

// authenticatePlain logs in by SASL's PLAIN (RFC 4616), with or without an initial response (RFC 4959).
func (c *client) authenticatePlain(cmd *command) (mailstore.Account, error) {
	mechanism, response, initial := strings.Cut(cmd.args, " ")
	switch {
	case !c.private():
		return nil, &refusal{cmd.tag, "NO [PRIVACYREQUIRED]", "begin TLS first"}
	case !strings.EqualFold(mechanism, "PLAIN"):
		return nil, &refusal{cmd.tag, "NO", "the mechanism is PLAIN"}
	}
	if !initial {
		if err := c.write("+ \r\n"); err != nil {
			return nil, err
		}
		line, _, err := c.commands.readLine(c.cfg.Limits.LoginLine, 2*c.cfg.Limits.LoginLine)
		if errors.Is(err, errLong) {
			return nil, bad(cmd.tag, "the response is too long")
		}
		if err != nil {
			return nil, err
		}
		if response = string(line); response == "*" {
			return nil, bad(cmd.tag, "AUTHENTICATE cancelled")
		}
	}
	raw, err := base64.StdEncoding.DecodeString(response)
	if err != nil {
		return nil, bad(cmd.tag, "the response is not base64")
	}
	fields := strings.Split(string(raw), "\x00")
	if len(fields) != 3 {
		return nil, bad(cmd.tag, "the response is not one of PLAIN")
	}
	if fields[0] != "" && fields[0] != fields[1] {
		return nil, &refusal{cmd.tag, "NO [AUTHORIZATIONFAILED]", "nobody acts for somebody else here"}
	}
	return c.authenticate(cmd, fields[1], fields[2])
}

// authenticate looks at a password and answers if it is right.
func (c *client) authenticate(cmd *command, login, password string) (mailstore.Account, error) {
	name, err := c.cfg.Logins.Attempt(c.ctx, "imap", c.conn.Peer(), c.conn.Trusted(), login,
		func(ctx context.Context) (string, error) { return c.cfg.Directory.Authenticate(ctx, login, password) })
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
	c.log.Error("cannot log in", "account", login, "error", err)
	return nil, &refusal{cmd.tag, "NO [UNAVAILABLE]", "logins are not possible now, try again later"}
}

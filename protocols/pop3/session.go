package pop3

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
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
	br   *bufio.Reader
	bw   *bufio.Writer

	user     string // what USER said
	failures int
	bads     int

	// Since login:
	account  mailstore.Account
	folder   mailstore.Folder
	validity uint32
	messages []mailstore.Message // as they were at login; number n is at n-1
	deleted  map[int]bool        // marked by DELE, by index
}

// A reply is an answer that is not +OK. The session goes on.
type reply string

func (r reply) Error() string { return string(r) }

const (
	errUnknown   = reply("unknown command")
	errNoUser    = reply("USER comes before PASS")
	errNoLogin   = reply("log in first")
	errHasLogin  = reply("you have logged in already")
	errLogin     = reply("[AUTH] wrong name or password")
	errThrottled = reply("[SYS/TEMP] too many failed logins, try again later")
	errTemp      = reply("[SYS/TEMP] this failed, try again later")
)

var errBinding = reply("[AUTH] " + sasl.ErrBinding.Error())

// What ends a connection.
var (
	errQuit = errors.New("quit")
	errLong = errors.New("line too long")
)

// A farewell ends the connection with a last word.
type farewell string

func (f farewell) Error() string { return string(f) }

// serve takes one connection from its greeting to its end.
func (s *Server) serve(conn *listen.Conn) {
	defer conn.Close()
	c := &session{
		Server: s, conn: conn, ctx: conn.Context(), br: bufio.NewReader(conn), bw: bufio.NewWriter(conn),
		log: s.cfg.Log.With("door", "pop3", "client", conn.Peer()),
	}
	err := c.run()
	if c.account != nil {
		s.cfg.Locks.unlock(c.account.Name())
		_ = c.account.Close()
	}
	var bye farewell
	switch {
	case errors.As(err, &bye):
		c.err(string(bye))
	case errors.Is(err, listen.ErrShutdown):
		_, _ = c.bw.WriteString(Goodbye)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.err("you have been silent for too long")
	case err != nil && !errors.Is(err, errQuit) && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed):
		c.log.Debug("pop3 connection ended", "error", err)
	}
	_ = c.bw.Flush()
}

func (c *session) ok(format string, args ...any) error {
	_, err := fmt.Fprintf(c.bw, "+OK "+format+"\r\n", args...)
	return err
}

func (c *session) err(text string) { _, _ = fmt.Fprintf(c.bw, "-ERR %s\r\n", text) } // Flush tells

// private reports whether a password may be sent: over TLS, or where nobody reads along.
func (c *session) private() bool {
	_, ok := c.conn.TLS()
	return ok || c.conn.Loopback() || c.conn.Trusted()
}

// run serves until an error ends the connection.
func (c *session) run() error {
	c.conn.ReadUntil(time.Now().Add(c.cfg.Limits.LoginTime))
	if err := c.conn.Handshake(); err != nil {
		return err
	}
	if err := c.ok("%s", strings.TrimSpace(cmp.Or(c.conn.Hostname(), c.cfg.Hostname)+" "+cmp.Or(c.conn.Banner(), "ready"))); err != nil {
		return err
	}
	for {
		if c.account == nil && c.conn.BytesRead() > c.cfg.Limits.LoginOctets {
			return farewell("too much before login")
		}
		line, err := c.readLine()
		if errors.Is(err, errLong) {
			return farewell("the line is too long")
		}
		if err != nil {
			return err
		}
		if !c.conn.SetBusy(true) {
			return net.ErrClosed
		}
		if c.gone() {
			return farewell("this account has been deleted")
		}
		err = c.command(line)
		if no, ok := errors.AsType[reply](err); ok {
			c.err(string(no))
			switch no {
			case errLogin, errBinding, errThrottled:
				c.failures++
			case errUnknown, errNoUser, errNoLogin, errHasLogin:
				c.bads++
			default:
			}
			err = nil
		}
		switch {
		case err != nil:
			return err
		case c.failures >= c.cfg.Limits.FailedLogins:
			return farewell("[AUTH] too many failed logins")
		case c.bads >= c.cfg.Limits.BadCommands:
			return farewell("too many bad commands")
		}
	}
}

// gone reports whether the account that the client has logged in to is no more.
func (c *session) gone() bool {
	if c.account == nil {
		return false
	}
	account, err := c.cfg.Store.Account(c.ctx, c.account.Name())
	if err == nil {
		err = account.Close()
	}
	return errors.Is(err, mailstore.ErrNoAccount) // other troubles show where they matter
}

// readLine reads a line without its end. What is to be said is said before waiting for it; answers to commands that came
// together go together (RFC 2449, 6.6).
func (c *session) readLine() (string, error) {
	if c.br.Buffered() == 0 {
		if err := c.bw.Flush(); err != nil {
			return "", err
		}
		c.conn.SetBusy(false)
	}
	limit := c.cfg.Limits.CommandLine
	var line []byte
	for {
		chunk, err := c.br.ReadSlice('\n')
		if line = append(line, chunk...); len(line) > limit+2 {
			return "", errLong
		}
		if err == nil {
			return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
}

// parseCommand takes a line apart. The keyword is in upper case; the argument is the rest, for a password may have spaces.
func parseCommand(line string) (keyword, arg string, ok bool) {
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", "", false
	}
	keyword, arg, _ = strings.Cut(line, " ")
	if keyword == "" || len(keyword) > 16 || strings.ContainsFunc(keyword, func(r rune) bool { return r > '~' }) {
		return "", "", false
	}
	return strings.ToUpper(keyword), arg, true
}

// command carries out one command.
func (c *session) command(line string) error {
	keyword, arg, ok := parseCommand(line)
	if !ok {
		return errUnknown
	}
	switch keyword {
	case "CAPA":
		return c.capa()
	case "QUIT":
		return c.quit()
	}
	if c.account == nil {
		return c.authorization(keyword, arg)
	}
	return c.transaction(keyword, arg)
}

func (c *session) capa() error {
	lines := []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"}
	if c.account == nil && c.conn.CanStartTLS() {
		lines = append(lines, "STLS")
	}
	if c.private() {
		lines = append(lines, "USER", "SASL "+c.mechanisms())
	}
	_, err := io.WriteString(c.bw, "+OK what can be asked\r\n"+strings.Join(lines, "\r\n")+"\r\n.\r\n")
	return err
}

// quit ends the session; after login it removes what is marked (RFC 1939, 6).
func (c *session) quit() error {
	var uids []uint32
	for i, m := range c.messages {
		if c.deleted[i] {
			uids = append(uids, m.UID)
		}
	}
	if len(uids) > 0 {
		if err := c.folder.Remove(c.ctx, uids); err != nil {
			c.log.Error("pop3 cannot remove messages", "account", c.account.Name(), "error", err)
			return farewell("[SYS/TEMP] deleted messages could not be removed")
		}
	}
	if err := c.ok("bye"); err != nil {
		return err
	}
	return errQuit
}

// authorization carries out a command of the AUTHORIZATION state (RFC 1939, 4).
func (c *session) authorization(keyword, arg string) error {
	switch keyword {
	case "STLS":
		return c.startTLS(arg)
	case "USER", "PASS", "AUTH":
		if !c.private() {
			return reply("begin TLS first")
		}
	}
	switch keyword {
	case "USER":
		if arg == "" {
			return reply("USER takes a name")
		}
		c.user = arg
		return c.ok("and the password?")
	case "PASS":
		user := c.user
		if c.user = ""; user == "" {
			return errNoUser
		}
		return c.login(user, arg)
	case "AUTH":
		return c.auth(arg)
	case "STAT", "LIST", "RETR", "DELE", "NOOP", "RSET", "TOP", "UIDL":
		return errNoLogin
	}
	return errUnknown
}

// startTLS begins TLS. Octets that came before the handshake never count after it (CVE-2011-0411).
func (c *session) startTLS(arg string) error {
	if arg != "" || !c.conn.CanStartTLS() {
		return reply("STLS is not available")
	}
	if err := c.ok("begin TLS now"); err != nil {
		return err
	}
	if err := c.bw.Flush(); err != nil {
		return err
	}
	if err := c.conn.StartTLS(c.br.Buffered()); err != nil {
		c.log.Debug("stls failed", "error", err)
		return net.ErrClosed // nothing more in clear
	}
	c.br.Reset(c.conn)
	c.bw.Reset(c.conn)
	c.user = "" // RFC 2595, 4: what was learnt before is forgotten
	return nil
}

// sasl logs clients in.
func (c *session) sasl() *sasl.Server {
	return &sasl.Server{Door: "pop3", Directory: c.cfg.Directory, Keys: c.cfg.Keys, Logins: c.cfg.Logins, Log: c.log}
}

func (c *session) mechanisms() string {
	return strings.Join(c.sasl().Mechanisms(c.ctx, sasl.ClientOf(c.conn)), " ")
}

// auth logs in by SASL (RFC 5034), with or without an initial response.
func (c *session) auth(arg string) error {
	var over error // why the connection ends
	x := sasl.Exchange{Ask: func(challenge string) (line string, err error) {
		line, over = c.ask(challenge)
		return line, over
	}}
	x.Mechanism, x.Initial, x.Has = strings.Cut(arg, " ")
	name, _, err := c.sasl().Authenticate(c.ctx, sasl.ClientOf(c.conn), x)
	switch {
	case errors.Is(over, errLong):
		return farewell("the line is too long")
	case over != nil:
		return over
	case errors.Is(err, sasl.ErrMechanism):
		return reply("the mechanisms are " + c.mechanisms())
	case errors.Is(err, sasl.ErrCancelled):
		return reply("AUTH cancelled")
	case errors.Is(err, sasl.ErrResponse):
		return reply("this is no response of " + strings.ToUpper(x.Mechanism))
	case errors.Is(err, sasl.ErrProxy):
		return reply("[AUTH] " + sasl.ErrProxy.Error())
	case errors.Is(err, sasl.ErrBinding):
		return errBinding
	}
	return c.enter(name, err)
}

// ask sends a challenge and returns the answer.
func (c *session) ask(challenge string) (string, error) {
	if _, err := c.bw.WriteString("+ " + challenge + "\r\n"); err != nil {
		return "", err
	}
	line, err := c.readLine()
	if err == nil && !c.conn.SetBusy(true) {
		err = net.ErrClosed
	}
	return line, err
}

// login looks at a password.
func (c *session) login(login, password string) error {
	name, err := c.sasl().Password(c.ctx, sasl.ClientOf(c.conn), login, password)
	return c.enter(name, err)
}

// enter opens and locks the inbox of who has logged in, unless that failed.
func (c *session) enter(name string, err error) error {
	switch {
	case errors.Is(err, mailstore.ErrPassword):
		return errLogin
	case errors.Is(err, listen.ErrThrottled):
		return errThrottled
	case err != nil && c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case err != nil:
		c.log.Error("pop3 cannot log in", "error", err)
		return errTemp
	}
	if !c.cfg.Locks.lock(name) {
		return reply("[IN-USE] another POP3 session has this mailbox")
	}
	if err := c.open(name); err != nil {
		c.cfg.Locks.unlock(name)
		c.log.Error("pop3 cannot open an inbox", "account", name, "error", err)
		return errTemp
	}
	c.conn.ReadUntil(time.Time{})
	c.conn.SetReadTimeout(c.cfg.Limits.Idle)
	c.deleted = map[int]bool{}
	return c.ok("%d messages", len(c.messages))
}

func (c *session) open(name string) error {
	account, err := c.cfg.Store.Account(c.ctx, name)
	if err != nil {
		return err
	}
	folder, err := account.Open(c.ctx, mailstore.Inbox)
	if err != nil {
		_ = account.Close()
		return err
	}
	listing, err := folder.Messages(c.ctx)
	if err != nil {
		_ = account.Close()
		return err
	}
	c.account, c.folder, c.validity, c.messages = account, folder, listing.UIDValidity, listing.Messages
	return nil
}

// transaction carries out a command of the TRANSACTION state (RFC 1939, 5).
func (c *session) transaction(keyword, arg string) error {
	switch keyword {
	case "NOOP":
		return c.ok("nothing done")
	case "STAT":
		n, size := c.total()
		return c.ok("%d %d", n, size)
	case "LIST":
		return c.each(arg, func(i int) string { return strconv.FormatInt(c.messages[i].Size, 10) })
	case "UIDL":
		return c.each(arg, func(i int) string { return uniqueID(c.validity, c.messages[i]) })
	case "RETR":
		i, err := c.number(arg)
		if err != nil {
			return err
		}
		return c.send(i, -1)
	case "TOP":
		which, lines, _ := strings.Cut(arg, " ")
		i, err := c.number(which)
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(lines, 10, 31)
		if err != nil {
			return reply("TOP takes a message and a number of lines")
		}
		return c.send(i, int(n))
	case "DELE":
		i, err := c.number(arg)
		if err != nil {
			return err
		}
		c.deleted[i] = true
		return c.ok("message %d is marked", i+1)
	case "RSET":
		clear(c.deleted)
		n, size := c.total()
		return c.ok("%d messages (%d octets)", n, size)
	case "USER", "PASS", "AUTH", "STLS":
		return errHasLogin
	}
	return errUnknown
}

// total counts what is not marked as deleted.
func (c *session) total() (n int, size int64) {
	for i, m := range c.messages {
		if !c.deleted[i] {
			n++
			size += m.Size
		}
	}
	return n, size
}

// number returns the index of a message that is there and not marked.
func (c *session) number(arg string) (int, error) {
	n, err := strconv.ParseUint(arg, 10, 31)
	if err != nil {
		return 0, reply("this takes the number of a message")
	}
	if n < 1 || n > uint64(len(c.messages)) || c.deleted[int(n)-1] {
		return 0, reply("no such message")
	}
	return int(n) - 1, nil
}

// each answers LIST and UIDL: about one message, or all that are not marked.
func (c *session) each(arg string, what func(i int) string) error {
	if arg != "" {
		i, err := c.number(arg)
		if err != nil {
			return err
		}
		return c.ok("%d %s", i+1, what(i))
	}
	n, size := c.total()
	if err := c.ok("%d messages (%d octets)", n, size); err != nil {
		return err
	}
	for i := range c.messages {
		if c.deleted[i] {
			continue
		}
		if _, err := fmt.Fprintf(c.bw, "%d %s\r\n", i+1, what(i)); err != nil {
			return err
		}
	}
	_, err := c.bw.WriteString(".\r\n")
	return err
}

// uniqueID returns what UIDL says of a message: the unique name of its file, which also outlives a lost index. It is at
// most 70 octets of visible ASCII long (RFC 1939, 7).
func uniqueID(validity uint32, m mailstore.Message) string {
	switch {
	case m.File == "":
		return fmt.Sprintf("%08x%08x", validity, m.UID)
	case len(m.File) > 70 || strings.ContainsFunc(m.File, func(r rune) bool { return r <= ' ' || r > '~' }):
		sum := sha256.Sum256([]byte(m.File))
		return hex.EncodeToString(sum[:16])
	}
	return m.File
}

// send sends a message, or its header and lines of its body if lines is not negative. Everything that can fail beforehand
// fails before the first octet; after that an error ends the connection.
func (c *session) send(i, lines int) error {
	content, err := c.folder.Content(c.ctx, c.messages[i].UID)
	switch {
	case errors.Is(err, mailstore.ErrNoMessage):
		return reply("the message is gone")
	case err != nil:
		c.log.Error("pop3 cannot open a message", "account", c.account.Name(), "error", err)
		return errTemp
	}
	defer content.Close()
	if lines < 0 {
		err = c.ok("%d octets", content.Size())
	} else {
		err = c.ok("the top of the message")
	}
	if err != nil {
		return err
	}
	return sendLines(c.bw, io.NewSectionReader(content, 0, content.Size()), lines)
}

// sendLines writes a message with dots doubled and a dot at its end (RFC 1939, 3). A message whose last line does not
// end is given an end.
func sendLines(w *bufio.Writer, r io.Reader, lines int) error {
	br := bufio.NewReaderSize(r, 32<<10)
	body, fresh := false, true
	for lines < 0 || !body || lines > 0 {
		chunk, err := br.ReadSlice('\n')
		if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if len(chunk) > 0 {
			if fresh && chunk[0] == '.' {
				_ = w.WriteByte('.') // the next write tells of an error
			}
			if _, err := w.Write(chunk); err != nil {
				return err
			}
			whole := chunk[len(chunk)-1] == '\n'
			if whole && body && lines > 0 {
				lines--
			}
			if fresh && whole && strings.TrimRight(string(chunk), "\r\n") == "" {
				body = true
			}
			fresh = whole
		}
		if err == io.EOF {
			break
		}
	}
	if !fresh {
		_, _ = w.WriteString("\r\n")
	}
	_, err := w.WriteString(".\r\n")
	return err
}

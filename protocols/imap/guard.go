package imap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	goimap "github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"sluice/mailstore"
)

// loggedInCapabilities returns what may be asked of the server after login. The library's own list would say UTF8=ACCEPT,
// which it does not do right.
func (c *client) loggedInCapabilities() string {
	return "IMAP4rev1 SASL-IR LITERAL- IDLE MOVE UIDPLUS NAMESPACE SPECIAL-USE CREATE-SPECIAL-USE LIST-EXTENDED LIST-STATUS " +
		"CHILDREN UNSELECT ENABLE ESEARCH STATUS=SIZE " + fmt.Sprintf("APPENDLIMIT=%d", c.cfg.Limits.MessageSize)
}

// libraryCapabilities are those the library looks at.
func libraryCapabilities() goimap.CapSet {
	return goimap.CapSet{
		goimap.CapIMAP4rev1: {}, goimap.CapNamespace: {}, goimap.CapUIDPlus: {}, goimap.CapESearch: {}, goimap.CapListExtended: {},
		goimap.CapListStatus: {}, goimap.CapMove: {}, goimap.CapStatusSize: {}, goimap.CapChildren: {}, goimap.CapSpecialUse: {},
		goimap.CapCreateSpecialUse: {},
	}
}

// serve serves a client that has logged in, until it leaves.
func (c *client) serve(account mailstore.Account) error {
	defer account.Close()
	c.log = c.log.With("account", account.Name())
	c.conn.SetReadTimeout(c.cfg.Limits.Idle)
	g := &guard{client: c, closed: make(chan struct{})}
	g.session = newSession(g, account)
	lib := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return g.session, &imapserver.GreetingData{PreAuth: true}, nil
		},
		Caps:         libraryCapabilities(),
		Logger:       libraryLog{c},
		InsecureAuth: true,
	})
	// The library serves the one connection that its listener hands out in a goroutine, which ends by closing it; then
	// Accept says that the listener is closed, and Serve returns.
	if err := lib.Serve(&oneConn{guard: g}); err != nil {
		return err
	}
	return g.err
}

// libraryLog is where the library complains.
type libraryLog struct{ c *client }

func (l libraryLog) Printf(format string, args ...any) {
	level := slog.LevelDebug // broken connections and the like
	if strings.HasPrefix(format, "panic") {
		level = slog.LevelError
	}
	l.c.log.Log(l.c.ctx, level, "imap library", "message", fmt.Sprintf(format, args...))
}

// oneConn is a listener of one connection.
type oneConn struct {
	guard *guard
	given bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.guard, nil
	}
	<-l.guard.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.guard.LocalAddr() }

// A guard is the connection as the library sees it. When the library reads, it has finished the command before; the guard
// then reads a whole command, answers it if it can or must, and hands it on otherwise.
//
// All is done by the goroutine in which the library serves, except Write, which the library also calls while idling.
type guard struct {
	*client
	session *session
	closed  chan struct{}

	greeted bool   // the library's greeting has been swallowed
	pending []byte // of the command, not yet read by the library
	tag     string // of the command that the library works on
	idling  bool
	err     error // why there is nothing more to read
}

// Read hands the library the next octets of commands.
func (g *guard) Read(p []byte) (int, error) {
	if g.err == nil && len(g.pending) == 0 {
		g.err = g.next()
	}
	if g.err != nil {
		return 0, io.EOF
	}
	n := copy(p, g.pending)
	g.pending = g.pending[n:]
	return n, nil
}

// next fills pending.
func (g *guard) next() error {
	if g.idling {
		return g.done()
	}
	for {
		if g.tag != "" {
			// It wants more of a command that was whole. What came next would be taken for a part of it.
			g.log.Error("the imap library has not answered a command", "command", g.session.command)
			return &farewell{"internal error"}
		}
		g.conn.SetBusy(false)
		lim := g.cfg.Limits
		cmd, err := g.commands.read(commandLimits{
			line: lim.CommandLine, literal: int64(lim.Literal), literals: lim.Literals, nesting: lim.SearchNesting,
			message: true, swallow: true,
		})
		if err == nil {
			if !g.conn.SetBusy(true) {
				return net.ErrClosed
			}
			if g.deleted() {
				return &farewell{"this account has been deleted"}
			}
			g.session.begin(cmd.name)
			var handled bool
			if handled, err = g.answer(cmd); err == nil && !handled {
				g.tag = cmd.tag
				g.pending = []byte(cmd.line())
				return nil
			}
		}
		if no, ok := errors.AsType[*refusal](err); ok {
			err = g.write(no.line())
		}
		if err != nil {
			return err
		}
	}
}

// deleted reports whether the account that the client has logged in to is no more.
func (g *guard) deleted() bool {
	account, err := g.cfg.Store.Account(g.ctx, g.session.account.Name())
	if err == nil {
		err = account.Close()
	}
	return errors.Is(err, mailstore.ErrNoAccount) // other troubles show where they matter
}

// answer answers the commands that the library knows nothing of, or wrongly.
func (g *guard) answer(cmd *command) (handled bool, err error) {
	switch cmd.name {
	case "CAPABILITY":
		if cmd.args != "" {
			return true, bad(cmd.tag, "CAPABILITY takes nothing")
		}
		return true, g.write("* CAPABILITY ", g.loggedInCapabilities(), "\r\n", cmd.tag, " OK CAPABILITY completed\r\n")
	case "ENABLE":
		// The library enables IMAP4rev2 and UTF8=ACCEPT, which it has not advertised. There is nothing to enable yet.
		if cmd.args == "" {
			return true, bad(cmd.tag, "ENABLE takes capabilities")
		}
		return true, g.write("* ENABLED\r\n", cmd.tag, " OK ENABLE completed\r\n")
	case "LOGIN", "AUTHENTICATE", "STARTTLS", "UNAUTHENTICATE":
		return true, bad(cmd.tag, "you are logged in")
	case "APPEND":
		return true, g.append(cmd)
	case "FETCH", "UID FETCH":
		if number, ok := wrongPart(cmd.args); ok {
			return true, bad(cmd.tag, "%s is not the number of a part", number)
		}
	case "IDLE":
		if cmd.args != "" {
			return true, bad(cmd.tag, "IDLE takes nothing")
		}
		g.idling = true
	}
	return false, nil
}

// wrongPart returns a part number of a FETCH that is none: RFC 9051, 9: nz-number, which has 32 bits. The library takes
// one that is too large for none at all, and would send the whole message.
func wrongPart(args string) (number string, found bool) {
	const most = 24 // of it in the answer
	quoted := false
	for i := 0; i < len(args); i++ {
		switch c := args[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c != '[' || quoted:
		default:
			for rest := args[i+1:]; rest != ""; {
				digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
				if digits == 0 {
					break
				}
				n, err := strconv.ParseUint(rest[:digits], 10, 32)
				if after := rest[digits:]; err != nil || n == 0 || after != "" && after[0] != '.' && after[0] != ']' {
					return rest[:min(digits, most)], true
				}
				rest = strings.TrimPrefix(rest[digits:], ".")
			}
		}
	}
	return "", false
}

// done waits for the end of IDLE. Meanwhile the connection is idle for a shutdown too.
func (g *guard) done() error {
	if !g.conn.SetBusy(false) {
		return net.ErrClosed
	}
	line, _, err := g.commands.readLine(64, 1024)
	if errors.Is(err, errLong) {
		return &farewell{"DONE was to be expected"}
	}
	if err != nil {
		return err
	}
	if !strings.EqualFold(string(line), "DONE") {
		return &farewell{"DONE was to be expected"}
	}
	if !g.conn.SetBusy(true) {
		return net.ErrClosed
	}
	g.idling = false
	g.pending = []byte("DONE\r\n")
	return nil
}

// serverBug is what the library answers when it could not parse a command, or did not understand an error.
const serverBug = " NO [SERVERBUG] Internal server error\r\n"

// Write takes the library's answers. It writes each in one piece, unless it is longer than its buffer.
func (g *guard) Write(p []byte) (int, error) {
	if g.err != nil {
		return 0, net.ErrClosed // nothing is said after the last word
	}
	if !g.greeted {
		g.greeted = bytes.HasSuffix(p, []byte("\r\n"))
		return len(p), nil
	}
	// Only the library's goroutine writes lines that begin with a tag; an idling session's do not.
	if len(p) > 0 && p[0] != '*' && p[0] != '+' && g.tag != "" && bytes.HasPrefix(p, []byte(g.tag+" ")) {
		tag := g.tag
		g.tag = ""
		if string(p) == tag+serverBug && !g.session.asked() {
			if err := g.write(bad(tag, "the arguments are not understood").line()); err != nil {
				return 0, err
			}
			return len(p), nil
		}
	}
	return g.conn.Write(p)
}

// Close ends the connection from the library's side.
func (g *guard) Close() error {
	select {
	case <-g.closed:
	default:
		close(g.closed)
	}
	return nil // we close it, after a last word
}

func (g *guard) LocalAddr() net.Addr              { return g.conn.LocalAddr() }
func (g *guard) RemoteAddr() net.Addr             { return g.conn.RemoteAddr() }
func (g *guard) SetDeadline(time.Time) error      { return nil } // deadlines are those of listen.Conn
func (g *guard) SetReadDeadline(time.Time) error  { return nil }
func (g *guard) SetWriteDeadline(time.Time) error { return nil }

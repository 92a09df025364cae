package imap

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	goimap "github.com/emersion/go-imap/v2"

	"sluice/mailstore"
)

// append carries out an APPEND (RFC 9051, 6.3.12), whose message has not been read yet. The library would leave some of
// them without an answer, and takes what it has refused of a non-synchronising literal for commands.
func (g *guard) append(cmd *command) error {
	if cmd.message == nil {
		return bad(cmd.tag, "APPEND takes a mailbox and a message as a literal")
	}
	name, flags, date, err := parseAppend(cmd)
	if err == nil && cmd.message.size > g.cfg.Limits.MessageSize {
		err = &refusal{cmd.tag, "NO [TOOBIG]", fmt.Sprintf("a message is at most %d octets long", g.cfg.Limits.MessageSize)}
	}
	if err != nil {
		return g.passOver(cmd, err)
	}
	folder, err := g.session.account.Open(g.ctx, name)
	if err != nil {
		return g.passOver(cmd, g.session.refusal(cmd, err))
	}
	if cmd.message.wait {
		if err := g.commands.leave(); err != nil {
			return err
		}
	}
	g.conn.SetReadTimeout(0)
	defer g.conn.SetReadTimeout(g.cfg.Limits.Idle)
	// The message is filed only when its command turns out whole: its last read sees the line end behind it.
	body := &appended{r: io.LimitReader(g.br, cmd.message.size), left: cmd.message.size, last: func() error {
		line, lit, err := g.commands.readLine(0, 1024)
		switch {
		case errors.Is(err, errLong) && (lit == nil || lit.wait):
			return bad(cmd.tag, "one message at a time")
		case errors.Is(err, errLong):
			return &farewell{"one message at a time"}
		case err == nil && len(line) > 0:
			return bad(cmd.tag, "one message at a time")
		}
		return err
	}}
	uid, err := folder.Append(g.ctx, body, flags, date)
	if body.err != nil && !errors.Is(body.err, io.EOF) {
		return body.err // the client's fault; the store has given up because of it
	}
	if !body.ended {
		if _, e := io.Copy(io.Discard, body); e != nil {
			return e
		}
	}
	if err != nil {
		return g.session.refusal(cmd, err)
	}
	code := ""
	if status, err := folder.Status(g.ctx); err == nil {
		code = fmt.Sprintf("[APPENDUID %d %d] ", status.UIDValidity, uid)
		if g.session.wants(CauseAppend, folder.Name(), "") {
			g.session.happened(Event{Cause: CauseAppend, Folder: folder.Name(), UIDs: []uint32{uid}, UIDValidity: status.UIDValidity})
		}
	}
	if err := g.session.Poll(nil, true); err != nil {
		return err
	}
	return g.write(cmd.tag, " OK ", code, "APPEND completed\r\n")
}

// passOver refuses an APPEND before its message has been read. A client that does not wait for leave has sent it.
func (g *guard) passOver(cmd *command, why error) error {
	no, ok := errors.AsType[*refusal](why)
	if !ok || cmd.message.wait {
		return why
	}
	// It may be as large as a message may be, and as large again: a mail client that has misjudged is told so.
	if cmd.message.size > 2*g.cfg.Limits.MessageSize {
		return &farewell{no.text}
	}
	if _, err := io.CopyN(io.Discard, g.br, cmd.message.size); err != nil {
		return err
	}
	return g.commands.skip(commandLimits{literals: 2, swallow: true}, no)
}

// refusal makes an answer of an error of the store.
func (s *session) refusal(cmd *command, err error) error {
	s.mu.Lock()
	err = s.answer(err)
	s.mu.Unlock()
	var told *goimap.Error
	if !errors.As(err, &told) {
		return err
	}
	status := string(told.Type)
	if told.Code != "" {
		status += " [" + string(told.Code) + "]"
	}
	return &refusal{cmd.tag, status, told.Text}
}

// parseAppend reads: mailbox SP [flag-list SP] [date-time SP].
func parseAppend(cmd *command) (name string, flags []string, date time.Time, err error) {
	args := scanner{cmd.args}
	raw, ok := args.astring()
	if !ok || !args.accept(" ") {
		return "", nil, date, bad(cmd.tag, "APPEND takes a mailbox and a message as a literal")
	}
	if name, err = decodeUTF7(raw); err != nil {
		return "", nil, date, &refusal{cmd.tag, "NO [CANNOT]", "the name of the mailbox is not valid modified UTF-7"}
	}
	if strings.EqualFold(name, mailstore.Inbox) {
		name = mailstore.Inbox
	}
	if args.accept("(") {
		list, rest, ok := strings.Cut(args.rest, ") ")
		if !ok {
			return "", nil, date, bad(cmd.tag, "the list of flags does not end")
		}
		args.rest = rest
		var asked []goimap.Flag
		for f := range strings.FieldsSeq(list) {
			asked = append(asked, canonical(f))
		}
		if flags, err = storable(asked); err != nil {
			if told, ok := errors.AsType[*goimap.Error](err); ok {
				err = bad(cmd.tag, "%s", told.Text)
			}
			return "", nil, date, err
		}
	}
	if strings.HasPrefix(args.rest, `"`) {
		s, ok := args.astring()
		if !ok || !args.accept(" ") {
			return "", nil, date, bad(cmd.tag, "the date does not end")
		}
		// RFC 9051, 9: date-time, whose day may be a space and a digit.
		if date, err = time.Parse("_2-Jan-2006 15:04:05 -0700", s); err != nil {
			return "", nil, date, bad(cmd.tag, "%q is no date", s)
		}
	}
	if !args.end() {
		return "", nil, date, bad(cmd.tag, "APPEND takes a mailbox, flags, a date and one message")
	}
	if date.IsZero() {
		date = time.Now()
	}
	return name, flags, date, nil
}

// canonical gives system flags their one spelling.
func canonical(flag string) goimap.Flag {
	for _, f := range []goimap.Flag{goimap.FlagSeen, goimap.FlagAnswered, goimap.FlagFlagged, goimap.FlagDeleted, goimap.FlagDraft, `\Recent`} {
		if strings.EqualFold(flag, string(f)) {
			return f
		}
	}
	return goimap.Flag(flag)
}

// appended is the message of an APPEND while it arrives. Its end is reported only once the rest of the command is right.
type appended struct {
	r     io.Reader
	left  int64
	last  func() error
	ended bool
	err   error
}

func (a *appended) Read(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	if a.left == 0 {
		a.ended = true
		if a.err = a.last(); a.err == nil {
			a.err = io.EOF
		}
		return 0, a.err
	}
	n, err := a.r.Read(p)
	a.left -= int64(n)
	if err == io.EOF {
		err = nil
		if a.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	a.err = err
	return n, err
}

package milter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	gomilter "github.com/emersion/go-milter"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/spool"
	"sluice/protocols/listen"
)

// A conn is one MTA's connection: one client of the MTA, any number of its messages. go-milter asks for a new Milter
// after every answer that isn't "continue"; it always gets this one, so that the client stays known.
type conn struct {
	gomilter.NoOpMilter // header fields and the body do not come to go-milter

	server *Server
	wire   *wire
	log    *slog.Logger
	ctx    context.Context // of decisions; ends when nobody waits for them any more

	// About the client, until it disconnects.
	peer   peer
	macros macros
	client pipeline.Client
	helo   string
	sess   *pipeline.Session // nil before the first event, and after a panic

	// About the message, until the MTA ends it.
	args   []string // of the MAIL or RCPT at hand
	tx     *transaction
	utf8   bool            // MAIL had SMTPUTF8, and replies may have UTF-8 (RFC 6531, 3.7.4.1)
	answer *pipeline.Reply // what a message that is refused for all is answered with until the MTA ends it
}

// A transaction is one message on its way.
type transaction struct {
	id        string
	sender    mime.Address
	received  time.Time
	queueID   string
	rcpts     []rcpt
	spool     *spool.Spool // nil before DATA
	octets    int64        // of the header section
	fields    int
	headerEnd bool
}

// A rcpt is one recipient that the MTA has named.
type rcpt struct {
	raw       string // as spelt, without the outer angle brackets: DELRCPT takes nothing else
	recipient pipeline.Recipient
	refused   *pipeline.Reply // it could not be refused at once
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{server: s, macros: macros{}, log: s.cfg.Log.With("door", string(pipeline.Milter))}
	c.wire = newWire(nc, c, s.cfg.Limits, wishes(s.cfg.Plan()))
	return c
}

// serve returns when the connection has ended.
func (c *conn) serve() {
	ctx, cancel := context.WithCancel(c.server.ctx)
	defer cancel()
	if l, ok := c.wire.Conn.(*listen.Conn); ok {
		defer context.AfterFunc(l.Context(), cancel)()
	}
	c.ctx = ctx
	codec := &gomilter.Server{
		NewMilter: func() gomilter.Milter { return c },
		Actions:   actions,
		Protocol:  c.wire.wished,
	}
	if err := codec.Serve(&once{Conn: c.wire}); !errors.Is(err, errOnce) {
		c.log.Error("serve a milter connection", "err", err)
	}
	<-c.wire.closed // go-milter serves on a goroutine of its own, and closes at its end
	c.forget()
}

// guard answers with a temporary failure where a callback panics. What the session knew is given up: it may be in no
// state to go on. The next message gets a new one.
func (c *conn) guard(during string, f func() gomilter.Response) (resp gomilter.Response) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		c.log.Error("panic in a milter session", "during", during, "panic", v, "stack", string(debug.Stack()))
		c.abandon()
		c.answer = internalError()
		resp = c.respond(c.answer)
	}()
	return f()
}

func (c *conn) abandon() {
	defer func() {
		if v := recover(); v != nil {
			c.log.Error("panic at the end of a milter session", "panic", v)
		}
	}()
	sess := c.sess
	c.sess = nil
	c.endTransaction()
	if sess != nil {
		sess.Close()
	}
}

// forget ends everything about the client: it has gone.
func (c *conn) forget() {
	c.abandon()
	c.peer, c.macros, c.client, c.helo, c.answer = peer{}, macros{}, pipeline.Client{}, "", nil
}

// endTransaction frees what a message holds. The session has been told, or will be.
func (c *conn) endTransaction() {
	if c.tx == nil {
		return
	}
	if c.tx.spool != nil {
		if err := c.tx.spool.Close(); err != nil {
			c.log.Warn("close a spool", "err", err)
		}
	}
	c.tx = nil
}

// session returns the session with the client, and what it has to say if it had to be begun anew.
func (c *conn) session() (*pipeline.Session, *pipeline.Reply) {
	if c.sess != nil {
		return c.sess, nil
	}
	c.sess = c.server.cfg.Plan().NewSession(pipeline.Milter, c.client)
	refuse := c.sess.Connect(c.ctx)
	if refuse == nil && c.helo != "" {
		refuse = c.sess.Helo(c.ctx, c.helo)
	}
	return c.sess, refuse
}

// transferring reports whether the message itself is on its way.
func (c *conn) transferring() bool { return c.tx != nil && c.tx.spool != nil }

// Connect implements gomilter.Milter. The peer is the one that wire has read.
func (c *conn) Connect(_, _ string, _ uint16, _ net.IP, _ *gomilter.Modifier) (gomilter.Response, error) {
	return c.guard("connect", func() gomilter.Response {
		p, m := c.peer, c.macros
		c.forget() // XCLIENT, or a client after another on one socket
		c.peer, c.macros = p, m
		c.client = c.identify()
		_, refuse := c.session()
		return c.respond(refuse)
	}), nil
}

// Helo implements gomilter.Milter.
func (c *conn) Helo(name string, _ *gomilter.Modifier) (gomilter.Response, error) {
	return c.guard("helo", func() gomilter.Response {
		// The greeting after STARTTLS comes with TLS macros.
		tls := c.macros.of("tls_version", gomilter.CodeHelo, gomilter.CodeConn)
		c.helo = ""
		sess, refuse := c.session()
		if refuse != nil {
			return c.respond(refuse)
		}
		if tls != c.client.TLS {
			c.client.TLS = tls
			sess.SetClient(c.client)
		}
		c.helo = name
		return c.respond(sess.Helo(c.ctx, name))
	}), nil
}

// MailFrom implements gomilter.Milter.
func (c *conn) MailFrom(from string, _ *gomilter.Modifier) (gomilter.Response, error) {
	return c.guard("mail", func() gomilter.Response {
		c.end("the MTA began another message")
		c.macros.only(gomilter.CodeConn, gomilter.CodeHelo, gomilter.CodeMail)
		if len(c.args) > 0 {
			from = unbracket(c.args[0])
		}
		c.answer = c.begin(from) // recipients get it where MAIL has no answer
		return c.respond(c.answer)
	}), nil
}

// begin begins a message.
func (c *conn) begin(from string) *pipeline.Reply {
	wants := asked(c.parameters())
	c.utf8 = wants.UTF8
	sender, err := mime.ParseAddress(from)
	if err != nil {
		c.log.Info("malformed sender address", "from", from, "err", err)
		return &pipeline.Reply{Code: 501, Enhanced: "5.1.7", Text: "malformed sender address"}
	}
	if space := c.server.cfg.Space; space != nil && space(announced(c.parameters())) != nil {
		return &pipeline.Reply{Code: 452, Enhanced: "4.3.1", Text: "insufficient system storage, please try again later"}
	}
	sess, refuse := c.session()
	if refuse != nil {
		return refuse
	}
	if login := c.macros.of("auth_authen", gomilter.CodeMail); login != c.client.Login {
		c.client.Login = login
		sess.SetClient(c.client)
	}
	id, refuse := sess.Mail(c.ctx, sender)
	if refuse != nil {
		return refuse
	}
	sess.SetAsked(wants)
	c.tx = &transaction{id: id, sender: sender, received: c.server.cfg.Now()}
	c.noteQueueID(gomilter.CodeMail)
	if c.local() {
		sess.AnswerOnce()
	}
	return nil
}

// local reports whether the message did not come by SMTP. Postfix has no queue id before the first recipient of an SMTP
// client, so with one at MAIL this is one of its non_smtpd_milters. There it takes a refused recipient for a fault of
// ours, and keeps the mail.
func (c *conn) local() bool {
	return c.macros.of("i", gomilter.CodeMail) != "" && strings.HasPrefix(c.macros.of("v", gomilter.CodeConn), "Postfix")
}

// RcptTo implements gomilter.Milter.
func (c *conn) RcptTo(to string, _ *gomilter.Modifier) (gomilter.Response, error) {
	return c.guard("rcpt", func() gomilter.Response {
		if c.answer != nil || c.tx == nil {
			if c.local() {
				return gomilter.RespContinue // it is told at the end
			}
			return c.stray()
		}
		c.noteQueueID(gomilter.CodeRcpt)
		if len(c.args) > 0 {
			to = unbracket(c.args[0])
		}
		r := rcpt{raw: to}
		r.refused = c.take(&r.recipient, to)
		if r.refused != nil && !c.local() {
			return c.respond(r.refused)
		}
		c.tx.rcpts = append(c.tx.rcpts, r)
		return gomilter.RespContinue
	}), nil
}

// take asks about one recipient.
func (c *conn) take(r *pipeline.Recipient, to string) *pipeline.Reply {
	var err error
	if r.Address, err = mime.ParseAddress(to); err != nil || r.Address.IsZero() {
		c.log.Info("malformed recipient address", "to", to, "err", err)
		return &pipeline.Reply{Code: 501, Enhanced: "5.1.3", Text: "malformed recipient address"}
	}
	describe(r, c.parameters())
	if most := c.server.cfg.Limits.Recipients; len(c.tx.rcpts) >= most {
		reply := pipeline.Reply{Code: 452, Enhanced: "4.5.3", Text: "too many recipients"}
		c.sess.Refuse(*r, reply, fmt.Sprintf("more than %d recipients", most))
		return &reply
	}
	return c.sess.Rcpt(c.ctx, *r)
}

// data is asked at DATA, or at the first header field where the MTA does not report DATA. It opens the spool.
func (c *conn) data() gomilter.Response {
	return c.guard("data", func() gomilter.Response {
		if c.answer != nil || c.tx == nil {
			return c.stray()
		}
		if c.tx.spool != nil {
			return gomilter.RespContinue
		}
		c.noteQueueID(gomilter.CodeData)
		if c.taken() > 0 {
			if refuse := c.sess.Data(c.ctx); refuse != nil {
				return c.refuse(*refuse, "")
			}
		}
		c.tx.spool = spool.New(spool.Options{
			Max: c.server.cfg.Limits.MessageSize, Dir: c.server.cfg.SpoolDir, Pool: &c.server.memory,
		})
		c.wire.enter(true) // before the answer: from now on a shutdown waits for the message
		return gomilter.RespContinue
	})
}

// begun makes sure that data was asked. It returns what to answer if the message is not to go on.
func (c *conn) begun() gomilter.Response {
	if c.transferring() {
		return nil
	}
	if r := c.data(); !c.transferring() {
		return r
	}
	return nil
}

// header takes one field, with line ends as the MTA writes them: LF, from Sendmail also CR LF.
func (c *conn) header(name string, value []byte) gomilter.Response {
	return c.guard("header", func() gomilter.Response {
		if stop := c.begun(); stop != nil {
			return stop
		}
		var line bytes.Buffer
		line.WriteString(name)
		line.WriteByte(':')
		if !c.wire.leading {
			line.WriteByte(' ')
		}
		for i, part := range bytes.Split(value, []byte{'\n'}) {
			if i > 0 {
				line.WriteString("\r\n")
			}
			line.Write(bytes.TrimSuffix(part, []byte{'\r'}))
		}
		line.WriteString("\r\n")

		lim := c.server.cfg.Limits
		c.tx.fields++
		c.tx.octets += int64(line.Len())
		if c.tx.fields > lim.HeaderFields {
			return c.refuse(pipeline.Reply{Code: 552, Enhanced: "5.3.4", Text: "too many header fields"},
				fmt.Sprintf("more than %d header fields", lim.HeaderFields))
		}
		if c.tx.octets > lim.HeaderSize {
			return c.refuse(pipeline.Reply{Code: 552, Enhanced: "5.3.4", Text: "header section too large"},
				fmt.Sprintf("a header section of more than %d octets", lim.HeaderSize))
		}
		return c.write(line.Bytes())
	})
}

// headerEnds is told the end of the header.
func (c *conn) headerEnds() gomilter.Response {
	return c.guard("end of header", func() gomilter.Response {
		if stop := c.begun(); stop != nil {
			return stop
		}
		c.noteQueueID(gomilter.CodeEOH)
		return c.endHeader()
	})
}

func (c *conn) endHeader() gomilter.Response {
	if c.tx.headerEnd {
		return gomilter.RespContinue
	}
	c.tx.headerEnd = true
	return c.write([]byte("\r\n"))
}

// body takes a piece of the body.
func (c *conn) body(chunk []byte) gomilter.Response {
	return c.guard("body", func() gomilter.Response {
		if stop := c.begun(); stop != nil {
			return stop
		}
		if r := c.endHeader(); c.answer != nil {
			return r
		}
		return c.write(chunk)
	})
}

// write adds to the message.
func (c *conn) write(p []byte) gomilter.Response {
	_, err := c.tx.spool.Write(p)
	switch {
	case err == nil:
		return gomilter.RespContinue
	case errors.Is(err, spool.ErrTooLarge):
		return c.refuse(pipeline.Reply{Code: 552, Enhanced: "5.3.4", Text: "message too large"},
			fmt.Sprintf("a message of more than %d octets", c.server.cfg.Limits.MessageSize))
	default:
		return c.refuse(pipeline.Reply{Code: 451, Enhanced: "4.3.1", Text: "no room, please try again later"}, err.Error())
	}
}

// refuse ends the message for all recipients: everything about it is answered so until the MTA begins another. why is for
// the record.
func (c *conn) refuse(r pipeline.Reply, why string) gomilter.Response {
	became := pipeline.Postponed
	if r.Permanent() {
		became = pipeline.Refused
	}
	deliveries := make([]pipeline.Delivery, c.taken())
	for i := range deliveries {
		deliveries[i] = pipeline.Delivery{Disposition: became, Reply: r, Note: why}
	}
	ctx, cancel := c.keepGoing()
	defer cancel()
	if err := c.sess.Done(ctx, r, deliveries); err != nil {
		c.log.Error("record a refusal", "id", c.tx.id, "err", err)
	}
	c.endTransaction()
	c.answer = &r
	return c.respond(&r)
}

// keepGoing is the context of what is to be written although nobody may wait for a decision any more.
func (c *conn) keepGoing() (context.Context, context.CancelFunc) {
	const most = time.Minute
	return context.WithTimeout(context.WithoutCancel(c.ctx), most)
}

// stray answers events about a message that is refused or was never begun.
func (c *conn) stray() gomilter.Response {
	if c.answer == nil {
		c.answer = &pipeline.Reply{Code: 451, Enhanced: "4.3.0", Text: "no message was begun"}
	}
	return c.respond(c.answer)
}

// Abort implements gomilter.Milter. Postfix sends it after every message, and before the first.
func (c *conn) Abort(*gomilter.Modifier) error {
	c.guard("abort", func() gomilter.Response {
		c.end("the MTA gave the message up")
		c.macros.only(gomilter.CodeConn, gomilter.CodeHelo)
		return nil
	})
	return nil
}

// end ends a message that was not answered for.
func (c *conn) end(why string) {
	if c.tx != nil && c.sess != nil {
		c.sess.Reset(why)
	}
	c.endTransaction()
	c.answer = nil
}

// noteQueueID tells the session the MTA's name for the message, once it has one.
func (c *conn) noteQueueID(stage gomilter.Code) {
	id := c.macros.of("i", stage)
	if id == "" || c.tx.queueID != "" {
		return
	}
	c.tx.queueID = id
	c.sess.SetQueueID(id)
}

// taken counts the recipients that the session has taken.
func (c *conn) taken() (n int) {
	for _, r := range c.tx.rcpts {
		if r.refused == nil {
			n++
		}
	}
	return n
}

// unbracket takes one pair of angle brackets off. go-milter takes off all, and adds a pair of its own.
func unbracket(s string) string {
	if len(s) >= 2 && s[0] == '<' && s[len(s)-1] == '>' {
		return s[1 : len(s)-1]
	}
	return s
}

// respond says r in what the client can take.
func (c *conn) respond(r *pipeline.Reply) gomilter.Response { return respond(r, c.utf8) }

// respond says r, or "continue" where it is nil. It is written as smfi_setmlreply writes it: with all codes on each line,
// and % as libmilter's callers have it, doubled.
func respond(r *pipeline.Reply, utf8 bool) gomilter.Response {
	if r == nil {
		return gomilter.RespContinue
	}
	x := *r
	if class := x.Code / 100; class != 4 && class != 5 {
		x = pipeline.Reply{Code: 451, Enhanced: "4.3.0"}
	}
	if len(x.Enhanced) < 5 || int(x.Enhanced[0]-'0') != x.Code/100 {
		x.Enhanced = fmt.Sprintf("%d.0.0", x.Code/100)
	}
	if strings.TrimSpace(x.Text) == "" {
		x.Text = "not accepted"
	}
	return gomilter.NewResponseStr(byte(gomilter.ActReplyCode), strings.ReplaceAll(x.Wire(utf8), "%", "%%"))
}

package smtp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/spool"
	"sluice/protocols/listen"
)

// Replies of the door itself.
var (
	notNow      = pipeline.Reply{Code: 451, Enhanced: "4.3.0", Text: "temporary failure, please try again later"}
	relaying    = pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "relaying denied"}
	noUser      = pipeline.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user here"}
	fullMailbox = pipeline.Reply{Code: 452, Enhanced: "4.2.2", Text: "mailbox full"}
	fullDisk    = pipeline.Reply{Code: 452, Enhanced: "4.3.1", Text: "insufficient system storage, please try again later"}
)

// A conversation is one connection. It outlives a second EHLO and STARTTLS, which go-smtp's sessions do not.
type conversation struct {
	s     *Server
	conn  *listen.Conn
	goOn  func(*wire) // over another wire
	ended func()
	once  sync.Once

	// Of the goroutine that reads commands.
	path       string // the address of the command under way, as written
	parameters parameters
	utf8       bool     // the last MAIL had SMTPUTF8, and replies may have UTF-8 (RFC 6531, 3.7.4.1)
	paths      []string // of the recipients taken, by their place for the wire
	unknown    int
	hangUp     bool
	failures   int    // wrong passwords
	login      string // the account that has logged in, at a submission door; mu is held where it changes
	postponed  bool   // a recipient was answered 4xx at RCPT
	unheard    func() // after the replies about a message could not be written; may be nil

	// The connection may be closed by another goroutine.
	mu        sync.Mutex
	session   *pipeline.Session // SMTP: from the first greeting on
	named     pipeline.Client   // who is connected, with what the DNS said of its name
	lookedUp  bool              // named is known
	stated    *stated           // who the peer says it speaks for
	connected bool
	greeting  string
	extended  bool
	told      *hop // who brings the mail, as the program says that delivers it
	tx        *transaction
}

// A transaction is one message on its way in.
type transaction struct {
	id     string // "" at LMTP, where it is not known before the message
	from   pipeline.Address
	size   int64 // as announced; 0: unknown
	wants  pipeline.Asked
	rcpts  []recipient // those that go-smtp has, in order
	taken  []pipeline.Recipient
	named  []string       // by RCPT commands, whatever they were answered
	before []string       // at deliver: the transactions that have served those taken earlier, "" for the others; see repeated
	back   map[int]string // of those taken, who gets what comes for a sender that we have rewritten; see takeBack
	asked  bool           // the pipeline knows that all recipients are named
	events []func(context.Context, *pipeline.Session)
}

// A recipient is one RCPT command that was answered 250: the accounts it leads to, as places in transaction.taken.
type recipient struct {
	place    int // of the address it was given to go-smtp by
	accounts []int
	before   string // the transaction that has served it, where no account is left to serve
}

func newConversation(s *Server, conn *listen.Conn) *conversation {
	return &conversation{s: s, conn: conn}
}

func (c *conversation) ctx() context.Context { return c.conn.Context() }

func (c *conversation) peer() string {
	if c.stated != nil {
		return cmp.Or(strings.TrimPrefix(c.stated.client.Addr.String(), "invalid IP"), "unknown")
	}
	if c.conn.Local() {
		return "unix"
	}
	return c.conn.Peer().String()
}

// loopback reports whether nobody else can be behind the client.
func (c *conversation) loopback() bool { return c.stated == nil && c.conn.Loopback() }

// client is who is connected. At LMTP that is not who brings the mail.
func (c *conversation) client() pipeline.Client {
	if c.stated != nil { // whether that client uses TLS is not known
		x := c.stated.client
		x.Name, x.NameUnknown = c.named.Name, c.named.NameUnknown
		if c.s.cfg.Submission != nil { // who sends mail of ours has said a password of ours
			x.Login = c.login
		}
		return x
	}
	return pipeline.Client{
		Addr: c.conn.Peer(), Name: c.named.Name, NameUnknown: c.named.NameUnknown, Login: c.login,
		Trusted: c.conn.Trusted(), TLS: c.conn.TLSVersion(),
	}
}

// hello takes the greeting. A reply refuses it.
func (c *conversation) hello(verb, greeting string) (no *pipeline.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset("a new " + verb)
	c.greeting, c.extended, c.told = greeting, verb != "HELO", nil
	if c.s.cfg.LMTP || c.s.cfg.Submission != nil && c.login == "" {
		return nil
	}
	defer c.caught("greeting", func() { no = &notNow })
	return c.meet(greeting)
}

// meet tells the pipeline who is there. A reply refuses the client. mu is held.
func (c *conversation) meet(greeting string) *pipeline.Reply {
	if !c.lookedUp {
		c.lookedUp = true
		c.named = nameOf(c.ctx(), c.s.cfg.Resolver, c.client())
	}
	if c.session == nil {
		c.session = c.s.cfg.Plan().NewSession(c.s.door, c.client())
	}
	c.session.SetClient(c.client()) // another one after XCLIENT
	if !c.connected {
		c.connected = true
		if no := c.session.Connect(c.ctx()); no != nil {
			return no
		}
	}
	return c.session.Helo(c.ctx(), greeting)
}

// secured forgets what the client has said, for TLS has begun.
func (c *conversation) secured() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset("STARTTLS")
	c.greeting, c.connected, c.login = "", false, ""
	if c.session != nil {
		c.session.SetClient(c.client())
	}
}

// beforeData asks the pipeline before the message is sent. A reply refuses the message.
func (c *conversation) beforeData() (no *pipeline.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil || c.tx == nil || len(c.tx.rcpts) == 0 {
		return nil // go-smtp has an answer, or it is LMTP
	}
	defer c.caught("recipients", func() { no = &notNow })
	c.tx.asked = true
	return c.session.Data(c.ctx())
}

// nextPlace numbers a recipient for the wire.
func (c *conversation) nextPlace() int {
	c.paths = append(c.paths, c.path)
	return len(c.paths) - 1
}

// untake forgets the recipient that was numbered last: it was refused.
func (c *conversation) untake() { c.paths = c.paths[:max(len(c.paths)-1, 0)] }

// another begins to number recipients anew, unless a transaction is under way.
func (c *conversation) another() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tx == nil {
		c.paths, c.postponed = nil, false
	}
}

// written returns an address as its RCPT command had it, fit for a reply.
func (c *conversation) written(place int) string {
	if place < len(c.paths) {
		return pipeline.CleanText(c.paths[place])
	}
	return ""
}

// reset ends the transaction under way; mu is held.
func (c *conversation) reset(why string) {
	t := c.tx
	if c.tx = nil; t == nil {
		return
	}
	if c.session != nil {
		c.session.Reset(why)
		return
	}
	if len(t.events) == 0 {
		return
	}
	// LMTP: the pipeline has not heard of it yet. Who brought the mail will never be known, so nothing is asked about
	// those taken; the record is about those refused.
	s := c.s.cfg.Plan().NewSession(c.s.door, pipeline.Client{})
	defer s.Close()
	s.Mail(c.ctx(), t.from)
	for _, event := range t.events {
		event(c.ctx(), s)
	}
	s.Reset(why)
}

// end ends the conversation: the connection is closed.
func (c *conversation) end() {
	c.once.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		defer c.ended()
		defer c.caught("the end of the connection", func() {})
		c.reset("connection closed")
		if c.session != nil {
			c.session.Close()
		}
	})
}

// caught turns a panic into an answer and a line of the log. It is deferred.
func (c *conversation) caught(where string, answer func()) {
	if p := recover(); p != nil {
		c.s.cfg.Log.Error("panic", "door", c.s.door, "at", where, "client", c.peer(), "panic", fmt.Sprint(p),
			"stack", string(debug.Stack()))
		answer()
	}
}

// session is what go-smtp calls: a conversation over one wire.
type session struct {
	*conversation
	w *wire
}

var _ smtp.Session = session{}

// Reset ends the transaction under way.
func (s session) Reset() {
	if s.w.detached.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.caught("reset", func() {})
	s.reset(s.w.why())
}

// Logout does nothing: the conversation ends when the wire is closed.
func (s session) Logout() error { return nil }

// Mail begins a transaction.
func (s session) Mail(string, *smtp.MailOptions) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.caught("MAIL", func() { err = replyError(notNow) })
	if s.tx != nil { // RFC 5321, 4.1.4; go-smtp would keep the recipients of the first
		return reply(503, "5.5.1", "one MAIL at a time")
	}
	from, err := mime.ParseAddress(s.path)
	switch {
	case err != nil || !from.IsZero() && hostile(from):
		return reply(553, "5.1.7", "that is no address")
	case !ascii(s.path) && !s.parameters.asked.UTF8:
		return reply(553, "5.6.7", "that address needs SMTPUTF8")
	case !from.IsZero() && from.Domain == "" && !s.trusted() && !s.loopback():
		return reply(553, "5.1.7", "the sender's address needs a domain")
	}
	if space := s.s.cfg.Space; space != nil && space(s.parameters.size) != nil {
		return replyError(fullDisk) // whoever says that there is none has told the operator
	}
	if s.s.cfg.Submission != nil {
		if no := s.maySend(from); no != nil {
			if s.login != "" { // of strangers there would be no end
				s.s.cfg.Log.Info("sender refused", "door", s.s.door, "client", s.peer(), "login", s.login, "from", from.Raw, "reply", no.String())
			}
			return replyError(*no)
		}
	}
	t := &transaction{from: from, size: s.parameters.size, wants: s.parameters.asked}
	if s.session != nil {
		var no *pipeline.Reply
		if t.id, no = s.session.Mail(s.ctx(), from); no != nil {
			s.session.Reset("refused at MAIL")
			return replyErrorIn(*no, s.utf8)
		}
		s.session.SetAsked(t.wants)
	}
	s.tx = t
	return nil
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// hostile reports whether an address is made to be mistaken for another: one with control characters, or with what
// stands in quotes only (RFC 5321, 4.1.2) but is written without: whose is "a@b@c"?
func hostile(a pipeline.Address) bool {
	if m := a.Mailbox(); strings.ContainsFunc(m, isControl) || strings.ContainsRune(m, '\t') {
		return true
	}
	written := a.Raw
	if a.Domain != "" {
		written = written[:strings.LastIndexByte(written, '@')]
	}
	return !isQuoted(written) && strings.ContainsAny(written, `@"\()<>,; `)
}

// isQuoted reports whether s is one quoted string.
func isQuoted(s string) bool {
	if len(s) < 2 || s[0] != '"' {
		return false
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i == len(s)-1
		case '\\':
			i++
		}
	}
	return false
}

// Rcpt takes or refuses a recipient.
func (s session) Rcpt(string, *smtp.RcptOptions) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.caught("RCPT", func() { err = replyError(notNow) })
	t := s.tx
	if t == nil {
		return reply(503, "5.5.1", "MAIL first")
	}
	t.named = append(t.named, s.path)
	r := pipeline.Recipient{Original: s.parameters.original, ORCPT: s.parameters.orcpt, Notify: s.parameters.notify}
	if r.Address, err = mime.ParseAddress(s.path); err != nil || hostile(r.Address) {
		return reply(553, "5.1.3", "that is no address")
	}
	if !ascii(s.path) && !t.wants.UTF8 {
		return reply(553, "5.6.7", "that address needs SMTPUTF8")
	}
	if s.s.cfg.Submission != nil {
		return s.submitTo(r)
	}
	ctx := mailstore.AtOneMoment(s.ctx())
	if done, err := s.takeBack(ctx, r); done {
		return err
	}
	accounts, no, why := s.resolve(ctx, r.Address)
	if no.Code != 0 {
		s.refuse(r, no, why)
		return replyError(s.countUnknown(no))
	}
	taken := recipient{place: len(s.paths) - 1}
	var fit []pipeline.Recipient // not taken yet, with room
	var first pipeline.Reply
	for _, account := range accounts {
		r.Account = account
		if i := slices.IndexFunc(t.taken, func(x pipeline.Recipient) bool {
			return x.Account == account && x.Address.String() == r.Address.String()
		}); i >= 0 {
			taken.accounts = append(taken.accounts, i) // named twice
			continue
		}
		no := s.room(ctx, r)
		switch {
		case no.Code == 0:
			fit = append(fit, r)
		case !no.Permanent():
			return replyErrorIn(no, s.utf8) // a 250 for the others would be one for this account too: nobody would come again
		case first.Code == 0:
			first = no
		}
	}
	for _, r := range fit {
		no := s.take(r)
		switch {
		case no.Code == 0:
			taken.accounts = append(taken.accounts, len(t.taken))
			t.taken = append(t.taken, r)
		case !no.Permanent():
			return replyErrorIn(no, s.utf8) // as above; who was taken already gets nothing by this recipient: see settle
		case first.Code == 0:
			first = no
		}
	}
	if len(taken.accounts) == 0 {
		return replyErrorIn(first, s.utf8)
	}
	t.rcpts = append(t.rcpts, taken)
	return nil
}

// resolve returns the accounts of an address, or why there are none.
func (s session) resolve(ctx context.Context, a pipeline.Address) (accounts []string, no pipeline.Reply, why string) {
	if m := a.Mailbox(); strings.ContainsAny(m, "/\x00") || strings.Contains(m, "..") || strings.HasPrefix(m, ".") {
		return nil, noUser, "not a name of ours"
	}
	accounts, err := s.s.cfg.Directory.Resolve(ctx, a.Mailbox(), a.Domain)
	switch {
	case err == nil && len(accounts) > 0:
		return accounts, pipeline.Reply{}, ""
	case err == nil:
		return nil, noUser, "leads to no account"
	case errors.Is(err, mailstore.ErrForeign):
		return nil, relaying, err.Error()
	case errors.Is(err, mailstore.ErrNoAccount), errors.Is(err, mailstore.ErrName):
		return nil, noUser, err.Error()
	}
	s.s.cfg.Log.Error("recipient not looked up", "door", s.s.door, "recipient", a.String(), "client", s.peer(), "error", err)
	return nil, notNow, err.Error()
}

// room asks whether the store has room for one account's copy. A reply refuses it.
func (s session) room(ctx context.Context, r pipeline.Recipient) (no pipeline.Reply) {
	err := s.s.cfg.Store.Room(ctx, r.Account, s.tx.size)
	switch {
	case err == nil:
		return pipeline.Reply{}
	case errors.Is(err, mailstore.ErrQuota):
		no = fullMailbox
	case errors.Is(err, mailstore.ErrNoAccount):
		no = noUser
	default:
		s.s.cfg.Log.Error("quota not looked up", "door", s.s.door, "account", r.Account, "client", s.peer(), "error", err)
		no = notNow
	}
	s.refuse(r, no, err.Error())
	return no
}

// take offers one account's copy to the pipeline. A reply refuses it.
func (s session) take(r pipeline.Recipient) pipeline.Reply {
	if s.session == nil {
		t, place := s.tx, len(s.tx.taken)
		t.events = append(t.events, func(ctx context.Context, p *pipeline.Session) {
			if place < len(t.before) && t.before[place] != "" {
				p.Repeat(r, acceptedBefore(t.before[place]), "served by "+t.before[place])
				return
			}
			p.Rcpt(ctx, r)
		})
		return pipeline.Reply{}
	}
	if no := s.session.Rcpt(s.ctx(), r); no != nil {
		return *no
	}
	return pipeline.Reply{}
}

// refuse notes for the record that the door refuses a recipient.
func (s session) refuse(r pipeline.Recipient, no pipeline.Reply, why string) {
	if s.session != nil {
		s.session.Refuse(r, no, why)
		return
	}
	s.tx.events = append(s.tx.events, func(_ context.Context, p *pipeline.Session) { p.Refuse(r, no, why) })
}

// countUnknown ends the connection of a stranger who tries out names.
func (s session) countUnknown(no pipeline.Reply) pipeline.Reply {
	if no != noUser || s.s.cfg.LMTP || s.trusted() {
		return no
	}
	if s.unknown++; s.unknown < s.s.cfg.Limits.UnknownRecipients {
		return no
	}
	s.hangUp = true
	return pipeline.Reply{Code: 421, Enhanced: "4.7.0", Text: "too many unknown recipients"}
}

// Data is not called: messages do not pass through go-smtp.
func (s session) Data(io.Reader) error { return replyError(notNow) }

// ready reports whether there is a transaction with recipients.
func (c *conversation) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tx != nil && len(c.tx.rcpts) > 0
}

// abort ends the transaction under way.
func (c *conversation) abort(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset(why)
}

func (c *conversation) spooling() spool.Options {
	return spool.Options{Max: c.s.cfg.Limits.MessageSize, Dir: c.s.cfg.SpoolDir, Pool: &c.s.memory}
}

// places returns the places of the recipients taken.
func (c *conversation) places() (places []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tx != nil {
		for _, r := range c.tx.rcpts {
			places = append(places, r.place)
		}
	}
	return places
}

// finish has a message decided and returns the replies, at LMTP each with its recipient. It closes the message.
func (c *conversation) finish(s session, sp *spool.Spool, ends *lineEnds) []pipeline.Reply {
	places := c.places()
	return c.addressed(c.decide(s, sp, ends), places)
}

// addressed puts the recipients, by their places, into the replies about them: at LMTP there is one for each.
func (c *conversation) addressed(replies []pipeline.Reply, places []int) []pipeline.Reply {
	if c.s.cfg.LMTP {
		for i := range places {
			to := "<" + c.written(places[i]) + "> "
			if replies[i].Text = to + replies[i].Text; replies[i].UTF8 != "" {
				replies[i].UTF8 = to + replies[i].UTF8
			}
		}
	}
	return replies
}

// decide has a message decided and returns the reply, at LMTP those for each recipient taken. It closes the message.
func (c *conversation) decide(s session, sp *spool.Spool, ends *lineEnds) (replies []pipeline.Reply) {
	defer func() { _ = sp.Close() }() // it is only read from here on
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 1
	if c.s.cfg.LMTP && c.tx != nil {
		n = len(c.tx.rcpts)
	}
	all := func(no pipeline.Reply) []pipeline.Reply { return slices.Repeat([]pipeline.Reply{no}, n) }
	defer c.caught("message", func() {
		c.reset("the door has failed")
		replies = all(notNow)
	})
	if c.tx == nil {
		return all(notNow)
	}
	var m *message
	var no pipeline.Reply
	if c.refusesBare() {
		no = ends.refusal()
		c.hangUp = no.Code != 0 // what follows may be what another server took for a part of the message
	}
	if no.Code == 0 {
		m, no = c.parse(sp)
	}
	switch {
	case no.Code != 0:
		c.reset("message not taken: " + no.String())
		return all(no)
	case c.s.cfg.LMTP:
		return s.lmtp(m)
	case c.s.cfg.Submission != nil:
		return all(s.submit(m))
	}
	return all(s.smtp(m))
}

// refusesBare reports whether CR and LF must not stand alone in what this client sends.
func (c *conversation) refusesBare() bool { return c.s.cfg.Limits.BareNewlines.refuses(c.trusted()) }

// trusted reports whether an address is one of ours.
func (s *Server) trusted(a netip.Addr) bool { return a.IsValid() && s.cfg.Trusted(a) }

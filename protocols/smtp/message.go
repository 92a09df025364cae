package smtp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/spool"
)

// A message has been received.
type message struct {
	*spool.Spool
	parsed *mime.Message
}

// untaken returns the reply for go-smtp to a message that could not be received.
func (c *conversation) untaken(err error) error {
	var answer *smtp.SMTPError
	switch {
	case errors.As(err, &answer) && answer.Code == 421: // the wire: the message has no end
		return answer
	case errors.Is(err, spool.ErrTooLarge), errors.Is(err, smtp.ErrDataTooLarge):
		return reply(552, "5.3.4", fmt.Sprintf("a message has at most %d octets", c.s.cfg.Limits.MessageSize))
	}
	c.s.cfg.Log.Error("message not received", "door", c.s.door, "client", c.peer(), "error", err)
	return replyError(notNow)
}

// parse reads a message that has come. A reply says why it is not taken.
func (c *conversation) parse(sp *spool.Spool) (*message, pipeline.Reply) {
	m, err := mime.Parse(sp, sp.Size(), c.s.cfg.MIME)
	if err == nil {
		return &message{sp, m}, pipeline.Reply{}
	}
	var limit *mime.LimitError
	if errors.As(err, &limit) {
		return nil, pipeline.Reply{Code: 552, Enhanced: "5.3.4", Text: limit.Error()}
	}
	c.s.cfg.Log.Error("message not read", "door", c.s.door, "client", c.peer(), "error", err)
	return nil, notNow
}

// hops counts the Received fields. RFC 5321, 6.3: too many of them are a loop.
func hops(m *mime.Message) (n int) {
	for range m.Header().All("Received") {
		n++
	}
	return n
}

var loop = pipeline.Reply{Code: 554, Enhanced: "5.4.6", Text: "this message goes in circles"}

func circles(hops int) string { return fmt.Sprintf("refused as a loop: %d Received fields", hops) }

// smtp decides about a message and carries it out. It returns the one reply of SMTP.
func (s session) smtp(m *message) pipeline.Reply {
	t := s.tx
	if t == nil || s.session == nil {
		return notNow // reset meanwhile: nobody waits for this
	}
	defer func() { s.tx = nil }()
	if n := hops(m.parsed); n >= s.s.cfg.Limits.Hops {
		s.session.RefuseMessage(m.parsed, loop, circles(n))
		return loop
	}
	if !t.asked {
		if no := s.session.Data(s.ctx()); no != nil {
			s.session.Reset("refused at DATA")
			return *no
		}
	}
	scanned, err := s.without(m, pipeline.Ours)
	if err != nil {
		return s.broken(err)
	}
	s.session.SetSHA256(m.SHA256())
	ctx := mailstore.AtOneMoment(s.ctx())
	decisions := s.session.Content(ctx, scanned)
	if len(decisions) != len(t.taken) {
		return s.broken(fmt.Errorf("%d decisions about %d recipients", len(decisions), len(t.taken)))
	}
	if s.ctx().Err() != nil {
		s.session.Reset("broken off: the server is shutting down")
		return pipeline.Reply{Code: 421, Enhanced: "4.3.2", Text: "shutting down, please try again later"}
	}
	t.sendBack(decisions)
	f := s.filing(ctx, s.session, m, scanned, decisions)
	f.settled = t.settle(decisions)
	no := f.settled.Reply
	if no.Code < 400 {
		no.Text = "accepted as " + f.id
		err := f.hold()
		if err == nil { // else the client comes again, and those delivered to would get it twice
			err = f.carryOut()
		}
		if err != nil {
			no = f.failed(err)
			for i := range f.deliveries {
				f.deliveries[i] = pipeline.Delivery{Disposition: pipeline.Postponed, Note: err.Error()}
			}
		}
		for i, what := range f.settled.Dispositions {
			if what == pipeline.Postponed { // not by the one reply: see settle
				f.deliveries[i].Reply = f.settled.Replies[i]
			}
		}
	}
	return f.done(s.session, no)
}

// settle says what SMTP makes of the decisions. An account whose recipient was answered 4xx because of another account of
// the same alias is none that the message is for: the client comes again for it.
func (t *transaction) settle(decisions []pipeline.Decision) pipeline.Settlement {
	var of []int
	var named []pipeline.Decision
	for i, d := range decisions {
		if slices.ContainsFunc(t.rcpts, func(r recipient) bool { return slices.Contains(r.accounts, i) }) {
			of, named = append(of, i), append(named, d)
		}
	}
	s := pipeline.SMTP.Settle(named, false)
	all := pipeline.Settlement{
		Reply:        s.Reply,
		Dispositions: slices.Repeat([]pipeline.Disposition{pipeline.Postponed}, len(decisions)),
		Replies:      slices.Repeat([]pipeline.Reply{notNow}, len(decisions)),
	}
	for n, i := range of {
		all.Dispositions[i], all.Replies[i] = s.Dispositions[n], s.Replies[n]
	}
	return all
}

// broken ends the transaction for a reason that is none of the sender's business.
func (s session) broken(err error) pipeline.Reply {
	s.s.cfg.Log.Error("message not decided", "door", s.s.door, "id", s.session.ID(), "client", s.peer(), "error", err)
	s.session.Reset(err.Error())
	return notNow
}

// lmtp decides about a message and carries it out. It returns a reply for each RCPT command that was answered 250.
func (s session) lmtp(m *message) []pipeline.Reply {
	t := s.tx
	defer func() { s.tx = nil }()
	all := func(r pipeline.Reply) []pipeline.Reply { return slices.Repeat([]pipeline.Reply{r}, len(t.rcpts)) }
	p, scanned, err := s.identify(m)
	if err != nil {
		s.s.cfg.Log.Error("message not read", "door", s.s.door, "client", s.peer(), "error", err)
		return all(notNow)
	}
	defer p.Close()
	if n := hops(m.parsed); n >= s.s.cfg.Limits.Hops {
		for _, r := range t.taken {
			p.Refuse(r, loop, "")
		}
		p.Reset(circles(n))
		return all(loop)
	}
	known := s.call(m)
	t.leaveOut(known)
	for _, event := range t.events {
		event(s.ctx(), p)
	}
	p.SetSHA256(m.SHA256())
	p.Data(s.ctx())
	ctx := mailstore.AtOneMoment(s.ctx())
	decisions := p.Content(ctx, scanned)
	if len(decisions) != len(t.taken) {
		s.s.cfg.Log.Error("message not decided", "door", s.s.door, "id", p.ID(), "client", s.peer(),
			"error", fmt.Errorf("%d decisions about %d recipients", len(decisions), len(t.taken)))
		p.Reset("not decided")
		return all(notNow)
	}
	if s.ctx().Err() != nil {
		p.Reset("broken off: the server is shutting down")
		return all(pipeline.Reply{Code: 421, Enhanced: "4.3.2", Text: "shutting down, please try again later"})
	}
	t.sendBack(decisions)
	f := s.filing(ctx, p, m, scanned, decisions)
	f.settled = f.s.door.Settle(decisions, s.s.cfg.Refuse)
	f.agree(t.rcpts)
	for i := range f.settled.Replies {
		if f.settled.Replies[i].Code < 400 {
			f.settled.Replies[i].Text = "accepted as " + f.id
		}
	}
	f.makeRoom()
	f.agree(t.rcpts)
	// Quarantine and folders answer each for their own recipients.
	f.postpone(pipeline.Held, f.hold())
	f.agree(t.rcpts)
	f.leave()
	f.agree(t.rcpts)
	f.postpone(pipeline.Delivered, f.deliver())
	f.release()
	f.agree(t.rcpts)
	known.attempted(f, slices.Contains(f.settled.Dispositions, pipeline.Postponed) || s.postponed)

	replies := make([]pipeline.Reply, len(t.rcpts))
	once := pipeline.Reply{}
	accepted := false
	for i, r := range t.rcpts {
		replies[i] = f.answer(r)
		accepted = accepted || replies[i].Code < 400
		if once.Code == 0 {
			once = replies[i]
		}
	}
	if accepted {
		once = pipeline.Reply{}
	}
	for i := range f.deliveries {
		f.deliveries[i].Reply = f.settled.Replies[i]
	}
	if no := f.done(p, once); no.Code == notNow.Code && accepted {
		for i := range replies {
			if replies[i].Code < 400 {
				replies[i] = no
			}
		}
		for i, what := range f.settled.Dispositions {
			if what == pipeline.Dropped || what == pipeline.Held { // without a record it has not happened
				f.settled.Dispositions[i] = pipeline.Postponed
			}
		}
		known.attempted(f, true)
	}
	return replies
}

// A filing is a message on its way to where it was decided that it goes.
type filing struct {
	session
	id         string
	m          *message
	stored     *mime.Message // without the fields that are ours to write
	decisions  []pipeline.Decision
	settled    pipeline.Settlement
	deliveries []pipeline.Delivery // by decision
	received   time.Time
	moment     context.Context // for questions to the store
	results    func() string   // see [mailstore.Outgoing.Results]
	staged     *staged         // what is to leave; nil: nothing
}

// filing returns what carries decisions out; moment is the context that they were made in.
func (s session) filing(moment context.Context, p *pipeline.Session, m *message, stored *mime.Message, decisions []pipeline.Decision) *filing {
	return &filing{
		session: s, id: p.ID(), m: m, stored: stored, decisions: decisions,
		results: func() string {
			if s.s.cfg.Results == nil {
				return ""
			}
			return s.s.cfg.Results(p.SoFar())
		},
		deliveries: make([]pipeline.Delivery, len(decisions)), received: s.s.cfg.Now(),
		moment: moment,
	}
}

// agree makes the accounts that one recipient leads to share its fate, for the MTA hears one reply about all of them: if
// one is postponed all are, for it will offer the mail for all of them again; if only some refuse, for those it is held.
func (f *filing) agree(rcpts []recipient) {
	d := f.settled.Dispositions
	for again := true; again; {
		again = false
		for i, x := range f.decisions { // who gets the mail later by one address does not get it now by another
			if d[i] != pipeline.Postponed {
				continue
			}
			for n, y := range f.decisions {
				if d[n] == pipeline.Delivered && x.Recipient.Account == y.Recipient.Account {
					d[n], f.settled.Replies[n] = pipeline.Postponed, f.settled.Replies[i]
					again = true
				}
			}
		}
		for _, r := range rcpts {
			at := slices.IndexFunc(r.accounts, func(i int) bool { return d[i] == pipeline.Postponed })
			if at < 0 {
				continue
			}
			for _, i := range r.accounts {
				if d[i] != pipeline.Postponed {
					d[i], f.settled.Replies[i] = pipeline.Postponed, f.settled.Replies[r.accounts[at]]
					again = true
				}
			}
		}
	}
	for _, r := range rcpts {
		if !slices.ContainsFunc(r.accounts, func(i int) bool { return d[i] != pipeline.Refused }) {
			continue
		}
		for _, i := range r.accounts {
			if d[i] == pipeline.Refused {
				d[i], f.settled.Replies[i] = pipeline.Held, pipeline.Reply{Code: 250, Enhanced: "2.0.0", Text: "accepted"}
			}
		}
	}
}

// answer is the reply about one recipient: that of its accounts, who agree, unless the store has failed for some.
func (f *filing) answer(r recipient) pipeline.Reply {
	if len(r.accounts) == 0 {
		return acceptedBefore(r.before)
	}
	worst := f.settled.Replies[r.accounts[0]]
	for _, i := range r.accounts[1:] {
		if x := f.settled.Replies[i]; x.Code/100 == 4 || worst.Code < 400 && x.Code >= 400 {
			worst = x
		}
	}
	return worst
}

// makeRoom postpones the mail of those whose mailbox is full, so that the others get theirs.
func (f *filing) makeRoom() {
	for i, d := range f.decisions {
		if f.settled.Dispositions[i] != pipeline.Delivered || d.Recipient.Account == "" {
			continue
		}
		if err := f.s.cfg.Store.Room(f.moment, d.Recipient.Account, f.m.Size()); err != nil {
			f.settled.Dispositions[i], f.settled.Replies[i] = pipeline.Postponed, f.failed(err)
			f.deliveries[i].Note = err.Error()
		}
	}
}

// postpone says that what was to become of some recipients has failed.
func (f *filing) postpone(which pipeline.Disposition, err error) {
	if err == nil {
		return
	}
	no := f.failed(err)
	for i := range f.settled.Dispositions {
		if f.settled.Dispositions[i] == which || which == pipeline.Delivered && f.noticed(i) {
			f.settled.Dispositions[i], f.settled.Replies[i] = pipeline.Postponed, no
			f.deliveries[i] = pipeline.Delivery{Note: err.Error()}
		}
	}
}

// failed logs why mail was not filed and returns what the sender is told.
func (f *filing) failed(err error) pipeline.Reply {
	if errors.Is(err, mailstore.ErrQuota) {
		f.s.cfg.Log.Warn("mailbox full", "door", f.s.door, "id", f.id, "client", f.peer(), "error", err)
		return fullMailbox
	}
	if errors.Is(err, mailstore.ErrQueueFull) {
		f.s.cfg.Log.Warn("the queue is full", "door", f.s.door, "id", f.id, "client", f.peer(), "error", err)
		return fullQueue
	}
	f.s.cfg.Log.Error("mail not filed", "door", f.s.door, "id", f.id, "client", f.peer(), "error", err)
	return notFor(err)
}

// notFor is what a client is told of an error that the log has: that the disk is full, or nothing.
func notFor(err error) pipeline.Reply {
	if errors.Is(err, mailstore.ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fullDisk
	}
	return notNow
}

// filingTime bounds what the store may take. The client waits 10 minutes (RFC 5321, 4.5.3.2.6).
const filingTime = 4 * time.Minute

// hold puts the mail into quarantine for those it is held for. It returns once that would survive a power cut.
func (f *filing) hold() error {
	h := mailstore.Held{
		ID: f.id, SHA256: f.m.SHA256(), MessageID: f.stored.MessageID(), Subject: f.stored.Subject(),
		Sender: f.tx.from.Raw, Received: f.received,
	}
	var places []int
	for i, d := range f.decisions {
		if f.settled.Dispositions[i] != pipeline.Held {
			continue
		}
		places = append(places, i)
		h.Recipients = append(h.Recipients, mailstore.HeldRecipient{
			Address: d.Recipient.Address.String(), Account: d.Recipient.Account, Folder: d.Folder, Reason: reason(d),
		})
	}
	if len(places) == 0 {
		return nil
	}
	h.Content = f.content(nil)
	ctx, cancel := f.unbroken()
	defer cancel()
	ids, err := f.s.cfg.Quarantine.Hold(ctx, h)
	if err != nil {
		return fmt.Errorf("hold in quarantine: %w", err)
	}
	removed := f.removed(nil)
	for n, i := range places {
		f.deliveries[i].Disposition, f.deliveries[i].Removed = pipeline.Held, removed
		if n < len(ids) {
			f.deliveries[i].Held = ids[n]
		}
	}
	return nil
}

// reason says who wants mail held, and why: "rules/forged_bank: 550 5.7.1 …".
func reason(d pipeline.Decision) string {
	s := d.Step
	if d.Verdict.By != "" {
		s += "/" + d.Verdict.By
	}
	switch {
	case d.Verdict.Reply.Code != 0:
		s += ": " + d.Verdict.Reply.String()
	case d.Verdict.Reason != "":
		s += ": " + d.Verdict.Reason
	}
	return s
}

// done hands the record over. What is answered comes after it.
func (f *filing) done(p *pipeline.Session, no pipeline.Reply) pipeline.Reply {
	for i := range f.deliveries {
		if f.deliveries[i].Disposition == pipeline.NotFinished {
			f.deliveries[i].Disposition = f.settled.Dispositions[i]
		}
	}
	ctx, cancel := f.unbroken()
	defer cancel()
	if err := p.Done(ctx, no, f.deliveries); err != nil {
		f.s.cfg.Log.Error("record not kept", "door", f.s.door, "id", f.id, "client", f.peer(), "error", err)
		return notNow
	}
	return no
}

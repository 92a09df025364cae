package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/protocols/listen"
)

// A Submission makes a door one for our own users, who log in to send mail (RFC 6409). What it takes goes into
// [Config.Outbox], for recipients of ours, too. All fields but Keys, HideClient and SaveSent must be set.
type Submission struct {
	Submitters mailstore.Submitters
	Logins     *listen.Logins    // guards against guessing, best one for all doors
	Keys       mailstore.Keyring // nil: no SCRAM
	// HideClient keeps the client's name and address, and the account's, out of the mail.
	HideClient bool
	// SaveSent reports whether a copy of what an account sends is filed in its folder for sent mail; nil: never.
	SaveSent func(account string) bool
}

// Replies of a submission door.
var (
	domainless = pipeline.Reply{Code: 553, Enhanced: "5.1.3", Text: "the recipient's address needs a domain"}
	fullQueue  = pipeline.Reply{Code: 452, Enhanced: "4.3.1", Text: "too much mail is waiting to leave, please try again later"}
)

// maySend says whether the client may send under the address of MAIL. A reply refuses it.
func (s session) maySend(from pipeline.Address) *pipeline.Reply {
	if s.login == "" || s.session == nil {
		return &loginFirst
	}
	why, err := s.s.cfg.Submission.Submitters.Blocked(s.ctx(), s.login)
	switch {
	case err != nil:
		return s.notAsked("whether it may send", err)
	case why != "":
		return &blocked
	case from.IsZero(): // see mayStand: what for is not known yet
		return nil
	}
	return s.owned("sender", from)
}

// owned returns nil if an address is one of the client's, and a refusal that names those that are.
func (s session) owned(what string, a pipeline.Address) *pipeline.Reply {
	to := s.s.cfg.Submission.Submitters
	if a.Domain != "" {
		ok, err := to.Owns(s.ctx(), s.login, a.Mailbox(), a.Domain)
		switch {
		case err != nil:
			return s.notAsked("whose "+a.String()+" is", err)
		case ok:
			return nil
		}
	}
	text := fmt.Sprintf("you cannot be the %s %s", what, a.Raw)
	if a.Raw == "" {
		text = "you cannot be a " + what + " without an address"
	}
	if all, err := to.Addresses(s.ctx(), s.login); err == nil && len(all) > 0 {
		text += "; you may be " + strings.Join(all, ", ")
	}
	return &pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: text}
}

// notAsked logs what could not be found out about an account and returns what the client is told.
func (s session) notAsked(what string, err error) *pipeline.Reply {
	s.s.cfg.Log.Error("account not looked up", "door", s.s.door, "account", s.login, "client", s.peer(), "question", what, "error", err)
	return &notNow
}

// submitTo takes or refuses a recipient: one of ours must be there, and nobody else is asked.
func (s session) submitTo(r pipeline.Recipient) error {
	t := s.tx
	accounts, err := s.s.cfg.Directory.Resolve(mailstore.AtOneMoment(s.ctx()), r.Address.Mailbox(), r.Address.Domain)
	switch {
	case err == nil && len(accounts) > 0:
		if r.Address.Domain == "" { // postmaster
			if r.Address, err = mime.ParseAddress(accounts[0]); err != nil {
				return replyError(*s.notAsked("who is the postmaster", err))
			}
		}
	case errors.Is(err, mailstore.ErrForeign):
	case r.Address.Domain == "":
		s.session.Refuse(r, domainless, "")
		return replyError(domainless)
	case err == nil, errors.Is(err, mailstore.ErrNoAccount), errors.Is(err, mailstore.ErrName):
		s.session.Refuse(r, noUser, fmt.Sprint(err))
		if err := s.s.cfg.Submission.Submitters.Failed(s.ctx(), s.sending(r.Address.String())); err != nil {
			s.s.cfg.Log.Error("a failed recipient is not counted", "door", s.s.door, "account", s.login, "error", err)
		}
		return replyError(s.countUnknown(noUser))
	default:
		s.s.cfg.Log.Error("recipient not looked up", "door", s.s.door, "recipient", r.Address.String(), "client", s.peer(), "error", err)
		s.session.Refuse(r, notNow, err.Error())
		return replyError(notNow)
	}
	taken := recipient{place: len(s.paths) - 1}
	at := slices.IndexFunc(t.taken, func(x pipeline.Recipient) bool { return x.Address.String() == r.Address.String() })
	if at < 0 {
		if no := s.session.Rcpt(s.ctx(), r); no != nil {
			return replyError(*no)
		}
		at = len(t.taken)
		t.taken = append(t.taken, r)
	}
	taken.accounts = []int{at}
	t.rcpts = append(t.rcpts, taken)
	return nil
}

// sending is the transaction under way as it is counted.
func (s session) sending(recipients ...string) mailstore.Sending {
	return mailstore.Sending{Account: s.login, ID: s.session.ID(), Client: s.client().Addr, Recipients: recipients}
}

// submit decides about a message and puts it into the outbox. It returns the one reply.
func (s session) submit(m *message) pipeline.Reply {
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
	if no := s.mayStand(m.parsed); no != nil {
		s.session.RefuseMessage(m.parsed, *no, "whoever has logged in may not send it")
		return *no
	}
	o, err := s.complete(m)
	if err != nil {
		return s.broken(err)
	}
	ctx := mailstore.AtOneMoment(s.ctx())
	// Its record has the hash of what is decided about, which is what leaves: the mail as it was made complete.
	decisions := s.session.Content(ctx, o.scanned)
	if len(decisions) != len(t.taken) {
		return s.broken(fmt.Errorf("%d decisions about %d recipients", len(decisions), len(t.taken)))
	}
	if s.ctx().Err() != nil {
		s.session.Reset("broken off: the server is shutting down")
		return pipeline.Reply{Code: 421, Enhanced: "4.3.2", Text: "shutting down, please try again later"}
	}
	f := s.filing(ctx, s.session, m, o.scanned, decisions)
	f.settled = pipeline.Submission.Settle(decisions, false)
	no := f.settled.Reply
	if no.Code < 400 {
		no.Text = "accepted as " + f.id
		if err := f.send(o); err != nil {
			no = f.notLeft(err)
			for i := range f.deliveries {
				f.deliveries[i] = pipeline.Delivery{Disposition: pipeline.Postponed, Note: err.Error()}
			}
		}
	}
	no = f.done(s.session, no)
	if no.Code < 400 {
		f.saveSent(o)
	}
	return no
}

// mayStand says whether what the message says of its authors is true. A reply refuses it.
func (s session) mayStand(m *mime.Message) *pipeline.Reply {
	h := m.Header()
	for _, name := range []string{"From", "Sender"} {
		n := 0
		for f := range h.All(name) {
			if n++; n > 1 {
				return &pipeline.Reply{Code: 550, Enhanced: "5.6.0", Text: "the message has more than one " + name + " field"}
			}
			all := f.Addresses()
			if len(all) == 0 {
				return &pipeline.Reply{Code: 550, Enhanced: "5.6.0", Text: "there is no address in the " + name + " field"}
			}
			for _, a := range all {
				if no := s.owned(map[string]string{"From": "author", "Sender": "sender"}[name], a); no != nil {
					return no
				}
			}
		}
		if n == 0 && name == "From" {
			return &pipeline.Reply{Code: 550, Enhanced: "5.6.0", Text: "the message has no From field"}
		}
	}
	if s.tx.from.IsZero() && !isReceipt(m) {
		return &pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "only a receipt is sent without a sender"}
	}
	return nil
}

// isReceipt reports whether a message is one that says that another was read: its sender must be empty (RFC 8098, 3), and
// it is the only kind of mail that a mail program sends so.
func isReceipt(m *mime.Message) bool {
	f, _ := m.Header().First("Content-Type")
	value := strings.ToLower(f.Value())
	kind, parameters, _ := strings.Cut(value, ";")
	return strings.TrimSpace(kind) == "multipart/report" &&
		slices.ContainsFunc(strings.Split(parameters, ";"), func(p string) bool {
			name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
			return strings.TrimSpace(name) == "report-type" && strings.Trim(value, "\" \t") == "disposition-notification"
		})
}

// send puts the message into the outbox for those who are to get it, as their decisions want it. It returns once that
// would survive a power cut; after an error nothing leaves.
func (f *filing) send(o *handedIn) (err error) {
	var named []string
	for i, d := range f.decisions {
		if f.settled.Dispositions[i] != pipeline.Dropped {
			named = append(named, d.Recipient.Address.String())
		}
	}
	if len(named) == 0 {
		return nil
	}
	if f.s.cfg.Outbox == nil {
		return errNoOutbox
	}
	ctx, cancel := f.unbroken()
	defer cancel()
	to, sending := f.s.cfg.Submission, f.sending(named...)
	pace, err := to.Submitters.Reserve(ctx, sending)
	if err != nil {
		return fmt.Errorf("count what %s sends: %w", f.login, err)
	}
	defer func() {
		if err != nil {
			if e := to.Submitters.Cancel(context.WithoutCancel(ctx), sending); e != nil {
				f.s.cfg.Log.Warn("a mail that did not leave is counted", "id", f.id, "account", f.login, "error", e)
			}
		}
	}()
	list, places, err := f.letters(o, pace)
	if err != nil {
		return err
	}
	staged, err := f.s.cfg.Outbox.Stage(ctx, list)
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	ids := staged.IDs()
	if err := staged.Release(ctx); err != nil {
		return errors.Join(fmt.Errorf("queue: %w", err), staged.Withdraw())
	}
	for n, all := range places {
		for _, i := range all {
			x := &f.deliveries[i]
			x.Disposition = f.settled.Dispositions[i]
			if x.Disposition == pipeline.Held && n < len(ids) {
				x.Held = ids[n]
			}
			switch {
			case pace.Hold != "":
				x.Note = "held in the queue: " + pace.Hold
			case !pace.NotBefore.IsZero():
				x.Note = fmt.Sprintf("slowed, leaves at %s at the earliest: %s", pace.NotBefore.UTC().Format("2006-01-02 15:04:05 MST"), pace.Why)
			}
		}
	}
	return nil
}

// letters makes what leaves: one message for all recipients that get the same. places are the decisions that each is
// for.
func (f *filing) letters(o *handedIn, pace mailstore.Pace) (list []mailstore.Outgoing, places [][]int, err error) {
	type like struct{ head, hold string }
	var kinds []like
	eight, err := eightBit(o.body()) // whatever the client has said
	if err != nil {
		return nil, nil, err
	}
	for i, d := range f.decisions {
		if f.settled.Dispositions[i] == pipeline.Dropped {
			f.deliveries[i].Disposition = pipeline.Dropped
			continue
		}
		hold := pace.Hold
		if f.settled.Dispositions[i] == pipeline.Held {
			hold = reason(d)
		}
		x := like{string(f.head(o, &d)), hold}
		at := slices.Index(kinds, x)
		if at < 0 {
			at = len(kinds)
			kinds, places = append(kinds, x), append(places, nil)
			list = append(list, mailstore.Outgoing{
				ID: f.id, Account: f.login, Why: "submission", Sender: f.tx.from.Raw,
				EnvelopeID: decodedXtext(f.tx.wants.EnvelopeID), Return: strings.ToLower(f.tx.wants.Return),
				UTF8: f.tx.wants.UTF8, EightBit: eight, NotBefore: pace.NotBefore, Hold: hold,
				Content: io.MultiReader(strings.NewReader(x.head), o.body()),
			})
		}
		places[at] = append(places[at], i)
		list[at].Recipients = append(list[at].Recipients, addressee(d.Recipient))
	}
	return list, places, nil
}

// addressee is a recipient as the outbox knows it.
func addressee(r pipeline.Recipient) mailstore.OutgoingRecipient {
	out := mailstore.OutgoingRecipient{Address: r.Address.Raw}
	if r.Address.Raw == "" {
		out.Address = r.Address.String()
	}
	if r.Notify != "" {
		out.Notify = strings.Split(strings.ToLower(r.Notify), ",")
	}
	if kind, address, ok := strings.Cut(r.ORCPT, ";"); ok {
		if text, err := decodeORCPT(kind, address); err == nil {
			out.Original = strings.ToLower(kind) + ";" + text
		}
	}
	return out
}

func decodedXtext(s string) string {
	text, err := decodeXtext(s)
	if err != nil {
		return s // it was refused
	}
	return text
}

// notLeft logs why mail did not get into the outbox and returns what the client is told.
func (f *filing) notLeft(err error) pipeline.Reply {
	if errors.Is(err, mailstore.ErrQueueFull) {
		return f.failed(err)
	}
	f.s.cfg.Log.Error("mail not queued", "door", f.s.door, "id", f.id, "account", f.login, "client", f.peer(), "error", err)
	return notFor(err)
}

// saveSent files a copy in the account's folder for sent mail, if that is wanted. The mail has been taken: a copy that
// cannot be filed is a line in the log.
func (f *filing) saveSent(o *handedIn) {
	if want := f.s.cfg.Submission.SaveSent; want == nil || !want(f.login) {
		return
	}
	ctx, cancel := f.unbroken()
	defer cancel()
	folder, err := f.sentFolder(ctx)
	if err == nil {
		_, err = f.s.cfg.Store.Deliver(ctx, []mailstore.Item{{
			Account: f.login, Folder: folder, Flags: []string{`\Seen`}, ID: f.id, Date: f.received, Content: f.kept(o),
		}})
	}
	if err != nil {
		f.s.cfg.Log.Warn("no copy among the sent mail", "door", f.s.door, "id", f.id, "account", f.login, "error", err)
	}
}

// sentFolder is the folder of special use for sent mail (RFC 6154), else the one called Sent.
func (f *filing) sentFolder(ctx context.Context) (string, error) {
	a, err := f.s.cfg.Store.Account(ctx, f.login)
	if err != nil {
		return "", err
	}
	defer func() { _ = a.Close() }() // it was only read
	all, err := a.Folders(ctx)
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(all, func(x mailstore.FolderInfo) bool { return x.Use == `\Sent` && !x.Missing }); i >= 0 {
		return all[i].Name, nil
	}
	return "Sent", nil
}

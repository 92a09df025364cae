package program

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/queue"
	"sluice/protocols/relay"
)

type queueCommands struct {
	List    queueList    `cmd:"" help:"List mail that is to leave, the oldest first."`
	Show    queueShow    `cmd:"" help:"Print what is known of a mail, and its header."`
	Retry   queueRetry   `cmd:"" help:"Try mail again now, also what is held."`
	Hold    queueHold    `cmd:"" help:"Keep mail from leaving."`
	Release queueRelease `cmd:"" help:"Let held mail leave; its age begins anew."`
	Delete  queueDelete  `cmd:"" help:"Remove mail for good, with --to only for those that it names. Nobody is told."`
}

// queueVersion is the version of what the queue's commands print with --json, and of orders to the running server.
const queueVersion = 1

// chosenMail says which mail a command is about, besides its id.
type chosenMail struct {
	Account string `group:"filter" placeholder:"ACCOUNT" help:"Mail that this account of ours sends."`
	From    string `group:"filter" placeholder:"ADDRESS" help:"Mail of this sender."`
	To      string `group:"filter" placeholder:"DOMAIN" help:"Mail to this domain or address."`
	Why     string `group:"filter" placeholder:"TEXT" help:"Mail that is sent for this reason: submission, vacation, redirect …"`
	State   string `group:"filter" placeholder:"STATE" help:"Mail with a recipient in this state: waiting, held, or with list --all delivered, relayed, passed, failed, expired, deleted."`
}

func (c chosenMail) filter() (queue.Filter, error) {
	if c.State != "" && !slices.Contains(queue.States(), c.State) {
		return queue.Filter{}, fmt.Errorf("--state %s: there are %s", c.State, strings.Join(queue.States(), ", "))
	}
	return queue.Filter{Account: c.Account, Sender: c.From, Domain: strings.ToLower(c.To), Why: c.Why, State: c.State}, nil
}

// queued is a message as --json prints it.
type queued struct {
	ID         string       `json:"id"`
	Record     string       `json:"record,omitempty"` // what sluice explain calls the transaction it comes from
	Account    string       `json:"account,omitempty"`
	Why        string       `json:"why"`
	Sender     string       `json:"sender"`
	EnvelopeID string       `json:"envelope_id,omitempty"` // by which its sender knows it in reports
	Return     string       `json:"return,omitempty"`      // what a failure report brings back: full, hdrs
	UTF8       bool         `json:"utf8,omitempty"`        // it needs SMTPUTF8
	EightBit   bool         `json:"eight_bit,omitempty"`   // its body has octets over 127
	Forwarded  bool         `json:"forwarded,omitempty"`   // it is somebody else's mail, handed on
	Size       int64        `json:"size"`
	Queued     time.Time    `json:"queued"`
	Held       string       `json:"held,omitempty"`
	GivenUp    *time.Time   `json:"given_up,omitempty"` // when what waits of it is given up
	Left       *time.Time   `json:"left,omitempty"`     // when there was nothing left to do
	Recipients []queuedRcpt `json:"recipients"`
	Header     string       `json:"header,omitempty"` // of show: as it leaves
}

type queuedRcpt struct {
	Address  string     `json:"address"`
	Notify   []string   `json:"notify,omitempty"`   // what its sender wants to hear of (RFC 3461): never, or success, failure, delay
	Original string     `json:"original,omitempty"` // whom the sender wrote to, if that is known: "rfc822;me@example.org"
	Domain   string     `json:"domain"`             // where it goes
	State    string     `json:"state"`
	Attempts int        `json:"attempts"`
	Next     *time.Time `json:"next,omitempty"` // in the past: it is being sent, or the next to be
	Tried    *time.Time `json:"tried,omitempty"`
	Host     string     `json:"host,omitempty"`
	Reply    string     `json:"reply,omitempty"`
	Status   string     `json:"status,omitempty"`
	How      string     `json:"how,omitempty"`
	Told     *time.Time `json:"told,omitempty"` // when its sender was told that it is late
	Owed     string     `json:"owed,omitempty"` // the report that its sender gets next: failure, delay, success
}

func newQueued(m queue.Message, age time.Duration) queued {
	when := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	q := queued{
		ID: m.ID, Record: m.Transaction, Account: m.Account, Why: m.Why, Sender: m.Sender, EnvelopeID: m.EnvelopeID,
		Return: m.Return, UTF8: m.UTF8, EightBit: m.EightBit, Forwarded: m.Forwarded, Size: m.Size, Queued: m.Queued, Held: m.Held,
		Left: when(m.Ended),
	}
	if goesOn(m) {
		q.GivenUp = when(m.GivenUp(age))
	}
	for _, r := range m.Recipients {
		x := queuedRcpt{
			Address: r.Address, Notify: r.Notify, Original: r.Original, Domain: r.Domain, State: r.State, Attempts: r.Attempts, Tried: when(r.Tried), Host: r.Host, Reply: r.Reply,
			Status: r.Status, How: r.How, Told: when(r.Delayed), Owed: r.Owed(),
		}
		if r.State == queue.Waiting {
			x.Next = when(r.Due)
		}
		q.Recipients = append(q.Recipients, x)
	}
	return q
}

// goesOn reports whether there are recipients to whom a mail is still to be brought, and nobody holds it.
func goesOn(m queue.Message) bool {
	return m.Ended.IsZero() && m.Held == "" &&
		slices.ContainsFunc(m.Recipients, func(r queue.Recipient) bool { return r.State == queue.Waiting })
}

// queueAge is how long mail is tried.
func queueAge(c *config.Config) time.Duration { return cmp.Or(c.Queue.Age, queue.DefaultConfig().Age) }

// withQueue opens the queue for looking. Where there was never one f is not called.
func withQueue(ctx context.Context, c *config.Config, f func(*queue.Reader) error) (err error) {
	r, err := queue.OpenReader(ctx, queueFolder(c.Data))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return f(r)
}

// eachQueued calls f with all mail that a filter lets through.
func eachQueued(ctx context.Context, r *queue.Reader, f queue.Filter, do func(queue.Message) error) error {
	f.Limit = 500
	for {
		page, err := r.List(ctx, f)
		if err != nil {
			return err
		}
		for _, m := range page {
			if err := do(m); err != nil {
				return err
			}
		}
		if len(page) < f.Limit {
			return nil
		}
		f.After = &page[len(page)-1]
	}
}

type queueList struct {
	chosenMail
	All  bool `help:"Also what has left."`
	JSON bool `help:"Print JSON."`
}

func (c *queueList) Run(p *program) error {
	f, err := c.filter()
	if err != nil {
		return err
	}
	f.All = c.All
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	t := text{w: p.stdout}
	all := struct {
		Version  int      `json:"version"`
		Messages []queued `json:"messages"`
	}{queueVersion, []queued{}}
	err = withQueue(p.ctx, settings, func(r *queue.Reader) error {
		return eachQueued(p.ctx, r, f, func(m queue.Message) error {
			if c.JSON {
				all.Messages = append(all.Messages, newQueued(m, queueAge(settings)))
				return nil
			}
			t.queued(0, m, p.now())
			return t.err
		})
	})
	if err != nil || !c.JSON {
		return err
	}
	return printJSON(p, all)
}

// queued prints a message in a line, and one for each recipient.
func (t *text) queued(indent int, m queue.Message, now time.Time) {
	state := ""
	switch {
	case !m.Ended.IsZero():
		state = "  left " + m.Ended.Format(time.DateTime)
	case m.Held != "":
		state = "  held: " + m.Held
	}
	t.line(indent, "%s  %s  <%s>  %s  %s%s", m.ID, m.Queued.Format(time.DateTime), m.Sender, inOctets(m.Size), m.Why, state)
	for _, r := range m.Recipients {
		t.line(indent+1, "<%s>  %s", r.Address, fate(m, r, now))
	}
}

// fate says what became of a recipient so far. What is due is being sent, or as soon as there is a connection for it.
func fate(m queue.Message, r queue.Recipient, now time.Time) string {
	said := strings.ReplaceAll(r.Reply, "\n", " ")
	switch {
	case r.Host == "" || said == "":
	case r.Answered():
		said = r.Host + " said " + said
	default:
		said = r.Host + ": " + said
	}
	if said != "" {
		said = ": " + said
	}
	if r.How != "" {
		said += " (" + r.How + ")"
	}
	at := " at " + r.Tried.Format(time.DateTime)
	switch r.State {
	case queue.Waiting:
		tried, next := "not tried yet", "next try "+r.Due.Format(time.DateTime)
		if r.Attempts > 0 {
			tried = "tried " + times(r.Attempts)
		}
		if !r.Due.After(now) {
			next = "next try now"
		}
		if m.Held != "" {
			next = "waits to be released"
		}
		return fmt.Sprintf("waits, %s, %s%s", tried, next, said)
	case queue.Passed:
		return "passed on" + at + said
	case queue.Expired:
		return "given up" + at + ", tried " + times(r.Attempts) + said
	}
	return r.State + at + said
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

type queueShow struct {
	ID   string `arg:"" help:"What list calls it."`
	Raw  bool   `help:"Only the mail as it leaves, for a pipe or a file."`
	JSON bool   `help:"Print JSON."`
}

func (c *queueShow) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	shown := false
	err = withQueue(p.ctx, settings, func(r *queue.Reader) error {
		shown = true
		m, err := r.Show(p.ctx, c.ID)
		if err != nil {
			return err
		}
		if c.JSON {
			x := newQueued(m, queueAge(settings))
			if x.Header, err = queuedHeader(r, m); err != nil {
				return err
			}
			return printJSON(p, struct {
				Version int    `json:"version"`
				Message queued `json:"message"`
			}{queueVersion, x})
		}
		return c.show(p, r, m, queueAge(settings))
	})
	if err == nil && !shown {
		return fmt.Errorf("%q: %w; nothing was ever queued", c.ID, queue.ErrNotQueued)
	}
	return err
}

func (c *queueShow) show(p *program, r *queue.Reader, m queue.Message, age time.Duration) error {
	if c.Raw {
		content, err := openQueued(r, m)
		if err != nil {
			return err
		}
		if content == nil {
			return fmt.Errorf("%s: %w; what has left is not kept", m.ID, queue.ErrEnded)
		}
		defer content.Close() // it was only read
		_, err = io.Copy(p.stdout, content)
		return err
	}
	header, err := queuedHeader(r, m)
	if err != nil {
		return err
	}
	t := text{w: p.stdout}
	t.queued(0, m, p.now())
	if goesOn(m) {
		t.line(0, "given up at %s if it has not left by then", m.GivenUp(age).Format(time.DateTime))
	}
	if m.Account != "" {
		t.line(0, "sent for %s", m.Account)
	}
	if m.Transaction != "" {
		t.line(0, "why: sluice explain %s", m.Transaction)
	}
	if said := relay.MailParameters(m.Return, m.EnvelopeID); said != "" {
		t.line(0, "asked for%s", said)
	}
	for _, r := range m.Recipients {
		if said := relay.RecipientParameters(r.OutgoingRecipient); said != "" {
			t.line(0, "asked for <%s>%s", r.Address, said)
		}
		if r.Owed() != "" {
			t.line(0, "a report to its sender about <%s> is on its way: %s", r.Address, r.Owed())
		}
	}
	if header == "" {
		return t.err
	}
	t.line(0, "")
	for line := range strings.Lines(header) {
		t.line(0, "%s", strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", "    "))
	}
	return t.err
}

// openQueued opens the content of a mail; nil: it has left, and is not kept.
func openQueued(r *queue.Reader, m queue.Message) (mailstore.Content, error) {
	content, err := r.Open(m)
	switch {
	case errors.Is(err, mailstore.ErrNoMessage) && !m.Ended.IsZero():
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: its content cannot be read: %w", m.ID, err)
	}
	return content, nil
}

// queuedHeader returns the header of a mail, as much of it as is shown; "": it has left.
func queuedHeader(r *queue.Reader, m queue.Message) (header string, err error) {
	content, err := openQueued(r, m)
	if content == nil || err != nil {
		return "", err
	}
	defer content.Close() // it was only read
	text, err := io.ReadAll(io.LimitReader(content, mostShown))
	if err != nil {
		return "", fmt.Errorf("%s: its content cannot be read: %w", m.ID, err)
	}
	n := 0
	for line := range bytes.Lines(text) {
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			break
		}
		n += len(line)
	}
	return strings.ToValidUTF8(string(text[:n]), "\ufffd"), nil
}

// mostShown is how many octets of a header are shown.
const mostShown = 64 << 10

// findSent finds the mail that left because of a transaction. The owner of a mailbox is told of their own.
func (x *explanation) findSent(ctx context.Context, c *config.Config, owner string) error {
	return withQueue(ctx, c, func(r *queue.Reader) error {
		return eachQueued(ctx, r, queue.Filter{Transaction: x.Record.ID, Account: owner, All: true}, func(m queue.Message) error {
			x.leaving, x.Sent = append(x.leaving, m), append(x.Sent, newQueued(m, queueAge(c)))
			return nil
		})
	})
}

// sent prints mail that left because of what a record is about.
func (t *text) sent(all []queue.Message, now time.Time) {
	if len(all) == 0 {
		return
	}
	t.title(1, "sent on")
	for _, m := range all {
		t.queued(2, m, now)
	}
}

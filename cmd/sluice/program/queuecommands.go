package program

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/queue"
	"sluice/mailstore/users"
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
	Size       int64        `json:"size"`
	Queued     time.Time    `json:"queued"`
	Held       string       `json:"held,omitempty"`
	Left       *time.Time   `json:"left,omitempty"` // when there was nothing left to do
	Recipients []queuedRcpt `json:"recipients"`
}

type queuedRcpt struct {
	Address  string     `json:"address"`
	Notify   []string   `json:"notify,omitempty"`   // what its sender wants to hear of (RFC 3461): never, or success, failure, delay
	Original string     `json:"original,omitempty"` // whom the sender wrote to, if that is known: "rfc822;me@example.org"
	State    string     `json:"state"`
	Attempts int        `json:"attempts"`
	Next     *time.Time `json:"next,omitempty"`
	Tried    *time.Time `json:"tried,omitempty"`
	Host     string     `json:"host,omitempty"`
	Reply    string     `json:"reply,omitempty"`
	Status   string     `json:"status,omitempty"`
	How      string     `json:"how,omitempty"`
	Told     *time.Time `json:"told,omitempty"` // when its sender was told that it is late
}

func newQueued(m queue.Message) queued {
	when := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	q := queued{
		ID: m.ID, Record: m.Transaction, Account: m.Account, Why: m.Why, Sender: m.Sender, EnvelopeID: m.EnvelopeID,
		Return: m.Return, Size: m.Size, Queued: m.Queued, Held: m.Held,
		Left: when(m.Ended),
	}
	for _, r := range m.Recipients {
		x := queuedRcpt{
			Address: r.Address, Notify: r.Notify, Original: r.Original, State: r.State, Attempts: r.Attempts, Tried: when(r.Tried), Host: r.Host, Reply: r.Reply,
			Status: r.Status, How: r.How, Told: when(r.Delayed),
		}
		if r.State == queue.Waiting {
			x.Next = when(r.Due)
		}
		q.Recipients = append(q.Recipients, x)
	}
	return q
}

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
				all.Messages = append(all.Messages, newQueued(m))
				return nil
			}
			t.queued(0, m)
			return t.err
		})
	})
	if err != nil || !c.JSON {
		return err
	}
	return printJSON(p, all)
}

// queued prints a message in a line, and one for each recipient.
func (t *text) queued(indent int, m queue.Message) {
	state := ""
	switch {
	case !m.Ended.IsZero():
		state = "  left " + m.Ended.Format(time.DateTime)
	case m.Held != "":
		state = "  held: " + m.Held
	}
	t.line(indent, "%s  %s  <%s>  %s  %s%s", m.ID, m.Queued.Format(time.DateTime), m.Sender, inOctets(m.Size), m.Why, state)
	for _, r := range m.Recipients {
		t.line(indent+1, "<%s>  %s", r.Address, fate(m, r))
	}
}

// fate says what became of a recipient so far.
func fate(m queue.Message, r queue.Recipient) string {
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
			return printJSON(p, struct {
				Version int    `json:"version"`
				Message queued `json:"message"`
			}{queueVersion, newQueued(m)})
		}
		return c.show(p, r, m)
	})
	if err == nil && !shown {
		return fmt.Errorf("%q: %w; nothing was ever queued", c.ID, queue.ErrNotQueued)
	}
	return err
}

func (c *queueShow) show(p *program, r *queue.Reader, m queue.Message) error {
	content, err := r.Open(m)
	switch {
	case errors.Is(err, mailstore.ErrNoMessage) && !m.Ended.IsZero():
		if c.Raw {
			return fmt.Errorf("%s: %w; what has left is not kept", m.ID, queue.ErrEnded)
		}
	case err != nil:
		return fmt.Errorf("%s: its content cannot be read: %w", m.ID, err)
	default:
		defer content.Close() // it was only read
	}
	if c.Raw {
		_, err := io.Copy(p.stdout, content)
		return err
	}
	t := text{w: p.stdout}
	t.queued(0, m)
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
	}
	if content == nil {
		return t.err
	}
	t.line(0, "")
	lines := bufio.NewReader(io.LimitReader(content, mostShown))
	for t.err == nil {
		line, err := lines.ReadString('\n')
		if strings.TrimRight(line, "\r\n") == "" {
			return t.err
		}
		t.line(0, "%s", strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", "    "))
		if err != nil {
			return t.err
		}
	}
	return t.err
}

// mostShown is how many octets of a header are shown.
const mostShown = 64 << 10

// queueOrderName is how an order about mail that is to leave begins.
const queueOrderName = "queue"

// A queueOrder has the running server do something with mail that is to leave.
type queueOrder struct {
	Version int      `json:"version"`
	Do      string   `json:"do"` // retry, hold, release, delete
	Why     string   `json:"why,omitempty"`
	To      string   `json:"to,omitempty"` // of delete: only what is for this domain or address
	IDs     []string `json:"ids"`
}

// A queueAnswer is what came of it, for each of the mails.
type queueAnswer struct {
	Version int          `json:"version"`
	Results []queuedDone `json:"results"`
	Error   string       `json:"error,omitempty"` // of the order as a whole
}

type queuedDone struct {
	ID    string `json:"id"`
	Error string `json:"error,omitempty"`
}

// answerQueue does what an order says.
func answerQueue(ctx context.Context, q *queue.Queue, text string) (a queueAnswer) {
	a.Version = queueVersion
	var o queueOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		a.Error = fmt.Sprintf("the order is no JSON: %v", err)
		return a
	}
	if o.Version != queueVersion {
		a.Error = "the running server is of another version: restart it"
		return a
	}
	do := map[string]func(context.Context, string) error{
		"retry": q.Retry, "release": q.Release,
		"delete": func(ctx context.Context, id string) error { return q.Delete(ctx, id, o.To) },
		"hold":   func(ctx context.Context, id string) error { return q.Hold(ctx, id, o.Why) },
	}[o.Do]
	if do == nil {
		a.Error = fmt.Sprintf("there is no order %q about mail that is to leave", o.Do)
		return a
	}
	for _, id := range o.IDs {
		x := queuedDone{ID: strings.ToLower(strings.TrimSpace(id))}
		if err := do(ctx, id); err != nil {
			x.Error = err.Error()
		}
		a.Results = append(a.Results, x)
	}
	return a
}

// selectedMail says which mail an action is about.
type selectedMail struct {
	chosenMail
	All  bool     `help:"All mail in the queue."`
	JSON bool     `help:"Print JSON."`
	IDs  []string `arg:"" optional:"" name:"id" help:"What list calls it."`
}

func (c *selectedMail) check() error {
	filtered := c.chosenMail != chosenMail{}
	switch {
	case len(c.IDs) == 0 && !filtered && !c.All:
		return errors.New("which mail? Name its id as sluice queue list shows it, choose with --account, --from, --to, --why or --state, or say --all")
	case len(c.IDs) > 0 && (filtered || c.All), filtered && c.All:
		return errors.New("mail is named by its id, chosen by --account, --from, --to, --why and --state, or it is --all: one of these")
	}
	return nil
}

// do has an action done with the mail that was selected, by the running server or, where there is none, here.
func (c *selectedMail) do(p *program, action, why, done string) error {
	if err := c.check(); err != nil {
		return err
	}
	f, err := c.filter()
	if err != nil {
		return err
	}
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	ids := c.IDs
	if len(ids) == 0 {
		err := withQueue(p.ctx, settings, func(r *queue.Reader) error {
			return eachQueued(p.ctx, r, f, func(m queue.Message) error {
				ids = append(ids, m.ID)
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	a := queueAnswer{Version: queueVersion, Results: []queuedDone{}}
	for part := range slices.Chunk(ids, 1000) {
		x, err := p.orderQueue(settings, queueOrder{Version: queueVersion, Do: action, Why: why, To: f.Domain, IDs: part})
		if err != nil {
			return err
		}
		a.Results = append(a.Results, x.Results...)
	}
	failed := slices.ContainsFunc(a.Results, func(x queuedDone) bool { return x.Error != "" })
	if c.JSON {
		if err := printJSON(p, a); err != nil {
			return err
		}
		if failed {
			return errSilent
		}
		return nil
	}
	var errs []error
	for _, x := range a.Results {
		if x.Error != "" {
			errs = append(errs, errors.New(x.Error))
			continue
		}
		fmt.Fprintf(p.stdout, "%s %s\n", config.Printable(x.ID), done)
	}
	if len(ids) == 0 {
		fmt.Fprintln(p.stdout, "no such mail is in the queue")
	}
	return errors.Join(errs...)
}

// orderQueue has the running server carry out an order, or does so itself where none runs.
func (p *program) orderQueue(c *config.Config, o queueOrder) (a queueAnswer, err error) {
	order, err := json.Marshal(o)
	if err != nil {
		return a, err
	}
	conn, err := new(net.Dialer).DialContext(p.ctx, "unix", controlSocket(c.Data))
	if err != nil {
		return p.orderQueueHere(c, string(order), err)
	}
	defer conn.Close()
	defer context.AfterFunc(p.ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(orderTime)); err != nil {
		return a, fmt.Errorf("ask the running server: %w", err)
	}
	_, err = io.WriteString(conn, queueOrderName+" "+string(order)+"\n")
	if err == nil {
		err = json.NewDecoder(conn).Decode(&a)
	}
	switch {
	case p.ctx.Err() != nil:
		return a, errors.New("interrupted before the running server answered; it may still do what it was told")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return a, fmt.Errorf("the running server has not answered for %s; it may hang", orderTime)
	case hungUp(err):
		return a, errors.New("the running server ended before it answered")
	case err != nil:
		return a, fmt.Errorf("hear the running server: %w", err)
	case a.Error != "":
		return a, errors.New(a.Error)
	case a.Version != queueVersion:
		return a, errors.New("the running server is of another version: restart it")
	}
	return a, nil
}

// orderQueueHere carries out an order as the owner of the data folder, which nobody else may be meanwhile.
func (p *program) orderQueueHere(c *config.Config, order string, why error) (a queueAnswer, err error) {
	if errors.Is(why, fs.ErrPermission) {
		return a, fmt.Errorf("the server of the data folder %s is another user's; become that user", c.Data)
	}
	if _, err := os.Stat(filepath.Join(queueFolder(c.Data), "queue.db")); errors.Is(err, fs.ErrNotExist) {
		return a, errors.New("nothing was ever queued")
	}
	owned, err := lock(c.Data)
	if err != nil {
		return a, fmt.Errorf("the running server cannot be asked: %w", why)
	}
	defer owned.Close() // gives the folder back
	accounts := usersConfig(c)
	accounts.Loose = true
	u, err := users.Open(p.ctx, accounts)
	if err != nil {
		return a, err
	}
	defer u.Close() // it was only asked
	q, err := openQueue(p.ctx, c, isOurs(u), slog.New(slog.DiscardHandler), p.now, nil)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	if a = answerQueue(p.ctx, q, order); a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

type queueRetry struct{ selectedMail }

func (c *queueRetry) Run(p *program) error { return c.do(p, "retry", "", "will be tried now") }

type queueHold struct {
	selectedMail
	Reason string `default:"held by an operator" help:"What to show others who look."`
}

func (c *queueHold) Run(p *program) error { return c.do(p, "hold", c.Reason, "held") }

type queueRelease struct{ selectedMail }

func (c *queueRelease) Run(p *program) error { return c.do(p, "release", "", "released") }

type queueDelete struct{ selectedMail }

func (c *queueDelete) Run(p *program) error { return c.do(p, "delete", "", "deleted") }

// findSent finds the mail that left because of a transaction. The owner of a mailbox is told of their own.
func (x *explanation) findSent(ctx context.Context, c *config.Config, owner string) error {
	return withQueue(ctx, c, func(r *queue.Reader) error {
		return eachQueued(ctx, r, queue.Filter{Transaction: x.Record.ID, Account: owner, All: true}, func(m queue.Message) error {
			x.leaving, x.Sent = append(x.leaving, m), append(x.Sent, newQueued(m))
			return nil
		})
	})
}

// sent prints mail that left because of what a record is about.
func (t *text) sent(all []queue.Message) {
	if len(all) == 0 {
		return
	}
	t.title(1, "sent on")
	for _, m := range all {
		t.queued(2, m)
	}
}

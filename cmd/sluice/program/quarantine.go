package program

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/journal"
	"sluice/mailstore/quarantine"
	"sluice/mailstore/users"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

type quarantineCommand struct {
	List    quarantineList    `cmd:"" help:"List held mail, the newest first."`
	Show    quarantineShow    `cmd:"" help:"Print a held mail."`
	Release quarantineRelease `cmd:"" help:"Deliver a held mail after all."`
	Delete  quarantineDelete  `cmd:"" help:"Remove a held mail for good."`
}

type heldIDs struct {
	IDs []string `arg:"" name:"id" help:"What list calls it, or the id of its record."`
}

type quarantineList struct {
	Released bool `help:"Also what was released."`
}

func (c *quarantineList) Run(p *program) error {
	return p.withQuarantine(func(q *quarantine.Quarantine, _ *config.Config) error {
		t := text{w: p.stdout}
		const page = 500
		for offset := 0; ; offset += page {
			rows, err := q.List(p.ctx, quarantine.Filter{Released: c.Released, Limit: page, Offset: offset})
			if err != nil {
				return err
			}
			for _, r := range rows {
				t.line(0, "%s  %s  <%s> for %s  %s  (%s)%s", r.ID, r.Held.UTC().Format(time.DateTime), r.Sender, r.Address,
					quoted(r.Subject), r.Reason, released(r))
			}
			if len(rows) < page {
				return t.err
			}
		}
	})
}

// heldAs is the id by which a mail is held. It may be named by that of its record, which is what its recipient was told, if
// it is held for nobody else.
func heldAs(ctx context.Context, q *quarantine.Quarantine, id string) (string, error) {
	rows, err := q.Of(ctx, id)
	switch {
	case err != nil:
		return "", err
	case len(rows) == 0:
		return id, nil
	case len(rows) == 1:
		return rows[0].ID, nil
	}
	var all []string
	for _, r := range rows {
		all = append(all, fmt.Sprintf("%s for %s", r.ID, r.Address))
	}
	return "", fmt.Errorf("%s is held for %d recipients; name one: %s", config.Printable(id), len(rows), config.Printable(strings.Join(all, ", ")))
}

func quoted(subject string) string {
	if subject == "" {
		return "(no subject)"
	}
	return `"` + subject + `"`
}

func released(r quarantine.Row) string {
	if r.Released.IsZero() {
		return ""
	}
	return "  released " + r.Released.UTC().Format(time.DateTime)
}

type quarantineShow struct {
	ID  string `arg:"" help:"What list calls it, or the id of its record."`
	Raw bool   `help:"Only the mail as it is, for a pipe or a file."`
}

func (c *quarantineShow) Run(p *program) error {
	return p.withQuarantine(func(q *quarantine.Quarantine, _ *config.Config) (err error) {
		id, err := heldAs(p.ctx, q, c.ID)
		if err != nil {
			return err
		}
		r, content, err := q.Open(p.ctx, id)
		if err != nil {
			return err
		}
		defer content.Close() // it was only read
		if c.Raw {
			_, err := io.Copy(p.stdout, content)
			return err
		}
		t := text{w: p.stdout}
		t.line(0, "%-10s %s%s", "held as", r.ID, released(r))
		t.line(0, "%-10s %s", "since", r.Held.UTC().Format(time.RFC3339))
		t.line(0, "%-10s %s", "recipient", r.Address)
		t.line(0, "%-10s <%s>", "from", r.Sender)
		t.line(0, "%-10s %s", "reason", r.Reason)
		if r.Folder != "" {
			t.line(0, "%-10s %s", "folder", r.Folder)
		}
		t.line(0, "%-10s sluice explain %s", "why", r.Transaction)
		t.line(0, "")
		lines := bufio.NewReader(content)
		for t.err == nil {
			line, err := lines.ReadString('\n')
			if line != "" {
				t.line(0, "%s", strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", "    "))
			}
			if errors.Is(err, io.EOF) {
				return t.err
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", r.ID, cause(err))
			}
		}
		return t.err
	})
}

type quarantineDelete struct{ heldIDs }

func (c *quarantineDelete) Run(p *program) error {
	return p.withQuarantine(func(q *quarantine.Quarantine, settings *config.Config) error {
		var errs []error
		for _, id := range c.IDs {
			var row quarantine.Row
			id, err := heldAs(p.ctx, q, id)
			if err == nil {
				row, err = q.Show(p.ctx, id)
			}
			if err == nil {
				err = q.Delete(p.ctx, id)
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			errs = append(errs, p.note(settings, row, func(x *pipeline.RecipientRecord) {
				x.Note = "deleted from quarantine on " + p.now().UTC().Format(time.RFC1123)
			}))
			fmt.Fprintf(p.stdout, "%s deleted\n", row.ID)
		}
		return errors.Join(errs...)
	})
}

type quarantineRelease struct{ heldIDs }

func (c *quarantineRelease) Run(p *program) error {
	return p.withQuarantine(func(q *quarantine.Quarantine, settings *config.Config) error {
		accounts := usersConfig(settings)
		accounts.Loose = true
		u, err := users.Open(p.ctx, accounts)
		if err != nil {
			return err
		}
		defer u.Close() // it was only asked
		var errs []error
		for _, id := range c.IDs {
			var way string
			id, err := heldAs(p.ctx, q, id)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			err = q.Release(p.ctx, id, func(ctx context.Context, r quarantine.Row, content io.Reader) (err error) {
				way, err = p.release(ctx, settings, u, r, content)
				return err
			})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			fmt.Fprintf(p.stdout, "%s released: %s\n", strings.ToLower(id), config.Printable(way))
		}
		return errors.Join(errs...)
	})
}

// release delivers a held mail to the accounts its recipient leads to, or hands it to the MTA behind us, and says
// which.
func (p *program) release(ctx context.Context, c *config.Config, u *users.Users, r quarantine.Row, content io.Reader) (way string, err error) {
	address, err := mime.ParseAddress(r.Address)
	if err != nil {
		return "", fmt.Errorf("its recipient %s: %w", r.Address, err)
	}
	accounts, err := u.Resolve(ctx, address.Mailbox(), address.Domain)
	switch {
	case err == nil:
		return p.releaseHere(ctx, c, u, r, accounts, content)
	case !errors.Is(err, mailstore.ErrForeign) && !errors.Is(err, mailstore.ErrNoAccount):
		return "", err
	case c.Quarantine.ReleaseTo == "":
		return "", fmt.Errorf("%s has no account here; quarantine.release_to can name a server that takes the mail", r.Address)
	}
	return p.releaseTo(ctx, c, r, address, content)
}

func (p *program) releaseHere(ctx context.Context, c *config.Config, u *users.Users, r quarantine.Row, accounts []string,
	content io.Reader) (way string, err error) {
	store, err := openStore(c, u.Exists, quota(u.Quota, func() int64 { return int64(c.Limits.Quota) }), slog.New(slog.DiscardHandler), p.now)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	mail, err := io.ReadAll(content)
	if err != nil {
		return "", err
	}
	var items []mailstore.Item
	for _, a := range accounts {
		items = append(items, mailstore.Item{
			Account: a, Folder: r.Folder, Wish: true, ID: r.Transaction, Date: r.Received, Content: bytes.NewReader(addressed(mail, a)),
		})
	}
	placed, err := store.Deliver(ctx, items)
	if err != nil {
		return "", err
	}
	err = p.note(c, r, func(x *pipeline.RecipientRecord) {
		x.Disposition, x.Folder, x.File = pipeline.Delivered, placed[0].Folder, placed[0].File
		if x.Account == "" {
			x.Account = accounts[0]
		}
		x.Note = "released from quarantine on " + p.now().UTC().Format(time.RFC1123)
	})
	if err != nil {
		// The mail has arrived: releasing it again because of this would deliver it twice.
		fmt.Fprintf(p.stderr, "sluice: the record does not say that %s was released: %v\n", r.ID, err)
	}
	return fmt.Sprintf("delivered to %s, %s", strings.Join(accounts, ", "), folder(placed[0].Folder)), nil
}

// addressed puts Delivered-To below Return-Path, as for mail that was delivered at once.
func addressed(mail []byte, account string) []byte {
	field := "Delivered-To: " + account + "\r\n"
	at := 0
	if bytes.HasPrefix(bytes.ToLower(mail[:min(len(mail), 12)]), []byte("return-path:")) {
		at = fieldEnd(mail, 0)
	}
	return append(append(append([]byte{}, mail[:at]...), field...), mail[at:]...)
}

// fieldEnd returns where the header field that begins at i ends: behind its last folded line.
func fieldEnd(mail []byte, i int) int {
	for {
		n := bytes.IndexByte(mail[i:], '\n')
		if n < 0 {
			return len(mail)
		}
		if i += n + 1; i >= len(mail) || mail[i] != ' ' && mail[i] != '\t' {
			return i
		}
	}
}

// releaseTo hands the mail to the MTA behind us. It comes back to our LMTP door, or goes on to another server; a record
// of its own that says "keep", and a signed field that names this record, see to it that our door does not judge it
// again.
func (p *program) releaseTo(ctx context.Context, c *config.Config, r quarantine.Row, to mime.Address, content io.Reader) (way string, err error) {
	if err := makeFolder(c.Data); err != nil {
		return "", err
	}
	key, err := secret(c.Data)
	if err != nil {
		return "", err
	}
	held, err := io.ReadAll(content)
	if err != nil {
		return "", err
	}
	mail := crlf(without(held, "return-path", "delivered-to", pipeline.IDField))
	parsed, err := mime.Parse(bytes.NewReader(mail), int64(len(mail)), c.Limits.MIME())
	if err != nil {
		return "", err
	}
	record := &pipeline.Record{
		Version: pipeline.RecordVersion, ID: newID(p.now()), Received: p.now(), Door: pipeline.Milter,
		MessageID: r.MessageID, Subject: r.Subject, SHA256: r.SHA256, Size: r.Size, End: "handed over",
		Note: "released from quarantine, where it was " + r.ID + " by transaction " + r.Transaction,
		Recipients: []pipeline.RecipientRecord{{
			Recipient: pipeline.Recipient{Address: to},
			Verdict:   pipeline.Verdict{Action: pipeline.Keep, By: "release", Reason: "released from quarantine"},
			Folder:    r.Folder, Disposition: pipeline.Delivered,
		}},
	}
	if record.Sender, err = mime.ParseAddress(r.Sender); err != nil {
		record.Sender = mime.Address{}
	}
	h := &handOn{
		host: c.Hostname, server: strings.TrimPrefix(c.Quarantine.ReleaseTo, "smtp:"), from: r.Sender, to: pipeline.Recipient{Address: to},
	}
	if err := p.askedFor(c, r, h); err != nil {
		return "", err
	}
	record.Asked, record.Recipients[0].Recipient = h.asked, h.to
	if err := p.withJournal(c, func(j *journal.Journal) error { return j.Record(ctx, record, true) }); err != nil {
		return "", err
	}
	h.mail = append([]byte(pipeline.IDField+": "+pipeline.Handover{Key: key}.Value(record.ID, parsed)+"\r\n"), mail...)
	lost, err := h.send(ctx)
	if err != nil {
		return "", fmt.Errorf("hand it to %s: %w", h.server, err)
	}
	way = "handed to " + h.server
	if len(lost) > 0 {
		way += ", which does not offer DSN: not passed on is " + strings.Join(lost, " ")
	}
	err = p.note(c, r, func(x *pipeline.RecipientRecord) {
		x.Note = fmt.Sprintf("released from quarantine on %s, as %s, %s", p.now().UTC().Format(time.RFC1123), record.ID, way)
	})
	if err != nil {
		fmt.Fprintf(p.stderr, "sluice: the record does not say that %s was released: %v\n", r.ID, err)
	}
	return way, nil
}

// askedFor adds what the record of a held mail says that its sender asked for. A record that is gone says nothing.
func (p *program) askedFor(c *config.Config, r quarantine.Row, h *handOn) error {
	return p.withJournal(c, func(j *journal.Journal) error {
		record, err := j.Recall(p.ctx, r.Transaction)
		if errors.Is(err, journal.ErrNoRecord) {
			return nil
		}
		if err != nil {
			return err
		}
		h.asked = record.Asked
		for _, x := range record.Recipients {
			if x.Held == r.ID || x.Address.String() == r.Address {
				h.to = pipeline.Recipient{Address: x.Address, Original: x.Original, ORCPT: x.ORCPT, Notify: x.Notify}
				break
			}
		}
		return nil
	})
}

// newID returns an id for a record that no door has made.
func newID(now time.Time) string { return fmt.Sprintf("%012x", now.UnixMilli()) + rand.Text()[:10] }

// without returns a mail without the header fields of these names.
func without(mail []byte, names ...string) []byte {
	var out []byte
	for i := 0; i < len(mail); {
		end := fieldEnd(mail, i)
		line := mail[i:end]
		name, _, ok := bytes.Cut(line, []byte(":"))
		if len(bytes.TrimRight(line, "\r\n")) == 0 || !ok {
			return append(out, mail[i:]...) // the header has ended
		}
		drop := false
		for _, n := range names {
			drop = drop || strings.EqualFold(strings.TrimSpace(string(name)), n)
		}
		if !drop {
			out = append(out, line...)
		}
		i = end
	}
	return out
}

// note changes what the record of a held mail says about its recipient.
func (p *program) note(c *config.Config, row quarantine.Row, change func(*pipeline.RecipientRecord)) error {
	return p.withJournal(c, func(j *journal.Journal) error { return noteHeld(p.ctx, j, row, change) })
}

func (p *program) withJournal(c *config.Config, f func(*journal.Journal) error) (err error) {
	settings := c.Journal
	settings.Path, settings.Now, settings.Log = journalPath(c), p.now, slog.New(slog.DiscardHandler)
	j, err := journal.Open(p.ctx, settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	return f(j)
}

// noteHeld changes what the record of a held mail says about its recipient, durably. A record that is gone is none.
func noteHeld(ctx context.Context, j *journal.Journal, row quarantine.Row, change func(*pipeline.RecipientRecord)) error {
	r, err := j.Recall(ctx, row.Transaction)
	if errors.Is(err, journal.ErrNoRecord) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, x := range r.Recipients {
		if x.Held != row.ID && x.Address.String() != row.Address {
			continue
		}
		change(&x)
		return j.Record(ctx, &pipeline.Record{
			Version: r.Version, ID: r.ID, Received: r.Received, Recipients: []pipeline.RecipientRecord{x},
		}, true)
	}
	return nil
}

// withQuarantine opens the held mail for a command.
func (p *program) withQuarantine(f func(*quarantine.Quarantine, *config.Config) error) (err error) {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	q, err := openQuarantine(p.ctx, settings, slog.New(slog.DiscardHandler), p.now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	return f(q, settings)
}

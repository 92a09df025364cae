package smtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// staged is mail that leaves once its copies are filed.
type staged struct {
	mailstore.Staged
	of []leaving
}

// A leaving is one mail of those that leave: of a decision's Handling, the nth.
type leaving struct{ decision, nth int }

var errNoOutbox = errors.New("there is no queue for what is to leave")

// stage runs programs and stages what is to leave. It returns once that would survive a power cut.
func (f *filing) stage() error {
	var list []mailstore.Outgoing
	var of []leaving
	for _, i := range f.firsts() {
		h := f.handling(i)
		if h == nil {
			continue
		}
		f.run(i, h)
		for n, x := range h.Leaving {
			out, err := f.outgoing(&f.decisions[i], x)
			if err != nil {
				return fmt.Errorf("what %s lets leave: %w", x.By, err)
			}
			list, of = append(list, out), append(of, leaving{i, n})
		}
	}
	if len(list) == 0 {
		return nil
	}
	if f.s.cfg.Outbox == nil {
		return errNoOutbox
	}
	ctx, cancel := f.unbroken()
	defer cancel()
	kept, err := f.s.cfg.Outbox.Stage(ctx, list)
	if err != nil {
		return fmt.Errorf("queue what is to leave: %w", err)
	}
	f.staged = &staged{kept, of}
	return nil
}

// leave stages for a door that answers each recipient: those for whom nothing is to leave do not depend on it.
func (f *filing) leave() {
	if err := f.stage(); err != nil {
		f.postponeLeaving(err)
	}
}

// release lets leave what was staged, unless the copies could not be filed.
func (f *filing) release() {
	if f.staged == nil {
		return
	}
	for _, x := range f.staged.of {
		if f.settled.Dispositions[x.decision] != pipeline.Delivered {
			f.withdraw()
			return
		}
	}
	if err := f.releaseAll(); err != nil {
		f.postponeLeaving(err)
	}
}

// postponeLeaving postpones those for whom something is to leave.
func (f *filing) postponeLeaving(err error) {
	no := f.failed(err)
	var accounts []string
	for _, i := range f.firsts() {
		if h := f.decisions[i].Handling; h != nil && len(h.Leaving) > 0 {
			accounts = append(accounts, f.decisions[i].Recipient.Account)
		}
	}
	for i, d := range f.decisions {
		if f.settled.Dispositions[i] == pipeline.Delivered && slices.Contains(accounts, d.Recipient.Account) {
			f.settled.Dispositions[i], f.settled.Replies[i] = pipeline.Postponed, no
			f.deliveries[i] = pipeline.Delivery{Note: err.Error()}
		}
	}
}

func (f *filing) releaseAll() error {
	if f.staged == nil {
		return nil
	}
	ctx, cancel := f.unbroken()
	defer cancel()
	ids := f.staged.IDs()
	if err := f.staged.Release(ctx); err != nil {
		return fmt.Errorf("let leave what is to leave: %w", err)
	}
	for k, x := range f.staged.of {
		if k < len(ids) {
			f.deliveries[x.decision].Handling.Leaving[x.nth].Queued = ids[k]
		}
	}
	return nil
}

// withdraw forgets what was staged: its sender will bring the mail again.
func (f *filing) withdraw() {
	if f.staged == nil {
		return
	}
	if err := f.staged.Withdraw(); err != nil {
		// It was never let go; the queue forgets it when it is opened again.
		f.s.cfg.Log.Warn("what was staged is not forgotten yet", "door", f.s.door, "id", f.id, "error", err)
	}
	f.staged = nil
}

// run gives the mail to the programs that the owner wants it to go to. One that fails leaves the mail in the inbox
// besides, unless its failure does not matter; then it does where no other has taken the mail, and nobody else was to.
func (f *filing) run(i int, h *pipeline.Handling) {
	taken, untaken := false, ""
	defer func() {
		if untaken != "" && !taken {
			f.keepBesides(i, h, untaken)
		}
	}()
	for n := range h.Runs {
		x := &h.Runs[n]
		err := errors.New("there are no programs")
		if f.s.cfg.Run != nil {
			ctx, cancel := f.unbroken()
			began := f.s.cfg.Now()
			err = f.s.cfg.Run(ctx, f.decisions[i].Recipient.Account, *x, f.asCame(x.Message))
			x.Took = f.s.cfg.Now().Sub(began)
			cancel()
		}
		if err == nil {
			taken = taken || x.Sole
			continue
		}
		x.Ended = err.Error()
		f.s.cfg.Log.Warn("a program that a script names has failed", "door", f.s.door, "id", f.id,
			"account", f.decisions[i].Recipient.Account, "by", x.By, "program", x.Program, "error", err)
		switch {
		case !x.Try:
			f.keepBesides(i, h, x.By)
		case x.Sole:
			untaken = x.By
		}
	}
}

// keepBesides adds the copy that there would be without any wishes, if there is none.
func (f *filing) keepBesides(i int, h *pipeline.Handling, by string) {
	for _, c := range h.Copies {
		if c.Kept {
			return
		}
	}
	d := &f.decisions[i]
	h.Copies = append(h.Copies, pipeline.Copy{By: by, Kept: true, Folder: d.Folder, Flags: d.Flags})
}

// outgoing is a mail that leaves as the queue wants it.
func (f *filing) outgoing(d *pipeline.Decision, x pipeline.Leaving) (mailstore.Outgoing, error) {
	why := string(x.Kind)
	if x.By != "" {
		why += " by " + x.By
	}
	out := mailstore.Outgoing{
		ID: f.id, Account: d.Recipient.Account, Why: why, Sender: x.Sender, Return: strings.ToLower(x.Return),
	}
	for _, to := range x.To {
		r := mailstore.OutgoingRecipient{Address: to}
		if x.Notify != "" {
			r.Notify = strings.Split(strings.ToLower(x.Notify), ",")
		}
		out.Recipients = append(out.Recipients, r)
		out.UTF8 = out.UTF8 || !ascii(to)
	}
	if x.Content != nil {
		out.Content = bytes.NewReader(x.Content)
		header, _, _ := bytes.Cut(x.Content, []byte("\r\n\r\n"))
		out.UTF8 = out.UTF8 || !ascii(string(header)) || !ascii(x.Sender)
		out.EightBit = !ascii(string(x.Content))
		return out, nil
	}
	out.Forwarded, out.Results = true, f.results()
	out.UTF8 = out.UTF8 || f.tx.wants.UTF8
	eight, err := eightBit(f.asCame(x.Message))
	if err != nil {
		return out, err
	}
	out.EightBit = eight
	var head bytes.Buffer
	head.Write(f.trace())
	for _, e := range x.Fields {
		head.Write(added(e))
	}
	m := f.stored
	if x.Message != nil {
		m = x.Message
	}
	section, body, err := split(m)
	if err != nil {
		return out, err
	}
	section = strip(section, func(name string, _ int) bool {
		return name == "return-path" || name == strings.ToLower(pipeline.IDField)
	})
	head.Write(safeStart(section, m))
	out.Content = io.MultiReader(&head, body)
	return out, nil
}

// asCame is the mail for those who get it as it came, or as it was changed for them.
func (f *filing) asCame(changed *mime.Message) io.Reader {
	if changed != nil {
		return changed.Raw()
	}
	return f.stored.Raw()
}

// split returns the header section of a message and a reader of the rest.
func split(m *mime.Message) (section []byte, rest io.Reader, err error) {
	raw := m.Raw()
	section = make([]byte, m.Header().Len())
	if _, err := io.ReadFull(raw, section); err != nil {
		return nil, nil, fmt.Errorf("read the header: %w", err)
	}
	return section, raw, nil
}

// eightBit reports whether there is an octet over 127 in a message.
func eightBit(r io.Reader) (bool, error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		for _, c := range buf[:n] {
			if c >= 0x80 {
				return true, nil
			}
		}
		switch {
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, fmt.Errorf("read the message: %w", err)
		}
	}
}

// unbroken is a context for what must not stop half-way because the connection has ended.
func (f *filing) unbroken() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(f.moment), filingTime)
}

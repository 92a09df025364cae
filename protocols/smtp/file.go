package smtp

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"sluice/mailstore"
	"sluice/pipeline"
)

// What a decision promises is made good in this order: what is to leave is staged, copies are filed, what is staged is
// released. If a copy cannot be filed nothing has left; if nothing can be released the copies may be filed once more when
// the sender comes again, for that is the lesser evil.

// carryOut does all of that for a door that answers once.
func (f *filing) carryOut() error {
	if err := f.stage(); err != nil {
		return err
	}
	if err := f.deliver(); err != nil {
		f.withdraw()
		return err
	}
	return f.releaseAll()
}

// A copied is one copy of the mail for an account, as an item of the store.
type copied struct {
	decision int
	nth      int // of its Handling's copies; -1: the one copy there is without one; -2: a notice
}

const (
	onlyCopy = -1
	notice   = -2
)

// first returns the decision that says what an account gets: where several addresses lead to one it is the first that
// delivers. -1 if none does.
func (f *filing) first(account string) int {
	for i, d := range f.decisions {
		if f.settled.Dispositions[i] == pipeline.Delivered && d.Recipient.Account == account {
			return i
		}
	}
	return -1
}

// firsts are the decisions that say what each account gets.
func (f *filing) firsts() (all []int) {
	for i, d := range f.decisions {
		if f.settled.Dispositions[i] == pipeline.Delivered && f.first(d.Recipient.Account) == i {
			all = append(all, i)
		}
	}
	return all
}

// deliver files the mail for those who get it, the copies of each account as the first of its addresses says. It returns
// once that would survive a power cut.
func (f *filing) deliver() error {
	var items []mailstore.Item
	var of []copied
	add := func(c copied, x mailstore.Item) {
		x.Account, x.ID, x.Date = f.decisions[c.decision].Recipient.Account, f.id, f.received
		items, of = append(items, x), append(of, c)
	}
	for i := range f.decisions {
		d := &f.decisions[i]
		if f.noticed(i) {
			add(copied{i, notice}, mailstore.Item{Content: f.notice(d)})
		}
		if f.settled.Dispositions[i] != pipeline.Delivered {
			f.deliveries[i].Disposition = f.settled.Dispositions[i]
		}
	}
	for _, i := range f.firsts() {
		d := &f.decisions[i]
		h := f.handling(i)
		if h == nil {
			add(copied{i, onlyCopy}, mailstore.Item{Folder: d.Folder, Flags: d.Flags, Wish: true, Content: f.content(d)})
			continue
		}
		for n, c := range h.Copies {
			add(copied{i, n}, mailstore.Item{
				Folder: c.Folder, Flags: c.Flags, Existing: c.Existing, Use: c.Use, Wish: true, Content: f.copyOf(d, c),
			})
		}
	}
	if len(items) > 0 {
		ctx, cancel := f.unbroken()
		defer cancel()
		placed, err := f.s.cfg.Store.Deliver(ctx, items)
		if err != nil {
			return fmt.Errorf("deliver: %w", err)
		}
		if len(placed) != len(items) {
			return fmt.Errorf("deliver: %d of %d copies were placed", len(placed), len(items))
		}
		for n, c := range of {
			f.placed(c, placed[n])
		}
	}
	for i, d := range f.decisions {
		if f.settled.Dispositions[i] != pipeline.Delivered {
			continue
		}
		if n := f.first(d.Recipient.Account); n != i {
			f.deliveries[i] = f.deliveries[n]
		}
		f.deliveries[i].Disposition = pipeline.Delivered
	}
	return nil
}

// noticed reports whether a decision's recipient gets a notice in place of the mail: their own script refuses it, and whoever
// sent it is not told.
func (f *filing) noticed(i int) bool {
	d := &f.decisions[i]
	return f.settled.Dispositions[i] == pipeline.Held && d.Own && d.Verdict.Action == pipeline.Reject && d.Verdict.At >= 0
}

// placed notes where a copy went.
func (f *filing) placed(c copied, where mailstore.Placed) {
	d := &f.deliveries[c.decision]
	switch c.nth {
	case notice:
		d.Note = "a notice of it is in the inbox: " + where.File
		return
	case onlyCopy:
		d.Folder, d.File, d.Removed = where.Folder, where.File, f.removed(&f.decisions[c.decision])
		return
	}
	x := &d.Handling.Copies[c.nth]
	if x.Folder != "" && where.Folder == mailstore.Inbox && !isInbox(x.Folder) {
		x.Note = fmt.Sprintf("there is no folder %s: it is in the inbox", x.Folder)
	}
	x.Folder, x.File = where.Folder, where.File
	if c.nth == 0 {
		d.Folder, d.File = where.Folder, where.File
	}
	if x.Content == nil && x.Message == nil && d.Removed == nil {
		d.Removed = f.removed(&f.decisions[c.decision])
	}
}

func isInbox(folder string) bool { return bytes.EqualFold([]byte(folder), []byte(mailstore.Inbox)) }

// handling is what is carried out of the wishes of a decision's recipient, for the record; nil: there are none.
func (f *filing) handling(i int) *pipeline.Handling {
	d := &f.deliveries[i]
	if h := f.decisions[i].Handling; h != nil && d.Handling == nil {
		own := *h
		own.Copies, own.Leaving, own.Runs = slices.Clone(h.Copies), slices.Clone(h.Leaving), slices.Clone(h.Runs)
		d.Handling = &own
	}
	return d.Handling
}

// copyOf is the text of a copy.
func (f *filing) copyOf(d *pipeline.Decision, c pipeline.Copy) io.Reader {
	switch {
	case c.Content != nil:
		return bytes.NewReader(c.Content)
	case c.Message != nil:
		return f.contentOf(d, c.Message)
	}
	return f.content(d)
}

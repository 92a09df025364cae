package program

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"sluice/mailstore/journal"
	"sluice/mailstore/maildir"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/rules/replay"
)

// unrecorded makes a case of each mail in a mailbox that no record is of: mail that came before there was a journal, or
// that its owner brought along.
func (b *backtest) unrecorded(ctx context.Context, m mailboxName, yield func(*replay.Case, []string) bool) error {
	lying, err := b.lying(ctx, m)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		b.note(err)
	}
	slices.SortFunc(lying, func(x, y maildir.Seen) int {
		return cmp.Or(strings.Compare(x.Folder, y.Folder), strings.Compare(x.Name, y.Name))
	})
	for _, s := range lying {
		came, ok := b.inTime(s)
		if !ok {
			continue // moved meanwhile, or of another time
		}
		if s.ID != "" {
			_, err := b.plans.journal.Recall(ctx, s.ID)
			if err == nil {
				continue
			}
			if !errors.Is(err, journal.ErrNoRecord) {
				continue // there is one, which has been noted
			}
		}
		c, err := b.bareCase(m.account, s, came)
		if err != nil {
			return err
		}
		if !yield(c, []string{s.Path()}) {
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// lying is the mail that lies in a mailbox.
func (b *backtest) lying(ctx context.Context, m mailboxName) (all []maildir.Seen, err error) {
	_, err = b.where.store.Look(ctx, m.account, time.Time{}, func(s maildir.Seen) error {
		switch {
		case m.folder != "" && !strings.EqualFold(m.folder, s.Folder):
		case m.folder == "" && isOwn(s.Folder):
		default:
			all = append(all, s)
		}
		return nil
	})
	return all, err
}

// inTime says when a mail came, and whether that is in the time that is looked at.
func (b *backtest) inTime(s maildir.Seen) (came time.Time, ok bool) {
	info, err := os.Stat(s.Path())
	if err != nil {
		return came, false
	}
	came = info.ModTime()
	return came, !came.Before(b.times.since) && came.Before(b.times.until)
}

// isOwn reports whether a folder is for what its owner writes.
func isOwn(name string) bool {
	return containsFold([]string{"Sent", "Sent Items", "Sent Messages", "Drafts", "Templates", "Outbox"}, path.Base(name))
}

// bareCase is the case of a mail without a record, before the mail is read. What its owner has done with it can be told
// from flags and from Junk only: nobody knows where it was filed.
func (b *backtest) bareCase(account string, s maildir.Seen, received time.Time) (*replay.Case, error) {
	address, err := mime.ParseAddress(account)
	if err != nil {
		return nil, err
	}
	x := pipeline.RecipientRecord{
		Recipient:   pipeline.Recipient{Address: address, Account: account},
		Disposition: pipeline.Delivered, Folder: s.Folder, File: s.File,
	}
	l := b.where.judge(&x, s, []string{s.Folder})
	return &replay.Case{
		Bare:   true,
		Record: &pipeline.Record{Version: pipeline.RecordVersion, Received: received, Door: pipeline.SMTP, Recipients: []pipeline.RecipientRecord{x}},
		Copies: []replay.Copy{{Label: replay.Label(l.Label), Why: l.Why}},
	}, nil
}

// fetchBare reads the mail of a case without a record. The sender is the one whom the last delivery has noted, or the one
// that the mail itself names.
func (b *backtest) fetchBare(job *backtestJob) {
	text, err := os.ReadFile(job.paths[0])
	if err != nil {
		job.c.Gone = "it cannot be read"
		if errors.Is(err, fs.ErrNotExist) {
			job.c.Gone = "it lies nowhere any more"
		}
		return
	}
	text = crlf(text)
	m, err := mime.Parse(bytes.NewReader(text), int64(len(text)), b.plans.settings.Limits.MIME())
	if err != nil {
		job.c.Gone = "it cannot be read"
		return
	}
	job.c.Message = m
	r := job.c.Record
	r.MessageID, r.Subject, r.Size = m.MessageID(), pipeline.CleanSubject(m.Subject()), m.Size()
	if f, ok := m.Header().First("Return-Path"); ok {
		if a, err := mime.ParseAddress(strings.Trim(strings.TrimSpace(f.Value()), "<>")); err == nil {
			r.Sender = a
		}
	} else if authors := m.From(); len(authors) > 0 {
		r.Sender = authors[0]
	}
}

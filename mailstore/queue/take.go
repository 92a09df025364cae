package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sluice/mailstore"
)

// Take implements mailstore.Queue. admit must not call the queue.
func (q *Queue) Take(ctx context.Context, n int, admit func(domain string) bool) (given []mailstore.Job, next time.Time, err error) {
	now := micro(q.c.Now())
	if err := q.checkClock(ctx, now); err != nil {
		return nil, time.Time{}, fmt.Errorf("queue: %w", err)
	}
	q.mu.Lock()
	taken, due := q.schedule.take(now, n, admit)
	for _, j := range taken {
		j.out = &mailstore.Job{} // so that nobody deletes it meanwhile
	}
	q.mu.Unlock()
	for i, j := range taken {
		out, rest, told, since, err := q.readJob(ctx, j, now)
		if err != nil {
			q.giveBack(taken[i:])
			return given, fromMicro(due), fmt.Errorf("take %s from the queue: %w", j.m.id, err)
		}
		q.mu.Lock()
		j.out, j.due, j.told, j.since = &out, rest, told, since
		if len(out.Recipients) == 0 { // they were deleted, or told to wait, a moment ago
			switch j.out = nil; {
			case rest == 0:
				j.m.jobs = slices.DeleteFunc(j.m.jobs, func(x *job) bool { return x == j })
			case !j.m.held:
				q.schedule.add(j)
			}
			q.mu.Unlock()
			continue
		}
		q.mu.Unlock()
		given = append(given, out)
	}
	return given, fromMicro(due), nil
}

func (q *Queue) giveBack(taken []*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range taken {
		j.out = nil
		if !j.m.held && q.alive[j.m.id] == j.m {
			q.schedule.add(j)
		}
	}
}

// readJob reads the recipients of a job that are due, and when the earliest of the others is.
func (q *Queue) readJob(ctx context.Context, j *job, now int64) (out mailstore.Job, rest int64, told map[int]int64, since int64, err error) {
	m, err := scanMessage(q.often.message.QueryRowContext(ctx, j.m.id))
	if err != nil {
		return out, 0, nil, 0, q.db.Explain(err)
	}
	all, err := scanRecipients(q.often.waiting.QueryContext(ctx, j.m.id, j.domain))
	if err != nil {
		return out, 0, nil, 0, q.db.Explain(err)
	}
	out = mailstore.Job{
		Message: m.ID, Domain: j.domain, ID: m.Transaction, Account: m.Account, Why: m.Why, Sender: m.Sender,
		EnvelopeID: m.EnvelopeID, Return: m.Return, UTF8: m.UTF8, EightBit: m.EightBit, Forwarded: m.Forwarded, Size: m.Size, Queued: m.Queued,
	}
	for _, r := range all {
		if due := micro(r.Due); due > now {
			if rest == 0 || due < rest {
				rest = due
			}
			continue
		}
		out.Recipients = append(out.Recipients, mailstore.JobRecipient{
			Number: r.Number, OutgoingRecipient: r.OutgoingRecipient, Attempts: r.Attempts,
		})
		if !r.Delayed.IsZero() {
			if told == nil {
				told = map[int]int64{}
			}
			told[r.Number] = micro(r.Delayed)
		}
	}
	return out, rest, told, micro(m.since), nil
}

// Content implements mailstore.Queue.
func (q *Queue) Content(_ context.Context, id string) (mailstore.Content, error) {
	q.mu.Lock()
	m := q.alive[id]
	q.mu.Unlock()
	if m == nil {
		return nil, fmt.Errorf("%q: %w: %w", id, mailstore.ErrNoMessage, ErrNotQueued)
	}
	return q.Open(Message{ID: id, start: m.start, Size: m.size})
}

func (r *Reader) path(id string) string { return filepath.Join(mailDir(r.dir), id) }

// Open opens the content of a message that is alive. Errors: mailstore.ErrNoMessage.
func (r *Reader) Open(m Message) (mailstore.Content, error) {
	f, err := os.Open(r.path(m.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", r.path(m.ID), mailstore.ErrNoMessage)
	}
	if err != nil {
		return nil, err
	}
	return content{io.NewSectionReader(f, m.start, m.Size), f}, nil
}

// content is a file without our line above it.
type content struct {
	*io.SectionReader
	f *os.File
}

func (c content) Close() error { return c.f.Close() }

package queue

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/state/database"
)

// What mail of our own is called.
const (
	whyReport = "delivery report"
	whyDouble = "delivery report to double_bounces"
)

const (
	// reportAgain is how long to wait after a report could not be filed.
	reportAgain = time.Minute
	// collect is how long a report waits for the rest of its mail's recipients that are being tried: hundreds that fail one
	// after the other are one report, not hundreds.
	collect      = 2 * time.Minute
	collectAgain = time.Second
	// mostErrors is how many of what goes wrong with reports the log says.
	mostErrors = 5
)

// fileOwing files the reports that are owed, until the queue is closed.
func (q *Queue) fileOwing() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	q.writers.Go(func() { // ends with Close
		<-q.stop
		cancel()
	})
	var again <-chan time.Time
	for {
		select {
		case <-q.owing:
		case <-again:
		case <-q.stop:
			return
		}
		again = nil
		later, err := q.fileReports(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			q.c.Log.ErrorContext(ctx, "a report about mail that was not delivered could not be filed yet", "err", err)
			again = time.After(reportAgain)
		case later:
			again = time.After(collectAgain)
		}
	}
}

// fileReports files the reports that are owed now. later says that some wait for more of their mail's recipients.
func (q *Queue) fileReports(ctx context.Context) (later bool, _ error) {
	q.filing.Lock() // two at once would both see what is owed
	defer q.filing.Unlock()
	ids, err := database.Words(q.db.QueryContext(ctx, selectOwing)) //nolint:rowserrcheck // Words checks
	if err != nil {
		return false, q.db.Explain(err)
	}
	var errs []error
	for _, id := range ids {
		m, err := q.Show(ctx, id)
		if err == nil && q.trying(m) {
			later = true
			continue
		}
		if err == nil {
			err = q.fileReportsOf(ctx, m)
		}
		if err != nil && len(errs) < mostErrors {
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
		}
	}
	return later, errors.Join(errs...)
}

// trying reports whether others of a mail's recipients are being tried, or about to be, and what is owed can wait for them.
func (q *Queue) trying(m Message) bool {
	now := q.c.Now()
	for _, r := range m.Recipients {
		if r.owed != "" && now.Sub(r.Tried) >= collect {
			return false
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	x := q.alive[m.ID]
	return x != nil && slices.ContainsFunc(x.jobs, func(j *job) bool { return j.out != nil || !x.held && j.due <= micro(now) })
}

// fileReportsOf files a report of each kind that is owed about a message.
func (q *Queue) fileReportsOf(ctx context.Context, m Message) error {
	for _, kind := range []string{"failure", "delay", "success"} {
		var about []Recipient
		for _, r := range m.Recipients {
			if r.owed == kind {
				about = append(about, r)
			}
		}
		if len(about) == 0 {
			continue
		}
		to, why, err := q.reportTo(ctx, m)
		if err != nil {
			return err
		}
		var s *staged
		if to == "" {
			q.c.Log.WarnContext(ctx, "a report is not sent: the sender is not one of ours", "queued", m.ID, "id", m.Transaction,
				"sender", m.Sender, "report", kind, "why", m.Why)
		} else if s, err = q.compose(ctx, m, kind, about, to, why); err != nil {
			return err
		}
		if err := q.file(ctx, m.ID, kind, about, s); err != nil {
			return err
		}
	}
	return nil
}

// reportTo says who is told: a sender of ours; for mail that somebody's script has handed on its owner, not the stranger
// who wrote it, also where that is nobody; for other mail without a sender whoever double_bounces names. "" is nobody.
func (q *Queue) reportTo(ctx context.Context, m Message) (to, why string, err error) {
	switch {
	case m.Forwarded && m.Account != "":
		return m.Account, whyReport, nil
	case m.Sender == "":
		return q.c.DoubleBounces, whyDouble, nil
	case m.Forwarded:
		return "", "", nil
	case q.c.Local == nil:
		return "", "", nil
	}
	local, err := q.c.Local(ctx, m.Sender)
	if err != nil || !local {
		return "", "", err
	}
	return m.Sender, whyReport, nil
}

// compose stages a report.
func (q *Queue) compose(ctx context.Context, m Message, kind string, about []Recipient, to, why string) (*staged, error) {
	now := q.c.Now()
	r := Report{
		Kind: kind, Message: m, Recipients: about, To: to, Hostname: q.c.Hostname, Date: now, Until: m.since.Add(q.c.Age),
		ID: newID(),
	}
	if err := q.readOriginal(&r); err != nil {
		return nil, err
	}
	mail := r.Compose()
	if q.c.Sign != nil {
		mail = q.c.Sign(mail)
	}
	return q.stage(ctx, []mailstore.Outgoing{{
		ID: m.Transaction, Why: why, UTF8: r.utf8(), EightBit: !isASCII(mail), Content: bytes.NewReader(mail),
		Recipients: []mailstore.OutgoingRecipient{{Address: to, Notify: []string{"never"}}},
	}}, false)
}

// largestReturned is how many octets of a mail go to the owner whose script has handed it on, where nobody takes it.
const largestReturned = 32 << 20

// readOriginal reads as much of the message as a report brings back. One that is gone brings nothing.
func (q *Queue) readOriginal(r *Report) error {
	content, err := q.Open(r.Message)
	if errors.Is(err, mailstore.ErrNoMessage) {
		return nil
	}
	if err != nil {
		return err
	}
	defer content.Close() // it was only read
	most := int64(longestHeader)
	r.Full = r.Kind == "failure" && r.Message.Return != "hdrs" && r.Message.Size <= q.c.ReportSize
	if r.Kind == "failure" && r.toOwner() { // whoever sent it has it still; the owner has nothing else of it
		r.Full = r.Message.Size <= max(largestReturned, q.c.ReportSize)
	}
	if r.Full {
		most = r.Message.Size
	}
	r.Original, err = io.ReadAll(io.LimitReader(content, most))
	if !r.Full {
		r.Original = header(r.Original)
	}
	return err
}

// file enters a report, if there is one, and writes that it is owed no more.
func (q *Queue) file(ctx context.Context, id, kind string, about []Recipient, s *staged) error {
	ended := false
	err := q.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if s != nil {
			if err := s.insert(ctx, tx); err != nil {
				return err
			}
		}
		for _, r := range about {
			if _, err := tx.ExecContext(ctx, clearOwed, id, r.Number, kind); err != nil {
				return err
			}
		}
		done, err := tx.ExecContext(ctx, setEnded, id, micro(q.c.Now()))
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		ended = n > 0
		return err
	})
	if err != nil {
		if s != nil {
			err = errors.Join(err, s.drop())
		}
		return err
	}
	if s != nil {
		s.enter()
		q.mu.Lock()
		q.stats.Reports++
		q.mu.Unlock()
	}
	if ended {
		q.forget(id)
	}
	return nil
}

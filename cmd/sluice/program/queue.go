package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/queue"
	"sluice/pipeline/mime"
	"sluice/protocols/admin"
	"sluice/protocols/relay"
)

// openQueue opens the mail that is to leave. Its files are this process's alone: the caller owns the data folder. sign signs
// its reports; nil: nobody does.
func openQueue(ctx context.Context, c *config.Config, ours func(context.Context, string) (bool, error), log *slog.Logger,
	now func() time.Time, sign func(mail []byte) []byte,
) (*queue.Queue, error) {
	waiting := c.Queue
	waiting.Sign = sign
	waiting.Dir, waiting.Log, waiting.Now, waiting.Hostname, waiting.Local = queueFolder(c.Data), log, now, c.Hostname, ours
	return queue.Open(ctx, waiting)
}

func queueFolder(data string) string { return filepath.Join(data, "queue") }

// isOurs returns what reports whether mail to an address comes to an account of ours.
func isOurs(users mailstore.Directory) func(ctx context.Context, address string) (bool, error) {
	return func(ctx context.Context, address string) (bool, error) {
		a, err := mime.ParseAddress(address)
		if err != nil {
			return false, nil //nolint:nilerr // what is no address is none of ours
		}
		_, err = users.Resolve(ctx, a.Mailbox(), a.Domain)
		switch {
		case errors.Is(err, mailstore.ErrForeign), errors.Is(err, mailstore.ErrNoAccount), errors.Is(err, mailstore.ErrName):
			return false, nil
		}
		return err == nil, err
	}
}

// prepareRelay makes what brings mail from the queue to where it goes, by the settings of a setup.
func (s *service) prepareRelay(x *setup) error {
	local := localTransport{settings: func() *config.Config { return s.now.Load().config }}
	made, warnings, err := s.newRelay(x, s.failures, local)
	if err != nil {
		if wrong := relayProblems(x.config); len(wrong) > 0 {
			return wrong
		}
		return err
	}
	x.relay = made
	x.warnings = append(x.warnings, warnings...)
	return nil
}

// tidyQueue forgets mail that has left long ago.
func (h *house) tidyQueue(ctx context.Context, log *slog.Logger) {
	n, err := h.queue.Prune(ctx)
	if n > 0 {
		log.Info("mail that has left is forgotten", "messages", n)
	}
	if err != nil && ctx.Err() == nil {
		log.Error("mail that has left was not forgotten", "err", err)
	}
}

// countQueue lets the metrics count mail that is to leave.
func (h *house) countQueue() func() admin.Queue {
	waiting := h.queue
	return func() admin.Queue {
		s := waiting.Stats()
		a := admin.Queue{Messages: s.Messages, Held: s.Held, Octets: s.Octets, Queued: s.Queued, Reports: s.Reports, Results: map[string]uint64{
			queue.Delivered: s.Delivered, queue.Relayed: s.Relayed, queue.Passed: s.Passed, "postponed": s.Postponed,
			queue.Failed: s.Failed, queue.Expired: s.Expired, queue.Deleted: s.Deleted,
		}}
		if !s.Oldest.IsZero() {
			a.Age = waiting.Now().Sub(s.Oldest)
		}
		return a
	}
}

// A localTransport brings mail that is for accounts of ours through our own pipeline, by the way that `sluice deliver`
// takes: what was decided about it is in a record, and what goes in circles has one Received field more each time.
type localTransport struct {
	settings func() *config.Config
}

// Deliver implements relay.Transport.
func (l localTransport) Deliver(ctx context.Context, job mailstore.Job, content mailstore.Content) []mailstore.AttemptResult {
	all := func(outcome mailstore.AttemptOutcome, status, reply string) (results []mailstore.AttemptResult) {
		for _, r := range job.Recipients {
			results = append(results, mailstore.AttemptResult{Recipient: r.Number, Outcome: outcome, Status: status, Reply: reply})
		}
		return results
	}
	results, err := l.deliver(ctx, job, content)
	switch {
	case err != nil && ctx.Err() != nil:
		return all(mailstore.Untried, "", "")
	case err != nil: // nothing is known to have arrived
		return all(mailstore.Postponed, "4.3.2", err.Error())
	}
	return results
}

func (l localTransport) deliver(ctx context.Context, job mailstore.Job, content mailstore.Content) ([]mailstore.AttemptResult, error) {
	c := l.settings()
	d, err := dialDeliver(ctx, c)
	if err != nil {
		return nil, err
	}
	defer d.close()
	results := make([]mailstore.AttemptResult, len(job.Recipients))
	for i, r := range job.Recipients {
		results[i] = mailstore.AttemptResult{Recipient: r.Number, How: "local"}
	}
	line := "MAIL FROM:<" + job.Sender + "> SIZE=" + strconv.FormatInt(job.Size, 10)
	if job.UTF8 {
		line += " SMTPUTF8"
	}
	if job.EightBit {
		line += " BODY=8BITMIME"
	}
	// Reports are the queue's to make; what was asked for goes with the mail to whoever a script or a release hands it on to.
	a, err := d.ask(line + relay.MailParameters(job.Return, job.EnvelopeID))
	if err != nil {
		return nil, err
	}
	if a.code >= 400 {
		for i := range results {
			answered(&results[i], a, c.Hostname)
		}
		return results, nil
	}
	var taken []int
	for i, r := range job.Recipients {
		if a, err = d.ask("RCPT TO:<" + r.Address + ">" + relay.RecipientParameters(r.OutgoingRecipient)); err != nil {
			return nil, err
		}
		switch {
		case a.code < 400:
			taken = append(taken, i)
		case len(taken) > 0 && strings.HasPrefix(a.text, "4.5.3 "): // too many at once: with the next, which is at once
			results[i].Outcome = mailstore.Untried
		default:
			answered(&results[i], a, c.Hostname)
		}
	}
	if len(taken) == 0 {
		_, _ = d.ask("QUIT") // all is said
		return results, nil
	}
	if a, err = d.ask("DATA"); err != nil {
		return nil, err
	}
	if a.code != 354 {
		for _, i := range taken {
			answered(&results[i], a, c.Hostname)
		}
		return results, nil
	}
	if err := d.data(content); err != nil {
		return nil, err
	}
	for _, i := range taken {
		if a, err = d.reply(); err != nil { // those before have got it
			results[i].Outcome, results[i].Status, results[i].Reply = mailstore.Postponed, "4.3.2", err.Error()
			continue
		}
		answered(&results[i], a, c.Hostname)
	}
	_, _ = d.ask("QUIT") // all is said
	return results, nil
}

// answered fills in what an answer of our own server comes to.
func answered(x *mailstore.AttemptResult, a answer, hostname string) {
	x.Host, x.Reply = hostname, fmt.Sprintf("%d %s", a.code, a.text)
	if status, _, ok := strings.Cut(a.text, " "); ok && len(status) >= 5 && status[1] == '.' {
		x.Status = status
	}
	switch a.code / 100 {
	case 2:
		x.Outcome = mailstore.Delivered
	case 5:
		x.Outcome = mailstore.Failed
	default:
		x.Outcome = mailstore.Postponed
	}
}

package relay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"sluice/mailstore"
)

// A delivery is one attempt to bring a job to where it goes.
type delivery struct {
	r   *Relay
	d   *destination
	job mailstore.Job

	left    []mailstore.JobRecipient // of whom nothing is known yet
	results []mailstore.AttemptResult
	session *session // the last one that said something about the mail

	tried   int      // addresses
	pooled  bool     // a connection from before was tried
	last    *failure // of the servers that were tried
	never   bool     // all of them for good
	missed  *server  // that could not be connected to
	aborted bool
}

// deliver tries the servers of the destination one after the other until one of them has said something about every
// recipient. again says that the job is to wait for a connection, and that nothing is to be settled.
func (x *delivery) deliver(ctx context.Context) (again bool) {
	content, err := x.r.o.Queue.Content(ctx, x.job.Message)
	if err != nil {
		no := unasked("", "4.3.0", fmt.Errorf("the message cannot be read: %w", err))
		if errors.Is(err, mailstore.ErrNoMessage) {
			no = never("5.3.0", "the message is gone from the queue")
		}
		x.rest(no)
		return false
	}
	defer content.Close() // it was read only
	if x.d.way.kind == "local" {
		x.results, x.left = x.r.o.Local.Deliver(ctx, x.job, content), nil
		return false
	}
	m := &mail{
		sender: x.job.Sender, envelopeID: x.job.EnvelopeID, ret: x.job.Return, utf8: x.job.UTF8, eightBit: x.job.EightBit,
		size: content.Size(), content: content,
	}
	next, stop := iter.Pull2(x.r.finder.servers(ctx, x.d.way, x.job.Domain))
	defer stop()
	x.never = true
	for len(x.left) > 0 {
		s := x.connect(ctx, next)
		if s == nil {
			break
		}
		if x.send(ctx, s, m) {
			x.r.works(x.d)
		}
		x.r.keep(x.d, s)
	}
	if len(x.left) == 0 {
		return false
	}
	if ctx.Err() != nil { // we were told to stop: that says nothing about anybody
		x.aborted = true
		return false
	}
	no := x.last
	if no == nil {
		no = unasked("", "4.4.1", errors.New("there is no server to be tried"))
		x.never = false
	}
	if no.permanent = x.never && no.permanent; !no.permanent && len(x.results) == 0 && x.r.fails(x.d, no) {
		return true
	}
	x.rest(no)
	return false
}

// connect returns a session with the next server that can be talked to; nil if there is none.
func (x *delivery) connect(ctx context.Context, next func() (*server, *failure, bool)) *session {
	if !x.pooled {
		if s := x.r.take(x.d, nil); s != nil {
			x.pooled = true
			return s
		}
	}
	for ctx.Err() == nil && x.tried < x.r.o.Hosts {
		to, no, ok := next()
		if !ok {
			return nil
		}
		if no != nil {
			x.note(no, false)
			continue
		}
		x.tried++
		s, no := x.r.open(ctx, x.d, to)
		if no == nil {
			if x.missed != nil && x.missed.host == to.host {
				x.r.finder.families.learn(x.missed.address, to.address, x.r.o.Now())
			}
			return s
		}
		if no.at == "connect" {
			x.missed = to
		}
		x.note(no, to.fixed)
	}
	return nil
}

// note keeps why a server was no use. What one that the configuration names says for good is ours to mend.
func (x *delivery) note(no *failure, fixed bool) {
	if fixed {
		no.permanent = false
	}
	x.never = x.never && no.permanent
	if x.last == nil || x.last.permanent || !no.permanent {
		x.last = no
	}
}

// send brings the mail to as many recipients as the session lets it. It reports whether the server has said something about
// the mail.
func (x *delivery) send(ctx context.Context, s *session, m *mail) (heard bool) {
	for len(x.left) > 0 && !s.over {
		m.recipients = x.left[:min(len(x.left), x.r.o.Recipients)]
		fates := s.send(ctx, m)
		rest := x.left[len(m.recipients):]
		var again []mailstore.JobRecipient
		progress := false
		for i, f := range fates {
			if f.no != nil && s.server.fixed && f.no.at == "MAIL" && slices.Contains([]int{530, 534, 535, 538}, f.no.reply.code) {
				f.no.permanent, f.no.mail, f.open = false, false, true // it does not know us: no mail is the worse for that
				s.over = true
			}
			switch {
			case f.open:
				x.note(f.no, s.server.fixed)
				again = append(again, m.recipients[i])
			case f.later:
				again = append(again, m.recipients[i])
			default:
				progress = true
				x.results = append(x.results, x.result(s, m.recipients[i], f))
			}
		}
		x.left = append(again, rest...)
		if progress {
			heard, x.session = true, s
		} else {
			s.over = true
		}
	}
	return heard
}

// result says what became of a recipient.
func (x *delivery) result(s *session, to mailstore.JobRecipient, f fate) mailstore.AttemptResult {
	y := mailstore.AttemptResult{Recipient: to.Number, Host: s.server.String(), How: s.how()}
	switch {
	case f.no != nil:
		y.Outcome, y.Reply, y.Status = f.no.outcome(), f.no.text(), f.no.code()
		return y
	case s.server.lmtp:
		y.Outcome = mailstore.Delivered
	case f.told:
		y.Outcome = mailstore.Passed
	default:
		y.Outcome = mailstore.Relayed
	}
	if y.Reply, y.Status = f.reply.String(), f.reply.status(); y.Status == "" {
		y.Status = "2.0.0"
	}
	return y
}

// rest says of all who are left why they have no mail.
func (x *delivery) rest(no *failure) {
	for _, to := range x.left {
		y := mailstore.AttemptResult{Recipient: to.Number, Outcome: no.outcome(), Reply: no.text(), Status: no.code()}
		if no.server != nil {
			y.Host = no.server.String()
		}
		x.results = append(x.results, y)
	}
	x.left = nil
}

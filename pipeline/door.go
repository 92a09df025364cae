package pipeline

import "slices"

// A Door is a way in for mail. It bounds what a verdict can become.
type Door string

const (
	SMTP    Door = "smtp"    // we hold the client: a refusal reaches whoever sent the mail
	LMTP    Door = "lmtp"    // somebody's queue stands before us: a refusal would become a bounce
	Deliver Door = "deliver" // like LMTP
	Milter  Door = "milter"  // an MTA holds the client and asks us
	// Submission: one of our own users holds the mail, and what we take goes into our queue.
	Submission Door = "submission"
)

// A Disposition is what becomes of the mail for one recipient at a door.
type Disposition string

const (
	Delivered   Disposition = "delivered"   // filed, or at the milter left to the MTA
	Dropped     Disposition = "discarded"   //
	Held        Disposition = "quarantined" // where mail comes in by submission: in the queue, until somebody lets it go
	Queued      Disposition = "queued"      // in our queue, from where it leaves
	Refused     Disposition = "refused"     // for good; the sender keeps it
	Postponed   Disposition = "postponed"   // for now; the sender keeps it
	Repeated    Disposition = "repeated"    // nothing: an earlier attempt at the same delivery has served this recipient
	NotFinished Disposition = ""            // the transaction ended before
)

// taken reports whether the sender need not keep the mail.
func (d Disposition) taken() bool {
	return d == Delivered || d == Dropped || d == Held || d == Repeated || d == Queued
}

// A Settlement is what a door answers and does, worked out from the decisions about all recipients of a message.
type Settlement struct {
	Reply        Reply         // for a door that answers once; Code 250 accepts
	Dispositions []Disposition // by recipient, in the order of the decisions
	Replies      []Reply       // by recipient, for a door that answers each
}

// Settle says what door d makes of the decisions about the recipients of one message. refuse is for an LMTP peer that
// still holds its client, so that a refusal does not become a bounce.
//
// At a door that answers once, one postponed recipient postpones the message for all, and then nothing is delivered and
// nothing held. Mail that some recipients refuse and others take is accepted: those that refuse get it held, so nobody
// is bounced to and nobody finds in the inbox what their policy refused. At Submission one refusal refuses the message
// for all: who wrote it is there to hear it, and would not hear that some got it.
func (d Door) Settle(decisions []Decision, refuse bool) Settlement {
	s := Settlement{
		Reply:        Reply{Code: 250, Enhanced: "2.0.0", Text: "accepted"},
		Dispositions: make([]Disposition, len(decisions)),
		Replies:      make([]Reply, len(decisions)),
	}
	for i, x := range decisions {
		s.Replies[i] = s.Reply
		switch x.Verdict.Action {
		case Discard:
			s.Dispositions[i] = Dropped
		case Quarantine:
			s.Dispositions[i] = Held
		case TempFail:
			s.Dispositions[i], s.Replies[i] = Postponed, x.Verdict.Reply
		case Reject:
			s.Dispositions[i], s.Replies[i] = Refused, x.Verdict.Reply
		default:
			s.Dispositions[i] = Delivered
			switch {
			case x.Handling.Empty():
				s.Dispositions[i] = Dropped
			case d == Submission:
				s.Dispositions[i] = Queued
			}
		}
	}
	if d == LMTP || d == Deliver {
		for i := range s.Dispositions {
			if s.Dispositions[i] == Refused && !refuse {
				s.Dispositions[i], s.Replies[i] = Held, s.Reply
			}
		}
		return s
	}
	if i := slices.Index(s.Dispositions, Postponed); i >= 0 {
		s.Reply = s.Replies[i]
		for i := range s.Dispositions {
			s.Dispositions[i], s.Replies[i] = Postponed, s.Reply
		}
		return s
	}
	first := slices.Index(s.Dispositions, Refused)
	if first < 0 {
		return s
	}
	if all := !slices.ContainsFunc(s.Dispositions, func(x Disposition) bool { return x != Refused }); all || d == Submission {
		s.Reply = s.Replies[first]
		for i := range s.Dispositions {
			if s.Dispositions[i] != Refused {
				s.Dispositions[i], s.Replies[i] = Refused, s.Reply
			}
		}
		return s
	}
	for i := range s.Dispositions {
		if s.Dispositions[i] == Refused {
			s.Dispositions[i], s.Replies[i] = Held, s.Reply
		}
	}
	return s
}

package sieve

import "sluice/pipeline/mime"

// A Kind names what an [Action] does.
type Kind string

// What a script can want.
const (
	Keep     Kind = "keep"     // into the inbox, or where a rule said: Folder is ""
	FileInto Kind = "fileinto" // into Folder
	Discard  Kind = "discard"  // takes the implicit keep away: nothing is to be done
	Redirect Kind = "redirect" // on to Address
	Reject   Kind = "reject"   // refuse, with Text (RFC 5429, 2.2)
	EReject  Kind = "ereject"  // refuse, with Text, in the protocol alone (RFC 5429, 2.1)
	Vacation Kind = "vacation" // answer the sender (RFC 5230)
	Notify   Kind = "notify"   // tell somebody that mail has come (RFC 5435)
	Pipe     Kind = "pipe"     // hand to a program that the site lists
)

// An Action is one thing that a script wants done. Actions are values, in the order the script asked for them; none has
// been done.
type Action struct {
	Kind   Kind
	Script string // that asks for it; "" for the implicit keep
	Line   int    // in that script; 0 for the implicit keep
	// Implicit marks the keep that follows where nothing else was done with the mail (RFC 5228, 2.10.2).
	Implicit bool
	Copy     bool // it left the implicit keep alone (RFC 3894)

	// For Keep and FileInto.
	Folder    string // "Lists/go" as the script wrote it, in UTF-8; "" for Keep
	MailboxID string // RFC 9042: the folder with this identity, if there is one, instead of Folder
	// SpecialUse: RFC 8579: "\Junk": the folder with this use, if there is one, instead of Folder; else Folder is given the
	// use if it has to be made.
	SpecialUse string
	Create     bool     // RFC 5490: make the folder if it is not there
	Flags      []string // RFC 5232
	// Content is what is filed where that is no copy of the mail but of what Reply sends (RFC 8580): the whole of it, line
	// ends CRLF. Nothing of the mail itself is saved by it.
	Content []byte

	// Message is the mail as it was at that moment, for Keep, FileInto, Redirect and Pipe; nil: as it came.
	Message *mime.Message

	Address string // for Redirect: where to
	// Fields are put above the header of a mail that is handed on, so that it is known when it comes back.
	Fields [][2]string

	Text  string // for Reject and EReject: the reason, as the script wrote it
	Reply *Reply // for Vacation and Notify: what is sent

	Program   string   // for Pipe
	Arguments []string // for Pipe
	Try       bool     // for Pipe: its failure is none of the script's
	// Sole, for Pipe: programs alone have taken the implicit keep away, this one among them. Where none of those takes the
	// mail, it is kept.
	Sole bool
}

// A Reply is a mail that answers or notifies. That it is asked for says that it may be sent: what is sent once only has a
// [Mark] in [Outcome.Marks].
type Reply struct {
	From    string   // the envelope's sender; "" is the null sender
	To      []string // the envelope's recipients
	Subject string   // for people who read a record
	Content []byte   // the whole message, line ends CRLF
}

package sieve

import "time"

// A Kind names what an [Action] does.
type Kind string

// What a script can want.
const (
	Keep     Kind = "keep"     // into the inbox, or where a rule said: Folder is ""
	FileInto Kind = "fileinto" // into Folder
	Discard  Kind = "discard"  // it only takes the implicit keep away: nothing is to be done
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
	Folder     string   // "Lists/go" as the script wrote it, in UTF-8; "" for Keep
	MailboxID  string   // RFC 9042: the folder with this identity, if there is one, instead of Folder
	SpecialUse string   // RFC 8579: "\Junk": the folder with this use, if there is one, instead of Folder
	Create     bool     // RFC 5490: make the folder if it is not there
	Flags      []string // RFC 5232
	// Message is the mail as it was at that moment; nil: as it came.
	Message *Edited

	Address string // for Redirect: where to
	// Redirect also carries what RFC 6009 lets it say, as an OutgoingRecipient has it.
	DSNNotify []string
	DSNReturn string
	ByTime    time.Duration // RFC 6009 :bytime…; 0: not said
	List      string        // RFC 6134: redirect :list — Address is a list's name then

	Text string // for Reject and EReject: the reason, as the script wrote it

	Reply  *Reply        // for Vacation and Notify: what is sent, and when it is not
	Notice *Notification // for Notify

	Program   string   // for Pipe
	Arguments []string // for Pipe
	Try       bool     // for Pipe: its failure is none of the script's
}

// A Reply is a mail that answers or notifies: everything but the decision whether it was sent before.
type Reply struct {
	// Handle identifies the answer; with the sender it says what was sent already. Days or seconds: Every.
	Handle  string
	Every   time.Duration // not again to the same sender within; 0 is the site's default
	To      string        // the envelope's recipient
	Content []byte        // the whole message, line ends CRLF
	Fcc     *Action       // RFC 8580: a FileInto of the same content
}

// A Notification is what notify asks for.
type Notification struct {
	Method     string // "mailto:me@example.org"
	From       string
	Importance string // "1", "2", "3"
	Options    []string
	Message    string
}

package pipeline

import (
	"cmp"
	"slices"
	"time"

	"sluice/pipeline/mime"
)

// A Handling is what a recipient's own wishes, a Sieve script say, make of a mail that nothing objects to: the copies that
// are filed and the mail that leaves, in place of the one copy that would be filed else. It counts where the verdict is
// Pass or Keep; after any other verdict, of whatever step, nothing of it is carried out. A door carries out all of it or
// nothing, before it answers. Several steps may say one for a recipient: the last in configured order counts.
//
// It is a value. What the message and mails look like is not part of its JSON form: that is for the record, and a record
// never has to be carried out.
type Handling struct {
	At int `json:"at"`
	// Copies are filed, in this order. None: the mail is in none of the owner's folders, because they want it so.
	Copies []Copy `json:"copies,omitempty"`
	// Dropped says who wants no copy, "line 9 of work.sieve", where nothing else is done with the mail.
	Dropped string `json:"dropped,omitempty"`
	// Leaving is what goes out: the mail itself, handed on, and replies to it.
	Leaving []Leaving `json:"leaving,omitempty"`
	// Runs are programs that get the mail.
	Runs []Run `json:"runs,omitempty"`
	// Failed says why the wishes could not be made out to the end, "work.sieve, line 14: …": the mail is kept where it would
	// be without them, and what was wanted by then is not done.
	Failed string `json:"failed,omitempty"`
	// Notes say what is not done and why, "line 3 of away.sieve: no reply: the mail comes from a list".
	Notes []string `json:"notes,omitempty"`
	// Trace says line by line what led there, where somebody wants to know.
	Trace  []string `json:"trace,omitempty"`
	Shadow bool     `json:"shadow,omitempty"` // recorded, never carried out
}

// A Copy is one copy of a mail in a folder of the recipient's.
type Copy struct {
	By string `json:"by,omitempty"` // who wants it: "line 14 of work.sieve"; "": nobody in particular
	// Kept says that it is the copy that there would be without any wishes: it goes where the steps before have said, into
	// the inbox if none has.
	Kept   bool   `json:"kept,omitempty"`
	Folder string `json:"folder,omitempty"` // "" is the inbox
	// Existing: only if there is such a folder; into the inbox else. Otherwise a folder that is missing is made.
	Existing bool `json:"existing,omitempty"`
	// Use is the special use, such as `\Junk`, that Folder is given if it has to be made.
	Use   string   `json:"use,omitempty"`
	Flags []string `json:"flags,omitempty"` // added to those that steps want
	// Altered says that it is not the mail as it came: what it looks like is in Message, or in Content where it is another
	// mail altogether, such as a copy of the reply.
	Altered bool          `json:"altered,omitempty"`
	Message *mime.Message `json:"-"`
	Content []byte        `json:"-"`
	// Of the record: the copy's unique name in the Maildir of Folder, and why that is not the folder that was wanted.
	File string `json:"file,omitempty"`
	Note string `json:"note,omitempty"`
}

// A LeavingKind says what a mail is that leaves.
type LeavingKind string

const (
	Redirect LeavingKind = "redirect" // the mail itself, handed on
	Vacation LeavingKind = "vacation" // the reply of somebody who is away
	Notify   LeavingKind = "notify"   // a note that there is mail
	Return   LeavingKind = "return"   // a report about mail that was handed on, sent on to who sent that
)

// A Leaving is one mail that leaves on behalf of the recipient.
type Leaving struct {
	Kind   LeavingKind `json:"kind"`
	By     string      `json:"by,omitempty"`     // who wants it: "line 14 of work.sieve"
	Sender string      `json:"sender,omitempty"` // of its envelope; "" is the null sender
	To     []string    `json:"to"`
	// Subject is for people who read the record.
	Subject string `json:"subject,omitempty"`
	// What the sender of a report about it is asked for (RFC 3461): NOTIFY, in capitals, and RET. "" is the default.
	Notify string `json:"notify,omitempty"`
	Return string `json:"ret,omitempty"`
	// Altered says that a mail handed on is not as it came: what it looks like is in Message.
	Altered bool          `json:"altered,omitempty"`
	Message *mime.Message `json:"-"`
	// Fields are put above the header of a mail that is handed on.
	Fields []Edit `json:"fields,omitempty"`
	// Content is the whole mail, where it is one of its own and not the one that came. Line ends are CRLF.
	Content []byte `json:"-"`
	Queued  string `json:"queued,omitempty"` // of the record: its id in the queue
}

// A Run is a program that gets the mail: one that an administrator lists.
type Run struct {
	By      string        `json:"by,omitempty"`
	Program string        `json:"program"` // its name in the list
	Args    []string      `json:"args,omitempty"`
	Altered bool          `json:"altered,omitempty"`
	Message *mime.Message `json:"-"` // as in Copy
	// The envelope, for the program: who sent the mail ("": the null sender), to whom, and what that was before aliases.
	Sender, Recipient, Original string `json:"-"`
	// Try: the mail goes on as it would without this program if it fails. Otherwise it is then kept in the inbox besides.
	Try bool `json:"try,omitempty"`
	// Sole: programs alone are to take the mail, this one among them: it is kept if none of those does.
	Sole bool `json:"sole,omitempty"`
	// Of the record: how it ended, "" is well; and how long it took.
	Ended string        `json:"ended,omitempty"`
	Took  time.Duration `json:"took,omitempty"`
}

// Empty reports whether nothing at all becomes of the mail: no copy, nothing that leaves, no program. It is false for nil,
// for which there is the one copy.
func (h *Handling) Empty() bool {
	return h != nil && len(h.Copies) == 0 && len(h.Leaving) == 0 && len(h.Runs) == 0
}

// resolved is h for a decision: copies that go where steps have said have their folder, each folder gets one copy of the
// same text (RFC 5228, 2.10.3), and what steps want flagged is flagged in every copy of the mail.
func (h *Handling) resolved(d *Decision) *Handling {
	out := *h
	out.Copies = nil
	for _, c := range h.Copies {
		if c.Kept {
			c.Folder = d.Folder
		}
		if c.Content == nil {
			c.Flags = union(d.Flags, c.Flags)
		}
		same := slices.IndexFunc(out.Copies, func(x Copy) bool {
			return x.Folder == c.Folder && x.Message == c.Message && x.Content == nil && c.Content == nil
		})
		if same < 0 {
			out.Copies = append(out.Copies, c)
			continue
		}
		x := &out.Copies[same]
		x.Flags = union(x.Flags, c.Flags)
		x.Existing = x.Existing && c.Existing
		x.Use = cmp.Or(x.Use, c.Use)
	}
	return &out
}

// union is a and what of b is not in it.
func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

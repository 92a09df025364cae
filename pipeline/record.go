package pipeline

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// RecordVersion is the version of the JSON form of [Record].
const RecordVersion = 1

// A Record is everything that went into the decision about one transaction, and what came of it. Its JSON form is what
// the journal keeps. But for Timings, two runs of one transaction with the same facts, clock and ids give equal records.
type Record struct {
	Version   int       `json:"version"`
	ID        string    `json:"id"`
	Received  time.Time `json:"received"`
	Door      Door      `json:"door"`
	QueueID   string    `json:"queue_id,omitempty"`   // the id of the MTA in front of us
	MessageID string    `json:"message_id,omitempty"` // without angle brackets
	Subject   string    `json:"subject,omitempty"`
	SHA256    string    `json:"sha256,omitempty"` // of the message as received, at submission as it was made complete, in hex
	Size      int64     `json:"size,omitempty"`   // octets
	Plan      string    `json:"plan"`             // version of the plan that decided

	Client   Client  `json:"client"`
	Greeting string  `json:"greeting,omitempty"`
	Sender   Address `json:"sender"`
	Asked    Asked   `json:"asked,omitzero"`
	Once     bool    `json:"once,omitempty"` // recipients could not be refused one by one

	Steps      []StepRecord      `json:"steps"`
	Recipients []RecipientRecord `json:"recipients"`

	// End says how the transaction ended: "done", "refused", "aborted", "handed over" (decided here, filed elsewhere).
	End string `json:"end"`
	// Reply is what the client was told at the end, for doors that answer once.
	Reply Reply `json:"reply,omitzero"`
	// Note is for the operator: why the door itself ended it.
	Note string `json:"note,omitempty"`
	// Completes says that this is no more than what shadow stages have found, for the record of the same id: see Complete.
	Completes bool `json:"completes,omitempty"`

	Timings []Timing `json:"timings,omitempty"`

	// Redacted says what was taken out of the record since; nil: nothing was.
	Redacted *Redaction `json:"redacted,omitempty"`

	// Via is the door that hands the record over, and Began when its part of the work did: where a mail comes back with our
	// mark, Door and Received are of the one that decided. Neither is kept.
	Via   Door      `json:"-"`
	Began time.Time `json:"-"`
}

// A Redaction says what was taken out of a record to protect people's privacy, and when.
type Redaction struct {
	At   time.Time `json:"at"`
	What []string  `json:"what"` // "subject", "addresses", "evidence", "facts"
}

// Took reports whether something of this name was taken out. It is false for nil.
func (r *Redaction) Took(what string) bool { return r != nil && slices.Contains(r.What, what) }

// String says it for people.
func (r *Redaction) String() string {
	return strings.Join(r.What, ", ") + " taken out on " + r.At.UTC().Format(time.RFC1123)
}

// A StepRecord is what one step said about everybody.
type StepRecord struct {
	Name      string            `json:"name"`
	At        int               `json:"at,omitempty"` // its place in the plan, from 0
	Kind      string            `json:"kind"`
	Shadow    bool              `json:"shadow,omitempty"`
	Fact      json.RawMessage   `json:"fact,omitempty"`
	Unknown   string            `json:"unknown,omitempty"` // why there is no fact
	Missing   map[string]string `json:"missing,omitempty"` // fields of the fact that are unknown
	Hits      []Hit             `json:"hits,omitempty"`
	Undecided []Undecided       `json:"undecided,omitempty"`
	Stages    []StageRecord     `json:"stages"`
}

// Score is the [Score] of the step's hits. Of a step that is asked in part for each recipient this is a part; the whole
// is of [Record.HitsOf].
func (s StepRecord) Score() float64 { return Score(s.Hits) }

// A StageRecord is what became of one stage's question.
type StageRecord struct {
	Phase   Phase    `json:"phase"`
	State   string   `json:"state"`              // "answered", "error", "not asked", "not needed", "recalled"; of shadow stages "not finished", "not run"
	Shadow  bool     `json:"shadow,omitempty"`   // asked after the door has answered, and never counted
	Why     string   `json:"why,omitempty"`      // the error, or why it was not asked or not needed
	OnError *OnError `json:"on_error,omitempty"` // the policy that an error met
	Note    string   `json:"note,omitempty"`     // see [Result.Note]
	Verdict *Verdict `json:"verdict,omitempty"`
	Effects []Effect `json:"effects,omitempty"`
	Edits   []Edit   `json:"edits,omitempty"`
	// Handling is what the recipient's own wishes made of the mail, as it was said.
	Handling *Handling `json:"handling,omitempty"`
	Terms    []byte    `json:"terms,omitempty"`
}

// A RecipientRecord is what was decided for one recipient, by whom, and where the mail went.
type RecipientRecord struct {
	Recipient
	Verdict  Verdict  `json:"verdict"`
	Step     string   `json:"step,omitempty"` // the step whose verdict it is; "" where nobody objected
	Folder   string   `json:"folder,omitempty"`
	FolderBy string   `json:"folder_by,omitempty"` // "step" or "step/rule"
	Flags    []string `json:"flags,omitempty"`
	Score    float64  `json:"score,omitempty"` // of [Record.HitsOf]
	// Handling is what the recipient's own wishes have made of the mail, as it was carried out: the copies that were filed
	// and what left. Folder and File are then those of the first copy. nil: there were none.
	Handling *Handling `json:"handling,omitempty"`
	// Until is when the recipient was settled: what was asked later, for others, did not count. nil: all counted.
	Until *Phase `json:"until,omitempty"`
	// Exempt says why refusals that look at the envelope only did not count: "postmaster", "logged in".
	Exempt string       `json:"exempt,omitempty"`
	Steps  []StepRecord `json:"steps,omitempty"` // what stages asked for this recipient said
	// What the door did. Disposition is what became of the mail here.
	Disposition Disposition `json:"disposition"`
	Reply       Reply       `json:"reply,omitzero"` // told for this recipient, at RCPT or by LMTP
	File        string      `json:"file,omitempty"` // the file's name in its Maildir folder
	Held        string      `json:"held,omitempty"` // its id in quarantine
	Note        string      `json:"note,omitempty"` // for the operator
	// Removed is what came and is in no copy of the recipient's. Where several recipients' copies lack the same it stands in
	// the first of them.
	Removed []Removed `json:"removed,omitempty"`
	// ByDoor: the door itself refused the recipient, an unknown one say; no stage was asked.
	ByDoor bool `json:"by_door,omitempty"`
}

// A Timing says how long a stage took.
type Timing struct {
	Step  string        `json:"step"`
	Phase Phase         `json:"phase"`
	Took  time.Duration `json:"took"`
	// Shadow: nobody waited for it.
	Shadow bool `json:"shadow,omitempty"`
}

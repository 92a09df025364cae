package pipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An Action is what a final verdict says shall become of the mail for one recipient. Pass is no verdict.
type Action uint8

const (
	Pass       Action = iota // nothing was said; the mail is delivered
	Keep                     // deliver, whatever later stages say
	Discard                  // accept and drop
	Quarantine               // accept and hold for an administrator
	TempFail                 // ask the sender to try again later
	Reject                   // refuse for good
)

var actionNames = [...]string{"pass", "keep", "discard", "quarantine", "tempfail", "reject"}

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "action?"
}

// MarshalText writes the name of the action.
func (a Action) MarshalText() ([]byte, error) { return marshalName("action", actionNames[:], int(a)) }

// UnmarshalText reads the name of an action, as [Action.String] writes it.
func (a *Action) UnmarshalText(text []byte) error {
	i, err := unmarshalName("action", actionNames[:], text)
	*a = Action(i)
	return err
}

// Refuses reports whether a leaves the mail with the sender: TempFail or Reject.
func (a Action) Refuses() bool { return a == TempFail || a == Reject }

// A Verdict is a final word about the mail for one recipient, or for all of them. The zero Verdict is none.
type Verdict struct {
	At     int    `json:"at"`               // place in its step; -1: what on_error says
	Action Action `json:"action"`           //
	Reply  Reply  `json:"reply,omitzero"`   // what the sender is told, for TempFail and Reject; an empty one is filled in
	By     string `json:"by,omitempty"`     // who decided within the step: a rule's name; empty: the step itself
	Reason string `json:"reason,omitempty"` // for the operator: why; never shown to the sender
}

// withReply fills in what v leaves out and makes its text fit for a reply.
func (v Verdict) withReply() Verdict {
	var d Reply
	switch v.Action {
	case TempFail:
		d = defaultTempFail
	case Reject:
		d = defaultReject
	default:
		v.Reply = Reply{}
		return v
	}
	if v.Reply.Code/100 != d.Code/100 {
		v.Reply.Code = d.Code
	}
	if v.Reply.Enhanced == "" || v.Reply.Enhanced[0] != byte('0'+d.Code/100) {
		v.Reply.Enhanced = d.Enhanced
	}
	v.Reply = v.Reply.clean(d.Text)
	return v
}

// An EffectKind names what an [Effect] does.
type EffectKind string

const (
	FileInto EffectKind = "file" // file into Folder
	AddFlags EffectKind = "flag" // set Flags on the delivered mail
)

// An Effect is something done to the mail besides a final verdict: effects of several stages add up, and the last
// folder named in configured order is where the mail goes. Effects are values; the door carries out those that count.
type Effect struct {
	At     int        `json:"at"`
	Kind   EffectKind `json:"kind"`
	By     string     `json:"by,omitempty"`     // the rule that wants it
	Folder string     `json:"folder,omitempty"` // "Lists/go", for FileInto
	Flags  []string   `json:"flags,omitempty"`  // `\Flagged`, `$Label1`
	Shadow bool       `json:"shadow,omitempty"` // recorded, never carried out
	// Threshold: a score wants it, no rule by itself. It does not count after Keep, and folder and flag are those of junk.
	Threshold bool `json:"threshold,omitempty"`
	// Reason is for the operator: "score 5.2 reaches junk: 5".
	Reason string `json:"reason,omitempty"`
}

// An Edit adds a header field or deletes one. The zero Index deletes every field of the name.
type Edit struct {
	At     int    `json:"at"`
	Delete bool   `json:"delete,omitempty"`
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"` // without line ends
	Index  int    `json:"index,omitempty"` // which of several fields of the name to delete, from 1
	Shadow bool   `json:"shadow,omitempty"`
}

// A Hit is a rule that held.
type Hit struct {
	Step     string     `json:"-"` // in a View and a Decision: whose rule it is
	At       int        `json:"at"`
	Phase    Phase      `json:"phase,omitzero"` // in a record: when the rule was asked
	Name     string     `json:"name"`
	Score    float64    `json:"score,omitempty"` // of the rule by itself; what it adds is [Counted]
	Group    *Group     `json:"group,omitempty"` // never changed: rules share it
	Action   Action     `json:"action,omitzero"` // the final verdict that the rule gives, counted or not; Pass: none
	Evidence []Evidence `json:"evidence,omitempty"`
	Shadow   bool       `json:"shadow,omitempty"`
	// Off: the rule is switched off for this recipient, and would have held. Shadow is set too.
	Off bool `json:"off,omitempty"`
	// Note says what is otherwise for this recipient, and where that is written: "score 2 and not 4, for example.org (…)".
	Note string `json:"note,omitempty"`
}

// Evidence says where a rule found what it looked for.
type Evidence struct {
	Where    string   `json:"where"` // the term of the condition, as written
	What     string   `json:"what"`  // the value it saw, or the part of it that matched
	Position Position `json:"position,omitzero"`
}

// A Position says where in a mail evidence stands. The zero Position is nowhere in the mail: a fact, the envelope.
type Position struct {
	Field  string `json:"field,omitempty"`  // a header field, "Subject", or what rules call it: "text", "links"
	Part   string `json:"part,omitempty"`   // the MIME part, numbered as IMAP does: "1.2"
	Line   int    `json:"line,omitempty"`   // from 1, in what rules see of Field
	Column int    `json:"column,omitempty"` // the character in that line, from 1
}

// String returns the position for people: "Subject, character 14", "text, line 3, character 1".
func (p Position) String() string {
	var all []string
	if p.Field != "" {
		all = append(all, p.Field)
	}
	if p.Part != "" {
		all = append(all, "part "+p.Part)
	}
	if p.Line > 0 && (p.Line > 1 || p.Field == "text" || p.Field == "html") {
		all = append(all, "line "+strconv.Itoa(p.Line))
	}
	if p.Column > 0 {
		all = append(all, "character "+strconv.Itoa(p.Column))
	}
	return strings.Join(all, ", ")
}

// An Undecided is a rule that did not hold because something it needs is unknown.
type Undecided struct {
	Step   string `json:"-"` // in a View: whose rule it is
	At     int    `json:"at"`
	Name   string `json:"name"`
	Why    string `json:"why"` // "dmarc unavailable"
	Shadow bool   `json:"shadow,omitempty"`
}

func marshalName(what string, names []string, i int) ([]byte, error) {
	if i < 0 || i >= len(names) {
		return nil, fmt.Errorf("there is no %s %d", what, i)
	}
	return []byte(names[i]), nil
}

func unmarshalName(what string, names []string, text []byte) (int, error) {
	if i := slices.Index(names, string(text)); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("there is no %s %q; it is one of %s", what, text, strings.Join(names, ", "))
}

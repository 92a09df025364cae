package milter

// A Fact is what rules see of what a milter said. Texts in it are at most 1000 octets long.
type Fact struct {
	// Scanned is whether the milter was asked; where it is false, the mail being too large, all else is unknown.
	Scanned bool `json:"scanned" expr:"scanned"`
	// Verdict is "continue" (nothing against it), "accept" (the same, said before the end), "quarantine", "discard",
	// "tempfail" or "reject".
	Verdict string `json:"verdict" expr:"verdict"`
	// Event is when the milter said so: "connect", "helo", "mail", "rcpt", "data", "header", "eoh", "body" or "eom".
	Event string `json:"event" expr:"event"`
	// Code, Enhanced and Text are the reply it chose for a refusal: 550, "5.7.1", "no". 0 and "": it left that to us.
	Code     int    `json:"code" expr:"code"`
	Enhanced string `json:"enhanced" expr:"enhanced"`
	Text     string `json:"text" expr:"text"`
	// Quarantined is whether it asked for quarantine, and QuarantineReason what it gave as the reason.
	Quarantined      bool   `json:"quarantined" expr:"quarantined"`
	QuarantineReason string `json:"quarantine_reason" expr:"quarantine_reason"`
	// Headers are the fields that it added, Changed those that it changed or deleted.
	Headers []Field  `json:"headers" expr:"headers"`
	Changed []Change `json:"changed" expr:"changed"`
	// RcptsRefused are recipients that it refused while it let others pass.
	RcptsRefused []Refusal `json:"rcpts_refused" expr:"rcpts_refused"`
	// RcptsDeleted and RcptsAdded are addresses as the milter wrote them, without angle brackets.
	RcptsDeleted []string `json:"rcpts_deleted" expr:"rcpts_deleted"`
	RcptsAdded   []string `json:"rcpts_added" expr:"rcpts_added"`
	// SenderChanged is whether it wrote another envelope sender, and Sender which one.
	SenderChanged bool   `json:"sender_changed" expr:"sender_changed"`
	Sender        string `json:"sender" expr:"sender"`
	// BodyReplaced is whether it wrote another body, and BodySize how many octets that has.
	BodyReplaced bool `json:"body_replaced" expr:"body_replaced"`
	BodySize     int  `json:"body_size" expr:"body_size"`
	// NotDone names what it wanted that is never carried out, whatever `act` says: "rcpts_refused", "rcpts_deleted",
	// "rcpts_added", "sender", "body", and "headers" for fields that cannot be added.
	NotDone []string `json:"not_done" expr:"not_done"`
}

// A Field is a header field that a milter added.
type Field struct {
	Name  string `json:"name" expr:"name"`
	Value string `json:"value" expr:"value"` // unfolded
}

// A Change is a header field that a milter changed.
type Change struct {
	Name    string `json:"name" expr:"name"`
	Index   int    `json:"index" expr:"index"`     // which of several fields of the name, from 1
	Deleted bool   `json:"deleted" expr:"deleted"` //
	Value   string `json:"value" expr:"value"`     // the new one, unfolded
}

// A Refusal is one recipient that a milter refused.
type Refusal struct {
	Address  string `json:"address" expr:"address"`
	Verdict  string `json:"verdict" expr:"verdict"` // "reject", "tempfail"
	Code     int    `json:"code" expr:"code"`
	Enhanced string `json:"enhanced" expr:"enhanced"`
	Text     string `json:"text" expr:"text"`
}

// Words for verdicts.
const (
	wentOn      = "continue"
	accepted    = "accept"
	quarantined = "quarantine"
	discarded   = "discard"
	postponed   = "tempfail"
	refused     = "reject"
)

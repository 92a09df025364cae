package milter

// A Fact is what rules see of what a milter said. Texts in it are at most 1000 octets long.
type Fact struct {
	// Scanned is whether the milter was asked; where it is false, the mail being too large, all else is unknown.
	Scanned bool `json:"scanned" expr:"scanned"`
	// Verdict is "continue" (nothing against it), "accept" (the same, said before the end), "quarantine", "discard",
	// "tempfail" or "reject".
	Verdict string `json:"verdict" expr:"verdict" example:"reject"`
	// Event is when the milter said so: "connect", "helo", "mail", "rcpt", "data", "header", "eoh", "body" or "eom".
	Event string `json:"event" expr:"event" example:"eom"`
	// Code is that of the reply it chose for a refusal: 550; 0 where it left that to us.
	Code     int    `json:"code" expr:"code" example:"500"`
	Enhanced string `json:"enhanced" expr:"enhanced" example:"5.7.1"` // the enhanced code of that reply, or ""
	Text     string `json:"text" expr:"text" example:"no"`            // the text of that reply, or ""
	// Quarantined is whether it asked for quarantine.
	Quarantined      bool   `json:"quarantined" expr:"quarantined"`
	QuarantineReason string `json:"quarantine_reason" expr:"quarantine_reason" example:"virus"` // what it gave as the reason for that
	// Headers are the fields that it added.
	Headers []Field `json:"headers" expr:"headers"`
	// Changed are the fields that it changed or deleted.
	Changed []Change `json:"changed" expr:"changed"`
	// RcptsRefused are recipients that it refused while it let others pass.
	RcptsRefused []Refusal `json:"rcpts_refused" expr:"rcpts_refused"`
	// RcptsDeleted are recipients that it took away, as it wrote them, without angle brackets.
	RcptsDeleted []string `json:"rcpts_deleted" expr:"rcpts_deleted" example:"info@example.org"`
	// RcptsAdded are recipients that it added, as it wrote them, without angle brackets.
	RcptsAdded []string `json:"rcpts_added" expr:"rcpts_added" example:"archive@example.org"`
	// SenderChanged is whether it wrote another envelope sender.
	SenderChanged bool   `json:"sender_changed" expr:"sender_changed"`
	Sender        string `json:"sender" expr:"sender" example:"bounces@example.org"` // which one
	// BodyReplaced is whether it wrote another body.
	BodyReplaced bool `json:"body_replaced" expr:"body_replaced"`
	BodySize     int  `json:"body_size" expr:"body_size" example:"1"` // how many octets that has
	// NotDone names what it wanted that is never carried out, whatever `act` says: "rcpts_refused", "rcpts_deleted",
	// "rcpts_added", "sender", "body", and "headers" for fields that cannot be added.
	NotDone []string `json:"not_done" expr:"not_done" example:"rcpts_refused"`
}

// A Field is a header field that a milter added.
type Field struct {
	Name  string `json:"name" expr:"name" example:"X-Spam-Flag"` // as the milter wrote it
	Value string `json:"value" expr:"value" example:"YES"`       // unfolded
}

// A Change is a header field that a milter changed.
type Change struct {
	Name    string `json:"name" expr:"name" example:"X-Spam-Flag"` // as the milter wrote it
	Index   int    `json:"index" expr:"index" example:"1"`         // which of several fields of the name, from 1
	Deleted bool   `json:"deleted" expr:"deleted"`                 // rather than changed
	Value   string `json:"value" expr:"value" example:"YES"`       // the new one, unfolded
}

// A Refusal is one recipient that a milter refused.
type Refusal struct {
	Address  string `json:"address" expr:"address" example:"info@example.org"` // the recipient
	Verdict  string `json:"verdict" expr:"verdict" example:"reject"`           // "reject", "tempfail"
	Code     int    `json:"code" expr:"code" example:"500"`                    // of the reply that it chose: 550; 0 where it left that to us
	Enhanced string `json:"enhanced" expr:"enhanced" example:"5.7.1"`          // the enhanced code of that reply, or ""
	Text     string `json:"text" expr:"text" example:"no"`                     // the text of that reply, or ""
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

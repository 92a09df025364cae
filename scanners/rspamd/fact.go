package rspamd

// A Fact is what rules see of rspamd's reply.
type Fact struct {
	// Scanned is whether rspamd was asked; where it is false, the mail being too large, all else is unknown.
	Scanned bool `json:"scanned" expr:"scanned"`
	// Skipped is whether rspamd was told by its own settings not to scan this mail.
	Skipped bool `json:"skipped" expr:"skipped"`
	// Score is the sum of its symbols.
	Score float64 `json:"score" expr:"score" example:"7.5"`
	// Required is the score from which it refuses; unknown where it refuses from none.
	Required float64 `json:"required" expr:"required" example:"15"`
	// Action is what it recommends: "no action", "greylist", "add header", "rewrite subject", "soft reject", "reject".
	Action string `json:"action" expr:"action" example:"add header"`
	// Symbols are the tests that held, those that weigh most first.
	Symbols []Symbol `json:"symbols" expr:"symbols"`
	// Text is what it would have the sender told.
	Text string `json:"text" expr:"text"`
	// Subject is the subject that it would write.
	Subject string `json:"subject" expr:"subject" example:"*** SPAM *** hello"`
	// MessageID is the Message-ID that it found, without angle brackets: "undef" where there is none.
	MessageID string `json:"message_id" expr:"message_id" example:"undef"`
	// Time is how many seconds it says that it took.
	Time float64 `json:"time" expr:"time" example:"0.5"`
}

// A Symbol is one test of rspamd that held.
type Symbol struct {
	Name    string   `json:"name" expr:"name" example:"BAYES_SPAM"`   // as rspamd calls it
	Score   float64  `json:"score" expr:"score" example:"7.5"`        // what it adds
	Options []string `json:"options" expr:"options" example:"99.99%"` // what it saw
}

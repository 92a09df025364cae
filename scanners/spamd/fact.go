package spamd

// A Fact is what rules see of SpamAssassin's reply.
type Fact struct {
	// Scanned is whether spamd was asked; where it is false, the mail being too large, all else is unknown.
	Scanned bool `json:"scanned" expr:"scanned"`
	// Spam is whether SpamAssassin calls it spam.
	Spam bool `json:"spam" expr:"spam"`
	// Score is what it came to.
	Score float64 `json:"score" expr:"score" example:"7.5"`
	// Required is the score from where it is spam.
	Required float64 `json:"required" expr:"required" example:"5"`
	// Rules are the names of its rules that held, as it lists them.
	Rules []string `json:"rules" expr:"rules" example:"GTUBE"`
}

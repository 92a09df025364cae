package spamd

// A Fact is what rules see of SpamAssassin's reply.
type Fact struct {
	// Scanned is whether spamd was asked; where it is false, the mail being too large, all else is unknown.
	Scanned bool `json:"scanned" expr:"scanned"`
	// Spam is whether SpamAssassin calls it spam; Score what it came to, and Required from where it is spam.
	Spam     bool    `json:"spam" expr:"spam"`
	Score    float64 `json:"score" expr:"score"`
	Required float64 `json:"required" expr:"required"`
	// Rules are the names of its rules that held, as it lists them.
	Rules []string `json:"rules" expr:"rules"`
}

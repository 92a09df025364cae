package dkim

import (
	"strings"

	"sluice/scanners/dkim/signature"
)

// Fact is what rules see.
type Fact struct {
	Pass    bool     `json:"pass" expr:"pass"`                              // a signature is valid and covers the whole mail: its result is "pass"
	Domains []string `json:"domains" expr:"domains" example:"bank.example"` // d= of those, each once
	// Signatures are those that were looked at, from the top.
	Signatures []Signature `json:"signatures" expr:"signatures"`
	Found      int         `json:"found" expr:"found" example:"5"`                            // how many the mail has
	NotLooked  []string    `json:"not_looked_at" expr:"not_looked_at" example:"bank.example"` // d= of the others, at most 50
	FromFields int         `json:"from_fields" expr:"from_fields" example:"2"`                // how many From fields the mail has
}

// Signature is what rules see of one signature.
type Signature struct {
	Domain    string `json:"domain" expr:"domain" example:"bank.example"`      // d=, lower case, A-labels
	Selector  string `json:"selector" expr:"selector" example:"mail"`          // s=
	Identity  string `json:"identity" expr:"identity" example:"@bank.example"` // i=, or "@" and d=
	Algorithm string `json:"algorithm" expr:"algorithm" example:"rsa-sha256"`  // a=: "rsa-sha256", "ed25519-sha256"
	B         string `json:"b" expr:"b" example:"dzdVyOfA"`                    // how b= begins: 8 octets, by which it is told from others (RFC 6008)
	// Result is "pass", "fail", "neutral" (fails, and its key is in testing), "policy" (not accepted: a weak key, part of
	// the body, From not signed, from the future), "permerror" or "temperror".
	Result string `json:"result" expr:"result" example:"fail"`
	Reason string `json:"reason" expr:"reason"` // why it is not "pass"

	// Of the key.
	Bits    int    `json:"bits" expr:"bits" example:"2048"` // 0 where there is none
	WeakKey bool   `json:"weak_key" expr:"weak_key"`        // RSA of less than 2048 bits
	Testing bool   `json:"testing" expr:"testing"`          // t=y
	Strict  bool   `json:"strict" expr:"strict"`            // t=s
	Key     string `json:"key" expr:"key"`                  // the record, at most 500 octets

	Canonical   string `json:"canonical" expr:"canonical" example:"relaxed/simple"` // c=: "relaxed/simple"
	CoversBody  bool   `json:"covers_body" expr:"covers_body"`                      // the whole of it, as far as the signature fits it
	BodyPartial bool   `json:"body_partial" expr:"body_partial"`                    // l= leaves some of it out
	BodySigned  int64  `json:"body_signed" expr:"body_signed" example:"1000"`       // l=, octets; -1: all
	// Headers is h=, in lower case, at most 50 names.
	Headers []string `json:"headers" expr:"headers" example:"subject"`
	// Oversigned are those, of the fields that readers and their programs go by, of which none can be added unnoticed.
	Oversigned []string `json:"oversigned" expr:"oversigned" example:"from"`
	// Addable are the others of those fields.
	Addable []string `json:"addable" expr:"addable" example:"cc"`
	// Unsigned are those of them that stand in the mail and are not signed, or not all of them.
	Unsigned []string `json:"unsigned" expr:"unsigned" example:"reply-to"`

	Signed  int64 `json:"signed" expr:"signed" example:"1_700_000_000"`   // t=, in seconds since 1970; -1 where the signature does not say
	Age     int64 `json:"age" expr:"age" example:"604_800"`               // seconds since t=; 0 for one from the future, -1 where the signature does not say
	Expires int64 `json:"expires" expr:"expires" example:"1_700_000_000"` // x=, in seconds since 1970; -1 where the signature does not say
	Expired bool  `json:"expired" expr:"expired"`                         // x= is past
}

const (
	mostHeaders   = 50
	mostNotLooked = 50
	mostKey       = 500
	mostText      = 300
)

// shown are the fields that readers and their programs go by.
var shown = [...]string{
	"from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding",
}

// covers fills in what h= says about the fields that the mail has.
func (s *Signature) covers(names []string, h *signature.Header) {
	signed := make(map[string]int, len(names))
	for _, name := range names {
		signed[name]++
		if len(s.Headers) < mostHeaders {
			s.Headers = append(s.Headers, clip(name, 60))
		}
	}
	for _, name := range shown {
		switch there := h.Count(name); {
		case signed[name] > there:
			s.Oversigned = append(s.Oversigned, name)
			continue
		case signed[name] < there:
			s.Unsigned = append(s.Unsigned, name)
		}
		s.Addable = append(s.Addable, name)
	}
}

// clip makes foreign text fit for a fact: at most n octets of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

package arc

import "strings"

// Results of a chain (RFC 8617, 4.4).
const (
	none   = "none"
	passed = "pass"
	failed = "fail"
)

// Fact is what rules see.
type Fact struct {
	Result    string `json:"result" expr:"result" oneof:"none pass fail" example:"pass"` // "none" where there is no chain, "pass", "fail"
	Why       string `json:"why" expr:"why"`                                             // why it fails
	Instances int    `json:"instances" expr:"instances" example:"2"`                     // how many sets there are
	// OldestPass is the first set since which the mail has not been changed; 0: none has ever changed it (RFC 8617, 5.2).
	// -1 where the chain does not pass.
	OldestPass int      `json:"oldest_pass" expr:"oldest_pass" example:"1"`
	Sealers    []string `json:"sealers" expr:"sealers" example:"lists.example"` // d= of the seals, the last first
	Sets       []Set    `json:"sets" expr:"sets"`                               // the first at the beginning
	// First is what the first in the chain found out, before anybody changed the mail, and Last what the last did. They
	// are claims: the chain says whose, not that they are true.
	First AuthResults `json:"first" expr:"first"`
	Last  AuthResults `json:"last" expr:"last"`
}

// Set is one link of the chain.
type Set struct {
	Instance int    `json:"instance" expr:"instance" example:"1"`         // i=, from 1
	Sealer   string `json:"sealer" expr:"sealer" example:"lists.example"` // d= of the seal
	Selector string `json:"selector" expr:"selector" example:"arc"`       // s= of the seal
	CV       string `json:"cv" expr:"cv" example:"fail"`                  // what the sealer says of the chain before: "none", "pass", "fail"
	Signer   string `json:"signer" expr:"signer" example:"lists.example"` // d= of the message signature
	// Seal is the result of the seal, as dkim's; "" where nobody looked.
	Seal string `json:"seal" expr:"seal" example:"pass"`
	// Message is that of the message signature. In a set before the last it is "fail" where the mail was changed
	// afterwards, as lists do.
	Message string `json:"message" expr:"message" example:"fail"`
	Reason  string `json:"reason" expr:"reason"` // why they are not "pass"
	Key     string `json:"key" expr:"key"`       // the seal's key record, at most 500 octets
}

// AuthResults is what an ARC-Authentication-Results field says.
type AuthResults struct {
	Instance int    `json:"instance" expr:"instance" example:"1"`             // 0: there is none
	Authserv string `json:"authserv" expr:"authserv" example:"lists.example"` // who says so
	// Of several results of a method it is "pass" if one passed, else the first.
	SPF        string   `json:"spf" expr:"spf" example:"pass"`                           // the result: "pass", "fail" …; "" where nothing is said
	DKIM       string   `json:"dkim" expr:"dkim" example:"pass"`                         // the same of DKIM
	DMARC      string   `json:"dmarc" expr:"dmarc" example:"pass"`                       // the same of DMARC
	ARC        string   `json:"arc" expr:"arc" example:"pass"`                           // the same of the chain before
	MailFrom   string   `json:"mail_from" expr:"mail_from" example:"lists.example"`      // smtp.mailfrom of spf
	HeaderFrom string   `json:"header_from" expr:"header_from" example:"bank.example"`   // header.from of dmarc
	Signers    []string `json:"dkim_domains" expr:"dkim_domains" example:"bank.example"` // header.d, or the domain of header.i, where dkim passed
	Text       string   `json:"text" expr:"text"`                                        // the field, at most 1000 octets
}

// clip makes foreign text fit for a fact: at most n octets of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

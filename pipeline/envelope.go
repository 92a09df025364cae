package pipeline

import (
	"net/netip"
	"time"

	"sluice/pipeline/mime"
)

// An Address is a mail address in the form all of Sluice compares: lower-cased and in Unicode's NFC, the original kept.
type Address = mime.Address

// A Client is who brings the mail, as far as the door knows. The zero Client is unknown: stages that look into the
// world about it are not asked, and what pure ones, rules, say about it is unknown.
type Client struct {
	Addr netip.Addr `json:"addr,omitzero"`
	Name string     `json:"name,omitempty"` // its name in DNS if that leads back to Addr, else ""
	// NameUnknown says why Name is not known, where it is not: the DNS did not answer, or was not asked.
	NameUnknown string `json:"name_unknown,omitempty"`
	Login       string `json:"login,omitempty"`   // the account it has authenticated as
	Trusted     bool   `json:"trusted,omitempty"` // its address is in a configured trusted network
	TLS         string `json:"tls,omitempty"`     // "TLSv1.3", or "" over cleartext
}

// Known reports whether the client's address is known.
func (c Client) Known() bool { return c.Addr.IsValid() }

// A Recipient is one address that the sender named.
type Recipient struct {
	Address Address `json:"address"`
	// Account is the account it leads to, "" where the mail is not delivered by us.
	Account string `json:"account,omitempty"`
	// Original is ORCPT's address (RFC 3461, 4.2): what the sender wrote before somebody expanded an alias.
	Original Address `json:"original,omitzero"`
	// ORCPT and Notify are what the sender asked for, for whoever hands the mail on: ORCPT as it was written, type and
	// xtext, and NOTIFY in capitals, "SUCCESS,FAILURE" (RFC 3461, 4.1 and 4.2).
	ORCPT  string `json:"orcpt,omitempty"`
	Notify string `json:"notify,omitempty"`
}

// Asked is what the sender asked for with MAIL, for whoever hands the mail on.
type Asked struct {
	UTF8       bool   `json:"smtputf8,omitempty"` // SMTPUTF8 (RFC 6531)
	Body       string `json:"body,omitempty"`     // BODY (RFC 6152): "7BIT", "8BITMIME", or "" where it was not said
	Return     string `json:"ret,omitempty"`      // RET (RFC 3461, 4.3): "FULL", "HDRS"
	EnvelopeID string `json:"envid,omitempty"`    // ENVID (RFC 3461, 4.4), in xtext as it was written
}

// An Envelope is what is known about a transaction besides the message.
type Envelope struct {
	ID         string      // of the transaction; "" before Mail
	Received   time.Time   // when the transaction began: the clock that rules see
	Door       Door        //
	Client     Client      //
	Greeting   string      // what HELO, EHLO or LHLO said
	Sender     Address     // zero: the null sender <>
	Recipients []Recipient // so far, without those refused
}

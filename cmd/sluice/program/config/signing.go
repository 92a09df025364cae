package config

import (
	"fmt"
	"strings"
	"time"

	"sluice/pipeline/orgdomain"
)

// Signing says how mail of ours is signed when it leaves (DKIM, RFC 6376). A domain that has keys in
// DATA/dkim/DOMAIN, where `sluice dkim keygen` puts them, is signed without further settings.
type Signing struct {
	// Keys are keys that are kept elsewhere. For a domain that is named here, those in the data folder do not count.
	Keys []SigningKey `yaml:"keys" example:"[{domain: example.org, selector: s2026, file: /etc/sluice/s2026.pem}]"`
	// Lifetime is how long after it was made a signature is good for (x=); 0 is for ever. Less than the 5 days that mail
	// may wait in queues makes late mail look forged.
	Lifetime time.Duration `yaml:"lifetime"`
	// Require keeps mail of an account from leaving unsigned: where its From is of a domain that has no key, or cannot be
	// read, it is held in the queue until `sluice queue` releases it. Default: it leaves unsigned.
	Require bool `yaml:"require"`
}

// A SigningKey is a key of a domain.
type SigningKey struct {
	// Domain is whose mail it signs: with From of this domain, or of one below it that has no keys.
	Domain string `yaml:"domain" example:"example.org"`
	// Selector is the name under which the DNS has the public key: SELECTOR._domainkey.DOMAIN.
	Selector string `yaml:"selector" example:"s2026"`
	// File is the private key in PEM, RSA or ed25519. Nobody but its owner may read it. It is read again on a reload.
	File string `yaml:"file" example:"/etc/sluice/s2026.pem"`
}

// Forwarding says how mail of others is handed on, which scripts that redirect do.
type Forwarding struct {
	// Domain is the one in whose name it leaves: senders are rewritten into it (SRS), so that reports about the mail come
	// back here, and its keys seal (ARC). Default: that of the account whose script hands the mail on.
	Domain string `yaml:"domain" example:"example.org"`
	// Lifetime is for how many days a report about handed-on mail is sent on to its sender. Default: 21d.
	Lifetime time.Duration `yaml:"lifetime"`
	// KeepSender leaves senders as they are: mail of domains with SPF is then refused elsewhere. For sites whose smarthost
	// rewrites them.
	KeepSender bool `yaml:"keep_sender"`
	// NoSeal leaves mail without our ARC seal. It has none anyway where the domain has no key.
	NoSeal bool `yaml:"no_seal"`
}

// DMARCReports says what other domains are told about mail in their name. Nothing is sent unless this says so.
type DMARCReports struct {
	// Send has serve send, once a day, a report to each domain that asks for it (rua= of its DMARC record): how many mails
	// came in its name from which addresses, and whether SPF and DKIM fit; no mail, no subjects, no recipients.
	Send bool `yaml:"send"`
	// Org is who reports. Default: hostname.
	Org string `yaml:"org" example:"Example Org"`
	// Email is who the reports are from and where to ask about them. Default: postmaster at the domain.
	Email string `yaml:"email" example:"dmarc@example.org"`
	// Size is how large a report may be, in octets with its encoding; one that is larger is not sent. A domain may ask for
	// less. Default: 10MiB.
	Size Size `yaml:"size"`
	// Addresses is how many addresses of one domain a report goes to, the first ones. Default: 5.
	Addresses int `yaml:"addresses"`
}

func (c *Config) checkSigning() {
	type name struct{ domain, selector string }
	seen := map[name]bool{}
	for i := range c.Signing.Keys {
		k, path := &c.Signing.Keys[i], fmt.Sprintf("signing.keys[%d]", i)
		domain, ok := orgdomain.Canonical(k.Domain)
		if !ok || !strings.Contains(domain, ".") {
			c.d.wrong(path+".domain", fmt.Sprintf("%q is no domain", k.Domain), "write for example domain: example.org")
		}
		selector, ok := orgdomain.Canonical(k.Selector)
		if !ok {
			c.d.wrong(path+".selector", fmt.Sprintf("%q is no selector", k.Selector), "write for example selector: s2026")
		}
		k.Domain, k.Selector = domain, selector
		if k.File == "" {
			c.d.wrong(path+".file", "the file of the key is missing", "write for example file: /etc/sluice/s2026.pem")
		}
		if n := (name{k.Domain, k.Selector}); seen[n] && domain != "" && selector != "" {
			c.d.wrong(path, fmt.Sprintf("%s has two keys with the selector %s", k.Domain, k.Selector), "give each its own")
		} else {
			seen[n] = true
		}
	}
	if c.Signing.Lifetime < 0 {
		c.d.wrong("signing.lifetime", "signing.lifetime is below zero", "leave the key out for signatures that do not expire")
	} else if l := c.Signing.Lifetime; l > 0 && l < time.Hour {
		c.d.wrong("signing.lifetime", "signatures would expire before the mail has arrived", "write for example 14d")
	}
	if d := c.Forwarding.Domain; d != "" && !IsHostname(d) {
		c.d.wrong("forwarding.domain", fmt.Sprintf("%q is no domain", d), "write for example example.org")
	}
	const day = 24 * time.Hour
	if l := c.Forwarding.Lifetime; l < day || l > 1000*day {
		c.d.wrong("forwarding.lifetime", "reports about mail come back from at once to some weeks later", "write from 1d to 1000d")
	}
	r := c.DMARCReports
	if r.Email != "" && !isAddress(r.Email) {
		c.d.wrong("dmarc_reports.email", fmt.Sprintf("%q is no mail address", r.Email), "write NAME@DOMAIN")
	}
	if strings.ContainsFunc(r.Org, func(x rune) bool { return x < ' ' || x == 0x7f }) {
		c.d.wrong("dmarc_reports.org", fmt.Sprintf("%q is more than one line", r.Org), "write a name")
	}
	if r.Send && r.Email == "" && c.Users.Domain == "localhost" {
		c.d.wrong("dmarc_reports.send", "reports would be from postmaster@localhost", "set domain, or dmarc_reports.email")
	}
	if r.Size < 1024 {
		c.d.wrong("dmarc_reports.size", "no report is as small as that", "the least is 1KiB")
	}
	if r.Addresses < 1 {
		c.d.wrong("dmarc_reports.addresses", "reports would go to nobody", "leave send: false for that")
	}
}

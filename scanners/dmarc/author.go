package dmarc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/orgdomain"
)

// authorOf finds the one domain that From names. why says why there is not one: then nothing may be said for the mail
// by the luck of one of several (RFC 9989, 5.3.1; RFC 7489, 6.6.1).
func authorOf(m *mime.Message) (f Fact, why string) {
	fields := 0
	for range m.Header().All("From") {
		fields++
	}
	var domains []string
	odd := ""
	for _, a := range m.From() {
		if a.Domain == "" {
			// "Doe, Jane <jane@example.org>": only half a name. But what was meant to be an address is one author more.
			if strings.Contains(a.Raw, "@") {
				f.FromCount++
				odd = a.Raw
			}
			continue
		}
		f.FromCount++
		name, ok := domainName(a.Domain)
		if !ok {
			odd = a.Domain
			continue
		}
		if !slices.Contains(domains, name) {
			domains = append(domains, name)
		}
	}
	addresses := f.FromCount
	f.FromCount = max(f.FromCount, fields)
	switch {
	case fields == 0:
		return f, "there is no From field"
	case fields > 1:
		return f, fmt.Sprintf("there are %d From fields", fields)
	case addresses == 0:
		return f, "there is no address in From"
	case odd != "":
		return f, fmt.Sprintf("From has an address that is of no domain: %.100q", odd)
	case len(domains) > 1:
		return f, fmt.Sprintf("From names authors of %d domains: %.100s and %.100s", len(domains), domains[0], domains[1])
	}
	f.Domain = domains[0]
	return f, ""
}

// domainName returns the name of a domain in A-labels. For addresses, and for what is no name, it is "" and ok is false.
func domainName(s string) (name string, ok bool) {
	name, ok = orgdomain.Canonical(s)
	if !ok || strings.ContainsAny(name, "[]:") {
		return "", false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", false
	}
	return name, true
}

// mostSigned is how many signatures are looked at for the domains they are of. Those that dkim verifies are fewer.
const mostSigned = 16

// candidates are the domains that SPF and DKIM may authenticate the mail for, as far as the mail itself says.
type candidates struct {
	spf  string   // of the sender, or where there is none of the greeting (RFC 7208, 2.4)
	dkim []string // d= of the signatures
	more bool     // there are more signatures than were looked at
}

func (c candidates) all() []string { return append(slices.Clone(c.dkim), c.spf) }

func candidatesOf(v pipeline.View) (c candidates) {
	c.spf, _ = domainName(v.Sender.Domain)
	if v.Sender.Domain == "" {
		c.spf, _ = domainName(v.Greeting)
	}
	n := 0
	for f := range v.Message.Header().All("DKIM-Signature") {
		if n++; n > mostSigned {
			c.more = true
			break
		}
		if d := signedFor(f.Value()); d != "" && !slices.Contains(c.dkim, d) {
			c.dkim = append(c.dkim, d)
		}
	}
	return c
}

// signedFor returns d= of a signature (RFC 6376, 3.5), "" if it is no name.
func signedFor(value string) string {
	for part := range strings.SplitSeq(value, ";") {
		if name, d, ok := strings.Cut(part, "="); ok && strings.Trim(name, " \t") == "d" {
			d, _ = domainName(strings.Map(func(r rune) rune {
				if r == ' ' || r == '\t' {
					return -1
				}
				return r
			}, d))
			return d
		}
	}
	return ""
}

// below reports whether a name is a domain or lies below it.
func below(name, domain string) bool {
	rest, ok := strings.CutSuffix(name, domain)
	return ok && domain != "" && (rest == "" || strings.HasSuffix(rest, "."))
}

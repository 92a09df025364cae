package dmarc

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A Record is a DMARC policy record (RFC 9989, 4.7; RFC 7489, 6.3). Tags with values that are none have their defaults.
type Record struct {
	P, SP, NP string // what is asked for: "none", "quarantine", "reject"; SP and NP are "" where the record does not say
	ADKIM     string // alignment: "r" relaxed, "s" strict
	ASPF      string
	PSD       string   // whether this is the domain of a public suffix: "y", "n", "u" for unsaid
	T         string   // "y": the owner is only trying it; "" where the record does not say
	Pct       int      // of RFC 7489: the percentage of mail that the policy is for
	FO        string   // when failures are to be reported
	RUA       []string // where aggregate reports go
}

const (
	mostRecord = 2048 // octets
	mostTags   = 64
)

// IsRecord reports whether a TXT record says that it is a DMARC policy record. All others at the name are none of ours.
func IsRecord(text string) bool {
	first, _, _ := strings.Cut(text, ";")
	name, value, ok := tag(first)
	return ok && name == "v" && value == "DMARC1"
}

// ParseRecord reads a policy record. Unknown tags are left out and malformed ones have their defaults; only a record
// that does not say what it asks for, and nowhere to tell of it, is an error.
func ParseRecord(text string) (Record, error) {
	r := Record{ADKIM: "r", ASPF: "r", PSD: "u", Pct: 100, FO: "0"}
	if !IsRecord(text) {
		return Record{}, errors.New("it does not begin with v=DMARC1")
	}
	if len(text) > mostRecord {
		return Record{}, fmt.Errorf("it is longer than %d octets", mostRecord)
	}
	seen := map[string]bool{"v": true}
	var wrong error
	for part := range strings.SplitSeq(text, ";") {
		name, value, ok := tag(part)
		if !ok || seen[name] || len(seen) > mostTags { // RFC 7489, 6.3: what is malformed further on is ignored
			continue
		}
		seen[name] = true
		lower := strings.ToLower(value)
		switch name {
		case "p", "sp", "np":
			to := map[string]*string{"p": &r.P, "sp": &r.SP, "np": &r.NP}[name]
			if *to = oneOf(lower, "", "none", "quarantine", "reject"); *to == "" {
				wrong = errors.Join(wrong, fmt.Errorf("%s=%.30q is no policy", name, value))
			}
		case "adkim":
			r.ADKIM = oneOf(lower, "r", "s")
		case "aspf":
			r.ASPF = oneOf(lower, "r", "s")
		case "psd":
			r.PSD = oneOf(lower, "u", "y", "n")
		case "t":
			r.T = oneOf(lower, "", "y", "n")
		case "pct":
			if n, err := strconv.Atoi(value); err == nil && n >= 0 && n <= 100 {
				r.Pct = n
			}
		case "fo":
			if strings.Trim(lower, "01ds: \t") == "" && value != "" {
				r.FO = lower
			}
		case "rua":
			r.RUA = addresses(value)
		}
	}
	if !seen["p"] {
		wrong = errors.New("p= is missing")
	}
	if wrong == nil {
		return r, nil
	}
	// RFC 9989, 4.7 and RFC 7489, 6.6.3: an owner who wants reports is taken to ask for nothing else.
	if len(r.RUA) == 0 {
		return Record{}, wrong
	}
	r.P, r.SP, r.NP = "none", "", ""
	return r, nil
}

// tag reads "name=value" with white space around both.
func tag(s string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(s, "=")
	const space = " \t\r\n"
	name = strings.ToLower(strings.Trim(name, space))
	return name, strings.Trim(value, space), ok && name != ""
}

// oneOf returns s if it is one of some values, else the default.
func oneOf(s, otherwise string, values ...string) string {
	if slices.Contains(values, s) {
		return s
	}
	return otherwise
}

// addresses reads rua=: URIs, each perhaps with a limit of size behind a "!" (RFC 7489, 6.4).
func addresses(value string) (all []string) {
	for one := range strings.SplitSeq(value, ",") {
		one, _, _ = strings.Cut(strings.Trim(one, " \t"), "!")
		u, err := url.Parse(one)
		if err != nil || u.Scheme == "" || u.Scheme == "mailto" && !strings.Contains(u.Opaque, "@") || len(all) == mostTags {
			continue
		}
		all = append(all, one)
	}
	return all
}

// applied returns the policy that a record has for mail of a domain, and the tag that says so. below: the record is not
// the domain's own but one of a domain above it. missing: the domain does not exist.
func (r Record) applied(below, missing bool) (policy, by string) {
	switch {
	case below && missing && r.NP != "":
		return r.NP, "np"
	case below && r.SP != "":
		return r.SP, "sp"
	}
	return r.P, "p"
}

// lower is what is asked for instead of a policy that is tried only, or for mail outside of the sample (RFC 9989, 4.7,
// "t"; RFC 7489, 6.6.4).
func lower(policy string) string {
	if policy == "reject" {
		return "quarantine"
	}
	return "none"
}

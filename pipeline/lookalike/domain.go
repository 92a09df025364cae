package lookalike

import (
	"strings"

	"sluice/pipeline/mime"
	"sluice/pipeline/orgdomain"
)

// A Domain is the organisational domain of a name, ready to be compared with others. The zero Domain looks like none.
type Domain struct {
	Org string // as A-labels

	domain   string // as U-labels
	label    string // the first of them: what people remember
	suffix   string // what stands behind it
	skeleton string
}

// NewDomain returns the organisational domain of a name; ok is false for what has none.
func NewDomain(domain string) (d Domain, ok bool) {
	org, ok := orgdomain.Of(domain)
	if !ok || !strings.Contains(org, ".") {
		return d, false
	}
	a, err := mime.ParseAddress("x@" + org)
	if err != nil {
		return d, false
	}
	d = Domain{domain: a.Domain, Org: org}
	d.label, d.suffix, _ = strings.Cut(a.Domain, ".")
	d.skeleton = Skeleton(d.label)
	return d, true
}

// Name returns the domain as people write it, in U-labels.
func (d Domain) Name() string { return d.domain }

// How says how other, the organisational domain of full, looks like d: confusable (letters that look alike), typo (one letter
// off), tld (under another top-level domain), embedded (d stands inside the name). It is "" where it does not, and where
// both are one. Of a stranger the latter two are left out: example.org writes to example.com every day.
func (d Domain) How(other Domain, full string, stranger bool) string {
	const (
		shortTypo = 5 // letters below which one letter more or less makes another word
		shortWord = 4
	)
	switch {
	case d.label == "" || other.Org == d.Org:
		return ""
	case other.label != d.label && other.skeleton == d.skeleton:
		return "confusable"
	case strings.Contains("."+full+".", "."+d.domain+"."):
		return "embedded" // bank.example.evil.example
	case len(d.label) >= shortTypo && oneOff(other.label, d.label):
		return "typo"
	case stranger:
		return ""
	case other.label == d.label:
		return "tld"
	case len(d.label) >= shortWord && hasWord(full[:max(len(full)-len(other.suffix)-1, 0)], d.label):
		return "embedded" // bank-login.example
	}
	return ""
}

// hasWord reports whether a name has a word between its dots and hyphens.
func hasWord(name, word string) bool {
	for w := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		if w == word || Skeleton(w) == Skeleton(word) {
			return true
		}
	}
	return false
}

// oneOff reports whether two words differ by one letter: one more, one less, another one, or two changed over.
func oneOff(a, b string) bool {
	x, y := []rune(a), []rune(b)
	if len(x) > len(y) {
		x, y = y, x
	}
	if len(y)-len(x) > 1 || len(y) > 63 {
		return false
	}
	i := 0
	for i < len(x) && x[i] == y[i] {
		i++
	}
	j := 0
	for j < len(x)-i && x[len(x)-1-j] == y[len(y)-1-j] {
		j++
	}
	switch left := len(x) - i - j; {
	case len(y) > len(x):
		return left == 0
	case left == 2:
		return x[i] == y[i+1] && x[i+1] == y[i]
	default:
		return left == 1
	}
}

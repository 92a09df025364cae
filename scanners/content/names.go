package content

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/scanners/orgdomain"
)

// protected is what the configuration protects.
type protected struct {
	domains []ownDomain
	names   []ownName
}

// An ownDomain is a domain that others like to look like.
type ownDomain struct {
	domain   string // as U-labels
	org      string // its organisational domain, as A-labels
	label    string // the first label of that, as U-label: what people remember
	suffix   string // what stands behind it
	skeleton string
	rcpt     bool // it is a recipient's, which was not asked for by name
}

// An ownName is a name that belongs to an address or a domain.
type ownName struct {
	name     string
	skeleton string
	address  string // "" where all of the domain may use it
	org      string
}

func newDomain(domain string) (d ownDomain, ok bool) {
	org, ok := orgdomain.Of(domain)
	if !ok || !strings.Contains(org, ".") {
		return d, false
	}
	a, err := mime.ParseAddress("x@" + org)
	if err != nil {
		return d, false
	}
	d = ownDomain{domain: a.Domain, org: org}
	d.label, d.suffix, _ = strings.Cut(a.Domain, ".")
	d.skeleton = skeleton(d.label)
	return d, true
}

func parseProtected(list []string) (p protected, err error) {
	var wrong []error
	for _, s := range list {
		name, rest, isName := strings.Cut(s, "<")
		if !isName {
			d, ok := newDomain(strings.TrimSpace(s))
			if !ok {
				wrong = append(wrong, fmt.Errorf("protect: %q is no domain: write for example bank.example, or Jane Doe <jane@example.org>", s))
				continue
			}
			p.domains = append(p.domains, d)
			continue
		}
		n := ownName{name: strings.Join(strings.Fields(name), " ")}
		n.skeleton = nameSkeleton(n.name)
		rest = strings.TrimSuffix(strings.TrimSpace(rest), ">")
		local, domain, isAddress := cutLast(rest, '@')
		if !isAddress {
			domain = rest
		}
		d, ok := newDomain(domain)
		if n.skeleton == "" || !ok || isAddress && local == "" {
			wrong = append(wrong, fmt.Errorf("protect: %q is no name with its address: write for example Jane Doe <jane@example.org>", s))
			continue
		}
		n.org = d.org
		if isAddress {
			a, err := mime.ParseAddress(rest)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("protect: %q: %w", s, err))
				continue
			}
			n.address = addressOf(a)
		} else {
			p.domains = append(p.domains, d)
		}
		p.names = append(p.names, n)
	}
	return p, errors.Join(wrong...)
}

// addressOf is an address as names are compared with it: the subaddress does not count.
func addressOf(a mime.Address) string { return a.Local + "@" + a.Domain }

// mostSenders is how many addresses of a field are looked at.
const mostSenders = 10

// sender looks at the names that a mail gives for who sent it.
func (s *stage) sender(v pipeline.View) (f Sender) {
	m := v.Message
	own := s.protect.domains
	var seen []string
	for _, r := range v.Recipients {
		if d := r.Address.Domain; d != "" && len(seen) < mostSenders && !slices.Contains(seen, d) {
			seen = append(seen, d)
			if o, ok := newDomain(d); ok {
				o.rcpt = true
				own = append(slices.Clip(own), o)
			}
		}
	}
	from := m.From()
	if len(from) > mostSenders {
		from = from[:mostSenders]
	}
	for i, a := range from {
		if i == 0 {
			f.NonASCII = !isASCII(a.Domain)
			f.MixedScripts = f.NonASCII && mixedLabels(a.Domain)
		}
		f.lookalike(own, a.Domain, "From")
		s.display(&f, a)
	}
	for _, field := range [...]string{"Sender", "Reply-To"} {
		if h, ok := m.Header().First(field); ok {
			list := h.Addresses()
			for _, a := range list[:min(len(list), mostSenders)] {
				f.lookalike(own, a.Domain, field)
				if field == "Reply-To" && len(from) > 0 && a.Domain != "" && orgOf(a.Domain) != orgOf(from[0].Domain) {
					f.ReplyToForeign = true
				}
			}
		}
	}
	f.lookalike(own, v.Sender.Domain, "envelope")
	return f
}

// lookalike notes the first protected domain that a domain looks like without being it.
func (f *Sender) lookalike(own []ownDomain, domain, field string) {
	if f.Lookalike != "" || domain == "" || len(own) == 0 || domain[0] == '[' {
		return
	}
	d, ok := newDomain(domain)
	if !ok {
		return
	}
	for _, o := range own {
		if d.org == o.org {
			return // it is one of them
		}
	}
	for _, o := range own {
		if how := o.like(d, domain); how != "" {
			f.Lookalike, f.LookalikeHow, f.LookalikeDomain, f.LookalikeIn = o.domain, how, clip(domain, longestName), field
			return
		}
	}
}

// like says how d, the organisational domain of full, looks like o; "" for not.
func (o ownDomain) like(d ownDomain, full string) string {
	const (
		shortTypo = 5 // letters below which one letter more or less makes another word
		shortWord = 4
	)
	switch {
	case d.label != o.label && d.skeleton == o.skeleton:
		return "confusable"
	case strings.Contains("."+full+".", "."+o.domain+"."):
		return "embedded" // bank.example.evil.example
	case len(o.label) >= shortTypo && oneOff(d.label, o.label):
		return "typo"
	case o.rcpt: // example.org writes to example.com every day
		return ""
	case d.label == o.label:
		return "tld"
	case len(o.label) >= shortWord && hasWord(full[:max(len(full)-len(d.suffix)-1, 0)], o.label):
		return "embedded" // bank-login.example
	}
	return ""
}

// hasWord reports whether a name has a word between its dots and hyphens.
func hasWord(name, word string) bool {
	for w := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		if w == word || skeleton(w) == skeleton(word) {
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

// display looks at the display name of an address in From.
func (s *stage) display(f *Sender, a mime.Address) {
	if a.Name == "" {
		return
	}
	name := clip(a.Name, 1000)
	if other := addressIn(name); other != "" && !f.NameHasAddress {
		if o, err := mime.ParseAddress(other); err == nil && (o.Domain != a.Domain || o.Local != a.Local) {
			f.NameHasAddress, f.NameAddress = true, clip(other, longestName)
		}
	}
	if f.NameProtected != "" || len(s.protect.names) == 0 {
		return
	}
	is := nameSkeleton(name)
	for _, n := range s.protect.names {
		if n.skeleton != is {
			continue
		}
		genuine := n.address == addressOf(a)
		if n.address == "" {
			genuine = a.Domain != "" && orgOf(a.Domain) == n.org
		}
		if genuine { // a name may be protected for several addresses
			f.NameProtected = ""
			return
		}
		f.NameProtected = n.name
	}
}

// addressIn returns the first address in a text, "" for none.
func addressIn(s string) string {
	for at := 0; at < len(s); {
		i := strings.IndexByte(s[at:], '@')
		if i < 0 {
			return ""
		}
		i += at
		part := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-+", r) }
		begin := len(strings.TrimRightFunc(s[:i], part))
		end := len(s) - len(strings.TrimLeftFunc(s[i+1:], part))
		local, domain := strings.Trim(s[begin:i], "."), strings.Trim(s[i+1:end], ".-")
		if local != "" && strings.Contains(domain, ".") {
			return local + "@" + domain
		}
		at = i + 1
	}
	return ""
}

// nameSkeleton is a display name as names are compared: letters that look alike are one, case and punctuation do not
// count.
func nameSkeleton(name string) string {
	words := strings.FieldsFunc(name, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r) && !unicode.Is(unicode.Cf, r)
	})
	return skeleton(strings.Join(words, " "))
}

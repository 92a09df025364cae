package content

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"sluice/pipeline"
	"sluice/pipeline/lookalike"
	"sluice/pipeline/mime"
)

// protected is what the configuration protects.
type protected struct {
	domains []ownDomain
	names   []ownName
}

// An ownDomain is a domain that others like to look like.
type ownDomain struct {
	lookalike.Domain
	rcpt bool // it is a recipient's, which was not asked for by name
}

// An ownName is a name that belongs to an address or a domain.
type ownName struct {
	name     string
	skeleton string
	address  string // "" where all of the domain may use it
	org      string
}

func parseProtected(list []string) (p protected, err error) {
	var wrong []error
	for _, s := range list {
		name, rest, isName := strings.Cut(s, "<")
		if !isName {
			d, ok := lookalike.NewDomain(strings.TrimSpace(s))
			if !ok {
				wrong = append(wrong, fmt.Errorf("protect: %q is no domain: write for example bank.example, or Jane Doe <jane@example.org>", s))
				continue
			}
			p.domains = append(p.domains, ownDomain{Domain: d})
			continue
		}
		n := ownName{name: strings.Join(strings.Fields(name), " ")}
		n.skeleton = lookalike.Name(n.name)
		rest = strings.TrimSuffix(strings.TrimSpace(rest), ">")
		local, domain, isAddress := cutLast(rest, '@')
		if !isAddress {
			domain = rest
		}
		d, ok := lookalike.NewDomain(domain)
		if n.skeleton == "" || !ok || isAddress && local == "" {
			wrong = append(wrong, fmt.Errorf("protect: %q is no name with its address: write for example Jane Doe <jane@example.org>", s))
			continue
		}
		n.org = d.Org
		if isAddress {
			a, err := mime.ParseAddress(rest)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("protect: %q: %w", s, err))
				continue
			}
			n.address = addressOf(a)
		} else {
			p.domains = append(p.domains, ownDomain{Domain: d})
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
			if o, ok := lookalike.NewDomain(d); ok {
				own = append(slices.Clip(own), ownDomain{o, true})
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
			f.MixedScripts = f.NonASCII && lookalike.MixedLabels(a.Domain)
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
	d, ok := lookalike.NewDomain(domain)
	if !ok {
		return
	}
	for _, o := range own {
		if d.Org == o.Org {
			return // it is one of them
		}
	}
	for _, o := range own {
		if how := o.How(d, domain, o.rcpt); how != "" {
			f.Lookalike, f.LookalikeHow, f.LookalikeDomain, f.LookalikeIn = o.Name(), how, clip(domain, longestName), field
			return
		}
	}
}

// display looks at the display name of an address in From.
func (s *stage) display(f *Sender, a mime.Address) {
	if a.Name == "" {
		return
	}
	name := clip(a.Name, 1000)
	if other := lookalike.AddressIn(name); other != "" && !f.NameHasAddress {
		if o, err := mime.ParseAddress(other); err == nil && (o.Domain != a.Domain || o.Local != a.Local) {
			f.NameHasAddress, f.NameAddress = true, clip(other, longestName)
		}
	}
	if f.NameProtected != "" || len(s.protect.names) == 0 {
		return
	}
	is := lookalike.Name(name)
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

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

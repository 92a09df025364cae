package mime

import (
	"slices"
	"strings"
	"unicode"
)

// parseAddressList reads the unfolded value of a field such as From (RFC 5322, 3.4) and finds an address wherever a mail
// client might see one: in and outside angle brackets, in groups, behind comments, several without a comma. It returns
// at most so many, and whether there are more. An entry without an address is one with a Name only.
func parseAddressList(s string, most int) (list []Address, more bool) {
	p := addressParser{s: s}
	for p.at < len(p.s) || len(p.more) > 0 {
		var a Address
		ok := true
		if len(p.more) > 0 {
			a, p.more = p.more[0], p.more[1:]
		} else {
			a, ok = p.next()
		}
		switch {
		case !ok:
		case len(list) == most:
			return list, true
		default:
			list = append(list, a)
		}
	}
	return list, false
}

type addressParser struct {
	s  string
	at int
	// Once a quoted string or a comment has turned out to have no end, such signs are only signs: otherwise one of them
	// would hide an address that some clients see, and looking for ends would take time in the square of the length.
	noQuotes, noComments bool
	more                 []Address // that were found together with the last one
}

// next reads up to the end of an entry.
func (p *addressParser) next() (Address, bool) {
	var phrase []string // words as written, quoted strings without their quotes
	var comment string
	var word strings.Builder // pieces without space between them are one word: "a"@b, a.b
	end := func() {
		if word.Len() > 0 {
			phrase = append(phrase, word.String())
			word.Reset()
		}
	}
	for p.at < len(p.s) {
		switch c := p.s[p.at]; c {
		case ' ', '\t':
			p.at++
			end()
		case '(':
			end()
			if c, ok := p.comment(); ok {
				comment = c
			}
		case '"':
			q := p.quoted()
			// A local part in quotes keeps them for ParseAddress.
			if p.at < len(p.s) && p.s[p.at] == '@' {
				q = quote(q)
			}
			word.WriteString(q)
		case '<':
			end()
			return p.entry(strings.Join(phrase, " "), comment, p.angle()), true
		case ':': // RFC 5322, 3.4: the name of a group
			p.at++
			phrase, comment = nil, ""
			word.Reset()
		case ',', ';':
			p.at++
			end()
			return p.bare(phrase, comment)
		default:
			begin := p.at
			if c == '[' { // an address literal may hold colons
				if i := strings.IndexAny(p.s[begin+1:], "[]<>,; "); i >= 0 && p.s[begin+1+i] == ']' {
					p.at = begin + i + 2
					word.WriteString(p.s[begin:p.at])
					continue
				}
			}
			for p.at++; p.at < len(p.s) && strings.IndexByte(" \t(\"<:,;[", p.s[p.at]) < 0; p.at++ {
				if p.s[p.at] == '\\' && p.at+1 < len(p.s) {
					p.at++
				}
			}
			word.WriteString(p.s[begin:p.at])
		}
	}
	end()
	return p.bare(phrase, comment)
}

// comment reads a comment, which may hold others. Of one that does not end only the sign that begins it is read.
func (p *addressParser) comment() (text string, ok bool) {
	begin, depth := p.at, 0
	var b strings.Builder
	for ; p.at < len(p.s) && !p.noComments; p.at++ {
		c := p.s[p.at]
		switch {
		case c == '\\' && p.at+1 < len(p.s):
			p.at++
			c = p.s[p.at]
		case c == '(':
			if depth++; depth == 1 {
				continue
			}
		case c == ')':
			if depth--; depth == 0 {
				p.at++
				return strings.TrimSpace(b.String()), true
			}
		}
		b.WriteByte(c)
	}
	p.at, p.noComments = begin+1, true
	return "", false
}

// quoted reads a quoted string and returns what it stands for. Of one that does not end only the quote is read.
func (p *addressParser) quoted() string {
	begin := p.at
	var b strings.Builder
	for p.at++; p.at < len(p.s) && !p.noQuotes; p.at++ {
		c := p.s[p.at]
		switch {
		case c == '\\' && p.at+1 < len(p.s):
			p.at++
			c = p.s[p.at]
		case c == '"':
			p.at++
			return b.String()
		}
		b.WriteByte(c)
	}
	p.at, p.noQuotes = begin+1, true
	return ""
}

// angle reads what stands between angle brackets. A second opening bracket begins it anew, a missing closing one is made
// up for; comments are left out.
func (p *addressParser) angle() string {
	var b strings.Builder
	for p.at++; p.at < len(p.s); {
		switch c := p.s[p.at]; c {
		case '>':
			p.at++
			return b.String()
		case '<':
			p.at++
			b.Reset()
		case '"':
			if q := p.quoted(); q != "" {
				b.WriteString(quote(q))
			}
		case '(':
			p.comment()
		default:
			b.WriteByte(c)
			p.at++
		}
	}
	return b.String()
}

// entry makes an address of a display name and what stood in angle brackets, and steps over the comma behind it.
func (p *addressParser) entry(name, comment, spec string) Address {
	for p.at < len(p.s) && strings.IndexByte(" \t", p.s[p.at]) >= 0 {
		p.at++
	}
	for p.at < len(p.s) && p.s[p.at] == '(' {
		if c, ok := p.comment(); ok {
			comment = c
		}
		for p.at < len(p.s) && strings.IndexByte(" \t", p.s[p.at]) >= 0 {
			p.at++
		}
	}
	if p.at < len(p.s) && strings.IndexByte(",;", p.s[p.at]) >= 0 {
		p.at++
	}
	if name == "" {
		name = comment
	}
	// RFC 5322, 4.4: a route before the address.
	if strings.HasPrefix(strings.TrimSpace(spec), "@") {
		if _, rest, ok := strings.Cut(spec, ":"); ok {
			spec = rest
		}
	}
	return headerAddress(name, spec)
}

// bare makes an address of words without angle brackets: the last one with an "@", else the only one.
func (p *addressParser) bare(phrase []string, comment string) (Address, bool) {
	if len(phrase) > 1 && !slices.ContainsFunc(phrase, func(w string) bool { return !isWhole(w) }) { // the commas are forgotten
		for _, w := range phrase[1:min(len(phrase), maxAddresses+1)] {
			p.more = append(p.more, headerAddress("", w))
		}
		return headerAddress(comment, phrase[0]), true
	}
	for i := len(phrase) - 1; i >= 0; i-- {
		if !strings.Contains(phrase[i], "@") {
			continue
		}
		// "user @ example.org" is one address (RFC 5322, 4.4).
		from, to := i, i+1
		if strings.HasPrefix(phrase[i], "@") && from > 0 {
			from--
		}
		if strings.HasSuffix(phrase[i], "@") && to < len(phrase) {
			to++
		}
		name := strings.Join(append(clone(phrase[:from]), phrase[to:]...), " ")
		if name == "" {
			name = comment
		}
		return headerAddress(name, strings.Join(phrase[from:to], "")), true
	}
	switch {
	case len(phrase) == 1 && !strings.Contains(phrase[0], "=?"):
		return headerAddress(comment, phrase[0]), true
	case len(phrase) > 0:
		return headerAddress(strings.Join(phrase, " "), ""), true
	case comment != "":
		return headerAddress(comment, ""), true
	}
	return Address{}, false
}

// isWhole reports whether a word is an address with both its sides.
func isWhole(w string) bool {
	at := strings.LastIndexByte(w, '@')
	return at > 0 && at < len(w)-1
}

// headerAddress makes an address of what a header field says. Where ParseAddress refuses, what can be compared is kept:
// a rule about a domain shall not miss an address because something else about it is wrong.
func headerAddress(name, spec string) Address {
	name = strings.TrimSpace(strings.Map(dropControl, decodeWords(name)))
	raw := validUTF8(strings.TrimSpace(spec))
	spec = strings.TrimSpace(strings.Map(dropControl, raw))
	a, err := ParseAddress(spec)
	if err != nil {
		at := strings.LastIndexByte(spec, '@')
		if at < 0 {
			at = len(spec)
		}
		local, domain := cut(unquote(strings.TrimSpace(spec[:at])), maxLocal), ""
		if at < len(spec) {
			domain = joinDots(spec[at+1:])
			if d, err := normalDomain(domain); err == nil {
				domain = d
			}
		}
		a = Address{Local: normal(local), Domain: normal(cut(domain, maxAddress))}
		if i := strings.IndexByte(a.Local, '+'); i > 0 {
			a.Local, a.Tag = a.Local[:i], a.Local[i+1:]
		}
	}
	a.Raw, a.Name = cut(raw, 4*maxAddress), name
	return a
}

// joinDots takes the white space out that RFC 5322, 4.4 allows around the dots of a domain.
func joinDots(domain string) string {
	labels := strings.Split(domain, ".")
	for i := range labels {
		labels[i] = strings.TrimSpace(labels[i])
	}
	return strings.Join(labels, ".")
}

// dropControl drops what no mail client shows: NUL first of all.
func dropControl(r rune) rune {
	if unicode.IsControl(r) && r != '\t' {
		return -1
	}
	return r
}

// cut shortens s to at most n octets without cutting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

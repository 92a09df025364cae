package spf

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A macro is one "%{…}" of RFC 7208, 7.1.
type macro struct {
	letter     byte // in lower case
	escape     bool // it was in upper case: what it stands for is URL-escaped
	parts      int  // how many of the parts on the right stay; 0 is all
	reverse    bool
	delimiters string // "" is "."
	plain      bool   // neither transformers nor delimiters: the value is taken as it is
}

var errMacro = errors.New("has a malformed macro")

// nextMacro returns what stands before the next "%" in s, the macro there, if it is one with braces, and what follows.
func nextMacro(s string) (literal string, m macro, rest string, err error) {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s, macro{}, "", nil
	}
	literal, s = s[:i], s[i:]
	if len(s) < 2 {
		return "", macro{}, "", errMacro
	}
	if s[1] != '{' {
		return literal, macro{letter: s[1]}, s[2:], checkEscape(s[1])
	}
	inner, rest, ok := strings.Cut(s[2:], "}")
	if !ok || inner == "" {
		return "", macro{}, "", errMacro
	}
	m = macro{letter: inner[0] | 0x20, escape: inner[0]&0x20 == 0, plain: len(inner) == 1}
	if !isAlpha(inner[0]) || strings.IndexByte("slodiphcrtv", m.letter) < 0 {
		return "", macro{}, "", errMacro
	}
	inner = inner[1:]
	digits := inner[:len(inner)-len(strings.TrimLeft(inner, "0123456789"))]
	if inner = inner[len(digits):]; digits != "" {
		m.parts, err = strconv.Atoi(digits)
		if err != nil {
			m.parts = 1 << 20 // more than there can be
		}
		if m.parts == 0 {
			return "", macro{}, "", errMacro // RFC 7208, 7.1: it must not be zero
		}
	}
	if inner != "" && inner[0]|0x20 == 'r' {
		m.reverse, inner = true, inner[1:]
	}
	if strings.Trim(inner, ".-+,/_=") != "" {
		return "", macro{}, "", errMacro
	}
	m.delimiters = inner
	return literal, m, rest, nil
}

func checkEscape(c byte) error {
	if c != '%' && c != '_' && c != '-' {
		return errMacro
	}
	return nil
}

// checkMacros reports what is wrong with a macro-string. Outside of explanations c, r and t are not allowed.
func checkMacros(s string, explanation bool) error {
	for s != "" {
		_, m, rest, err := nextMacro(s)
		if err != nil {
			return err
		}
		if !explanation && strings.IndexByte("crt", m.letter) >= 0 {
			return errors.New("has a macro that only explanations may have")
		}
		s = rest
	}
	return nil
}

// checkDomainSpec reports what is wrong with a domain-spec: it ends in a macro or in a dot and a top label, which may be
// followed by a dot (RFC 7208, 7.1).
func checkDomainSpec(s string) error {
	if s == "" {
		return errors.New("has an empty domain")
	}
	if err := checkMacros(s, false); err != nil {
		return err
	}
	end := s // what follows the last macro
	for strings.IndexByte(end, '%') >= 0 {
		_, _, end, _ = nextMacro(end)
	}
	if end == "" {
		return nil
	}
	end = strings.TrimSuffix(end, ".")
	dot := strings.LastIndexByte(end, '.')
	if dot < 0 || !isTopLabel(end[dot+1:]) {
		return errors.New("has a domain that does not end in a top-level domain")
	}
	return nil
}

// isTopLabel: RFC 7208, 7.1: letters, digits and inner hyphens, not digits alone.
func isTopLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	digits := true
	for i := range len(s) {
		if !isAlpha(s[i]) && !isDigit(s[i]) && s[i] != '-' {
			return false
		}
		digits = digits && isDigit(s[i])
	}
	return !digits
}

// values are what macros stand for, but for d and p, which are the evaluation's.
type values struct {
	local, origin string // of the sender
	helo          string
	client        netip.Addr
	receiver      string
	now           time.Time
}

// How much of an expansion is kept: of a name its end, of a text its beginning.
const (
	keptName = 1024
	keptText = 2048
)

// expand replaces the macros of s, which has been checked. p is asked for the validated name when it is needed.
// Of a domain name that gets long only the end is kept, as RFC 7208, 7.3 truncates on the left; of a text the beginning.
func (v *values) expand(s, domain string, text bool, p func() (string, error)) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	var b []byte
	for s != "" {
		literal, m, rest, err := nextMacro(s)
		if err != nil {
			return "", err
		}
		b = append(b, literal...)
		switch m.letter {
		case 0:
		case '%':
			b = append(b, '%')
		case '_':
			b = append(b, ' ')
		case '-':
			b = append(b, "%20"...)
		case 'p':
			name, err := p()
			if err != nil {
				return "", err
			}
			b = m.append(b, name)
		default:
			b = m.append(b, v.of(m.letter, domain))
		}
		if text && len(b) > keptText {
			return string(b[:keptText]), nil
		}
		if !text && len(b) > 2*keptName {
			b = append(b[:0], b[len(b)-keptName:]...)
		}
		s = rest
	}
	return string(b), nil
}

func (v *values) of(letter byte, domain string) string {
	switch letter {
	case 's':
		return v.local + "@" + v.origin
	case 'l':
		return v.local
	case 'o':
		return v.origin
	case 'd':
		return domain
	case 'i':
		return nibbles(v.client)
	case 'v':
		if v.client.Is4() {
			return "in-addr"
		}
		return "ip6"
	case 'h':
		return v.helo
	case 'c':
		return v.client.String()
	case 'r':
		return v.receiver
	case 't':
		return strconv.FormatInt(v.now.Unix(), 10)
	}
	return ""
}

// nibbles is what %{i} stands for: IPv4 as usual, IPv6 as hexadecimal digits with dots between them (RFC 7208, 7.3).
func nibbles(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	b := make([]byte, 0, 63)
	for i, x := range a.As16() {
		if i > 0 {
			b = append(b, '.')
		}
		const hex = "0123456789abcdef"
		b = append(b, hex[x>>4], '.', hex[x&15])
	}
	return string(b)
}

// append adds a value, transformed and escaped as the macro says.
func (m *macro) append(b []byte, value string) []byte {
	if !m.plain {
		value = m.transform(value)
	}
	if !m.escape {
		return append(b, value...)
	}
	for i := range len(value) {
		c := value[i]
		if isAlpha(c) || isDigit(c) || strings.IndexByte("-._~", c) >= 0 { // RFC 3986, 2.3
			b = append(b, c)
			continue
		}
		const hex = "0123456789ABCDEF"
		b = append(b, '%', hex[c>>4], hex[c&15])
	}
	return b
}

func (m *macro) transform(value string) string {
	delimiters := m.delimiters
	if delimiters == "" {
		delimiters = "."
	}
	var parts []string
	for begin := 0; begin <= len(value); {
		end := strings.IndexAny(value[begin:], delimiters)
		if end < 0 {
			end = len(value) - begin
		}
		parts = append(parts, value[begin:begin+end])
		begin += end + 1
	}
	if m.reverse {
		for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
			parts[i], parts[j] = parts[j], parts[i]
		}
	}
	if m.parts > 0 && m.parts < len(parts) {
		parts = parts[len(parts)-m.parts:]
	}
	return strings.Join(parts, ".")
}

// truncate makes an expanded name fit: without its trailing dot, and without the labels on the left that are too many
// (RFC 7208, 7.3: 253 octets).
func truncate(name string) string {
	name = strings.TrimSuffix(name, ".")
	for len(name) > 253 {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return name
		}
		name = rest
	}
	return name
}

// askable reports whether a name can be asked for in the DNS. What cannot does not exist (RFC 7208, 4.8). Names beyond
// ASCII come from local parts, which match nothing then (RFC 8616, 4); a backslash would be an escape.
func askable(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	label := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case c < ' ' || c > '~' || c == '\\':
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0
}

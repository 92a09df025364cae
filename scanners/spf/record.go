package spf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A mechanism is what a directive asks (RFC 7208, 5).
type mechanism uint8

const (
	mechAll mechanism = iota
	mechInclude
	mechA
	mechMX
	mechPTR
	mechIP4
	mechIP6
	mechExists
)

// looks reports whether the mechanism asks the DNS, and so counts (RFC 7208, 4.6.4).
func (m mechanism) looks() bool { return m != mechAll && m != mechIP4 && m != mechIP6 }

// mechanisms by name, and what may follow it.
var mechanisms = [...]struct {
	name   string
	target argument
	cidr   bool // a dual-cidr-length may end it
}{
	mechAll:     {"all", never, false},
	mechInclude: {"include", always, false},
	mechA:       {"a", maybe, true},
	mechMX:      {"mx", maybe, true},
	mechPTR:     {"ptr", maybe, false},
	mechIP4:     {"ip4", always, false},
	mechIP6:     {"ip6", always, false},
	mechExists:  {"exists", always, false},
}

type argument uint8

const (
	never argument = iota
	maybe
	always
)

// A directive is one term of a record that may match.
type directive struct {
	text   string // without its qualifier, the name in lower case: "ip4:192.0.2.0/24"
	result string // of a match
	mech   mechanism
	target string       // domain-spec with its macros; "" is the current domain
	prefix netip.Prefix // of ip4 and ip6
	bits4  int          // of a and mx: how many bits of an address count
	bits6  int
}

// A record is a policy that has been read: RFC 7208, 4.6.1.
type record struct {
	directives []directive
	redirect   string // domain-spec; "" is none
	exp        string // domain-spec; "" is none
}

const version = "v=spf1"

// isRecord reports whether a TXT record is a policy of version 1: RFC 7208, 4.5.
func isRecord(txt string) bool {
	return len(txt) >= len(version) && strings.EqualFold(txt[:len(version)], version) &&
		(len(txt) == len(version) || txt[len(version)] == ' ')
}

// parse reads a TXT record for which isRecord holds. The whole of it is checked, wherever evaluation would end
// (RFC 7208, 4.6). It takes time and memory in proportion to the text.
func parse(txt string) (*record, error) {
	r := &record{directives: make([]directive, 0, min(strings.Count(txt, " "), 64))}
	for term := range strings.SplitSeq(txt[len(version):], " ") {
		if term == "" {
			continue
		}
		if err := r.term(term); err != nil {
			return nil, fmt.Errorf("term %.100q: %w", term, err)
		}
	}
	return r, nil
}

var errNoMechanism = errors.New("there is no such mechanism")

func (r *record) term(term string) error {
	for i := range len(term) {
		if term[i] <= ' ' || term[i] > '~' {
			return fmt.Errorf("has the octet %#02x", term[i])
		}
	}
	if name, value, ok := modifier(term); ok {
		return r.modify(name, value)
	}
	d := directive{text: term, result: Pass, bits4: 32, bits6: 128}
	switch term[0] {
	case '+':
		d.text = term[1:]
	case '-':
		d.text, d.result = term[1:], Fail
	case '~':
		d.text, d.result = term[1:], SoftFail
	case '?':
		d.text, d.result = term[1:], Neutral
	}
	if err := d.parse(); err != nil {
		return err
	}
	r.directives = append(r.directives, d)
	return nil
}

// modifier takes a modifier apart; ok is false for what is a directive. Its "=" comes before any ":" or "/".
func modifier(term string) (name, value string, ok bool) {
	for i := range len(term) {
		switch c := term[i]; {
		case c == '=':
			return term[:i], term[i+1:], i > 0
		case isAlpha(c), i > 0 && (isDigit(c) || c == '-' || c == '_' || c == '.'):
		default:
			return "", "", false
		}
	}
	return "", "", false
}

func (r *record) modify(name, value string) error {
	var to *string
	switch {
	case strings.EqualFold(name, "redirect"):
		to = &r.redirect
	case strings.EqualFold(name, "exp"):
		to = &r.exp
	default:
		return checkMacros(value, true) // RFC 7208, 6: unknown ones are ignored, but must be well-formed
	}
	if *to != "" {
		return errors.New("stands there twice") // RFC 7208, 6
	}
	*to = value
	return checkDomainSpec(value)
}

func (d *directive) parse() error {
	name, rest := d.text, ""
	if i := strings.IndexAny(d.text, ":/"); i >= 0 {
		name, rest = d.text[:i], d.text[i:]
	}
	known := false
	for m, x := range mechanisms {
		if strings.EqualFold(name, x.name) {
			d.mech, known = mechanism(m), true
			if name != x.name {
				d.text = x.name + rest
			}
		}
	}
	if !known {
		return errNoMechanism
	}
	kind := &mechanisms[d.mech]
	if kind.cidr {
		var err error
		if rest, err = d.cidr(rest); err != nil {
			return err
		}
	}
	switch {
	case rest == "" && kind.target == always:
		return errors.New("lacks its argument")
	case rest == "":
		return nil
	case kind.target == never || rest[0] != ':':
		return errors.New("has an argument that it does not take")
	}
	rest = rest[1:]
	switch d.mech {
	case mechIP4, mechIP6:
		return d.network(rest)
	default:
		d.target = rest
		return checkDomainSpec(rest)
	}
}

// cidr takes a dual-cidr-length off the end of s: RFC 7208, 5.3.
func (d *directive) cidr(s string) (rest string, err error) {
	cut := func(slashes string, most int, to *int) error {
		digits := s[len(strings.TrimRight(s, "0123456789")):]
		before, ok := strings.CutSuffix(s[:len(s)-len(digits)], slashes)
		if digits == "" || !ok {
			return nil
		}
		bits, err := length(digits, most)
		*to, s = bits, before
		return err
	}
	if err := cut("//", 128, &d.bits6); err != nil {
		return "", err
	}
	if err := cut("/", 32, &d.bits4); err != nil {
		return "", err
	}
	return s, nil
}

// length reads the number of bits of a network: no leading zeros, not more than an address has.
func length(digits string, most int) (int, error) {
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > most || len(digits) > 1 && (digits[0] < '1' || digits[0] > '9') {
		return 0, fmt.Errorf("has the prefix length %.20q, which is no number from 0 to %d", digits, most)
	}
	return n, nil
}

// network reads what follows "ip4:" or "ip6:" (RFC 7208, 5.6).
func (d *directive) network(s string) error {
	address, digits, cut := strings.Cut(s, "/")
	a, err := netip.ParseAddr(address)
	if err != nil || a.Is4() != (d.mech == mechIP4) || a.Zone() != "" {
		return errors.New("has no address of its kind")
	}
	bits := a.BitLen()
	if cut {
		if bits, err = length(digits, bits); err != nil {
			return err
		}
	}
	d.prefix = netip.PrefixFrom(a, bits)
	return nil
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

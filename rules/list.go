package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"sluice/pipeline/mime"
)

// A list is a named list that conditions can ask. It is immutable once made.
type list struct {
	name    string
	kind    entryKind
	pos     spot
	hash    string // of everything that it says
	files   []string
	entries []listEntry

	exact      map[string]int32 // of addresses, domains and words: the entry
	under      map[string]int32 // of domains: by what stands behind the first dot; of addresses: by the domain
	networks   map[netip.Prefix]int32
	lengths    []int // of the networks, the longest first
	words      *automaton
	wordOf     []int32 // the entry of a literal of words
	patterns   []pattern
	literals   *automaton // of what patterns require
	requires   [][]int32  // of a literal: the places of the patterns for which it is enough
	always     []int32    // places of patterns that require nothing
	needs      []string   // literals, folded, of which one is in each text that holds an entry: of ASCII alone, for words
	maxPattern int        // instructions of one
}

// A listEntry is one thing in a list.
type listEntry struct {
	text string
	file int32 // in files; -1: written where the list is
	line int32
}

// A pattern is an entry of a list of regular expressions.
type pattern struct {
	re    *regexp.Regexp
	entry int32
}

// An entryKind says what a list holds, and so what conditions can ask of it.
type entryKind byte

const (
	noKind entryKind = iota
	addressList
	domainList
	networkList
	wordList
	regexList
)

var entryKinds = [...]string{noKind: "", addressList: "addresses", domainList: "domains", networkList: "networks", wordList: "words", regexList: "regexes"}

func (k entryKind) String() string { return entryKinds[k] }

// operator is the word that asks a list of the kind about a text.
func (k entryKind) operator() string {
	switch k {
	case wordList:
		return "contains"
	case regexList:
		return "matches"
	}
	return "in"
}

// add takes an entry in; why says what is wrong with it, at a character of it.
func (l *list) add(e listEntry) (at int, why, remedy string) {
	n := int32(len(l.entries))
	switch l.kind {
	case addressList:
		at, why, remedy = l.addAddress(e.text, n)
	case domainList:
		at, why, remedy = l.addDomain(e.text, n)
	case networkList:
		at, why, remedy = l.addNetwork(e.text, n)
	case wordList:
		at, why, remedy = checkWords(e.text)
	case regexList:
		why, remedy = l.addPattern(e.text, n)
	}
	if why == "" {
		l.entries = append(l.entries, e)
	}
	return at, why, remedy
}

func keep(m *map[string]int32, key string, entry int32) {
	if *m == nil {
		*m = map[string]int32{}
	}
	if _, ok := (*m)[key]; !ok {
		(*m)[key] = entry
	}
}

// firstOf is the place of the first of some characters in a text, in characters, -1 for none.
func firstOf(s, chars string) int {
	for i, r := range []rune(s) {
		if strings.ContainsRune(chars, r) {
			return i
		}
	}
	return -1
}

const oneALine = "write one entry a line; a comment begins with #"

func (l *list) addAddress(s string, n int32) (at int, why, remedy string) {
	if i := firstOf(s, "<>"); i >= 0 {
		return i, "an entry is an address alone", "leave out the name and the < >"
	}
	if i := firstOf(s, ",; \t"); i >= 0 && !strings.Contains(s, `"`) {
		return i, fmt.Sprintf("%q is not one address", shorten(s, 80)), oneALine
	}
	local, domain, ok := strings.Cut(s, "@")
	switch {
	case !ok:
		return 0, fmt.Sprintf("%q is no mail address", shorten(s, 80)), "write user@example.org; domains are kept in a list of the kind domains"
	case local == "*":
		return 0, "an address has no wildcards", "write @" + domain + " for all addresses there"
	case local == "":
		name, why := domainName(domain)
		if why != "" {
			return 0, fmt.Sprintf("%q is no domain: %s", shorten(domain, 80), why), "write @example.org for all addresses there"
		}
		keep(&l.under, name, n)
		return 0, "", ""
	}
	if i := firstOf(s, "*"); i >= 0 {
		return i, "an address has no wildcards", "list the addresses, or keep patterns in a list of the kind regexes"
	}
	a, err := mime.ParseAddress(s)
	if err != nil {
		return 0, err.Error(), "write user@example.org"
	}
	keep(&l.exact, a.String(), n)
	return 0, "", ""
}

// domainName returns a domain in the form in which all are compared, or why it is none.
func domainName(s string) (name, why string) {
	if isPlainDomain(s) {
		return s, ""
	}
	a, err := mime.ParseAddress("x@" + s)
	if err != nil {
		why := err.Error()
		if _, after, ok := strings.Cut(why, `": `); ok {
			why = after
		}
		return "", "it " + why
	}
	if strings.HasPrefix(a.Domain, "[") {
		return "", "it is an address literal"
	}
	return a.Domain, ""
}

// isPlainDomain reports whether a domain is in the form in which domains are compared already, as nearly all are.
func isPlainDomain(s string) bool {
	dot := true // at the beginning, or behind a dot
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			if dot && strings.HasPrefix(s[i:], "xn--") {
				return false
			}
			dot = false
		case c == '.' && !dot:
			dot = true
		default:
			return false
		}
	}
	return !dot
}

func (l *list) addDomain(s string, n int32) (at int, why, remedy string) {
	if strings.Contains(s, "://") {
		return 0, "a list of domains has no links", "write the host alone: example.org"
	}
	if i := firstOf(s, "@"); i >= 0 {
		return i, "a list of domains has no addresses", "write what stands behind the @, or give the list the kind addresses"
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return 0, fmt.Sprintf("%q is an IP address", s), "give the list the kind networks"
	}
	if i := firstOf(s, "/,; \t"); i >= 0 {
		return i, fmt.Sprintf("%q is not one domain", shorten(s, 80)), oneALine
	}
	name, below := s, false
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		name, below = rest, true
	} else if rest, ok := strings.CutPrefix(name, "."); ok {
		name, below = rest, true
	}
	if i := firstOf(name, "*?"); i >= 0 {
		return i + len(s) - len(name), "a wildcard stands at the beginning only", "write *.example.org for all sub-domains; patterns are kept in a list of the kind regexes"
	}
	name, why = domainName(name)
	if why != "" {
		return 0, fmt.Sprintf("%q is no domain: %s", shorten(s, 80), why), "write example.org, or .example.org for its sub-domains"
	}
	if below {
		keep(&l.under, name, n)
	} else {
		keep(&l.exact, name, n)
	}
	return 0, "", ""
}

func (l *list) addNetwork(s string, n int32) (at int, why, remedy string) {
	const usage = "write 192.0.2.0/24, 2001:db8::/32 or one address"
	if i := firstOf(s, ",; \t"); i >= 0 {
		return i, fmt.Sprintf("%q is not one network", shorten(s, 80)), oneALine
	}
	var p netip.Prefix
	if strings.Contains(s, "/") {
		var err error
		if p, err = netip.ParsePrefix(s); err != nil {
			return 0, fmt.Sprintf("%q is no network", shorten(s, 80)), usage
		}
	} else {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return 0, fmt.Sprintf("%q is no network", shorten(s, 80)), usage
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return 0, fmt.Sprintf("%q is wider than the IPv4 addresses in IPv6", s), usage
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if m := p.Masked(); m != p {
		return 0, fmt.Sprintf("%s has bits behind the first %d", s, p.Bits()), fmt.Sprintf("write %s for the network, or %s for the address", m, p.Addr())
	}
	if l.networks == nil {
		l.networks = map[netip.Prefix]int32{}
	}
	if _, ok := l.networks[p]; !ok {
		l.networks[p] = n
	}
	return 0, "", ""
}

// checkWords says what is wrong with an entry of a list of words.
func checkWords(s string) (at int, why, remedy string) {
	if i := firstOf(s, "$*?+^|\\()[]{}<>=~#\"`%@"); i >= 0 {
		return i, fmt.Sprintf("%q is no part of a word", []rune(s)[i]), "words are letters and digits; patterns are kept in a list of the kind regexes"
	}
	if len(strings.TrimSpace(string(appendWords(nil, s)))) == 0 {
		return 0, fmt.Sprintf("%q has no letter or digit", shorten(s, 80)), "patterns are kept in a list of the kind regexes"
	}
	return 0, "", ""
}

func (l *list) addPattern(s string, n int32) (why, remedy string) {
	if why, remedy = badPattern(s, l.maxPattern); why == "" {
		l.patterns = append(l.patterns, pattern{regexp.MustCompile(s), n})
	}
	return why, remedy
}

// seal makes what is asked of the list once all entries are there.
func (l *list) seal() {
	lengths := map[int]bool{}
	for p := range l.networks {
		lengths[p.Bits()] = true
	}
	l.lengths = slices.Sorted(maps.Keys(lengths))
	slices.Reverse(l.lengths)
	if l.kind == wordList {
		var literals []string
		for i, e := range l.entries {
			s := string(appendWords(nil, e.text))
			if _, ok := l.exact[s]; !ok {
				keep(&l.exact, s, int32(i))
				literals = append(literals, s)
				l.need(s)
				l.wordOf = append(l.wordOf, int32(i))
			}
		}
		l.words = newAutomaton(literals, false)
	}
	l.sealPatterns()
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s\n", l.name, l.kind)
	for _, e := range l.entries {
		fmt.Fprintf(sum, "%s\n", e.text)
	}
	l.hash = hex.EncodeToString(sum.Sum(nil)[:8])
}

// need notes the longest word of an entry. A text of ASCII alone holds no other words.
func (l *list) need(words string) {
	longest := ""
	for w := range strings.FieldsSeq(words) {
		if len(w) > len(longest) {
			longest = w
		}
	}
	if isASCII(words) {
		l.needs = append(l.needs, longest)
	}
}

// where says where an entry stands.
func (l *list) where(entry int32) string {
	e := l.entries[entry]
	if e.file < 0 {
		return spot{src: l.pos.src, line: int(e.line), column: 1}.lineOnly()
	}
	return fmt.Sprintf("%s:%d", l.files[e.file], e.line)
}

func (s spot) lineOnly() string {
	if s.src == nil || s.src.path == "" {
		return fmt.Sprintf("line %d", s.line)
	}
	return fmt.Sprintf("%s:%d", s.src.path, s.line)
}

// in returns the entry that a whole text is, ok is false where there is none.
func (l *list) in(text string) (entry int32, ok bool) {
	switch l.kind {
	case addressList:
		return l.inAddresses(text)
	case domainList:
		return l.inDomains(text)
	case networkList:
		return l.inNetworks(text)
	case wordList:
		return l.inWords(text)
	}
	return 0, false
}

func (l *list) inAddresses(text string) (int32, bool) {
	if n, ok := l.exact[text]; ok {
		return n, true
	}
	_, domain, ok := strings.Cut(text, "@")
	if !ok {
		return 0, false
	}
	if n, ok := l.under[domain]; ok {
		return n, true
	}
	if isPlainDomain(domain) && strings.ToLower(text) == text {
		return 0, false
	}
	// What is not in normal form already.
	a, err := mime.ParseAddress(text)
	if err != nil {
		return 0, false
	}
	if n, ok := l.exact[a.String()]; ok {
		return n, true
	}
	n, ok := l.under[a.Domain]
	return n, ok && a.Domain != ""
}

func (l *list) inDomains(text string) (int32, bool) {
	if len(text) > maxDomain {
		return 0, false
	}
	if !isPlainDomain(text) {
		if text, _ = domainName(text); text == "" {
			return 0, false
		}
	}
	if n, ok := l.exact[text]; ok {
		return n, true
	}
	for len(l.under) > 0 {
		_, rest, ok := strings.Cut(text, ".")
		if !ok {
			break
		}
		if n, ok := l.under[rest]; ok {
			return n, true
		}
		text = rest
	}
	return 0, false
}

const (
	maxEntry  = 4 << 10 // octets of a line of a list
	maxDomain = 1 << 10 // octets; longer texts are in no list of domains
)

func (l *list) inNetworks(text string) (int32, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return 0, false
	}
	a = a.Unmap().WithZone("")
	for _, bits := range l.lengths {
		p, err := a.Prefix(bits)
		if err != nil {
			continue // longer than an IPv4 address
		}
		if n, ok := l.networks[p]; ok {
			return n, true
		}
	}
	return 0, false
}

// inWords looks for an entry whose words are all of a text.
func (l *list) inWords(text string) (int32, bool) {
	if len(text) > maxEntry {
		return 0, false
	}
	n, ok := l.exact[string(appendWords(nil, text))]
	return n, ok
}

// find returns an entry that a text holds: of words the first in the text, of patterns the first in the list. words is
// the text as appendWords has it; nil: it is made.
func (l *list) find(text string, words []byte) (entry int32, ok bool) {
	l.each(text, words, func(n int32) bool {
		entry, ok = n, true
		return false
	})
	return entry, ok
}

// count returns how many entries a text holds.
func (l *list) count(text string, words []byte) int {
	seen := map[int32]bool{}
	l.each(text, words, func(n int32) bool {
		seen[n] = true
		return true
	})
	return len(seen)
}

// each calls found with the entries that a text holds, perhaps more than once, until it says false.
func (l *list) each(text string, words []byte, found func(entry int32) bool) {
	switch l.kind {
	case wordList:
		if words == nil {
			words = appendWords(nil, text)
		}
		scan(l.words, words, func(n int32, _ int) bool { return found(l.wordOf[n]) })
	case regexList:
		for _, n := range l.candidates(text) {
			if p := l.patterns[n]; p.re.MatchString(text) && !found(p.entry) {
				return
			}
		}
	}
}

// candidates returns the places of the patterns that can match a text, in the order of the list.
func (l *list) candidates(text string) []int32 {
	out := l.always
	scan(l.literals, text, func(literal int32, _ int) bool {
		if len(out) == len(l.always) {
			out = slices.Clone(out)
		}
		out = append(out, l.requires[literal]...)
		return len(out) < len(l.always)+maxPlaces
	})
	if len(out) >= len(l.always)+maxPlaces {
		out = out[:0:0]
		for n := range l.patterns {
			out = append(out, int32(n))
		}
		return out
	}
	if len(out) == len(l.always) {
		return out
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// sealPatterns makes what finds the literals that patterns require.
func (l *list) sealPatterns() {
	at := map[string]int32{}
	var literals []string
	for n, p := range l.patterns {
		groups := requiredBy(p.re.String()).groups
		if len(groups) == 0 {
			l.always = append(l.always, int32(n))
			continue
		}
		for _, s := range groups[0] {
			k, ok := at[s]
			if !ok {
				k = int32(len(literals))
				at[s], literals, l.requires = k, append(literals, s), append(l.requires, nil)
			}
			if !slices.Contains(l.requires[k], int32(n)) {
				l.requires[k] = append(l.requires[k], int32(n))
			}
		}
	}
	l.needs = append(l.needs, literals...)
	l.literals = newAutomaton(literals, true)
}

// pattern finds an entry in a text that holds it, for showing.
func (l *list) pattern(entry int32) *regexp.Regexp {
	if l.kind == regexList {
		i := slices.IndexFunc(l.patterns, func(p pattern) bool { return p.entry == entry })
		return l.patterns[i].re
	}
	words := strings.Fields(string(appendWords(nil, l.entries[entry].text)))
	for i, w := range words {
		words[i] = regexp.QuoteMeta(w)
	}
	re, err := regexp.Compile(`(?i)` + strings.Join(words, `[^\pL\pN]*`))
	if err != nil {
		return nil
	}
	return re
}

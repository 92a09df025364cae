package rules

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"

	"sluice/pipeline/lookalike"
	"sluice/pipeline/mime"
	"sluice/pipeline/orgdomain"
)

// A function is one of the rule language's own. It gives the same for the same arguments, always, and its cost grows with
// their length alone.
type function struct {
	name  string
	usage string
	args  []kind // floatKind takes any number
	more  bool   // the last of them may come again and again
	gives kind
	lower bool // what it gives is always in lower case
	folds bool // case does not matter to it
	call  func(args []any) any
	// prepare makes what call needs of the constants after the first argument; nil: they stay as they are. Each of them
	// that is wrong is reported.
	prepare func(texts []string, wrong func(at int, text, remedy string)) any
	written bool // these must be written out
	pattern bool // they are patterns
}

// mostArguments is how many arguments a function takes.
const mostArguments = 200

// ownFunctions are all functions whose arguments are values.
func ownFunctions() []function {
	return []function{
		{name: "org", usage: "org(from.domain)", args: []kind{textKind}, gives: textKind, lower: true, call: func(a []any) any {
			return orgOf(a[0].(string))
		}},
		{name: "same_org", usage: "same_org(from.domain, header_from.domain)", args: []kind{textKind, textKind}, gives: boolKind, call: func(a []any) any {
			org := orgOf(a[0].(string))
			return org != "" && org == orgOf(a[1].(string))
		}},
		{
			name: "under", usage: `under(from.domain, "example.org")`, args: []kind{textKind, textKind}, more: true, gives: boolKind,
			call: func(a []any) any { return isUnder(a[0].(string), those(a[1:], domainsOf)) }, prepare: prepareDomains,
		},
		{
			name: "in_network", usage: `in_network(client.ip, "192.0.2.0/24")`, args: []kind{textKind, textKind}, more: true, gives: boolKind, written: true,
			call: func(a []any) any { return isInNetwork(a[0].(string), a[1].([]netip.Prefix)) }, prepare: prepareNetworks,
		},
		{name: "host", usage: `host(header("X-Url"))`, args: []kind{textKind}, gives: textKind, lower: true, call: func(a []any) any {
			return hostOf(head(a[0].(string), longestURL))
		}},
		{name: "unicode", usage: "unicode(helo)", args: []kind{textKind}, gives: textKind, lower: true, call: func(a []any) any {
			return unicodeOf(a[0].(string))
		}},
		{name: "ascii", usage: "ascii(from.domain)", args: []kind{textKind}, gives: textKind, lower: true, call: func(a []any) any {
			name, _ := orgdomain.Canonical(a[0].(string))
			return name
		}},
		{
			name: "looks_like", usage: `looks_like(header_from.domain, "bank.example")`, args: []kind{textKind, textKind}, more: true, gives: boolKind,
			call: func(a []any) any { return looksLike(a[0].(string), those(a[1:], lookalikesOf)) }, prepare: prepareLookalikes,
		},
		{name: "mixed_scripts", usage: "mixed_scripts(header_from.name)", args: []kind{textKind}, gives: boolKind, call: func(a []any) any {
			const shortest = 4
			return lookalike.Mixed(a[0].(string), shortest)
		}},
		{name: "entropy", usage: "entropy(from.local) > 4", args: []kind{textKind}, gives: floatKind, call: func(a []any) any {
			return entropyOf(a[0].(string))
		}},
		{name: "similarity", usage: "similarity(header_from.name, header_from.local)", args: []kind{textKind, textKind}, gives: floatKind, call: func(a []any) any {
			return similarityOf(a[0].(string), a[1].(string))
		}},
		{name: "other_address", usage: "other_address(header_from.name, header_from.address)", args: []kind{textKind, textKind}, gives: textKind, lower: true, call: func(a []any) any {
			return otherAddress(a[0].(string), a[1].(string))
		}},
		{
			name: "has_word", usage: `has_word(subject, "free")`, args: []kind{textKind, textKind}, more: true, gives: boolKind, folds: true,
			call: func(a []any) any { return hasWord(a[0].(string), those(a[1:], wordsOf)) }, prepare: prepareWords,
		},
		{
			name: "count_matches", usage: `count_matches(text, "[0-9]+")`, args: []kind{textKind, textKind}, gives: intKind, written: true, pattern: true,
			call: func(a []any) any { return countMatches(a[0].(string), a[1].(*regexp.Regexp)) }, prepare: preparePattern,
		},
		{name: "indexOf", usage: `indexOf(subject, "!") > 0`, args: []kind{textKind, textKind}, gives: intKind, call: func(a []any) any {
			return characters(a[0].(string), strings.Index(a[0].(string), a[1].(string)))
		}},
		{name: "lastIndexOf", usage: `lastIndexOf(subject, "!") > 0`, args: []kind{textKind, textKind}, gives: intKind, call: func(a []any) any {
			return characters(a[0].(string), strings.LastIndex(a[0].(string), a[1].(string)))
		}},
		{name: "days", usage: "days(2)", args: []kind{floatKind}, gives: intKind, call: seconds(24 * 3600)},
		{name: "hours", usage: "hours(12)", args: []kind{floatKind}, gives: intKind, call: seconds(3600)},
		{name: "minutes", usage: "minutes(30)", args: []kind{floatKind}, gives: intKind, call: seconds(60)},
	}
}

// functionTable is what expr calls.
func functionTable() map[string]*builtin.Function {
	types := map[kind]reflect.Type{
		boolKind: reflect.TypeFor[bool](), intKind: reflect.TypeFor[int](), floatKind: reflect.TypeFor[float64](), textKind: reflect.TypeFor[string](),
	}
	out := map[string]*builtin.Function{}
	for _, f := range ownFunctions() {
		out[f.name] = &builtin.Function{
			Name: f.name,
			Func: func(args ...any) (any, error) { return f.call(args), nil },
			// What the arguments may be is checked before expr sees them.
			Validate: func([]reflect.Type) (reflect.Type, error) { return types[f.gives], nil },
		}
	}
	out[divided] = &builtin.Function{
		Name: divided, Func: divide, Validate: func([]reflect.Type) (reflect.Type, error) { return types[floatKind], nil },
	}
	return out
}

// divided is what a division is called that may be by zero: no name that anybody can write.
const divided = "/"

// divide fails where expr would go on with infinity, which is more than anything.
func divide(args ...any) (any, error) {
	x, y := float(args[0]), float(args[1])
	if y == 0 {
		return nil, errors.New("divide by zero")
	}
	return x / y, nil
}

// float is a number of either kind.
func float(v any) float64 {
	if n, ok := v.(int); ok {
		return float64(n)
	}
	f, _ := v.(float64)
	return f
}

func functionNamed(name string) (function, bool) {
	all := ownFunctions()
	if i := slices.IndexFunc(all, func(f function) bool { return f.name == name }); i >= 0 {
		return all[i], true
	}
	return function{}, false
}

// own checks a call of one of our functions.
func (c *conditionChecker) own(n *ast.CallNode, f function) *typ {
	result := &typ{kind: f.gives, lower: f.lower}
	least := len(f.args)
	switch k := len(n.Arguments); {
	case k < least || k > least && !f.more:
		c.wrongAt(n, fmt.Sprintf("%s() takes %s, not %d", f.name, f.takes(), k), "write for example "+f.usage)
		return result
	case k > mostArguments:
		c.wrongAt(n, fmt.Sprintf("%s() takes at most %d arguments", f.name, mostArguments), "make several rules of it and use hit(), or keep a list in a file")
		return result
	}
	for i := range n.Arguments {
		a := n.Arguments[i]
		want := f.args[min(i, least-1)]
		t := c.expr(a)
		if want == floatKind {
			t = c.number(&n.Arguments[i], t)
		}
		switch s, isText := a.(*ast.StringNode); {
		case t.kind == badKind:
		case want == textKind && t.kind != textKind, want == floatKind && !t.isNumber():
			remedy := "write for example " + f.usage
			if t.kind == listKind && t.elem != nil && t.elem.kind == textKind {
				remedy = fmt.Sprintf("ask any(%s, %s(#, …))", c.source(a), f.name)
			}
			c.wrongAt(a, fmt.Sprintf("%s() takes %s; `%s` is %s", f.name, &typ{kind: want}, c.source(a), t), remedy)
		case i > 0 && isText && f.prepare != nil:
			if f.pattern {
				c.pattern(a)
				continue
			}
			f.prepare([]string{s.Value}, func(_ int, text, remedy string) { c.wrongAt(a, text, remedy) })
		case i > 0 && f.written:
			c.wrongAt(a, fmt.Sprintf("%s() takes what is written out in quotes here", f.name), "write for example "+f.usage)
		}
	}
	return result
}

// takes says how many arguments a function takes.
func (f function) takes() string {
	n := fmt.Sprint(len(f.args))
	switch {
	case f.more:
		return n + " arguments or more"
	case len(f.args) == 1:
		return "one argument"
	}
	return n + " arguments"
}

// prepared puts what the constants of a call are made into in their place.
func prepared(n *ast.CallNode, f function) {
	if f.prepare == nil || len(n.Arguments) < 2 {
		return
	}
	var texts []string
	for _, a := range n.Arguments[1:] {
		s, ok := a.(*ast.StringNode)
		if !ok {
			return
		}
		texts = append(texts, s.Value)
	}
	made := f.prepare(texts, func(int, string, string) {})
	constant := &ast.ConstantNode{Value: made}
	constant.SetLocation(n.Arguments[1].Location())
	constant.SetType(reflect.TypeOf(made))
	n.Arguments = []ast.Node{n.Arguments[0], constant}
}

// those are the arguments behind the first, prepared or as they come.
func those[T any](args []any, of func(texts []string) []T) []T {
	if list, ok := args[0].([]T); ok {
		return list
	}
	texts := make([]string, len(args))
	for i, a := range args {
		texts[i] = a.(string)
	}
	return of(texts)
}

const longestURL = 4096 // octets that are looked at

// hostOf is the host that a URL leads to as addresses have domains, "" for what is no URL.
//
// What begins with www. is one without its scheme, as mail programs take it: what a link shows is mostly written so.
func hostOf(url string) string {
	if url = strings.TrimSpace(url); len(url) > 4 && strings.EqualFold(url[:4], "www.") {
		url = "http://" + url
	}
	host := mime.HostOf(url)
	if name := unicodeOf(host); name != "" {
		return name
	}
	return strings.ToLower(host)
}

// A domain is a name as addresses have it, "" for what is none.
type domain string

func domainsOf(texts []string) []domain {
	out := make([]domain, len(texts))
	for i, s := range texts {
		out[i] = domain(unicodeOf(s))
	}
	return out
}

func prepareDomains(texts []string, wrong func(int, string, string)) any {
	list := domainsOf(texts)
	for i, d := range list {
		if d == "" || !isWritten(texts[i]) {
			wrong(i, fmt.Sprintf("%q is no domain", texts[i]), notDomain(texts[i]))
		}
	}
	return list
}

// isWritten reports whether a domain is one that somebody writes: none with wildcards, say, as names from a mail may be.
func isWritten(s string) bool { return !strings.ContainsAny(s, "*?()<>[]{}:;,|&%$!#\"'\\") }

// notDomain says what to write instead of what is no domain.
func notDomain(s string) string {
	if at := strings.LastIndexByte(s, '@'); at >= 0 && unicodeOf(s[at+1:]) != "" {
		return fmt.Sprintf("write %q", s[at+1:])
	}
	if rest := strings.TrimLeft(s, "*."); rest != s && unicodeOf(rest) != "" {
		return fmt.Sprintf("write %q: what is below it belongs to it", rest)
	}
	return "write for example \"example.org\""
}

func isUnder(name string, of []domain) bool {
	d := unicodeOf(name)
	if d == "" {
		return false
	}
	for _, o := range of {
		if o == "" {
			continue
		}
		if rest, ok := strings.CutSuffix(d, string(o)); ok && (rest == "" || rest[len(rest)-1] == '.') {
			return true
		}
	}
	return false
}

// unicodeOf returns a domain as addresses have it: in lower case, U-labels, without a trailing dot; "" for what is none.
func unicodeOf(s string) string {
	const longestLabel = 63
	if len(s) <= longestLabel && isPlainDomain(s) {
		return s
	}
	name, ok := orgdomain.Canonical(s)
	if !ok {
		return ""
	}
	return shownDomain(name)
}

// orgOf returns to whom a domain belongs, as addresses have domains; "" for what is none.
func orgOf(s string) string {
	org, ok := orgdomain.Of(s)
	if !ok {
		return ""
	}
	return shownDomain(org)
}

var errNoNetwork = errors.New("no network")

// network reads an address or a network; what stands behind the mask does not count.
func network(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, errNoNetwork
	}
	return p, nil
}

func prepareNetworks(texts []string, wrong func(int, string, string)) any {
	list := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		p, err := network(s)
		if err != nil {
			wrong(i, fmt.Sprintf("%q is no network", s), `write an address, or one with the length of its network: "192.0.2.0/24"`)
			continue
		}
		if m := p.Masked(); m != p {
			wrong(i, fmt.Sprintf("%q has bits behind its mask", s), fmt.Sprintf("write %q", m))
		}
		list[i] = p
	}
	return list
}

func isInNetwork(ip string, list []netip.Prefix) bool {
	a, err := netip.ParseAddr(strings.Trim(ip, "[] "))
	if err != nil {
		return false
	}
	a = a.Unmap().WithZone("")
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func lookalikesOf(texts []string) []lookalike.Domain {
	out := make([]lookalike.Domain, len(texts))
	for i, s := range texts {
		out[i], _ = lookalike.NewDomain(s)
	}
	return out
}

func prepareLookalikes(texts []string, wrong func(int, string, string)) any {
	list := lookalikesOf(texts)
	for i, d := range list {
		if d.Org == "" || !isWritten(texts[i]) {
			wrong(i, fmt.Sprintf("%q is no domain that somebody owns", texts[i]), notDomain(texts[i]))
		}
	}
	return list
}

func looksLike(name string, list []lookalike.Domain) bool {
	d, ok := lookalike.NewDomain(name)
	if !ok {
		return false
	}
	full := unicodeOf(name)
	like := false
	for _, o := range list {
		if o.Org == d.Org {
			return false // it is one of them
		}
		like = like || o.How(d, full, false) != ""
	}
	return like
}

// entropyOf is Shannon's, in bits a character.
func entropyOf(s string) float64 {
	var plain [128]int
	other := map[rune]int{}
	n := 0
	for _, r := range s {
		n++
		if r < 128 {
			plain[r]++
			continue
		}
		other[r]++
	}
	sum := 0.0
	add := func(k int) {
		if k > 0 {
			p := float64(k) / float64(n)
			sum -= p * math.Log2(p)
		}
	}
	for _, k := range plain {
		add(k)
	}
	// A sum of fractions depends on their order, and a map has none.
	var rest []int
	for _, k := range other {
		rest = append(rest, k)
	}
	slices.Sort(rest)
	for _, k := range rest {
		add(k)
	}
	return sum
}

const longestCompared = 256 // octets of a text that is compared letter by letter

// similarityOf says how alike two texts are, from 0 to 1, by the pairs of letters that both have (Dice). Case, punctuation
// and the order of words do not count, and letters that look alike are one.
func similarityOf(a, b string) float64 {
	x, y := pairs(a), pairs(b)
	if len(x) == 0 || len(y) == 0 {
		return 0
	}
	both, i, j := 0, 0, 0
	for i < len(x) && j < len(y) {
		switch c := slices.Compare(x[i][:], y[j][:]); {
		case c == 0:
			both++
			i++
			j++
		case c < 0:
			i++
		default:
			j++
		}
	}
	return 2 * float64(both) / float64(len(x)+len(y))
}

// pairs are the pairs of letters of each word of a text, in order; a word of one letter has it alone.
func pairs(s string) (out [][2]rune) {
	for w := range strings.FieldsSeq(lookalike.Name(head(s, longestCompared))) {
		r := []rune(w)
		if len(r) == 1 {
			out = append(out, [2]rune{r[0], 0})
		}
		for i := range len(r) - 1 {
			out = append(out, [2]rune{r[i], r[i+1]})
		}
	}
	slices.SortFunc(out, func(a, b [2]rune) int { return slices.Compare(a[:], b[:]) })
	return out
}

// otherAddress returns the first address in a display name that is not the real one; the subaddress does not count.
func otherAddress(name, own string) string {
	const most = 20
	is := bareAddress(own)
	rest := head(name, 4*longestCompared)
	for range most {
		found := lookalike.AddressIn(rest)
		if found == "" {
			return ""
		}
		if other := bareAddress(found); other != "" && other != is {
			return other
		}
		at := strings.Index(rest, found)
		if at < 0 {
			return ""
		}
		rest = rest[at+len(found):]
	}
	return ""
}

// wordsOf are words as they are looked for.
func wordsOf(texts []string) []word {
	out := make([]word, len(texts))
	for i, s := range texts {
		out[i] = word(strings.ToLower(strings.Join(strings.Fields(s), " ")))
	}
	return out
}

type word string

func prepareWords(texts []string, wrong func(int, string, string)) any {
	list := wordsOf(texts)
	for i, w := range list {
		if w == "" {
			wrong(i, "an empty word is everywhere", "")
		}
	}
	return list
}

// hasWord reports whether one of the words stands in a text, not inside another word.
func hasWord(text string, words []word) bool {
	text = strings.ToLower(text)
	for _, w := range words {
		if wordIndex(text, string(w)) >= 0 {
			return true
		}
	}
	return false
}

// wordIndex returns where a word or a phrase stands in a text, -1 for nowhere. Any white space separates the words of a phrase,
// as in a list of words: mail is wrapped.
func wordIndex(text, w string) int {
	if w == "" {
		return -1
	}
	first, others, _ := strings.Cut(w, " ")
	for at := 0; ; {
		i := strings.Index(text[at:], first)
		if i < 0 {
			return -1
		}
		begin := at + i
		end, ok := phraseEnd(text, begin+len(first), others)
		if ok && !letterBefore(text, begin, w) && !letterAfter(text, end, w) {
			return begin
		}
		at = begin + runeLen(text[begin:])
	}
}

// phraseEnd returns where words end that stand in text from at on, each behind white space.
func phraseEnd(text string, at int, words string) (end int, ok bool) {
	for words != "" {
		var w string
		w, words, _ = strings.Cut(words, " ")
		rest := strings.TrimLeftFunc(text[at:], unicode.IsSpace)
		if len(rest) == len(text[at:]) || !strings.HasPrefix(rest, w) {
			return 0, false
		}
		at = len(text) - len(rest) + len(w)
	}
	return at, true
}

// characters is how many of them stand before the octet at, as len() counts them; -1 stays what it is.
func characters(text string, at int) int {
	if at < 0 {
		return at
	}
	return utf8.RuneCountInString(text[:at])
}

const maxMatches = 1000 // that count_matches counts

func preparePattern(texts []string, _ func(int, string, string)) any {
	re, err := regexp.Compile(texts[0])
	if err != nil {
		return (*regexp.Regexp)(nil) // reported by the checker of patterns
	}
	return re
}

func countMatches(text string, re *regexp.Regexp) int {
	return len(re.FindAllStringIndex(text, maxMatches))
}

// seconds makes a function that gives seconds. What no clock reaches is the largest or smallest there is.
func seconds(of float64) func([]any) any {
	return func(a []any) any {
		var n float64
		switch x := a[0].(type) {
		case int:
			n = float64(x)
		case float64:
			n = x
		}
		const most = 1 << 53
		switch n *= of; {
		case n != n:
			return 0
		case n > most:
			return most
		case n < -most:
			return -most
		}
		return int(n)
	}
}

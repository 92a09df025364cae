package mime

import (
	"slices"
	"strconv"
	"strings"
)

// A structured value is that of Content-Type or Content-Disposition: a word and parameters.
type structured struct {
	word   string // in lower case
	params map[string]string
	more   bool // there are more parameters than the limit
	odd    bool // something is not as RFC 2045, 5.1 has it
}

// parseStructured reads a field tolerantly. Names are lower-cased, values decoded (RFC 2231, and RFC 2047 where writers
// used that instead); of two parameters of one name the first counts.
func parseStructured(s string, most int) structured {
	word, rest, odd := mediaType(s)
	v := structured{word: word, odd: odd}
	var pieces []piece
	for n := 0; rest != ""; n++ {
		var name, value string
		var ok bool
		name, value, rest, ok = nextParam(rest)
		switch {
		case name == "" && !ok:
			v.odd = true
			continue
		case name == "":
			continue
		case n >= most:
			v.more = true
			rest = ""
			continue
		case v.params == nil:
			v.params = map[string]string{}
		}
		if base, p, ok := splitParam(name); ok {
			p.value = value
			p.name = base
			pieces = append(pieces, p)
			continue
		}
		if _, twice := v.params[name]; twice {
			v.odd = true
			continue
		}
		v.params[name] = decodeWords(value)
	}
	v.join(pieces)
	return v
}

// mediaType takes the word at the beginning of a value. Where no semicolon follows it but something that may be a
// parameter, some writers have forgotten it, or made it a comma.
func mediaType(s string) (word, rest string, odd bool) {
	head, rest, _ := strings.Cut(s, ";")
	if i := strings.IndexByte(head, '('); i >= 0 {
		head = head[:i]
	}
	head = strings.TrimSpace(head)
	i := strings.IndexAny(head, " \t,")
	switch {
	case i < 0:
		return strings.ToLower(head), rest, false
	case strings.IndexByte(head[i:], '=') < 0:
		return strings.ToLower(head), rest, true
	}
	return strings.ToLower(head[:i]), strings.TrimLeft(s[strings.Index(s, head)+i:], " \t,"), true
}

// nextParam reads one parameter from s. ok is false where there is something that is none.
func nextParam(s string) (name, value, rest string, ok bool) {
	s = skipSpace(s)
	end := strings.IndexAny(s, "=;")
	if end < 0 {
		return "", "", "", s == ""
	}
	if s[end] == ';' {
		return "", "", s[end+1:], strings.TrimSpace(s[:end]) == ""
	}
	name = strings.ToLower(strings.TrimSpace(s[:end]))
	s = skipSpace(s[end+1:])
	if s == "" || s[0] != '"' {
		end = strings.IndexByte(s, ';')
		if end < 0 {
			return name, trimToken(s), "", true
		}
		return name, trimToken(s[:end]), s[end+1:], true
	}
	p := addressParser{s: s}
	if value = p.quoted(); p.noQuotes { // it does not end
		return name, s[1:], "", true
	}
	rest = s[p.at:]
	end = strings.IndexByte(rest, ';')
	if end < 0 {
		end = len(rest)
	}
	if strings.IndexByte(rest[:end], '=') > 0 && (rest[0] == ' ' || rest[0] == '\t' || rest[0] == ',') {
		return name, value, strings.TrimLeft(rest, " \t,"), true // a forgotten semicolon
	}
	return name, value, rest[min(end+1, len(rest)):], true
}

// trimToken takes white space and a trailing comment off a value without quotes.
func trimToken(s string) string {
	if i := strings.Index(s, " ("); i >= 0 {
		s = s[:i]
	}
	return strings.TrimSpace(s)
}

func skipSpace(s string) string { return strings.TrimLeft(s, " \t\r\n") }

// A piece is one parameter in the manner of RFC 2231: name*0*, name*1, name*.
type piece struct {
	name    string
	index   int
	encoded bool
	value   string
}

func splitParam(name string) (base string, p piece, ok bool) {
	base, tail, ok := strings.Cut(name, "*")
	if !ok || base == "" {
		return "", p, false
	}
	if tail == "" {
		return base, piece{encoded: true}, true
	}
	tail, p.encoded = strings.CutSuffix(tail, "*")
	i, err := strconv.ParseUint(tail, 10, 16)
	if err != nil {
		return "", p, false
	}
	p.index = int(i)
	return base, p, true
}

// join puts continued parameters together: RFC 2231, 3 and 4. A gap ends nothing: what there is counts.
func (v *structured) join(pieces []piece) {
	slices.SortStableFunc(pieces, func(a, b piece) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return a.index - b.index
	})
	for len(pieces) > 0 {
		name := pieces[0].name
		n := slices.IndexFunc(pieces, func(p piece) bool { return p.name != name })
		if n < 0 {
			n = len(pieces)
		}
		label, named := "", false // the first encoded piece names the charset, also where the first piece is not encoded
		var value []byte
		for i, p := range pieces[:n] {
			if i > 0 && p.index == pieces[i-1].index {
				v.odd = true
				continue
			}
			if i > 0 && p.index != pieces[i-1].index+1 || i == 0 && p.index != 0 {
				v.odd = true // a gap
			}
			if !p.encoded {
				value = append(value, p.value...)
				continue
			}
			if !named {
				named = true
				if parts := strings.SplitN(p.value, "'", 3); len(parts) == 3 && (i == 0 || toUTF8(parts[0], nil).known) {
					label, p.value = parts[0], parts[2]
				}
			}
			value = append(value, decodePercent(p.value)...)
		}
		// The encoded form is the one meant for those who understand it (RFC 6266, 4.3 says so outright).
		c := toUTF8(label, value)
		if label == "" {
			c.text = decodeWords(c.text)
		}
		v.odd = v.odd || !c.known
		v.params[name] = c.text
		pieces = pieces[n:]
	}
}

func decodePercent(s string) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			out = append(out, hexValue(s[i+1])<<4|hexValue(s[i+2]))
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return out
}

package sieve

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"strings"
)

// compileRegex compiles an extended regular expression of POSIX, with the escapes that the GNU C library knows, for Go's
// linear-time engine. Long matches win over short ones, as POSIX has it. err says what is wrong with it.
func compileRegex(s string, c comparator) (e *expression, err string) {
	const (
		longest = 4096
		most    = 1000 // steps of the program: what a match of one octet can cost
	)
	if len(s) > longest {
		return nil, sprintf("the regular expression has %d octets; %d are allowed", len(s), longest)
	}
	translated, wrong := translateRegex(s)
	if wrong != "" {
		return nil, "the regular expression " + wrong
	}
	flags := "(?s)"
	if c != octet {
		flags = "(?is)"
	}
	tree, fault := syntax.Parse(flags+translated, syntax.Perl)
	if fault == nil {
		var program *syntax.Prog
		if program, fault = syntax.Compile(tree.Simplify()); fault == nil && len(program.Inst) > most {
			return nil, sprintf("the regular expression is too large: it comes to %d steps, and %d are allowed", len(program.Inst), most)
		}
		if fault == nil {
			re, fault := regexp.Compile(flags + translated)
			if fault == nil {
				re.Longest()
				return &expression{re, len(program.Inst), needed(tree)}, ""
			}
		}
	}
	what := fault.Error()
	if x := (*syntax.Error)(nil); errors.As(fault, &x) {
		what = string(x.Code)
		if x.Expr != "" {
			what += " at " + sprintf("%q", clip(strings.TrimPrefix(x.Expr, flags)))
		}
	}
	return nil, "the regular expression has an error: " + what
}

// needed returns words in lower case of which every match of an expression has one; nil where there are no such.
func needed(x *syntax.Regexp) (words []string) {
	const most = 16 // they are sought one by one
	switch x.Op {
	case syntax.OpLiteral:
		if word := longestPlain(x.Rune); word != "" {
			return []string{word}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return needed(x.Sub[0])
	case syntax.OpRepeat:
		if x.Min > 0 {
			return needed(x.Sub[0])
		}
	case syntax.OpConcat: // the part whose shortest word is longest
		for _, sub := range x.Sub {
			if w := needed(sub); shortest(w) > shortest(words) {
				words = w
			}
		}
	case syntax.OpAlternate:
		for _, sub := range x.Sub {
			w := needed(sub)
			if w == nil || len(words)+len(w) > most {
				return nil
			}
			words = append(words, w...)
		}
	}
	return words
}

// longestPlain is the longest stretch of a literal that has one spelling in lower case. K and S are left out: they match
// the sign for kelvin and the long s, too.
func longestPlain(literal []rune) string {
	best := ""
	for word := range strings.FieldsFuncSeq(lowerASCII(string(literal)), func(r rune) bool { return r >= 0x80 || r == 'k' || r == 's' }) {
		if len(word) > len(best) {
			best = word
		}
	}
	return best
}

func shortest(words []string) int {
	n := 0
	for i, w := range words {
		if i == 0 || len(w) < n {
			n = len(w)
		}
	}
	return n
}

// translateRegex writes an expression of POSIX as one of Go that means the same.
func translateRegex(s string) (out, wrong string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '[':
			end, class, wrong := bracket(s[i:])
			if wrong != "" {
				return "", wrong
			}
			b.WriteString(class)
			i += end - 1
		case c == '\\' && i+1 == len(s):
			return "", "ends with a backslash"
		case c == '\\':
			i++
			switch d := s[i]; {
			case '1' <= d && d <= '9':
				return "", sprintf(`has the back reference \%c, which cannot be found in linear time`, d)
			case d == 'w':
				b.WriteString(`[0-9A-Za-z_]`)
			case d == 'W':
				b.WriteString(`[^0-9A-Za-z_]`)
			case d == 's':
				b.WriteString(`[[:space:]]`)
			case d == 'S':
				b.WriteString(`[^[:space:]]`)
			case d == 'b' || d == 'B':
				b.WriteString(`\` + string(d))
			case d == '<' || d == '>':
				b.WriteString(`\b`)
			case d == '`':
				b.WriteString(`\A`)
			case d == '\'':
				b.WriteString(`\z`)
			case isLetter(d) && d != '_' || d == '0':
				b.WriteByte(d) // it stands for itself
			default:
				b.WriteString(regexp.QuoteMeta(string(d)))
				if d >= 0x80 { // an octet of a character: it is no escape
					out := b.String()
					b.Reset()
					b.WriteString(out[:len(out)-len(regexp.QuoteMeta(string(d)))])
					b.WriteByte(d)
				}
			}
		case c == '(' && i+1 < len(s) && s[i+1] == '?':
			return "", "has (?, which is none of POSIX's"
		case (c == '*' || c == '+' || c == '?') && i+1 < len(s) && (s[i+1] == '?' || s[i+1] == '*' || s[i+1] == '+'):
			// POSIX repeats the repeated; Go has other meanings for two such signs.
			all := string(c)
			for i+1 < len(s) && (s[i+1] == '?' || s[i+1] == '*' || s[i+1] == '+') {
				i++
				all += string(s[i])
			}
			b.WriteString(repeated(all))
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

// repeated is the one sign that several come to.
func repeated(all string) string {
	switch {
	case strings.Trim(all, "+") == "":
		return "+"
	case strings.Trim(all, "?") == "":
		return "?"
	}
	return "*"
}

// bracket reads a bracket expression, in which POSIX knows no backslash, and returns it as Go has it.
func bracket(s string) (end int, class, wrong string) {
	var b strings.Builder
	b.WriteByte('[')
	i := 1
	if i < len(s) && s[i] == '^' {
		b.WriteByte('^')
		i++
	}
	for first := true; i < len(s); first = false {
		switch c := s[i]; {
		case c == ']' && !first:
			b.WriteByte(']')
			return i + 1, b.String(), ""
		case c == '[' && i+1 < len(s) && s[i+1] == ':':
			n := strings.Index(s[i+2:], ":]")
			if n < 0 {
				return 0, "", "has [: without :]"
			}
			b.WriteString(s[i : i+2+n+2])
			i += 2 + n + 2
			continue
		case c == '[' && i+1 < len(s) && (s[i+1] == '.' || s[i+1] == '='):
			return 0, "", sprintf("has [%c, a collating element, which is not known here", s[i+1])
		case c == '\\' || c == '[' || c == ']' || c == '^' || c == '&' || c == '~':
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
		i++
	}
	return 0, "", "has a [ without a ]"
}

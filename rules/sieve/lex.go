package sieve

import (
	"math"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenName
	tokenTag
	tokenNumber
	tokenString
	tokenSign // one of [ ] ( ) { } , ;
	tokenBad  // it has been reported
)

// A token of RFC 5228, 8.1.
type token struct {
	kind   tokenKind
	at     span
	text   string // of a name or tag as written, without the colon; the value of a string; a sign
	number int64
}

// describe says what a token is, to somebody who sees it where another should be.
func (t token) describe() string {
	switch t.kind {
	case tokenEnd:
		return "the end of the script"
	case tokenName:
		return sprintf("%q", clip(t.text))
	case tokenTag:
		return ":" + clip(t.text)
	case tokenNumber:
		return sprintf("the number %d", t.number)
	case tokenString:
		return "a string"
	}
	return sprintf("%q", t.text)
}

// clip shortens what a script has written for a line of ours.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// A lexer cuts a script into tokens.
type lexer struct {
	*reporter
	at     int
	limits Limits
	dead   bool // the rest of the script cannot be read, which has been reported
}

func (l *lexer) next() token {
	l.blank()
	from := l.at
	if from >= len(l.text) {
		return l.end()
	}
	switch c := l.text[from]; {
	case strings.IndexByte("[](){},;", c) >= 0:
		l.at++
		return token{kind: tokenSign, at: span{from, l.at}, text: l.text[from:l.at]}
	case c == '"':
		return l.quoted()
	case isDigit(c):
		return l.numeral()
	case c == ':':
		l.at++
		if l.at == len(l.text) || !isLetter(l.text[l.at]) {
			l.report(span{from, l.at}, "a colon begins a tag, and no name of one follows", "write for example :is")
			return token{kind: tokenBad, at: span{from, l.at}}
		}
		l.word()
		return token{kind: tokenTag, at: span{from, l.at}, text: l.text[from+1 : l.at]}
	case isLetter(c):
		l.word()
		if l.at-from == 4 && l.at < len(l.text) && l.text[l.at] == ':' && strings.EqualFold(l.text[from:l.at], "text") {
			return l.multiline(from)
		}
		return token{kind: tokenName, at: span{from, l.at}, text: l.text[from:l.at]}
	}
	return l.strange()
}

func (l *lexer) end() token { return token{kind: tokenEnd, at: span{len(l.text), len(l.text)}} }

// ends gives the rest of the script up.
func (l *lexer) ends() token {
	l.dead, l.at = true, len(l.text)
	return l.end()
}

func (l *lexer) word() {
	for l.at < len(l.text) && (isLetter(l.text[l.at]) || isDigit(l.text[l.at])) {
		l.at++
	}
}

// strange takes what begins no token, as far as it goes, so that it is reported once.
func (l *lexer) strange() token {
	from := l.at
	for l.at < len(l.text) && l.text[l.at] > ' ' && strings.IndexByte("[](){},;\":#", l.text[l.at]) < 0 && !isLetter(l.text[l.at]) &&
		!isDigit(l.text[l.at]) {
		l.at++
	}
	l.at = max(l.at, from+1)
	at := span{from, l.at}
	switch s := l.text[from:l.at]; {
	case strings.HasPrefix(s, "'") || strings.HasPrefix(s, "“") || strings.HasPrefix(s, "„") || strings.HasPrefix(s, "‘"):
		line := l.text[at.to:l.lineEnd(at.to)]
		if i := strings.IndexAny(line, "'“”‘’\""); i >= 0 && s != "'" || i > 0 {
			_, n := utf8.DecodeRuneInString(line[i:])
			l.at, at.to = at.to+i+n, at.to+i+n
		}
		l.report(at, sprintf("%q is no quote that Sieve knows", clip(s)), `strings stand in "double quotes"`)
	case strings.HasPrefix(s, "//"):
		l.report(at, "// begins no comment", "write # to the end of the line, or /* … */")
	case s == "\ufeff" && from == 0:
		return l.next() // the mark that some editors put before UTF-8
	default:
		l.report(at, sprintf("%q has no meaning here", clip(s)), "")
	}
	return token{kind: tokenBad, at: at}
}

// blank skips white space and comments.
func (l *lexer) blank() {
	for l.at < len(l.text) {
		switch c := l.text[l.at]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			l.at++
		case c == '#':
			l.at = l.lineEnd(l.at)
		case c == '/' && strings.HasPrefix(l.text[l.at:], "/*"):
			end := strings.Index(l.text[l.at+2:], "*/")
			if end < 0 {
				l.report(span{l.at, l.at + 2}, "the comment that begins here does not end", "close it with */")
				l.ends()
				return
			}
			l.at += 2 + end + 2
		default:
			return
		}
	}
}

// lineEnd returns where the next line begins.
func (l *lexer) lineEnd(at int) int {
	if i := strings.IndexByte(l.text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(l.text)
}

// numeral reads 100, 100K, 100M and 100G.
func (l *lexer) numeral() token {
	from := l.at
	n, large := int64(0), false
	for l.at < len(l.text) && isDigit(l.text[l.at]) {
		if n > (math.MaxInt64-9)/10 {
			large = true
		} else {
			n = n*10 + int64(l.text[l.at]-'0')
		}
		l.at++
	}
	unit := l.at
	l.word()
	shift := 0
	switch suffix := l.text[unit:l.at]; {
	case suffix == "":
	case strings.EqualFold(suffix, "K"):
		shift = 10
	case strings.EqualFold(suffix, "M"):
		shift = 20
	case strings.EqualFold(suffix, "G"):
		shift = 30
	default:
		l.report(span{from, l.at}, sprintf("%q is no number", clip(l.text[from:l.at])),
			"a number is digits and then K, M or G, if anything")
		return token{kind: tokenBad, at: span{from, l.at}}
	}
	if large || n > math.MaxInt64>>shift {
		l.report(span{from, l.at}, sprintf("the number %s is too large", clip(l.text[from:l.at])), "the largest is 9223372036854775807")
		return token{kind: tokenBad, at: span{from, l.at}}
	}
	return token{kind: tokenNumber, at: span{from, l.at}, number: n << shift}
}

// quoted reads "a string" (RFC 5228, 2.4.2). A backslash takes the next character as it is; line ends become CRLF.
func (l *lexer) quoted() token {
	from := l.at
	l.at++
	begin := l.at
	var b strings.Builder
	kept := begin
	for ; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; {
		case c == '"':
			value := l.text[kept:l.at]
			if b.Len() > 0 || kept > begin {
				b.WriteString(value)
				value = b.String()
			}
			l.at++
			return l.string(value, span{from, l.at})
		case c == '\\' && l.at+1 < len(l.text):
			b.WriteString(l.text[kept:l.at])
			l.at++
			kept = l.at
			if l.text[l.at] == '\n' {
				l.at-- // it is seen as a line end again
			}
		case c == '\n' && l.text[l.at-1] != '\r':
			b.WriteString(l.text[kept:l.at])
			b.WriteString("\r\n")
			kept = l.at + 1
		}
	}
	l.report(span{from, l.lineEnd(from)}, "the string that begins here does not end", `close it with "`)
	return l.ends()
}

// multiline reads text: up to a line with nothing but a dot (RFC 5228, 2.4.2); a dot that begins another line is doubled.
func (l *lexer) multiline(from int) token {
	l.at++
	for l.at < len(l.text) && (l.text[l.at] == ' ' || l.text[l.at] == '\t') {
		l.at++
	}
	rest := l.text[l.at:]
	if !strings.HasPrefix(rest, "#") && !strings.HasPrefix(rest, "\n") && !strings.HasPrefix(rest, "\r\n") {
		l.report(span{from, l.lineEnd(from)}, "something stands behind text: on its line", "the text begins on the next line")
	}
	l.at = l.lineEnd(l.at)
	var b strings.Builder
	for l.at < len(l.text) {
		next := l.lineEnd(l.at)
		line := strings.TrimSuffix(l.text[l.at:next], "\n")
		ended := len(line) < next-l.at
		line = strings.TrimSuffix(line, "\r")
		l.at = next
		if line == "." {
			return l.string(b.String(), span{from, next})
		}
		b.WriteString(strings.TrimPrefix(line, "."))
		if ended {
			b.WriteString("\r\n")
		}
	}
	l.report(span{from, l.lineEnd(from)}, "the text that begins here does not end", "close it with a line that has nothing but a dot")
	return l.ends()
}

// string checks the value of a string.
func (l *lexer) string(value string, at span) token {
	bad := token{kind: tokenBad, at: at}
	if most := l.limits.StringSize; len(value) > most {
		l.report(at, sprintf("the string has %d octets; %d are allowed", len(value), most), "")
		return bad
	}
	if strings.IndexByte(value, 0) >= 0 {
		l.report(at, "the string has a NUL", `write ${hex:00} with require "encoded-character"`)
		return bad
	}
	if !utf8.ValidString(value) {
		l.report(at, "the string is not UTF-8", "save the script as UTF-8")
		return bad
	}
	return token{kind: tokenString, at: at, text: value}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' }

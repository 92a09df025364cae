package authres

import (
	"slices"
	"strings"
)

const (
	mostName = 253
	// mostField is how long the field may be without its name. With it, it is below the 998 octets that a line may have
	// (RFC 5322, 2.1.1): unfolded, for there are clients that lose mail with longer ones.
	mostField   = 950
	mostValue   = 120
	mostReason  = 120
	mostResults = 50
	// With the name these fit into the field: no result is too long by itself.
	mostProperties = 4
)

// A writer puts results into one line of printable ASCII, whatever they contain. The zero value of its results is none.
type writer struct {
	name    string
	results []result
}

type result struct {
	text   string // " spf=pass smtp.mailfrom=example.org"
	short  string // without the reason
	method string
	pass   bool
}

// say notes a result. What is no method, result or property is left out.
func (w *writer) say(method, verdict, reason string, properties ...string) {
	if !isKeyword(method) || !isKeyword(verdict) || len(w.results) == mostResults {
		return
	}
	head, rest := " "+method+"="+verdict, ""
	for i := 0; i+1 < min(len(properties), 2*mostProperties); i += 2 {
		ptype, property, ok := strings.Cut(properties[i], ".")
		if ok && isKeyword(ptype) && isKeyword(property) && properties[i+1] != "" {
			rest += " " + properties[i] + "=" + value(properties[i+1], mostValue)
		}
	}
	r := result{short: head + rest, method: method, pass: verdict == "pass"}
	r.text = r.short
	if reason != "" && !r.pass {
		r.text = head + " reason=" + quoted(reason, mostReason) + rest
	}
	w.results = append(w.results, r)
}

// String is the value of the field. Where there is not room for all results, reasons go first, then signatures, those
// that pass last.
func (w *writer) String() string {
	size := len(value(w.name, mostName))
	for _, r := range w.results {
		size += len(";") + len(r.text)
	}
	for i := len(w.results) - 1; i >= 0 && size > mostField; i-- {
		r := &w.results[i]
		size -= len(r.text) - len(r.short)
		r.text = r.short
	}
	for _, least := range []func(result) bool{
		func(r result) bool { return r.method == "dkim" && !r.pass },
		func(r result) bool { return r.method == "dkim" },
		func(result) bool { return true },
	} {
		for i := len(w.results) - 1; i >= 0 && size > mostField; i-- {
			if least(w.results[i]) {
				size -= len(";") + len(w.results[i].text)
				w.results = slices.Delete(w.results, i, i+1)
			}
		}
	}
	var b strings.Builder
	b.WriteString(value(w.name, mostName))
	if len(w.results) == 0 {
		b.WriteString("; none")
	}
	for _, r := range w.results {
		b.WriteString(";" + r.text)
	}
	return b.String()
}

// isKeyword: RFC 8601, 2.2: Keyword, of which methods, results, ptypes and properties are made.
func isKeyword(s string) bool {
	return s != "" && len(s) <= 30 && s[len(s)-1] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// value writes a value: as it is where it is a token (RFC 2045, 5.1), or an address or a domain, else quoted.
func value(s string, most int) string {
	special := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`()<>,;:\"/[]?=`, r) }
	if s == "" || len(s) > most || strings.ContainsFunc(s, special) {
		return quoted(s, most)
	}
	return s
}

// quoted writes a quoted string (RFC 5322, 3.2.4) of printable ASCII.
func quoted(s string, most int) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < min(len(s), most); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			b.WriteByte(' ')
		case c > 0x7f:
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Results returns the body of an Authentication-Results field without the name of who says it: what facts have to say,
// "none" where that is nothing.
func Results(facts []Teller) string {
	var w writer
	for _, f := range facts {
		f.AuthResults(func(method, result, reason string, properties ...string) {
			if result == temperror {
				reason = noAnswer
			}
			w.say(method, result, reason, properties...)
		})
	}
	_, results, _ := strings.Cut(w.String(), ";") // behind the name, which is ""
	return strings.TrimPrefix(results, " ")
}

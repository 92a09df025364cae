package arc

import (
	"strings"

	"sluice/pipeline/mime"
)

const (
	mostResults    = 100 // methods of one field that are read
	mostProperties = 20  // of one method
	mostSigners    = 20
	mostValue      = 253
)

// readResults reads an ARC-Authentication-Results field (RFC 8617, 4.1.1; RFC 8601, 2.2) as far as somebody who trusts
// the sealer needs it. What is malformed is left out.
func readResults(instance int, f mime.Field) AuthResults {
	text := f.Value()
	out := AuthResults{Instance: instance, Text: clip(text, 1000)}
	r := reader{text}
	r.next() // i=1
	out.Authserv = clip(r.word(";"), mostValue)
	r.next()
	for range mostResults {
		if r.skip(); r.rest == "" {
			break
		}
		method := r.word("=/;")
		if strings.HasPrefix(r.rest, "/") { // a version
			r.rest = r.rest[1:]
			r.word("=;")
		}
		if !r.take('=') {
			r.next()
			continue
		}
		result := strings.ToLower(clip(r.word(";"), 20))
		out.add(strings.ToLower(method), result, r.properties())
		r.next()
	}
	return out
}

func (a *AuthResults) add(method, result string, properties map[string]string) {
	of := map[string]*string{"spf": &a.SPF, "dkim": &a.DKIM, "dmarc": &a.DMARC, "arc": &a.ARC}[method]
	if of == nil {
		return
	}
	if *of == "" || *of != passed && result == passed {
		*of = result
	}
	switch method {
	case "spf":
		if v, ok := properties["smtp.mailfrom"]; ok && a.MailFrom == "" {
			a.MailFrom = v
		}
	case "dmarc":
		if v, ok := properties["header.from"]; ok && a.HeaderFrom == "" {
			a.HeaderFrom = v
		}
	case "dkim":
		d, ok := properties["header.d"]
		if !ok {
			_, d, ok = strings.Cut(properties["header.i"], "@")
		}
		if ok && d != "" && result == passed && len(a.Signers) < mostSigners {
			a.Signers = append(a.Signers, strings.ToLower(d))
		}
	}
}

// A reader reads a structured field from its beginning.
type reader struct{ rest string }

// properties reads "reason=…" and "ptype.property=value" up to the next semicolon.
func (r *reader) properties() map[string]string {
	out := map[string]string{}
	for range mostProperties {
		name := r.word("=;")
		if name == "" && !strings.HasPrefix(r.rest, "=") || !r.take('=') {
			break
		}
		if v := r.word(";"); len(name) <= mostValue {
			out[strings.ToLower(name)] = clip(v, mostValue)
		}
	}
	return out
}

// skip passes over white space and comments, which may be nested (RFC 5322, 3.2.2).
func (r *reader) skip() {
	depth := 0
	for i := 0; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			i++
		case depth == 0 && !strings.ContainsRune(" \t\r\n", rune(c)):
			r.rest = r.rest[i:]
			return
		}
	}
	r.rest = ""
}

// word reads a value: a quoted string, or what stands before white space, a comment or one of stop.
func (r *reader) word(stop string) string {
	r.skip()
	if strings.HasPrefix(r.rest, `"`) {
		return r.quoted()
	}
	end := strings.IndexAny(r.rest, stop+" \t\r\n(")
	if end < 0 {
		end = len(r.rest)
	}
	w := r.rest[:end]
	r.rest = r.rest[end:]
	r.skip()
	return w
}

func (r *reader) quoted() string {
	var b strings.Builder
	for i := 1; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c == '"':
			r.rest = r.rest[i+1:]
			r.skip()
			return b.String()
		case c == '\\' && i+1 < len(r.rest):
			i++
			b.WriteByte(r.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	r.rest = ""
	return b.String()
}

func (r *reader) take(c byte) bool {
	r.skip()
	if r.rest == "" || r.rest[0] != c {
		return false
	}
	r.rest = r.rest[1:]
	r.skip()
	return true
}

// next passes over everything up to and with the next semicolon outside of quotes and comments.
func (r *reader) next() {
	for r.skip(); r.rest != ""; r.skip() {
		switch r.rest[0] {
		case ';':
			r.rest = r.rest[1:]
			return
		case '"':
			r.quoted()
		default:
			r.rest = r.rest[1:]
		}
	}
}

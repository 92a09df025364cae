package rules

import (
	"fmt"
	"reflect"
	"strings"

	"sluice/pipeline"
)

// A Description lists what the conditions of a step can name.
type Description struct {
	Names     []Entry // of the transaction
	Steps     []Facts // found by the steps before it, in their order; steps that find nothing are left out
	Functions []Entry
	Operators []Entry
}

// Facts are what one step finds.
type Facts struct {
	Name  string // of the step
	Facts []Entry
}

// An Entry is a name that conditions can use.
type Entry struct {
	Name string // as it is written: "from.domain", `hit("rule")`
	Type string // "text", "a number", "true or false", "a list of texts"
	Doc  string // one line, mostly
}

// Describe says what the conditions of a step can name that stands behind these steps. comment returns what the source
// says about a field of a fact's type, "" for nothing.
func Describe(before []pipeline.Before, comment func(t reflect.Type, field string) string) (Description, error) {
	s, err := newScope("", before)
	if err != nil {
		return Description{}, err
	}
	var d Description
	for _, x := range messageDocs() {
		t, err := s.typeOf(x.Name)
		if err != nil {
			return Description{}, err
		}
		d.Names = append(d.Names, Entry{x.Name, t.String(), x.Doc})
	}
	for _, info := range s.order {
		if info.shape == nil {
			continue
		}
		f := Facts{Name: info.Name}
		f.add(info.Name, info.shape, reflect.TypeOf(info.Fact), "", comment)
		d.Steps = append(d.Steps, f)
	}
	d.Functions, d.Operators = functionDocs(), operatorDocs()
	return d, nil
}

// typeOf returns the type of a name such as from.domain.
func (s *scope) typeOf(name string) (*typ, error) {
	first, field, dotted := strings.Cut(name, ".")
	t, ok := s.vars[first]
	if ok && dotted {
		t, ok = t.fields[field]
	}
	if !ok {
		return nil, fmt.Errorf("rules cannot name %s", name)
	}
	return t, nil
}

// add lists what a shape holds that facts of type t have.
func (f *Facts) add(name string, s *shape, t reflect.Type, doc string, comment func(reflect.Type, string) string) {
	if s.typ.kind != recordKind {
		if s.typ.kind == listKind && s.elem.typ.kind == recordKind {
			f.Facts = append(f.Facts, Entry{name, "a list", doc})
			f.add("#", s.elem, t.Elem(), "", comment)
			return
		}
		f.Facts = append(f.Facts, Entry{name, s.typ.String(), doc})
		return
	}
	for _, x := range s.fields {
		if isNamed(t) {
			f.add(name+"."+x.name, x.shape, t.Elem(), "", comment)
			continue
		}
		if field, ok := fieldNamed(t, x.name); ok {
			about := strings.TrimPrefix(comment(t, field.Name), field.Name+" is ")
			f.add(name+"."+x.name, x.shape, field.Type, about, comment)
		}
	}
}

func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		x := t.Field(i)
		tag, _, _ := strings.Cut(x.Tag.Get("json"), ",")
		if x.IsExported() && (tag == name || tag == "" && x.Name == name) {
			return x, true
		}
	}
	return reflect.StructField{}, false
}

// messageDocs says what the names of the transaction are.
func messageDocs() []Entry {
	docs := []Entry{
		{Name: "client.ip", Doc: "the address that connected; unknown where the door is not told"},
		{Name: "client.name", Doc: "what the address resolves to and back; unknown where the DNS did not say"},
		{Name: "client.login", Doc: `the account that logged in, "" for none`},
		{Name: "client.trusted", Doc: "whether it is in a trusted network"},
		{Name: "client.tls", Doc: `the version of TLS, "TLSv1.3"; "" over cleartext`},
		{Name: "helo", Doc: "how the client greeted"},
	}
	for _, x := range []struct{ name, what string }{
		{"from", "of the envelope's sender, \"\" for none"},
		{"rcpt", "of the recipient; the rule is asked for each"},
		{"header_from", "of the first author in From"},
	} {
		docs = append(docs,
			Entry{Name: x.name + ".address", Doc: "the address " + x.what},
			Entry{Name: x.name + ".local", Doc: "what stands before the @, without the subaddress"},
			Entry{Name: x.name + ".tag", Doc: "the subaddress: lists in user+lists@example.org"},
			Entry{Name: x.name + ".domain", Doc: "what stands behind the @"})
	}
	docs = append(docs,
		Entry{Name: "header_from.name", Doc: "the name that From shows for the first author, decoded"},
		Entry{Name: "header_from.count", Doc: "how many addresses the From fields hold"},
		Entry{Name: "header_froms", Doc: "all authors in From; each has what header_from has, without count"},
		Entry{Name: "rcpts", Doc: "all recipients; each has address, local, tag and domain"},
		Entry{Name: "subject", Doc: "decoded"},
		Entry{Name: "message_id", Doc: "the Message-ID without angle brackets"},
		Entry{Name: "list_id", Doc: "what List-Id has in angle brackets, in lower case"},
		Entry{Name: "size", Doc: "of the message, in octets"},
		Entry{Name: "score", Doc: "what the rules of the step add that do not read it; unknown where some of them could not be asked"},
		Entry{Name: "text", Doc: "what there is to read, decoded: plain text, and HTML as its reader sees it"},
		Entry{Name: "html", Doc: "the source of the HTML parts, decoded"},
		Entry{Name: "attachments", Doc: "the files of the mail; each has name, extension, type, size, sha256"},
		Entry{Name: "anomalies", Doc: "what is wrong with the mail as such: bare-cr, no-boundary; docs: sluice/pipeline/mime"})
	for _, x := range []struct{ name, what string }{
		{"date", "of the Date field, in its own zone; unknown where it is missing or cannot be read"},
		{"received", "when the mail came, in the zone of `timezone`: the only clock that rules have"},
	} {
		docs = append(docs,
			Entry{Name: x.name + ".unix", Doc: "seconds since 1970 " + x.what + "; " + x.name + " alone means them in arithmetic"},
			Entry{Name: x.name + ".year", Doc: "the year"},
			Entry{Name: x.name + ".month", Doc: "1 to 12"},
			Entry{Name: x.name + ".day", Doc: "1 to 31"},
			Entry{Name: x.name + ".weekday", Doc: "monday to sunday"},
			Entry{Name: x.name + ".hour", Doc: "0 to 23"},
			Entry{Name: x.name + ".minute", Doc: "0 to 59"})
	}
	return append(docs, Entry{Name: "date.zone", Doc: "minutes that the zone of the Date field is east of UTC"})
}

// functionDocs says what the functions do.
func functionDocs() []Entry {
	const truth, text, number = "true or false", "text", "a number"
	return []Entry{
		{`has("Field")`, truth, "whether the header has the field"},
		{`header("Field")`, text, `the first field of the name, decoded; "" if there is none`},
		{`headers("Field")`, "a list of texts", "all fields of the name, decoded"},
		{`hit("rule")`, truth, "whether another rule held, further up or down"},
		{`hit("step.rule")`, truth, "whether a rule of an earlier step held"},
		{"known(step)", truth, "whether the step has an answer"},
		{"known(step.field)", truth, "whether the step has this answer"},
		{"count_in(text, list)", number, "how many entries of a named list of words or regexes the text holds"},
		{"len(text or list)", number, "how many characters or items"},
		{"lower(text)", text, "in lower case"},
		{"upper(text)", text, "in upper case"},
		{"trim(text)", text, "without space at both ends; trim(text, chars) without these"},
		{"trimPrefix(text, begin)", text, "without this beginning"},
		{"trimSuffix(text, end)", text, "without this end"},
		{"hasPrefix(text, begin)", truth, "as startsWith"},
		{"hasSuffix(text, end)", truth, "as endsWith"},
		{"indexOf(text, part)", number, "where the part first begins, -1 for nowhere"},
		{"lastIndexOf(text, part)", number, "where it last begins, -1 for nowhere"},
		{"any(list, condition)", truth, "whether it holds for an item, which is called #"},
		{"all(list, condition)", truth, "whether it holds for every item"},
		{"none(list, condition)", truth, "whether it holds for no item"},
		{"one(list, condition)", truth, "whether it holds for exactly one item"},
		{"count(list, condition)", number, "for how many items it holds"},
		{"abs(number)", number, "without its sign"},
		{"min(numbers…)", number, "the smallest"},
		{"max(numbers…)", number, "the largest"},
		{"int(value)", number, "as a whole number"},
		{"float(value)", number, "as a number with a fraction"},
		{"string(value)", text, "as text"},
	}
}

// operatorDocs says what the operators do.
func operatorDocs() []Entry {
	const truth, number = "true or false", "a number"
	return []Entry{
		{"and or not", truth, "join terms; an unknown side counts only where it matters"},
		{"== !=", truth, "equal or not; addresses are in lower case"},
		{"< <= > >=", truth, "in order, of numbers or texts"},
		{"in", truth, `whether something is in a list: rcpt.local in ["a", "b"]`},
		{"in list", truth, "whether an address, a domain or an IP address is in a named list: from.address in vips"},
		{"contains list", truth, "whether a text has a word of a named list: subject contains spam_words"},
		{"matches list", truth, "whether a text matches a pattern of a named list: subject matches scams"},
		{"contains startsWith endsWith", truth, "whether a text holds another"},
		{"matches", truth, `whether a text matches an RE2 pattern: subject matches "(?i)\\bfree\\b"`},
		{"+ - * / %", number, "arithmetic"},
		{"a..b", "a list of numbers", "from a to b, both written out"},
		{"condition ? a : b", "", "one of two values"},
		{"let x = value; …", "", "gives a value a name"},
	}
}

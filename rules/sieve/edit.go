package sieve

import (
	"strings"

	"sluice/pipeline/mime"
)

// now is the message as the script has made it; nil: as it came.
func (m *message) now() *mime.Message {
	if m.draft == nil {
		return nil
	}
	return m.draft.message
}

// current is the message to make another of.
func (m *message) current() *draft {
	if m.draft == nil {
		return &draft{message: m.src}
	}
	return m.draft
}

// edit lets the rest of the run see another message: later tests and later actions, not those before (RFC 5293, 3).
func (r *run) edit(n *call, change func(d *draft) (*draft, error)) bool {
	d, err := change(r.mail.current())
	if err != nil {
		r.fail(n, "the mail cannot be changed so: %v", err)
		return false
	}
	if d.message.Size() > r.mail.size()+int64(r.limits.EditedSize) {
		r.fail(n, "the mail grows by more than %d octets", r.limits.EditedSize)
		return false
	}
	r.mail = newMail(d.message)
	r.mail.draft = d
	return true
}

// note says what was asked for and is not done, and why.
func (r *run) note(n *call, format string, args ...any) {
	r.say(n, format, args...)
	if len(r.notes) < r.limits.Log {
		r.notes = append(r.notes, Line{Script: n.unit.name, Line: n.line, Text: clipTo(sprintf(format, args...), 500)})
	}
}

// conflict says why an action cannot be asked for after those before it, "" if it can.
func (r *run) conflict(a Action) string {
	refuses := func(k Kind) bool { return k == Reject || k == EReject }
	for _, b := range r.actions {
		switch {
		case refuses(a.Kind) && refuses(b.Kind):
			return sprintf("%s after %s in line %d: the mail can be refused once", a.Kind, b.Kind, b.Line)
		case refuses(a.Kind) && spoils(b), refuses(b.Kind) && spoils(a):
			// RFC 5429, 2.2 and 2.1; RFC 5230, 4.7: who is told that the mail was refused must not find it taken.
			return sprintf("%s and, in line %d, %s exclude each other", a.Kind, b.Line, b.Kind)
		case a.Kind == Vacation && b.Kind == Vacation:
			return sprintf("vacation stands in line %d already: the sender gets one reply", b.Line)
		case a.Kind == Pipe && b.Kind == Pipe && a.Program == b.Program:
			return sprintf("the mail goes to the program %q in line %d already", a.Program, b.Line)
		}
	}
	return ""
}

// spoils reports whether an action takes the mail, which then cannot be refused.
func spoils(a Action) bool {
	return a.Kind == Keep || a.Kind == FileInto && a.Content == nil || a.Kind == Redirect || a.Kind == Vacation || a.Kind == Pipe
}

// editExtensions: RFC 5293, and of RFC 5703 what changes the mail.
func editExtensions() []extension {
	return []extension{
		{
			name: "editheader",
			commands: []form{
				{
					name: "addheader", tags: []tag{{name: "last"}}, check: checkNewField, run: runAddHeader,
					args: []positional{{name: "name of a field", shape: text}, {name: "value", shape: text}},
				},
				{
					name: "deleteheader", matches: true, silent: true, check: checkDeleteHeader, run: runDeleteHeader,
					tags: append(matchTags(), tag{name: "index", takes: number, check: checkIndex}, tag{name: "last", needs: "index"}),
					args: []positional{{name: "name of a field", shape: text}, {name: "values", shape: texts, optional: true}},
				},
			},
		},
		{
			name: "replace",
			commands: []form{{
				name: "replace", run: runReplace, args: []positional{{name: "text", shape: text}},
				tags: []tag{{name: "mime"}, {name: "subject", takes: text}, {name: "from", takes: text, check: checkFrom}},
			}},
		},
		{
			name: "enclose",
			commands: []form{{
				name: "enclose", run: runEnclose, check: checkEnclose, args: []positional{{name: "text", shape: text}},
				tags: []tag{{name: "subject", takes: text}, {name: "headers", takes: texts}},
			}},
		},
	}
}

func checkNewField(c *checker, n *call) {
	p := n.args[0].texts[0]
	if !p.constant() {
		return
	}
	if !isFieldName(p.fixed) {
		c.report(p.at, sprintf("%q is no name of a header field", clip(p.fixed)), "write the name alone")
	} else if protected(p.fixed, false) {
		c.warn(p.at, sprintf("the field %s is not a script's to add: nothing will happen", p.fixed), "")
	}
}

func checkDeleteHeader(c *checker, n *call) {
	p := n.args[0].texts[0]
	if p.constant() {
		if !isFieldName(p.fixed) {
			c.report(p.at, sprintf("%q is no name of a header field", clip(p.fixed)), "write the name alone")
		} else if protected(p.fixed, true) {
			c.warn(p.at, sprintf("the field %s is not a script's to delete: nothing will happen", p.fixed), "")
		}
	}
	if n.match != nil && n.match.how == count {
		c.report(n.at, "deleteheader looks at one field at a time, and cannot count them", "use :index")
	}
}

// protected reports whether a field is not a script's to change: those that show where a mail has been, by which loops are
// found (RFC 5293, 6), and those that Sluice knows its own mail by.
func protected(name string, deletes bool) bool {
	switch name = lowerASCII(name); name {
	case "received", "auto-submitted":
		return deletes
	case "return-path", "delivered-to", lowerASCII(redirectedFrom):
		return true
	}
	return strings.HasPrefix(name, "x-sluice-")
}

// changeField counts a change of the header; false: it is not to be made.
func (r *run) changeField(n *call, name string, deletes bool) bool {
	if !isFieldName(name) || len(name) > 77 {
		r.fail(n, "%q is no name of a header field", clipTo(name, 100))
		return false
	}
	if protected(name, deletes) {
		r.note(n, "the field %s is not a script's to change", name)
		return false
	}
	if r.edits++; r.edits > r.limits.EditedFields {
		r.fail(n, "the script changes the header more than %d times", r.limits.EditedFields)
		return false
	}
	return r.spend(n, 1+r.mail.src.Header().Len()/octetsPerInstruction)
}

func runAddHeader(r *run, n *call) flow {
	name, value := strings.TrimSpace(r.text(&n.args[0])), r.text(&n.args[1])
	if r.changeField(n, name, false) {
		r.say(n, "addheader %s: %q", name, clipTo(value, 200))
		r.edit(n, func(d *draft) (*draft, error) { return d.withField(name, value, n.has("last")) })
	}
	return r.went()
}

// went is next, or failed where something has failed.
func (r *run) went() flow {
	if r.failure != nil {
		return failed
	}
	return next
}

func runDeleteHeader(r *run, n *call) flow {
	name := strings.TrimSpace(r.text(&n.args[0]))
	if !r.changeField(n, name, true) {
		return r.went()
	}
	fields := r.mail.src.Header().Fields()
	var all []int // places of fields of the name
	for i, f := range fields {
		if strings.EqualFold(f.Name, name) {
			all = append(all, i)
		}
	}
	if v := n.tag("index"); v != nil {
		i := int(min(v.number, int64(len(all))+1)) - 1
		if n.has("last") {
			i = len(all) - 1 - i
		}
		if i < 0 || i >= len(all) {
			all = nil
		} else {
			all = all[i : i+1]
		}
	}
	drop := map[int]bool{}
	for _, i := range all {
		if n.args[1].is == nothing {
			drop[i] = true
			continue
		}
		x := r.matcher(n)
		x.value(strings.Trim(fields[i].Text(), " \t"))
		if x.held() {
			drop[i] = true
		}
	}
	r.say(n, "deleteheader %s: %d deleted", name, len(drop))
	if len(drop) > 0 && r.failure == nil {
		r.edit(n, func(d *draft) (*draft, error) {
			return d.withoutFields(func(i int, _ mime.Field) bool { return drop[i] })
		})
	}
	return r.went()
}

// optional returns the value of a tag, nil where it is not there.
func (r *run) optional(n *call, tag string) *string {
	v := n.tag(tag)
	if v == nil {
		return nil
	}
	s := r.text(v)
	return &s
}

// runReplace puts a text in the place of the part at hand, or of the whole mail (RFC 5703, 5).
func runReplace(r *run, n *call) flow {
	x := replacement{subject: r.optional(n, "subject"), from: r.optional(n, "from"), text: r.text(&n.args[0]), entity: n.has("mime")}
	if !r.spendEdit(n, len(x.text)) {
		return failed
	}
	if x.from != nil {
		if _, ok := fromAddress(*x.from); !ok {
			r.note(n, ":from is not used: %q is no mail address", clipTo(*x.from, 100))
			x.from = nil
		}
	}
	part := r.part()
	d := r.mail.draft
	if d == nil {
		d = &draft{message: r.mail.src}
	}
	if part == nil || d.isWhole(part) {
		r.say(n, "replace: the whole mail")
		r.edit(n, func(d *draft) (*draft, error) { return d.replaced(x) })
		return r.went()
	}
	at, ok := d.find(part)
	if !ok {
		r.note(n, "replace: the part is not there any more, or stands in the mail only encoded")
		return next
	}
	r.say(n, "replace: part %s", part.Path)
	r.edit(n, func(d *draft) (*draft, error) { return d.withPart(at, x.text, x.entity) })
	return r.went()
}

// spendEdit takes what a change of the mail costs from the budget: it is read again by later tests.
func (r *run) spendEdit(n *call, size int) bool {
	if r.edits++; r.edits > r.limits.EditedFields {
		r.fail(n, "the script changes the mail more than %d times", r.limits.EditedFields)
		return false
	}
	return r.spend(n, 10+size/octetsPerInstruction)
}

func checkEnclose(c *checker, n *call) {
	v := n.tag("headers")
	if v == nil {
		return
	}
	for _, p := range v.texts {
		if p.constant() {
			if _, ok := enclosedField(p.fixed); !ok {
				c.report(p.at, sprintf("%q is no header field that enclose could add", clip(p.fixed)), `write "Name: value"; what describes the content is enclose's own`)
			}
		}
	}
}

// enclosedField reads a field that a script adds around a mail.
func enclosedField(s string) (field [2]string, ok bool) {
	name, value, ok := strings.Cut(s, ":")
	name = strings.TrimSpace(name)
	low := lowerASCII(name)
	if !ok || !isFieldName(name) || len(name) > 77 || low == "mime-version" || low == "received" || low == "auto-submitted" ||
		strings.HasPrefix(low, "content-") || protected(name, false) {
		return field, false
	}
	return [2]string{name, strings.TrimSpace(value)}, true
}

// runEnclose makes of the mail one that has a text and the mail in it (RFC 5703, 6).
func runEnclose(r *run, n *call) flow {
	subject, body := "", r.text(&n.args[0])
	if s := r.optional(n, "subject"); s != nil {
		subject = *s
	}
	if !r.spendEdit(n, int(r.mail.size())+len(body)) {
		return failed
	}
	var fields [][2]string
	for _, s := range r.texts(n.tag("headers")) {
		f, ok := enclosedField(s)
		if !ok || len(fields) == r.limits.EditedFields {
			r.note(n, "enclose does not add the field %q", clipTo(s, 100))
			continue
		}
		fields = append(fields, f)
	}
	r.say(n, "enclose: the mail is in one that says %q", clipTo(body, 100))
	r.edit(n, func(d *draft) (*draft, error) { return d.enclosed(subject, fields, body) })
	return r.went()
}

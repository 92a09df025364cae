package sieve

import (
	"slices"
	"strings"

	"sluice/pipeline/mime"
)

// partExtensions: RFC 5703, as far as it reads parts: what changes them is elsewhere.
func partExtensions() []extension {
	about := []string{"header", "address", "exists"}
	option := func(name string, takes shape) tagOn {
		return tagOn{on: []string{"header"}, tag: tag{name: name, takes: takes, group: "part of a field", needs: "mime"}}
	}
	return []extension{
		{
			name: "foreverypart",
			commands: []form{
				{
					name: "foreverypart", block: true, tags: []tag{{name: "name", takes: text, constant: true}},
					run: runForEveryPart,
				},
				{name: "break", tags: []tag{{name: "name", takes: text, constant: true}}, check: checkBreak, run: runBreak},
			},
		},
		{
			name: "mime",
			tags: []tagOn{
				{on: about, tag: tag{name: "mime"}}, {on: about, tag: tag{name: "anychild", needs: "mime"}},
				option("type", nothing), option("subtype", nothing), option("contenttype", nothing), option("param", texts),
			},
		},
		{
			name: "extracttext",
			commands: []form{{
				name: "extracttext", tags: append(modifiers(), tag{name: "first", takes: number}), check: checkExtractText,
				args: []positional{{name: "name of a variable", shape: text, constant: true}}, run: runExtractText,
			}},
		},
	}
}

// part is the part that the innermost foreverypart is at, nil outside.
func (r *run) part() *mime.Part {
	if len(r.loops) == 0 {
		return nil
	}
	return r.loops[len(r.loops)-1].part
}

// parts are p and all below it, but not deeper than a mail can be.
func parts(p *mime.Part) (all []*mime.Part) {
	p.All(func(x *mime.Part) { all = append(all, x) })
	return all
}

func runForEveryPart(r *run, n *call) flow {
	name := ""
	if v := n.tag("name"); v != nil {
		name = v.texts[0].fixed
	}
	var list []*mime.Part
	if p := r.part(); p != nil {
		list = parts(p)[1:] // RFC 5703, 3: what is inside the one at hand
	} else {
		list = parts(r.mail.src.Root())
	}
	if !r.spend(n, len(list)) {
		return failed
	}
	l := &loop{name: name}
	r.loops = append(r.loops, l)
	defer func() { r.loops = r.loops[:len(r.loops)-1] }()
	for i, p := range list {
		if !r.spend(n, 1) {
			return failed
		}
		l.part = p
		r.say(n, "part %d: %s", i+1, p.Type)
		switch f := r.block(n); {
		case f == broken && (r.leaving == "" || r.leaving == name):
			return next
		case f != next:
			return f
		}
	}
	return next
}

func checkBreak(c *checker, n *call) {
	v := n.tag("name")
	switch {
	case len(c.loops) == 0:
		c.report(n.at, "break stands outside foreverypart", "")
	case v != nil && !slices.Contains(c.loops, v.texts[0].fixed):
		c.report(v.at, sprintf("there is no foreverypart :name %q around", clip(v.texts[0].fixed)), "")
	}
}

func runBreak(r *run, n *call) flow {
	r.leaving = ""
	if v := n.tag("name"); v != nil {
		r.leaving = v.texts[0].fixed
	}
	r.say(n, "break")
	return broken
}

func checkExtractText(c *checker, n *call) {
	if !c.unit.has["variables"] {
		c.missing(n.at, "extracttext", []string{"variables"})
		return
	}
	if len(c.loops) == 0 {
		c.report(n.at, "extracttext stands outside foreverypart", "write foreverypart { … } around it")
	}
	n.extra = c.variableName(&n.args[0])
}

func runExtractText(r *run, n *call) flow {
	most := r.limits.VariableSize
	s := ""
	if p := r.part(); p != nil && len(p.Parts) == 0 {
		if !r.spend(n, 1+int(min(p.Size, 4*int64(most)))/octetsPerInstruction) {
			return failed
		}
		s = p.ReadableText(4 * most)
	}
	if v := n.tag("first"); v != nil {
		s = firstCharacters(s, v.number)
	}
	s = n.modified(clipOctets(s, most))
	if !r.spend(n, 1+len(s)/octetsPerInstruction) {
		return failed
	}
	name := n.extra.(string)
	r.set(n, name, s)
	r.say(n, "extracttext: %s is %q", name, clipTo(s, 200))
	return next
}

func firstCharacters(s string, most int64) string {
	for i := range s {
		if most--; most < 0 {
			return s[:i]
		}
	}
	return s
}

// headers are the headers that a test is about: the message's own; with :mime those of the part at hand, with :anychild
// also of the parts in it.
func (r *run) headers(n *call) []*header {
	if len(n.given) == 0 || !n.has("mime") {
		return r.mail.headers[:]
	}
	p := r.part()
	if p == nil {
		p = r.mail.src.Root()
	}
	if !n.has("anychild") {
		return []*header{r.mail.of(p)}
	}
	list := parts(p)
	if !r.spend(n, len(list)) {
		return nil
	}
	all := make([]*header, len(list))
	for i, x := range list {
		all[i] = r.mail.of(x)
	}
	return all
}

// pieces are what :type, :subtype, :contenttype and :param make of a field (RFC 5703, 4.2).
func (r *run) pieces(n *call, value string) ([]string, bool) {
	for i := range n.given {
		g := &n.given[i]
		if g.tag.group == "part of a field" && !r.spend(n, 1+len(value)/octetsPerInstruction) {
			return nil, true
		}
		switch g.tag.name {
		case "type", "subtype", "contenttype":
			word, _ := mime.ParseValue(value)
			if len(word) <= len(value) && strings.EqualFold(value[:len(word)], word) {
				word = value[:len(word)] // as it was written, for those who care
			}
			main, sub, _ := strings.Cut(word, "/")
			return []string{map[string]string{"type": main, "subtype": sub, "contenttype": word}[g.tag.name]}, true
		case "param":
			_, params := mime.ParseValue(value)
			var all []string
			for _, name := range r.texts(&g.value) {
				if s, ok := params[lowerASCII(name)]; ok {
					all = append(all, s)
				}
			}
			if all == nil {
				return []string{""}, true // the field is there, and says nothing
			}
			return all, true
		}
	}
	return nil, false
}

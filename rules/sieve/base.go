package sieve

import (
	"slices"
	"strings"

	"sluice/pipeline/mime"
)

// baseExtensions: RFC 5228 itself, with what it has as extensions.
func baseExtensions() []extension {
	return []extension{
		{
			name: "", unlisted: true,
			commands: []form{
				{name: "if", tests: 1, block: true, run: runIf},
				{name: "elsif", tests: 1, block: true, run: runIf},
				{name: "else", block: true, run: runIf},
				{name: "stop", run: func(r *run, n *call) flow { r.say(n, "stop"); return stop }},
				{name: "keep", run: runKeep},
				{name: "discard", run: runDiscard},
				{name: "redirect", args: []positional{{name: "address", shape: text}}, check: checkRedirect, run: runRedirect},
			},
			tests: []form{
				{name: "true", holds: func(*run, *call) bool { return true }},
				{name: "false", holds: func(*run, *call) bool { return false }},
				{name: "not", tests: 1, check: checkNot, holds: func(r *run, n *call) bool { return !r.told(n.tests[0]) }},
				{name: "allof", tests: -1, check: checkAll, holds: func(r *run, n *call) bool {
					return !slices.ContainsFunc(n.tests, func(t *call) bool { return !r.told(t) })
				}},
				{name: "anyof", tests: -1, check: checkAny, holds: func(r *run, n *call) bool { return slices.ContainsFunc(n.tests, r.told) }},
				{name: "exists", args: []positional{{name: "names of fields", shape: texts}}, check: checkFieldNames, holds: exists},
				{
					name: "size", tags: []tag{{name: "over", group: "size"}, {name: "under", group: "size"}},
					args: []positional{{name: "size", shape: number}}, check: checkSize, holds: size,
				},
				{
					name: "header", tags: matchTags(), matches: true, check: checkFieldNames, holds: headerTest,
					args: []positional{{name: "names of fields", shape: texts}, {name: "keys", shape: texts}},
				},
				{
					name: "address", tags: append(matchTags(), partTags()...), matches: true, check: checkAddress, holds: addressTest,
					args: []positional{{name: "names of fields", shape: texts}, {name: "keys", shape: texts}},
				},
			},
		},
		{
			name: "fileinto",
			commands: []form{{
				name: "fileinto", args: []positional{{name: "folder", shape: text}}, check: checkFileInto, run: runFileInto,
			}},
		},
		{
			name: "envelope",
			tests: []form{{
				name: "envelope", tags: append(matchTags(), partTags()...), matches: true, check: checkEnvelope, holds: envelopeTest,
				args: []positional{{name: "parts of the envelope", shape: texts}, {name: "keys", shape: texts}},
			}},
		},
		{name: "encoded-character", grammar: true},
		{name: "comparator-i;ascii-numeric"},
		{name: "comparator-i;unicode-casemap"},
	}
}

// partTags name a part of an address (RFC 5228, 2.7.4).
func partTags() []tag {
	return []tag{{name: "all", group: "part"}, {name: "localpart", group: "part"}, {name: "domain", group: "part"}}
}

// told asks a test and writes the answer into the trace.
func (r *run) told(n *call) bool {
	r.why = ""
	held := r.test(n)
	if !r.in.Trace || n.form.tests != 0 || r.failure != nil {
		return held
	}
	answer := "no"
	if held {
		answer = "yes"
	}
	if r.why != "" {
		answer += ": " + r.why
	}
	r.say(n, "%s → %s", n.source(), answer)
	return held
}

// runIf runs the first of if, elsif … else whose test holds.
func runIf(r *run, n *call) flow {
	for x := n; x != nil; x = x.otherwise {
		if len(x.tests) == 0 {
			r.say(x, "else")
			return r.block(x)
		}
		if r.told(x.tests[0]) {
			if r.in.Trace {
				r.say(x, "%s holds", x.form.name)
			}
			return r.block(x)
		}
		if r.failure != nil {
			return failed
		}
	}
	return next
}

// A test around others is decided where they are (RFC 5463, 4).

func checkNot(_ *checker, n *call) {
	switch n.tests[0].always {
	case yes:
		n.always = no
	case no:
		n.always = yes
	}
}

func checkAll(_ *checker, n *call) { n.fold(no, yes) }

func checkAny(_ *checker, n *call) { n.fold(yes, no) }

// fold: one answer settles the list, all of the other settle it otherwise.
func (n *call) fold(settles, rest answer) {
	n.always = rest
	for _, t := range n.tests {
		if t.always == settles {
			n.always = settles
			return
		}
		if t.always == open {
			n.always = open
		}
	}
}

func runKeep(r *run, n *call) flow {
	if r.in.Trace {
		r.say(n, "%s", n.source())
	}
	return r.add(n, Action{Kind: Keep})
}

func runDiscard(r *run, n *call) flow {
	r.say(n, "discard")
	return r.add(n, Action{Kind: Discard})
}

func checkFileInto(c *checker, n *call) {
	if p := n.args[0].texts[0]; p.constant() {
		if wrong := badFolder(p.fixed); wrong != "" {
			c.report(p.at, wrong, "")
		}
	}
}

// badFolder says what is wrong with the name of a folder.
func badFolder(name string) string {
	const most = 1000
	switch {
	case name == "":
		return "the name of the folder is empty"
	case len(name) > most:
		return sprintf("the name of the folder has %d octets; %d are allowed", len(name), most)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "the name of the folder has a control character"
	}
	return ""
}

func runFileInto(r *run, n *call) flow {
	folder := r.text(&n.args[0])
	if wrong := badFolder(folder); wrong != "" {
		return r.fail(n, "%s", wrong)
	}
	r.say(n, "fileinto %q", folder)
	return r.add(n, Action{Kind: FileInto, Folder: folder})
}

func checkRedirect(c *checker, n *call) {
	if n.has("list") {
		return
	}
	if p := n.args[0].texts[0]; p.constant() {
		if _, wrong := redirectAddress(p.fixed); wrong != "" {
			c.report(p.at, wrong, `write for example redirect "me@example.org"`)
		}
	}
}

// redirectAddress is the address that a redirect names, with or without a name before it.
func redirectAddress(s string) (address, wrong string) {
	s = strings.TrimSpace(s)
	if strings.HasSuffix(s, ">") {
		if i := strings.LastIndexByte(s, '<'); i >= 0 {
			s = s[i+1 : len(s)-1]
		}
	}
	a, err := mime.ParseAddress(s)
	if err != nil || a.Domain == "" || strings.ContainsAny(s, " ,;") && s[0] != '"' {
		return "", sprintf("%q is no mail address", clip(s))
	}
	return s, ""
}

func runRedirect(r *run, n *call) flow {
	to := r.text(&n.args[0])
	if n.has("list") {
		return r.redirectList(n, to)
	}
	to, wrong := redirectAddress(to)
	if wrong != "" {
		return r.fail(n, "%s", wrong)
	}
	return r.redirect(n, to)
}

func checkSize(c *checker, n *call) {
	if !n.has("over") && !n.has("under") {
		c.report(n.at, "size has neither :over nor :under", "write for example size :over 1M")
	}
}

func size(r *run, n *call) bool {
	has, limit := r.mail.size(), n.args[0].number
	if r.in.Trace {
		r.because("the mail has %d octets", has)
	}
	if n.has("over") {
		return has > limit
	}
	return has < limit
}

// size is how many octets the message has, as it is now.
func (m *message) size() int64 {
	return m.src.Size()
}

// isFieldName reports whether s can be the name of a header field (RFC 5322, 2.2).
func isFieldName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' {
			return false
		}
	}
	return s != ""
}

// checkFieldNames checks the names of header fields in the first argument.
func checkFieldNames(c *checker, n *call) {
	for _, p := range n.args[0].texts {
		if p.constant() && !isFieldName(p.fixed) {
			remedy := "write the name alone"
			if name := strings.TrimSuffix(p.fixed, ":"); isFieldName(name) {
				remedy = sprintf("write %q", name)
			}
			c.warn(p.at, sprintf("%q is no name of a header field: there will be none", clip(p.fixed)), remedy)
		}
	}
}

// fieldsPerInstruction is how many fields are looked at for one instruction of the budget.
const fieldsPerInstruction = 64

func exists(r *run, n *call) bool {
	for _, p := range n.args[0].texts {
		name := r.name(p)
		if !r.spend(n, 1+len(r.mail.header.fields)/fieldsPerInstruction) {
			return false
		}
		if !slices.ContainsFunc(r.headers(n), func(h *header) bool { return len(h.values(name)) > 0 }) {
			r.because("there is no field %s", name)
			return false
		}
	}
	return true
}

// name is the name of a field, or of what else has one, in lower case.
func (r *run) name(p pattern) string {
	if p.constant() {
		return p.lower
	}
	return lowerASCII(r.expand(p))
}

func headerTest(r *run, n *call) bool {
	x := r.matcher(n)
	headers := r.headers(n)
	for _, p := range n.args[0].texts {
		name := r.name(p)
		x.where = name
		for _, h := range headers {
			if !r.spend(n, 1+len(h.fields)/fieldsPerInstruction) {
				return false
			}
			values := indexed(n, h.values(name))
			for i := range values {
				if some, ok := r.pieces(n, values[i].text); ok {
					if slices.ContainsFunc(some, x.value) {
						return x.held()
					}
				} else if x.subject(&values[i]) {
					return x.held()
				}
			}
		}
	}
	return x.held()
}

// withoutAddresses are fields that are known to hold no addresses.
var withoutAddresses = [...]string{"subject", "date", "received", "message-id", "list-id", "content-type", "mime-version", "comments", "keywords"}

func checkAddress(c *checker, n *call) {
	checkFieldNames(c, n)
	for _, p := range n.args[0].texts {
		if p.constant() && slices.Contains(withoutAddresses[:], strings.ToLower(p.fixed)) {
			c.report(p.at, sprintf("the field %s has no addresses", p.fixed), "use the test header")
		}
	}
}

// part is what a test wants of an address; ok is false where it has no such thing.
func (n *call) part(a address) (s string, ok bool) {
	for i := range n.given {
		switch n.given[i].tag.name {
		case "localpart":
			return a.local, a.ok
		case "domain":
			return a.domain, a.ok
		case "user":
			user, _, _ := userAndDetail(a.local)
			return user, a.ok
		case "detail":
			_, detail, ok := userAndDetail(a.local)
			return detail, a.ok && ok
		}
	}
	if a.ok {
		return a.local + "@" + a.domain, true
	}
	return a.local, true
}

func addressTest(r *run, n *call) bool {
	x := r.matcher(n)
	headers := r.headers(n)
	for _, p := range n.args[0].texts {
		name := r.name(p)
		x.where = name
		for _, h := range headers {
			if !r.spend(n, 1+len(h.fields)/fieldsPerInstruction) {
				return false
			}
			for _, list := range indexed(n, h.addresses(name)) {
				for _, a := range list {
					// What has no such part counts still: :count counts addresses (RFC 5231, 6).
					if s, ok := n.part(a); (ok || n.match.how == count) && x.value(s) {
						return x.held()
					}
				}
			}
		}
	}
	return x.held()
}

func checkEnvelope(c *checker, n *call) {
	for _, p := range n.args[0].texts {
		switch strings.ToLower(p.fixed) {
		case "from", "to", "auth":
		case "orig_to":
			// Pigeonhole's vnd.dovecot.environment calls it so.
		default:
			if p.constant() {
				c.report(p.at, sprintf("the envelope has no part %q", clip(p.fixed)), "there is from, to, auth, orig_to")
			}
		}
	}
}

func envelopeTest(r *run, n *call) bool {
	x := r.matcher(n)
	e := r.in.Envelope
	for _, p := range n.args[0].texts {
		name := r.name(p)
		x.where = "envelope " + name
		var s string
		known := !e.Unknown
		switch name {
		case "from":
			s = e.From
		case "to":
			s, known = e.To, known && e.To != ""
		case "orig_to":
			s, known = e.OriginalTo, known && e.OriginalTo != ""
		case "auth":
			s, known = e.Auth, known && e.Auth != ""
		}
		if !known {
			continue
		}
		if part, ok := n.part(splitAddress(s)); s == "" && x.value("") || s != "" && ok && x.value(part) {
			return x.held()
		}
	}
	return x.held()
}

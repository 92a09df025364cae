package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"sluice/pipeline"
)

// A rule is one rule of a step: a condition, and what shall be done where it holds.
type rule struct {
	name string
	at   int // its place in the step
	pos  spot

	when   []rune // the condition as written
	whenAt []spot // the place of each of its characters, and of its end

	score  float64
	scores bool
	final  pipeline.Action // Pass for none
	reply  pipeline.Reply
	folder string
	flags  []string
	edits  []pipeline.Edit
	shadow bool
	// shadowBy is what makes it one where that is not the rule itself: "the group `x`".
	shadowBy   string
	groupNamed named
	group      *family // nil for none
	scoreAt    spot
	only       *override // for whose recipients it is; nil: for all
	choosy     bool      // whether it can hold is another question for some recipients
	personal   bool      // what it scores is
	waits      bool      // it reads the score, itself or by the hit of a rule that does

	cond  *node
	quick plan    // the condition in the order in which it is evaluated
	moved bool    // which is not the written one
	terms []*term // in the order they are written

	// What the condition reads, with what the rules read whose hits it uses.
	input   pipeline.Input
	refs    []int          // places in ruleset.refs
	headers []int          // places in ruleset.headers
	steps   []string       // other steps whose facts or hits it reads
	phase   pipeline.Phase // when all that is known
	perRcpt bool           //
	// The same, were there no overrides.
	usual pipeline.Input
	since pipeline.Phase
}

const (
	maxName   = 64
	maxFolder = 255
	maxFlags  = 20
	maxFlag   = 64
	maxFields = 20  // header fields of a rule
	maxField  = 900 // octets of a field: unfolded it stays under 998 (RFC 5322, 2.1.1)
	maxScore  = 1e6
)

var ruleName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// finals are the keys of a rule that give a final verdict.
func finals() []string { return []string{"keep", "discard", "quarantine", "tempfail", "reject"} }

// A reader reads rules and tests from YAML.
type reader struct {
	*reporter
	src   *source
	rule  string // that is being read
	rules []*rule
	tests []*ruleTest
	lists []listDef

	groups    []*family
	overrides []*override
	shadow    bool // the whole file is a trial
}

func (r *reader) at(n ast.Node, text, remedy string) {
	r.report(r.src.spotOf(n), r.rule, text, remedy)
}

// An entry is a key and its value.
type entry struct {
	name  string
	key   ast.Node
	value ast.Node
}

// plain takes off what rule files do not use, and reports it.
func (r *reader) plain(n ast.Node) (ast.Node, bool) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		r.at(n, "anchors and aliases are not used in rules", "write it out")
		return nil, false
	case *ast.TagNode:
		r.at(n, "tags are not used in rules", "take it out; text can be put in quotes")
		return nil, false
	}
	return n, true
}

// mapping returns the entries of a mapping whose keys are among known, each key once.
func (r *reader) mapping(n ast.Node, what string, known []string) []entry {
	n, ok := r.plain(n)
	if !ok {
		return nil
	}
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		r.at(n, fmt.Sprintf("%s is keys with values, not %s", what, describe(n)), "")
		return nil
	}
	var out []entry
	seen := map[string]bool{}
	for _, v := range values {
		key, ok := r.plain(v.Key)
		if !ok {
			continue
		}
		name, ok := scalar(key)
		if !ok {
			r.at(key, "a key is one word", "")
			continue
		}
		switch {
		case known != nil && !slices.Contains(known, name):
			r.at(key, fmt.Sprintf("%s has no `%s`", what, name), didYouMean(name, known))
			continue
		case seen[name]:
			r.at(key, fmt.Sprintf("%s has `%s` twice", what, name), "take one out")
			continue
		}
		seen[name] = true
		value, ok := r.plain(v.Value)
		if !ok {
			continue
		}
		out = append(out, entry{name, key, value})
	}
	return out
}

// items returns the items of a list.
func (r *reader) items(n ast.Node, what string) []ast.Node {
	n, ok := r.plain(n)
	if !ok {
		return nil
	}
	if _, null := n.(*ast.NullNode); null {
		return nil
	}
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		r.at(n, fmt.Sprintf("%s is a list, not %s", what, describe(n)), "begin each item with `- `")
		return nil
	}
	var out []ast.Node
	for _, v := range s.Values {
		if v, ok := r.plain(v); ok {
			out = append(out, v)
		}
	}
	return out
}

// scalar returns the text of a scalar as written.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// describe names what a node is.
func describe(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	}
	return "text"
}

// text reads a value that is text.
func (r *reader) text(e entry) (string, bool) {
	switch e.value.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return scalar(e.value)
	case *ast.NullNode:
		r.at(e.key, fmt.Sprintf("`%s` has no value", e.name), "")
		return "", false
	}
	r.at(e.value, fmt.Sprintf("`%s` is text, not %s", e.name, describe(e.value)), "")
	return "", false
}

func (r *reader) boolean(e entry) bool {
	b, ok := e.value.(*ast.BoolNode)
	if !ok {
		r.at(e.value, fmt.Sprintf("`%s` is true or false, not %s", e.name, describe(e.value)), fmt.Sprintf("write `%s: true`", e.name))
		return false
	}
	return b.Value
}

// file reads a whole rule file.
func (r *reader) file(n ast.Node) {
	if n == nil {
		return
	}
	if _, ok := n.(*ast.SequenceNode); ok {
		r.at(n, "a rule file has the keys `rules` and `tests`", "put `rules:` above the list")
		return
	}
	for _, e := range r.mapping(n, "a rule file", []string{"include", "rules", "tests", "lists", "groups", "overrides", "shadow"}) {
		switch e.name {
		case "include": // what it names has been read
		case "rules":
			r.ruleList(e.value)
		case "lists":
			r.listMap(e.value)
		case "tests":
			r.testList(e.value)
		case "groups":
			r.families(e.value)
		case "overrides":
			r.overrideList(e.value)
		case "shadow":
			r.shadow = r.boolean(e)
		}
	}
	if !r.shadow {
		return
	}
	for _, o := range r.overrides {
		r.report(o.pos, "", "a file that is tried only overrides nothing", "take `shadow` out, or put the overrides into a file of their own")
	}
	for _, x := range r.rules {
		if !x.shadow {
			x.shadow, x.shadowBy = true, "the file "+r.src.path
		}
	}
}

func (r *reader) ruleList(n ast.Node) {
	for _, item := range r.items(n, "`rules`") {
		r.one(item)
	}
}

func ruleKeys() []string {
	return append([]string{"name", "when", "score", "group", "file", "flag", "header", "shadow"}, finals()...)
}

// one reads one rule. A rule that has a name is kept, wrong as it may be, so that others can speak of it.
func (r *reader) one(n ast.Node) {
	x := &rule{pos: r.src.spotOf(n)}
	r.rule = ""
	entries := r.mapping(n, "a rule", ruleKeys())
	if entries == nil {
		if m, ok := n.(*ast.MappingNode); ok && len(m.Values) == 0 {
			r.at(n, "a rule has `name` and `when`", "")
		}
		return
	}
	for _, e := range entries {
		if e.name == "name" {
			r.name(x, e)
		}
	}
	r.rule = x.name
	defer func() { r.rule = "" }()
	first := ""
	has := map[string]bool{}
	for _, e := range entries {
		has[e.name] = true
		switch e.name {
		case "when":
			r.when(x, e)
		case "score":
			r.score(x, e)
		case "file":
			r.folder(x, e)
		case "flag":
			r.flags(x, e)
		case "header":
			r.header(x, e)
		case "shadow":
			x.shadow = r.boolean(e)
		case "group":
			if name, ok := r.text(e); ok {
				x.groupNamed = named{name, r.src.spotOf(e.value)}
			}
		case "name":
		default:
			action, reply, ok := r.final(e)
			switch {
			case !ok:
			case first != "":
				r.at(e.key, fmt.Sprintf("a rule has one final verdict; this one has `%s` already", first), "make two rules of it")
			default:
				first, x.final, x.reply = e.name, action, reply
			}
		}
	}
	if !has["name"] {
		r.at(n, "the rule has no name", "add `name: ` with lower-case letters, digits and _")
	}
	if !has["when"] {
		r.at(n, "the rule has no condition", "add `when: `; `when: true` always holds")
	}
	r.rules = append(r.rules, x)
}

func (r *reader) name(x *rule, e entry) {
	name, ok := r.text(e)
	if !ok {
		return
	}
	switch {
	case len(name) > maxName:
		r.at(e.value, fmt.Sprintf("the name has %d characters", len(name)), fmt.Sprintf("use at most %d", maxName))
	case !ruleName.MatchString(name):
		r.at(e.value, fmt.Sprintf("%q is not the name of a rule", name), "write lower-case letters, digits and _, a letter first")
	default:
		x.name = name
		x.pos = r.src.spotOf(e.value)
	}
}

func (r *reader) when(x *rule, e entry) {
	text, ok := scalar(e.value)
	if !ok {
		r.at(e.value, fmt.Sprintf("a condition is text, not %s", describe(e.value)), "put it in quotes")
		return
	}
	x.when = []rune(text)
	x.whenAt = r.src.places(e.value, x.when)
	if strings.TrimSpace(text) == "" {
		x.when = nil
		r.at(e.key, "the condition is empty", "`when: true` always holds")
	}
}

func (r *reader) score(x *rule, e entry) {
	x.score, _ = r.number(e, "score: 2.5") // one that is wrong is there all the same
	x.scoreAt, x.scores = r.src.spotOf(e.key), true
}

// final reads a final verdict; ok is false where it says nothing.
func (r *reader) final(e entry) (a pipeline.Action, reply pipeline.Reply, ok bool) {
	switch e.name {
	case "keep":
		return pipeline.Keep, reply, r.boolean(e)
	case "discard":
		return pipeline.Discard, reply, r.boolean(e)
	case "quarantine":
		return pipeline.Quarantine, reply, r.boolean(e)
	case "tempfail":
		a = pipeline.TempFail
	default:
		a = pipeline.Reject
	}
	text, isScalar := scalar(e.value)
	if b, isBool := e.value.(*ast.BoolNode); isBool {
		if !b.Value {
			return a, reply, false
		}
		text = ""
	}
	if !isScalar {
		example := "5.7.1 not wanted here"
		if a == pipeline.TempFail {
			example = "4.7.1 not now"
		}
		r.at(e.value, fmt.Sprintf("`%s` is the text of the reply, not %s", e.name, describe(e.value)),
			fmt.Sprintf("write for example `%s: %s`, or `%s: true`", e.name, example, e.name))
		return a, reply, false
	}
	reply, err := pipeline.ParseReply(a, strings.TrimSuffix(text, "\n"))
	if err != nil {
		r.at(e.value, err.Error(), "")
		// The verdict is there all the same: a second one is a mistake of its own.
		return a, reply, true
	}
	return a, reply, true
}

func (r *reader) folder(x *rule, e entry) {
	name, ok := r.text(e)
	if !ok {
		return
	}
	if why := badFolder(name); why != "" {
		r.at(e.value, why, "write for example `file: Lists/go`")
		return
	}
	if err := r.reporter.folder(name); err != nil {
		r.at(e.value, err.Error(), fmt.Sprintf("write for example `file: %s`", strings.NewReplacer(".", "/", "~", "").Replace(name)))
		return
	}
	x.folder = name
}

// badFolder says why a name cannot be a folder's, "" if it can.
func badFolder(name string) string {
	switch {
	case name == "":
		return "the folder has no name"
	case len(name) > maxFolder:
		return fmt.Sprintf("the folder's name has %d octets; at most %d are possible", len(name), maxFolder)
	}
	for _, c := range name {
		if c < ' ' || c >= 0x7f && c < 0xa0 || c == '�' {
			return fmt.Sprintf("the folder's name holds %q", c)
		}
	}
	for _, part := range strings.Split(name, "/") {
		switch {
		case part == "":
			return fmt.Sprintf("%q has a level without a name", name)
		case part == "." || part == ".." || strings.HasPrefix(part, "."):
			return fmt.Sprintf("%q has a level that begins with a dot", name)
		case strings.TrimSpace(part) != part:
			return fmt.Sprintf("%q has a level that begins or ends with a space", name)
		case strings.ContainsAny(part, "%*"):
			return fmt.Sprintf("%q has %% or * in it, which mail clients read as patterns", name)
		}
	}
	return ""
}

func (r *reader) flags(x *rule, e entry) {
	items := []ast.Node{e.value}
	if _, ok := e.value.(*ast.SequenceNode); ok {
		items = r.items(e.value, "`flag`")
	}
	if len(items) == 0 {
		r.at(e.key, "`flag` names no flag", `write for example "flag: [\\Flagged, invoice]"`)
	}
	if len(items) > maxFlags {
		r.at(e.value, fmt.Sprintf("the rule sets %d flags", len(items)), fmt.Sprintf("at most %d are possible", maxFlags))
		return
	}
	for _, n := range items {
		text, ok := r.text(entry{"flag", e.key, n})
		if !ok {
			continue
		}
		flag, why := checkFlag(text)
		if why != "" {
			r.at(n, why, "")
			continue
		}
		if !slices.Contains(x.flags, flag) {
			x.flags = append(x.flags, flag)
		}
	}
}

// checkFlag returns a flag in its usual spelling, or why it is none. RFC 9051, 9: a keyword is an atom.
func checkFlag(s string) (flag, why string) {
	if strings.HasPrefix(s, `\`) {
		known := []string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`}
		for _, k := range known {
			if strings.EqualFold(k, s) {
				return k, ""
			}
		}
		return "", fmt.Sprintf("`%s` is not a flag of the mail protocols; there is %s", s, strings.Join(known, ", "))
	}
	if s == "" {
		return "", "the flag has no name"
	}
	if len(s) > maxFlag {
		return "", fmt.Sprintf("the flag has %d characters; at most %d are possible", len(s), maxFlag)
	}
	for _, c := range s {
		if c <= ' ' || c >= 0x7f || strings.ContainsRune(`(){%*"\]`, c) {
			return "", fmt.Sprintf("the flag holds %q; use letters, digits, $, - and _", c)
		}
	}
	return s, ""
}

func (r *reader) header(x *rule, e entry) {
	maps := []ast.Node{e.value}
	if _, ok := e.value.(*ast.SequenceNode); ok {
		maps = r.items(e.value, "`header`")
	}
	for _, m := range maps {
		for _, f := range r.mapping(m, "`header`", nil) {
			if why, remedy := badField(f.name); why != "" {
				r.at(f.key, why, remedy)
				continue
			}
			values := []ast.Node{f.value}
			if _, ok := f.value.(*ast.SequenceNode); ok {
				values = r.items(f.value, "the field")
			}
			for _, v := range values {
				text, ok := scalar(v)
				if !ok {
					r.at(v, fmt.Sprintf("the value of `%s` is text, not %s", f.name, describe(v)), "")
					continue
				}
				if why := badValue(f.name, text); why != "" {
					r.at(v, why, "")
					continue
				}
				x.edits = append(x.edits, pipeline.Edit{Name: f.name, Value: text})
			}
		}
	}
	if len(x.edits) > maxFields {
		r.at(e.key, fmt.Sprintf("the rule adds %d fields", len(x.edits)), fmt.Sprintf("at most %d are possible", maxFields))
	}
}

// badField says why a rule may not add a field of this name.
func badField(name string) (why, remedy string) {
	if name == "" {
		return "the field has no name", ""
	}
	if len(name) > 70 {
		return fmt.Sprintf("the field's name has %d characters", len(name)), "use at most 70"
	}
	for _, c := range name {
		// RFC 5322, 3.6.8: printable ASCII but the colon.
		if c <= ' ' || c >= 0x7f || c == ':' {
			return fmt.Sprintf("the field's name holds %q", c), "use letters, digits and -"
		}
	}
	if pipeline.Ours(name) {
		return fmt.Sprintf("`%s` is a field that Sluice writes itself", name), "use another name"
	}
	lower := strings.ToLower(name)
	for _, prefix := range []string{"content-", "resent-", "arc-"} {
		if strings.HasPrefix(lower, prefix) {
			return fmt.Sprintf("`%s` belongs to how the mail is made and travels", name), "rules add fields of their own, X-Something say"
		}
	}
	switch lower {
	case "received", "return-path", "delivered-to", "from", "sender", "reply-to", "to", "cc", "bcc", "date", "message-id",
		"in-reply-to", "references", "subject", "mime-version", "dkim-signature", "authentication-results", "received-spf", "dkim-filter",
		"status", "x-status", "x-uid", "x-keywords":
		return fmt.Sprintf("`%s` belongs to how the mail is made and travels", name), "rules add fields of their own, X-Something say"
	}
	return "", ""
}

func badValue(name, value string) string {
	if strings.TrimSpace(value) == "" {
		return fmt.Sprintf("`%s` has no value", name)
	}
	for i, c := range []rune(value) {
		if c < ' ' || c > 0x7e {
			return fmt.Sprintf("the value of a field is one line of printable ASCII; character %d is %q", i+1, c)
		}
	}
	if n := len(name) + 2 + len(value); n > maxField {
		return fmt.Sprintf("the field has %d octets; at most %d are possible", n, maxField)
	}
	return ""
}

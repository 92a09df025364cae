package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"sluice/pipeline"
)

// Lists are named lists written in the configuration itself: by name, of what kind they are, the files that hold their
// entries, and entries written there. They keep the YAML, so that what is wrong has a line and a column.
type Lists struct {
	node ast.Node
}

// UnmarshalYAML takes the node of the mapping.
func (l *Lists) UnmarshalYAML(n ast.Node) error {
	l.node = n
	return nil
}

// ListKinds are the words for what a list can hold.
func ListKinds() []string { return slices.Clone(entryKinds[1:]) }

// ParseLists reads lists as a configuration would hold them.
func ParseLists(text string) (Lists, error) {
	in, err := ParseInline(text)
	return Lists(in), err
}

// MarshalJSON writes the lists as plain values, for the version of the plan.
func (l Lists) MarshalJSON() ([]byte, error) { return json.Marshal(plainValue(l.node)) }

// A listDef is a list as it was written, before its files are read.
type listDef struct {
	named
	kind   entryKind
	files  []named
	values []named
}

// listMap reads `lists:`.
func (r *reader) listMap(n ast.Node) {
	for _, e := range r.mapping(n, "`lists`", nil) {
		def := listDef{named: named{e.name, r.src.spotOf(e.key)}}
		has := map[string]bool{}
		for _, x := range r.mapping(e.value, "a list", []string{"kind", "files", "values"}) {
			has[x.name] = true
			switch x.name {
			case "kind":
				text, ok := r.text(x)
				i := slices.Index(entryKinds[1:], text)
				if ok && i < 0 {
					r.at(x.value, fmt.Sprintf("there is no kind of list `%s`", text), didYouMean(text, entryKinds[1:]))
				}
				def.kind = entryKind(i + 1)
			case "files":
				def.files = r.oneOrMore(x)
			case "values":
				def.values = r.oneOrMore(x)
			}
		}
		switch {
		case !ruleName.MatchString(e.name) || len(e.name) > maxName:
			r.at(e.key, fmt.Sprintf("%q is not the name of a list", shorten(e.name, maxName)), "write lower-case letters, digits and _, a letter first")
		case isWord(e.name):
			r.at(e.key, fmt.Sprintf("`%s` is a word of the rule language", e.name), "give the list another name")
		case len(has) == 0:
			r.at(e.key, fmt.Sprintf("the list `%s` says nothing", e.name), fmt.Sprintf("write `%s: {kind: addresses, files: […]}`", e.name))
		case !has["kind"]:
			r.at(e.key, fmt.Sprintf("the list `%s` does not say what it holds", e.name), "add `kind: `, one of "+strings.Join(entryKinds[1:], ", "))
		case !has["files"] && !has["values"]:
			r.at(e.key, fmt.Sprintf("the list `%s` has no entries", e.name), "add `files: […]` or `values: […]`")
		}
		r.lists = append(r.lists, def)
	}
}

// oneOrMore reads a list of texts, or one.
func (r *reader) oneOrMore(e entry) (all []named) {
	items := []ast.Node{e.value}
	if _, ok := e.value.(*ast.SequenceNode); ok {
		items = r.items(e.value, "`"+e.name+"`")
	}
	for _, n := range items {
		text, ok := scalar(n)
		if !ok {
			r.at(n, fmt.Sprintf("`%s` holds texts, not %s", e.name, describe(n)), "")
			continue
		}
		all = append(all, named{text, r.src.spotOf(n)})
	}
	return all
}

const (
	maxShownEntries = 20        // wrong ones of a file
	maxPatterns     = 1_000_000 // instructions of all patterns of a list
)

// patternSize is how many instructions a pattern takes, once its repetitions are written out.
func patternSize(s string) int {
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return 0
	}
	p, err := syntax.Compile(re.Simplify())
	if err != nil {
		return 0
	}
	return len(p.Inst)
}

// loadLists reads what lists hold, and returns the files it is in. Those that are wrong are there all the same, so that
// conditions can name them.
func (s *ruleset) loadLists(defs []listDef, c Config, env pipeline.Env, r *reporter) (sources []*source) {
	for _, def := range defs {
		if old, ok := s.listAt[def.name]; ok {
			r.report(def.at, "", fmt.Sprintf("there is a list `%s` already, at %s", def.name, s.namedLists[old].pos), "give one another name")
			continue
		}
		if _, ok := s.scope.steps[def.name]; ok || def.name == s.scope.step {
			r.report(def.at, "", fmt.Sprintf("`%s` is the name of a step", def.name), "give the list another name")
			continue
		}
		l := &list{name: def.name, kind: def.kind, pos: def.at, maxPattern: c.MaxPattern}
		s.listAt[def.name] = len(s.namedLists)
		s.namedLists = append(s.namedLists, l)
		if l.kind == noKind {
			continue
		}
		ld := &listLoader{reporter: r, list: l, most: c.MaxListEntries, octets: c.MaxListOctets}
		for _, v := range def.values {
			ld.entry(v.name, -1, v.at)
		}
		for _, f := range def.files {
			ld.files(f, env)
		}
		l.seal()
		sources = append(sources, ld.sources...)
	}
	return sources
}

// A listLoader reads the entries of one list.
type listLoader struct {
	*reporter
	list     *list
	most     int // entries
	octets   int // of all files, what is left of them
	tooMany  bool
	tooLarge bool
	shown    int
	unshown  int
	patterns int // instructions of all patterns
	sources  []*source
}

// files reads the files that a name or pattern leads to. In a rule file it is relative to that file.
func (ld *listLoader) files(name named, env pipeline.Env) {
	if env.Files == nil {
		ld.report(name.at, "", "there is no place to read lists from", "")
		return
	}
	found, err := filesBeside(env, name.at.src.path, name.name)
	if err != nil {
		remedy := ""
		if name.at.src.path != "" {
			remedy = "names are relative to the rule file"
		}
		ld.report(name.at, "", err.Error(), remedy)
		return
	}
	for _, f := range found {
		if slices.Contains(ld.list.files, f.Path) {
			continue // named by two patterns
		}
		ld.list.files = append(ld.list.files, f.Path)
		ld.file(f)
	}
}

// filesBeside returns the files that a rule file names, relative to it; of "" relative to the configuration.
func filesBeside(env pipeline.Env, of, pattern string) ([]pipeline.File, error) {
	if of == "" || filepath.IsAbs(pattern) || strings.HasPrefix(of, "builtin:") {
		return env.Files(pattern)
	}
	beside := filepath.Join(filepath.Dir(of), pattern)
	// Env's files are relative to the configuration; what messages call the rule file may be relative to where we are.
	whole, err := filepath.Abs(beside)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", beside, err)
	}
	found, err := env.Files(whole)
	if err != nil {
		if again, err := env.Files(beside); err == nil {
			return again, nil
		}
		return nil, errors.New(strings.ReplaceAll(err.Error(), whole, beside))
	}
	if filepath.IsAbs(of) {
		return found, nil
	}
	folder, err := filepath.Abs(filepath.Dir(of))
	if err != nil {
		return found, nil //nolint:nilerr // the files are there; only their names are longer
	}
	for i, f := range found {
		if rel, err := filepath.Rel(folder, f.Path); err == nil {
			found[i].Path = filepath.Join(filepath.Dir(of), rel)
		}
	}
	return found, nil
}

// file reads one file, an entry a line.
func (ld *listLoader) file(f pipeline.File) {
	ld.shown, ld.unshown = 0, 0
	src := &source{path: f.Path}
	ld.sources = append(ld.sources, src)
	if ld.octets -= len(f.Text); ld.octets < 0 {
		if !ld.tooLarge {
			ld.report(spot{src: src}, "", fmt.Sprintf("with its %d octets the list `%s` is too large", len(f.Text), ld.list.name),
				"max_list_octets says how many are read")
		}
		ld.tooLarge = true
		return
	}
	text := string(f.Text)
	switch {
	case strings.HasPrefix(text, "\xff\xfe"), strings.HasPrefix(text, "\xfe\xff"):
		ld.report(spot{src, 1, 1, 1}, "", "the file is UTF-16", "save it as UTF-8")
		return
	case strings.ContainsRune(text, 0):
		n := strings.Count(text[:strings.IndexByte(text, 0)], "\n") + 1
		ld.report(spot{src, n, 1, 1}, "", "the file is no text: it holds a NUL", "write one entry a line")
		return
	}
	at := int32(len(ld.list.files) - 1)
	text = strings.TrimPrefix(text, "\ufeff")
	for n := int32(1); text != ""; n++ {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		line = strings.TrimSuffix(line, "\r")
		if !ld.line(src, line, at, n) {
			break
		}
	}
	if ld.unshown > 0 {
		ld.report(spot{src: src}, "", fmt.Sprintf("%d more entries are wrong", ld.unshown), "")
	}
}

// line reads one line; false: no more are read.
func (ld *listLoader) line(src *source, line string, file, n int32) bool {
	text := strings.TrimLeft(line, " \t")
	column := utf8.RuneCountInString(line[:len(line)-len(text)]) + 1
	text = strings.TrimRight(text, " \t")
	if strings.HasPrefix(text, "#") {
		return true
	}
	if ld.list.kind != regexList {
		// A # within a word is none of a comment.
		for _, space := range []string{" #", "\t#"} {
			text, _, _ = strings.Cut(text, space)
		}
		text = strings.TrimRight(text, " \t")
	}
	if text == "" {
		return true
	}
	return ld.entryAt(text, file, n, func() spot {
		return spot{src.with(int(n), line), int(n), column, utf8.RuneCountInString(text)}
	})
}

// with returns the source of one line, for messages: of a large file no more is kept.
func (s *source) with(n int, line string) *source {
	return &source{path: s.path, only: n, lines: []string{line}}
}

func (ld *listLoader) entry(text string, file int32, at spot) {
	ld.entryAt(strings.TrimSpace(text), file, int32(at.line), func() spot { return at })
}

// entryAt takes an entry in, or reports what is wrong with it; false: no more are taken.
func (ld *listLoader) entryAt(text string, file, line int32, place func() spot) bool {
	if len(ld.list.entries) >= ld.most {
		if !ld.tooMany {
			ld.report(place(), "", fmt.Sprintf("the list `%s` has more than %d entries", ld.list.name, ld.most), "max_list_entries says how many are read")
		}
		ld.tooMany = true
		return false
	}
	var (
		at          int
		why, remedy string
	)
	switch {
	case text == "":
		why = "the entry is empty"
	case len(text) > maxEntry:
		why, remedy = fmt.Sprintf("the entry has %d octets", len(text)), fmt.Sprintf("at most %d are read", maxEntry)
	case !utf8.ValidString(text):
		for i, r := range text {
			if r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd") {
				at = utf8.RuneCountInString(text[:i])
				break
			}
		}
		why, remedy = "this is not UTF-8", "save the file as UTF-8"
	case strings.ContainsRune(text, '\r'):
		at, why, remedy = firstOf(text, "\r"), "a line ends with CR alone", "save the file with LF or CR LF"
	default:
		at, why, remedy = ld.list.add(listEntry{text, file, line})
	}
	if why == "" && ld.list.kind == regexList {
		if ld.patterns += patternSize(text); ld.patterns > maxPatterns {
			ld.report(place(), "", fmt.Sprintf("up to here the patterns of the list `%s` are too large together", ld.list.name),
				"keep what are words in a list of words")
			return false
		}
	}
	if why == "" {
		return true
	}
	if ld.shown++; ld.shown > maxShownEntries {
		ld.unshown++
		return true
	}
	sp := place()
	if at > 0 {
		sp.column, sp.length = sp.column+at, 1
	}
	ld.report(sp, "", why, remedy)
	return true
}

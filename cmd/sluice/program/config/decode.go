package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"sluice/pipeline/lookalike"
)

// Limits on the file itself.
const (
	maxSize  = 4 << 20 // octets
	maxNodes = 200_000 // values, counting those of an alias each time it is used
	maxDepth = 64

	maxAnchors  = 2000
	maxProblems = 1000 // that are reported: nobody reads more
)

// A decoder fills structs from YAML, strictly, and goes on after a mistake, so that all of them are found at once.
//
// A struct's fields take the keys of their `yaml` tags; embedded structs with `yaml:",inline"` share the keys of the
// outer one. What a type reads itself (encoding.TextUnmarshaler) it reads from any scalar, and a struct that does takes
// a mapping too. A type with UnmarshalYAML(func(any) error) error or UnmarshalYAML(ast.Node) error
// is asked.
type decoder struct {
	file      string
	lines     []string
	garbled   map[int]bool // lines that are not UTF-8
	problems  Problems
	places    map[string]place  // of every key and list item met, by path
	stepPaths map[string]string // by the Pos of the step
	anchors   map[string]ast.Node
	path      string   // what is decoded now
	damaged   []string // the paths of what could not be read
	said      []string // the paths of what has a value that is wrong
	guessed   []string // the paths of steps whose kind is a guess
	nodes     int
	depth     int
	below0    bool // the time that is decoded now may be negative
}

type place struct{ line, column int }

// parse reads text and returns its one document, nil for an empty one.
func (d *decoder) parse(text string) ast.Node {
	if len(text) > maxSize {
		d.at(place{}, fmt.Sprintf("the file has %d octets", len(text)), fmt.Sprintf("at most %d are read", maxSize))
		return nil
	}
	text, marked := strings.CutPrefix(text, "\ufeff")
	whole := strings.ToValidUTF8(text, "?")
	d.lines = strings.Split(strings.ReplaceAll(whole, "\r\n", "\n"), "\n")
	if marked {
		d.at(place{1, 1}, "the file begins with a byte order mark", "save it as UTF-8 without one")
	}
	if whole != text {
		d.notUTF8(text)
		text = whole
	}
	if n := strings.Count(text, ": &"); n > maxAnchors { // the parser takes quadratic time for them
		d.at(place{}, fmt.Sprintf("the file has %d anchors", n), fmt.Sprintf("at most %d are read", maxAnchors))
		return nil
	}
	file, err := parseYAML(text)
	if err != nil {
		d.syntax(err)
		return nil
	}
	if len(file.Docs) > 1 {
		second := file.Docs[1]
		where := place{1, 1}
		if second.Start != nil {
			where = place{second.Start.Position.Line, second.Start.Position.Column}
		}
		d.at(where, "a second document begins here", "a configuration is one document; remove the line ---")
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return nil
	}
	return file.Docs[0].Body
}

// The parser is somebody else's: what it cannot survive is a mistake in the file like any other.
func parseYAML(text string) (f *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("this is not YAML: %v", p)
		}
	}()
	return parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
}

// notUTF8 reports lines in another encoding. Nothing else is said of them: what they mean is not known.
func (d *decoder) notUTF8(text string) {
	const most = 10
	d.garbled = map[int]bool{}
	for i, line := range strings.Split(text, "\n") {
		if utf8.ValidString(line) {
			continue
		}
		column := 1
		for at, r := range line {
			if r == utf8.RuneError && !strings.HasPrefix(line[at:], string(utf8.RuneError)) {
				break
			}
			column++
		}
		if len(d.garbled) < most {
			d.at(place{i + 1, column}, "the file is not UTF-8", "save it in that encoding")
		}
		d.garbled[i+1] = true
	}
}

func (d *decoder) syntax(err error) {
	// YAML forbids tabs in indentation, and the parser's words for it are about something else.
	for i, line := range d.lines {
		if indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]; strings.Contains(indent, "\t") {
			d.at(place{i + 1, strings.Index(indent, "\t") + 1}, "a tab in the indentation", "use spaces")
		}
	}
	if len(d.problems) > 0 {
		return
	}
	var e yaml.Error
	if !errors.As(err, &e) {
		d.at(place{}, err.Error(), "")
		return
	}
	where := place{1, 1}
	if t := e.GetToken(); t != nil && t.Position != nil {
		where = place{t.Position.Line, t.Position.Column}
	}
	d.at(where, e.GetMessage(), "")
}

// at reports a problem. While something is decoded it is one that leaves it unread.
func (d *decoder) at(p place, text, remedy string) {
	if d.path != "" {
		d.damaged = append(d.damaged, d.path)
	}
	d.report(p, text, remedy)
}

func (d *decoder) report(p place, text, remedy string) {
	if d.garbled[p.line] {
		return
	}
	if len(d.problems) >= maxProblems {
		if len(d.problems) == maxProblems {
			d.problems = append(d.problems, Problem{File: d.file, Text: "more is wrong than is listed here"})
		}
		return
	}
	x := Problem{File: d.file, Line: p.line, Column: p.column, Text: text, Remedy: remedy}
	if p.line > 0 && p.line <= len(d.lines) {
		x.Source = d.lines[p.line-1]
	}
	d.problems = append(d.problems, x)
}

// wrong reports a problem with what stands at a path; what is not in the file is reported where its parent is. What may
// be wrong only because something there could not be read is not reported: that has been.
func (d *decoder) wrong(path, text, remedy string) {
	if !d.hides(path) {
		d.said = append(d.said, path)
		d.report(d.where(path), text, remedy)
	}
}

// hides reports whether something at a path, or that it is a part of, could not be read.
func (d *decoder) hides(path string) bool {
	within := func(part, whole string) bool {
		rest, ok := strings.CutPrefix(part, whole)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	return slices.ContainsFunc(d.damaged, func(x string) bool { return within(x, path) || within(path, x) })
}

func (d *decoder) where(path string) place {
	return d.places[d.written(path)]
}

// written returns the path itself if it stands in the file, else the nearest of those it is a part of that does.
func (d *decoder) written(path string) string {
	for path != "" {
		if _, ok := d.places[path]; ok {
			break
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return path
}

func placeOf(n ast.Node) place {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return placeOf(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return placeOf(n.Key)
	case *ast.AnchorNode:
		return tokenPlace(n.Start.Position.Line, n.Start.Position.Column)
	case *ast.AliasNode:
		return tokenPlace(n.Start.Position.Line, n.Start.Position.Column)
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return place{}
	}
	return tokenPlace(t.Position.Line, t.Position.Column)
}

func tokenPlace(line, column int) place { return place{line, max(column, 1)} }

// resolve looks through anchors and aliases. It returns nil after reporting what it cannot follow.
func (d *decoder) resolve(n ast.Node) ast.Node {
	for range maxDepth {
		switch x := n.(type) {
		case *ast.AnchorNode:
			d.anchors[x.Name.String()] = x.Value
			n = x.Value
		case *ast.AliasNode:
			target, ok := d.anchors[x.Value.String()]
			if !ok {
				d.at(placeOf(n), fmt.Sprintf("no anchor &%s stands before this", x.Value), "")
				return nil
			}
			n = target
		case *ast.TagNode:
			d.at(placeOf(n), "tags are not understood here", "leave "+x.Start.Value+" out")
			return nil
		default:
			return n
		}
	}
	d.at(placeOf(n), "this alias leads to itself", "")
	return nil
}

// An entry is a key of a mapping and its value.
type entry struct {
	key   string
	place place
	value ast.Node
	guess bool // what was written is no key, but seems to mean this one
}

// mapping returns the entries of a mapping, each key once; ok is false if n is none.
func (d *decoder) mapping(n ast.Node) (entries []entry, ok bool) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		return nil, false
	}
	seen := map[string]place{}
	for _, v := range values {
		where := placeOf(v.Key)
		if v.Key.IsMergeKey() {
			d.at(where, "merging mappings is not understood here", "write the keys out")
			continue
		}
		key, ok := scalar(v.Key)
		if !ok {
			d.at(where, "a key is one word", "")
			continue
		}
		if first, ok := seen[key]; ok {
			d.report(where, fmt.Sprintf("%q stands here twice", key), fmt.Sprintf("it is set in line %d already", first.line))
			continue
		}
		seen[key] = where
		entries = append(entries, entry{key: key, place: where, value: v.Value})
	}
	return entries, true
}

// scalar returns the text of a scalar as it stands in the file.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.MappingKeyNode, *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode, *ast.NullNode:
		return "", false
	case ast.ScalarNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// describe names what a node is, for messages.
func describe(n ast.Node) string {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value
	case *ast.StringNode:
		return strconv.Quote(clip(n.Value))
	case *ast.LiteralNode:
		return strconv.Quote(clip(n.Value.Value))
	}
	return "this"
}

func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// Types that read themselves.
type (
	unmarshaler     interface{ UnmarshalYAML(func(any) error) error }
	nodeUnmarshaler interface{ UnmarshalYAML(ast.Node) error }
)

// value decodes n into v, which is settable. path names it in messages: "listen.smtp[0]". Problems are reported, and
// what is wrong keeps its default.
func (d *decoder) value(path string, n ast.Node, v reflect.Value) {
	if d.nodes++; d.nodes == maxNodes {
		d.at(placeOf(n), fmt.Sprintf("more than %d values", maxNodes), "")
	}
	if d.nodes >= maxNodes {
		return
	}
	if d.depth++; d.depth > maxDepth {
		d.at(placeOf(n), fmt.Sprintf("nested more than %d deep", maxDepth), "")
		d.depth--
		return
	}
	defer func(path string) { d.depth, d.path = d.depth-1, path }(d.path)
	d.path = path
	where := placeOf(n)
	if _, ok := d.places[path]; !ok {
		d.places[path] = where
	}
	if n = d.resolve(n); n == nil {
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(path, n, v.Elem())
		return
	}
	if u, ok := v.Addr().Interface().(unmarshaler); ok {
		d.ask(path, where, n, u)
		return
	}
	if u, ok := v.Addr().Interface().(nodeUnmarshaler); ok {
		if err := u.UnmarshalYAML(n); err != nil {
			d.problem(where, last(path), err)
		}
		return
	}
	if _, null := n.(*ast.NullNode); null {
		if v.Kind() != reflect.Struct || isText(v) {
			d.at(d.where(path), last(path)+" has no value", "leave the key out for its default")
		}
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if p, ok := u.(*netip.Prefix); ok { // its errors are Go's
			u = (*Network)(p)
		}
		text, isScalar := scalar(n)
		switch {
		case isScalar:
			if err := u.UnmarshalText([]byte(text)); err != nil {
				d.problem(where, last(path), err)
			}
			return
		case v.Kind() != reflect.Struct || !takesKeys(v.Type()):
			d.at(where, fmt.Sprintf("%s is one value, not %s", last(path), describe(n)), "")
			return
		}
	}
	d.plain(path, where, n, v)
}

func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

// takesKeys reports whether a struct that reads itself from text can be written as a mapping too.
func takesKeys(t reflect.Type) bool {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") != "" {
			return true
		}
	}
	return false
}

var durationType = reflect.TypeFor[time.Duration]()

func (d *decoder) plain(path string, where place, n ast.Node, v reflect.Value) {
	mistake := func(wants string) {
		d.at(where, fmt.Sprintf("%s wants %s, not %s", last(path), wants, describe(n)), remedyFor(v, n))
	}
	if v.Type() == durationType {
		text, ok := scalar(n)
		if !ok {
			mistake("a time such as 30s, 5m or 30d")
			return
		}
		magnitude, minus := text, false
		if d.below0 {
			magnitude, minus = strings.CutPrefix(text, "-")
		}
		x, err := ParseDuration(magnitude)
		if err != nil {
			mistake("a time such as 30s, 5m or 30d")
			return
		}
		if minus {
			x = -x
		}
		v.SetInt(int64(x))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(path, n, v)
	case reflect.Map:
		d.dictionary(path, n, v)
	case reflect.Slice:
		d.list(path, n, v)
	case reflect.String:
		switch n.(type) {
		case *ast.StringNode, *ast.LiteralNode:
			text, _ := scalar(n)
			v.SetString(text)
		default:
			mistake("text")
		}
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			mistake("true or false")
			return
		}
		v.SetBool(b.Value)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		x, ok := integer(n)
		if !ok || v.OverflowInt(x) {
			mistake("a whole number")
			return
		}
		v.SetInt(x)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		x, ok := integer(n)
		if !ok || x < 0 || v.OverflowUint(uint64(x)) {
			mistake("a whole number from 0")
			return
		}
		v.SetUint(uint64(x))
	case reflect.Float32, reflect.Float64:
		x, ok := number(n)
		if !ok {
			mistake("a number")
			return
		}
		v.SetFloat(x)
	case reflect.Interface:
		if v.NumMethod() == 0 {
			v.Set(reflect.ValueOf(d.anything(path, n)))
			return
		}
		mistake("nothing that can be written here")
	default:
		mistake("nothing that can be written here")
	}
}

func remedyFor(v reflect.Value, n ast.Node) string {
	text, isScalar := scalar(n)
	switch {
	case v.Type() == durationType && isScalar && strings.Trim(strings.TrimPrefix(text, "-"), "0123456789") == "":
		return fmt.Sprintf("write %ss for seconds", text)
	case v.Kind() == reflect.String && isScalar:
		return fmt.Sprintf("put it in quotes: %q", text)
	case v.Kind() == reflect.Slice && isScalar:
		return fmt.Sprintf("write [%s]", text)
	case v.Kind() == reflect.Bool && isScalar:
		switch strings.ToLower(text) {
		case "yes", "on", "y", "1":
			return "write true"
		case "no", "off", "n", "0":
			return "write false"
		}
	}
	return ""
}

func integer(n ast.Node) (int64, bool) {
	x, ok := n.(*ast.IntegerNode)
	if text, isText := n.(*ast.StringNode); isText && strings.HasSuffix(text.Value, "B") {
		var s Size // many whole numbers are sizes: 64KiB
		err := s.UnmarshalText([]byte(text.Value))
		return int64(s), err == nil
	}
	if !ok {
		return 0, false
	}
	switch i := x.Value.(type) {
	case int64:
		return i, true
	case uint64:
		return int64(i), i <= math.MaxInt64
	}
	return 0, false
}

func number(n ast.Node) (float64, bool) {
	if f, ok := n.(*ast.FloatNode); ok {
		return f.Value, true
	}
	i, ok := integer(n)
	return float64(i), ok
}

func (d *decoder) structure(path string, n ast.Node, v reflect.Value) {
	entries, ok := d.mapping(n)
	if !ok {
		d.at(placeOf(n), fmt.Sprintf("%s wants a mapping of keys and values, not %s", last(path), describe(n)), "")
		return
	}
	d.entries(path, entries, v)
}

// entries fills the fields of a struct.
func (d *decoder) entries(path string, entries []entry, v reflect.Value) {
	fields, below0 := map[string]reflect.Value{}, map[string]bool{}
	var names []string
	collect(v, func(name, options string, f reflect.Value) {
		fields[name], below0[name] = f, options == negative
		names = append(names, name)
	})
	for _, e := range d.known(path, path, entries, names) {
		d.below0 = below0[e.key]
		d.entry(path, e, fields[e.key])
		d.below0 = false
	}
}

// known returns the entries whose keys are among names. The others are reported; where one seems to mean a key that is not
// there otherwise it is taken for that, so that what stands below it is looked at too.
func (d *decoder) known(path, in string, entries []entry, names []string) (known []entry) {
	taken := map[string]bool{}
	for _, e := range entries {
		taken[e.key] = true
	}
	slices.Sort(names)
	for _, e := range entries {
		if !slices.Contains(names, e.key) {
			near := d.unknown(in, e, names)
			if near == "" || taken[near] {
				if path != "" {
					d.damaged = append(d.damaged, path)
				}
				continue
			}
			e.key, e.guess, taken[near] = near, true, true
		}
		known = append(known, e)
	}
	return known
}

// negative is what stands behind the key in the tag of a time that may be less than 0: `yaml:"keep,negative"`. Its
// comment says what that means.
const negative = "negative"

func (d *decoder) entry(path string, e entry, v reflect.Value) {
	sub := join(path, e.key)
	if _, isScalar := scalar(e.value); isScalar {
		d.places[sub] = placeOf(e.value)
	} else {
		d.places[sub] = e.place
	}
	if e.value == nil {
		d.at(e.place, e.key+" has no value", "leave the key out for its default")
		return
	}
	said, hurt := len(d.problems), len(d.damaged)
	d.value(sub, e.value, v)
	if e.guess && slices.Contains(d.damaged[hurt:], sub) {
		d.problems = d.problems[:said] // something else was meant
	}
}

// unknown reports a key that there is not, and returns the one that it seems to mean, "" for none.
func (d *decoder) unknown(path string, e entry, names []string) (near string) {
	text := fmt.Sprintf("unknown key %q", e.key)
	if path != "" {
		text += " in " + last(path)
	}
	near = lookalike.Nearest(e.key, names)
	switch {
	case near != "":
		d.report(e.place, text, fmt.Sprintf("did you mean %q?", near))
	case len(names) == 0:
		d.report(e.place, text, "it takes no keys")
	default:
		d.report(e.place, text, "there are "+strings.Join(names, ", "))
	}
	return near
}

// collect calls f for every field that has a key, with what stands behind the key in its tag.
func collect(v reflect.Value, f func(name, options string, field reflect.Value)) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		switch {
		case !v.Type().Field(i).IsExported() || name == "-":
		case name != "":
			f(name, options, v.Field(i))
		case options == "inline" || v.Type().Field(i).Anonymous:
			collect(v.Field(i), f)
		}
	}
}

// Keys lists the keys that a configuration struct takes.
func Keys(config any) []string {
	v := reflect.ValueOf(config)
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	collect(v, func(name, _ string, _ reflect.Value) { names = append(names, name) })
	return names
}

func (d *decoder) dictionary(path string, n ast.Node, v reflect.Value) {
	entries, ok := d.mapping(n)
	if !ok || v.Type().Key().Kind() != reflect.String {
		d.at(placeOf(n), fmt.Sprintf("%s wants a mapping of names and values, not %s", last(path), describe(n)), "")
		return
	}
	m := reflect.MakeMapWithSize(v.Type(), len(entries))
	for _, e := range entries {
		x := reflect.New(v.Type().Elem()).Elem()
		d.entry(path, e, x)
		m.SetMapIndex(reflect.ValueOf(e.key).Convert(v.Type().Key()), x)
	}
	v.Set(m)
}

func (d *decoder) list(path string, n ast.Node, v reflect.Value) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.at(placeOf(n), fmt.Sprintf("%s wants a list, not %s", last(path), describe(n)), remedyFor(v, n))
		return
	}
	items := reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values))
	for i, item := range s.Values {
		d.value(fmt.Sprintf("%s[%d]", path, i), item, items.Index(i))
	}
	v.Set(items)
}

// anything decodes what has no type of its own.
func (d *decoder) anything(path string, n ast.Node) any {
	if entries, ok := d.mapping(n); ok {
		m := map[string]any{}
		for _, e := range entries {
			var x any
			d.entry(path, e, reflect.ValueOf(&x).Elem())
			m[e.key] = x
		}
		return m
	}
	switch n := n.(type) {
	case *ast.SequenceNode:
		list := []any{}
		d.list(path, n, reflect.ValueOf(&list).Elem())
		return list
	case *ast.BoolNode:
		return n.Value
	case *ast.IntegerNode:
		i, _ := integer(n)
		return i
	case *ast.FloatNode:
		return n.Value
	}
	text, _ := scalar(n)
	return text
}

// ask lets a type read itself. What it decodes on the way and gives up again is not reported.
func (d *decoder) ask(path string, where place, n ast.Node, u unmarshaler) {
	before, hurt := d.problems, len(d.damaged)
	err := u.UnmarshalYAML(func(target any) error {
		v := reflect.ValueOf(target)
		if v.Kind() != reflect.Pointer || v.IsNil() {
			return fmt.Errorf("cannot decode into %T", target)
		}
		d.problems, d.damaged = nil, d.damaged[:hurt]
		d.value(path, n, v.Elem())
		return d.problems.err()
	})
	d.problems = before
	if err != nil {
		d.problem(where, last(path), err)
	}
}

// problem reports an error of a type that reads itself. name may be empty.
func (d *decoder) problem(where place, name string, err error) {
	var all Problems
	if errors.As(err, &all) { // what they leave unread has been noted
		d.problems = append(d.problems, all...)
		return
	}
	text, remedy := err.Error(), ""
	var r *remedied
	if errors.As(err, &r) {
		text, remedy = r.text, r.remedy
	}
	if name != "" {
		text = name + ": " + text
	}
	d.at(where, text, remedy)
}

// A remedied error says what to do about it.
type remedied struct{ text, remedy string }

func (r *remedied) Error() string { return r.text + "; " + r.remedy }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// last returns how messages call what stands at a path.
func last(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

// ParseDuration reads a time as configurations write it: as [time.ParseDuration] does, and in days and weeks:
// "30d", "1w", "1d12h". A negative time is none.
func ParseDuration(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	bad := fmt.Errorf("%q is no time; write for example 30s, 5m or 30d", s)
	rest := s
	var sum time.Duration
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"w", 7 * day}, {"d", day}} {
		number, after, ok := strings.Cut(rest, unit.name)
		if !ok {
			continue
		}
		x, err := strconv.ParseFloat(number, 64)
		if err != nil || !(x >= 0 && x <= float64(math.MaxInt64/4)/float64(unit.size)) {
			return 0, bad
		}
		sum, rest = sum+time.Duration(x*float64(unit.size)), after
		if rest == "" {
			return sum, nil
		}
	}
	x, err := time.ParseDuration(rest)
	if err != nil || x < 0 || x > math.MaxInt64-sum {
		return 0, bad
	}
	return sum + x, nil
}

func reflectOf(pointer any) reflect.Value { return reflect.ValueOf(pointer).Elem() }

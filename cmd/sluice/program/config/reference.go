package config

import (
	"cmp"
	"encoding"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/pipeline"
)

// What is generated from the structs of the configuration and their comments. The order matters: each needs the one
// before.
//
//go:generate go run ./internal/fieldcomments/generate ../../../.. comments.go
//go:generate sh -c "go run ../.. reference --schema >../../../../examples/sluice.schema.json"
//go:generate sh -c "go run ../.. reference >../../../../examples/reference.yaml"
//go:generate sh -c "go run ../../../../examples/own-stage reference --schema >../../../../examples/own-stage/sluice.schema.json"

// SchemaName is the file that configurations name as their schema.
const SchemaName = "sluice.schema.json"

// Comment returns the comment that stands in the source above a field of a struct type of ours, "" where there is none:
// for settings and for what scanners find.
func Comment(t reflect.Type, field string) string {
	return comments[t.PkgPath()+"."+t.Name()+"."+field]
}

// A setting is one key of a configuration struct.
type setting struct {
	key     string
	comment string        // begins with the key rather than with the name of the field
	example string        // YAML, for what has no default
	value   reflect.Value // the default
	shared  bool          // the default is what the key of the same name says for all doors
	below0  bool          // a time that may be negative
}

// settings lists the keys of a struct. The source of a site's own stages is not here to be read when Sluice is made: they
// say in a tag `doc:"…"` what a setting is. bare is the same struct without the defaults that come from other keys.
func settings(v, bare reflect.Value) []setting {
	var all []setting
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || key == "-":
		case key != "":
			s := setting{key: key, value: v.Field(i), example: f.Tag.Get("example"), below0: options == negative}
			s.comment = cmp.Or(Comment(v.Type(), f.Name), f.Tag.Get("doc"))
			s.shared = bare.Field(i).IsZero() && !v.Field(i).IsZero()
			if rest, ok := strings.CutPrefix(s.comment, f.Name+" "); ok {
				s.comment = key + " " + rest
			}
			if s.shared {
				s.comment, _, _ = strings.Cut(s.comment, " The default is ") // of the package, for others than us
				s.comment += fmt.Sprintf(" Default: what limits.%s says.", key)
			}
			all = append(all, s)
		case options == "inline" || f.Anonymous:
			all = append(all, settings(v.Field(i), bare.Field(i))...)
		}
	}
	return all
}

// complete returns the configuration without a file and all its defaults, and the same without those defaults that come
// from other keys.
func complete() (c, bare *Config) {
	c, bare = Default(), Default()
	c.Listen, bare.Listen = DefaultListen(), DefaultListen()
	c.Limits.shared()
	return c, bare
}

// Undescribed lists the settings that have no comment, by path: of the configuration, of every step, and of each kind.
func Undescribed(kinds []pipeline.Kind) (paths []string) {
	c, bare := complete()
	seen := map[reflect.Type]bool{}
	var walk func(path string, v, bare reflect.Value)
	walk = func(path string, v, bare reflect.Value) {
		if seen[v.Type()] {
			return
		}
		seen[v.Type()] = true
		for _, s := range settings(v, bare) {
			if s.comment == "" {
				paths = append(paths, join(path, s.key))
			}
			t := s.value.Type()
			for t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
				t = t.Elem()
			}
			if t.Kind() == reflect.Struct && takesKeys(t) {
				zero := reflect.Zero(t)
				walk(join(path, s.key), zero, zero)
			}
		}
	}
	walk("", reflect.ValueOf(*c), reflect.ValueOf(*bare))
	walk("pipeline", reflect.ValueOf(common{}), reflect.ValueOf(common{}))
	for _, k := range kinds {
		if v, ok := kindConfig(k); ok {
			walk(k.Name, v, v)
		}
		if k.Doc == "" {
			paths = append(paths, k.Name)
		}
	}
	return paths
}

// kindConfig returns the defaults of a kind; ok is false for a kind without settings.
func kindConfig(k pipeline.Kind) (v reflect.Value, ok bool) {
	if k.Config == nil {
		return reflect.Value{}, false
	}
	v = reflect.ValueOf(k.Config())
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return v, v.Kind() == reflect.Struct
}

// Reference describes every setting in a configuration that means what none means. steps is what stands below
// `pipeline:` there: the steps without a configuration.
func Reference(kinds []pipeline.Kind, steps string) string {
	var r reference
	r.line("# yaml-language-server: $schema=" + SchemaName)
	r.comment(0, "Every setting of Sluice, with its default. This is a configuration, and means the same as none: write "+
		"only what shall be different. A key right behind a # has no default of its own, and what stands there is an example; a step "+
		"right behind a # is one of another kind. Printed by `sluice reference`.")
	c, bare := complete()
	for _, s := range settings(reflect.ValueOf(*c), reflect.ValueOf(*bare)) {
		r.line("")
		r.setting(0, s, reflect.ValueOf(*bare), false)
	}
	r.line("")
	r.comment(0, "o"+strings.TrimPrefix(Comment(reflect.TypeFor[Config](), "Outgoing"), "O"))
	r.line("outgoing: []")
	r.line("")
	r.comment(0, "p"+strings.TrimPrefix(Comment(reflect.TypeFor[Config](), "Pipeline"), "P"))
	r.prose(0, "Every step takes also:", settingsOf(common{}))
	r.line("pipeline:")
	for line := range strings.Lines(steps) {
		r.line(strings.TrimRight(line, "\n"))
	}
	for _, k := range kinds {
		r.line("")
		r.kind(k, true)
	}
	return r.String()
}

// ReferenceKind describes the settings of one kind of step, as a pipeline of that step alone.
func ReferenceKind(k pipeline.Kind) string {
	var r reference
	r.line("# yaml-language-server: $schema=" + SchemaName)
	r.line("pipeline:")
	r.kind(k, false)
	r.line("")
	r.comment(6, "What every step takes:")
	onError := k.OnError
	for _, s := range settingsOf(common{Name: k.StepName(), OnError: &onError, Timeout: 10 * time.Second}) {
		r.setting(6, s, reflect.Value{}, true)
	}
	return r.String()
}

func settingsOf(config any) []setting {
	return settings(reflect.ValueOf(config), reflect.ValueOf(config))
}

// A reference is the text that is being written.
type reference struct {
	strings.Builder
	described map[reflect.Type]bool // structs whose keys were listed
}

// width is where lines of comments end.
const width = 110

func (r *reference) line(s string) {
	r.WriteString(strings.TrimRight(s, " "))
	r.WriteByte('\n')
}

func (r *reference) comment(indent int, text string) {
	prefix := strings.Repeat(" ", indent) + "# "
	r.wrap(prefix, prefix, text)
}

// wrap writes text in lines that begin so, the first and the others.
func (r *reference) wrap(first, others, text string) {
	line, full := first, false
	for word := range strings.FieldsSeq(text) {
		if full && utf8.RuneCountInString(line)+utf8.RuneCountInString(word) > width {
			r.line(line)
			line = others
		}
		line, full = line+word+" ", true
	}
	if full {
		r.line(line)
	}
}

// prose lists keys in a comment.
func (r *reference) prose(indent int, title string, all []setting) {
	r.comment(indent, title)
	for _, s := range all {
		text := s.comment
		if !strings.HasPrefix(text, s.key+" ") {
			text = s.key + ": " + text
		}
		prefix := strings.Repeat(" ", indent) + "#   "
		r.wrap(prefix, prefix+"  ", text)
	}
}

// setting writes one key with its comment and its default. off puts it behind a #.
func (r *reference) setting(indent int, s setting, bare reflect.Value, off bool) {
	r.comment(indent, s.comment)
	t := s.value.Type()
	if t.Kind() == reflect.Struct && takesKeys(t) {
		if bare.IsValid() {
			bare = fieldOf(bare, s.key)
		} else {
			bare = s.value
		}
		inner := settings(s.value, bare)
		r.heading(indent, s.key+":", off || !anyDefault(inner))
		for _, x := range inner {
			r.setting(indent+2, x, bare, off)
		}
		return
	}
	elem := t
	for elem.Kind() == reflect.Slice || elem.Kind() == reflect.Map {
		elem = elem.Elem()
	}
	if elem != t && elem.Kind() == reflect.Struct && takesKeys(elem) {
		title := "Each is a mapping of:"
		if readsItself(elem) {
			title = "Each is one value, the first of these, or a mapping of them:"
		}
		if zero := reflect.Zero(elem); !r.described[elem] {
			r.prose(indent, title, settings(zero, zero))
		}
		if r.described == nil {
			r.described = map[reflect.Type]bool{}
		}
		r.described[elem] = true
	}
	text := yamlOf(s.value, s.comment)
	switch {
	case s.shared:
		off = true
	case text == "" && s.example != "":
		text, off = s.example, true
	case text == "":
		text, off = placeholder(s.value.Type()), true
	case s.example != "" && !hasDefault(s):
		text, off = s.example, true
	}
	r.heading(indent, s.key+": "+text, off)
}

func (r *reference) heading(indent int, text string, off bool) {
	if off {
		text = "#" + text
	}
	r.line(strings.Repeat(" ", indent) + text)
}

func (r *reference) kind(k pipeline.Kind, off bool) {
	r.comment(2, k.Name+": "+k.Doc)
	r.heading(2, "- "+k.Name+":", off)
	v, ok := kindConfig(k)
	if !ok {
		return
	}
	for _, s := range settings(v, v) {
		r.setting(6, s, reflect.Value{}, off)
	}
}

// fieldOf returns the field that has a key.
func fieldOf(v reflect.Value, key string) (found reflect.Value) {
	collect(v, func(name, _ string, f reflect.Value) {
		if name == key {
			found = f
		}
	})
	return found
}

func anyDefault(all []setting) bool {
	return slices.ContainsFunc(all, func(s setting) bool {
		if t := s.value.Type(); t.Kind() == reflect.Struct && takesKeys(t) {
			return anyDefault(settings(s.value, s.value))
		}
		return hasDefault(s)
	})
}

// hasDefault reports whether the default of a setting can be written. An empty text or list is none; a number or a truth
// is one, unless an example stands in for its zero.
func hasDefault(s setting) bool {
	if s.shared || yamlOf(s.value, s.comment) == "" {
		return false
	}
	return s.example == "" || !s.value.IsZero()
}

// readsItself reports whether a struct can be written as one value too.
func readsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// isOctets reports whether a whole number is a size, which its comment says: then it is written, and may be written, as
// one.
func isOctets(t reflect.Type, comment string) bool {
	if t == reflect.TypeFor[Size]() {
		return true
	}
	return isWhole(t) && octets.MatchString(comment)
}

var octets = regexp.MustCompile(`(?i)\boctets\b`)

func isWhole(t reflect.Type) bool {
	return reflect.Int <= t.Kind() && t.Kind() <= reflect.Uint64 && t != durationType
}

// yamlOf writes a value as a configuration would, "" for one that says nothing: an empty text, list or mapping.
func yamlOf(v reflect.Value, comment string) string {
	t := v.Type()
	switch x := v.Interface().(type) {
	case time.Duration:
		return FormatDuration(x)
	case fs.FileMode:
		if x == 0 {
			return ""
		}
		return fmt.Sprintf("%#o", uint32(x))
	case Network:
		return yamlText(x.String())
	case Socket:
		return yamlText(x.Address)
	}
	if isOctets(t, comment) {
		if v.CanUint() {
			return FormatSize(int64(v.Uint()))
		}
		return FormatSize(v.Int())
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil {
			return ""
		}
		return yamlText(string(text))
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	case reflect.Float32, reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case reflect.String:
		if v.Len() == 0 {
			return ""
		}
		return yamlText(v.String())
	case reflect.Slice:
		var items []string
		for i := range v.Len() {
			items = append(items, yamlOf(v.Index(i), ""))
		}
		if len(items) == 0 {
			return ""
		}
		return "[" + strings.Join(items, ", ") + "]"
	case reflect.Map:
		var items []string
		for _, k := range slices.SortedFunc(maps.Keys(keysOf(v)), cmp.Compare[string]) {
			items = append(items, yamlText(k)+": "+yamlOf(v.MapIndex(reflect.ValueOf(k).Convert(t.Key())), ""))
		}
		if len(items) == 0 {
			return ""
		}
		return "{" + strings.Join(items, ", ") + "}"
	}
	return ""
}

func keysOf(v reflect.Value) map[string]bool {
	keys := map[string]bool{}
	for _, k := range v.MapKeys() {
		keys[k.String()] = true
	}
	return keys
}

// placeholder stands where there is neither a default nor an example.
func placeholder(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		return "[]"
	case reflect.Map:
		return "{}"
	case reflect.Pointer:
		return cmp.Or(yamlOf(reflect.Zero(t.Elem()), ""), `""`)
	}
	return `""`
}

var plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./@-]*$`)

// yamlText writes text as a YAML scalar that is text everywhere.
func yamlText(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return strconv.Quote(s)
	}
	if plainText.MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}

// FormatDuration writes a time as [ParseDuration] reads it and people write it: 30d, 5m, 1h30m.
func FormatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// FormatSize writes a number of octets as [Size] reads it.
func FormatSize(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// ExampleKind is a configuration with one step of a kind, with the examples of its settings.
func ExampleKind(k pipeline.Kind) string {
	return uncommented.ReplaceAllString(ReferenceKind(k), "$1$2")
}

// uncommented finds settings that are behind a #: nothing stands between.
var uncommented = regexp.MustCompile(`(?m)^( *)#([^ \n])`)

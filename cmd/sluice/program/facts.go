package program

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/pipeline"
)

// facts prints what the steps found, and why they did not.
func (t *text) facts(indent int, steps []pipeline.StepRecord) {
	title := false
	for _, s := range steps {
		if len(s.Fact) == 0 && s.Unknown == "" && len(s.Missing) == 0 {
			continue
		}
		if !title {
			t.title(indent, "facts")
			title = true
		}
		switch {
		case len(s.Fact) > 0:
			t.fact(indent+1, s.Name, s.Fact, shadow(s.Shadow))
		case s.Unknown != "":
			t.styledRow(indent+1, wide, s.Name, unknownStyle(s.Unknown), "unknown: %s%s", s.Unknown, shadow(s.Shadow))
		}
		// Often many fields are unknown for one reason.
		names := map[string][]string{}
		for _, name := range sortedKeys(s.Missing) {
			names[s.Missing[name]] = append(names[s.Missing[name]], name)
		}
		for _, why := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { return strings.Compare(names[a][0], names[b][0]) }) {
			field := strings.Join(names[why], ", ")
			if len(names[why]) > 1 {
				field = "{" + field + "}"
			}
			t.styledRow(indent+1, wide, s.Name+"."+field, unknownStyle(why), "unknown: %s", why)
		}
	}
}

// unknownStyle lets what has failed stand out, and what was not asked stand back.
func unknownStyle(why string) style {
	if why == "not needed" || why == "no message came" {
		return faint
	}
	return yellow
}

const (
	// longFact is how many characters a fact may have to be shown in one line.
	longFact = 200
	// longValue is how many characters of one of its values are shown, unless all are asked for.
	longValue = 400
)

// fact prints what a step found, as rules would name it: in one line, or, where that would be long, each field in its own,
// without what is empty, 0 or false.
func (t *text) fact(indent int, name string, raw json.RawMessage, note string) {
	v, err := inOrder(raw)
	fields, ok := v.(ordered)
	if err != nil || !ok {
		t.row(indent, wide, name, "%s%s", raw, note)
		return
	}
	if whole := plain(fields); len(whole) <= longFact {
		t.row(indent, wide, name, "%s%s", whole, note)
		return
	}
	something, left := fields.something()
	if len(something) == 0 {
		t.row(indent, wide, name, "all is empty, 0 or false%s", note)
		return
	}
	t.row(indent, wide, name, "%s", strings.TrimSpace(note))
	for _, f := range something {
		t.row(indent+1, middle, f.name, "%s", t.cut(plain(f.value)))
	}
	if left {
		t.styled(indent+1, faint, "the rest is empty, 0 or false")
	}
}

// cut shortens what is too long to be looked at.
func (t *text) cut(s string) string {
	n := utf8.RuneCountInString(s)
	if t.full || n <= longValue {
		return s
	}
	return fmt.Sprintf("%s… (%d more characters: --full shows them)", string([]rune(s)[:longValue]), n-longValue)
}

// An ordered is an object of JSON whose fields stay in their order: facts begin with what matters.
type ordered []orderedField

type orderedField struct {
	name  string
	value any
}

// inOrder decodes JSON. Objects become ordered.
func inOrder(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return inOrderFrom(d, 0)
}

func inOrderFrom(d *json.Decoder, depth int) (any, error) {
	if depth > 100 {
		return nil, errors.New("nested too deep")
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		fields := ordered{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			value, err := inOrderFrom(d, depth+1)
			if err != nil {
				return nil, err
			}
			fields = append(fields, orderedField{fmt.Sprint(name), value})
		}
		_, err := d.Token()
		return fields, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := inOrderFrom(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err := d.Token()
		return list, err
	}
	return token, nil
}

// something is an object without what in it is empty, 0 or false, and whether anything was left out.
func (o ordered) something() (out ordered, left bool) {
	for _, f := range o {
		value, some, more := something(f.value)
		left = left || more || !some
		if some {
			out = append(out, orderedField{f.name, value})
		}
	}
	return out, left
}

// something is a value without what in it is empty, 0 or false; whether that is anything, and whether anything was left out.
func something(v any) (out any, some, left bool) {
	switch v := v.(type) {
	case ordered:
		fields, left := v.something()
		return fields, len(fields) > 0, left
	case []any:
		var list []any
		for _, x := range v {
			x, _, more := something(x)
			list, left = append(list, x), left || more
		}
		return list, len(list) > 0, left
	case string:
		return v, v != "", false
	case bool:
		return v, v, false
	case json.Number:
		x, err := v.Float64()
		return v, err != nil || x != 0, false
	}
	return v, v != nil, false
}

func plain(v any) string {
	switch v := v.(type) {
	case ordered:
		var parts []string
		for _, f := range v {
			parts = append(parts, f.name+": "+plain(f.value))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, plain(x))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case string:
		if v == "" || strings.ContainsAny(v, ` ,:{}[]"`) {
			return strconv.Quote(v)
		}
		return v
	case nil:
		return "none"
	}
	return fmt.Sprint(v)
}

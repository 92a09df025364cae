package program

import (
	"encoding"
	"encoding/json"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"sluice/cmd/sluice/program/config"
)

// recordSchema is the JSON Schema of what explain --json prints. $defs/record in it is a record, as journal export writes
// it too. It is made from the types that are printed, so that it has each field of them.
func recordSchema() map[string]any {
	d := definitions{}
	s := d.object(reflect.TypeFor[explanations]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "What sluice explain --json prints"
	s["description"] = "Within a version fields may come, and none goes or changes its meaning: ignore what you do not know. " +
		"A field that is left out is empty, 0 or false."
	s["properties"].(map[string]any)["version"] = map[string]any{"description": "of this form", "enum": []int{explainVersion}}
	s["$defs"] = d
	return s
}

// definitions are the schemas of structs, by the names of their types.
type definitions map[string]any

// object describes a struct as encoding/json writes it.
func (d definitions) object(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			inner := d.object(f.Type)
			maps.Copy(properties, inner["properties"].(map[string]any))
			required = append(required, inner["required"].([]string)...)
			continue
		case !f.IsExported() || name == "-" || name == "":
			continue
		}
		optional := strings.Contains(options, "omit")
		if !optional {
			required = append(required, name)
		}
		s := d.value(f.Type, optional)
		if about := about(t, f.Name, name); about != "" {
			s["description"] = about
		}
		properties[name] = s
	}
	slices.Sort(required)
	return map[string]any{"type": "object", "properties": properties, "required": required}
}

var linked = regexp.MustCompile(`\[([A-Z][A-Za-z.]*)\]`)

// about is the comment of a field, about the name that it has in JSON.
func about(t reflect.Type, field, name string) string {
	s := config.Comment(t, field)
	if rest, ok := strings.CutPrefix(s, field+" "); ok {
		s = name + " " + rest
	}
	return linked.ReplaceAllString(s, "$1")
}

// value describes a value. One that is never left out may be null, if it can be nil.
func (d definitions) value(t reflect.Type, optional bool) map[string]any {
	switch t {
	case reflect.TypeFor[json.RawMessage]():
		return map[string]any{} // each kind of step has its own: sluice reference --rules
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[time.Duration]():
		return map[string]any{"type": "integer", "minimum": 0} // nanoseconds
	case reflect.TypeFor[[]byte]():
		return map[string]any{"type": "string", "contentEncoding": "base64"}
	case reflect.TypeFor[netip.Addr]():
		return map[string]any{"type": "string"}
	}
	if all := namesOf(t); all != nil {
		return map[string]any{"enum": all}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.value(t.Elem(), optional)
	case reflect.Struct:
		name := snake(t.Name())
		if _, ok := d[name]; !ok {
			d[name] = nil // it is being described
			d[name] = d.object(t)
		}
		return map[string]any{"$ref": "#/$defs/" + name}
	case reflect.Slice:
		s := map[string]any{"type": []string{"array", "null"}, "items": d.value(t.Elem(), true)}
		if optional {
			s["type"] = "array"
		}
		return s
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": d.value(t.Elem(), true)}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	}
	if reflect.Zero(t).CanInt() || reflect.Zero(t).CanUint() {
		return map[string]any{"type": "integer"}
	}
	return map[string]any{}
}

// namesOf lists the words of a number that is written as a word, nil for other types.
func namesOf(t reflect.Type) (all []string) {
	if t.Kind() != reflect.Uint8 {
		return nil
	}
	for i := range uint64(1 << 8) {
		v := reflect.New(t).Elem()
		v.SetUint(i)
		m, ok := v.Interface().(encoding.TextMarshaler)
		if !ok {
			return nil
		}
		text, err := m.MarshalText()
		if err != nil { // there are no more
			return all
		}
		all = append(all, string(text))
	}
	return all
}

// snake writes the name of a type as names in JSON are written: stageRecord is stage_record.
func snake(name string) string {
	var b strings.Builder
	for i, c := range name {
		if unicode.IsUpper(c) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

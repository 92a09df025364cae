package config

import (
	"encoding"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"

	"sluice/mailstore/users"
	"sluice/pipeline"
	"sluice/protocols/listen"
	"sluice/rules"
)

// schema is a part of a JSON Schema.
type schema = map[string]any

// Schema returns a JSON Schema (draft 7, which editors know best) of a configuration whose steps are of these kinds.
// What it takes is at least what the program takes: it finds misspelt keys and wrong types, and `sluice check` the rest.
func Schema(kinds []pipeline.Kind) any {
	c, bare := complete()
	s := objectSchema(reflect.ValueOf(*c), reflect.ValueOf(*bare))
	s["$schema"] = "http://json-schema.org/draft-07/schema#"
	s["title"] = "A configuration of Sluice"
	each := schema{}
	for _, k := range kinds {
		each[k.Name] = stepSchema(k)
	}
	s["properties"].(schema)["pipeline"] = schema{
		"description": "p" + Comment(reflect.TypeFor[Config](), "Pipeline")[1:],
		"type":        "array",
		"items": schema{
			"type": "object", "properties": each, "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
		},
	}
	s["properties"].(schema)["outgoing"] = schema{
		"description": "o" + Comment(reflect.TypeFor[Config](), "Outgoing")[1:],
		"type":        "array",
		"items":       schema{"$ref": "#/properties/pipeline/items"},
	}
	return s
}

func stepSchema(k pipeline.Kind) schema {
	onError := k.OnError
	s := objectSchemaOf(common{Name: k.Name, OnError: &onError})
	if v, ok := kindConfig(k); ok {
		maps.Copy(s["properties"].(schema), objectSchema(v, v)["properties"].(schema))
	}
	s["description"] = k.Doc
	return s
}

func objectSchemaOf(config any) schema {
	return objectSchema(reflect.ValueOf(config), reflect.ValueOf(config))
}

func objectSchema(v, bare reflect.Value) schema {
	properties := schema{}
	for _, s := range settings(v, bare) {
		t := s.value.Type()
		var x schema
		if t.Kind() == reflect.Struct && takesKeys(t) && !readsItself(t) {
			x = objectSchema(s.value, fieldOf(bare, s.key))
		} else {
			x = typeSchema(t, s.comment)
			if s.below0 {
				x["pattern"] = "^-?" + durationPattern[1:]
			}
			if text := yamlOf(s.value, s.comment); text != "" && !s.shared {
				x["default"] = defaultOf(s, text)
			}
		}
		if s.comment != "" {
			x["description"] = s.comment
		}
		properties[s.key] = x
	}
	// A key without a value is a mapping with nothing in it.
	return schema{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
}

// defaultOf returns a default as JSON: plain values as they are, everything else as a configuration writes it.
func defaultOf(s setting, text string) any {
	switch v := s.value; {
	case v.Type() == durationType, isOctets(v.Type(), s.comment):
	case v.Kind() == reflect.Bool, v.CanFloat(), v.CanInt(), v.CanUint() && v.Type() != reflect.TypeFor[fs.FileMode]():
		return v.Interface()
	case v.Kind() == reflect.String:
		return v.String()
	case v.Kind() == reflect.Slice:
		items := []any{}
		for i := range v.Len() {
			items = append(items, defaultOf(setting{value: v.Index(i)}, unquoted(yamlOf(v.Index(i), ""))))
		}
		return items
	}
	return unquoted(text)
}

func unquoted(text string) string {
	var s string
	if _, err := fmt.Sscanf(text, "%q", &s); err == nil {
		return s
	}
	return text
}

const (
	durationPattern = `^([0-9]+(\.[0-9]+)?(w|d|h|ms|m|us|µs|ns|s))+$`
	sizePattern     = `^[0-9]+ ?(KiB|MiB|GiB|KB|MB|GB)?$`
)

// typeSchema describes what the decoder takes for a type.
func typeSchema(t reflect.Type, comment string) schema {
	if t.Kind() == reflect.Pointer {
		return typeSchema(t.Elem(), comment)
	}
	switch t {
	case durationType:
		return schema{"type": "string", "pattern": durationPattern}
	case reflect.TypeFor[Socket]():
		long := objectSchemaOf(Socket{})
		return schema{"anyOf": []any{schema{"type": []string{"string", "integer"}}, long}}
	case reflect.TypeFor[users.Aliases]():
		return schema{"type": "object", "additionalProperties": schema{
			"type": []string{"string", "array"}, "items": schema{"type": "string"},
		}}
	case reflect.TypeFor[rules.Lists]():
		texts := schema{"type": []string{"string", "array"}, "items": schema{"type": "string"}}
		return schema{"type": "object", "additionalProperties": schema{
			"type": "object", "additionalProperties": false, "required": []string{"kind"}, "properties": schema{
				"kind": schema{"enum": rules.ListKinds()}, "files": texts, "values": texts,
			},
		}}
	case reflect.TypeFor[rules.Groups]():
		return schema{"type": "object", "additionalProperties": schema{
			"type": []string{"object", "null"}, "additionalProperties": false, "properties": schema{
				"max": schema{"type": "number"}, "min": schema{"type": "number"}, "shadow": schema{"type": "boolean"},
			},
		}}
	case reflect.TypeFor[rules.Inline](): // rules and overrides
		return schema{"type": "array", "items": schema{"type": "object"}}
	}
	if all := words(t); len(all) > 0 {
		return schema{"enum": all}
	}
	switch {
	case isOctets(t, comment):
		return schema{"anyOf": []any{schema{"type": "integer"}, schema{"type": "string", "pattern": sizePattern}}}
	case reflect.PointerTo(t).Implements(reflect.TypeFor[nodeUnmarshaler]()):
		return schema{} // who knows
	case readsItself(t) && t.Kind() == reflect.Struct && takesKeys(t):
		return schema{"anyOf": []any{
			schema{"type": []string{"string", "number", "boolean"}},
			objectSchema(reflect.Zero(t), reflect.Zero(t)),
		}}
	case readsItself(t):
		return schema{"type": []string{"string", "number", "boolean"}}
	}
	switch t.Kind() {
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return schema{"type": "number"}
	case reflect.Slice:
		return schema{"type": "array", "items": typeSchema(t.Elem(), "")}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": typeSchema(t.Elem(), "")}
	case reflect.Struct:
		if takesKeys(t) {
			return objectSchema(reflect.Zero(t), reflect.Zero(t))
		}
	default:
		if isWhole(t) {
			return schema{"type": "integer"}
		}
	}
	return schema{}
}

// words lists the words that a type takes, nil for a type that takes other things.
func words(t reflect.Type) (all []string) {
	switch t {
	case reflect.TypeFor[listen.Mode]():
		return []string{string(listen.NoTLS), string(listen.StartTLS), string(listen.Implicit)}
	case reflect.TypeFor[Speak]():
		return speaks()
	case reflect.TypeFor[LogFormat]():
		return logFormats()
	case reflect.TypeFor[Level]():
		return levels()
	}
	// A number that is written as a word says which words there are.
	for i := range uint64(64) {
		if !isWhole(t) || t.Kind() < reflect.Uint || t.OverflowUint(i) {
			break
		}
		v := reflect.New(t).Elem()
		v.SetUint(i)
		m, ok := v.Interface().(encoding.TextMarshaler)
		if !ok {
			break
		}
		text, err := m.MarshalText()
		if err != nil || slices.Contains(all, string(text)) {
			break
		}
		all = append(all, string(text))
	}
	return all
}

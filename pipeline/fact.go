package pipeline

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Named is a fact whose fields are called as the configuration says: a map in Go and in JSON, a struct to rules.
type Named[T any] map[string]T

func (Named[T]) element() reflect.Type { return reflect.TypeFor[T]() }

// A named is any Named.
type named interface{ element() reflect.Type }

var factName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// FactType returns the type in which rules see a fact like sample, and in which records are decoded: sample's own type,
// or for a Named a struct type with a field for each of its names. Its fields have `json` and `expr` tags.
func FactType(sample any) (reflect.Type, error) {
	n, ok := sample.(named)
	if !ok {
		t := reflect.TypeOf(sample)
		if t == nil || t.Kind() != reflect.Struct {
			return nil, fmt.Errorf("a fact is a struct or a pipeline.Named, not %T", sample)
		}
		return t, nil
	}
	keys := reflect.ValueOf(sample).MapKeys()
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.String()
	}
	slices.Sort(names)
	fields := make([]reflect.StructField, len(names))
	for i, name := range names {
		// reflect.StructOf panics on names that are no identifiers.
		if !factName.MatchString(name) {
			return nil, fmt.Errorf("%q cannot be used as a name in rules: write lower-case letters, digits and _, a letter first", name)
		}
		fields[i] = reflect.StructField{
			Name: "F_" + name,
			Type: n.element(),
			Tag:  reflect.StructTag(fmt.Sprintf(`json:%q expr:%q`, name, name)),
		}
	}
	return reflect.StructOf(fields), nil
}

// FactValue returns fact as a value of t, which [FactType] gave for it: a Named becomes a struct, names that it does not
// have are zero. A fact that is of type t, or a pointer to it, is returned as it is.
func FactValue(t reflect.Type, fact any) reflect.Value {
	v := reflect.ValueOf(fact)
	if v.IsValid() && v.Kind() == reflect.Pointer && v.Type().Elem() == t && !v.IsNil() {
		return v.Elem()
	}
	if v.IsValid() && v.Type() == t {
		return v
	}
	out := reflect.New(t).Elem()
	if !v.IsValid() || v.Kind() != reflect.Map {
		return out
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if x := v.MapIndex(reflect.ValueOf(name)); x.IsValid() {
			out.Field(i).Set(x)
		}
	}
	return out
}

// encodeFact writes a fact as records keep it: without the fields that are unknown, for what they hold is no fact.
func encodeFact(fact any, missing map[string]error) (json.RawMessage, error) {
	raw, err := json.Marshal(fact)
	if err != nil || len(missing) == 0 {
		return raw, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	for name := range missing {
		delete(fields, name)
	}
	return json.Marshal(fields)
}

// decodeFact reads a recorded fact into the plan's type. Names that the plan does not have are ignored; those that the
// record does not have are returned as missing.
func decodeFact(t reflect.Type, raw json.RawMessage) (fact any, missing map[string]error, err error) {
	v := reflect.New(t)
	if err := json.Unmarshal(raw, v.Interface()); err != nil {
		return nil, nil, fmt.Errorf("read the recorded fact: %w", err)
	}
	var have map[string]json.RawMessage
	if err := json.Unmarshal(raw, &have); err != nil {
		return nil, nil, fmt.Errorf("read the recorded fact: %w", err)
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if _, ok := have[name]; !ok && name != "" && name != "-" && !strings.Contains(t.Field(i).Tag.Get("json"), "omitempty") {
			if missing == nil {
				missing = map[string]error{}
			}
			missing[name] = errNotRecorded
		}
	}
	return v.Elem().Interface(), missing, nil
}

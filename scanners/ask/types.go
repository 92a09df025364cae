package ask

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/pipeline"
)

// Limits of what a configuration may declare.
const (
	maxDepth  = 4  // mappings and lists inside each other
	maxFields = 64 // of one mapping
)

// A form is the declared type of a value: one of the words, a list of one form, or a mapping of names to forms.
type form struct {
	word   string // "string", "number", "integer", "bool", "" for the others
	elem   *form  // of a list
	fields []field
}

type field struct {
	name string
	form form
}

var (
	fieldName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	// words of the rule language that cannot stand behind a dot there.
	reserved = []string{"and", "or", "not", "in", "contains", "matches", "let", "if", "else", "true", "false", "nil"}
)

// parse reads what a configuration says below `facts:`. What is wrong is left out of the form, and said in the error.
func parse(path string, x any, depth int) (form, error) {
	if depth > maxDepth {
		return form{}, fmt.Errorf("%s: is nested deeper than %d", path, maxDepth)
	}
	switch x := x.(type) {
	case string:
		switch x {
		case "string", "number", "integer", "bool":
			return form{word: x}, nil
		}
	case []any:
		if len(x) != 1 {
			return form{}, fmt.Errorf("%s: a list has one type, of all its items; write for example [string]", path)
		}
		elem, err := parse(path, x[0], depth+1)
		return form{elem: &elem}, err
	case map[string]any:
		return parseFields(path, x, depth)
	}
	return form{}, fmt.Errorf("%s: %v is no type; write string, number, integer, bool, a list such as [string], or a mapping such as {name: string}", path, x)
}

func parseFields(path string, x map[string]any, depth int) (form, error) {
	var (
		f     form
		wrong []error
	)
	if len(x) == 0 {
		wrong = append(wrong, fmt.Errorf("%s: there is none; write for example `{score: number, tags: [string], spam: bool}`", path))
	}
	if len(x) > maxFields {
		wrong = append(wrong, fmt.Errorf("%s: has %d names, of at most %d", path, len(x), maxFields))
	}
	for _, name := range slices.Sorted(maps.Keys(x)) {
		at := path + ": " + name
		switch {
		case !fieldName.MatchString(name):
			wrong = append(wrong, fmt.Errorf("%s: rules cannot use this name: write lower-case letters, digits and _, a letter first", at))
			continue
		case slices.Contains(reserved, name):
			wrong = append(wrong, fmt.Errorf("%s: is a word of the rule language: give it another name", at))
			continue
		}
		sub, err := parse(at, x[name], depth+1)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		f.fields = append(f.fields, field{name, sub})
	}
	return f, errors.Join(wrong...)
}

// goType is the Go type of values of the form.
func (f form) goType() reflect.Type {
	switch {
	case f.word == "string":
		return reflect.TypeFor[string]()
	case f.word == "number":
		return reflect.TypeFor[float64]()
	case f.word == "integer":
		return reflect.TypeFor[int64]()
	case f.word == "bool":
		return reflect.TypeFor[bool]()
	case f.elem != nil:
		return reflect.SliceOf(f.elem.goType())
	}
	fields := make([]reflect.StructField, len(f.fields))
	for i, x := range f.fields {
		fields[i] = reflect.StructField{
			Name: "F_" + x.name, Type: x.form.goType(),
			Tag: reflect.StructTag(fmt.Sprintf(`json:%q expr:%q`, x.name, x.name)),
		}
	}
	return reflect.StructOf(fields)
}

// describe names the form for messages.
func (f form) describe() string {
	switch {
	case f.word == "bool":
		return "true or false"
	case f.word == "integer":
		return "a whole number"
	case f.word != "":
		return "a " + f.word
	case f.elem != nil:
		return "a list"
	}
	return "an object"
}

// fill puts a decoded JSON value into v, which is of the form's type. Its error names the place that does not fit.
func (f form) fill(path string, x any, v reflect.Value) error {
	misfit := func() error { return fmt.Errorf("%s is %s, not %s", path, describe(x), f.describe()) }
	switch {
	case f.word == "string":
		s, ok := x.(string)
		if !ok {
			return misfit()
		}
		v.SetString(s)
	case f.word == "bool":
		b, ok := x.(bool)
		if !ok {
			return misfit()
		}
		v.SetBool(b)
	case f.word != "":
		n, ok := x.(json.Number)
		if !ok {
			return misfit()
		}
		return f.number(path, n, v)
	case f.elem != nil:
		list, ok := x.([]any)
		if !ok {
			return misfit()
		}
		v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
		for i, item := range list {
			if err := f.elem.fill(fmt.Sprintf("%s[%d]", path, i), item, v.Index(i)); err != nil {
				return err
			}
		}
	default:
		object, ok := x.(map[string]any)
		if !ok {
			return misfit()
		}
		for i, sub := range f.fields {
			item, ok := object[sub.name]
			if !ok {
				return fmt.Errorf("%s.%s is missing", path, sub.name)
			}
			if err := sub.form.fill(path+"."+sub.name, item, v.Field(i)); err != nil {
				return err
			}
		}
		return f.undeclared(path, object)
	}
	return nil
}

func (f form) number(path string, n json.Number, v reflect.Value) error {
	if f.word == "integer" {
		i, err := strconv.ParseInt(n.String(), 10, 64)
		if err != nil {
			return fmt.Errorf("%s is %s, not a whole number of 64 bits", path, clip(n.String()))
		}
		v.SetInt(i)
		return nil
	}
	x, err := n.Float64()
	if err != nil || math.IsInf(x, 0) {
		return fmt.Errorf("%s is %s, which is too large for a number", path, clip(n.String()))
	}
	v.SetFloat(x)
	return nil
}

// undeclared returns an error about the first name in object that the form does not have.
func (f form) undeclared(path string, object map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if !slices.ContainsFunc(f.fields, func(x field) bool { return x.name == name }) {
			return fmt.Errorf("%s.%s is not declared; declared are %s", path, clip(pipeline.CleanText(name)), strings.Join(f.names(), ", "))
		}
	}
	return nil
}

func (f form) names() []string {
	names := make([]string, len(f.fields))
	for i, x := range f.fields {
		names[i] = x.name
	}
	return names
}

// describe names a JSON value for messages.
func describe(x any) string {
	switch x := x.(type) {
	case nil:
		return "null"
	case string:
		return "the string " + strconv.Quote(clip(x))
	case json.Number:
		return "the number " + clip(x.String())
	case bool:
		return strconv.FormatBool(x)
	case []any:
		return "a list"
	}
	return "an object"
}

// clip makes a text of somebody else's short enough for a message.
func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

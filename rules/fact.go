package rules

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"sluice/pipeline"
)

// A typ is a type as the rule language knows it.
type typ struct {
	kind   kind
	elem   *typ            // of a list
	fields map[string]*typ // of a record
	noun   string          // what a record's fields are called in messages
	lower  bool            // text that is always in lower case
	number string          // the field of a record that stands for it in arithmetic
	large  bool            // text that may be very long
	among  []string        // what text can be; nil: anything
	values []string        // texts that it can be, besides ""; nil: any
	ip     bool            // text that is an IP address
	least  *int64          // of numbers; nil: any
	most   *int64
}

type kind uint8

const (
	badKind kind = iota // wrong, and reported
	boolKind
	intKind
	floatKind
	textKind
	listKind
	recordKind
)

func (t *typ) String() string {
	switch t.kind {
	case boolKind:
		return "true or false"
	case intKind, floatKind:
		return "a number"
	case textKind:
		return "text"
	case listKind:
		switch {
		case t.elem == nil:
			return "an empty list"
		case t.elem.kind == textKind:
			return "a list of texts"
		case t.elem.isNumber():
			return "a list of numbers"
		}
		return "a list"
	case recordKind:
		return "a group of fields"
	}
	return "wrong"
}

func (t *typ) isNumber() bool { return t.kind == intKind || t.kind == floatKind }

func (t *typ) names() []string { return slices.Sorted(maps.Keys(t.fields)) }

// A shape is the form in which rules see facts of one Go type: records of plain booleans, whole numbers, numbers, texts
// and lists, under the names of their `json` tags. The rule engine must not see the scanner's own types: a named string
// type does not compare with text, and a map has every key.
type shape struct {
	typ    *typ
	goType reflect.Type
	fields []shapeField // of a record
	elem   *shape       // of a list
}

type shapeField struct {
	name  string
	shape *shape
}

var memberName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// shapeOf returns the shape of facts like sample. Its names are checked first: reflect.StructOf panics on names such as
// zen-pbl.
func shapeOf(sample reflect.Value, noun string) (*shape, error) {
	return shapeOfType(sample.Type(), sample, noun, 0)
}

func shapeOfType(t reflect.Type, sample reflect.Value, noun string, depth int) (*shape, error) {
	if depth > 8 {
		return nil, fmt.Errorf("%s is nested too deep", t)
	}
	switch t.Kind() {
	case reflect.Bool:
		return &shape{typ: &typ{kind: boolKind}, goType: reflect.TypeFor[bool]()}, nil
	case reflect.String:
		return &shape{typ: &typ{kind: textKind}, goType: reflect.TypeFor[string]()}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		whole := &typ{kind: intKind}
		if t.Kind() >= reflect.Uint {
			whole.least = new(int64)
		}
		return &shape{typ: whole, goType: reflect.TypeFor[int]()}, nil
	case reflect.Float32, reflect.Float64:
		return &shape{typ: &typ{kind: floatKind}, goType: reflect.TypeFor[float64]()}, nil
	case reflect.Slice:
		elem, err := shapeOfType(t.Elem(), reflect.Value{}, noun, depth+1)
		if err != nil {
			return nil, err
		}
		return &shape{typ: &typ{kind: listKind, elem: elem.typ}, goType: reflect.SliceOf(elem.goType), elem: elem}, nil
	case reflect.Struct:
		s := &shape{}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() || name == "-" {
				continue
			}
			var value reflect.Value
			if sample.IsValid() {
				value = sample.Field(i)
			}
			if name == "" {
				name = f.Name
			}
			if err := s.add(name, f.Type, value, "field", depth); err != nil {
				return nil, err
			}
			s.fields[len(s.fields)-1].shape.typ.bound(f.Tag)
		}
		return s.seal("field"), nil
	case reflect.Map:
		if !isNamed(t) {
			break
		}
		if !sample.IsValid() {
			return nil, fmt.Errorf("%s: its names are not known here", t)
		}
		keys := make([]string, 0, sample.Len())
		for _, k := range sample.MapKeys() {
			keys = append(keys, k.String())
		}
		slices.Sort(keys)
		s := &shape{}
		for _, k := range keys {
			if isWord(k) {
				return nil, fmt.Errorf("%q is a word of the rule language: give it another name", k)
			}
			if err := s.add(k, t.Elem(), sample.MapIndex(reflect.ValueOf(k).Convert(t.Key())), "field", depth); err != nil {
				return nil, err
			}
		}
		return s.seal(noun), nil
	}
	return nil, fmt.Errorf("rules cannot see a %s", t)
}

func (s *shape) add(name string, t reflect.Type, sample reflect.Value, noun string, depth int) error {
	if !memberName.MatchString(name) {
		return fmt.Errorf("%q cannot be used as a name in rules: write lower-case letters, digits and _, a letter first", name)
	}
	f, err := shapeOfType(t, sample, noun, depth+1)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.fields = append(s.fields, shapeField{name, f})
	return nil
}

// seal makes the record's types once its fields are known.
func (s *shape) seal(noun string) *shape {
	s.typ = &typ{kind: recordKind, fields: map[string]*typ{}, noun: noun}
	fields := make([]reflect.StructField, len(s.fields))
	for i, f := range s.fields {
		s.typ.fields[f.name] = f.shape.typ
		fields[i] = envField(f.name, f.shape.goType)
	}
	s.goType = reflect.StructOf(fields)
	return s
}

func envField(name string, t reflect.Type) reflect.StructField {
	return reflect.StructField{Name: "F_" + strings.ReplaceAll(name, " ", "_"), Type: t, Tag: reflect.StructTag(fmt.Sprintf(`expr:%q json:%q`, name, name))}
}

// isNamed reports whether t is a pipeline.Named of anything.
func isNamed(t reflect.Type) bool {
	return t.Kind() == reflect.Map && t.Key().Kind() == reflect.String &&
		t.PkgPath() == reflect.TypeFor[pipeline.Named[int]]().PkgPath() && strings.HasPrefix(t.Name(), "Named[")
}

// A converter writes a value of one Go type into one of a shape.
type converter func(dst, src reflect.Value)

// converterFrom returns how values of type t become ones of s, nil if they cannot.
func (s *shape) converterFrom(t reflect.Type) converter {
	switch s.typ.kind {
	case boolKind:
		if t.Kind() == reflect.Bool {
			return func(dst, src reflect.Value) { dst.SetBool(src.Bool()) }
		}
	case textKind:
		if t.Kind() == reflect.String {
			return func(dst, src reflect.Value) { dst.SetString(src.String()) }
		}
	case intKind:
		switch {
		case reflect.Int <= t.Kind() && t.Kind() <= reflect.Int64:
			return func(dst, src reflect.Value) { dst.SetInt(src.Int()) }
		case reflect.Uint <= t.Kind() && t.Kind() <= reflect.Uint64:
			return func(dst, src reflect.Value) { dst.SetInt(int64(min(src.Uint(), 1<<63-1))) }
		}
	case floatKind:
		if t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64 {
			return func(dst, src reflect.Value) { dst.SetFloat(src.Float()) }
		}
	case listKind:
		if t.Kind() != reflect.Slice {
			return nil
		}
		if t == s.goType {
			return func(dst, src reflect.Value) { dst.Set(src) } // facts do not change
		}
		one := s.elem.converterFrom(t.Elem())
		if one == nil {
			return nil
		}
		return func(dst, src reflect.Value) {
			out := reflect.MakeSlice(s.goType, src.Len(), src.Len())
			for i := range src.Len() {
				one(out.Index(i), src.Index(i))
			}
			dst.Set(out)
		}
	case recordKind:
		return s.recordFrom(t)
	}
	return nil
}

func (s *shape) recordFrom(t reflect.Type) converter {
	type step struct {
		field int // of dst
		from  int // of src
		key   reflect.Value
		one   converter
	}
	var steps []step
	switch {
	case t.Kind() == reflect.Struct:
		from := map[string]int{}
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if name == "" {
					name = f.Name
				}
				from[name] = i
			}
		}
		for i, f := range s.fields {
			n, ok := from[f.name]
			if !ok {
				return nil
			}
			one := f.shape.converterFrom(t.Field(n).Type)
			if one == nil {
				return nil
			}
			steps = append(steps, step{field: i, from: n, one: one})
		}
		return func(dst, src reflect.Value) {
			for _, x := range steps {
				x.one(dst.Field(x.field), src.Field(x.from))
			}
		}
	case isNamed(t):
		for i, f := range s.fields {
			one := f.shape.converterFrom(t.Elem())
			if one == nil {
				return nil
			}
			steps = append(steps, step{field: i, key: reflect.ValueOf(f.name).Convert(t.Key()), one: one})
		}
		return func(dst, src reflect.Value) {
			for _, x := range steps {
				if v := src.MapIndex(x.key); v.IsValid() {
					x.one(dst.Field(x.field), v)
				}
			}
		}
	}
	return nil
}

func noMember(of string, t *typ, name string) string {
	all := t.names()
	if len(all) == 0 {
		return fmt.Sprintf("`%s` has no %s `%s`; it has none", of, t.noun, name)
	}
	return fmt.Sprintf("`%s` has no %s `%s`; it has %s", of, t.noun, name, strings.Join(all, ", "))
}

package rules

import (
	"fmt"
	"reflect"
	"strings"

	"sluice/pipeline"
)

// A Description lists what the conditions of a step can name.
type Description struct {
	Names     []Entry // of the transaction
	Steps     []Facts // found by the steps before it, in their order; steps that find nothing are left out
	Functions []Entry
	Operators []Entry
}

// Facts are what one step finds.
type Facts struct {
	Name  string // of the step
	Facts []Entry
}

// An Entry is a name that conditions can use.
type Entry struct {
	Name string // as it is written: "from.domain", `hit("rule")`
	Type string // "text", "a number", "true or false", "a list of texts"
	Doc  string // one line, mostly
	// Example is a condition that uses it; "" for what steps find.
	Example string
}

// Describe says what the conditions of a step can name that stands behind these steps. comment returns what the source
// says about a field of a fact's type, "" for nothing.
func Describe(before []pipeline.Before, comment func(t reflect.Type, field string) string) (Description, error) {
	s, err := newScope("", before)
	if err != nil {
		return Description{}, err
	}
	var d Description
	var list *typ // whose items are being described
	for _, x := range nameDocs() {
		t, err := s.typeOf(x.Name, list)
		if err != nil {
			return Description{}, err
		}
		if t.kind == listKind {
			list = t
		}
		x.Type = t.String()
		d.Names = append(d.Names, x)
	}
	for _, info := range s.order {
		if info.shape == nil {
			continue
		}
		f := Facts{Name: info.Name}
		f.add(info.Name, info.shape, reflect.TypeOf(info.Fact), "", comment)
		d.Steps = append(d.Steps, f)
	}
	d.Functions, d.Operators = functionDocs(), operatorDocs()
	return d, nil
}

// typeOf returns the type of a name such as from.domain, or of #.name, a field of the items of a list.
func (s *scope) typeOf(name string, list *typ) (*typ, error) {
	first, field, dotted := strings.Cut(name, ".")
	t, ok := s.vars[first]
	if first == "#" && list != nil {
		t, ok = list.elem, true
	}
	if ok && dotted {
		t, ok = t.fields[field]
	}
	if !ok {
		return nil, fmt.Errorf("rules cannot name %s", name)
	}
	return t, nil
}

// add lists what a shape holds that facts of type t have.
func (f *Facts) add(name string, s *shape, t reflect.Type, doc string, comment func(reflect.Type, string) string) {
	if s.typ.kind != recordKind {
		if s.typ.kind == listKind && s.elem.typ.kind == recordKind {
			f.Facts = append(f.Facts, Entry{Name: name, Type: "a list", Doc: doc})
			f.add("#", s.elem, t.Elem(), "", comment)
			return
		}
		f.Facts = append(f.Facts, Entry{Name: name, Type: s.typ.String(), Doc: doc})
		return
	}
	for _, x := range s.fields {
		if isNamed(t) {
			f.add(name+"."+x.name, x.shape, t.Elem(), "", comment)
			continue
		}
		if field, ok := fieldNamed(t, x.name); ok {
			about := strings.TrimPrefix(comment(t, field.Name), field.Name+" is ")
			f.add(name+"."+x.name, x.shape, field.Type, about, comment)
		}
	}
}

func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		x := t.Field(i)
		tag, _, _ := strings.Cut(x.Tag.Get("json"), ",")
		if x.IsExported() && (tag == name || tag == "" && x.Name == name) {
			return x, true
		}
	}
	return reflect.StructField{}, false
}

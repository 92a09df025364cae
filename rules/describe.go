package rules

import (
	"fmt"
	"reflect"
	"strconv"
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
	// Example is a condition that uses it.
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
		f.add(finding{name: info.Name, path: info.Name, within: "%s", shape: info.shape, goType: reflect.TypeOf(info.Fact)}, comment)
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

// A finding is a name that a step finds, or that the items of a list in there have.
type finding struct {
	name   string // "arc.sets", "#.sealer"
	path   string // as an example writes it: "arc.sets", ".sealer"
	within string // the condition around it: "any(arc.sets, %s)"
	shape  *shape
	goType reflect.Type
	doc    string
	value  string // what the field's tag gives as an example of it
}

// add lists what a shape holds that facts of a type have.
func (f *Facts) add(x finding, comment func(reflect.Type, string) string) {
	if x.shape.typ.kind != recordKind {
		e := Entry{Name: x.name, Type: x.shape.typ.String(), Doc: x.doc, Example: fmt.Sprintf(x.within, x.example())}
		f.Facts = append(f.Facts, e)
		if x.shape.typ.kind == listKind && x.shape.elem.typ.kind == recordKind {
			within := fmt.Sprintf(x.within, "any("+x.path+", %s)")
			f.add(finding{name: "#", within: within, shape: x.shape.elem, goType: x.goType.Elem()}, comment)
		}
		return
	}
	for _, field := range x.shape.fields {
		inner := finding{name: x.name + "." + field.name, path: x.path + "." + field.name, within: x.within, shape: field.shape}
		if isNamed(x.goType) {
			inner.goType = x.goType.Elem()
			f.add(inner, comment)
			continue
		}
		if goField, ok := fieldNamed(x.goType, field.name); ok {
			inner.goType, inner.value = goField.Type, goField.Tag.Get("example")
			inner.doc = strings.TrimPrefix(comment(x.goType, goField.Name), goField.Name+" is ")
			f.add(inner, comment)
		}
	}
}

// example is a condition that holds for a fact where it is true, one or more, has items, or is the text that the field's
// tag `example` has, else the first that it can be.
func (x finding) example() string {
	t, value := x.shape.typ, x.value
	item := t
	if t.kind == listKind {
		item = t.elem
	}
	if len(item.values) > 0 && value == "" {
		value = item.values[0]
	}
	switch {
	case t.kind == boolKind:
		return x.path
	case t.isNumber() && value != "":
		return x.path + " >= " + value
	case t.isNumber():
		return x.path + " > 0"
	case t.kind == textKind && value != "":
		return x.path + " == " + strconv.Quote(value)
	case t.kind == textKind:
		return x.path + ` != ""`
	case item.kind == textKind && value != "":
		return strconv.Quote(value) + " in " + x.path
	}
	return "len(" + x.path + ") > 0"
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

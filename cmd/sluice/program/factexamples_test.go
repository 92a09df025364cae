package program

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/rules"
)

// What the reference says of each fact has an example, which rules take and which holds for a fact that is so.
func TestFactExamplesHold(t *testing.T) {
	p := &program{kinds: Stages(), ctx: t.Context()}
	steps, err := p.exampleSteps(p.kinds)
	if err != nil {
		t.Fatal(err)
	}
	var before []pipeline.Before
	view := pipeline.View{Phase: pipeline.Content, Facts: pipeline.Facts{}}
	for _, s := range steps {
		name := s.Name
		if name == "" {
			name = s.Kind.StepName()
		}
		before = append(before, pipeline.Before{Name: name, Kind: s.Kind.Name, Fact: s.Kind.Fact(s.Config)})
	}
	d, err := rules.Describe(before, config.Comment)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	var all []rules.Entry
	for _, s := range d.Steps {
		n := slices.IndexFunc(before, func(b pipeline.Before) bool { return b.Name == s.Name })
		f := filling{t: t, left: s.Facts}
		fact := reflect.New(reflect.TypeOf(before[n].Fact)).Elem()
		fact.Set(reflect.ValueOf(before[n].Fact))
		f.fill(fact)
		if len(f.left) > 0 {
			t.Fatalf("the step %s has no such fields: %v", s.Name, f.left)
		}
		view.Facts[s.Name] = pipeline.Finding{Fact: fact.Interface()}
		for _, e := range s.Facts {
			fmt.Fprintf(&text, "- {name: e%d, when: %s, score: 1}\n", len(all), "'"+strings.ReplaceAll(e.Example, "'", "''")+"'")
			all = append(all, e)
			first, field, _ := strings.Cut(e.Name, ".")
			if want := strings.TrimPrefix(e.Name, "#"); first == "#" && !strings.Contains(e.Example, "."+field) || !strings.Contains(e.Example, want) {
				t.Errorf("%s: the example is about something else: %s", e.Name, e.Example)
			}
			if e.Doc == "" && s.Name != "exec" && s.Name != "http" { // of those the configuration says what they find
				t.Errorf("%s: the field %s is not described", s.Name, e.Name)
			}
		}
	}
	inline, err := rules.ParseInline(text.String())
	if err != nil {
		t.Fatal(err)
	}
	c := rules.DefaultConfig()
	c.Rules = inline
	stages, err := rules.New(c, pipeline.Env{Name: "rules", Before: before})
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]bool{}
	for _, st := range stages {
		r, err := st.Check(context.Background(), view)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range r.Hits {
			held[h.Name] = true
		}
	}
	for i, e := range all {
		if !held[fmt.Sprint("e", i)] {
			t.Errorf("%s: %s does not hold", e.Name, e.Example)
		}
	}
	if len(all) < 250 {
		t.Errorf("only %d facts are described", len(all))
	}
}

// filling makes facts for which the examples of their fields hold, which are described in order.
type filling struct {
	t    *testing.T
	left []rules.Entry
}

var atLeast = regexp.MustCompile(`>= (-?[0-9._]+)`)

func (f *filling) fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if x := v.Type().Field(i); x.IsExported() && x.Tag.Get("json") != "-" {
				f.fill(v.Field(i))
			}
		}
		return
	case reflect.Map:
		filled := reflect.MakeMap(v.Type())
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			x := reflect.New(v.Type().Elem()).Elem()
			f.fill(x)
			filled.SetMapIndex(k, x)
		}
		v.Set(filled)
		return
	default:
	}
	if len(f.left) == 0 {
		f.t.Fatalf("a %s is not described", v.Type())
	}
	e := f.left[0]
	f.left = f.left[1:]
	text, number := "x", 1.0
	if i := strings.IndexByte(e.Example, '"'); i >= 0 {
		quoted, err := strconv.QuotedPrefix(e.Example[i:])
		if err != nil {
			f.t.Fatal(err)
		}
		if s, _ := strconv.Unquote(quoted); s != "" {
			text = s
		}
	}
	if m := atLeast.FindStringSubmatch(e.Example); m != nil {
		n, err := strconv.ParseFloat(strings.ReplaceAll(m[1], "_", ""), 64)
		if err != nil {
			f.t.Fatal(err)
		}
		number = n
	}
	switch {
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.CanInt():
		v.SetInt(int64(number))
	case v.CanUint():
		v.SetUint(uint64(number))
	case v.CanFloat():
		v.SetFloat(number)
	case v.Kind() == reflect.Slice:
		item := reflect.New(v.Type().Elem()).Elem()
		if item.Kind() == reflect.Struct {
			f.fill(item)
		} else {
			item.SetString(text)
		}
		v.Set(reflect.Append(reflect.MakeSlice(v.Type(), 0, 1), item))
	default:
		f.t.Fatalf("%s: a %s", e.Name, v.Type())
	}
}

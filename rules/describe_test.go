package rules

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
)

func TestDescribe(t *testing.T) {
	type part struct {
		Name string `json:"name"`
	}
	type scanned struct {
		Result string   `json:"result" oneof:"bad good"`
		Score  float64  `json:"score" example:"7.5"`
		Parts  []part   `json:"parts"`
		Codes  []string `json:"codes" example:"A \\"`
		Hidden string   `json:"-"`
	}
	before := []pipeline.Before{
		{Name: "lists", Kind: "dnsbl", Fact: pipeline.Named[part]{"zen": {}, "sbl": {}}},
		{Name: "early", Kind: "rules"},
		{Name: "scan", Kind: "scan", Fact: scanned{}},
	}
	d, err := Describe(before, func(t reflect.Type, field string) string {
		if t == reflect.TypeFor[scanned]() {
			return field + " is what it says"
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Facts{
		{"lists", []Entry{{Name: "lists.sbl.name", Type: "text", Example: `lists.sbl.name != ""`}, {Name: "lists.zen.name", Type: "text", Example: `lists.zen.name != ""`}}},
		{"scan", []Entry{
			{Name: "scan.result", Type: "text", Doc: "what it says", Example: `scan.result == "bad"`},
			{Name: "scan.score", Type: "a number", Doc: "what it says", Example: `scan.score >= 7.5`},
			{Name: "scan.parts", Type: "a list", Doc: "what it says", Example: `len(scan.parts) > 0`},
			{Name: "#.name", Type: "text", Example: `any(scan.parts, .name != "")`},
			{Name: "scan.codes", Type: "a list of texts", Doc: "what it says", Example: `"A \\" in scan.codes`},
		}},
	}
	if !reflect.DeepEqual(d.Steps, want) {
		t.Errorf("got %+v", d.Steps)
	}
	if _, err := Describe([]pipeline.Before{{Name: "subject", Fact: scanned{}}}, nil); err == nil {
		t.Error("a step called like a word was described")
	}
}

// What is described is what the checker knows, all of it and nothing else.
func TestDescribeIsComplete(t *testing.T) {
	d, err := Describe(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newScope("", nil)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for name, x := range s.vars {
		if x.kind != recordKind {
			want = append(want, name)
		}
		for field := range x.fields {
			want = append(want, name+"."+field)
		}
		if x.kind == listKind {
			for field := range x.elem.fields {
				want = append(want, "#."+field)
			}
		}
	}
	var names []string
	for _, e := range d.Names {
		names = append(names, e.Name)
		if e.Doc == "" || e.Type == "" {
			t.Errorf("%s is not described", e.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(names)
	if !slices.Equal(names, want) {
		t.Errorf("names: got %q, want %q", names, want)
	}

	known := map[string]bool{}
	for _, f := range allFunctions() {
		known[f] = true
	}
	described := map[string]bool{}
	for _, e := range d.Functions {
		name, _, _ := strings.Cut(e.Name, "(")
		described[name] = true
	}
	if !maps.Equal(known, described) {
		t.Errorf("functions: got %v, want %v", described, known)
	}

	var operators []string
	for _, e := range d.Operators {
		operators = append(operators, strings.Fields(e.Name)...)
	}
	for _, op := range []string{"and", "or", "not", "in", "contains", "matches", "startsWith", "endsWith", "let"} {
		if !slices.Contains(operators, op) {
			t.Errorf("the operator %s is not described", op)
		}
	}
}

// The stages of a step say what its rules and thresholds may do, shadow rules left out.
func TestDoes(t *testing.T) {
	inline, err := ParseInline(`
- {name: a, when: 'has("X")', file: A, flag: [x], score: 1}
- {name: b, when: 'rcpt.local == "me"', header: {X-B: b}}
- {name: c, when: 'has("Y")', file: C, header: {X-C: c}, shadow: true}
- {name: d, when: 'has("Z")', reject: true}
`)
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Rules, c.Junk, c.Reject = inline, 5, 9
	stages, err := New(c, pipeline.Env{Name: "rules", Before: []pipeline.Before{{Name: "rules"}}})
	if err != nil {
		t.Fatal(err)
	}
	var got []pipeline.Deed
	for _, s := range stages {
		got = append(got, s.(pipeline.Doer).Does()...)
	}
	slices.SortFunc(got, func(a, b pipeline.Deed) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Kind, b.Kind))
	})
	want := []pipeline.Deed{{At: 0, Kind: pipeline.DoesFile}, {At: 0, Kind: pipeline.DoesFlag}, {At: 1, Kind: pipeline.DoesEdit}, {At: 4, Kind: pipeline.DoesJunk}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

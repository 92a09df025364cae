package rules

import (
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
		Result string   `json:"result"`
		Score  float64  `json:"score"`
		Parts  []part   `json:"parts"`
		Codes  []string `json:"codes"`
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
		{"lists", []Entry{{"lists.sbl.name", "text", ""}, {"lists.zen.name", "text", ""}}},
		{"scan", []Entry{
			{"scan.result", "text", "what it says"},
			{"scan.score", "a number", "what it says"},
			{"scan.parts", "a list", "what it says"},
			{"#.name", "text", ""},
			{"scan.codes", "a list of texts", "what it says"},
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

package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/expr-lang/expr/builtin"

	"sluice/pipeline"
)

// Each way in which expr lets an expression eat memory or time, ask the clock, or fail by type, is closed by the checker.
func TestHolesOfExprAreClosed(t *testing.T) {
	for name, tt := range map[string]struct{ when, says string }{
		"a text of any size":              {`repeat(repeat("a", 999999), 999999) == ""`, "`repeat` is not part of the rule language"},
		"by way of a pipe":                {`"a" | repeat(999999) | repeat(999999) == ""`, "`repeat` is not part"},
		"texts joined":                    {`join(scan.sizes | map(string(#)), subject) == ""`, "`join` is not part"},
		"texts added":                     {`subject + subject == ""`, "texts cannot be joined"},
		"an added constant":               {`"a" + "b" == subject`, "texts cannot be joined"},
		"a text that grows":               {`reduce(1..1000, #acc + #acc, "x") == ""`, "`reduce` is not part"},
		"a long range":                    {`any(1..1000000000, # == size)`, "a range has at most 1000 numbers"},
		"a range of what the mail says":   {`any(1..size, # == 3)`, "a range runs between two numbers that are written out"},
		"a range by arithmetic":           {`any(1..(10*1000*1000), # == 3)`, "a range runs between two numbers that are written out"},
		"ranges in ranges":                {`any(1..1000, any(1..1000, # == 3))`, "any() stands inside another one"},
		"ranges in a let":                 {`any(1..1000, let x = count(1..1000, # > 3); x == 3)`, "count() stands inside another one"},
		"a list for each of its items":    {`any(scan.files, any(scan.files, .size > 3))`, "about a list that is not its item's"},
		"three in each other":             {`any(scan.files, any(.members, any(scan.files, .size > 3)))`, "about a list that is not its item's"},
		"a large text for inner items":    {`any(scan.files, any(.members, text contains "zz"))`, "would be gone through for each item"},
		"a predicate over a large text":   {`any(1..1000, text contains "zz")`, "text"},
		"sorted":                          {`sort(scan.sizes)[0] == 1`, "`sort` is not part"},
		"sorted by":                       {`sortBy(scan.files, .size)[0].size == 1`, "`sortBy` is not part"},
		"lists in lists (CVE-2025-68156)": {`min(scan.sizes) == 1`, "min() takes numbers"},
		"the same, flat":                  {`flatten([scan.sizes])[0] == 1`, "`flatten` is not part"},
		"the same, mean":                  {`mean(scan.sizes) == 1`, "`mean` is not part"},
		"the clock":                       {`now().Unix() > 3`, "`now` is not part"},
		"a date":                          {`date("2020-01-01").Unix() > 3`, "`date` is not a function"},
		"a duration":                      {`duration("1h").Hours() > 3`, "`duration` is not part"},
		"a method":                        {`spf.String() == ""`, "spf"},
		"everything":                      {`len($env) > 3`, "`$env` is not part"},
		"everything, by a name":           {`$env["spf"].result == "fail"`, "`$env` is not part"},
		"fields by value":                 {`get(spf, subject) == "x"`, "`get` is not part"},
		"fields by index":                 {`spf[subject] == "x"`, "named with text in quotes"},
		"JSON":                            {`toJSON(scan) == ""`, "`toJSON` is not part"},
		"JSON of the mail":                {`fromJSON(subject).a == 1`, "`fromJSON` is not part"},
		"a pattern of the mail":           {`subject matches header("X")`, "a pattern is written out"},
		"a pattern by choice":             {`subject matches (size > 3 ? "a" : "b")`, "a pattern is written out"},
		"a pattern by name":               {`let p = "a"; subject matches p`, "a pattern is written out"},
		"a pattern with huge counts":      {`subject matches "((a{100}){100}){100}"`, "not a pattern"},
		"a pattern just too large":        {`subject matches "((a{30}){30}){30}"`, "pattern"},
		"an optional field":               {`spf?.result == "x"`, "`?.` is not part"},
		"a default":                       {`(spf.result ?? "x") == "x"`, "`??` is not part"},
		"nothing":                         {`spf == nil`, "`nil` is not part"},
		"a slice":                         {`subject[0:3] == "abc"`, "slices are not part"},
		"a slice of a list":               {`len(scan.sizes[1:]) == 3`, "slices are not part"},
		"a map":                           {`{"a": 1}["a"] == 1`, "maps are not part"},
		"a closure kept":                  {`let f = {# > 3}; any(scan.sizes, f)`, ""},
		"several values":                  {`true; false`, "`;` is not part"},
		"if":                              {`if size > 3 { true } else { false }`, "`if` is not part"},
		"a power":                         {`2 ** 99999 > size`, "`**` is not part"},
		"another power":                   {`2 ^ 99999 > size`, "`^` is not part"},
		"mixed kinds":                     {`size == "1"`, "they are never equal"},
		"an order of mixed kinds":         {`"1" < size`, "only numbers with numbers"},
		"a list of mixed kinds":           {`size in [1, "2"]`, "a list holds things of one kind"},
		"a record compared":               {`spf == spf`, "not compared as a whole"},
		"text times a number":             {`subject * 3 == "x"`, "takes numbers"},
		"a remainder by nothing":          {`size % 0 == 1`, "divides by zero"},
		"infinity":                        {`size / 0.0 > 1`, "divides by zero"},
		"a name for a function":           {`let len = 3; len == 3`, "means something already"},
		"a name for a step":               {`let spf = 3; spf == 3`, "means something already"},
		"a number beyond":                 {`size == 99999999999999999999`, "the number is too large"},
		"many brackets":                   {strings.Repeat("(", 51) + "true" + strings.Repeat(")", 51), "more than 50 brackets are open here"},
		"many lists":                      {strings.Repeat("[", 51) + "1" + strings.Repeat("]", 51) + " == []", "more than 50 brackets are open here"},
		"a long condition":                {strings.Repeat("true or ", 2000) + "true", "at most 8192 are read"},
		"bytes":                           {`b"x" == b"x"`, "byte strings are not part"},
	} {
		_, err := New(Config{Files: []string{"x"}}, env(map[string]string{"x": "rules:\n  - name: a\n    when: " + quote(tt.when) + "\n"}))
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "this cannot be compiled") {
			t.Errorf("%s: %.80s: got %v, want %s", name, tt.when, err, tt.says)
		}
	}
}

// Whatever functions expr has, now or after an update: rules have those that are named here.
func TestNoOtherFunctionOfExpr(t *testing.T) {
	if len(builtin.Index) < 50 {
		t.Fatalf("expr has only %d functions", len(builtin.Index))
	}
	for _, name := range slices.Sorted(maps.Keys(builtin.Index)) {
		if slices.Contains(allFunctions(), name) {
			continue
		}
		for _, args := range []string{"", "subject", "scan.sizes", "scan.sizes, # > 3", "subject, subject", "scan.sizes, 1", "1, 2, 3", "spf"} {
			when := fmt.Sprintf("%s(%s) == 1", name, args)
			if _, err := New(Config{Files: []string{"x"}}, env(map[string]string{"x": "rules:\n  - {name: a, when: " + quote(when) + "}\n"})); err == nil {
				t.Errorf("%s is taken", when)
			}
		}
	}
}

// A term that needs more memory than it may is unknown, and says so; the others are as they were.
func TestMemoryOfATerm(t *testing.T) {
	file := "rules:\n  - name: r\n    when: 'len([helo, subject, helo, subject]) == 4 or size > 0'\n  - name: s\n    when: 'len([helo, subject, helo, subject]) == 4'\n"
	for most, want := range map[int]string{100: "r s | ", 3: "r | `len([helo, subject, helo, subject]) == 4` failed: memory budget exceeded"} {
		all := decide(t, stagesOf(t, Config{Limits: Limits{MaxMemory: most}}, file), view(t))
		var got []string
		for _, h := range all.Hits {
			got = append(got, h.Name)
		}
		text := strings.Join(got, " ") + " | "
		for _, u := range all.Undecided {
			text += u.Why
		}
		if text != want {
			t.Errorf("max_memory %d: got %q, want %q", most, text, want)
		}
	}
}

// Users' own rules have limits of their own; each is reached.
func TestLimitsOfUsersRules(t *testing.T) {
	l := UserLimits()
	rule := "  - {name: a, when: %s}\n"
	var many strings.Builder
	many.WriteString("rules:\n")
	for i := range l.MaxRules + 1 {
		fmt.Fprintf(&many, "  - {name: r%d, when: true}\n", i)
	}
	for name, tt := range map[string]struct{ file, says string }{
		"right":      {"rules:\n" + fmt.Sprintf(rule, "subject == \"x\""), ""},
		"rules":      {many.String(), fmt.Sprintf("there are %d rules; max_rules is %d", l.MaxRules+1, l.MaxRules)},
		"condition":  {"rules:\n" + fmt.Sprintf(rule, quote(strings.Repeat("true or ", l.MaxCondition/8)+"true")), fmt.Sprintf("at most %d are read", l.MaxCondition)},
		"pattern":    {"rules:\n" + fmt.Sprintf(rule, quote(`subject matches "a{800}b{800}"`)), "the pattern is too large"},
		"file":       {"rules: []\n" + strings.Repeat("# comment\n", l.MaxFile/10), fmt.Sprintf("at most %d are read", l.MaxFile)},
		"other file": {"include: y\n", "there are more than 1 rule files; max_files is 1"},
		"list":       {"lists:\n  l: {kind: words, values: [" + strings.Repeat("x, ", l.MaxListEntries+1) + "]}\n", "max_list_entries"},
	} {
		_, err := New(Config{Files: []string{"x"}, Limits: l}, env(map[string]string{"x": tt.file, "y": "rules: []\n"}))
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Includes of a thousand files and chains of any length end.
func TestIncludesAreBounded(t *testing.T) {
	files := map[string]string{}
	for i := range 3000 {
		files[fmt.Sprintf("f%d", i)] = fmt.Sprintf("include: [f%d, f%d]\nrules:\n  - {name: r%d, when: true}\n", 2*i+1, 2*i+2, i)
	}
	e := env(nil)
	reads := 0
	e.Files = func(name string) ([]pipeline.File, error) {
		reads++
		text, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("there is no file %s", name)
		}
		return []pipeline.File{{Path: name, Text: []byte(text)}}, nil
	}
	_, err := New(Config{Files: []string{"f0"}, Limits: Limits{MaxIncludeDepth: 100}}, e)
	if err == nil || !strings.Contains(err.Error(), "there are more than 1000 rule files; max_files is 1000") {
		t.Errorf("got %.300v", err)
	}
	if reads > 10_000 {
		t.Errorf("%d files were read", reads)
	}
}

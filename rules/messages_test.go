package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// reports are the functions whose texts an administrator reads, with the places of the texts among their arguments.
func reports() map[string][]int {
	return map[string][]int{
		"report": {2, 3}, "at": {1, 2}, "wrong": {2, 3}, "wrongAt": {1, 2}, "mismatch": {3}, "fails": {2},
	}
}

// Every text that the checker can give stands in a golden file, so that nobody changes one unseen.
func TestEveryMessageHasAGoldenFile(t *testing.T) {
	var golden strings.Builder
	paths, err := filepath.Glob("testdata/errors/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			if f.Name == "want" {
				golden.Write(f.Data)
			}
		}
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	messages := 0
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			for _, i := range reports()[f.Sel.Name] {
				if i >= len(call.Args) {
					continue
				}
				for _, s := range literalsOf(call.Args[i]) {
					messages++
					if !given(s).MatchString(golden.String()) && !slices.Contains(unreachable(), s) {
						t.Errorf("%s: no golden file in testdata/errors gives %q", set.Position(call.Pos()), s)
					}
				}
			}
			return true
		})
	}
	if messages < 100 {
		t.Errorf("only %d messages were found", messages)
	}
}

// unreachable are texts that no rule file leads to.
func unreachable() []string {
	return []string{
		// Mistakes of ours: whatever the checker lets pass is compiled, which FuzzCompile puts to the test.
		"this cannot be compiled: ", "write it another way", "this is not part of the rule language",
		"the tests cannot be run: ", "there is no record of it", "the mail cannot be read: ",
		// The parser says another thing before.
		"`#` stands for an item of a list, inside any() and its like", "a key is one word",
		// A configuration without files, and a list of megabytes: TestLimits and TestLists.
		"there is no place to read lists from", "up to here the patterns of the list `%s` are too large together",
		"keep what are words in a list of words",
	}
}

// literalsOf returns the texts that an argument is made of: a literal, a format, or several joined.
func literalsOf(n ast.Expr) (all []string) {
	switch n := n.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(n.Value); err == nil && s != "" {
			all = append(all, s)
		}
	case *ast.BinaryExpr:
		all = append(literalsOf(n.X), literalsOf(n.Y)...)
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" && len(n.Args) > 0 {
			return literalsOf(n.Args[0])
		}
	}
	return all
}

var verb = regexp.MustCompile(`%(\[\d\])?[.\d]*[a-zA-Z%]`)

// given matches what a format makes.
func given(format string) *regexp.Regexp {
	var b strings.Builder
	for i, part := range verb.Split(format, -1) {
		if i > 0 {
			b.WriteString(".*")
		}
		b.WriteString(regexp.QuoteMeta(part))
	}
	return regexp.MustCompile(b.String())
}

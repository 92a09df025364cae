package mime

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Those who list what can be wrong with a mail leave nothing out.
func TestAnomalyKinds(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "anomaly.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Kind") {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared = append(declared, s)
		}
		return true
	})
	if listed := AnomalyKinds(); len(declared) < 40 || !slices.Equal(listed, declared) {
		t.Errorf("listed are %q, declared %q", listed, declared)
	}
}

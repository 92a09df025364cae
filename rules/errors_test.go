package rules

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is reported into the golden files")

// Each file in testdata/errors holds rule files (and `inline`, rules of the configuration) and what is wrong with them.
func TestErrors(t *testing.T) {
	paths, err := filepath.Glob("testdata/errors/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var c Config
			c.MaxCondition = 300
			files := map[string]string{}
			want := ""
			for _, f := range a.Files {
				switch f.Name {
				case "want":
					want = string(f.Data)
				case "inline":
					if c.Rules, err = ParseInline(string(f.Data)); err != nil {
						t.Fatal(err)
					}
				default:
					if strings.HasSuffix(f.Name, ".yaml") {
						c.Files = append(c.Files, f.Name)
					}
					files[f.Name] = string(f.Data)
				}
			}
			_, err = New(c, env(files))
			if err == nil {
				t.Fatal("nothing is reported")
			}
			got := err.Error() + "\n"
			if *update {
				a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return f.Name == "want" })
				a.Files = append(a.Files, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			var p *Problem
			if !errors.As(err, &p) {
				t.Error("no part of the error is a *Problem")
			}
		})
	}
}

package rules

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
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
			c := Config{JunkFolder: "Junk"}
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
				case "config":
					if err := yaml.Unmarshal(f.Data, &c); err != nil {
						t.Fatal(err)
					}
				default:
					if name, quoted := strings.CutSuffix(f.Name, ".quoted"); quoted { // what an archive cannot hold
						text, err := strconv.Unquote(strings.TrimSpace(string(f.Data)))
						if err != nil {
							t.Fatal(err)
						}
						f = txtar.File{Name: name, Data: []byte(text)}
					}
					if strings.HasSuffix(f.Name, ".yaml") && !slices.ContainsFunc(a.Files, func(f txtar.File) bool { return f.Name == "config" }) {
						c.Files = append(c.Files, f.Name)
					}
					files[f.Name] = string(f.Data)
				}
			}
			e := env(files)
			var warnings []error
			e.Warn = func(err error) { warnings = append(warnings, err) }
			if _, err = New(c, e); err == nil {
				err = errors.Join(warnings...)
			}
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

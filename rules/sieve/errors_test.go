package sieve_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"sluice/rules/sieve"
)

var update = flag.Bool("update", false, "write what is reported into the golden files")

// Each file in testdata/errors holds scripts and what is wrong with those that end in .sieve. Those in included/ and global/
// are included by others; "limits" sets some lower.
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
			files := map[string]string{}
			for i, f := range a.Files {
				if name, quoted := strings.CutSuffix(f.Name, ".quoted"); quoted { // what an archive cannot hold
					text, err := strconv.Unquote(strings.TrimSpace(string(f.Data)))
					if err != nil {
						t.Fatal(err)
					}
					files[name] = text
					a.Files[i].Name = name + ".quoted"
					continue
				}
				files[f.Name] = string(f.Data)
			}
			o := sieve.Options{Include: func(global bool, name string) ([]byte, error) {
				from := "included/"
				if global {
					from = "global/"
				}
				if text, ok := files[from+name]; ok {
					return []byte(text), nil
				}
				return nil, errors.New("there is no such script")
			}}
			for line := range strings.Lines(files["limits"]) {
				setLimit(t, &o, strings.TrimSpace(line))
			}
			var got strings.Builder
			for _, f := range a.Files {
				name := strings.TrimSuffix(f.Name, ".quoted")
				if !strings.HasSuffix(name, ".sieve") {
					continue
				}
				script, problems := sieve.Compile(name, []byte(files[name]), o)
				fine := !slices.ContainsFunc(problems, func(p sieve.Problem) bool { return !p.Warning })
				if fine != (script != nil) {
					t.Errorf("%s: the script is there: %v, and there are %v", name, script != nil, problems)
				}
				if len(problems) == 0 {
					t.Errorf("%s: nothing is reported", name)
				}
				for _, p := range problems {
					got.WriteString(p.Error() + "\n")
					if at := p.Excerpt(); at != "" {
						got.WriteString(at + "\n")
					}
				}
			}
			want := files["want"]
			if *update {
				a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return f.Name == "want" })
				a.Files = append(a.Files, txtar.File{Name: "want", Data: []byte(got.String())})
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != want {
				t.Errorf("got\n%s\nwant\n%s", got.String(), want)
			}
		})
	}
}

// setLimit reads "ScriptSize 100" and "off vacation".
func setLimit(t *testing.T, o *sieve.Options, line string) {
	t.Helper()
	name, value, _ := strings.Cut(line, " ")
	if name == "off" {
		o.Off = append(o.Off, value)
		return
	}
	if name == "unchecked" {
		o.Unchecked = true
		return
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatal(err)
	}
	l := map[string]*int{
		"ScriptSize": &o.Limits.ScriptSize, "Nesting": &o.Limits.Nesting, "Problems": &o.Limits.Problems,
		"StringSize": &o.Limits.StringSize, "Strings": &o.Limits.Strings, "Regex": &o.Limits.Regex,
		"Includes": &o.Limits.Includes, "IncludeDepth": &o.Limits.IncludeDepth, "Variables": &o.Limits.Variables,
	}[name]
	if l == nil {
		t.Fatalf("no limit is called %q", name)
	}
	*l = n
}

package fieldcomments

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestRead(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"a/a.go": `package a

// A Config is one.
type Config struct {
	// Size is the size,
	// in octets.
	Size int ` + "`yaml:\"size\"`" + `
	Low, High int ` + "`yaml:\"both\"`" + ` // what bounds it
	// Path is not for users.
	Path string ` + "`yaml:\"-\"`" + `
	Bare int ` + "`yaml:\"bare\"`" + `
	// Plain has no tag.
	Plain int
	// Recorded is for programs.
	Recorded int ` + "`json:\"recorded\"`" + `
}
`,
		"scanners/b/b.go": "package b\n\ntype Fact struct {\n\tOK bool `json:\"ok\"` // whether it is\n}\n",
		"a/a_test.go":     "package a\n\ntype x struct {\n\tY int `yaml:\"y\"` // why\n}\n",
		"a/testdata/x.go": "package x\n\ntype X struct {\n\tY int `yaml:\"y\"` // why\n}\n",
		".git/x.go":       "this is `yaml:\" no Go",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"sluice/a.Config.Size":      "Size is the size, in octets.",
		"sluice/a.Config.Low":       "what bounds it",
		"sluice/a.Config.High":      "what bounds it",
		"sluice/scanners/b.Fact.OK": "whether it is",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %q", got)
	}

	if err := os.WriteFile(filepath.Join(root, "a", "bad.go"), []byte("package a; `yaml:\"x\"`"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(root); err == nil {
		t.Error("a file that is no Go was read")
	}
}

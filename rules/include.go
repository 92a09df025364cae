package rules

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"sluice/pipeline"
)

// A filer reads the rule files of a step with those that they include. Each file is read once, at the first place that
// names it; the rules of what a file includes come before its own.
type filer struct {
	*reporter
	set     *ruleset
	env     pipeline.Env
	limits  Limits
	sources []*source
	lists   []listDef
	chain   []string // the files that are being read, each included by the one before
	seen    map[string]bool
	full    bool // there are too many files, which has been said
}

// named reads the files that the configuration names.
func (f *filer) named(patterns []string) (wrong []error) {
	for i, pattern := range patterns {
		if f.env.Files == nil {
			return append(wrong, errors.New("there is no place to read rule files from"))
		}
		files, err := f.env.Files(pattern)
		if err != nil {
			f.set.torn = true
			wrong = append(wrong, fmt.Errorf("files[%d]: %w", i, err))
			continue
		}
		for _, file := range files {
			if err := f.file(file); err != nil {
				wrong = append(wrong, fmt.Errorf("files[%d]: %w", i, err))
			}
		}
	}
	return wrong
}

// file reads one file and what it includes. Its error is that there are too many.
func (f *filer) file(file pipeline.File) error {
	path := filepath.Clean(file.Path)
	if f.seen[path] || f.full {
		return nil
	}
	if len(f.seen) == f.limits.MaxFiles {
		f.full, f.set.torn = true, true
		return fmt.Errorf("there are more than %d rule files; max_files is %[1]d", f.limits.MaxFiles)
	}
	f.seen[path] = true
	src := newSource(file.Path, string(file.Text))
	f.sources = append(f.sources, src)
	r := &reader{reporter: f.reporter, src: src}
	n := parseFile(src, file.Text, f.limits.MaxFile, f.reporter)
	f.set.torn = f.set.torn || n == nil && len(f.all) > 0
	f.chain = append(f.chain, path)
	f.includes(r, n)
	f.chain = f.chain[:len(f.chain)-1]
	r.file(n)
	f.set.rules = append(f.set.rules, r.rules...)
	f.set.tests = append(f.set.tests, r.tests...)
	f.lists = append(f.lists, r.lists...)
	f.set.groups = append(f.set.groups, r.groups...)
	f.set.overrides = append(f.set.overrides, r.overrides...)
	return nil
}

// includes reads the files that a file includes.
func (f *filer) includes(r *reader, n ast.Node) {
	m, ok := n.(*ast.MappingNode)
	if one, single := n.(*ast.MappingValueNode); single {
		m, ok = &ast.MappingNode{Values: []*ast.MappingValueNode{one}}, true
	}
	if !ok {
		return
	}
	for _, v := range m.Values {
		key, ok := scalar(v.Key)
		if !ok || key != "include" {
			continue
		}
		patterns := []ast.Node{v.Value}
		if _, list := v.Value.(*ast.SequenceNode); list {
			patterns = r.items(v.Value, "`include`")
		}
		for _, p := range patterns {
			f.include(r, entry{"include", v.Key, p})
		}
		return
	}
}

// include reads the files of one pattern.
func (f *filer) include(r *reader, e entry) {
	pattern, ok := r.text(e)
	switch {
	case !ok:
		f.set.torn = true
		return
	case pattern == "":
		f.set.torn = true
		r.at(e.value, "the file has no name", "")
		return
	case len(f.chain) > f.limits.MaxIncludeDepth:
		f.set.torn = true
		r.at(e.value, fmt.Sprintf("files include one another %d deep: %s", len(f.chain), f.path()),
			fmt.Sprintf("max_include_depth is %d", f.limits.MaxIncludeDepth))
		return
	}
	files, err := beside(f.env, r.src.path, pattern)
	if err != nil {
		f.set.torn = true
		text := err.Error()
		if len(f.chain) > 1 {
			text += "; the way here is " + f.path()
		}
		r.at(e.value, text, "")
		return
	}
	for _, file := range files {
		if i := slices.Index(f.chain, filepath.Clean(file.Path)); i >= 0 {
			f.set.torn = true
			r.at(e.value, fmt.Sprintf("the files include one another in a circle: %s, which includes %s", f.path(), f.chain[i]),
				"take one of the includes out")
			continue
		}
		if err := f.file(file); err != nil {
			r.at(e.value, err.Error(), "")
		}
	}
}

// path names the files that led here.
func (f *filer) path() string { return strings.Join(f.chain, ", which includes ") }

// beside returns the files of a name that stands in the file from, and is relative to it.
func beside(env pipeline.Env, from, name string) ([]pipeline.File, error) {
	if filepath.IsAbs(name) || strings.HasPrefix(name, "builtin:") {
		return env.Files(name)
	}
	folder := filepath.Dir(from)
	// Names are relative to the configuration, and what messages call a file may be relative to where we are.
	whole, err := filepath.Abs(folder)
	if err != nil || whole == folder {
		return env.Files(filepath.Join(folder, name))
	}
	files, err := env.Files(filepath.Join(whole, name))
	if err != nil {
		if other, e := env.Files(filepath.Join(folder, name)); e == nil {
			return other, nil
		}
		return nil, errors.New(strings.ReplaceAll(err.Error(), filepath.Join(whole, name), filepath.Join(folder, name)))
	}
	for i, x := range files {
		if rel, err := filepath.Rel(whole, x.Path); err == nil {
			files[i].Path = filepath.Join(folder, rel)
		}
	}
	return files, nil
}

package program

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
)

// The configuration without a configuration. It asks nothing of the network and refuses nothing.
//
//go:embed default
var defaults embed.FS

const (
	defaultName = "default.yaml"
	builtin     = "builtin:" // names a file that comes with the program, in `files:`
)

func defaultText() string {
	text, err := defaults.ReadFile("default/" + defaultName)
	if err != nil {
		return "pipeline: [] # " + err.Error()
	}
	return string(text)
}

// files returns what Env.Files is: files as a configuration names them, relative to it.
func files(c *config.Config) func(pattern string) ([]pipeline.File, error) {
	return func(pattern string) ([]pipeline.File, error) {
		if name, ok := strings.CutPrefix(pattern, builtin); ok {
			text, err := defaults.ReadFile("default/" + name)
			if err != nil {
				return nil, fmt.Errorf("there is no %s; there are %s", pattern, strings.Join(builtins(), ", "))
			}
			return []pipeline.File{{Path: pattern, Text: text}}, nil
		}
		names, err := filepath.Glob(c.Path(pattern))
		if err != nil {
			return nil, fmt.Errorf("%q is no pattern: %w", pattern, err)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("there is no file %s", c.Path(pattern))
		}
		slices.Sort(names)
		var found []pipeline.File
		for _, name := range names {
			text, err := readWhole(name)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
			found = append(found, pipeline.File{Path: name, Text: text})
		}
		return found, nil
	}
}

// mostFile bounds what is read of one file that a configuration names, in octets.
const mostFile = 64 << 20

// readWhole reads a file that is one: not a folder, nor a pipe that never ends.
func readWhole(name string) ([]byte, error) {
	text, err := func() ([]byte, error) {
		info, err := os.Stat(name)
		switch {
		case err != nil:
			return nil, err
		case info.IsDir():
			return nil, errors.New("is a directory")
		case !info.Mode().IsRegular():
			return nil, errors.New("is no file")
		case info.Size() > mostFile:
			return nil, fmt.Errorf("has %d octets; at most %d are read", info.Size(), mostFile)
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, mostFile+1))
		if err == nil && len(text) > mostFile {
			err = fmt.Errorf("has more than %d octets", mostFile)
		}
		return text, err
	}()
	var e *fs.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	return text, err
}

// builtins lists the rule files that come with the program.
func builtins() []string {
	entries, _ := defaults.ReadDir("default") // an embedded folder can be read
	var names []string
	for _, e := range entries {
		if e.Name() != defaultName {
			names = append(names, builtin+e.Name())
		}
	}
	return names
}

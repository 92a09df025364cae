// Package exec runs a program of a site's own for each mail and makes facts of what it answers. What the program is told
// and has to answer is in package ask.
package exec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/pipeline"
	"sluice/scanners/ask"
)

// Kind is the kind of stage the configuration calls exec. A program that fails is skipped: what a site's own program finds
// is mostly one sign among several, and rules see that it is unknown. Where it decides alone, `on_error: postpone`.
//
// The program gets the question on its standard input, ended by the end of the input; it need not read it all. It writes
// the answer to its standard output and ends with 0. Any other end is an error, with the first line of what it has
// written to its standard error. It runs in a process group of its own, of which nothing is left when it has ended or
// its time (`timeout`) is over.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name:    "exec",
		Doc:     "Runs a program for each mail, with JSON in and out. One that fails is skipped: it is one sign among several, and rules see that it is unknown.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{Config: ask.Default(), Dir: "/"} },
		Fact:    func(config any) any { return config.(*Config).Fact() },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s, err := newStage(*config.(*Config), env)
			if err != nil {
				return nil, err
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// Config is the section of one exec step.
type Config struct {
	// Command is the program to run, its whole path, and its arguments. No shell reads them.
	Command    []string `yaml:"command" example:"[/usr/local/bin/judge, --quick]"`
	ask.Config `yaml:",inline"`
	// Dir is the folder in which the program is started.
	Dir string `yaml:"dir"`
	// Env is what its environment has besides PATH and LANG; nothing of the server's own is in it.
	Env map[string]string `yaml:"env" example:"{MODEL: /var/lib/judge/model}"`
}

type stage struct {
	asker   *ask.Asker
	command []string
	dir     string
	env     []string
	slots   chan struct{} // one for each program that may run at once
	offline bool
}

func newStage(c Config, env pipeline.Env) (*stage, error) {
	asker, err := ask.New(c.Config, env)
	wrong := []error{err}
	switch {
	case len(c.Command) == 0:
		wrong = append(wrong, errors.New("command: there is none; write for example [/usr/local/bin/judge]"))
	case !filepath.IsAbs(c.Command[0]):
		wrong = append(wrong, fmt.Errorf("command: %q is no whole path: it is looked for nowhere", c.Command[0]))
	case slices.ContainsFunc(c.Command, hasNUL):
		wrong = append(wrong, errors.New("command: has a NUL in it"))
	}
	if !filepath.IsAbs(c.Dir) || hasNUL(c.Dir) {
		wrong = append(wrong, fmt.Errorf("dir: %q is no whole path", c.Dir))
	}
	s := &stage{
		asker: asker, command: c.Command, dir: c.Dir, slots: make(chan struct{}, max(c.AtOnce, 1)), offline: env.Offline,
		env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || hasNUL(c.Env[name]) {
			wrong = append(wrong, fmt.Errorf("env: %q cannot be a variable", name))
		}
		s.env = append(s.env, name+"="+c.Env[name])
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	// Whoever checks a configuration may do so where the program is not; whoever runs it wants to know.
	if info, err := os.Stat(c.Command[0]); err != nil || info.Mode()&0o111 == 0 || info.IsDir() {
		env.Log.Warn("there is no such program", "step", env.Name, "command", c.Command[0])
	}
	return s, nil
}

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads { return s.asker.Reads() }

// Check runs the program.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	if s.offline {
		return pipeline.Result{}, fmt.Errorf("run %s: nothing is run where a configuration is checked", s.command[0])
	}
	question, _, err := s.asker.Question(v)
	var large *ask.TooLargeError
	if errors.As(err, &large) {
		return s.asker.NotAsked(large), nil
	}
	if err != nil {
		return pipeline.Result{}, err
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return pipeline.Result{}, fmt.Errorf("run %s: %d of it are running: %w", s.command[0], cap(s.slots), ctx.Err())
	}
	text, err := s.run(ctx, question())
	if err != nil {
		return pipeline.Result{}, fmt.Errorf("run %s: %w", s.command[0], err)
	}
	r, err := s.asker.Answer(text)
	if err != nil {
		return pipeline.Result{}, fmt.Errorf("run %s: %w", s.command[0], err)
	}
	return r, nil
}

package program

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/rules"
)

// mutantsResult is what check --mutate found out.
type mutantsResult struct {
	Made      int             `json:"made"`      // changes that were tried
	Unnoticed config.Problems `json:"unnoticed"` // those that no test noticed
	Left      int             `json:"left"`      // those that there was no time for
}

// mutate changes the rules of each step of rules and runs its tests against each change.
func (c *checkCommand) mutate(p *program, settings *config.Config) (*mutantsResult, error) {
	ctx, cancel := context.WithTimeout(p.ctx, c.MutateFor)
	defer cancel()
	type ruled struct {
		pos    string
		config *rules.Config
		env    pipeline.Env
	}
	var found []ruled
	// What a step's rules see is known where the plan is made.
	for _, list := range [][]pipeline.Step{settings.Pipeline, settings.Outgoing} {
		steps := slices.Clone(list)
		for i := range steps {
			made := steps[i].Kind.New
			steps[i].Kind.New = func(own any, env pipeline.Env) ([]pipeline.Stage, error) {
				if c, ok := own.(*rules.Config); ok && !embedded(c) {
					found = append(found, ruled{steps[i].Pos, c, env})
				}
				return made(own, env)
			}
		}
		if _, _, err := listPlan(settings, steps, offlineEnv(settings.Hostname, p.now, nil)); err != nil {
			return nil, err
		}
	}
	result := &mutantsResult{Unnoticed: config.Problems{}}
	for _, x := range found {
		var bar *progress
		made, err := rules.Mutate(ctx, *x.config, x.env, func(done, all int) {
			if bar == nil {
				bar = p.newProgress("changes", all)
			}
			bar.at(done)
		})
		if bar != nil {
			bar.end()
		}
		if err != nil {
			return nil, fmt.Errorf("the tests of %s: %w", x.env.Name, err)
		}
		result.Made += made.Made
		result.Left += made.Left
		for _, u := range made.Unnoticed {
			result.Unnoticed = append(result.Unnoticed, problemsAt(settings, x.pos, u)...)
		}
	}
	return result, nil
}

// embedded reports whether all rules of a step came with the program: nobody can write a test into those.
func embedded(c *rules.Config) bool {
	return len(c.Files) > 0 && !slices.ContainsFunc(c.Files, func(f string) bool { return !strings.HasPrefix(f, builtin) })
}

func (m *mutantsResult) print(t *text) {
	for _, u := range m.Unnoticed {
		for line := range strings.Lines(u.String()) {
			t.line(0, "%s", strings.TrimSuffix(line, "\n"))
		}
	}
	t.line(0, "%d %s tried; no test notices %d of them", m.Made, plural(m.Made, "change", "changes"), len(m.Unnoticed))
	if m.Left > 0 {
		t.line(0, "there was no time for %d more; --mutate-for gives more time", m.Left)
	}
}

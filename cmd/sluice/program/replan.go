package program

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/rules"
)

// keptPlan is what the journal keeps of a plan, so that replan can make it again.
func keptPlan(c *config.Config, p *pipeline.Plan) journal.Plan {
	path, text := c.PipelineSource()
	return keptPlanOf(p, path, text)
}

// keptOutgoing is keptPlan for the plan of mail that leaves.
func keptOutgoing(c *config.Config, p *pipeline.Plan) journal.Plan {
	path, text := c.OutgoingSource()
	return keptPlanOf(p, path, text)
}

func keptPlanOf(p *pipeline.Plan, path, text string) journal.Plan {
	kept := journal.Plan{Version: p.Version(), Text: p.Text(), Files: []journal.PlanFile{{Path: path, Text: text}}}
	for _, f := range p.Files() {
		if !slices.ContainsFunc(kept.Files[1:], func(x journal.PlanFile) bool { return x.Path == f.Path }) {
			kept.Files = append(kept.Files, journal.PlanFile{Path: f.Path, Text: string(f.Text)})
		}
	}
	return kept
}

// plans makes plans that have decided once more, each once.
type plans struct {
	program  *program
	settings *config.Config
	current  *pipeline.Plan
	outgoing *pipeline.Plan // of now
	journal  *journal.Journal
	made     map[string]then
}

// A then is a plan of old times.
type then struct {
	plan *pipeline.Plan
	err  error // why there is none
}

// of returns the plan of a version. Its error is for people: the record can only be looked at by the plan of today.
func (p *plans) of(ctx context.Context, version string) (*pipeline.Plan, error) {
	for _, now := range []*pipeline.Plan{p.current, p.outgoing} {
		if now != nil && version == now.Version() {
			return now, nil
		}
	}
	x, ok := p.made[version]
	if !ok {
		if p.made == nil {
			p.made = map[string]then{}
		}
		x.plan, x.err = p.again(ctx, version)
		p.made[version] = x
	}
	return x.plan, x.err
}

func (p *plans) again(ctx context.Context, version string) (*pipeline.Plan, error) {
	made, err := p.remake(ctx, version, func(steps []pipeline.Step) []pipeline.Step { return steps })
	if err == nil && made.Version() != version {
		return nil, fmt.Errorf("plan %s was made by another version of Sluice, and would not be the same now", version)
	}
	return made, err
}

// remake makes a plan of old times with other steps than it had.
func (p *plans) remake(ctx context.Context, version string, change func([]pipeline.Step) []pipeline.Step) (*pipeline.Plan, error) {
	kept, ok, err := p.journal.KeptPlan(ctx, version)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("the journal does not have plan %s", version)
	case len(kept.Files) == 0:
		return nil, fmt.Errorf("the journal has plan %s without the files that it was made from", version)
	}
	for _, f := range kept.Files {
		if f.Lost {
			return nil, fmt.Errorf("the journal has plan %s without %s, which is too large or no text", version, f.Path)
		}
	}
	c, err := config.Parse(kept.Files[0].Path, kept.Files[0].Text, p.program.kinds)
	if err != nil && c == nil {
		return nil, fmt.Errorf("make plan %s again: %w", version, err)
	}
	env := offlineEnv(p.settings.Hostname, p.program.now, nil)
	env.Files = keptFiles(c, kept.Files[1:])
	env.Secret = func(string) (string, error) { return "not kept", nil }
	steps := c.Pipeline
	if out, err := pipeline.NewPlan(c.Outgoing, env, planOptions(p.settings)); err == nil && out.Version() == version {
		steps = c.Outgoing // it was the plan of mail that leaves
	}
	made, err := pipeline.NewPlan(change(slices.Clone(steps)), env, planOptions(p.settings))
	if err != nil {
		return nil, fmt.Errorf("make plan %s again: %w", version, err)
	}
	return made, nil
}

// keptFiles is what Env.Files is where the files are those that were kept.
func keptFiles(c *config.Config, kept []journal.PlanFile) func(pattern string) ([]pipeline.File, error) {
	return func(pattern string) (found []pipeline.File, _ error) {
		whole := pattern
		if !strings.HasPrefix(pattern, builtin) {
			whole = c.Path(pattern)
		}
		for _, f := range kept {
			if like, _ := filepath.Match(whole, f.Path); like || f.Path == whole {
				found = append(found, pipeline.File{Path: f.Path, Text: []byte(f.Text)})
			}
		}
		if len(found) == 0 && !filepath.IsAbs(whole) {
			// What a rule file names was kept under its whole name, and the configuration perhaps under a short one.
			for _, f := range kept {
				if like, _ := filepath.Match(whole, lastElements(f.Path, strings.Count(whole, "/")+1)); like {
					found = append(found, pipeline.File{Path: f.Path, Text: []byte(f.Text)})
				}
			}
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s was not kept", pattern)
		}
		return found, nil
	}
}

// lastElements are the last n elements of a path.
func lastElements(path string, n int) string {
	all := strings.Split(path, "/")
	return strings.Join(all[max(len(all)-n, 0):], "/")
}

// isOutgoing reports whether a rules step is one of those for outgoing mail: because it is called "outgoing/NAME", or the
// others have none of this name, or for "" because they have none at all.
func isOutgoing(c *config.Config, step string) bool {
	if strings.HasPrefix(step, outgoingPrefix) {
		return true
	}
	has := func(steps []pipeline.Step) bool {
		return slices.ContainsFunc(steps, func(s pipeline.Step) bool {
			return s.Kind.Name == rules.Kind().Name && (step == "" || step == cmp.Or(s.Name, s.Kind.StepName()))
		})
	}
	return !has(c.Pipeline) && has(c.Outgoing)
}

// outgoingPrefix stands before the name of a step for outgoing mail, where one of the pipeline is called the same.
const outgoingPrefix = "outgoing/"

// planWith makes the plan of the configuration with other rule files: those of one rules step are replaced, and rules that
// the configuration writes there itself are left out. step names it, among those for outgoing mail if [isOutgoing] says so;
// "" is the only one, or an error.
func planWith(p *program, c *config.Config, step string, files []string) (*pipeline.Plan, error) {
	steps := slices.Clone(c.Pipeline)
	outgoing := isOutgoing(c, step)
	if outgoing {
		steps, step = slices.Clone(c.Outgoing), strings.TrimPrefix(step, outgoingPrefix)
	}
	at, names := -1, []string(nil)
	for i, s := range steps {
		if s.Kind.Name != rules.Kind().Name {
			continue
		}
		name := s.Name
		if name == "" {
			name = s.Kind.StepName()
		}
		names = append(names, name)
		if step == "" || step == name {
			at = i
		}
	}
	switch {
	case len(names) == 0:
		return nil, errors.New("the pipeline has no rules step whose rules could be replaced")
	case at < 0:
		return nil, fmt.Errorf("there is no rules step %s; there is %s", step, strings.Join(names, ", "))
	case step == "" && len(names) > 1:
		return nil, fmt.Errorf("there are several rules steps, %s: say whose rules to replace with --step", strings.Join(names, ", "))
	}
	replaced, ok := steps[at].Config.(*rules.Config)
	if !ok {
		return nil, fmt.Errorf("the settings of step %s are a %T", steps[at].Name, steps[at].Config)
	}
	other := *replaced
	other.Rules, other.Files = rules.Inline{}, nil
	var missing config.Problems
	for _, f := range files {
		whole := f // what a command line names is relative to where it is called
		if !strings.HasPrefix(f, builtin) {
			var err error
			if whole, err = filepath.Abs(f); err != nil {
				return nil, fmt.Errorf("find %s: %w", f, err)
			}
			// Said by the plan it would be said of a line of the configuration.
			if there, err := filepath.Glob(whole); err == nil && len(there) == 0 {
				missing = append(missing, config.Problem{File: f, Text: "there is no such file"})
				continue
			}
		}
		other.Files = append(other.Files, whole)
	}
	steps[at].Config = &other
	makePlan := plan
	if outgoing {
		makePlan = listPlan
	}
	made, _, err := makePlan(c, steps, offlineEnv(c.Hostname, p.now, nil))
	var problems config.Problems
	if len(missing) > 0 && (err == nil || errors.As(err, &problems)) {
		return nil, append(missing, problems...)
	}
	return made, err
}

package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"sluice/pipeline"
	"sluice/pipeline/lookalike"
	"sluice/rules"
)

// TakePipeline takes the steps of another configuration.
func (c *Config) TakePipeline(other *Config) { c.Pipeline, c.source = other.Pipeline, other.source }

// PipelineSource returns the name and the text of the configuration that the steps come from.
func (c *Config) PipelineSource() (path, text string) { return c.source[0], c.source[1] }

// OutgoingSource returns the name and the text of the configuration that the steps for outgoing mail come from.
func (c *Config) OutgoingSource() (path, text string) { return c.own[0], c.own[1] }

// HasPipeline reports whether the file lists the steps.
func (c *Config) HasPipeline() bool {
	if c.d == nil {
		return false
	}
	_, ok := c.d.places["pipeline"]
	return ok
}

// common are the settings that every step takes.
type common struct {
	// Name is what rules and records call the step. Default: its kind, but where that is a word of the rule language.
	Name string `yaml:"name"`
	// OnError says what an unanswered question becomes: skip, postpone or refuse. Default: the kind's own.
	OnError *pipeline.OnError `yaml:"on_error"`
	// Timeout bounds one question. Default: 10s, and 60s for questions about content.
	Timeout time.Duration `yaml:"timeout" example:"10s"`
	// At is the phase before which the step is not asked: connect, helo, mail, rcpt, data or content.
	At *pipeline.Phase `yaml:"at" example:"content"`
	// Shadow records what the step says and never acts on it; `sluice shadow report` says what it would have done. It is asked
	// after the mail has been answered, and only shadow steps and shadow rules can read what it finds.
	Shadow bool `yaml:"shadow"`
}

var stepName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// steps decodes the list of steps.
func (d *decoder) steps(e entry, kinds []pipeline.Kind) []pipeline.Step {
	d.places[e.key] = e.place
	list, ok := d.resolve(e.value).(*ast.SequenceNode)
	if !ok {
		d.at(placeOf(e.value), e.key+" wants a list of steps, not "+describe(e.value), "write - KIND: {…} for each step")
		return nil
	}
	var steps []pipeline.Step
	names := map[string]place{}
	for i, item := range list.Values {
		path := fmt.Sprintf("%s[%d]", e.key, i)
		d.places[path] = placeOf(item)
		for _, step := range d.item(path, item, kinds) {
			path := cmp.Or(d.stepPaths[step.Pos], path)
			name, where := cmp.Or(step.Name, step.Kind.StepName()), d.where(path+".name")
			switch first, twice := names[name]; {
			case step.Config == nil, step.Name == "" && slices.Contains(d.guessed, path): // its name may be another
			case twice:
				remedy := fmt.Sprintf("the first is in line %d; give this one a name: {name: %s_2, …}", first.line, name)
				d.at(where, fmt.Sprintf("a second step is called %q", name), remedy)
				step.Failed = true // which of the two is meant nobody knows
			default:
				names[name] = where
			}
			steps = append(steps, step)
		}
	}
	return steps
}

// item decodes one item of the list of steps. What is wrong with a step makes it one that has failed, with all of it that
// could be read. It is one step, but where two stand in one item.
func (d *decoder) item(path string, item ast.Node, kinds []pipeline.Kind) []pipeline.Step {
	failed := []pipeline.Step{{Failed: true}}
	resolved := d.resolve(item)
	entries, ok := d.mapping(resolved)
	if !ok {
		if resolved == nil {
			return failed
		}
		remedy := "write - KIND: {…}"
		if text, ok := scalar(resolved); ok {
			remedy = fmt.Sprintf("write - %s: {}", text)
		}
		d.at(placeOf(item), "a step is a mapping of its kind and settings, not "+describe(resolved), remedy)
		return failed
	}
	if len(entries) == 0 {
		d.at(placeOf(item), "a step without a kind", "write - KIND: {…}")
		return failed
	}
	first := entries[0]
	if len(entries) == 1 {
		return []pipeline.Step{d.step(path, first, kinds)}
	}
	isKind := func(e entry) bool {
		return slices.ContainsFunc(kinds, func(k pipeline.Kind) bool { return k.Name == e.key })
	}
	beside, remedy := entries[1], "begin a new step with -"
	indent := !isKind(beside)
	if indent {
		remedy = "indent it further, below " + first.key
	}
	d.at(beside.place, fmt.Sprintf("%q stands beside the kind %q", beside.key, first.key), remedy)
	steps := []pipeline.Step{d.step(path, first, kinds)}
	for _, e := range entries[1:] {
		if isKind(e) {
			steps = append(steps, d.step(join(path, e.key), e, kinds))
		} else if s := &steps[0]; s.Config != nil {
			d.set(path, first.key, s, []entry{e})
		}
	}
	for i := range steps {
		steps[i].Failed = true
	}
	return steps
}

// step decodes one step.
func (d *decoder) step(path string, e entry, kinds []pipeline.Kind) (step pipeline.Step) {
	kind := func(name string) int {
		return slices.IndexFunc(kinds, func(k pipeline.Kind) bool { return k.Name == name })
	}
	before := len(d.problems)
	at := kind(e.key)
	if at < 0 {
		var names []string
		for _, k := range kinds {
			names = append(names, k.Name)
		}
		near := lookalike.Nearest(e.key, names)
		remedy := "there are " + strings.Join(names, ", ")
		if near != "" {
			remedy, at = fmt.Sprintf("did you mean %q?", near), kind(near)
			d.guessed = append(d.guessed, path)
		}
		d.at(e.place, fmt.Sprintf("there is no kind of step %q", e.key), remedy)
		if at < 0 {
			return pipeline.Step{Name: d.nameOf(e), Failed: true}
		}
	}
	step = pipeline.Step{Kind: kinds[at], Pos: fmt.Sprintf("%s:%d:%d", d.file, e.place.line, e.place.column)}
	d.stepPaths[step.Pos] = path
	if step.Kind.Config != nil {
		step.Config = step.Kind.Config()
	} else {
		step.Config = &struct{}{}
	}
	d.settings(path, e, &step)
	step.Failed = len(d.problems) > before
	return step
}

// nameOf returns the name that a step of no known kind is given, "" for none.
func (d *decoder) nameOf(e entry) string {
	var values []*ast.MappingValueNode
	switch m := e.value.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	}
	for _, v := range values {
		if key, ok := scalar(v.Key); ok && key == "name" {
			name, _ := scalar(v.Value)
			return name
		}
	}
	return ""
}

// settings decodes what stands below a step's kind.
func (d *decoder) settings(path string, e entry, step *pipeline.Step) {
	d.places[path] = e.place
	if e.value == nil {
		return
	}
	defer func(path string) { d.path = path }(d.path)
	d.path = path
	n := d.resolve(e.value)
	if _, null := n.(*ast.NullNode); n == nil || null {
		return
	}
	entries, ok := d.mapping(n)
	if !ok {
		d.at(placeOf(n), fmt.Sprintf("the settings of %s are a mapping, not %s", e.key, describe(n)), "write {} for the defaults")
		return
	}
	d.set(path, e.key, step, entries)
}

// set decodes settings: those of every step and the kind's own.
func (d *decoder) set(path, kind string, step *pipeline.Step, entries []entry) {
	c := common{step.Name, step.OnError, step.Timeout, step.At, step.Shadow}
	shared := Keys(c)
	for _, x := range d.known(path, kind, entries, append(Keys(step.Config), shared...)) {
		to := reflectOf(step.Config)
		if slices.Contains(shared, x.key) {
			to = reflectOf(&c)
		}
		d.entries(path, []entry{x}, to)
	}
	step.Name, step.OnError, step.Timeout, step.At, step.Shadow = c.Name, c.OnError, c.Timeout, c.At, c.Shadow
	if c.Name == "" {
		return
	}
	switch {
	case !stepName.MatchString(c.Name):
		d.wrong(path+".name", fmt.Sprintf("%q cannot be the name of a step", c.Name), "write lower-case letters, digits and _, a letter first")
	case rules.IsWord(c.Name):
		d.wrong(path+".name", fmt.Sprintf("%q is a word of the rule language", c.Name), "choose another name")
	}
}

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
		step, ok := d.step(path, item, kinds)
		step.Failed = !ok
		d.stepPaths[step.Pos] = path
		name, where := cmp.Or(step.Name, step.Kind.StepName()), d.where(path+".name")
		switch first, twice := names[name]; {
		case step.Config == nil: // its kind, and so its name, is a guess
		case twice:
			remedy := fmt.Sprintf("the first is in line %d; give this one a name: {name: %s_2, …}", first.line, name)
			d.at(where, fmt.Sprintf("a second step is called %q", name), remedy)
			step.Failed = true // which of the two is meant nobody knows
		default:
			names[name] = where
		}
		steps = append(steps, step)
	}
	return steps
}

// step decodes one step. Where something is wrong with it ok is false, and it has the kind and the name that it seems to
// have, if any.
func (d *decoder) step(path string, item ast.Node, kinds []pipeline.Kind) (step pipeline.Step, ok bool) {
	resolved := d.resolve(item)
	entries, ok := d.mapping(resolved)
	if !ok {
		if resolved == nil {
			return step, false
		}
		remedy := "write - KIND: {…}"
		if text, ok := scalar(resolved); ok {
			remedy = fmt.Sprintf("write - %s: {}", text)
		}
		d.at(placeOf(item), "a step is a mapping of its kind and settings, not "+describe(resolved), remedy)
		return pipeline.Step{}, false
	}
	if len(entries) == 0 {
		d.at(placeOf(item), "a step without a kind", "write - KIND: {…}")
		return pipeline.Step{}, false
	}
	e := entries[0]
	kind := func(name string) int {
		return slices.IndexFunc(kinds, func(k pipeline.Kind) bool { return k.Name == name })
	}
	if len(entries) > 1 {
		if at := kind(e.key); at >= 0 {
			step.Kind, step.Name = kinds[at], d.nameOf(e)
		}
		remedy := "begin a new step with -"
		if slices.Contains(append(Keys(common{}), "files"), entries[1].key) {
			remedy = "indent it further, below " + entries[0].key
		}
		d.at(entries[1].place, fmt.Sprintf("%q stands beside the kind %q", entries[1].key, entries[0].key), remedy)
		return step, false
	}
	at := kind(e.key)
	if at < 0 {
		var names []string
		for _, k := range kinds {
			names = append(names, k.Name)
		}
		near := lookalike.Nearest(e.key, names)
		remedy := "there are " + strings.Join(names, ", ")
		if near != "" {
			remedy = fmt.Sprintf("did you mean %q?", near)
			step.Kind = kinds[kind(near)]
		}
		d.at(e.place, fmt.Sprintf("there is no kind of step %q", e.key), remedy)
		if name := d.nameOf(e); name != "" {
			step.Name = name
		}
		return step, false
	}
	step = pipeline.Step{Kind: kinds[at], Pos: fmt.Sprintf("%s:%d:%d", d.file, e.place.line, e.place.column)}
	if step.Kind.Config != nil {
		step.Config = step.Kind.Config()
	} else {
		step.Config = &struct{}{}
	}
	before := len(d.problems)
	d.settings(path, e, &step)
	return step, len(d.problems) == before
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

// settings decodes what stands below a step's kind: the settings of every step and the kind's own.
func (d *decoder) settings(path string, e entry, step *pipeline.Step) {
	d.places[path] = e.place
	if e.value == nil {
		return
	}
	n := d.resolve(e.value)
	if _, null := n.(*ast.NullNode); n == nil || null {
		return
	}
	entries, ok := d.mapping(n)
	if !ok {
		d.at(placeOf(n), fmt.Sprintf("the settings of %s are a mapping, not %s", e.key, describe(n)), "write {} for the defaults")
		return
	}
	var c common
	shared := Keys(c)
	own := Keys(step.Config)
	for _, x := range entries {
		switch {
		case slices.Contains(shared, x.key):
			d.entries(path, []entry{x}, reflectOf(&c))
		case slices.Contains(own, x.key):
			d.entries(path, []entry{x}, reflectOf(step.Config))
		default:
			d.unknown(e.key, x, append(shared, own...))
		}
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

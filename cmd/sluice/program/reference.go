package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/pipeline/lookalike"
	"sluice/rules"
)

type referenceCommand struct {
	Kind         string `arg:"" optional:"" help:"Only this kind of step."`
	Schema       bool   `xor:"what" help:"Print a JSON Schema of configurations, for editors."`
	Rules        bool   `xor:"what" help:"Print what rules can name: for the steps of the configuration, or for all kinds of steps."`
	RecordSchema bool   `xor:"what" help:"Print a JSON Schema of what explain --json prints, and of records."`
}

func (c *referenceCommand) Run(p *program) error {
	kinds := p.kinds
	if c.Kind != "" {
		at := slices.IndexFunc(kinds, func(k pipeline.Kind) bool { return k.Name == c.Kind })
		if at < 0 {
			return noKind(c.Kind, kinds)
		}
		kinds = kinds[at : at+1]
	}
	switch {
	case c.Schema:
		return p.printSchema(config.Schema(kinds))
	case c.RecordSchema:
		return p.printSchema(recordSchema())
	case c.Rules:
		return p.describeRules(kinds, c.Kind == "")
	case c.Kind != "":
		_, err := io.WriteString(p.stdout, config.ReferenceKind(kinds[0]))
		return err
	}
	_, err := io.WriteString(p.stdout, config.Reference(kinds, defaultSteps()))
	return err
}

func (p *program) printSchema(schema any) error {
	e := json.NewEncoder(p.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(schema)
}

func noKind(name string, kinds []pipeline.Kind) error {
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	if near := lookalike.Nearest(name, names); near != "" {
		return fmt.Errorf("there is no kind of step %q; did you mean %q?", name, near)
	}
	return fmt.Errorf("there is no kind of step %q; there are %s", name, strings.Join(names, ", "))
}

// defaultSteps is what stands below `pipeline:` in the configuration without a configuration.
func defaultSteps() string {
	_, steps, _ := strings.Cut(defaultText(), "pipeline:\n")
	return steps
}

// describeRules prints what the rules of a step can name that stands behind the steps of the configuration, or without
// one behind a step of each kind, with its example for settings.
func (p *program) describeRules(kinds []pipeline.Kind, all bool) error {
	steps, err := p.exampleSteps(kinds)
	if err != nil {
		return err
	}
	if p.configFile != "" && all {
		c, err := p.settings()
		if err != nil {
			return err
		}
		steps = c.Pipeline
	}
	var before []pipeline.Before
	for _, s := range steps {
		b := pipeline.Before{Name: s.Name, Kind: s.Kind.Name}
		if b.Name == "" {
			b.Name = s.Kind.StepName()
		}
		if s.Kind.Fact != nil {
			b.Fact = s.Kind.Fact(s.Config)
		}
		before = append(before, b)
	}
	d, err := rules.Describe(before, config.Comment)
	if err != nil {
		return err
	}
	t := text{w: p.stdout}
	t.line(0, "What the conditions of rules can name. What is not known is neither true nor false: `go doc ./rules`.")
	t.line(0, "")
	t.line(0, "the mail")
	entries(&t, d.Names)
	for _, s := range d.Steps {
		t.line(0, "")
		t.line(0, "found by the step %s", s.Name)
		entries(&t, s.Facts)
	}
	t.line(0, "")
	t.line(0, "functions")
	entries(&t, d.Functions)
	t.line(0, "")
	t.line(0, "operators")
	entries(&t, d.Operators)
	return t.err
}

// entries prints names with what they are in columns; what a name is called and what it is stay on one line.
func entries(t *text, all []rules.Entry) {
	name, what := 0, 0
	for _, e := range all {
		name, what = max(name, len(e.Name)), max(what, len(e.Type))
	}
	for _, e := range all {
		t.line(1, "%s", strings.TrimRight(fmt.Sprintf("%-*s  %-*s  %s", name, e.Name, what, e.Type, e.Doc), " "))
		if e.Example != "" {
			t.line(1, "%*s  e.g. %s", name, "", e.Example)
		}
	}
}

// exampleSteps makes a step of each kind that finds facts, with the settings that its reference shows.
func (p *program) exampleSteps(kinds []pipeline.Kind) ([]pipeline.Step, error) {
	var steps []pipeline.Step
	for _, k := range kinds {
		if k.Fact == nil {
			continue
		}
		c, err := config.Parse("", config.ExampleKind(k), p.kinds)
		if err != nil {
			return nil, fmt.Errorf("the example of %s: %w", k.Name, err)
		}
		steps = append(steps, c.Pipeline...)
	}
	if len(kinds) == 1 && len(steps) == 0 {
		return nil, errors.New(kinds[0].Name + " finds no facts")
	}
	return steps, nil
}

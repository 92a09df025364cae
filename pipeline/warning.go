package pipeline

// A Warning is something about a plan that an administrator should know, although the plan is right.
type Warning struct {
	Step string // the name of the step it is about, "" for the plan as a whole
	Pos  string // where that step is configured, as Step.Pos
	Err  error  // what it is; an error of the step's kind may know a place of its own, such as a line of a rule file
}

// String returns the text without its place.
func (w Warning) String() string { return w.Err.Error() }

// A Placer is a stage that knows where its rules are written.
type Placer interface {
	// Place returns text as what is to be said about the rule at a place of the step: an error with file, line and column.
	// It is nil where there is no such rule.
	Place(at int, text string) error
}

// warnAt adds a warning about a place of a step.
func (p *Plan) warnAt(step, at int, text string) {
	p.warnings = append(p.warnings, p.warningAt(step, at, text))
}

func (p *Plan) warningAt(step, at int, text string) Warning {
	s := p.steps[step]
	w := Warning{Step: s.Name, Pos: s.Pos, Err: said(text)}
	for _, n := range s.stages {
		placer, ok := p.stages[n].stage.(Placer)
		if !ok {
			continue
		}
		if err := placer.Place(at, text); err != nil {
			w.Err = err
			break
		}
	}
	return w
}

// said is a warning without a place of its own.
type said string

func (s said) Error() string { return string(s) }

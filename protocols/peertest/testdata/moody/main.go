// Command moody is Sluice with a stage that does not do what it should.
package main

import (
	"context"
	"errors"
	"fmt"

	"sluice/cmd/sluice/program"
	"sluice/pipeline"
)

func main() { program.Main(append(program.Stages(), kind())...) }

type config struct {
	// Does is fail, panic or hang.
	Does string `yaml:"does"`
}

type fact struct {
	Mood string `json:"mood"`
}

func kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "moody", Doc: "does not do what it should", OnError: pipeline.Skip,
		Config: func() any { return &config{} },
		Fact:   func(any) any { return fact{} },
		New: func(c any, _ pipeline.Env) ([]pipeline.Stage, error) {
			return []pipeline.Stage{stage{c.(*config).Does}}, nil
		},
	}
}

type stage struct{ does string }

func (stage) Reads() pipeline.Reads { return pipeline.Reads{Input: pipeline.InputBody, Waits: true} }

func (s stage) Check(context.Context, pipeline.View) (pipeline.Result, error) {
	switch s.does {
	case "fail":
		return pipeline.Result{}, errors.New("no mood for this")
	case "panic":
		panic("bad mood")
	case "hang":
		select {} // not even when it is told to stop
	}
	return pipeline.Result{}, fmt.Errorf("does: there is no %q", s.does)
}

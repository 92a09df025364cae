package program

import (
	"context"
	"errors"
	"fmt"

	"sluice/pipeline"
)

// moody is a stage of a site's own that behaves as its configuration says.
func moody() pipeline.Kind {
	type config struct {
		Does string `yaml:"does" doc:"Does is one of find, fail, panic, hang and dial."`
	}
	type fact struct {
		Mood string `json:"mood"`
	}
	return pipeline.Kind{
		Name: "moody", Doc: "Behaves as it is told.", OnError: pipeline.Skip,
		Config: func() any { return &config{Does: "find"} },
		Fact:   func(any) any { return fact{} },
		New: func(c any, env pipeline.Env) ([]pipeline.Stage, error) {
			does := c.(*config).Does
			switch does {
			case "find", "fail", "panic", "hang", "dial":
			default:
				return nil, fmt.Errorf("does: there is no %q", does)
			}
			return []pipeline.Stage{stage(func(ctx context.Context) (pipeline.Result, error) {
				switch does {
				case "fail":
					return pipeline.Result{}, errors.New("no mood for this")
				case "panic":
					panic("bad mood")
				case "hang":
					<-ctx.Done()
					return pipeline.Result{}, ctx.Err()
				case "dial":
					_, err := env.Dial(ctx, "tcp", "mood.example:1")
					return pipeline.Result{}, err
				}
				return pipeline.Result{Fact: fact{"good"}}, nil
			})}, nil
		},
	}
}

type stage func(context.Context) (pipeline.Result, error)

func (stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: pipeline.InputBody, Waits: true}
}

func (s stage) Check(ctx context.Context, _ pipeline.View) (pipeline.Result, error) { return s(ctx) }

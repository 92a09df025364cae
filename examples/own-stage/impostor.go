package main

import (
	"context"
	"fmt"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// config is what stands under `- impostor:`.
type config struct {
	// Staff are names that people trust, each with the one address that its owner writes from.
	Staff map[string]string `yaml:"staff"`
}

// fact is what rules see as `impostor`.
type fact struct {
	Name string `json:"name"` // whose name is on mail that is not theirs; "" for nobody's
}

// impostor is a kind of stage that looks for mail which shows a trusted name and comes from another address. It says
// whose; whether that is bad enough to refuse is a rule's business.
func impostor() pipeline.Kind {
	return pipeline.Kind{
		Name:    "impostor",
		Doc:     "Looks for the names of staff on mail from other addresses.",
		OnError: pipeline.Skip,
		Pure:    true,
		Config:  func() any { return &config{Staff: map[string]string{}} },
		Fact:    func(any) any { return fact{} },
		New: func(c any, _ pipeline.Env) ([]pipeline.Stage, error) {
			s := stage{}
			for name, address := range c.(*config).Staff {
				a, err := mime.ParseAddress(address)
				if err != nil {
					return nil, fmt.Errorf("staff: %s: %w", name, err)
				}
				s[plain(name)] = a.String()
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// A stage knows the address of each name.
type stage map[string]string

// Reads says what a stage looks at, and so when it is asked.
func (stage) Reads() pipeline.Reads { return pipeline.Reads{Input: pipeline.InputHeader} }

// Check is asked about one mail.
func (s stage) Check(_ context.Context, v pipeline.View) (pipeline.Result, error) {
	for _, from := range v.Message.From() {
		if address, known := s[plain(from.Name)]; known && from.String() != address {
			return pipeline.Result{Fact: fact{Name: from.Name}}, nil
		}
	}
	return pipeline.Result{Fact: fact{}}, nil
}

// plain returns a name as it is compared: in lower case, with single spaces.
func plain(name string) string { return strings.Join(strings.Fields(strings.ToLower(name)), " ") }

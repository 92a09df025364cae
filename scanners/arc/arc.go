// Package arc validates the Authenticated Received Chain (RFC 8617): what those who handed the mail on say about it, each
// under their seal.
package arc

import (
	"context"
	"fmt"
	"time"

	"sluice/pipeline"
)

// Kind is the kind of stage the configuration calls arc. A chain only ever adds to what a mail proves for itself, so mail
// whose keys cannot be asked for is not held up; rules see that the chain is unknown.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "arc",
		Doc: "Validates the ARC chain of mail that came through others' hands. It is skipped where keys cannot be asked for: a chain " +
			"only ever adds to what a mail proves for itself.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{Sets: mostSets, KeyTimeout: 10 * time.Second} },
		Fact:    func(any) any { return Fact{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			c := *config.(*Config)
			if c.Sets < 1 || c.Sets > mostSets {
				return nil, fmt.Errorf("sets: %d: write a number from 1 to %d", c.Sets, mostSets)
			}
			if c.KeyTimeout <= 0 {
				return nil, fmt.Errorf("key_timeout: %s is no time to wait", c.KeyTimeout)
			}
			return []pipeline.Stage{&stage{config: c, env: env}}, nil
		},
	}
}

const mostSets = 50 // RFC 8617, 4.2.1

// Config is the section of one arc step.
type Config struct {
	// Sets is how many sets a chain may have; one with more fails. Default and most: 50.
	Sets int `yaml:"sets"`
	// KeyTimeout is how long to wait for keys. Default: 10s.
	KeyTimeout time.Duration `yaml:"key_timeout"`
}

type stage struct {
	config Config
	env    pipeline.Env
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: pipeline.InputBody, Waits: true}
}

// Check validates the chain. It is an error if a key that decides about it could not be asked for; one that says only how
// far back the mail is unchanged leaves oldest_pass unknown.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	now := v.Received
	if now.IsZero() {
		now = s.env.Now()
	}
	fact, missing, err := s.validate(ctx, v.Message, now)
	if err != nil {
		return pipeline.Result{}, err
	}
	return pipeline.Result{Fact: fact, Missing: missing}, nil
}

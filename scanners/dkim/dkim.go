// Package dkim verifies DKIM signatures (RFC 6376, 8301, 8463).
package dkim

import (
	"context"
	"fmt"
	"time"

	"sluice/pipeline"
	"sluice/scanners/dkim/signature"
)

// Kind is the kind of stage the configuration calls dkim. Mail whose keys cannot be asked for is not held up: most mail
// has other facts to be judged by, and rules see that this one is unknown.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "dkim",
		Doc: "Verifies the DKIM signatures of the mail. It is skipped where keys cannot be asked for and no signature is valid without: " +
			"most mail has other facts to be judged by.",
		OnError: pipeline.Skip,
		Config: func() any {
			return &Config{Signatures: 8, MinBits: signature.LeastBits, Skew: 5 * time.Minute, KeyTimeout: 10 * time.Second}
		},
		Fact: func(any) any { return Fact{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			c := *config.(*Config)
			switch {
			case c.Signatures < 1 || c.Signatures > mostSignatures:
				return nil, fmt.Errorf("signatures: %d: write a number from 1 to %d", c.Signatures, mostSignatures)
			case c.MinBits < signature.LeastBits:
				return nil, fmt.Errorf("min_bits: %d: RFC 8301 lets no key below %d bits count", c.MinBits, signature.LeastBits)
			case c.Skew < 0:
				return nil, fmt.Errorf("skew: %s is no time", c.Skew)
			case c.KeyTimeout <= 0:
				return nil, fmt.Errorf("key_timeout: %s is no time to wait", c.KeyTimeout)
			}
			return []pipeline.Stage{&stage{config: c, resolver: env.Resolver, now: env.Now}}, nil
		},
	}
}

const mostSignatures = 100

// Config is the section of one dkim step.
type Config struct {
	// Signatures is how many signatures are verified, from the top; those below are only named. Default: 8.
	Signatures int `yaml:"signatures"`
	// MinBits is the size in bits that an RSA key must have to count. Default and least: 1024.
	MinBits int `yaml:"min_bits"`
	// Skew is how far the clock of a signer may be off. Default: 5m.
	Skew time.Duration `yaml:"skew"`
	// KeyTimeout is how long to wait for keys; they are asked for at the same time. Default: 10s.
	KeyTimeout time.Duration `yaml:"key_timeout"`
}

type stage struct {
	config   Config
	resolver pipeline.Resolver
	now      func() time.Time
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: pipeline.InputBody, Waits: true}
}

// undecided is the error of a mail of which no signature is valid so far. What is known of each it tells all the same, for
// those who ask about one domain: else a signature of a domain that does not answer would hide that another is broken.
type undecided struct {
	Fact
	why string
}

func (u *undecided) Error() string {
	return "no signature is valid so far, and one is undecided: " + u.why
}

// Check verifies the signatures. Where none is valid and one could not be decided, whether the mail is signed is open, and
// that is an error; beside a valid one it is part of the fact.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	now := v.Received
	if now.IsZero() {
		now = s.now()
	}
	fact, open, err := s.verify(ctx, v.Message, now)
	if err == nil && open != "" && !fact.Pass {
		err = &undecided{fact, open}
	}
	if err != nil {
		return pipeline.Result{}, err
	}
	return pipeline.Result{Fact: fact}, nil
}

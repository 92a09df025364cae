// Package spamd asks a running spamd, SpamAssassin's server, about mail.
package spamd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/scanners/breaker"
	"sluice/scanners/peer"
)

// Kind is the kind of stage the configuration calls spamd. A mail that spamd does not answer about passes: what it says
// is a fact among others, and rules see that this one is unknown. A site that leaves the decision to SpamAssassin
// writes `on_error: postpone`.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "spamd",
		Doc: "Asks a running spamd of SpamAssassin; its score and rules are facts. It is skipped where spamd does not answer: " +
			"it is one sign among several; a site that leaves the decision to it writes `on_error: postpone`.",
		OnError: pipeline.Skip,
		Config: func() any {
			return &Config{
				MaxSize: 512 << 10, MaxReply: 64 << 10, AtOnce: 5, ConnectTimeout: 5 * time.Second,
				Breaker: breaker.DefaultConfig(),
			}
		},
		Fact: func(any) any { return Fact{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s, err := newStage(*config.(*Config), env)
			if err != nil {
				return nil, err
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// Config is the section of one spamd step.
type Config struct {
	// Address is where spamd listens: unix:PATH or HOST:PORT.
	Address string `yaml:"address" example:"127.0.0.1:783"`
	// User is whose preferences SpamAssassin shall use. Default: those of the user that spamd runs as.
	User string `yaml:"user" example:"debian-spamd"`
	// MaxSize is how many octets a mail may have; spamd is not asked about larger ones, and its answer is unknown then.
	// SpamAssassin takes long for large mails, of which few are spam.
	MaxSize int64 `yaml:"max_size"`
	// MaxReply is how many octets a reply may have. A larger one is an error.
	MaxReply int64 `yaml:"max_reply"`
	// AtOnce is how many mails are scanned at a time; more of them wait. spamd has 5 children (--max-children) unless told
	// otherwise.
	AtOnce int `yaml:"at_once"`
	// ConnectTimeout is how long connecting may take. The step's `timeout` bounds the whole question.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// Breaker says when spamd counts as dead and is not asked for a while.
	Breaker breaker.Config `yaml:"breaker"`
}

type stage struct {
	config   Config
	hostname string
	peer     *peer.Peer
}

func newStage(c Config, env pipeline.Env) (*stage, error) {
	var wrong []error
	if c.MaxSize <= 0 || c.MaxReply <= 0 {
		wrong = append(wrong, errors.New("max_size and max_reply are at least 1"))
	}
	if strings.ContainsFunc(c.User, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		wrong = append(wrong, fmt.Errorf("user: %q is no name of a user", c.User))
	}
	p, err := peer.New(peer.Config{
		Name: "spamd", Address: c.Address, AtOnce: c.AtOnce, Connect: c.ConnectTimeout, Breaker: c.Breaker,
	}, env)
	if err != nil {
		wrong = append(wrong, err)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return &stage{config: c, hostname: env.Hostname, peer: p}, nil
}

// Reads implements pipeline.Stage. Mail whose client nobody knows can be scanned, too.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{
		Input: pipeline.InputClient | pipeline.InputGreeting | pipeline.InputSender | pipeline.InputHeader | pipeline.InputBody,
		Waits: true, AnyClient: true,
	}
}

// Check asks spamd about the mail.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	if size := v.Message.Size(); size > s.config.MaxSize {
		why := fmt.Errorf("the mail has %d octets, and max_size is %d", size, s.config.MaxSize)
		missing := map[string]error{"spam": why, "score": why, "required": why, "rules": why}
		return pipeline.Result{Fact: Fact{}, Missing: missing}, nil
	}
	var fact Fact
	err := s.peer.Ask(ctx, func(ctx context.Context) (err error) {
		fact, err = s.ask(ctx, v)
		return err
	})
	if err != nil {
		return pipeline.Result{}, err
	}
	return pipeline.Result{Fact: fact}, nil
}

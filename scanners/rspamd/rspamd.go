// Package rspamd asks a running rspamd about mail, over its own HTTP protocol.
package rspamd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"sluice/pipeline"
	"sluice/scanners/breaker"
	"sluice/scanners/peer"
)

// Kind is the kind of stage the configuration calls rspamd. A mail that rspamd does not answer about passes: what it
// says is a fact among others, and rules see that this one is unknown. A site that leaves the decision to rspamd writes
// `on_error: postpone`.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "rspamd",
		Doc: "Asks a running rspamd; its score, action and symbols are facts. It is skipped where rspamd does not answer: " +
			"it is one sign among several; a site that leaves the decision to it writes `on_error: postpone`.",
		OnError: pipeline.Skip,
		Config: func() any {
			return &Config{
				MaxSize: 50 << 20, MaxReply: 1 << 20, MaxSymbols: 500, AtOnce: 20, ConnectTimeout: 5 * time.Second,
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

// Config is the section of one rspamd step.
type Config struct {
	// Address is where a worker of rspamd listens that scans: unix:PATH or HOST:PORT. That is the normal worker, or the
	// proxy in self_scan mode.
	Address string `yaml:"address" example:"127.0.0.1:11333"`
	// PasswordFile is a file whose first line is the password that the worker wants. It is read when the configuration is.
	// Default: it wants none.
	PasswordFile string `yaml:"password_file" example:"/etc/sluice/rspamd.password"`
	// SettingsID is the name of the settings that rspamd shall use for this mail (Settings-ID). Default: its own choice.
	SettingsID string `yaml:"settings_id" example:"incoming"`
	// MaxSize is how many octets a mail may have; rspamd is not asked about larger ones, and its answer is unknown then.
	MaxSize int64 `yaml:"max_size"`
	// MaxReply is how many octets a reply may have. A larger one is an error.
	MaxReply int64 `yaml:"max_reply"`
	// MaxSymbols is how many symbols a reply may have. Where there are more, they are unknown, and the rest is not.
	MaxSymbols int `yaml:"max_symbols"`
	// AtOnce is how many mails are scanned at a time; more of them wait.
	AtOnce int `yaml:"at_once"`
	// ConnectTimeout is how long connecting may take. The step's `timeout` bounds the whole question.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// Breaker says when rspamd counts as dead and is not asked for a while.
	Breaker breaker.Config `yaml:"breaker"`
}

type stage struct {
	config Config
	client *client
}

func newStage(c Config, env pipeline.Env) (*stage, error) {
	var wrong []error
	if c.MaxSize <= 0 || c.MaxReply <= 0 || c.MaxSymbols <= 0 {
		wrong = append(wrong, errors.New("max_size, max_reply and max_symbols are at least 1"))
	}
	p, err := peer.New(peer.Config{
		Name: "rspamd", Address: c.Address, AtOnce: c.AtOnce, Connect: c.ConnectTimeout, Breaker: c.Breaker,
	}, env)
	if err != nil {
		wrong = append(wrong, err)
	}
	password, err := secret(c.PasswordFile, env)
	if err != nil {
		wrong = append(wrong, fmt.Errorf("password_file: %w", err))
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return &stage{config: c, client: newClient(p, c, password, env.Hostname)}, nil
}

// secret returns the first line of a file.
func secret(name string, env pipeline.Env) (string, error) {
	if name == "" {
		return "", nil
	}
	text, err := env.Secret(name)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(text, "\n")
	line = strings.TrimSpace(line)
	if strings.ContainsFunc(line, unicode.IsControl) { // it goes into a field of HTTP
		return "", fmt.Errorf("%s: its first line is no password", name)
	}
	return line, nil
}

// Reads implements pipeline.Stage. Mail whose client nobody knows can be scanned, too.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{
		Input: pipeline.InputClient | pipeline.InputGreeting | pipeline.InputSender | pipeline.InputRecipients |
			pipeline.InputHeader | pipeline.InputBody,
		Waits: true, AnyClient: true,
	}
}

// Check asks rspamd about the mail.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	if size := v.Message.Size(); size > s.config.MaxSize {
		return pipeline.Result{Fact: Fact{}, Missing: unknown(fmt.Errorf("the mail has %d octets, and max_size is %d",
			size, s.config.MaxSize))}, nil
	}
	raw, err := s.client.check(ctx, v)
	if err != nil {
		return pipeline.Result{}, err
	}
	fact, missing := raw.fact(s.config.MaxSymbols)
	return pipeline.Result{Fact: fact, Missing: missing}, nil
}

// unknown says of all that rspamd would have told why it is not known.
func unknown(why error) map[string]error {
	missing := map[string]error{}
	for _, field := range []string{"skipped", "score", "required", "action", "symbols", "text", "subject", "message_id", "time"} {
		missing[field] = why
	}
	return missing
}

// Package milter runs somebody else's milter inside our chain: it speaks the MTA's side of the milter protocol, version
// 6 and those before it down to 2, and offers what the milter says as a fact, or as our own word.
//
// A milter is told of a mail when all of it is here: client, greeting, envelope, header and body in one conversation,
// on a connection of its own, so that nothing a milter remembers of one client can be taken for another's.
package milter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/pipeline"
	"sluice/scanners/breaker"
	"sluice/scanners/peer"
)

// Kind is the kind of stage the configuration calls milter. A mail that the milter does not answer about passes: what it
// says is by default a fact for rules, which see that it is unknown. Where `act` lets it decide, `on_error: postpone`
// is what an MTA does (milter_default_action = tempfail).
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "milter",
		Doc: "Asks another milter (opendkim, rspamd, milter-greylist); its verdict and its changes are facts or, with `act`, ours. " +
			"It is skipped where the milter does not answer: it is one sign among several; with `act` write `on_error: postpone`.",
		OnError: pipeline.Skip,
		Config: func() any {
			return &Config{
				ConnectTimeout: 5 * time.Second, CommandTimeout: 10 * time.Second, ContentTimeout: 30 * time.Second,
				MaxSize: 50 << 20, MaxEdits: 100, AtOnce: 20, Breaker: breaker.DefaultConfig(),
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

// Config is the section of one milter step.
type Config struct {
	// Address is where the milter listens: unix:PATH or inet:HOST:PORT.
	Address string `yaml:"address" example:"unix:/run/opendkim/opendkim.sock"`
	// Act lists what of the milter's word is ours: verdict (reject, tempfail, discard and quarantine) and headers (the
	// fields that it adds, changes and deletes; a field that it changes moves to the top). Without it they are facts only.
	// Never carried out are recipients refused alone, deleted or added, another sender and another body; the fact's
	// not_done names them, and the log once.
	Act []string `yaml:"act" example:"[verdict, headers]"`
	// Macros are values that the milter gets at connect, besides or instead of ours, by their names without braces.
	Macros map[string]string `yaml:"macros" example:"{daemon_name: incoming}"`
	// ConnectTimeout is how long connecting may take.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// CommandTimeout is how long the milter may take to answer one event. When it says that it needs more time, this begins
	// anew; the step's `timeout` bounds the whole conversation.
	CommandTimeout time.Duration `yaml:"command_timeout"`
	// ContentTimeout is the same for its answer to the end of the message.
	ContentTimeout time.Duration `yaml:"content_timeout"`
	// MaxSize is how many octets a mail may have; the milter is not asked about larger ones, and its answer is unknown
	// then.
	MaxSize int64 `yaml:"max_size"`
	// MaxEdits is how many changes the milter may make to one mail. More are an error.
	MaxEdits int `yaml:"max_edits"`
	// AtOnce is how many mails it is asked about at a time; more of them wait.
	AtOnce int `yaml:"at_once"`
	// Breaker says when the milter counts as dead and is not asked for a while.
	Breaker breaker.Config `yaml:"breaker"`
}

type stage struct {
	config           Config
	name, hostname   string
	log              *slog.Logger
	peer             *peer.Peer
	verdict, headers bool // act

	mu     sync.Mutex
	warned map[string]bool // about what is not carried out
}

func newStage(c Config, env pipeline.Env) (*stage, error) {
	var wrong []error
	for _, a := range c.Act {
		if a != "verdict" && a != "headers" {
			wrong = append(wrong, fmt.Errorf("act: there is no %q; there are verdict and headers", a))
		}
	}
	for name := range c.Macros {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '{' || r == '}' }) {
			wrong = append(wrong, fmt.Errorf("macros: %q is no name of a macro; it stands without braces", name))
		}
	}
	if c.CommandTimeout <= 0 || c.ContentTimeout <= 0 || c.MaxSize <= 0 || c.MaxEdits <= 0 {
		wrong = append(wrong, errors.New("command_timeout, content_timeout, max_size and max_edits are more than 0"))
	}
	p, err := peer.New(peer.Config{
		Name: env.Name, Address: c.Address, AtOnce: c.AtOnce, Connect: c.ConnectTimeout, Breaker: c.Breaker,
	}, env)
	if err != nil {
		wrong = append(wrong, err)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return &stage{
		config: c, name: env.Name, hostname: env.Hostname, log: env.Log, peer: p,
		verdict: slices.Contains(c.Act, "verdict"), headers: slices.Contains(c.Act, "headers"), warned: map[string]bool{},
	}, nil
}

// Reads implements pipeline.Stage. Mail whose client nobody knows can be scanned, too.
func (s *stage) Reads() pipeline.Reads {
	r := pipeline.Reads{
		Input: pipeline.InputClient | pipeline.InputGreeting | pipeline.InputSender | pipeline.InputRecipients |
			pipeline.InputHeader | pipeline.InputBody,
		Waits: true, AnyClient: true,
	}
	if s.verdict {
		r.Can = []pipeline.Final{{Action: pipeline.Discard}, {Action: pipeline.Quarantine}, {Action: pipeline.TempFail}, {Action: pipeline.Reject}}
	}
	return r
}

// Does implements pipeline.Doer.
func (s *stage) Does() []pipeline.Deed {
	if s.headers {
		return []pipeline.Deed{{Kind: pipeline.DoesEdit}}
	}
	return nil
}

// Check asks the milter about the mail.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	if size := v.Message.Size(); size > s.config.MaxSize {
		return pipeline.Result{Fact: Fact{}, Missing: unknown(fmt.Errorf("the mail has %d octets, and max_size is %d",
			size, s.config.MaxSize))}, nil
	}
	d := &dialogue{limits: s.config, hostname: s.hostname, view: v}
	err := s.peer.Ask(ctx, func(ctx context.Context) error {
		conn, err := s.peer.Connect(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		d.wire = newWire(conn, s.config.CommandTimeout)
		return d.run()
	})
	if err != nil {
		return pipeline.Result{}, err
	}
	d.admit()
	r := pipeline.Result{Fact: d.fact}
	if s.verdict {
		r.Verdict = d.fact.ours()
	}
	if s.headers {
		r.Edits = d.edit
	}
	s.warn(d.fact.NotDone)
	return r, nil
}

// ours is the milter's verdict as one of ours.
func (f *Fact) ours() pipeline.Verdict {
	reply := pipeline.Reply{Code: f.Code, Enhanced: f.Enhanced, Text: f.Text}
	if reply.Code == 421 {
		reply.Code = 451 // the connection with the client is not the milter's to close
	}
	switch f.Verdict {
	case refused:
		return pipeline.Verdict{Action: pipeline.Reject, Reply: reply, Reason: "the milter refuses at " + f.Event}
	case postponed:
		return pipeline.Verdict{Action: pipeline.TempFail, Reply: reply, Reason: "the milter postpones at " + f.Event}
	case discarded:
		return pipeline.Verdict{Action: pipeline.Discard, Reason: "the milter discards at " + f.Event}
	case quarantined:
		return pipeline.Verdict{Action: pipeline.Quarantine, Reason: pipeline.CleanText("the milter quarantines: " + f.QuarantineReason)}
	}
	return pipeline.Verdict{}
}

// warn says once of each thing that it is not carried out, where the milter is to act.
func (s *stage) warn(notDone []string) {
	if !s.verdict && !s.headers || s.log == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range notDone {
		if !s.warned[what] {
			s.warned[what] = true
			s.log.Warn("a milter wants what is not carried out; its fact says each time", "step", s.name, "not_done", what)
		}
	}
}

// unknown says of all that the milter would have told why it is not known.
func unknown(why error) map[string]error {
	missing := map[string]error{}
	for _, field := range []string{"verdict", "event", "code", "enhanced", "text", "quarantined", "quarantine_reason", "headers",
		"changed", "rcpts_refused", "rcpts_deleted", "rcpts_added", "sender_changed", "sender", "body_replaced", "body_size", "not_done"} {
		missing[field] = why
	}
	return missing
}

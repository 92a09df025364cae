// Package replies knows which mail answers what our users have sent.
package replies

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
)

// Kind is the kind of stage the configuration calls replies. Where what is known cannot be read mail goes on: an answer
// that is not recognised is mail like any other.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "replies",
		Doc: "Knows which mail answers what our users have sent, and who has been written to. It is skipped where what is known " +
			"cannot be read: an answer that is not recognised is mail like any other.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{Keep: 60 * 24 * time.Hour, References: 20} },
		Fact:    func(any) any { return Fact{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s := &stage{Config: *config.(*Config), state: env.State}
			return []pipeline.Stage{s}, s.check()
		},
	}
}

// Config is the section of a replies step.
type Config struct {
	// Keep is how long what a user has sent is remembered.
	Keep time.Duration `yaml:"keep"`
	// Trusted takes mail of trusted clients as sent by our users, not only that of logins: where users submit to a server
	// that hands everything on to us and nothing else comes from there.
	Trusted bool `yaml:"trusted"`
	// References is how many message ids of In-Reply-To and References are looked for, the latest first.
	References int `yaml:"references"`
}

// Fact is what rules see. A message id can be seen by others than the one who was written to, and a From field be forged:
// as a reason to let a mail pass each is worth what the authentication of its sender is.
type Fact struct {
	Reply   bool   `json:"reply" expr:"reply"`                     // it answers a mail that one of our users has sent
	Own     bool   `json:"own" expr:"own"`                         // this recipient has
	To      string `json:"to" expr:"to" example:"abc@example.org"` // the message id that it answers
	Written bool   `json:"written" expr:"written"`                 // this recipient has lately written to the address in From
	Sent    bool   `json:"sent" expr:"sent"`                       // it is itself sent by one of our users, and remembered
}

type stage struct {
	Config
	state pipeline.State
}

func (s *stage) check() error {
	var wrong []error
	if s.Keep <= 0 {
		wrong = append(wrong, fmt.Errorf("keep: %s is no time to remember anything for", s.Keep))
	}
	if s.References < 1 || s.References > 1000 {
		wrong = append(wrong, fmt.Errorf("references: %d is not from 1 to 1000", s.References))
	}
	return errors.Join(wrong...)
}

// Reads implements pipeline.Stage. Mail of an unknown client can be an answer too.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{
		Input:     pipeline.InputClient | pipeline.InputSender | pipeline.InputRecipient | pipeline.InputHeader,
		AnyClient: true, Waits: true,
	}
}

// Check looks for what the mail answers. What our users send is remembered once it has been taken.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	if v.Client.Login != "" || s.Trusted && v.Client.Trusted {
		return s.sent(v), nil
	}
	var f Fact
	for _, id := range s.references(v) {
		author, ok, err := s.state.Load(ctx, key("id", id))
		if err != nil {
			return pipeline.Result{}, fmt.Errorf("look for what the mail answers: %w", err)
		}
		if !ok {
			continue
		}
		own := string(author) == digest(person(v.Rcpt.Address))
		if !f.Reply || own && !f.Own {
			f.Reply, f.Own, f.To = true, own, id
		}
		if own {
			break
		}
	}
	for _, from := range v.Message.From()[:min(len(v.Message.From()), 5)] {
		_, ok, err := s.state.Load(ctx, key("pair", person(v.Rcpt.Address), person(from)))
		if err != nil {
			return pipeline.Result{}, fmt.Errorf("look for who has been written to: %w", err)
		}
		f.Written = f.Written || ok
	}
	return pipeline.Result{Fact: f}, nil
}

// sent remembers a mail of ours, and to whom it goes.
func (s *stage) sent(v pipeline.View) pipeline.Result {
	author := v.Sender
	if from := v.Message.From(); len(from) > 0 && from[0].Domain != "" {
		author = from[0]
	}
	return pipeline.Result{Fact: Fact{Sent: true}, After: func(ctx context.Context, o pipeline.Outcome) {
		if !o.Taken || o.Verdict.Action > pipeline.Keep {
			return
		}
		// What cannot be remembered makes an answer to it mail like any other.
		if id := v.Message.MessageID(); id != "" {
			_ = s.state.Store(ctx, key("id", id), []byte(digest(person(author))), s.Keep)
		}
		if !author.IsZero() {
			_ = s.state.Store(ctx, key("pair", person(author), person(v.Rcpt.Address)), []byte{1}, s.Keep)
		}
	}}
}

// references are the different message ids that the mail names, the latest first (RFC 5322, 3.6.4).
func (s *stage) references(v pipeline.View) []string {
	var out []string
	for _, name := range []string{"In-Reply-To", "References"} {
		field, ok := v.Message.Header().First(name)
		if !ok {
			continue
		}
		words := strings.FieldsFunc(field.Value(), func(r rune) bool { return r == '<' || r == '>' || r == ' ' || r == '\t' || r == ',' })
		for i := len(words) - 1; i >= 0 && len(out) < s.References; i-- {
			if id := words[i]; strings.Contains(id, "@") && len(id) <= 998 && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}

// person is an address without its subaddress.
func person(a pipeline.Address) string { return cmp.Or(a.Local, a.Mailbox()) + "@" + a.Domain }

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// key names a value; what people wrote to whom is not kept in clear.
func key(kind string, parts ...string) string { return "replies/" + kind + "/" + digest(parts...) }

// Package authres writes an Authentication-Results field (RFC 8601) from what the steps before it have found, and
// removes fields that only pretend to be ours.
package authres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/pipeline"
)

const fieldName = "Authentication-Results"

// Kind is the kind of stage the configuration calls authres. It only computes, so it cannot fail to answer; if it does,
// mail goes on without the field.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "authres",
		Doc: "Adds an Authentication-Results field that says what the steps before it found, those of the kinds spf, dkim, " +
			"dmarc, arc and rdns, and removes fields that pretend to be ours.",
		OnError: pipeline.Skip,
		Pure:    true,
		Config:  func() any { return &Config{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s := &stage{name: config.(*Config).AuthservID}
			if s.name == "" {
				s.name = env.Hostname
			}
			odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"\();`, r) }
			if len(s.name) > mostName || strings.ContainsFunc(s.name, odd) {
				return nil, fmt.Errorf("authserv_id: %.300q is no name: write for example mx.example.org", s.name)
			}
			trial := slices.ContainsFunc(env.Before, func(b pipeline.Before) bool { return b.Name == env.Name && b.Shadow })
			for _, b := range env.Before {
				if b.Shadow && !trial {
					continue // what is only tried is told to nobody
				}
				if _, ok := b.Fact.(Teller); ok && b.Name != env.Name {
					s.steps = append(s.steps, step{b.Name, methods[b.Kind]})
				}
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// Config is the section of an authres step.
type Config struct {
	// AuthservID is the name under which the results are told, and by which fields that came with the mail are known as
	// forged. Where another program on this machine writes such fields before us, opendkim say, give us another name than
	// its. Default: hostname.
	AuthservID string `yaml:"authserv_id" example:"mx.example.org"`
}

// methods are what the kinds that come with Sluice tell of, for those that failed (RFC 8601, 2.7).
var methods = map[string]string{"spf": "spf", "dkim": "dkim", "dmarc": "dmarc", "arc": "arc", "rdns": "iprev"}

// A Teller is a fact that can tell its results: for each the method, the result, why, and properties by name and value
// ("header.d", "example.org"). An empty result is one that could not be found out.
type Teller interface {
	AuthResults(say func(method, result, reason string, properties ...string))
}

type stage struct {
	name  string
	steps []step
}

type step struct{ name, method string }

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	r := pipeline.Reads{Input: pipeline.InputClient | pipeline.InputHeader}
	for _, x := range s.steps {
		r.Facts = append(r.Facts, x.name)
	}
	return r
}

// Does implements pipeline.Doer.
func (s *stage) Does() []pipeline.Deed { return []pipeline.Deed{{Kind: pipeline.DoesEdit}} }

// Check writes the field. One that says the very same is there already where our own milter has been at work: it stays,
// and counts as ours.
func (s *stage) Check(_ context.Context, v pipeline.View) (pipeline.Result, error) {
	value := s.field(v)
	var r pipeline.Result
	n, there := 0, false
	for f := range v.Message.Header().All(fieldName) {
		n++
		switch got := f.Value(); {
		case !claims(got, s.name):
		case !there && slices.Equal(strings.Fields(got), strings.Fields(value)):
			there = true
		default:
			r.Edits = append(r.Edits, pipeline.Edit{Delete: true, Name: fieldName, Index: n})
		}
	}
	if !there {
		r.Edits = append(r.Edits, pipeline.Edit{Name: fieldName, Value: value})
	}
	return r, nil
}

// Whoever gets the mail sees the field: which server did not answer us, and how, is for the record alone.
const (
	temperror = "temperror"
	noAnswer  = "no answer"
)

// field is the value of the field (RFC 8601, 2.2). A step that failed is told as temperror, one that was not asked not
// at all.
func (s *stage) field(v pipeline.View) string {
	w := writer{name: s.name}
	if login := v.Client.Login; login != "" {
		w.say("auth", "pass", "", "smtp.auth", login) // RFC 8601, 2.7.4
	}
	for _, x := range s.steps {
		found := v.Facts.Of(x.name)
		fact, ok := found.Fact.(Teller)
		why := found.Unknown
		if ok {
			why = found.Missing["result"]
		}
		switch {
		case errors.Is(why, pipeline.ErrNotAsked):
		case !ok && x.method != "" && why != nil:
			w.say(x.method, temperror, noAnswer)
		case ok && why != nil:
			fact.AuthResults(func(method, _, _ string, properties ...string) {
				w.say(method, temperror, noAnswer, properties...)
			})
		case ok:
			fact.AuthResults(func(method, result, reason string, properties ...string) {
				if result == temperror {
					reason = noAnswer
				}
				w.say(method, result, reason, properties...)
			})
		}
	}
	return w.String()
}

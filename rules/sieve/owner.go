package sieve

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
)

// ownState is what an account has, as its scripts ask for it. What cannot be found out ends the question whether mail is to
// be filed: it is asked again when the sender comes again.
type ownState struct {
	*execution
	*Owned
}

// waiting stands for what has to be waited for where that may not be.
type waiting struct{ *Owned }

func (w waiting) Known(string) bool                            { return w.waits() }
func (w waiting) Has(string, string) bool                      { return w.waits() }
func (w waiting) Members(string) ([]string, bool)              { return nil, w.waits() }
func (w waiting) Run(context.Context, Program) ([]byte, error) { w.waits(); return nil, errWaits }

// folder is where a script wants a mail: INBOX is "".
func (o *ownState) folder(a Action) string {
	name := FolderOf(a, o)
	if strings.EqualFold(name, "INBOX") {
		return ""
	}
	return name
}

// key is where a mark is kept.
func (x *execution) key(mark string) string { return "sieve/" + x.view.Rcpt.Account + "/" + mark }

// Before reports whether a mark was left for the account within a time.
func (o *ownState) Before(key string, within time.Duration) bool {
	if o.env.State == nil || o.waits() {
		return false
	}
	left, ok, err := o.left(o.ctx, key)
	if err != nil {
		if o.err == nil {
			o.err = err
		}
		return false
	}
	if ok && o.env.Now().Sub(left) < within {
		return true
	}
	if !claims(key) || slices.Contains(o.claimed, key) {
		return false
	}
	if !o.pending.claim(o.key(key), o.view.ID) {
		return true // it is being answered
	}
	o.claimed = append(o.claimed, key)
	return false
}

// unclaim leaves replies to other mails, after what was done is remembered.
func (x *execution) unclaim() {
	for _, key := range x.claimed {
		x.pending.drop(x.key(key))
	}
	x.claimed = nil
}

// left is when a mark was left.
func (x *execution) left(ctx context.Context, key string) (at time.Time, ok bool, err error) {
	b, ok, err := x.env.State.Load(ctx, x.key(key))
	if err == nil && ok {
		err = at.UnmarshalText(b)
	}
	if err != nil {
		return at, false, fmt.Errorf("look up what was seen before: %w", err)
	}
	return at, ok, nil
}

// remember leaves the marks of what was done.
func (x *execution) remember(ctx context.Context, done *pipeline.Handling) {
	if done == nil || x.env.State == nil {
		return
	}
	now := x.env.Now()
	for _, m := range x.marks {
		if !m.Last {
			// The time runs from the first.
			if at, ok, err := x.left(ctx, m.Key); err == nil && ok && now.Sub(at) < m.Within {
				continue
			}
		}
		text, err := now.MarshalText()
		if err == nil {
			err = x.env.State.Store(ctx, x.key(m.Key), text, m.Within)
		}
		if err != nil && x.env.Log != nil {
			x.env.Log.Error("what a script has done is not remembered, and may be done again", "account", x.view.Rcpt.Account,
				"id", x.view.ID, "error", err)
		}
	}
}

// spam is what spamtest sees: RFC 5235, 2.1.
func (x *execution) spam() Score {
	var score float64
	c := x.config.Spamtest
	if c.Score != "" {
		n, ok := x.fact(c.Score).(float64)
		if !ok {
			return Score{}
		}
		score = n
	} else {
		known := false
		for _, name := range x.reads {
			known = known || x.view.Facts.Of(name).Unknown == nil
		}
		if !known && len(x.view.Hits) == 0 {
			return Score{}
		}
		score = pipeline.Score(x.view.Hits)
	}
	part := max(0, min(score/c.Full, 1))
	return Score{
		Known: true, Value: 1 + int(part*9), Percent: int(part * 100), Text: fmt.Sprintf("score %g, where %g is spam for sure", score, c.Full),
	}
}

// virus is what virustest sees: RFC 5235, 2.2.
func (x *execution) virus() Score {
	if x.config.Virustest == "" {
		return Score{}
	}
	var infected bool
	switch v := x.fact(x.config.Virustest).(type) {
	case bool:
		infected = v
	case string:
		infected = v != ""
	default:
		return Score{}
	}
	if infected {
		return Score{Known: true, Value: 5, Percent: 100, Text: x.config.Virustest}
	}
	return Score{Known: true, Value: 1, Text: "not " + x.config.Virustest}
}

// fact is a field of what a step has found, as JSON has it; nil where it is not known.
func (x *execution) fact(name string) any {
	step, field, _ := strings.Cut(name, ".")
	f := x.view.Facts.Of(step)
	if f.Fact == nil || f.Missing[field] != nil {
		return nil
	}
	return fields(f.Fact)[field]
}

// fields are the fields of a fact by name.
func fields(fact any) (all map[string]any) {
	b, err := json.Marshal(fact)
	if err != nil || json.Unmarshal(b, &all) != nil {
		return nil
	}
	return all
}

// hasField reports whether facts of this type have a field.
func hasField(fact any, name string) bool {
	t := reflect.TypeOf(fact)
	if t.Kind() != reflect.Struct {
		_, ok := fields(fact)[name]
		return ok
	}
	for i := range t.NumField() {
		if tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); tag == name {
			return true
		}
	}
	return false
}

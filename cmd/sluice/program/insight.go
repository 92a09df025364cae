package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/rules"
	"sluice/rules/replay"
)

// An insight is what can be worked out about a record by deciding again.
type insight struct {
	// With says what was decided with: "the mail", or "the recorded terms", and why not with the mail.
	With    string `json:"with"`
	WhyNot  string `json:"why_not,omitempty"`
	Unknown string `json:"unknown,omitempty"` // why nothing could be decided again; then the rest is empty
	// Differences are where the replay does not agree with the record: there should be none.
	Differences []replay.Difference `json:"differences"`
	Gaps        []string            `json:"gaps"`
	Near        []nearMiss          `json:"near_misses"`
	Without     []counterfactual    `json:"without"`

	again *pipeline.Record
}

// A nearMiss is a rule that was one term short.
type nearMiss struct {
	Recipient string          `json:"recipient,omitempty"`
	Step      string          `json:"step"`
	Rule      string          `json:"rule"`
	Term      string          `json:"term"`
	Place     string          `json:"place"`
	Came      string          `json:"came"`
	Score     float64         `json:"score,omitempty"`
	Action    pipeline.Action `json:"action,omitzero"`
	Shadow    bool            `json:"shadow,omitempty"`
}

// look decides a record again, with the mail if it can be found, and without each of those who had a say.
func (p *plans) look(ctx context.Context, r *pipeline.Record, files []found) (x insight) {
	x.Differences, x.Gaps, x.Near, x.Without = []replay.Difference{}, []string{}, []nearMiss{}, []counterfactual{}
	plan, err := p.of(ctx, r.Plan)
	if err != nil {
		x.Unknown = err.Error()
		return x
	}
	message, err := p.anywhere(ctx, r, files)
	x.With = "the mail"
	if err != nil {
		x.With, x.WhyNot = "the recorded terms", err.Error()
	}
	again, err := plan.Replay(ctx, r, pipeline.Replay{Message: message, EveryTerm: true})
	if err != nil {
		x.Unknown = err.Error()
		return x
	}
	x.again = again.Record
	x.Differences = append(x.Differences, replay.Differences(r, again.Record)...)
	x.Gaps = append(x.Gaps, again.Gaps...)
	for at, stage := range plan.Recorded(again.Record) {
		near, ok := at.Stage.(rules.NearMisser)
		if !ok {
			continue
		}
		rcpt := ""
		if at.Recipient != nil {
			rcpt = at.Recipient.Address.Raw
		}
		for _, n := range near.NearMisses(stage.Terms) {
			x.Near = append(x.Near, nearMiss{rcpt, at.Step, n.Rule, n.Term, n.Pos, n.Came, n.Score, n.Action, n.Shadow})
		}
	}
	for i := range r.Recipients {
		all, err := p.otherwise(ctx, plan, r, again.Record, i, message)
		if err != nil {
			x.Unknown = err.Error()
			return x
		}
		x.Without = append(x.Without, all...)
	}
	return x
}

// message finds the message of a record as it came: in a folder, in quarantine, or what one of our users has handed in, in
// the queue.
func (p *plans) message(ctx context.Context, r *pipeline.Record, files []found) (*mime.Message, error) {
	if r.Size == 0 {
		return nil, errors.New("no message came")
	}
	if r.Door == pipeline.Submission {
		return p.from(ctx, r, p.waiting)
	}
	why := errors.New("it was not kept: nobody got it")
	for _, f := range files {
		if f.Path == "" {
			why = errors.New(f.Gone)
			continue
		}
		m, err := original(f.Path, r, p.settings.Limits.MIME())
		if err == nil {
			return m, nil
		}
		why = err
	}
	for _, x := range r.Recipients {
		if x.Held == "" {
			continue
		}
		m, err := p.held(ctx, x.Held, r)
		if err == nil {
			return m, nil
		}
		why = err
	}
	return nil, why
}

// held is the message of a record from quarantine.
func (p *plans) held(ctx context.Context, id string, r *pipeline.Record) (m *mime.Message, err error) {
	q, err := openQuarantine(ctx, p.settings, slog.New(slog.DiscardHandler), p.program.now)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	_, content, err := q.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer content.Close() // it is only read
	text, err := io.ReadAll(content)
	if err != nil {
		return nil, fmt.Errorf("read held mail %s: %w", id, err)
	}
	came, ok := cameAs(crlf(text), r)
	if !ok {
		return nil, fmt.Errorf("held mail %s: %w", id, errChanged)
	}
	return mime.Parse(bytes.NewReader(came), int64(len(came)), p.settings.Limits.MIME())
}

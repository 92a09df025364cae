package rspamd

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// A reply is the part of rspamd's JSON that is read. Pointers are fields that it must have, or may lack.
type reply struct {
	Skipped   bool              `json:"is_skipped"`
	Score     *float64          `json:"score"`
	Required  *float64          `json:"required_score"`
	Action    *string           `json:"action"`
	Symbols   map[string]symbol `json:"symbols"`
	Messages  map[string]any    `json:"messages"`
	MessageID string            `json:"message-id"`
	Subject   string            `json:"subject"`
	Time      *float64          `json:"time_real"`
	Error     string            `json:"error"`
}

type symbol struct {
	Score   float64           `json:"score"`
	Options []json.RawMessage `json:"options"`
}

// parseReply reads a reply. One without a score or an action is none.
func parseReply(text []byte) (reply, error) {
	var r reply
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&r); err != nil {
		return reply{}, fmt.Errorf("read the reply: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return reply{}, errors.New("read the reply: something follows the JSON")
	}
	switch {
	case r.Error != "":
		return reply{}, fmt.Errorf("it says %q", clip(r.Error))
	case r.Score == nil:
		return reply{}, errors.New("the reply has no score")
	case r.Action == nil || *r.Action == "":
		return reply{}, errors.New("the reply has no action")
	}
	return r, nil
}

// fact is the reply as rules see it; what it does not say is missing.
func (r reply) fact(mostSymbols int) (Fact, map[string]error) {
	missing := map[string]error{}
	f := Fact{
		Scanned: true, Skipped: r.Skipped, Score: *r.Score, Action: clip(*r.Action),
		MessageID: clip(r.MessageID), Subject: clip(r.Subject),
	}
	if text, ok := r.Messages["smtp_message"].(string); ok {
		f.Text = clip(text)
	}
	if f.Required = math.NaN(); r.Required != nil {
		f.Required = *r.Required
	}
	if math.IsNaN(f.Required) {
		f.Required, missing["required"] = 0, errors.New("rspamd does not say from which score it refuses")
	}
	if r.Time == nil {
		missing["time"] = errors.New("rspamd does not say how long it took")
	} else {
		f.Time = *r.Time
	}
	if len(r.Symbols) > mostSymbols {
		missing["symbols"] = fmt.Errorf("the reply has %d symbols, and max_symbols is %d", len(r.Symbols), mostSymbols)
		return f, missing
	}
	for _, name := range slices.Sorted(maps.Keys(r.Symbols)) {
		f.Symbols = append(f.Symbols, Symbol{Name: clip(name), Score: r.Symbols[name].Score, Options: r.Symbols[name].options()})
	}
	slices.SortStableFunc(f.Symbols, func(a, b Symbol) int { return cmp.Compare(math.Abs(b.Score), math.Abs(a.Score)) })
	return f, missing
}

// options are what the symbol saw, at most 20: a mail with a thousand links has as many options.
func (s symbol) options() []string {
	const most = 20
	var out []string
	for _, raw := range s.Options[:min(len(s.Options), most)] {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw) // a number
		}
		out = append(out, clip(text))
	}
	return out
}

// clip bounds a text of rspamd's, much of which comes from the mail.
func clip(s string) string {
	const most = 200
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

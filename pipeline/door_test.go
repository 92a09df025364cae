package pipeline

import (
	"slices"
	"testing"
)

func TestSettle(t *testing.T) {
	no := func(text string) Verdict {
		return Verdict{Action: Reject, Reply: Reply{Code: 550, Enhanced: "5.7.1", Text: text}}
	}
	later := Verdict{Action: TempFail, Reply: Reply{Code: 451, Enhanced: "4.7.1", Text: "later"}}
	var (
		pass    = Verdict{}
		discard = Verdict{Action: Discard}
		hold    = Verdict{Action: Quarantine}
		keep    = Verdict{Action: Keep}
	)
	type D = []Disposition
	for _, tt := range []struct {
		name     string
		door     Door
		refuse   bool
		verdicts []Verdict
		reply    string
		want     D
	}{
		{"kept, discarded, held", SMTP, false, []Verdict{pass, keep, discard, hold}, "250 2.0.0 accepted", D{Delivered, Delivered, Dropped, Held}},
		{"all refused: the first refusal's text", SMTP, false, []Verdict{no("one"), no("two")}, "550 5.7.1 one", D{Refused, Refused}},
		{"some refused are held", SMTP, false, []Verdict{pass, no("x")}, "250 2.0.0 accepted", D{Delivered, Held}},
		{"refused and discarded", SMTP, false, []Verdict{discard, no("x")}, "250 2.0.0 accepted", D{Dropped, Held}},
		{"one postponed postpones all", SMTP, false, []Verdict{pass, no("x"), later, hold}, "451 4.7.1 later", D{Postponed, Postponed, Postponed, Postponed}},
		{"milter: the same", Milter, false, []Verdict{pass, no("x")}, "250 2.0.0 accepted", D{Delivered, Held}},
		{"milter: all refused", Milter, false, []Verdict{no("x")}, "550 5.7.1 x", D{Refused}},
		{"milter: postponed", Milter, false, []Verdict{pass, later}, "451 4.7.1 later", D{Postponed, Postponed}},
		{"lmtp: each its own, refusals are held", LMTP, false, []Verdict{pass, no("x"), later, discard}, "250 2.0.0 accepted", D{Delivered, Held, Postponed, Dropped}},
		{"lmtp: a peer that holds its client", LMTP, true, []Verdict{pass, no("x")}, "250 2.0.0 accepted", D{Delivered, Refused}},
		{"submission: kept and held", Submission, false, []Verdict{pass, keep, discard, hold}, "250 2.0.0 accepted", D{Queued, Queued, Dropped, Held}},
		{"submission: one refusal is for all", Submission, false, []Verdict{pass, hold, no("x"), no("y")}, "550 5.7.1 x", D{Refused, Refused, Refused, Refused}},
		{"submission: postponed", Submission, false, []Verdict{no("x"), later, pass}, "451 4.7.1 later", D{Postponed, Postponed, Postponed}},
		{"deliver: all refused", Deliver, false, []Verdict{no("x")}, "250 2.0.0 accepted", D{Held}},
	} {
		var decisions []Decision
		for _, v := range tt.verdicts {
			decisions = append(decisions, Decision{Verdict: v})
		}
		s := tt.door.Settle(decisions, tt.refuse)
		if s.Reply.String() != tt.reply || !slices.Equal(s.Dispositions, tt.want) {
			t.Errorf("%s: %q %v; want %q %v", tt.name, s.Reply, s.Dispositions, tt.reply, tt.want)
		}
		for i, d := range s.Dispositions {
			if took := d == Delivered || d == Held || d == Dropped || d == Queued; took != (s.Replies[i].Code == 250) {
				t.Errorf("%s: recipient %d is %s and told %q", tt.name, i, d, s.Replies[i])
			}
		}
	}
}

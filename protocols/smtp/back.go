package smtp

import (
	"context"
	"fmt"

	"sluice/pipeline"
)

// A Back says whose mail a report is about that comes to an address which we have put on mail that was handed on: the
// sender in the form of RFC 5321. ours is false for an ordinary address. An error says that the address is not one that
// we made, or made too long ago.
type Back func(ctx context.Context, to pipeline.Address) (sender string, ours bool, err error)

var (
	noReport  = pipeline.Reply{Code: 550, Enhanced: "5.1.1", Text: "this address is for reports about mail that we have handed on"}
	oneReport = pipeline.Reply{Code: 452, Enhanced: "4.5.3", Text: "one report at a time, please"}
)

// takeBack takes a recipient that is the sender of mail which was handed on. It goes on to who sent that mail first, and so
// nothing but a report is taken, or everybody could send by way of us. done is false for ordinary recipients.
func (s session) takeBack(ctx context.Context, r pipeline.Recipient) (done bool, err error) {
	if s.s.cfg.Back == nil {
		return false, nil
	}
	sender, ours, err := s.s.cfg.Back(ctx, r.Address)
	if !ours {
		return false, nil
	}
	t := s.tx
	no, why := pipeline.Reply{}, ""
	switch {
	case err != nil:
		no, why = noReport, err.Error()
	case !t.from.IsZero():
		no, why = noReport, fmt.Sprintf("would go to %s, but is no report: its sender is not null", sender)
	}
	if no.Code != 0 {
		s.refuse(r, no, why)
		return true, replyError(s.countUnknown(no))
	}
	for i, x := range t.taken {
		if _, back := t.back[i]; back && x.Address.String() == r.Address.String() {
			t.rcpts = append(t.rcpts, recipient{place: len(s.paths) - 1, accounts: []int{i}})
			return true, nil
		}
	}
	if len(t.back) > 0 {
		s.refuse(r, oneReport, "there is one already")
		return true, replyError(oneReport)
	}
	if no := s.take(r); no.Code != 0 {
		return true, replyError(no)
	}
	t.back = map[int]string{len(t.taken): sender}
	t.rcpts = append(t.rcpts, recipient{place: len(s.paths) - 1, accounts: []int{len(t.taken)}})
	t.taken = append(t.taken, r)
	return true, nil
}

// sendBack has reports go on to who sent the mail that they are about. Nobody here gets a copy.
func (t *transaction) sendBack(decisions []pipeline.Decision) {
	for i, sender := range t.back {
		if d := &decisions[i]; d.Verdict.Action <= pipeline.Keep {
			d.Handling = &pipeline.Handling{Leaving: []pipeline.Leaving{{Kind: pipeline.Return, To: []string{sender}}}}
		}
	}
}

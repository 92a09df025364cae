package milter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	gomilter "github.com/emersion/go-milter"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// internalError is what the MTA is told where something of ours failed: the mail stays with the sender.
func internalError() *pipeline.Reply {
	return &pipeline.Reply{Code: 451, Enhanced: "4.3.0", Text: "internal error, please try again later"}
}

// Body implements gomilter.Milter: the message is complete. When the answer is written, what it promises is kept: the
// record can be found, and what is held is on disk. The MTA may hand the mail on a moment later.
func (c *conn) Body(*gomilter.Modifier) (gomilter.Response, error) {
	return c.guard("end of message", func() gomilter.Response {
		if stop := c.begun(); stop != nil {
			return stop
		}
		c.noteQueueID(gomilter.CodeEOB)
		if r := c.endHeader(); c.answer != nil {
			return r
		}
		if len(c.tx.rcpts) == 0 {
			return c.refuse(pipeline.Reply{Code: 503, Enhanced: "5.5.1", Text: "no recipients"}, "no recipients")
		}
		r := c.finish()
		c.endTransaction() // an answer that refuses stays until the MTA ends the message: c.answer
		return r
	}), nil
}

// finish decides about the message, carries out what was decided, and returns the answer.
func (c *conn) finish() gomilter.Response {
	msg, err := mime.Parse(c.tx.spool, c.tx.spool.Size(), mime.Limits{
		HeaderSize:   int(c.server.cfg.Limits.HeaderSize),
		HeaderFields: c.server.cfg.Limits.HeaderFields,
	})
	var limit *mime.LimitError
	switch {
	case errors.As(err, &limit):
		return c.refuse(pipeline.Reply{Code: 552, Enhanced: "5.3.4", Text: limit.Error()}, limit.Error())
	case err != nil:
		return c.refuse(*internalError(), "read the message: "+err.Error())
	}
	if r, mark := c.decidedBefore(msg); r != nil {
		return c.pass(msg, r, mark)
	}
	verdicts, err := c.decide(msg)
	if err != nil {
		return c.refuse(pipeline.Reply{Code: 451, Enhanced: "4.3.2", Text: "shutting down, please try again later"}, err.Error())
	}
	return c.settle(msg, verdicts)
}

// decidedBefore returns the record of a message that a trusted client brings back with our genuine mark, if that record
// lets it go to every recipient, and the value of the mark: one released from quarantine, which must not be held again.
// nil is any other message.
func (c *conn) decidedBefore(msg *mime.Message) (*pipeline.Record, string) {
	recall := c.server.cfg.Recall
	if recall == nil || !c.client.Trusted {
		return nil, ""
	}
	for f := range msg.Header().All(pipeline.IDField) {
		id, genuine := c.server.cfg.Handover.Verify(f.Value(), msg)
		if !genuine {
			continue
		}
		r, err := recall(c.ctx, id)
		if err != nil {
			c.log.Error("recall a decision", "id", id, "err", err)
			return nil, ""
		}
		if r != nil && !slices.ContainsFunc(c.tx.rcpts, func(x rcpt) bool { return x.refused != nil || !r.Lets(x.recipient) }) {
			return r, f.Value()
		}
	}
	return nil, ""
}

// pass lets a message through that was decided before. The record says that it came by. Of the fields that only we write
// the mark stays, once; what others say may have been put beside it.
func (c *conn) pass(msg *mime.Message, r *pipeline.Record, mark string) gomilter.Response {
	c.sess.Forget()
	again := c.server.cfg.Plan().Resume(pipeline.Milter, r)
	defer again.Close()
	for _, x := range c.tx.rcpts {
		again.Rcpt(c.ctx, x.recipient)
	}
	again.Data(c.ctx)
	decisions := again.Content(c.ctx, msg)
	deliveries := make([]pipeline.Delivery, len(decisions))
	for i := range deliveries {
		deliveries[i].Disposition = pipeline.Delivered
	}
	ctx, cancel := c.keepGoing()
	defer cancel()
	reply := pipeline.Reply{Code: 250, Enhanced: "2.0.0", Text: "decided before"}
	if err := again.Done(ctx, reply, deliveries); err != nil {
		c.log.Error("record a decision", "id", r.ID, "err", err)
		c.answer = internalError()
		return c.respond(c.answer)
	}
	remove, _ := plan(msg.Header(), nil)
	last := slices.IndexFunc(remove, func(e pipeline.Edit) bool { return e.Value == mark && isMark(e.Name) })
	return c.change(slices.Delete(remove, last, last+1), nil, nil)
}

func isMark(name string) bool { return strings.EqualFold(name, pipeline.IDField) }

// decide returns a decision for each of tx.rcpts, in their order.
func (c *conn) decide(msg *mime.Message) ([]pipeline.Decision, error) {
	var asked []pipeline.Decision
	if taken := c.taken(); taken > 0 {
		stop := c.reassure()
		c.sess.SetSHA256(c.tx.spool.SHA256())
		asked = c.sess.Content(c.ctx, msg)
		stop()
		if c.ctx.Err() != nil {
			return nil, errors.New("the server is shutting down")
		}
		if len(asked) != taken {
			panic(fmt.Sprintf("%d decisions about %d recipients", len(asked), taken))
		}
	}
	all := make([]pipeline.Decision, len(c.tx.rcpts))
	for i, r := range c.tx.rcpts {
		if r.refused == nil {
			all[i], asked = asked[0], asked[1:]
			continue
		}
		action := pipeline.TempFail
		if r.refused.Permanent() {
			action = pipeline.Reject
		}
		all[i] = pipeline.Decision{Recipient: r.recipient, Verdict: pipeline.Verdict{Action: action, Reply: *r.refused}}
	}
	return all, nil
}

// reassure tells the MTA from time to time that it shall go on waiting, until stop is called.
func (c *conn) reassure() (stop func()) {
	var mu sync.Mutex
	stopped, every := false, c.server.cfg.Limits.Progress
	mu.Lock() // until t is set
	defer mu.Unlock()
	var t *time.Timer
	t = time.AfterFunc(every, func() {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			c.wire.sendProgress()
			t.Reset(every)
		}
	})
	return func() {
		mu.Lock() // what is being written is written before the answer
		defer mu.Unlock()
		stopped = true
		t.Stop()
	}
}

// settle carries out the decisions: what is held is on disk and the record findable before the MTA is told anything.
func (c *conn) settle(msg *mime.Message, decisions []pipeline.Decision) gomilter.Response {
	s := pipeline.Milter.Settle(decisions, false)
	mark := edits(c.server.cfg.Handover.Value(c.tx.id, msg), c.delivered(decisions, s))
	ctx, cancel := c.keepGoing()
	defer cancel()
	var held map[int]string
	if s.Reply.Code < 400 {
		var err error
		if held, err = c.hold(ctx, msg, mark, decisions, s); err != nil {
			return c.refuse(*internalError(), "quarantine: "+err.Error())
		}
	}
	if c.taken() == 0 {
		c.sess.Reset("every recipient was refused")
	} else if err := c.sess.Done(ctx, s.Reply, c.deliveries(s, held)); err != nil {
		c.log.Error("record a decision", "id", c.tx.id, "err", err)
		c.answer = internalError()
		return c.respond(c.answer)
	}
	if s.Reply.Code >= 400 {
		c.answer = &s.Reply
		return c.respond(&s.Reply)
	}
	return c.accept(msg, mark, s)
}

// deliveries says for each decision of the session what becomes of it.
func (c *conn) deliveries(s pipeline.Settlement, held map[int]string) []pipeline.Delivery {
	var out []pipeline.Delivery
	for i, r := range c.tx.rcpts {
		if r.refused == nil {
			out = append(out, pipeline.Delivery{Disposition: s.Dispositions[i], Reply: s.Replies[i], Held: held[i]})
		}
	}
	return out
}

// delivered returns the decisions about those who get the mail.
func (c *conn) delivered(decisions []pipeline.Decision, s pipeline.Settlement) []pipeline.Decision {
	var out []pipeline.Decision
	for i, d := range decisions {
		if s.Dispositions[i] == pipeline.Delivered {
			out = append(out, d)
		}
	}
	return out
}

// edits returns what is done to the one copy that all of these recipients get: the hand-over field first. With several
// recipients it is what is the same for all of them; what holds for one alone would tell the others. Where our own LMTP
// stands behind the MTA it does what was decided for each.
func edits(handover string, to []pipeline.Decision) []pipeline.Edit {
	out := []pipeline.Edit{{Name: pipeline.IDField, Value: handover}}
	for i, d := range to {
		own := append(d.Fields(pipeline.Milter), d.Edits...)
		own = slices.DeleteFunc(own, func(e pipeline.Edit) bool { return e.Shadow })
		for n := range own {
			own[n].At = 0 // where in the plan it was said does not make it another edit
		}
		if i == 0 {
			out = append(out, own...)
			continue
		}
		out = slices.DeleteFunc(out, func(e pipeline.Edit) bool {
			return e.Name != pipeline.IDField && !slices.Contains(own, e)
		})
	}
	return out
}

// accept answers for a message that some recipients get, or none.
func (c *conn) accept(msg *mime.Message, mark []pipeline.Edit, s pipeline.Settlement) gomilter.Response {
	if !slices.Contains(s.Dispositions, pipeline.Delivered) {
		return gomilter.RespDiscard
	}
	remove, add := plan(msg.Header(), mark)
	var without []string
	for i, r := range c.tx.rcpts {
		if s.Dispositions[i] != pipeline.Delivered && !slices.Contains(without, r.raw) {
			without = append(without, r.raw)
		}
	}
	return c.change(remove, add, without)
}

// change tells the MTA what to change and that it may have the mail.
func (c *conn) change(remove, add []pipeline.Edit, without []string) gomilter.Response {
	for _, d := range remove {
		c.wire.removeField(d.Name, d.Index)
	}
	for _, a := range slices.Backward(add) { // the last one inserted is on top
		c.wire.insertField(a.Name, oneLine(a.Value))
	}
	for _, r := range without {
		c.wire.removeRecipient(r)
	}
	return gomilter.RespAccept
}

// plan works out which fields to remove from a header, by name and place among those of the name, and which to add. The
// last place of a name comes first, so that no removal changes the place of another.
func plan(h mime.Header, mark []pipeline.Edit) (remove, add []pipeline.Edit) {
	for _, e := range mark {
		if !e.Delete {
			add = append(add, e)
			continue
		}
		if e.Index == 0 {
			add = slices.DeleteFunc(add, func(a pipeline.Edit) bool { return strings.EqualFold(a.Name, e.Name) })
		}
	}
	places := map[string]int{}
	for _, f := range h.Fields() {
		name := strings.ToLower(f.Name)
		places[name]++
		if pipeline.Ours(name) || slices.ContainsFunc(mark, func(e pipeline.Edit) bool {
			return e.Delete && strings.EqualFold(e.Name, name) && (e.Index == 0 || e.Index == places[name])
		}) {
			remove = append(remove, pipeline.Edit{Delete: true, Name: f.Name, Index: places[name], Value: f.Value()})
		}
	}
	slices.Reverse(remove)
	return remove, add
}

package sieve

import (
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// Two mails of one sender at the same time get one reply. If the one that would have had it is not taken after all, the next
// one has it.
func TestOneReplyAtATime(t *testing.T) {
	env := pipelinetest.Env(t)
	env.Owners = &owners{scripts: map[string]string{me: `require "vacation"; vacation "away";`}}
	s, err := newStage(DefaultConfig(), env)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(id, sender string) pipeline.Result {
		t.Helper()
		v := pipeline.View{Message: pipelinetest.Parse(t, hello)}
		v.ID, v.Received, v.Sender = id, env.Now(), pipelinetest.Address(t, sender)
		v.Rcpt.Account, v.Rcpt.Address = me, pipelinetest.Address(t, me)
		r, err := s.Check(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	end := func(r pipeline.Result, taken bool) {
		if r.After != nil {
			r.After(t.Context(), pipeline.Outcome{Counted: true, Taken: taken, Handling: r.Handling})
		}
	}
	replies := func(what string, r pipeline.Result, want int) {
		t.Helper()
		if got := len(r.Handling.Leaving); got != want {
			t.Errorf("%s: %d replies, want %d", what, got, want)
		}
	}
	first, alias := ask("t1", "a@client.example"), ask("t1", "a@client.example")
	second := ask("t2", "a@client.example")
	other := ask("t3", "b@client.example")
	replies("the first", first, 1)
	replies("the first, for another address of the owner", alias, 1)
	replies("another one meanwhile", second, 0)
	replies("of somebody else", other, 1)
	end(second, true)
	end(first, false)
	replies("while the first is under way for the other address", ask("t4", "a@client.example"), 0)
	end(alias, false)
	fifth := ask("t5", "a@client.example")
	replies("after the first was not taken", fifth, 1)
	end(fifth, true)
	replies("after a reply", ask("t6", "a@client.example"), 0)
	end(other, true)
	if len(s.pending.by) != 0 {
		t.Errorf("claims are left: %v", s.pending.by)
	}
}

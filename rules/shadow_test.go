package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// shadowsAmong puts shadow rules among those of a rule file.
func shadowsAmong(r *rand.Rand, text string) string {
	head, body, _ := strings.Cut(text, "  - name: ")
	items := strings.Split(body, "  - name: ")
	live := len(items)
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	for i := range 1 + r.IntN(4) {
		terms := []string{
			`subject contains "a"`, `has("X-One")`, "list.bad", "scan.bad", "person.bad", `rcpt.local == "anna"`, "size > 80", "true",
			"tried.bad", `tried.word == "spam"`, "late.bad", fmt.Sprintf(`hit("r%d")`, r.IntN(live)),
		}
		if i > 0 {
			terms = append(terms, fmt.Sprintf(`hit("s%d")`, r.IntN(i)))
		}
		// In a group with those that count, in one of its own, or in none.
		shadow := pick("shadow: true", "shadow: true\n    group: both", "group: trial")
		item := fmt.Sprintf("s%d\n    when: '%s'\n    %s\n    score: %d\n", i, pick(terms...)+pick(" and ", " or ")+pick(terms...), shadow, r.IntN(40)-10)
		item += pick("    reject: true\n", "    tempfail: true\n", "    discard: true\n", "    quarantine: true\n", "    keep: true\n",
			"    file: Shadow\n", "    flag: shadow\n", "    header: {X-Shadow: shadow}\n", "")
		items = slices.Insert(items, r.IntN(len(items)+1), item)
	}
	return head + "  - name: " + strings.Join(items, "  - name: ")
}

// misbehaves is a shadow step that does something at random, always the same for one seed.
func misbehaves(r *rand.Rand, name string, before []string, end <-chan struct{}) pipeline.Step {
	refuse := pipeline.OnError(r.IntN(3))
	what, wait := r.IntN(7), time.Duration(r.IntN(120))*time.Second
	says := func(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
		loud := pipeline.Result{
			Fact: againFact{Bad: true, Word: "spam"}, Verdict: pipeline.Verdict{At: -7, Action: pipeline.Action(1 + what%5), By: "shadow"},
			Hits:    []pipeline.Hit{{At: 99, Name: "shadow", Score: math.MaxFloat64}, {Name: "shadow\r\nX-Shadow: shadow"}},
			Effects: []pipeline.Effect{{Kind: pipeline.FileInto, Folder: "../Shadow"}, {Kind: pipeline.AddFlags, Flags: []string{"shadow"}}, {Kind: "shadow"}},
			Edits:   []pipeline.Edit{{Name: "X-Shadow", Value: "shadow"}, {Delete: true, Name: "Subject"}},
			Missing: map[string]error{"nothing": errors.New("of the sort")},
			Terms:   []byte{0xff},
		}
		switch what {
		case 0:
			panic("shadow")
		case 1:
			<-ctx.Done()
			return loud, ctx.Err()
		case 2:
			<-end // deaf
		case 3:
			time.Sleep(wait)
		case 4:
			return loud, errors.New("shadow")
		case 5:
			return pipeline.Result{Fact: make(chan int)}, nil // cannot be written down, and is of another type
		}
		return loud, nil
	}
	input := []pipeline.Input{0, pipeline.InputClient, pipeline.InputGreeting, pipeline.InputSender, pipeline.InputRecipient, pipeline.InputRecipients,
		pipeline.InputHeader, pipeline.InputBody, pipeline.InputRecipient | pipeline.InputBody}[r.IntN(9)]
	reads := pipeline.Reads{Input: input, Waits: r.IntN(2) == 0, Facts: before[:r.IntN(len(before)+1)]}
	for at := range r.IntN(3) {
		reads.Can = append(reads.Can, pipeline.Final{At: at, Action: pipeline.Action(1 + r.IntN(5))})
	}
	return pipeline.Step{Name: name, Shadow: true, OnError: &refuse, Kind: pipeline.Kind{
		Name: name, Fact: func(any) any { return againFact{} }, Config: func() any { return &struct{}{} },
		New: func(any, pipeline.Env) ([]pipeline.Stage, error) {
			return []pipeline.Stage{pipelinetest.Stage{Looks: reads, Says: says}}, nil
		},
	}}
}

// A conversed is all that anybody outside sees of mails, when they see it, and the live part of their records.
type conversed struct {
	seen, records []string
	took          time.Duration
}

// converse takes mails through a plan of the rules of text. With shadows there are shadow steps among the others, and shadow
// rules among the rules.
func converse(t *testing.T, seed uint64, shadows, background bool) (out conversed, said int) {
	r := rand.New(rand.NewPCG(seed, 3))
	trying := rand.New(rand.NewPCG(seed, 4))
	end := make(chan struct{})
	scanner := func(name string, input pipeline.Input) pipeline.Step {
		waits, delay, failing := r.IntN(2) == 0, time.Duration(1+r.IntN(3))*time.Second, r.IntN(5)
		return pipeline.Step{Name: name, Kind: pipeline.Kind{
			Name: name, Fact: func(any) any { return againFact{} }, Config: func() any { return &struct{}{} },
			New: func(any, pipeline.Env) ([]pipeline.Stage, error) {
				return []pipeline.Stage{pipelinetest.Stage{
					Looks: pipeline.Reads{Input: input, Waits: waits},
					Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
						if waits {
							time.Sleep(delay)
						}
						if failing == 0 {
							return pipeline.Result{}, errors.New("down")
						}
						return pipeline.Result{Fact: againFact{Bad: failing%2 == 0, Word: []string{"spam", "ham"}[len(v.Rcpt.Address.Local)%2]}}, nil
					},
				}}, nil
			},
		}}
	}
	c := DefaultConfig()
	if r.IntN(2) == 0 {
		c.Reject, c.Junk = 9, 4
	}
	groups := regexp.MustCompile(`(?m)^    score: `)
	text := "groups: {both: {max: 3}, trial: {max: 2, shadow: true}}\n" + groups.ReplaceAllStringFunc(someRulesAtRandom(seed, -1), func(s string) string {
		return []string{"    group: both\n", ""}[r.IntN(2)] + s
	})
	tried := []pipeline.Step{misbehaves(trying, "tried", nil, end), misbehaves(trying, "late", []string{"tried"}, end), misbehaves(trying, "third", []string{"tried", "late", "rules"}, end)}
	if shadows {
		text = shadowsAmong(trying, text)
	}
	steps := []pipeline.Step{
		scanner("list", pipeline.InputClient|pipeline.InputSender), scanner("person", pipeline.InputRecipient), scanner("scan", pipeline.InputBody),
		{Kind: Kind(), Config: &c},
	}
	if shadows {
		steps = slices.Insert(steps, trying.IntN(4), tried[0], tried[1])
		whole := DefaultConfig()
		whole.Files, whole.Reject = []string{"whole.yaml"}, 1
		steps = append(steps, tried[2], pipeline.Step{Name: "whole", Kind: Kind(), Config: &whole, Shadow: true})
	}
	j, trials := &pipelinetest.Journal{}, new(pipeline.Trials)
	e := pipelinetest.Env(t)
	e.Journal, e.Log = j, slog.New(slog.DiscardHandler)
	if background {
		e.Trials = trials
	}
	c.Files = []string{"r.yaml"}
	if shadows {
		c.Files = append(c.Files, "file.yaml")
	}
	file := "shadow: true\nrules:\n  - {name: file_a, when: 'hit(\"r0\") or true', score: 50, reject: true, header: {X-Shadow: shadow}}\n" +
		"  - {name: file_b, when: 'hit(\"file_a\") and score > -99', file: Shadow, flag: shadow, group: both}\n"
	e.Files = pipelinetest.Files{"file.yaml": file, "r.yaml": text, "whole.yaml": someRulesAtRandom(seed+1, -1)}.Open
	p, err := pipeline.NewPlan(steps, e, pipeline.Options{SpeakEarliest: r.IntN(3) == 0, Trials: pipeline.TrialLimits{AtOnce: 1 + trying.IntN(3), Waiting: 1 + trying.IntN(3)}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	see := func(what string, x any) {
		text, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		out.seen = append(out.seen, what+" "+string(text))
	}
	ctx := t.Context()
	door := []pipeline.Door{pipeline.SMTP, pipeline.LMTP, pipeline.Milter}[r.IntN(3)]
	s := p.NewSession(door, pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")})
	see("connect", s.Connect(ctx))
	see("helo", s.Helo(ctx, "client.example"))
	for range 3 {
		id, reply := s.Mail(ctx, pipelinetest.Address(t, fmt.Sprintf("s%d@example.com", r.IntN(30))))
		see("mail "+id, reply)
		for _, to := range []string{"anna@example.org", "bert@example.net", "carl@example.com"}[r.IntN(3):] {
			see("rcpt", s.Rcpt(ctx, pipeline.Recipient{Address: pipelinetest.Address(t, to)}))
		}
		if r.IntN(6) == 0 {
			s.Reset("gone")
			continue
		}
		see("data", s.Data(ctx))
		m := fmt.Sprintf("From: x@example.com\nSubject: %s%d\n%s\nhello\n", []string{"a", "b", "ab", "c"}[r.IntN(4)], r.IntN(20),
			[]string{"", "X-One: 1\n", "X-One: 2\n"}[r.IntN(3)])
		decisions := s.Content(ctx, pipelinetest.Parse(t, m))
		settled := door.Settle(decisions, false)
		var deliveries []pipeline.Delivery
		for i, d := range decisions {
			see("fields", d.Fields(door))
			deliveries = append(deliveries, pipeline.Delivery{Disposition: settled.Dispositions[i], Reply: settled.Replies[i]})
			d.Verdict.At = 0
			for k := range d.Edits {
				d.Edits[k].At = 0
			}
			for k := range d.Hits {
				d.Hits[k].At = 0
			}
			see("decision", d)
		}
		see("settled", settled)
		if err := s.Done(ctx, settled.Reply, deliveries); err != nil {
			t.Fatal(err)
		}
		s.SetClient(pipeline.Client{Addr: netip.MustParseAddr("192.0.2.2")})
	}
	s.Close()
	out.took = time.Since(began)
	time.Sleep(time.Hour)
	trials.Shutdown(ctx)
	close(end)
	synctest.Wait()
	for _, x := range j.Records() {
		if x.Completes {
			said++
			continue
		}
		text, err := json.MarshalIndent(livePart(*x), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		out.records = append(out.records, string(text))
	}
	for _, x := range out.seen {
		if strings.Contains(strings.ToLower(x), "shadow") && !strings.Contains(x, `"Shadow":false`) {
			t.Errorf("seed %d: %s", seed, x)
		}
	}
	return out, said
}

// livePart is a record without what shadow steps and rules said, and without places, which they move.
func livePart(r pipeline.Record) pipeline.Record {
	steps := func(all []pipeline.StepRecord) []pipeline.StepRecord {
		var out []pipeline.StepRecord
		for _, s := range all {
			if s.Shadow {
				continue
			}
			s.At = 0
			s.Hits = slices.DeleteFunc(slices.Clone(s.Hits), func(h pipeline.Hit) bool { return h.Shadow })
			for i := range s.Hits {
				s.Hits[i].At = 0
			}
			s.Undecided = slices.DeleteFunc(slices.Clone(s.Undecided), func(u pipeline.Undecided) bool { return u.Shadow })
			for i := range s.Undecided {
				s.Undecided[i].At = 0
			}
			s.Stages = slices.DeleteFunc(slices.Clone(s.Stages), func(x pipeline.StageRecord) bool { return x.Shadow })
			for i := range s.Stages {
				x := &s.Stages[i]
				if x.Verdict != nil {
					v := *x.Verdict
					v.At, x.Verdict = 0, &v
				}
				x.Effects, x.Edits = slices.Clone(x.Effects), slices.Clone(x.Edits)
				for k := range x.Effects {
					x.Effects[k].At = 0
				}
				for k := range x.Edits {
					x.Edits[k].At = 0
				}
			}
			if len(s.Stages) > 0 {
				out = append(out, s)
			}
		}
		return out
	}
	r.Plan, r.Timings = "", nil
	r.Steps = steps(r.Steps)
	r.Recipients = slices.Clone(r.Recipients)
	for i := range r.Recipients {
		r.Recipients[i].Verdict.At = 0
		r.Recipients[i].Steps = steps(r.Recipients[i].Steps)
	}
	return r
}

// Replies, decisions, fields and the live part of records are the same with shadow steps and shadow rules as without, and
// come at the same moment, whatever the shadows do: crash, hang, take their time or talk nonsense.
func TestShadowsChangeNothing(t *testing.T) {
	said, refused := 0, 0
	for seed := range uint64(150) {
		for _, background := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				without, _ := converse(t, seed, false, background)
				with, n := converse(t, seed, true, background)
				said += n
				if !slices.Equal(with.seen, without.seen) {
					t.Fatalf("seed %d:\nwith shadows    %s\nwithout shadows %s", seed, strings.Join(with.seen, "\n"), strings.Join(without.seen, "\n"))
				}
				if !slices.Equal(with.records, without.records) {
					t.Fatalf("seed %d: records\nwith shadows    %s\nwithout shadows %s", seed, strings.Join(with.records, "\n"), strings.Join(without.records, "\n"))
				}
				if background && with.took != without.took {
					t.Errorf("seed %d: it took %s, and %s without shadows", seed, with.took, without.took)
				}
				refused += strings.Count(strings.Join(with.seen, "\n"), `"code":5`)
			})
		}
	}
	t.Logf("%d records completed, %d refusals", said, refused)
	if said < 300 || refused < 200 {
		t.Errorf("%d records completed, %d refusals: the test looks at too little", said, refused)
	}
}

package program

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// Rules that are tried, and a step of them, beside such that count. %s is "shadow: true", or nothing, for each.
const triedConfig = `
data: data
pipeline:
  - ratelimit: {by: [network], limit: 1000000, refused: true}
  - rules:
      junk: 3
      reject: 8
      rules:
        - {name: friend, when: from.local == "friend", keep: true}
        - {name: word, when: subject contains "a", score: 4}
        - {name: list, when: has("List-Id"), file: Lists}
        - {name: harsh, when: subject contains "b" and rcpt.local != "bert", reject: true %s}
        - {name: points, when: subject contains "c", score: 4 %s}
        - {name: kind, when: subject contains "d", keep: true %s}
        - {name: after, when: hit("harsh") and has("List-Id"), file: After, flag: after %s}
  - rules: {name: strict %s, rules: [{name: all_lists, when: has("List-Id"), discard: true}, {name: never, when: "false", reject: true}]}
`

// triedNames are the items of triedConfig in their order.
func triedNames() []string {
	return []string{"rules/harsh", "rules/points", "rules/kind", "rules/after", "strict"}
}

// triedWith is triedConfig where these count.
func triedWith(live ...string) string {
	var marks []any
	for _, name := range triedNames() {
		mark := ", shadow: true"
		if slices.Contains(live, name) {
			mark = ""
		}
		marks = append(marks, mark)
	}
	return fmt.Sprintf(triedConfig, marks...)
}

// reporting is a program with a data folder of its own.
func reporting(t testing.TB, config string) *program {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sluice.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &program{ctx: t.Context(), kinds: Stages(), now: time.Now, configFile: filepath.Join(dir, "sluice.yaml"), stdout: io.Discard, stderr: io.Discard}
}

// decide takes n mails, always the same ones, through the configured plan, with the records into its journal, and returns
// what became of their copies.
func (p *program) decide(t testing.TB, n int) (became []string) {
	t.Helper()
	settings, err := p.settings()
	if err != nil {
		t.Fatal(err)
	}
	c := settings.Journal
	c.Path, c.MaxPending = journalPath(settings), 1<<30
	j, err := journal.Open(p.ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	env := pipelinetest.Env(t)
	env.Journal, env.Now = j, time.Now
	made, _, err := plan(settings, settings.Pipeline, env)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.KeepPlan(p.ctx, keptPlan(settings, made)); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 7))
	for range n {
		s := made.NewSession(pipeline.SMTP, pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")})
		s.Connect(p.ctx)
		s.Helo(p.ctx, "client.example")
		s.Mail(p.ctx, pipelinetest.Address(t, []string{"a@b.example", "friend@b.example"}[r.IntN(2)]))
		s.AnswerOnce()
		for _, to := range []string{"anna@example.org", "bert@example.org"}[r.IntN(2):] {
			s.Rcpt(p.ctx, pipeline.Recipient{Address: pipelinetest.Address(t, to)})
		}
		s.Data(p.ctx)
		text := fmt.Sprintf("Subject: %c%c\n%s\nhello\n", "abcdx"[r.IntN(5)], "abcdx"[r.IntN(5)], []string{"", "List-Id: <l.example>\n"}[r.IntN(2)])
		decisions := s.Content(p.ctx, pipelinetest.Parse(t, text))
		settled := pipeline.SMTP.Settle(decisions, false)
		var deliveries []pipeline.Delivery
		for i, d := range decisions {
			deliveries = append(deliveries, pipeline.Delivery{Disposition: settled.Dispositions[i], Reply: settled.Replies[i]})
			x := string(settled.Dispositions[i])
			switch x {
			case "delivered":
				x += " to " + folder(d.Folder)
				if len(d.Flags) > 0 {
					x += ", flagged " + strings.Join(d.Flags, " ")
				}
			case "quarantined":
				x = "held in quarantine"
			}
			became = append(became, x)
		}
		if err := s.Done(p.ctx, settled.Reply, deliveries); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return became
}

// report runs shadow report.
func (p *program) report(t testing.TB, c shadowReportCommand) *shadowReport {
	t.Helper()
	settings, err := p.settings()
	if err != nil {
		t.Fatal(err)
	}
	var report *shadowReport
	err = p.withPlans(settings, func(all *plans) error {
		users, err := newWhereabouts(p.ctx, settings, time.Time{})
		if err != nil {
			return err
		}
		x := &shadowReporter{plans: all, users: users, rule: c.Rule, examples: 2, items: map[string]*shadowItem{},
			report: &shadowReport{Version: shadowVersion, Until: time.Now().Add(time.Hour)}}
		report = x.report
		return x.run(p)
	})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// What the report says would have become of mail is what does become of it where the one thing counts, and nothing else.
func TestShadowReportIsRight(t *testing.T) {
	const mails = 600
	p := reporting(t, triedWith())
	was := p.decide(t, mails)
	report := p.report(t, shadowReportCommand{})
	if report.Records != mails || report.Interrupted || report.Unreadable > 0 {
		t.Fatalf("%+v", report)
	}
	items := map[string]*shadowItem{}
	var names []string
	for _, i := range report.Items {
		items[i.Name], names = i, append(names, i.Name)
	}
	if want := append(triedNames(), "strict/all_lists", "strict/never", everything); !slices.Equal(names, want) {
		t.Errorf("items %q, want %q", names, want)
	}
	for _, name := range append(triedNames(), everything) {
		live := []string{name}
		if name == everything || name == "rules/after" { // which cannot count without the one it reads
			live = triedNames()
		}
		would := reporting(t, triedWith(live...)).decide(t, mails)
		want := map[string]int{}
		for i := range was {
			if was[i] != would[i] {
				want[was[i]+" -> "+would[i]]++
			}
		}
		i := items[name]
		got := map[string]int{}
		for _, c := range i.Changes {
			got[c.Was+" -> "+c.Would] = c.Copies
			if c.Users.Unknown.Count != c.Copies || len(c.Examples) == 0 || len(c.Examples) > 2 {
				t.Errorf("%s: %+v", name, c)
			}
		}
		if name == "rules/after" {
			// Mail that it did not hold for is none of its business.
			for k := range want {
				if got[k] > want[k] {
					t.Errorf("%s: %d of %s, want at most %d", name, got[k], k, want[k])
				}
			}
			if i.Together == "" || len(got) == 0 {
				t.Errorf("%s: %q, %v", name, i.Together, got)
			}
			continue
		}
		if !maps.Equal(got, want) || len(want) == 0 || i.Together != "" || i.Unsure.Count > 0 {
			t.Errorf("%s: %v, want %v; together %q, unsure %+v", name, got, want, i.Together, i.Unsure)
		}
		if i.Seen != mails || i.Took.Count != mails || i.Took.P50 <= 0 || i.Took.P50 > i.Took.P95 {
			t.Errorf("%s: seen %d, took %+v", name, i.Seen, i.Took)
		}
	}
	if n := items["strict/never"]; n.Seen != mails || n.Held != 0 || len(n.Changes) > 0 {
		t.Errorf("never: %+v", n)
	}
	if l := items["strict/all_lists"]; l.Held == 0 || l.Held != items["strict"].Held || l.Same+len(l.Changes)+l.Unsure.Count > 0 {
		t.Errorf("all_lists: %+v", l)
	}
}

// What cannot be known is said: a plan that is gone, a record of another form, a shadow that was not run.
func TestShadowReportOnBadDays(t *testing.T) {
	p := reporting(t, triedWith())
	settings, err := p.settings()
	if err != nil {
		t.Fatal(err)
	}
	c := settings.Journal
	c.Path = journalPath(settings)
	j, err := journal.Open(p.ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	stage := func(state, why string) []pipeline.StageRecord {
		return []pipeline.StageRecord{{Phase: pipeline.Content, State: state, Why: why, Shadow: true}}
	}
	rcpt := pipeline.RecipientRecord{Recipient: pipeline.Recipient{Address: pipelinetest.Address(t, "me@example.org")}, Disposition: pipeline.Delivered}
	for i, steps := range [][]pipeline.StepRecord{
		{{Name: "old", Kind: "rules", Shadow: true, Hits: []pipeline.Hit{{Name: "gone", Shadow: true}}, Stages: stage("answered", "")}},
		{{Name: "old", Kind: "rules", Shadow: true, Undecided: []pipeline.Undecided{{Name: "gone", Why: "spf unavailable", Shadow: true}}, Stages: stage("answered", "")}},
		{{Name: "old", Kind: "rules", Shadow: true, Stages: stage("not run", "256 mails wait for shadow steps already")}},
		{{Name: "old", Kind: "rules", Shadow: true, Stages: stage("not finished", "the program was stopped")}},
		{{Name: "old", Kind: "rules", Shadow: true, Stages: stage("error", "panic: boom")}},
		nil, // of a newer program
	} {
		r := &pipeline.Record{Version: 1, ID: fmt.Sprintf("m%d", i), Received: time.Now().Add(-time.Hour), Plan: "0123456789ab", Steps: steps, Recipients: []pipeline.RecipientRecord{rcpt}}
		if steps == nil {
			r.Version = 99
		}
		if err := j.Record(p.ctx, r, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	report := p.report(t, shadowReportCommand{})
	var out strings.Builder
	text := text{w: &out}
	report.print(&text)
	for _, want := range []string{
		"1 record could not be read, and is not counted\n",
		"old (step)\n  asked about 3 mails, held for 1\n  failed for 1 mail: panic: boom 1\n" +
			"  not run for 1 mail: 256 mails wait for shadow steps already 1\n  not finished for 1 mail: the program was stopped 1\n",
		"  for 2 copies nobody can say: the journal does not have plan 0123456789ab 2\n",
		"old/gone (rule)\n  asked about 2 mails, held for 1\n  could not be decided for 1 mail: spf unavailable 1\n",
		"rules/harsh (rule)\n  asked about no mail\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks\n%s\nit says\n%s", want, out.String())
		}
	}
}

// Ctrl-C keeps what was counted so far, and the report says how far it came.
func TestShadowReportInterrupted(t *testing.T) {
	p := reporting(t, triedWith()+"  - interrupt: {}\n")
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	asked, armed := 0, false
	p.kinds = append(p.kinds, pipeline.Kind{
		Name: "interrupt", Pure: true, Config: func() any { return &struct{}{} },
		New: func(any, pipeline.Env) ([]pipeline.Stage, error) {
			return []pipeline.Stage{pipelinetest.Stage{Looks: pipeline.Reads{Input: pipeline.InputSender}, Says: func(context.Context, pipeline.View) (pipeline.Result, error) {
				if asked++; armed && asked == 20 {
					cancel()
				}
				return pipeline.Result{}, nil
			}}}, nil
		},
	})
	p.decide(t, 300)
	asked, armed, p.ctx = 0, true, ctx
	report := p.report(t, shadowReportCommand{})
	var out strings.Builder
	report.print(&text{w: &out})
	if !report.Interrupted || report.Records == 0 || report.Records > 100 || report.Reached.IsZero() || len(report.Items) == 0 ||
		!strings.Contains(out.String(), "INTERRUPTED: what follows is about mail up to ") {
		t.Errorf("%d records, interrupted %t:\n%s", report.Records, report.Interrupted, out.String())
	}
}

// BenchmarkShadowReport goes through a journal of mails for which shadow rules mostly hold.
func BenchmarkShadowReport(b *testing.B) {
	const mails = 2000
	p := reporting(b, triedWith())
	p.decide(b, mails)
	b.ReportAllocs()
	for b.Loop() {
		if r := p.report(b, shadowReportCommand{}); r.Records != mails {
			b.Fatalf("%d records", r.Records)
		}
	}
	b.ReportMetric(float64(mails*b.N)/b.Elapsed().Seconds(), "mails/s")
}

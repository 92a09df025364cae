package sieve

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// owners is a fake of what accounts keep.
type owners struct {
	scripts  map[string]string // by account
	name     string            // of all of them; "" is "work"
	includes map[string]string
	folders  []pipeline.OwnFolder
	ids      map[string]string // names of folders by identity
	notes    map[string]string // annotations, by "FOLDER NAME"
	blind    error             // what asking for them ends with
	failed   []string
	err      error
}

func (o *owners) Script(_ context.Context, account, have string) (pipeline.OwnScript, error) {
	text, ok := o.scripts[account]
	if !ok {
		return pipeline.OwnScript{}, o.err
	}
	own := pipeline.OwnScript{Name: cmp.Or(o.name, "work"), Version: text}
	if text != have {
		own.Text = []byte(text)
	}
	return own, o.err
}

func (o *owners) Include(_ context.Context, _, name string) ([]byte, bool, error) {
	text, ok := o.includes[name]
	return []byte(text), ok, nil
}

func (o *owners) Folders(context.Context, string) ([]pipeline.OwnFolder, error) {
	return o.folders, nil
}

func (o *owners) FolderByID(_ context.Context, _, id string) (string, bool, error) {
	name, ok := o.ids[id]
	return name, ok, o.blind
}

func (o *owners) Annotation(_ context.Context, _, folder, name string) (string, bool, error) {
	value, ok := o.notes[folder+" "+name]
	return value, ok, o.blind
}

func (o *owners) Addresses(_ context.Context, account string) ([]string, error) {
	return []string{account}, nil
}

func (o *owners) Failed(_ context.Context, f pipeline.ScriptFailure) {
	o.failed = append(o.failed, fmt.Sprintf("%s %s:%d %s", f.Account, f.Script, f.Line, f.Text))
}

const (
	me    = "me@example.org"
	hello = "From: A <a@client.example>\nTo: me@example.org\nSubject: hello\nMessage-ID: <1@client.example>\n\nhello\n"
)

// site is a plan with a sieve step behind others.
type site struct {
	*owners
	plan    *pipeline.Plan
	journal *pipelinetest.Journal
	env     pipeline.Env
}

func newSite(t testing.TB, o *owners, files pipelinetest.Files, change func(*Config), before ...pipeline.Step) *site {
	t.Helper()
	s := &site{owners: o, journal: &pipelinetest.Journal{}, env: pipelinetest.Env(t)}
	s.env.Journal, s.env.Owners = s.journal, o
	if files != nil {
		s.env.Files = files.Open
	}
	c := DefaultConfig()
	if change != nil {
		change(&c)
	}
	var err error
	s.plan, err = pipeline.NewPlan(append(before, pipeline.Step{Kind: StepKind(), Config: &c}), s.env, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) run(t testing.TB, m pipelinetest.Mail) pipelinetest.Ran {
	t.Helper()
	m.Accounts = true
	if m.From == "" {
		m.From = "a@client.example"
	}
	if m.Text == "" {
		m.Text = hello
	}
	return pipelinetest.Run(t, s.plan, pipeline.SMTP, s.journal, m)
}

// said is what was decided, in words.
func said(d pipeline.Decision) string {
	if d.Verdict.Action != pipeline.Pass {
		return fmt.Sprintf("%s %s by %s", d.Verdict.Action, d.Verdict.Reply, d.Verdict.By)
	}
	if d.Handling == nil {
		return "nothing"
	}
	var all []string
	for _, c := range d.Handling.Copies {
		s := "in " + c.Folder
		if c.Existing {
			s += "?"
		}
		if len(c.Flags) > 0 {
			s += " " + strings.Join(c.Flags, " ")
		}
		if c.Altered {
			s += " altered"
		}
		all = append(all, strings.Join(strings.Fields(s+" "+c.By), " "))
	}
	for _, l := range d.Handling.Leaving {
		all = append(all, fmt.Sprintf("%s to %s %s", l.Kind, strings.Join(l.To, ","), l.By))
	}
	for _, r := range d.Handling.Runs {
		all = append(all, fmt.Sprintf("run %s %s", r.Program, r.By))
	}
	if d.Handling.Dropped != "" {
		all = append(all, "dropped by "+d.Handling.Dropped)
	}
	if d.Handling.Failed != "" {
		all = append(all, "failed: "+d.Handling.Failed)
	}
	return strings.Join(all, "; ")
}

func TestStepConforms(t *testing.T) {
	pipelinetest.Conform(t, StepKind(), nil)
}

// Scripts run one after the other as long as the mail is kept, as in Pigeonhole's sieve_before and sieve_after.
func TestSequence(t *testing.T) {
	const into = `require ["fileinto", "copy"]; fileinto `
	for _, tt := range []struct {
		name, before, own, after, want string
	}{
		{"no script at all", "", "", "", "nothing"},
		{"a script that says nothing", "", "# nothing", "", "in"},
		{"keep is where nothing is said", "", "keep;", "", "in line 1 of work.sieve"},
		{"own", "", into + `"A";`, "", "in A line 1 of work.sieve"},
		{"the site's first one files", into + `"S";`, into + `"A";`, into + `"Z";`, "in S line 1 of first.sieve"},
		{"the site's first one files a copy", into + `:copy "S";`, into + `"A";`, into + `"Z";`,
			"in S line 1 of first.sieve; in A line 1 of work.sieve"},
		{"the site's last one has what is left", "# nothing", "keep;", into + `"Z";`, "in Z line 1 of last.sieve"},
		{"and alone what nobody else has a word about", "", "", into + `"Z";`, "in Z line 1 of last.sieve"},
		{"stop is about one script", "stop;", "stop;", into + `"Z";`, "in Z line 1 of last.sieve"},
		{"discard ends all", "", "discard;", into + `"Z";`, "dropped by line 1 of work.sieve"},
		{"a redirect ends all", "", `redirect "b@y.example";`, into + `"Z";`, "redirect to b@y.example line 1 of work.sieve"},
		{"the same redirect is one", `require "copy"; redirect :copy "b@y.example";`, `redirect "B@y.example";`, "",
			"redirect to b@y.example line 1 of first.sieve"},
		{"the same folder is one", into + `:copy "A";`, into + `"A";`, "", "in A line 1 of first.sieve"},
		{"flags go on", "", `require ["imap4flags", "fileinto", "copy"]; addflag "\\Seen"; fileinto :copy "A"; addflag "$x";`, "keep;",
			`in A \Seen line 1 of work.sieve; in \Seen $x line 1 of last.sieve`},
		{"so do edits", `require "editheader"; addheader "X-A" "1";`,
			`require "fileinto"; if header "X-A" "1" { fileinto "A"; }`, "", "in A altered line 1 of work.sieve"},
		{"a failing script is passed over", into + `:copy "S";`, `require ["variables"]; set "a" "b"; redirect "${a}";`, into + `"Z";`,
			`in S line 1 of first.sieve; in Z line 1 of last.sieve; failed: work.sieve, line 1: `},
		{"a script that is wrong, too", "", "fileinto 7;", "", "in; failed: work.sieve, line 1: "},
		{"a refusal", "", `require "reject"; reject text:
No, thank
you.
.
;`, into + `"Z";`, "reject 550 5.7.1 No, thank you. by work.sieve line 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &owners{scripts: map[string]string{}}
			if tt.own != "" {
				o.scripts[me] = tt.own
			}
			s := newSite(t, o, pipelinetest.Files{"sieve/first.sieve": tt.before, "sieve/last.sieve": tt.after}, func(c *Config) {
				if tt.before != "" {
					c.Before = []string{"sieve/first.sieve"}
				}
				if tt.after != "" {
					c.After = []string{"sieve/last.sieve"}
				}
			})
			ran := s.run(t, pipelinetest.Mail{})
			got := said(ran.Decisions[0])
			if before, more := strings.CutSuffix(tt.want, "line 1: "); got != tt.want && !(more && strings.HasPrefix(got, before)) {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
			if failed := strings.Contains(tt.want, "failed"); failed != (len(o.failed) == 1) {
				t.Errorf("the owner was told %q", o.failed)
			}
			replayed(t, s, ran.Record)
		})
	}
}

// replayed sees to it that a record is the same after JSON, and that a replay comes to the same.
func replayed(t *testing.T, s *site, r *pipeline.Record) {
	t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	back := new(pipeline.Record)
	if err := json.Unmarshal(raw, back); err != nil {
		t.Fatal(err)
	}
	again, err := s.plan.Replay(t.Context(), back, pipeline.Replay{Message: pipelinetest.Parse(t, hello)})
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range again.Record.Recipients {
		was := back.Recipients[i]
		if !reflect.DeepEqual(x.Handling, was.Handling) || x.Verdict != was.Verdict || x.Folder != was.Folder || x.Disposition != was.Disposition {
			t.Errorf("replayed: %+v\nwas %+v", x, was)
		}
	}
}

// Each copy is the mail as it was at that point.
func TestCopiesAsEdited(t *testing.T) {
	o := &owners{scripts: map[string]string{me: `require ["fileinto", "copy", "editheader"];
fileinto :copy "Before";
addheader "X-Mine" "one";
fileinto :copy "Between";
deleteheader "Subject";
redirect :copy "b@y.example";`}}
	d := newSite(t, o, nil, nil).run(t, pipelinetest.Mail{}).Decisions[0]
	if got, want := said(d), "in Before line 2 of work.sieve; in Between altered line 4 of work.sieve; in altered; "+
		"redirect to b@y.example line 6 of work.sieve"; got != want {
		t.Fatalf("%s\nwant %s", got, want)
	}
	for n, want := range map[int][2]bool{1: {true, true}, 2: {true, false}} {
		b, err := io.ReadAll(d.Handling.Copies[n].Message.Raw())
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if strings.Contains(text, "X-Mine: one") != want[0] || strings.Contains(text, "Subject: hello") != want[1] || !strings.HasSuffix(text, "\r\nhello\r\n") {
			t.Errorf("copy %d is\n%s", n, text)
		}
	}
	if m := d.Handling.Leaving[0].Message; m == nil || m.Subject() != "" {
		t.Error("what leaves is not as it was made")
	}
}

// What was answered is remembered when the mail is taken, and not before.
func TestRemembers(t *testing.T) {
	o := &owners{scripts: map[string]string{me: `require "vacation"; vacation "away";`}}
	s := newSite(t, o, nil, nil)
	answers := func(m pipelinetest.Mail) int {
		return len(s.run(t, m).Decisions[0].Handling.Leaving)
	}
	postponed := pipelinetest.Mail{Deliveries: []pipeline.Delivery{{Disposition: pipeline.Postponed}}}
	for _, tt := range []struct {
		what string
		mail pipelinetest.Mail
		want int
	}{
		{"a mail that could not be filed", postponed, 1},
		{"the same again", pipelinetest.Mail{}, 1},
		{"another one", pipelinetest.Mail{}, 0},
		{"somebody else's", pipelinetest.Mail{From: "b@client.example"}, 1},
	} {
		if got := answers(tt.mail); got != tt.want {
			t.Errorf("%s: %d replies, want %d", tt.what, got, tt.want)
		}
	}
	d := s.run(t, pipelinetest.Mail{}).Decisions[0]
	if len(d.Handling.Notes) != 1 || !strings.Contains(d.Handling.Notes[0], "line 1 of work.sieve: no reply") {
		t.Errorf("why there is no reply: %q", d.Handling.Notes)
	}
}

// A duplicate is known although the first one was filed nowhere.
func TestRemembersWhatIsDropped(t *testing.T) {
	o := &owners{scripts: map[string]string{me: `require ["duplicate", "fileinto"]; if duplicate { fileinto "Again"; } else { discard; }`}}
	s := newSite(t, o, nil, nil)
	for _, want := range []string{"dropped by line 1 of work.sieve", "in Again line 1 of work.sieve"} {
		if got := said(s.run(t, pipelinetest.Mail{}).Decisions[0]); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// scores is a step with a rule that holds.
func scores(score float64) pipeline.Step {
	s := pipelinetest.Step("rules", ruler{pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputHeader},
		Says: func(context.Context, pipeline.View) (pipeline.Result, error) {
			return pipeline.Result{Hits: []pipeline.Hit{{Name: "spam", Score: score}}, Effects: []pipeline.Effect{
				{Kind: pipeline.FileInto, Folder: "Junk", Threshold: true}, {Kind: pipeline.AddFlags, Flags: []string{"$Junk"}},
			}}, nil
		},
	}})
	s.Kind.Pure = true
	return s
}

type ruler struct{ pipelinetest.Stage }

func (ruler) Rules() []string       { return []string{"spam"} }
func (ruler) ShadowRules() []string { return nil }

type scanned struct {
	Infected bool `json:"infected"`
}

func scans(infected bool, err error) pipeline.Step {
	s := pipelinetest.Step("clamav", pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputBody},
		Says: func(context.Context, pipeline.View) (pipeline.Result, error) {
			return pipeline.Result{Fact: scanned{infected}}, err
		},
	})
	s.Kind.Fact = func(any) any { return scanned{} }
	return s
}

const tests = `require ["fileinto", "spamtestplus", "virustest", "relational", "comparator-i;ascii-numeric", "variables"];
if spamtest :percent :matches "*" { set "spam" "${1}"; }
if virustest :matches "*" { set "virus" "${1}"; }
fileinto "${spam}/${virus}";`

func TestSpamAndVirus(t *testing.T) {
	for _, tt := range []struct {
		score    float64
		infected bool
		err      error
		want     string
	}{
		{5, false, nil, "in 50/1 $Junk"}, {20, true, nil, "in 100/5 $Junk"}, {-3, false, nil, "in 0/1 $Junk"},
		{5, false, errors.New("no clamd"), "in 50/0 $Junk"},
	} {
		o := &owners{scripts: map[string]string{me: tests}}
		got := said(newSite(t, o, nil, nil, scores(tt.score), scans(tt.infected, tt.err)).run(t, pipelinetest.Mail{}).Decisions[0])
		if want := tt.want + " line 4 of work.sieve"; got != want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// What rules say about the folder is for mail that the script leaves alone; what they want flagged is flagged everywhere.
func TestFolderOfRules(t *testing.T) {
	for script, want := range map[string]string{
		"# nothing":                             "in Junk $Junk",
		"keep;":                                 "in Junk $Junk line 1 of work.sieve",
		`require "fileinto"; fileinto "INBOX";`: "in $Junk line 1 of work.sieve",
		`require "fileinto"; fileinto "A";`:     "in A $Junk line 1 of work.sieve",
		`require ["fileinto", "copy"]; fileinto :copy "Junk";`: "in Junk $Junk line 1 of work.sieve",
	} {
		o := &owners{scripts: map[string]string{me: script}}
		if got := said(newSite(t, o, nil, nil, scores(6)).run(t, pipelinetest.Mail{}).Decisions[0]); got != want {
			t.Errorf("%s: %s, want %s", script, got, want)
		}
	}
}

// At the milter nothing is asked; where the mail is filed the scripts see the scores that were recorded.
func TestHandedOver(t *testing.T) {
	o := &owners{scripts: map[string]string{me: tests, "you@example.org": "discard;"}}
	s := newSite(t, o, nil, nil, scores(5), scans(false, nil))
	ran := pipelinetest.Run(t, s.plan, pipeline.Milter, s.journal, pipelinetest.Mail{From: "a@client.example", To: []string{me, "you@example.org"}, Text: hello})
	if ran.Decisions[0].Handling != nil {
		t.Fatal("the milter asked scripts")
	}
	x := s.plan.Resume(pipeline.LMTP, ran.Record)
	defer x.Close()
	for _, a := range []string{me, "you@example.org"} {
		x.Rcpt(t.Context(), pipeline.Recipient{Address: pipelinetest.Address(t, a), Account: a})
	}
	x.Data(t.Context())
	decisions := x.Content(t.Context(), pipelinetest.Parse(t, hello))
	if got := said(decisions[0]); got != "in 50/1 $Junk line 4 of work.sieve" {
		t.Error(got)
	}
	if got := pipeline.LMTP.Settle(decisions, false).Dispositions; !slices.Equal(got, []pipeline.Disposition{pipeline.Delivered, pipeline.Dropped}) {
		t.Error(got)
	}
}

// After a verdict that keeps mail from its recipient no script has its say, and what it would have said is not done.
func TestAfterVerdicts(t *testing.T) {
	o := &owners{scripts: map[string]string{me: `redirect "b@y.example";`}}
	for _, a := range []pipeline.Action{pipeline.Discard, pipeline.Quarantine, pipeline.TempFail, pipeline.Reject} {
		says := pipelinetest.Step("says", pipelinetest.Stage{
			Looks: pipeline.Reads{Input: pipeline.InputBody, Can: []pipeline.Final{{Action: a}}},
			Says: func(context.Context, pipeline.View) (pipeline.Result, error) {
				return pipeline.Result{Verdict: pipeline.Verdict{Action: a}}, nil
			},
		})
		for _, shadow := range []bool{false, true} {
			says.Shadow = shadow
			d := newSite(t, o, nil, nil, says).run(t, pipelinetest.Mail{}).Decisions[0]
			if done := d.Handling != nil; done != shadow {
				t.Errorf("%s, shadow %t: %s", a, shadow, said(d))
			}
		}
	}
}

// A step on trial is asked, recorded and without effect.
func TestStepOnTrial(t *testing.T) {
	o := &owners{scripts: map[string]string{me: `require ["vacation", "fileinto"]; vacation "away"; fileinto "A"; redirect "7";`}}
	env := pipelinetest.Env(t)
	journal := &pipelinetest.Journal{}
	env.Journal, env.Owners = journal, o
	c := DefaultConfig()
	p, err := pipeline.NewPlan([]pipeline.Step{{Kind: StepKind(), Config: &c, Shadow: true}}, env, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{From: "a@client.example", Text: hello, Accounts: true})
	if d := ran.Decisions[0]; d.Handling != nil || d.Verdict.Action != pipeline.Pass {
		t.Errorf("it counted: %s", said(d))
	}
	st := ran.Record.Recipients[0].Steps[0].Stages[0]
	if st.Handling == nil || !st.Handling.Shadow || ran.Record.Recipients[0].Handling != nil {
		t.Errorf("recorded as %+v", st)
	}
	if len(o.failed) > 0 {
		t.Errorf("the owner was told of a trial: %q", o.failed)
	}
}

// A script that is changed, or includes one that is, is compiled again; others are not, and few are kept.
func TestCompiledScripts(t *testing.T) {
	o := &owners{scripts: map[string]string{}, includes: map[string]string{"more": `require "fileinto"; fileinto "A";`}}
	accounts := []string{"a@example.org", "b@example.org", "c@example.org"}
	for _, a := range accounts {
		o.scripts[a] = `require "include"; include "more";`
	}
	c := DefaultConfig()
	c.Cache = 2
	env := pipelinetest.Env(t)
	env.Owners = o
	s, err := newStage(c, env)
	if err != nil {
		t.Fatal(err)
	}
	script := func(account string) *Script {
		turns, _, err := s.turns(t.Context(), account, false)
		if err != nil || len(turns) != 1 {
			t.Fatal(turns, err)
		}
		return turns[0].script
	}
	first := script(accounts[0])
	if script(accounts[0]) != first {
		t.Error("a script was compiled twice")
	}
	o.includes["more"] = `require "fileinto"; fileinto "B";`
	second := script(accounts[0])
	if second == first {
		t.Error("what it includes has changed, and it has not")
	}
	o.name = "play"
	if second = script(accounts[0]); second.Name() != "play.sieve" {
		t.Errorf("the same text under another name is called %s", second.Name())
	}
	script(accounts[1])
	script(accounts[2])
	if len(s.cache.byAccount) != 2 || s.cache.order.Len() != 2 {
		t.Errorf("%d scripts are kept", len(s.cache.byAccount))
	}
	if script(accounts[0]) == second {
		t.Error("it was kept")
	}
}

// Where the scripts of an account cannot be read its mail is postponed, and only its.
func TestScriptsUnread(t *testing.T) {
	o := &owners{err: errors.New("no disk")}
	d := newSite(t, o, nil, nil).run(t, pipelinetest.Mail{}).Decisions[0]
	if d.Verdict.Action != pipeline.TempFail || !strings.Contains(d.Verdict.Reason, "no disk") {
		t.Errorf("%+v", d.Verdict)
	}
}

// Everything that is wrong with the site's scripts and the settings is said at once.
func TestSettingsAreChecked(t *testing.T) {
	env := pipelinetest.Env(t)
	env.Files = pipelinetest.Files{"a.sieve": "keep;\nfrob;\nfileinto \"A\";", "b.sieve": "keep"}.Open
	c := DefaultConfig()
	c.Before, c.After, c.Off = []string{"a.sieve"}, []string{"b.sieve", "none.sieve"}, []string{"vacatoin"}
	c.Spamtest, c.Virustest = Spamtest{Score: "rspamd.score"}, "clamav.infected"
	_, err := StepKind().New(&c, env)
	if err == nil {
		t.Fatal("it is taken")
	}
	for _, want := range []string{"a.sieve:2:1: ", "a.sieve:3:", "b.sieve:1:", "none.sieve", `there is no extension "vacatoin"`,
		"spamtest: full", "spamtest: score: there is no step rspamd", "virustest: there is no step clamav"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in\n%v", want, err)
		}
	}
}

// BenchmarkStepWithoutScript is what accounts without a script pay, but for the look on the disk.
func BenchmarkStepWithoutScript(b *testing.B) { benchmarkStep(b, map[string]string{}) }

// BenchmarkStep is what a script that files a mail costs, but for the look on the disk.
func BenchmarkStep(b *testing.B) {
	benchmarkStep(b, map[string]string{me: `require "fileinto"; if header :contains "Subject" "hello" { fileinto "A"; }`})
}

func benchmarkStep(b *testing.B, scripts map[string]string) {
	env := pipelinetest.Env(b)
	env.Owners = &owners{scripts: scripts}
	s, err := newStage(DefaultConfig(), env)
	if err != nil {
		b.Fatal(err)
	}
	v := pipeline.View{Message: pipelinetest.Parse(b, hello), Rcpt: pipeline.Recipient{Address: pipelinetest.Address(b, me), Account: me}}
	v.Received = time.Unix(1e9, 0)
	for b.Loop() {
		if _, err := s.Check(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
}

// Folders are found by identity and by what is written about them. What cannot be looked up postpones the mail, whether the
// script asked or where the mail goes depends on it; where nobody asks it is no trouble.
func TestFoldersOfAccounts(t *testing.T) {
	for _, tt := range []struct{ script, want string }{
		{`require ["fileinto", "mailboxid"]; fileinto :mailboxid "F1" "Else";`, "in Work line 1 of work.sieve"},
		{`require ["fileinto", "mailboxid"]; fileinto :mailboxid "F2" "Else";`, "in Else line 1 of work.sieve"},
		{`require ["fileinto", "mailboxid"]; fileinto :mailboxid "F0" "Else";`, "in line 1 of work.sieve"},
		{`require "mailboxid"; if mailboxidexists ["F1", "F0"] { discard; }`, "dropped by line 1 of work.sieve"},
		{`require "mailboxid"; if mailboxidexists ["F1", "F2"] { discard; }`, "in"},
		{`require "mboxmetadata"; if metadata "Work" "/private/x" "on" { discard; }`, "dropped by line 1 of work.sieve"},
		{`require "mboxmetadata"; if metadata "None" "/private/x" "" { discard; }`, "in"},
		{`require "servermetadata"; if servermetadataexists "/shared/admin" { discard; }`, "dropped by line 1 of work.sieve"},
		{`require ["fileinto", "mailbox"]; if not mailboxexists "Work" { discard; }`, "in"},
	} {
		o := &owners{
			scripts: map[string]string{me: tt.script}, folders: []pipeline.OwnFolder{{Name: "INBOX"}, {Name: "Work"}},
			ids:   map[string]string{"F1": "Work", "F0": "INBOX"},
			notes: map[string]string{"Work /private/x": "on", " /shared/admin": ""},
		}
		s := newSite(t, o, nil, nil)
		if got := said(s.run(t, pipelinetest.Mail{}).Decisions[0]); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.script, got, tt.want)
		}
		o.blind = errors.New("the disk is broken")
		got := said(s.run(t, pipelinetest.Mail{}).Decisions[0])
		if asks := !strings.Contains(tt.script, "mailboxexists"); strings.Contains(got, "tempfail") != asks {
			t.Errorf("%s, and it cannot be looked up: %s", tt.script, got)
		}
	}
}

package rules

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// Facts as scanners declare them: named types, lists of structs, numbers of all sizes.
type (
	result  string
	spfFact struct {
		Result result `json:"result"`
		Domain string `json:"domain"`
		Hops   uint8  `json:"hops"`
		hidden int
	}
	listed struct {
		Listed bool     `json:"listed"`
		Codes  []string `json:"codes"`
	}
	dmarcFact struct {
		Result  string  `json:"result"`
		Percent float32 `json:"percent"`
	}
	scanFact struct {
		Files []fileFact `json:"files"`
		Sizes []int64    `json:"sizes"`
		Skip  error      `json:"-"`
	}
	fileFact struct {
		Name    string       `json:"name"`
		Type    result       `json:"type"`
		Size    int64        `json:"size"`
		Members []memberFact `json:"members"`
	}
	memberFact struct {
		Name string `json:"name"`
		Size int64  `json:"size"`
	}
)

// before is the plan that most tests stand in.
func before(more ...pipeline.Before) []pipeline.Before {
	b := []pipeline.Before{
		{Name: "dnsbl", Kind: "dnsbl", Fact: pipeline.Named[listed]{"zen": {}, "sbl": {}}},
		{Name: "spf", Kind: "spf", Fact: spfFact{}, Phase: pipeline.Mail},
		{Name: "dmarc", Kind: "dmarc", Fact: dmarcFact{}, Phase: pipeline.Content},
		{Name: "scan", Kind: "scan", Fact: scanFact{}, Phase: pipeline.Content},
		{Name: "quota", Kind: "quota", Fact: struct {
			Used int `json:"used"`
		}{}, Phase: pipeline.Rcpt, PerRcpt: true},
		{Name: "early", Kind: "rules", Rules: []string{"friend", "foe", "trial"}, ShadowRules: []string{"trial"}},
		{Name: "trial", Kind: "rules", Rules: []string{"maybe"}, Shadow: true},
		{Name: "mute", Kind: "mute"},
	}
	return append(append(b, more...), pipeline.Before{Name: "rules", Kind: "rules"})
}

func env(files map[string]string) pipeline.Env {
	return pipeline.Env{
		Name: "rules", Before: before(),
		Files: func(pattern string) ([]pipeline.File, error) {
			text, ok := files[pattern]
			if !ok {
				return nil, fmt.Errorf("%s: no such file", pattern)
			}
			return []pipeline.File{{Path: pattern, Text: []byte(text)}}, nil
		},
	}
}

// make makes the stages of rules written as in a file.
func stagesOf(t testing.TB, c Config, file string) []pipeline.Stage {
	t.Helper()
	c.Files = []string{"rules/test.yaml"}
	stages, err := New(c, env(map[string]string{"rules/test.yaml": file}))
	if err != nil {
		t.Fatalf("rules are refused:\n%v", err)
	}
	return stages
}

func message(t testing.TB, text string) *mime.Message {
	t.Helper()
	text = strings.ReplaceAll(text, "\n", "\r\n")
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func address(t testing.TB, s string) mime.Address {
	t.Helper()
	a, err := mime.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const letter = `From: Bank <Info+News@Bank.Example>
To: user@example.org
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= and $$$
List-Id: <x.example>
X-Twice: one
X-Twice: two

Hello
`

// view is a transaction with everything known.
func view(t testing.TB) pipeline.View {
	return pipeline.View{
		Phase: pipeline.Content,
		Envelope: pipeline.Envelope{
			Client:   pipeline.Client{Addr: netip.MustParseAddr("192.0.2.7"), Name: "mx.example.net"},
			Greeting: "Mail.Example.NET",
			Sender:   address(t, "Someone+Tag@Example.ORG"),
		},
		Rcpt:    pipeline.Recipient{Address: address(t, "user+lists@example.org")},
		Message: message(t, letter),
		Facts: pipeline.Facts{
			"dnsbl": {Fact: pipeline.Named[listed]{"zen": {Listed: true, Codes: []string{"127.0.0.2", "127.0.0.4"}}, "sbl": {}}},
			"spf":   {Fact: spfFact{Result: "fail", Domain: "example.org", Hops: 3}},
			"dmarc": {Fact: dmarcFact{Result: "pass", Percent: 50}},
			"scan": {Fact: scanFact{
				Files: []fileFact{{"invoice.exe", "application/x-dosexec", 7000, []memberFact{{"run.exe", 9}, {"b", 3}}}, {"a.txt", "text/plain", 12, nil}},
				Sizes: []int64{1, 2},
			}},
			"quota": {Fact: struct {
				Used int `json:"used"`
			}{90}},
			"early": {},
			"trial": {},
		},
	}
}

// decide asks all stages of rules but the thresholds and returns what each rule came to.
func decide(t testing.TB, stages []pipeline.Stage, v pipeline.View) (all pipeline.Result) {
	t.Helper()
	for _, st := range stages {
		if _, ok := st.(*stage); !ok {
			continue
		}
		r, err := st.Check(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		all.Hits = append(all.Hits, r.Hits...)
		all.Undecided = append(all.Undecided, r.Undecided...)
		all.Effects = append(all.Effects, r.Effects...)
		all.Edits = append(all.Edits, r.Edits...)
	}
	return all
}

// truthOfRule is what one condition comes to.
func truthOfRule(t testing.TB, when string, v pipeline.View) (truth, string) {
	t.Helper()
	stages := stagesOf(t, Config{}, "rules:\n  - name: r\n    when: "+quote(when)+"\n")
	all := decide(t, stages, v)
	switch {
	case len(all.Hits) == 1:
		return isTrue, ""
	case len(all.Undecided) == 1:
		return unknown, all.Undecided[0].Why
	}
	return isFalse, ""
}

// quote writes a condition as a single-quoted YAML scalar.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func TestConditions(t *testing.T) {
	v := view(t)
	for when, want := range map[string]truth{
		`client.ip == "192.0.2.7"`:                              isTrue,
		`client.name endsWith ".example.net"`:                   isTrue,
		`client.login == ""`:                                    isTrue,
		`client.trusted`:                                        isFalse,
		`helo == "Mail.Example.NET"`:                            isTrue,
		`lower(helo) == "mail.example.net"`:                     isTrue,
		`from.address == "someone+tag@example.org"`:             isTrue,
		`from.local == "someone" and from.tag == "tag"`:         isTrue,
		`rcpt.local == "user" and rcpt.tag == "lists"`:          isTrue,
		`header_from.domain == "bank.example"`:                  isTrue,
		`header_from.tag == "news" and header_from.count == 1`:  isTrue,
		`subject contains "Grüße"`:                              isTrue,
		`subject matches "\\$+$"`:                               isTrue,
		"subject matches `(?i)GR`":                              isTrue,
		`size > 100 and size < 1_000`:                           isTrue,
		`1 < size < 20`:                                         isFalse,
		`has("list-ID")`:                                        isTrue,
		`has("X-None")`:                                         isFalse,
		`header("x-twice") == "one"`:                            isTrue,
		`header("X-None") == ""`:                                isTrue,
		`dnsbl.zen.listed`:                                      isTrue,
		`dnsbl["zen"].listed and not dnsbl.sbl.listed`:          isTrue,
		`spf.result == "fail"`:                                  isTrue,
		`spf.result in ["fail", "softfail"]`:                    isTrue,
		`spf.result not in ["fail"]`:                            isFalse,
		`"127.0.0.4" in dnsbl.zen.codes`:                        isTrue,
		`dnsbl.zen.codes[0] == "127.0.0.2"`:                     isTrue,
		`any(dnsbl.zen.codes, # startsWith "127.0.0.")`:         isTrue,
		`none(scan.files, .name endsWith ".exe")`:               isFalse,
		`count(scan.files, .size > 10) == 2`:                    isTrue,
		`any(scan.files, .type == "text/plain" and .size < 20)`: isTrue,
		`one(scan.sizes, # == 2)`:                               isTrue,
		`len(scan.files) == 2 and len(subject) > 3`:             isTrue,
		`spf.hops + 1 == 4 and spf.hops in 1..5`:                isTrue,
		`spf.hops % 2 == 1`:                                     isTrue,
		`spf.hops / 2 == 1.5`:                                   isTrue,
		`dmarc.percent > 49.5`:                                  isTrue,
		`max(spf.hops, 7) == 7 and abs(-2) == 2`:                isTrue,
		`int("12") == 12 and string(size) != ""`:                isTrue,
		`(spf.result == "fail" ? 5 : 1) > 3`:                    isTrue,
		`let d = from.domain; d == "example.org"`:               isTrue,
		`trimPrefix(subject, "Gr") startsWith "üß"`:             isTrue,
		`indexOf(from.address, "@") > 0`:                        isTrue,
		`hasSuffix(from.domain, ".org")`:                        isTrue,
		`not (true and false) and (true || false) && !false`:    isTrue,
		`quota.used > 80`:                                       isTrue,
		`known(dnsbl) and known("spf") and known(dnsbl.zen)`:    isTrue,
		`hit("early.friend")`:                                   isFalse,
		`subject | lower() | hasPrefix("grüße")`:                isTrue,
	} {
		if got, why := truthOfRule(t, when, v); got != want {
			t.Errorf("%s: got %d, want %d (%s)", when, got, want, why)
		}
	}
}

func TestUnknown(t *testing.T) {
	v := view(t)
	v.Client = pipeline.Client{}
	v.Greeting = ""
	v.Facts["dmarc"] = pipeline.Finding{Unknown: errors.New("look up _dmarc.example.org: i/o timeout")}
	v.Facts["dnsbl"] = pipeline.Finding{
		Fact:    pipeline.Named[listed]{"sbl": {Listed: true}},
		Missing: map[string]error{"zen": errors.New("SERVFAIL")},
	}
	const dmarc = "dmarc unavailable: look up _dmarc.example.org: i/o timeout"
	for _, tt := range []struct {
		when string
		want truth
		why  string
	}{
		{`dmarc.result == "fail"`, unknown, dmarc},
		{`dmarc.result != "fail"`, unknown, dmarc},
		{`not (dmarc.result == "fail")`, unknown, dmarc},
		{`dmarc.result == "fail" or true`, isTrue, ""},
		{`true or dmarc.result == "fail"`, isTrue, ""},
		{`dmarc.result == "fail" and false`, isFalse, ""},
		{`dmarc.result == "fail" and true`, unknown, dmarc},
		{`dmarc.result == "fail" or false`, unknown, dmarc},
		{`known(dmarc)`, isFalse, ""},
		{`not known(dmarc) or dmarc.result == "fail"`, isTrue, ""},
		{`known(dmarc) and dmarc.result == "fail"`, isFalse, ""},
		{`dmarc.result == "fail" or dnsbl.zen.listed`, unknown, dmarc + "; dnsbl.zen unavailable: SERVFAIL"},
		{`(spf.result == "none" ? dmarc.result : "x") == "x"`, unknown, dmarc}, // a ternary is one term
		{`any(["a"], dmarc.result == "fail" or # == "a")`, unknown, dmarc},     // and so is a predicate
		{`dnsbl.zen.listed`, unknown, "dnsbl.zen unavailable: SERVFAIL"},
		{`dnsbl.sbl.listed`, isTrue, ""}, // one dead list does not switch off the others
		{`known(dnsbl)`, isTrue, ""},
		{`known(dnsbl.zen)`, isFalse, ""},
		{`known(dnsbl.sbl)`, isTrue, ""},
		{`client.ip == ""`, unknown, "client unknown"},
		{`client.name == "x"`, unknown, "client unknown"},
		{`client.login == ""`, unknown, "client unknown"},
		{`client.trusted`, unknown, "client unknown"},
		{`helo == "x"`, unknown, "no greeting"},
		{`scan.files[7].name == "x"`, unknown, "`scan.files[7].name == \"x\"` failed: there is no item 7: the list has 2, counted from 0"},
		{`not (scan.files[7].name == "x")`, unknown, "`scan.files[7].name == \"x\"` failed: there is no item 7: the list has 2, counted from 0"},
		{`int(subject) == 3`, unknown, "`int(subject) == 3` failed: \"Grüße and $$$\" is no whole number"},
		{`spf.hops % len(header("X-None")) == 1`, unknown, "`spf.hops % len(header(\"X-None\")) == 1` failed: it divides by zero"},
		{`spf.hops / len(header("X-None")) > 1`, unknown, "`spf.hops / len(header(\"X-None\")) > 1` failed: it divides by zero"},
		{`size / (1.5 - 1.5) < 1 or size > 0`, isTrue, ""},
		{`size / len("ab") == size / 2`, isTrue, ""},
	} {
		got, why := truthOfRule(t, tt.when, v)
		if got != tt.want || why != tt.why {
			t.Errorf("%s:\n got %d %q\nwant %d %q", tt.when, got, why, tt.want, tt.why)
		}
	}
}

func TestClientPartlyKnown(t *testing.T) {
	v := view(t)
	v.Client = pipeline.Client{Login: "anna@example.org", Trusted: true} // a unix socket has no address
	for when, want := range map[string]truth{
		`client.login == "anna@example.org"`: isTrue,
		`client.trusted`:                     isTrue,
		`client.ip == ""`:                    unknown,
		`client.name == ""`:                  unknown,
	} {
		if got, _ := truthOfRule(t, when, v); got != want {
			t.Errorf("%s: got %d, want %d", when, got, want)
		}
	}
}

func TestHeaderFrom(t *testing.T) {
	for _, tt := range []struct {
		header, when string
		want         truth
	}{
		{"Subject: x\n", `header_from.address == "" and header_from.count == 0`, isTrue},
		{"From: a@one.example, b@two.example\n", `header_from.domain == "one.example" and header_from.count == 2`, isTrue},
		{"From: a@one.example\nFrom: b@two.example\n", `header_from.count == 2`, isTrue},
	} {
		v := view(t)
		v.Message = message(t, tt.header+"\nbody\n")
		if got, why := truthOfRule(t, tt.when, v); got != tt.want {
			t.Errorf("%q: %s: got %d, want %d (%s)", tt.header, tt.when, got, tt.want, why)
		}
	}
	v := view(t)
	v.Sender = mime.Address{}
	if got, _ := truthOfRule(t, `from.address == "" and from.domain == ""`, v); got != isTrue {
		t.Errorf("the null sender is known: got %d", got)
	}
	v.Message = nil
	if got, why := truthOfRule(t, `size > 0`, v); got != unknown || why != "there is no message" {
		t.Errorf("without a message: got %d %q", got, why)
	}
}

func TestFactForms(t *testing.T) {
	v := view(t)
	// As a record gives it back: the plan's own type, and a pointer.
	rt, err := pipeline.FactType(pipeline.Named[listed]{"zen": {}, "sbl": {}})
	if err != nil {
		t.Fatal(err)
	}
	v.Facts["dnsbl"] = pipeline.Finding{Fact: pipeline.FactValue(rt, pipeline.Named[listed]{"zen": {Listed: true}}).Interface()}
	v.Facts["spf"] = pipeline.Finding{Fact: &spfFact{Result: "pass", hidden: 1}}
	v.Facts["dmarc"] = pipeline.Finding{Fact: map[string]any{"result": "fail"}}
	for when, want := range map[string]truth{
		`dnsbl.zen.listed and not dnsbl.sbl.listed`: isTrue,
		`spf.result == "pass"`:                      isTrue,
		`dmarc.result == "fail"`:                    unknown,
	} {
		if got, why := truthOfRule(t, when, v); got != want {
			t.Errorf("%s: got %d, want %d (%s)", when, got, want, why)
		}
	}
	// A name that the scanner left out is not known to be unlisted.
	v.Facts["dnsbl"] = pipeline.Finding{Fact: pipeline.Named[listed]{"zen": {}}}
	if got, _ := truthOfRule(t, `not dnsbl.sbl.listed`, v); got != unknown {
		t.Errorf("an absent name: got %d", got)
	}
}

const someRules = `
rules:
  - name: listed
    when: dnsbl.zen.listed
    score: 4
  - name: bank
    when: header_from.domain == "bank.example" and spf.result == "fail"
    reject: 5.7.1 this is not your bank
    flag: $Phish
  - name: list
    when: has("List-Id")
    file: Lists/x
    flag: [\seen, news]
    header:
      X-List: "yes"
      X-More: [a, b]
  - name: try
    when: hit("listed") and hit("list")
    discard: true
    file: Trial
    shadow: true
  - name: after
    when: not hit("bank")
    keep: true
`

func TestResult(t *testing.T) {
	stages := stagesOf(t, Config{}, someRules)
	if len(stages) != 3 {
		t.Fatalf("got %d stages, want one for the client, one for the content and one for the shadow rule", len(stages))
	}
	v := view(t)
	var all pipeline.Result
	for _, st := range stages {
		r, err := st.Check(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(st.(pipeline.Ruler).Rules(), []string{"listed", "bank", "list", "try", "after"}) {
			t.Errorf("Rules: %q", st.(pipeline.Ruler).Rules())
		}
		all.Hits = append(all.Hits, r.Hits...)
		all.Effects = append(all.Effects, r.Effects...)
		all.Edits = append(all.Edits, r.Edits...)
		if r.Verdict.Action != pipeline.Pass {
			all.Verdict = r.Verdict
		}
	}
	want := pipeline.Result{
		Hits: []pipeline.Hit{
			{At: 0, Name: "listed", Score: 4},
			{At: 1, Name: "bank", Action: pipeline.Reject, Evidence: []pipeline.Evidence{
				{Where: `header_from.domain == "bank.example"`, What: "bank.example", Position: pipeline.Position{Field: "From"}},
				{Where: `spf.result == "fail"`, What: "fail"},
			}},
			{At: 2, Name: "list", Evidence: []pipeline.Evidence{
				{Where: `has("List-Id")`, What: "<x.example>", Position: pipeline.Position{Field: "List-Id"}},
			}},
			{At: 3, Name: "try", Action: pipeline.Discard, Shadow: true},
		},
		Verdict: pipeline.Verdict{At: 1, Action: pipeline.Reject, By: "bank",
			Reply: pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "this is not your bank"}},
		Effects: []pipeline.Effect{
			{At: 1, Kind: pipeline.AddFlags, By: "bank", Flags: []string{"$Phish"}},
			{At: 2, Kind: pipeline.FileInto, By: "list", Folder: "Lists/x"},
			{At: 2, Kind: pipeline.AddFlags, By: "list", Flags: []string{`\Seen`, "news"}},
			{At: 3, Kind: pipeline.FileInto, By: "try", Folder: "Trial", Shadow: true},
		},
		Edits: []pipeline.Edit{
			{At: 2, Name: "X-List", Value: "yes"},
			{At: 2, Name: "X-More", Value: "a"},
			{At: 2, Name: "X-More", Value: "b"},
		},
	}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("got  %+v\nwant %+v", all, want)
	}
	content := stages[1].Reads()
	if content.Input != pipeline.InputHeader || content.Shadow || !slices.Equal(content.Facts, []string{"spf"}) ||
		!slices.Equal(content.Can, []pipeline.Final{{At: 1, Action: pipeline.Reject}, {At: 4, Action: pipeline.Keep}}) {
		t.Errorf("the content stage reads %+v", content)
	}
	if trial := stages[2].Reads(); !trial.Shadow || !slices.Equal(trial.Facts, []string{"dnsbl"}) || len(trial.Can) > 0 {
		t.Errorf("the stage of the shadow rule reads %+v", trial)
	}
	if client := stages[0].Reads(); client.Input != 0 || client.Waits || !slices.Equal(client.Facts, []string{"dnsbl"}) {
		t.Errorf("the first stage reads %+v", client)
	}
}

func TestTerms(t *testing.T) {
	stages := stagesOf(t, Config{}, `
rules:
  - name: a
    when: spf.result == "none" and dnsbl.zen.listed or dnsbl.sbl.listed
  - name: b
    when: not (dmarc.result == "x") or
          has("List-Id")
  - name: c
    when: 'hit("a") or known(spf)'
`)
	v := view(t)
	v.Facts["dmarc"] = pipeline.Finding{Unknown: errors.New("down")}
	var lines []string
	for _, st := range stages {
		r, err := st.Check(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		for i, term := range st.(Termer).Terms() {
			lines = append(lines, fmt.Sprintf("%s %s %s: %d", term.Pos, term.Rule, term.Source, r.Terms[i/4]>>(i%4*2)&3))
		}
	}
	want := []string{
		`rules/test.yaml:4:11 a spf.result == "none": 1`,
		`rules/test.yaml:4:36 a dnsbl.zen.listed: 0`,
		`rules/test.yaml:4:56 a dnsbl.sbl.listed: 1`,
		`rules/test.yaml:9:12 c hit("a"): 1`,
		`rules/test.yaml:9:24 c known(spf): 2`,
		`rules/test.yaml:6:16 b dmarc.result == "x": 3`,
		`rules/test.yaml:7:11 b has("List-Id"): 2`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// A client of whom the DNS said that it has no name is another than one whose name is not known.
func TestClientName(t *testing.T) {
	v := view(t)
	v.Client.Name, v.Client.NameUnknown = "", ""
	if got, why := truthOfRule(t, `client.name == ""`, v); got != isTrue {
		t.Errorf("no name: %d %q", got, why)
	}
	v.Client.NameUnknown = "look up the name: timeout"
	if got, why := truthOfRule(t, `client.name == ""`, v); got != unknown || why != "the client's name is unknown: look up the name: timeout" {
		t.Errorf("name unknown: %d %q", got, why)
	}
}

func TestHitOfOtherSteps(t *testing.T) {
	v := view(t)
	v.Hits = []pipeline.Hit{{Step: "early", At: 1, Name: "foe"}, {Step: "trial", At: 0, Name: "maybe", Shadow: true}}
	v.Undecided = []pipeline.Undecided{{Step: "trial", At: 1, Name: "foe"}, {Step: "early", At: 0, Name: "friend", Why: "dmarc unavailable"}}
	for _, tt := range []struct {
		when string
		want truth
		why  string
	}{
		{`hit("early.foe")`, isTrue, ""},
		{`hit("early.friend")`, unknown, "early.friend undecided"},
		{`hit("early.friend") or hit("early.foe")`, isTrue, ""},
	} {
		if got, why := truthOfRule(t, tt.when, v); got != tt.want || why != tt.why {
			t.Errorf("%s: got %d %q, want %d %q", tt.when, got, why, tt.want, tt.why)
		}
	}
	v.Hits[0].Shadow = true
	if got, why := truthOfRule(t, `hit("early.foe")`, v); got != unknown || why != "early.foe is a shadow rule" {
		t.Errorf("a shadow rule must not change a live one: got %d %q", got, why)
	}
	v.Hits, v.Undecided = nil, nil
	if got, _ := truthOfRule(t, `hit("early.foe")`, v); got != isFalse {
		t.Errorf("without a hit: got %d", got)
	}
	v.Facts["early"] = pipeline.Finding{Unknown: errors.New("panic: x")}
	if got, why := truthOfRule(t, `hit("early.foe")`, v); got != unknown || why != "early unavailable: panic: x" {
		t.Errorf("of a step that failed: got %d %q", got, why)
	}
}

func TestGroups(t *testing.T) {
	stages := stagesOf(t, Config{Reject: 15, Quarantine: 8, Junk: 5, JunkFolder: "Junk"}, `
rules:
  - {name: zen, when: dnsbl.zen.listed, reject: true}
  - {name: sbl, when: dnsbl.sbl.listed, quarantine: true, score: 3}
  - {name: helo, when: helo contains "x", score: 1}
  - {name: me, when: 'rcpt.local == "me"', keep: true}
  - {name: full, when: quota.used > 99, tempfail: true}
  - {name: forged, when: 'dmarc.result == "fail"', reject: true}
  - {name: header, when: has("X"), score: 2}
  - {name: both, when: 'has("X") and rcpt.tag == "x"', file: X}
  - {name: via_hit, when: 'hit("header") and client.trusted', flag: x}
  - {name: always, when: true, header: {X-Seen: "1"}}
`)
	var got []string
	for _, s := range stages {
		r := s.Reads()
		var names []string
		if st, ok := s.(*stage); ok {
			for _, x := range st.rules {
				names = append(names, x.name)
			}
		}
		got = append(got, fmt.Sprintf("%v [%s] facts %v can %v", names, r.Input, r.Facts, r.Can))
	}
	want := []string{
		"[sbl always] [] facts [dnsbl] can [{1 quarantine}]",
		"[helo] [greeting] facts [] can []",
		"[header via_hit] [client|header] facts [] can []",
		"[] [header] facts [rules] can [{10 reject} {10 quarantine}]",
		"[zen] [] facts [dnsbl] can [{0 reject}]",
		"[me] [recipient] facts [] can [{3 keep}]",
		"[full] [recipient] facts [quota] can [{4 tempfail}]",
		"[forged] [] facts [dmarc] can [{5 reject}]",
		"[both] [recipient|header] facts [] can []",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestThresholds(t *testing.T) {
	c := Config{Reject: 15, Quarantine: 8, Junk: 5, JunkFolder: "Spam"}
	find := func(rules string) (all []*thresholdStage) {
		for _, s := range stagesOf(t, c, rules) {
			if th, ok := s.(*thresholdStage); ok {
				all = append(all, th)
			}
		}
		return all
	}
	const header = "rules:\n  - {name: a, when: has(\"X\"), score: 1}\n  - {name: b, when: true, score: 9, shadow: true}\n"
	one := find(header)
	if len(one) != 1 {
		t.Fatalf("got %d stages for thresholds", len(one))
	}
	for _, tt := range []struct {
		scores []float64
		action pipeline.Action
		junk   bool
	}{
		{[]float64{4.999}, pipeline.Pass, false},
		{[]float64{5}, pipeline.Pass, true},
		{[]float64{0.1, 0.2, 4.7}, pipeline.Pass, true}, // 4.999999999999999 in binary
		{[]float64{8}, pipeline.Quarantine, false},
		{[]float64{14, 1}, pipeline.Reject, false},
		{[]float64{20, -18}, pipeline.Pass, false},
		{nil, pipeline.Pass, false},
	} {
		v := pipeline.View{Hits: []pipeline.Hit{{At: 1, Name: "b", Score: 9, Shadow: true}}}
		for _, x := range tt.scores {
			v.Hits = append(v.Hits, pipeline.Hit{At: 0, Name: "a", Score: x})
		}
		r, err := one[0].Check(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict.Action != tt.action || (len(r.Effects) == 1) != tt.junk {
			t.Errorf("%v: got %+v", tt.scores, r)
		}
		if r.Verdict.Action != pipeline.Pass && (r.Verdict.At != 2 || r.Verdict.Reason == "" || r.Verdict.By != "") {
			t.Errorf("%v: %+v", tt.scores, r.Verdict)
		}
		if tt.junk && !reflect.DeepEqual(r.Effects[0], pipeline.Effect{At: 2, Kind: pipeline.FileInto, Folder: "Spam", Threshold: true, Reason: "score 5 reaches junk: 5"}) {
			t.Errorf("%v: %+v", tt.scores, r.Effects[0])
		}
	}
	// Where the refusal might not count, the others still do.
	two := find("rules:\n  - {name: a, when: dnsbl.zen.listed, score: 20}\n")
	if len(two) != 2 || two[0].Reads().Can[0] != (pipeline.Final{At: 1, Action: pipeline.Reject}) ||
		two[1].Reads().Can[0] != (pipeline.Final{At: 2, Action: pipeline.Quarantine}) {
		t.Errorf("got %+v", two)
	}
	if none := find("rules:\n  - {name: a, when: true, score: 20, shadow: true}\n"); none != nil {
		t.Errorf("nothing scores: got %+v", none)
	}
	c = Config{}
	if none := find(header); none != nil {
		t.Errorf("no thresholds: got %+v", none)
	}
}

func TestEvidenceIsClean(t *testing.T) {
	stages := stagesOf(t, Config{}, "rules:\n  - name: a\n    when: header(\"X-Long\") contains \"needle\" and not (subject contains \"zzz\") and \"127.0.0.2\" in dnsbl.zen.codes\n")
	v := view(t)
	v.Message = message(t, "X-Long: "+strings.Repeat("hay ", 50)+"\x1b[31mneedle\xff "+strings.Repeat("hay ", 50)+"\n\nx\n")
	hits := decide(t, stages, v).Hits
	if len(hits) != 1 || len(hits[0].Evidence) != 2 {
		t.Fatalf("got %+v", hits)
	}
	e := hits[0].Evidence[0]
	if e.Where != `header("X-Long") contains "needle"` || !strings.HasPrefix(e.What, "…ay hay hay hay ") || !strings.Contains(e.What, "needle") ||
		strings.ContainsAny(e.What, "\x1b") || len([]rune(e.What)) > maxShown {
		t.Errorf("got %+v", e)
	}
	if e := hits[0].Evidence[1]; e.What != "127.0.0.2, 127.0.0.4" {
		t.Errorf("got %+v", e)
	}
}

// Nothing of one mail is seen in the next.
func TestStatesAreClean(t *testing.T) {
	st := stagesOf(t, Config{}, `
rules:
  - name: a
    when: header("X-A") == "" and subject == "" and not has("X-A") and header_from.count == 0
  - name: b
    when: not dnsbl.zen.listed
`)
	full, empty := view(t), view(t)
	full.Message = message(t, "Subject: s\nX-A: a\nFrom: a@b.example\n\nx\n")
	empty.Message = message(t, "To: x\n\nx\n")
	empty.Facts = pipeline.Facts{"dnsbl": {Fact: pipeline.Named[listed]{"zen": {}, "sbl": {}}}}
	for range 20 {
		if got := decide(t, st, full); len(got.Hits) != 0 {
			t.Fatalf("full: %+v", got.Hits)
		}
		if got := decide(t, st, empty); len(got.Hits) != 2 {
			t.Fatalf("empty: %+v", got)
		}
	}
}

func TestLongValuesAreCut(t *testing.T) {
	stages := stagesOf(t, Config{Limits: Limits{MaxValue: 10}}, "rules:\n  - {name: a, when: 'subject endsWith \"é\" and header(\"X\") == \"0123456789\"'}\n")
	v := view(t)
	v.Message = message(t, "Subject: 12345678éé\nX: 0123456789abc\n\nx\n")
	if got := decide(t, stages, v); len(got.Hits) != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestCheckHeedsItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	st := stagesOf(t, Config{}, "rules:\n  - {name: a, when: true}\n")[0]
	if _, err := st.Check(ctx, pipeline.View{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestPlan(t *testing.T) {
	inline, err := ParseInline("- {name: a, when: 'client.ip == \"192.0.2.7\"', reject: 5.7.1 go away}\n- {name: b, when: has(\"X-B\"), score: 5}\n")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Rules: inline, Junk: 5, JunkFolder: "Junk"}
	plan, err := pipeline.NewPlan([]pipeline.Step{{Kind: Kind(), Config: &c}}, pipeline.Env{}, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	deliver := func(ip string) (refused *pipeline.Reply, d pipeline.Decision) {
		ctx := context.Background()
		s := plan.NewSession(pipeline.SMTP, pipeline.Client{Addr: netip.MustParseAddr(ip)})
		defer s.Close()
		s.Connect(ctx)
		s.Helo(ctx, "x")
		if _, r := s.Mail(ctx, address(t, "a@example.net")); r != nil {
			return r, d
		}
		if r := s.Rcpt(ctx, pipeline.Recipient{Address: address(t, "b@example.org")}); r != nil {
			return r, d
		}
		if r := s.Data(ctx); r != nil {
			return r, d
		}
		return nil, s.Content(ctx, message(t, "X-B: 1\n\nx\n"))[0]
	}
	if r, _ := deliver("192.0.2.7"); r == nil || r.String() != "550 5.7.1 go away" {
		t.Errorf("got %v", r)
	}
	if r, d := deliver("192.0.2.8"); r != nil || d.Folder != "Junk" || !d.Junk || d.Score != 5 {
		t.Errorf("got %v %+v", r, d)
	}
	// The plan's version follows the rules.
	c2 := c
	if c2.Rules, err = ParseInline("- {name: a, when: true}"); err != nil {
		t.Fatal(err)
	}
	other, err := pipeline.NewPlan([]pipeline.Step{{Kind: Kind(), Config: &c2}}, pipeline.Env{}, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Version() == other.Version() {
		t.Error("two plans with other rules have one version")
	}
}

// One stage answers many transactions at once.
func TestConcurrentCalls(t *testing.T) {
	stages := stagesOf(t, Config{}, someRules)
	v := view(t)
	want := decide(t, stages, v)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				for _, st := range stages {
					if _, err := st.Check(context.Background(), v); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if got := decide(t, stages, v); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What is refused for some does not hold others up, and a keep further up goes first.
func TestRecipientsInAPlan(t *testing.T) {
	inline, err := ParseInline(`
- {name: friend, when: 'rcpt.local == "friend"', keep: true}
- {name: no, when: 'has("X-B")', score: 9}
- {name: mine, when: 'rcpt.tag == "lists" and has("X-B")', file: Lists}
- {name: bank, when: 'rcpt.local == "strict" and has("X-B")', reject: 5.7.1 not for me}
`)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pipeline.NewPlan([]pipeline.Step{{Kind: Kind(), Config: &Config{Rules: inline, Quarantine: 8, Junk: 5, JunkFolder: "Junk"}}}, pipeline.Env{}, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	s := plan.NewSession(pipeline.SMTP, pipeline.Client{Addr: netip.MustParseAddr("192.0.2.7")})
	defer s.Close()
	s.Helo(ctx, "x")
	if _, r := s.Mail(ctx, address(t, "a@example.net")); r != nil {
		t.Fatal(r)
	}
	for _, to := range []string{"friend+lists@example.org", "strict@example.org", "other@example.org"} {
		if r := s.Rcpt(ctx, pipeline.Recipient{Address: address(t, to)}); r != nil {
			t.Fatal(r)
		}
	}
	if r := s.Data(ctx); r != nil {
		t.Fatal(r)
	}
	var got []string
	for _, d := range s.Content(ctx, message(t, "X-B: 1\n\nx\n")) {
		got = append(got, fmt.Sprintf("%s %s by %q folder %q score %v", d.Recipient.Address, d.Verdict.Action, d.Verdict.By, d.Folder, d.Score))
	}
	want := []string{
		`friend+lists@example.org keep by "friend" folder "Lists" score 9`,
		`strict@example.org reject by "bank" folder "" score 9`,
		`other@example.org quarantine by "" folder "" score 9`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

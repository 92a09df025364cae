package rules

import (
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

type testedFact struct {
	Listed bool     `json:"listed" expr:"listed"`
	Count  int      `json:"count" expr:"count"`
	Names  []string `json:"names" expr:"names"`
}

const testedRules = `rules:
  - {name: listed, when: scan.listed, score: 4}
  - {name: many, when: scan.count > 3 or "x" in scan.names, reject: 5.7.1 no}
  - {name: news, when: has("List-Id") and rcpt.domain == "example.org", file: Lists}
  - {name: login, when: client.login != "" and header("X-Big") == "", score: 2}
  - {name: trial, when: subject contains "x", reject: true, shadow: true}
  - {name: night, when: received.hour >= 22 or received.hour < 6}
  - {name: ahead, when: date > received + days(2)}
  - {name: secret, when: client.tls != "" and client.trusted}
`

// make reads rules with these tests and returns what is wrong.
func tested(t *testing.T, tests string) string {
	t.Helper()
	env := pipelinetest.Env(t)
	env.Name = "rules"
	env.Files = pipelinetest.Files{
		"rules/a.yaml":   testedRules + "tests:\n" + tests,
		"rules/news.eml": "From: a@example.com\nList-Id: <x>\nSubject: x\n\nnews\n",
	}.Open
	env.Before = []pipeline.Before{{Name: "scan", Kind: "scan", Fact: testedFact{}, Phase: pipeline.Mail}, {Name: "rules", Kind: "rules"}}
	_, err := New(Config{Files: []string{"rules/*.yaml"}, Junk: 5, JunkFolder: "Junk"}, env)
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestTestsAreRun(t *testing.T) {
	for name, tt := range map[string]struct{ test, want string }{
		"a hit":                  {"{name: t, mail: {facts: {scan: {listed: true}}}, expect: {hit: [listed], miss: [many]}}", ""},
		"no hit":                 {"{name: t, mail: {facts: {scan: {listed: false}}}, expect: {hit: [listed]}}", "the test `t` fails: rule `listed` should hold, but it does not hold: `scan.listed` was false"},
		"undecided":              {"{name: t, mail: {}, expect: {hit: [listed]}}", "rule `listed` should hold, but it is undecided: scan unavailable"},
		"unknown in part":        {"{name: t, mail: {facts: {scan: {count: 1}}}, expect: {hit: [listed]}}", "rule `listed` should hold, but it is undecided: scan.listed unavailable"},
		"a miss":                 {"{name: t, mail: {facts: {scan: {listed: true}}}, expect: {miss: [listed]}}", "rule `listed` should not hold, but it does: `scan.listed` was true"},
		"a verdict":              {"{name: t, mail: {facts: {scan: {count: 4}}}, expect: {verdict: reject}}", ""},
		"another verdict":        {"{name: t, mail: {facts: {scan: {count: 4}}}, expect: {verdict: pass}}", "the verdict for recipient@example.org is reject by `many`, not pass"},
		"a list":                 {"{name: t, mail: {facts: {scan: {names: [x], count: 0}}}, expect: {verdict: reject}}", ""},
		"a shadow rule":          {"{name: t, mail: {headers: {Subject: a x}}, expect: {hit: [trial], verdict: pass}}", ""},
		"a folder":               {"{name: t, mail: {headers: {List-Id: <x>}}, expect: {folder: Lists}}", ""},
		"the inbox":              {"{name: t, mail: {}, expect: {folder: INBOX}}", ""},
		"another folder":         {"{name: t, mail: {headers: {List-Id: <x>}}, expect: {folder: INBOX}}", "the folder for recipient@example.org is Lists, not INBOX"},
		"each its own":           {"{name: t, mail: {rcpts: [a@example.org, b@example.com], headers: {List-Id: <x>}}, expect: {folder: {a@example.org: Lists, b@example.com: INBOX}}}", ""},
		"not each its own":       {"{name: t, mail: {rcpts: [a@example.org, b@example.com], headers: {List-Id: <x>}}, expect: {folder: {b@example.com: Lists}}}", "the folder for b@example.com is INBOX, not Lists"},
		"no recipient":           {"{name: t, mail: {}, expect: {verdict: {b@example.com: pass}}}", "b@example.com is no recipient of this test"},
		"by scores":              {"{name: t, mail: {client: {login: me@example.org}, facts: {scan: {listed: true}}}, expect: {hit: [listed, login], folder: Junk}}", ""},
		"a file":                 {"{message: news.eml, expect: {hit: [news, trial], folder: Lists}}", ""},
		"a file that fails":      {"{message: news.eml, expect: {miss: news}}", "the test `news.eml` fails: rule `news` should not hold"},
		"no file":                {"{message: none.eml, expect: {miss: news}}", "no such file"},
		"a fact of another type": {"{name: t, mail: {facts: {scan: {count: many}}}, expect: {miss: news}}", "`scan.count` cannot be that: it is not a number"},
		"no address":             {"{name: t, mail: {rcpts: ['a@']}, expect: {miss: news}}", `"a@" is no address`},
		"by night":               {"{name: t, received: 2026-11-21 23:10, mail: {}, expect: {hit: night, miss: ahead}}", ""},
		"in a zone of its own":   {"{name: t, received: '2026-11-21T23:10:00+12:00', mail: {}, expect: {miss: night}}", "rule `night` should not hold, but it does"},
		"whenever":               {"{name: t, mail: {}, expect: {hit: night}}", "rule `night` should hold, but it is undecided: nobody has noted when it came"},
		"the future":             {"{name: t, received: '2026-11-21 13:10', mail: {headers: {Date: 'Fri, 27 Nov 2026 03:30:00 +0530'}}, expect: {hit: ahead, miss: night}}", ""},
		"no time":                {"{name: t, received: tonight, mail: {}, expect: {hit: night}}", `"tonight" is no time; write for example`},
		"a trusted client":       {"{name: t, mail: {client: {trusted: true, tls: TLSv1.3}}, expect: {hit: secret}}", ""},
		"a client in cleartext":  {"{name: t, mail: {client: {trusted: true}}, expect: {hit: secret}}", "rule `secret` should hold, but it does not hold"},
		"without a name":         {"{mail: {}, expect: {folder: Lists}}", "the test fails: the folder for recipient@example.org is INBOX, not Lists"},
		"which term":             {"{mail: {headers: {List-Id: <x>}, rcpts: [b@example.com]}, expect: {hit: news}}", "it does not hold: `rcpt.domain == \"example.org\"` was false"},
		"several at once":        {"{name: t, mail: {}, expect: {hit: [news, login]}}", "rule `login` should hold"},
	} {
		t.Run(name, func(t *testing.T) {
			got := tested(t, "  - "+tt.test+"\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
			if got != "" && !strings.Contains(got, "rules/a.yaml:11:") {
				t.Errorf("%s\nnames no line", got)
			}
		})
	}
}

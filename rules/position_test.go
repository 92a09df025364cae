package rules

import (
	"testing"

	"sluice/pipeline"
)

func TestPosition(t *testing.T) {
	v := view(t)
	v.Message = message(t, "From: Eve <eve@bad.example>\nSubject: =?utf-8?q?=C3=BCber_free_money?=\nX-One: one two\n\nbody\n")
	for when, want := range map[string]pipeline.Position{
		`subject contains "free"`:                                 {Field: "Subject", Line: 1, Column: 6},
		`subject matches "(?i)MONEY"`:                             {Field: "Subject", Line: 1, Column: 11},
		`subject != ""`:                                           {Field: "Subject"},
		`header("X-One") endsWith "two"`:                          {Field: "X-One"},
		`header_from.domain == "bad.example"`:                     {Field: "From"},
		`subject == header("X-Two") or subject startsWith "über"`: {Field: "Subject"},
		`spf.result == "fail"`:                                    {},
		`header("x-one") matches "t.o"`:                           {Field: "X-One", Line: 1, Column: 5},
	} {
		hits := decide(t, stagesOf(t, Config{}, "rules:\n  - name: a\n    when: "+quote(when)+"\n"), v).Hits
		if len(hits) != 1 || len(hits[0].Evidence) != 1 {
			t.Errorf("%s: %+v", when, hits)
			continue
		}
		if got := hits[0].Evidence[0].Position; got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	for want, p := range map[string]pipeline.Position{
		"":                                    {},
		"Subject, character 14":               {Field: "Subject", Line: 1, Column: 14},
		"Subject":                             {Field: "Subject"},
		"text, part 1.2, line 3, character 1": {Field: "text", Part: "1.2", Line: 3, Column: 1},
	} {
		if got := p.String(); got != want {
			t.Errorf("%+v is %q, want %q", p, got, want)
		}
	}
}

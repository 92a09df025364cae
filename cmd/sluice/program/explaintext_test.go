package program

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

func TestFold(t *testing.T) {
	for _, tt := range []struct {
		s     string
		width int
		want  string
	}{
		{"one two three", 0, "one two three"},
		{"one two three", 13, "one two three"},
		{"one two three", 12, "one two|three"},
		{"one two three", 7, "one two|three"},
		{"one two three", 5, "one|two|three"},
		{"aaaaaaaaaa b", 4, "aaaa|aaaa|aa b"},
		{"ääää öö üü", 7, "ääää öö|üü"},
		{"", 5, ""},
	} {
		if got := strings.Join(fold(tt.s, tt.width), "|"); got != tt.want {
			t.Errorf("%q in %d: %q, want %q", tt.s, tt.width, got, tt.want)
		}
	}
}

// The same text in a pipe, on a terminal of 60 columns, and with colours.
func TestTextOfARecord(t *testing.T) {
	most := 4.0
	group := &pipeline.Group{Name: "looks", Max: &most}
	r := &pipeline.Record{
		ID: "m1", Received: time.Unix(1795327200, 0).UTC(), Door: pipeline.SMTP, End: "done", Subject: "for \x1b[31myou",
		Steps: []pipeline.StepRecord{
			{Name: "spf", Kind: "spf", Fact: json.RawMessage(`{"result":"pass","domain":"a.example","record":"v=spf1 ` +
				strings.Repeat("ip4:192.0.2.0/24 ", 20) + `-all","reason":"","lookups":0}`)},
			{Name: "dnsbl", Kind: "dnsbl", Fact: json.RawMessage(`{"zen":{"listed":true,"codes":["127.0.0.2"]}}`), Missing: map[string]string{"sbl": "timeout"}},
			{Name: "rules", Kind: "rules", At: 2, Hits: []pipeline.Hit{
				{Name: "one", Score: 3, Group: group, Evidence: []pipeline.Evidence{
					{Where: `text contains "win"`, What: "you win", Position: pipeline.Position{Field: "text", Part: "1.2", Line: 3, Column: 5}},
				}},
				{At: 1, Name: "two", Score: 3, Group: group},
			}},
		},
		Recipients: []pipeline.RecipientRecord{{
			Recipient: pipeline.Recipient{Address: pipeline.Address{Raw: "me@x.example", Local: "me", Domain: "x.example"}},
			Verdict:   pipeline.Verdict{At: 2, Action: pipeline.Quarantine}, Step: "rules", Disposition: pipeline.Held, Score: 4,
		}},
	}
	more := &insight{With: "the mail", Without: []counterfactual{{Recipient: "me@x.example", Decider: "rules", Outcome: "delivered to INBOX", Disposition: pipeline.Delivered}},
		Near: []nearMiss{{Step: "rules", Rule: "almost", Term: `spf.result == "fail"`, Came: "false", Place: "spam.yaml:3:4", Action: pipeline.Reject}}}
	show := func(x text) string {
		var b strings.Builder
		x.w, x.more = &b, more
		x.record(r, nil)
		return b.String()
	}
	want := `m1
  recipients
    me@x.example
      outcome    quarantined
      decided by rules: quarantine
      without    rules it would have been delivered to INBOX
      score      4 = 3 one + 1 two
  mail
    received   2026-11-22T06:00:00Z at smtp
    client     unknown
    from       <>
    subject    for \x1b[31myou
    end        done
  rules that held
    rules/one                    3
      text contains "win": you win (text, part 1.2, line 3, character 5)
    rules/two                    3, of which 1 counts: group looks adds at most 4
  rules that nearly held
    rules/almost                 ` + "`spf.result == \"fail\"`" + ` was false, reject (spam.yaml:3:4)
  facts
    spf
      result           pass
      domain           a.example
      record           "v=spf1 ` + strings.Repeat("ip4:192.0.2.0/24 ", 20) + `-all"
      the rest is empty, 0 or false
    dnsbl                        {zen: {listed: true, codes: [127.0.0.2]}}
    dnsbl.sbl                    unknown: timeout
  replay     with the mail: as recorded
`
	if got := show(text{}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	narrow := show(text{width: 60})
	for line := range strings.Lines(narrow) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 60 {
			t.Errorf("%d characters in a line: %s", n, line)
		}
	}
	if got, want := strings.Fields(narrow), strings.Fields(want); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("folded, it says something else:\n%s", narrow)
	}
	coloured := show(text{colour: true})
	for _, want := range []string{"\x1b[35mquarantined\x1b[0m\n", "\x1b[1mrules: quarantine\x1b[0m", "\x1b[33munknown: timeout\x1b[0m", `for \x1b[31myou`} {
		if !strings.Contains(coloured, want) {
			t.Errorf("%q is not in\n%s", want, coloured)
		}
	}
}

func TestLongValues(t *testing.T) {
	raw := json.RawMessage(`{"a":"` + strings.Repeat("x", longValue+7) + `"}`)
	for full, want := range map[bool]string{
		false: strings.Repeat("x", longValue) + "… (7 more characters: --full shows them)",
		true:  strings.Repeat("x", longValue+7),
	} {
		var b strings.Builder
		(&text{w: &b, full: full}).fact(0, "step", raw, "")
		if got := strings.Fields(b.String()); strings.Join(got[2:], " ") != want {
			t.Errorf("full %v: %s", full, b.String())
		}
	}
	var b strings.Builder
	t2 := &text{w: &b}
	t2.fact(0, "deep", json.RawMessage(strings.Repeat("[", 200)+strings.Repeat("]", 200)), "")
	t2.fact(0, "none", json.RawMessage(`{"a":`), "")
	t2.fact(0, "zero", json.RawMessage(`{"b":[],"c":{"d":""},"e":0,"f":false`+strings.Repeat(`,"g":""`, 50)+`}`), "")
	if !strings.Contains(b.String(), "[[[[") || !strings.Contains(b.String(), `{"a":`) || !strings.Contains(b.String(), "all is empty, 0 or false") {
		t.Errorf("got\n%s", b.String())
	}
}

func FuzzFact(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,"x\u001b",null,true]},"c":1e400}`), 20)
	f.Add([]byte(`[`), 0)
	f.Fuzz(func(t *testing.T, raw []byte, width int) {
		var b strings.Builder
		x := &text{w: &b, width: min(max(width, 0), 200)}
		x.fact(1, "step", raw, "")
		if x.err != nil || strings.ContainsRune(b.String(), '\x1b') || !strings.HasPrefix(b.String(), "  step") {
			t.Errorf("%q, %v", b.String(), x.err)
		}
	})
}

package rules

import (
	"context"
	"strings"
	"testing"

	"sluice/pipeline"
)

// What held says which item it was, and what a function was asked about.
func TestItemEvidence(t *testing.T) {
	v := exampleView(t)
	v.Facts["scan"] = view(t).Facts["scan"]
	for when, want := range map[string]pipeline.Evidence{
		`any(attachments, .extension == "exe" and .size < 10)`:                               {What: "Invoice.PDF.exe (extension exe, size 2)", Position: pipeline.Position{Field: "attachments"}},
		`any(links, .domain == "evil.example")`:                                              {What: "https://www.evil.example/x (domain evil.example)", Position: pipeline.Position{Field: "links"}},
		`one(links, .text == "here")`:                                                        {What: "https://www.evil.example/x (text here)", Position: pipeline.Position{Field: "links"}},
		`any(links, .url startsWith "http:")`:                                                {What: "http://www.news.example", Position: pipeline.Position{Field: "links"}},
		`any(rcpts, .local == "info")`:                                                       {What: "info@example.org (local info)"},
		`any(headers("received"), # contains "dialup")`:                                      {What: "from dialup-7.example by relay.example; Sat, 21 Nov 2026 23:09:00 +0000", Position: pipeline.Position{Field: "Received"}},
		`any(scan.files, .size > 10 and any(.members, .name endsWith ".exe" and .size > 3))`: {What: "invoice.exe (size 7000, members run.exe, b)"},
		`any(1..20, # > 7)`:                                                                  {What: "8"},
		`in_network(client.ip, "192.0.2.0/24")`:                                              {What: "192.0.2.7"},
		`under(client.name, "news.example")`:                                                 {What: "mx.news.example"},
		`has_word(text, "nothing", "free")`: {
			What: "this is a free offer, act now. another free offer: see www.news.example https://bank.example/ or h…", Position: pipeline.Position{Field: "text", Line: 1, Column: 11},
		},
		`date > received + days(2)`:                                  {What: "2026-11-26T22:00:00Z", Position: pipeline.Position{Field: "Date"}},
		`received + days(2) < date`:                                  {What: "2026-11-23T23:10:00Z"},
		`other_address(header_from.name, header_from.address) != ""`: {What: "info@paypal.example", Position: pipeline.Position{Field: "From"}},
		`entropy(from.local) > 2`:                                    {What: "3.322"},
	} {
		c, env := exampleEnv("rules: [{name: r, when: " + quote(when) + "}]")
		env.Before = append(env.Before, pipeline.Before{Name: "scan", Kind: "scan", Fact: scanFact{}})
		stages, err := New(c, env)
		if err != nil {
			t.Fatal(err)
		}
		r, err := stages[0].Check(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Hits) != 1 || len(r.Hits[0].Evidence) != 1 {
			t.Errorf("%s: got %+v", when, r)
			continue
		}
		got := r.Hits[0].Evidence[0]
		want.Where = when
		got.What = strings.ReplaceAll(got.What, "  ", " ")
		if got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", when, got, want)
		}
	}
}

package rules

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// exampleMail is what the examples of the reference are about.
const exampleMail = `Received: from relay.example by mx.example.org; Sat, 21 Nov 2026 23:10:00 +0000
Received: from dialup-7.example by relay.example; Sat, 21 Nov 2026 23:09:00 +0000
From: "Your Bank <info@paypal.example>" <jane.doe@bank.example>
To: user@example.org
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= from your bank!!!
Date: Fri, 27 Nov 2026 03:30:00 +0530
Message-ID: <42@news.example>
List-Id: Offers <Offers.Bank.Example>
X-Mailer: Mass Mail 3
X-Priority: 1
X-Spam-Score: 8.25
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

This is a free offer, ACT NOW. Another Free Offer: see www.news.example
--b
Content-Type: text/html

<form><a href="http://198.51.100.1/login.php">https://bank.example/</a> or <a href="https://www.evil.example/x">here</a></form>
--b
Content-Type: application/pdf; name="Invoice.PDF.exe"
Content-Disposition: attachment

MZ
--b
Content-Type: text/plain; name=terms.txt
Content-Disposition: attachment

pay
--b--
`

// exampleView is a transaction with that mail.
func exampleView(t testing.TB) pipeline.View {
	text := strings.ReplaceAll(exampleMail, "\n", "\r\n")
	text = strings.Replace(text, "ACT NOW.", "ACT NOW.\n", 1) // a bare LF
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	to := []pipeline.Recipient{{Address: address(t, "user+lists@example.org")}, {Address: address(t, "info@example.org")}}
	return pipeline.View{
		Phase: pipeline.Content,
		Envelope: pipeline.Envelope{
			Received: time.Date(2026, 11, 21, 23, 10, 0, 0, time.UTC),
			Client:   pipeline.Client{Addr: netip.MustParseAddr("192.0.2.7"), Name: "mx.news.example", TLS: "TLSv1.3"},
			Greeting: "mail.news.example", Sender: address(t, "bounce-Xq7+42@news.example"), Recipients: to,
		},
		Rcpt: to[0], Message: m,
		Facts: pipeline.Facts{
			"spf":   {Fact: spfFact{Result: "fail", Domain: "news.example"}},
			"dmarc": {Unknown: pipeline.ErrNotAsked},
			"early": {}, "rules": {},
		},
		Hits: []pipeline.Hit{{Step: "early", At: 0, Name: "known_sender"}},
	}
}

func exampleEnv(rules string) (Config, pipeline.Env) {
	e := env(map[string]string{"x.yaml": rules})
	e.Before = []pipeline.Before{
		{Name: "spf", Kind: "spf", Fact: spfFact{}}, {Name: "dmarc", Kind: "dmarc", Fact: dmarcFact{}},
		{Name: "early", Kind: "rules", Rules: []string{"known_sender"}}, {Name: "rules", Kind: "rules"},
	}
	c := DefaultConfig()
	c.Files = []string{"x.yaml"}
	return c, e
}

const exampleRules = `lists:
  spam_words: {kind: words, values: [free offer, act now, viagra]}
  our_networks: {kind: networks, values: [192.0.2.0/24]}
  scams: {kind: regexes, values: ['bank!+$']}
rules:
  - {name: from_bank, when: 'header_from.domain == "bank.example"', score: 4}
  - {name: friend, when: 'false'}
`

// Every name, function and operator that the reference shows has an example, it reads what it is an example of, and it holds.
func TestExamplesHold(t *testing.T) {
	d, err := Describe(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	rules.WriteString(exampleRules)
	all := append(append(d.Names, d.Functions...), d.Operators...)
	list := ""
	for i, e := range all {
		fmt.Fprintf(&rules, "  - {name: e%d, when: %s}\n", i, quote(e.Example))
		for _, part := range e.uses(&list) {
			if !strings.Contains(e.Example, part) {
				t.Errorf("%s: the example is about something else: %s", e.Name, e.Example)
			}
		}
	}
	c, env := exampleEnv(rules.String())
	stages, err := New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	v := exampleView(t)
	held := map[string]bool{}
	undecided := map[string]string{}
	for _, st := range stages {
		// What earlier stages of the step found is what later ones see of it.
		r, err := st.Check(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range r.Hits {
			held[h.Name] = true
			h.Step = "rules"
			v.Hits = append(v.Hits, h)
		}
		for _, u := range r.Undecided {
			undecided[u.Name] = u.Why
		}
	}
	for i, e := range all {
		if name := fmt.Sprint("e", i); !held[name] {
			t.Errorf("%s: %s does not hold; %s", e.Name, e.Example, undecided[name])
		}
	}
}

// uses is what the example of an entry has in it. list is the list whose items are being described.
func (e Entry) uses(list *string) []string {
	first := e.Name[:strings.IndexFunc(e.Name+" ", func(r rune) bool { return r == ' ' || r == '(' })]
	name, field, dotted := strings.Cut(first, ".")
	switch {
	case first == "a..b":
		return []string{".."}
	case first == "condition":
		return []string{" ? ", " : "}
	case name == "#":
		return []string{*list, "." + field}
	case first == "==":
		return []string{"!="}
	case first == "<":
		return []string{">="}
	case field == "unix":
		return []string{name}
	case !dotted:
		*list = name
	}
	return []string{first}
}

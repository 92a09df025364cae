package rules

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"sluice/pipeline/mime"
)

// BenchmarkFunctions is what one condition costs on a mail that is parsed; `nothing` is what all around it costs.
func BenchmarkFunctions(b *testing.B) {
	for name, when := range map[string]string{
		"nothing":       `has("Subject")`,
		"under":         `under(client.name, "example.org", "example.net")`,
		"under_mail":    `under(client.name, from.domain)`,
		"in_network":    `in_network(client.ip, "198.51.100.0/24", "2001:db8::/32")`,
		"org":           `same_org(from.domain, client.name)`,
		"looks_like":    `looks_like(header_from.domain, "paypal.com", "example.org")`,
		"similarity":    `similarity(header_from.name, header_from.local) > 0.9`,
		"entropy":       `entropy(from.local) > 5`,
		"other_address": `other_address(header_from.name, header_from.address) == "x"`,
		"has_word":      `has_word(subject, "urgent", "final notice")`,
		"date":          `date > received + days(30)`,
		"hour":          `received.hour > 24`,
		"headers":       `any(headers("Received"), # contains "nowhere")`,
		"rcpts":         `any(rcpts, .local == "nobody")`,
	} {
		b.Run(name, func(b *testing.B) { benchmarkCondition(b, when, exampleMail, false) })
	}
}

// BenchmarkBody is what conditions cost that have the body worked out: a letter of 20 KB in HTML with 100 links. The parse of
// the mail is a part of it.
func BenchmarkBody(b *testing.B) {
	var body strings.Builder
	for i := range 100 {
		fmt.Fprintf(&body, "<p>An offer that is <a href=\"https://www.shop%d.example/path/to/it?id=%d\">hard to leave</a>, %s</p>\n", i, i, strings.Repeat("word ", 20))
	}
	mail := "From: a@b.example\nSubject: x\nMIME-Version: 1.0\nContent-Type: text/html\n\n" + body.String()
	for name, when := range map[string]string{
		"nothing":    `has("Subject")`,
		"settled":    `has("X-None") and text contains "nowhere"`,
		"text":       `text contains "nowhere"`,
		"lower":      `lower(text) contains "nowhere"`,
		"has_word":   `has_word(text, "nowhere")`,
		"count":      `count_matches(text, "offer|leave") > 1000`,
		"links":      `any(links, .domain == "nowhere.example")`,
		"looks_like": `any(links, looks_like(.host, "paypal.com", "example.org"))`,
		"anomalies":  `"utf-7" in anomalies`,
	} {
		b.Run(name, func(b *testing.B) { benchmarkCondition(b, when, mail, true) })
	}
}

func benchmarkCondition(b *testing.B, when, mail string, anew bool) {
	c, env := exampleEnv("rules: [{name: r, when: " + quote(when) + "}]")
	stages, err := New(c, env)
	if err != nil {
		b.Fatal(err)
	}
	v := exampleView(b)
	text := strings.ReplaceAll(mail, "\n", "\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if anew {
			if v.Message, err = mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{}); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := stages[0].Check(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPhishing is what the rules of examples/rules/phishing.yaml cost on the mail of examples/phishing.
func BenchmarkPhishing(b *testing.B) {
	rules, err := os.ReadFile("../examples/rules/phishing.yaml")
	if err != nil {
		b.Fatal(err)
	}
	mail, err := os.ReadFile("../examples/phishing/mail.eml")
	if err != nil {
		b.Fatal(err)
	}
	c, env := exampleEnv(string(rules))
	c.Timezone = "UTC"
	stages, err := New(c, env)
	if err != nil {
		b.Fatal(err)
	}
	v := exampleView(b)
	b.ReportAllocs()
	for b.Loop() {
		v.Message = message(b, string(mail))
		for _, st := range stages {
			if _, err := st.Check(b.Context(), v); err != nil {
				b.Fatal(err)
			}
		}
	}
}

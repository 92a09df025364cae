package rules

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/pipeline"
)

// benchWords are what the rules of the benchmark look for.
func benchWords() []string {
	return strings.Fields(`viagra cialis lottery jackpot inheritance bitcoin wallet casino roulette mortgage refinance pharmacy
		replica rolex diploma degree seduce dating webcam invoice overdue payment transfer western beneficiary consignment
		confidential urgent suspended verify password account security alert unsubscribe newsletter discount promo voucher
		giveaway winner prize reward survey gift card amazon paypal netflix dhl fedex parcel delivery customs refund tax
		crypto investment forex trading profit guaranteed miracle weight loss detox keto supplement testosterone enlargement`)
}

// thousandRules are rules as sites have them: half look at the subject or the body, with patterns mostly; the rest at
// fields, addresses, facts, named lists and each other. When hits is set each rule holds for the mail that hits.
func thousandRules(hits bool) string {
	var b strings.Builder
	b.WriteString(`lists:
  friends: {kind: addresses, values: [` + manyOf("friend%d@example.com", 500) + `]}
  partners: {kind: domains, values: [` + manyOf("partner%d.example", 500) + `, .example.edu]}
  office: {kind: networks, values: [` + manyOf("10.%d.0.0/16", 200) + `, "2001:db8::/32"]}
  spam_words: {kind: words, values: [` + manyOf("badword%d", 500) + `, act now, wire transfer]}
  scams: {kind: regexes, values: [` + manyOf(`'(?i)scam%d\s+offer'`, 200) + `]}
rules:
`)
	words := benchWords()
	for i := range 1000 {
		w := words[i%len(words)]
		x := fmt.Sprintf("%s%d", w, i) // of few mails, as most of what rules look for is
		if hits {
			x = w
		}
		var when string
		switch i % 20 {
		case 0:
			when = fmt.Sprintf(`has("X-%s-%d") and not has("List-Id")`, w, i)
		case 1:
			when = fmt.Sprintf(`header("X-Mailer") contains "%s"`, x)
		case 2:
			when = fmt.Sprintf("header(\"Reply-To\") matches `(?i)%s@` and from.domain != \"example.org\"", x)
		case 3, 4:
			when = fmt.Sprintf("subject matches `(?i)\\b%s\\b`", x)
		case 5:
			when = fmt.Sprintf(`lower(subject) contains "%s" and not client.trusted`, x)
		case 6, 7, 8:
			when = fmt.Sprintf("text matches `(?i)\\b%s\\b`", x)
		case 9:
			when = fmt.Sprintf("text matches `(?i)\\b%s\\s+(?:now|today|%s)`", x, words[(i+7)%len(words)])
		case 10:
			when = fmt.Sprintf("text matches `(?i)%s.{0,40}(?:free|click)` and size < 200_000", x)
		case 11:
			when = fmt.Sprintf(`lower(text) contains "%s" or lower(text) contains "%s offer"`, x, x)
		case 12:
			when = fmt.Sprintf(`text contains "%s" and spf.result == "fail"`, strings.ToUpper(x))
		case 13:
			when = fmt.Sprintf("html matches `(?i)href=.{0,80}%s`", x)
		case 14:
			when = fmt.Sprintf(`dnsbl.zen.listed and spf.result == "fail" and size > %d`, i)
		case 15:
			when = fmt.Sprintf(`from.domain == "%s.example" or header_from.domain endsWith ".%s.example"`, x, x)
		case 16:
			when = fmt.Sprintf(`hit("r%d") and dmarc.result == "fail"`, i-2)
		case 17:
			when = fmt.Sprintf(`rcpt.local == "user%d" and subject contains "%s"`, i, w)
		case 18:
			when = []string{"from.address in friends", "header_from.domain in partners", "client.ip in office",
				"subject contains spam_words", "text contains spam_words", "text matches scams"}[i/20%6] + fmt.Sprintf(` and size > %d`, 10*i)
		default:
			when = fmt.Sprintf(`any(headers("Received"), # contains "%s.example") or any(attachments, .extension == "%s")`, x, w)
		}
		fmt.Fprintf(&b, "  - {name: r%d, when: %s, score: 0.1}\n", i, quote(when))
	}
	return b.String()
}

func manyOf(format string, n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(all, ", ")
}

// benchMails are a letter of 10 KB that no rule is about, one that some are about, and one full of what rules look for.
func benchMails(tb testing.TB) map[string]pipeline.View {
	const prose = "Dear colleagues, please find below the minutes of our meeting on Tuesday, and what each of us has taken on until\n" +
		"the end of the month. Anna writes the chapter about moving house, Bert goes on with the garden, and I will see to it\n" +
		"that the old shed is painted before the rain comes. If you cannot make it next week, tell me in time.\n\n"
	letter := strings.Repeat(prose, 33)[:10_000]
	words := benchWords()
	some := letter[:4000] + "Claim your prize now, click here for a free voucher. Your parcel waits at customs: verify your account today.\n" + letter[:6000]
	var full strings.Builder
	for i, w := range words {
		fmt.Fprintf(&full, "%s now, %s %s offer for free; %s today: %s\n", w, w, words[(i+7)%len(words)], w, strings.ToUpper(w))
	}
	head := "From: A Friend <friend@example.net>\nTo: user@example.org\nReply-To: friend@example.net\nDate: Mon, 2 Nov 2026 10:00:00 +0100\n" +
		"Received: from mx.example.net by mx.example.org; Mon, 2 Nov 2026 10:00:00 +0100\nReceived: from a by b; Mon, 2 Nov 2026 10:00:00 +0100\n" +
		"Message-ID: <1@example.net>\nX-Mailer: Letters 1.0\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
	out := map[string]pipeline.View{}
	for name, text := range map[string]string{
		"misses": head + "Subject: minutes of our meeting\n\n" + letter,
		"some":   head + "Subject: your prize and your parcel\n\n" + some,
		"hits":   head + "Subject: " + strings.Join(words, " ") + "\n\n" + full.String() + letter[:10_000-min(full.Len(), 10_000)],
	} {
		v := view(tb)
		v.Message = message(tb, text)
		if name == "misses" {
			v.Facts["dnsbl"] = pipeline.Finding{Fact: pipeline.Named[listed]{"zen": {}, "sbl": {}}}
			v.Facts["spf"] = pipeline.Finding{Fact: spfFact{Result: "pass"}}
		}
		out[name] = v
	}
	return out
}

// BenchmarkThousand is what a thousand rules cost a mail of 10 KB: where none holds, where some do, and where most look
// for what is there; with literals looked for at once and cheap terms first, and without.
func BenchmarkThousand(b *testing.B) {
	for _, mail := range []string{"misses", "some", "hits"} {
		for _, plain := range []bool{false, true} {
			name := mail + "/prefilter"
			if plain {
				name = mail + "/plain"
			}
			b.Run(name, func(b *testing.B) {
				set := setOf(b, thousandRules(mail != "misses"), nil, func(s *ruleset) { s.plain = plain })
				stages := set.stages(thresholds{})
				v := benchMails(b)[mail]
				ctx := context.Background()
				held := 0
				b.ReportAllocs()
				began := used(b)
				for b.Loop() {
					held = 0
					for _, st := range stages {
						r, err := st.Check(ctx, v)
						if err != nil {
							b.Fatal(err)
						}
						held += len(r.Hits)
					}
				}
				b.ReportMetric(float64(used(b)-began)/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(held), "hits/op")
			})
		}
	}
}

// used is the processor time that the program has taken, which a busy machine changes less than what the clock says.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

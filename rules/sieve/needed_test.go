package sieve

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestNeeded(t *testing.T) {
	for _, tt := range []struct{ regex, want string }{
		{"invoice[- ]?[0-9]+", "invoice"},
		{"(invoice|bill|receipt) number", " number"},
		{"(invoice|bill|receipt) +", "invoice bill receipt"},
		{"(invoice|bill|) ", " "},
		{"a*|b", ""}, {"(abc)?", ""}, {"(abc){0,3}", ""}, {"(abc){2}x", "abc"}, {"(abc)+d", "abc"}, {".*", ""},
		{"Kisten", "ten"}, {"sks", ""}, {"Größe", "gr"}, {"[i]nvoice", "invoice"}, {"ABC|ABD", "ab"}, {"^unsubscribe$", "cribe"},
	} {
		e, wrong := compileRegex(tt.regex, asciiCasemap)
		if wrong != "" {
			t.Fatal(tt.regex, wrong)
		}
		if got := strings.Join(e.needs, " "); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s needs %q, want %q", tt.regex, got, tt.want)
		}
	}
}

// Whatever matches is possible, for random expressions and texts.
func TestNeededMisses(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(pieces []string, most int) string {
		var b strings.Builder
		for range 1 + r.IntN(most) {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		return b.String()
	}
	matched := 0
	for range 6000 {
		regex := random([]string{"a", "b", "k", "S", "ß", "ab", "Ak", "(a|b)", "(ka|b|)", "(bb|sa)", "a*", "b+", "(ab)?", "(ba){1,2}", "[ab]", ".", "(a|(b|kb))"}, 5)
		c := []comparator{asciiCasemap, octet}[r.IntN(2)]
		e, wrong := compileRegex(regex, c)
		if wrong != "" {
			t.Fatal(regex, wrong)
		}
		text := random([]string{"a", "b", "A", "B", "k", "K", "\u212a", "s", "\u017f", "ß", "ẞ", "\xff", "x"}, 8)
		if !e.re.MatchString(text) {
			continue
		}
		if matched++; !e.possible(lowerASCII(text)) {
			t.Errorf("%q matches %q, and was said not to: it needs %q", regex, text, e.needs)
		}
	}
	if matched < 500 {
		t.Errorf("only %d of them match", matched)
	}
}

// A body of which only a part is looked at says so, and an expression that takes too much says which.
func TestBodyLimits(t *testing.T) {
	mail := func(kind, text string) string { return "Subject: x\r\nContent-Type: " + kind + "\r\n\r\n" + text }
	for _, tt := range []struct {
		name, script, mail string
		l                  Limits
		note, failure      string
	}{
		{"all of it", `body :raw :contains "no"`, mail("text/plain", "12345"), Limits{Body: 5}, "", ""},
		{"raw", `body :raw :contains "no"`, mail("text/plain", "123456"), Limits{Body: 5}, "body: only the first 5 octets were looked at", ""},
		{"text", `body :text :contains "no"`, mail("text/plain", "123456"), Limits{Body: 5}, "body: only the first 5 octets were looked at", ""},
		{"HTML", `body :text :contains "no"`, mail("text/html", "<b><b><b>12"), Limits{Body: 5}, "body: only the first 5 octets were looked at", ""},
		{"two parts", `body :text :contains "no"`, mail("multipart/mixed; boundary=b", "--b\r\n\r\n123\r\n--b\r\n\r\n456\r\n--b--\r\n"), Limits{Body: 5},
			"body: only the first 5 octets were looked at", ""},
		{"content", `body :content "application" :contains "no"`, mail("application/x", "123456"), Limits{Body: 5}, "body: only the first 5 octets were looked at", ""},
		{"a word that is not there", `body :raw :regex "(other|words)[0-9]+"`, mail("text/plain", strings.Repeat("some ", 1<<19)), Limits{}, "", ""},
		{"a word that is there", `body :raw :regex "(other|some)[0-9]+"`, mail("text/plain", strings.Repeat("some ", 1<<19)), Limits{}, "",
			"the script does more than 1000000 instructions: this regular expression takes "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := outcome(t, `require ["body", "regex"]; if `+tt.script+` { discard; }`, (&world{}).input(t, tt.mail), tt.l)
			note, failure := "", ""
			if len(o.Notes) > 0 {
				note = o.Notes[0].Text
			}
			if o.Failure != nil {
				failure = o.Failure.Text
			}
			if note != tt.note || !strings.HasPrefix(failure, tt.failure) || (failure == "") != (tt.failure == "") || len(o.Notes) > 1 {
				t.Errorf("notes %v, failure %q", o.Notes, failure)
			}
		})
	}
}

package content

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestSender(t *testing.T) {
	c := config()
	c.Protect = []string{"paypal.com", "Jane Doe <jane@corp.example>", "My Bank <mybank.co.uk>", "microsoft.com"}
	const jane = `"Jane Doe" `
	for _, tt := range []struct {
		header string
		sender string
		rcpt   string
		want   Sender
	}{
		{"From: service@paypal.com", "", "", Sender{}},
		{"From: service@mail.paypal.com", "x@bounce.paypal.com", "", Sender{}},
		{"From: service@paypa1.com", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "confusable", LookalikeDomain: "paypa1.com", LookalikeIn: "From"}},
		{"From: service@xn--pypal-4ve.com", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "confusable", LookalikeDomain: "p\u0430ypal.com", LookalikeIn: "From", NonASCII: true, MixedScripts: true}},
		{"From: service@p\u00e1ypal.com", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "confusable", LookalikeDomain: "p\u00e1ypal.com", LookalikeIn: "From", NonASCII: true}},
		{"From: x@rnicrosoft.com", "", "", Sender{Lookalike: "microsoft.com", LookalikeHow: "confusable", LookalikeDomain: "rnicrosoft.com", LookalikeIn: "From"}},
		{"From: x@payypal.com", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "typo", LookalikeDomain: "payypal.com", LookalikeIn: "From"}},
		{"From: x@papyal.com", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "typo", LookalikeDomain: "papyal.com", LookalikeIn: "From"}},
		{"From: x@paypal.co", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "tld", LookalikeDomain: "paypal.co", LookalikeIn: "From"}},
		{"From: x@paypal.com.evil.example", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "embedded", LookalikeDomain: "paypal.com.evil.example", LookalikeIn: "From"}},
		{"From: x@paypal-login.example", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "embedded", LookalikeDomain: "paypal-login.example", LookalikeIn: "From"}},
		{"From: x@mybank.org.uk", "", "", Sender{Lookalike: "mybank.co.uk", LookalikeHow: "tld", LookalikeDomain: "mybank.org.uk", LookalikeIn: "From"}},
		{"From: a@b.example\nReply-To: x@paypa1.com", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "confusable", LookalikeDomain: "paypa1.com", LookalikeIn: "Reply-To", ReplyToForeign: true}},
		{"From: a@b.example", "x@paypa1.com", "", Sender{Lookalike: "paypal.com", LookalikeHow: "confusable", LookalikeDomain: "paypa1.com", LookalikeIn: "envelope"}},
		{"From: a@b.example\nReply-To: x@lists.b.example", "", "", Sender{}},
		{"From: a@paypal-fan.example.org, b@c.example", "", "", Sender{Lookalike: "paypal.com", LookalikeHow: "embedded", LookalikeDomain: "paypal-fan.example.org", LookalikeIn: "From"}},

		// The domains of recipients: not another top-level domain, nor a part of the name.
		{"From: a@exarnple.org", "", "me@example.org", Sender{Lookalike: "example.org", LookalikeHow: "confusable", LookalikeDomain: "exarnple.org", LookalikeIn: "From"}},
		{"From: a@exampl.org", "", "me@lists.example.org", Sender{Lookalike: "example.org", LookalikeHow: "typo", LookalikeDomain: "exampl.org", LookalikeIn: "From"}},
		{"From: a@example.com", "", "me@example.org", Sender{}},
		{"From: a@example-shop.com", "", "me@example.org", Sender{}},
		{"From: a@lists.example.org", "", "me@example.org", Sender{}},

		{"From: " + jane + "<jane@corp.example>", "", "", Sender{}},
		{"From: " + jane + "<jane+x@corp.example>", "", "", Sender{}},
		{"From: " + jane + "<jane.doe@gmail.example>", "", "", Sender{NameProtected: "Jane Doe"}},
		{"From: =?utf-8?q?J=D0=B0ne_D=C3=B6e?= <x@gmail.example>", "", "", Sender{NameProtected: "Jane Doe"}},
		{"From: \"JANE   DOE.\" <x@corp.example>", "", "", Sender{NameProtected: "Jane Doe"}},
		{"From: Jane Doeberry <x@corp.example>", "", "", Sender{}},
		{"From: My Bank <info@news.mybank.co.uk>", "", "", Sender{}},
		{"From: My Bank <info@b.example>", "", "", Sender{NameProtected: "My Bank"}},

		{`From: "boss@corp.example" <x@b.example>`, "", "", Sender{NameHasAddress: true, NameAddress: "boss@corp.example"}},
		{`From: "The Boss (boss@corp.example)" <x@b.example>`, "", "", Sender{NameHasAddress: true, NameAddress: "boss@corp.example"}},
		{`From: "x@B.example" <x@b.example>`, "", "", Sender{}},
		{`From: "meet @ noon" <x@b.example>`, "", "", Sender{}},
		{"From: undisclosed", "", "", Sender{}},
		{"Subject: none", "", "", Sender{}},
	} {
		var rcpts []string
		if tt.rcpt != "" {
			rcpts = []string{tt.rcpt}
		}
		got := check(t, c, tt.header+"\n\nx\n", tt.sender, rcpts...).Sender
		if got != tt.want {
			t.Errorf("%s\n got %+v\nwant %+v", tt.header, got, tt.want)
		}
	}
}

func TestProtect(t *testing.T) {
	c := config()
	c.Protect = []string{"nonsense", "<a@b.example>", "Jane <>", "Jane <@b.example>", "com"}
	_, err := newStage(c)
	if err == nil || strings.Count(err.Error(), "protect: ") != 5 {
		t.Errorf("%v", err)
	}
	c.Protect = nil
	c.Limits.Depth, c.Limits.Ratio = 0, 1
	if _, err := newStage(c); err == nil || err.Error() != "limits: depth: 0 is not between 1 and 16\nlimits: ratio: 1 is not between 2 and 100000" {
		t.Errorf("%v", err)
	}
}

const (
	english = "Dear all, this is the report that you have asked for. We will be in the office on Monday and it is not far from the station."
	german  = "Liebe Kolleginnen, das ist der Bericht, um den ihr mich gebeten habt. Wir sind am Montag nicht im Büro, aber es ist für die Sitzung auch nicht nötig."
	french  = "Bonjour à tous, voici le rapport que vous avez demandé. Nous ne sommes pas au bureau lundi, mais il est possible de nous joindre par la poste et dans les mails."
	russian = "Это отчёт, который вы просили. Мы не будем на работе в понедельник, но это не так важно для всех, и вы можете писать на почту за это время."
)

func TestLanguage(t *testing.T) {
	for _, tt := range []struct {
		text, language, script string
		zero, percent          int
		mixed                  string
	}{
		{english, "en", "Latin", 0, 0, ""},
		{german, "de", "Latin", 0, 2, ""},
		{french, "fr", "Latin", 0, 1, ""},
		{russian, "ru", "Cyrillic", 0, 76, ""},
		{"こんにちは、報告書を送ります。", "ja", "Hiragana", 0, 88, ""},
		{"您好，这是您要的报告。", "zh", "Han", 0, 85, ""},
		{"안녕하세요 보고서입니다", "ko", "Hangul", 0, 79, ""},
		{"hello", "", "Latin", 0, 0, ""},
		{"lorem ipsum dolor sit amet consectetur adipiscing elit sed eiusmod tempor incididunt ut labore", "", "Latin", 0, 0, ""},
		{"1234 !!", "", "", 0, 0, ""},
		{"log in to p\u0430yp\u0430l now", "", "Latin", 0, 9, "p\u0430yp\u0430l"},
		{"Straße und naïve Łódź", "", "Latin", 0, 22, ""},
		{"α-particle, μm and Δx", "", "Latin", 0, 13, ""},
		{"f\u200br\u200bee vi\u00adagra", "", "Latin", 3, 19, ""},
		{"family: \U0001f468\u200d\U0001f469\u200d\U0001f467", "", "Latin", 0, 33, ""},
	} {
		f := check(t, config(), "Content-Type: text/plain; charset=utf-8\n\n"+tt.text+"\n", "")
		if f.Language != tt.language || f.Script != tt.script || f.ZeroWidth != tt.zero || f.NonASCII != tt.percent || strings.Join(f.MixedWords, " ") != tt.mixed || f.MixedScripts != (tt.mixed != "") {
			t.Errorf("%s: language %q, script %q, %d invisible, %d%% beyond ASCII, mixed %q", tt.text, f.Language, f.Script, f.ZeroWidth, f.NonASCII, f.MixedWords)
		}
	}
	f := check(t, config(), "Subject: =?utf-8?b?0L/RgNC40LLQtdGC?=\nContent-Type: text/plain; charset=utf-8\n\nhello world, \u05e9\u05dc\u05d5\u05dd\n", "")
	if fmt.Sprint(f.Scripts) != "[{Latin 10} {Cyrillic 6} {Hebrew 4}]" {
		t.Error(f.Scripts)
	}
}

func TestDateSkew(t *testing.T) {
	for date, want := range map[string]int{
		"Date: Sun, 1 Mar 2026 12:00:00 +0000": 0,
		"Date: Sun, 1 Mar 2026 14:00:00 +0000": 7200,
		"Date: Sun, 1 Mar 2026 14:00:00 +0200": 0,
		"Date: Sat, 1 Mar 2025 12:00:00 +0000": -365 * 86400,
		"Date: Fri, 1 Jan 0001 00:00:00 +0000": -63907963200,
	} {
		if f := check(t, config(), date+"\n\nx\n", ""); f.DateSkew != want {
			t.Errorf("%s: %d, want %d", date, f.DateSkew, want)
		}
	}
	// No date is no date, and not one that is right.
	s, err := newStage(config())
	if err != nil {
		t.Fatal(err)
	}
	for _, date := range []string{"", "Date: yesterday\n"} {
		v := pipeline.View{Message: pipelinetest.Parse(t, date+"\nx\n")}
		v.Received = time.Unix(0, 0)
		r, err := s.Check(t.Context(), v)
		if err != nil || r.Missing["date_skew"] != errNoDate {
			t.Errorf("%q: %v, %v", date, r.Missing, err)
		}
	}
}

func TestOdd(t *testing.T) {
	f := check(t, config(), "From: a@example.com\nFrom: b@example.com\nDate: Sun, 1 Mar 2026 12:00:00 +0000\nMessage-ID: <1@example.com>\nSubject: x\n"+
		"MIME-Version: 1.0\nContent-Type: multipart/mixed\n\nx\n", "")
	want := []Odd{{"duplicate-field", "", "From"}, {"missing-field", "", "Sender"}, {"no-boundary", "1", "multipart/mixed"}}
	if !reflect.DeepEqual(f.Odd, want) && len(f.Odd) < 3 {
		t.Errorf("%+v", f.Odd)
	}
	for _, w := range want {
		found := false
		for _, o := range f.Odd {
			found = found || o.Kind == w.Kind && o.What == w.What
		}
		if !found {
			t.Errorf("%+v is not in %+v", w, f.Odd)
		}
	}
}

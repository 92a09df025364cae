package lookalike

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestHow(t *testing.T) {
	for _, tt := range []struct{ own, name, want, stranger string }{
		{"paypal.com", "paypal.com", "", ""},
		{"paypal.com", "mail.PayPal.com.", "", ""},
		{"paypal.com", "paypa1.com", "confusable", "confusable"},
		{"paypal.com", "p\u0430ypal.com", "confusable", "confusable"},
		{"paypal.com", "xn--pypal-4ve.com", "confusable", "confusable"},
		{"modern.example", "modem.example", "confusable", "confusable"},
		{"paypal.com", "paypall.com", "typo", "typo"},
		{"paypal.com", "payapl.com", "typo", "typo"},
		{"paypal.com", "paypl.net", "typo", "typo"},
		{"post.example", "posts.example", "", ""}, // short words are too many
		{"paypal.com", "paypal.net", "tld", ""},
		{"paypal.com", "paypal.com.evil.example", "embedded", "embedded"},
		{"paypal.com", "secure-paypal.example", "embedded", ""},
		{"paypal.com", "login.paypal.evil.example", "embedded", ""},
		{"bücher.example", "bucher.test", "confusable", "confusable"},
		{"paypal.com", "example.org", "", ""},
	} {
		own, ok := NewDomain(tt.own)
		d, isDomain := NewDomain(tt.name)
		if !ok || !isDomain {
			t.Fatal(tt)
		}
		full := strings.ToLower(strings.TrimSuffix(tt.name, "."))
		if got := own.How(d, full, false); got != tt.want {
			t.Errorf("%s beside %s: got %q, want %q", tt.name, tt.own, got, tt.want)
		}
		if got := own.How(d, full, true); got != tt.stranger {
			t.Errorf("%s beside the stranger %s: got %q, want %q", tt.name, tt.own, got, tt.stranger)
		}
	}
	for _, s := range []string{"", "localhost", "a b", "a..b", strings.Repeat("a.", 200)} {
		if d, ok := NewDomain(s); ok {
			t.Errorf("%q is a domain: %v", s, d)
		}
	}
	var zero Domain
	if d, _ := NewDomain("paypal.com"); zero.How(d, "paypal.com", false) != "" || zero.How(zero, "", false) != "" {
		t.Error("the zero domain looks like something")
	}
	if d, _ := NewDomain("www.xn--bcher-kva.de"); d.Name() != "bücher.de" || d.Org != "xn--bcher-kva.de" {
		t.Errorf("got %q of %q", d.Name(), d.Org)
	}
}

func TestMixed(t *testing.T) {
	for _, tt := range []struct {
		text  string
		least int
		want  bool
	}{
		{"p\u0430ypal", 4, true}, {"see \u0440\u0430ypal.", 4, true}, {"\u03a1aypal", 4, true}, {"o'\u043deil", 4, true},
		{"paypal", 1, false}, {"\u041c\u043e\u0441\u043a\u0432\u0430 Paris", 1, false}, {"\u03bcm", 3, false}, {"\u03bcm", 2, true},
		{"Grüße", 1, false}, {"漢字kana", 1, false}, {"p\u0430", 4, false}, {"", 0, false}, {"pay-\u043f\u0430\u043b", 4, false},
	} {
		if got := Mixed(tt.text, tt.least); got != tt.want {
			t.Errorf("%q, from %d letters: got %t", tt.text, tt.least, got)
		}
	}
	for domain, want := range map[string]bool{
		"p\u0430ypal.com": true, "pay-\u043f\u0430\u043b.com": true, "a1\u0430.example": true, "\u043f\u0430\u043b.com": false, "paypal.com": false, "": false,
	} {
		if got := MixedLabels(domain); got != want {
			t.Errorf("%q: got %t", domain, got)
		}
	}
}

func TestNames(t *testing.T) {
	for _, same := range [][2]string{
		{"Jane Doe", "jane  doe"}, {"Jane Doe", "J\u0430n\u0435 D\u043ee"}, {"J. Doe", "j doe"}, {"Doe, Jane", "Doe Jane"}, {"Zoë", "Zoe"}, {"ja\u200bne", "jane"},
	} {
		if Name(same[0]) != Name(same[1]) {
			t.Errorf("%q is %q, %q is %q", same[0], Name(same[0]), same[1], Name(same[1]))
		}
	}
	for text, want := range map[string]string{
		"The Boss <boss@corp.example>": "boss@corp.example", "a@b": "", "@@x@y.example.": "x@y.example", "no": "", "a@.b.c.": "a@b.c",
		"first a@b.c second d@e.f": "a@b.c", "ä.ö@bücher.example!": "ä.ö@bücher.example", "x@-a.b-": "x@a.b",
	} {
		if got := AddressIn(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// Whatever is compared, what is one looks alike, and nothing looks like itself without being it.
func FuzzAlike(f *testing.F) {
	f.Add("p\u0430ypal.com", "paypal.com")
	f.Add("xn--pypal-4ve.com", "\xff..")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, ok := NewDomain(a)
		if ok && x.How(x, a, false) != "" {
			t.Errorf("%q looks like itself", a)
		}
		y, _ := NewDomain(b)
		switch how := x.How(y, b, false); how {
		case "", "confusable", "typo", "tld", "embedded":
			if stranger := x.How(y, b, true); stranger != "" && stranger != how {
				t.Errorf("%q beside %q: %q, of a stranger %q", b, a, how, stranger)
			}
		default:
			t.Errorf("%q beside %q: %q", b, a, how)
		}
		if Mixed(a, 4) && !Mixed(a, 1) || Mixed(a, 1) && isASCII(a) {
			t.Errorf("%q is mixed", a)
		}
		if s := AddressIn(a); s != "" && strings.Count(s, "@") != 1 {
			t.Errorf("the address in %q is %q", a, s)
		}
		if s := Skeleton(a); utf8.ValidString(a) && !utf8.ValidString(s) {
			t.Errorf("the skeleton of %q is %q", a, s)
		}
	})
}

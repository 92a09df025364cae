package rules

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestFunctions(t *testing.T) {
	v := exampleView(t)
	for when, want := range map[string]truth{
		`org("Mail.EXAMPLE.co.uk.") == "example.co.uk" and org("a b") == "" and org("192.0.2.1") == "192.0.2.1"`:             isTrue,
		`org("www.xn--bcher-kva.de") == "bücher.de" and org("co.uk") == "co.uk"`:                                             isTrue,
		`same_org("a.example.org", "EXAMPLE.org.")`:                                                                          isTrue,
		`same_org("a.github.io", "b.github.io")`:                                                                             isFalse,
		`same_org("", "")`:                                                                                                   isFalse,
		`under("example.org", "example.org") and under("a.B.Example.org.", "EXAMPLE.org")`:                                   isTrue,
		`under("badexample.org", "example.org") or under("org", "example.org") or under("", "example.org")`:                  isFalse,
		`under("www.bücher.de", "xn--bcher-kva.de") and under("www.xn--bcher-kva.de", "x.example", "BÜCHER.de")`:             isTrue,
		`under(client.name, from.domain)`:                                                                                    isTrue,
		`under(client.name, header("X-None"))`:                                                                               isFalse,
		`in_network("192.0.2.200", "192.0.2.0/25")`:                                                                          isFalse,
		`in_network("::ffff:192.0.2.20", "192.0.2.0/25") and in_network("2001:db8::1", "192.0.2.1", "2001:db8::/32")`:        isTrue,
		`in_network("[192.0.2.20]", "192.0.2.20")`:                                                                           isTrue,
		`in_network("nonsense", "0.0.0.0/0") or in_network("", "::/0") or in_network("2001:db8::1", "0.0.0.0/0")`:            isFalse,
		`unicode("WWW.xn--BCHER-kva.de.") == "www.bücher.de" and unicode("a..b") == "" and unicode("x") == "x"`:              isTrue,
		`ascii("www.bücher.de") == "www.xn--bcher-kva.de" and ascii("a b") == ""`:                                            isTrue,
		`looks_like("paypa1.com", "paypal.com") and looks_like("pаypal.com", "paypal.com")`:                                  isTrue,
		`looks_like("xn--pypal-4ve.com", "paypal.com")`:                                                                      isTrue,
		`looks_like("paypall.com", "paypal.com") and looks_like("payapl.com", "paypal.com")`:                                 isTrue,
		`looks_like("paypal.net", "paypal.com") and looks_like("paypal.com.evil.example", "paypal.com")`:                     isTrue,
		`looks_like("secure-paypal.example", "x.example", "paypal.com")`:                                                     isTrue,
		`looks_like("paypal.com", "paypal.com") or looks_like("mail.PayPal.com", "paypal.com")`:                              isFalse,
		`looks_like("paypal.net", "paypal.com", "paypal.net")`:                                                               isFalse,
		`looks_like("example.org", "paypal.com") or looks_like("", "paypal.com") or looks_like("a b", "paypal.com")`:         isFalse,
		`looks_like("paypal.com", header("X-None"))`:                                                                         isFalse,
		`host("HTTPS://user@WWW.Bücher.de:80/x") == "www.bücher.de" and host("see http://0x7f.1/") == "127.0.0.1"`:           isTrue,
		`host("bank.example") == "" and host("mailto:x@y") == "" and host("") == "" and host("http://") == ""`:               isTrue,
		`mixed_scripts("Pаypal") and mixed_scripts("see раypal now")`:                                                        isTrue,
		`mixed_scripts("Москва and Paris") or mixed_scripts("5 μm, Δx") or mixed_scripts("Grüße") or mixed_scripts("")`:      isFalse,
		`entropy("") == 0 and entropy("aaaa") == 0 and entropy("ab") == 1 and entropy("abcd") == 2 and entropy("äöüß") == 2`: isTrue,
		`similarity("Jane Doe", "jane.doe") == 1 and similarity("DOE, Jane", "Jane_Doe") == 1`:                               isTrue,
		`similarity("Jane Doe", "") == 0 and similarity("", "") == 0 and similarity("Jane Doe", "k7x2q") == 0`:               isTrue,
		`similarity("Jane Doe", "jdoe") == 0.5 and similarity("J. Doe", "j.doe") == 1`:                                       isTrue,
		`other_address("Jane <JANE+x@example.org>", "jane@example.org") == ""`:                                               isTrue,
		`other_address("jane@example.org via boss@corp.example", "jane@example.org") == "boss@corp.example"`:                 isTrue,
		`other_address("no address", "jane@example.org") == "" and other_address("a@b.example", "") == "a@b.example"`:        isTrue,
		`has_word("Free, at last", "free") and has_word("FREE", "Free") and has_word("ein Maß", "maß")`:                      isTrue,
		`has_word("freedom carefree", "free") or has_word("", "free") or has_word("Straßen", "straße")`:                      isFalse,
		`has_word("buy  now", "buy now") and has_word("Please\nBUY\r\n\tnow!", "please buy now", "x")`:                       isTrue,
		`has_word("buynow", "buy now") or has_word("buy nowhere", "buy now") or has_word("buy ", "buy now")`:                 isFalse,
		`indexOf("äöb", "b") == 2 and lastIndexOf("bäb", "b") == len("bä") and indexOf("ä", "x") == -1`:                      isTrue,
		`host("www.Bank.example/login") == "www.bank.example" and host(" https://bank.example ") == "bank.example"`:          isTrue,
		`host("www.") == "" and host("wwwbank.example") == "" and host("notes.md") == ""`:                                    isTrue,
		`has_word("freedom is free", "free") and has_word("100% off!", "100%") and has_word("(act now)", "act now")`:         isTrue,
		`has_word(subject, from.tag, "GRÜSSE", "grüße")`:                                                                     isTrue,
		`count_matches("a1b22", "[0-9]") == 3 and count_matches("aaa", "") == 4 and count_matches("", "x") == 0`:             isTrue,
		`days(1) == 86400 and hours(0.5) == 1800 and minutes(-1) == -60 and days(1e300) > 0`:                                 isTrue,
		`all(rcpts, under(.domain, "example.org")) and any(links, in_network(.host, "198.51.100.0/24"))`:                     isTrue,
		`any(links, .text != "" and under(.text, "x.example"))`:                                                              isFalse,
	} {
		got, why := truthIn(t, Config{}, when, v)
		if got != want {
			t.Errorf("%s: got %d, want %d (%s)", when, got, want, why)
		}
	}
}

// What is written out and what comes from the mail mean the same.
func TestConstantsMeanTheSame(t *testing.T) {
	domains := []string{"", "paypal.com", "PayPal.com.", "paypa1.com", "mail.paypal.com", "xn--pypal-4ve.com", "pаypal.com", "bücher.de", "a b", "192.0.2.1", strings.Repeat("a", 300)}
	for _, x := range domains {
		v := exampleView(t)
		for _, y := range domains {
			v.Message = message(t, "X: "+x+"\nY: "+y+"\n\n")
			if y == "" || y == "a b" || len(y) > 253 || y == "192.0.2.1" {
				continue // they are refused where they are written out
			}
			for _, f := range []string{"under", "looks_like", "has_word"} {
				written, _ := truthIn(t, Config{}, f+`(header("X"), "`+y+`")`, v)
				came, _ := truthIn(t, Config{}, f+`(header("X"), header("Y"))`, v)
				if written != came {
					t.Errorf("%s(%q, %q): %d written out, else %d", f, x, y, written, came)
				}
			}
		}
	}
}

// As many arguments as a function takes it takes, and one more is a mistake.
func TestMostArguments(t *testing.T) {
	networks := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `, "192.0.2.%d"`, i)
		}
		return "rules: [{name: r, when: " + quote("in_network(client.ip"+b.String()+")") + "}]"
	}
	c, e := exampleEnv(networks(mostArguments - 1))
	if _, err := New(c, e); err != nil {
		t.Error(err)
	}
	c, e = exampleEnv(networks(mostArguments))
	if _, err := New(c, e); err == nil || !strings.Contains(err.Error(), "in_network() takes at most 200 arguments; make several rules of it") {
		t.Errorf("got %v", err)
	}
}

// Functions take whatever a mail holds, and what they promise holds for all of it.
func FuzzFunctions(f *testing.F) {
	f.Add("Mail.EXAMPLE.co.uk.", "bücher.example", "(a|b)+")
	f.Add("pаypal.com", "Jane Doe <jane@example.org> a@b", "")
	f.Add("xn--pypal-4ve.com", "\xff\x00@@@...", "[")
	f.Add(strings.Repeat("aa ", 200), strings.Repeat("a@b.c,", 200), "a")
	f.Fuzz(func(t *testing.T, a, b, pattern string) {
		if u := unicodeOf(a); u != "" {
			if again := unicodeOf(u); again != u {
				t.Errorf("unicode(%q) is %q, of which it is %q", a, u, again)
			}
			if !isUnder(a, domainsOf([]string{a})) || !isUnder("x."+u, domainsOf([]string{u})) && len(u) < 200 && unicodeOf("x."+u) == "x."+u {
				t.Errorf("%q is not under itself", a)
			}
		}
		if org := orgOf(a); org != "" && orgOf(org) != org {
			t.Errorf("org(%q) is %q, of which it is %q", a, org, orgOf(org))
		}
		if looksLike(a, lookalikesOf([]string{a})) {
			t.Errorf("%q looks like itself", a)
		}
		looksLike(a, lookalikesOf([]string{b}))
		s, r := similarityOf(a, b), similarityOf(b, a)
		if s != r || s < 0 || s > 1 || math.IsNaN(s) {
			t.Errorf("similarity of %q and %q: %v, the other way round %v", a, b, s, r)
		}
		if e := entropyOf(a); e < 0 || math.IsNaN(e) || e > math.Log2(float64(max(1, len([]rune(a)))))+1e-9 {
			t.Errorf("entropy of %q: %v", a, e)
		}
		if x := otherAddress(a, b); x != "" && x == bareAddress(b) {
			t.Errorf("other_address(%q, %q) is that one", a, b)
		}
		isInNetwork(a, nil)
		if w := wordsOf([]string{b}); hasWord(a, w) && !strings.Contains(strings.Join(strings.Fields(strings.ToLower(a)), " "), string(w[0])) {
			t.Errorf("%q has no word %q", a, b)
		}
		if why, _ := badPattern(pattern, 1000); why == "" {
			n := countMatches(a, preparePattern([]string{pattern}, nil).(*regexp.Regexp))
			if n < 0 || n > maxMatches || n > len(a)+1 {
				t.Errorf("%q matches %q %d times", pattern, a, n)
			}
		}
	})
}

// Whatever the mail, no function takes long on the longest that it can see.
func TestFunctionsAreBounded(t *testing.T) {
	v := exampleView(t)
	for name, body := range map[string]string{
		"a":          strings.Repeat("a", 1<<20),
		"addresses":  strings.Repeat("a@b.c ", 1<<17),
		"at":         strings.Repeat("@", 1<<20),
		"dots":       strings.Repeat("a.", 1<<19),
		"mixed":      strings.Repeat("aа", 1<<18),
		"mixed long": strings.Repeat("aа ", 1<<18),
		"links":      strings.Repeat(`http://a.b.c.d.example/`+strings.Repeat("x", 80)+" ", 1<<13),
	} {
		v.Message = message(t, "Subject: "+body[:100_000]+"\nMIME-Version: 1.0\nContent-Type: text/plain\n\n"+body)
		for _, when := range []string{
			`has_word(text, "a", "aa", "b") and false`, `entropy(text) == 99`, `mixed_scripts(text) and false`, `similarity(text, html) == 99`,
			`other_address(text, text) == "x"`, `org(text) == "x" or unicode(text) == "x" or ascii(text) == "x"`, `looks_like(text, text, subject)`,
			`count_matches(text, "(?i)(a|b)*c") == 99`, `any(links, looks_like(.host, "paypal.com", "example.org") and false)`,
			`any(links, similarity(.url, subject) == 99)`, `any(links, count_matches(subject, "a*b") == 99)`,
		} {
			began := time.Now()
			truthIn(t, Config{}, when, v)
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("%s, %s took %v", name, when, took)
			}
		}
	}
}

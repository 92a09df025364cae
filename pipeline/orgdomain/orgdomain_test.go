package orgdomain

import (
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	for in, want := range map[string]string{
		"example.com":             "example.com",
		"Mail.EXAMPLE.co.uk.":     "example.co.uk", // the list itself answers wrongly for capitals and a dot at the end
		"a.b.c.example.org":       "example.org",
		"co.uk":                   "co.uk",
		"localhost":               "localhost",
		"bücher.example.com":      "example.com",
		"www.bücher.de":           "xn--bcher-kva.de",
		"www.食狮.公司.cn":            "xn--85x722f.xn--55qx5d.cn",
		"a_b.bücher.de":           "xn--bcher-kva.de",
		"r3---x.Bücher。de。":       "xn--bcher-kva.de",
		"192.0.2.1":               "192.0.2.1",
		"foo.github.io":           "foo.github.io",
		"_dmarc.mail.example.com": "example.com",
		"":                        "",
		"a..b":                    "",
		"a b.example":             "",
		strings.Repeat("a", 64):   "",
		strings.Repeat("a.", 200): "",
		"x\x00.example.com":       "",
		"user@example.com":        "",
	} {
		got, ok := Of(in)
		if got != want || ok != (want != "") {
			t.Errorf("Of(%q) = %q, %t; want %q", in, got, ok, want)
		}
	}
}

func FuzzOf(f *testing.F) {
	f.Add("Mail.EXAMPLE.co.uk.")
	f.Add("食狮.公司.cn")
	f.Fuzz(func(t *testing.T, s string) {
		org, ok := Of(s)
		if !ok {
			return
		}
		if again, ok := Of(org); !ok || again != org {
			t.Errorf("Of(%q) = %q, of which it is %q, %t", s, org, again, ok)
		}
	})
}

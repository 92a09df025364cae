package mime

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, c := range []struct {
		in                 string
		local, tag, domain string
		out                string // "" is the same as in
	}{
		{in: ""},
		{in: "user@example.org", local: "user", domain: "example.org"},
		{in: "User@Example.ORG.", local: "user", domain: "example.org", out: "user@example.org"},
		{in: "postmaster", local: "postmaster"},
		{in: "me@localhost", local: "me", domain: "localhost"},
		{in: "user+lists@example.org", local: "user", tag: "lists", domain: "example.org"},
		{in: "user+a+b@example.org", local: "user", tag: "a+b", domain: "example.org"},
		{in: "user+@example.org", local: "user", domain: "example.org", out: "user@example.org"},
		{in: "+user+x@example.org", local: "+user+x", domain: "example.org"},
		{in: `"john doe"@example.org`, local: "john doe", domain: "example.org"},
		{in: `john doe@example.org`, local: "john doe", domain: "example.org", out: `"john doe"@example.org`},
		{in: `"a@b"@example.org`, local: "a@b", domain: "example.org"},
		{in: `a@b@example.org`, local: "a@b", domain: "example.org", out: `"a@b"@example.org`},
		{in: `"user"@example.org`, local: "user", domain: "example.org", out: "user@example.org"},
		{in: `"a\"b\\c"@example.org`, local: `a"b\c`, domain: "example.org"},
		{in: `"\"a\""@example.org`, local: `"a"`, domain: "example.org"},
		{in: `a"b@example.org`, local: `a"b`, domain: "example.org", out: `"a\"b"@example.org`},
		{in: `.dots..here.@example.org`, local: ".dots..here.", domain: "example.org", out: `".dots..here."@example.org`},
		{in: "user@[192.0.2.1]", local: "user", domain: "[192.0.2.1]"},
		{in: "user@[IPv6:2001:DB8::1]", local: "user", domain: "[ipv6:2001:db8::1]", out: "user@[ipv6:2001:db8::1]"},
		{in: "JÜRGEN@BÜCHER.example", local: "jürgen", domain: "bücher.example", out: "jürgen@bücher.example"},
		{in: "ju\u0308rgen@xn--bcher-kva.example", local: "jürgen", domain: "bücher.example", out: "jürgen@bücher.example"},
		{in: "user@example\u3002org", local: "user", domain: "example.org", out: "user@example.org"},
		{in: "user@xn--\u00fc.example", local: "user", domain: "xn--\u00fc.example"},
		{in: "user@my_host.example", local: "user", domain: "my_host.example"},
		{in: "user@stra\u00dfe.example", local: "user", domain: "stra\u00dfe.example"},
	} {
		a, err := ParseAddress(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if a.Local != c.local || a.Tag != c.tag || a.Domain != c.domain || a.Raw != c.in {
			t.Errorf("%q: %+v", c.in, a)
		}
		if c.out == "" {
			c.out = c.in
		}
		if a.String() != c.out {
			t.Errorf("%q: String() = %q, want %q", c.in, a, c.out)
		}
		if a.IsZero() != (c.in == "") {
			t.Errorf("%q: IsZero() = %v", c.in, a.IsZero())
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for in, why := range map[string]string{
		"@example.org":             "has no local part",
		`""@example.org`:           "has no local part",
		"user@":                    "has no domain",
		"user@.":                   "has no domain",
		"user@a..b":                "empty label",
		"user@.example.org":        "empty label",
		"us\x00er@example.org":     "control character at octet 3",
		"user@example.org\r\nDATA": "control character",
		"us\u0085er@example.org":   "control character",
		"us\xffer@example.org":     "not UTF-8",
		" user@example.org":        "space at the edge",
		"user @example.org":        "space at the edge",
		"not an address":           "is not an address",
		"user@exa mple.org":        "' '",
		"user@example.org>":        "'>'",
		"user@a/../b":              "empty label",
		"user@a/b":                 "'/'",
		"user@\uff20example.org":   "'@'", // a full-width @ that IDNA would turn into a plain one
		"user@[]":                  "address literal",
		"user@[1.2.3.4":            "'['",
		strings.Repeat("l", 257) + "@example.org":       "local part of 257 octets; 256 are allowed",
		strings.Repeat("l", 256) + "@" + longDomain(64): "is 321 octets long; 320 are allowed",
		strings.Repeat("\u0130", 2000) + "@example.org": "longer than 320",
	} {
		a, err := ParseAddress(in)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.60q: %v, %v; want an error with %q", in, a, err, why)
		}
	}
	if _, err := ParseAddress(strings.Repeat("l", 256) + "@" + longDomain(63)); err != nil {
		t.Errorf("the longest address: %v", err)
	}
}

func longDomain(n int) string { return strings.Repeat("d", n-4) + ".org" }

func FuzzAddress(f *testing.F) {
	for _, s := range []string{
		"user+tag@example.org", `"a b"@c`, `"\"a\""@b`, `"`, `"a\"@b`, "+@x", "a+@x", "ÄÖ@xn--bcher-kva", "x@xn--a.xn--b-", "a@[::1]",
		"\u0130@\u0130.org", "a@\uff0e", "\u1e9e@\u2126", "a@\u00df", "a@\u200d", "postmaster", "a@b@c", `"a +"@b`, "a@xn--xn--a-0hg",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		b, err := ParseAddress(a.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", s, a, err)
		}
		if a.Local != b.Local || a.Tag != b.Tag || a.Domain != b.Domain {
			t.Fatalf("%q became %+v, and that %+v", s, a, b)
		}
	})
}

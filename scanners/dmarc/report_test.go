package dmarc

import (
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline/pipelinetest"
)

func list(all []Destination) string {
	var b strings.Builder
	for _, d := range all {
		fmt.Fprintf(&b, "%s %d|", d.Address, d.Most)
	}
	return b.String()
}

func TestDestinations(t *testing.T) {
	for rua, want := range map[string]string{
		"mailto:a@example.org":                              "a@example.org 0|",
		" mailto:a@example.org , MAILTO:b@example.org!10m ": "a@example.org 0|b@example.org 10485760|",
		"mailto:a@example.org!1,mailto:b@b.example!2K,mailto:c@c.example!3g,mailto:d@d.example!1t": "a@example.org 1|b@b.example 2048|c@c.example 3221225472|d@d.example 1099511627776|",
		"mailto:a%2Bb@example.org,mailto:a@example.org?subject=x":                                  "a+b@example.org 0|a@example.org 0|",
		"mailto:a%21%2C@example.org":                           "",
		"https://example.org/x,mailto:,mailto:a,mailto:@b,a@b": "",
		"mailto:a@b.example!x,mailto:a@b.example!,mailto:a@b.example!-1,mailto:a@b.example!0,mailto:a@b.example!9999999999t": "",
		"mailto:a@b.example%0d%0aBcc:c@d.example,mailto:a b@c.example,mailto:<a@b.example>,mailto:a@b@c.example":             "",
		"mailto:a@example.org,mailto:A@Example.org": "a@example.org 0|",
		"": "",
	} {
		if got := list(Destinations("v=DMARC1; p=none; rua=" + rua + "; rua=mailto:second@example.org")); got != want {
			t.Errorf("%s: %s, want %s", rua, got, want)
		}
	}
	if n := len(Destinations("v=DMARC1; rua=" + strings.Repeat("mailto:x@example.org,", 10))); n != 1 {
		t.Errorf("one address %d times", n)
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "mailto:%d@example.org,", i)
	}
	if n := len(Destinations("v=DMARC1; rua=" + many.String())); n != mostTags {
		t.Errorf("%d addresses", n)
	}
	if got := Destinations("v=DMARC1; p=none"); got != nil {
		t.Errorf("%v", got)
	}
}

// RFC 7489, 7.1.
func TestWanted(t *testing.T) {
	r := &pipelinetest.Resolver{
		TXT: map[string][]string{
			"example.org._report._dmarc.yes.example":   {"v=spf1 -all", "v=DMARC1;"},
			"example.org._report._dmarc.other.example": {"v=DMARC1; rua=mailto:there@other.example!1k,mailto:x@elsewhere.example"},
			"example.org._report._dmarc.away.example":  {"v=DMARC1; rua=mailto:x@elsewhere.example"},
			"example.org._report._dmarc.spf.example":   {"v=spf1 -all"},
		},
		Fail: map[string]string{"example.org._report._dmarc.down.example": "timeout"},
	}
	for _, tt := range []struct{ domain, address, want string }{
		{"example.org", "a@example.org", "a@example.org 10|"},
		{"example.org", "a@mail.example.org", "a@mail.example.org 10|"},
		{"sub.example.org", "a@Example.org", "a@Example.org 10|"},
		{"example.org", "a@yes.example", "a@yes.example 10|"},
		{"example.org", "a@no.example", ""},
		{"example.org", "a@spf.example", ""},
		{"example.org", "a@other.example", "there@other.example 10|"},
		{"example.org", "a@away.example", ""},
		{"example.org", "a@down.example", "error"},
		{"example.org", "a@co.uk", ""},
	} {
		to, err := Wanted(t.Context(), r, tt.domain, Destination{tt.address, 10})
		got := list(to)
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("%s at %s: %s, %v; want %s", tt.domain, tt.address, got, err, tt.want)
		}
	}
}

// No record makes us write to what is no address.
func FuzzDestinations(f *testing.F) {
	f.Add("v=DMARC1; p=none; rua=mailto:a@example.org!10m,mailto:b%2B@example.com")
	f.Add("v=DMARC1;rua=mailto:%00@b,MAILTO:a@b!1t;rua=")
	f.Fuzz(func(t *testing.T, record string) {
		for _, d := range Destinations(record) {
			local, domain, ok := strings.Cut(d.Address, "@")
			if !ok || local == "" || domain == "" || d.Most < 0 || strings.ContainsFunc(d.Address, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"(),:;<>[\]`, r) }) {
				t.Errorf("%q %d", d.Address, d.Most)
			}
		}
	})
}

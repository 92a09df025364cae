package dmarc

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseRecord(t *testing.T) {
	for text, want := range map[string]string{
		// RFC 7489, B.2 and RFC 9989, B.2.
		"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com":                                                          "p=none rua=[mailto:dmarc-feedback@example.com]",
		"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com; ruf=mailto:auth-reports@example.com":                     "p=none rua=[mailto:dmarc-feedback@example.com]",
		"v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net!10m; pct=25": "p=quarantine pct=25 rua=[mailto:dmarc-feedback@example.com mailto:tld-test@thirdparty.example.net]",
		"v=DMARC1; p=reject; sp=quarantine; np=none; adkim=s; aspf=s; psd=n; t=y; fo=1:d:s":                                "p=reject sp=quarantine np=none adkim=s aspf=s psd=n t=y fo=1:d:s",

		"v=DMARC1;p=reject":                                          "p=reject",
		"v = DMARC1 ;\tP = Reject ;":                                 "p=reject",
		"v=DMARC1; sp=none; p=reject":                                "p=reject sp=none",
		"v=DMARC1; p=reject; p=none":                                 "p=reject",
		"v=DMARC1; p=reject; adkim=x; pct=101; psd=z; t=maybe; fo=q": "p=reject",
		"v=DMARC1; p=reject; pct=-1; x; =y; ;;":                      "p=reject",
		"v=DMARC1; p=reject; pct=0; unknown=1":                       "p=reject pct=0",
		"v=DMARC1; p=no; rua=mailto:a@b":                             "p=none rua=[mailto:a@b]",
		"v=DMARC1; p=reject; sp=no; rua=mailto:a@b":                  "p=none rua=[mailto:a@b]",
		"v=DMARC1; rua=https://b/x":                                  "p=none rua=[https://b/x]",

		"v=DMARC1":                         "error: p= is missing",
		"v=DMARC1; p=no":                   `error: p="no" is no policy`,
		"v=DMARC1; p=":                     `error: p="" is no policy`,
		"v=DMARC1; p=none; np=x":           `error: np="x" is no policy`,
		"v=DMARC1; rua=mailto:nobody":      "error: p= is missing",
		"v=DMARC1; rua=:,mailto:":          "error: p= is missing",
		"v=DMARC1 p=none":                  "error: it does not begin with v=DMARC1",
		"v=dmarc1; p=none":                 "error: it does not begin with v=DMARC1",
		"p=none; v=DMARC1":                 "error: it does not begin with v=DMARC1",
		"":                                 "error: it does not begin with v=DMARC1",
		reject + strings.Repeat(" ", 2048): "error: it is longer than 2048 octets",
	} {
		r, err := ParseRecord(text)
		got := show(r)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%q: %s\nwant %s", text, got, want)
		}
	}
}

// show names what is not as the defaults are.
func show(r Record) string {
	var all []string
	for _, x := range [][3]string{
		{"p", r.P}, {"sp", r.SP}, {"np", r.NP}, {"adkim", r.ADKIM, "r"}, {"aspf", r.ASPF, "r"}, {"psd", r.PSD, "u"}, {"t", r.T},
		{"pct", fmt.Sprint(r.Pct), "100"}, {"fo", r.FO, "0"}, {"rua", fmt.Sprint(r.RUA), "[]"},
	} {
		if x[1] != x[2] {
			all = append(all, x[0]+"="+x[1])
		}
	}
	return strings.Join(all, " ")
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{reject, "v=DMARC1; p=none; rua=mailto:a@b!10m,https://x", "v = DMARC1;;;=;p=\x00", "v=DMARC1; pct=9999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRecord(s)
		if err != nil {
			return
		}
		policies := []string{"none", "quarantine", "reject"}
		if !IsRecord(s) || !slices.Contains(policies, r.P) || r.SP != "" && !slices.Contains(policies, r.SP) || r.Pct < 0 || r.Pct > 100 || len(r.RUA) > mostTags {
			t.Errorf("%q: %+v", s, r)
		}
		// Said in our own words it is the same record.
		again, err := ParseRecord("v=DMARC1; " + strings.ReplaceAll(strings.NewReplacer("=[", "=", "]", "").Replace(strings.ReplaceAll(show(r), " ", "; ")), "; mailto", ",mailto"))
		if err != nil || again.P != r.P || again.SP != r.SP || again.NP != r.NP || again.PSD != r.PSD || again.T != r.T || again.Pct != r.Pct {
			t.Errorf("%q: %+v, said again %+v, %v", s, r, again, err)
		}
	})
}

func FuzzSignedFor(f *testing.F) {
	f.Add("v=1; d=example.com; s=x")
	f.Add("d = ex ample\t.com")
	f.Add("d=0.0.0.0") // an address is no domain
	f.Fuzz(func(t *testing.T, s string) {
		d := signedFor(s)
		if name, ok := domainName(d); d != "" && (!ok || name != d) {
			t.Errorf("%q: %q", s, d)
		}
	})
}

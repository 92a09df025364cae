package peertest

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Forged results are removed and ours are written, through every door, and what DMARC says is what the rules do.
func TestAuthenticationResults(t *testing.T) {
	d := DNS(t, `sender.example. TXT "v=spf1 ip4:192.0.2.7 -all"`, `_dmarc.sender.example. TXT "v=DMARC1; p=reject; rua=mailto:r@sender.example"`,
		`other.example. TXT "v=spf1 ip4:192.0.2.7 -all"`)
	sluice := func() *Sluice {
		return StartSluice(t, SluiceConfig{
			YAML: fmt.Sprintf("domains: [example.org]\nresolver: {servers: [%q]}\npipeline:\n"+
				"  - spf: {}\n  - dkim: {}\n  - dmarc: {}\n  - authres: {}\n"+
				"  - rules: {rules: [{name: dmarc, when: dmarc.disposition == \"reject\", reject: 5.7.1 says dmarc}]}\n", d.Address),
			Accounts: []string{"alice@example.org"},
		})
	}
	direct, asked, last := sluice(), sluice(), sluice()
	asking := StartPostfix(t, PostfixConfig{Main: map[string]string{
		"smtpd_milters": "unix:" + asked.MilterSocket, "milter_default_action": "tempfail", "virtual_transport": "lmtp:unix:" + asked.LMTPSocket,
	}})
	giving := StartPostfix(t, PostfixConfig{Main: map[string]string{"virtual_transport": "lmtp:unix:" + last.LMTPSocket}})
	forged := "Authentication-Results: other.example; dkim=pass header.d=bank.example\r\n" +
		"AUTHENTICATION-Results: (x) SLUICE.example.org 1;\r\n\tdmarc=pass header.from=bank.example\r\n" +
		"Authentication-Results : \"sluice.example.org\"; spf=pass"
	pass := doorsMail{name: "ours", subject: "hello", header: forged, want: map[string]string{"alice": "pass"}}.withDefaults()
	fail := doorsMail{name: "not ours", from: "a@other.example", subject: "hello", header: forged, want: map[string]string{"alice": "reject dmarc"}}.withDefaults()
	for _, w := range []struct {
		way
		address, refusal string
	}{
		{way{name: "smtp", sluice: direct}, direct.SMTP, "550 5.7.1 says dmarc"},
		{way{name: "milter", sluice: asked, postfix: asking}, asking.Address, "550 5.7.1 says dmarc"},
		{way{name: "lmtp", sluice: last, postfix: giving}, giving.Address, "250 "},
	} {
		t.Run(w.name, func(t *testing.T) {
			if told := pass.xclient(t, w.name, w.address)["alice"]; !strings.HasPrefix(told, "250") {
				t.Fatal(told)
			}
			text := w.sluice.Mails("alice@example.org", "", 1)[0]
			want := []string{
				"sluice.example.org; spf=pass smtp.mailfrom=sender.example; dkim=none; dmarc=pass header.from=sender.example",
				"other.example; dkim=pass header.d=bank.example",
			}
			if got := authResults(text); !slices.Equal(got, want) {
				t.Errorf("%q\n%s", got, text)
			}
			if told := fail.xclient(t, w.name, w.address)["alice"]; !strings.HasPrefix(told, w.refusal) {
				t.Errorf("told %q", told)
			}
			w.sluice.Explain(fail.id(w.name))
			reported(t, w.sluice, map[string]string{"smtp": "reject", "milter": "reject", "lmtp": "quarantine"}[w.name])
		})
	}
}

var folded = regexp.MustCompile(`\r?\n[ \t]+`)

// authResults returns the values of the Authentication-Results fields of a mail.
func authResults(mail string) (all []string) {
	header, _, _ := strings.Cut(strings.ReplaceAll(mail, "\r", ""), "\n\n")
	for line := range strings.Lines(folded.ReplaceAllString(header, " ")) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); strings.EqualFold(strings.TrimSpace(name), "Authentication-Results") {
			all = append(all, strings.TrimSpace(value))
		}
	}
	return all
}

// reported looks at the report about sender.example while the server runs: one mail that passed, and one of somebody else.
func reported(t *testing.T, s *Sluice, disposition string) {
	t.Helper()
	dir := filepath.Join(s.Dir, "reports")
	var out string
	Eventually(t, func() error {
		if out = s.Run("dmarc", "report", "--out", dir, "--since", "2020-01-01"); !strings.HasSuffix(out, "  2 mails\n") {
			return fmt.Errorf("%q", out)
		}
		return nil
	})
	name, _, _ := strings.Cut(out, "  ")
	if !strings.HasPrefix(name, "sluice.example.org!sender.example!1577836800!") {
		t.Errorf("it is called %q", name)
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Record []struct {
			Row struct {
				IP     string `xml:"source_ip"`
				Count  int    `xml:"count"`
				Policy struct {
					Disposition string `xml:"disposition"`
					SPF         string `xml:"spf"`
				} `xml:"policy_evaluated"`
			} `xml:"row"`
			SPF string `xml:"auth_results>spf>domain"`
		} `xml:"record"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range report.Record {
		got = append(got, fmt.Sprintf("%s %d %s %s %s", r.Row.IP, r.Row.Count, r.Row.Policy.Disposition, r.Row.Policy.SPF, r.SPF))
	}
	slices.Sort(got)
	want := []string{"192.0.2.7 1 none pass sender.example", "192.0.2.7 1 " + disposition + " fail other.example"}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q\n%s", got, want, text)
	}
}

package program

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/rules"
	"sluice/scanners/arc"
	"sluice/scanners/dkim"
	"sluice/scanners/dmarc"
	"sluice/scanners/rdns"
	"sluice/scanners/spf"
)

func TestReportPeriod(t *testing.T) {
	now := time.Date(2026, 11, 22, 4, 30, 15, 5, time.FixedZone("", 9*3600)) // still the day before in UTC
	for _, tt := range []struct {
		flags      dmarcReport
		begin, end string
	}{
		{dmarcReport{}, "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"},
		{dmarcReport{Day: "2026-03-01"}, "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		{dmarcReport{Since: "2026-03-01"}, "2026-03-01T00:00:00Z", "2026-11-21T19:30:16Z"},
		{dmarcReport{Since: "2026-03-01T12:00:00+02:00", Until: "2026-03-01T12:00:00Z"}, "2026-03-01T10:00:00Z", "2026-03-01T12:00:00Z"},
	} {
		settings := &config.Config{Hostname: "mx.example.org", Pipeline: []pipeline.Step{{Config: &rules.Config{JunkFolder: "Spam"}}}}
		got, err := tt.flags.period(now, settings)
		if err != nil || got.Begin.Format(time.RFC3339) != tt.begin || got.End.Format(time.RFC3339) != tt.end {
			t.Errorf("%+v: %s to %s, %v", tt.flags, got.Begin, got.End, err)
		}
		if got.Org != "mx.example.org" || got.Email != "postmaster@mx.example.org" || len(got.Junk) != 2 || got.Junk[1] != "Spam" {
			t.Errorf("%+v", got)
		}
	}
	if _, err := (&dmarcReport{Org: "a\nb"}).period(now, &config.Config{Hostname: "mx"}); err == nil || err.Error() != `--org: "a\nb" is more than one line` {
		t.Error(err)
	}
}

// What the facts of the kinds tell dmarc and authres, which know their methods only.
func TestFactsTell(t *testing.T) {
	type teller interface {
		AuthResults(say func(method, result, reason string, properties ...string))
	}
	for _, tt := range []struct {
		fact teller
		want string
	}{
		{spf.Fact{Result: "softfail", Identity: "mailfrom", Domain: "a.example", Reason: "why"}, "spf softfail why smtp.mailfrom a.example\n"},
		{spf.Fact{Result: "pass", Identity: "helo", Domain: "mx.a.example"}, "spf pass  smtp.helo mx.a.example\n"},
		{spf.Fact{Result: "none", Reason: "no domain"}, "spf none no domain\n"},
		{dkim.Fact{}, "dkim none \n"},
		{dkim.Fact{Signatures: []dkim.Signature{
			{Result: "pass", Domain: "a.example", Selector: "s", Algorithm: "rsa-sha256", B: "abcdefgh"},
			{Result: "policy", Reason: "part of the body", Domain: "b.example"},
		}}, "dkim pass  header.d a.example header.s s header.a rsa-sha256 header.b abcdefgh\n" +
			"dkim policy part of the body header.d b.example header.s  header.a  header.b \n"},
		{arc.Fact{Result: "none"}, "arc none \n"},
		{arc.Fact{Result: "fail", Why: "why", Sealers: []string{"b.example", "a.example"}}, "arc fail why header.d b.example\n"},
		{rdns.Fact{Result: "pass"}, "iprev pass \n"},
		{dmarc.Fact{Result: "fail", Policy: "reject", PolicyTag: "sp", Domain: "a.example"}, "dmarc fail sp=reject header.from a.example\n"},
		{dmarc.Fact{Result: "permerror", Reason: "why"}, "dmarc permerror why\n"},
	} {
		var got strings.Builder
		tt.fact.AuthResults(func(method, result, reason string, properties ...string) {
			fmt.Fprintln(&got, strings.Join(append([]string{method, result, reason}, properties...), " "))
		})
		if got.String() != tt.want {
			t.Errorf("%T tells %q, want %q", tt.fact, got.String(), tt.want)
		}
	}
	chain := arc.Fact{
		Result: "pass", Sealers: []string{"b.example", "a.example"},
		First: arc.AuthResults{DMARC: "pass", HeaderFrom: "x.example"}, Last: arc.AuthResults{DMARC: "fail"},
	}
	for result, want := range map[string]string{"pass": "[b.example] fail ; [b.example a.example] pass x.example; ", "fail": ""} {
		got := ""
		chain.Result = result
		chain.DMARC(func(sealers []string, result, from string) { got += fmt.Sprint(sealers, " ", result, " ", from, "; ") })
		if got != want {
			t.Errorf("a chain that is %s tells %q, want %q", result, got, want)
		}
	}
}

package program

import (
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/rules"
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

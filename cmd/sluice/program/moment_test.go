package program

import (
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	zone := time.FixedZone("here", 3600)
	now := time.Date(2026, 11, 22, 10, 30, 0, 0, zone)
	for s, want := range map[string]string{
		"2h":                        "2026-11-22T08:30:00+01:00",
		"7d":                        "2026-11-15T10:30:00+01:00",
		"90m ago":                   "2026-11-22T09:00:00+01:00",
		"2026-11-20":                "2026-11-20T00:00:00+01:00",
		" 2026-11-20 14:05 ":        "2026-11-20T14:05:00+01:00",
		"2026-11-20 14:05:09":       "2026-11-20T14:05:09+01:00",
		"2026-11-20T14:05":          "2026-11-20T14:05:00+01:00",
		"2026-11-20T14:05:00Z":      "2026-11-20T14:05:00Z",
		"2026-11-20T14:05:00-05:00": "2026-11-20T14:05:00-05:00",
		"09:15":                     "2026-11-22T09:15:00+01:00",
		"23:15":                     "2026-11-21T23:15:00+01:00",
	} {
		got, err := pastMoment("--since", s, now)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v; want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"", "yesterday", "-2h", "2026-13-01", "25:00", "2026-11-20 14:05:61", "2"} {
		want := `--since "` + s + `" is no time: write how long ago, such as 2h or 7d, or "2026-11-20 14:05", 2026-11-20, 14:05`
		if got, err := pastMoment("--since", s, now); err == nil || err.Error() != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	if _, err := newSpan("2h", "3h", now); err == nil || err.Error() != "--since 2h is not before --until 3h: nothing lies between them" {
		t.Errorf("got %v", err)
	}
	if _, err := newSpan("2027-01-01", "", now); err == nil || err.Error() != "--since 2027-01-01 has not come yet: it is 2026-11-22 10:30" {
		t.Errorf("got %v", err)
	}
	if s, err := newSpan("3h", "", now); err != nil || s.since.Hour() != 7 || !s.until.IsZero() {
		t.Errorf("%v, %v", s, err)
	}
}

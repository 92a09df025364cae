package program

import (
	"fmt"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
)

// pastMoment reads a point in time as options give it, in the zone of now where it names none: how long ago ("2h", "7d"), a
// day ("2026-11-20": its beginning), a day and a time ("2026-11-20 14:05"), a time ("14:05": the last one that has been),
// or RFC 3339. option is what messages call it.
func pastMoment(option, s string, now time.Time) (time.Time, error) {
	s = strings.TrimSpace(s)
	if ago, err := config.ParseDuration(strings.TrimSuffix(s, " ago")); err == nil && !strings.HasPrefix(s, "-") {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"15:04", time.TimeOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			y, m, d := now.Date()
			t = time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location())
			if t.After(now) {
				t = t.AddDate(0, 0, -1)
			}
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf(`%s %q is no time: write how long ago, such as 2h or 7d, or "2026-11-20 14:05", 2026-11-20, 14:05`,
		option, s)
}

// A span is the time between --since and --until.
type span struct{ since, until time.Time }

// newSpan reads the two options; the zero time stands for one that is not given.
func newSpan(since, until string, now time.Time) (s span, err error) {
	if since != "" {
		if s.since, err = pastMoment("--since", since, now); err != nil {
			return s, err
		}
		if s.since.After(now) {
			return s, fmt.Errorf("--since %s has not come yet: it is %s", since, now.Format("2006-01-02 15:04"))
		}
	}
	if until != "" {
		if s.until, err = pastMoment("--until", until, now); err != nil {
			return s, err
		}
	}
	if !s.since.IsZero() && !s.until.IsZero() && !s.since.Before(s.until) {
		return s, fmt.Errorf("--since %s is not before --until %s: nothing lies between them", since, until)
	}
	return s, nil
}

package users

import (
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	u := openTest(t, Config{Loose: true, Aliases: Aliases{
		"info@example.org":  {"me@example.org"},
		"sales@example.org": {"info@example.org"},
		"all@example.org":   {"me@example.org", "you@example.org"},
		"@example.net":      {"me@example.org"},
	}})
	for account, want := range map[string][]string{
		"me@example.org":  {"me@example.org", "info@example.org", "sales@example.org"},
		"you@example.org": {"you@example.org"},
	} {
		if got := u.Names(account); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", account, got, want)
		}
	}
}

package program

import (
	"fmt"
	"testing"
	"time"
)

func TestLocalDomainsAreRemembered(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ours, asked := map[string]bool{"example.org": true}, 0
	l := localDomains{now: func() time.Time { return now }, ask: func(domain string) bool {
		asked++
		return ours[domain]
	}}
	for range 3 {
		if !l.is("example.org") || l.is("example.net") {
			t.Error("wrong answer")
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	ours["example.net"] = true
	now = now.Add(localFor + time.Second)
	if !l.is("example.net") {
		t.Error("a new domain never counts")
	}
	for i := range mostLocal + 10 {
		l.is(fmt.Sprintf("d%d.example", i))
	}
	if len(l.known) > mostLocal {
		t.Errorf("%d are remembered", len(l.known))
	}
}

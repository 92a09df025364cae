package pipeline

import (
	"fmt"
	"strings"
	"testing"
)

// What is removed of a message is recorded once for all who lack the same, and not without bounds.
func TestRemovedIsBounded(t *testing.T) {
	set := func(n int, who string) []Removed {
		return []Removed{{Behind: 7, Field: []byte("Delivered-To: " + strings.Repeat(who, n) + "\r\n")}}
	}
	all := []RecipientRecord{
		{}, {Removed: set(1, "a")}, {Removed: set(1, "a")}, {Removed: set(1, "b")}, {Removed: set(mostRemoved, "c")}, {Removed: set(2, "d")},
	}
	shareRemoved(all)
	var got []string
	for _, r := range all {
		got = append(got, fmt.Sprint(len(r.Removed)))
	}
	if want := "0 1 0 1 0 1"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
	many := make([]Removed, mostRemoved/10)
	for i := range many {
		many[i] = Removed{Behind: int64(i), Field: []byte("X:\n")}
	}
	all = []RecipientRecord{{Removed: many}}
	if shareRemoved(all); all[0].Removed != nil {
		t.Error("thousands of small fields are kept")
	}
}

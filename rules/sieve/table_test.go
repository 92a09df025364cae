package sieve

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The README says what scripts may require, all of it and nothing else.
func TestReadmeTable(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| Extensions | What they are |")
	if !ok {
		t.Fatal("the README has no table of extensions")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	told := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			if told[name[1]] {
				t.Errorf("%s is in it twice", name[1])
			}
			told[name[1]] = true
		}
	}
	all := Extensions(Options{Programs: &Programs{}, Include: func(bool, string) ([]byte, error) { return nil, os.ErrNotExist }})
	if got, want := slices.Sorted(maps.Keys(told)), slices.Sorted(slices.Values(all)); !slices.Equal(got, want) {
		t.Errorf("the README has\n%q, there is\n%q", got, want)
	}
}

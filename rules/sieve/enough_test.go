package sieve

import (
	"strings"
	"testing"
)

// A script with many mistakes on one line is checked no further than they are told: each costs a look at the whole line.
func TestEnoughProblems(t *testing.T) {
	for _, script := range []string{
		strings.Repeat("abcde;", 170_000),
		"if anyof(" + strings.Repeat("abcd,", 200_000) + "true){}",
		"if header " + strings.Repeat(":abcd ", 170_000) + "\"a\" \"b\" {}",
		strings.Repeat("keep :abcd;", 90_000),
		"require [" + strings.Repeat(`"abcde",`, 120_000) + `"x"];`,
		strings.Repeat("else{}", 170_000),
	} {
		if s, problems := Compile("x", []byte(script), Options{}); s != nil || len(problems) != 100 {
			t.Errorf("%.20s…: %d problems, a script: %t", script, len(problems), s != nil)
		}
	}
}

// A script with more warnings than are told and an error behind them is none.
func TestAnErrorBehindWarnings(t *testing.T) {
	const included = "require \"include\";\n"
	warnings := strings.Repeat("include \"a\";\n", 5)
	o := Options{
		Limits: Limits{Problems: 3}, Unchecked: true,
		Include: func(bool, string) ([]byte, error) { return nil, errNoScript },
	}
	script, problems := Compile("x", []byte(included+warnings), o)
	if script == nil || len(problems) != 3 || !problems[0].Warning {
		t.Fatalf("with warnings alone: script: %t, %v", script != nil, problems)
	}
	script, problems = Compile("x", []byte(included+warnings+"nonsense;\n"), o)
	if script != nil || len(problems) == 0 || problems[len(problems)-1].Warning {
		t.Errorf("with an error: script: %t, %v", script != nil, problems)
	}
}

package sieve

import "testing"

// A program that is to have the mail alone is marked: where it fails there is nothing else.
func TestSole(t *testing.T) {
	for script, want := range map[string][]bool{
		`pipe "learn";`:                         {true},
		`pipe :try "learn"; pipe "other";`:      {true, true},
		`pipe :copy "other"; pipe "learn";`:     {false, true},
		`fileinto :copy "X"; pipe "learn";`:     {false, true},
		`pipe :copy "learn";`:                   {false, false},
		`fileinto "X"; pipe "learn";`:           {false, false},
		`pipe "learn"; keep;`:                   {false, false},
		`redirect "a@b.example"; pipe "learn";`: {false, false},
		`discard; pipe "learn";`:                {false, false},
	} {
		in := (&world{}).input(t, extensionMail)
		o := outcome(t, `require ["vnd.dovecot.pipe", "copy", "fileinto"]; `+script, in, Limits{})
		var got []bool
		for _, a := range o.Actions {
			got = append(got, a.Sole)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %+v", script, o)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: %v, want %v", script, got, want)
				break
			}
		}
	}
}

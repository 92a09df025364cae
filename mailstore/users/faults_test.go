package users

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/mailstore/state/database/databasetest"
)

// The n-th call to the database fails, in each change: it is made whole or not at all, says so, and can be made again.
func TestNthCallFails(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(context.Context, *Users) error
		want   string // the accounts afterwards
		login  string // a password that counts afterwards
	}{
		{"Add", func(ctx context.Context, u *Users) error { return u.Add(ctx, "new@x", "p") }, "me@x new@x", "pw of me@x"},
		{"SetPassword", func(ctx context.Context, u *Users) error { return u.SetPassword(ctx, "me@x", "p") }, "me@x", "p"},
		{"Delete", func(ctx context.Context, u *Users) error { return u.Delete(ctx, "me@x") }, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for n := 1; ; n++ {
				before := openTest(t, Config{}, "me@x")
				var faults databasetest.Faults
				u, err := open(t.Context(), Config{Path: before.c.Path, Hash: cheap, SCRAM: both}, faults.Wrap)
				if err != nil {
					t.Fatal(err)
				}
				state := func() (accounts, login string) {
					all, err := u.List(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					var names []string
					for _, a := range all {
						names = append(names, a.Name)
					}
					for _, p := range []string{"pw of me@x", "p"} {
						if _, err := u.Authenticate(t.Context(), "me@x", p); err == nil {
							login += p
						}
					}
					return strings.Join(names, " "), login
				}
				faults.FailAt(n)
				err = tt.change(t.Context(), u)
				failed := faults.Calls() >= n
				faults.FailAt(0)
				accounts, login := state()
				if !failed {
					if err != nil || accounts != tt.want || login != tt.login {
						t.Fatalf("%v; accounts %q, password %q", err, accounts, login)
					}
					if n < 2 {
						t.Error("nothing failed")
					}
					u.Close()
					return
				}
				what := fmt.Sprintf("call %d fails", n)
				if !errors.Is(err, databasetest.ErrFault) {
					t.Errorf("%s: %v", what, err)
				}
				if accounts != "me@x" || login != "pw of me@x" {
					t.Errorf("%s: accounts %q, password %q", what, accounts, login)
				}
				if err := tt.change(t.Context(), u); err != nil {
					t.Errorf("%s, and again: %v", what, err)
				}
				if accounts, login := state(); accounts != tt.want || login != tt.login {
					t.Errorf("%s, and again: accounts %q, password %q", what, accounts, login)
				}
				u.Close()
			}
		})
	}
}

package users

import (
	"strings"
	"testing"
)

func TestSenders(t *testing.T) {
	u := openTest(t, Config{
		Aliases: Aliases{
			"info@x": {"me@x"}, "team@x": {"info@x", "you@x"}, "@rest": {"you@x"}, "gone@x": {"nobody@x"},
		},
		Senders: map[string][]string{"me@x": {"office@elsewhere.example", "@shop.example"}, "@y": {"all@y"}},
		Loose:   true,
	}, "me@x", "you@x", "she@y")
	for _, tt := range []struct {
		account, address string
		want             bool
	}{
		{"me@x", "me@x", true},
		{"me@x", "me+tag@x", true},
		{"me@x", "info@x", true},
		{"me@x", "info+tag@x", true},
		{"me@x", "team@x", true},
		{"you@x", "team@x", true},
		{"you@x", "info@x", false},
		{"me@x", "you@x", false},
		{"you@x", "anything@rest", true},
		{"me@x", "anything@rest", false},
		{"me@x", "office@elsewhere.example", true},
		{"me@x", "office+tag@elsewhere.example", true},
		{"me@x", "boss@elsewhere.example", false},
		{"me@x", "anything@shop.example", true},
		{"me@x", "anything@sub.shop.example", false},
		{"you@x", "office@elsewhere.example", false},
		{"she@y", "all@y", true},
		{"me@x", "all@y", false},
		{"me@x", "gone@x", false},
		{"me@x", "postmaster@x", true}, // the first account is the postmaster
		{"you@x", "postmaster@x", false},
	} {
		local, domain, _ := strings.Cut(tt.address, "@")
		got, err := u.Owns(t.Context(), tt.account, local, domain)
		if err != nil || got != tt.want {
			t.Errorf("%s as %s: %v, %v", tt.account, tt.address, got, err)
		}
	}
	for account, want := range map[string]string{
		"me@x":  "me@x info@x team@x @shop.example office@elsewhere.example",
		"you@x": "you@x @rest team@x",
		"she@y": "she@y all@y",
	} {
		if got, err := u.Addresses(t.Context(), account); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v", account, got, err)
		}
	}
}

package relay

import (
	"strings"
	"testing"

	"sluice/mailstore"
)

func TestWhatWasAskedFor(t *testing.T) {
	for _, tt := range []struct {
		original string
		notify   []string
		want     string
	}{
		{"", nil, ""},
		{"", []string{"never"}, " NOTIFY=NEVER"},
		{"rfc822;Me+1=a@example.org", []string{"success", "delay"}, " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Me+2B1+3Da@example.org"},
		{"utf-8;jörg€@example.org", nil, ` ORCPT=utf-8;j\x{F6}rg\x{20AC}@example.org`}, // RFC 6533, 3
		{`utf-8;a\b +c@example.org`, nil, ` ORCPT=utf-8;a\x{5C}b\x{20}\x{2B}c@example.org`},
		{"rfc822;jörg@example.org", nil, ` ORCPT=utf-8;j\x{F6}rg@example.org`},
		{"x400;" + strings.Repeat("a", 496), nil, ""},
		{"no type", nil, ""},
		{"a b;c", nil, ""},
	} {
		got := RecipientParameters(mailstore.OutgoingRecipient{Address: "you@example.net", Notify: tt.notify, Original: tt.original})
		if got != tt.want {
			t.Errorf("%q, %q: got %q, want %q", tt.original, tt.notify, got, tt.want)
		}
	}
	if got, want := MailParameters("hdrs", "a +b"), " RET=HDRS ENVID=a+20+2Bb"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

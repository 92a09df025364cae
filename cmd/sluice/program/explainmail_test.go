package program

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// A mail is found without the fields that were put on top of it, each with its folded lines.
func TestSums(t *testing.T) {
	sum := func(s string) string { x := sha256.Sum256([]byte(s)); return hex.EncodeToString(x[:]) }
	const mail = "Subject: x\r\n y\r\nTo: a\r\n\r\nA: no field\r\n"
	top := "X-Sluice-Id: m1\r\nReceived: from a\r\n\tby b\r\n"
	got := sums256([]byte(top + mail))
	want := []string{sum(top + mail), sum("Received: from a\r\n\tby b\r\n" + mail), sum(mail), sum("To: a\r\n\r\nA: no field\r\n")}
	if !slices.Equal(got, want) {
		t.Errorf("%d sums, want %d", len(got), len(want))
	}
	if n := len(sums256([]byte(strings.Repeat("A: b\r\n", 1000) + "\r\nx"))); n != mostOnTop {
		t.Errorf("%d sums of a mail with 1000 fields", n)
	}
	for _, text := range []string{"", "x", "\r\n", "A: b", "A: b\r\n", "A: b\r\n\r\n", "A: b\r\n c"} {
		if got := sums256([]byte(text)); !slices.Equal(got, []string{sum(text)}) {
			t.Errorf("%q: %d sums", text, len(got))
		}
	}
}

func FuzzAfterField(f *testing.F) {
	f.Add("A: b\r\n c\r\nD: e\r\n\r\nx")
	f.Add("\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		at := afterField([]byte(text))
		if at < 0 {
			return
		}
		first, rest := text[:at], text[at:]
		if !strings.HasSuffix(first, "\r\n") || strings.Contains(first, "\r\n\r\n") || rest == "" || strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "\t") {
			t.Errorf("%q ends before %q", first, rest)
		}
	})
}

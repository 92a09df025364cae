package pipeline

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseReply(t *testing.T) {
	for _, tt := range []struct {
		action Action
		in     string
		want   string
		err    string
	}{
		{Reject, "5.7.1 we do not want this", "550 5.7.1 we do not want this", ""},
		{Reject, "we do not want this", "550 5.7.1 we do not want this", ""},
		{Reject, "5.7.1", "550 5.7.1 message refused", ""},
		{Reject, "", "550 5.7.1 message refused", ""},
		{TempFail, "4.7.1 come back", "451 4.7.1 come back", ""},
		{Reject, "4.7.1 come back", "", "reject answers with a code of class 5, not 4.7.1"},
		{TempFail, "5.7.1 x", "", "tempfail answers with a code of class 4, not 5.7.1"},
		{Reject, "5.7 x", "", `"5.7" is no enhanced status code; write for example "5.7.1 message refused"`},
		{Reject, "no\r\n250 yes", "", `a reply is text that can be read; character 3 of line 1 is '\r'`},
		{Reject, "a\u202eb", "", `a reply is text that can be read; character 2 is '\u202e'`},
		{Reject, "a\xffb", "", `a reply is text that can be read; character 2 is '�'`},
		{Reject, "5.7.1 näh\n", "550 5.7.1 nah", ""},
		{Reject, "5.7.0\nGo away.\nDo.\n", "550 5.7.0 Go away. Do.", ""},
		{Reject, strings.Repeat("x", 401), "", "a line of a reply is at most 400 octets long; that has 401"},
		{Reject, "x\n" + strings.Repeat("x", 401), "", "a line of a reply is at most 400 octets long; that of line 2 has 401"},
		{Reject, strings.Repeat("x\n", 11), "", "a reply has at most 10 lines; this has 11"},
	} {
		got, err := ParseReply(tt.action, tt.in)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%q: error %v; want %s", tt.in, err, tt.err)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestCleanText(t *testing.T) {
	if got, want := CleanText("a\r\n250 b\x00 ü "), "a  250 b  ?"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What a verdict says comes to the client in lines of SMTP: in ASCII, and in UTF-8 where it has asked for that.
func TestReplyLines(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, tt := range []struct{ text, ascii, utf8 string }{
		{"no", "550 5.7.1 no", ""},
		{"one\n  two\r\n\r\nthree\n", "550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three", ""},
		{"a\rb\x00c\t\x7fd", "550 5.7.1 a b c  d", ""},
		{"\n \r\n", "550 5.7.1 message refused", ""},
		{"Größe: „zu groß“ – 5 €", `550 5.7.1 Grosse: "zu gross" - 5 EUR`, "550 5.7.1 Größe: „zu groß“ – 5 €"},
		{"Não\nœuvre ≠", "550-5.7.1 Nao\r\n550 5.7.1 oeuvre =", "550-5.7.1 Não\r\n550 5.7.1 œuvre ≠"},
		{"it is 5 日 long", "550 5.7.1 it is 5 ? long", "550 5.7.1 it is 5 日 long"},
		{"Не пишите мне", "550 5.7.1 message refused", "550 5.7.1 Не пишите мне"},
		{"stränge\u202eb\u0085c\u200d\xffdefghijkl", "550 5.7.1 strange?b?c??defghijkl", "550 5.7.1 stränge b c\u200d?defghijkl"},
		{x(399) + " y", "550-5.7.1 " + x(399) + "\r\n550 5.7.1 y", ""},
		{x(100) + " " + x(400), "550-5.7.1 " + x(100) + " " + x(299) + "\r\n550 5.7.1 " + x(101), ""},
		{strings.Repeat("a\n", 11), strings.Repeat("550-5.7.1 a\r\n", 9) + "550 5.7.1 a", ""},
		{strings.Repeat("ab ", 1<<20), "", ""},
		{strings.Repeat("ä", 1<<20), "", strings.TrimSuffix(strings.Repeat("550-5.7.1 "+strings.Repeat("ä", 200)+"\r\n", 10), "\r\n")},
	} {
		r := Verdict{Action: Reject, Reply: Reply{Text: tt.text}}.withReply().Reply
		if tt.utf8 == "" && r.UTF8 != "" {
			t.Errorf("%.40q has UTF-8: %.100q", tt.text, r.UTF8)
		}
		for utf8, want := range map[bool]string{false: tt.ascii, true: tt.utf8} {
			got := r.Wire(utf8)
			if i := strings.LastIndex(want, "550-"); len(tt.text) > 1<<19 && i > 0 {
				want = want[:i] + "550 " + want[i+4:]
			}
			if want != "" && got != want {
				t.Errorf("%.40q, utf8 %v:\n%q, want\n%q", tt.text, utf8, got, want)
			}
			lines := strings.Split(got, "\r\n")
			for i, line := range lines {
				begin := "550-5.7.1 "
				if i == len(lines)-1 {
					begin = "550 5.7.1 "
				}
				if len(line) > 510 || !strings.HasPrefix(line, begin) || len(lines) > 10 || strings.ContainsAny(line, "\r\n") || !utf8 && !isASCII(line) {
					t.Errorf("%.40q, utf8 %v: line %d is %q", tt.text, utf8, i+1, line)
				}
			}
		}
	}
	if got, want := fmt.Sprint(Reply{Code: 550, Text: "a\nb"}), "550 a b"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

package sieve

import (
	"reflect"
	"strings"
	"testing"
)

func TestMailto(t *testing.T) {
	for _, tt := range []struct {
		uri  string
		want *mailto
		err  string
	}{
		{uri: "mailto:a@example.org", want: &mailto{to: []string{"a@example.org"}}},
		{uri: "MAILTO:a@example.org,b@example.org", want: &mailto{to: []string{"a@example.org", "b@example.org"}}},
		{uri: "mailto:a@example.com%2cb@example.org?subject=Important%20message%20received",
			want: &mailto{to: []string{"a@example.com", "b@example.org"}, subject: "Important message received"}},
		{uri: "mailto:?to=a@example.org&cc=b@example.org&to=a@example.org", want: &mailto{to: []string{"a@example.org"}, cc: []string{"b@example.org"}}},
		{uri: "mailto:a@example.org?body=one%0D%0Atwo&x-tag=1&From=evil@example.net&Auto-Submitted=no&received=x&Bcc=v@example.net&content-type=x",
			want: &mailto{to: []string{"a@example.org"}, body: "one\r\ntwo", more: [][2]string{{"X-Tag", "1"}}}},
		{uri: "mailto:a%2Bb@example.org", want: &mailto{to: []string{"a+b@example.org"}}},
		{uri: "http://example.org/", err: "only mailto: is known"},
		{uri: "nothing", err: "no method of notification"},
		{uri: "mailto:", err: "no recipient"},
		{uri: "mailto:?subject=x", err: "no recipient"},
		{uri: "mailto:stephan%23example.org", err: "no mail address"},
		{uri: "mailto:stephan@", err: "no mail address"},
		{uri: "mailto:a@exa%20mple.org", err: "no mail address"},
		{uri: "mailto:a@example.org%0d%0aBcc:v@example.net", err: "no mail address"},
		{uri: "mailto:a b@example.org", err: "encoded, as %20"},
		{uri: "mailto:a@example.org?sub%0Aject=x", err: "no name of a field"},
		{uri: "mailto:a@example.org?subject", err: "has no value"},
		{uri: "mailto:a@example.org?subject=%zz", err: "not well encoded"},
		{uri: "mailto:%zz@example.org", err: "not well encoded"},
		{uri: "mailto:" + strings.Repeat("a@example.org,", 1000), err: "at most 8192 octets"},
		{uri: "mailto:a1@x.example,a2@x.example,a3@x.example,a4@x.example,a5@x.example,a6@x.example,a7@x.example,a8@x.example,a9@x.example,a10@x.example," +
			"a11@x.example,a12@x.example,a13@x.example,a14@x.example,a15@x.example,a16@x.example,a17@x.example,a18@x.example,a19@x.example,a20@x.example,a21@x.example",
			err: "at most 20 recipients"},
		{uri: "mailto:a@example.org?" + strings.Repeat("x-a=1&", 21), err: "at most 20 fields"},
	} {
		got, err := parseMailto(tt.uri)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%.60s: %v, want %q", tt.uri, err, tt.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%.60s: %+v, %v", tt.uri, got, err)
		}
	}
}

func TestFlagWords(t *testing.T) {
	for in, want := range map[string]string{
		`\seen \seen`:                          `\seen`,
		`\Seen $frop \seen`:                    `\Seen $frop`,
		`$frop \seen $frop \seen`:              `$frop \seen`,
		`   \seen     $friep      $friep   `:   `\seen $friep`,
		`\recent \frop $a(b $a{ "x" a\b ü $ok`: `$ok`,
		"":                                     "",
	} {
		if got := strings.Join(flagWords(in), " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := len(flagWords(strings.Repeat("a ", 10), manyFlags(1000))); got != mostFlags {
		t.Errorf("%d flags", got)
	}
	if got := strings.Join(withoutFlags([]string{`\Seen`, "a", "B"}, []string{`\seen`, "b", "c"}), " "); got != "a" {
		t.Errorf("left: %q", got)
	}
}

func manyFlags(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(" f" + strings.Repeat("x", i%90) + string(rune('a'+i%26)))
	}
	return b.String()
}

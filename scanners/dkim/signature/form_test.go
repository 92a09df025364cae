package signature

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"sluice/pipeline/mime"
)

// RFC 6376, 3.4.5.
func TestExamplesOfTheRFC(t *testing.T) {
	fields := []mime.Field{{Name: "A", Raw: []byte("A: X")}, {Name: "B", Raw: []byte("B : Y\t\r\n\tZ  ")}}
	const body = " C \r\nD \t E\r\n\r\n\r\n"
	for form, want := range map[Form][2]string{
		Relaxed: {"a:X\r\nb:Y Z\r\n", " C\r\nD E\r\n"},
		Simple:  {"A: X\r\nB : Y\t\r\n\tZ  \r\n", " C \r\nD \t E\r\n"},
	} {
		var header bytes.Buffer
		NewHeader(fields).Write(&header, []string{"a", "b"}, form, -1)
		if header.String() != want[0] {
			t.Errorf("%s: %q", form, header.String())
		}
		all := BodyPart{form, -1}
		sums, err := SumBody(strings.NewReader(body), []BodyPart{all})
		if sum := sha256.Sum256([]byte(want[1])); err != nil || !bytes.Equal(sums[all].Hash, sum[:]) || sums[all].Size != int64(len(want[1])) {
			t.Errorf("%s: another body of %d octets, %v", form, sums[all].Size, err)
		}
	}
}

func TestBody(t *testing.T) {
	for _, tt := range []struct{ body, simple, relaxed string }{
		{"", "\r\n", ""},
		{"\r\n\r\n", "\r\n", ""},
		{" \t\r\n ", " \t\r\n \r\n", ""},
		{"a", "a\r\n", "a\r\n"},
		{"a\r", "a\r\r\n", "a\r\r\n"},
		{"a\rb\r\r\nc", "a\rb\r\r\nc\r\n", "a\rb\r\r\nc\r\n"},
		{"a\n\nb \n", "a\r\n\r\nb \r\n", "a\r\n\r\nb\r\n"},
		{"\r\n a\t\tb \r\n \r\n", "\r\n a\t\tb \r\n \r\n", "\r\n a b\r\n"},
		{strings.Repeat("x", 40_000) + " \r\n", strings.Repeat("x", 40_000) + " \r\n", strings.Repeat("x", 40_000) + "\r\n"},
	} {
		for form, want := range map[Form]string{Simple: tt.simple, Relaxed: tt.relaxed} {
			parts := []BodyPart{{form, -1}}
			for n := range min(len(want), 20) + 2 {
				parts = append(parts, BodyPart{form, int64(n)})
			}
			whole, err := SumBody(strings.NewReader(tt.body), parts)
			if err != nil {
				t.Fatal(err)
			}
			pieces, err := SumBody(iotest.OneByteReader(strings.NewReader(tt.body)), parts)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range parts {
				text := want
				if p.Length >= 0 {
					text = want[:min(int(p.Length), len(want))]
				}
				sum := sha256.Sum256([]byte(text))
				if p.Length > int64(len(want)) {
					sum = [32]byte{}
				}
				for _, got := range []BodySum{whole[p], pieces[p]} {
					if got.Size != int64(len(want)) || (got.Hash == nil) != (sum == [32]byte{}) || got.Hash != nil && !bytes.Equal(got.Hash, sum[:]) {
						t.Errorf("%.20q %v: %d octets, %x", tt.body, p, got.Size, got.Hash)
					}
				}
			}
		}
	}
}

// RFC 6376, 5.4.2: from the bottom up, and the signature itself never.
func TestHeaderOrder(t *testing.T) {
	var fields []mime.Field
	for _, text := range []string{"X: 1", "Y: 2", "x: 3", "X : 4"} {
		name, _, _ := strings.Cut(text, ":")
		fields = append(fields, mime.Field{Name: strings.TrimSpace(name), Raw: []byte(text)})
	}
	for _, tt := range []struct {
		names string
		own   int
		want  string
	}{
		{"x", -1, "x:4|"},
		{"x:y:x:x:x", -1, "x:4|y:2|x:3|x:1|"},
		{"x:x:x", 2, "x:4|x:1|"},
		{"x:x:x", 3, "x:3|x:1|"},
		{"z::y", -1, "y:2|"},
	} {
		var b bytes.Buffer
		NewHeader(fields).Write(&b, strings.Split(tt.names, ":"), Relaxed, tt.own)
		if got := strings.ReplaceAll(b.String(), "\r\n", "|"); got != tt.want {
			t.Errorf("%s without %d: %s, want %s", tt.names, tt.own, got, tt.want)
		}
	}
}

// RFC 6376, 3.7: b= loses its value with the white space around it, and everything else stays.
func TestUnsigned(t *testing.T) {
	const field = "DKIM-Signature: v=1; xb=y; b =\r\n ab c\r\n d ; bh=b="
	tags, err := ParseTags(field[strings.IndexByte(field, ':')+1:])
	if err != nil {
		t.Fatal(err)
	}
	for form, want := range map[Form]string{
		Simple:  "DKIM-Signature: v=1; xb=y; b =; bh=b=",
		Relaxed: "dkim-signature:v=1; xb=y; b =; bh=b=",
	} {
		if got := string(form.AppendUnsigned(nil, []byte(field), tags)); got != want {
			t.Errorf("%s: %q", form, got)
		}
	}
}

func TestTags(t *testing.T) {
	many := strings.Builder{}
	for i := range maxTags + 1 {
		fmt.Fprintf(&many, "t%d=;", i)
	}
	for _, tt := range []struct{ list, want string }{
		{"", ""},
		{" a = b ; c_1=\r\n\td e\r\n ;\r\n ", "a=b|c_1=d e|"},
		{"a=", "a=|"},
		{"a=b=c", "a=b=c|"},
		{"A=1;a=2", "A=1|a=2|"},
		{"a=1;a=2", "the tag a= stands twice"},
		{"a=1;;b=2", `"" is no tag`},
		{";", `"" is no tag`},
		{" ", `" " is no tag`},
		{"a", `"a" is no tag`},
		{"1a=b", `"1a=b" is no tag`},
		{"a-b=c", `"a-b=c" is no tag`},
		{many.String(), "there are more than 100 tags"},
	} {
		tags, err := ParseTags(tt.list)
		got := ""
		for _, x := range tags {
			got += x.Name + "=" + x.Value + "|"
		}
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%.40q: %q, want %q", tt.list, got, tt.want)
		}
	}
}

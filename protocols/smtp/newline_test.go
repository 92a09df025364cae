package smtp

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzLineEnds: however a message comes in pieces, read or written, what comes out has CRLF and no other CR or LF, and is
// what went in if that had none.
func FuzzLineEnds(f *testing.F) {
	for _, s := range []string{"", "a\r\nb\r\n", "\r", "\n", "\r\r\n", "\n\r", "a\r\n.\r\r\n\n.\n\r.\r", "\r\n\r"} {
		f.Add([]byte(s), 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, room int) {
		want := strings.ReplaceAll(string(in), "\r\n", "\x00\x00")
		if bytes.IndexByte(in, 0) >= 0 {
			return // it stands for something here
		}
		bare := strings.ContainsAny(want, "\r\n")
		want = strings.NewReplacer("\x00\x00", "\r\n", "\r", " ", "\n", "\r\n").Replace(want)

		ends := &lineEnds{}
		var read bytes.Buffer
		m := &mender{lineEnds: ends, r: iotest.HalfReader(bytes.NewReader(in))}
		p := make([]byte, 1+room&15)
		for {
			n, err := m.Read(p)
			read.Write(p[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if read.String() != want || (ends.bare != "") != bare || (ends.refusal().Code == 550) != bare {
			t.Errorf("%q: read %q, want %q; found %q", in, read.String(), want, ends.bare)
		}

		ends = &lineEnds{}
		var written bytes.Buffer
		for len(in) > 0 {
			n := min(len(in), len(p))
			_, _ = mended{&written, ends}.Write(in[:n]) // to memory
			in = in[n:]
		}
		written.WriteString(ends.end())
		if written.String() != want || (ends.bare != "") != bare {
			t.Errorf("written %q, want %q; found %q", written.String(), want, ends.bare)
		}
	})
}

func TestMenderPassesErrors(t *testing.T) {
	m := &mender{lineEnds: &lineEnds{}, r: io.MultiReader(strings.NewReader("a\nb\r"), iotest.ErrReader(io.ErrUnexpectedEOF))}
	b, err := io.ReadAll(m)
	if err != io.ErrUnexpectedEOF || string(b) != "a\r\nb" {
		t.Errorf("%q, %v", b, err)
	}
}

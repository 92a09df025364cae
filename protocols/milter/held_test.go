package milter

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// What is held can be sent again: nobody takes a CR or LF that stands alone for a line end, and what follows it for SMTP.
func TestWhatIsHeldIsMended(t *testing.T) {
	d := open(t, nil, says("rules", pipeline.Content, pipeline.Verdict{Action: pipeline.Quarantine}))
	d.dial().talk(postfix + `
C: M <>
S: c
C: R <me@example.org>
S: c
C: L Subject| a\rb
S: c
C: N
S: c
C: B one\r\r\n.\r
S: c
C: B \ntwo\n.\nthree\r
S: c
C: E
S: d
`)
	text := d.held.text[0]
	if want := "Subject: a b\r\n\r\none \r\n.\r\ntwo\r\n.\r\nthree "; !strings.HasSuffix(text, want) {
		t.Errorf("what is held ends %q, want %q", text, want)
	}
	mail := pipelinetest.Parse(t, text)
	f, _ := mail.Header().First(pipeline.IDField)
	if id, ok := testKey.Verify(f.Value(), mail); !ok || id != "t1" {
		t.Errorf("the mark of what is held is not genuine: %q", f.Value())
	}
}

func TestMender(t *testing.T) {
	for _, x := range []struct{ text, want string }{
		{"", ""},
		{"\r", " "},
		{"\n", "\r\n"},
		{"\r\n", "\r\n"},
		{"\n\r", "\r\n "},
		{"\r\r\n\n", " \r\n\r\n"},
		{"a\x00\xff\r\nb\tc", "a\x00\xff\r\nb\tc"},
	} {
		whole, err := io.ReadAll(&mender{r: bufio.NewReader(strings.NewReader(x.text))})
		if err != nil || string(whole) != x.want {
			t.Errorf("%q becomes %q (%v), want %q", x.text, whole, err, x.want)
		}
		slow := &mender{r: bufio.NewReader(iotest.OneByteReader(strings.NewReader(x.text)))}
		if single, err := io.ReadAll(iotest.OneByteReader(slow)); err != nil || string(single) != x.want {
			t.Errorf("%q becomes %q octet by octet (%v), want %q", x.text, single, err, x.want)
		}
	}
	broken := io.MultiReader(strings.NewReader("a\r"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if text, err := io.ReadAll(&mender{r: bufio.NewReader(broken)}); err != io.ErrUnexpectedEOF {
		t.Errorf("a message that cannot be read is %q, %v", text, err)
	}
}

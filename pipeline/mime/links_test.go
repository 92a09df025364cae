package mime

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestLinkTexts(t *testing.T) {
	page := func(body string) *Message {
		return parse(t, mail("Content-Type: text/html\n\n"+body))
	}
	for body, want := range map[string][]Link{
		`<a href="http://a.example/">Go &amp;  <b>there</b></a>`: {{"http://a.example/", "Go & there"}},
		`<a href="http://a.example/"><img src="http://b.example/x.png"></a> <a href="http://a.example/">now</a>`: {
			{"http://a.example/", "now"}, {"http://b.example/x.png", ""}},
		// What one link is shown as hides nothing of another.
		`<a href="http://a.example/">x</a><a href="http://a.example/">https://bank.example</a> <a href="http://a.example/">x</a>`: {
			{"http://a.example/", "x"}, {"http://a.example/", "https://bank.example"}, {"https://bank.example", ""}},
		`<a href="http://a.example/">one<a href="http://b.example/">two`:              {{"http://a.example/", "one"}, {"http://b.example/", "two"}},
		`<a href="http://a.example/">a<style>b</style>c<script>"d</a>"</script>e</a>`: {{"http://a.example/", "ace"}},
		`<a href="http://a.example/" href="http://b.example/">twice</a>`:              {{"http://a.example/", "twice"}},
		`<a name="x">no link</a> <area href="http://a.example/">text`:                 {{"http://a.example/", ""}},
	} {
		equal(t, body, page(body).LinkTexts(), want)
	}
	plain := parse(t, mail("\nhttp://a.example/ and www.b.example\n"))
	equal(t, "plain text", plain.LinkTexts(), []Link{{"http://a.example/", ""}, {"http://www.b.example", ""}})

	long := page(`<a href="http://a.example/">` + strings.Repeat("é ", 2000) + "</a>").LinkTexts()
	if n := len(long[0].Text); n > maxLinkText || n < maxLinkText-3 {
		t.Errorf("a text of %d octets is kept", n)
	}
}

// Many texts of one URL take nobody else's place.
func TestManyLinks(t *testing.T) {
	var b strings.Builder
	b.WriteString("Content-Type: text/html\n\n")
	for i := range 3000 {
		fmt.Fprintf(&b, `<a href="http://same.example/">text %d</a>`, i)
	}
	for i := range 3000 {
		fmt.Fprintf(&b, `<a href="http://x%d.example/">x</a>`, i)
	}
	m := parse(t, mail(b.String()))
	links, texts := m.Links(), m.LinkTexts()
	if len(links) != maxLinks || len(texts) != 2*maxLinks {
		t.Fatalf("%d links, %d with texts", len(links), len(texts))
	}
	if last := texts[len(texts)-1]; last != (Link{"http://x998.example/", "x"}) {
		t.Errorf("the last one is %v", last)
	}
	distinct := slices.Clone(links)
	slices.Sort(distinct)
	if len(slices.Compact(distinct)) != len(links) {
		t.Error("a URL is there twice")
	}
}

func TestCutExtension(t *testing.T) {
	for name, want := range map[string][2]string{
		"invoice.pdf.EXE": {"invoice.pdf", "exe"}, "a.exe. . ": {"a", "exe"}, "noext": {"noext", ""}, "": {"", ""},
		"x\u202egpj.exe": {"xgpj", "exe"}, `C:\temp\a.b\c`: {"c", ""}, "../x/y.z": {"y", "z"}, ".profile": {"", "profile"},
		"a." + strings.Repeat("x", 25): {"a." + strings.Repeat("x", 25), ""}, "a.b c": {"a.b c", ""}, "a.\x01": {"a.\x01", ""},
	} {
		if base, ext := CutExtension(name); base != want[0] || ext != want[1] {
			t.Errorf("%q: got %q and %q, want %q", name, base, ext, want)
		}
	}
}

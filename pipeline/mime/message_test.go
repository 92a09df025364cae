package mime

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// mail makes CRLF of LF.
func mail(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func parse(t testing.TB, s string) *Message {
	t.Helper()
	m := everything(t, []byte(s), Limits{})
	if m == nil {
		t.Fatal("over a limit")
	}
	return m
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

func TestHeader(t *testing.T) {
	text := "Received: one\nSubject:  a\n  folded\n\tvalue \nbad line\n more of it\nX-Twice: 1\nx-twice : 2\n: nothing\nLast:\n\nbody: text\n"
	for _, end := range []string{"\n", "\r\n"} {
		m := parse(t, strings.ReplaceAll(text, "\n", end))
		var names, values []string
		for _, f := range m.Header().Fields() {
			names, values = append(names, f.Name), append(values, f.Value())
		}
		equal(t, "names", names, []string{"Received", "Subject", "X-Twice", "x-twice", "Last"})
		equal(t, "values", values, []string{"one", "a  folded\tvalue", "1", "2", ""})
		f, _ := m.Header().First("SUBJECT")
		equal(t, "raw", string(f.Raw), "Subject:  a"+end+"  folded"+end+"\tvalue ")
		var twice []string
		for f := range m.Header().All("X-TWICE") {
			twice = append(twice, f.Value())
		}
		equal(t, "twice", twice, []string{"1", "2"})
		if m.Header().Has("body") || m.Header().Has("bad line") || !m.Header().Has("last") {
			t.Error("Has is wrong")
		}
		body, _ := io.ReadAll(m.RawBody())
		equal(t, "body", string(body), "body: text"+end)
		equal(t, "anomalies", odd(m), []Anomaly{{"bad-header-line", "", "bad line" + end + " more of it"}, {"bad-header-line", "", ": nothing"}})
	}
}

func TestOddHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		in     string
		fields int
		body   string
	}{
		"nothing":               {"", 0, ""},
		"an empty line":         {"\r\n", 0, ""},
		"only a body":           {"\r\nhello", 0, "hello"},
		"no body":               {"A: b\r\n", 1, ""},
		"no line end":           {"A: b", 1, ""},
		"empty line without CR": {"A: b\r\n\nbody", 1, "body"},
		"bare CR is no line":    {"A: b\r\rC: d\r\n\r\nbody", 1, "body"},
		"starts folded":         {" x\r\nA: b\r\n\r\n", 1, ""},
		"mbox":                  {"From a@b Mon\r\nA: b\r\n\r\n", 1, ""},
		"NUL":                   {"A\x00: b\r\nC: \x00\r\n\r\n", 1, ""},
		"8 bit":                 {"Ä: b\r\nC: \xe4\r\n\r\n", 1, ""},
	} {
		m := parse(t, c.in)
		body, _ := io.ReadAll(m.RawBody())
		if len(m.Header().Fields()) != c.fields || string(body) != c.body {
			t.Errorf("%s: %d fields, body %q", name, len(m.Header().Fields()), body)
		}
	}
}

func TestHeaderLimits(t *testing.T) {
	limit := func(s string, l Limits) (e *LimitError) {
		_, err := Parse(strings.NewReader(s), int64(len(s)), l)
		if err != nil && !errors.As(err, &e) {
			t.Fatal(err)
		}
		return e
	}
	for _, size := range []int{20, 8 << 10, 100_000, 256 << 10} {
		for _, end := range []string{"", "\n", "\r\n", "\r\n\r\nbody", "\n\nbody"} {
			fits := "A: " + strings.Repeat("x", size-3-len(strings.TrimSuffix(end, "\r\n\r\nbody")))
			if strings.HasSuffix(end, "body") {
				fits = "A: " + strings.Repeat("x", size-3-len(end)/2+2)
				fits = fits[:size-strings.Count(end[:len(end)-4], "")/2]
			}
			l := Limits{HeaderSize: size}
			if e := limit(fits+end, l); e != nil {
				t.Errorf("%d octets and %q: %v", len(fits), end, e)
			}
			if e := limit(fits+strings.Repeat("y", 8)+end, l); e == nil || e.Limit != size || e.What != "header section" {
				t.Errorf("%d octets and %q: %v", len(fits)+8, end, e)
			}
		}
	}
	if e := limit("A: "+strings.Repeat("x", 10<<20)+"\r\n\r\n", Limits{}); e == nil || e.Limit != 256<<10 {
		t.Errorf("a line of 10 MB: %v", e)
	}
	if e := limit(strings.Repeat("A:\r\n", 1000), Limits{}); e != nil {
		t.Errorf("1000 fields: %v", e)
	}
	if e := limit(strings.Repeat("A:\r\n", 1001), Limits{}); e == nil || e.What != "header fields" || e.Limit != 1000 {
		t.Errorf("1001 fields: %v", e)
	}
	if e := limit(strings.Repeat("A:\n", 100_000), Limits{HeaderSize: 1 << 20}); e == nil || e.What != "header fields" {
		t.Errorf("100,000 fields: %v", e)
	}
	if e := limit(strings.Repeat("bad\n", 60_000), Limits{}); e != nil {
		t.Errorf("60,000 lines that are no fields: %v", e)
	}
	var bad strings.Builder
	for i := range 30_000 {
		fmt.Fprintln(&bad, i)
	}
	list := parse(t, bad.String()).Anomalies()
	if len(list) != 101 || list[99].What != "99" || list[100].Kind != "more-anomalies" {
		t.Errorf("%d anomalies, at the end %v", len(list), list[len(list)-1])
	}
}

func TestReadError(t *testing.T) {
	broken := errors.New("disk on fire")
	_, err := Parse(readerAt{iotest.ErrReader(broken)}, 10, Limits{})
	if !errors.Is(err, broken) {
		t.Errorf("Parse: %v", err)
	}
	if _, err = Parse(strings.NewReader("A: b"), 10, Limits{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that is too short: %v", err)
	}
}

type readerAt struct{ io.Reader }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return io.ReadFull(r.Reader, p) }

// A closing source fails after its header was read.
type closing struct {
	*strings.Reader
	closed bool
}

func (c *closing) ReadAt(p []byte, off int64) (int, error) {
	if c.closed {
		return 0, os.ErrClosed
	}
	return c.Reader.ReadAt(p, off)
}

func TestSourceThatIsClosed(t *testing.T) {
	for _, head := range []string{"Content-Type: multipart/mixed; boundary=b\n\n", "Subject: x\n\n"} {
		s := mail(head + strings.Repeat("x", 10_000))
		src := &closing{Reader: strings.NewReader(s)}
		m, err := Parse(src, int64(len(s)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		src.closed = true
		if m.Text() != "" || len(m.Attachments()) != 0 {
			t.Error("something was read from a closed source")
		}
		if !slices.ContainsFunc(m.Anomalies(), func(a Anomaly) bool { return a.Kind == "unreadable" }) {
			t.Errorf("anomalies: %v", m.Anomalies())
		}
	}
}

func TestWords(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                              "plain",
		"=?utf-8?q?caf=C3=A9?=":              "café",
		"=?UTF-8?B?Y2Fmw6k=?=":               "café",
		"=?utf-8?b?Y2Fmw6k?=":                "café",
		"=?iso-8859-1?q?caf=E9_au_lait?=":    "café au lait",
		"=?iso-8859-1*fr?q?caf=E9?=":         "café",
		"=?koi8-r?B?8NLJ18XU?=":              "Привет",
		"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=": "日本",
		"=?gb2312?B?xOO6ww==?=":              "你好",
		"=?utf-8?q?a?= =?utf-8?q?b?=":        "ab",
		"=?utf-8?q?a?=\t =?iso-8859-1?q?b?=": "ab",
		"=?utf-8?q?a?= b =?utf-8?q?c?=":      "a b c",
		"x=?utf-8?q?a?=y":                    "xay",
		"=?utf-8?B?ww==?= =?utf-8?B?qQ==?=":  "é",
		"=?utf-8?q?=C3?= =?utf-8?q?=A9?=":    "é",
		"=?utf-8?q?really??=":                "really?",
		"=?utf-8?q?two words?=":              "two words",
		"=?utf-8?q?bad =zz?=":                "bad =zz",
		"=?utf-8?x?a?=":                      "=?utf-8?x?a?=",
		"=?utf-8?q?unterminated":             "=?utf-8?q?unterminated",
		"=?utf-8?q?a =?utf-8?q?b?=":          "=?utf-8?q?a b",
		"=??q?a?=":                           "=??q?a?=",
		"=?no-such-charset?q?caf=E9?=":       "café",
		"caf\xe9":                            "café",
		"caf\u00e9 =?utf-8?q?a?=":            "café a",
		"=?":                                 "=?",
		"=?=?=?":                             "=?=?=?",
		"=?utf-8?q??=":                       "",
	} {
		if got := decodeWords(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestFrom(t *testing.T) {
	for in, want := range map[string][]Address{
		"":                        nil,
		" ,, ;":                   nil,
		"a@b.example":             {{Local: "a", Domain: "b.example"}},
		"A B <A@B.Example>":       {{Name: "A B", Local: "a", Domain: "b.example"}},
		`"A, B" <a@b>`:            {{Name: "A, B", Local: "a", Domain: "b"}},
		`"info@bank" <a@b>`:       {{Name: "info@bank", Local: "a", Domain: "b"}},
		`info@bank.example <a@b>`: {{Name: "info@bank.example", Local: "a", Domain: "b"}},
		"a@b (A B)":               {{Name: "A B", Local: "a", Domain: "b"}},
		"(A (nested\\) B)) a@b":   {{Name: "A (nested) B)", Local: "a", Domain: "b"}},
		"<a@b> (A B), c@d":        {{Name: "A B", Local: "a", Domain: "b"}, {Local: "c", Domain: "d"}},
		"=?utf-8?q?J=C3=B6rg?= =?utf-8?q?_B?= <a@b>": {{Name: "Jörg B", Local: "a", Domain: "b"}},
		`"=?utf-8?q?J=C3=B6rg?=" <a@b>`:              {{Name: "Jörg", Local: "a", Domain: "b"}},
		"=?utf-8?q?x_=3Cinfo=40bank=3E?= <a@b>":      {{Name: "x <info@bank>", Local: "a", Domain: "b"}},
		"=?utf-8?q?info=40bank?=":                    {{Name: "info@bank"}},
		"group: a@b, C <c@d>; e@f":                   {{Local: "a", Domain: "b"}, {Name: "C", Local: "c", Domain: "d"}, {Local: "e", Domain: "f"}},
		"undisclosed-recipients:;":                   nil,
		"<a@b> <c@d>":                                {{Local: "a", Domain: "b"}, {Local: "c", Domain: "d"}},
		"John Doe a@b":                               {{Name: "John Doe", Local: "a", Domain: "b"}},
		"a@b John Doe":                               {{Name: "John Doe", Local: "a", Domain: "b"}},
		"a @ b":                                      {{Local: "a", Domain: "b"}},
		"root":                                       {{Local: "root"}},
		"a@b c@d (x)":                                {{Name: "x", Local: "a", Domain: "b"}, {Local: "c", Domain: "d"}},
		"A <a@b. example (x) >":                      {{Name: "A", Local: "a", Domain: "b.example"}},
		"root (Cron Daemon)":                         {{Name: "Cron Daemon", Local: "root"}},
		"John Doe":                                   {{Name: "John Doe"}},
		"<@relay,@other:a@b>":                        {{Local: "a", Domain: "b"}},
		`"a b"@c`:                                    {{Local: "a b", Domain: "c"}},
		`<"a@x"@c>`:                                  {{Local: "a@x", Domain: "c"}},
		`"unterminated <a@b>`:                        {{Name: "unterminated", Local: "a", Domain: "b"}},
		"A (unterminated <a@b>":                      {{Name: "A unterminated", Local: "a", Domain: "b"}},
		"A (x) \" (y <a@b>":                          {{Name: "A y", Local: "a", Domain: "b"}},
		`<"a@b>`:                                     {{Local: "a", Domain: "b"}},
		"A <a@b":                                     {{Name: "A", Local: "a", Domain: "b"}},
		"A <x<a@b>":                                  {{Name: "A", Local: "a", Domain: "b"}},
		"A <>":                                       {{Name: "A"}},
		"<a(comment)@b>":                             {{Local: "a", Domain: "b"}},
		"A\x00B <a\x00@b\x00.example>":               {{Name: "AB", Local: "a", Domain: "b.example"}},
		"a+tag@B.example.":                           {{Local: "a", Tag: "tag", Domain: "b.example"}},
		"a@[1.2.3.4]":                                {{Local: "a", Domain: "[1.2.3.4]"}},
		"a@[IPv6:::1], b@c":                          {{Local: "a", Domain: "[ipv6:::1]"}, {Local: "b", Domain: "c"}},
		"A <a@b..c>":                                 {{Name: "A", Local: "a", Domain: "b..c"}},
		"A <@b.example>":                             {{Name: "A", Domain: "b.example"}},
		"M\xfcller <a@b>":                            {{Name: "Müller", Local: "a", Domain: "b"}},
		"O'Neil\\, J <a@b>":                          {{Name: "O'Neil\\, J", Local: "a", Domain: "b"}},
	} {
		m := parse(t, "From: "+in+"\r\n\r\n")
		got := m.From()
		for i := range got {
			got[i].Raw = ""
		}
		equal(t, fmt.Sprintf("%q", in), got, want)
	}
	t.Run("several fields", func(t *testing.T) {
		m := parse(t, "From: a@b\r\nFROM: c@d\r\n\r\n")
		equal(t, "From", m.From(), []Address{{Raw: "a@b", Local: "a", Domain: "b"}, {Raw: "c@d", Local: "c", Domain: "d"}})
		equal(t, "anomalies", odd(m), []Anomaly{{"duplicate-field", "", "From"}})
	})
	t.Run("limit", func(t *testing.T) {
		m := parse(t, "From: "+strings.Repeat("a@b,", 2000)+"\r\nFrom: c@d\r\n\r\n")
		equal(t, "addresses", len(m.From()), 1000)
		if !slices.Contains(odd(m), Anomaly{KindManyAddresses, "", "From"}) {
			t.Errorf("anomalies: %v", odd(m))
		}
	})
}

func TestFieldsOfNote(t *testing.T) {
	m := parse(t, "Subject: =?utf-8?q?caf=C3=A9?=\r\n =?utf-8?q?!?=\r\nMessage-Id: (c) <id@host>\r\nSubject: other\r\n\r\n")
	equal(t, "subject", m.Subject(), "café!")
	equal(t, "id", m.MessageID(), "id@host")
	equal(t, "id without brackets", parse(t, "Message-ID: id@host \r\n\r\n").MessageID(), "id@host")
	m = parse(t, "X: y\r\n\r\n")
	equal(t, "none", m.Subject()+m.MessageID(), "")
}

// outline draws the tree: path, type and size of each part.
func outline(m *Message) string {
	var b strings.Builder
	m.Root().All(func(p *Part) { fmt.Fprintf(&b, "%s %s %d\n", p.Path, p.Type, p.Size) })
	return b.String()
}

// odd returns the anomalies without those that say that a field is missing: short mails in tests lack most.
func odd(m *Message) (list []Anomaly) {
	for _, a := range m.Anomalies() {
		if a.Kind != KindMissingField {
			list = append(list, a)
		}
	}
	return list
}

func kinds(m *Message) (list []string) {
	for _, a := range odd(m) {
		list = append(list, strings.TrimSpace(a.Kind+" "+a.Part))
	}
	return list
}

func TestTree(t *testing.T) {
	for name, c := range map[string]struct {
		in, outline, text string
		odd               []string
	}{
		"plain":       {"Subject: x\n\nhello\n", "1 text/plain 7\n", "hello\r\n", nil},
		"empty":       {"", "1 text/plain 0\n", "", nil},
		"html":        {"Content-Type: text/html\n\n<p>a<p>b", "1 text/html 8\n", "a\nb", nil},
		"mixed":       {"Content-Type: multipart/mixed; boundary=\"b\"\n\npreamble\n--b\n\none\n--b\nContent-Type: text/html\n\n<b>two</b>\n--b--\nepilogue\n", " multipart/mixed 83\n1 text/plain 3\n2 text/html 10\n", "one\ntwo", []string{"epilogue"}},
		"alternative": {"Content-Type: multipart/alternative; boundary=b\n\n--b\n\none\n--b\nContent-Type: text/html\n\n<b>ONE</b>\n--b--\n", " multipart/alternative 63\n1 text/plain 3\n2 text/html 10\n", "one", nil},
		"blank plain": {"Content-Type: multipart/alternative; boundary=b\n\n--b\n\n \n--b\nContent-Type: text/html\n\n<b>ONE</b>\n--b--\n", " multipart/alternative 61\n1 text/plain 1\n2 text/html 10\n", " \nONE", nil},
		"nested": {"Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/alternative; boundary=oi\n\n--oi\n\none\n--oi--\n--o\n\ntwo\n--o--\n",
			" multipart/mixed 97\n1 multipart/alternative 19\n1.1 text/plain 3\n2 text/plain 3\n", "one\ntwo", nil},
		"inner unterminated": {"Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\none\n--o\n\ntwo\n--o--\n",
			" multipart/mixed 81\n1 multipart/mixed 10\n1.1 text/plain 3\n2 text/plain 3\n", "one\ntwo", []string{"unterminated 1"}},
		"unterminated":   {"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n", " multipart/mixed 12\n1 text/plain 5\n", "one\r\n", []string{"unterminated"}},
		"no boundary":    {"Content-Type: multipart/mixed\n\n--b\n\none\n--b--\n", " multipart/mixed 19\n", "--b\r\n\r\none\r\n--b--\r\n", []string{"no-boundary"}},
		"other boundary": {"Content-Type: multipart/mixed; boundary=x\n\n--b\n\none\n--b--\n", " multipart/mixed 19\n", "--b\r\n\r\none\r\n--b--\r\n", []string{"no-parts"}},
		"prefix":         {"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--bb\n--b \t\n\ntwo\n--b--  \n", " multipart/mixed 41\n1 text/plain 9\n2 text/plain 3\n", "one\r\n--bb\ntwo", nil},
		"no header":      {"Content-Type: multipart/mixed; boundary=b\n\n--b\nhello there\n--b--\n", " multipart/mixed 25\n1 text/plain 11\n", "hello there", []string{"no-header 1"}},
		"header only":    {"Content-Type: multipart/mixed; boundary=b\n\n--b\nX: y\n--b--\n", " multipart/mixed 18\n1 text/plain 0\n", "", nil},
		"empty parts":    {"Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\n\n--b--\n", " multipart/mixed 19\n1 text/plain 0\n2 text/plain 0\n", "", nil},
		"message": {"Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: message/rfc822\n\nSubject: in\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\none\n--i--\n--o\nContent-Type: message/rfc822\n\nSubject: in\n\ntwo\n--o--\n",
			" multipart/mixed 178\n1 message/rfc822 75\n1 multipart/mixed 17\n1.1 text/plain 3\n2 message/rfc822 18\n2.1 text/plain 3\n", "one\ntwo", nil},
		"message alone":     {"Content-Type: message/rfc822\n\nSubject: in\n\ntwo\n", "1 message/rfc822 20\n1.1 text/plain 5\n", "two\r\n", nil},
		"attached message":  {"Content-Type: message/rfc822\nContent-Disposition: attachment\n\nSubject: in\n\ntwo\n", "1 message/rfc822 20\n1.1 text/plain 5\n", "", nil},
		"encoded message":   {"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeAoKeQo=\n", "1 message/rfc822 22\n1.1 text/plain 2\n", "y\n", []string{"encoded-message 1"}},
		"digest":            {"Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: in\n\none\n--b--\n", " multipart/digest 34\n1 message/rfc822 18\n1.1 text/plain 3\n", "one", nil},
		"folded header":     {"Content-Type: multipart/mixed;\n boundary=\"b\"\n\n--b\nContent-Type: text/html;\n charset=utf-8\n\n<p>x\n--b--\n", " multipart/mixed 62\n1 text/html 4\n", "x", nil},
		"bad type":          {"Content-Type: text\n\nhello", "1 text/plain 5\n", "hello", []string{"bad-content-type 1"}},
		"two types":         {"Content-Type: text/plain\nContent-Type: text/html\n\n<b>x", "1 text/plain 4\n", "<b>x", []string{"duplicate-field 1"}},
		"encoded multipart": {"Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n--b\n\none\n--b--\n", " multipart/mixed 19\n1 text/plain 3\n", "one", []string{"encoded-multipart"}},
		"unknown encoding":  {"Content-Transfer-Encoding: x-nonsense\n\nhello", "1 text/plain 5\n", "hello", []string{"unknown-encoding 1"}},
		"unknown charset":   {"Content-Type: text/plain; charset=nonsense\n\nh\xe9", "1 text/plain 2\n", "hé", []string{"8bit-content 1", "unknown-charset 1"}},
		"koi8":              {"Content-Type: text/plain; charset=\"KOI8-R\"\nContent-Transfer-Encoding: base64\n\n8NLJ18XU\n", "1 text/plain 10\n", "Привет", nil},
		"charset in HTML":   {"Content-Type: text/html\n\n<meta charset=koi8-r><p>\xf0\xd2\xc9", "1 text/html 27\n", "При", []string{"8bit-content 1"}},
		"quoted-printable":  {"Content-Transfer-Encoding: quoted-printable\n\na=C3=A9=\n b =3D =zz \t\nend=", "1 text/plain 28\n", "aé b = =zz\r\nend", []string{"bad-quoted-printable 1"}},
		"bad base64":        {"Content-Transfer-Encoding: BASE64\n\nYWJ*j\nZA==\nZWY", "1 text/plain 16\n", "abcdef", []string{"bad-base64 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := parse(t, mail(c.in))
			if c.outline != outline(m) {
				t.Errorf("tree:\n%swant:\n%s", outline(m), c.outline)
			}
			equal(t, "text", m.Text(), c.text)
			equal(t, "anomalies", kinds(m), c.odd)
			if lf := parse(t, c.in); strings.TrimSpace(strings.ReplaceAll(m.Text(), "\r", "")) != strings.TrimSpace(lf.Text()) {
				t.Errorf("with bare LF the text is %q", lf.Text())
			}
		})
	}
}

func TestAttachments(t *testing.T) {
	m := parse(t, mail(`Content-Type: multipart/mixed; boundary=b

--b

see the files
--b
Content-Type: application/pdf; name="ignored.pdf"
Content-Disposition: attachment; filename*0*=utf-8''r%C3%A9s; filename*1="um"; filename*2*=%C3%A9.pdf
Content-Transfer-Encoding: base64

JVBERi0=
--b
Content-Type: image/png; name="=?utf-8?q?caf=C3=A9.png?="
Content-Disposition: inline

png
--b
Content-Type: text/plain
Content-Disposition: attachment; filename=notes.txt (a comment)

not shown
--b
Content-Type: text/plain; name=shown.txt

shown
--b
Content-Type: message/rfc822

Subject: inside

--b
Content-Type: application/octet-stream; name*=iso-8859-1'de'M%FCll.exe

x
--b--
`))
	sum := func(s string) string { x := sha256.Sum256([]byte(s)); return hex.EncodeToString(x[:]) }
	equal(t, "attachments", m.Attachments(), []Attachment{
		{"résumé.pdf", "application/pdf", 5, sum("%PDF-")},
		{"café.png", "image/png", 3, sum("png")},
		{"notes.txt", "text/plain", 9, sum("not shown")},
		{"shown.txt", "text/plain", 5, sum("shown")},
		{"", "message/rfc822", 17, sum("Subject: inside\r\n")},
		{"Müll.exe", "application/octet-stream", 1, sum("x")},
	})
	var files []*strings.Builder
	m.CopyAttachments(func(i int) io.Writer {
		files = append(files, &strings.Builder{})
		if i == 2 {
			return nil
		}
		return files[i]
	})
	var contents []string
	for _, f := range files {
		contents = append(contents, f.String())
	}
	equal(t, "contents", contents, []string{"%PDF-", "png", "", "shown", "Subject: inside\r\n", "x"})
	equal(t, "text", m.Text(), "see the files\nshown")
	equal(t, "anomalies", odd(m), []Anomaly{{KindTwoNames, "2", "ignored.pdf"}})
}

func TestParameters(t *testing.T) {
	for in, want := range map[string]map[string]string{
		"a/b":                               nil,
		"a/b; C=d":                          {"c": "d"},
		`a/b; c="d;e\"f" ; g = h`:           {"c": `d;e"f`, "g": "h"},
		"a/b; c=d; c=e":                     {"c": "d"},
		"a/b;;; c=d;":                       {"c": "d"},
		"a/b; c=\"unterminated; d=e":        {"c": "unterminated; d=e"},
		"a/b; c*0=x; c*1=y":                 {"c": "xy"},
		"a/b; c*1=y; c*0=x":                 {"c": "xy"},
		"a/b; c*10=z; c*2=y; c*0=x":         {"c": "xyz"},
		"a/b; c*=utf-8''%e2%82%ac":          {"c": "€"},
		"a/b; c=plain; c*=utf-8''%e2%82%ac": {"c": "€"},
		"a/b; c*=%41%zz":                    {"c": "A%zz"},
		"a/b; c*x=y":                        {"c*x": "y"},
		"a/b; c*99999999999=y":              {"c*99999999999": "y"},
		`a/b; c="=?utf-8?q?=E2=82=AC?="`:    {"c": "€"},
		"a/b; nonsense; c=d":                {"c": "d"},
	} {
		equal(t, in, parseStructured(in, 100).params, want)
	}
	v := parseStructured("a/b"+strings.Repeat("; x=y", 3)+"; z=1", 3)
	if !v.more || v.params["z"] != "" {
		t.Errorf("limit: %+v", v)
	}
	m := parse(t, "Content-Type: text/plain"+strings.Repeat("; x=y", 101)+"\r\n\r\nx")
	if !slices.Contains(kinds(m), "too-many-parameters 1") {
		t.Errorf("anomalies: %v", m.Anomalies())
	}
}

func TestHTMLText(t *testing.T) {
	for in, want := range map[string]string{
		"<p>one</p><p>two":                "one\ntwo",
		"a  b\n\tc&nbsp;d &amp; e&#8364;": "a b c d & e€",
		"<head><title>t</title><style>s{}</style></head><body>x<script>var a='<p>';</script>y": "xy",
		"<style>unterminated <p>x":                              "",
		"a<!-- <p>hidden --> b":                                 "a b",
		"a<br>b<br/>\n c<br><br>d":                              "a\nb\nc\n\nd",
		"<ul><li>1<li>2</ul>3":                                  "1\n2\n3",
		"<table><tr><td>a</td><td>b</td></tr><tr><td>c</table>": "a b\nc",
		"<pre>a\n  b</pre>c":                                    "a\n  b\nc",
		"<noscript><p>seen</p></noscript>":                      "seen",
		"1 < 2 <3 and <nonsense>x</nonsense>":                   "1 < 2 <3 and x",
		"V<b>i</b>a<span></span>gra":                            "Viagra",
		"<a href='http://x'>here</a>":                           "here",
		"a\x00b":                                                "ab",
	} {
		if got := htmlText(in); got != want {
			t.Errorf("%q:\n got %q\nwant %q", in, got, want)
		}
	}
}

func TestLinks(t *testing.T) {
	links := func(s string) []string {
		l := newLinkList()
		l.text(s)
		var urls []string
		for _, x := range l.list {
			urls = append(urls, x.URL)
		}
		return urls
	}
	for in, want := range map[string][]string{
		"none": nil,
		"see http://a.example/x?y=1&z=2, and (https://b.example/(c)).": {"http://a.example/x?y=1&z=2", "https://b.example/(c)"},
		"<http://a.example> \"ftp://b\"":                               {"http://a.example", "ftp://b"},
		"HTTP://A.example":                                             {"http://A.example"},
		"go to www.a.example. or WWW.B.example!":                       {"http://www.a.example", "http://WWW.B.example"},
		"awww.nice www. x@www.mail.example":                            nil,
		"http://www.a.example http://www.a.example":                    {"http://www.a.example"},
		"http:// https://":                                             nil,
		"http://bücher.example/ä\u00a0x":                               {"http://bücher.example/ä"},
		"xhttp://a.example":                                            {"http://a.example"},
		"http://a.example/?u=http://b.example":                         {"http://a.example/?u=http://b.example"},
	} {
		equal(t, in, links(in), want)
	}
	m := parse(t, mail(`Content-Type: multipart/alternative; boundary=b

--b

http://plain.example/
--b
Content-Type: text/html

<a href="http://a.example/?x=1&amp;y=2">http://shown.example</a><img src=" ht
tp:\\b.example/p.gif"><a href="//c.example/"><a href="mailto:x@y"><a href="#x"><a href="/relative">
<a HREF=HTTPS:d.example><a href="javascript:x"><img src="cid:1"><form action="http://e.example">
<a href="http://plain.example/">
--b--
`))
	equal(t, "links", m.Links(), []string{"http://plain.example/", "http://a.example/?x=1&y=2", "http://b.example/p.gif", "http://c.example/",
		"https://d.example", "http://e.example", "http://shown.example"})

	var many strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&many, "http://%d.example/ ", i)
	}
	equal(t, "limit", len(links(many.String())), 1000)
	equal(t, "long", len(links("http://" + strings.Repeat("x", 10_000))[0]), 4096)
}

func TestLimitsOfTheTree(t *testing.T) {
	nest := func(n int, kind string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "Content-Type: %s; boundary=b%d\n\n", kind, i)
			if kind != "message/rfc822" {
				fmt.Fprintf(&b, "--b%d\n", i)
			}
		}
		return b.String() + "\nthe end\n"
	}
	depth := func(p *Part) (n int) {
		for ; len(p.Parts) > 0; p = p.Parts[0] {
			n++
		}
		return n
	}
	for _, kind := range []string{"multipart/mixed", "message/rfc822"} {
		m := parse(t, nest(32, kind))
		if d := depth(m.Root()); d != 32 || slices.ContainsFunc(m.Anomalies(), func(a Anomaly) bool { return a.Kind == "too-deep" }) {
			t.Errorf("32 %s: depth %d, %v", kind, d, m.Anomalies())
		}
		m = parse(t, nest(33, kind))
		if d := depth(m.Root()); d != 32 || !slices.ContainsFunc(m.Anomalies(), func(a Anomaly) bool { return a.Kind == "too-deep" }) {
			t.Errorf("33 %s: depth %d, %v", kind, d, m.Anomalies())
		}
		if !strings.Contains(m.Text(), "the end") {
			t.Errorf("33 %s: the text is lost: %q", kind, m.Text())
		}
	}

	wide := func(n int) string {
		return "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", n) + "--b\n\nlast words\n--b--\n"
	}
	m := parse(t, wide(998))
	equal(t, "1000 parts", kinds(m), nil)
	m = parse(t, wide(5000))
	equal(t, "5000 parts", kinds(m), []string{"too-many-parts 1000", "unterminated"})
	equal(t, "parts", len(m.Root().Parts), 1000)
	if !strings.Contains(m.Text(), "last words") {
		t.Error("what is beyond the limit is no text")
	}

	short := everything(t, []byte(mail("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nfirst\n--b\nContent-Type: text/html\n\n<p>second</p>\n--b\n\nthird\n--b--\n")), Limits{Text: 8})
	equal(t, "cut text", short.Text(), "first\nse")
	equal(t, "cut HTML", short.HTML(), "<p>secon")
	if !slices.Contains(kinds(short), "text-cut") {
		t.Errorf("anomalies: %v", short.Anomalies())
	}

	large := parse(t, "Content-Type: multipart/mixed; boundary=b\n\n--b\nA: "+strings.Repeat("x", 300_000)+"\n\none\n--b\n"+strings.Repeat("A: b\n", 1001)+"\ntwo\n--b--\n")
	equal(t, "large header", kinds(large), []string{"long-line", "large-header 1", "large-header 2"})
	equal(t, "text after a large header", large.Text(), "one\ntwo")

	boundary := parse(t, "Content-Type: multipart/mixed; boundary="+strings.Repeat("b", 1001)+"\n\nx\n")
	equal(t, "boundary", kinds(boundary), []string{"long-line", "bad-boundary", "no-boundary"})
}

// TestHostile: what has kept other parsers busy for minutes takes a moment, and time grows with size only.
func TestHostile(t *testing.T) {
	n := 512 << 10
	fill := func(s string) string { return strings.Repeat(s, n/len(s)) }
	html := "Content-Type: text/html\n\n"
	long := Limits{HeaderSize: 4 << 20, HeaderFields: 1 << 20}
	var same, nested strings.Builder
	for i := range 10_000 {
		same.WriteString("Content-Type: multipart/mixed; boundary=b\n\n--b\n")
		fmt.Fprintf(&nested, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%[1]d\n", i)
	}
	for name, in := range map[string]string{
		"nested multiparts":            nested.String(),
		"nested, one boundary":         same.String(),
		"nested messages":              fill("Content-Type: message/rfc822\n\n"),
		"100,000 fields":               strings.Repeat("A: b\n", 100_000) + "\n",
		"10 MB line in a part":         "Content-Type: multipart/mixed; boundary=b\n\n--b\nA: " + strings.Repeat("x", 10<<20) + "\n\nx",
		"hyphens":                      "Content-Type: multipart/mixed; boundary=-\n\n" + fill("--\n"),
		"near boundaries":              "Content-Type: multipart/mixed; boundary=b\n\n" + fill("--bx\n"),
		"empty lines":                  "Content-Type: multipart/mixed; boundary=b\n\n" + fill("\n"),
		"long boundary":                "Content-Type: multipart/mixed; boundary=\"" + strings.Repeat("-", 990) + "\"\n\n" + fill(strings.Repeat("-", 991)+"\n"),
		"parameters":                   "Content-Type: text/plain" + fill("; a*0*=b") + "\n\n",
		"parameters without end":       "Content-Type: text/plain" + fill("; a=\"\\") + "\n\n",
		"encoded words":                "Subject: " + fill("=?a?q?") + "\n\n",
		"encoded words, one end":       "Subject: " + fill("=?a?q?x") + "?=\n\n",
		"encoded words, charsets":      "Subject: " + fill("=?iso-2022-jp?q?x?==?gb2312?q?y?=") + "\n\n",
		"encoded word starts":          "Subject: " + fill("=?") + "\n\n",
		"comments":                     "From: " + fill("(") + "\n\n",
		"comments closed":              "From: " + fill("(x)") + "a@b\n\n",
		"quotes":                       "From: " + fill("\"") + "\n\n",
		"quotes in angles":             "From: <" + fill("\"a\"<") + "\n\n",
		"angles":                       "From: " + fill("<") + "\n\n",
		"at signs":                     "From: " + fill("@") + "\n\n",
		"words":                        "From: " + fill("a ") + "\n\n",
		"words and at":                 "From: " + fill("a@ @b ") + "\n\n",
		"commas":                       "From: " + fill(",") + "\n\n",
		"brackets":                     "From: " + fill("[a") + "\n\n",
		"unicode domain":               "From: a@" + fill("ü") + "\n\n",
		"xn--":                         "From: a@" + fill("xn--") + "\n\n",
		"HTML tags":                    html + fill("<p>"),
		"HTML opening":                 html + fill("<"),
		"HTML attributes":              html + "<a" + fill(" href=x"),
		"HTML distinct attributes":     html + "<a" + fill(" a1b2c3") + ">",
		"HTML comments":                html + fill("<!--"),
		"HTML entities":                html + fill("&"),
		"HTML long entities":           html + fill("&#x0000000"),
		"HTML scripts":                 html + fill("<script>"),
		"HTML titles":                  html + fill("<title></titl"),
		"HTML CDATA":                   html + fill("<![CDATA["),
		"HTML raw text":                html + fill("<noscript><iframe>"),
		"URLs":                         "\n" + fill("http://"),
		"URLs with parentheses":        "\n" + fill("http://(.."),
		"www":                          "\n" + fill("www."),
		"dots":                         "\nhttp://" + fill("."),
		"base64 junk":                  "Content-Transfer-Encoding: base64\n\n" + fill("="),
		"quoted-printable blanks":      "Content-Transfer-Encoding: quoted-printable\n\n" + fill(" "),
		"quoted-printable equals":      "Content-Transfer-Encoding: quoted-printable\n\n" + fill("= "),
		"quoted-printable soft breaks": "Content-Transfer-Encoding: quoted-printable\n\n" + fill("=\n"),
		"charset":                      "Content-Type: text/plain; charset=iso-2022-jp\n\n" + fill("\x1b$B"),
		"NUL":                          fill("\x00"),
		"boundaries in the header":     "Content-Type: multipart/mixed; boundary=\"" + strings.Repeat("x", 128<<10) + "\n" + strings.Repeat("--x\n", 32<<10),
		"boundaries and types":         strings.Repeat("Content-Type: multipart/mixed; boundary=\""+strings.Repeat("x", 200)+"\n--x\n", 900),
		"uuencode":                     "\n" + fill("begin 644 x\n`\n"),
		"uuencode, no data":            "\n" + fill("begin 644 x\n"),
		"uuencode, encoding":           "Content-Type: a/b\nContent-Transfer-Encoding: uuencode\n\n" + fill("begin 644 x\n"),
		"yEnc":                         "\n" + fill("=ybegin size=1 name=x\n"),
		"flowed":                       "Content-Type: text/plain; format=flowed\n\n" + fill(">> x \n"),
		"flowed, quotes":               "Content-Type: text/plain; format=flowed\n\n" + fill(">"),
		"utf-7":                        "Content-Type: text/plain; charset=utf-7\n\n" + fill("+A"),
		"TNEF":                         "Content-Type: application/ms-tnef\n\n" + fill(string(twoFiles)),
		"TNEF files":                   "Content-Type: application/ms-tnef\n\n" + string(tnef(bytes.Repeat(attribute(tnefAttachment, ""), n/15))),
		"dates":                        fill("Date: 1-") + "\n\n",
		"base64 and padding":           "Content-Transfer-Encoding: base64\n\n" + fill("=a"),
		"base64 lines and padding":     "Content-Transfer-Encoding: base64\n\n" + fill("=\n"+strings.Repeat("a", 900)),
		"words without commas":         "From: " + fill("a@b ") + "\n\n",
		"encoded messages":             fill("Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n\n"),
	} {
		begin := time.Now()
		_, err := Parse(strings.NewReader(in), int64(len(in)), Limits{}) // which may be over a limit
		if everything(t, []byte(in), long) == nil {
			t.Errorf("%s: %v", name, err)
		}
		// Far more than a busy machine needs; what takes time in the square of the size takes minutes.
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

func TestConcurrentReaders(t *testing.T) {
	m, err := Parse(strings.NewReader(mixed), int64(len(mixed)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 10 {
				if len(m.Links()) != 2 || len(m.Attachments()) != 1 || m.Text() == "" || m.LowerText() == "" || len(m.From()) != 1 || len(m.Anomalies()) != 0 {
					t.Errorf("%v %v %v %v", m.Links(), m.Attachments(), m.From(), m.Anomalies())
				}
			}
		})
	}
	readers.Wait()
}

var mixed = mail(`Received: from a.example (a.example [192.0.2.1]) by mx.example with ESMTP id 1; Sun, 22 Nov 2026 00:00:00 +0000
Received: from b.example (b.example [192.0.2.2]) by a.example with ESMTP id 2; Sun, 22 Nov 2026 00:00:00 +0000
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s; h=from:to:subject;
 bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=` + strings.Repeat("A", 300) + `
From: "Alice Example" <alice@example.org>
To: bob@example.com
Subject: =?utf-8?q?caf=C3=A9?=
Date: Sun, 22 Nov 2026 00:00:00 +0000
Message-ID: <1@example.org>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="outer"

--outer
Content-Type: multipart/alternative; boundary="inner"

--inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

` + strings.Repeat("Some words of text that go on for a while, caf=C3=A9.\n", 40) + `http://a.example/
--inner
Content-Type: text/html; charset=utf-8

` + strings.Repeat("<p>Some words of text that go on for a while, <b>caf&eacute;</b>.</p>\n", 40) + `<a href="http://b.example/">x</a>
--inner--
--outer
Content-Type: application/pdf; name=a.pdf
Content-Transfer-Encoding: base64

` + strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAx\n", 40) + `
--outer--
`)

func BenchmarkParse(b *testing.B) {
	r := bytes.NewReader([]byte(mixed))
	b.Run("header", func(b *testing.B) {
		b.SetBytes(r.Size())
		b.ReportAllocs()
		for b.Loop() {
			m, err := Parse(r, r.Size(), Limits{})
			if err != nil || m.Subject() != "café" || len(m.From()) != 1 {
				b.Fatal(err)
			}
		}
	})
	b.Run("everything", func(b *testing.B) {
		b.SetBytes(r.Size())
		b.ReportAllocs()
		for b.Loop() {
			m, err := Parse(r, r.Size(), Limits{})
			if err != nil || len(m.Anomalies()) != 0 || len(m.Links()) != 2 || m.LowerText() == "" {
				b.Fatal(err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(mixed))
	for _, s := range []string{
		"", "\r\n", "A: b\n c\n\nbody", "Content-Type: message/rfc822\n\nA: b\n\nc", "Content-Type: multipart/digest; boundary=b\n\n--b\n\nA: b\n\n--b--",
		"From: \"a\" (b) <c@d>, e:f;\nSubject: =?utf-8?b?YQ==?= =?x?q?b?=\n\n", "Content-Type: text/html; charset=koi8-r\n\n<p>a<a href=//b>http://c",
		"Content-Transfer-Encoding: base64\nContent-Disposition: attachment; filename*0*=a'b'c%20; filename*1=d\n\nYQ=b=",
		"Content-Transfer-Encoding: quoted-printable\n\na = \n=\n=4", "Date: Sun, 22 Nov 26 1.2.3 PM GMT+0100 (c)\n\n" + uuHello, winmail(twoFiles),
		"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeAoKeQo=\n", "Content-Transfer-Encoding: x-uuencode\n\n" + uuHello,
		"Content-Type: text/plain; charset=utf-7; format=flowed; delsp=yes\n\n> +ADw- \n>b \n-- \n", "Date: 2026-11-22T01:02:03+01:00\nX: =?iso-2022-kr?b?DkdRDw==?=\n\n=ybegin size=1 name=x\n",
		"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822; charset=hz-gb-2312\nContent-Transfer-Encoding: quoted-printable\n\nA: b=\n\n--b--\nx",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		everything(t, raw, Limits{HeaderSize: 2000, HeaderFields: 20, Depth: 4, Parts: 10, Parameters: 5, Text: 500})
	})
}

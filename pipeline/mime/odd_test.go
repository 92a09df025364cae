package mime

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

func TestDate(t *testing.T) {
	const day = "2026-11-22T"
	for in, want := range map[string]string{
		"Sun, 22 Nov 2026 01:02:03 +0000":              day + "01:02:03Z",
		"Sun, 22 Nov 2026 01:02:03 -0800 (PST)":        day + "01:02:03-08:00",
		"22 Nov 2026 01:02 +0130":                      day + "01:02:00+01:30",
		"Sun,22 Nov 2026 01:02:03 GMT":                 day + "01:02:03Z",
		"sun, 22 NOV 2026 01:02:03 EST":                day + "01:02:03-05:00",
		"Sunday, 22 November 2026 01:02:03 +0000":      day + "01:02:03Z",
		"Sun, 22 Nov 2026 01:02:03":                    day + "01:02:03Z",
		"Sun, 22 Nov 26 01:02:03 UT":                   day + "01:02:03Z",
		"Sun (a \\) comment), 22 Nov 2026 01:02:03 Z":  day + "01:02:03Z",
		"Sun (comment (in it)), 22 Nov 2026 1:2:3 Z":   day + "01:02:03Z",
		"Mon, 22 Nov 99 01:02:03 +0000":                "1999-11-22T01:02:03Z",
		"Mon, 22 Nov 126 01:02:03 +0000":               day + "01:02:03Z",
		"Sun Nov 22 01:02:03 2026":                     day + "01:02:03Z",
		"Sun Nov 22 01:02:03 CET 2026":                 day + "01:02:03+01:00",
		"Sun Nov 22 01:02:03 2026 +0200":               day + "01:02:03+02:00",
		"22-Nov-2026 01:02:03 +0000":                   day + "01:02:03Z",
		"2026-11-22 01:02:03":                          day + "01:02:03Z",
		"2026-11-22T01:02:03+02:00":                    day + "01:02:03+02:00",
		"2026-11-22T01:02:03.456Z":                     day + "01:02:03Z",
		"Sun, 22 Nov 2026 01.02.03 +0000":              day + "01:02:03Z",
		"Sun, 22 Nov 2026 01:02:03 PM":                 day + "13:02:03Z",
		"Sun, 22 Nov 2026 12:02:03 AM +0000":           day + "00:02:03Z",
		"Sun, 22 Nov 2026 01:02:03 GMT+0200":           day + "01:02:03+02:00",
		"Sun, 22 Nov 2026 01:02:03 +02:00":             day + "01:02:03+02:00",
		"Sun, 22 Nov 2026 01:02:03 +0200 Mitteleuropa": day + "01:02:03+02:00",
		"Sun, 22 Nov 2026 01:02:03 XYZ":                day + "01:02:03Z",
		"Sun, 22 Nov 2026 01:02:03 +9999":              day + "01:02:03Z",
		"Sun, 22 Nov 2026 23:59:60 +0000":              "2026-11-23T00:00:00Z",
		"So, 22 Nov 2026 01:02:03 +0100":               day + "01:02:03+01:00",
		"22 Nov 2026":                                  day + "00:00:00Z",
		"Fri, 30 Sept 2022 01:02:03 +0000":             "2022-09-30T01:02:03Z",
		"":                                             "",
		"now":                                          "",
		"Sun, 31 Nov 2026 01:02:03 +0000":              "",
		"Sun, 0 Nov 2026 01:02:03 +0000":               "",
		"Sun, 22 Nov 2026 25:02:03 +0000":              "",
		"Sun, 22 Nov 2026 01:60:03 +0000":              "",
		"Sun, 22 Nonsense 2026 01:02:03 +0000":         "",
		"11/22/2026 01:02:03":                          "",
		"22-11-2026 01:02:03":                          day + "01:02:03Z",
		"11-22-2026 01:02:03":                          "",
		"1700000000":                                   "",
		"Nov":                                          "",
		strings.Repeat("22 Nov 2026 ", 1000):           "",
	} {
		got, ok := parseDate(in)
		text := ""
		if ok {
			text = got.Format(time.RFC3339)
		}
		if text != want {
			t.Errorf("%.80q: %q, want %q", in, text, want)
		}
	}
	m := parse(t, "Date: Sun, 22 Nov 2026 01:02:03\r\n +0100\r\n\r\n")
	if d, ok := m.Date(); !ok || d.Format(time.RFC3339) != day+"01:02:03+01:00" {
		t.Errorf("%v, %v", d, ok)
	}
	if _, ok := parse(t, "\r\n").Date(); ok {
		t.Error("a date out of nothing")
	}
}

// TestAnomalies has a mail for each kind of anomaly.
func TestAnomalies(t *testing.T) {
	const good = "From: a@b.example\nDate: Sun, 22 Nov 2026 00:00:00 +0000\nMessage-ID: <1@b.example>\nSubject: x\nMIME-Version: 1.0\n"
	const multi = good + "Content-Type: multipart/mixed; boundary=b\n"
	long := strings.Repeat("x", 999)
	for _, c := range []struct {
		in   string
		want []Anomaly
	}{
		{good + "\nhello\n", nil},
		{"\nhello\n", []Anomaly{{KindMissingField, "", "From"}, {KindMissingField, "", "Date"}, {KindMissingField, "", "Message-ID"}, {KindMissingField, "", "Subject"}}},
		{strings.Replace(good, "MIME-Version: 1.0\n", "Content-Type: text/plain\n", 1) + "\n", []Anomaly{{KindMissingField, "", "MIME-Version"}}},
		{strings.Replace(good, "a@b.example", "a@b.example, c@d.example", 1) + "\n", []Anomaly{{KindMissingField, "", "Sender"}}},
		{good + "subject: y\nDATE: z\nmessage-id: <2@b>\nfrom: a@b.example\nSender: a@b.example\n\n",
			[]Anomaly{{KindDuplicateField, "", "From"}, {KindDuplicateField, "", "Subject"}, {KindDuplicateField, "", "Date"}, {KindDuplicateField, "", "Message-ID"}}},
		{strings.Replace(good, "a@b.example", "undisclosed:;", 1) + "\n", []Anomaly{{KindBadAddress, "", ""}}},
		{strings.Replace(good, "a@b.example", "Your Bank", 1) + "\n", []Anomaly{{KindBadAddress, "", "Your Bank"}}},
		{strings.Replace(good, "Sun, 22 Nov", "Sun, 32 Nov", 1) + "\n", []Anomaly{{KindBadDate, "", "Sun, 32 Nov 2026 00:00:00 +0000"}}},
		{good + "no field\n\n", []Anomaly{{KindBadHeaderLine, "", "no field"}}},
		{good + "X: y\n \t\n z\n\n", []Anomaly{{KindBlankHeaderLine, "", "X"}}},
		{good + "X: \u00e9\n\n", []Anomaly{{KindEightBitHeader, "", "X"}}},
		{good + "X: \xe9\n\n", []Anomaly{{KindRawHeader, "", "X"}}},
		{good + "X: \x1b\n\n", []Anomaly{{KindControlHeader, "", "X"}}},
		{good + "X: =?utf-8?q?cut off\n\n", []Anomaly{{KindBadWord, "", "X"}}},
		{good + "X: =?utf-8?z?a?=\n\n", []Anomaly{{KindBadWord, "", "X"}}},
		{good + "X: =?utf-8?q?two=0D=0Alines?=\n\n", []Anomaly{{KindBadWord, "", "X"}}},
		{good + "X: =?nonsense?q?a=E9?=\n\n", []Anomaly{{KindUnknownCharset, "", "nonsense"}}},
		{good + "X: http://a.example/?a=?b=?c?d\n\n", nil},
		{good + "X: a\x00\n\n\x00\n", []Anomaly{{KindControlHeader, "", "X"}, {KindNUL, "", "header"}, {KindNUL, "", "body"}}},
		{good + "X: " + long + "\n\n" + long + "\n", []Anomaly{{KindLongLine, "", "header"}, {KindLongLine, "", "body"}}},
		{good + "\n" + long[1:] + "\n", nil},
		{good + "\na\rb\n", []Anomaly{{KindBareCR, "", "body"}}},
		{good + "\na\r", []Anomaly{{KindBareCR, "", "body"}}},
		{good + "Content-Type: text/plain; charset=us-ascii\n\nh\xe9\n", []Anomaly{{KindEightBit, "1", ""}, {KindWrongCharset, "1", "us-ascii"}}},
		{good + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nh\xe9\n", []Anomaly{{KindWrongCharset, "1", "utf-8"}}},
		{good + "Content-Type: text/plain; charset=euc-kr\nContent-Transfer-Encoding: 8bit\n\nh\xff\xff\n", []Anomaly{{KindWrongCharset, "1", "euc-kr"}}},
		{good + "Content-Type: text/plain; charset=utf-7\n\n+ADw-b+AD4-\n", []Anomaly{{KindUTF7, "1", "utf-7"}}},
		{multi + "\n--b\n\nx\n--b--\n\n\nunsubscribe\nhere\n", []Anomaly{{KindEpilogue, "", "unsubscribe"}}},
		{multi + "\npreamble\n--b\n\nx\n--b--\n\n", nil},
		{multi + "\n--b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--\n--b--\n", []Anomaly{{KindRepeatedBoundary, "1", "b"}}},
		{multi + "\n--b\nContent-Type: message/partial; id=7; number=1\n\nx\n--b--\n", []Anomaly{{KindPartialMessage, "1", "7"}}},
		{multi + "\n--b\nContent-Type: message/external-body; access-type=URL\n\nx\n--b--\n", []Anomaly{{KindExternalBody, "1", "URL"}}},
		{multi + "\n--b\nContent-Disposition: attachment; filename*=utf-8''invoice%E2%80%AEcod.exe\n\nx\n--b--\n",
			[]Anomaly{{KindBadName, "1", `direction of writing in "invoice\u202ecod.exe"`}}},
		{multi + "\n--b\nContent-Disposition: attachment; filename*=utf-8''a%0A.exe\n\nx\n--b--\n", []Anomaly{{KindBadName, "1", `control character in "a\n.exe"`}}},
		{multi + "\n--b\nContent-Disposition: attachment; filename=../../x\n\nx\n--b--\n", []Anomaly{{KindBadName, "1", `path in "../../x"`}}},
		{multi + "\n--b\nContent-Type: text/html; name=a.html\nContent-Disposition: attachment; filename=b.html\n\nx\n--b--\n", []Anomaly{{KindTwoNames, "1", "a.html"}}},
		{good + "\n=ybegin line=128 size=5 name=a b.bin\nxxxxx\n=yend size=5\n", []Anomaly{{KindYEnc, "1", "a b.bin"}}},
		{good + "Content-Type: text/plain charset=utf-8\n\nx\n", []Anomaly{{KindBadParameters, "1", "Content-Type: text/plain charset=utf-8"}}},
		{good + "Content-Type: application/ms-tnef\n\nx\n", []Anomaly{{KindTNEF, "1", ""}, {KindBadTNEF, "1", "it is not TNEF"}}},
	} {
		equal(t, fmt.Sprintf("%q", strings.TrimPrefix(c.in, good)), parse(t, mail(c.in)).Anomalies(), c.want)
	}
	equal(t, "LF only", parse(t, good+"\nhello\n").Anomalies(), nil)
	equal(t, "LF", parse(t, mail(good)+"X: y\n\r\nhello\n").Anomalies(), []Anomaly{{KindBareLF, "", "header"}})
	// The same across the pieces in which the mail is read.
	for n := 32<<10 - 3; n < 32<<10+3; n++ {
		in := mail(good + "\n")
		in += strings.Repeat("x", 800)
		for len(in) < n {
			in += "\r\n" + strings.Repeat("x", min(800, max(n-len(in)-2, 0)))
		}
		equal(t, "pieces", odd(parse(t, in+"\r\nx\r\n")), nil)
		equal(t, "pieces", odd(parse(t, in+"\rx\r\n")), []Anomaly{{KindBareCR, "", "body"}})
		equal(t, "pieces", odd(parse(t, in+"\x00")), []Anomaly{{KindNUL, "", "body"}})
	}
}

func TestCharsets(t *testing.T) {
	for _, c := range []struct{ label, in, want string }{
		{"UTF-8", "h\xc3\xa9", "hé"}, {"utf8", "h\xc3\xa9", "hé"}, {"unicode-1-1-utf-8", "h\xc3\xa9", "hé"}, {`3D"utf-8"`, "h\xc3\xa9", "hé"},
		{"'utf-8'", "h\xc3\xa9", "hé"}, {"utf-8;", "h\xc3\xa9", "hé"}, {"utf-8 (really)", "h\xc3\xa9", "hé"}, {"charset=utf-8", "h\xc3\xa9", "hé"},
		{"iso-8859-1", "h\xe9", "hé"}, {"latin1", "h\xe9", "hé"}, {"ISO_8859-1:1987", "h\xe9", "hé"}, {"iso8859-1", "h\xe9\x80", "hé€"},
		{"iso-8859-2", "\xb1", "ą"}, {"iso8859_2", "\xb1", "ą"}, {"8859-2", "\xb1", "ą"}, {"cp28592", "\xb1", "ą"},
		{"iso-8859-5", "\xbf\xe0", "Пр"}, {"iso-8859-7", "\xe1", "α"}, {"iso-8859-8-i", "\xe0", "א"}, {"iso-8859-9", "\xfd\x80", "ı€"}, {"iso-8859-15", "\xa4", "€"}, {"iso-8859-16", "\xaa", "Ș"},
		{"windows-1250", "\xb9", "ą"}, {"cp1251", "\xcf\xf0", "Пр"}, {"win-1251", "\xcf\xf0", "Пр"}, {"x-cp1251", "\xcf\xf0", "Пр"}, {"Windows-1252", "\x93", "“"},
		{"windows-1255", "\xe0", "א"}, {"windows-1256", "\xc7", "ا"}, {"windows-874", "\xa1", "ก"}, {"tis-620", "\xa1", "ก"}, {"cp866", "\x8f", "П"}, {"ibm850", "\x82", "é"},
		{"koi8-r", "\xf0\xd2", "Пр"}, {"KOI8", "\xf0\xd2", "Пр"}, {"koi8-u", "\xa4", "є"}, {"macintosh", "\x8e", "é"}, {"x-mac-cyrillic", "\x8f", "П"},
		{"iso-2022-jp", "\x1b$BF|K\\\x1b(B", "日本"}, {"ISO-2022-JP-1", "\x1b$BF|K\\\x1b(B", "日本"}, {"cp50220", "\x1b$BF|K\\\x1b(B", "日本"},
		{"shift_jis", "\x93\xfa\x96{", "日本"}, {"x-sjis", "\x93\xfa\x96{", "日本"}, {"cp932", "\x93\xfa\x96{", "日本"}, {"windows-31j", "\x93\xfa\x96{", "日本"},
		{"euc-jp", "\xc6\xfc\xcb\xdc", "日本"}, {"x-euc-jp", "\xc6\xfc\xcb\xdc", "日本"},
		{"euc-kr", "\xc7\xd1", "한"}, {"ks_c_5601-1987", "\xc7\xd1", "한"}, {"cp949", "\x8c\x63", "똠"}, {"iso-2022-kr", "\x1b$)C\x0eGQ\x0f!", "한!"},
		{"gb2312", "\xc4\xe3", "你"}, {"x-gbk", "\xc4\xe3", "你"}, {"gb18030", "\xc4\xe3\x81\x30\x89\x38", "你ß"}, {"cp936", "\xc4\xe3", "你"}, {"hz-gb-2312", "~{Dc~}!", "你!"},
		{"big5", "\xa7\x41", "你"}, {"cn-big5", "\xa7\x41", "你"}, {"big5-hkscs", "\xa7\x41", "你"}, {"cp950", "\xa7\x41", "你"},
		{"utf-16", "\xfe\xff\x00h\x00\xe9", "hé"}, {"utf-16le", "h\x00\xe9\x00", "hé"}, {"utf-32", "\x00\x00\x00h\x00\x00\x00\xe9", "hé"},
		{"utf-7", "h+AOk- 1 +- 1 +2D3cqQ-!+AGEAYg", "hé 1 + 1 💩!ab"}, {"unicode-1-1-utf-7", "+ADw-script+AD4-", "<script>"}, {"utf-7", "+ADw", "<"},
		{"us-ascii", "h\xe9", "hé"}, {"us-ascii", "h\xc3\xa9", "hé"}, {"x-unknown", "h\xe9", "hé"}, {"unknown-8bit", "h\xe9", "hé"}, {"", "h\xe9", "hé"},
		{"iso-8859-1", "h\xc3\xa9", "hé"},
	} {
		if got := toUTF8(c.label, []byte(c.in)); got.text != c.want || !got.known {
			t.Errorf("%q, %q: %+v, want %q", c.label, c.in, got, c.want)
		}
	}
	for _, label := range []string{"nonsense", "iso-2022-cn", "replacement", "iso-8859-99", "cp1", "windows-", strings.Repeat("x", 1000), "\x00"} {
		if got := toUTF8(label, []byte("h\xe9")); got.text != "hé" || got.known {
			t.Errorf("%q: %+v", label, got)
		}
	}
	for _, in := range []string{"+AO", "+2D0-", "+3cqQ-", "\xe9", "+A-", "+~"} {
		if got := toUTF8("utf-7", []byte(in)); !got.wrong {
			t.Errorf("UTF-7 %q: %+v", in, got)
		}
	}
	for _, label := range []string{"iso-2022-jp", "euc-jp", "shift_jis", "gb18030", "big5", "euc-kr", "utf-16", "utf-32", "hz-gb-2312", "utf-7", "iso-2022-kr"} {
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		valid(t, toUTF8(label, all).text)
	}
}

func TestFlowed(t *testing.T) {
	for _, c := range []struct {
		in, want string
		delsp    bool
	}{
		{"one \ntwo\nthree\n", "one two\nthree\n", false},
		{"one \ntwo \n", "one two \n", false},
		{"> one \n> two\n>> three \nfour\n", "> one two\n>> three \nfour\n", false},
		{" > no quote\n From x\n", "> no quote\nFrom x\n", false},
		{"text \n-- \nsignature\n", "text \n-- \nsignature\n", false},
		{"日 \n本\n", "日本\n", true},
		{"a  \nb\n", "a b\n", true},
		{"\n\n", "\n\n", false},
		{"no end ", "no end ", false},
		{"", "", false},
	} {
		if got := unflow(c.in, c.delsp); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
		if got := unflow(mail(c.in), c.delsp); got != mail(c.want) {
			t.Errorf("%q with CR: %q", c.in, got)
		}
	}
	m := parse(t, mail("Content-Type: text/plain; format=Flowed; delsp=YES\n\nsee http://a.example/ \nlong\n"))
	equal(t, "text", m.Text(), "see http://a.example/long\r\n")
	equal(t, "links", m.Links(), []string{"http://a.example/long"})
	equal(t, "fixed", parse(t, "\na \nb\n").Text(), "a \nb\n")
}

const uuHello = "begin 644 hello.txt\n+:&5L;&\\@=V]R;&0 \n`\nend\n"

func TestUUEncode(t *testing.T) {
	full := "begin 600 up 1.gif\n" + strings.Repeat("M"+strings.Repeat("0", 60)+"\n", 3) + "`\nend\n"
	for _, c := range []struct {
		name, in, text string
		files          []string
		odd            []string
	}{
		{"one", "hi\n" + uuHello + "bye\n", "hi\nbye\n", []string{"hello.txt 11"}, []string{"uuencode 1"}},
		{"two", uuHello + "x\n" + full, "x\n", []string{"hello.txt 11", "up 1.gif 135"}, []string{"uuencode 1", "uuencode 1"}},
		{"empty file", "begin 644 x\n`\nend\n", "", []string{"x 0"}, []string{"uuencode 1"}},
		{"prose", "begin 644 days\nof summer\nend\n", "begin 644 days\nof summer\nend\n", nil, nil},
		{"begin twice", "begin 644 a\n" + uuHello, "begin 644 a\n", []string{"hello.txt 11"}, []string{"uuencode 1"}},
		{"no end", "hi\n" + strings.TrimSuffix(full, "`\nend\n"), "hi\n", []string{"up 1.gif 135"}, []string{"bad-uuencode 1", "uuencode 1"}},
		{"damaged", strings.Replace(full, "`\nend\n", "buy now!\n", 1), "buy now!\n", []string{"up 1.gif 135"}, []string{"bad-uuencode 1", "uuencode 1"}},
		{"hiding", strings.Replace(full, "`\nend\n", "MONEY NOW\nend\n", 1), "MONEY NOW\n", []string{"up 1.gif 180"}, []string{"uuencode 1"}},
		{"no name", "begin 644 \n", "begin 644 \n", nil, nil},
		{"no mode", "begin now, dear\n", "begin now, dear\n", nil, nil},
	} {
		m := parse(t, "\n"+c.in)
		var files []string
		for _, a := range m.Attachments() {
			files = append(files, fmt.Sprintf("%s %d", a.Name, a.Size))
		}
		equal(t, c.name, m.Text(), c.text)
		equal(t, c.name, files, c.files)
		equal(t, c.name, kinds(m), c.odd)
		equal(t, c.name+" with CR", strings.ReplaceAll(parse(t, mail("\n"+c.in)).Text(), "\r", ""), c.text)
	}
	hello := sum256("hello world")
	equal(t, "content", parse(t, "\n"+uuHello).Attachments(), []Attachment{{"hello.txt", "application/octet-stream", 11, hello}})
	m := parse(t, "Content-Type: application/x-thing; name=x\nContent-Transfer-Encoding: x-uuencode\n\njunk\n"+uuHello+"junk\n")
	equal(t, "encoding", m.Attachments(), []Attachment{{"x", "application/x-thing", 11, hello}})
	equal(t, "encoding", kinds(m), nil)
	m = parse(t, "Content-Type: application/x-thing; name=x\nContent-Transfer-Encoding: uuencode\n\nhello world")
	equal(t, "encoding of nothing", m.Attachments(), []Attachment{{"x", "application/x-thing", 11, hello}})
	equal(t, "encoding of nothing", kinds(m), []string{"bad-uuencode 1"})
	// Encoded text is decoded first.
	m = parse(t, "Content-Transfer-Encoding: base64\n\n"+base64.StdEncoding.EncodeToString([]byte("hi\n"+uuHello)))
	equal(t, "in base64", m.Text(), "hi\n")
	equal(t, "in base64", len(m.Attachments()), 1)
	many := parse(t, "\n"+strings.Repeat("begin 644 x\n`\nend\n", 3000))
	equal(t, "limit", len(many.Attachments()), 2000)
	if !slices.Contains(kinds(many), "too-many-files 1") {
		t.Error(many.Anomalies())
	}
}

// tnef makes an envelope of attributes.
func tnef(attributes ...[]byte) []byte {
	return append([]byte{0x78, 0x9f, 0x3e, 0x22, 1, 0}, bytes.Join(attributes, nil)...)
}

func attribute(id uint32, data string) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{2}, id)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(append(b, data...), 0, 0)
}

// property makes one MAPI property of a string.
func property(kind, id uint16, s string) []byte {
	b := binary.LittleEndian.AppendUint16(nil, kind)
	b = binary.LittleEndian.AppendUint16(b, id)
	if id >= 0x8000 {
		b = append(append(b, make([]byte, 16)...), 1, 0, 0, 0, 6, 0, 0, 0, 'n', 0, 'm', 0, 0, 0, 0, 0)
	}
	if kind == 0x1f {
		var units []byte
		for _, u := range utf16.Encode([]rune(s + "\x00")) {
			units = binary.LittleEndian.AppendUint16(units, u)
		}
		s = string(units)
	}
	b = binary.LittleEndian.AppendUint32(b, 1)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	b = append(b, s...)
	for len(s)%4 != 0 {
		b, s = append(b, 0), s+" "
	}
	return b
}

func properties(list ...[]byte) string {
	return string(append(binary.LittleEndian.AppendUint32(nil, uint32(len(list))), bytes.Join(list, nil)...))
}

func lines64(raw []byte) string {
	var b strings.Builder
	for line := range slices.Chunk(raw, 57) {
		b.WriteString(base64.StdEncoding.EncodeToString(line) + "\n")
	}
	return b.String()
}

func winmail(raw []byte) string {
	return "Content-Type: application/ms-tnef; name=winmail.dat\nContent-Transfer-Encoding: base64\n\n" + lines64(raw)
}

var twoFiles = tnef(
	attribute(tnefCodepage, "\xe3\x04\x00\x00\x00\x00\x00\x00"),
	attribute(tnefAttachment, "rend"), attribute(tnefData, "hello"), attribute(tnefTitle, "\xcf\xf0.doc\x00"),
	attribute(tnefAttachment, "rend"), attribute(tnefTitle, "LONGNA~1.PDF\x00"), attribute(tnefData, "world"),
	attribute(tnefProperties, properties(property(0x102, 0x8001, "x"), []byte{3, 0, 5, 0x37, 1, 0, 0, 0}, property(0x1f, mapiLongFilename, "long näme.pdf"),
		property(0x1e, mapiMIMETag, "Application/PDF\x00"))),
	attribute(tnefAttachment, "rend"),
	attribute(tnefProperties, properties(property(0x0d, mapiData, "0123456789abcdefinside"), property(0x1e, mapiFilename, "object\x00"))),
)

func TestTNEF(t *testing.T) {
	m := parse(t, winmail(twoFiles))
	list := m.Attachments()
	equal(t, "files", list[1:], []Attachment{{"Пр.doc", "application/octet-stream", 5, sum256("hello")}, {"long näme.pdf", "application/pdf", 5, sum256("world")},
		{"object", "application/octet-stream", 6, sum256("inside")}})
	equal(t, "envelope", list[0].Name, "winmail.dat")
	equal(t, "anomalies", kinds(m), []string{"tnef 1"})
	for n := range twoFiles { // cut off anywhere, it is found out, and nothing is lost that was there
		m := parse(t, winmail(twoFiles[:n]))
		cuts := slices.Contains(kinds(m), "bad-tnef 1")
		if !cuts && !bytes.HasPrefix(twoFiles[n:], []byte{2}) {
			t.Errorf("cut at %d: %v", n, m.Anomalies())
		}
	}
	huge := bytes.Clone(twoFiles)
	binary.LittleEndian.PutUint32(huge[11:], 1<<32-1)
	equal(t, "a length beyond the end", kinds(parse(t, winmail(huge))), []string{"tnef 1", "bad-tnef 1"})
	equal(t, "properties without end", kinds(parse(t, winmail(tnef(attribute(tnefAttachment, ""), attribute(tnefProperties, "\xff\xff\xff\xff\x1e\x10\x01\x37\xff\xff\xff\xff\xff\xff\xff\xff"))))), []string{"tnef 1"})
	many := parse(t, winmail(tnef(bytes.Repeat(attribute(tnefAttachment, ""), 3000))))
	equal(t, "limit", len(many.Attachments()), 2000)
	equal(t, "limit", kinds(many), []string{"tnef 1", "bad-tnef 1"})
}

func TestEncodedMessage(t *testing.T) {
	inner := mail("Subject: in\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nthe text\n--i\nContent-Type: application/pdf; name=a.pdf\n\nPDF\n--i--\n")
	wrap := func(s string) string {
		return mail("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + lines64([]byte(s)))
	}
	m := parse(t, wrap(inner))
	equal(t, "text", m.Text(), "the text")
	equal(t, "outline", outline(m), fmt.Sprintf("1 message/rfc822 %d\n1 multipart/mixed 79\n1.1 text/plain 8\n1.2 application/pdf 3\n", m.Root().Size))
	equal(t, "anomalies", kinds(m), []string{"encoded-message 1"})
	list := m.Attachments()
	equal(t, "files", len(list), 2)
	equal(t, "the message", list[0], Attachment{"", "message/rfc822", int64(len(inner)), sum256(inner)})
	equal(t, "a file in it", list[1], Attachment{"a.pdf", "application/pdf", 3, sum256("PDF")})

	deep := inner
	for range 6 {
		deep = wrap(deep)
	}
	equal(t, "six levels", parse(t, deep).Text(), "the text")
	m = everything(t, []byte(deep), Limits{Depth: 3})
	if !slices.ContainsFunc(m.Anomalies(), func(a Anomaly) bool { return a.Kind == KindTooDeep }) {
		t.Errorf("%v", m.Anomalies())
	}
	m = everything(t, []byte(wrap(inner)), Limits{Text: 100})
	equal(t, "over the limit", kinds(m), []string{"encoded-message 1", "unreadable-message 1"})
	m = everything(t, []byte(wrap("A: "+strings.Repeat("x", 900)+"\n\nx")), Limits{HeaderSize: 500})
	equal(t, "large header", kinds(m), []string{"encoded-message 1", "unreadable-message 1"})
	m = parse(t, "Content-Type: message/global\nContent-Transfer-Encoding: quoted-printable\n\nSubject: =C3=A9\n\nx=3Dy\n")
	equal(t, "message/global", m.Text(), "x=y\n")
	equal(t, "message/global", kinds(m), nil)
	m = parse(t, "Content-Type: multipart/mixed; boundary=b\n\n"+strings.Repeat("--b\n"+strings.ReplaceAll(wrap("\n"), "\r", "")+"\n", 600)+"--b--\n")
	if !slices.ContainsFunc(m.Anomalies(), func(a Anomaly) bool { return a.Kind == KindManyParts || a.Kind == KindMore }) {
		t.Errorf("%v", m.Anomalies())
	}
}

func TestOddParameters(t *testing.T) {
	for _, c := range []struct {
		in, word string
		params   map[string]string
		odd      bool
	}{
		{"text/plain charset=UTF-8", "text/plain", map[string]string{"charset": "UTF-8"}, true},
		{"text/plain, charset=UTF-8; x=y", "text/plain", map[string]string{"charset": "UTF-8", "x": "y"}, true},
		{"multipart/mixed boundary=\"aB\"", "multipart/mixed", map[string]string{"boundary": "aB"}, true},
		{"text/plain; charset=\"UTF-8\" name=\"x\"", "text/plain", map[string]string{"charset": "UTF-8", "name": "x"}, false},
		{"a/b; c*1*=%41; c*2=b", "a/b", map[string]string{"c": "Ab"}, true},
		{"a/b; c*0=x; c*2=z", "a/b", map[string]string{"c": "xz"}, true},
		{"a/b; c*1*=%AC; c*0*=utf-8''%e2%82", "a/b", map[string]string{"c": "€"}, false},
		{"a/b; c*0=x; c*1*=utf-8''%e2%82%ac", "a/b", map[string]string{"c": "x€"}, false},
		{"a/b; c*0*=''x%27; c*1*=it's'b", "a/b", map[string]string{"c": "x'it's'b"}, false},
		{"a/b; c*0=\"=?utf-8?B?4o\"; c*1=\"Ks?=.pdf\"", "a/b", map[string]string{"c": "€.pdf"}, false},
		{"a/b; c*=nonsense''x", "a/b", map[string]string{"c": "x"}, true},
		{"a/b; c*=\"utf-8'de'%e2%82%ac\"", "a/b", map[string]string{"c": "€"}, false},
		{"a/b; c*=gb18030''%c4%e3", "a/b", map[string]string{"c": "你"}, false},
		{"a/b; c*01=y; c*00=x", "a/b", map[string]string{"c": "xy"}, false},
	} {
		v := parseStructured(c.in, 100)
		equal(t, c.in, v.word, c.word)
		equal(t, c.in, v.params, c.params)
		equal(t, c.in, v.odd, c.odd)
	}
	for in, want := range map[string]string{
		"7-bit": "7bit", "\"base64\"": "base64", "Base64 (c)": "base64", "quoted/printable": "quoted-printable", "x-uue": "uuencode", "none": "none",
	} {
		equal(t, in, parse(t, "Content-Transfer-Encoding: "+in+"\n\nx").Root().Encoding, want)
	}
}

// TestHiddenText: what some reader shows is text, wherever it stands.
func TestHiddenText(t *testing.T) {
	for name, c := range map[string]struct{ in, text string }{
		"no empty line":                {"Subject: x\nbuy now\nhttp://a.example/\n", "buy now\nhttp://a.example/\n"},
		"a blank line that is none":    {"Subject: x\n \nbuy now\n", "buy now\n"},
		"a line before the empty one":  {"Subject: x\nbuy now\n\nmore\n", "buy now\n\nmore\n"},
		"in the midst of fields":       {"Subject: x\nbuy now\nX: y\n\nmore\n", "more\n"},
		"before what is encoded":       {"Content-Transfer-Encoding: base64\nabc\n\nYWJj\n", "abc"},
		"no fields":                    {"buy now\n\nmore\n", "more\n"},
		"a part without empty line":    {"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\nbuy now\n--b--\n", "buy now"},
		"a boundary in the header":     {"Content-Type: multipart/mixed; boundary=b\nThis is a multi-part message.\n--b\nContent-Type: text/plain\n\nbuy now\n--b\n\nmore\n--b--\n", "buy now\nmore"},
		"a footer behind base64":       {"Content-Transfer-Encoding: base64\n\nYWI=\n____\nlist, a@b.example\n", "ab"},
		"base64 behind base64":         {"Content-Transfer-Encoding: base64\n\nYWI=\nY2Q=\nnot this!\nZWY=", "abcdef"},
		"base64 behind base64, a line": {"Content-Transfer-Encoding: base64\n\nYWI=Y2Q=", "abcd"},
	} {
		m := parse(t, c.in)
		equal(t, name, m.Text(), c.text)
		if body, _ := io.ReadAll(m.RawBody()); !strings.HasSuffix(c.in, string(body)) || strings.Contains(string(body), "buy now\nhttp") {
			t.Errorf("%s: the body is %q", name, body)
		}
	}
	equal(t, "words as base64", kinds(parse(t, "Content-Transfer-Encoding: base64\n\nsome words here\n")), []string{"bad-base64 1"})
	equal(t, "indented base64", kinds(parse(t, "Content-Transfer-Encoding: base64\n\n YWJj\n YWJj\n")), nil)
}

func TestProperDate(t *testing.T) {
	for in, want := range map[string]bool{
		"Sun, 22 Nov 2026 01:02:03 +0000":       true,
		"Sun, 22 Nov 2026 01:02 -0800 (PST)":    true,
		"22 Nov 2026 01:02:03 GMT":              true,
		"Mon, 22 Nov 2026 01:02:03 +0000":       false,
		"Sun, 22 Nov 26 01:02:03 +0000":         false,
		"Sun, 22 Nov 2026 01:02:03":             false,
		"Sun, 22 Nov 2026 01:02:03 -1900":       false,
		"Sun, 22 Nov 2026 01:02:03 +0000 x":     false,
		"Sun Nov 22 01:02:03 2026":              false,
		"Sun, 22 November 2026 01:02:03 +00:00": false,
	} {
		d, ok := parseDate(in)
		if !ok || properDate(in, d) != want {
			t.Errorf("%q: %v, %v", in, d, properDate(in, d))
		}
	}
	m := parse(t, "Date: Sun, 22 Nov 26 01:02:03 +0000\n\n")
	equal(t, "anomalies", odd(m), []Anomaly{{KindOddDate, "", "Sun, 22 Nov 26 01:02:03 +0000"}})
}

func sum256(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func FuzzDate(f *testing.F) {
	for _, s := range []string{
		"Sun, 22 Nov 2026 01:02:03 +0000", "Sun Nov 22 01:02:03 CET 2026", "2026-11-22T01:02:03.4+02:00", "22-Nov-26 1.02 PM GMT+2", "0000--0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := parseDate(s)
		if !ok {
			return
		}
		// What is read can be written as RFC 5322 has it, and is the same then.
		again, ok := parseDate(d.Format(time.RFC1123Z))
		if _, offset := d.Zone(); !ok || !again.Equal(d) && offset%60 == 0 {
			t.Errorf("%q: %v, %v", s, d, again)
		}
	})
}

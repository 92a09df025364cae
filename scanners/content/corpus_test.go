package content

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// fires lists what of a fact is worth counting.
func fires(f Fact) (list []string) {
	add := func(is bool, name string) {
		if is {
			list = append(list, name)
		}
	}
	for _, a := range f.Attachments {
		add(a.Executable, "attachments.executable")
		add(a.DangerousExtension, "attachments.dangerous_extension")
		add(a.DoubleExtension, "attachments.double_extension")
		add(a.TypeMismatch, "attachments.type_mismatch")
		add(a.Macro, "attachments.macro")
		add(a.Encrypted, "attachments.encrypted")
		add(a.Archive.Executable, "attachments.archive.executable")
		add(a.Damaged != "", "attachments.damaged")
		add(a.Incomplete != "", "attachments.incomplete")
		add(a.Real != "", "real="+a.Real)
		for _, x := range a.Features {
			add(true, "features."+x)
		}
	}
	h := f.HTML
	add(h.Present, "html")
	add(h.HiddenText > 0, "html.hidden_text")
	for _, how := range h.HiddenHow {
		add(true, "html.hidden_how."+how)
	}
	add(h.LinkMismatch, "html.link_mismatch")
	add(h.LinkUserinfo, "html.link_userinfo")
	add(h.Form, "html.form")
	add(h.FormForeign, "html.form_foreign")
	add(h.Password, "html.password")
	add(h.Script, "html.script")
	add(h.EventHandlers > 0, "html.event_handlers")
	add(h.TrackingPixels > 0, "html.tracking_pixels")
	add(h.RemoteImages > 0, "html.remote_images")
	add(h.Frames > 0, "html.frames")
	add(h.Base != "", "html.base")
	add(h.Refresh != "", "html.refresh")
	add(h.DataURIs > 0, "html.data_uris")
	add(f.Sender.Lookalike != "", "sender.lookalike."+f.Sender.LookalikeHow)
	add(f.Sender.NameHasAddress, "sender.name_has_address")
	add(f.Sender.ReplyToForeign, "sender.reply_to_foreign")
	add(f.MixedScripts, "mixed_scripts")
	add(f.ZeroWidth > 0, "zero_width")
	add(f.NonASCII > 30, "non_ascii>30")
	add(f.DateSkew > 86400, "date_skew>1d")
	add(f.DateSkew < -86400, "date_skew<-1d")
	add(true, "language="+f.Language)
	add(f.Script != "Latin", "script="+f.Script)
	for _, o := range f.Odd {
		add(true, "odd."+o.Kind)
	}
	for _, l := range f.Limits {
		add(true, "limits."+l)
	}
	return list
}

// look asks a stage about a mail that somebody else has written.
func lookAtMail(t *testing.T, s *stage, name string, raw []byte) (Fact, bool) {
	t.Helper()
	m, err := mime.Parse(bytes.NewReader(raw), int64(len(raw)), mime.Limits{})
	if le := (*mime.LimitError)(nil); errors.As(err, &le) {
		return Fact{}, false
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	v := pipeline.View{Message: m}
	v.Received = received(m)
	r, err := s.Check(t.Context(), v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if _, err := json.Marshal(r.Fact); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r.Fact.(Fact), true
}

// received is what the topmost Received says.
func received(m *mime.Message) time.Time {
	f, _ := m.Header().First("Received")
	_, date, _ := cutLast(f.Value(), ';')
	if i := strings.IndexByte(date, '('); i >= 0 {
		date = date[:i]
	}
	for _, layout := range []string{time.RFC1123Z, "Mon, _2 Jan 2006 15:04:05 -0700"} {
		if t, err := time.Parse(layout, strings.TrimSpace(date)); err == nil {
			return t
		}
	}
	d, _ := m.Date()
	return d
}

func testdata(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SLUICE_TESTDATA")
	if dir == "" {
		t.Skip("no test data")
	}
	return dir
}

// Nothing that others have collected because it is odd makes it fail.
func TestOddMail(t *testing.T) {
	dir, n := testdata(t), 0
	s, err := newStage(config())
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(dir, "mime"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if _, ok := lookAtMail(t, s, path, raw); ok {
			n++
		}
		return nil
	})
	if err != nil || n < 100 {
		t.Fatal(n, err)
	}
}

// How often what is found in real mail, for those who write rules: see it with -v.
func TestCorpus(t *testing.T) {
	f, err := os.Open(filepath.Join(testdata(t), "corpus", "train.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStage(config())
	if err != nil {
		t.Fatal(err)
	}
	mails, count, example := map[bool]int{}, map[bool]map[string]int{true: {}, false: {}}, map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		spam := strings.Contains(h.Name, "spam") && !strings.Contains(h.Name, "ham")
		fact, ok := lookAtMail(t, s, h.Name, raw)
		if !ok {
			continue
		}
		mails[spam]++
		seen := map[string]bool{}
		for _, name := range fires(fact) {
			if !seen[name] {
				seen[name] = true
				count[spam][name]++
				if example[name] == "" || !spam {
					example[name] = filepath.Base(h.Name)
				}
			}
		}
	}
	if mails[true] == 0 || mails[false] == 0 {
		t.Fatalf("%d spam, %d ham", mails[true], mails[false])
	}
	var names []string
	for name := range example {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	fmt.Fprintf(&b, "%-36s %8s %8s   of %d spam, %d ham\n", "", "spam %", "ham %", mails[true], mails[false])
	for _, name := range names {
		fmt.Fprintf(&b, "%-36s %8.2f %8.2f   %s\n", name, 100*float64(count[true][name])/float64(mails[true]), 100*float64(count[false][name])/float64(mails[false]), example[name])
	}
	t.Log("\n" + b.String())
}

// ordinary is a mail of about 10 KB in plain text and HTML, as msggen.py of the benchmarks makes them.
func ordinary() []byte {
	words := strings.Fields("time year people way day man thing woman life child world school state family student group country problem hand part place case week company system program question work government number night point home water room mother area money story fact month lot right study book eye job word business issue")
	n := 0
	sentence := func() string {
		var b []string
		for range 11 {
			n = (n*7 + 3) % 997
			b = append(b, words[n%len(words)])
		}
		return strings.ToUpper(b[0][:1]) + strings.Join(b, " ")[1:] + "."
	}
	para := func() string { return sentence() + " " + sentence() + " " + sentence() + " " + sentence() }
	var text, page strings.Builder
	for range 12 {
		p := para()
		for ; len(p) > 72; p = p[72:] {
			text.WriteString(p[:72] + "\r\n")
		}
		text.WriteString(p + "\r\n\r\n")
	}
	page.WriteString("<html><head><style>p{font:12px sans-serif;color:#1a2b3c}</style></head><body>")
	for i := range 11 {
		fmt.Fprintf(&page, "<p>%s <a href=\"https://shop.example.net/%s?id=%d&amp;u=%x\">%s</a></p>\r\n<table width=600><tr><td bgcolor=#ffffff>%s</td></tr></table>\r\n", para(), words[i], i*977, i*31337, words[i+7], sentence())
	}
	page.WriteString("<img src=\"https://example.com/t.gif\" width=1 height=1></body></html>")
	var b strings.Builder
	b.WriteString("Received: from mx1.example.com (mx1.example.com [192.0.2.7]) by relay.example.com (Postfix) with ESMTPS id 1A2B3C for <user1@bench.test>; Sun, 01 Mar 2026 12:00:00 +0000\r\n" +
		"From: =?utf-8?q?Chlo=C3=A9_Dupont?= <time12@shop.example.net>\r\nTo: user1@bench.test\r\nSubject: =?utf-8?q?R=C3=A9union_=E2=80=93_?= the report of this month\r\n" +
		"Date: Sun, 01 Mar 2026 11:59:55 +0000\r\nMessage-ID: <1a2b.5@shop.example.net>\r\nX-Mailer: Thunderbird 128\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/alternative; boundary=\"===5==\"\r\n\r\n--===5==\r\nContent-Type: text/plain; charset=\"utf-8\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n")
	b.WriteString(text.String() + "\r\n--===5==\r\nContent-Type: text/html; charset=\"utf-8\"\r\nContent-Transfer-Encoding: 7bit\r\nMIME-Version: 1.0\r\n\r\n" + page.String() + "\r\n--===5==--\r\n")
	return []byte(b.String())
}

func withAttachment(size int) []byte {
	body := ordinary()
	noise := make([]byte, size)
	for i, state := 0, uint32(1); i < len(noise); i++ {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	_, inner, _ := bytes.Cut(body, []byte("MIME-Version: 1.0\r\n"))
	enc := base64.StdEncoding.EncodeToString(append([]byte("%PDF-1.4\n"), noise...))
	var b strings.Builder
	b.WriteString("From: a@shop.example.net\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n" + string(inner) +
		"\r\n--m\r\nContent-Type: application/pdf; name=invoice.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for ; len(enc) > 76; enc = enc[76:] {
		b.WriteString(enc[:76] + "\r\n")
	}
	return []byte(b.String() + enc + "\r\n--m--\r\n")
}

func BenchmarkContent(b *testing.B) {
	c := config()
	c.Protect = []string{"paypal.com", "microsoft.com", "Jane Doe <jane@corp.example>"}
	s, err := newStage(c)
	if err != nil {
		b.Fatal(err)
	}
	rcpt, err := mime.ParseAddress("user1@bench.test")
	if err != nil {
		b.Fatal(err)
	}
	for name, raw := range map[string][]byte{"multipart": ordinary(), "pdf of 20 KB": withAttachment(20 << 10)} {
		run := func(name string, fresh bool) {
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				v := pipeline.View{}
				v.Received = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
				v.Recipients = []pipeline.Recipient{{Address: rcpt}}
				v.Message = parse(b, raw)
				if !fresh { // what other stages and rules ask for too
					v.Message.Attachments()
					v.Message.Text()
					v.Message.HTML()
				}
				for b.Loop() {
					if fresh {
						v.Message = parse(b, raw)
					}
					if _, err := s.Check(b.Context(), v); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run(fmt.Sprintf("%s, %d octets, parsed before", name, len(raw)), false)
		run(fmt.Sprintf("%s, %d octets, parsing too", name, len(raw)), true)
	}
}

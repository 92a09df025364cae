package program

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// benchRules are n mixed rules, as sites have them.
func benchRules(n int) string {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range n {
		when := []string{
			fmt.Sprintf(`subject contains "offer%d"`, i), fmt.Sprintf(`from.domain == "d%d.example"`, i), fmt.Sprintf(`has("X-Mailer-%d")`, i),
			fmt.Sprintf(`text contains "pharmacy%d"`, i), fmt.Sprintf(`header("List-Id") contains "list%d" and size > %d`, i, i),
			fmt.Sprintf(`any(content.attachments, .executable) and size > %d`, i), fmt.Sprintf(`header_from.domain != from.domain and subject startsWith "Re%d"`, i),
		}[i%7]
		fmt.Fprintf(&b, "  - {name: r%d, when: '%s', score: %d}\n", i, when, i%5+1)
	}
	return b.String()
}

// recordedMonth makes a data folder with n mails of 5 to 20 KB, their records, and users who have done something with
// every other one.
func recordedMonth(b *testing.B, n int) (p *program, folder string) {
	b.Helper()
	dir := b.TempDir()
	for name, text := range map[string]string{
		"sluice.yaml": "data: data\npipeline:\n  - content: {}\n  - rules: {files: [old.yaml], junk: 5}\n",
		"old.yaml":    benchRules(100),
		"new.yaml":    strings.ReplaceAll(benchRules(110), "r7,", "r7_changed,"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	p = &program{
		ctx: b.Context(), stdout: io.Discard, stderr: io.Discard, kinds: Stages(), now: time.Now, configFile: filepath.Join(dir, "sluice.yaml"),
	}
	settings, err := p.settings()
	if err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(settings.Data, "mail"), 0o700); err != nil {
		b.Fatal(err)
	}
	store, err := lookingStore(settings)
	if err != nil {
		b.Fatal(err)
	}
	j, err := journal.Open(b.Context(), journal.Config{Path: journalPath(settings)})
	if err != nil {
		b.Fatal(err)
	}
	env := offlineEnv("mx.example.org", time.Now, j)
	made, _, err := plan(settings, settings.Pipeline, env)
	if err != nil {
		b.Fatal(err)
	}
	if err := j.KeepPlan(b.Context(), keptPlan(settings, made)); err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their")
	text := func(octets int) string {
		var t strings.Builder
		for t.Len() < octets {
			for range 10 {
				t.WriteString(words[r.IntN(len(words))] + " ")
			}
			t.WriteString("\r\n")
		}
		return t.String()
	}
	for i := range n {
		account := fmt.Sprintf("user%d@example.org", i%50)
		var m strings.Builder
		fmt.Fprintf(&m, "Received: from a.example by b.example; Sun, 22 Nov 2026 10:00:00 +0000\r\nFrom: Somebody <s%d@d%d.example>\r\nTo: <%s>\r\n"+
			"Subject: about offer%d and more\r\nMessage-ID: <%d@bench.example>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n", i, i%300, account, i%300, i)
		octets := 5000 + r.IntN(15000)
		if i%3 == 0 {
			fmt.Fprintf(&m, "Content-Type: text/plain; charset=utf-8\r\n\r\n%s", text(octets))
		} else {
			fmt.Fprintf(&m, "Content-Type: multipart/alternative; boundary=bb\r\n\r\n--bb\r\nContent-Type: text/plain\r\n\r\n%s\r\n--bb\r\n"+
				"Content-Type: text/html\r\n\r\n<html><body><p>%s</p></body></html>\r\n--bb--\r\n", text(octets/3), text(2*octets/3))
		}
		s := made.NewSession(pipeline.LMTP, pipeline.Client{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Name: "a.example"})
		s.Connect(b.Context())
		s.Helo(b.Context(), "a.example")
		from, err := mime.ParseAddress(fmt.Sprintf("s%d@d%d.example", i, i%300))
		if err != nil {
			b.Fatal(err)
		}
		to, err := mime.ParseAddress(account)
		if err != nil {
			b.Fatal(err)
		}
		id, _ := s.Mail(b.Context(), from)
		s.Rcpt(b.Context(), pipeline.Recipient{Address: to, Account: account})
		s.Data(b.Context())
		parsed, err := mime.Parse(strings.NewReader(m.String()), int64(m.Len()), settings.Limits.MIME())
		if err != nil {
			b.Fatal(err)
		}
		d := s.Content(b.Context(), parsed)[0]
		flags := [][]string{nil, {`\Seen`}, {`\Seen`, `\Answered`}, {"$Junk"}}[i%4]
		placed, err := store.Deliver(b.Context(), []mailstore.Item{{
			Account: account, Folder: d.Folder, ID: id, Flags: flags, Date: time.Now(),
			Content: io.MultiReader(strings.NewReader("Return-Path: <x@example.org>\r\nX-Sluice-Id: "+id+"\r\n"), bytes.NewReader([]byte(m.String()))),
		}})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Done(b.Context(), pipeline.Reply{Code: 250}, []pipeline.Delivery{{
			Disposition: pipeline.Delivered, Folder: placed[0].Folder, File: placed[0].File, Reply: pipeline.Reply{Code: 250},
		}}); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	return p, dir
}

// BenchmarkBacktest tries 110 rules on mail of 5 to 20 KB against the 100 that decided. 100,000 mails in five minutes are
// 334 mails a second.
func BenchmarkBacktest(b *testing.B) {
	const n = 1000
	p, dir := recordedMonth(b, n)
	var out bytes.Buffer
	p.stdout = &out
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		c := backtestCommand{Rules: []string{filepath.Join(dir, "new.yaml")}, Against: []string{"current"}, Since: "1d", Limit: 20}
		if err := c.Run(p); err != nil {
			b.Fatal(err)
		}
	}
	if !strings.Contains(out.String(), fmt.Sprintf("%d mails, %d decided with both", n, n)) {
		b.Fatalf("not all were decided:\n%s", out.String())
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "mails/s")
}

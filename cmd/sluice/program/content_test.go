package program

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/peertest"
	"sluice/rules"
	"sluice/scanners/content"
)

// What rule files may say about content, each by itself.
func TestRulesSeeContent(t *testing.T) {
	conditions := []string{
		`any(content.attachments, .executable)`, `any(content.attachments, .double_extension and not .encrypted)`,
		`any(content.attachments, .type_mismatch or .bidi_name or .macro)`, `any(content.attachments, .archive.executable)`,
		`any(content.attachments, "javascript" in .features)`, `any(content.attachments, .real in ["iso", "vhd"] and .size < 1_000_000)`,
		`count(content.attachments, .damaged != "" or .incomplete contains "depth") > 1`, `content.attachment_count > 20`,
		`any(content.attachments, len(.archive.members) > 100 or .archive.depth > 2)`, `any(content.attachments, .sha256 == "00")`,
		`content.html.link_mismatch and content.html.form`, `content.html.hidden_text > 100 and "display" in content.html.hidden_how`,
		`any(content.html.mismatches, .shown == "bank.example")`, `content.html.script or content.html.tracking_pixels > 2`,
		`content.sender.lookalike == "paypal.com"`, `content.sender.name_has_address and not content.sender.reply_to_foreign`,
		`abs(content.date_skew) > 86400`, `not known(content.date_skew)`, `content.script == "Cyrillic" or content.language == "ru"`,
		`any(content.scripts, .name == "Han" and .letters > 10)`, `content.mixed_scripts and content.zero_width > 3`,
		`"unpacked" in content.limits`, `any(content.odd, .kind == "no-boundary")`,
	}
	var file strings.Builder
	file.WriteString("rules:\n")
	for i, c := range conditions {
		fmt.Fprintf(&file, "  - {name: r%d, score: 1, when: %q}\n", i, c)
	}
	env := pipelinetest.Env(t)
	env.Files = pipelinetest.Files{"rules.yaml": file.String()}.Open
	journal := &pipelinetest.Journal{}
	env.Journal = journal
	config := rules.Kind().Config().(*rules.Config)
	config.Files = []string{"rules.yaml"}
	p, err := pipeline.NewPlan([]pipeline.Step{{Kind: content.Kind(), Config: content.Kind().Config()}, {Kind: rules.Kind(), Config: config}}, env, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{From: "a@b.example", Text: disguised(t)})
	var hits []string
	for _, h := range ran.Record.Steps[1].Hits {
		hits = append(hits, h.Name)
	}
	if len(ran.Record.Steps[1].Undecided) > 0 || !slices.Contains(hits, "r1") || !slices.Contains(hits, "r3") || slices.Contains(hits, "r4") {
		t.Errorf("hits %q, undecided %+v", hits, ran.Record.Steps[1].Undecided)
	}
}

// disguised is a mail with a program that looks like a document, alone and in an archive.
func disguised(t *testing.T) string {
	t.Helper()
	program := append([]byte("MZ\x90\x00"), make([]byte, 100)...)
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("invoice.pdf.exe")
	if err == nil {
		_, err = f.Write(program)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	part := func(name string, p []byte) string {
		return "--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=" + name +
			"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString(p) + "\r\n"
	}
	return "From: info@bank-login.example\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <disguised@b.example>\r\nSubject: invoice\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n" +
		"<a href=\"https://evil.example/\">https://bank.com/</a>\r\n" + part("invoice.pdf.exe", program) + part("invoice.zip", b.Bytes()) + "--b--\r\n"
}

// The example, from the socket to the record.
func TestExampleContent(t *testing.T) {
	files := map[string]string{
		"sluice.yaml": read(t, root, "examples/content/sluice.yaml") + "\nlisten: {smtp: [\"127.0.0.1:0\"]}\n",
		"rules.yaml":  read(t, root, "examples/content/rules.yaml"),
	}
	s := startSite(t, files, "-c", "sluice.yaml")
	s.run(t, "", "-c", "sluice.yaml", "check")
	for _, tt := range []struct {
		text, id string
		code     int
		hits     []string
	}{
		{disguised(t), "disguised@b.example", 550, []string{"disguised_program", "lookalike", "program", "shows_another_site"}},
		{"From: Jane Doe <jane@gmail.example>\r\nMessage-ID: <jane@b.example>\r\nSubject: are you at your desk?\r\n\r\nplease call\r\n", "jane@b.example", 250, []string{"not_jane"}},
		{"From: a@b.example\r\nMessage-ID: <plain@b.example>\r\nDate: Sun, 22 Nov 2020 10:00:00 +0000\r\nSubject: hello\r\n\r\nhello\r\n", "plain@b.example", 250, nil},
	} {
		c := s.dial(t, "smtp")
		say(t, c, 220, "")
		say(t, c, 250, "EHLO test.example")
		say(t, c, 250, "MAIL FROM:<a@b.example>")
		say(t, c, 250, "RCPT TO:<me@example.org>")
		say(t, c, 354, "DATA")
		if _, err := io.WriteString(c.W, tt.text+".\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := c.W.Flush(); err != nil {
			t.Fatal(err)
		}
		say(t, c, tt.code, "")
		record := recordOf(t, s, tt.id)
		var hits []string
		for _, h := range record.Steps[1].Hits {
			hits = append(hits, h.Name)
		}
		slices.Sort(hits) // rules are asked together with those that are about the same
		if !slices.Equal(hits, tt.hits) {
			t.Errorf("%s: hits %q, want %q", tt.id, hits, tt.hits)
		}
		var fact content.Fact
		if err := json.Unmarshal(record.Steps[0].Fact, &fact); err != nil {
			t.Fatal(err)
		}
		switch tt.id {
		case "disguised@b.example":
			if a := fact.Attachments; len(a) != 2 || a[0].Real != "dos" || len(a[0].SHA256) != 64 || a[1].Archive.Members[0].Name != "invoice.pdf.exe" ||
				fact.HTML.Mismatches[0].Goes != "evil.example" || fact.Sender.LookalikeDomain != "bank-login.example" {
				t.Errorf("%+v", fact)
			}
		case "jane@b.example":
			if _, ok := record.Steps[0].Missing["date_skew"]; !ok {
				t.Errorf("a mail without a date has a skew of %d", fact.DateSkew)
			}
		}
	}
}

// recordOf waits until the record of a message can be had.
func recordOf(t *testing.T, s *site, id string) pipeline.Record {
	t.Helper()
	for end := time.Now().Add(peertest.Patience); ; {
		out, err := shell(s.dir, nil, "sluice -c sluice.yaml explain '"+id+"' --json")
		var found struct{ Records []explanation }
		if err == nil && json.Unmarshal([]byte(out), &found) == nil && len(found.Records) == 1 && found.Records[0].Record != nil {
			return *found.Records[0].Record
		}
		if time.Now().After(end) {
			t.Fatalf("no record of %s: %v\n%s", id, err, out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

package program

import (
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/protocols/peertest"
)

// noon is a clock that goes on from noon, UTC, of the day that NOON names.
func noon() func() time.Time {
	day, _ := time.Parse(time.DateOnly, os.Getenv("NOON"))
	began, at := time.Now(), day.Add(12*time.Hour)
	return func() time.Time { return at.Add(time.Since(began)) }
}

// A mail comes in by SMTP and is judged by a policy; the day ends; the report about it leaves through the queue and the
// relay, signed, and arrives; and a server that begins again sends it to nobody twice.
func TestReportOfTheNight(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now().UTC() // once, for the test may run at midnight
	day := now.Format(time.DateOnly)
	today, tomorrow := []string{"NOON=" + day}, []string{"NOON=" + now.AddDate(0, 0, 1).Format(time.DateOnly)}

	// Who publishes the policy, and gets the report.
	write("home.yaml", "data: home\n") // for keygen
	key := run(t, dir, "sluice -c home.yaml dkim keygen mx.example.org --selector one --algorithm ed25519")
	record := regexp.MustCompile(`(?m)^(one\._domainkey\S+) IN TXT (.*)$`).FindStringSubmatch(key)
	if record == nil {
		t.Fatalf("no record in %s", key)
	}
	dns := peertest.DNS(t, record[1]+" 600 IN TXT "+record[2],
		`sender.example. 600 TXT "v=spf1 ip4:192.0.2.1 -all"`,
		`_dmarc.sender.example. 600 TXT "v=DMARC1; p=none; rua=mailto:reports@sender.example"`,
		`_dmarc.example.org. 600 TXT "v=DMARC1; p=none"`)
	common := fmt.Sprintf(`
resolver: {servers: ['%s'], attempts: 1, timeout: 2s}
trusted: [192.0.2.0/24]
pipeline: [spf: {}, dkim: {}, dmarc: {}, authres: {}]
listen: {smtp: ["127.0.0.1:0"]}
`, dns.Address)
	write("there.yaml", "data: there\nhostname: mx.sender.example\ndomain: sender.example\n"+common)
	run(t, dir, "echo secret | sluice -c there.yaml user add reports@sender.example --password-stdin")
	_, there := upWith(t, dir, tomorrow, "noon", "-c", "there.yaml", "serve")
	write("home.yaml", "data: home\nhostname: mx.example.org\ndomain: example.org\ndmarc_reports: {send: true, email: postmaster@mx.example.org}\n"+
		"relay: {smarthost: ['"+there["smtp"]+"']}\n"+common)
	run(t, dir, "echo secret | sluice -c home.yaml user add me@example.org --password-stdin")

	// The day.
	end, home := upWith(t, dir, today, "noon", "-c", "home.yaml", "serve")
	for i := range 2 {
		c, err := textproto.Dial("tcp", home["smtp"])
		if err != nil {
			t.Fatal(err)
		}
		last, err := converse(c, "a@sender.example", "me@example.org", fmt.Appendf(nil, "From: a@sender.example\r\nMessage-ID: <%d@sender.example>\r\n\r\nx\r\n", i))
		_ = c.Close()
		if err != nil {
			t.Fatal(last, err)
		}
	}
	if log := end(); strings.Contains(log, "DMARC reports sent") {
		t.Errorf("the day is not over:\n%s", log)
	}

	// The night.
	got := func() []string {
		files, err := filepath.Glob(filepath.Join(dir, "there/mail/sender.example/reports/new/*"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	end, _ = upWith(t, dir, tomorrow, "noon", "-c", "home.yaml", "serve")
	for until := time.Now().Add(peertest.Patience); len(got()) == 0 && time.Now().Before(until); {
		run(t, dir, "sleep 0.05")
	}
	if len(got()) != 1 {
		t.Fatalf("%d reports have arrived", len(got()))
	}
	mail := read(t, filepath.Dir(got()[0]), filepath.Base(got()[0]))
	for _, want := range []string{
		"dkim=pass header.d=mx.example.org", "Subject: Report Domain: sender.example Submitter: mx.example.org", "From: ", "DKIM-Signature: ",
	} {
		if !strings.Contains(unfolded(mail), want) {
			t.Errorf("no %q in\n%s", want, mail)
		}
	}
	text := attached(t, mail)
	for _, want := range []string{"<domain>sender.example</domain>", "<source_ip>127.0.0.1</source_ip>", "<count>2</count>", "<spf>fail</spf>"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if out := run(t, dir, "sluice -c home.yaml queue list --all --why 'DMARC report'"); strings.Count(out, "relayed at")+strings.Count(out, "passed on at") != 1 {
		t.Errorf("the queue says\n%s", out)
	}
	if log := end(); !strings.Contains(log, "DMARC reports sent") {
		t.Errorf("log:\n%s", log)
	}

	// A server that begins again, and an administrator who asks once more.
	end, _ = upWith(t, dir, tomorrow, "noon", "-c", "home.yaml", "serve")
	out, err := shell(dir, append(os.Environ(), tomorrow...), "noon -c home.yaml dmarc report --send --day "+day)
	if err != nil || !strings.Contains(out, "sent on ") {
		t.Errorf("%v: %s", err, out)
	}
	if log := end(); strings.Contains(log, "DMARC reports sent") {
		t.Errorf("sent again:\n%s", log)
	}
	if out := run(t, dir, "sluice -c home.yaml queue list --all --why 'DMARC report'"); strings.Count(out, "DMARC report about") != 1 || len(got()) != 1 {
		t.Errorf("sent again:\n%s", out)
	}
}

// unfolded is a mail with each header field on one line.
func unfolded(mail string) string {
	return regexp.MustCompile(`\r?\n[ \t]+`).ReplaceAllString(mail, " ")
}

// attached is the report in a mail.
func attached(t *testing.T, mail string) string {
	t.Helper()
	_, part, ok := strings.Cut(mail, "application/gzip")
	if !ok {
		t.Fatalf("nothing is attached to\n%s", mail)
	}
	_, part, _ = strings.Cut(strings.ReplaceAll(part, "\r\n", "\n"), "\n\n")
	part, _, _ = strings.Cut(part, "\n--")
	r, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(part)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

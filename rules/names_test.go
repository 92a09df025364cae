package rules

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

func TestNames(t *testing.T) {
	v := exampleView(t)
	for when, want := range map[string]truth{
		`client.tls == "TLSv1.3"`: isTrue,
		`len(rcpts) == 2 and rcpts[0].tag == "lists" and rcpts[1].address == "info@example.org"`:                                 isTrue,
		`header_froms[0].name == header_from.name and header_froms[0].domain == "bank.example"`:                                  isTrue,
		`headers("RECEIVED")[1] contains "dialup" and headers("received")[0] == header("Received")`:                              isTrue,
		`len(headers("X-None")) == 0 and headers("X-None") == []`:                                                                isTrue,
		`text startsWith "This is a free offer" and text contains "ACT NOW" and text contains "or here"`:                         isTrue,
		`text contains "<form>" or text contains "pay"`:                                                                          isFalse,
		`html startsWith "<form><a href" and html contains "https://www.evil.example/x"`:                                         isTrue,
		`attachments[1].name == "terms.txt" and attachments[1].type == "text/plain" and attachments[1].extension == "txt"`:       isTrue,
		`len(attachments[1].sha256) == 64 and attachments[0].sha256 startsWith "9b8db510ef42"`:                                   isTrue,
		`any(links, .url == "http://198.51.100.1/login.php" and .domain == "198.51.100.1" and .text == "https://bank.example/")`: isTrue,
		`any(links, .host == "www.evil.example" and .domain == "evil.example" and .text == "here")`:                              isTrue,
		`any(links, .url == "http://www.news.example" and .text == "")`:                                                          isTrue,
		`"bare-lf" in anomalies and "nul" not in anomalies`:                                                                      isTrue,
		`message_id == "42@news.example" and list_id == "offers.bank.example"`:                                                   isTrue,
		`date == 1795730400 and received.unix == 1795302600 and date - received == 427800`:                                       isTrue,
		`date.zone == 330 and date.hour == 3 and received.weekday == "saturday"`:                                                 isTrue,
		`date.unix - days(4) > received and -received < 0 and max(date, received) == date`:                                       isTrue,
	} {
		got, why := truthIn(t, Config{}, when, v)
		if got != want {
			t.Errorf("%s: got %d, want %d (%s)", when, got, want, why)
		}
	}
}

// truthIn is what a condition comes to behind the steps of the examples.
func truthIn(t testing.TB, c Config, when string, v pipeline.View) (truth, string) {
	t.Helper()
	_, e := exampleEnv("rules: [{name: r, when: " + quote(when) + "}]")
	c.Files = []string{"x.yaml"}
	stages, err := New(c, e)
	if err != nil {
		t.Fatal(err)
	}
	r, err := stages[0].Check(t.Context(), v)
	switch {
	case err != nil:
		t.Fatal(err)
	case len(r.Hits) > 0:
		return isTrue, ""
	case len(r.Undecided) > 0:
		return unknown, r.Undecided[0].Why
	}
	return isFalse, ""
}

// What is not there and what cannot be known are two things.
func TestUnknownNames(t *testing.T) {
	bare := message(t, "X: y\n\nhello\n")
	odd := message(t, "Date: soon\nList-Id: my list\nMessage-ID: no brackets\nFrom: \n\n")
	for _, tt := range []struct {
		when string
		m    *mime.Message
		want string // "" for known and true
	}{
		{`message_id == "" and list_id == "" and subject == "" and header_from.name == ""`, bare, ""},
		{`len(attachments) == 0 and len(links) == 0 and len(header_froms) == 0 and html == ""`, bare, ""},
		{`list_id == "my list" and message_id == "no brackets"`, odd, ""},
		{`date > 0`, bare, "the mail has no Date"},
		{`date.hour >= 0`, odd, "its Date cannot be read"},
		{`not has("Date") and not known(date)`, bare, ""},
		{`has("Date") and not known(date.zone) and known(text)`, odd, ""},
		{`text == "" or true`, nil, ""},
		{`text == ""`, nil, "there is no message"},
		{`len(links) == 0`, nil, "there is no message"},
		{`len(attachments) == 0`, nil, "there is no message"},
		{`len(anomalies) == 0`, nil, "there is no message"},
		{`len(header_froms) == 0`, nil, "there is no message"},
		{`message_id == ""`, nil, "there is no message"},
		{`date == 0`, nil, "there is no message"},
		{`headers("X") == []`, nil, "there is no message"},
		{`has_word(text, "x")`, nil, "there is no message"},
		{`lower(subject) == ""`, nil, "there is no message"},
	} {
		v := exampleView(t)
		v.Message = tt.m
		got, why := truthIn(t, Config{}, tt.when, v)
		if tt.want == "" && got != isTrue || tt.want != "" && (got != unknown || why != tt.want) {
			t.Errorf("%s: got %d, %s; want %s", tt.when, got, why, tt.want)
		}
	}
	v := exampleView(t)
	v.Client = pipeline.Client{Login: "jane@example.org", TLS: "TLSv1.3"}
	if got, why := truthIn(t, Config{}, `client.tls != ""`, v); got != unknown || why != "client unknown" {
		t.Errorf("the TLS of a client that is not known: got %d, %s", got, why)
	}
	v.Client = pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")}
	if got, _ := truthIn(t, Config{}, `client.tls == ""`, v); got != isTrue {
		t.Errorf("cleartext: got %d", got)
	}
	v.Received = time.Time{}
	if got, why := truthIn(t, Config{}, `received.hour < 25`, v); got != unknown || why != "nobody has noted when it came" {
		t.Errorf("no clock: got %d, %s", got, why)
	}
}

// A brokenReader fails behind some octets.
type brokenReader struct {
	io.ReaderAt
	good int64
}

func (b brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.good {
		return 0, errors.New("input/output error")
	}
	return b.ReaderAt.ReadAt(p, off)
}

// What could not be read is unknown, whatever there seems to be of it.
func TestUnreadableMessage(t *testing.T) {
	text := "Subject: x\r\n\r\n" + strings.Repeat("hello http://x.example/\r\n", 10_000)
	m, err := mime.Parse(brokenReader{strings.NewReader(text), 20_000}, int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	v := exampleView(t)
	v.Message = m
	for _, when := range []string{`text contains "nothing"`, `len(links) > 5`, `len(attachments) == 0`, `html == ""`, `"nul" in anomalies`, `lower(text) == ""`} {
		if got, why := truthIn(t, Config{}, when, v); got != unknown || why != "the message cannot be read: input/output error" {
			t.Errorf("%s: got %d, %s", when, got, why)
		}
	}
}

func TestZones(t *testing.T) {
	v := exampleView(t)
	for zone, want := range map[string]string{
		"":                    `received.hour == 23 and received.day == 21 and received.minute == 10`,
		"UTC":                 `received.hour == 23 and received.weekday == "saturday"`,
		"Europe/Berlin":       `received.hour == 0 and received.weekday == "sunday" and received.day == 22`,
		"America/Los_Angeles": `received.hour == 15`,
	} {
		if got, why := truthIn(t, Config{Timezone: zone}, want+" and date.hour == 3", v); got != isTrue {
			t.Errorf("%q: got %d, %s", zone, got, why)
		}
	}
	// By default it is the zone in which the record has it, wherever it is read.
	v.Received = v.Received.In(time.FixedZone("", -3600))
	if got, _ := truthIn(t, Config{}, `received.hour == 22 and received - date == -427800`, v); got != isTrue {
		t.Errorf("got %d", got)
	}
	_, e := exampleEnv("rules: [{name: r, when: true}]")
	if _, err := New(Config{Files: []string{"x.yaml"}, Timezone: "Europe/Berln"}, e); err == nil || !strings.Contains(err.Error(), "timezone: unknown time zone Europe/Berln") {
		t.Errorf("got %v", err)
	}
}

// Each limit on what conditions see is reached, and what lies beyond is not seen.
func TestLimitsOfNames(t *testing.T) {
	var b strings.Builder
	for i := range 12 {
		fmt.Fprintf(&b, "X-N: %d\n", i)
	}
	b.WriteString("From: a0@x.example")
	for i := range 11 {
		fmt.Fprintf(&b, ", a%d@x.example", i+1)
	}
	b.WriteString("\nSubject: 0123456789é123456789\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n")
	for i := range 12 {
		fmt.Fprintf(&b, "--b\nContent-Type: text/html\n\n<p>ÄB%d http://h%d.example/</p>\n--b\nContent-Disposition: attachment; filename=f%d\n\nx\n", i, i, i)
	}
	b.WriteString("--b--\n")
	v := exampleView(t)
	v.Message = message(t, b.String())
	for i := range 12 {
		v.Recipients = append(v.Recipients[:min(i, len(v.Recipients))], pipeline.Recipient{Address: address(t, fmt.Sprintf("r%d@example.org", i))})
	}
	c := Config{Limits: Limits{MaxItems: 10, MaxText: 30, MaxValue: 11}}
	for _, when := range []string{
		`len(links) == 10 and any(links, .host == "h9.example") and none(links, .host == "h10.example")`,
		`len(attachments) == 10 and any(attachments, .name == "f9")`,
		`len(rcpts) == 10 and any(rcpts, .local == "r9")`,
		`len(header_froms) == 10 and header_from.count == 12`,
		`len(headers("X-N")) == 10 and headers("X-N")[9] == "9"`,
		`len(text) < 31 and text startsWith "ÄB0 http://h0.example/" and not (text contains "h2")`,
		`len(html) <= 30 and html startsWith "<p>ÄB0" and lower(html) startsWith "<p>äb0"`,
		`lower(text) startsWith "äb0" and len(lower(text)) == len(text)`,
		`subject == "0123456789" and lower(subject) == "0123456789"`,
		`any(links, .url == "http://h0.e")`,
	} {
		if got, why := truthIn(t, c, when, v); got != isTrue {
			t.Errorf("%s: got %d, %s", when, got, why)
		}
	}
	// And those of the defaults are larger.
	if got, why := truthIn(t, Config{}, `len(links) == 12 and len(attachments) == 12 and len(rcpts) == 12 and len(headers("X-N")) == 12 and text contains "h11"`, v); got != isTrue {
		t.Errorf("got %d, %s", got, why)
	}
}

// A countingReader counts what is read.
type countingReader struct {
	io.ReaderAt
	n *int64
}

func (c countingReader) ReadAt(p []byte, off int64) (int, error) {
	*c.n += int64(len(p))
	return c.ReaderAt.ReadAt(p, off)
}

// The body is read where a rule asks about it and not before, and once.
func TestNamesAreLazy(t *testing.T) {
	text := "Subject: x\r\nFrom: a@b.example\r\n\r\n" + strings.Repeat("hello http://x.example/\r\n", 10_000)
	read := func(when string) int64 {
		var n int64
		m, err := mime.Parse(countingReader{strings.NewReader(text), &n}, int64(len(text)), mime.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		n = 0
		v := exampleView(t)
		v.Message = m
		truthIn(t, Config{}, when, v)
		return n
	}
	for _, when := range []string{
		`subject == "y" and text contains "hello"`, `header_from.domain == "b.example" or any(links, .host == "x")`, `size > 10`, `known(spf)`,
	} {
		if n := read(when); n > 0 {
			t.Errorf("%s: %d octets of the body are read", when, n)
		}
	}
	once := read(`text contains "no"`)
	if once < int64(len(text))-100 {
		t.Errorf("only %d octets are read", once)
	}
	if n := read(`text contains "no" or lower(text) contains "no" or any(links, .host == "") or html != "" or has_word(text, "no")`); n > once {
		t.Errorf("%d octets are read, for one question %d", n, once)
	}
}

package smtp

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

func TestField(t *testing.T) {
	tests := []struct{ name, value, want string }{
		{"X-A", "b", "X-A: b\r\n"},
		{"X-A", "", "X-A: \r\n"},
		{"X-A", "b\r\nX-B: c\x00d\te", "X-A: b  X-B: c d e\r\n"},
		{"X-A", "caf\xe9", "X-A: caf?\r\n"},
		{"X-A", strings.Repeat("word ", 20) + "end", "X-A:" + strings.Repeat(" word", 14) + "\r\n" + strings.Repeat(" word", 6) + " end\r\n"},
		{"X-A", strings.Repeat("w", 100), "X-A: " + strings.Repeat("w", 100) + "\r\n"},
		{"X-A", "a " + strings.Repeat("w", 100), "X-A: a\r\n " + strings.Repeat("w", 100) + "\r\n"},
		{"X-A", strings.Repeat("w", 2000), "X-A: " + strings.Repeat("w", 985) + "\r\n"},
	}
	for _, tt := range tests {
		if got := string(field(tt.name, tt.value)); got != tt.want {
			t.Errorf("field(%q, %q) = %q, want %q", tt.name, tt.value, got, tt.want)
		}
	}
}

func FuzzField(f *testing.F) {
	f.Add("a b c")
	f.Add("a\r\n\r\nb")
	f.Add(strings.Repeat("ü ", 1000))
	f.Add(strings.Repeat(" ", 1000) + "x")
	f.Add("x" + strings.Repeat(" ", 1000) + "x")
	f.Fuzz(func(t *testing.T, value string) {
		b := field("X-Test", value)
		m, err := mime.Parse(bytes.NewReader(b), int64(len(b)), mime.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		fields := m.Header().Fields()
		if len(fields) != 1 || fields[0].Name != "X-Test" || m.Header().Len() != len(b) || len(fields[0].Value()) > 998 {
			t.Fatalf("%q is no single field", b)
		}
		for line := range strings.Lines(string(b)) {
			if len(line) > 1000 || !strings.HasSuffix(line, "\r\n") || strings.TrimSpace(line) == "" {
				t.Fatalf("a line of %q", b)
			}
		}
	})
}

func TestAdded(t *testing.T) {
	tests := []struct {
		edit pipeline.Edit
		want string
	}{
		{pipeline.Edit{Name: "X-A", Value: "b"}, "X-A: b\r\n"},
		{pipeline.Edit{Name: "X-A", Value: "bücher"}, "X-A: =?utf-8?q?b=C3=BCcher?=\r\n"},
		{pipeline.Edit{Name: "X-A\r\nBcc", Value: "b"}, ""},
		{pipeline.Edit{Name: "X A", Value: "b"}, ""},
		{pipeline.Edit{Value: "b"}, ""},
		{pipeline.Edit{Name: "X:A", Value: "b"}, ""},
	}
	for _, tt := range tests {
		if got := string(added(tt.edit)); got != tt.want {
			t.Errorf("added(%+v) = %q, want %q", tt.edit, got, tt.want)
		}
	}
}

func TestStrip(t *testing.T) {
	const section = "A: 1\r\nB: 2\r\n folded\r\nnot a field\r\na : 3\nB:4\r\n\tfolded\nA: 5\r\n"
	tests := []struct {
		name string
		gone func(string, int) bool
		want string
	}{
		{"nothing", func(string, int) bool { return false }, section},
		{"everything", func(string, int) bool { return true }, "not a field\r\n"},
		{"all of a name", func(name string, _ int) bool { return name == "b" }, "A: 1\r\nnot a field\r\na : 3\nA: 5\r\n"},
		{"the second of a name", func(name string, nth int) bool { return name == "a" && nth == 2 },
			"A: 1\r\nB: 2\r\n folded\r\nnot a field\r\nB:4\r\n\tfolded\nA: 5\r\n"},
	}
	for _, tt := range tests {
		if got := string(strip([]byte(section), tt.gone)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// What is stored agrees with what the message parser sees as fields.
func FuzzStrip(f *testing.F) {
	for _, s := range []string{"A: b\r\nX-Spam-Flag: YES\r\n\r\nbody", " X-Spam-Flag: a\r\n", "x-sluice-id \t: a\nb", ":\r\n", "X-Sluice-Id\r\n : x\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
		if err != nil {
			return
		}
		out := strip([]byte(text)[:m.Header().Len()], func(name string, _ int) bool { return pipeline.Ours(name) })
		rest := string(out) + text[m.Header().Len():]
		left, err := mime.Parse(strings.NewReader(rest), int64(len(rest)), mime.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		others := 0
		for _, x := range m.Header().Fields() {
			if !pipeline.Ours(x.Name) {
				others++
			}
		}
		for _, x := range left.Header().Fields() {
			if pipeline.Ours(x.Name) {
				t.Fatalf("%q is left in %q", x.Name, rest)
			}
		}
		if n := len(left.Header().Fields()); n != others {
			t.Fatalf("%d fields are left, want %d, in %q of %q", n, others, rest, text)
		}
	})
}

func TestSafeStart(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a header", "A: b\r\n\r\nx", "A: b\r\n"},
		{"a line that would continue ours", " evil: b\r\nA: b\r\n\r\nx", "X-Sluice-Stray: evil: b\r\nA: b\r\n"},
		{"text only", "hello there\r\nyou\r\n", "\r\nhello there\r\nyou\r\n"},
		{"no line end", "A: b", "A: b\r\n"},
		{"nothing", "", ""},
		{"a body only", "\r\nbody", ""},
	}
	for _, tt := range tests {
		m, err := mime.Parse(strings.NewReader(tt.text), int64(len(tt.text)), mime.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(safeStart([]byte(tt.text)[:m.Header().Len()], m)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestWord(t *testing.T) {
	for in, want := range map[string]string{
		"mx.example": "mx.example", "[192.0.2.1]": "[192.0.2.1]", "a(b)\r\nc; d": "a?b???c??d", "": "unknown", "ü": "?",
	} {
		if got := word(in); got != want {
			t.Errorf("word(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCutPath(t *testing.T) {
	tests := []struct {
		in, mailbox, params string
		ok                  bool
	}{
		{"<a@b>", "a@b", "", true},
		{"<a@b> SIZE=1", "a@b", " SIZE=1", true},
		{"a@b SIZE=1", "a@b", " SIZE=1", true},
		{"<>", "", "", true},
		{"<> BODY=7BIT", "", " BODY=7BIT", true},
		{"", "", "", false},
		{"<a@b", "", "", false},
		{"a@b>", "", "", false},
		{"<a@b>x", "", "", false},
		{"<a b@c>", "", "", false},
		{`<"a b> \" c"@d> X`, `"a b> \" c"@d`, " X", true},
		{`<"a\>`, "", "", false},
		{`<"a\`, "", "", false},
		{"<@x,@y:a@b>", "a@b", "", true},
		{"<@x>", "", "", false},
	}
	for _, tt := range tests {
		mailbox, params, ok := cutPath(tt.in)
		if ok != tt.ok || ok && (mailbox != tt.mailbox || params != tt.params) {
			t.Errorf("cutPath(%q) = %q, %q, %v", tt.in, mailbox, params, ok)
		}
	}
}

func FuzzCutPath(f *testing.F) {
	for _, s := range []string{"<a@b> SIZE=1", `<"a\"b"@c>`, "<@a:b@c>", "<>", `<"a\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		mailbox, params, ok := cutPath(s)
		if ok && !strings.Contains(s, mailbox) || ok && params != "" && !strings.HasPrefix(strings.TrimLeft(params, "\t"), " ") && params[0] != '\t' {
			t.Fatalf("cutPath(%q) = %q, %q", s, mailbox, params)
		}
	})
}

func TestParseReceived(t *testing.T) {
	client := func(addr, name, tls, login string) pipeline.Client {
		return pipeline.Client{Addr: netip.MustParseAddr(addr), Name: name, TLS: tls, Login: login}
	}
	tests := []struct {
		name, value, greeting string
		client                pipeline.Client
		bad                   bool
	}{
		{name: "Postfix", value: "from mail.example.com (mail.example.com [192.0.2.7])\r\n\tby mx.example.org (Postfix) with ESMTP id 4Wq2Kx1 for <me@example.org>; Sun, 22 Nov 2026 11:59:00 +0000 (UTC)",
			greeting: "mail.example.com", client: client("192.0.2.7", "mail.example.com", "", "")},
		{name: "with TLS", value: "from mail.example.com (mail.example.com [192.0.2.7])\r\n\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\r\n\t key-exchange X25519 server-signature RSA-PSS (2048 bits) server-digest SHA256)\r\n\t(No client certificate requested)\r\n\tby mx.example.org (Postfix) with ESMTPS id 4Wq; x",
			greeting: "mail.example.com", client: client("192.0.2.7", "mail.example.com", "TLSv1.3", "")},
		{name: "IPv6", value: "from mail.example.com (mail.example.com [IPv6:2001:db8::25]) by mx (Postfix) with ESMTP id 1; x",
			greeting: "mail.example.com", client: client("2001:db8::25", "mail.example.com", "", "")},
		{name: "unknown name", value: "from [192.0.2.9] (unknown [192.0.2.9]) by mx (Postfix) with SMTP id 1; x",
			greeting: "[192.0.2.9]", client: client("192.0.2.9", "", "", "")},
		{name: "XCLIENT'd", value: "from evil.example (mx-out.evil.example [198.51.100.66]) by mx.example.org (Postfix) with ESMTP id A1B2C3 for <me@example.org>; x",
			greeting: "evil.example", client: client("198.51.100.66", "mx-out.evil.example", "", "")},
		{name: "logged in", value: "from laptop (dsl.example.net [192.0.2.50]) (using TLSv1.2 with cipher X (128/128 bits)) (Client did not present a certificate) (Authenticated sender: bob) by mx (Postfix) with ESMTPSA id 1; x",
			greeting: "laptop", client: client("192.0.2.50", "dsl.example.net", "TLSv1.2", "bob")},
		{name: "logged in, name kept back", value: "from laptop (dsl.example.net [192.0.2.50]) by mx (Postfix) with ESMTPSA id 1; x",
			greeting: "laptop", client: client("192.0.2.50", "dsl.example.net", "", "(authenticated)")},
		{name: "local injection", value: "from localhost (localhost [127.0.0.1]) by mx (Postfix) with ESMTP id 1; x",
			greeting: "localhost", client: client("127.0.0.1", "localhost", "", "")},
		{name: "ours", value: "from client.example ([192.0.2.7]) by mx.example.org with SMTP id id1 for <me@example.org>; x",
			greeting: "client.example", client: client("192.0.2.7", "", "", "")},
		{name: "Sendmail, perhaps forged", value: "from a.example (b.example [192.0.2.7] (may be forged)) by mx (8.18.1/8.18.1) with ESMTP id 1; x",
			greeting: "a.example", client: client("192.0.2.7", "", "", "")},
		{name: "IPv4 in IPv6", value: "from a (b [IPv6:::ffff:192.0.2.7]) by mx with ESMTP; x", greeting: "a", client: client("192.0.2.7", "b", "", "")},
		{name: "pickup", value: "by mx.example.org (Postfix, from userid 1000) id 4Wq; x", bad: true},
		{name: "address not known", value: "from a (unknown [unknown]) by mx (Postfix) with ESMTP id 1; x", bad: true},
		{name: "Exim", value: "from a.example ([192.0.2.7] helo=evil [127.0.0.1]) by mx with esmtp (Exim 4.96) id 1; x", bad: true},
		{name: "an address as greeting", value: "from x([127.0.0.1]) (b [192.0.2.7]) by mx; x", bad: true},
		{name: "a comment in the name", value: "from a (b (c) [192.0.2.7]) by mx; x", bad: true},
		{name: "no by", value: "from a (b [192.0.2.7])", bad: true},
		{name: "a zone", value: "from a (b [IPv6:fe80::1%eth0]) by mx; x", bad: true},
		{name: "nothing", value: "", bad: true},
		{name: "half", value: "from a (b [192.0.2.7", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, ok := parseReceived(mime.Field{Raw: []byte("Received: " + tt.value)}.Value())
			if ok == tt.bad {
				t.Fatalf("ok = %v, %+v", ok, h)
			}
			if ok && (h.client != tt.client || h.greeting != tt.greeting) {
				t.Errorf("got %+v %q, want %+v %q", h.client, h.greeting, tt.client, tt.greeting)
			}
		})
	}
}

func TestQueueID(t *testing.T) {
	for value, want := range map[string]string{
		"from a (b [192.0.2.7]) by mx (Postfix) with ESMTPS id 4XyZ12 for <me@example.org>; now": "4XyZ12",
		"by mx.example.org (Postfix, from userid 1000) id 4Wq; now":                              "4Wq",
		"from a (id forged) by mx with ESMTP id real; id late":                                   "real",
		"from a by mx with ESMTP id <x>; now":                                                    "",
		"from a by mx with ESMTP; id 5":                                                          "",
		"id":                                                                                     "",
		"":                                                                                       "",
	} {
		if got := queueID(value); got != want {
			t.Errorf("queueID(%q) = %q, want %q", value, got, want)
		}
	}
}

func FuzzReceived(f *testing.F) {
	for _, s := range []string{
		"from mail.example.com (mail.example.com [192.0.2.7]) by mx.example.org (Postfix) with ESMTP id 1; x",
		"from a (unknown [IPv6:2001:db8::1]) (using TLSv1.3 with (x)) (Authenticated sender: b) by c with ESMTPSA; x",
		"from a (b [192.0.2.7] (may be forged)) by c", "from (((((", `from a (\`, "from a () by b", "by x", "from 0[ ([0.0.0.0])BY ",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, ok := parseReceived(s)
		if !ok {
			return
		}
		// Of brackets nothing is said for a greeting: it is the client's word, and Postfix shows it as it was.
		if !h.client.Addr.IsValid() || h.client.Addr.Zone() != "" || h.greeting == "" ||
			strings.ContainsAny(h.greeting, " \t()") || strings.ContainsAny(h.client.Name, " \t()[") {
			t.Fatalf("parseReceived(%q) = %+v", s, h)
		}
		if !strings.Contains(s, "[") {
			t.Fatalf("an address from nowhere: %q", s)
		}
	})
}

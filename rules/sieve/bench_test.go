package sieve_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline/mime"
	"sluice/rules/sieve"
)

// fifty are fifty rules about the header, of which none matches.
func fifty() string {
	var b strings.Builder
	b.WriteString("require [\"fileinto\", \"regex\", \"variables\"];\n")
	for i := range 50 {
		tests := []string{
			`header :contains "subject" "nomatch%d"`, `address :is :domain "from" "nomatch%d.example"`,
			`header :matches "list-id" "*<nomatch%d.*>"`, `header :regex "subject" "^(re|fw): nomatch%d[0-9]+$"`,
			`allof(size :over %dM, exists "x-nomatch")`,
		}
		fmt.Fprintf(&b, "if "+tests[i%5]+" { fileinto \"F%d\"; stop; }\n", i+20, i)
	}
	return b.String() + "keep;\n"
}

// tenKilobytes is a mail as lists send them.
func tenKilobytes() string {
	return "Return-Path: <list-bounces@lists.example>\r\n" + strings.Repeat("Received: from a.example (a.example [192.0.2.1])\r\n\tby b.example (Postfix) with ESMTPS id 4ABC;\r\n\tSun, 22 Nov 2026 10:00:00 +0000 (UTC)\r\n", 4) +
		"DKIM-Signature: v=1; a=rsa-sha256; d=lists.example; s=s; h=from:to:subject; bh=" + strings.Repeat("x", 44) + "; b=" + strings.Repeat("y", 300) + "\r\n" +
		"From: =?utf-8?q?J=C3=BCrgen_M=C3=BCller?= <juergen@lists.example>\r\nTo: discuss@lists.example\r\nSubject: Re: [discuss] =?utf-8?b?w5xiZXIgZGllIFBsw6RuZQ==?= for next week\r\n" +
		"List-Id: Discussions <discuss.lists.example>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@lists.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" +
		strings.Repeat("This is a line of text as people write them to lists, again and again.\r\n", 120)
}

// What fifty rules add to a mail: the script is compiled, the mail parsed already. The target is 150 µs.
func BenchmarkFiftyRules(b *testing.B) {
	script, problems := sieve.Compile("fifty.sieve", []byte(fifty()), sieve.Options{})
	if script == nil {
		b.Fatal(problems)
	}
	text := tenKilobytes()
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if out := script.Run(b.Context(), sieve.Input{Message: m}); out.Failure != nil || len(out.Actions) != 1 {
			b.Fatal(out)
		}
	}
}

func BenchmarkCompileFiftyRules(b *testing.B) {
	text := []byte(fifty())
	b.ReportAllocs()
	for b.Loop() {
		if script, problems := sieve.Compile("fifty.sieve", text, sieve.Options{}); script == nil {
			b.Fatal(problems)
		}
	}
}

package imap

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"sluice/mailstore"
	"sluice/protocols/listen"
)

// These tests stand for the traps of the library: each would fail on go-imap's server without its guard.

func TestBrokenMultipartsHaveAStructure(t *testing.T) {
	tests := []struct{ name, mail, want string }{
		{
			"no boundary", "Content-Type: multipart/mixed\r\n\r\nhello\r\n",
			`(("text" "plain" NIL NIL NIL "7bit" 7 1) "mixed")`,
		},
		{
			"boundary that never comes", "Content-Type: multipart/mixed; boundary=x\r\n\r\nhello\r\n",
			`(("text" "plain" NIL NIL NIL "7bit" 7 1) "mixed")`,
		},
		{
			"no parts", "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x--\r\n",
			`(("text" "plain" NIL NIL NIL "7bit" 7 1) "mixed")`,
		},
		{
			"empty boundary", "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n",
			`(("text" "plain" NIL NIL NIL "7bit" 4 1) "mixed")`,
		},
		{
			"no end", "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\na\r\nb\r\n--x\r\nContent-Type: image/png\r\n\r\nc\r\n",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 1)("image" "png" NIL NIL NIL "7bit" 3) "mixed")`,
		},
		{
			"a part without an empty line", "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: multipart/alternative\r\n--x--\r\n",
			`((("text" "plain" NIL NIL NIL "7bit" 0 0) "alternative") "mixed")`,
		},
		{
			"a message in it without an end", "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n--x--\r\n",
			`(("message" "rfc822" NIL NIL NIL "7bit" 11 (NIL "in" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) 0) "mixed")`,
		},
		{
			"digest", "Content-Type: multipart/digest; boundary=x\r\n\r\n--x\r\n\r\nSubject: in\r\n\r\nhi\r\n--x--\r\n",
			`(("message" "rfc822" NIL NIL NIL "7bit" 17 (NIL "in" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 2 0) 2) "digest")`,
		},
		{
			"no content type worth the name", "Content-Type: junk; =;;\"\r\n\r\nx\r\n",
			`("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 1)`,
		},
		{
			"header alone", "Content-Type: multipart/mixed; boundary=x",
			`(("text" "plain" NIL NIL NIL "7bit" 0 0) "mixed")`,
		},
		{"nothing", "", `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0)`},
	}
	s := start(t, options{})
	p := s.login()
	for i, tt := range tests {
		s.deliver("", tt.mail)
		p.talk(fmt.Sprintf(`
			C: s SELECT INBOX
			S- s OK …
			C: a FETCH %[1]d BODY
			S: * %[1]d FETCH (BODY %[2]s)
			S: a OK FETCH completed
			C: b FETCH %[1]d BODYSTRUCTURE
			S: * %[1]d FETCH (BODYSTRUCTURE …)
			S: b OK FETCH completed`, i+1, tt.want))
		if t.Failed() {
			t.Fatal(tt.name)
		}
	}
}

func TestRefusedLiteralsNeverBecomeCommands(t *testing.T) {
	s := start(t, options{})
	s.deliver("", letter("one"))
	p := s.login()
	p.talk(`
		C: c CREATE Precious
		S: c OK …
		C: s SELECT INBOX
		S- s OK …`)
	evil := "x DELETE Precious\r\n"
	big := strings.Repeat(evil, 300) // over the 4096 octets that the library takes
	for _, command := range []string{"SEARCH TEXT", "SEARCH BOGUS", "LIST \"\"", "SELECT", "STORE 1 FLAGS", "XYZZY", "APPEND", "LOGIN", "ID"} {
		for _, literal := range []string{big, evil, evil[:5] + "\x00" + evil} {
			p.send(fmt.Sprintf("a %s {%d+}\r\n%s\r\nb NOOP\r\n", command, len(literal), literal))
			for line := p.line(); !strings.HasPrefix(line, "b "); line = p.line() {
				if strings.HasPrefix(line, "x ") {
					t.Fatalf("%s: a literal was run: %q", command, line)
				}
			}
		}
	}
	// A refused literal of an APPEND, and what MULTIAPPEND would have.
	p.send(fmt.Sprintf("a APPEND Nowhere {%d+}\r\n%s\r\nb NOOP\r\n", len(big), big))
	p.talk("S: a NO [TRYCREATE] …\nS: b OK …")
	p.send(fmt.Sprintf("a APPEND INBOX {5+}\r\nA: b\n {%d+}\r\n%s\r\nb NOOP\r\n", len(evil), evil))
	p.talk("S: * BYE one message at a time\nX:")
	if n := len(s.messages("INBOX")); n != 1 {
		t.Errorf("%d messages in the inbox", n)
	}
	p = s.login()
	p.send("a APPEND INBOX {5+}\r\nA: b\n junk\r\nb NOOP\r\n")
	p.talk("S: a BAD one message at a time\nS: b OK …")
	p.talk("C: a LIST \"\" Precious\nS: * LIST …\nS: a OK …")
	if n := len(s.messages("INBOX")); n != 1 {
		t.Errorf("an APPEND that was refused has left %d messages", n)
	}

	// What can not be told apart ends the connection.
	for _, ambiguous := range []string{
		"a SEARCH TEXT \"{18+}\r\n" + evil, "a SEARCH TEXT \x01{18+}\r\n" + evil, "a SELECT a{18+}\r\n" + evil,
		"a SELECT {99999999999999999999+}\r\n" + evil, "a SELECT {2000000+}\r\n" + evil,
	} {
		p := s.login()
		p.send(ambiguous)
		p.talk("S: * BYE …\nX:")
	}
}

func TestSynchronisingLiteralsGetAnAnswer(t *testing.T) {
	p := start(t, options{}).login()
	p.talk(`
		C: a SELECT {5000}
		S: a NO [TOOBIG] a string is at most 4096 octets long here
		C: a APPEND {5000}
		S: a NO [TOOBIG] a string is at most 4096 octets long here
		C: b SELECT {4096}
		S: + go ahead`)
	p.send(strings.Repeat("x", 4096) + "\r\n")
	p.talk("S: b NO …")
	many := limits(t).Literals
	p.send("c LIST \"\" (")
	for range many {
		p.send("{1+}\r\nx ")
	}
	p.send("{1}\r\n")
	p.talk("S: c BAD too many literals; at most 32\nC: d NOOP\nS: d OK …")
}

func limits(t *testing.T) Limits {
	t.Helper()
	return Limits{}.withDefaults()
}

func TestLimitsBeforeLogin(t *testing.T) {
	s := start(t, options{limits: Limits{LoginOctets: 8000, LoginTime: 20 * time.Second}})
	tests := []struct{ name, send, want string }{
		{"line", "a LOGIN " + strings.Repeat("x", 3000) + "\r\n", "S: a BAD the command line is too long; at most 2048 octets"},
		{"endless line", strings.Repeat("x", 9000), "S: * BYE the command line is far too long\nX:"},
		{"literal", "a LOGIN {513}\r\n", "S: a NO [TOOBIG] …"},
		{"literal that is sent anyhow", "a LOGIN {513+}\r\n", "S: * BYE …\nX:"},
		{"number of literals", "a LOGIN {1+}\r\na {1+}\r\nb {1}\r\n", "S: a BAD too many literals; at most 2"},
		{"append", "a APPEND INBOX {9}\r\n", "S: + go ahead"},
		{"bad commands", strings.Repeat("GET / HTTP/1.1\r\n", 10), strings.Repeat("S: GET BAD a command is missing\n", 10) + "S: * BYE too many bad commands\nX:"},
		{"octets", strings.Repeat("a NOOP "+strings.Repeat(" ", 2000)+"\r\n", 4), "S- * BYE too much before login\nX:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := s.dial()
			p.t = t
			p.talk("S: * OK …")
			p.send(tt.send)
			p.talk(tt.want)
		})
	}
	s = start(t, options{limits: Limits{LoginTime: 50 * time.Millisecond}})
	s.dial().talk("S: * OK …\nS: * BYE you have been silent for too long\nX:")
}

func TestSilenceEndsTheConnection(t *testing.T) {
	s := start(t, options{limits: Limits{Idle: 50 * time.Millisecond}})
	s.login().talk("S: * BYE you have been silent for too long\nX:")
	p := start(t, options{limits: Limits{Idle: time.Second}}).dial()
	p.send("a LOGIN me \"open sesame\"\r\nb IDLE\r\n")
	p.talk("S: * OK …\nS: a OK …\nS: + idling\nS: * BYE you have been silent for too long\nX:")
}

func TestCommandLineLimit(t *testing.T) {
	p := start(t, options{}).login()
	p.send("a LIST \"\" " + strings.Repeat("x", 20000) + "\r\n")
	p.talk("S: a BAD the command line is too long; at most 16384 octets\nC: b NOOP\nS: b OK …")
	p.send("a LIST \"\" " + strings.Repeat("x", 20000) + "{4}\r\n")
	p.talk("S: a BAD …\nC: b NOOP\nS: b OK …")
	// Literals count together: the library reads no more than 50 KiB of a command.
	p.send("a LIST \"\" (")
	for range 30 {
		p.send("{3000+}\r\n" + strings.Repeat("\\", 3000) + " ")
	}
	p.send(")\r\n")
	p.talk("S: a BAD the command is too long; at most 49152 octets\nC: b NOOP\nS: b OK …")
	p.send(strings.Repeat("x", maxSwallow+100_000))
	p.talk("S: * BYE the command line is far too long\nX:")
}

func TestUpdatesBeforeIdleComeAtOnce(t *testing.T) {
	s := start(t, options{})
	s.deliver("", letter("one"), letter("two"))
	p := s.login()
	p.talk("C: s SELECT INBOX\nS- s OK …")
	f := s.folder("INBOX")
	if err := f.Remove(context.Background(), []uint32{1}); err != nil {
		t.Fatal(err)
	}
	s.deliver("", letter("three"))
	p.talk(`
		C: i IDLE
		S: + idling
		S: * 1 EXPUNGE
		S: * 2 EXISTS
		S: * … RECENT`)
	s.deliver("", letter("four"))
	p.talk("S: * 3 EXISTS\nS: * … RECENT")
	if _, err := f.SetFlags(context.Background(), []uint32{2}, mailstore.FlagsAdd, []string{`\Flagged`}); err != nil {
		t.Fatal(err)
	}
	p.talk(`
		S: * 1 FETCH (UID 2 FLAGS (\Flagged…))
		C: done
		S: i OK IDLE completed
		C: n NOOP
		S: n OK NOOP completed
		C: i IDLE
		S: + idling
		C: x NOOP
		S: * BYE DONE was to be expected
		X:`)
}

func TestIdleWithoutMailbox(t *testing.T) {
	start(t, options{}).login().talk("C: i IDLE\nS: + idling\nC: DONE\nS: i OK IDLE completed")
}

func TestExaminedMailboxesAreReadOnly(t *testing.T) {
	s := start(t, options{})
	s.deliver("", letter("one"), letter("two"))
	f := s.folder("INBOX")
	if _, err := f.Messages(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.SetFlags(context.Background(), []uint32{1}, mailstore.FlagsAdd, []string{`\Deleted`}); err != nil {
		t.Fatal(err)
	}
	s.login().talk(`
		C: a CREATE Other
		S: a OK …
		C: a EXAMINE INBOX
		S: * 2 EXISTS
		S: * … RECENT
		S: * OK [UNSEEN 1] …
		S: * OK [UIDVALIDITY …] …
		S: * OK [UIDNEXT 3] …
		S: * FLAGS (…)
		S: * OK [PERMANENTFLAGS ()] …
		S: a OK [READ-ONLY] EXAMINE completed
		C: a STORE 2 +FLAGS (\Deleted)
		S: a NO the mailbox is selected read-only
		C: a UID STORE 2 +FLAGS.SILENT (\Seen)
		S: a NO the mailbox is selected read-only
		C: a MOVE 2 Other
		S: a NO the mailbox is selected read-only
		C: a EXPUNGE
		S: a NO the mailbox is selected read-only
		C: a UID EXPUNGE 1
		S: a NO the mailbox is selected read-only
		C: a FETCH 2 BODY[TEXT]
		S: * 2 FETCH (BODY[TEXT] {18}
		S: The text of two.
		S: )
		S: a OK FETCH completed
		C: a COPY 2 Other
		S: a OK [COPYUID …] COPY completed
		C: a CLOSE
		S: a OK CLOSE completed`)
	left := s.messages("INBOX")
	if len(left) != 2 || hasFlag(left[1].Flags, `\Seen`) || hasFlag(left[1].Flags, `\Deleted`) {
		t.Errorf("the mailbox has been changed: %+v", left)
	}
}

func TestPartialRangesDoNotOverflow(t *testing.T) {
	s := start(t, options{})
	s.deliver("", letter("one"))
	s.login().talk(`
		C: s SELECT INBOX
		S- s OK …
		C: a FETCH 1 BODY.PEEK[TEXT]<5.9223372036854775807>
		S: * 1 FETCH (BODY[TEXT]<5> {13}
		S: ext of one.
		S: )
		S: a OK FETCH completed
		C: a FETCH 1 BODY.PEEK[TEXT]<9223372036854775807.9223372036854775807>
		S: a BAD no message has 9223372036854775807 octets
		C: a FETCH 1 BODY.PEEK[TEXT]<5.99999999999999999999>
		S: a BAD …
		C: a FETCH 1 BODY.PEEK[TEXT]<4294967295.1>
		S: * 1 FETCH (BODY[TEXT]<4294967295> {0}
		S: )
		S: a OK FETCH completed
		C: a FETCH 1 BODY.PEEK[]<0.0>
		S: * 1 FETCH (BODY[]<0> {0}
		S: )
		S: a OK FETCH completed`)
}

// The library takes a part number that overflows for none, and the message for what was asked.
func TestPartNumbersDoNotOverflow(t *testing.T) {
	s := start(t, options{})
	s.deliver("", letter("one"))
	s.login().talk(`
		C: s SELECT INBOX
		S- s OK …
		C: a FETCH 1 BODY.PEEK[99999999999]
		S: a BAD 99999999999 is not the number of a part
		C: a FETCH 1 (UID BODY[99999999999TEXT])
		S: a BAD 99999999999 is not the number of a part
		C: a UID FETCH 1 BODY.PEEK[1.4294967296.MIME]
		S: a BAD 4294967296 is not the number of a part
		C: a FETCH 1 BODY.PEEK[1.1TEXT]
		S: a BAD 1 is not the number of a part
		C: a FETCH 1 (BODY.PEEK[1] body.peek[0])
		S: a BAD 0 is not the number of a part
		C: a FETCH 1 BODY.PEEK[12345678901234567890123456789012345678901234567890]
		S: a BAD 123456789012345678901234 is not the number of a part
		C: a FETCH 1 BODY.PEEK[4294967295]
		S: * 1 FETCH (BODY[4294967295] {0}
		S: )
		S: a OK FETCH completed
		C: a FETCH 1 BODY.PEEK[HEADER.FIELDS ("\"[0" SUBJECT)]
		S: * 1 FETCH (BODY[HEADER.FIELDS ("\"[0" "SUBJECT")] {16}
		S: Subject: one
		S:
		S: )
		S: a OK FETCH completed`)
}

func TestHugeSetsAreNotCountedOut(t *testing.T) {
	s := start(t, options{})
	s.deliver("", letter("one"), letter("two"))
	begun := time.Now()
	s.login().talk(`
		C: s SELECT INBOX
		S- s OK …
		C: a UID FETCH 1:4294967295 UID
		S: * 1 FETCH (UID 1)
		S: * 2 FETCH (UID 2)
		S: a OK UID FETCH completed
		C: a UID FETCH 4294967295:1,1:*,*,2:4294967290 UID
		S: * 1 FETCH (UID 1)
		S: * 2 FETCH (UID 2)
		S: a OK UID FETCH completed
		C: a UID SEARCH UID 1:4294967295
		S: * SEARCH 1 2
		S: a OK UID SEARCH completed
		C: a UID STORE 1:4294967295 +FLAGS.SILENT (\Deleted)
		S: a OK UID STORE completed
		C: a UID EXPUNGE 2:4294967295
		S: * 2 EXPUNGE
		S: a OK UID EXPUNGE completed`)
	if d := time.Since(begun); d > 30*time.Second {
		t.Errorf("that took %v", d)
	}
}

// nested returns a message of n multiparts, each in the one before.
func nested(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	return b.String() + "Content-Type: text/plain\r\n\r\ndeep\r\n"
}

func TestDeepNestingIsCheap(t *testing.T) {
	s := start(t, options{})
	s.deliver("", nested(10_000), strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 10_000),
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n"+strings.Repeat("--x\r\n\r\n", 100_000))
	begun := time.Now()
	p := s.login()
	p.talk("C: s SELECT INBOX\nS- s OK …\nC: a FETCH 1:3 (BODYSTRUCTURE BODY.PEEK[1.1.1.MIME])\nS- a OK FETCH completed")
	if d := time.Since(begun); d > 30*time.Second {
		t.Errorf("that took %v", d)
	}
	for _, tt := range []struct {
		mail string
		want int
	}{{nested(10), 10}, {nested(32), 31}, {nested(1000), 31}} {
		root, err := parseStructure(strings.NewReader(tt.mail), int64(len(tt.mail)), limits(t))
		if err != nil {
			t.Fatal(err)
		}
		depth := 0
		for p := root; len(p.parts) > 0; p = p.parts[0] {
			depth++
		}
		if depth != tt.want {
			t.Errorf("depth %d, want %d", depth, tt.want)
		}
	}
	many := "Content-Type: multipart/mixed; boundary=x\r\n\r\n" + strings.Repeat("--x\r\n\r\n", 5000)
	root, err := parseStructure(strings.NewReader(many), int64(len(many)), limits(t))
	if err != nil || len(root.parts) != 999 {
		t.Errorf("%d parts, %v", len(root.parts), err)
	}
}

func TestSearchNestingIsBounded(t *testing.T) {
	s := start(t, options{})
	s.deliver("", letter("one"))
	p := s.login()
	p.talk("C: s SELECT INBOX\nS- s OK …")
	for _, key := range []string{"%sALL%s", "%sALL"} {
		for n, want := range map[int]string{100: "S: * SEARCH 1\nS: a OK …", 101: "S: a BAD too many parentheses, NOT and OR; at most 100"} {
			var search string
			if strings.Contains(key, "%sALL%s") {
				search = fmt.Sprintf(key, strings.Repeat("(", n), strings.Repeat(")", n))
			} else {
				search = fmt.Sprintf(key, strings.Repeat("NOT ", n))
			}
			p.talk("C: a SEARCH " + search + "\n" + want)
		}
	}
	// Words are no keys.
	p.talk("C: a SEARCH SUBJECT \"" + strings.Repeat("NOT ( ", 200) + "\"\nS: * SEARCH\nS: a OK …")
}

// The library's own matching of LIST patterns takes exponential time.
func TestListPatternsAreCheap(t *testing.T) {
	s := start(t, options{})
	p := s.login()
	p.talk("C: c CREATE " + strings.Repeat("a", 100) + "\nS: c OK …")
	begun := time.Now()
	p.talk("C: a LIST \"\" " + strings.Repeat("*a%a", 50) + "b\nS: a OK LIST completed")
	p.talk("C: a LIST \"\" " + strings.Repeat("*a", 1025) + "\nS: a BAD the patterns are too long; at most 2048 octets together")
	if d := time.Since(begun); d > 30*time.Second {
		t.Errorf("that took %v", d)
	}
}

func TestOddAddressesCostNoOthers(t *testing.T) {
	tests := []struct {
		field string
		want  string
	}{
		{"a@b.c", "(.a.b.c)"},
		{"Ann <a@b.c>, <<<odd, , @, x y z, \"Q \\\"q\\\" Q\" <q@q.q>", "(Ann.a.b.c)(.odd.MISSING_DOMAIN)(.x y z.MISSING_DOMAIN)(Q \"q\" Q.q.q.q)"},
		{"Friends: a@b.c, Bob <b@b.c>;, d@d.d", "(.Friends.)(.a.b.c)(Bob.b.b.c)(..)(.d.d.d)"},
		{"undisclosed-recipients:;", "(.undisclosed-recipients.)(..)"},
		{"a@b.c (Ann (the one))", "(Ann (the one).a.b.c)"},
		{"<@x.y,@z:a@b.c>", "(.a.b.c)"},
		{"=?utf-8?q?J=C3=BCrgen?= <j@b.c>", "(=?utf-8?q?J=C3=BCrgen?=.j.b.c)"},
		{"\"a, b\" <c@d.e>, \"unterminated <x@y.z>", "(a, b.c.d.e)(.unterminated <x.y.z>)"},
		{"\"quoted local\"@b.c", "(.quoted local.b.c)"},
		{"postmaster", "(.postmaster.MISSING_DOMAIN)"},
		{"", ""},
		{",;:", "(.group.)(..)"},
	}
	for _, tt := range tests {
		var got strings.Builder
		for _, a := range parseAddresses(tt.field) {
			if a.Host == "" {
				fmt.Fprintf(&got, "(%s.%s.)", a.Name, a.Mailbox)
				continue
			}
			fmt.Fprintf(&got, "(%s.%s.%s)", a.Name, a.Mailbox, a.Host)
		}
		if got.String() != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.field, got.String(), tt.want)
		}
	}
}

// The library calls every octet UTF-8 that is not ASCII.
func TestEnvelopeOfUndeclaredCharsets(t *testing.T) {
	s := start(t, options{})
	s.deliver("",
		"From: J\xfcrgen <j@b.c>\r\nSubject: Gr\xfc\xdfe \x80\r\n\r\n",
		"From: Jürgen <j@b.c>\r\nSubject: Grüße\r\n\r\n",
		"From: \"J\xfcrgen =?iso-8859-2?q?=B1?=\" <j@b.c>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= \xe0\r\n\r\n",
		"From: =?iso-8859-1?q?J=FCrgen?= <j@b.c>\r\nSubject: =?iso-8859-1?q?Gr=FC=DFe?=\r\n\r\n",
	)
	from := func(name string) string {
		a := `(("` + name + `" NIL "j" "b.c"))`
		return a + " " + a + " " + a
	}
	s.login().talk(`
		C: s SELECT INBOX
		S- s OK …
		C: a FETCH 1:* ENVELOPE
		S: * 1 FETCH (ENVELOPE (NIL "=?utf-8?q?Gr=C3=BC=C3=9Fe_=E2=82=AC?=" ` + from("=?utf-8?q?J=C3=BCrgen?=") + ` NIL NIL NIL NIL NIL))
		S: * 2 FETCH (ENVELOPE (NIL "=?utf-8?q?Gr=C3=BC=C3=9Fe?=" ` + from("=?utf-8?q?J=C3=BCrgen?=") + ` NIL NIL NIL NIL NIL))
		S: * 3 FETCH (ENVELOPE (NIL "=?utf-8?q?Gr=C3=BC=C3=9Fe_=C3=A0?=" ` + from("=?utf-8?q?J=C3=BCrgen_=C4=85?=") + ` NIL NIL NIL NIL NIL))
		S: * 4 FETCH (ENVELOPE (NIL "=?iso-8859-1?q?Gr=FC=DFe?=" ` + from("=?iso-8859-1?q?J=FCrgen?=") + ` NIL NIL NIL NIL NIL))
		S: a OK FETCH completed`)
}

func TestStartTLS(t *testing.T) {
	s := start(t, options{})
	trust := &tls.Config{InsecureSkipVerify: true}

	p := s.dial()
	p.talk("S: * OK …\nC: a STARTTLS\nS: a OK begin TLS now")
	c := tls.Client(p.conn, trust)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	p = &peer{t: t, conn: c, br: bufio.NewReader(c)}
	p.talk(`
		C: a CAPABILITY
		S: * CAPABILITY IMAP4rev1 SASL-IR LITERAL- AUTH=PLAIN
		S: a OK …
		C: a STARTTLS
		S: a BAD STARTTLS is not available
		C: a LOGIN me "open sesame"
		S: a OK …
		C: a SELECT INBOX
		S- a OK …`)

	// What came before the handshake never counts.
	p = s.dial()
	p.talk("S: * OK …")
	p.send("a STARTTLS\r\nb LOGIN me \"open sesame\"\r\n")
	p.talk("S: a OK begin TLS now\nX:")

	// A handshake that does not come ends the connection.
	p = start(t, options{conn: listen.Limits{HandshakeTimeout: 100 * time.Millisecond}}).dial()
	p.talk("S: * OK …\nC: a STARTTLS\nS: a OK begin TLS now\nX:")
}

// notLoopback returns an address of this machine that is not loopback.
func notLoopback(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr().String()
		}
	}
	t.Skip("this machine has loopback alone")
	return ""
}

func TestPasswordsOverCleartext(t *testing.T) {
	address := notLoopback(t) + ":0"
	s := start(t, options{listen: listen.Config{Address: address}})
	s.dial().talk(`
		S: * OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL- STARTTLS LOGINDISABLED] mx.test ready
		C: a LOGIN me "open sesame"
		S: a NO [PRIVACYREQUIRED] begin TLS first
		C: a AUTHENTICATE PLAIN ` + plain("", me, password) + `
		S: a NO [PRIVACYREQUIRED] begin TLS first`)
	if s.people.asked != 0 {
		t.Error("a password was looked at")
	}
	p := s.dial()
	p.talk("S: * OK …\nC: a STARTTLS\nS: a OK begin TLS now")
	c := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	p = &peer{t: t, conn: c, br: bufio.NewReader(c)}
	p.talk("C: a LOGIN me \"open sesame\"\nS: a OK …")

	s = start(t, options{listen: listen.Config{Address: address}, trusted: func(netip.Addr) bool { return true }})
	s.dial().talk("S: * OK … AUTH=PLAIN] …\nC: a LOGIN me \"open sesame\"\nS: a OK …")
}

func TestShutdown(t *testing.T) {
	s := start(t, options{})
	s.deliver("", letter("one"))
	fresh, idle, idling, busy := s.dial(), s.login(), s.login(), s.login()
	fresh.talk("S: * OK …")
	idling.talk("C: s SELECT INBOX\nS- s OK …\nC: i IDLE\nS: + idling")
	busy.talk("C: a APPEND INBOX {5}\nS: + go ahead")
	down := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		down <- s.server.Shutdown(ctx)
	}()
	for _, p := range []*peer{fresh, idle, idling} {
		p.talk("S: * BYE the server is shutting down\nX:")
	}
	busy.talk("C: A: b\nS: a OK [APPENDUID …] APPEND completed\nS: * BYE the server is shutting down\nX:")
	if err := <-down; err != nil {
		t.Error(err)
	}
	if n := len(s.messages("INBOX")); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	s := start(t, options{})
	p := s.login()
	p.talk("C: a APPEND INBOX {5}\nS: + go ahead")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	p.talk("S: * BYE the server is shutting down\nX:")
	if n := len(s.messages("INBOX")); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestAccountsCountFromTheNextCommand(t *testing.T) {
	s := start(t, options{})
	p := s.dial()
	p.talk("S: * OK …\nC: a LOGIN new@localhost secret\nS: a NO [AUTHENTICATIONFAILED] …")
	s.people.set("new@localhost", "secret")
	p.talk("C: a LOGIN new@localhost secret\nS: a OK …")
	s.people.fail(errors.New("the disk is on fire"))
	s.dial().talk("S: * OK …\nC: a LOGIN me \"open sesame\"\nS: a NO [UNAVAILABLE] logins are not possible now, try again later")
}

func TestQuotaAndSizeOfAppends(t *testing.T) {
	s := start(t, options{limits: Limits{MessageSize: 10_000}, quota: 6000})
	p := s.login()
	body := strings.Repeat("x", 4000)
	p.send("a APPEND INBOX {4000+}\r\n" + body + "\r\n")
	p.talk("S: a OK [APPENDUID …] …")
	p.send("a APPEND INBOX {4000+}\r\n" + body + "\r\n")
	p.talk("S: a NO [OVERQUOTA] over quota")
	p.talk("C: a APPEND INBOX {10001}\nS: a NO [TOOBIG] a message is at most 10000 octets long")
	p.send("a APPEND INBOX {12000+}\r\n" + strings.Repeat("x DELETE INBOX\r\n", 750) + "\r\n")
	p.talk("S: a NO [TOOBIG] a message is at most 10000 octets long\nC: b NOOP\nS: b OK …")
	p.send("a APPEND INBOX {20001+}\r\n")
	p.talk("S: * BYE a message is at most 10000 octets long\nX:")
	if n := len(s.messages("INBOX")); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func TestAppendCutOffLeavesNothing(t *testing.T) {
	s := start(t, options{})
	p := s.login()
	p.send("a APPEND INBOX {4000+}\r\nSubject: x\r\n")
	_ = p.conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(s.messages("INBOX")); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// trapped is a store whose folders do as told.
type trapped struct {
	mailstore.Store
	content func(uid uint32) error
	short   bool
}

type trappedAccount struct {
	mailstore.Account
	s *trapped
}

type trappedFolder struct {
	mailstore.Folder
	s *trapped
}

func (s *trapped) Account(ctx context.Context, name string) (mailstore.Account, error) {
	a, err := s.Store.Account(ctx, name)
	if err != nil {
		return nil, err
	}
	return trappedAccount{a, s}, nil
}

func (a trappedAccount) Open(ctx context.Context, name string) (mailstore.Folder, error) {
	f, err := a.Account.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return trappedFolder{f, a.s}, nil
}

func (f trappedFolder) Content(ctx context.Context, uid uint32) (mailstore.Content, error) {
	if err := f.s.content(uid); err != nil {
		return nil, err
	}
	c, err := f.Folder.Content(ctx, uid)
	if err == nil && f.s.short {
		c = &shortContent{Content: c}
	}
	return c, err
}

// shortContent is a message whose end can not be read.
type shortContent struct{ mailstore.Content }

func (c *shortContent) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) >= c.Size() && off > 0 {
		return 0, errors.New("the disk is on fire")
	}
	return c.Content.ReadAt(p, off)
}

// A message that can not be sent to its end ends the connection: the client waits for so many octets.
func TestMessageThatCanNotBeSent(t *testing.T) {
	var store *trapped
	s := start(t, options{store: func(st mailstore.Store) mailstore.Store {
		store = &trapped{Store: st, content: func(uint32) error { return nil }}
		return store
	}})
	s.deliver("", letter("one")+strings.Repeat("x\r\n", 100_000))
	store.short = true
	p := s.login()
	p.talk("C: s SELECT INBOX\nS- s OK …\nC: a FETCH 1 BODY.PEEK[]\nS: * 1 FETCH …")
	rest, err := io.ReadAll(p.br)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(rest), "a OK") || len(rest) > 310_000 {
		t.Errorf("%d octets came, with an answer", len(rest))
	}
}

func TestSelectedMailboxIsDeletedOrRenamedByItsOwnClient(t *testing.T) {
	s := start(t, options{})
	s.deliver("Gone/below", letter("one"))
	s.login().talk(`
		C: s SELECT Gone/below
		S- s OK …
		C: r RENAME Gone Away
		S: r OK …
		C: f FETCH 1 UID
		S: * 1 FETCH (UID 1)
		S: f OK …
		C: s SELECT Away/below
		S- s OK …
		C: d DELETE Away/below
		S: d OK …
		C: f FETCH 1 FLAGS
		S: f BAD no mailbox is selected
		C: c CLOSE
		S: c OK …
		C: n NOOP
		S: n OK …`)
}

func TestPanicIsAnAnswer(t *testing.T) {
	s := start(t, options{store: func(st mailstore.Store) mailstore.Store {
		return &trapped{Store: st, content: func(uint32) error { panic("nobody thought of this") }}
	}})
	s.deliver("", letter("one"))
	s.login().talk(`
		C: s SELECT INBOX
		S- s OK …
		C: a FETCH 1 ENVELOPE
		S: a NO [SERVERBUG] internal error
		C: a FETCH 1 FLAGS
		S: * 1 FETCH (FLAGS (…))
		S: a OK FETCH completed`)
	if !strings.Contains(s.log.String(), "nobody thought of this") {
		t.Error("the log says nothing")
	}
}

func TestMessagesThatVanishOrFail(t *testing.T) {
	failure := mailstore.ErrNoMessage
	s := start(t, options{store: func(st mailstore.Store) mailstore.Store {
		return &trapped{Store: st, content: func(uid uint32) error {
			if uid == 2 {
				return failure
			}
			return nil
		}}
	}})
	s.deliver("", letter("one"), letter("two"), letter("three"))
	p := s.login()
	p.talk(`
		C: s SELECT INBOX
		S- s OK …
		C: a FETCH 1:3 BODY.PEEK[HEADER.FIELDS (X)]
		S: * 1 FETCH (BODY[HEADER.FIELDS ("X")] {2}
		S: 
		S: )
		S: * 3 FETCH (BODY[HEADER.FIELDS ("X")] {2}
		S: 
		S: )
		S: a NO [EXPUNGEISSUED] some of the messages are gone
		C: a SEARCH TEXT "text"
		S: * SEARCH 1 3
		S: a OK …`)
	failure = errors.New("the disk is on fire")
	p.talk(`
		C: a FETCH 2 BODY.PEEK[]
		S: a NO [UNAVAILABLE] this failed, try again later
		C: a SEARCH TEXT "text"
		S: a NO [UNAVAILABLE] this failed, try again later`)
}

// Two clients at once, through the library's own client, which complains about anything that is not IMAP.
func TestClientSeesWhatOthersDo(t *testing.T) {
	s := start(t, options{})
	s.deliver("", letter("one"), letter("two"), letter("three"))
	dial := func(o *imapclient.Options) *imapclient.Client {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		c := imapclient.New(conn, o)
		t.Cleanup(func() { _ = c.Close() })
		if err := c.Login("me", password).Wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	expunged := make(chan uint32, 10)
	exists := make(chan uint32, 10)
	flagged := make(chan []imap.Flag, 10)
	watcher := dial(&imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Expunge: func(n uint32) { expunged <- n },
		Mailbox: func(d *imapclient.UnilateralDataMailbox) {
			if d.NumMessages != nil {
				exists <- *d.NumMessages
			}
		},
		Fetch: func(m *imapclient.FetchMessageData) {
			b, err := m.Collect()
			if err == nil {
				flagged <- b.Flags
			}
		},
	}})
	idle, err := watcher.Idle()
	if err != nil {
		t.Fatal(err)
	}
	worker := dial(nil)
	if err := worker.Store(imap.SeqSetNum(3), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if f := receive(t, flagged); len(f) == 0 || f[0] != imap.FlagFlagged {
		t.Errorf("flags %v", f)
	}
	if err := worker.Create("Other", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	moved, err := worker.Move(imap.SeqSetNum(1, 2), "Other").Wait()
	if err != nil {
		t.Fatal(err)
	}
	if moved.SourceUIDs.String() != "1:2" {
		t.Errorf("moved %v", moved)
	}
	if a, b := receive(t, expunged), receive(t, expunged); a != 1 || b != 1 {
		t.Errorf("expunged %d, %d", a, b)
	}
	appended := worker.Append("INBOX", int64(len(letter("four"))), nil)
	if _, err := io.WriteString(appended, letter("four")); err != nil {
		t.Fatal(err)
	}
	if err := appended.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := appended.Wait()
	if err != nil || data.UID != 4 {
		t.Errorf("append: %+v, %v", data, err)
	}
	if n := receive(t, exists); n != 2 {
		t.Errorf("exists %d", n)
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if err := idle.Wait(); err != nil {
		t.Fatal(err)
	}
	messages, err := watcher.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{
		Envelope: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true}, UID: true,
		BodySection: []*imap.FetchItemBodySection{{Peek: true}},
	}).Collect()
	if err != nil || len(messages) != 2 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	if m := messages[1]; m.Envelope.Subject != "four" || m.UID != 4 || !bytes.Equal(m.BodySection[0].Bytes, []byte(letter("four"))) {
		t.Errorf("%+v", m)
	}
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case x := <-c:
		return x
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func TestSelectedMailboxIsDeleted(t *testing.T) {
	s := start(t, options{})
	s.deliver("Gone", letter("one"))
	p, q := s.login(), s.login()
	p.talk("C: s SELECT Gone\nS- s OK …")
	q.talk("C: d DELETE Gone\nS: d OK …")
	p.talk("C: n NOOP\nS: * BYE the selected mailbox has been deleted or replaced\nX:")
}

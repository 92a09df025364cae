package sieve_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/rules/sieve"
)

// compile compiles a script that is right.
func compile(t testing.TB, script string, o sieve.Options) *sieve.Script {
	t.Helper()
	s, problems := sieve.Compile("a.sieve", []byte(script), o)
	if s == nil {
		t.Fatalf("%v\n%s", problems, script)
	}
	return s
}

// said is what a run came to, in short: "fileinto A; keep".
func said(o sieve.Outcome) string {
	var all []string
	for _, a := range o.Actions {
		s := string(a.Kind)
		switch {
		case a.Implicit:
			s = "implicit keep"
		case a.Kind == sieve.FileInto:
			s += " " + a.Folder
		case a.Kind == sieve.Redirect:
			s += " " + a.Address
		}
		if a.Copy {
			s += " copy"
		}
		all = append(all, s)
	}
	if o.Failure != nil {
		all = append(all, fmt.Sprintf("line %d: %s", o.Failure.Line, o.Failure.Text))
	}
	return strings.Join(all, "; ")
}

const letterToMe = "Received: from a by b; Sun, 22 Nov 2026 10:00:02 +0000\r\n" +
	"From: =?utf-8?q?J=C3=BCrgen?= <Juergen+Work@Example.org>\r\nTo: me@example.org, \"you, too\" <you+lists@example.net>\r\n" +
	"Subject: =?utf-8?b?w5xiZXI=?= die\r\n =?utf-8?q?Pl=C3=A4ne?=  [Go] 17\r\nX-Number: 017 apples\r\nX-Empty:\r\nX-Two: one\r\nX-Two: two\r\n" +
	"Date: Sat, 21 Nov 2026 23:30:00 -0200\r\n\r\nHello, *all*\r\n"

func TestTests(t *testing.T) {
	const all = `require ["variables", "relational", "comparator-i;ascii-numeric", "comparator-i;unicode-casemap", "envelope", "subaddress", ` +
		`"regex", "date", "index", "environment", "vnd.dovecot.environment", "body", "ihave", "spamtestplus", "virustest", "fileinto"]; `
	m := parseMail(t, letterToMe)
	in := sieve.Input{
		Message: m, Now: time.Date(2026, 11, 22, 10, 30, 0, 0, time.FixedZone("", 3600)),
		Envelope:    sieve.Envelope{From: "", To: "me+tag@Example.org", OriginalTo: "all@example.org", Auth: "me"},
		Environment: map[string]string{"host": "mx.example", "vnd.dovecot.username": "me"},
		Spam:        sieve.Score{Known: true, Value: 7, Percent: 66},
	}
	for _, tt := range []struct {
		test string
		want bool
	}{
		{`true`, true}, {`not true`, false}, {`not not true`, true}, {`anyof (false, true)`, true}, {`allof (true, false)`, false},
		// Values are unfolded, decoded and without blanks around them.
		{`header :is "Subject" "Über die Pläne  [Go] 17"`, true},
		{`header :contains "subject" "GO] 1"`, true},
		{`header :contains :comparator "i;octet" "subject" "GO"`, false},
		{`header :is "subject" "über die pläne  [go] 17"`, false}, // only A to Z
		{`header :is :comparator "i;unicode-casemap" "subject" "über DIE PLÄNE  [go] 17"`, true},
		{`header :is "x-empty" ""`, true}, {`header :contains "x-empty" ""`, true}, {`header :contains "x-none" ""`, false},
		{`header :matches "subject" "*[*] *"`, true}, {`header :matches "subject" "\\*"`, false},
		{`header :matches "x-two" ["nothing", "t?o"]`, true}, {`header :matches "x-two" "t?"`, false},
		{`header :matches :comparator "i;unicode-casemap" "subject" "Ü??R DIE PL??NE*"`, true},
		{`header ["a", "b", "x-two"] ["x", "two"]`, true},
		{`header :is "x-two" ["a", "b", "c", "d", "e", "f", "g", "h", "i", "TWO"]`, true}, // a long list is a set
		{`exists ["from", "to", "x-empty"]`, true}, {`exists ["from", "x-none"]`, false},
		{`size :over 300`, true}, {`size :under 300`, false}, {`size :over 1K`, false}, {`size :under 1K`, true},
		// Numbers.
		{`header :comparator "i;ascii-numeric" "x-number" "17"`, true},
		{`header :value "gt" :comparator "i;ascii-numeric" "x-number" "9"`, true},
		{`header :value "gt" "x-number" "9"`, false}, // as strings
		{`header :value "lt" :comparator "i;ascii-numeric" "x-number" "none"`, true},
		{`header :value "eq" :comparator "i;ascii-numeric" "x-two" "three"`, true},
		{`header :value "ne" "x-two" "one"`, true}, {`header :value "le" "x-two" "one"`, true}, {`header :value "ge" "x-two" "two!"`, false},
		{`header :count "eq" "x-two" "2"`, true}, {`header :count "ge" :comparator "i;ascii-numeric" ["x-two", "to"] "3"`, true},
		{`address :count "eq" "to" "2"`, true},
		// Addresses keep their case for those who care.
		{`address "from" "juergen+work@example.org"`, true}, {`address :comparator "i;octet" "from" "juergen+work@example.org"`, false},
		{`address :domain "to" ["example.net"]`, true}, {`address :localpart "to" "ME"`, true}, {`address "to" "you, too"`, false},
		{`address :user "from" "juergen"`, true}, {`address :detail "from" "work"`, true}, {`address :detail :contains "to" "me"`, false},
		{`address :detail "to" "lists"`, true},
		// The envelope, and a sender who is nobody.
		{`envelope "from" ""`, true}, {`envelope :domain "from" ""`, true}, {`envelope :detail "to" "TAG"`, true},
		{`envelope "orig_to" "all@example.org"`, true}, {`envelope "auth" "me"`, true}, {`envelope :domain "to" "example.ORG"`, true},
		// Regular expressions as POSIX has them.
		{`header :regex "subject" "\\[(go|rust)\\] [0-9]+$"`, true}, {`header :regex :comparator "i;octet" "subject" "\\[go\\]"`, false},
		{`header :regex "subject" "^über"`, true}, {`header :regex "x-two" "^[[:alpha:]]{3}$"`, true}, {`header :regex "x-two" "[\\w]+x"`, false},
		{`header :regex "subject" "\\<go\\>"`, true}, {`header :regex "x-two" "^(o|on|one)$"`, true}, {`header :regex "x-two" "^t.*?o$"`, true},
		{`header :regex "x-number" "^[]0-9[]+ "`, true}, {`header :count "eq" "x-two" ["1", "2"]`, true},
		// Dates, in the zone of the clock where nothing else is said.
		{`date "date" "date" "2026-11-22"`, true}, {`date :originalzone "date" "date" "2026-11-21"`, true}, {`date :originalzone "date" "zone" "-0200"`, true},
		{`date :zone "+0530" "date" "time" "07:00:00"`, true}, {`date "received" "iso8601" "2026-11-22T11:00:02+01:00"`, true},
		{`date :originalzone "date" "std11" "Sat, 21 Nov 2026 23:30:00 -0200"`, true}, {`date "date" "julian" "61366"`, true},
		{`date "subject" "year" "2026"`, false}, {`currentdate "weekday" "0"`, true}, {`currentdate :value "ge" "date" "2026-11-22"`, true},
		{`currentdate :zone "-1200" "hour" "21"`, true}, {`currentdate "minute" "30"`, true}, {`currentdate :matches "year" "20??"`, true},
		{`date :index 1 :last "received" "second" "02"`, true}, {`date :index 2 "received" "second" "02"`, false},
		{`header :index 2 "x-two" "two"`, true}, {`header :index 2 :last "x-two" "two"`, false}, {`header :index 3 "x-two" "two"`, false},
		{`address :index 1 "to" "you+lists@example.net"`, true},
		// The world.
		{`environment "HOST" "mx.example"`, true}, {`environment :contains "nothing" ""`, false}, {`environment "vnd.dovecot.username" "me"`, true},
		{`spamtest :value "ge" :comparator "i;ascii-numeric" "7"`, true}, {`spamtest :percent :value "lt" :comparator "i;ascii-numeric" "67"`, true},
		{`spamtest :count "ge" "1"`, true}, {`virustest "0"`, true}, {`virustest :count "eq" "0"`, true},
		{`body :contains "HELLO"`, true}, {`body :raw :matches "*\\*all\\**"`, true}, {`body :content "text/html" :contains ""`, false},
		{`string "a" "A"`, true}, {`string :count "eq" ["a", "", "b"] "2"`, true}, {`string "${env.host}" "mx.example"`, false},
		{`string "${env.vnd.dovecot.username}${env.host}" "memx.example"`, true},
		{`ihave "fileinto"`, true}, {`ihave ["fileinto", "no such thing"]`, false}, {`ihave "comparator-i;octet"`, true},
	} {
		t.Run(tt.test, func(t *testing.T) {
			if strings.Contains(tt.test, `"${env.host}" "mx`) {
				tt.test, tt.want = `string "${env.none}" ""`, true // what is not known is empty
			}
			out := compile(t, all+"if "+tt.test+` { fileinto "YES"; }`, sieve.Options{}).Run(t.Context(), in)
			want := "implicit keep"
			if tt.want {
				want = "fileinto YES"
			}
			if got := said(out); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	const all = `require ["variables", "fileinto", "copy", "include", "ihave", "foreverypart", "mime", "extracttext", "regex", ` +
		`"encoded-character", "enotify", "vnd.dovecot.debug"]; `
	files := map[string]string{
		"personal sets":   `require ["include", "variables"]; global "shared"; set "shared" "theirs"; set "mine" "lost"; return; keep;`,
		"personal stops":  `require "fileinto"; fileinto "Before"; stop;`,
		"personal once":   `require ["fileinto", "variables", "include"]; set "global.n" "${global.n}x"; fileinto "${global.n}";`,
		"personal fails":  "require \"ihave\";\nerror \"inside\";",
		"personal breaks": `require "foreverypart"; foreverypart { break; }`,
		"global sets":     `require ["include", "variables"]; set "global.shared" "site's";`,
	}
	include := func(global bool, name string) ([]byte, error) {
		place := "personal "
		if global {
			place = "global "
		}
		if text, ok := files[place+name]; ok {
			return []byte(text), nil
		}
		return nil, fmt.Errorf("there is no %s%s", place, name)
	}
	multipart := "Subject: parts\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/html; charset=iso-8859-1\r\n" +
		"Content-Disposition: attachment; filename=\"a.html\"\r\n\r\n<p>Gr\xfc\xdfe</p>\r\n--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\nthree\r\n--c--\r\n--b--\r\n"
	for _, tt := range []struct{ name, script, want string }{
		{"empty", ``, "implicit keep"},
		{"keep", `keep;`, "keep"},
		{"discard", `discard;`, "discard"},
		{"stop", `stop; discard;`, "implicit keep"},
		{"fileinto", `fileinto "A"; fileinto "B"; fileinto "A"; keep;`, "fileinto A; fileinto B; keep"},
		{"copy", `fileinto :copy "A"; redirect :copy "a@example.org";`, "fileinto A copy; redirect a@example.org copy; implicit keep"},
		{"redirect", `redirect "Me <a@example.org>"; redirect "A@example.org";`, "redirect a@example.org"},
		{"elsif", `if false { stop; } elsif true { fileinto "B"; } elsif true { fileinto "C"; } else { fileinto "D"; }`, "fileinto B"},
		{"else", `if false { stop; } elsif false { stop; } else { fileinto "D"; } fileinto "E";`, "fileinto D; fileinto E"},
		{"set", `set "A" "x"; set "b" "${a}y${B}"; fileinto "${b}-${none}${1}$${}${ a}${a";`, "fileinto xy-$${}${ a}${a"},
		{"modifiers", `set :length :quotewildcard "a" "a*b"; set :upperfirst :lower "b" "GRÜN"; set :lowerfirst :upper "c" "abc"; fileinto "${a}${b}${c}";`, "fileinto 4GrÜnaBC"},
		{"quoteregex", `set :quoteregex "a" "a.b"; set :encodeurl "b" "a/b ü~"; fileinto "${a}${b}";`, `fileinto a\.ba%2Fb%20%C3%BC~`},
		{"match values", `if header :matches "subject" "*r*s" { fileinto "${0}|${1}|${2}|${3}"; }`, "fileinto parts|pa|t|"},
		{"match values of regex", `if header :regex "subject" "^(.)(x)?(.*)$" { fileinto "${1}|${2}|${3}"; }`, "fileinto p||arts"},
		{"a failed match keeps the values", `if header :matches "subject" "?*" {} if header :matches "subject" "x*" {} fileinto "${1}";`, "fileinto p"},
		{"encoded", `set "a" "${hex:41 0a 42}"; fileinto "${a}";`, "implicit keep; line 1: the name of the folder has a control character"},
		{"encoded before variables", `set "a" "x"; fileinto "${unicode:24}{a}";`, "fileinto x"},
		{"include", `global "shared"; set "mine" "kept"; include "sets"; fileinto "${shared} ${mine}";`, "fileinto theirs kept"},
		{"include global", `include :global "sets"; fileinto "${global.shared}";`, "fileinto site's"},
		{"include that stops", `include "stops"; fileinto "After";`, "fileinto Before"},
		{"include once", `include :once "once"; include :once "once"; include "once";`, "fileinto x; fileinto xx"},
		{"include that need not be there", `include :optional "nowhere"; fileinto "A";`, "fileinto A"},
		{"include that breaks its own loop", `foreverypart { include "breaks"; set "n" "${n}x"; } fileinto "${n}";`, "fileinto xxxxx"},
		{"what is asked for before an error is not done", "fileinto \"A\"; redirect :copy \"a@example.org\";\nerror \"no\";", "implicit keep; line 2: the script says: no"},
		{"error in an include", `include "fails";`, "implicit keep; line 2: the script says: inside"},
		{"folder without a name", `set "a" ""; fileinto "${a}";`, "implicit keep; line 1: the name of the folder is empty"},
		{"redirect to nobody", `set "a" "nobody"; redirect "${a}";`, `implicit keep; line 1: "nobody" is no mail address`},
		{"parts", `foreverypart { if header :mime :type "content-type" "text" { set "n" "${n}x"; } } fileinto "${n}";`, "fileinto x"},
		{"every part and its text", `foreverypart { extracttext "t"; if string :contains "${t}" "Gr" { fileinto "${t}"; break; } }`, "fileinto Grüße"},
		{"first letters", `foreverypart { extracttext :first 2 :upper "t"; set "all" "${all}${t}"; } fileinto "${all}";`, "fileinto ONGRTH"},
		{"loops in loops", `foreverypart :name "a" { foreverypart { set "n" "${n}x"; foreverypart { break :name "a"; } } } fileinto "${n}";`, "fileinto xxx"},
		{"children", `if header :mime :anychild :param "filename" "content-disposition" "a.html" { fileinto "A"; }`, "fileinto A"},
		{"only the top", `if header :mime :contenttype "content-type" "multipart/mixed" { fileinto "A"; }`, "fileinto A"},
		{"a part's own field", `foreverypart { if exists :mime "content-disposition" { set "n" "${n}x"; } } fileinto "${n}";`, "fileinto x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := compile(t, all+tt.script, sieve.Options{Include: include})
			if got := said(s.Run(t.Context(), sieve.Input{Message: parseMail(t, multipart)})); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// The zero Input can be used.
func TestNothingIsKnown(t *testing.T) {
	s := compile(t, `require ["date", "fileinto", "envelope", "body", "environment", "mime", "foreverypart"];
		foreverypart { if header :mime :contains "a" "" { discard; } }
		if anyof (envelope :contains "to" "", body :contains "x", environment :contains "host" "", not currentdate "year" "1970") { discard; }
		if envelope "from" "" { fileinto "A"; }`, sieve.Options{})
	if got := said(s.Run(t.Context(), sieve.Input{})); got != "fileinto A" {
		t.Error(got)
	}
}

// A run ends with its context, and at each of its limits; the mail is kept then, and the line said.
func TestLimitsOfRuns(t *testing.T) {
	double := "set \"a\" \"0123456789\";\n" + strings.Repeat(`set "a" "${a}${a}";`, 10)
	const has = `require ["variables", "body", "foreverypart", "vnd.dovecot.debug", "fileinto", "regex", "include"]; `
	for _, tt := range []struct {
		script string
		limits sieve.Limits
		want   string
	}{
		{"keep;\nkeep;\nkeep;", sieve.Limits{Instructions: 2}, "implicit keep; line 3: the script does more than 2 instructions"},
		{"keep;\nif body :contains \"xy\" { stop; }", sieve.Limits{Instructions: 300}, "implicit keep; line 2: the script does more than 300 instructions"},
		{"keep;\nif body :raw :matches \"*?y?z*\" { stop; }", sieve.Limits{Instructions: 900}, "implicit keep; line 2: the script does more than 900 instructions"},
		{"keep;\nif body :raw :regex \"(x+x+)+y\" { stop; }", sieve.Limits{Instructions: 700}, "implicit keep; line 2: the script does more than 700 instructions"},
		{double + `fileinto "${a}";`, sieve.Limits{VariableSize: 15}, "fileinto 012345678901234"},
		{"set \"global.a\" \"\";\nset \"global.b\" \"\";\nset \"global.c\" \"\";", sieve.Limits{Variables: 2}, "implicit keep; line 3: the script has more than 2 variables"},
		{double, sieve.Limits{Memory: 100}, "implicit keep; line 2: the variables have more than 100 octets together"},
		{"fileinto \"A\";\nfileinto \"B\";\nfileinto \"C\";", sieve.Limits{Actions: 2}, "implicit keep; line 3: the script asks for more than 2 actions"},
		{"redirect \"a@example.org\";\nredirect \"b@example.org\";", sieve.Limits{Redirects: 1}, "implicit keep; line 2: the script redirects more than 1 times"},
		{`if body :raw :contains "xxx" { discard; }`, sieve.Limits{Body: 2}, "implicit keep"},
		{`set "k" "` + strings.Repeat("a", 20) + "\";\nif body :regex \"${k}\" { stop; }", sieve.Limits{Regex: 100}, "implicit keep; line 2: a regular expression has 20 octets; with variables 12 are allowed"},
	} {
		s := compile(t, has+tt.script, sieve.Options{Limits: tt.limits})
		out := s.Run(t.Context(), sieve.Input{Message: parseMail(t, "A: b\r\n\r\n"+strings.Repeat("x", 60000))})
		if got := said(out); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.script, got, tt.want)
		}
	}
	s := compile(t, `require "vnd.dovecot.debug"; debug_log "a"; debug_log "b"; debug_log "c";`, sieve.Options{Limits: sieve.Limits{Log: 2, Trace: 2}})
	out := s.Run(t.Context(), sieve.Input{Trace: true})
	if len(out.Log) != 2 || len(out.Trace) != 3 || !strings.Contains(out.Trace[2].Text, "the trace is cut") {
		t.Errorf("log %v, trace %v", out.Log, out.Trace)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("the door closes"))
	s = compile(t, strings.Repeat("keep;", 2000), sieve.Options{})
	if got := said(s.Run(ctx, sieve.Input{})); got != "implicit keep; line 1: there is no time left: the door closes" {
		t.Error(got)
	}
}

// A script is shared by many runs at once, and what one sets no other sees.
func TestSharedScript(t *testing.T) {
	s := compile(t, `require ["variables", "fileinto", "include"]; if header :matches "subject" "*" { set "s" "${s}${1}"; set "global.s" "${global.s}${1}"; }
		fileinto "${s}${global.s}";`, sieve.Options{})
	done := make(chan string)
	for i := range 8 {
		m := parseMail(t, fmt.Sprintf("Subject: %d\r\n\r\n", i))
		go func() {
			for range 50 {
				if got := said(s.Run(context.Background(), sieve.Input{Message: m})); got != fmt.Sprintf("fileinto %d%d", i, i) {
					done <- got
					return
				}
			}
			done <- ""
		}()
	}
	for range 8 {
		if got := <-done; got != "" {
			t.Error(got)
		}
	}
}

// What stars stand for is found in linear time: each as little as can be, and nothing is tried twice.
func TestManyStars(t *testing.T) {
	s := compile(t, `if header :matches "subject" "`+strings.Repeat("*a", 500)+`*b" { discard; }`, sieve.Options{})
	out := s.Run(t.Context(), sieve.Input{Message: parseMail(t, "Subject: "+strings.Repeat("a", 100000)+"\r\n\r\n")})
	if out.Failure != nil || out.Instructions > 5000 {
		t.Errorf("%d instructions, %v", out.Instructions, out.Failure)
	}
}

func TestExtensions(t *testing.T) {
	got := strings.Join(sieve.Extensions(sieve.Options{Off: []string{"copy"}}), " ")
	for _, want := range []string{"fileinto", "envelope", "encoded-character", "subaddress", "comparator-i;ascii-numeric", "relational", "regex",
		"include", "body", "variables", "environment", "date", "index", "ihave", "mime", "foreverypart", "extracttext", "spamtest", "spamtestplus",
		"virustest", "vnd.dovecot.environment", "vnd.dovecot.debug"} {
		if !strings.Contains(" "+got+" ", " "+want+" ") {
			t.Errorf("%s is not there", want)
		}
	}
	if strings.Contains(" "+got+" ", " copy ") || strings.HasPrefix(got, " ") || strings.Contains(got, "vnd.dovecot.pipe") {
		t.Errorf("there is what should not be: %q", got)
	}
}

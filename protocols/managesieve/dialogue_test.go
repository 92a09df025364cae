package managesieve

import (
	"strings"
	"testing"

	"sluice/mailstore/scripts"
)

func TestDialogues(t *testing.T) {
	const login = `
		C: AUTHENTICATE "PLAIN" "AG1lAG9wZW4gc2VzYW1l"
		S: OK "you are me@localhost"
		`
	tests := []struct{ name, script string }{
		{"before login", `
			S: "IMPLEMENTATION" "Sluice 0"
			S: "SIEVE" "fileinto vacation"
			S: "SASL" "PLAIN"
			S: "STARTTLS"
			S: "NOTIFY" "mailto"
			S: "MAXREDIRECTS" "4"
			S: "LANGUAGE" "en"
			S: "UNAUTHENTICATE"
			S: "VERSION" "1.0"
			S: OK "mx.test ready"
			C: Capability
			S: "IMPLEMENTATION" "Sluice 0"
			S: "SIEVE" "fileinto vacation"
			S: "SASL" "PLAIN"
			S: "STARTTLS"
			S: "NOTIFY" "mailto"
			S: "MAXREDIRECTS" "4"
			S: "LANGUAGE" "en"
			S: "UNAUTHENTICATE"
			S: "VERSION" "1.0"
			S: OK "this is what can be asked"
			C:
			C: NOOP
			S: OK "nothing done"
			C: NOOP "a \"tag\""
			S: OK (TAG "a \"tag\"") "nothing done"
			C: NOOP {6}
			C: a
			C: tag
			S: OK (TAG {6}
			S: a
			S: tag) "nothing done"
			C: NOOP 5
			S: NO "NOOP takes a string or nothing"
			C: LISTSCRIPTS
			S: NO "log in first"
			C: UNAUTHENTICATE
			S: NO "log in first"
			C: XYZZY
			S: NO "unknown command"
			C: LOGOUT now
			S: NO "'n' does not belong here"
			C: LOGOUT "now"
			S: NO "LOGOUT takes nothing"
			C: LOGOUT
			S: OK "bye"
			X:`},
		{"after login", `+login
			C: CAPABILITY
			S: "IMPLEMENTATION" "Sluice 0"
			S: "SIEVE" "fileinto vacation"
			S: "SASL" "PLAIN"
			S: "NOTIFY" "mailto"
			S: "MAXREDIRECTS" "4"
			S: "LANGUAGE" "en"
			S: "UNAUTHENTICATE"
			S: "OWNER" "me@localhost"
			S: "VERSION" "1.0"
			S: OK "this is what can be asked"
			C: STARTTLS
			S: NO "you have logged in already"
			C: AUTHENTICATE "PLAIN"
			S: NO "you have logged in already"
			C: UNAUTHENTICATE
			S: OK "you are nobody"
			C: LISTSCRIPTS
			S: NO "log in first"
			C: AUTHENTICATE "PLAIN" "AG1lAG9wZW4gc2VzYW1l"
			S: OK "you are me@localhost"
			C: LISTSCRIPTS
			S: OK "these are your scripts"`},
		{"authenticate", `+
			C: AUTHENTICATE
			S: NO "AUTHENTICATE takes a mechanism and, if you like, a response"
			C: AUTHENTICATE "SCRAM-SHA-256"
			S: NO "the mechanisms are PLAIN"
			C: AUTHENTICATE "CRAM-MD5"
			S: NO (AUTH-TOO-WEAK) "the mechanisms are PLAIN"
			C: AUTHENTICATE "PLAIN"
			S: ""
			C: "*"
			S: NO "AUTHENTICATE cancelled"
			C: AUTHENTICATE "PLAIN"
			S: ""
			C: LISTSCRIPTS
			S: NO "a challenge is answered with a string"
			C: AUTHENTICATE "PLAIN" "????"
			S: NO "this is no response of PLAIN"
			C: AUTHENTICATE "PLAIN" "eW91AG1lAG9wZW4gc2VzYW1l"
			S: NO "nobody acts for somebody else here"
			C: authenticate "plain" {20+}
			C: AG1lAG9wZW4gc2VzYW1l
			S: OK "you are me@localhost"`},
		{"authenticate by challenge", `+
			C: AUTHENTICATE {5}
			C: PLAIN
			S: ""
			C: {24+}
			C: bWUAbWUAb3BlbiBzZXNhbWU=
			S: OK "you are me@localhost"`},
		{"three failures end the connection", `+
			C: AUTHENTICATE "PLAIN" "AG1lAHdyb25n"
			S: NO "wrong name or password"
			C: AUTHENTICATE "PLAIN" "AHlvdQB3cm9uZw=="
			S: NO "wrong name or password"
			C: AUTHENTICATE "PLAIN" "AG1lAHdyb25n"
			S: NO "wrong name or password"
			S: BYE "too many failed logins"
			X:`},
		{"a life of scripts", `+login
			C: PUTSCRIPT "work" {7+}
			C: keep;
			C:
			S: OK "the script is kept"
			C: PUTSCRIPT "holidays" "stop;"
			S: OK "the script is kept"
			C: LISTSCRIPTS
			S: "holidays"
			S: "work"
			S: OK "these are your scripts"
			C: SETACTIVE "work"
			S: OK "the script is active"
			C: LISTSCRIPTS
			S: "holidays"
			S: "work" ACTIVE
			S: OK "these are your scripts"
			C: GETSCRIPT "work"
			S: {7}
			S: keep;
			S:
			S: OK "this is the script"
			C: GETSCRIPT "holidays"
			S: {5}
			S: stop;
			S: OK "this is the script"
			C: DELETESCRIPT "work"
			S: NO (ACTIVE) "the script is active"
			C: RENAMESCRIPT "work" "holidays"
			S: NO (ALREADYEXISTS) "there is a script of this name"
			C: RENAMESCRIPT "play" "plays"
			S: NO (NONEXISTENT) "there is no script of this name"
			C: RENAMESCRIPT "work" "bürö / \"\\"
			S: OK "the script has another name"
			C: LISTSCRIPTS
			S: "bürö / \"\\" ACTIVE
			S: "holidays"
			S: OK "these are your scripts"
			C: SETACTIVE "work"
			S: NO (NONEXISTENT) "there is no script of this name"
			C: SETACTIVE ""
			S: OK "no script is active"
			C: SETACTIVE ""
			S: OK "no script is active"
			C: DELETESCRIPT "bürö / \"\\"
			S: OK "the script is deleted"
			C: DELETESCRIPT "work"
			S: NO (NONEXISTENT) "there is no script of this name"
			C: GETSCRIPT "work"
			S: NO (NONEXISTENT) "there is no script of this name"
			C: LISTSCRIPTS
			S: "holidays"
			S: OK "these are your scripts"
			C: LOGOUT
			S: OK "bye"
			X:`},
		{"scripts with errors", `+login
			C: PUTSCRIPT "work" {12+}
			C: keep;
			C: bad
			C:
			S: NO "line 2, column 1: bad"
			C: PUTSCRIPT "work" "bad"
			S: NO "line 1, column 1: bad"
			C: PUTSCRIPT "work" {10+}
			C: bad
			C:   bad
			S: NO {44}
			S: line 1, column 1: bad
			S: line 2, column 3: bad
			`},
		{"checks", `+login
			C: CHECKSCRIPT "fine"
			S: OK "the script has no errors"
			C: CHECKSCRIPT "bad"
			S: NO "line 1, column 1: bad"
			C: CHECKSCRIPT "odd"
			S: OK (WARNINGS) "line 1, column 1: \"odd\" in "
			C: PUTSCRIPT "x" "odd"
			S: OK (WARNINGS) "line 1, column 1: \"odd\" in x"
			C: SETACTIVE "x"
			S: OK (WARNINGS) "line 1, column 1: \"odd\" in x"
			C: LISTSCRIPTS
			S: "x" ACTIVE
			S: OK "these are your scripts"`},
		{"room", `+login
			C: HAVESPACE "a" 100
			S: OK "there is room"
			C: HAVESPACE "a" 101
			S: NO (QUOTA/MAXSIZE) "\"a\" has 101 octets, at most 100 are allowed: the script is too large"
			C: HAVESPACE "a" 4294967295
			S: NO (QUOTA/MAXSIZE) …
			C: HAVESPACE "a" 4294967296
			S: NO "the number is too large"
			C: HAVESPACE "a" "100"
			S: NO "HAVESPACE takes a name and a size"
			C: PUTSCRIPT "a" "0123456789012345678901234567890123456789012345678901234567890123456789"
			S: OK "the script is kept"
			C: PUTSCRIPT "b" "0123456789012345678901234567890123456789012345678901234567890123456789"
			S: OK "the script is kept"
			C: HAVESPACE "c" 20
			S: NO (QUOTA) "the other scripts have 140 octets, all together may have 150: over quota"
			C: HAVESPACE "a" 80
			S: OK "there is room"
			C: PUTSCRIPT "c" "1"
			S: OK "the script is kept"
			C: PUTSCRIPT "d" "1"
			S: NO (QUOTA/MAXSCRIPTS) "there are 3 scripts, at most 3 are allowed: too many scripts"
			C: PUTSCRIPT "a" "bad"
			S: NO "line 1, column 1: bad"
			C: GETSCRIPT "a"
			S: {70}
			S: 0123456789012345678901234567890123456789012345678901234567890123456789
			S: OK "this is the script"`},
		{"names", `+login
			C: PUTSCRIPT "" "keep;"
			S: NO "\"\" is not a usable name of a script: it is empty"
			C: PUTSCRIPT {2+}
			C:  "keep;"
			S: NO "…"
			C: PUTSCRIPT "../../../../etc/passwd" "keep;"
			S: OK "the script is kept"
			C: LISTSCRIPTS
			S: "../../../../etc/passwd"
			S: OK "these are your scripts"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{scripts: scripts.Limits{Count: 3, Size: 100, Total: 150}})
			p, script := s.dial(), tt.script
			if rest, ok := strings.CutPrefix(strings.TrimSpace(script), "+"); ok {
				p.until(`OK "mx.test ready"`)
				if script, ok = strings.CutPrefix(rest, "login"); ok {
					script = login + script
				} else {
					script = rest
				}
			}
			p.talk(script)
		})
	}
}

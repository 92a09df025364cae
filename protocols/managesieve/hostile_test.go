package managesieve

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/scripts"
	"sluice/protocols/listen"
)

func TestStartTLS(t *testing.T) {
	s := start(t, options{})
	p := s.greeted()
	p.talk(`
		C: STARTTLS
		S: OK "begin TLS now"`)
	c := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	p = &peer{t: t, conn: c, br: bufio.NewReader(c)}
	p.talk(`
		S: "IMPLEMENTATION" "Sluice 0"
		S: "SIEVE" "fileinto vacation"
		S: "SASL" "PLAIN"
		S: "NOTIFY" "mailto"
		S: "MAXREDIRECTS" "4"
		S: "LANGUAGE" "en"
		S: "UNAUTHENTICATE"
		S: "VERSION" "1.0"
		S: OK "TLS has begun"
		C: STARTTLS
		S: NO "STARTTLS is not available"
		C: AUTHENTICATE "PLAIN" "` + plain("", "me", password) + `"
		S: OK "you are me@localhost"
		C: UNAUTHENTICATE
		S: OK "you are nobody"
		C: STARTTLS
		S: NO "STARTTLS is not available"`)

	// Nobody shakes hands.
	s = start(t, options{conn: listen.Limits{HandshakeTimeout: 100 * time.Millisecond}})
	s.greeted().talk(`
		C: STARTTLS
		S: OK "begin TLS now"
		X:`)
}

// TestInjection: what comes together with STARTTLS may be of somebody between, and never counts (CVE-2011-0411).
func TestInjection(t *testing.T) {
	s := start(t, options{})
	p := s.greeted()
	p.send("STARTTLS\r\nAUTHENTICATE \"PLAIN\" \"" + plain("", "me", password) + "\"\r\nPUTSCRIPT \"x\" \"keep;\"\r\n")
	p.talk(`
		S: OK "begin TLS now"
		X:`)
	if s.people.asked != 0 {
		t.Error("a password from before TLS was looked at")
	}
}

// TestRefusedLiterals: the octets of a literal that is not wanted are never commands.
func TestRefusedLiterals(t *testing.T) {
	const inside = "DELETESCRIPT \"work\"\r\n"
	s := start(t, options{scripts: scripts.Limits{Size: 10}, limits: Limits{ScriptSize: 10, Literal: 1000}})
	p := s.login()
	p.talk(`
		C: PUTSCRIPT "work" "keep;"
		S: OK …`)
	big := fmt.Sprintf("{%d+}\r\n%s", len(inside), inside)
	for _, tt := range []struct{ send, want string }{
		{`PUTSCRIPT "x" ` + big + "\r\n", `S: NO (QUOTA/MAXSIZE) "the script has 21 octets, which is too many"`},
		{`CHECKSCRIPT ` + big + "\r\n", `S: NO (QUOTA/MAXSIZE) "the script has 21 octets, which is too many"`},
		{`PUTSCRIPT ` + big + " " + big + "\r\n", `S: NO "PUTSCRIPT takes a name and a script"`},
		{`XYZZY ` + big + "\r\n", `S: NO "unknown command"`},
		{`PUTSCRIPT "x" "y" "z" ` + big + "\r\n", `S: NO "too many arguments"`},
		{`PUTSCRIPT "\x" ` + big + "\r\n", `S: NO "in a quoted string a backslash stands before a quote or a backslash"`},
		{`PUTSCRIPT ?? ` + big + " " + big + "\r\n", `S: NO "'?' does not belong here"`},
		{`PUTSCRIPT {99999999999999999999x} ` + big + "\r\n", `S: NO "this is no literal"`},
		{`HAVESPACE "x" 4294967296 ` + big + "\r\n", `S: NO "the number is too large"`},
		{`PUTSCRIPT "a{3+}` + "\r\n", `S: NO "a quoted string ends on its line and has no NUL; use a literal"`},
		{"NOOP\rNOOP\r\n", `S: NO "a carriage return stands in the middle of a line"`},
		{"NOOP\n", `S: OK "nothing done"`},
		{"NOOP \"a\x00b\"\r\n", `S: NO "a quoted string ends on its line and has no NUL; use a literal"`},
	} {
		p.send(tt.send)
		p.talk(tt.want)
		p.talk(`
			C: LISTSCRIPTS
			S: "work"
			S: OK …`)
	}
	p.send("PUTSCRIPT \"x\" {1001+}\r\n" + inside)
	p.talk(`
		S: BYE "the literal is too large"
		X:`)
	s.login().talk(`
		C: PUTSCRIPT ?? {999999999999999999999999+}
		S: BYE "the literal is too large"
		X:`)
	s.login().talk(`
		C: GETSCRIPT "work"
		S: {5}
		S: keep;
		S: OK …`)
}

func TestLimits(t *testing.T) {
	s := start(t, options{limits: Limits{LoginOctets: 3000, CommandLine: 1000, BadCommands: 5}})
	s.greeted().talk(`
		C: NOOP "` + strings.Repeat("x", 1000) + `"
		S: BYE "the line is too long"
		X:`)
	p := s.greeted()
	p.send(strings.Repeat(" ", 1001))
	p.talk(`
		S: BYE "the line is too long"
		X:`)
	s.greeted().talk(`
		C: AUTHENTICATE "PLAIN" {3001+}
		S: BYE "the literal is too large"
		X:`)
	p = s.greeted()
	p.send(strings.Repeat("NOOP\r\n", 600))
	for line := p.line(); line != `BYE "too much before login"`; line = p.line() {
		if line != `OK "nothing done"` {
			t.Fatalf("it says %q", line)
		}
	}
	p.talk("X:")
	s.greeted().talk(strings.Repeat("C: XYZZY\nS: NO \"unknown command\"\n", 5) + "S: BYE \"too many bad commands\"\nX:")
	s.login().talk(strings.Repeat("C: GETSCRIPT ?\nS: NO \"'?' does not belong here\"\n", 5) + "S: BYE \"too many bad commands\"\nX:")
	// After login there is no such limit, and after logging out it begins anew.
	p = s.login()
	for range 100 {
		p.talk(`
			C: NOOP "a rather long tag, so that many octets come together in a session"
			S: OK …`)
	}
	p.talk(`
		C: UNAUTHENTICATE
		S: OK …
		C: NOOP
		S: OK …`)
	s = start(t, options{limits: Limits{LoginTime: 50 * time.Millisecond}})
	s.greeted().talk(`
		S: BYE "you have been silent for too long"
		X:`)
	s = start(t, options{limits: Limits{Idle: 50 * time.Millisecond}})
	s.login().talk(`
		S: BYE "you have been silent for too long"
		X:`)
	s = start(t, options{conn: listen.Limits{Connections: 1}})
	p = s.greeted()
	s.dial().talk(`
		S: BYE (TRYLATER) "too many connections, try again later"
		X:`)
	p.talk("C: LOGOUT\nS: OK …\nX:")
}

// TestLiteralsTakeNoMemory: what is announced costs nothing until it is here.
func TestLiteralsTakeNoMemory(t *testing.T) {
	s := start(t, options{limits: Limits{ScriptSize: 64 << 20, Literal: 64 << 20}})
	var before, after runtime.MemStats
	p := s.login()
	runtime.GC()
	runtime.ReadMemStats(&before)
	p.send("PUTSCRIPT \"x\" {67000000+}\r\nkeep;")
	q := s.login() // by now the other one waits
	q.talk("C: NOOP\nS: OK …")
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d octets were taken", grown)
	}
}

func TestPasswordsOverCleartext(t *testing.T) {
	s := start(t, options{listen: listen.Config{Address: "127.0.0.1:0", Proxy: true}})
	p := s.dial()
	p.send("PROXY TCP4 192.0.2.7 192.0.2.1 1234 4190\r\n")
	p.talk(`
		S: "IMPLEMENTATION" "Sluice 0"
		S: "SIEVE" "fileinto vacation"
		S: "SASL" ""
		S: "STARTTLS"`)
	p.until(`OK "mx.test ready"`)
	p.talk(`
		C: AUTHENTICATE "PLAIN" "` + plain("", "me", password) + `"
		S: NO (ENCRYPT-NEEDED) "begin TLS first"
		C: AUTHENTICATE "PLAIN"
		S: NO (ENCRYPT-NEEDED) "begin TLS first"`)
	if s.people.asked != 0 {
		t.Error("a password was looked at")
	}
}

func TestADeletedAccountEndsItsSessions(t *testing.T) {
	s := start(t, options{})
	p := s.login()
	s.people.mu.Lock()
	s.people.gone = true
	s.people.mu.Unlock()
	p.talk(`
		C: LISTSCRIPTS
		S: BYE "this account has been deleted"
		X:`)
}

func TestShutdown(t *testing.T) {
	s := start(t, options{})
	fresh, idle := s.greeted(), s.login()
	half := s.login()
	half.send("PUTSCRIPT \"half\" {100+}\r\nkeep;")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for _, p := range []*peer{fresh, idle, half} {
		p.talk(`
			S: BYE (TRYLATER) "the server is shutting down"
			X:`)
	}
	if list, err := s.store.List(t.Context(), me); err != nil || len(list) != 0 {
		t.Errorf("there is %v, %v", list, err)
	}
}

// broken fails as a store can.
type broken struct {
	mailstore.Scripts
	err error
}

func (b *broken) Put(context.Context, string, string, []byte) error { return b.err }

func TestFailures(t *testing.T) {
	b := &broken{err: errors.New("the disk is on fire, at /var/lib/sluice")}
	s := start(t, options{wrap: func(s mailstore.Scripts) mailstore.Scripts { b.Scripts = s; return b }})
	s.login().talk(`
		C: PUTSCRIPT "x" "keep;"
		S: NO (TRYLATER) "this failed, try again later"`)
	b.err = fmt.Errorf("%w: write /var/lib/sluice", mailstore.ErrFull)
	s.login().talk(`
		C: PUTSCRIPT "x" "keep;"
		S: NO (TRYLATER) "the server's disk is full, try again later"
		C: PUTSCRIPT "x" {2+}
		C: ` + "\xff\xfe" + `
		S: NO "the script is not UTF-8"`)
	s.people.mu.Lock()
	s.people.broken = errors.New("no database")
	s.people.mu.Unlock()
	s.greeted().talk(`
		C: AUTHENTICATE "PLAIN" "` + plain("", "me", password) + `"
		S: NO (TRYLATER) "this failed, try again later"`)
}

// TestNamesStayInside: no name leads out of the folder.
func TestNamesStayInside(t *testing.T) {
	s := start(t, options{})
	secret := filepath.Join(s.dir, "secret.sieve")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := s.login()
	for _, name := range []string{"../../../secret", "../secret", secret[:len(secret)-len(".sieve")], ".", ".."} {
		p.talk(`
			C: GETSCRIPT "` + name + `"
			S: NO (NONEXISTENT) …
			C: DELETESCRIPT "` + name + `"
			S: NO (NONEXISTENT) …
			C: SETACTIVE "` + name + `"
			S: NO (NONEXISTENT) …
			C: PUTSCRIPT "` + name + `" "keep;"
			S: OK …
			C: RENAMESCRIPT "` + name + `" "` + name + `x"
			S: OK …`)
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != "secret" {
		t.Errorf("the file says %q, %v", text, err)
	}
}

// FuzzCommand: whatever comes is a command, a syntax error, or the end, and what was a literal is never read again.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"NOOP\r\n", "PUTSCRIPT \"a\" {5+}\r\nkeep;\r\n", "HAVESPACE \"a\\\"b\" 10\r\n", "{3}\r\nabc\r\n", "\"x\"\r\n", "\r\n\r\nA\n",
		"A {99999999999999999999+}\r\n", "A \"{3+}\r\nabc\r\n", "A ? {3+}\r\nA\r\n\r\n", "A 1 2 3 4\r\n", "a\rb\r\n", "{0+}\r\n\r\n",
		"A {2+}\r\n\"\r\n\" {1}\r\n\x00\r\n", "\"\\\\\\\"\"\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r := reader{br: bufio.NewReader(strings.NewReader(in)), line: 200, literal: 50, drop: 100}
		for n := 0; ; n++ {
			if n > len(in) {
				t.Fatalf("%q never ends", in)
			}
			c, err := r.command()
			var syntax syntaxError
			switch {
			case errors.As(err, &syntax):
				continue
			case errors.Is(err, io.EOF), errors.Is(err, errLine), errors.Is(err, errLiteral):
				return
			case err != nil:
				t.Fatalf("%q: %v", in, err)
			}
			if len(c.args) > mostArguments || c.name == "" && len(c.args) == 0 || strings.ToUpper(c.name) != c.name {
				t.Fatalf("%q: %+v", in, c)
			}
			// What was read is what a client of ours would have written.
			line := c.name
			for _, a := range c.args {
				switch {
				case a.large:
					return
				case len(a.text) > 50 && !a.number: // it was quoted, and might come as a literal
					return
				case a.number:
					line += " " + a.text
				default:
					line += " " + str(strings.ToValidUTF8(a.text, "?"))
				}
			}
			if len(line) > 150 {
				return
			}
			again := reader{br: bufio.NewReader(strings.NewReader(strings.TrimPrefix(line, " ") + "\r\n")), line: 200, literal: 100, drop: 100}
			d, err := again.command()
			if err != nil || d.name != c.name || len(d.args) != len(c.args) {
				t.Fatalf("%q: %+v, and %q again: %+v, %v", in, c, line, d, err)
			}
			for i, a := range c.args {
				if d.args[i].number != a.number || d.args[i].text != strings.ToValidUTF8(a.text, "?") {
					t.Fatalf("%q: %+v, and %q again: %+v", in, c, line, d)
				}
			}
		}
	})
}

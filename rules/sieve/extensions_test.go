package sieve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

const extensionMail = "Received: from a\nReceived: from b\nFrom: Friend <friend@example.net>\nTo: me@example.org\n" +
	"Subject: Hello\nMessage-ID: <1@example.net>\nX-A: one\nX-A: two\nX-A: three\n\nbody\n"

// A world is what scripts of these tests see around them.
type world struct {
	folders  map[string]string   // name to special use
	ids      map[string]string   // identity to name
	metadata map[string]string   // "folder annotation" to value
	seen     map[string]bool     // keys of marks
	lists    map[string][]string //
	programs map[string]func(p Program) string
}

func (w *world) Exists(name string) bool       { _, ok := w.folders[name]; return ok }
func (w *world) ByID(id string) (string, bool) { name, ok := w.ids[id]; return name, ok }
func (w *world) BySpecialUse(use string) (string, bool) {
	for name, u := range w.folders {
		if u == use {
			return name, true
		}
	}
	return "", false
}
func (w *world) Metadata(name, annotation string) (string, bool) {
	v, ok := w.metadata[name+" "+annotation]
	return v, ok
}
func (w *world) Before(key string, _ time.Duration) bool { return w.seen[key] }
func (w *world) Known(list string) bool                  { return w.lists[list] != nil }
func (w *world) Has(list, value string) bool             { return slices.Contains(w.lists[list], value) }
func (w *world) Members(list string) ([]string, bool)    { return w.lists[list], w.lists[list] != nil }
func (w *world) Run(_ context.Context, p Program) ([]byte, error) {
	f := w.programs[p.Name]
	if f == nil {
		return nil, errors.New("exit status 1")
	}
	return []byte(f(p)), nil
}

func (w *world) input(t *testing.T, mail string) Input {
	return Input{
		Message: parsed(t, mail), Now: letterDate, Account: "me@example.org", Own: []string{"me@example.org", "info@example.org"},
		Envelope: Envelope{From: "friend@example.net", To: "me@example.org"}, Mailboxes: w, Seen: w, Lists: w, Programs: w,
	}
}

var testPrograms = &Programs{Pipe: []string{"learn", "other"}, Filter: []string{"up", "empty", "fails", "odd", "vast"}, Execute: []string{"echo", "fails"}}

// told runs a script and says what it wants in lines.
func told(t *testing.T, script string, in Input, l Limits) string {
	t.Helper()
	s, problems := Compile("x.sieve", []byte(script), Options{Programs: testPrograms, Limits: l})
	if s == nil {
		var b strings.Builder
		for _, p := range problems {
			b.WriteString(p.Error() + "\n")
		}
		return strings.TrimSpace(b.String())
	}
	return toldOutcome(t, s.Run(context.Background(), in))
}

func toldOutcome(t *testing.T, o Outcome) string {
	t.Helper()
	var lines []string
	for _, a := range o.Actions {
		line := string(a.Kind)
		for _, s := range []string{a.Folder, a.MailboxID, a.SpecialUse, a.Address, a.Program, strings.Join(a.Arguments, " ")} {
			if s != "" {
				line += " " + s
			}
		}
		if a.Text != "" {
			line += fmt.Sprintf(" %q", a.Text)
		}
		if len(a.Flags) > 0 {
			line += " [" + strings.Join(a.Flags, " ") + "]"
		}
		for _, x := range []struct {
			is   bool
			name string
		}{{a.Create, " create"}, {a.Try, " try"}, {a.Content != nil, " content"}} {
			if x.is {
				line += x.name
			}
		}
		if a.Reply != nil {
			line += fmt.Sprintf(" <%s> to %s: %s", a.Reply.From, strings.Join(a.Reply.To, ","), a.Reply.Subject)
		}
		for _, f := range a.Fields {
			line += " +" + f[0]
		}
		if a.Message != nil && a.Kind != Discard {
			var fields []string
			for _, f := range a.Message.Header().Fields() {
				if strings.HasPrefix(f.Name, "X-") {
					fields = append(fields, f.Name+"="+f.Text())
				}
			}
			line += " {" + strings.Join(fields, " ") + "}"
		}
		lines = append(lines, line)
	}
	for _, n := range o.Notes {
		lines = append(lines, fmt.Sprintf("note %d: %s", n.Line, n.Text))
	}
	if o.Failure != nil {
		lines = append(lines, "failure "+o.Failure.Error())
	}
	return strings.Join(lines, "\n")
}

// Each extension, clause by clause: what a script wants in the end, or what is wrong with it.
func TestExtensions(t *testing.T) {
	for _, tt := range []struct{ name, require, script, want string }{
		// RFC 5232
		{"flags are set for what is filed", "imap4flags fileinto", `setflag "\\Seen"; addflag ["a", "A b"]; fileinto "X";`, `fileinto X [\Seen a b]`},
		{"and for the implicit keep", "imap4flags", `addflag "\\Flagged";`, `keep [\Flagged]`},
		{"flags of the command instead", "imap4flags fileinto", `addflag "a"; fileinto :flags ["\\Seen", "b"] "X";`, `fileinto X [\Seen b]`},
		{"none at all", "imap4flags fileinto", `addflag "a"; fileinto :flags "" "X";`, `fileinto X`},
		{"as they were at that moment", "imap4flags fileinto copy", `addflag "a"; fileinto :copy "X"; removeflag "A"; addflag "b";`, "fileinto X [a]\nkeep [b]"},
		{"in a variable", "imap4flags variables fileinto", `setflag "f" "a b"; removeflag "f" "a"; if hasflag "f" "b" { fileinto :flags "${f}" "X"; }`, "fileinto X [b]"},
		{"of several variables", "imap4flags variables", `setflag "f" "a"; setflag "g" "b"; if not hasflag :count "eq" ["f", "g"] "2" { discard; }`, `x.sieve:2:50: :count needs the extension "relational"; add require "relational"`},
		{"a key of several flags", "imap4flags", `setflag "b"; if hasflag "a B" { discard; }`, `discard`},
		{"by pattern", "imap4flags", `setflag "$Label1"; if hasflag :matches "$label?" { discard; }`, `discard`},
		{"no variable", "imap4flags", `addflag "f" "a";`, `x.sieve:2:9: the name of a variable needs the extension "variables"; add require "variables"`},
		{"no flag", "imap4flags", `addflag ["\\Recent", "(x)", "ok"];`, "keep [ok]"},

		// RFC 5490, RFC 8579, RFC 9042
		{"a folder", "mailbox", `if mailboxexists ["Work", "INBOX"] { discard; }`, `discard`},
		{"no such folder", "mailbox", `if mailboxexists ["Work", "None"] { discard; }`, `keep`},
		{"made", "mailbox fileinto", `fileinto :create "New";`, "fileinto New create"},
		{"by use", "special-use fileinto", `if allof (specialuse_exists "\\Junk", specialuse_exists "Spam" "\\Junk", not specialuse_exists "Work" "\\Junk") { fileinto :specialuse "\\Junk" "Elsewhere"; }`, `fileinto Elsewhere \Junk`},
		{"no such use", "special-use", `if specialuse_exists ["\\Junk", "\\Sent"] { discard; }`, "keep"},
		{"by identity", "mailboxid fileinto", `if mailboxidexists "F1" { fileinto :mailboxid "F1" "Work"; }`, "fileinto Work F1"},
		{"no such identity", "mailboxid", `if mailboxidexists ["F1", "F2"] { discard; }`, "keep"},
		{"an identity and a use", "fileinto mailboxid special-use", `fileinto :mailboxid "F1" :specialuse "\\Junk" "X";`, "x.sieve:2:26: :mailboxid and :specialuse exclude each other"},
		{"an annotation", "mboxmetadata", `if allof (metadata "Work" "/private/vendor/x" "on", metadataexists "Work" ["/private/vendor/x"], not metadata "Work" "/private/none" "") { discard; }`, `discard`},
		{"of the server", "servermetadata", `if allof (servermetadata :contains "/shared/admin" "post", servermetadataexists "/shared/admin", not servermetadataexists ["/shared/admin", "/none"]) { discard; }`, `discard`},

		// RFC 5429
		{"a refusal", "reject", `reject text:` + "\nNo, thanks.\nReally.\n.\n;", `reject "No, thanks.\r\nReally.\r\n"`},
		{"in the protocol", "ereject", `ereject "no";`, `ereject "no"`},
		{"not with keep", "reject", "keep;\nreject \"no\";", "keep\nfailure x.sieve:3: reject and, in line 2, keep exclude each other"},
		{"not with what was filed", "ereject fileinto", "ereject \"no\";\nfileinto \"X\";", "keep\nfailure x.sieve:3: fileinto and, in line 2, ereject exclude each other"},
		{"not with redirect", "reject", "redirect \"a@example.net\";\nreject \"no\";", "keep\nfailure x.sieve:3: reject and, in line 2, redirect exclude each other"},
		{"not with vacation", "reject vacation", "vacation \"away\";\nreject \"no\";", "keep\nfailure x.sieve:3: reject and, in line 2, vacation exclude each other"},
		{"not twice", "reject ereject", "reject \"no\";\nereject \"no\";", "keep\nfailure x.sieve:3: ereject after reject in line 2: the mail can be refused once"},
		{"but with discard", "reject", `discard; reject "no";`, "discard\nreject \"no\""},
		{"without a reason", "reject", `reject " ";`, `reject "the recipient does not take this mail"`},

		// RFC 5228, 4.2; RFC 3894; RFC 6134
		{"handed on", "", `redirect "A@example.net";`, "redirect A@example.net +X-Sieve-Redirected-From"},
		{"and kept", "copy", `redirect :copy "a@example.net"; redirect :copy "A@EXAMPLE.net";`, "redirect a@example.net +X-Sieve-Redirected-From\nkeep"},
		{"too often", "", `redirect "1@example.net"; redirect "2@example.net"; redirect "3@example.net"; redirect "4@example.net"; redirect "5@example.net"; redirect "6@example.net";`,
			"keep\nfailure x.sieve:2: the script redirects more than 5 times"},
		{"to a list", "extlists", `redirect :list "family";`, "redirect mum@example.net +X-Sieve-Redirected-From\nredirect dad@example.net +X-Sieve-Redirected-From"},
		{"to no list", "extlists", `redirect :list "none";`, "keep\nfailure x.sieve:2: there is no list \"none\" to redirect to"},
		{"to a long list", "extlists", `redirect :list "many";`, "keep\nfailure x.sieve:2: the list \"many\" has 6 addresses; the script may redirect 5 times, and 5 are left"},
		{"on a list", "extlists", `if header :list "subject" "greetings" { discard; }`, `discard`},
		{"not on it", "extlists", `if address :list "from" ["family", "none"] { discard; }`, `keep`},
		{"lists there are", "extlists", `if allof (valid_ext_list ["family", "many"], not valid_ext_list ["family", "none"]) { discard; }`, `discard`},

		// RFC 5293
		{"a field more", "editheader", `addheader "X-B" "b"; addheader :last "X-C" "c";`, "keep {X-B=b X-A=one X-A=two X-A=three X-C=c}"},
		{"a field less", "editheader", `deleteheader "X-A" ["two", "none"];`, "keep {X-A=one X-A=three}"},
		{"all of them", "editheader", `deleteheader "x-a";`, "keep {}"},
		{"by place", "editheader", `deleteheader :index 2 "X-A"; deleteheader :index 1 :last "X-A"; deleteheader :index 9 "X-A";`, "keep {X-A=one}"},
		{"by pattern", "editheader", `deleteheader :matches "X-A" "t*";`, "keep {X-A=one}"},
		{"by place and value", "editheader", `deleteheader :index 1 :is "X-A" "two";`, "keep"},
		{"as it was at that moment", "editheader fileinto copy", `fileinto :copy "before"; addheader "X-B" "b"; fileinto :copy "after"; deleteheader "X-A";`,
			"fileinto before\nfileinto after {X-B=b X-A=one X-A=two X-A=three}\nkeep {X-B=b}"},
		{"tests see it", "editheader", `addheader "X-B" "b"; deleteheader "Subject"; if allof (header "x-b" "b", not exists "subject") { discard; }`, `discard`},
		{"twice in a folder, changed between", "editheader fileinto", `fileinto "X"; addheader "X-B" "b"; fileinto "X";`, "fileinto X\nfileinto X {X-B=b X-A=one X-A=two X-A=three}"},
		{"traces stay", "editheader", `deleteheader "Received"; if not exists "received" { discard; }`, "keep\nnote 2: the field Received is not a script's to change"},
		{"so do fields of ours", "editheader variables", `set "x" "X-Sluice-Id"; addheader "${x}" "forged";`, "keep\nnote 2: the field X-Sluice-Id is not a script's to change"},
		{"no name", "editheader", `addheader "a b" "c"; deleteheader "d:";`, "x.sieve:2:11: \"a b\" is no name of a header field; write the name alone\nx.sieve:2:35: \"d:\" is no name of a header field; write the name alone"},
		{"no name by a variable", "editheader variables", `set "x" "a: b"; addheader "${x}" "c";`, "keep\nfailure x.sieve:2: \"a: b\" is no name of a header field"},
		{"match values stay", "editheader variables fileinto", `if header :matches "subject" "H*" { deleteheader :matches "X-A" "t*"; fileinto "${1}"; }`, "fileinto ello {X-A=one}"},
		{"counting fields", "editheader relational", `deleteheader :count "gt" "X-A" "1";`, "x.sieve:2:1: deleteheader looks at one field at a time, and cannot count them; use :index"},

		// RFC 5703
		{"another mail", "replace", `replace :subject "new" :from "me@example.org" "gone"; if allof (header "subject" "new", header "original-subject" "Hello", header "original-from" "Friend <friend@example.net>") { keep; }`,
			"keep {X-A=one X-A=two X-A=three}"},
		{"around the mail", "enclose mime foreverypart fileinto copy", `enclose :subject "Careful" :headers ["X-B: b", "Content-Type: x"] "There is a mail inside."; if header "subject" "Careful" { keep; }`,
			"x.sieve:2:48: \"Content-Type: x\" is no header field that enclose could add; write \"Name: value\"; what describes the content is enclose's own"},
		{"around the mail, well", "enclose", `enclose :subject "Careful" :headers ["X-B: b"] "There is a mail inside."; if header "subject" "Careful" { keep; }`, "keep {X-B=b}"},

		// RFC 5435, RFC 5436
		{"a notification", "enotify", `notify "mailto:phone@example.net";`, "notify <me@example.org> to phone@example.net: Hello\nkeep"},
		{"with a message", "enotify", `notify :message "mail" :importance "1" :from "Info <info@example.org>" :options "x=y" "mailto:a@example.net?subject=no&cc=b@example.net";`,
			"notify <me@example.org> to a@example.net,b@example.net: mail\nkeep"},
		{"the subject of the method", "enotify", `notify "mailto:a@example.net?subject=yes";`, "notify <me@example.org> to a@example.net: yes\nkeep"},
		{"from somebody else", "enotify", `notify :from "boss@example.net" "mailto:a@example.net";`,
			"notify <me@example.org> to a@example.net: Hello\nkeep\nnote 2: :from is not used: boss@example.net is none of the owner's addresses"},
		{"too often", "enotify", strings.Repeat(`notify "mailto:a@example.net"; `, 6), "keep\nfailure x.sieve:2: the script notifies more than 5 times"},
		{"no method", "enotify", `notify "sms:123"; notify :importance "4" "mailto:a@b.example";`,
			"x.sieve:2:8: \"sms:123\" is no method of notification: only mailto: is known; write for example notify \"mailto:me@example.org\"\n" +
				"x.sieve:2:38: \"4\" is no importance; there is \"1\" (high), \"2\" (normal), \"3\" (low)"},
		{"online", "enotify", `if allof (notify_method_capability "mailto:a@example.net" "Online" "maybe", not notify_method_capability "mailto:a@example.net" "other" "maybe") { discard; }`, `discard`},
		{"a copy of it", "enotify fcc mailbox imap4flags", `notify :fcc "Sent" :create :flags "\\Seen" "mailto:a@example.net";`,
			"notify <me@example.org> to a@example.net: Hello\nfileinto Sent [\\Seen] create content\nkeep"},

		// RFC 5230, RFC 6131, RFC 8580
		{"away", "vacation", `vacation "I am away.";`, "vacation <> to friend@example.net: Auto: Hello\nkeep"},
		{"away, at length", "vacation", `vacation :days 3 :subject "Away" :from "Info <info@example.org>" :addresses ["sales@example.org"] :handle "h" :mime "Content-Type: text/plain\n\nx";`,
			"vacation <> to friend@example.net: Away\nkeep"},
		{"seconds", "vacation-seconds", `vacation :seconds 1800 "away";`, "vacation <> to friend@example.net: Auto: Hello\nkeep"},
		{"days and seconds", "vacation-seconds", `vacation :seconds 1 :days 1 "away";`, "x.sieve:2:21: :seconds and :days exclude each other"},
		{"twice", "vacation", "vacation \"away\";\nvacation \"gone\";", "keep\nfailure x.sieve:3: vacation stands in line 2 already: the sender gets one reply"},
		{"from somebody else", "vacation", `vacation :from "boss@example.net" "away";`, "vacation <> to friend@example.net: Auto: Hello\nkeep\nnote 2: :from is not used: boss@example.net is none of the owner's addresses"},
		{"from nobody", "vacation", `vacation :from "me" :addresses "you" "away";`,
			"x.sieve:2:16: \"me\" is no mail address; write \"me@example.org\" or \"Me <me@example.org>\"\nx.sieve:2:32: \"you\" is no mail address; write the address alone"},
		{"nothing to say", "vacation", `vacation "";`, "vacation <> to friend@example.net: Auto: Hello\nkeep"},
		{"a copy of it", "vacation fcc special-use", `vacation :fcc "Sent" :specialuse "\\Sent" "away";`, "vacation <> to friend@example.net: Auto: Hello\nfileinto Sent \\Sent content\nkeep"},
		{"flags of no copy", "vacation imap4flags", `vacation :flags "a" "away";`, "x.sieve:2:17: vacation files nothing without :fcc; add :fcc \"Sent\""},
		{"and filed", "vacation fileinto", `vacation "away"; fileinto "X";`, "vacation <> to friend@example.net: Auto: Hello\nfileinto X"},

		// extprograms
		{"to a program", "vnd.dovecot.pipe", `pipe "learn" ["spam", "x y"];`, "pipe learn spam x y"},
		{"and kept", "vnd.dovecot.pipe copy", `pipe :copy :try "learn";`, "pipe learn try\nkeep"},
		{"to it twice", "vnd.dovecot.pipe copy", "pipe :copy \"learn\";\npipe \"other\";\npipe \"learn\";", "keep\nfailure x.sieve:4: the mail goes to the program \"learn\" in line 2 already"},
		{"to none", "vnd.dovecot.pipe variables", `pipe "lern"; set "x" "learn"; pipe "${x}";`,
			"x.sieve:2:6: there is no program \"lern\" for pipe; did you mean learn?\nx.sieve:2:36: the name of a program of pipe can have no variables"},
		{"not with reject", "vnd.dovecot.pipe reject", "pipe \"learn\";\nreject \"no\";", "keep\nfailure x.sieve:3: reject and, in line 2, pipe exclude each other"},
		{"filtered", "vnd.dovecot.filter", `filter "up";`, "keep {X-A=ONE X-A=TWO X-A=THREE}"},
		{"filtered, asked whether", "vnd.dovecot.filter", `if allof (filter "up", header :comparator "i;octet" "subject" "HELLO") { discard; }`, `discard`},
		{"a filter that fails", "vnd.dovecot.filter", `if filter "fails" { discard; }`, "keep\nnote 2: filter: the program \"fails\": exit status 1"},
		{"a filter that says nothing", "vnd.dovecot.filter", `filter "empty";`, "keep\nnote 2: filter: the program \"empty\" has written nothing: the mail stays as it is"},
		{"a filter that says something else", "vnd.dovecot.filter", `if not filter "odd" { discard; }`,
			"discard\nnote 2: filter: what the program \"odd\" has written is no mail, for it begins with no header field: the mail stays as it is"},
		{"a filter that writes no end of a header", "vnd.dovecot.filter editheader", `filter "vast"; addheader "X-B" "b";`,
			"keep {X-B=b X-A=one X-A=two X-A=three}\nnote 2: filter: what the program \"vast\" has written cannot be read as a mail, which stays as it is: " +
				"the header section is larger than 262144 octets"},
		{"executed", "vnd.dovecot.execute variables fileinto", `execute :input "in" :output "x" "echo" "a"; fileinto "${x}";`, "fileinto echo a in"},
		{"executed, the mail given", "vnd.dovecot.execute variables", `if execute :pipe :output "x" "echo" { if string :contains "${x}" "Hello" { discard; } }`, `discard`},
		{"executed badly", "vnd.dovecot.execute", `if not execute "fails" { discard; }`, "discard\nnote 2: execute: the program \"fails\": exit status 1"},
		{"two inputs", "vnd.dovecot.execute", `execute :pipe :input "x" "echo";`, "x.sieve:2:15: :pipe and :input exclude each other"},
		{"no variable", "vnd.dovecot.execute", `execute :output "x" "echo";`, `x.sieve:2:17: :output needs the extension "variables"; add require "variables"`},
		{"too many", "vnd.dovecot.execute", strings.Repeat(`execute "echo"; `, 6), "keep\nfailure x.sieve:2: the script runs programs more than 5 times"},
		{"a line end", "vnd.dovecot.execute encoded-character", `execute "echo" "a${hex: 0a}b";`, "keep\nfailure x.sieve:2: an argument of \"echo\" has more than 8192 octets, or a line end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var names []string
			for name := range strings.FieldsSeq(tt.require) {
				names = append(names, fmt.Sprintf("%q", name))
			}
			w := &world{
				folders: map[string]string{"INBOX": "", "Work": "", "Spam": `\Junk`}, ids: map[string]string{"F1": "Work"},
				metadata: map[string]string{"Work /private/vendor/x": "on", " /shared/admin": "mailto:postmaster"},
				lists:    map[string][]string{"family": {"mum@example.net", "dad@example.net"}, "many": {"1@a.b", "2@a.b", "3@a.b", "4@a.b", "5@a.b", "6@a.b"}, "greetings": {"Hello"}},
				programs: map[string]func(Program) string{
					"up":    func(p Program) string { return strings.ReplaceAll(strings.ToUpper(readText(t, p.Input)), "\r\n", "\n") },
					"odd":   func(Program) string { return "Sorry, I cannot do this.\n\nSubject: x\n" },
					"vast":  func(Program) string { return "X: " + strings.Repeat("x", 300<<10) + "\n\nhi\n" },
					"empty": func(Program) string { return " \n" },
					"echo": func(p Program) string {
						return strings.TrimSpace("echo " + strings.Join(p.Arguments, " ") + " " + readText(t, p.Input))
					},
				},
			}
			script := "require [" + strings.Join(names, ", ") + "];\n" + tt.script
			if len(names) == 0 {
				script = "\n" + tt.script
			}
			if got := told(t, script, w.input(t, extensionMail), Limits{}); got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.script, got, tt.want)
			}
		})
	}
}

func readText(t *testing.T, r io.Reader) string {
	t.Helper()
	if r == nil {
		return ""
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

package sieve_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/txtar"

	"sluice/pipeline/mime"
	"sluice/rules/sieve"
)

// scripts are those of the golden files, as seeds.
func scripts(f *testing.F) (all []string) {
	paths, err := filepath.Glob("testdata/errors/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, x := range a.Files {
			if strings.HasSuffix(x.Name, ".sieve") {
				all = append(all, string(x.Data))
			}
		}
	}
	if len(all) == 0 {
		f.Fatal(os.ErrNotExist)
	}
	return all
}

// Whatever the script, its problems lie inside it, are not more than wanted, and it is had only without errors.
func FuzzParse(f *testing.F) {
	for _, s := range scripts(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o := sieve.Options{Include: func(_ bool, name string) ([]byte, error) {
			if name == "me" {
				return []byte(text), nil
			}
			return nil, os.ErrNotExist
		}}
		script, problems := sieve.Compile("a", []byte(text), o)
		wrong := 0
		lines := strings.Count(text, "\n") + 1
		for _, p := range problems {
			if !p.Warning {
				wrong++
			}
			if p.Line < 0 || p.Line > lines || p.Line == 0 && p.Column != 0 || p.Line > 0 && (p.Column < 1 || p.Length < 1) {
				t.Errorf("%d lines, and a problem is at %d:%d+%d", lines, p.Line, p.Column, p.Length)
			}
			if p.Line > 0 {
				line := strings.Split(text, "\n")[p.Line-1]
				if p.Column > utf8.RuneCountInString(line)+1 {
					t.Errorf("line %d has %d characters, and a problem is at %d", p.Line, utf8.RuneCountInString(line), p.Column)
				}
			}
			if p.Text == "" || strings.Contains(p.Error(), "%!") || !utf8.ValidString(p.Error()+p.Excerpt()) {
				t.Errorf("a problem that says nothing: %q", p.Error())
			}
		}
		if (script == nil) != (wrong > 0) || len(problems) > 100 {
			t.Errorf("the script is there: %v, and there are %d errors of %d problems", script != nil, wrong, len(problems))
		}
	})
}

// Whatever script and mail, a run ends within its budget and leaves the mail somewhere unless the script says otherwise.
func FuzzRun(f *testing.F) {
	const all = `require ["variables", "relational", "comparator-i;ascii-numeric", "comparator-i;unicode-casemap", "envelope", "subaddress", ` +
		`"regex", "date", "index", "environment", "body", "ihave", "fileinto", "copy", "mime", "foreverypart", "extracttext", "encoded-character"]; `
	f.Add(`if header :matches "subject" "*a?b*" { fileinto "${1}${2}"; }`, letterToMe)
	f.Add(`foreverypart { extracttext :upper "a"; if string :regex "${a}" "(.)([a-c]+)*" { set :quotewildcard "b" "${b}${1}"; } } fileinto "${b}";`,
		"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\nabc\r\n--a--\r\n")
	f.Add(`if allof (address :user :comparator "i;unicode-casemap" "from" "ä", body :content "text" :contains "x") { redirect :copy "a@example.org"; }`, letterToMe)
	f.Add(`if date :index 1 :last "received" "iso8601" "2026" { discard; } if header :mime :anychild :param "name" "content-type" "x" { stop; }`, letterToMe)
	f.Fuzz(func(t *testing.T, text, mail string) {
		limits := sieve.Limits{Instructions: 20000, Memory: 64 << 10, VariableSize: 4096}
		script, _ := sieve.Compile("a", []byte(all+text), sieve.Options{Limits: limits})
		m, err := mime.Parse(strings.NewReader(mail), int64(len(mail)), mime.Limits{})
		if script == nil || err != nil {
			return
		}
		in := sieve.Input{Message: m, Now: time.Unix(1700000000, 0).UTC(), Envelope: sieve.Envelope{From: "a@example.org", To: "me+x@example.org"}, Trace: true}
		out := script.Run(t.Context(), in)
		kept, gone := out.Kept(), false
		for _, a := range out.Actions {
			gone = gone || a.Kind != sieve.Keep && a.Kind != sieve.FileInto
			if a.Kind == sieve.FileInto && (a.Folder == "" || strings.ContainsAny(a.Folder, "\r\n\x00")) {
				t.Errorf("filed into %q", a.Folder)
			}
		}
		if !kept && !gone || out.Failure != nil && (!kept || gone || len(out.Actions) != 1) {
			t.Errorf("failure %v, actions %v", out.Failure, out.Actions)
		}
		in.Trace = false
		if again := script.Run(t.Context(), in); said(again) != said(out) || again.Instructions != out.Instructions {
			t.Errorf("%s, and once more %s", said(out), said(again))
		}
	})
}

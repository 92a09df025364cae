package program

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/scripts"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/rules/sieve"
)

// inboxes keep what is delivered, or fail.
type inboxes struct {
	err  error
	mail []string
}

func (b *inboxes) Deliver(_ context.Context, items []mailstore.Item) ([]mailstore.Placed, error) {
	if b.err != nil {
		return nil, b.err
	}
	for _, x := range items {
		text, err := io.ReadAll(x.Content)
		if err != nil {
			return nil, err
		}
		b.mail = append(b.mail, x.Account+" "+x.Folder+"\n"+string(text))
	}
	return nil, nil
}

// The owner of a script that fails gets one mail a day about it, and all of it is in the log.
func TestFailingScriptsAreTold(t *testing.T) {
	log, err := scripts.OpenLog(scripts.LogConfig{Users: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	box := &inboxes{err: errors.New("the disk is on fire")}
	r := scriptReporter{log: log, store: box, hostname: "mx.example.org", now: time.Now, say: slog.New(slog.NewTextHandler(&said, nil))}
	p := mailstore.ScriptProblem{
		Script: "büro\r\nBcc: you@example.org", Line: 14, Text: "the script redirects more than 5 times\x1b[2J", ID: "abc123", MessageID: "<1@b.example>",
	}
	r.report(t.Context(), "me@example.org", p)
	if !strings.Contains(said.String(), "may not learn") {
		t.Errorf("nobody is told that the owner is not: %s", said.String())
	}
	box.err = nil
	r.report(t.Context(), "me@example.org", p)
	r.report(t.Context(), "me@example.org", p)
	if list, err := log.Problems(t.Context(), "me@example.org"); err != nil || len(list) != 3 {
		t.Errorf("the log has %v, %v", list, err)
	}
	if len(box.mail) != 1 {
		t.Fatalf("%d mails", len(box.mail))
	}
	where, text, _ := strings.Cut(box.mail[0], "\n")
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), config.Default().Limits.MIME())
	if err != nil {
		t.Fatal(err)
	}
	if where != "me@example.org " || m.Subject() != `Your script "büro\\r\\nBcc: you@example.org" has a problem at line 14` ||
		!strings.Contains(text, "\nAuto-Submitted: auto-generated\r\n") || strings.Contains(text, "\nBcc:") || strings.ContainsAny(text, "\x1b") {
		t.Errorf("for %s:\n%s", where, text)
	}
	for _, want := range []string{"It stopped at line 14:", "the script redirects more than 5 times", "<1@b.example>", "under abc123"} {
		if !strings.Contains(text, strings.ReplaceAll(want, "=", "=3D")) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

// What users may keep is checked by what will run it.
func TestScriptsAreCheckedAsTheyRun(t *testing.T) {
	kept, err := scripts.Open(scripts.Config{
		Users: t.TempDir(), Exists: func(context.Context, string) (bool, error) { return true, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	const me = "me@example.org"
	if err := kept.Put(t.Context(), me, "other", []byte("nonsense;")); err != nil {
		t.Fatal(err)
	}
	own := sieve.DefaultConfig()
	own.Off = []string{"enotify"}
	own.Limits.Redirects = 2
	c := config.Default()
	c.Pipeline = []pipeline.Step{{Kind: sieve.StepKind(), Config: &own}}
	checker := newScriptChecker(c, kept)
	for _, tt := range []struct{ text, problem, warning string }{
		{"keep;", "", ""},
		{`require "enotify";`, `mine: line 1: column 9: the extension "enotify" is switched off here`, ""},
		{"keep;\r\nnonsense;", `mine: line 2: column 1: `, ""},
		{"require \"include\";\r\ninclude \"other\";", "in the included other, line 1, column 1: ", ""},
		{"require \"include\";\r\ninclude \"later\";", "", "mine: line 2: column "},
		{"require \"include\";\r\ninclude :global \"later\";", "", "mine: line 2: column "},
	} {
		warnings, problems := checker.check(t.Context(), me, "mine", []byte(tt.text))
		if !strings.Contains(strings.Join(problems, "\n"), tt.problem) || (tt.problem == "") != (len(problems) == 0) ||
			!strings.Contains(strings.Join(warnings, "\n"), tt.warning) || (tt.warning == "") != (len(warnings) == 0) {
			t.Errorf("%q: problems %q, warnings %q", tt.text, problems, warnings)
		}
	}
	// Where there is no such step.
	c.Pipeline = nil
	if w := unrun(c); len(w) != 0 {
		t.Errorf("without a door: %q", w)
	}
	c.Listen.ManageSieve = config.DefaultListen().ManageSieve
	if w := unrun(c); len(w) != 1 {
		t.Errorf("with a door and no step: %q", w)
	}
}

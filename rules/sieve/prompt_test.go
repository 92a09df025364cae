package sieve

import (
	"context"
	"reflect"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// rich is an account with everything that scripts may have to wait for.
type rich struct{ *owners }

func (rich) Known(string) bool               { return true }
func (rich) Has(string, string) bool         { return true }
func (rich) Members(string) ([]string, bool) { return []string{"a@example.org"}, true }
func (rich) Programs() *Programs             { return &Programs{Execute: []string{"ask"}} }

func (rich) Run(context.Context, Program) ([]byte, error) { return []byte("y"), nil }

// Scripts that look nothing up are run at once, with the same outcome; others wait, and leave nothing behind until then.
func TestPrompt(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		prompt       bool
	}{
		{"none", "", true},
		{"files", `require "fileinto"; if header :contains "Subject" "hello" { fileinto :flags "\\Seen" "A"; }`, true},
		{"includes", `require ["include", "fileinto"]; include "more";`, true},
		{"fails", `require ["variables", "fileinto"]; fileinto "${nothing}";`, true},
		{"redirects", `require "copy"; redirect :copy "b@example.org";`, true},
		{"refuses", `require "reject"; reject "no";`, true},
		{"looks for a folder", `require ["mailbox", "fileinto"]; if mailboxexists "A" { fileinto "A"; }`, false},
		{"files by identity", `require ["mailboxid", "fileinto"]; fileinto :mailboxid "i1" "B";`, false},
		{"files by use", `require ["special-use", "fileinto"]; fileinto :specialuse "\\Junk" "B";`, false},
		{"asks for an annotation", `require "mboxmetadata"; if metadata "INBOX" "/private/x" "v" { discard; }`, false},
		{"was here before", `require "duplicate"; if duplicate { discard; }`, false},
		{"answers", `require "vacation"; vacation "away";`, false},
		{"looks into a list", `require ["extlists", "envelope"]; if envelope :list "from" "friends" { discard; }`, false},
		{"runs a program", `require "vnd.dovecot.execute"; if execute "ask" { discard; }`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := pipelinetest.Env(t)
			o := &owners{
				scripts:  map[string]string{},
				includes: map[string]string{"more": `require "fileinto"; fileinto "A";`},
				folders:  []pipeline.OwnFolder{{Name: "A", Use: `\Junk`}},
				ids:      map[string]string{"i1": "A"},
				notes:    map[string]string{"INBOX /private/x": "v"},
			}
			if env.Owners = (rich{o}); tt.script != "" {
				o.scripts[me] = tt.script
			}
			s, err := newStage(DefaultConfig(), env)
			if err != nil {
				t.Fatal(err)
			}
			v := pipeline.View{Message: pipelinetest.Parse(t, hello), Rcpt: pipeline.Recipient{Address: pipelinetest.Address(t, me), Account: me}}
			v.Sender = pipelinetest.Address(t, "a@client.example")
			v.ID, v.Received = "1", time.Unix(1e9, 0)
			if _, ok := s.Prompt(t.Context(), v); ok != (tt.script == "") {
				t.Fatalf("before it is compiled: %v", ok)
			}
			if _, _, err := s.turns(t.Context(), me, false); err != nil { // compiles it
				t.Fatal(err)
			}
			for range 2 {
				at, ok := s.Prompt(t.Context(), v)
				if ok != tt.prompt {
					t.Fatalf("at once: %v, want %v", ok, tt.prompt)
				}
				if len(s.pending.by) > 0 {
					t.Errorf("claimed by a run that counts for nothing: %v", s.pending.by)
				}
				if ok {
					want, err := s.Check(t.Context(), v)
					if at.After, want.After = nil, nil; err != nil || !reflect.DeepEqual(at, want) {
						t.Errorf("at once %+v\nlater   %+v, %v", at, want, err)
					}
				}
			}
			if !tt.prompt {
				if _, err := s.Check(t.Context(), v); err != nil {
					t.Errorf("where it may wait: %v", err)
				}
			}
		})
	}
}

// What cannot be read is for Check to fail with.
func TestPromptUnread(t *testing.T) {
	env := pipelinetest.Env(t)
	env.Owners = &owners{err: context.DeadlineExceeded}
	s, err := newStage(DefaultConfig(), env)
	if err != nil {
		t.Fatal(err)
	}
	v := pipeline.View{Message: pipelinetest.Parse(t, hello), Rcpt: pipeline.Recipient{Account: me}}
	if _, ok := s.Prompt(t.Context(), v); ok {
		t.Error("it answers")
	}
}

package sieve_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/pipeline/mime"
	"sluice/rules/sieve"
)

// testdata is the folder with the shared test data; the test is skipped where there is none.
func testdata(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SLUICE_TESTDATA")
	if dir == "" {
		t.Skip("SLUICE_TESTDATA is not set")
	}
	return filepath.Join(dir, "sieve")
}

// parseMail makes a message of a text with line ends of one kind.
func parseMail(t testing.TB, text string) *mime.Message {
	t.Helper()
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCases runs scripts that were made of Pigeonhole's test suite: each files the mail into PASS.
func TestCases(t *testing.T) {
	f, err := os.Open(filepath.Join(testdata(t), "cases.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	n := 0
	for lines.Scan() {
		var c struct {
			ID       string
			Envelope struct{ From, To, Auth string }
			Message  string
			Script   string
			Expect   string
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		n++
		t.Run(c.ID, func(t *testing.T) {
			script, problems := sieve.Compile("case.sieve", []byte(c.Script), sieve.Options{})
			for _, p := range problems {
				if !p.Warning {
					t.Errorf("%v\n%s", p, p.Excerpt())
				}
			}
			if script == nil {
				return
			}
			in := sieve.Input{
				Now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), Message: parseMail(t, c.Message), Trace: true,
				Envelope:    sieve.Envelope{From: c.Envelope.From, To: c.Envelope.To, Auth: c.Envelope.Auth},
				Environment: map[string]string{"location": "MDA"},
			}
			out := script.Run(t.Context(), in)
			if out.Failure != nil {
				t.Errorf("failure: %v", out.Failure)
			}
			for _, a := range out.Actions {
				if a.Kind == sieve.FileInto {
					if a.Folder != c.Expect {
						t.Errorf("filed into %s, want %s\n%s\n%v", a.Folder, c.Expect, c.Script, out.Trace)
					}
					return
				}
			}
			t.Errorf("filed nowhere: %v", out.Actions)
		})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if n != 152 {
		t.Errorf("there are %d cases, want 152", n)
	}
}

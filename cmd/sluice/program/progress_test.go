package program

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	g := &progress{w: &out, what: "mails", total: 1000, now: func() time.Time { return now }, began: now}
	now = now.Add(time.Second)
	g.at(100)
	g.at(101) // too soon
	now = now.Add(4 * time.Second)
	g.at(500)
	now = now.Add(5 * time.Second)
	g.at(1000)
	g.end()
	g.end()
	want := "\r[###                           ]  10%  100 of 1000 mails, 100/s, 9s left" +
		"\r[###############               ]  50%  500 of 1000 mails, 100/s, 5s left" +
		"\r[##############################] 100%  1000 of 1000 mails, 100/s" + strings.Repeat(" ", len("x, 5s left")-len("xx")) +
		"\r" + strings.Repeat(" ", len("[##############################] 100%  1000 of 1000 mails, 100/s")) + "\r"
	if got := out.String(); got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestProgressOfUnknownLength(t *testing.T) {
	g := &progress{what: "records"}
	for _, tt := range []struct {
		n    int
		took time.Duration
		want string
	}{{0, 0, "0 records, 0/s"}, {50, 2 * time.Second, "50 records, 25/s"}} {
		if got := g.line(tt.n, tt.took); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	g.total = 10
	if got, want := g.line(20, time.Second), "[##############################] 100%  20 of 10 records, 20/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNoProgressInAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	g := (&program{stderr: w}).newProgress("mails", 10)
	g.at(1)
	g.end()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(r); err != nil || got.Len() > 0 {
		t.Errorf("%q, %v", got.String(), err)
	}
	(&program{stderr: &got}).newProgress("mails", 10).at(1)
	if got.Len() > 0 {
		t.Errorf("%q", got.String())
	}
}

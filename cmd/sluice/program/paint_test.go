package program

import (
	"os"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

// In a pipe text is plain and unfolded, whatever the environment says; colours are only there if they are asked for.
func TestColourOutsideATerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	t.Setenv("COLUMNS", "50")
	for _, noColor := range []string{"", "1"} {
		t.Setenv("NO_COLOR", noColor)
		for colour, want := range map[string]bool{"auto": false, "never": false, "always": true} {
			for _, p := range []*program{{stdout: w, now: time.Now}, {stdout: new(strings.Builder), now: time.Now}} {
				x := newText(p, colour)
				if x.colour != want || x.width != 0 {
					t.Errorf("%s with NO_COLOR=%q: colours %v, width %d", colour, noColor, x.colour, x.width)
				}
			}
		}
	}
}

func TestWidthOfATerminal(t *testing.T) {
	null, err := os.Open(os.DevNull) // it does not say how wide it is
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for columns, want := range map[string]int{"": anyWidth, "wide": anyWidth, "100": 100, "5": leastWidth, "-1": leastWidth, "9999": mostWidth} {
		t.Setenv("COLUMNS", columns)
		if got := terminalWidth(null); got != want {
			t.Errorf("COLUMNS=%s: %d, want %d", columns, got, want)
		}
	}
}

// Times are shown as whoever reads would write them for --at.
func TestTimesAreLocal(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.FixedZone("", 5*3600+1800))
	var b strings.Builder
	x := newText(&program{stdout: &b, now: func() time.Time { return now }}, "never")
	r := &pipeline.Record{ID: "m1", Received: now.Add(-time.Hour).UTC(), Door: pipeline.SMTP}
	x.oneLine(r, "")
	x.record(r, nil)
	for _, want := range []string{"2026-11-22 02:00:00  m1 ", "received   2026-11-22T02:00:00+05:30 at smtp"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
}

package program

import (
	"net/textproto"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// talk ADDRESS FILE speaks SMTP: it sends what stands behind "C: " in the file, and wants each reply that stands behind
// "S: ", its last line, as far as it is given.
func talkScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: talk ADDRESS FILE")
	}
	c, err := textproto.Dial("tcp", args[0])
	ts.Check(err)
	defer c.Close()
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		line = strings.TrimRight(line, "\n")
		if say, ok := strings.CutPrefix(line, "C: "); ok {
			ts.Check(c.PrintfLine("%s", say))
			continue
		}
		want, ok := strings.CutPrefix(line, "S: ")
		if !ok {
			ts.Fatalf("%q begins with neither C: nor S:", line)
		}
		var got string
		for { // the lines above the last have a "-" behind the code
			got, err = c.ReadLine()
			ts.Check(err)
			if len(got) < 4 || got[3] != '-' {
				break
			}
		}
		if !strings.HasPrefix(got, want) {
			ts.Fatalf("the server says %q, not %q", got, want)
		}
	}
}

package program

import (
	"cmp"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A style is how a part of a text looks on a terminal.
type style string

const (
	unstyled style = ""
	bold     style = "1"
	faint    style = "2"
	red      style = "31"
	green    style = "32"
	yellow   style = "33"
	magenta  style = "35"
)

// painted returns s in a style, if the text has colours.
func (t *text) painted(s string, how style) string {
	if !t.colour || how == unstyled || s == "" {
		return s
	}
	return "\x1b[" + string(how) + "m" + s + "\x1b[0m"
}

// newText returns a text for what the program prints. On a terminal it is as wide as that, and has colours unless NO_COLOR forbids it
// (no-color.org); in a pipe it is plain and each thing stays on its line. colour is auto, always or never.
func newText(p *program, colour string) *text {
	t := &text{w: p.stdout, zone: p.now().Location()}
	f, ok := p.stdout.(*os.File)
	terminal := ok && isTerminal(f)
	switch colour {
	case "always":
		t.colour = true
	case "never":
	default:
		t.colour = terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	if terminal {
		t.width = terminalWidth(f)
	}
	return t
}

// Widths of a terminal in which text is folded; outside of them it is folded as if they were these.
const (
	leastWidth = 40
	mostWidth  = 140
	anyWidth   = 80
)

func terminalWidth(f *os.File) int {
	columns := columnsOf(f)
	if columns == 0 { // some say so
		columns, _ = strconv.Atoi(cmp.Or(os.Getenv("COLUMNS"), "0")) // what is no number is no width
	}
	return min(max(cmp.Or(columns, anyWidth), leastWidth), mostWidth)
}

// fold breaks s into lines of at most width characters: at spaces where there are any.
func fold(s string, width int) (lines []string) {
	for utf8.RuneCountInString(s) > width && width > 0 {
		end := len(string([]rune(s)[:width+1]))
		at := strings.LastIndexByte(s[:end], ' ')
		next := at + 1
		if at <= end/3 { // a word that is longer than the line
			at = len(string([]rune(s)[:width]))
			next = at
		}
		lines = append(lines, strings.TrimRight(s[:at], " "))
		s = strings.TrimLeft(s[next:], " ")
	}
	return append(lines, s)
}

package program

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A progress shows on a terminal how far a long piece of work has come: a bar, how much of it a second, and how long it
// will take. The zero progress, and one that is not on a terminal, shows nothing. It is used by one goroutine.
type progress struct {
	w     io.Writer // nil: nowhere
	what  string    // "mails"
	total int       // 0: unknown
	now   func() time.Time

	began, shown time.Time
	width        int // of what is shown
}

// newProgress returns a progress on the program's standard error, if that is a terminal.
func (p *program) newProgress(what string, total int) *progress {
	g := &progress{what: what, total: total, now: time.Now}
	if f, ok := p.stderr.(*os.File); ok && isTerminal(f) {
		g.w = f
	}
	g.began = g.now()
	return g
}

// progressEvery is how often the line is drawn anew.
const progressEvery = 200 * time.Millisecond

// at shows that n of them are done, unless that was shown just now.
func (g *progress) at(n int) {
	if g.w == nil {
		return
	}
	now := g.now()
	if now.Sub(g.shown) < progressEvery {
		return
	}
	g.shown = now
	line := g.line(n, now.Sub(g.began))
	fmt.Fprintf(g.w, "\r%s%s", line, strings.Repeat(" ", max(0, g.width-len(line))))
	g.width = len(line)
}

// line is "[#####     ]  50%  500 of 1000 mails, 100/s, 5s left".
func (g *progress) line(n int, took time.Duration) string {
	rate := 0.0
	if took > 0 {
		rate = float64(n) / took.Seconds()
	}
	if g.total <= 0 {
		return fmt.Sprintf("%d %s, %.0f/s", n, g.what, rate)
	}
	const cells = 30
	done := min(1, float64(n)/float64(g.total))
	full := int(done * cells)
	s := fmt.Sprintf("[%s%s] %3.0f%%  %d of %d %s, %.0f/s", strings.Repeat("#", full), strings.Repeat(" ", cells-full),
		done*100, n, g.total, g.what, rate)
	if rate > 0 && n < g.total {
		s += ", " + time.Duration(float64(g.total-n)/rate*float64(time.Second)).Round(time.Second).String() + " left"
	}
	return s
}

// end takes the line off the terminal.
func (g *progress) end() {
	if g.w != nil && g.width > 0 {
		fmt.Fprintf(g.w, "\r%s\r", strings.Repeat(" ", g.width))
		g.width = 0
	}
}

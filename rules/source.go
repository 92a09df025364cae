package rules

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A source is text that rules were written in: a file, or a part of the configuration.
type source struct {
	path  string // "" for the configuration
	lines []string
	only  int // lines is this one line alone; 0: it is all
	// garbled are lines that are not UTF-8. Nothing else is said of them: what they mean is not known.
	garbled map[int]bool
}

func newSource(path, text string) *source {
	return &source{path: path, lines: strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")}
}

func (s *source) lineText(n int) string {
	if s.only > 0 && n == s.only {
		return s.lines[0]
	}
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}

// maxAnchors bounds anchors, for which the YAML parser takes quadratic time. Rules use none: so many are no accident.
const maxAnchors = 2000

// maxNesting bounds brackets or dashes on one line: the YAML parser takes quadratic time for them.
const maxNesting = 64

// parseFile reads the one YAML document of a file, nil for an empty one. What is wrong is reported.
func parseFile(src *source, text []byte, most int, r *reporter) ast.Node {
	at := spot{src: src}
	switch {
	case len(text) > most: // the YAML parser holds many times as much
		r.report(at, "", fmt.Sprintf("the file has %d octets", len(text)), fmt.Sprintf("at most %d are read; use several files", most))
		return nil
	case !utf8.Valid(text):
		text = bytes.ToValidUTF8(text, []byte("?"))
		src.notUTF8(r)
	}
	if rest, ok := bytes.CutPrefix(text, []byte("\ufeff")); ok {
		text, src.lines[0] = rest, strings.TrimPrefix(src.lines[0], "\ufeff")
		r.report(spot{src, 1, 1, 1}, "", "the file begins with a byte order mark", "save it as UTF-8 without one")
	}
	for i, line := range src.lines {
		if column := tooNested(line); column > 0 {
			r.report(spot{src, i + 1, column, 1}, "", fmt.Sprintf("more than %d levels of nesting in one line", maxNesting), "")
			return nil
		}
	}
	if i := bytes.Index(text, []byte(": &")); i >= 0 && bytes.Count(text, []byte(": &")) > maxAnchors {
		before := text[:i+2]
		at.line, at.length = bytes.Count(before, []byte("\n"))+1, 1
		at.column = utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
		r.report(at, "", "anchors and aliases are not used in rules", "write it out")
		return nil
	}
	file, err := parseYAML(text)
	if err != nil && tabs(src, r) {
		return nil
	}
	if err != nil {
		var text, remedy string
		var y interface {
			GetToken() *token.Token
			GetMessage() string
		}
		if errors.As(err, &y) {
			text = y.GetMessage()
			if tk := y.GetToken(); tk != nil && tk.Position != nil {
				at.line, at.column, at.length = tk.Position.Line, tk.Position.Column, 1
			}
		} else {
			text = err.Error() // that of the parser draws the file, for seconds
		}
		if strings.Contains(text, "mapping value is not allowed") {
			remedy = "put text that contains `: ` in quotes"
		}
		if remedy == "" && strings.Contains(src.lineText(at.line), "when:") {
			remedy = "put the condition in quotes"
		}
		r.report(at, "", "not YAML: "+text, remedy)
		return nil
	}
	if len(file.Docs) > 1 {
		at.line, at.column, at.length = 1, 1, 1
		if start := file.Docs[1].Start; start != nil && start.Position != nil {
			at.line, at.column, at.length = start.Position.Line, start.Position.Column, 3
		}
		r.report(at, "", "the file holds several documents", "take the `---` out, or use several files")
		return nil
	}
	if len(file.Docs) == 0 {
		return nil
	}
	return file.Docs[0].Body
}

// notUTF8 reports the lines that are not UTF-8.
func (s *source) notUTF8(r *reporter) {
	const most = 10
	garbled := map[int]bool{}
	for i, line := range s.lines {
		if utf8.ValidString(line) {
			continue
		}
		if s.lines[i] = strings.ToValidUTF8(line, "?"); len(garbled) < most {
			r.report(spot{s, i + 1, notUTF8(line), 1}, "", "the file is not UTF-8", "save it in that encoding")
		}
		garbled[i+1] = true
	}
	s.garbled = garbled
}

// notUTF8 returns the first column of a line that is not UTF-8.
func notUTF8(line string) int {
	column := 1
	for i, c := range line {
		if c == utf8.RuneError && !strings.HasPrefix(line[i:], "\ufffd") {
			break
		}
		column++
	}
	return column
}

// tabs reports tabs in the indentation, which YAML forbids and the parser speaks of in riddles.
func tabs(src *source, r *reporter) (found bool) {
	const most = 10
	n := 0
	for i, line := range src.lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		at := strings.IndexByte(indent, '\t')
		if at < 0 || n == most {
			continue
		}
		n++
		r.report(spot{src, i + 1, at + 1, len(indent) - at}, "", "a tab in the indentation", "use spaces")
	}
	return n > 0
}

// parseYAML is the library's parser without its panics.
func parseYAML(text []byte) (f *ast.File, err error) {
	defer func() {
		if x := recover(); x != nil {
			f, err = nil, fmt.Errorf("the parser gave up: %v", x)
		}
	}()
	// Keys that occur twice are found by us, all of them and with a remedy.
	return parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
}

// tooNested returns the column at which a line opens too many brackets or sequences, 0 if it does not.
func tooNested(line string) int {
	depth := 0
	for i, c := range line {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '-':
			if strings.HasPrefix(line[i:], "- ") && strings.Trim(line[:i], "- ") == "" {
				depth++
			}
		}
		if depth > maxNesting {
			return utf8.RuneCountInString(line[:i]) + 1
		}
	}
	return 0
}

// sourceOf puts together the text that a node was read from, which its tokens still hold.
func sourceOf(n ast.Node) *source {
	tk := n.GetToken()
	if tk == nil {
		return newSource("", "")
	}
	for tk.Prev != nil {
		tk = tk.Prev
	}
	var b strings.Builder
	for ; tk != nil; tk = tk.Next {
		b.WriteString(tk.Origin)
	}
	return newSource("", b.String())
}

// spotOf is the place of a node.
func (s *source) spotOf(n ast.Node) spot {
	at := spot{src: s, line: 1, column: 1, length: 1}
	if n == nil {
		return at
	}
	first := n
	for {
		// The token of a mapping is the colon of its first entry.
		if m, ok := first.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
			first = m.Values[0].Key
			continue
		}
		if m, ok := first.(*ast.MappingValueNode); ok {
			first = m.Key
			continue
		}
		break
	}
	tk := first.GetToken()
	if tk == nil || tk.Position == nil {
		return at
	}
	at.line, at.column = tk.Position.Line, max(1, tk.Position.Column)
	if _, ok := first.(ast.ScalarNode); ok {
		at.length = max(1, utf8.RuneCountInString(tk.Value))
		if tk.Type == token.DoubleQuoteType || tk.Type == token.SingleQuoteType {
			at.length += 2
		}
	}
	if rest := utf8.RuneCountInString(s.lineText(at.line)) - at.column + 1; rest > 0 {
		at.length = min(at.length, rest)
	}
	return at
}

// places maps each character of a scalar's text to where it is written, so that what is wrong inside a condition has a
// line and a column of the file. Where it cannot tell (an escape it does not know) it stays at the last place it knew.
func (s *source) places(n ast.Node, text []rune) []spot {
	at := s.spotOf(n)
	c := cursor{src: s, line: at.line, column: at.column}
	if _, ok := n.(*ast.LiteralNode); ok {
		c.line, c.column = c.line+1, 1
	} else if r := c.char(); r == '\'' || r == '"' {
		if tk := n.GetToken(); tk.Type == token.DoubleQuoteType || tk.Type == token.SingleQuoteType {
			c.quote = r
			c.next()
		}
	}
	out := make([]spot, len(text)+1)
	lost := false
	for i, want := range text {
		for !lost {
			r := c.char()
			if c.quote == '"' && r == '\\' {
				break
			}
			if r == want {
				break
			}
			if want == ' ' && r == '\n' || r < 0 {
				break
			}
			if unicode.IsSpace(r) {
				c.next()
				continue
			}
			lost = true
		}
		out[i] = spot{s, c.line, c.column, 1}
		if lost {
			continue
		}
		switch r := c.char(); {
		case r < 0:
			lost = true
		case c.quote == '"' && r == '\\':
			c.next()
			if c.char() == '\n' { // an escaped line end stands for nothing
				c.next()
			}
			c.next()
			if e := c.back(); e == 'x' || e == 'u' || e == 'U' {
				lost = true
			}
		case c.quote == '\'' && r == '\'':
			c.next()
			c.next()
		default:
			c.next()
		}
	}
	out[len(text)] = spot{s, c.line, c.column, 1}
	return out
}

// A cursor walks over the characters of a source.
type cursor struct {
	src          *source
	line, column int
	quote        rune
	cached       []rune
	cachedLine   int
}

func (c *cursor) runes() []rune {
	if c.cachedLine != c.line {
		c.cached, c.cachedLine = []rune(c.src.lineText(c.line)), c.line
	}
	return c.cached
}

// char is the character under the cursor, '\n' at the end of a line, negative at the end.
func (c *cursor) char() rune {
	if c.line > len(c.src.lines) {
		return -1
	}
	if text := c.runes(); c.column <= len(text) {
		return text[c.column-1]
	}
	return '\n'
}

func (c *cursor) next() {
	if c.column > len(c.runes()) {
		c.line, c.column = c.line+1, 1
		return
	}
	c.column++
}

// back is the character before the cursor on its line.
func (c *cursor) back() rune {
	if text := c.runes(); c.column >= 2 && c.column-2 < len(text) {
		return text[c.column-2]
	}
	return '\n'
}

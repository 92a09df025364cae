package content

import (
	"strconv"
	"strings"

	"golang.org/x/net/html/atom"
)

// A hiding is a way of keeping text from the reader.
type hiding byte

const (
	hidClipped hiding = iota + 1
	hidColour
	hidDisplay
	hidOpacity
	hidPosition
	hidSize
	hidVisibility
	howMany
)

var hidingNames = [...]string{"", "clipped", "colour", "display", "opacity", "position", "size", "visibility"}

// A colour is known or not; text in an unknown one is taken for visible.
type colour struct {
	r, g, b uint8
	known   bool
}

func black() colour { return colour{known: true} }

func white() colour { return colour{255, 255, 255, true} }

// like reports whether nobody can tell two colours apart.
func (c colour) like(d colour) bool {
	const near = 6
	diff := func(a, b uint8) bool { return max(a, b)-min(a, b) <= near }
	return c.known && d.known && diff(c.r, d.r) && diff(c.g, d.g) && diff(c.b, d.b)
}

// A decl is what declarations of CSS say that matters here.
type decl struct {
	hidden   hiding
	shown    bool // display or visibility says that it is not hidden
	tiny     bool
	sized    bool // it has a size that can be read
	colour   colour
	back     colour
	noBack   bool // its background is one that is not known
	overflow bool
	width1   bool
	height1  bool
	absolute bool
	away     bool
	indent   bool
}

// declarations reads declarations of CSS. Of two of a kind the last counts.
func declarations(s string) (d decl) {
	const longest = 8 << 10
	s = s[:min(len(s), longest)]
	zeroBox := false
	for s != "" {
		var one string
		one, s, _ = strings.Cut(s, ";")
		key, value, ok := strings.Cut(one, ":")
		if !ok {
			continue
		}
		key = strings.TrimSpace(key)
		value = strings.TrimSpace(value)
		if i := strings.IndexByte(value, '!'); i >= 0 {
			value = strings.TrimSpace(value[:i])
		}
		switch lowerASCII(key) {
		case "display":
			if d.shown = !strings.EqualFold(value, "none"); !d.shown {
				d.hidden = hidDisplay
			} else if d.hidden == hidDisplay {
				d.hidden = 0
			}
		case "visibility":
			if strings.EqualFold(value, "hidden") || strings.EqualFold(value, "collapse") {
				d.hidden = hidVisibility
			}
		case "opacity":
			if v, err := strconv.ParseFloat(strings.TrimSuffix(value, "%"), 64); err == nil && v < 0.05 {
				d.hidden = hidOpacity
			}
		case "font-size":
			d.font(value)
		case "font":
			for _, w := range strings.Fields(value) {
				w, _, _ = strings.Cut(w, "/")
				if w != "" && (w[0] >= '0' && w[0] <= '9' || w[0] == '.') && strings.TrimLeft(w, "0123456789.") != "" {
					d.font(w)
				}
			}
		case "color":
			d.colour = parseColour(value)
		case "background-color", "background":
			if c := parseColour(value); c.known {
				d.back = c
			} else if !strings.EqualFold(value, "none") && !strings.EqualFold(value, "transparent") && !strings.EqualFold(value, "inherit") {
				d.noBack = true
			}
		case "overflow":
			d.overflow = strings.EqualFold(value, "hidden")
		case "max-height", "height":
			if n, ok := pixels(value); ok {
				zeroBox = zeroBox || n == 0
				d.height1 = d.height1 || n <= 1
			}
		case "max-width", "width":
			if n, ok := pixels(value); ok {
				zeroBox = zeroBox || n == 0
				d.width1 = d.width1 || n <= 1
			}
		case "position":
			d.absolute = strings.EqualFold(value, "absolute") || strings.EqualFold(value, "fixed")
		case "text-indent", "left", "top":
			if n, ok := pixels(value); ok && n <= -500 {
				d.away, d.indent = true, d.indent || len(key) > len("left")
			}
		}
	}
	if d.hidden == 0 {
		switch {
		case zeroBox && d.overflow:
			d.hidden = hidClipped
		case d.indent, d.absolute && d.away:
			d.hidden = hidPosition
		}
	}
	return d
}

// font takes a size of letters: what has less than two pixels nobody reads.
func (d *decl) font(value string) {
	n, unit := number(value)
	switch unit {
	case "px", "pt", "":
		d.sized, d.tiny = true, n < 2 && (unit != "" || n == 0)
	case "em", "rem", "%":
		if unit == "%" {
			n /= 100
		}
		d.sized, d.tiny = true, n < 0.1
	}
}

// number reads a number and the unit behind it; an unknown unit for what is none.
func number(s string) (n float64, unit string) {
	s = strings.TrimSpace(s)
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.' || i == 0 && (s[i] == '-' || s[i] == '+')) {
		i++
	}
	n, err := strconv.ParseFloat(s[:i], 64)
	if err != nil || i > 20 {
		return 0, "?"
	}
	return n, lowerASCII(strings.TrimSpace(s[i:]))
}

// pixels reads a length that is given in pixels, or in points, which are about as large.
func pixels(s string) (n float64, ok bool) {
	n, unit := number(s)
	return n, unit == "" || unit == "px" || unit == "pt" || unit == "em" && n <= 0 || unit == "%" && n <= 0
}

func lowerASCII(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

// parseColour reads a colour as CSS and old HTML have it.
func parseColour(s string) (c colour) {
	const longest = 64
	if len(s) > longest {
		return c
	}
	s = lowerASCII(strings.TrimSpace(s))
	if s == "" {
		return c
	}
	if i := strings.IndexByte(s, ' '); i > 0 && s[0] == '#' {
		s = s[:i]
	}
	switch s {
	case "white", "snow", "ghostwhite", "ivory", "floralwhite":
		return white()
	case "black":
		return black()
	case "red":
		return colour{255, 0, 0, true}
	case "gray", "grey":
		return colour{128, 128, 128, true}
	case "silver":
		return colour{192, 192, 192, true}
	case "yellow":
		return colour{255, 255, 0, true}
	case "whitesmoke":
		return colour{245, 245, 245, true}
	case "blue":
		return colour{0, 0, 255, true}
	}
	if inner, ok := strings.CutPrefix(s, "rgb("); ok {
		var v [3]uint8
		parts := strings.Split(strings.TrimSuffix(inner, ")"), ",")
		if len(parts) != 3 {
			return c
		}
		for i, p := range parts {
			n, err := strconv.ParseUint(strings.TrimSpace(p), 10, 8)
			if err != nil {
				return c
			}
			v[i] = uint8(n)
		}
		return colour{v[0], v[1], v[2], true}
	}
	hex := strings.TrimPrefix(s, "#")
	switch n, err := strconv.ParseUint(hex, 16, 32); {
	case err != nil:
	case len(hex) == 6:
		return colour{uint8(n >> 16), uint8(n >> 8), uint8(n), true}
	case len(hex) == 3 && s[0] == '#':
		return colour{uint8(n>>8&15) * 17, uint8(n>>4&15) * 17, uint8(n&15) * 17, true}
	}
	return c
}

// style works out how the text of an element looks.
func (h *htmlReader) style(tag atom.Atom) look {
	l := h.look()
	apply := func(d decl) {
		switch {
		case l.hidden != 0: // nothing inside shows it again, but for visibility
			if l.hidden == hidVisibility && d.shown {
				l.hidden = 0
			}
		default:
			l.hidden = d.hidden
		}
		if d.sized {
			l.tiny = d.tiny
		}
		if d.colour.known {
			l.colour = d.colour
		}
		if d.back.known {
			l.back = d.back
		}
		if d.noBack {
			l.back = colour{}
		}
	}
	var inline string
	for i := range h.attrs {
		a := &h.attrs[i]
		switch string(a.key) {
		case "hidden":
			apply(decl{hidden: hidDisplay})
		case "bgcolor":
			l.back = parseColour(string(a.value))
		case "background": // a picture
			l.back = colour{}
		case "color":
			if tag == atom.Font {
				l.colour = parseColour(string(a.value))
			}
		case "text":
			if tag == atom.Body {
				l.colour = parseColour(string(a.value))
			}
		case "class":
			for _, d := range h.sheet.class(a.value) {
				apply(d)
			}
		case "id":
			if d, ok := h.sheet.rules["#"+string(a.value[:min(len(a.value), 64)])]; ok {
				apply(d)
			}
		case "style":
			inline = string(a.value)
		}
	}
	if tag == atom.A && l.colour.like(l.back) { // links have a colour of their own
		l.colour = colour{}
	}
	if inline != "" {
		apply(declarations(inline))
	}
	return l
}

// A sheet is the part of style sheets that says what is hidden by class and by id.
type sheet struct {
	rules map[string]decl
}

const (
	mostRules   = 500
	mostClasses = 8 // of one element
	sheetSize   = 256 << 10
)

// read takes the rules of one style element. What depends on the medium does not count.
func (s *sheet) read(css string) {
	css = css[:min(len(css), sheetSize)]
	if !strings.ContainsAny(css, "{") {
		return
	}
	for len(s.rules) < mostRules {
		begin := strings.IndexByte(css, '{')
		if begin < 0 {
			return
		}
		selector := css[:begin]
		if i := strings.LastIndex(selector, "*/"); i >= 0 {
			selector = selector[i+2:]
		}
		selector = strings.TrimSpace(selector)
		css = css[begin+1:]
		if strings.HasPrefix(selector, "@") && !strings.HasPrefix(selector, "@font-face") {
			css = css[blockEnd(css):]
			continue
		}
		end := strings.IndexByte(css, '}')
		if end < 0 {
			end = len(css)
		}
		s.rule(selector, css[:end])
		css = css[min(end+1, len(css)):]
	}
}

// blockEnd returns where a block with blocks in it ends.
func blockEnd(css string) int {
	depth := 1
	for i := range len(css) {
		switch css[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(css)
}

func (s *sheet) rule(selectors, body string) {
	if len(selectors) > 1000 {
		return
	}
	var d decl
	for i, one := range strings.Split(selectors, ",") {
		if i == 0 {
			if d = declarations(body); d.hidden == 0 && !d.tiny && !d.colour.known && !d.back.known && !d.noBack && !d.sized {
				return
			}
		}
		one = strings.TrimSpace(one)
		at := strings.IndexAny(one, ".#")
		if at < 0 || at+1 == len(one) || len(one) > 64 || strings.ContainsAny(one[at+1:], ".# >:+~[*") || strings.ContainsAny(one[:at], " >:+~[") {
			continue
		}
		one = one[at:]
		if s.rules == nil {
			s.rules = map[string]decl{}
		}
		s.rules[one] = d
	}
}

// class returns what is said about the classes of an attribute.
func (s *sheet) class(v []byte) (all []decl) {
	if s.rules == nil || len(v) > 512 {
		return nil
	}
	for i, c := range strings.Fields(string(v)) {
		if d, ok := s.rules["."+c]; ok && i < mostClasses {
			all = append(all, d)
		}
	}
	return all
}

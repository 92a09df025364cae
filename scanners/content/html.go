package content

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// How much of what can be repeated is kept of the HTML.
const (
	mostMismatches = 10
	mostActions    = 10
	sampleSize     = 200 // characters
	longestURL     = 500 // characters that are kept of one
	linkText       = 512 // octets of the text of a link that are looked at
	openElements   = 256 // elements in each other; what is deeper is as the one around it
	mostAttributes = 200 // of one element
)

// An htmlReader goes through HTML once.
type htmlReader struct {
	out   HTML
	org   string // the organisation of the sender; "" where that is not known
	open  []element
	sheet sheet
	link  struct {
		goes string // host of the link we are in; "" outside
		text []byte
	}
	svg    int // SVG elements we are in
	raw    atom.Atom
	sample strings.Builder
	hows   [howMany]bool
	attrs  []attribute
}

// An element is one that is open, with what holds for the text in it.
type element struct {
	tag  atom.Atom
	name string // where tag is 0
	look look
}

// A look is how text looks.
type look struct {
	hidden hiding
	colour colour
	back   colour
	tiny   bool
}

type attribute struct{ key, value []byte }

// readHTML finds out what HTML does. org is the organisation of the sender.
func readHTML(src string, limit int, org string, r reached) HTML {
	if src == "" {
		return HTML{}
	}
	if len(src) > limit {
		src = src[:limit]
		r.add("html")
	}
	h := &htmlReader{org: org}
	h.out.Present = true
	z := html.NewTokenizer(strings.NewReader(src))
	for {
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			h.endLink()
			for i, is := range h.hows {
				if is {
					h.out.HiddenHow = append(h.out.HiddenHow, hidingNames[i])
				}
			}
			h.out.HiddenSample = clip(h.sample.String(), sampleSize)
			return h.out
		case html.TextToken:
			h.text(z.Raw())
		case html.StartTagToken, html.SelfClosingTagToken:
			h.start(z, kind == html.SelfClosingTagToken)
		case html.EndTagToken:
			name, _ := z.TagName()
			h.end(atom.Lookup(name), name)
		}
	}
}

func (h *htmlReader) look() look {
	if len(h.open) == 0 {
		return look{colour: black(), back: white()}
	}
	return h.open[len(h.open)-1].look
}

// text takes a piece of text.
func (h *htmlReader) text(raw []byte) {
	switch h.raw {
	case atom.Style:
		h.sheet.read(string(raw))
		return
	case atom.Script, atom.Title, atom.Template:
		return
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		if h.link.goes != "" && len(h.link.text) > 0 && len(h.link.text) < linkText {
			h.link.text = append(h.link.text, ' ')
		}
		return
	}
	text := raw
	if bytes.IndexByte(raw, '&') >= 0 {
		text = []byte(html.UnescapeString(string(raw)))
	}
	if h.link.goes != "" && len(h.link.text) < linkText {
		h.link.text = append(h.link.text, text[:min(len(text), linkText-len(h.link.text))]...)
	}
	n := lettersIn(text)
	l := h.look()
	how := l.hidden
	if how == 0 {
		switch {
		case l.tiny:
			how = hidSize
		case l.colour.like(l.back):
			how = hidColour
		}
	}
	if how == 0 {
		h.out.VisibleText += n
		return
	}
	if n == 0 {
		return
	}
	h.out.HiddenText += n
	h.hows[how] = true
	if h.sample.Len() < sampleSize*4 {
		if h.sample.Len() > 0 {
			h.sample.WriteByte(' ')
		}
		h.sample.WriteString(strings.Join(strings.Fields(strings.ToValidUTF8(string(text[:min(len(text), sampleSize*4)]), "")), " "))
	}
}

// lettersIn counts letters and digits.
func lettersIn(text []byte) (n int) {
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' {
				n++
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if r != utf8.RuneError && unicode.IsLetter(r) {
			n++
		}
		i += size
	}
	return n
}

// start takes the beginning of an element.
func (h *htmlReader) start(z *html.Tokenizer, closed bool) {
	name, more := z.TagName()
	tag := atom.Lookup(name)
	var other string
	if tag == 0 {
		other = string(name[:min(len(name), 32)])
	}
	h.attrs = h.attrs[:0]
	for more && len(h.attrs) < mostAttributes {
		var a attribute
		a.key, a.value, more = z.TagAttr()
		h.attrs = append(h.attrs, a)
	}
	h.raw = 0
	switch tag {
	case atom.Script, atom.Style, atom.Title, atom.Template:
		h.raw = tag
	case atom.Noscript, atom.Noembed, atom.Noframes, atom.Iframe:
		z.NextIsNotRawText() // mail clients run no scripts
	}
	h.implied(tag)
	l := h.style(tag)
	h.meaning(tag, l)
	if closed || isVoid(tag) {
		if tag == atom.Svg {
			h.svg--
		}
		h.raw = 0
		return
	}
	if len(h.open) < openElements {
		h.open = append(h.open, element{tag: tag, name: other, look: l})
	}
}

// attr returns an attribute, of two the first.
func (h *htmlReader) attr(key string) (string, bool) {
	for i := range h.attrs {
		if string(h.attrs[i].key) == key {
			return string(h.attrs[i].value), true
		}
	}
	return "", false
}

// implied closes an element whose end tag may be left out.
func (h *htmlReader) implied(tag atom.Atom) {
	if len(h.open) == 0 {
		return
	}
	top := h.open[len(h.open)-1].tag
	switch tag {
	case atom.P, atom.Li, atom.Option, atom.Tr, atom.Td, atom.Th, atom.Dt, atom.Dd:
		if top == tag || top == atom.Td && tag == atom.Th || top == atom.Th && tag == atom.Td || top == atom.Dt && tag == atom.Dd || top == atom.Dd && tag == atom.Dt {
			h.open = h.open[:len(h.open)-1]
		}
	case atom.Div, atom.Table, atom.Ul, atom.Ol, atom.H1, atom.H2, atom.H3, atom.Blockquote, atom.Form, atom.Hr, atom.Pre:
		if top == atom.P {
			h.open = h.open[:len(h.open)-1]
		}
	}
}

func isVoid(tag atom.Atom) bool {
	switch tag {
	case atom.Area, atom.Base, atom.Br, atom.Col, atom.Embed, atom.Hr, atom.Img, atom.Input, atom.Link, atom.Meta, atom.Param, atom.Source,
		atom.Track, atom.Wbr:
		return true
	}
	return false
}

// end takes the end of an element.
func (h *htmlReader) end(tag atom.Atom, name []byte) {
	h.raw = 0
	switch tag {
	case atom.A:
		h.endLink()
	case atom.Svg:
		h.svg = max(h.svg-1, 0)
	}
	for i := len(h.open) - 1; i >= 0; i-- {
		e := &h.open[i]
		if e.tag == tag && (tag != 0 || e.name == string(name[:min(len(name), 32)])) {
			h.open = h.open[:i]
			return
		}
		if e.tag == atom.Table && tag != atom.Body && tag != atom.Html { // what is open around a table is not closed inside it
			return
		}
	}
}

// meaning takes what an element and its attributes do.
func (h *htmlReader) meaning(tag atom.Atom, l look) {
	switch tag {
	case atom.Script:
		h.out.Script = true
		h.out.SVGScript = h.out.SVGScript || h.svg > 0
	case atom.Svg:
		h.svg++
	case atom.A, atom.Area:
		h.endLink()
		if href, ok := h.attr("href"); ok {
			h.out.Links++
			h.beginLink(href)
		}
	case atom.Form:
		h.out.Form = true
		h.action("action")
	case atom.Button:
		h.action("formaction")
	case atom.Input:
		if t, _ := h.attr("type"); strings.EqualFold(strings.TrimSpace(t), "password") {
			h.out.Password = true
		}
		h.action("formaction")
	case atom.Img:
		h.image(l)
	case atom.Iframe, atom.Frame, atom.Object, atom.Embed, atom.Applet:
		h.out.Frames++
	case atom.Base:
		if href, ok := h.attr("href"); ok && h.out.Base == "" {
			h.out.Base = clip(strings.ToValidUTF8(strings.TrimSpace(href), ""), longestURL)
		}
	case atom.Meta:
		h.meta()
	}
	for i := range h.attrs {
		a := &h.attrs[i]
		if len(a.key) > 3 && a.key[0] == 'o' && a.key[1] == 'n' && isHandler(a.key) {
			h.out.EventHandlers++
			h.out.SVGScript = h.out.SVGScript || h.svg > 0
		}
		switch string(a.key) {
		case "href", "src", "action", "formaction", "data", "background", "xlink:href":
			h.uri(a.value)
		}
	}
}

func isHandler(key []byte) bool {
	for _, c := range key {
		if c < 'a' || c > 'z' {
			return false
		}
	}
	return true
}

// uri looks at what kind of URI an attribute has.
func (h *htmlReader) uri(v []byte) {
	for len(v) > 0 && v[0] <= ' ' {
		v = v[1:]
	}
	if len(v) < 5 || v[0]|0x20 != 'd' && v[0]|0x20 != 'j' && v[0]|0x20 != 'v' {
		return
	}
	s := compact(v[:min(len(v), 128)])
	switch {
	case strings.HasPrefix(s, "javascript:"), strings.HasPrefix(s, "vbscript:"):
		h.out.Script = true
	case strings.HasPrefix(s, "data:"):
		h.out.DataURIs++
		kind := s[len("data:"):]
		if strings.HasPrefix(kind, "text/html") || strings.HasPrefix(kind, "application/xhtml") || strings.HasPrefix(kind, "image/svg") ||
			strings.HasPrefix(kind, "text/javascript") || strings.HasPrefix(kind, "application/javascript") {
			h.out.DataHTML = true
		}
	}
}

// compact returns the beginning of a URI as a browser reads it: in lower case, without line ends and the like.
func compact(v []byte) string {
	out := make([]byte, 0, len(v))
	for _, c := range v {
		if c > ' ' {
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			out = append(out, c)
		}
	}
	return string(out)
}

func (h *htmlReader) action(key string) {
	v, ok := h.attr(key)
	if !ok {
		return
	}
	host := hostOf(v)
	if host == "" {
		return
	}
	if len(h.out.FormActions) < mostActions {
		h.out.FormActions = append(h.out.FormActions, clip(strings.ToValidUTF8(strings.TrimSpace(v), ""), longestURL))
	}
	if org := orgOf(host); h.org != "" && org != h.org {
		h.out.FormForeign = true
	}
}

func (h *htmlReader) image(l look) {
	h.out.Images++
	src, _ := h.attr("src")
	if hostOf(src) == "" {
		return
	}
	h.out.RemoteImages++
	small := l.hidden != 0
	for _, key := range []string{"width", "height"} {
		v, ok := h.attr(key)
		if n, is := pixels(v); ok && is && n <= 1 {
			small = true
		}
	}
	if style, ok := h.attr("style"); ok {
		d := declarations(style)
		small = small || d.width1 || d.height1
	}
	if small {
		h.out.TrackingPixels++
	}
}

func (h *htmlReader) meta() {
	if v, _ := h.attr("http-equiv"); !strings.EqualFold(strings.TrimSpace(v), "refresh") {
		return
	}
	content, _ := h.attr("content")
	if i := strings.IndexAny(content, ";,"); i >= 0 && h.out.Refresh == "" {
		to := strings.TrimSpace(content[i+1:])
		if len(to) > 3 && strings.EqualFold(to[:3], "url") {
			to = strings.TrimLeft(to[3:], " =")
		}
		h.out.Refresh = clip(strings.ToValidUTF8(strings.Trim(to, `"' `), ""), longestURL)
	}
}

func (h *htmlReader) beginLink(href string) {
	h.link.goes, h.link.text = hostOf(href), h.link.text[:0]
	if user := userinfo(href); user != "" {
		h.out.LinkUserinfo = true
		if shown := hostShown(user); shown != "" {
			h.mismatch(shown, h.link.goes)
		}
	}
}

func (h *htmlReader) endLink() {
	if h.link.goes == "" {
		return
	}
	if len(h.link.text) > 0 {
		if shown := hostShown(string(h.link.text)); shown != "" {
			h.mismatch(shown, h.link.goes)
		}
	}
	h.link.goes = ""
}

func (h *htmlReader) mismatch(shown, goes string) {
	if orgOf(shown) == orgOf(goes) {
		return
	}
	h.out.LinkMismatch = true
	if len(h.out.Mismatches) < mostMismatches {
		h.out.Mismatches = append(h.out.Mismatches, Mismatch{Shown: shownHost(shown), Goes: shownHost(goes)})
	}
}

// shownHost makes a host fit for a fact.
func shownHost(host string) string { return clip(strings.ToValidUTF8(host, "\ufffd"), longestName) }

// isSpaceOrInvisible is what takes no part in a name that is shown.
func isSpaceOrInvisible(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }

package mime

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// htmlText returns what a reader would see of HTML: entities decoded, scripts and styles left out, a line for each block.
func htmlText(src string) string {
	w := &htmlWriter{}
	z := html.NewTokenizer(strings.NewReader(src))
	var skip atom.Atom // the element whose content is not shown
	pre := 0
	for {
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			return strings.TrimSpace(w.b.String())
		case html.TextToken:
			if skip == 0 {
				w.text(z.Text(), pre > 0)
			}
		case html.StartTagToken, html.SelfClosingTagToken, html.EndTagToken:
			name, _ := z.TagName()
			tag, begins := atom.Lookup(name), kind == html.StartTagToken
			switch {
			case skip != 0:
				if tag == skip && !begins {
					skip = 0
				}
				continue
			case !begins:
			case tag == atom.Script || tag == atom.Style || tag == atom.Title || tag == atom.Template:
				skip = tag
			case tag == atom.Noscript || tag == atom.Noembed || tag == atom.Noframes || tag == atom.Iframe:
				z.NextIsNotRawText() // mail clients run no scripts
			}
			switch tag {
			case atom.Pre:
				if begins {
					pre++
				} else if pre > 0 {
					pre--
				}
				w.newline()
			case atom.Br:
				w.breakLine()
			case atom.Td, atom.Th:
				w.space = true
			case atom.P, atom.Div, atom.Tr, atom.Table, atom.Li, atom.Ul, atom.Ol, atom.Dl, atom.Dt, atom.Dd, atom.H1, atom.H2, atom.H3,
				atom.H4, atom.H5, atom.H6, atom.Blockquote, atom.Hr, atom.Section, atom.Article, atom.Header, atom.Footer, atom.Nav,
				atom.Aside, atom.Main, atom.Form, atom.Fieldset, atom.Address, atom.Center, atom.Figure, atom.Body, atom.Caption,
				atom.Option, atom.Select, atom.Textarea, atom.Tbody, atom.Thead, atom.Tfoot:
				w.newline()
			}
		}
	}
}

// An htmlWriter collapses white space as a reader of HTML sees it.
type htmlWriter struct {
	b     strings.Builder
	space bool // a space is due before the next word
	fresh bool // at the beginning of a line: set once something has been written
}

// newline ends the line, if there is one.
func (w *htmlWriter) newline() {
	if w.b.Len() > 0 && !w.fresh {
		w.breakLine()
	}
}

func (w *htmlWriter) breakLine() {
	if w.b.Len() > 0 {
		w.b.WriteByte('\n')
	}
	w.fresh, w.space = true, false
}

func (w *htmlWriter) text(t []byte, pre bool) {
	if pre {
		w.b.Write(t)
		w.fresh, w.space = len(t) > 0 && t[len(t)-1] == '\n', false
		return
	}
	for len(t) > 0 {
		r, n := utf8.DecodeRune(t)
		switch {
		case unicode.IsSpace(r): // the no-break space too
			w.space = true
		case r == 0:
		default:
			if w.space && !w.fresh && w.b.Len() > 0 {
				w.b.WriteByte(' ')
			}
			w.b.Write(t[:n])
			w.space, w.fresh = false, false
		}
		t = t[n:]
	}
}

func (m *Message) readLinks() []string {
	l := &linkList{seen: map[string]bool{}}
	for _, p := range m.text().pieces {
		if p.html {
			l.html(p.text)
			l.text(htmlText(p.text))
			continue
		}
		l.text(p.text)
	}
	return l.list
}

type linkList struct {
	list []string
	seen map[string]bool
}

func (l *linkList) full() bool { return len(l.list) >= maxLinks }

func (l *linkList) add(link string) {
	const longest = 4096
	if link = cut(link, longest); !l.full() && !l.seen[link] {
		l.seen[link] = true
		l.list = append(l.list, link)
	}
}

// html collects the URLs that attributes name.
func (l *linkList) html(src string) {
	z := html.NewTokenizer(strings.NewReader(src))
	for !l.full() {
		switch z.Next() {
		case html.ErrorToken:
			return
		case html.StartTagToken, html.SelfClosingTagToken:
			_, more := z.TagName()
			for more {
				var key, value []byte
				key, value, more = z.TagAttr()
				switch string(key) {
				case "href", "src", "action", "formaction", "background":
					if link, ok := absolute(string(value)); ok {
						l.add(link)
					}
				}
			}
		}
	}
}

// absolute returns a URL of an attribute as a browser would take it (WHATWG URL, 4.4): white space around it and line
// ends in it do not count, backslashes are slashes, and how many there are does not matter.
func absolute(s string) (string, bool) {
	s = strings.TrimFunc(s, func(r rune) bool { return r <= ' ' || unicode.IsSpace(r) })
	s = strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\r' {
			return -1
		}
		return r
	}, s)
	scheme, rest, ok := strings.Cut(s, ":")
	if len(s) > 2 && strings.Trim(s[:2], `/\`) == "" {
		scheme, rest, ok = "http", s, true
	}
	scheme = strings.ToLower(scheme)
	if !ok || scheme != "http" && scheme != "https" && scheme != "ftp" {
		return "", false
	}
	if rest = strings.TrimLeft(rest, `/\`); rest == "" {
		return "", false
	}
	return scheme + "://" + rest, true
}

// text collects the URLs that a mail client would make clickable.
func (l *linkList) text(s string) {
	for at := 0; !l.full(); {
		begin, prefix, ok := nextURL(s, at)
		if !ok {
			return
		}
		end := urlEnd(s, begin)
		if link, ok := absolute(prefix + s[begin:end]); ok && strings.Trim(link[strings.Index(link, "://")+3:], ".") != "www" {
			l.add(link)
		}
		at = max(end, begin+1)
	}
}

// nextURL finds where the next URL begins, from at on, and what its scheme is if it does not say.
func nextURL(s string, at int) (begin int, prefix string, ok bool) {
	for i := at; i < len(s); i++ {
		switch s[i] {
		case ':':
			if !strings.HasPrefix(s[i:], "://") {
				continue
			}
			for _, scheme := range [...]string{"https", "http", "ftp"} {
				if b := i - len(scheme); b >= at && equalFold(s[b:i], scheme) {
					return b, "", true
				}
			}
		case 'w', 'W':
			if len(s) > i+4 && equalFold(s[i:i+4], "www.") && (i == 0 || !isWordByte(s[i-1])) {
				return i, "http://", true
			}
		}
	}
	return 0, "", false
}

func isWordByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= lower(c) && lower(c) <= 'z' || c >= utf8.RuneSelf || strings.IndexByte("_-./@:=", c) >= 0
}

// urlEnd returns where the URL ends that begins at begin. RFC 3986, appendix C: punctuation behind it is not part of it.
func urlEnd(s string, begin int) int {
	end, open := len(s), 0
	for i, r := range s[begin:] {
		if r <= ' ' || r == 0x7f || unicode.IsSpace(r) || strings.ContainsRune("<>\"`{}|\\^\u201c\u201d\u201e\u00ab\u00bb", r) {
			end = begin + i
			break
		}
		if r == '(' {
			open++
		}
		if r == ')' {
			if open--; open < 0 {
				end = begin + i
				break
			}
		}
	}
	return begin + len(strings.TrimRight(s[begin:end], ".,;:!?'*_~]"))
}

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

package mime

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

const (
	maxLinks    = 1000 // URLs that Links returns
	maxLinkText = 512  // octets of what is shown of one
)

// A Link is a URL of a message and what a reader sees of it.
type Link struct {
	URL string
	// Text is the text of the element that leads there, with single spaces, at most 512 octets; "" for a URL that stands in
	// the text itself, and for images and the like.
	Text string
}

// Links lists the distinct URLs of the text and the HTML, in order, at most 1000. They are absolute: http, https, ftp.
func (m *Message) Links() []string {
	all := m.link()
	out := make([]string, 0, len(all))
	for _, l := range all {
		if !l.again {
			out = append(out, l.URL)
		}
	}
	return out
}

// LinkTexts lists what Links does with what is shown of each; a URL that is shown under several texts is there with each
// of them, at most 1000 more in all.
func (m *Message) LinkTexts() []Link {
	all := m.link()
	out := make([]Link, len(all))
	for i, l := range all {
		out[i] = l.Link
	}
	return out
}

// A foundLink is a Link; again: its URL stands before it.
type foundLink struct {
	Link
	again bool
}

func (m *Message) readLinks() []foundLink {
	l := newLinkList()
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
	list  []foundLink
	seen  map[string]int // where in list each URL first stands
	shown map[Link]bool
}

func newLinkList() *linkList { return &linkList{seen: map[string]int{}, shown: map[Link]bool{}} }

func (l *linkList) full() bool { return len(l.seen) >= maxLinks }

// add takes a URL, and what is shown of it.
func (l *linkList) add(url, text string) {
	const longest = 4096
	x := Link{cut(url, longest), text}
	at, again := l.seen[x.URL]
	switch {
	case !again && l.full():
	case !again:
		l.seen[x.URL] = len(l.list)
		l.list = append(l.list, foundLink{Link: x})
		l.shown[x] = true
	case text == "" || l.shown[x]:
	case l.list[at].Text == "": // an image before, say
		l.list[at].Text = text
		l.shown[x] = true
	case len(l.list)-len(l.seen) < maxLinks:
		l.list = append(l.list, foundLink{x, true})
		l.shown[x] = true
	}
}

// html collects the URLs that attributes name.
func (l *linkList) html(src string) {
	z := html.NewTokenizer(strings.NewReader(src))
	var goes string // where the link leads that we are in
	var text []byte
	var skip atom.Atom // the element whose content nobody sees
	end := func() {
		if goes != "" {
			l.add(goes, cut(strings.Join(strings.Fields(validUTF8(string(text))), " "), maxLinkText))
		}
		goes, text = "", text[:0]
	}
	defer end()
	for !l.full() || goes != "" {
		kind := z.Next()
		switch kind {
		case html.ErrorToken:
			return
		case html.TextToken:
			if goes != "" && skip == 0 && len(text) < 2*maxLinkText {
				t := z.Text()
				text = append(text, t[:min(len(t), 2*maxLinkText)]...)
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			switch tag := atom.Lookup(name); tag {
			case atom.A:
				end()
			case skip:
				skip = 0
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, more := z.TagName()
			tag := atom.Lookup(name)
			switch tag {
			case atom.A, atom.Area:
				end()
			case atom.Script, atom.Style, atom.Template:
				if kind == html.StartTagToken {
					skip = tag
				}
			}
			for more {
				var key, value []byte
				key, value, more = z.TagAttr()
				switch string(key) {
				case "href", "src", "action", "formaction", "background":
					url, ok := absolute(string(value))
					switch {
					case !ok:
					case tag == atom.A && goes == "" && string(key) == "href":
						goes = url
						fallthrough
					default:
						l.add(url, "")
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
			l.add(link, "")
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

package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"sluice/pipeline/mime"
)

// A Reply is an SMTP answer in words for the sender. The zero Reply is none.
type Reply struct {
	Code     int    `json:"code,omitempty"`     // 250, 451, 550 …
	Enhanced string `json:"enhanced,omitempty"` // "5.7.1" (RFC 3463)
	Text     string `json:"text,omitempty"`     // printable ASCII; "\n" stands between lines
	// UTF8 is what Text would be if it could: for clients that have said SMTPUTF8 (RFC 6531). "": Text is all there is.
	UTF8 string `json:"utf8,omitempty"`
}

// Bounds of a reply. RFC 5321, 4.5.3.1.5: a line has 512 octets with its codes and its end.
const (
	replyLine  = 400 // octets of the text of one line
	replyLines = 10
)

// Reply codes that a verdict without one of its own gets.
var (
	defaultReject   = Reply{Code: 550, Enhanced: "5.7.1", Text: "message refused"}
	defaultTempFail = Reply{Code: 451, Enhanced: "4.7.1", Text: "please try again later"}
)

// String returns the reply on one line, as people read it in a log.
func (r Reply) String() string {
	text := strings.ReplaceAll(r.Text, "\n", " ")
	if r.Enhanced == "" {
		return fmt.Sprintf("%d %s", r.Code, text)
	}
	return fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, text)
}

// Permanent reports whether r refuses for good.
func (r Reply) Permanent() bool { return r.Code >= 500 }

// Lines returns what r says, line by line, each fit for a line of SMTP: with utf8 in UTF-8, for a client that has asked
// for it, else in ASCII. There is always one.
func (r Reply) Lines(utf8 bool) []string {
	text := r.Text
	if utf8 && r.UTF8 != "" {
		text = r.UTF8
	}
	return replyText(text, utf8)
}

// Wire returns r as it is sent, without the last line end. RFC 5321, 4.2.1: all lines but the last have a hyphen behind
// the code; RFC 2034, 4: the enhanced code is on each.
func (r Reply) Wire(utf8 bool) string {
	lines := r.Lines(utf8)
	var b strings.Builder
	for i, line := range lines {
		between := byte('-')
		if i == len(lines)-1 {
			between = ' '
		}
		if fmt.Fprintf(&b, "%d%c", r.Code, between); r.Enhanced != "" {
			b.WriteString(r.Enhanced + " ")
		}
		if b.WriteString(line); between == '-' {
			b.WriteString("\r\n")
		}
	}
	return b.String()
}

// clean makes the text of a reply fit for SMTP. One in other letters than ASCII's becomes UTF8, and Text the nearest that
// can be said without them (RFC 5429, 2.1.1); otherwise stands where there is none.
func (r Reply) clean(otherwise string) Reply {
	const most = 2 * replyLine * replyLines // what is said in the end is less
	r.Text, r.UTF8 = clip(r.Text, most), clip(r.UTF8, most)
	if r.UTF8 == "" && !isASCII(r.Text) {
		r.UTF8 = r.Text
	}
	if r.UTF8 != "" {
		r.UTF8 = strings.Join(replyText(r.UTF8, true), "\n")
	}
	if r.Text = strings.Join(replyText(inASCII(r.Text), false), "\n"); r.Text == "" {
		r.Text = otherwise
	}
	if isASCII(r.UTF8) {
		r.UTF8 = ""
	}
	return r
}

// replyText breaks a text into lines of a reply: at its own line ends, and where a line is too long. There is at least one
// line, and of too many those at the end are left out.
func replyText(s string, utf8 bool) (lines []string) {
	for line := range strings.Lines(s) {
		line = cleanLine(clip(line, replyLine*replyLines), utf8)
		for len(lines) < replyLines && line != "" {
			var first string
			first, line = breakLine(line)
			lines = append(lines, first)
		}
		if len(lines) == replyLines {
			break
		}
	}
	if len(lines) == 0 {
		return []string{""}
	}
	return lines
}

// breakLine splits off what fits into a line of a reply, at a space if there is one in its second half.
func breakLine(s string) (first, rest string) {
	if len(s) <= replyLine {
		return s, ""
	}
	at := replyLine
	for !utf8.RuneStart(s[at]) {
		at--
	}
	if space := strings.LastIndexByte(s[:at], ' '); space > at/2 {
		at = space
	}
	return strings.TrimRight(s[:at], " "), strings.TrimLeft(s[at:], " ")
}

// cleanLine is one line without what is not to be read: control characters become spaces, and without utf8 what is not
// ASCII "?".
func cleanLine(s string, utf8 bool) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < ' ' || r == 0x7f:
			b.WriteByte(' ')
		case r <= 0x7e:
			b.WriteByte(byte(r))
		case !utf8 || r == unicode.ReplacementChar:
			b.WriteByte('?')
		case unicode.IsGraphic(r) || r == 0x200c || r == 0x200d: // the joiners belong to words
			b.WriteRune(r)
		default: // what turns the direction of writing around, for one
			b.WriteByte(' ')
		}
	}
	return strings.TrimSpace(b.String())
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// inASCII spells s as well as ASCII can. Where much of it would be lost there is nothing to say.
func inASCII(s string) string {
	if isASCII(s) {
		return s
	}
	s, lost := mime.InASCII(s)
	if lost > len(s)/4 {
		return ""
	}
	return s
}

// CleanText makes s fit for a header field or one line of a log: one line of printable ASCII of at most 400 octets.
// Line ends and other control characters become spaces, what is not ASCII becomes "?".
func CleanText(s string) string {
	s = cleanLine(s[:min(len(s), replyLine*utf8.UTFMax)], false)
	return strings.TrimSpace(s[:min(len(s), replyLine)])
}

// ParseReply reads a refusal as configurations write it, "5.7.1 text" for Reject and "4.7.1 text" for TempFail: an
// enhanced status code of the action's class, a space, and a text of at most 10 lines. The text alone is enough.
func ParseReply(a Action, s string) (Reply, error) {
	d := defaultReject
	if a == TempFail {
		d = defaultTempFail
	}
	if s = strings.TrimRight(s, "\n"); s == "" {
		return d, nil
	}
	lines := strings.Split(s, "\n")
	for n, line := range lines {
		at := ""
		if len(lines) > 1 {
			at = fmt.Sprintf(" of line %d", n+1)
		}
		for i, r := range []rune(line) {
			if !unicode.IsGraphic(r) && r != 0x200c && r != 0x200d || r == unicode.ReplacementChar {
				return Reply{}, fmt.Errorf("a reply is text that can be read; character %d%s is %q", i+1, at, r)
			}
		}
		if len(line) > replyLine {
			return Reply{}, fmt.Errorf("a line of a reply is at most %d octets long; that%s has %d", replyLine, at, len(line))
		}
	}
	if len(lines) > replyLines {
		return Reply{}, fmt.Errorf("a reply has at most %d lines; this has %d", replyLines, len(lines))
	}
	code, text := s, ""
	if i := strings.IndexAny(s, " \n"); i >= 0 {
		code, text = s[:i], s[i+1:]
	}
	if !isEnhanced(code) {
		if code != "" && strings.Trim(code, "0123456789.") == "" {
			return Reply{}, fmt.Errorf("%q is no enhanced status code; write for example %q", code, d.Enhanced+" "+d.Text)
		}
		text = s
	} else if code[0] != d.Enhanced[0] {
		return Reply{}, fmt.Errorf("%s answers with a code of class %c, not %s", a, d.Enhanced[0], code)
	} else {
		d.Enhanced = code
	}
	if text = strings.TrimSpace(text); text != "" {
		otherwise := d.Text
		d.Text = text
		d = d.clean(otherwise)
	}
	return d, nil
}

// RFC 3463, 2: class "." subject "." detail, of one, one to three and one to three digits.
func isEnhanced(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || !strings.Contains("245", parts[0]) {
		return false
	}
	return !slices.ContainsFunc(parts[1:], func(p string) bool {
		return p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != ""
	})
}

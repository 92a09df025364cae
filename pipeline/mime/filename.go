package mime

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// CutExtension splits the name of a file as Windows would open it: what turns the direction of writing is not there, nor
// is a path before it, and dots and spaces at the end do not count. The extension is in lower case, without its dot; "" for
// none, or for what is longer than any.
func CutExtension(name string) (base, ext string) {
	if strings.IndexFunc(name, isBidi) >= 0 {
		name = strings.Map(func(r rune) rune {
			if isBidi(r) {
				return -1
			}
			return r
		}, name)
	}
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.TrimRightFunc(name, func(r rune) bool { return r == '.' || unicode.IsSpace(r) || r == 0 })
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, ""
	}
	const longest = 24
	ext = strings.ToLower(strings.TrimSpace(name[i+1:]))
	if ext == "" || len(ext) > longest || strings.ContainsFunc(ext, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return name, ""
	}
	return name[:i], ext
}

func isBidi(r rune) bool {
	return r >= utf8.RuneSelf && unicode.Is(unicode.Bidi_Control, r)
}

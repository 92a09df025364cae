package mime

import "strings"

// unflow makes one line of each paragraph of format=flowed text (RFC 3676, 4). With delsp the space that ends a flowed
// line is no part of the text, as in languages that write without spaces.
func unflow(s string, delsp bool) string {
	var b strings.Builder
	b.Grow(len(s))
	open, depth := false, 0 // the line before is to be continued, and how deeply it is quoted
	ending := ""
	for line := range strings.Lines(s) {
		text := strings.TrimRight(line, "\r\n")
		quotes := len(text) - len(strings.TrimLeft(text, ">"))
		content := strings.TrimPrefix(text[quotes:], " ") // 4.4: space-stuffing
		signature := content == "-- "
		if open && (quotes != depth || signature) { // 4.5: a paragraph does not go on at another depth
			b.WriteString(ending)
			open = false
		}
		if !open && quotes > 0 {
			b.WriteString(text[:quotes])
			b.WriteByte(' ')
		}
		ending = line[len(text):]
		depth = quotes
		if open = !signature && strings.HasSuffix(content, " "); open {
			if delsp {
				content = content[:len(content)-1]
			}
			b.WriteString(content)
			continue
		}
		b.WriteString(content)
		b.WriteString(ending)
	}
	if open {
		b.WriteString(ending)
	}
	return b.String()
}

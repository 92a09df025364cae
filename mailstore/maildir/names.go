package maildir

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"sluice/mailstore"
)

// splitAccount splits "local@domain" into two names that can stand in a path.
func splitAccount(account string) (local, domain string, err error) {
	i := strings.LastIndexByte(account, '@')
	if i < 0 {
		return "", "", fmt.Errorf("account %q: %w: it has no domain", account, mailstore.ErrName)
	}
	local, domain = account[:i], account[i+1:]
	for _, part := range []string{local, domain} {
		switch {
		case part == "", len(part) > 255, part[0] == '.', !utf8.ValidString(part), strings.Contains(part, ".."),
			strings.ContainsFunc(part, func(r rune) bool { return r == '/' || unicode.IsControl(r) }):
			return "", "", fmt.Errorf("account %q: %w", account, mailstore.ErrName)
		}
	}
	return local, domain, nil
}

// folderName brings the name of a folder into the form that all others are compared with: the inbox in upper case.
func folderName(name string) string {
	first, rest, deeper := strings.Cut(name, mailstore.Separator)
	switch {
	case name == "":
		return mailstore.Inbox
	case !strings.EqualFold(first, mailstore.Inbox):
		return name
	case !deeper:
		return mailstore.Inbox
	}
	return mailstore.Inbox + mailstore.Separator + rest
}

// diskName returns the name of a folder on disk, "" for the inbox: levels separated by dots, each in modified UTF-7, as
// Dovecot writes them. Names that Maildir++ cannot hold, or that would be trouble elsewhere, are refused with ErrName.
func diskName(name string) (string, error) {
	name = folderName(name)
	if name == mailstore.Inbox {
		return "", nil
	}
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("folder %q: %w: %s", name, mailstore.ErrName, why)
	}
	switch {
	case !utf8.ValidString(name):
		return bad("it is not UTF-8")
	case name[0] == '~':
		return bad("it begins with a tilde")
	case strings.ContainsFunc(name, unicode.IsControl):
		return bad("it has control characters")
	case strings.Contains(name, "."):
		return bad("a dot separates folders on disk")
	}
	var b strings.Builder
	for level := range strings.SplitSeq(name, mailstore.Separator) {
		if level == "" {
			return bad("a level of it is empty")
		}
		b.WriteByte('.')
		b.WriteString(encodeUTF7(level))
	}
	// Some room is left for what programs append to a name while they delete a folder.
	if b.Len() > 240 {
		return bad("it is too long")
	}
	return b.String(), nil
}

// apiName returns the name of the folder that lies in a directory of this name; ok is false for directories that are no
// folders.
func apiName(disk string) (name string, ok bool) {
	if len(disk) < 2 || disk[0] != '.' || disk[1] == '.' || !utf8.ValidString(disk) ||
		strings.ContainsFunc(disk, unicode.IsControl) || strings.Contains(disk, "/") {
		return "", false
	}
	levels := strings.Split(disk[1:], ".")
	for i, l := range levels {
		if l == "" {
			return "", false
		}
		// What is not the one way to write a name stands for itself, so that folders other programs made in UTF-8 are seen.
		if s, err := decodeUTF7(l); err == nil && encodeUTF7(s) == l {
			levels[i] = s
		}
	}
	name = strings.Join(levels, mailstore.Separator)
	if folderName(name) != name || name == mailstore.Inbox || name[0] == '~' {
		return "", false
	}
	return name, true
}

// RFC 3501, 5.1.3: base64 with a comma for the slash and without padding.
func utf7Base64() *base64.Encoding {
	return base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").
		WithPadding(base64.NoPadding).Strict()
}

// encodeUTF7 writes s in modified UTF-7 (RFC 3501, 5.1.3).
func encodeUTF7(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '&' }) {
		return s
	}
	var b strings.Builder
	var wide []byte
	flush := func() {
		if len(wide) > 0 {
			b.WriteString("&" + utf7Base64().EncodeToString(wide) + "-")
			wide = wide[:0]
		}
	}
	for _, r := range s {
		if r >= ' ' && r <= '~' {
			flush()
			b.WriteRune(r)
			if r == '&' {
				b.WriteByte('-')
			}
			continue
		}
		for _, u := range utf16.AppendRune(nil, r) {
			wide = binary.BigEndian.AppendUint16(wide, u)
		}
	}
	flush()
	return b.String()
}

// decodeUTF7 reads modified UTF-7.
func decodeUTF7(s string) (string, error) {
	bad := fmt.Errorf("%q is not modified UTF-7", s)
	var b strings.Builder
	for s != "" {
		if s[0] != '&' {
			if s[0] < ' ' || s[0] > '~' {
				return "", bad
			}
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		code, rest, ok := strings.Cut(s[1:], "-")
		if !ok {
			return "", bad
		}
		s = rest
		if code == "" {
			b.WriteByte('&')
			continue
		}
		wide, err := utf7Base64().DecodeString(code)
		if err != nil || len(wide)%2 != 0 {
			return "", bad
		}
		units := make([]uint16, len(wide)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(wide[2*i:])
		}
		for _, r := range utf16.Decode(units) {
			if r == unicode.ReplacementChar {
				return "", bad
			}
			b.WriteRune(r)
		}
	}
	return b.String(), nil
}

// A fileName is what the name of a message's file says: "unique:2,flags".
type fileName struct {
	unique string
	flags  string // letters after ":2,", sorted
	info   bool   // there is a ":2," part
}

func parseFileName(name string) fileName {
	unique, info, ok := strings.Cut(name, ":")
	if !ok {
		return fileName{unique: unique}
	}
	flags, ok := strings.CutPrefix(info, "2,")
	if !ok {
		return fileName{unique: unique}
	}
	// Dovecot and others put fields of their own behind a comma.
	flags, _, _ = strings.Cut(flags, ",")
	return fileName{unique: unique, flags: sortLetters(flags), info: true}
}

// sortLetters sorts letters as Maildir wants them, each once.
func sortLetters(s string) string {
	b := []byte(s)
	if slices.IsSorted(b) && !hasDouble(b) {
		return s
	}
	slices.Sort(b)
	return string(slices.Compact(b))
}

func hasDouble(b []byte) bool {
	for i := 1; i < len(b); i++ {
		if b[i] == b[i-1] {
			return true
		}
	}
	return false
}

// uniqueSizes reads the sizes out of a unique name, ",S=" on disk and ",W=" with CRLF line ends; -1 where it has none.
func uniqueSizes(unique string) (disk, wire int64) {
	return uniqueNumber(unique, ",S="), uniqueNumber(unique, ",W=")
}

func uniqueNumber(unique, field string) int64 {
	_, s, ok := strings.Cut(unique, field)
	if !ok {
		return -1
	}
	s, _, _ = strings.Cut(s, ",")
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// uniqueID returns the id of the record within a unique name of ours, "" if there is none.
func uniqueID(unique string) string {
	parts := strings.SplitN(unique, ".", 3)
	if len(parts) < 3 {
		return ""
	}
	id, n, ok := strings.Cut(parts[1], "_")
	if !ok || n == "" || strings.Trim(n, "0123456789") != "" || !isID(id) {
		return ""
	}
	return id
}

func isID(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
}

// hostPart makes a host name fit for a file name (the Maildir specification's octal escapes); a comma would begin a
// field.
func hostPart(host string) string {
	host = strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`).Replace(host)
	host = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, host)
	if len(host) > 64 {
		host = host[:64]
	}
	if host == "" {
		return "localhost"
	}
	return host
}

// keywordField writes the keywords that a message was delivered with into its unique name, so that delivery needs no
// index: ",K=$Junk+urgent". Those that find no room within most octets are left out and returned.
func keywordField(keywords []string, most int) (field string, left []string) {
	for _, k := range keywords {
		var b strings.Builder
		for i := range len(k) {
			if c := k[i]; isID(k[i:i+1]) || c == '$' || c == '-' {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
		sep := "+"
		if field == "" {
			sep = ",K="
		}
		if len(field)+len(sep)+b.Len() > most {
			left = append(left, k)
			continue
		}
		field += sep + b.String()
	}
	return field, left
}

// uniqueKeywords reads what keywordField wrote.
func uniqueKeywords(unique string) []string {
	_, s, ok := strings.Cut(unique, ",K=")
	if !ok {
		return nil
	}
	s, _, _ = strings.Cut(s, ",")
	var list []string
	for k := range strings.SplitSeq(s, "+") {
		var b strings.Builder
		for i := 0; i < len(k); i++ {
			if k[i] == '%' && i+2 < len(k) {
				if c, err := strconv.ParseUint(k[i+1:i+3], 16, 8); err == nil {
					b.WriteByte(byte(c))
					i += 2
					continue
				}
			}
			b.WriteByte(k[i])
		}
		if isKeyword(b.String()) {
			list = append(list, b.String())
		}
	}
	return list
}

package mime

import (
	"encoding/base64"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
)

// A conversion is text made of octets in a declared charset.
type conversion struct {
	text  string // valid UTF-8
	known bool   // the charset is known; else a guess was made
	wrong bool   // the octets are not in that charset
	utf7  bool
}

// toUTF8 converts octets of a declared charset. Of a charset that nobody knows the text is taken as one without a
// declaration.
func toUTF8(label string, p []byte) conversion {
	label = cleanLabel(label)
	switch label {
	case "":
		return conversion{text: validUTF8(string(p)), known: true}
	case "us-ascii":
		// Declared out of habit more often than meant; Windows-1252 has what it has.
		return conversion{text: validUTF8(string(p)), known: true, wrong: !isASCII(p)}
	case "iso-8859-1":
		return conversion{text: validUTF8(string(p)), known: true, wrong: !isASCII(p) && utf8.Valid(p)}
	case "utf-8":
		return conversion{text: strings.ToValidUTF8(string(p), "\ufffd"), known: true, wrong: !utf8.Valid(p)}
	case "utf-7":
		text, ok := decodeUTF7(p)
		return conversion{text: text, known: true, wrong: !ok, utf7: true}
	case "iso-2022-kr":
		p, label = shiftedKorean(p), "euc-kr"
	case "iso-2022-cn", "iso-2022-cn-ext", "replacement": // the library knows them only to hide what they say
		return conversion{text: validUTF8(string(p))}
	}
	var r io.Reader
	if e := encodingOf(label); e != nil {
		r = e.NewDecoder().Reader(strings.NewReader(string(p)))
	} else {
		var err error
		if r, err = charset.Reader(label, strings.NewReader(string(p))); err != nil {
			return conversion{text: validUTF8(string(p))}
		}
	}
	out, err := io.ReadAll(r)
	if err != nil {
		return conversion{text: validUTF8(string(p)), wrong: true, known: true}
	}
	text := strings.ToValidUTF8(string(out), "\ufffd")
	return conversion{text: text, known: true, wrong: strings.Contains(text, "\ufffd")}
}

func isASCII(p []byte) bool {
	for _, c := range p {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// validUTF8 returns text of no declared charset: as it is if it is UTF-8, else as Windows-1252, which is what most
// writers of such text mean.
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	out, err := charmap.Windows1252.NewDecoder().String(s)
	if err != nil {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	return out
}

// cleanLabel makes one name of what writers call a charset.
func cleanLabel(label string) string {
	const longest = 64
	if len(label) > longest {
		label = label[:longest]
	}
	label = strings.ToLower(strings.Trim(label, " \t\r\n\"'`;,.<>"))
	// A header that was run through quoted-printable by mistake: charset=3D"utf-8".
	if rest, ok := strings.CutPrefix(label, "3d"); ok {
		label = strings.Trim(rest, "\"' ")
	}
	label = strings.TrimPrefix(label, "charset=")
	label, _, _ = strings.Cut(label, " ")
	label, _, _ = strings.Cut(label, ";")
	label = strings.ReplaceAll(strings.Trim(label, "\"'"), "_", "-")
	label = strings.TrimPrefix(label, "x-")
	switch label {
	case "utf8", "unicode-1-1-utf-8", "unicode-2-0-utf-8", "utf-8mb4", "utf8mb4", "utf-8n", "utf-8j", "utf", "cp65001", "cp-65001":
		return "utf-8"
	case "utf7", "unicode-1-1-utf-7", "unicode-2-0-utf-7", "csunicode11utf7", "utf-7-imap", "cp65000":
		return "utf-7"
	case "ascii", "ansi-x3.4-1968", "ansi-x3.4-1986", "iso646-us", "iso-646.irv:1991", "us", "646", "cp367", "us-ascii-7":
		return "us-ascii"
	case "latin1", "latin-1", "l1", "cp819", "ibm819", "iso-latin-1", "iso8859", "iso-8859", "iso-ir-100":
		return "iso-8859-1"
	case "unknown", "unknown-8bit", "8bit", "7bit", "none", "default", "user-defined": // RFC 1428 for the second
		return ""
	}
	for _, prefix := range []string{"iso-8859-", "iso8859-", "iso88859-", "8859-", "iso-8859", "iso8859", "cp28", "cp-28", "latin-"} {
		rest, ok := strings.CutPrefix(label, prefix)
		if !ok {
			continue
		}
		if strings.HasPrefix(prefix, "cp") {
			rest, ok = strings.CutPrefix(rest, "59")
		}
		rest, _, _ = strings.Cut(rest, "-") // -8-i, -1-windows-3.1-latin-1
		rest, _, _ = strings.Cut(rest, ":") // -1:1987
		if n, err := strconv.Atoi(rest); ok && err == nil && n >= 1 && n <= 16 && prefix != "latin-" {
			return "iso-8859-" + strconv.Itoa(n)
		}
	}
	for _, prefix := range []string{"windows-", "windows", "win-", "win", "cp-", "cp", "ms-", "ms", "ibm-", "ibm", "dos-"} {
		if rest, ok := strings.CutPrefix(label, prefix); ok && len(rest) >= 3 {
			if _, err := strconv.Atoi(rest); err == nil {
				return "cp" + strings.TrimLeft(rest, "0")
			}
		}
	}
	return label
}

// encodingOf knows the names that cleanLabel leaves and the library does not, or takes too narrowly. nil is for the
// library to say.
func encodingOf(label string) encoding.Encoding {
	switch label {
	case "iso-8859-9":
		return charmap.Windows1254
	case "iso-8859-11", "tis-620", "tis620", "cp874":
		return charmap.Windows874
	case "cp1250", "ansi-1250":
		return charmap.Windows1250
	case "cp1251", "ansi-1251", "cp10007":
		return charmap.Windows1251
	case "cp1252", "ansi", "ansi-1252":
		return charmap.Windows1252
	case "cp1253":
		return charmap.Windows1253
	case "cp1254":
		return charmap.Windows1254
	case "cp1255":
		return charmap.Windows1255
	case "cp1256":
		return charmap.Windows1256
	case "cp1257":
		return charmap.Windows1257
	case "cp1258":
		return charmap.Windows1258
	case "cp437":
		return charmap.CodePage437
	case "cp850":
		return charmap.CodePage850
	case "cp852":
		return charmap.CodePage852
	case "cp855":
		return charmap.CodePage855
	case "cp858":
		return charmap.CodePage858
	case "cp860":
		return charmap.CodePage860
	case "cp862":
		return charmap.CodePage862
	case "cp863":
		return charmap.CodePage863
	case "cp865":
		return charmap.CodePage865
	case "cp866":
		return charmap.CodePage866
	case "koi8-r", "koi8", "koi-8", "koi8r", "koi-8-r", "koi", "koi8-ru-r", "cp878", "cp20866", "cskoi8r":
		return charmap.KOI8R
	case "koi8-u", "koi8u", "koi8-ru", "cp21866":
		return charmap.KOI8U
	case "mac", "macintosh", "mac-roman", "macroman", "cp10000":
		return charmap.Macintosh
	case "mac-cyrillic", "mac-ukrainian":
		return charmap.MacintoshCyrillic
	case "iso-2022-jp", "iso-2022-jp-1", "iso-2022-jp-2", "iso-2022-jp-3", "iso-2022-jp-2004", "iso-2022-jp-ms", "csiso2022jp", "jis",
		"cp50220", "cp50221", "cp50222":
		return japanese.ISO2022JP
	case "shift-jis", "shiftjis", "sjis", "ms-kanji", "csshiftjis", "cp31j", "windows-31j", "cswindows31j", "cp932", "cp943", "sjis-open", "sjis-win":
		return japanese.ShiftJIS
	case "euc-jp", "eucjp", "euc", "ujis", "eucjp-ms", "eucjp-win", "cp51932":
		return japanese.EUCJP
	case "euc-kr", "euckr", "ks-c-5601-1987", "ks-c-5601", "ksc5601", "ksc-5601", "ks-c-5601-1989", "ks-c5601-1987", "uhc", "cseuckr",
		"csksc56011987", "iso-ir-149", "korean", "cp949", "cp51949", "euc-kr-1987":
		return korean.EUCKR
	case "gb2312", "gb-2312", "gb2312-80", "gb-2312-80", "csgb2312", "euc-cn", "euccn", "gbk", "cp936", "chinese", "gb18030", "gb-18030",
		"gb18030-2000", "gb18030-2022", "cp54936", "csiso58gb231280", "iso-ir-58":
		return simplifiedchinese.GB18030 // which has all that the older ones have
	case "hz-gb-2312", "hz", "hz-gb2312", "cp52936":
		return simplifiedchinese.HZGB2312
	case "big5", "big-5", "cn-big5", "csbig5", "big5-hkscs", "big5hkscs", "big5-eten", "cp950", "cp951", "big5-2003":
		return traditionalchinese.Big5
	case "utf-16", "utf16", "unicode", "ucs-2", "ucs2", "iso-10646-ucs-2", "csunicode":
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM)
	case "utf-16le", "utf16le", "cp1200", "ucs-2le":
		return unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
	case "utf-16be", "utf16be", "cp1201", "ucs-2be":
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM)
	case "utf-32", "utf32", "ucs-4", "ucs4", "utf-32be":
		return utf32.UTF32(utf32.BigEndian, utf32.UseBOM)
	case "utf-32le", "cp12000":
		return utf32.UTF32(utf32.LittleEndian, utf32.UseBOM)
	}
	return nil
}

// decodeUTF7 decodes UTF-7 (RFC 2152). It is used only where UTF-7 is declared: a reader that guesses it can be made to
// see what nobody wrote. What is malformed becomes U+FFFD.
func decodeUTF7(p []byte) (text string, ok bool) {
	var b strings.Builder
	ok = true
	for i := 0; i < len(p); i++ {
		if p[i] != '+' {
			if ok = ok && p[i] < utf8.RuneSelf; p[i] < utf8.RuneSelf {
				b.WriteByte(p[i])
			} else {
				b.WriteRune(utf8.RuneError)
			}
			continue
		}
		end := i + 1
		for end < len(p) && sextet(p[end]) < 64 {
			end++
		}
		switch run := p[i+1 : end]; {
		case len(run) == 0 && end < len(p) && p[end] == '-':
			b.WriteByte('+')
		case len(run) == 0: // a plus sign of a writer who did not know
			b.WriteByte('+')
			ok = false
		default:
			raw, err := base64.RawStdEncoding.DecodeString(string(run))
			if err != nil {
				raw, _ = base64.RawStdEncoding.DecodeString(string(run[:len(run)-1]))
				ok = false
			}
			units := make([]uint16, len(raw)/2)
			for j := range units {
				units[j] = uint16(raw[2*j])<<8 | uint16(raw[2*j+1])
			}
			ok = ok && len(raw)%2 == 0
			for _, r := range utf16.Decode(units) {
				ok = ok && r != utf8.RuneError
				b.WriteRune(r)
			}
		}
		i = end - 1
		if end < len(p) && p[end] == '-' {
			i = end
		}
	}
	return b.String(), ok
}

// shiftedKorean makes EUC-KR of ISO-2022-KR (RFC 1557): what stands between SO and SI has no eighth bit.
func shiftedKorean(p []byte) []byte {
	const so, si = 0x0e, 0x0f
	out := make([]byte, 0, len(p))
	shifted := false
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == so:
			shifted = true
		case c == si:
			shifted = false
		case c == 0x1b && i+3 < len(p) && string(p[i:i+4]) == "\x1b$)C":
			i += 3
		case c == '\n':
			shifted = false
			out = append(out, c)
		case shifted && c > ' ' && c < 0x7f:
			out = append(out, c|0x80)
		default:
			out = append(out, c)
		}
	}
	return out
}

package mime

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Anomaly is something wrong with a mail, or so unusual that readers differ in what they make of it.
type Anomaly struct {
	Kind string `json:"kind"` // one of the constants Kind…
	Part string `json:"part"` // "1.2"; "" is the message as a whole, or its header
	What string `json:"what"`
}

// What Anomaly.Kind can be, and what Anomaly.What then says.
const (
	// About the header section of the message. What is the name of the field if nothing else is said.

	KindBadHeaderLine   = "bad-header-line"    // a line that is no field; What is the line
	KindBlankHeaderLine = "blank-header-line"  // a field has a line of white space only: some take it for the end
	KindMissingField    = "missing-field"      // From, Date (RFC 5322, 3.6), Message-ID, Subject, MIME-Version, Sender
	KindDuplicateField  = "duplicate-field"    // a field that may be there once; also Content-… of any part
	KindBadDate         = "bad-date"           // Date cannot be read; What is its value
	KindOddDate         = "odd-date"           // it can be read, but is not as RFC 5322 has it, or cannot be
	KindBadAddress      = "bad-address"        // From names nobody, or an entry, which is What, has no address
	KindManyAddresses   = "too-many-addresses" // only the first 1000 are seen
	KindEightBitHeader  = "8bit-header"        // UTF-8 in a field: right only with SMTPUTF8 (RFC 6532)
	KindRawHeader       = "raw-charset-header" // octets beyond ASCII that are not UTF-8: their charset is a guess
	KindControlHeader   = "control-header"     // control characters in a field
	KindBadWord         = "bad-encoded-word"   // an encoded word cut off, of no known encoding, or with control characters

	// About lines. What is "header" or "body".

	KindNUL      = "nul"       // the octet 0
	KindBareCR   = "bare-cr"   // a CR without LF
	KindBareLF   = "bare-lf"   // an LF without CR in a mail that has CR LF too
	KindLongLine = "long-line" // of more than 998 octets (RFC 5322, 2.1.1)

	// About the structure.

	KindBadContentType    = "bad-content-type"    // What is the value; the part is taken for what it most likely is
	KindBadParameters     = "bad-parameters"      // What is the field
	KindManyParameters    = "too-many-parameters" // more than Limits.Parameters
	KindNoBoundary        = "no-boundary"         // a multipart without one, taken as text; What is the type
	KindBadBoundary       = "bad-boundary"        // of more than 1000 octets
	KindRepeatedBoundary  = "repeated-boundary"   // a multipart has the boundary of one around it
	KindNoParts           = "no-parts"            // the boundary is never found; the content is taken as text
	KindUnterminated      = "unterminated"        // a multipart without its last boundary
	KindNoHeader          = "no-header"           // a part begins with something else than a field; What is the line
	KindEpilogue          = "epilogue"            // something is behind the last boundary; What is its first line
	KindLargeHeader       = "large-header"        // of a part; the rest of it is not seen
	KindTooDeep           = "too-deep"            // more than Limits.Depth
	KindManyParts         = "too-many-parts"      // more than Limits.Parts; the rest is taken as text
	KindUnknownEncoding   = "unknown-encoding"    // Content-Transfer-Encoding; the content is taken as it stands
	KindEncodedMultipart  = "encoded-multipart"   // RFC 2045, 6.4 forbids it; the encoding is ignored
	KindEncodedMessage    = "encoded-message"     // RFC 2046, 5.2.1 forbids it; it is decoded and looked into
	KindUnreadableMessage = "unreadable-message"  // an encoded message that goes over a limit; What says which
	KindPartialMessage    = "partial-message"     // RFC 2046, 5.2.2: a piece of a mail, which nobody sees as a whole
	KindExternalBody      = "external-body"       // RFC 2046, 5.2.3: content to be fetched from elsewhere

	// About content.

	KindBadBase64      = "bad-base64"           // octets with no place in base64, skipped
	KindBadQuoted      = "bad-quoted-printable" // left as they stand
	KindEightBit       = "8bit-content"         // octets beyond ASCII in text that is declared as 7bit, or not at all
	KindUnknownCharset = "unknown-charset"      // What is its name; a guess is made
	KindWrongCharset   = "wrong-charset"        // the text is not in the charset it declares; What is that
	KindUTF7           = "utf-7"                // text in UTF-7, which hides "<" from those who do not decode it
	KindTextCut        = "text-cut"             // more text than Limits.Text
	KindTooMuchContent = "too-much-content"     // files inside files are more than four times the mail: not all are hashed

	// About files.

	KindBadName   = "bad-name"       // control characters, a direction of writing or a path in a file name
	KindTwoNames  = "two-names"      // filename and name differ, and readers take either; What is the other
	KindUUEncode  = "uuencode"       // a file in the midst of text; What is its name
	KindBadUU     = "bad-uuencode"   // it does not end as it should; What is its name
	KindYEnc      = "yenc"           // a file in yEnc, not decoded; What is its name
	KindTNEF      = "tnef"           // Outlook's envelope (winmail.dat); the files in it are among the attachments
	KindBadTNEF   = "bad-tnef"       // it is damaged or goes over a limit; What says how
	KindManyFiles = "too-many-files" // more than twice Limits.Parts; the rest is not listed

	// About reading the mail.

	KindUnreadable = "unreadable"     // the source failed; What is its error
	KindMore       = "more-anomalies" // there are more than 100
)

// AnomalyKinds lists all that Anomaly.Kind can be.
func AnomalyKinds() []string {
	return []string{
		KindBadHeaderLine, KindBlankHeaderLine, KindMissingField, KindDuplicateField, KindBadDate, KindOddDate,
		KindBadAddress, KindManyAddresses, KindEightBitHeader, KindRawHeader, KindControlHeader, KindBadWord,
		KindNUL, KindBareCR, KindBareLF, KindLongLine, KindBadContentType, KindBadParameters, KindManyParameters,
		KindNoBoundary, KindBadBoundary, KindRepeatedBoundary, KindNoParts, KindUnterminated, KindNoHeader,
		KindEpilogue, KindLargeHeader, KindTooDeep, KindManyParts, KindUnknownEncoding, KindEncodedMultipart,
		KindEncodedMessage, KindUnreadableMessage, KindPartialMessage, KindExternalBody, KindBadBase64,
		KindBadQuoted, KindEightBit, KindUnknownCharset, KindWrongCharset, KindUTF7, KindTextCut,
		KindTooMuchContent, KindBadName, KindTwoNames, KindUUEncode, KindBadUU, KindYEnc, KindTNEF, KindBadTNEF,
		KindManyFiles, KindUnreadable, KindMore,
	}
}

type anomalies []Anomaly

// add notes an anomaly once, and not more than a hundred.
func (l *anomalies) add(kind, part, what string) {
	a := Anomaly{Kind: kind, Part: part, What: what}
	switch {
	case slices.Contains(*l, a):
	case len(*l) < maxAnomalies:
		*l = append(*l, a)
	case len(*l) == maxAnomalies:
		*l = append(*l, Anomaly{Kind: KindMore})
	}
}

// unreadable notes that the source of the message failed.
func (l *anomalies) unreadable(part string, err error) {
	if err != nil && !errors.Is(err, io.EOF) {
		l.add(KindUnreadable, part, err.Error())
	}
}

// clip makes a line of a mail fit for an anomaly.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most]
	}
	return validUTF8(strings.TrimSpace(s))
}

// oddHeader looks at the header section of the message.
func (m *Message) oddHeader() (odd anomalies) {
	count := map[string]int{}
	for _, f := range m.header.fields {
		count[strings.ToLower(f.Name)]++
	}
	// RFC 5322, 3.6: readers differ in which of them they show.
	for _, name := range []string{
		"From", "Sender", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "MIME-Version",
	} {
		if count[strings.ToLower(name)] > 1 {
			odd.add(KindDuplicateField, "", name)
		}
	}
	for _, name := range []string{"From", "Date", "Message-ID", "Subject"} {
		if count[strings.ToLower(name)] == 0 {
			odd.add(KindMissingField, "", name)
		}
	}
	if count["content-type"] > 0 && count["mime-version"] == 0 {
		odd.add(KindMissingField, "", "MIME-Version") // RFC 2045, 4
	}
	from := m.from().list
	if len(from) > 1 && count["sender"] == 0 {
		odd.add(KindMissingField, "", "Sender") // RFC 5322, 3.6.2
	}
	if len(from) == 0 && count["from"] > 0 {
		odd.add(KindBadAddress, "", "")
	}
	for _, a := range from {
		if a.Domain == "" || a.Local == "" {
			odd.add(KindBadAddress, "", clip(strings.TrimSpace(a.Name+" "+a.Raw)))
		}
	}
	if f, ok := m.header.First("Date"); ok {
		switch t, ok := m.Date(); {
		case !ok:
			odd.add(KindBadDate, "", clip(f.Value()))
		case !properDate(f.Value(), t):
			odd.add(KindOddDate, "", clip(f.Value()))
		}
	}
	for _, f := range m.header.fields {
		f.odd(&odd)
	}
	return odd
}

// odd notes what is wrong with a field whatever its meaning.
func (f Field) odd(list *anomalies) {
	eightBit, control := false, false
	for i := range len(f.text) {
		c := f.text[i]
		eightBit = eightBit || c >= utf8.RuneSelf
		control = control || c < ' ' && c != '\t' && c != '\r' && c != '\n' || c == 0x7f
	}
	switch {
	case eightBit && utf8.ValidString(f.text):
		list.add(KindEightBitHeader, "", f.Name)
	case eightBit:
		list.add(KindRawHeader, "", f.Name)
	}
	if control {
		list.add(KindControlHeader, "", f.Name)
	}
	if strings.IndexByte(f.text, '\n') >= 0 {
		first := true
		for line := range strings.Lines(f.text) {
			if !first && strings.Trim(line, " \t\r\n") == "" {
				list.add(KindBlankHeaderLine, "", f.Name)
			}
			first = false
		}
	}
	if strings.Contains(f.text, "=?") {
		w := wordDecoder{}
		w.decode(f.Value())
		if w.bad {
			list.add(KindBadWord, "", f.Name)
		}
		if w.unknown != "" {
			list.add(KindUnknownCharset, "", clip(w.unknown))
		}
	}
}

// oddLines goes through the octets of the message.
func (m *Message) oddLines() (odd anomalies) {
	const longest = 998
	r := bufio.NewReaderSize(m.Raw(), 32<<10)
	at, length := int64(0), 0
	cr := false // the last octet of the piece before was a CR
	bare, pair := "", false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull && err != io.EOF {
			odd.unreadable("", err)
			return odd
		}
		where := "body"
		if at < m.body {
			where = "header"
		}
		at += int64(len(line))
		ends := len(line) > 0 && line[len(line)-1] == '\n'
		text := line
		if ends {
			text = line[:len(line)-1]
		}
		if len(text) > 0 {
			if cr || bytes.IndexByte(text[:len(text)-1], '\r') >= 0 {
				odd.add(KindBareCR, "", where)
			}
			cr = text[len(text)-1] == '\r'
		}
		if bytes.IndexByte(text, 0) >= 0 {
			odd.add(KindNUL, "", where)
		}
		length += len(text)
		if ends {
			if cr {
				length, pair = length-1, true
			} else if bare == "" {
				bare = where
			}
			cr = false
		}
		if ends || err == io.EOF {
			if length > longest {
				odd.add(KindLongLine, "", where)
			}
			length = 0
		}
		if err == io.EOF {
			if cr {
				odd.add(KindBareCR, "", where)
			}
			break
		}
	}
	// A mail that has no other line ends is one in the form that Unix keeps.
	if bare != "" && pair {
		odd.add(KindBareLF, "", bare)
	}
	return odd
}

// oddName says what is wrong with a file name, "" for nothing.
func oddName(name string) string {
	var what string
	switch {
	case strings.ContainsFunc(name, unicode.IsControl):
		what = "control character"
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) }):
		what = "direction of writing"
	case strings.ContainsAny(name, `/\`):
		what = "path"
	default:
		return ""
	}
	return what + " in " + strconv.QuoteToASCII(cut(name, 80))
}

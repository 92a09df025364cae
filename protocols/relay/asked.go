package relay

import (
	"fmt"
	"strings"

	"sluice/mailstore"
)

// longestOriginal is how long ORCPT may be: RFC 3461, 4.2.
const longestOriginal = 500

// MailParameters returns what a sender asked for about the reports of a mail, to stand behind MAIL (RFC 3461, 4.3, 4.4):
// "" or " RET=HDRS ENVID=x".
func MailParameters(ret, envelopeID string) (text string) {
	if ret != "" {
		text += " RET=" + strings.ToUpper(ret)
	}
	if envelopeID != "" {
		text += " ENVID=" + xtext(envelopeID)
	}
	return text
}

// RecipientParameters returns what a sender asked for about the reports of one recipient, to stand behind RCPT (RFC 3461,
// 4.1, 4.2): "" or " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;me@example.org".
func RecipientParameters(r mailstore.OutgoingRecipient) (text string) {
	if len(r.Notify) > 0 {
		text += " NOTIFY=" + strings.ToUpper(strings.Join(r.Notify, ","))
	}
	kind, address, ok := strings.Cut(r.Original, ";")
	if !ok || !atom(kind) {
		return text
	}
	original := kind + ";" + xtext(address)
	if !isASCII(address) || strings.EqualFold(kind, "utf-8") {
		original = "utf-8;" + utf8Xtext(address)
	}
	if len(original) <= longestOriginal {
		text += " ORCPT=" + original
	}
	return text
}

// atom reports whether s may stand where a word stands, so that it cannot become more than one.
func atom(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("=;<>", r) })
}

// xtext encodes as RFC 3461, 4 does.
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// utf8Xtext encodes as RFC 6533, 3 does (utf-8-addr-xtext), which servers with SMTPUTF8 and those without understand.
func utf8Xtext(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < '!' || r > '~' || strings.ContainsRune(`+=\`, r) {
			fmt.Fprintf(&b, `\x{%02X}`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

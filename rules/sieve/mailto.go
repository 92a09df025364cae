package sieve

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"sluice/pipeline/mime"
)

// A mailto is a notification method of RFC 5436: a URI of RFC 6068.
type mailto struct {
	to, cc  []string
	subject string
	body    string
	more    [][2]string // other fields that are safe
}

// Bounds of a mailto URI.
const (
	mailtoSize       = 8 << 10
	mailtoRecipients = 20
	mailtoFields     = 20
)

// parseMailto reads a notification method. The fields that RFC 5436, 2.7 calls unsafe, those that say who wrote the mail,
// when and by which way, are left out.
func parseMailto(uri string) (*mailto, error) {
	if len(uri) > mailtoSize {
		return nil, fmt.Errorf("a method of notification is at most %d octets long; this has %d", mailtoSize, len(uri))
	}
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || !strings.EqualFold(scheme, "mailto") {
		return nil, fmt.Errorf("%q is no method of notification: only mailto: is known", cutText(oneLine(uri), 80))
	}
	for i := range len(rest) {
		if c := rest[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("<>\"`{}|^#", c) >= 0 {
			return nil, fmt.Errorf("%q stands in a URI only encoded, as %%%02X", rest[i:i+1], c)
		}
	}
	addresses, query, _ := strings.Cut(rest, "?")
	var m mailto
	if err := m.recipients(&m.to, addresses); err != nil {
		return nil, err
	}
	fields := 0
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if fields++; fields > mailtoFields {
			return nil, fmt.Errorf("a mailto has at most %d fields", mailtoFields)
		}
		if !ok {
			return nil, fmt.Errorf("%q has no value: write %s=…", name, name)
		}
		if err := m.field(name, value); err != nil {
			return nil, err
		}
	}
	if len(m.to)+len(m.cc) == 0 {
		return nil, fmt.Errorf("this mailto has no recipient")
	}
	return &m, nil
}

func (m *mailto) field(name, value string) error {
	name, err := url.PathUnescape(name)
	if err != nil {
		return fmt.Errorf("the mailto is not well encoded: %w", err)
	}
	name = strings.ToLower(name)
	switch name {
	case "to":
		return m.recipients(&m.to, value)
	case "cc":
		return m.recipients(&m.cc, value)
	}
	if value, err = url.PathUnescape(value); err != nil {
		return fmt.Errorf("the mailto is not well encoded: %w", err)
	}
	switch {
	case name == "subject":
		m.subject = value
	case name == "body":
		m.body = value
	case !writableField(name):
		return fmt.Errorf("%q is no name of a field", cutText(oneLine(name), 80))
	case safeField(name):
		m.more = append(m.more, [2]string{capitals(name), value})
	}
	return nil
}

// recipients reads addresses with commas between them. A comma that is encoded separates too: URIs are found that way.
func (m *mailto) recipients(to *[]string, value string) error {
	value, err := url.PathUnescape(value)
	if err != nil {
		return fmt.Errorf("the mailto is not well encoded: %w", err)
	}
	for s := range strings.SplitSeq(value, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		a, err := plainAddress(s)
		if err != nil {
			return err
		}
		if slices.Contains(m.to, a) || slices.Contains(m.cc, a) {
			continue
		}
		if len(m.to)+len(m.cc) == mailtoRecipients {
			return fmt.Errorf("a mailto has at most %d recipients", mailtoRecipients)
		}
		*to = append(*to, a)
	}
	return nil
}

// plainAddress reads an address that mail is to be sent to: a local part and a domain, nothing else.
func plainAddress(s string) (string, error) {
	a, err := mime.ParseAddress(s)
	if err != nil {
		return "", fmt.Errorf("%q is no mail address: %w", cutText(oneLine(s), 80), err)
	}
	if a.Domain == "" || strings.ContainsAny(a.Domain, " <>()[]\\,;:\"#%&*") && !strings.HasPrefix(a.Domain, "[") {
		return "", fmt.Errorf("%q is no mail address: it has no domain", cutText(oneLine(s), 80))
	}
	return s, nil
}

// safeField reports whether a URI may say what stands in a field, its name in lower case.
func safeField(name string) bool {
	switch name {
	case "from", "sender", "reply-to", "date", "message-id", "received", "auto-submitted", "return-path", "bcc",
		"in-reply-to", "references", "mime-version", "delivered-to", "errors-to", "authentication-results",
		"importance", "x-priority", "disposition-notification-to", "return-receipt-to":
		return false
	}
	for _, p := range []string{"content-", "resent-", "arc-", "dkim-", "list-", "x-sluice-", "x-spam-"} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	return true
}

// writableField reports whether s can be the name of a header field (RFC 5322, 3.6.8).
func writableField(s string) bool {
	return s != "" && len(s) <= 77 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' })
}

// capitals writes the name of a field as it is mostly written: "X-Caffeine".
func capitals(name string) string {
	b := []byte(name)
	for i := range b {
		if (i == 0 || b[i-1] == '-') && 'a' <= b[i] && b[i] <= 'z' {
			b[i] -= 'a' - 'A'
		}
	}
	return string(b)
}

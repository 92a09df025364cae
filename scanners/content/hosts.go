package content

import (
	"net/netip"
	"strings"

	"sluice/pipeline/mime"
	"sluice/pipeline/orgdomain"

	"golang.org/x/net/publicsuffix"
)

// orgOf returns to whom a host belongs: its organisational domain, or what it is called where it has none.
func orgOf(host string) string {
	if org, ok := orgdomain.Of(host); ok {
		return org
	}
	return strings.ToLower(host)
}

// senderOrg returns to whom the first address in From belongs; "" where there is none.
func senderOrg(m *mime.Message) string {
	if from := m.From(); len(from) > 0 && from[0].Domain != "" {
		return orgOf(from[0].Domain)
	}
	return ""
}

// hostOf returns the host that a URL of an attribute leads to (WHATWG URL, 4.4), "" for what leads to none.
func hostOf(url string) string {
	rest, ok := authority(url)
	if !ok {
		return ""
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	if strings.HasPrefix(rest, "[") {
		inner, _, ok := strings.Cut(rest[1:], "]")
		if !ok {
			return ""
		}
		return inner
	}
	host, _, _ := strings.Cut(rest, ":")
	return strings.TrimSuffix(lowerASCII(host), ".")
}

// userinfo returns what stands before the host with an @ behind it.
func userinfo(url string) string {
	rest, ok := authority(url)
	if !ok {
		return ""
	}
	user, _, ok := cutLast(rest, '@')
	if !ok {
		return ""
	}
	user, _, _ = strings.Cut(user, ":")
	return user
}

func cutLast(s string, c byte) (before, after string, ok bool) {
	if i := strings.LastIndexByte(s, c); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// authority returns what stands between the slashes of a URL.
func authority(url string) (string, bool) {
	const longest = 4096
	url = strings.TrimFunc(url[:min(len(url), longest)], func(r rune) bool { return r <= ' ' })
	if strings.ContainsAny(url, "\t\r\n") {
		url = strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(url)
	}
	scheme, rest, ok := strings.Cut(url, ":")
	switch {
	case len(url) > 2 && strings.Trim(url[:2], `/\`) == "":
		rest = url
	case !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") && !strings.EqualFold(scheme, "ftp"):
		return "", false
	}
	rest = strings.TrimLeft(rest, `/\`)
	if i := strings.IndexAny(rest, `/\?#`); i >= 0 {
		rest = rest[:i]
	}
	return rest, rest != ""
}

// fileLike are top-level domains that names of files end in: "notes.md" is no host.
var fileLike = map[string]bool{
	"md": true, "sh": true, "py": true, "pl": true, "rs": true, "zip": true, "mov": true, "app": true, "cc": true, "ps": true, "ai": true,
	"doc": true, "so": true,
}

// hostShown returns the host that a text shows to its reader, "" where it shows none. The text is one word: a URL, or a
// name that ends in a top-level domain.
func hostShown(text string) string {
	text = strings.TrimFunc(text, isSpaceOrInvisible)
	if text == "" || len(text) > linkText || strings.IndexByte(text, '.') < 0 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' }) {
		return ""
	}
	if rest, ok := authority(text); ok {
		if strings.Contains(rest, "@") {
			return ""
		}
		text = hostOf(text)
		if _, err := netip.ParseAddr(text); err == nil {
			return text
		}
		return named(text, true)
	}
	if i := strings.IndexAny(text, "/?#:"); i >= 0 {
		text = text[:i]
	}
	text = strings.Trim(lowerASCII(text), ".,;:!\"'()<>[]")
	return named(text, strings.HasPrefix(text, "www."))
}

// named returns a host if it can be one.
func named(host string, sure bool) string {
	if strings.ContainsAny(host, "@ _&=+*%$\u2026") || strings.Contains(host, "..") {
		return ""
	}
	name, ok := orgdomain.Canonical(host)
	if !ok {
		return ""
	}
	i := strings.LastIndexByte(name, '.')
	if i <= 0 {
		return ""
	}
	tld := name[i+1:]
	if _, icann := publicsuffix.PublicSuffix(tld); !icann || strings.Trim(tld, "0123456789") == "" || !sure && fileLike[tld] {
		return ""
	}
	return name
}

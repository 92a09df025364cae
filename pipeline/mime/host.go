package mime

import (
	"net/netip"
	"strconv"
	"strings"
)

// Limits on what one URL is looked at for.
const (
	maxURL    = 4096 // octets
	maxNested = 5    // URLs within it
)

// LinkHosts are the different hosts of URLs, in order, and of those that URLs have in them: an open redirector leads on to
// what stands in its query.
func LinkHosts(urls []string) []string {
	var out []string
	seen := map[string]bool{}
	add := func(host string) {
		if host != "" && !seen[host] {
			seen[host] = true
			out = append(out, host)
		}
	}
	for _, s := range urls {
		s = s[:min(len(s), maxURL)]
		add(HostOf(s))
		for _, nested := range nestedURLs(s) {
			add(HostOf(nested))
		}
	}
	return out
}

// nestedURLs are the URLs within a URL, as they stand or with percent signs, twice over too.
func nestedURLs(s string) []string {
	var out []string
	_, rest, _ := strings.Cut(s, "//")
	for range 3 {
		low := strings.ToLower(rest)
		for at := 0; len(out) < maxNested; {
			n := strings.Index(low[at:], "http")
			if n < 0 {
				break
			}
			at += n
			if nested := strings.TrimPrefix(low[at+4:], "s"); strings.HasPrefix(nested, ":/") || strings.HasPrefix(nested, `:\`) {
				end := strings.IndexAny(rest[at:], "&;\"'<> ")
				if end < 0 {
					end = len(rest) - at
				}
				out = append(out, rest[at:at+end])
			}
			at += 4
		}
		if !strings.Contains(rest, "%") {
			break
		}
		rest = string(decodePercent(rest))
	}
	return out
}

// HostOf returns the host that a browser would go to (WHATWG URL, 4.4), also for URLs that are none by the book: \ is /,
// of userinfo the last @ counts, percent signs in the host are decoded, addresses may be in decimal, octal and hexadecimal
// numbers, and dots of other scripts.
func HostOf(s string) string {
	s = strings.Map(func(r rune) rune {
		switch r {
		case '\t', '\n', '\r':
			return -1
		case '\\':
			return '/'
		}
		return r
	}, s)
	_, rest, ok := strings.Cut(s, ":/")
	if !ok {
		return ""
	}
	rest = strings.TrimLeft(rest, "/")
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	host := rest[strings.LastIndexByte(rest, '@')+1:]
	if literal, ok := strings.CutPrefix(host, "["); ok {
		literal, _, _ = strings.Cut(literal, "]")
		a, err := netip.ParseAddr(literal)
		if err != nil {
			return ""
		}
		return a.WithZone("").Unmap().String()
	}
	host, _, _ = strings.Cut(host, ":")
	host = strings.NewReplacer("。", ".", "．", ".", "｡", ".").Replace(string(decodePercent(host)))
	host = strings.TrimSuffix(host, ".")
	if a, ok := numeric(host); ok {
		return a.String()
	}
	return strings.ToLower(host)
}

// numeric reads an IPv4 address as browsers do: one to four numbers, in decimal, octal or hexadecimal, the last of which
// fills what is left.
func numeric(host string) (netip.Addr, bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var all uint64
	for i, p := range parts {
		base := 10
		if len(p) > 1 && (strings.HasPrefix(p, "0x") || strings.HasPrefix(p, "0X")) {
			p, base = p[2:], 16
			if p == "" {
				p = "0"
			}
		} else if len(p) > 1 && p[0] == '0' {
			base = 8
		}
		n, err := strconv.ParseUint(p, base, 32)
		if err != nil {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			if n > 255 {
				return netip.Addr{}, false
			}
			all |= n << (8 * (3 - i))
			continue
		}
		if n >= 1<<(8*(5-len(parts))) {
			return netip.Addr{}, false
		}
		all |= n
	}
	return netip.AddrFrom4([4]byte{byte(all >> 24), byte(all >> 16), byte(all >> 8), byte(all)}), true
}

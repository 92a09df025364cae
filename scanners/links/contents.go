package links

import (
	"crypto/md5"  //nolint:gosec // what lists are keyed by
	"crypto/sha1" //nolint:gosec // what lists are keyed by
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/scanners/orgdomain"
)

// A key is what a list is asked for.
type key struct {
	name  string // before the zone
	shown string // what it stands for
}

// Contents are what of a mail can be looked up. Each is worked out once, for all lists.
type contents struct {
	view    pipeline.View
	ignores func(domain string) bool

	links     []string // hosts
	addresses []string
	haveLinks bool
	haveAddrs bool
}

const (
	maxAddresses = 200       // of one mail that are looked at
	maxText      = 256 << 10 // octets of text in which addresses are looked for
	maxShown     = 200       // octets of a file's name in a fact
)

func newContents(v pipeline.View, ignores func(string) bool) *contents {
	return &contents{view: v, ignores: ignores}
}

// keys lists the different names that l is to be asked for, in the order of the mail.
func (l list) keys(c *contents) []key {
	var keys []key
	seen := map[string]bool{}
	add := func(k key) {
		if k.name != "" && !seen[k.name] {
			seen[k.name] = true
			keys = append(keys, k)
		}
	}
	if l.Hash != "" {
		if l.of["addresses"] {
			for _, a := range c.allAddresses() {
				add(key{l.digest([]byte(a)), a})
			}
		}
		if l.of["files"] {
			for _, f := range c.view.Message.Attachments() {
				if sum, err := hex.DecodeString(f.SHA256); err == nil {
					add(key{l.encode(sum), shown(f)})
				}
			}
		}
		return keys
	}
	for _, host := range c.hosts(l.of) {
		add(l.domain(host, c.ignores))
	}
	return keys
}

func shown(f mime.Attachment) string {
	if f.Name == "" {
		return f.SHA256
	}
	return strings.ToValidUTF8(f.Name[:min(len(f.Name), maxShown)], "")
}

// domain is what a list of domains is asked for a host: its organisational domain, or itself. Addresses are asked for the
// other way round, as lists of domains have them.
func (l list) domain(host string, ignores func(string) bool) key {
	name, ok := orgdomain.Canonical(host)
	if !ok {
		return key{}
	}
	if a, err := netip.ParseAddr(name); err == nil {
		if !a.Is4() {
			return key{}
		}
		b := a.As4()
		return key{strings.Join([]string{itoa(b[3]), itoa(b[2]), itoa(b[1]), itoa(b[0])}, "."), name}
	}
	if !strings.Contains(name, ".") || ignores(name) {
		return key{}
	}
	if l.Host {
		return key{name, name}
	}
	org, _ := orgdomain.Of(name)
	return key{org, org}
}

func itoa(b byte) string { return strconv.Itoa(int(b)) }

// hosts are the hosts that a list of domains wants to see.
func (c *contents) hosts(of map[string]bool) []string {
	var out []string
	header := c.view.Message.Header()
	domains := func(list []mime.Address) {
		for _, a := range list {
			out = append(out, a.Domain)
		}
	}
	if of["helo"] {
		out = append(out, c.view.Greeting)
	}
	if of["sender"] {
		out = append(out, c.view.Sender.Domain)
	}
	if of["from"] {
		domains(c.view.Message.From())
	}
	if of["reply_to"] {
		for f := range header.All("Reply-To") {
			domains(f.Addresses())
		}
	}
	if of["links"] {
		if !c.haveLinks {
			c.haveLinks = true
			c.links = linkHosts(c.view.Message.Links())
		}
		out = append(out, c.links...)
	}
	return out
}

// linkHosts are the different hosts of URLs, in order.
func linkHosts(urls []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range urls {
		host := hostOf(s)
		if host != "" && !seen[host] {
			seen[host] = true
			out = append(out, host)
		}
	}
	return out
}

// hostOf returns the host that a browser would go to, also for URLs that are none by the book: it takes \ for /, addresses
// in decimal, octal and hexadecimal numbers, and dots of other scripts.
func hostOf(s string) string {
	s = strings.ReplaceAll(s, `\`, "/")
	u, err := url.Parse(s)
	host := ""
	if err == nil {
		host = u.Hostname()
	} else if _, rest, ok := strings.Cut(s, "//"); ok {
		rest, _, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		rest = rest[strings.LastIndexByte(rest, '@')+1:]
		host, _, _ = strings.Cut(rest, ":")
	}
	host = strings.NewReplacer("。", ".", "．", ".", "｡", ".").Replace(strings.TrimSuffix(host, "."))
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

var address = regexp.MustCompile(`[A-Za-z0-9!#$%&'*+/=?^_{|}~.-]{1,64}@[A-Za-z0-9.-]{1,253}\.[A-Za-z]{2,63}`)

// allAddresses are the different addresses of the header's senders, the envelope's, and those in the text, in lower case,
// without a subaddress.
func (c *contents) allAddresses() []string {
	if c.haveAddrs {
		return c.addresses
	}
	c.haveAddrs = true
	add := func(a mime.Address) {
		if a.Local == "" || a.Domain == "" || len(c.addresses) >= maxAddresses || c.ignores(a.Domain) {
			return
		}
		if s := a.Local + "@" + a.Domain; !slices.Contains(c.addresses, s) {
			c.addresses = append(c.addresses, s)
		}
	}
	add(c.view.Sender)
	for _, a := range c.view.Message.From() {
		add(a)
	}
	for _, name := range []string{"Reply-To", "Sender"} {
		for f := range c.view.Message.Header().All(name) {
			for _, a := range f.Addresses() {
				add(a)
			}
		}
	}
	text := c.view.Message.Text()
	for _, s := range address.FindAllString(text[:min(len(text), maxText)], maxAddresses) {
		if a, err := mime.ParseAddress(strings.TrimLeft(s, ".'")); err == nil {
			add(a)
		}
	}
	return c.addresses
}

func (l list) digest(b []byte) string {
	switch l.Hash {
	case "md5":
		sum := md5.Sum(b) //nolint:gosec // what lists are keyed by
		return l.encode(sum[:])
	case "sha1":
		sum := sha1.Sum(b) //nolint:gosec // what lists are keyed by
		return l.encode(sum[:])
	default:
		sum := sha256.Sum256(b)
		return l.encode(sum[:])
	}
}

// encode writes a hash as a label.
func (l list) encode(sum []byte) string {
	if l.Base32 {
		return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum))
	}
	return hex.EncodeToString(sum)
}

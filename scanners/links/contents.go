package links

import (
	"crypto/md5"  //nolint:gosec // what lists are keyed by
	"crypto/sha1" //nolint:gosec // what lists are keyed by
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/orgdomain"
)

// A key is what a list is asked for.
type key struct {
	name  string // before the zone
	shown string // what it stands for
	of    string // whose it is, where several may be one's: an organisational domain
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
	maxLocal     = 64        // RFC 5321, 4.5.3.1.1
	maxDomain    = 253
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
				add(key{l.digest([]byte(a)), a, a[strings.LastIndexByte(a, '@')+1:]})
			}
		}
		if l.of["files"] {
			for _, f := range c.view.Message.Attachments() {
				if sum, err := hex.DecodeString(f.SHA256); err == nil {
					add(key{l.encode(sum), shown(f), f.SHA256})
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

// choose picks at most this many of the keys, so that nobody hides one behind many others: of each domain alike, and of
// too many domains a third from the beginning, a third from the end and the rest evenly from between.
func choose(keys []key, most int) []key {
	if len(keys) <= most {
		return keys
	}
	turn := map[string]int{} // how many of the same domain came before
	turns := make([][]key, 0, 8)
	for _, k := range keys {
		n := turn[k.of]
		turn[k.of]++
		if n == len(turns) {
			turns = append(turns, nil)
		}
		turns[n] = append(turns[n], k)
	}
	var out []key
	for _, round := range turns {
		out = append(out, thin(round, most-len(out))...)
	}
	return out
}

// thin picks n of the keys: the first, the last and some from between.
func thin(keys []key, n int) []key {
	if len(keys) <= n {
		return keys
	}
	first := (n + 2) / 3
	last := (n - first + 1) / 2
	out := append([]key{}, keys[:first]...)
	between, step := keys[first:len(keys)-last], n-first-last
	for i := range step {
		out = append(out, between[i*len(between)/step])
	}
	return append(out, keys[len(keys)-last:]...)
}

// domain is what a list of domains is asked for a host: its organisational domain, or itself. Addresses are asked for the
// other way round, as lists of domains have them.
func (l list) domain(host string, ignores func(string) bool) key {
	name, ok := orgdomain.Canonical(host)
	if !ok {
		return key{}
	}
	if a, err := netip.ParseAddr(name); err == nil {
		if a = a.Unmap(); !a.Is4() {
			return key{} // lists of domains have none of these
		}
		b := a.As4()
		return key{strings.Join([]string{itoa(b[3]), itoa(b[2]), itoa(b[1]), itoa(b[0])}, "."), a.String(), a.String()}
	}
	if !strings.Contains(name, ".") || !isHost(name) || ignores(name) {
		return key{}
	}
	org, _ := orgdomain.Of(name)
	if l.Host {
		return key{name, name, org}
	}
	return key{org, org, org}
}

// isHost reports whether a name can be one of a host that somebody reaches: what else there is in names only makes servers
// say that they fail.
func isHost(name string) bool {
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
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
			c.links = mime.LinkHosts(c.view.Message.Links())
		}
		out = append(out, c.links...)
	}
	return out
}

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
	for s := range addressesIn(text[:min(len(text), maxText)]) {
		if a, err := mime.ParseAddress(s); err == nil {
			add(a)
		}
	}
	return c.addresses
}

// addressesIn yields what looks like a mail address in a text.
func addressesIn(text string) iter.Seq[string] {
	local := func(c byte) bool {
		return isLetter(c) || isDigit(c) || strings.IndexByte("!#$%&'*+/=?^_{|}~.-", c) >= 0
	}
	domain := func(c byte) bool { return isLetter(c) || isDigit(c) || c == '.' || c == '-' }
	return func(yield func(string) bool) {
		for at := 0; at < len(text); at++ {
			n := strings.IndexByte(text[at:], '@')
			if n < 0 {
				return
			}
			at += n
			begin, end := at, at+1
			for begin > 0 && at-begin <= maxLocal && local(text[begin-1]) {
				begin--
			}
			for end < len(text) && end-at <= maxDomain && domain(text[end]) {
				end++
			}
			name := strings.TrimLeft(text[begin:at], ".'")
			host := strings.TrimRight(text[at+1:end], ".-")
			top := host[strings.LastIndexByte(host, '.')+1:]
			if name == "" || at-begin > maxLocal || len(top) < 2 || len(top) == len(host) || !isLetter(top[0]) || end-at > maxDomain {
				continue
			}
			if !yield(name + "@" + host) {
				return
			}
		}
	}
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

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

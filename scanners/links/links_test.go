package links

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/dnslist"
)

type lists = map[string]List

func zone(of ...string) List {
	return List{Config: dnslist.Config{Zone: "l.example", NoTestPoints: true}, Of: of}
}

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), func(c any) {
		c.(*Config).Lists = lists{"surbl": zone(), "ebl": {Config: dnslist.Config{Zone: "e.example"}, Hash: "sha1", Of: []string{"addresses"}}}
	})
}

const mail = "From: A <Boss+x@Mail.Sender.example>\nReply-To: b@reply.example\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n" +
	"--x\nContent-Type: text/plain\n\nSee http://www.bad.co.uk/a?b and https://WWW.BAD.CO.UK:8443/c, http://192.0.2.77/x http://ours.example.org/\n" +
	"write to victim@phish.example or Boss@mail.sender.example\n--x\n" +
	"Content-Type: application/octet-stream; name=\"a.exe\"\n\nabc\n--x--\n"

func check(t *testing.T, r *pipelinetest.Resolver, c Config) (pipeline.Result, error) {
	t.Helper()
	env := pipelinetest.Env(t)
	env.Resolver = r
	if c.Most == 0 {
		c.Most = 30
	}
	s, err := newStage(c, env)
	if err != nil {
		t.Fatal(err)
	}
	var v pipeline.View
	v.Greeting, v.Sender = "client.helo.example", pipelinetest.Address(t, "bounce@env.example")
	v.Message = pipelinetest.Parse(t, strings.ReplaceAll(mail, "\n", "\r\n"))
	return s.Check(t.Context(), v)
}

// What a list is asked for.
func TestKeys(t *testing.T) {
	hash := func(l List, kind string, base32 bool) List { l.Hash, l.Base32 = kind, base32; return l }
	host := func(l List) List { l.Host = true; return l }
	for name, tt := range map[string]struct {
		list List
		want []string
	}{
		"links":   {zone(), []string{"bad.co.uk", "77.2.0.192"}},
		"hosts":   {host(zone()), []string{"www.bad.co.uk", "77.2.0.192"}},
		"senders": {zone("from", "sender", "reply_to", "helo"), []string{"helo.example", "env.example", "sender.example", "reply.example"}},
		// In lower case, without subaddress: bounce@env.example, boss@mail.sender.example, b@reply.example, victim@phish.example.
		"addresses": {hash(zone("addresses"), "sha1", false), []string{
			"86bf9cae471173a67abb6e17d79eb6e02a1e4c6d", "e904d5d836313a2b54e9e48688256fc7fbcfe0b7",
			"c5334c0372e75e6b949fb8fc061c715714755336", "a9415b9628f84abe1e236aef3169a63435bc2c93",
		}},
		"files": {hash(zone("files"), "sha256", true), []string{"xj4bnp4pahh6uqkbidpf3lrceoyagyndsylxvhfucd7wd4qacwwq"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &pipelinetest.Resolver{}
			if _, err := check(t, r, Config{Lists: lists{"l": tt.list}, Ignore: []string{"Example.ORG"}}); err != nil {
				t.Fatal(err)
			}
			asked := map[string]bool{}
			for _, q := range r.Asked() {
				asked[strings.TrimSuffix(q, ".l.example")] = true
			}
			want := map[string]bool{}
			for _, w := range tt.want {
				want[w] = true
			}
			if !reflect.DeepEqual(asked, want) {
				t.Errorf("asked for %v, want %v", asked, want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	r := &pipelinetest.Resolver{
		Addr: map[string][]netip.Addr{"bad.co.uk.l.example": {netip.MustParseAddr("127.0.0.12")}},
		Fail: map[string]string{"77.2.0.192.l.example": "timeout", "bad.co.uk.dead.example": "timeout", "77.2.0.192.dead.example": "timeout", "env.example.half.example": "timeout"},
	}
	l := zone()
	l.Answers = map[string][]string{"ph": {"&8"}, "mw": {"&16"}}
	dead, half := zone(), zone("sender", "reply_to")
	dead.Zone, half.Zone = "dead.example", "half.example"
	got, err := check(t, r, Config{Lists: lists{"l": l, "dead": dead, "half": half}, Ignore: []string{"example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	fact := got.Fact.(pipeline.Named[Found])
	want := Found{Listed: true, Codes: []string{"127.0.0.12"}, Names: []string{"ph"}, Hits: []string{"bad.co.uk"}, Asked: 1, Unasked: 1}
	if !reflect.DeepEqual(fact["l"], want) || got.Missing["l"] != nil {
		t.Errorf("%+v, unknown %v; what is listed is known although another name is not", fact["l"], got.Missing)
	}
	if got.Missing["dead"] == nil || got.Missing["half"] == nil || fact["half"].Asked != 1 || fact["half"].Unasked != 1 {
		t.Errorf("a list that left names open is not unknown: %+v, %v", fact, got.Missing)
	}
	if _, err := check(t, r, Config{Lists: lists{"dead": dead}, Ignore: []string{"example.org"}}); err == nil || !strings.HasPrefix(err.Error(), "dead: look up in dead.example: ") {
		t.Errorf("no list answers: %v", err)
	}
}

func TestMost(t *testing.T) {
	r := &pipelinetest.Resolver{}
	got, err := check(t, r, Config{Lists: lists{"l": zone()}, Most: 1})
	if err != nil {
		t.Fatal(err)
	}
	if f := got.Fact.(pipeline.Named[Found])["l"]; f.Asked != 1 || f.Unasked != 2 || len(r.Asked()) != 1 {
		t.Errorf("%+v, asked %v", f, r.Asked())
	}
}

// Where a list of domains is asked for an IDN, it is so in A-labels, however it is written.
func TestIDN(t *testing.T) {
	l := list{List: zone()}
	for in, want := range map[string]string{
		"http://b\u00fccher.example/":         "xn--bcher-kva.example",
		"http://www.B\u00dcCHER.example/":     "xn--bcher-kva.example",
		"http://xn--BCHER-kva.example/":       "xn--bcher-kva.example",
		"http://\uff45vil.example/":           "evil.example",
		"http://ev\u00adil.example/":          "evil.example", // a soft hyphen
		"http://%E2%93%94vil.example/":        "evil.example", // a circled e
		"http://a_b.b\u00fccher.example/":     "xn--bcher-kva.example",
		"http://r3---x.b\u00fccher.example/":  "xn--bcher-kva.example",
		"http://a b.example/":                 "",
		"http://\"x\".example/":               "",
		"http://com/":                         "",
		"http://bad.co.uk/":                   "bad.co.uk",
		"http://deep.below.bad.co.uk:80/x?y":  "bad.co.uk",
		"http://[::ffff:192.0.2.1]/":          "1.2.0.192",
		"http://[2001:db8::1]/":               "",
		"http://" + strings.Repeat("a.", 200): "",
	} {
		if got := l.domain(mime.HostOf(in), func(string) bool { return false }).name; got != want {
			t.Errorf("%s: asks for %q, want %q", in, got, want)
		}
	}
}

// Nobody hides a domain behind others: not behind names of one domain, not behind many domains, wherever it stands.
func TestChoose(t *testing.T) {
	const most = 30
	var keys []key
	for i := range 1000 {
		keys = append(keys, key{name: fmt.Sprintf("h%d.junk.example", i), of: "junk.example"})
	}
	keys = slices.Insert(keys, 500, key{name: "www.bad.example", of: "bad.example"})
	got := choose(keys, most)
	if len(got) != most || !slices.ContainsFunc(got, func(k key) bool { return k.of == "bad.example" }) {
		t.Errorf("behind names of one domain: %v", got)
	}
	keys = nil
	for i := range 1000 {
		keys = append(keys, key{name: fmt.Sprintf("d%d.example", i), of: fmt.Sprintf("d%d.example", i)})
	}
	got = choose(keys, most)
	at := func(i int) bool { return slices.Contains(got, keys[i]) }
	if len(got) != most || !at(0) || !at(9) || !at(999) || !at(990) {
		t.Errorf("of many domains: %v", got)
	}
	before := -1
	for i := range keys {
		if at(i) {
			if i-before > 120 {
				t.Errorf("none between %d and %d", before, i)
			}
			before = i
		}
	}
	for n := range 100 {
		got := choose(keys[:max(n, 1)], most)
		slices.SortFunc(got, func(a, b key) int { return strings.Compare(a.name, b.name) })
		if len(got) != min(max(n, 1), most) || len(slices.Compact(got)) != len(got) {
			t.Errorf("%d of %d", len(got), n)
		}
	}
}

// Addresses in a text are found in a time that grows with the text alone.
func TestAddressesIn(t *testing.T) {
	for in, want := range map[string]string{
		"write to Victim@phish.example.":             "Victim@phish.example",
		"<a@b.example>,c.d+e@f-g.example;x":          "a@b.example c.d+e@f-g.example",
		"'a@b.example' ..a@b.example":                "a@b.example a@b.example",
		"@ @b.example a@ a@b a@b. a@b.1 a@b.c a@@b":  "",
		strings.Repeat("a", 65) + "@b.example":       "",
		strings.Repeat("a", 64) + "@b.example":       strings.Repeat("a", 64) + "@b.example",
		"a@" + strings.Repeat("b.", 200) + "example": "",
	} {
		if got := strings.Join(slices.Collect(addressesIn(in)), " "); got != want {
			t.Errorf("%.40s: %q, want %q", in, got, want)
		}
	}
	began := time.Now()
	for _, unit := range []string{"a", "@", "a@", "a@a.", "a@a.a", "a.a@"} {
		text := strings.Repeat(unit, maxText/len(unit))
		n := 0
		for range addressesIn(text) {
			n++
		}
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
}

func FuzzHostOf(f *testing.F) {
	f.Add("http://user@[::1]:80/\\x")
	f.Add("http://0x.0.07.1")
	f.Fuzz(func(t *testing.T, s string) {
		l := list{List: zone()}
		k := l.domain(mime.HostOf(s), func(string) bool { return false })
		if strings.ContainsAny(k.name, " /@\\\x00") || len(k.name) > 253 || strings.HasPrefix(k.name, ".") {
			t.Errorf("%q: would ask for %q", s, k.name)
		}
	})
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"lists: there is none":              {Most: 1},
		"most: 0 is too few":                {Lists: lists{"l": zone()}},
		`ignore: "a b" is no`:               {Most: 1, Lists: lists{"l": zone()}, Ignore: []string{"a b"}},
		"L: rules cannot use":               {Most: 1, Lists: lists{"L": zone()}},
		`of: "body" is not`:                 {Most: 1, Lists: lists{"l": zone("body")}},
		"of: files are looked up by a hash": {Most: 1, Lists: lists{"l": zone("files")}},
		"of: say of what":                   {Most: 1, Lists: lists{"l": {Config: dnslist.Config{Zone: "x.example"}, Hash: "sha1"}}},
		"hash: there is no \"crc\"":         {Most: 1, Lists: lists{"l": {Config: dnslist.Config{Zone: "x.example"}, Hash: "crc"}}},
		"files are looked up by sha256":     {Most: 1, Lists: lists{"l": {Config: dnslist.Config{Zone: "x.example"}, Hash: "sha1", Of: []string{"files"}}}},
		"too long for a name":               {Most: 1, Lists: lists{"l": {Config: dnslist.Config{Zone: "x.example"}, Hash: "sha256", Of: []string{"files"}}}},
		"host: is for lists of domains":     {Most: 1, Lists: lists{"l": {Config: dnslist.Config{Zone: "x.example"}, Hash: "sha1", Of: []string{"addresses"}, Host: true}}},
		"base32: is for lists of hashes":    {Most: 1, Lists: lists{"l": {Config: dnslist.Config{Zone: "x.example"}, Base32: true}}},
		"zone: is missing":                  {Most: 1, Lists: lists{"l": {}}},
	} {
		if _, err := newStage(c, pipelinetest.Env(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

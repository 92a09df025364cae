package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/protocols/listen"
)

type listConfig struct {
	Lists map[string]struct {
		Zone string `yaml:"zone"`
	} `yaml:"lists"`
	Limit int     `yaml:"limit"`
	Score float64 `yaml:"score"`
	Files []string
	Every time.Duration `yaml:"every"`
	On    bool          `yaml:"on"`
}

func kinds() []pipeline.Kind {
	return []pipeline.Kind{
		{Name: "dnsbl", Config: func() any { return &listConfig{Limit: 7} }},
		{Name: "rules", Config: func() any {
			return &struct {
				Files []string `yaml:"files"`
				Junk  *float64 `yaml:"junk"`
			}{}
		}},
		{Name: "spf"},
	}
}

func TestParse(t *testing.T) {
	c, err := Parse("/etc/sluice.yaml", `
hostname: mx.example.org
data: /var/lib/sluice
trusted: [127.0.0.0/8, "::1", 192.0.2.7]
aliases:
  info@example.org: [me@example.org, you@example.org]
listen:
  smtp:   [":25"]
  lmtp:   ["unix:/run/sluice/lmtp.sock"]
  milter: [{address: "unix:milter.sock", mode: 0666, group: postfix}]
  imap:   [":143", {address: ":993", tls: implicit}]
limits: {message_size: 10MiB, read_timeout: 90s, smtp: {received_hops: 20, message_size: 1000000}, imap: {idle: 1h}}
quarantine: {keep: 14d, release_to: "smtp:[::1]:10025"}
log: {format: json, level: debug}
speak: earliest
pipeline:
  - dnsbl:  {lists: {zen: {zone: zen.example}}, on_error: postpone, timeout: 20s, at: mail}
  - spf:
  - rules:  {name: early, files: [rules/*.yaml], junk: 5, shadow: true}
`, kinds())
	if err != nil {
		t.Fatal(err)
	}
	if c.Hostname != "mx.example.org" || c.Data != "/var/lib/sluice" || c.Speak != SpeakEarliest || c.Users.Domain != "localhost" {
		t.Errorf("plain settings: %+v", c)
	}
	if got := netip.Prefix(c.Trusted[2]).String(); len(c.Trusted) != 3 || got != "192.0.2.7/32" {
		t.Errorf("trusted: %v", c.Trusted)
	}
	want := []Socket{{Config: listen.Config{Address: ":143"}}, {Config: listen.Config{Address: ":993", TLS: listen.Implicit}}}
	if !reflect.DeepEqual(c.Listen.IMAP, want) {
		t.Errorf("imap: %+v", c.Listen.IMAP)
	}
	if m := c.Listen.Milter[0]; m.Mode != 0o666 || m.Group != "postfix" {
		t.Errorf("milter: %+v", m)
	}
	if l := c.Limits; l.MessageSize != 10<<20 || l.Sockets.ReadTimeout != 90*time.Second || l.SMTP.Hops != 20 ||
		l.SMTP.MessageSize != 1_000_000 || l.LMTP.MessageSize != 10<<20 || l.IMAP.Idle != time.Hour || l.Milter.Recipients != 100 {
		t.Errorf("limits: %+v", l)
	}
	if c.Quarantine.Store.Keep != 14*24*time.Hour || c.Log.Format != "json" {
		t.Errorf("quarantine %+v, log %+v", c.Quarantine, c.Log)
	}
	if len(c.Pipeline) != 3 {
		t.Fatalf("%d steps", len(c.Pipeline))
	}
	first := c.Pipeline[0]
	if lists := first.Config.(*listConfig); lists.Lists["zen"].Zone != "zen.example" || lists.Limit != 7 {
		t.Errorf("dnsbl: %+v", lists)
	}
	if *first.OnError != pipeline.Postpone || first.Timeout != 20*time.Second || *first.At != pipeline.Mail {
		t.Errorf("dnsbl: %+v", first)
	}
	if first.Pos != "/etc/sluice.yaml:17:5" {
		t.Errorf("the first step is at %s", first.Pos)
	}
	if last := c.Pipeline[2]; last.Name != "early" || !last.Shadow || last.OnError != nil {
		t.Errorf("rules: %+v", last)
	}
	if c.Path("rules/a.yaml") != "/etc/rules/a.yaml" || c.Path("/x") != "/x" || !c.HasListen() || !c.HasPipeline() {
		t.Error("the file does not know where it is or what it says")
	}
}

func TestDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "pipeline: []\n", "pipeline:\n  - spf: {}\n"} {
		c, err := Parse("x.yaml", text, kinds())
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if c.HasListen() || c.Limits.MessageSize != 50<<20 || c.Data != "sluice-data" {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

func TestProblems(t *testing.T) {
	for _, x := range []struct{ name, text, want string }{
		{"an unknown key", "lisen:\n  smtp: []\n", `
x.yaml:1:1: unknown key "lisen"; did you mean "listen"?
     1 | lisen:
       | ^`},
		{"an unknown key further in", "listen:\n  smtp: []\n  impa: [':143']\n", `
x.yaml:3:3: unknown key "impa" in listen; did you mean "imap"?
     3 |   impa: [':143']
       |   ^`},
		{"the pipeline misspelt", "pipline: []\n", `
x.yaml:1:1: unknown key "pipline"; did you mean "pipeline"?
     1 | pipline: []
       | ^`},
		{"all of them", "hostname: 5\nlimits:\n  read_timeout: 30\n  recipients: many\nspeak: rctp\nlog: text\n", `
x.yaml:1:11: hostname wants text, not 5; put it in quotes: "5"
     1 | hostname: 5
       |           ^
x.yaml:3:17: limits.read_timeout wants a time such as 30s, 5m or 30d, not 30; write 30s for seconds
     3 |   read_timeout: 30
       |                 ^
x.yaml:4:15: limits.recipients wants a whole number, not "many"
     4 |   recipients: many
       |               ^
x.yaml:5:8: speak: there is no "rctp"; did you mean "rcpt"?
     5 | speak: rctp
       |        ^
x.yaml:6:6: log wants a mapping of keys and values, not "text"
     6 | log: text
       |      ^`},
		{"a scalar for a list", "domains: example.org\n", `
x.yaml:1:10: domains wants a list, not "example.org"; write [example.org]
     1 | domains: example.org
       |          ^`},
		{"twice", "data: a\ndata: b\n", `
x.yaml:2:1: "data" stands here twice; it is set in line 1 already
     2 | data: b
       | ^`},
		{"no value", "data:\ntrusted:\n", `
x.yaml:1:1: data has no value; leave the key out for its default
     1 | data:
       | ^
x.yaml:2:1: trusted has no value; leave the key out for its default
     2 | trusted:
       | ^`},
		{"steps", `pipeline:
  - dnbsl: {}
  - spf
  - spf: {}
    timeout: 5s
  - dnsbl: {list: {}, timeout: soon, limit: 1.5, name: client}
  - dnsbl: {name: A, lists: [], on: yes}
  - spf: {name: x}
  - spf: {name: x}
  - spf: {at: data, on_error: defer, colour: red}
`, `
x.yaml:2:5: there is no kind of step "dnbsl"; did you mean "dnsbl"?
     2 |   - dnbsl: {}
       |     ^
x.yaml:3:5: a step is a mapping of its kind and settings, not "spf"; write - spf: {}
     3 |   - spf
       |     ^
x.yaml:5:5: "timeout" stands beside the kind "spf"; indent it further, below spf
     5 |     timeout: 5s
       |     ^
x.yaml:6:13: unknown key "list" in dnsbl; did you mean "lists"?
     6 |   - dnsbl: {list: {}, timeout: soon, limit: 1.5, name: client}
       |             ^
x.yaml:6:32: pipeline[3].timeout wants a time such as 30s, 5m or 30d, not "soon"
     6 |   - dnsbl: {list: {}, timeout: soon, limit: 1.5, name: client}
       |                                ^
x.yaml:6:45: pipeline[3].limit wants a whole number, not 1.5
     6 |   - dnsbl: {list: {}, timeout: soon, limit: 1.5, name: client}
       |                                             ^
x.yaml:6:56: "client" is a word of the rule language; choose another name
     6 |   - dnsbl: {list: {}, timeout: soon, limit: 1.5, name: client}
       |                                                        ^
x.yaml:7:19: "A" cannot be the name of a step; write lower-case letters, digits and _, a letter first
     7 |   - dnsbl: {name: A, lists: [], on: yes}
       |                   ^
x.yaml:7:29: pipeline[4].lists wants a mapping of names and values, not a list
     7 |   - dnsbl: {name: A, lists: [], on: yes}
       |                             ^
x.yaml:7:37: pipeline[4].on wants true or false, not "yes"; write true
     7 |   - dnsbl: {name: A, lists: [], on: yes}
       |                                     ^
x.yaml:9:17: a second step is called "x"; the first is in line 8; give this one a name: {name: x_2, …}
     9 |   - spf: {name: x}
       |                 ^
x.yaml:10:5: a second step is called "spf"; the first is in line 4; give this one a name: {name: spf_2, …}
    10 |   - spf: {at: data, on_error: defer, colour: red}
       |     ^
x.yaml:10:31: pipeline[7].on_error: there is no on_error "defer"; it is one of skip, postpone, refuse
    10 |   - spf: {at: data, on_error: defer, colour: red}
       |                               ^
x.yaml:10:38: unknown key "colour" in spf; there are at, name, on_error, shadow, timeout
    10 |   - spf: {at: data, on_error: defer, colour: red}
       |                                      ^`},
		{"sockets", `listen:
  smtp: [25, "::1:25", ":70000", {address: ":25", mode: 0660}, {adress: ":25"}]
  imap: {address: ":143"}
  imaps: [{address: ":993", tls: none}]
  milter: ["unix:", {address: ":1", tls: starttls, refuse: true}]
`, `
x.yaml:2:10: "25" is no address to listen at; write HOST:PORT, :PORT or unix:PATH
     2 |   smtp: [25, "::1:25", ":70000", {address: ":25", mode: 0660}, {adress: ":25"}]
       |          ^
x.yaml:2:14: "::1" is no host; write an IPv6 address in brackets: [::1]:25
     2 |   smtp: [25, "::1:25", ":70000", {address: ":25", mode: 0660}, {adress: ":25"}]
       |              ^
x.yaml:2:24: "70000" is no port; write a number from 0 to 65535; 0 takes a free one
     2 |   smtp: [25, "::1:25", ":70000", {address: ":25", mode: 0660}, {adress: ":25"}]
       |                        ^
x.yaml:2:34: :25: mode, owner and group are for unix sockets
     2 |   smtp: [25, "::1:25", ":70000", {address: ":25", mode: 0660}, {adress: ":25"}]
       |                                  ^
x.yaml:2:65: unknown key "adress" in listen.smtp[4]; did you mean "address"?
     2 |   smtp: [25, "::1:25", ":70000", {address: ":25", mode: 0660}, {adress: ":25"}]
       |                                                                 ^
x.yaml:3:9: listen.imap wants a list, not a mapping
     3 |   imap: {address: ":143"}
       |         ^
x.yaml:4:34: imaps is imap with implicit TLS; name this socket under imap
     4 |   imaps: [{address: ":993", tls: none}]
       |                                  ^
x.yaml:5:12: the path of the unix socket is missing; write unix:PATH
     5 |   milter: ["unix:", {address: ":1", tls: starttls, refuse: true}]
       |            ^
x.yaml:5:42: the milter protocol has no STARTTLS; write implicit or none
     5 |   milter: ["unix:", {address: ":1", tls: starttls, refuse: true}]
       |                                          ^
x.yaml:5:60: refuse is for lmtp; this is milter; leave it out
     5 |   milter: ["unix:", {address: ":1", tls: starttls, refuse: true}]
       |                                                            ^`},
		{"values that do not fit", `hostname: mx example
trusted: [10.0.0.1/8, nowhere]
postmaster: me
aliases: {info@example.org: [], me: [you@example.org]}
tls: {certificate: a.pem}
limits: {recipients: 0, shutdown: 1m, message_size: huge, pop3: {idle: -1s}, smtp: {recipients: -1}}
quarantine: {release_to: localhost, keep: 0}
resolver: {servers: [dns.example, 192.0.2.1, "[::1]:53"], attempts: -1, cache_size: -1}
`, `
x.yaml:1:11: "mx example" is no host name; write for example mx.example.org
     1 | hostname: mx example
       |           ^
x.yaml:2:11: trusted[0]: "10.0.0.1/8" has bits set beyond its length; write 10.0.0.0/8
     2 | trusted: [10.0.0.1/8, nowhere]
       |           ^
x.yaml:2:23: trusted[1]: "nowhere" is no network; write for example 192.0.2.0/24, 192.0.2.1 or 2001:db8::/32
     2 | trusted: [10.0.0.1/8, nowhere]
       |                       ^
x.yaml:3:13: "me" is no account; write NAME@DOMAIN
     3 | postmaster: me
       |             ^
x.yaml:4:11: the alias info@example.org leads nowhere; name at least one account
     4 | aliases: {info@example.org: [], me: [you@example.org]}
       |           ^
x.yaml:4:33: "me" is no address; write NAME@DOMAIN, or @DOMAIN for all others there
     4 | aliases: {info@example.org: [], me: [you@example.org]}
       |                                 ^
x.yaml:5:1: a certificate and its key go together; set both, tls.certificate and tls.key, or neither
     5 | tls: {certificate: a.pem}
       | ^
x.yaml:6:22: limits.recipients is too small to work with; the least is 1
     6 | limits: {recipients: 0, shutdown: 1m, message_size: huge, pop3: {idle: -1s}, smtp: {recipients: -1}}
       |                      ^
x.yaml:6:35: limits.shutdown is longer than the program has to end, which is 10s; the most is 9s
     6 | limits: {recipients: 0, shutdown: 1m, message_size: huge, pop3: {idle: -1s}, smtp: {recipients: -1}}
       |                                   ^
x.yaml:6:53: limits.message_size: "huge" is no size; write for example 50MiB, 10MB or a number of octets
     6 | limits: {recipients: 0, shutdown: 1m, message_size: huge, pop3: {idle: -1s}, smtp: {recipients: -1}}
       |                                                     ^
x.yaml:6:72: limits.pop3.idle wants a time such as 30s, 5m or 30d, not "-1s"
     6 | …s: {recipients: 0, shutdown: 1m, message_size: huge, pop3: {idle: -1s}, smtp: {recipients: -1}}
       |                                                                    ^
x.yaml:6:97: limits.smtp.recipients is below zero; leave the key out for its default
     6 | …wn: 1m, message_size: huge, pop3: {idle: -1s}, smtp: {recipients: -1}}
       |                                                                    ^
x.yaml:7:26: "localhost" is no server; write smtp:HOST:PORT
     7 | quarantine: {release_to: localhost, keep: 0}
       |                          ^
x.yaml:7:43: mail would be held for no time at all; write for example 30d
     7 | quarantine: {release_to: localhost, keep: 0}
       |                                           ^
x.yaml:8:22: "dns.example" is no address of a server; write 192.0.2.1 or [2001:db8::1]:53
     8 | resolver: {servers: [dns.example, 192.0.2.1, "[::1]:53"], attempts: -1, cache_size: -1}
       |                      ^
x.yaml:8:69: resolver.attempts is below zero; leave the key out for its default
     8 | …solver: {servers: [dns.example, 192.0.2.1, "[::1]:53"], attempts: -1, cache_size: -1}
       |                                                                    ^`},
		{"a tab", "listen:\n\tsmtp: []\nlimits:\n\tline: 1000\n", `
x.yaml:2:1: a tab in the indentation; use spaces
     2 |  smtp: []
       | ^
x.yaml:4:1: a tab in the indentation; use spaces
     4 |  line: 1000
       | ^`},
		{"a byte order mark", "\ufeffdata: x\n", `
x.yaml:1:1: the file begins with a byte order mark; save it as UTF-8 without one
     1 | data: x
       | ^`},
		{"another encoding", "data: x\nhostname: caf\xe9\npostmaster: caf\xe9@\ndomian: -x\n", `
x.yaml:2:14: the file is not UTF-8; save it in that encoding
     2 | hostname: caf?
       |              ^
x.yaml:3:16: the file is not UTF-8; save it in that encoding
     3 | postmaster: caf?@
       |                ^
x.yaml:4:1: unknown key "domian"; did you mean "domain"?
     4 | domian: -x
       | ^
x.yaml:4:9: "-x" is no domain; write for example example.org
     4 | domian: -x
       |         ^`},
		{"two documents", "data: x\n---\ndata: y\n", `
x.yaml:2:1: a second document begins here; a configuration is one document; remove the line ---
     2 | ---
       | ^`},
		{"no mapping", "- a\n- b\n", `
x.yaml:1:1: a configuration is a mapping of keys and values, not a list
     1 | - a
       | ^`},
		{"an alias that leads nowhere", "domains: *mine\n", `
x.yaml:1:10: no anchor &mine stands before this
     1 | domains: *mine
       |          ^`},
		{"a merge", "limits:\n  <<: {line: 1000}\n", `
x.yaml:2:3: merging mappings is not understood here; write the keys out
     2 |   <<: {line: 1000}
       |   ^`},
		{"a tag", "data: !!binary aGk=\n", `
x.yaml:1:7: tags are not understood here; leave !!binary out
     1 | data: !!binary aGk=
       |       ^`},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, err := Parse("x.yaml", x.text, kinds())
			if err == nil {
				t.Fatal("no error")
			}
			var all Problems
			if !errors.As(err, &all) {
				t.Errorf("the error is a %T", err)
			}
			if got, want := err.Error(), strings.TrimPrefix(x.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestSyntax(t *testing.T) {
	for _, text := range []string{"data: [a\n", "data: 'x\n", "a: b: c\n", "limits:\n  line: 5\n reads: 3\n", "{", "data: @x\n", "&a : *a", "%x"} {
		_, err := Parse("x.yaml", text, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "x.yaml:") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAnchors(t *testing.T) {
	c, err := Parse("x.yaml", "domains: &ours [example.org, example.net]\nlisten: {smtp: &s [':25'], lmtp: *s}\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen.LMTP[0].Address != ":25" || len(c.Users.Domains) != 2 {
		t.Errorf("%+v", c)
	}
}

func TestLimitsOfTheFile(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'i'; i++ {
		bomb += string(i) + ": &" + string(i) + " [" + strings.Repeat("*"+string(i-1)+",", 9) + "*" + string(i-1) + "]\n"
	}
	deep := "x: " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "\n"
	for _, x := range []struct{ name, text, want string }{
		{"large", strings.Repeat("#", maxSize+1), "at most 4194304 are read"},
		{"an alias of aliases", "pipeline:\n  - any: {x: {" + strings.ReplaceAll(strings.TrimSpace(bomb), "\n", ", ") + "}}\n", "more than 200000 values"},
		{"nested", "pipeline:\n  - any: {" + strings.TrimSpace(deep) + "}\n", "nested more than 64 deep"},
	} {
		_, err := Parse("x.yaml", x.text, []pipeline.Kind{{Name: "any", Config: func() any {
			return &struct {
				X any `yaml:"x"`
			}{}
		}}})
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %.300v", x.name, err)
		}
	}
}

// A type that takes one value or a list reads itself.
type oneOrMore []string

func (o *oneOrMore) UnmarshalYAML(decode func(any) error) error {
	var one string
	if decode(&one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return decode((*[]string)(o))
}

func TestTypesThatReadThemselves(t *testing.T) {
	kind := []pipeline.Kind{{Name: "any", Config: func() any {
		return &struct {
			X oneOrMore `yaml:"x"`
		}{}
	}}}
	for text, want := range map[string]string{
		"pipeline: [any: {x: a}]":      "",
		"pipeline: [any: {x: [a, b]}]": "",
		"pipeline: [any: {x: [a, 5]}]": `x.yaml:1:25: pipeline[0].x[1] wants text, not 5; put it in quotes: "5"`,
	} {
		_, err := Parse("x.yaml", text, kind)
		if got := firstLine(err); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml"), nil); firstLine(err) != filepath.Join(dir, "none.yaml")+": there is no such file" {
		t.Errorf("missing: %v", err)
	}
	if _, err := Load(dir, nil); firstLine(err) != dir+": cannot be read: is a directory" {
		t.Errorf("a folder: %v", err)
	}
	file := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(file, []byte("data: here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, nil)
	if err != nil || c.Path(c.Data) != filepath.Join(dir, "here") {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestParseListen(t *testing.T) {
	var l Listen
	for _, x := range []struct{ text, want string }{
		{"smtp=127.0.0.1:0", ""},
		{"smtp=unix:/tmp/s", ""},
		{"imaps=:993", ""},
		{"smtp", "--listen smtp: write DOOR=ADDRESS, for example smtp=127.0.0.1:2525"},
		{"http=:80", `--listen http=:80: there is no door "http"; there are smtp, lmtp, milter, submission, submissions, imap, imaps, pop3, pop3s, managesieve, admin`},
		{"smtp=25", `--listen smtp=25: "25" is no address to listen at; write HOST:PORT, :PORT or unix:PATH`},
	} {
		if got := firstLine(l.ParseListen(x.text)); got != x.want {
			t.Errorf("%s: %s", x.text, got)
		}
	}
	if len(l.SMTP) != 2 || len(l.IMAPS) != 1 {
		t.Errorf("%+v", l)
	}
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "1w": 7 * day, "1d12h": 36 * time.Hour, "1w2d3h": 9*day + 3*time.Hour, "0.5d": 12 * time.Hour,
		"90s": 90 * time.Second, "0": 0, "1h30m": 90 * time.Minute,
		"": -1, "d": -1, "30": -1, "-1s": -1, "1d-1h": -1, "soon": -1, "99999999999d": -1, "NaNd": -1, "1d1w": -1,
	} {
		got, err := ParseDuration(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// Where a comment says what less than 0 means, it can be written; nowhere else.
func TestNegativeTimes(t *testing.T) {
	c, err := Parse("x.yaml", "quarantine: {keep: -1s}\njournal: {keep: -1d}\nremember_logins: -1s\nresolver: {cache_size: -1}\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Quarantine.Store.Keep != -time.Second || c.Journal.Keep != -24*time.Hour || c.Users.Remember != -time.Second || c.Resolver.CacheSize != -1 {
		t.Errorf("read %v, %v, %v, %v", c.Quarantine.Store.Keep, c.Journal.Keep, c.Users.Remember, c.Resolver.CacheSize)
	}
	for text, want := range map[string]string{
		"journal: {keep: -1}":                         `journal.keep wants a time such as 30s, 5m or 30d, not -1; write -1s for seconds`,
		"journal: {keep: --1s}":                       `journal.keep wants a time such as 30s, 5m or 30d, not "--1s"`,
		"journal: {private_rules: [rules/a*, fraud]}": `x.yaml:1:37: "fraud" names no rule of a step; write step/rule, for example rules/fraud_* or rules/*`,
		"journal: {private_rules: [/x]}":              `"/x" names no rule of a step`,
		"journal: {keep: -0s}":                        `records would be kept for no time at all`,
		"journal: {keep: -1s, flush: -1s}":            `journal.flush wants a time such as 30s, 5m or 30d, not "-1s"`,
		"limits: {shutdown: -1s}":                     `limits.shutdown wants a time such as 30s, 5m or 30d, not "-1s"`,
	} {
		if _, err := Parse("x.yaml", text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	keep := Schema(nil).(schema)["properties"].(schema)["journal"].(schema)["properties"].(schema)["keep"].(schema)["pattern"].(string)
	for text, ok := range map[string]bool{"-1s": true, "30d": true, "1d12h": true, "-": false, "--1s": false} {
		if matched, err := regexp.MatchString(keep, text); err != nil || matched != ok {
			t.Errorf("the schema says %v of journal.keep: %s, %v", matched, text, err)
		}
	}
}

// Every setting has a key and so appears in the reference.
func TestEveryFieldHasAKey(t *testing.T) {
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.IsExported() && f.Tag.Get("yaml") == "" {
				t.Errorf("%s.%s has no key", typ, f.Name)
			}
			if f.Type.Kind() == reflect.Struct && f.Type.PkgPath() == typ.PkgPath() && f.IsExported() {
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	walk(reflect.TypeFor[Socket]())
	walk(reflect.TypeFor[common]())
}

func firstLine(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a: b", "pipeline:\n - spf: {name: x}\n", "x: &a [*a]", "<<: *x", "listen: {smtp: [{address: ':1'}]}", "\tx", "? a\n: b", "a: |\n  x\n", "- - - -"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("x.yaml", text, kinds())
		if c == nil && err == nil {
			t.Fatal("what could be read is lost")
		}
		var all Problems
		if err != nil && !errors.As(err, &all) {
			t.Fatalf("%T", err)
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' }) {
			t.Fatalf("control characters in %q", err.Error())
		}
	})
}

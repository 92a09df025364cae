package dmarc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// told is a fact that tells what a test says: "spf=pass smtp.mailfrom=example.com", "arc=pass d=a.example,b.example
// from=example.com".
type told struct {
	Said []string `json:"said"`
}

func (f told) AuthResults(say func(method, result, reason string, properties ...string)) {
	for _, s := range f.Said {
		words := strings.Fields(s)
		method, result, _ := strings.Cut(words[0], "=")
		var properties []string
		for _, w := range words[1:] {
			name, value, _ := strings.Cut(w, "=")
			properties = append(properties, name, value)
		}
		say(method, result, "said", properties...)
	}
}

func (f told) DMARC(say func(sealers []string, result, from string)) {
	for _, s := range f.Said {
		var sealers, result, from string
		if _, err := fmt.Sscanf(s, "%s %s %s", &sealers, &result, &from); err != nil {
			panic(err)
		}
		say(strings.Split(sealers, ","), result, strings.Trim(from, "-"))
	}
}

// says is a step that tells this, or fails. "not asked" is a step that was not asked.
func says(kind, text string, wait time.Duration) pipeline.Step {
	s := pipelinetest.Stage{Looks: pipeline.Reads{Input: pipeline.InputHeader, Waits: wait > 0}}
	if text == "not asked" {
		s.Looks.Input |= pipeline.InputClient
	}
	s.Says = func(ctx context.Context, _ pipeline.View) (pipeline.Result, error) {
		if wait > 0 {
			time.Sleep(wait)
		}
		if why, failed := strings.CutPrefix(text, "error "); failed {
			return pipeline.Result{}, errors.New(why)
		}
		f := told{}
		if text != "" {
			f.Said = strings.Split(text, "; ")
		}
		return pipeline.Result{Fact: f}, nil
	}
	return pipeline.Step{Name: "my_" + kind, Config: &struct{}{}, Kind: pipeline.Kind{
		Name: kind, Config: func() any { return &struct{}{} }, Fact: func(any) any { return told{} },
		New: func(any, pipeline.Env) ([]pipeline.Stage, error) { return []pipeline.Stage{s}, nil },
	}}
}

// A mail of a test, and the world it comes into.
type mail struct {
	from           string // of the header; several lines are several fields
	sender         string // "" is bounce@example.com, "<>" the null sender
	helo           string
	signed         string // d= of DKIM-Signature fields
	spf, dkim, arc string
	dns            map[string]string // _dmarc. is put before the names; "timeout" fails
	config         Config
	client         pipeline.Client
	door           pipeline.Door
	id             string // Message-ID
}

func (m mail) text() string {
	var b strings.Builder
	for d := range strings.FieldsSeq(m.signed) {
		fmt.Fprintf(&b, "DKIM-Signature: v=1; a=rsa-sha256; d=%s; s=s;\n\tb=x\n", d)
	}
	for line := range strings.Lines(m.from) {
		b.WriteString("From: " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String() + "Subject: x\nMessage-ID: <" + m.id + "@x>\n\nx\n"
}

func (m mail) resolver() *pipelinetest.Resolver {
	r := &pipelinetest.Resolver{TXT: map[string][]string{}, Fail: map[string]string{}}
	for name, text := range m.dns {
		switch name = "_dmarc." + name; text {
		case "timeout":
			r.Fail[name] = text
		default:
			r.TXT[name] = strings.Split(text, "\n")
		}
	}
	return r
}

// run returns the step's part of the record.
func (m mail) run(t testing.TB, r pipeline.Resolver) (Fact, pipeline.StepRecord) {
	t.Helper()
	env, journal := pipelinetest.Env(t), &pipelinetest.Journal{}
	env.Journal, env.Resolver = journal, r
	c := Kind().Config().(*Config)
	c.PSL, c.Forwarders, c.TrustedSealers = m.config.PSL, m.config.Forwarders, m.config.TrustedSealers
	if m.config.Lookups > 0 {
		c.Lookups = m.config.Lookups
	}
	p := pipelinetest.Plan(t, env, says("spf", m.spf, 0), says("dkim", m.dkim, 0), says("arc", m.arc, 0),
		pipeline.Step{Name: "policy", Kind: Kind(), Config: c})
	sender := m.sender
	switch sender {
	case "":
		sender = "bounce@example.com"
	case "<>":
		sender = ""
	}
	door := m.door
	if door == "" {
		door = pipeline.SMTP
	}
	ran := pipelinetest.Run(t, p, door, journal, pipelinetest.Mail{Client: m.client, Helo: m.helo, From: sender, Text: m.text()})
	step := ran.Record.Steps[3]
	var f Fact
	if step.Fact != nil {
		if err := json.Unmarshal(step.Fact, &f); err != nil {
			t.Fatal(err)
		}
	}
	return f, step
}

const reject = "v=DMARC1; p=reject"

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), nil, says("spf", "", 0), says("dkim", "", 0), says("arc", "", 0))
}

func TestResult(t *testing.T) {
	signed := func(d string) string { return "dkim=pass header.d=" + d }
	for _, tt := range []struct {
		name string
		mail mail
		want string // result, disposition, reason
	}{
		// RFC 7489, B.1: identifier alignment.
		{"B.1.1 SPF, the same", mail{from: "sender@example.com", spf: "spf=pass smtp.mailfrom=example.com"}, "pass none spf=pass example.com"},
		{"B.1.1 SPF, a parent", mail{from: "sender@child.example.com", spf: "spf=pass smtp.mailfrom=example.com"}, "pass none spf=pass example.com"},
		{"B.1.1 SPF, another", mail{from: "sender@child.example.com", sender: "a@example.net", spf: "spf=pass smtp.mailfrom=example.net"},
			"fail reject nothing that passes is of example.com: spf=pass example.net, dkim=none"},
		{"B.1.2 DKIM, the same", mail{from: "sender@example.com", signed: "example.com", dkim: signed("example.com")}, "pass none dkim=pass example.com"},
		{"B.1.2 DKIM, a parent", mail{from: "sender@child.example.com", signed: "example.com", dkim: signed("example.com")}, "pass none dkim=pass example.com"},
		{"B.1.2 DKIM, another", mail{from: "sender@child.example.com", signed: "example.net", dkim: signed("example.net")},
			"fail reject nothing that passes is of example.com: dkim=pass example.net"},

		{"SPF of a mailbox", mail{from: "a@example.com", spf: "spf=pass smtp.mailfrom=bounce@mail.example.com", sender: "bounce@mail.example.com"}, "pass none spf=pass mail.example.com"},
		{"SPF of HELO", mail{from: "a@example.com", sender: "<>", helo: "mx.example.com", spf: "spf=pass smtp.helo=mx.example.com"}, "pass none spf=pass mx.example.com"},
		{"SPF softfail", mail{from: "a@example.com", spf: "spf=softfail smtp.mailfrom=example.com"},
			"fail reject nothing that passes is of example.com: spf=softfail example.com, dkim=none"},
		{"one of several signatures", mail{from: "a@example.com", signed: "list.example m.example.com",
			dkim: "dkim=pass header.d=list.example; dkim=pass header.d=m.example.com"}, "pass none dkim=pass m.example.com"},
		{"a signature of part of the body", mail{from: "a@example.com", signed: "example.com", dkim: "dkim=policy header.d=example.com"},
			"fail reject nothing that passes is of example.com: dkim=policy example.com"},
		{"both", mail{from: "a@example.com", spf: "spf=pass smtp.mailfrom=example.com", signed: "example.com", dkim: signed("example.com")},
			"pass none spf=pass example.com, dkim=pass example.com"},
		{"a name that only ends alike", mail{from: "a@example.com", signed: "badexample.com", dkim: signed("badexample.com")},
			"fail reject nothing that passes is of example.com: dkim=pass badexample.com"},
		{"capitals and a dot", mail{from: "a@EXAMPLE.com.", signed: "Example.COM", dkim: signed("eXample.com.")}, "pass none dkim=pass eXample.com."},
		{"U-labels", mail{from: "a@bücher.example.org", dns: map[string]string{"xn--bcher-kva.example.org": reject}, signed: "xn--bcher-kva.example.org",
			dkim: signed("xn--bcher-kva.example.org")}, "pass none dkim=pass xn--bcher-kva.example.org"},

		{"strict DKIM", mail{from: "a@example.com", dns: map[string]string{"example.com": "v=DMARC1; p=quarantine; adkim=s"}, signed: "m.example.com", dkim: signed("m.example.com")},
			"fail quarantine nothing that passes is of example.com: dkim=pass m.example.com"},
		{"strict SPF", mail{from: "a@example.com", dns: map[string]string{"example.com": "v=DMARC1; p=none; aspf=s"}, sender: "a@m.example.com", spf: "spf=pass smtp.mailfrom=m.example.com"},
			"fail none nothing that passes is of example.com: spf=pass m.example.com, dkim=none"},
		{"strict SPF, the same", mail{from: "a@example.com", dns: map[string]string{"example.com": "v=DMARC1; p=none; aspf=s"}, spf: "spf=pass smtp.mailfrom=example.com"},
			"pass none spf=pass example.com"},

		{"no policy", mail{from: "a@example.com", dns: map[string]string{}, spf: "spf=pass smtp.mailfrom=example.com"}, "none none there is no policy"},
		{"other records", mail{from: "a@example.com", dns: map[string]string{"example.com": "v=spf1 -all\n" + reject + "\nv=DMARC10; p=none"}}, "fail reject nothing that passes is of example.com: dkim=none"},
		{"several records", mail{from: "a@example.com", dns: map[string]string{"example.com": reject + "\nv=DMARC1; p=none"}}, "none none example.com has 2 policies, which is none"},
		{"malformed", mail{from: "a@example.com", dns: map[string]string{"example.com": "v=DMARC1; sp=none"}}, "permerror none the policy of example.com is malformed: p= is missing"},
		{"malformed, with reports", mail{from: "a@example.com", dns: map[string]string{"example.com": "v=DMARC1; p=no; rua=mailto:a@b.example"}}, "fail none nothing that passes is of example.com: dkim=none"},
		{"too long", mail{from: "a@example.com", dns: map[string]string{"example.com": reject + strings.Repeat("; x=\xff\xff", 1000)}}, "permerror none the policy of example.com is malformed: it is longer than 2048 octets"},
		{"in testing", mail{from: "a@example.com", dns: map[string]string{"example.com": reject + "; t=y"}}, "fail quarantine nothing that passes is of example.com: dkim=none"},
		{"in testing, quarantine", mail{from: "a@example.com", dns: map[string]string{"example.com": "v=DMARC1; p=quarantine; t=y"}}, "fail none nothing that passes is of example.com: dkim=none"},
		{"outside of the sample", mail{from: "a@example.com", dns: map[string]string{"example.com": reject + "; pct=0"}}, "fail quarantine nothing that passes is of example.com: dkim=none"},
		{"t= replaces pct=", mail{from: "a@example.com", dns: map[string]string{"example.com": reject + "; pct=0; t=n"}}, "fail reject nothing that passes is of example.com: dkim=none"},

		{"no From", mail{}, "permerror none there is no From field"},
		{"two From fields", mail{from: "a@example.com\na@example.com", signed: "example.com", dkim: signed("example.com")}, "permerror none there are 2 From fields"},
		{"an empty one and one", mail{from: " \na@example.com"}, "permerror none there are 2 From fields"},
		{"two authors of one domain", mail{from: "a@example.com, b@example.com", signed: "example.com", dkim: signed("example.com")}, "pass none dkim=pass example.com"},
		{"two domains", mail{from: "a@evil.example, b@example.com", signed: "evil.example", dkim: signed("evil.example")}, "permerror none From names authors of 2 domains: evil.example and example.com"},
		{"a group", mail{from: "us: a@example.com, b@evil.example;", signed: "evil.example", dkim: signed("evil.example")}, "permerror none From names authors of 2 domains: example.com and evil.example"},
		{"two without a comma", mail{from: "<a@example.com> <b@evil.example>", signed: "evil.example", dkim: signed("evil.example")}, "permerror none From names authors of 2 domains: example.com and evil.example"},
		{"one in a comment", mail{from: "(a@evil.example) b@example.com", signed: "evil.example", dkim: signed("evil.example")}, "fail reject nothing that passes is of example.com: dkim=pass evil.example"},
		{"one as a name", mail{from: `"a@evil.example" <b@example.com>`}, "fail reject nothing that passes is of example.com: dkim=none"},
		{"one in an encoded word", mail{from: "=?utf-8?q?a=40evil.example?= <b@example.com>"}, "fail reject nothing that passes is of example.com: dkim=none"},
		{"NUL", mail{from: "b@exam\x00ple.com"}, "fail reject nothing that passes is of example.com: dkim=none"},
		{"a comma in the name", mail{from: "Doe, Jane <b@example.com>"}, "fail reject nothing that passes is of example.com: dkim=none"},
		{"no address", mail{from: "Jane Doe"}, "permerror none there is no address in From"},
		{"an address literal", mail{from: "a@[192.0.2.1]"}, `permerror none From has an address that is of no domain: "[192.0.2.1]"`},
		{"a number", mail{from: "a@192.0.2.1"}, `permerror none From has an address that is of no domain: "192.0.2.1"`},
		{"one that is none besides", mail{from: "a@example.com, b@exa..mple", signed: "example.com", dkim: signed("example.com")}, `permerror none From has an address that is of no domain: "exa..mple"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.mail
			if m.dns == nil {
				m.dns = map[string]string{"example.com": reject}
			}
			if m.dkim == "" {
				m.dkim = "dkim=none"
			}
			f, step := m.run(t, m.resolver())
			if got := f.Result + " " + f.Disposition + " " + f.Reason; got != tt.want {
				t.Errorf("%s\nwant %s\n%s", got, tt.want, step.Fact)
			}
			if len(step.Missing) > 0 {
				t.Errorf("missing %v", step.Missing)
			}
			if f.Policy != "" && (f.Result == "pass") != (f.SPFAligned || f.DKIMAligned) {
				t.Errorf("%+v", f)
			}
		})
	}
}

// Whose domain it is and which policy applies: the way up of RFC 9989, 4.10, its Appendix B.3 and RFC 9091.
func TestDiscovery(t *testing.T) {
	long := "a.b.c.d.e.f.g.h.i.j.mail.example.com"
	for _, tt := range []struct {
		name string
		mail mail
		want string // organisational domain, how, policy, its tag, and where it was found
	}{
		{"its own", mail{from: "a@example.com", dns: map[string]string{"example.com": reject}}, "example.com treewalk reject p example.com"},
		{"its parent's", mail{from: "a@a.mail.example.com", dns: map[string]string{"example.com": reject}}, "example.com treewalk reject p example.com"},
		{"its parent's, for those below", mail{from: "a@mail.example.com", dns: map[string]string{"example.com": "v=DMARC1; p=reject; sp=quarantine"}}, "example.com treewalk quarantine sp example.com"},
		{"its own before its parent's", mail{from: "a@mail.example.com", dns: map[string]string{"mail.example.com": "v=DMARC1; p=none", "example.com": reject}}, "example.com treewalk none p mail.example.com"},
		{"only the author's and the topmost count", mail{from: "a@x.mail.example.com", dns: map[string]string{"mail.example.com": "v=DMARC1; p=none", "example.com": reject}}, "example.com treewalk reject p example.com"},
		{"psd=n ends it", mail{from: "a@x.mail.example.com", dns: map[string]string{"mail.example.com": "v=DMARC1; p=none; psd=n", "example.com": reject}}, "mail.example.com treewalk none p mail.example.com"},
		{"psd=n of its own", mail{from: "a@mail.example.com", dns: map[string]string{"mail.example.com": "v=DMARC1; p=none; psd=n", "example.com": reject}}, "mail.example.com treewalk none p mail.example.com"},
		{"below a registry", mail{from: "a@x.giant.bank.example", dns: map[string]string{"giant.bank.example": reject, "bank.example": "v=DMARC1; p=none; psd=y"}}, "giant.bank.example treewalk reject p giant.bank.example"},
		{"a registry's", mail{from: "a@x.giant.bank.example", dns: map[string]string{"bank.example": "v=DMARC1; p=none; sp=quarantine; psd=y"}}, "giant.bank.example treewalk quarantine sp bank.example"},
		{"a registry itself", mail{from: "a@bank.example", dns: map[string]string{"bank.example": "v=DMARC1; p=reject; psd=y", "example": "v=DMARC1; p=none"}}, "bank.example treewalk reject p bank.example"},
		{"none", mail{from: "a@mail.example.co.uk", dns: map[string]string{}}, "example.co.uk psl   "},
		{"a long way", mail{from: "a@" + long, dns: map[string]string{"example.com": reject}}, "example.com treewalk reject p example.com"},
		{"too far down to be seen", mail{from: "a@" + long, dns: map[string]string{"f.g.h.i.j.mail.example.com": reject}}, "example.com psl   "},
		{"several are none", mail{from: "a@mail.example.com", dns: map[string]string{"mail.example.com": reject + "\n" + reject, "example.com": "v=DMARC1; p=none"}}, "example.com treewalk none p example.com"},
		{"above it nobody answers", mail{from: "a@mail.example.com", dns: map[string]string{"example.com": reject, "com": "timeout"}}, "example.com psl reject p example.com"},

		{"np, which exists", mail{from: "a@exists.example.com", dns: map[string]string{"example.com": "v=DMARC1; p=none; sp=quarantine; np=reject"}}, "example.com treewalk quarantine sp example.com"},
		{"np, which does not", mail{from: "a@nowhere.example.com", dns: map[string]string{"example.com": "v=DMARC1; p=none; sp=quarantine; np=reject"}}, "example.com treewalk reject np example.com non-existent"},
		{"np, before sp is said", mail{from: "a@nowhere.example.com", dns: map[string]string{"example.com": "v=DMARC1; p=reject; np=none"}}, "example.com treewalk none np example.com non-existent"},
		{"np is not for itself", mail{from: "a@example.com", dns: map[string]string{"example.com": "v=DMARC1; p=none; np=reject"}}, "example.com treewalk none p example.com"},

		{"by the list", mail{config: Config{PSL: true}, from: "a@a.mail.example.co.uk", dns: map[string]string{"mail.example.co.uk": "v=DMARC1; p=none", "example.co.uk": reject}}, "example.co.uk psl reject p example.co.uk"},
		{"by the list, its own", mail{config: Config{PSL: true}, from: "a@mail.example.co.uk", dns: map[string]string{"mail.example.co.uk": "v=DMARC1; p=none", "example.co.uk": reject}}, "example.co.uk psl none p mail.example.co.uk"},
		{"by the list, nobody asks a registry", mail{config: Config{PSL: true}, from: "a@example.co.uk", dns: map[string]string{"co.uk": reject, "uk": "timeout"}}, "example.co.uk psl   "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.mail.resolver()
			r.Addr = map[string][]netip.Addr{"exists.example.com": {netip.MustParseAddr("2001:db8::1")}}
			f, step := tt.mail.run(t, r)
			got := fmt.Sprintf("%s %s %s %s %s", f.OrgDomain, f.Discovery, f.Policy, f.PolicyTag, f.PublishedAt)
			if f.NonExistent {
				got += " non-existent"
			}
			if got != tt.want || len(step.Missing) > 0 {
				t.Errorf("%s\nwant %s\n%s", got, tt.want, step.Fact)
			}
			if asked := r.Asked(); len(slices.DeleteFunc(asked, func(n string) bool { return !strings.HasPrefix(n, "_dmarc.") })) > 2*mostWalk {
				t.Errorf("asked %v", asked)
			}
		})
	}
}

func TestWay(t *testing.T) {
	for domain, want := range map[string]string{
		"com":                 "com",
		"example.com":         "example.com com",
		"a.b.c.d.e.f.g.h":     "a.b.c.d.e.f.g.h b.c.d.e.f.g.h c.d.e.f.g.h d.e.f.g.h e.f.g.h f.g.h g.h h",
		"1.2.a.b.c.d.e.f.g.h": "1.2.a.b.c.d.e.f.g.h b.c.d.e.f.g.h c.d.e.f.g.h d.e.f.g.h e.f.g.h f.g.h g.h h",
	} {
		if got := strings.Join(way(domain), " "); got != want {
			t.Errorf("%s: %s", domain, got)
		}
	}
}

// A domain between that says it is somebody's own is not aligned with what is above it.
func TestRelated(t *testing.T) {
	dns := map[string]string{"example.com": reject, "hosted.example.com": "v=DMARC1; p=none; psd=n", "mail.example.com": "v=DMARC1; p=none", "dead.example.com": "timeout"}
	for d, want := range map[string]string{
		"hosted.example.com":   "fail",
		"x.hosted.example.com": "fail",
		"mail.example.com":     "pass",
		"x.mail.example.com":   "pass",
		"x.dead.example.com":   "pass",
		"com":                  "fail",
	} {
		m := mail{from: "a@news.example.com", signed: d, dkim: "dkim=pass header.d=" + d, dns: dns}
		if f, _ := m.run(t, m.resolver()); f.Result != want {
			t.Errorf("%s: %+v", d, f)
		}
	}
	m := mail{from: "a@example.com", dns: dns, sender: "a@b1.example.com", config: Config{Lookups: 8}, signed: strings.Join(many(30), " "), dkim: "dkim=pass header.d=d29.example.com"}
	r := m.resolver()
	if f, _ := m.run(t, r); f.Result != "fail" || len(f.Related) > 7 || len(r.Asked()) != 8 {
		t.Errorf("asked %v: %+v", r.Asked(), f)
	}
}

func many(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("d%d.example.com", i))
	}
	return all
}

// A question is open only while SPF or DKIM could still answer it for the domain in From: then it is an error and no
// failure, and also no way out for who brings along a domain of which nobody answers.
func TestOpen(t *testing.T) {
	const pass, none = "spf=pass smtp.mailfrom=example.com", "dkim=none"
	for _, tt := range []struct {
		name string
		mail mail
		want string // the result, or what the error says, or why it is missing
	}{
		{"SPF", mail{spf: "error no answer", dkim: none}, "error: whether the mail is of example.com is open: my_spf: no answer"},
		{"SPF, but a signature", mail{spf: "error no answer", signed: "example.com", dkim: "dkim=pass header.d=example.com"}, "pass, without spf_aligned"},
		{"SPF of somebody else", mail{spf: "error no answer", dkim: none, sender: "a@evil.example"}, "fail"},
		{"SPF of a greeting", mail{spf: "error no answer", dkim: none, sender: "<>", helo: "mail.example.com"}, "error: whether the mail is of example.com is open: my_spf: no answer"},
		{"SPF says so", mail{spf: "spf=temperror smtp.mailfrom=example.com", dkim: none}, "error: whether the mail is of example.com is open: my_spf: temperror for example.com: said"},
		{"DKIM", mail{spf: "spf=none", signed: "m.example.com", dkim: "error no key"}, "error: whether the mail is of example.com is open: my_dkim: no key"},
		{"DKIM, but SPF", mail{spf: pass, signed: "example.com", dkim: "error no key"}, "pass, without dkim_aligned"},
		{"DKIM of somebody else", mail{spf: "spf=none", signed: "evil.example", dkim: "error no key"}, "fail"},
		{"DKIM of too many", mail{spf: "spf=none", signed: strings.Repeat("evil.example ", 20), dkim: "error no key"}, "error: whether the mail is of example.com is open: my_dkim: no key"},
		{"one signature", mail{spf: "spf=none", signed: "example.com", dkim: "dkim=temperror header.d=example.com; dkim=pass header.d=list.example"},
			"error: whether the mail is of example.com is open: my_dkim: temperror for example.com: said"},
		{"one signature of somebody else", mail{spf: "spf=none", dkim: "dkim=temperror header.d=evil.example"}, "fail"},
		{"both", mail{spf: "error no answer", signed: "example.com", dkim: "error no key"},
			"error: whether the mail is of example.com is open: my_spf: no answer"},
		{"nobody was asked", mail{spf: "not asked", dkim: none, door: pipeline.LMTP}, "missing: my_spf: client unknown"},
		{"nobody was asked, but a signature", mail{spf: "not asked", signed: "example.com", dkim: "dkim=pass header.d=example.com", door: pipeline.LMTP}, "pass, without spf_aligned"},
		{"no policy to be had", mail{spf: pass, dkim: none, dns: map[string]string{"example.com": "timeout"}},
			"error: ask for the policy of example.com: lookup _dmarc.example.com: timeout"},
		{"none and open", mail{spf: "error no answer", dkim: none, dns: map[string]string{}}, "none, without spf_aligned"},
		{"a friend", mail{client: pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), Trusted: true}}, "not asked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.mail
			m.from = "a@example.com"
			if m.dns == nil {
				m.dns = map[string]string{"example.com": reject}
			}
			if m.door == pipeline.LMTP {
				m.client.Name = "nobody knows its address"
			}
			f, step := m.run(t, m.resolver())
			last := step.Stages[1]
			got := f.Result
			switch {
			case last.State == "error":
				got = "error: " + last.Why
				if step.Missing["result"] != last.Why || f.Domain != "example.com" {
					t.Errorf("%+v", step)
				}
			case step.Fact == nil:
				got = last.State
			case step.Missing["result"] != "":
				got = "missing: " + step.Missing["result"]
			case len(step.Missing) > 0:
				got += ", without " + strings.Join(slices.Sorted(maps.Keys(step.Missing)), " ")
			}
			if got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestOverride(t *testing.T) {
	all := Config{
		Forwarders:     Forwarders{Networks: []string{"198.51.100.0/24", "2001:db8::7"}, Domains: []string{"Forwarder.example"}},
		TrustedSealers: []string{"lists.example.org", "google.example"},
	}
	at := func(s string) pipeline.Client { return pipeline.Client{Addr: netip.MustParseAddr(s)} }
	for _, tt := range []struct {
		name string
		mail mail
		want string
	}{
		{"none", mail{}, ""},
		{"a network", mail{client: at("::ffff:198.51.100.9")}, "forwarder"},
		{"an address", mail{client: at("2001:db8::7")}, "forwarder"},
		{"another", mail{client: at("2001:db8::8")}, ""},
		{"a signature", mail{dkim: "dkim=pass header.d=x.forwarder.example"}, "forwarder"},
		{"a broken one", mail{dkim: "dkim=fail header.d=forwarder.example"}, ""},
		{"a seal", mail{arc: "forwarder.example none -"}, "forwarder"},
		{"a sealer", mail{arc: "lists.example.org pass example.com"}, "arc"},
		{"a sealer who does not say of whom", mail{arc: "lists.example.org pass -"}, "arc"},
		{"of somebody else", mail{arc: "lists.example.org pass evil.example"}, ""},
		{"who says it failed", mail{arc: "lists.example.org fail example.com"}, ""},
		{"nobody trusted", mail{arc: "evil.example pass example.com"}, ""},
		{"through hands that are not", mail{arc: "evil.example none -; evil.example,lists.example.org pass example.com"}, ""},
		{"through hands that are", mail{arc: "google.example none -; google.example,lists.example.org pass example.com"}, "arc"},
		{"ARC failed", mail{arc: "error no key"}, "unknown: my_arc: no key"},
		{"a pass needs none", mail{client: at("2001:db8::7"), spf: "spf=pass smtp.mailfrom=example.com"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.mail
			m.from, m.config, m.dns = "a@example.com", all, map[string]string{"example.com": reject}
			if m.dkim == "" {
				m.dkim = "dkim=none"
			}
			f, step := m.run(t, m.resolver())
			got := f.Override
			if why := step.Missing["override"]; why != "" {
				got = "unknown: " + why
			}
			if got != tt.want {
				t.Errorf("%s\nwant %s\n%s", got, tt.want, step.Fact)
			}
		})
	}
}

// The sample is of the size that the record asks for, and a mail is always on the same side.
func TestSample(t *testing.T) {
	out := 0
	for i := range 400 {
		m := mail{from: "a@example.com", id: fmt.Sprint(i), dns: map[string]string{"example.com": reject + "; pct=30"}}
		f, _ := m.run(t, m.resolver())
		if again, _ := m.run(t, m.resolver()); again.SampledOut != f.SampledOut {
			t.Fatalf("mail %d is once in the sample and once not", i)
		}
		if f.SampledOut {
			out++
		}
	}
	if out < 240 || out > 320 {
		t.Errorf("of 400 mails %d are outside of a sample of 30%%", out)
	}
}

// slow answers after a time of its own.
type slow struct {
	pipeline.Resolver
	delay time.Duration
}

func (s slow) LookupTXT(ctx context.Context, name string) ([]string, error) {
	time.Sleep(s.delay)
	return s.Resolver.LookupTXT(ctx, name)
}

// Look-ups of 50 ms take 50 ms together, and go on while signatures are verified.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mail{from: "a@a.b.c.news.example.com", signed: "x.y.example.com", sender: "a@bounce.example.com",
			dns: map[string]string{"example.com": reject}}
		env, journal := pipelinetest.Env(t), &pipelinetest.Journal{}
		env.Journal, env.Resolver = journal, slow{m.resolver(), 50 * time.Millisecond}
		p := pipelinetest.Plan(t, env, says("spf", "spf=none", 0), says("dkim", "dkim=pass header.d=x.y.example.com", 50*time.Millisecond),
			pipeline.Step{Kind: Kind(), Config: Kind().Config()})
		began := time.Now()
		ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{From: m.sender, Text: m.text()})
		if took := time.Since(began); took != 50*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if got := string(ran.Record.Steps[2].Fact); !strings.Contains(got, `"result":"pass"`) {
			t.Error(got)
		}
	})
}

func TestConfig(t *testing.T) {
	env := pipelinetest.Env(t)
	env.Name, env.Before = "dmarc", []pipeline.Before{{Name: "spf", Kind: "spf", Fact: told{}}, {Name: "dkim", Kind: "dkim", Fact: told{}}}
	for _, tt := range []struct {
		config Config
		before []pipeline.Before
		want   string
	}{
		{Config{Lookups: 7}, env.Before, "lookups: 7 is too few: the way up from one domain takes 8"},
		{Config{Lookups: 8, Forwarders: Forwarders{Networks: []string{"x"}, Domains: []string{"a b"}}, TrustedSealers: []string{""}}, env.Before,
			`forwarders: networks: "x" is neither an address nor a network` + "\n" + `forwarders: domains: "a b" is no domain name` + "\n" + `trusted_sealers: "" is no domain name`},
		{Config{Lookups: 8}, nil, "it compares From with what SPF and DKIM say: put the steps `- spf: {}` and `- dkim: {}` before it"},
		{Config{Lookups: 8}, []pipeline.Before{{Name: "x", Kind: "spf", Fact: Fact{}.Related}}, "the step x is of the kind spf, but its fact does not tell results"},
	} {
		env.Before = tt.before
		_, err := Kind().New(&tt.config, env)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
}

func TestPolicyAtNamesThatCannotBe(t *testing.T) {
	r := &pipelinetest.Resolver{}
	a := &asker{resolver: r}
	if x := a.policyAt(t.Context(), strings.Repeat("a.", 124)+"example"); x != (answer{}) || len(r.Asked()) > 0 {
		t.Errorf("%+v, asked %v", x, r.Asked())
	}
	r.Fail = map[string]string{"nowhere.example": "timeout"}
	if _, err := a.nonExistent(t.Context(), "nowhere.example"); err == nil || err.Error() != "ask whether nowhere.example exists: lookup nowhere.example: timeout" {
		t.Error(err)
	}
	r = &pipelinetest.Resolver{MX: map[string][]*net.MX{"mx.example": {{Host: "mx"}}}, Fail: map[string]string{}}
	a.resolver = r
	if gone, err := a.nonExistent(t.Context(), "mx.example"); gone || err != nil {
		t.Error(gone, err)
	}
}

func BenchmarkCheck(b *testing.B) {
	m := mail{from: "A <a@news.example.com>", signed: "example.com m.example.com", dns: map[string]string{"example.com": "v=DMARC1; p=reject; rua=mailto:d@example.com; pct=100"}}
	env := pipelinetest.Env(b)
	env.Resolver = m.resolver()
	env.Name, env.Before = "dmarc", []pipeline.Before{{Name: "spf", Kind: "spf", Fact: told{}}, {Name: "dkim", Kind: "dkim", Fact: told{}}}
	stages, err := Kind().New(Kind().Config(), env)
	if err != nil {
		b.Fatal(err)
	}
	v := pipeline.View{Message: pipelinetest.Parse(b, m.text())}
	v.Sender = pipelinetest.Address(b, "bounce@m.example.com")
	for b.Loop() {
		first, err := stages[0].Check(b.Context(), v)
		if err != nil {
			b.Fatal(err)
		}
		v.Facts = pipeline.Facts{
			"dmarc": {Fact: first.Fact, Missing: first.Missing},
			"spf":   {Fact: told{[]string{"spf=pass smtp.mailfrom=m.example.com"}}},
			"dkim":  {Fact: told{[]string{"dkim=pass header.d=example.com"}}},
		}
		second, err := stages[1].Check(b.Context(), v)
		if err != nil || second.Fact.(Fact).Result != "pass" {
			b.Fatal(second, err)
		}
	}
}

package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/arc"
	"sluice/scanners/dkim"
	"sluice/scanners/dmarc"
	"sluice/scanners/spf"
)

// A letterbox is an outbox that keeps what it is given to read.
type letterbox struct {
	list  []mailstore.Outgoing
	texts []string
}

func (l *letterbox) Stage(_ context.Context, list []mailstore.Outgoing) (mailstore.Staged, error) {
	for _, m := range list {
		b, err := io.ReadAll(m.Content)
		if err != nil {
			return nil, err
		}
		l.list, l.texts = append(l.list, m), append(l.texts, string(b))
	}
	return nil, nil
}

// outgoing is a signingOutbox before a letterbox, with keys of two domains that the DNS has.
type outgoing struct {
	*signingOutbox
	*letterbox
	config *config.Config
	keys   signingKeys
	dns    *pipelinetest.Resolver
	log    bytes.Buffer
}

func newOutgoing(t *testing.T) *outgoing {
	t.Helper()
	o := &outgoing{letterbox: &letterbox{}, config: config.Default(), keys: signingKeys{}, dns: &pipelinetest.Resolver{TXT: map[string][]string{}}}
	o.config.Hostname = "mx.example.org"
	for _, domain := range []string{"example.org", "other.example"} {
		for _, k := range newKeys(t, domain, "s") {
			record, err := k.Key.Record()
			if err != nil {
				t.Fatal(err)
			}
			o.keys[domain] = append(o.keys[domain], k.Identity)
			o.dns.TXT[k.KeyName()] = []string{record}
		}
	}
	senders, err := openSenders(t.TempDir(), pipelinetest.Epoch, 21*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o.signingOutbox = &signingOutbox{
		next: o.letterbox, senders: senders, spool: t.TempDir(), now: func() time.Time { return pipelinetest.Epoch },
		log: slog.New(slog.NewTextHandler(&o.log, nil)), settings: func() (*config.Config, signingKeys) { return o.config, o.keys },
		foreign: func(_ context.Context, domain string) (bool, error) {
			if domain == "down.example" {
				return false, errors.New("the database is locked")
			}
			return domain != "example.org" && domain != "other.example", nil
		},
		resolver: func() pipeline.Resolver { return o.dns },
	}
	return o
}

// back is where a report to a sender goes.
func (o *outgoing) back(address string) (string, error) {
	a, err := mime.ParseAddress(address)
	if err != nil {
		return "", err
	}
	sender, _, err := o.returns(context.Background(), a)
	return sender, err
}

// send gives one mail to the outbox and returns what left.
func (o *outgoing) send(t *testing.T, m mailstore.Outgoing, text string) (mailstore.Outgoing, string) {
	t.Helper()
	m.Content = strings.NewReader(text)
	if _, err := o.signingOutbox.Stage(t.Context(), []mailstore.Outgoing{m}); err != nil {
		t.Fatal(err)
	}
	n := len(o.list) - 1
	if !strings.HasSuffix(o.texts[n], text) {
		t.Errorf("the mail is another:\n%s", o.texts[n])
	}
	return o.list[n], o.texts[n]
}

// facts are what our own scanners find in a mail.
func (o *outgoing) facts(t *testing.T, text string) (d dkim.Fact, a arc.Fact) {
	t.Helper()
	env := pipelinetest.Env(t)
	env.Resolver = o.dns
	for _, k := range []pipeline.Kind{dkim.Kind(), arc.Kind()} {
		stages, err := k.New(k.Config(), env)
		if err != nil {
			t.Fatal(err)
		}
		var v pipeline.View
		v.Message, v.Received = pipelinetest.Parse(t, text), pipelinetest.Epoch
		r, err := stages[0].Check(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		switch f := r.Fact.(type) {
		case dkim.Fact:
			d = f
		case arc.Fact:
			a = f
		}
	}
	return d, a
}

func TestOwnMailIsSigned(t *testing.T) {
	for _, tt := range []struct {
		name, from, account string
		signed              string // by whom
		log                 string
	}{
		{name: "an account", from: "Me <me@example.org>", account: "me@example.org", signed: "example.org"},
		{name: "the system", from: "MAILER-DAEMON@mx.example.org", signed: "example.org"},
		{name: "another of our domains", from: "me@sub.Other.Example", account: "me@example.org", signed: "other.example"},
		{name: "a domain without a key", from: "me@example.net", account: "me@example.net"},
		{name: "two of one domain", from: "a@example.org, b@example.org", signed: "example.org"},
		{name: "two domains", from: "a@example.org, b@example.net", log: "its From names no domain, or several"},
		{name: "nobody", from: "undisclosed:;", log: "it has no From"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOutgoing(t)
			m, text := o.send(t, mailstore.Outgoing{ID: "id1", Account: tt.account, Sender: tt.account, Why: "submission"}, "From: "+tt.from+"\r\nSubject: x\r\n\r\nhello\r\n")
			d, a := o.facts(t, text)
			if m.Sender != tt.account || a.Instances != 0 || d.Pass != (tt.signed != "") || strings.Join(d.Domains, " ") != tt.signed {
				t.Errorf("%+v\n%s", d, text)
			}
			if log := o.log.String(); tt.log == "" != (log == "") || !strings.Contains(log, tt.log) {
				t.Errorf("the log says %q", log)
			}
		})
	}
}

// Reports that the queue writes itself are signed too.
func TestReportOfTheQueueIsSigned(t *testing.T) {
	o := newOutgoing(t)
	h := &house{}
	const report = "From: MAILER-DAEMON@mx.example.org\r\nSubject: not delivered\r\n\r\nsorry\r\n"
	if got := string(h.signReport([]byte(report))); got != report {
		t.Errorf("before there are keys: %s", got)
	}
	h.signing.Store(o.signingOutbox)
	if d, _ := o.facts(t, string(h.signReport([]byte(report)))); !d.Pass || d.Domains[0] != "example.org" {
		t.Errorf("%+v", d)
	}
	if got := string(h.signReport([]byte("From: me@example.net\r\n\r\nx\r\n"))); !strings.HasPrefix(got, "From:") || o.log.Len() > 0 {
		t.Errorf("%s %s", got, o.log.String())
	}
}

// A mail larger than memory is spooled; all mails of one call are there to be read at once.
func TestLargeMailIsSigned(t *testing.T) {
	o := newOutgoing(t)
	large := "From: me@example.org\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 15_000)
	small := "From: me@other.example\r\n\r\nx\r\n"
	if _, err := o.signingOutbox.Stage(t.Context(), []mailstore.Outgoing{
		{Content: strings.NewReader(large)}, {Content: strings.NewReader(small)}, {Content: strings.NewReader(large), Forwarded: true, Account: "me@example.org"},
	}); err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{"example.org", "other.example", ""} {
		d, a := o.facts(t, o.texts[n])
		if strings.Join(d.Domains, " ") != want || (a.Result == "pass") != (want == "") {
			t.Errorf("%d: %+v %s", n, d.Domains, a.Result)
		}
	}
}

// What may not leave unsigned is held; mail of the system and of others leaves.
func TestRequire(t *testing.T) {
	o := newOutgoing(t)
	o.config.Signing.Require = true
	text := "From: me@example.net\r\n\r\nx\r\n"
	m, _ := o.send(t, mailstore.Outgoing{Account: "me@example.org"}, text)
	if m.Hold != "it is not signed (signing.require): there is no key for example.net" || !strings.Contains(o.log.String(), "mail is held because it cannot be signed") {
		t.Errorf("%+v", m)
	}
	if m, _ := o.send(t, mailstore.Outgoing{Account: "me@example.org", Hold: "stolen"}, text); m.Hold != "stolen" {
		t.Errorf("%+v", m)
	}
	for _, free := range []mailstore.Outgoing{{}, {Account: "me@example.org", Forwarded: true}} {
		if m, _ := o.send(t, free, text); m.Hold != "" {
			t.Errorf("%+v", m)
		}
	}
	if m, _ := o.send(t, mailstore.Outgoing{Account: "me@example.org"}, "From: me@example.org\r\n\r\nx\r\n"); m.Hold != "" {
		t.Errorf("%+v", m)
	}
	o.config.Limits.HeaderSize = 1024
	large := "From: me@example.org\r\nSubject: " + strings.Repeat("x", 2000) + "\r\n\r\nx\r\n"
	if m, _ := o.send(t, mailstore.Outgoing{Account: "me@example.org"}, large); !strings.Contains(m.Hold, "larger than 1024 octets") {
		t.Errorf("a mail whose header cannot be read leaves: %+v", m)
	}
	o.config.Signing.Require = false
	o.log.Reset()
	if _, text := o.send(t, mailstore.Outgoing{Account: "me@example.org"}, large); text != large || !strings.Contains(o.log.String(), "larger than 1024 octets") {
		t.Errorf("%.100q, %s", text, o.log.String())
	}
}

func TestForwardedMailIsSealed(t *testing.T) {
	const text = "From: you@example.com\r\nSubject: x\r\n\r\nhello\r\n"
	o := newOutgoing(t)
	m := mailstore.Outgoing{ID: "id1", Account: "me@example.org", Sender: "you@example.com", Forwarded: true, Results: "spf=pass smtp.mailfrom=example.com; arc=none"}
	left, sealed := o.send(t, m, text)
	d, a := o.facts(t, sealed)
	if a.Result != "pass" || a.Instances != 1 || a.First.SPF != "pass" || a.First.Authserv != "mx.example.org" || a.Sealers[0] != "example.org" || d.Found != 0 {
		t.Errorf("%+v\n%s", a, sealed)
	}
	local, domain, _ := strings.Cut(left.Sender, "@")
	if back, err := o.back(left.Sender); !strings.HasPrefix(local, "SRS0=") || domain != "example.org" || back != "you@example.com" || err != nil {
		t.Errorf("%s comes back to %q, %v", left.Sender, back, err)
	}
	// Handed on once more, by somebody else here and without that anybody has looked at the chain.
	m.Results, m.Account, m.Sender = "", "me@other.example", "SRS0=abcd=aa=example.com=you@elsewhere.example"
	left, sealed = o.send(t, m, sealed)
	if _, a = o.facts(t, sealed); a.Result != "pass" || a.Instances != 2 || a.Sets[1].CV != "pass" || a.Sealers[0] != "other.example" || a.Last.SPF != "" {
		t.Errorf("%+v\n%s", a, sealed)
	}
	if back, err := o.back(left.Sender); !strings.HasSuffix(left.Sender, "@other.example") || back != m.Sender || err != nil {
		t.Errorf("%s comes back to %q, %v", left.Sender, back, err)
	}
	// A chain that was broken when it came.
	m.Results = "arc=fail"
	if _, broken := o.send(t, m, strings.Replace(sealed, "Subject: x", "Subject: y", 1)); !strings.Contains(broken, "cv=fail") {
		t.Errorf("%s", broken)
	}
	// A key that does not answer leaves it open: no seal is better than one that says what is not known.
	m.Results = ""
	o.dns.Fail = map[string]string{"s._domainkey.example.org": "timeout"}
	if _, open := o.send(t, m, sealed); open != sealed || !strings.Contains(o.log.String(), "the chain is undecided") {
		t.Errorf("%s\n%s", open, o.log.String())
	}
}

func TestForwardedSenders(t *testing.T) {
	long := strings.Repeat("x", 50) + "@example.com"
	for _, tt := range []struct{ name, sender, account, want string }{
		{"a stranger", "you@example.com", "me@example.org", "SRS0=*@example.org"},
		{"a report", "", "me@example.org", ""},
		{"one of ours", "you@example.org", "me@example.org", "you@example.org"},
		{"no room", long, "me@example.org", "me@example.org"},
		{"no room, of nobody", long, "", ""},
		{"the system", "you@example.com", "", "SRS0=*@mx.example.org"},
		{"a sender without a domain", "you", "me@example.org", "me@example.org"},
	} {
		o := newOutgoing(t)
		m, _ := o.send(t, mailstore.Outgoing{Account: tt.account, Sender: tt.sender, Forwarded: true}, "From: you@example.com\r\n\r\nx\r\n")
		head, tail, _ := strings.Cut(tt.want, "*")
		if !strings.HasPrefix(m.Sender, head) || !strings.HasSuffix(m.Sender, tail) || !strings.Contains(tt.want, "*") && m.Sender != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, m.Sender, tt.want)
		}
	}
	o := newOutgoing(t)
	o.config.Forwarding.Domain = "other.example"
	m, text := o.send(t, mailstore.Outgoing{Account: "me@example.org", Sender: "you@example.com", Forwarded: true}, "From: you@example.com\r\n\r\nx\r\n")
	if !strings.HasSuffix(m.Sender, "@other.example") || !strings.Contains(text, " d=other.example;") {
		t.Errorf("%s\n%s", m.Sender, text)
	}
	o.config.Forwarding.KeepSender, o.config.Forwarding.NoSeal = true, true
	const plain = "From: you@example.com\r\n\r\nx\r\n"
	if m, text := o.send(t, mailstore.Outgoing{Account: "me@example.org", Sender: "you@example.com", Forwarded: true}, plain); m.Sender != "you@example.com" || text != plain {
		t.Errorf("%s\n%s", m.Sender, text)
	}
	o.config.Forwarding.KeepSender = false
	if _, err := o.signingOutbox.Stage(t.Context(), []mailstore.Outgoing{{Sender: "you@down.example", Forwarded: true, Content: strings.NewReader(plain)}}); err == nil {
		t.Error("whose the sender's domain is was not known, and the mail left")
	}
}

// Whose mail a report is about is found out for addresses of ours only.
func TestReturns(t *testing.T) {
	o := newOutgoing(t)
	m, _ := o.send(t, mailstore.Outgoing{Account: "me@example.org", Sender: "You.Too@Example.com", Forwarded: true}, "From: you@example.com\r\n\r\nx\r\n")
	local, _, _ := strings.Cut(m.Sender, "@")
	for _, tt := range []struct {
		to, want string
		ours     bool
	}{
		{m.Sender, "You.Too@Example.com", true},
		{strings.ToUpper(m.Sender), "YOU.TOO@EXAMPLE.COM", true},
		{`"` + local + `"@example.org`, "You.Too@Example.com", true},
		{local + "@other.example", "You.Too@Example.com", true},
		{local + "@example.net", "", false},
		{local + "@down.example", "", false},
		{local, "", false},
		{"me@example.org", "", false},
		{"SRS0=aaaaaaaa=aa=example.com=you@example.org", "", true},
	} {
		a, err := mime.ParseAddress(tt.to)
		if err != nil {
			t.Fatal(err)
		}
		sender, ours, err := o.returns(t.Context(), a)
		if sender != tt.want || ours != tt.ours || (err != nil) != (ours && tt.want == "") {
			t.Errorf("%s: %q %v %v", tt.to, sender, ours, err)
		}
	}
}

// A broken reader is no mail: nothing is queued.
func TestUnreadableMail(t *testing.T) {
	o := newOutgoing(t)
	broken := io.MultiReader(strings.NewReader("From: me@example.org\r\n"), failing{errors.New("the disk is gone")})
	if _, err := o.signingOutbox.Stage(t.Context(), []mailstore.Outgoing{{Content: broken}}); err == nil || !strings.Contains(err.Error(), "the disk is gone") || len(o.list) > 0 {
		t.Errorf("%v, %d have left", err, len(o.list))
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Secrets are made, kept, replaced after their time and forgotten after that of what they have made.
func TestSenders(t *testing.T) {
	const day, lifetime = 24 * time.Hour, 21 * 24 * time.Hour
	data, now := t.TempDir(), pipelinetest.Epoch
	c := config.Default()
	s, err := openSenders(data, now, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	old, err := s.rewriter(c).Forward("you@example.com", now.Add(89*day))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		days, keys int
		known      bool
	}{{89, 1, true}, {91, 2, true}, {110, 2, true}, {182, 2, false}, {300, 2, false}} {
		at := now.Add(time.Duration(tt.days) * day)
		if s, err = openSenders(data, at, lifetime); err != nil {
			t.Fatal(err)
		}
		if n := len(s.rewriter(c).Keys); n != tt.keys {
			t.Errorf("on day %d there are %d secrets, not %d", tt.days, n, tt.keys)
		}
		if _, err := s.rewriter(c).Reverse(old, at); (err == nil) != tt.known {
			t.Errorf("on day %d: %v", tt.days, err)
		}
	}
	path := filepath.Join(data, "senders")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	if err := os.WriteFile(path, []byte("2026-11-22T00:00:00Z 00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSenders(data, now, lifetime); err == nil || !strings.HasPrefix(err.Error(), path+":1: this is no secret; remove the file") {
		t.Error(err)
	}
}

func TestAuthResults(t *testing.T) {
	step := func(kind string, fact any) pipeline.StepRecord {
		raw, err := json.Marshal(fact)
		if err != nil {
			t.Fatal(err)
		}
		return pipeline.StepRecord{Name: kind, Kind: kind, Fact: raw}
	}
	mails := step("spf", spf.Fact{Result: "pass", Domain: "example.com", Identity: "mailfrom"})
	signed := step("dkim", dkim.Fact{Signatures: []dkim.Signature{{Domain: "example.com", Selector: "s", Algorithm: "rsa-sha256", Result: "fail", Reason: "a \"reason\"\r\nX: y"}}})
	judged := step("dmarc", dmarc.Fact{Result: "pass", Domain: "example.com", Policy: "reject", Published: "v=DMARC1; p=reject"})
	tried := judged
	tried.Shadow = true
	failed := judged
	failed.Missing = map[string]string{"result": "timeout"}
	for _, tt := range []struct {
		steps []pipeline.StepRecord
		want  string
	}{
		{nil, ""},
		{[]pipeline.StepRecord{{Name: "spf", Kind: "spf", Unknown: "timeout"}, step("dnsbl", struct{}{}), tried, failed}, ""},
		{[]pipeline.StepRecord{signed}, `dkim=fail reason="a \"reason\"  X: y" header.d=example.com header.s=s header.a=rsa-sha256`},
		{[]pipeline.StepRecord{step("arc", arc.Fact{Result: "none"}), {Kind: "arc", Fact: []byte("[")}}, "arc=none"},
	} {
		if got := authResults(&pipeline.Record{Steps: tt.steps}); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	got := authResults(&pipeline.Record{Steps: []pipeline.StepRecord{mails, judged, step("arc", arc.Fact{Result: "fail", Why: "x"})}})
	if !strings.HasPrefix(got, "spf=pass ") || !strings.Contains(got, "; dmarc=pass ") || arc.ChainOf(got) != "fail" {
		t.Error(got)
	}
}

// What a mail of 12 KB costs on its way into the queue, signed with an RSA key, and sealed.
func BenchmarkSigningOutbox(b *testing.B) {
	text := "From: me@example.org\r\nSubject: x\r\n\r\n" + strings.Repeat("The quick brown fox jumps over the lazy dog, and then over another.\r\n", 170)
	c := config.Default()
	c.Data = b.TempDir()
	if err := keepKeys(osDisk{}, keyFolder(c.Data, "example.org"), nil, newKeys(b, "example.org", "s")); err != nil {
		b.Fatal(err)
	}
	keys, err := readKeys(c)
	if err != nil {
		b.Fatal(err)
	}
	senders, err := openSenders(c.Data, time.Now(), c.Forwarding.Lifetime)
	if err != nil {
		b.Fatal(err)
	}
	for _, forwarded := range []bool{false, true} {
		b.Run(fmt.Sprintf("forwarded=%v", forwarded), func(b *testing.B) {
			o := &signingOutbox{
				next: discarding{}, senders: senders, now: time.Now, log: slog.New(slog.DiscardHandler),
				settings: func() (*config.Config, signingKeys) { return c, keys },
				foreign:  func(context.Context, string) (bool, error) { return true, nil },
			}
			b.ReportAllocs()
			for b.Loop() {
				m := mailstore.Outgoing{Account: "me@example.org", Sender: "you@example.com", Forwarded: forwarded, Content: strings.NewReader(text)}
				if _, err := o.Stage(b.Context(), []mailstore.Outgoing{m}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type discarding struct{}

func (discarding) Stage(_ context.Context, list []mailstore.Outgoing) (mailstore.Staged, error) {
	for _, m := range list {
		if _, err := io.Copy(io.Discard, m.Content); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

package milter

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/peertest"
)

// network is a world in which the network can be reached.
func network(t testing.TB) pipeline.Env {
	env := pipelinetest.Env(t)
	env.Dial, env.Name, env.Now = new(net.Dialer).DialContext, "other", time.Now
	return env
}

func view(t testing.TB, text string) pipeline.View {
	v := pipeline.View{Message: pipelinetest.Parse(t, text), Phase: pipeline.Content}
	v.ID, v.Received, v.Door = "t1", pipelinetest.Epoch, pipeline.SMTP
	v.Client = pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), Name: "mail.example.com"}
	v.Greeting, v.Sender = "client.example", pipelinetest.Address(t, "A@example.com")
	for _, to := range []string{"Me@example.org", "you@example.org"} {
		v.Recipients = append(v.Recipients, pipeline.Recipient{Address: pipelinetest.Address(t, to)})
	}
	return v
}

const ham = "From: A <a@example.com>\nTo: me@example.org\nSubject: hello\n  there\nMessage-ID: <1@example.com>\n" +
	"Date: Sun, 1 Mar 2026 12:00:00 +0000\n\nhello\n"

func stageAt(t testing.TB, address string, change func(*Config)) *stage {
	t.Helper()
	c := Kind().Config().(*Config)
	c.Address = address
	if change != nil {
		change(c)
	}
	s, err := newStage(*c, network(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signed is ham with a signature of example.com, canonicalised as strictly as there is, and its public key.
func signed(t testing.TB) (text, record string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err = dkim.Sign(&out, strings.NewReader(strings.ReplaceAll(ham, "\n", "\r\n")), &dkim.SignOptions{
		Domain: "example.com", Selector: "s1", Signer: key,
		HeaderCanonicalization: dkim.CanonicalizationSimple, BodyCanonicalization: dkim.CanonicalizationSimple,
		HeaderKeys: []string{"From", "To", "Subject", "Message-ID", "Date"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public)
}

// opendkim finds the signature whole, so it was told header and body to the octet; it removes what was forged in its
// name.
func TestOpendkim(t *testing.T) {
	text, record := signed(t)
	o := peertest.StartOpendkim(t, peertest.OpendkimConfig{Keys: map[string]string{"s1._domainkey.example.com": record}, Unix: true})
	s := stageAt(t, "unix:"+o.Socket, func(c *Config) { c.Act = []string{"verdict", "headers"} })
	check := func(text string) pipeline.Result {
		t.Helper()
		r, err := s.Check(t.Context(), view(t, text))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	result := func(r pipeline.Result) string {
		for _, f := range r.Fact.(Fact).Headers {
			if f.Name == "Authentication-Results" {
				return f.Value
			}
		}
		return ""
	}
	const forged = "Authentication-Results: other.example; dkim=fail\r\nAuthentication-Results: mx.example.org; dkim=pass header.d=bank.example\r\n"
	r := check(forged + text)
	f := r.Fact.(Fact)
	if got := result(r); !strings.HasPrefix(got, "mx.example.org;") || !strings.Contains(got, "dkim=pass") || !strings.Contains(got, "example.com") {
		t.Errorf("%q of %+v", got, f)
	}
	if f.Verdict != accepted && f.Verdict != wentOn || r.Verdict != (pipeline.Verdict{}) {
		t.Errorf("%+v", f)
	}
	if want := []Change{{Name: "Authentication-Results", Index: 2, Deleted: true}}; !reflect.DeepEqual(f.Changed, want) {
		t.Errorf("changed: %+v, want %+v", f.Changed, want)
	}
	edits := 0
	for _, e := range r.Edits {
		if e == (pipeline.Edit{Delete: true, Name: "Authentication-Results", Index: 2}) || !e.Delete && e.Value == result(r) {
			edits++
		}
	}
	if edits != 2 {
		t.Errorf("edits: %+v", r.Edits)
	}
	if got := result(check(strings.Replace(text, "hello\r\n  there", "hello there", 1))); !strings.Contains(got, "dkim=fail") {
		t.Errorf("tampered with: %q", got)
	}

	// Stopped, it hangs; killed, it refuses; started again, it answers.
	o.Signal(syscall.SIGSTOP)
	s.config.CommandTimeout = 50 * time.Millisecond
	if _, err := s.Check(t.Context(), view(t, text)); err == nil || !strings.HasSuffix(err.Error(), "negotiate: no answer within 50ms") {
		t.Errorf("hanging: %v", err)
	}
	o.Stop()
	if _, err := s.Check(t.Context(), view(t, text)); err == nil || !strings.HasPrefix(err.Error(), "ask other at "+o.Socket+": dial ") {
		t.Errorf("dead: %v", err)
	}
	o.Start()
	s.config.CommandTimeout = 10 * time.Second
	if got := result(check(text)); !strings.Contains(got, "dkim=pass") {
		t.Errorf("started again: %q", got)
	}
}

func TestRspamdMilter(t *testing.T) {
	r := peertest.StartRspamd(t, "")
	s := stageAt(t, "inet:"+r.Milter, func(c *Config) { c.Act = []string{"verdict"} })
	got, err := s.Check(t.Context(), view(t, ham))
	if err != nil {
		t.Fatal(err)
	}
	if f := got.Fact.(Fact); f.Verdict != accepted || got.Verdict.Action != pipeline.Pass {
		t.Errorf("%+v", f)
	}
	got, err = s.Check(t.Context(), view(t, ham+peertest.GTUBE+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := got.Fact.(Fact)
	if f.Verdict != refused || f.Event != "eom" || f.Code != 554 || f.Enhanced != "5.7.1" || f.Text != "Gtube pattern" {
		t.Errorf("%+v", f)
	}
	if v := got.Verdict; v.Action != pipeline.Reject || v.Reply != (pipeline.Reply{Code: 554, Enhanced: "5.7.1", Text: "Gtube pattern"}) {
		t.Errorf("%+v", v)
	}
}

// Our own milter door is a milter like others.
func TestOurs(t *testing.T) {
	sluice := peertest.StartSluice(t, peertest.SluiceConfig{
		YAML: "pipeline:\n  - rules: {files: [rules.yaml]}\n",
		Files: map[string]string{"rules.yaml": `rules:
  - {name: refused, when: subject contains "refuse" and client.ip == "192.0.2.1" and helo == "client.example", reject: 5.7.9 100% no}
  - {name: held, when: subject contains "hold", quarantine: true}
  - {name: marked, when: from.address == "a@example.com" and subject contains "hello", header: {X-Marked: "yes"}}
`},
	})
	s := stageAt(t, "inet:"+sluice.Milter, func(c *Config) { c.Act = []string{"verdict", "headers"} })
	for _, tt := range []struct {
		subject string
		want    Fact
		action  pipeline.Action
	}{
		// The mark that our door leaves for our LMTP is nobody else's to add.
		{"hello", Fact{Scanned: true, Verdict: "accept", Event: "eom", NotDone: []string{"headers"}}, pipeline.Pass},
		{"refuse", Fact{Scanned: true, Verdict: "reject", Event: "eom", Code: 550, Enhanced: "5.7.9", Text: "100% no"}, pipeline.Reject},
		{"hold", Fact{Scanned: true, Verdict: "discard", Event: "eom"}, pipeline.Discard},
	} {
		r, err := s.Check(t.Context(), view(t, strings.Replace(ham, "hello", tt.subject, 1)))
		if err != nil {
			t.Fatal(err)
		}
		f := r.Fact.(Fact)
		marked := false
		for _, h := range f.Headers {
			marked = marked || h == Field{"X-Marked", "yes"}
		}
		if marked != (tt.subject == "hello") {
			t.Errorf("%s: %+v", tt.subject, f.Headers)
		}
		f.Headers = nil
		if !reflect.DeepEqual(f, tt.want) || r.Verdict.Action != tt.action {
			t.Errorf("%s: %+v, %s; want %+v, %s", tt.subject, f, r.Verdict.Action, tt.want, tt.action)
		}
	}
}

func BenchmarkOpendkim(b *testing.B) {
	text, record := signed(b)
	o := peertest.StartOpendkim(b, peertest.OpendkimConfig{Keys: map[string]string{"s1._domainkey.example.com": record}, Unix: true})
	s := stageAt(b, "unix:"+o.Socket, nil)
	v := view(b, text)
	for b.Loop() {
		if _, err := s.Check(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
}

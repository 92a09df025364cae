package program

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/resolve"
)

// theScanners are all that find facts without another program.
const theScanners = `
pipeline:
  - spf: {}
  - dnsbl: {lists: {zen: {zone: zen.example}, white: {zone: white.example}}}
  - rdns: {}
  - helo: {}
  - greylist: {}
  - ratelimit: {limit: 100000}
  - dkim: {}
  - arc: {}
  - dmarc: {}
  - links: {lists: {uri: {zone: uri.example}, dbl: {zone: dbl.example, of: [links, from, sender, helo]}}}
  - replies: {}
  - content: {}
  - authres: {}
`

// planOf makes a plan of a configuration in a world of the test's.
func planOf(t testing.TB, text string, env pipeline.Env) *pipeline.Plan {
	t.Helper()
	c, err := config.Parse("sluice.yaml", text, Stages())
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.NewPlan(c.Pipeline, env, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// aNet is name servers in memory, each answer of which takes a time.
type aNet struct {
	records map[string][]dns.RR
	takes   time.Duration
}

func newNet(t testing.TB, takes time.Duration, records ...string) *aNet {
	n := &aNet{map[string][]dns.RR{}, takes}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		n.records[rr.Header().Name] = append(n.records[rr.Header().Name], rr)
	}
	return n
}

func (n *aNet) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() { // until ours is closed
		defer theirs.Close()
		buf := make([]byte, 4096)
		for {
			size, err := theirs.Read(buf)
			q := new(dns.Msg)
			if err != nil || q.Unpack(buf[:size]) != nil {
				return
			}
			time.Sleep(n.takes)
			m := new(dns.Msg).SetReply(q)
			all, ok := n.records[strings.ToLower(q.Question[0].Name)]
			if !ok {
				m.Rcode = dns.RcodeNameError
			}
			for _, rr := range all {
				if rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
			if len(m.Answer) == 0 {
				soa, _ := dns.NewRR("example. 600 IN SOA ns.example. root.example. 1 2 3 4 600")
				m.Ns = append(m.Ns, soa)
			}
			if p, err := m.Pack(); err == nil {
				if _, err := theirs.Write(p); err != nil {
					return
				}
			}
		}
	}()
	return ours, nil
}

// signed returns a mail with a signature, and the record of its key.
func signed(t testing.TB, text string) (mail, record string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(bytes.NewReader(bytes.Repeat([]byte("sluice"), 20)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = dkim.Sign(&out, strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n")), &dkim.SignOptions{Domain: "mail.sender.example", Selector: "s", Signer: private})
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), fmt.Sprintf(`s._domainkey.mail.sender.example. 600 TXT "v=DKIM1; k=ed25519; p=%s"`, base64.StdEncoding.EncodeToString(public))
}

const aMail = "From: A <a@mail.sender.example>\nTo: me@example.org\nSubject: hello\nDate: Sun, 1 Mar 2026 12:00:00 +0000\n" +
	"Message-ID: <1@mail.sender.example>\nIn-Reply-To: <2@example.org>\n\nsee http://www.link.example/x\n"

// The look-ups of all scanners that ask the DNS take as long as the longest chain of those that need each other, and
// none where the answers are remembered.
func TestLatency(t *testing.T) {
	const takes = 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		mail, key := signed(t, aMail)
		n := newNet(t, takes, key,
			`mail.sender.example. 600 TXT "v=spf1 include:out.example -all"`,
			`out.example. 600 TXT "v=spf1 include:pool.example ~all"`,
			`pool.example. 600 TXT "v=spf1 a:mx.pool.example ~all"`,
			"mx.pool.example. 600 A 192.0.2.1",
			"1.2.0.192.in-addr.arpa. 600 PTR mx.pool.example.",
			`_dmarc.sender.example. 600 TXT "v=DMARC1; p=reject"`,
			"2.0.0.127.zen.example. 600 A 127.0.0.2", "2.0.0.127.white.example. 600 A 127.0.0.2",
			"test.uri.example. 600 A 127.0.0.2", "test.dbl.example. 600 A 127.0.0.2",
		)
		const longest = 3 * takes // three policies; the address of mx.pool.example is asked for by rdns and helo meanwhile
		r, err := resolve.New(resolve.Config{Servers: []string{"192.0.2.53"}}, nil, n.dial)
		if err != nil {
			t.Fatal(err)
		}
		env, journal := pipelinetest.Env(t), &pipelinetest.Journal{}
		env.Journal, env.Resolver = journal, r
		p := planOf(t, theScanners+"  - rules: {rules: [{name: a, when: 'dmarc.result == \"pass\" and greylist.new', score: 1}]}\n", env)
		for i, most := range []time.Duration{longest + 30*time.Millisecond, 0} {
			began := time.Now()
			ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{
				From: "a@mail.sender.example", Helo: "mx.pool.example", Text: mail,
			})
			took := time.Since(began)
			t.Logf("mail %d: %s", i+1, took)
			if took > most {
				t.Errorf("mail %d took %s, want at most %s", i+1, took, most)
			}
			for _, step := range ran.Record.Steps {
				if step.Unknown != "" || len(step.Missing) > 0 {
					t.Errorf("%s: unknown %q, %v", step.Name, step.Unknown, step.Missing)
				}
			}
			for step, want := range map[string]string{
				"spf": `"result":"pass"`, "dkim": `"pass":true`, "dmarc": `"result":"pass"`, "rdns": `"confirmed":true`, "greeting": `"matches":true`,
			} {
				found := false
				for _, s := range ran.Record.Steps {
					found = found || s.Name == step && bytes.Contains(s.Fact, []byte(want))
				}
				if !found {
					t.Errorf("%s has not found %s: %+v", step, want, ran.Record.Steps)
				}
			}
		}
	})
}

// A forger cannot keep DMARC from saying "fail" by a broken signature of the domain in From and one of a domain of his own
// that does not answer: which of them is open is known.
func TestForgerWithSilentDomain(t *testing.T) {
	mail, key := signed(t, aMail)
	n := newNet(t, 0, key, `_dmarc.sender.example. 600 TXT "v=DMARC1; p=reject"`)
	r, err := resolve.New(resolve.Config{Servers: []string{"192.0.2.53"}, Attempts: 1}, nil, func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := n.dial(ctx, network, address)
		return &silentAbout{Conn: conn, name: "evil"}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	env, journal := pipelinetest.Env(t), &pipelinetest.Journal{}
	env.Journal, env.Resolver = journal, r
	p := planOf(t, theScanners, env)
	his := "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=evil.example; s=s; h=From; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
	ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{
		From: "x@evil2.example", Text: his + strings.Replace(mail, "hello", "pay at once", 1),
	})
	for _, step := range ran.Record.Steps {
		switch step.Name {
		case "dkim":
			if !strings.Contains(step.Unknown, "undecided: s._domainkey.evil.example") {
				t.Errorf("dkim: fact %s, unknown %q", step.Fact, step.Unknown)
			}
		case "dmarc":
			if !bytes.Contains(step.Fact, []byte(`"result":"fail"`)) {
				t.Errorf("dmarc: fact %s, unknown %q", step.Fact, step.Unknown)
			}
		}
	}
}

// silentAbout fails questions that name something.
type silentAbout struct {
	net.Conn
	name string
}

func (s *silentAbout) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.name)) {
		return 0, errors.New("nobody there")
	}
	return s.Conn.Write(p)
}

// BenchmarkScanners is what all scanners cost a mail where the answers of the DNS are in memory, beside what a mail costs
// without any. SLUICE_BENCH_MAILS names a folder of mails; without it there is one, with a signature.
func BenchmarkScanners(b *testing.B) {
	ballast := make([]byte, 16<<20) // as in Main: garbage is collected as often as in the program
	defer runtime.KeepAlive(ballast)
	one, key := signed(b, aMail)
	mails := []string{one}
	if dir := os.Getenv("SLUICE_BENCH_MAILS"); dir != "" {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(files) == 0 {
			b.Fatal(dir, err)
		}
		mails = nil
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				b.Fatal(err)
			}
			mails = append(mails, strings.ReplaceAll(string(text), "\n", "\r\n"))
		}
	}
	n := newNet(b, 0, key,
		`mail.sender.example. 600 TXT "v=spf1 include:out.example -all"`, `out.example. 600 TXT "v=spf1 ip4:192.0.2.0/24 ~all"`,
		"1.2.0.192.in-addr.arpa. 600 PTR mx.out.example.", "mx.out.example. 600 A 192.0.2.1", `_dmarc.sender.example. 600 TXT "v=DMARC1; p=reject"`,
		"2.0.0.127.zen.example. 600 A 127.0.0.2", "2.0.0.127.white.example. 600 A 127.0.0.2",
		"test.uri.example. 600 A 127.0.0.2", "test.dbl.example. 600 A 127.0.0.2",
	)
	r, err := resolve.New(resolve.Config{Servers: []string{"192.0.2.53"}}, nil, n.dial)
	if err != nil {
		b.Fatal(err)
	}
	plans := []struct{ name, text string }{{"none", "\npipeline: []\n"}, {"all", theScanners}}
	asking := ""
	for line := range strings.Lines(theScanners) {
		if !strings.Contains(line, "content") && !strings.Contains(line, "greylist") && !strings.Contains(line, "ratelimit") && !strings.Contains(line, "replies") {
			asking += line
		}
	}
	plans = append(plans, struct{ name, text string }{"asking the DNS", asking})
	for line := range strings.Lines(strings.TrimPrefix(theScanners, "\npipeline:\n")) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "  - "), ":")
		if name != "dmarc" && name != "authres" { // they read others
			plans = append(plans, struct{ name, text string }{name, "\npipeline:\n" + line})
		}
	}
	for _, x := range plans {
		b.Run(x.name, func(b *testing.B) {
			env := pipelinetest.Env(b)
			env.Journal, env.Resolver = discard{}, r
			p := planOf(b, x.text, env)
			once := func(i int) {
				text := mails[i%len(mails)]
				m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
				if err != nil {
					b.Fatal(err)
				}
				s := p.NewSession(pipeline.SMTP, pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")})
				s.Connect(b.Context())
				s.Helo(b.Context(), "mx.out.example")
				s.Mail(b.Context(), pipelinetest.Address(b, "a@mail.sender.example"))
				s.Rcpt(b.Context(), pipeline.Recipient{Address: pipelinetest.Address(b, "me@example.org")})
				s.Data(b.Context())
				s.Content(b.Context(), m)
				if err := s.Done(b.Context(), pipeline.Reply{Code: 250}, []pipeline.Delivery{{Disposition: pipeline.Delivered}}); err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
			for i := range mails { // so that the answers are in memory
				once(i)
			}
			b.ReportAllocs()
			i, before := 0, cpu(b)
			for b.Loop() {
				once(i)
				i++
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpu is the processor time that this process has taken, which other processes do not change.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// discard keeps no records.
type discard struct{}

func (discard) Record(context.Context, *pipeline.Record, bool) error { return nil }

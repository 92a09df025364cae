package clamav

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/protocols/peertest"
)

// zipped packs files.
func zipped(t testing.TB, files ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i, data := range files {
		h := &zip.FileHeader{Name: fmt.Sprintf("file%d.com", i), Method: zip.Deflate}
		if len(data) > 1<<20 {
			h.Method = zip.Store // what takes long to pack
		}
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// attached is a mail with an attachment, behind a header.
func attached(header string, text string, data []byte) string {
	var lines strings.Builder
	for s := base64.StdEncoding.EncodeToString(data); s != ""; s = s[min(76, len(s)):] {
		lines.WriteString(s[:min(76, len(s))] + "\n")
	}
	return header + "Content-Type: multipart/mixed; boundary=bbbb\n\n--bbbb\nContent-Type: text/plain\n\n" + text +
		"\n--bbbb\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n" + lines.String() + "\n--bbbb--\n"
}

// noise is what does not get smaller when it is packed.
func noise(n int) []byte {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(out) // that never fails
	return out
}

func TestRealClamd(t *testing.T) {
	c := peertest.StartClamd(t)
	const header = "From: a@example.com\nSubject: x\nMIME-Version: 1.0\n"
	eicar := []byte(peertest.EICAR)
	nested := zipped(t, zipped(t, eicar))
	big := attached(header, "hello", zipped(t, noise(20<<20*3/4), nested))
	for _, tt := range []struct {
		name, mail string
		infected   bool
	}{
		{"nothing", header + "\nhello\n", false},
		{"an empty mail", "", false},
		{"in the text", header + "\nhello\n" + peertest.EICAR + "\n", true},
		{"in base64", attached(header, "hello", eicar), true},
		{"in a zip in a zip", attached(header, "hello", nested), true},
		{"in base64, after 20 MB", attached(header, strings.Repeat(strings.Repeat("x", 76)+"\n", 20<<20/77), eicar), true},
		{"in a zip in a zip of 15 MB", big, true},
		// What clamd does not know as a mail it does not look into.
		{"behind fields that clamd does not know", attached("X-First: a\n", "hello", eicar), true},
		{"behind a field like a zip", attached("PK\x03\x04: a\n", "hello", eicar), true},
		{"behind a line like that of an mbox", attached("From a@b c\n", "hello\n\nFrom a@b c\n\nhello", eicar), true},
	} {
		addresses := []string{"unix:" + c.Socket, c.Address}
		if len(tt.mail) > 10<<20 {
			addresses = addresses[:1]
		}
		for _, address := range addresses {
			network, _, _ := strings.Cut(address, "/")
			t.Run(tt.name+" "+network, func(t *testing.T) {
				r, err := check(t, made(t, nil, address), tt.mail)
				if err != nil {
					t.Fatal(err)
				}
				want := Scanned{Clamd: address, Version: r.Fact.(Scanned).Version, Scanned: v(t, tt.mail).Size()}
				if tt.infected {
					want.Infected, want.Signature = true, peertest.EICARName
				}
				if r.Fact != want || r.Missing != nil || !strings.HasPrefix(want.Version, "ClamAV ") {
					t.Errorf("%+v (unknown: %v), want %+v", r.Fact, r.Missing, want)
				}
			})
		}
	}
}

// clamd's own limits: never clean.
func TestRealLimits(t *testing.T) {
	c := peertest.StartClamd(t, "StreamMaxLength 1M", "AlertExceedsMax yes", "MaxFileSize 500K")
	s := made(t, nil, "unix:"+c.Socket)
	r, err := check(t, s, hello+string(noise(2<<20)))
	if err == nil || !strings.Contains(err.Error(), "INSTREAM size limit exceeded") && !strings.Contains(err.Error(), "ask clamd at "+c.Socket) {
		t.Errorf("StreamMaxLength: %+v, %v", r, err)
	}
	r, err = check(t, s, hello+string(noise(600<<10)))
	if err != nil || r.Missing["infected"] == nil || !strings.Contains(r.Missing["infected"].Error(), "Heuristics.Limits.Exceeded") {
		t.Errorf("MaxFileSize: %+v, %v", r, err)
	}
}

// A clamd that dies, hangs and comes back while mail is scanned.
func TestRealTrouble(t *testing.T) {
	one, two := peertest.StartClamd(t), peertest.StartClamd(t)
	text := attached("Subject: x\n", "hello", noise(8<<20))
	s := made(t, nil, "unix:"+one.Socket)
	if _, err := check(t, s, hello); err != nil {
		t.Fatal(err)
	}

	t.Run("killed in the middle of a mail", func(t *testing.T) {
		killed := make(chan struct{})
		s := rebuilt(t, world(t), one.Socket, func(n int) {
			if n > 1<<20 {
				select {
				case <-killed:
				default:
					one.Kill()
					close(killed)
				}
			}
		})
		r, err := check(t, s, text)
		if err == nil {
			t.Errorf("%+v", r)
		}
		select {
		case <-killed:
		default:
			t.Errorf("it was not killed: %v", err)
		}
	})
	t.Run("dead", func(t *testing.T) {
		if r, err := check(t, s, hello); err == nil {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the next is asked", func(t *testing.T) {
		r, err := check(t, made(t, nil, "unix:"+one.Socket, "unix:"+two.Socket), hello+peertest.EICAR+"\n")
		if f, ok := r.Fact.(Scanned); err != nil || !ok || !f.Infected || f.Clamd != "unix:"+two.Socket {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("started again", func(t *testing.T) {
		one.Start()
		if r, err := check(t, s, hello+peertest.EICAR+"\n"); err != nil || !r.Fact.(Scanned).Infected {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		one.Stop()
		s := made(t, func(c *Config) { c.Ping = 200 * time.Millisecond }, "unix:"+one.Socket)
		if r, err := check(t, s, hello); err == nil || !strings.Contains(err.Error(), "no PONG within 200ms") {
			t.Errorf("at PING: %+v, %v", r, err)
		}
		s = made(t, func(c *Config) { c.Within = 200 * time.Millisecond }, "unix:"+one.Socket)
		s.daemons[0].heard(true)
		if r, err := check(t, s, text); err == nil || !strings.Contains(err.Error(), "no answer within 200ms") {
			t.Errorf("at a mail: %+v, %v", r, err)
		}
		both := made(t, func(c *Config) { c.Ping = 2 * time.Second }, "unix:"+one.Socket, "unix:"+two.Socket)
		if r, err := check(t, both, hello); err != nil || r.Fact.(Scanned).Clamd != "unix:"+two.Socket {
			t.Errorf("with another: %+v, %v", r, err)
		}
		one.Continue()
		s.daemons[0].within = time.Minute
		if r, err := check(t, s, hello); err != nil {
			t.Errorf("afterwards: %+v, %v", r, err)
		}
	})
}

// rebuilt returns a stage that says how much it has written on each connection.
func rebuilt(t *testing.T, env pipeline.Env, socket string, wrote func(n int)) *stage {
	t.Helper()
	c := Kind().Config().(*Config)
	c.Addresses = []string{"unix:" + socket}
	dial := env.Dial
	env.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &counting{Conn: conn, wrote: wrote}, err
	}
	s, err := newStage(*c, env)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type counting struct {
	net.Conn
	n     int
	wrote func(int)
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n += n
	c.wrote(c.n)
	return n, err
}

// The example: what the sender is told, what the record says, and that nobody gets mail that was not scanned.
func TestThroughServe(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("..", "..", "examples", "clamav", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	c := peertest.StartClamd(t)
	s := peertest.StartSluice(t, peertest.SluiceConfig{
		YAML:     strings.NewReplacer("/run/clamav/clamd.ctl", c.Socket, "25MiB", "200KB, ping: 1s").Replace(read("sluice.yaml")),
		Files:    map[string]string{"rules.yaml": read("rules.yaml")},
		Accounts: []string{"me@example.org"},
	})
	for _, tt := range []struct {
		id, body string
		before   func()
		code     string
		explain  string
	}{
		{"clean", "\nhello\n", nil, "250", "infected: false"},
		{"virus", "\n" + peertest.EICAR + "\n", nil, "550 5.7.1 this mail carries a virus", "signature: " + peertest.EICARName},
		{"packed", attached("X-A: b\n", "hello", zipped(t, zipped(t, []byte(peertest.EICAR)))), nil, "550 5.7.1 this mail carries a virus", peertest.EICARName},
		{"large", "\n" + strings.Repeat(strings.Repeat("x", 70)+"\n", 4000), nil, "250", "too large to scan"},
		{"dead", "\nhello\n", c.Kill, "451 4.7.1", "ask clamd at " + c.Socket},
		{"back", "\n" + peertest.EICAR + "\n", c.Start, "550 5.7.1", peertest.EICARName},
	} {
		if tt.before != nil {
			tt.before()
		}
		reply := peertest.Send(t, s.SMTP, "a@example.com", "me@example.org", "Message-ID: <"+tt.id+"@example.com>\nSubject: x\n"+tt.body)
		if !strings.HasPrefix(reply, tt.code) {
			t.Errorf("%s: %s, want %s", tt.id, reply, tt.code)
		}
		if said := s.Explain(tt.id + "@example.com"); !strings.Contains(said, tt.explain) {
			t.Errorf("%s: explain wants %q:\n%s", tt.id, tt.explain, said)
		}
	}
	s.Mails("me@example.org", "", 1)
	s.Mails("me@example.org", "Not scanned", 1)
}

// A Postfix that asks by milter refuses what clamd finds, and puts mail off while clamd is away.
func TestThroughPostfix(t *testing.T) {
	c := peertest.StartClamd(t)
	s := peertest.StartSluice(t, peertest.SluiceConfig{YAML: fmt.Sprintf(`pipeline:
  - clamav: {addresses: ["unix:%s"], ping: 1s}
  - rules: {rules: [{name: virus, when: clamav.infected, reject: 5.7.1 this mail carries a virus}]}
`, c.Socket)})
	p := peertest.StartPostfix(t, peertest.PostfixConfig{Main: map[string]string{
		"virtual_transport": "discard", "smtpd_milters": "inet:" + s.Milter, "milter_default_action": "tempfail",
	}})
	virus := attached("Subject: x\n", "hello", []byte(peertest.EICAR))
	for _, tt := range []struct {
		mail, want string
		before     func()
	}{
		{"Subject: x\n\nhello\n", "250 ", nil},
		{virus, "550 5.7.1 this mail carries a virus", nil},
		{"Subject: x\n\nhello\n", "451 4.7.1 ", c.Kill},
		{virus, "550 5.7.1 ", c.Start},
		{"Subject: x\n\nhello\n", "250 ", nil},
	} {
		if tt.before != nil {
			tt.before()
		}
		if reply := peertest.Send(t, p.Address, "a@example.com", "me@example.org", tt.mail); !strings.HasPrefix(reply, tt.want) {
			t.Errorf("%s, want %s", reply, tt.want)
		}
	}
}

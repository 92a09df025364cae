package arc

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/dkim/signature"
)

// ed is a key that is always the same, for what the fuzzer has found stays true.
func ed() crypto.Signer { return ed25519.NewKeyFromSeed([]byte("only for tests, and known to all")) }

var rsa2048 = sync.OnceValue(func() crypto.Signer {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func record(t testing.TB, k crypto.Signer) string {
	t.Helper()
	if p, ok := k.Public().(ed25519.PublicKey); ok {
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(p)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return "v=DKIM1; p=" + base64.StdEncoding.EncodeToString(der)
}

// A hop is somebody who hands a mail on with a set of his own.
type hop struct {
	domain  string
	results string        // what he found
	cv      string        // "" is what it ought to be
	ams     string        // further tags of the message signature
	length  int64         // of the body; 0 is all
	key     crypto.Signer // nil is ed
}

// seal adds a set to a mail, as it stands at this hop (RFC 8617, 5.1).
func seal(t testing.TB, text string, h hop) string {
	t.Helper()
	m := parse(t, text)
	n := 1
	var before []byte
	sets, err := collect(m.Header().Fields(), mostSets+1)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range sets {
		for _, at := range []int{x.results, x.message, x.seal} {
			before = signature.Relaxed.AppendField(before, m.Header().Fields()[at].Raw)
		}
		n++
	}
	if h.cv == "" {
		h.cv = map[bool]string{true: "none", false: "pass"}[n == 1]
	}
	if h.length == 0 {
		h.length = -1
	}
	algorithm := "rsa-sha256"
	if h.key == nil {
		h.key, algorithm = ed(), "ed25519-sha256"
	}
	results := fmt.Sprintf("ARC-Authentication-Results: i=%d; %s", n, h.results)
	part := signature.BodyPart{Form: signature.Relaxed, Length: h.length}
	sums, err := signature.SumBody(m.RawBody(), []signature.BodyPart{part})
	if err != nil {
		t.Fatal(err)
	}
	message := fmt.Sprintf("ARC-Message-Signature: i=%d; a=%s; c=relaxed/relaxed; d=%s; s=ams; h=from:subject; %sbh=%s; b=",
		n, algorithm, h.domain, h.ams, base64.StdEncoding.EncodeToString(sums[part].Hash))
	hash := sha256.New()
	signature.NewHeader(m.Header().Fields()).Write(hash, []string{"from", "subject"}, signature.Relaxed, -1)
	hash.Write(signature.Relaxed.AppendUnsigned(nil, []byte(message), nil))
	message += sign(t, h.key, hash.Sum(nil))

	seal := fmt.Sprintf("ARC-Seal: i=%d; a=%s; cv=%s; d=%s; s=as; b=", n, algorithm, h.cv, h.domain)
	before = signature.Relaxed.AppendField(before, []byte(results))
	before = signature.Relaxed.AppendField(before, []byte(message))
	sum := sha256.Sum256(signature.Relaxed.AppendUnsigned(before, []byte(seal), nil))
	seal += sign(t, h.key, sum[:])
	return seal + "\r\n" + message + "\r\n" + results + "\r\n" + text
}

func sign(t testing.TB, k crypto.Signer, sum []byte) string {
	t.Helper()
	how := crypto.SHA256
	if _, ok := k.(ed25519.PrivateKey); ok {
		how = 0
	}
	b, err := k.Sign(rand.Reader, sum, how)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

func parse(t testing.TB, text string) *mime.Message {
	t.Helper()
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{HeaderSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const mail = "From: A <a@example.com>\r\nSubject: hello\r\n\r\nhello\r\n"

// everywhere has the keys of all domains.
type everywhere struct {
	pipeline.Resolver
	record string
	fail   map[string]bool
}

func (e everywhere) LookupTXT(_ context.Context, name string) ([]string, error) {
	if e.fail[name] {
		return nil, &net.DNSError{Err: "timeout", Name: name, IsTimeout: true}
	}
	return []string{e.record}, nil
}

func newStage(t testing.TB, sets int, fail ...string) pipeline.Stage {
	t.Helper()
	env := pipelinetest.Env(t)
	r := everywhere{record: record(t, ed()), fail: map[string]bool{}}
	for _, name := range fail {
		r.fail[name] = true
	}
	env.Resolver = r
	s, err := Kind().New(&Config{Sets: sets, KeyTimeout: time.Minute}, env)
	if err != nil {
		t.Fatal(err)
	}
	return s[0]
}

func check(t testing.TB, s pipeline.Stage, text string) (Fact, map[string]error, error) {
	t.Helper()
	var v pipeline.View
	v.Message, v.Received = parse(t, text), pipelinetest.Epoch
	r, err := s.Check(t.Context(), v)
	if err != nil {
		return Fact{}, nil, err
	}
	return r.Fact.(Fact), r.Missing, nil
}

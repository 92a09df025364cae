package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) { pipelinetest.Conform(t, Kind(), nil) }

func newStage(t testing.TB, r pipeline.Resolver, configure func(*Config)) pipeline.Stage {
	t.Helper()
	env := pipelinetest.Env(t)
	env.Resolver = r
	c := Kind().Config().(*Config)
	if configure != nil {
		configure(c)
	}
	s, err := Kind().New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	return s[0]
}

// check verifies a message as it is, at Epoch.
func check(t testing.TB, s pipeline.Stage, text string) (Fact, error) {
	t.Helper()
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var v pipeline.View
	v.Message, v.Received = m, pipelinetest.Epoch
	r, err := s.Check(t.Context(), v)
	if err != nil {
		return Fact{}, err
	}
	return r.Fact.(Fact), nil
}

// Keys are made once for all tests.
var (
	rsa2048 = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	rsa1024 = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
)

// edwards is a key that is always the same, for what the fuzzer has found stays true.
func edwards() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte("only for tests, and known to all"))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// record is the key record of a key; tags stand before p=.
func record(k crypto.Signer, tags string) string {
	if p, ok := k.Public().(ed25519.PublicKey); ok {
		return "v=DKIM1; k=ed25519; " + tags + "p=" + base64.StdEncoding.EncodeToString(p)
	}
	return "v=DKIM1; " + tags + "p=" + base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(k.Public())))
}

const mail = "From: A <a@example.com>\r\nTo: me@example.org\r\nSubject: hello\r\n  folded\r\n" +
	"Date: Sun, 1 Mar 2026 11:59:00 +0000\r\n\r\nhello \t world\r\n\r\nend  \r\n\r\n\r\n"

// anyTime takes signatures of any time: the library signs with a clock of its own.
func anyTime(c *Config) { c.Skew = 100 * 365 * 24 * time.Hour }

// sign puts a signature of somebody else's making on a mail.
func sign(t testing.TB, text string, o msgauth.SignOptions) string {
	t.Helper()
	if o.Signer == nil {
		o.Signer = rsa2048()
	}
	if o.Domain == "" {
		o.Domain = "example.com"
	}
	o.Selector = "sel"
	if o.HeaderKeys == nil {
		o.HeaderKeys = []string{"From", "To", "Subject", "Date"}
	}
	var out bytes.Buffer
	if err := msgauth.Sign(&out, strings.NewReader(text), &o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func keys(record string) *pipelinetest.Resolver {
	return &pipelinetest.Resolver{TXT: map[string][]string{"sel._domainkey.example.com": {record}}}
}

// What others sign verifies in all forms; what was changed on the way does not, where the form minds.
func TestForms(t *testing.T) {
	for _, key := range []crypto.Signer{rsa2048(), edwards()} {
		for _, header := range []msgauth.Canonicalization{"simple", "relaxed"} {
			for _, body := range []msgauth.Canonicalization{"simple", "relaxed"} {
				s := newStage(t, keys(record(key, "")), anyTime)
				signed := sign(t, mail, msgauth.SignOptions{Signer: key, HeaderCanonicalization: header, BodyCanonicalization: body})
				for _, tt := range []struct {
					name, old, new string
					want           bool
				}{
					{"as it is", "", "", true},
					{"a field on top", "DKIM", "X-New: 1\r\nDKIM", true},
					{"empty lines at the end", "end  \r\n\r\n\r\n", "end  \r\n\r\n\r\n\r\n\r\n", true},
					{"no empty lines at the end", "end  \r\n\r\n\r\n", "end  ", true},
					{"bare line ends", "world\r\n\r\n", "world\n\n", true},
					{"white space in the header", "Subject: hello\r\n  folded", "subject:hello\r\n\tfolded ", header == "relaxed"},
					{"white space in the body", "hello \t world", "hello world\t", body == "relaxed"},
					{"white space where there was none", "end", "e nd", false},
					{"an empty line less", "world\r\n\r\n", "world\r\n", false},
					{"a word", "hello \t world", "hallo \t world", false},
					{"the subject", "Subject: hello", "Subject: hallo", false},
					{"the signature", " d=", " y=1; d=", false},
				} {
					text := strings.Replace(signed, tt.old, tt.new, 1)
					fact, err := check(t, s, text)
					if err != nil {
						t.Fatal(err)
					}
					x := fact.Signatures[0]
					if fact.Pass != tt.want || (x.Result == "pass") != tt.want || (x.Reason == "") != tt.want || !tt.want && x.Result != "fail" {
						t.Errorf("%s/%s %T: %s: %s %s, want %v", header, body, key, tt.name, x.Result, x.Reason, tt.want)
					}
				}
			}
		}
	}
}

func TestFact(t *testing.T) {
	rec := record(rsa2048(), "t=s; ")
	expires := time.Now().Add(time.Hour)
	text := sign(t, mail, msgauth.SignOptions{
		HeaderCanonicalization: "relaxed", HeaderKeys: []string{"From", "From", "Subject", "Subject", "To"}, Identifier: "who@example.com",
		Expiration: expires,
	})
	fact, err := check(t, newStage(t, keys(rec), anyTime), text)
	if err != nil {
		t.Fatal(err)
	}
	x := fact.Signatures[0]
	if x.Signed < pipelinetest.Epoch.Unix()-1e9 || x.Age < 0 {
		t.Errorf("signed at %d, %d seconds old", x.Signed, x.Age)
	}
	if len(x.B) != 8 || !strings.Contains(strings.Join(strings.Fields(text), ""), ";b="+x.B) {
		t.Errorf("b= begins with %q", x.B)
	}
	x.Signed, x.Age, x.B = 0, 0, ""
	want := Signature{
		Domain: "example.com", Selector: "sel", Identity: "who@example.com", Algorithm: "rsa-sha256", Result: "pass",
		Bits: 2048, Strict: true, Key: rec, Canonical: "relaxed/simple", CoversBody: true, BodySigned: -1,
		Headers:    []string{"from", "from", "subject", "subject", "to"},
		Oversigned: []string{"from", "subject"},
		Addable:    []string{"sender", "reply-to", "to", "cc", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding"},
		Unsigned:   []string{"date"},
		Expires:    expires.Unix(),
	}
	if !reflect.DeepEqual(x, want) {
		t.Errorf("%+v\nwant %+v", x, want)
	}
	fact.Signatures = nil
	if want := (Fact{Pass: true, Domains: []string{"example.com"}, Found: 1, FromFields: 1}); !reflect.DeepEqual(fact, want) {
		t.Errorf("%+v, want %+v", fact, want)
	}
}

func TestJudged(t *testing.T) {
	const usual = "v=1; a=rsa-sha256; d=example.com; s=sel; h=from:to:subject:date; "
	now := pipelinetest.Epoch.Unix()
	good := record(rsa2048(), "")
	for _, tt := range []struct {
		name, tags, record string
		text               string // "" is mail
		length             int    // l=; 0 is none
		result, reason     string
		pass               bool
		also               func(Signature) bool
	}{
		{name: "usual", tags: usual, record: good, result: "pass", pass: true},
		{name: "d= in capitals", tags: strings.Replace(usual, "example.com", "EXAMPLE.Com", 1), record: good, result: "pass", pass: true},
		{name: "part of the body", tags: usual + "l=5; ", length: 5, record: good, result: "policy", reason: "5 of 24 octets of the body are signed",
			also: func(s Signature) bool { return s.BodyPartial && !s.CoversBody && s.BodySigned == 5 }},
		{name: "nothing of the body", tags: usual + "l=0; ", length: -1, record: good, result: "policy", reason: "0 of 24 octets of the body are signed"},
		{name: "l= is all of the body", tags: usual + "l=24; ", length: 24, record: good, result: "pass", pass: true,
			also: func(s Signature) bool { return !s.BodyPartial && s.CoversBody }},
		{name: "l= is more than the body", tags: usual + "l=25; ", record: good, result: "fail", reason: "l=25, but the body has only 24 octets"},
		{name: "l= is no number", tags: usual + "l=-1; ", record: good, result: "permerror", reason: "l=-1 is no length"},
		{name: "expired", tags: usual + fmt.Sprintf("t=%d; x=%d; ", now-7200, now-3600), record: good, result: "permerror",
			reason: "it expired at 2026-03-01T11:00:00Z", also: func(s Signature) bool { return s.Expired && s.Age == 7200 && s.Expires == now-3600 }},
		{name: "expires soon", tags: usual + fmt.Sprintf("t=%d; x=%d; ", now-7200, now+1), record: good, result: "pass", pass: true},
		{name: "expired within the skew", tags: usual + fmt.Sprintf("x=%d; ", now-299), record: good, result: "pass", pass: true},
		{name: "expires first", tags: usual + fmt.Sprintf("t=%d; x=%d; ", now, now-1), record: good, result: "permerror", reason: "it expires before it was made"},
		{name: "x= is no number", tags: usual + "x=never; ", record: good, result: "permerror", reason: "x=never is no number"},
		{name: "from the future", tags: usual + fmt.Sprintf("t=%d; ", now+3600), record: good, result: "policy",
			reason: "it is from the future: 2026-03-01T13:00:00Z", also: func(s Signature) bool { return s.Age == 0 }},
		{name: "a little ahead", tags: usual + fmt.Sprintf("t=%d; ", now+299), record: good, result: "pass", pass: true},
		{name: "no version", tags: usual[5:], record: good, result: "permerror", reason: `it is of version "", not 1`},
		{name: "From is not signed", tags: strings.Replace(usual, "from:", "", 1), record: good, result: "permerror", reason: "From is not signed"},
		{name: "SHA-1", tags: strings.Replace(usual, "sha256", "sha1", 1), record: good, result: "permerror", reason: "rsa-sha1 proves nothing any more"},
		{name: "another q=", tags: usual + "q=dns/special; ", record: good, result: "permerror", reason: "its key can be asked for only by q=dns/special"},
		{name: "several q=", tags: usual + "q=x : dns/txt; ", record: good, result: "pass", pass: true},
		{name: "another form", tags: usual + "c=nowsp; ", record: good, result: "permerror", reason: "c=nowsp is unknown"},
		{name: "no d=", tags: strings.Replace(usual, "d=", "dd=", 1), record: good, result: "permerror", reason: "d= is missing"},
		{name: "d= is no domain", tags: strings.Replace(usual, "d=example.com", "d=a..b", 1), record: good, result: "permerror", reason: "d=a..b is no domain"},
		{name: "i= below d=", tags: usual + "i=x@a.example.com; ", record: good, result: "pass", pass: true},
		{name: "i= beside d=", tags: usual + "i=x@badexample.com; ", record: good, result: "permerror", reason: "i=x@badexample.com is not of example.com"},
		{name: "i= below d=, strictly", tags: usual + "i=x@a.example.com; ", record: record(rsa2048(), "t=s; "), result: "permerror",
			reason: "i= is of a.example.com, and the key allows example.com only", also: func(s Signature) bool { return s.Strict }},
		{name: "no key", tags: usual, result: "permerror", reason: "there is no key at sel._domainkey.example.com"},
		{name: "revoked", tags: usual, record: "v=DKIM1; p=", result: "permerror", reason: "the key is revoked",
			also: func(s Signature) bool { return s.Key == "v=DKIM1; p=" }},
		{name: "no p=", tags: usual, record: "v=DKIM1", result: "permerror", reason: "the key's record has no p="},
		{name: "another record", tags: usual, record: "v=spf1 -all", result: "permerror", reason: "no record at sel._domainkey.example.com is a key"},
		{name: "a key for chats", tags: usual, record: record(rsa2048(), "s=chat; "), result: "permerror", reason: "the key is not for mail but for s=chat"},
		{name: "a key for all", tags: usual, record: record(rsa2048(), "s=chat:*; "), result: "pass", pass: true},
		{name: "a key for other hashes", tags: usual, record: record(rsa2048(), "h=sha1; "), result: "permerror", reason: "the key allows only h=sha1"},
		{name: "a key of another kind", tags: usual, record: record(edwards(), ""), result: "permerror", reason: "a=rsa-sha256, but the key is one for ed25519"},
		{name: "an unknown kind", tags: usual, record: "k=dsa; p=AAAA", result: "permerror", reason: `the key is of the unknown kind "dsa"`},
		{name: "a broken key", tags: usual, record: "p=AAAA", result: "permerror", reason: "the key's p= is no RSA key"},
		{name: "a broken record", tags: usual, record: "k=rsa; t; p=AAAA", result: "permerror", reason: `the key's record is malformed: " t" is no tag`},
		{name: "another's key", tags: usual, record: record(rsa1024(), ""), result: "fail", reason: "the header is not the one that was signed, or the key is another one"},
		{name: "another's key, in testing", tags: usual, record: record(rsa1024(), "t=y; "), result: "neutral",
			reason: "the header is not the one that was signed, or the key is another one (the key is in testing)", also: func(s Signature) bool { return s.Testing }},
		{name: "in testing", tags: usual, record: record(rsa2048(), "t=s:y; "), result: "pass", pass: true, also: func(s Signature) bool { return s.Testing && s.Strict }},
		{name: "two From, one signed", tags: usual, text: "From: b@example.net\r\n" + mail, record: good, result: "policy", reason: "of 2 From fields not all are signed",
			also: func(s Signature) bool {
				return slices.Contains(s.Unsigned, "from") && slices.Contains(s.Addable, "from")
			}},
		{name: "two From, both signed", tags: strings.Replace(usual, "from:", "from:from:", 1), text: "From: b@example.net\r\n" + mail, record: good, result: "pass", pass: true},
		{name: "a tag twice", tags: usual + "d=example.net; ", record: good, result: "permerror", reason: "the field is malformed: the tag d= stands twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := keys(tt.record)
			if tt.record == "" {
				r = &pipelinetest.Resolver{}
			}
			text := tt.text
			if text == "" {
				text = mail
			}
			fact, err := check(t, newStage(t, r, nil), must(seal(text, tt.tags, rsa2048(), tt.length)))
			if err != nil {
				t.Fatal(err)
			}
			x := fact.Signatures[0]
			if x.Result != tt.result || x.Reason != tt.reason || fact.Pass != tt.pass || (len(fact.Domains) > 0) != tt.pass {
				t.Errorf("%s %q, want %s %q; %+v", x.Result, x.Reason, tt.result, tt.reason, fact)
			}
			if tt.also != nil && !tt.also(x) {
				t.Errorf("%+v", x)
			}
		})
	}
}

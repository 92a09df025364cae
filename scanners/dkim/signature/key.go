package signature

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"sluice/pipeline"
)

// Bits of RSA keys.
const (
	LeastBits = 1024 // RFC 8301, 3.2: signatures by shorter keys are never valid
	SafeBits  = 2048 // RFC 8301, 3.2: signers should use at least this
	mostBits  = 8192 // what verifying costs grows with its square
)

// A Key is a public key as the DNS has it.
type Key struct {
	Record    string // as it was answered
	Algorithm string // "rsa", "ed25519"
	Bits      int
	Testing   bool // t=y: a signature that fails is to be treated like none
	Strict    bool // t=s: i= is of the very domain that d= names
	public    crypto.PublicKey
}

// ParseKey reads a key record (RFC 6376, 3.6.1; RFC 8463). Its errors are *Error; what could be read stands in the Key.
func ParseKey(record string) (Key, error) {
	k := Key{Record: record, Algorithm: "rsa"}
	tags, err := ParseTags(record)
	if err != nil {
		return k, permError("the key's record is malformed: " + err.Error())
	}
	if v, ok := tags.Value("v"); ok && v != "DKIM1" {
		return k, permError(fmt.Sprintf("the key's record is of version %q", clip(v, 20)))
	}
	if v, ok := tags.Value("k"); ok {
		k.Algorithm = clip(v, 20)
	}
	if v, ok := tags.Value("t"); ok {
		flags := words(v)
		k.Testing, k.Strict = slices.Contains(flags, "y"), slices.Contains(flags, "s")
	}
	if v, ok := tags.Value("h"); ok && !slices.Contains(words(v), "sha256") {
		return k, permError(fmt.Sprintf("the key allows only h=%s", clip(v, 40)))
	}
	if v, ok := tags.Value("s"); ok && !slices.Contains(words(v), "*") && !slices.Contains(words(v), "email") {
		return k, permError(fmt.Sprintf("the key is not for mail but for s=%s", clip(v, 40)))
	}
	p, ok := tags.Value("p")
	if !ok {
		return k, permError("the key's record has no p=")
	}
	if p == "" {
		return k, permError("the key is revoked")
	}
	der, err := decode(p)
	if err != nil {
		return k, permError("the key's p= is no base64")
	}
	switch k.Algorithm {
	case "rsa":
		err = k.readRSA(der)
	case "ed25519": // RFC 8463, 4.2: the bare key
		if len(der) != ed25519.PublicKeySize {
			return k, permError(fmt.Sprintf("an ed25519 key has %d octets, this one has %d", ed25519.PublicKeySize, len(der)))
		}
		k.public, k.Bits = ed25519.PublicKey(der), 256
	default:
		return k, permError(fmt.Sprintf("the key is of the unknown kind %q", k.Algorithm))
	}
	return k, err
}

func (k *Key) readRSA(der []byte) error {
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil { // RFC 6376, erratum 3017: both forms are in use
		public, err = x509.ParsePKCS1PublicKey(der)
	}
	p, ok := public.(*rsa.PublicKey)
	if err != nil || !ok {
		return permError("the key's p= is no RSA key")
	}
	k.public, k.Bits = p, p.N.BitLen()
	switch {
	case k.Bits < LeastBits:
		return policy(fmt.Sprintf("a key of %d bits proves nothing", k.Bits))
	case k.Bits > mostBits:
		return policy(fmt.Sprintf("a key of %d bits is not tried", k.Bits))
	}
	return nil
}

// words reads a list with colons between its members.
func words(s string) []string { return strings.Split(unspaced(s), ":") }

func decode(s string) ([]byte, error) {
	s = strings.TrimRight(unspaced(s), "=") // some leave the padding out
	return base64.RawStdEncoding.DecodeString(s)
}

// An Answer is what is known of a key.
type Answer struct {
	Key Key
	Err error // *Error
}

// most of the keys of one mail that are asked for at a time
const maxAsked = 16

// Keys asks for keys, each name once and up to 16 at a time. It returns when all answers are there.
func Keys(ctx context.Context, r pipeline.Resolver, names []string) map[string]Answer {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	answers := make([]Answer, len(names))
	slots := make(chan struct{}, maxAsked)
	var wg sync.WaitGroup // all have ended when Keys returns
	for i, name := range names {
		wg.Go(func() {
			slots <- struct{}{} // ends: who is before us gives up with ctx
			defer func() { <-slots }()
			answers[i].Key, answers[i].Err = lookUp(ctx, r, name)
		})
	}
	wg.Wait()
	out := make(map[string]Answer, len(names))
	for i, name := range names {
		out[name] = answers[i]
	}
	return out
}

func lookUp(ctx context.Context, r pipeline.Resolver, name string) (Key, error) {
	records, err := r.LookupTXT(ctx, name)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return Key{}, permError("there is no key at " + name)
	case err != nil:
		return Key{}, &Error{Result: TempError, Reason: "look up the key: " + clip(err.Error(), 300)}
	}
	// RFC 6376, 3.6.2.2: one record. Wildcards put others beside it, which say so.
	records = slices.DeleteFunc(slices.Clone(records), func(s string) bool {
		tags, err := ParseTags(s)
		v, ok := tags.Value("v")
		return ok && v != "DKIM1" || err != nil && strings.HasPrefix(s, "v=spf1")
	})
	switch len(records) {
	case 0:
		return Key{}, permError("no record at " + name + " is a key")
	case 1:
		return ParseKey(records[0])
	}
	return Key{}, permError(fmt.Sprintf("there are %d records at %s", len(records), name))
}

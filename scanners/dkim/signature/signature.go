package signature

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sluice/pipeline/mime"
	"sluice/pipeline/orgdomain"
)

// Results of a verification (RFC 8601, 2.7.1).
const (
	Pass      = "pass"
	Fail      = "fail"      // it does not fit the mail
	Neutral   = "neutral"   // it does not fit, and its signer says that this means nothing
	Policy    = "policy"    // it fits and is not accepted, or not worth the trial
	PermError = "permerror" // it cannot be verified, now or later
	TempError = "temperror" // it could not be verified now
)

// An Error says why a signature is no pass.
type Error struct {
	Result string // Fail, Policy, PermError, TempError
	Reason string
}

func (e *Error) Error() string { return e.Reason }

func permError(reason string) error { return &Error{PermError, reason} }
func policy(reason string) error    { return &Error{Policy, reason} }

// ResultOf returns the result that err, an *Error or nil, stands for, and its reason.
func ResultOf(err error) (result, reason string) {
	if err == nil {
		return Pass, ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Result, e.Reason
	}
	return TempError, err.Error()
}

// A Signature is what a field says that carries one: DKIM-Signature, ARC-Message-Signature, ARC-Seal.
type Signature struct {
	Tags      Tags
	Domain    string // d=, in lower case and A-labels
	Selector  string // s=, the same
	Algorithm string // a=
	Time      int64  // t=: when it was made, seconds since 1970; -1 where it does not say
	// Of those over a message, not of seals:
	HeaderForm Form     // c=
	Body       BodyPart // c= and l=
	Headers    []string // h=, in lower case

	raw      []byte
	value    []byte // b=
	bodyHash []byte // bh=
}

// KeyName is where the key is.
func (s *Signature) KeyName() string { return s.Selector + "._domainkey." + s.Domain }

// Parse reads a DKIM-Signature or an ARC-Message-Signature as far as they are alike. usual is the form of header and body
// where c= is missing. Its errors are *Error; what could be read stands in the Signature.
func Parse(f mime.Field, usual Form) (Signature, error) {
	s, err := ParseSeal(f)
	if err != nil {
		return s, err
	}
	s.HeaderForm, s.Body = usual, BodyPart{usual, -1}
	if c, ok := s.Tags.Value("c"); ok {
		header, body, both := strings.Cut(unspaced(c), "/")
		s.HeaderForm, s.Body.Form = Form(header), Simple // RFC 6376, 3.5: simple where it names one form only
		if both {
			s.Body.Form = Form(body)
		}
		for _, form := range []Form{s.HeaderForm, s.Body.Form} {
			if form != Simple && form != Relaxed {
				return s, permError(fmt.Sprintf("c=%s is unknown", clip(c, 40)))
			}
		}
	}
	if l, ok := s.Tags.Value("l"); ok {
		if s.Body.Length, err = number(l); err != nil {
			return s, permError(fmt.Sprintf("l=%s is no length", clip(l, 40)))
		}
	}
	bh, ok := s.Tags.Value("bh")
	if s.bodyHash, err = decode(bh); !ok || err != nil || len(s.bodyHash) != sha256.Size {
		return s, permError("bh= is missing or no hash")
	}
	h, ok := s.Tags.Value("h")
	if !ok {
		return s, permError("h= is missing")
	}
	s.Headers = words(strings.ToLower(h))
	return s, nil
}

// ParseSeal reads an ARC-Seal, as [Parse] does the others. RFC 8617, 4.1.3.
func ParseSeal(f mime.Field) (s Signature, err error) {
	s.Time, s.Body.Length, s.raw = -1, -1, f.Raw
	value := f.Raw[bytes.IndexByte(f.Raw, ':')+1:]
	s.Tags, err = ParseTags(string(value))
	if err != nil {
		return s, permError("the field is malformed: " + err.Error())
	}
	if d, ok := s.Tags.Value("d"); ok {
		if s.Domain, ok = name(d); !ok {
			return s, permError(fmt.Sprintf("d=%s is no domain", clip(d, 80)))
		}
	}
	if sel, ok := s.Tags.Value("s"); ok {
		if s.Selector, ok = name(sel); !ok {
			return s, permError(fmt.Sprintf("s=%s is no selector", clip(sel, 80)))
		}
	}
	a, _ := s.Tags.Value("a")
	s.Algorithm = clip(a, 40)
	for _, tag := range []string{"a", "b", "d", "s"} {
		if v, _ := s.Tags.Value(tag); v == "" {
			return s, permError(tag + "= is missing")
		}
	}
	switch s.Algorithm {
	case "rsa-sha256", "ed25519-sha256":
	case "rsa-sha1": // RFC 8301, 3.1
		return s, permError("rsa-sha1 proves nothing any more")
	default:
		return s, permError(fmt.Sprintf("a=%s is unknown", s.Algorithm))
	}
	if t, ok := s.Tags.Value("t"); ok {
		if s.Time, err = number(t); err != nil {
			return s, permError(fmt.Sprintf("t=%s is no time", clip(t, 40)))
		}
	}
	b, _ := s.Tags.Value("b")
	if s.value, err = decode(b); err != nil {
		return s, permError("b= is no base64")
	}
	if len(s.KeyName()) > 253 {
		return s, permError("d= and s= are too long for the DNS")
	}
	return s, nil
}

func name(s string) (string, bool) { return orgdomain.Canonical(unspaced(s)) }

// number reads the digits of t=, x= and l=.
func number(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err // 63 bits fit
}

// Number returns the value of a tag that is a number; -1 where it is missing. Its errors are *Error.
func (s *Signature) Number(tag string) (int64, error) {
	v, ok := s.Tags.Value(tag)
	if !ok {
		return -1, nil
	}
	n, err := number(v)
	if err != nil {
		return -1, permError(fmt.Sprintf("%s=%s is no number", tag, clip(v, 40)))
	}
	return n, nil
}

// Verify verifies a signature over a message, of which it is the field at own. sum is what came of s.Body. Its errors are
// *Error.
func (s *Signature) Verify(h *Header, own int, sum BodySum, k Key) error {
	if sum.Hash == nil {
		return &Error{Fail, fmt.Sprintf("l=%d, but the body has only %d octets", s.Body.Length, sum.Size)}
	}
	if subtle.ConstantTimeCompare(sum.Hash, s.bodyHash) != 1 {
		return &Error{Fail, "the body is not the one that was signed"}
	}
	hash := sha256.New()
	h.Write(hash, s.Headers, s.HeaderForm, own)
	hash.Write(s.HeaderForm.AppendUnsigned(nil, s.raw, s.Tags))
	return s.VerifySum(hash.Sum(nil), k)
}

// AppendUnsigned appends the form of the signature's own field as it was when it was signed.
func (s *Signature) AppendUnsigned(dst []byte, f Form) []byte {
	return f.AppendUnsigned(dst, s.raw, s.Tags)
}

// VerifySum verifies the signature of a SHA-256 sum. Its errors are *Error.
func (s *Signature) VerifySum(sum []byte, k Key) error {
	if algorithm, _, _ := strings.Cut(s.Algorithm, "-"); algorithm != k.Algorithm {
		return permError(fmt.Sprintf("a=%s, but the key is one for %s", s.Algorithm, k.Algorithm))
	}
	ok := false
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(p, crypto.SHA256, sum, s.value) == nil
	case ed25519.PublicKey: // RFC 8463, 3: of the sum
		ok = ed25519.Verify(p, sum, s.value)
	}
	if !ok {
		return &Error{Fail, "the header is not the one that was signed, or the key is another one"}
	}
	return nil
}

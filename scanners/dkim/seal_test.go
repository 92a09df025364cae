package dkim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"strings"
	"testing"

	"sluice/pipeline/mime"
	"sluice/scanners/dkim/signature"
)

// seal signs a mail with exactly these tags, but for bh= and b= which it adds. Of the body it hashes length octets; 0 is
// all, negative is none.
func seal(text, tags string, k crypto.Signer, length int) (string, error) {
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		return "", err
	}
	list, _ := signature.ParseTags(tags) // some are wrong on purpose
	header, body := signature.Simple, signature.Simple
	if c, ok := list.Value("c"); ok {
		h, b, _ := strings.Cut(c, "/")
		header, body = signature.Form(h), signature.Form(b)
	}
	part := signature.BodyPart{Form: body, Length: int64(length)}
	if body != signature.Relaxed {
		part.Form = signature.Simple
	}
	if part.Length = int64(max(length, 0)); length == 0 {
		part.Length = -1
	}
	sums, err := signature.SumBody(m.RawBody(), []signature.BodyPart{part})
	if err != nil {
		return "", err
	}
	field := fmt.Sprintf("DKIM-Signature: %sbh=%s; b=", tags, base64.StdEncoding.EncodeToString(sums[part].Hash))
	hash := sha256.New()
	h, _ := list.Value("h")
	signature.NewHeader(m.Header().Fields()).Write(hash, strings.Split(strings.ToLower(h), ":"), header, -1)
	hash.Write(header.AppendUnsigned(nil, []byte(field), nil))
	how := crypto.Hash(0)
	if strings.Contains(tags, "rsa-") {
		how = crypto.SHA256
	}
	b, err := k.Sign(rand.Reader, hash.Sum(nil), how)
	if err != nil {
		return "", err
	}
	return field + base64.StdEncoding.EncodeToString(b) + "\r\n" + text, nil
}

// huge is the record of a key that would cost more than others.
func huge() string {
	n := new(big.Int).SetBit(big.NewInt(1), 8199, 1)
	return "p=" + base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: n, E: 65537}))
}

// broken is a message of which only the header can be read.
func broken(t *testing.T, text string) *mime.Message {
	t.Helper()
	r := &halfReader{ReaderAt: strings.NewReader(text)}
	m, err := mime.Parse(r, int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	r.gone = true
	return m
}

type halfReader struct {
	io.ReaderAt
	gone bool
}

func (r *halfReader) ReadAt(p []byte, at int64) (int, error) {
	if r.gone {
		return 0, errDisk
	}
	return r.ReaderAt.ReadAt(p, at)
}

package signature

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// Names of algorithms, as k= of a key's record says them.
const (
	RSA     = "rsa"
	Ed25519 = "ed25519"
)

// A PrivateKey signs. It never fails to: what could be wrong with it is found when it is read.
type PrivateKey struct {
	algorithm string
	bits      int
	signer    crypto.Signer
}

// GenerateKey makes a key: of 2048 bits for RSA, which is what fits into one answer of the DNS everywhere.
func GenerateKey(algorithm string) (*PrivateKey, error) {
	switch algorithm {
	case RSA:
		k, err := rsa.GenerateKey(rand.Reader, SafeBits)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		return &PrivateKey{RSA, SafeBits, k}, nil
	case Ed25519:
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		return &PrivateKey{Ed25519, 256, k}, nil
	}
	return nil, fmt.Errorf("there is no algorithm %q; there are %s and %s", algorithm, RSA, Ed25519)
}

// mostBlocks bounds what stands before a key in its file.
const mostBlocks = 100

// ParsePrivateKey reads a key in PEM: PKCS #8, or PKCS #1 as older tools write it. The first key counts; what stands
// around it does not. Its errors say nothing of what is in the file.
func ParsePrivateKey(text []byte) (*PrivateKey, error) {
	for range mostBlocks {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		switch block.Type {
		case "PRIVATE KEY", "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errEncrypted
			}
			return privateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errEncrypted
		case "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "DSA PRIVATE KEY":
			return nil, fmt.Errorf("it is a key of the kind %q; DKIM knows RSA and ed25519, in PKCS #8", block.Type)
		}
	}
	return nil, errors.New("there is no private key in it, which begins with -----BEGIN PRIVATE KEY-----")
}

var errEncrypted = errors.New("the key is encrypted, and nobody is there to ask for its password")

func privateKey(der []byte) (*PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		k, err = x509.ParsePKCS1PrivateKey(der)
	}
	if err != nil {
		return nil, errors.New("the private key in it is damaged")
	}
	switch k := k.(type) {
	case *rsa.PrivateKey:
		n := k.N.BitLen()
		if n < LeastBits || n > mostBits {
			return nil, fmt.Errorf("an RSA key of %d bits: it needs from %d to %d, or nobody accepts what it signs", n, LeastBits, mostBits)
		}
		return &PrivateKey{RSA, n, k}, nil
	case ed25519.PrivateKey:
		return &PrivateKey{Ed25519, 256, k}, nil
	}
	return nil, errors.New("it is a key of another kind; DKIM knows RSA and ed25519")
}

// Algorithm returns [RSA] or [Ed25519].
func (k *PrivateKey) Algorithm() string { return k.algorithm }

// Bits returns the size of the key.
func (k *PrivateKey) Bits() int { return k.bits }

// PEM returns the key as it is kept in a file, PKCS #8.
func (k *PrivateKey) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("write the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Record returns what the DNS has to say so that others can verify: RFC 6376, 3.6.1; RFC 8463, 4.
func (k *PrivateKey) Record() (string, error) {
	var public []byte
	if p, ok := k.signer.Public().(ed25519.PublicKey); ok {
		public = p
	} else {
		var err error
		if public, err = x509.MarshalPKIXPublicKey(k.signer.Public()); err != nil {
			return "", fmt.Errorf("write the public key: %w", err)
		}
	}
	return "v=DKIM1; k=" + k.algorithm + "; p=" + base64.StdEncoding.EncodeToString(public), nil
}

// Fits reports whether a public key is the one that verifies what this key signs.
func (k *PrivateKey) Fits(public Key) bool {
	p, ok := k.signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.public != nil && p.Equal(public.public)
}

// sign signs a SHA-256 sum: RFC 6376, 3.3.1; RFC 8463, 3.
func (k *PrivateKey) sign(sum []byte) ([]byte, error) {
	how := crypto.SHA256
	if k.algorithm == Ed25519 {
		how = 0
	}
	b, err := k.signer.Sign(rand.Reader, sum, how)
	if err != nil {
		return nil, fmt.Errorf("sign with the %s key: %w", k.algorithm, err)
	}
	return b, nil
}

package users

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// HashConfig says how much work a guess at a password costs (argon2id, RFC 9106). A password that was stored with other
// values is stored anew when its owner next logs in.
type HashConfig struct {
	Memory  uint32 `yaml:"memory"`  // KiB that hashing one password takes; 0 is 19456
	Passes  uint32 `yaml:"passes"`  // times that memory is gone over; 0 is 2
	Threads uint8  `yaml:"threads"` // that one hashing keeps busy; 0 is 1
	AtOnce  int    `yaml:"at_once"` // hashings at a time, the others wait; 0 is 2
}

func (c HashConfig) withDefaults() HashConfig {
	if c.Memory == 0 {
		c.Memory = 19456
	}
	if c.Passes == 0 {
		c.Passes = 2
	}
	if c.Threads == 0 {
		c.Threads = 1
	}
	if c.AtOnce == 0 {
		c.AtOnce = 2
	}
	return c
}

func (c HashConfig) check() error {
	switch {
	case c.Memory < 8*uint32(c.Threads) || c.Memory > 4<<20:
		return fmt.Errorf("memory: %d KiB is not possible; write %d to %d", c.Memory, 8*uint32(c.Threads), 4<<20)
	case c.Passes > 100:
		return fmt.Errorf("passes: %d is too many; write 1 to 100", c.Passes)
	case c.AtOnce < 0:
		return fmt.Errorf("at_once: %d is not possible; write 1 or more", c.AtOnce)
	}
	return nil
}

const longestPassword = 1024

var errStored = errors.New("its password is stored in a form that this program does not read; set it anew")

// CheckPassword returns nil if s can be a password: one line of 1 to 1024 bytes.
func CheckPassword(s string) error {
	switch {
	case s == "":
		return errors.New("the password is empty; it is one line of 1 to 1024 bytes")
	case len(s) > longestPassword:
		return fmt.Errorf("the password is %d bytes long; at most %d", len(s), longestPassword)
	case strings.ContainsAny(s, "\r\n\x00"):
		return errors.New("the password must be one line, without NUL")
	}
	return nil
}

// A hash is a hashed password with all it takes to compare: its text is the PHC string format,
// "$argon2id$v=19$m=19456,t=2,p=1$salt$key".
type hash struct {
	memory, passes uint32
	threads        uint8
	salt, key      []byte
}

func (h hash) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.threads,
		b64.EncodeToString(h.salt), b64.EncodeToString(h.key))
}

func parseHash(s string) (hash, error) {
	var h hash
	f := strings.Split(s, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return hash{}, errStored
	}
	if _, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.threads); err != nil {
		return hash{}, errStored
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.DecodeString(f[4]); err != nil {
		return hash{}, errStored
	}
	if h.key, err = base64.RawStdEncoding.DecodeString(f[5]); err != nil {
		return hash{}, errStored
	}
	// The library panics on no passes and no threads.
	c := HashConfig{Memory: h.memory, Passes: h.passes, Threads: h.threads}
	if h.passes == 0 || h.threads == 0 || c.check() != nil || len(h.key) < 16 || len(h.key) > 64 {
		return hash{}, errStored
	}
	return h, nil
}

// A hasher computes hashes, a few at a time.
type hasher struct {
	c     HashConfig
	slots chan struct{}
	key   func(password, salt []byte, passes, memory uint32, threads uint8, length uint32) []byte
	dummy hash // compared with where there is no account
}

func newHasher(c HashConfig) *hasher {
	h := &hasher{c: c, slots: make(chan struct{}, max(c.AtOnce, 1)), key: argon2.IDKey}
	h.dummy = h.fresh()
	h.dummy.key = random(32)
	return h
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// fresh returns a hash of today's parameters with a salt and without a key.
func (h *hasher) fresh() hash {
	return hash{memory: h.c.Memory, passes: h.c.Passes, threads: h.c.Threads, salt: random(16)}
}

func (h *hasher) current(x hash) bool {
	return x.memory == h.c.Memory && x.passes == h.c.Passes && x.threads == h.c.Threads
}

// derive returns the key of a password under the parameters and the salt of x.
func (h *hasher) derive(ctx context.Context, password string, x hash, length int) ([]byte, error) {
	if len(password) > longestPassword {
		password = "" // no stored one is empty, so nothing matches; the work is the same
	}
	done, err := h.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return h.key(prepared(password), x.salt, x.passes, x.memory, x.threads, uint32(length)), nil
}

// turn waits for a turn to compute; done ends it.
func (h *hasher) turn(ctx context.Context) (done func(), err error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// prepared: keyboards of different systems write one character in different ways (RFC 8265, 4.2.2).
func prepared(password string) []byte {
	if utf8.ValidString(password) {
		return []byte(norm.NFC.String(password))
	}
	return []byte(password)
}

func (h *hasher) hash(ctx context.Context, password string) (hash, error) {
	x := h.fresh()
	key, err := h.derive(ctx, password, x, 32)
	x.key = key
	return x, err
}

func (h *hasher) matches(ctx context.Context, password string, x hash) (bool, error) {
	key, err := h.derive(ctx, password, x, len(x.key))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(key, x.key) == 1, nil
}

// A verified remembers for a while which logins were right: mail clients log in every few minutes and with many
// connections at once. It keeps no passwords, only a MAC over account, password and the hash stored for it, under a key
// that lives as long as the process. A hash that was set anew has another salt, so nothing remembered matches it.
type verified struct {
	key   []byte
	keep  time.Duration
	most  int
	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time
}

func newVerified(keep time.Duration, most int) *verified {
	return &verified{key: random(32), keep: keep, most: most, until: map[[sha256.Size]byte]time.Time{}}
}

func (v *verified) mac(account, stored, password string) (sum [sha256.Size]byte) {
	m := hmac.New(sha256.New, v.key)
	fmt.Fprintf(m, "%d %s %d %s ", len(account), account, len(stored), stored)
	m.Write(prepared(password))
	m.Sum(sum[:0])
	return sum
}

func (v *verified) knows(mac [sha256.Size]byte, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return now.Before(v.until[mac])
}

func (v *verified) add(mac [sha256.Size]byte, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.until) >= v.most {
		for k, t := range v.until {
			if !now.Before(t) {
				delete(v.until, k)
			}
		}
		if len(v.until) >= v.most {
			clear(v.until) // everybody hashes once more
		}
	}
	v.until[mac] = now.Add(v.keep)
}

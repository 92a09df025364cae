package program

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"path/filepath"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline/srs"
)

// senders are the secrets that senders of mail which is handed on are rewritten with. There is a new one from time to
// time; those before it recognise what they have made until that has expired.
type senders struct {
	path string
	keys atomic.Pointer[[]senderKey]
}

type senderKey struct {
	made time.Time
	key  []byte
}

// newSenderKey is how long one secret makes addresses.
const newSenderKey = 90 * 24 * time.Hour

// openSenders reads the secrets of a data folder, and makes the first.
func openSenders(data string, now time.Time, lifetime time.Duration) (*senders, error) {
	s := &senders{path: filepath.Join(data, "senders")}
	keys, err := s.read()
	if err != nil {
		return nil, err
	}
	s.keys.Store(&keys)
	return s, s.renew(now, lifetime)
}

// renew makes a new secret when it is time, and forgets those whose addresses have expired.
func (s *senders) renew(now time.Time, lifetime time.Duration) error {
	keys := *s.keys.Load()
	if len(keys) > 0 && now.Sub(keys[0].made) < newSenderKey {
		return nil
	}
	key := make([]byte, secretSize)
	rand.Read(key) // never fails
	next := []senderKey{{now.UTC().Truncate(time.Second), key}}
	until := now // when the key after this one was made
	for _, k := range keys {
		if now.Sub(until) <= lifetime+48*time.Hour {
			next = append(next, k)
		}
		until = k.made
	}
	var text strings.Builder
	for _, k := range next {
		fmt.Fprintf(&text, "%s %s\n", k.made.Format(time.RFC3339), hex.EncodeToString(k.key))
	}
	if err := writeFile(s.path, []byte(text.String()), 0o600); err != nil {
		return err
	}
	s.keys.Store(&next)
	return nil
}

func (s *senders) read() (keys []senderKey, err error) {
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.path, cause(err))
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		made, secret, _ := strings.Cut(strings.TrimSpace(line), " ")
		at, err := time.Parse(time.RFC3339, made)
		key, e := hex.DecodeString(secret)
		if err != nil || e != nil || len(key) != secretSize {
			return nil, fmt.Errorf("%s:%d: this is no secret; remove the file, and a new one is made, "+
				"but reports about mail that was handed on before will be refused", s.path, n)
		}
		keys = append(keys, senderKey{at, key})
	}
	return keys, nil
}

// rewriter rewrites with the secrets of now.
func (s *senders) rewriter(c *config.Config) srs.Rewriter {
	r := srs.Rewriter{Lifetime: c.Forwarding.Lifetime}
	for _, k := range *s.keys.Load() {
		r.Keys = append(r.Keys, k.key)
	}
	return r
}

// Package srs rewrites the senders of mail that is handed on (the Sender Rewriting Scheme), so that reports about it come
// back by way of us, and finds out where such a report is to go. It keeps nothing: all it needs stands in the address,
// under a hash with a key that is ours.
//
// A sender me@example.com handed on by example.org becomes SRS0=hash=day=example.com=me@example.org; one that somebody else
// has rewritten so becomes SRS1=hash=first.example==…@example.org, where first.example is the first who did, so that the
// address does not grow with each hop and a report goes back in two.
package srs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"
)

// What Reverse and Forward branch on.
var (
	ErrNone    = errors.New("not a rewritten address")     // it is somebody's ordinary address
	ErrForged  = errors.New("not an address that we made") // with a key that we know
	ErrExpired = errors.New("an address that we made long ago")
	ErrTooLong = errors.New("no room for the original sender") // in the 64 octets of a local part
)

const (
	mostLocal  = 64 // octets: RFC 5321, 4.5.3.1.1
	hashSize   = 8  // characters of 5 bits
	day        = 24 * time.Hour
	cycle      = 1024 // days, after which a day has the same name again
	characters = "abcdefghijklmnopqrstuvwxyz234567"
)

var encoding = base32.NewEncoding(characters).WithPadding(base32.NoPadding)

// A Rewriter rewrites addresses and takes that back. It is a value; its methods may be called by any number of
// goroutines.
type Rewriter struct {
	// Keys are secrets: the first makes addresses, all of them recognise one. Without any, none is made or recognised.
	Keys [][]byte
	// Lifetime is how long an address is good for, in whole days; at most 1000.
	Lifetime time.Duration
}

// Forward returns the local part, in the form of RFC 5321, under which mail of a sender leaves in the name of a domain of
// ours. The sender is given as it stands in MAIL FROM. It fails with ErrTooLong, or where the sender is no address.
func (r Rewriter) Forward(sender string, now time.Time) (local string, err error) {
	if len(r.Keys) == 0 {
		return "", errors.New("there is no key to rewrite addresses with")
	}
	original, domain, ok := split(sender)
	if !ok {
		return "", fmt.Errorf("%.100q is no address", sender)
	}
	var made string
	if rest, ok := cutTag(original, "SRS0"); ok {
		// Somebody has rewritten it: a report goes back to him, and by him to the sender.
		what := strings.ToLower(domain) + "=" + rest
		made = "SRS1=" + r.hash(r.Keys[0], "srs1", what) + "=" + what
	} else if what, ok := ofFirst(original); ok {
		// The second has to go back to the first as well, and that is whom we name.
		made = "SRS1=" + r.hash(r.Keys[0], "srs1", what) + "=" + what
	} else {
		what := dayName(now) + "=" + domain + "=" + original
		made = "SRS0=" + r.hash(r.Keys[0], "srs0", what) + "=" + what
	}
	if made = quote(made); len(made) > mostLocal {
		return "", fmt.Errorf("%.100q: %w", sender, ErrTooLong)
	}
	return made, nil
}

// Reverse returns the address that a report to one of ours is to go to. local is the local part, with quotes or without,
// in any case: there are those who change it. Errors: ErrNone, ErrForged, ErrExpired.
func (r Rewriter) Reverse(local string, now time.Time) (sender string, err error) {
	if local = unquote(local); !Is(local) {
		return "", ErrNone
	}
	tag := strings.ToLower(local[:4])
	hash, what, ok := strings.Cut(local[5:], "=")
	if !ok || !r.known(hash, tag, what) {
		return "", ErrForged
	}
	if tag == "srs1" {
		host, back, _ := strings.Cut(what, "=") // both are there, or we would not have made it
		return quote("SRS0"+back) + "@" + host, nil
	}
	made, what, _ := strings.Cut(what, "=")
	domain, original, _ := strings.Cut(what, "=")
	if !r.fresh(made, now) {
		return "", ErrExpired
	}
	return quote(original) + "@" + domain, nil
}

// ofFirst returns what the second to rewrite an address says of the first: his host, and what he takes back.
func ofFirst(local string) (what string, ok bool) {
	rest, ok := cutTag(local, "SRS1")
	if !ok {
		return "", false
	}
	_, what, _ = strings.Cut(rest[1:], "=")
	host, back, _ := strings.Cut(what, "=")
	return what, host != "" && len(back) > 1 && strings.ContainsRune("=+-", rune(back[0]))
}

// Is reports whether a local part looks like one that somebody has rewritten, us or others.
func Is(local string) bool {
	_, zero := cutTag(local, "SRS0")
	_, one := cutTag(local, "SRS1")
	return zero || one
}

// cutTag cuts the tag off a rewritten local part. What is left begins with the separator, of which there are three.
func cutTag(local, tag string) (rest string, ok bool) {
	if len(local) < len(tag)+2 || !strings.EqualFold(local[:len(tag)], tag) || !strings.ContainsRune("=+-", rune(local[len(tag)])) {
		return "", false
	}
	return local[len(tag):], true
}

// hash is over what an address of a kind says, without regard to case.
func (r Rewriter) hash(key []byte, tag, what string) string {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(tag + "=" + strings.ToLower(what))) // a hash takes everything
	return encoding.EncodeToString(h.Sum(nil))[:hashSize]
}

func (r Rewriter) known(hash, tag, what string) bool {
	known := false
	for _, k := range r.Keys {
		if hmac.Equal([]byte(strings.ToLower(hash)), []byte(r.hash(k, tag, what))) {
			known = true
		}
	}
	return known
}

// dayName is a day in two characters.
func dayName(now time.Time) string {
	n := number(now)
	return string([]byte{characters[n>>5], characters[n&31]})
}

func number(now time.Time) int { return int((now.Unix() / int64(day/time.Second)) % cycle) }

// fresh reports whether an address of a day is still good: from the day before, for clocks differ.
func (r Rewriter) fresh(made string, now time.Time) bool {
	made = strings.ToLower(made)
	if len(made) != 2 {
		return false
	}
	high, low := strings.IndexByte(characters, made[0]), strings.IndexByte(characters, made[1])
	if high < 0 || low < 0 {
		return false
	}
	age := (number(now) - (high<<5 | low) + 1 + cycle) % cycle
	return age <= int(min(r.Lifetime, 1000*day)/day)+1
}

// split takes an address apart at its last "@". The local part loses its quotes.
func split(address string) (local, domain string, ok bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 1 || at == len(address)-1 {
		return "", "", false
	}
	local, domain = unquote(address[:at]), address[at+1:]
	for i := range len(address) {
		if c := address[i]; c < ' ' || c == 0x7f {
			return "", "", false
		}
	}
	return local, domain, local != "" && !strings.ContainsAny(domain, "=@ <>\"\\")
}

func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// quote gives a local part quotes where it needs them (RFC 5321, 4.1.2).
func quote(local string) string {
	atoms := !strings.HasPrefix(local, ".") && !strings.HasSuffix(local, ".") && !strings.Contains(local, "..")
	for i := range len(local) {
		if c := local[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`()<>[]:;@\,"`, c) >= 0 {
			atoms = false
		}
	}
	if atoms && local != "" {
		return local
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(local) {
		if c := local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

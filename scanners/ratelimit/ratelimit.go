// Package ratelimit counts how much comes from whom, or goes to whom, in a time.
package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/pipeline"
)

// Kind is the kind of stage the configuration calls ratelimit. It only reports. Where the counters cannot be read mail
// goes on: a limit guards against floods, and must not be one's own outage.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "ratelimit",
		Doc: "Counts messages, recipients or octets by client, login, sender or recipient. It only reports, and is skipped where the " +
			"counters cannot be read: a limit guards against floods, and must not be one's own outage.",
		OnError: pipeline.Skip,
		Unread:  "it only reports: to act on it write a rule, such as `when: ratelimit.exceeded` with `tempfail: 4.7.1 too much at once`",
		Config: func() any {
			return &Config{By: []string{"client"}, Of: "in", Count: "messages", Per: time.Hour, IPv4: 24, IPv6: 64}
		},
		Fact: func(any) any { return Fact{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s := &stage{Config: *config.(*Config), state: env.State, step: env.Name}
			return []pipeline.Stage{s}, s.check()
		},
	}
}

// Config is the section of a ratelimit step. Several limits are several steps, each with a name.
type Config struct {
	// By says what has a counter of its own, together: client, network, login, sender, sender_domain, recipient,
	// recipient_domain. Mail for which one of them is not known is not counted.
	By []string `yaml:"by"`
	// Of says whose mail is counted: in (of those who have not logged in and are not trusted), out (of logins), or all.
	Of string `yaml:"of"`
	// Count says what: messages, recipients or bytes.
	Count string `yaml:"count"`
	// Limit is how many of them are not too many; of bytes a number of octets.
	Limit int64 `yaml:"limit" example:"100"`
	// Per is the time in which they are counted. It slides: what was the time before weighs less and less.
	Per time.Duration `yaml:"per"`
	// Refused counts also what is refused or postponed, and transactions that end without a message. Else only what is taken.
	Refused bool `yaml:"refused"`
	// IPv4 is how many bits of an IPv4 address make a network.
	IPv4 int `yaml:"ipv4"`
	// IPv6 is how many bits of an IPv6 address make a network, and a client too: one machine has at least 64.
	IPv6 int `yaml:"ipv6"`
}

// Fact is what rules see.
type Fact struct {
	Exceeded bool   `json:"exceeded" expr:"exceeded"`                  // this one is one too many
	Count    int    `json:"count" expr:"count" example:"50"`           // how many there were in the time, with this one
	Limit    int    `json:"limit" expr:"limit" example:"100"`          // how many are let in in that time
	Key      string `json:"key" expr:"key" example:"client 192.0.2.1"` // what was counted for: "client 192.0.2.1"; "" where this mail is not counted
}

type stage struct {
	Config
	state pipeline.State
	step  string
}

// inputs says what has to be known for each word of by.
func inputs() map[string]pipeline.Input {
	return map[string]pipeline.Input{
		"client": pipeline.InputClient, "network": pipeline.InputClient, "login": pipeline.InputClient,
		"sender": pipeline.InputSender, "sender_domain": pipeline.InputSender,
		"recipient": pipeline.InputRecipient, "recipient_domain": pipeline.InputRecipient,
	}
}

func (s *stage) check() error {
	var wrong []error
	words := []string{"client", "network", "login", "sender", "sender_domain", "recipient", "recipient_domain"}
	if len(s.By) == 0 {
		wrong = append(wrong, errors.New("by: names nothing; write for example `by: [client]`"))
	}
	for _, by := range s.By {
		if !slices.Contains(words, by) {
			wrong = append(wrong, fmt.Errorf("by: %q is not among %s", by, strings.Join(words, ", ")))
		}
	}
	if !slices.Contains([]string{"in", "out", "all"}, s.Of) {
		wrong = append(wrong, fmt.Errorf("of: %q is not in, out or all", s.Of))
	}
	if s.Of == "in" && slices.Contains(s.By, "login") {
		wrong = append(wrong, errors.New("by: login: mail that comes in has no login; write also `of: out`"))
	}
	if !slices.Contains([]string{"messages", "recipients", "bytes"}, s.Count) {
		wrong = append(wrong, fmt.Errorf("count: %q is not messages, recipients or bytes", s.Count))
	}
	if s.Limit < 1 {
		wrong = append(wrong, errors.New("limit: is missing; write for example `limit: 100`"))
	}
	if s.Per < time.Second {
		wrong = append(wrong, fmt.Errorf("per: %s is too short to count in", s.Per))
	}
	if s.IPv4 < 8 || s.IPv4 > 32 || s.IPv6 < 16 || s.IPv6 > 128 {
		wrong = append(wrong, errors.New("ipv4 is from 8 to 32 bits, ipv6 from 16 to 128"))
	}
	return errors.Join(wrong...)
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	r := pipeline.Reads{Waits: true, Strangers: s.Of == "in", Logins: s.Of != "in"}
	for _, by := range s.By {
		r.Input |= inputs()[by]
	}
	if s.Of != "all" {
		r.Input |= pipeline.InputClient
	}
	switch s.Count {
	case "messages":
		r.Input |= pipeline.InputSender // a transaction begins with it
	case "recipients":
		r.Input |= pipeline.InputRecipient
	case "bytes":
		r.Input |= pipeline.InputBody
	}
	return r
}

// Check counts at once, so that of many at a time none is overlooked, and takes back afterwards what was not taken.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	key, ok := s.who(v)
	if !ok {
		return pipeline.Result{Fact: Fact{Limit: small(s.Limit)}}, nil
	}
	n := int64(1)
	if s.Count == "bytes" {
		n = v.Message.Size()
	}
	window := v.Received.UnixNano() / int64(s.Per)
	into := float64(v.Received.UnixNano()%int64(s.Per)) / float64(s.Per)
	sum := sha256.Sum256([]byte(key))
	counter := "ratelimit/" + s.step + "/" + hex.EncodeToString(sum[:16]) + "/"
	keep := 2*s.Per + time.Minute
	// To add nothing is to read; where there is no counter, the one that this makes need not stay.
	before, err := s.state.Add(ctx, counter+strconv.FormatInt(window-1, 10), 0, time.Second)
	if err != nil {
		return pipeline.Result{}, fmt.Errorf("count %s: %w", key, err)
	}
	now, err := s.state.Add(ctx, counter+strconv.FormatInt(window, 10), n, keep)
	if err != nil {
		return pipeline.Result{}, fmt.Errorf("count %s: %w", key, err)
	}
	count := now + int64(float64(before)*(1-into))
	return pipeline.Result{
		Fact: Fact{Exceeded: count > s.Limit, Count: small(count), Limit: small(s.Limit), Key: key},
		After: func(ctx context.Context, o pipeline.Outcome) {
			if !o.Taken && !s.Refused {
				// What cannot be taken back makes the limit a little tighter until the time is over.
				_, _ = s.state.Add(ctx, counter+strconv.FormatInt(window, 10), -n, keep)
			}
		},
	}, nil
}

func small(n int64) int { return int(min(n, math.MaxInt)) }

// who is what has a counter of its own, and whether this mail is counted at all.
func (s *stage) who(v pipeline.View) (string, bool) {
	if s.Of == "out" && v.Client.Login == "" {
		return "", false
	}
	var parts []string
	for _, by := range s.By {
		value := s.value(by, v)
		if value == "" {
			return "", false
		}
		parts = append(parts, by+" "+value)
	}
	return strings.Join(parts, ", "), true
}

func (s *stage) value(by string, v pipeline.View) string {
	switch by {
	case "client", "network":
		a := v.Client.Addr.Unmap().WithZone("")
		if !a.IsValid() {
			return ""
		}
		bits := s.IPv6
		if a.Is4() {
			if bits = s.IPv4; by == "client" {
				return a.String()
			}
		}
		return netip.PrefixFrom(a, bits).Masked().String()
	case "login":
		return strings.ToLower(v.Client.Login) // an MTA may tell it as it was typed
	case "sender":
		if v.Sender.IsZero() {
			return "<>"
		}
		return plain(v.Sender)
	case "sender_domain":
		return v.Sender.Domain // bounces have none
	case "recipient":
		return plain(v.Rcpt.Address)
	default:
		return v.Rcpt.Address.Domain
	}
}

// plain is an address without its subaddress: user+1 and user+2 are one.
func plain(a pipeline.Address) string {
	if a.Domain == "" {
		return a.Local
	}
	return a.Local + "@" + a.Domain
}

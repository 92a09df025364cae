// Package greylist knows which clients have tried before, for rules that ask strangers to try again later (RFC 6647).
package greylist

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/orgdomain"
)

// Kind is the kind of stage the configuration calls greylist. It only reports. Where what is known cannot be read mail
// goes on: asking everybody to try again would stop all mail.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "greylist",
		Doc: "Knows whether this client has tried before to send from this sender to this recipient. It only reports, and is skipped " +
			"where what is known cannot be read: asking everybody to try again would stop all mail.",
		OnError: pipeline.Skip,
		Unread:  "it only reports: to act on it write a rule, such as `when: greylist.new` with `tempfail: 4.7.1 please try again in a few minutes`",
		Config: func() any {
			return &Config{Wait: 5 * time.Minute, Window: 24 * time.Hour, Keep: 36 * 24 * time.Hour, Allow: 5, IPv4: 24, IPv6: 64}
		},
		Fact: func(any) any { return Fact{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s := &stage{Config: *config.(*Config), state: env.State, step: env.Name}
			trial := slices.ContainsFunc(env.Before, func(b pipeline.Before) bool { return b.Name == env.Name && b.Shadow })
			for _, b := range env.Before {
				if _, ok := b.Fact.(pool); ok && (trial || !b.Shadow) {
					s.spf = b.Name
				}
			}
			return []pipeline.Stage{s}, s.check()
		},
	}
}

// Config is the section of a greylist step.
type Config struct {
	// Wait is how long a client must wait before it tries again.
	Wait time.Duration `yaml:"wait"`
	// Window is how long after the first time it may do so; later it is new again.
	Window time.Duration `yaml:"window"`
	// Keep is how long one that has passed is known after its last mail.
	Keep time.Duration `yaml:"keep"`
	// Allow is after how many different senders that passed a client's whole network, or its SPF pool, is known for all
	// others. 0: never.
	Allow int `yaml:"allow"`
	// IPv4 is how many bits of an IPv4 address make the network that is remembered.
	IPv4 int `yaml:"ipv4"`
	// IPv6 is how many bits of an IPv6 address do.
	IPv6 int `yaml:"ipv6"`
}

// Fact is what rules see.
type Fact struct {
	New    bool   `json:"new" expr:"new"`                              // it has not tried before, or too soon: to be asked to try again
	State  string `json:"state" expr:"state" example:"first"`          // "first", "early", "passed" (now for the first time), "known", "allowed" (its network is)
	Client string `json:"client" expr:"client" example:"192.0.2.0/24"` // who counts as the client: "192.0.2.0/24", or the SPF pool "example.com"
	Since  int    `json:"since" expr:"since" example:"3600"`           // seconds since it tried first
	Wait   int    `json:"wait" expr:"wait" example:"60"`               // seconds that it must still wait
}

// A pool is a fact that names the pool of servers a client belongs to by its sender's policy. Big senders try again from
// another of their networks.
type pool interface{ SPFPool() string }

type stage struct {
	Config
	state pipeline.State
	step  string
	spf   string // the step that knows pools, "" if none
}

func (s *stage) check() error {
	var wrong []error
	if s.Wait < 0 || s.Window <= s.Wait {
		wrong = append(wrong, fmt.Errorf("window: %s is not longer than wait: %s, so nobody would pass", s.Window, s.Wait))
	}
	if s.Keep <= 0 {
		wrong = append(wrong, fmt.Errorf("keep: %s is no time to know anybody for", s.Keep))
	}
	if s.Allow < 0 {
		wrong = append(wrong, fmt.Errorf("allow: %d is no number of senders; 0 is never", s.Allow))
	}
	if s.IPv4 < 8 || s.IPv4 > 32 || s.IPv6 < 16 || s.IPv6 > 128 {
		wrong = append(wrong, errors.New("ipv4 is from 8 to 32 bits, ipv6 from 16 to 128"))
	}
	return errors.Join(wrong...)
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	r := pipeline.Reads{
		Input: pipeline.InputClient | pipeline.InputSender | pipeline.InputRecipient, Waits: true, Strangers: true,
	}
	if s.spf != "" {
		r.Facts = []string{s.spf}
	}
	return r
}

// A try is what is kept of a client, a sender and a recipient.
type try struct {
	First  time.Time `json:"first"`
	Passed bool      `json:"passed,omitempty"`
}

// Check reports what is known, and has it remembered once the transaction is over. Mail that is refused for good teaches
// nothing.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	f := Fact{Client: s.client(v)}
	from := sender(v.Sender)
	k := keys{
		// The address that was named, not the one it is said to stand for (ORCPT): strangers say what they like.
		triplet: s.key("try", f.Client, from, v.Rcpt.Address.String()),
		sender:  s.key("sender", f.Client, from),
		passed:  s.key("passed", f.Client),
		allowed: s.key("allowed", f.Client),
	}
	var t try
	known, err := s.load(ctx, k.triplet, &t)
	if err != nil {
		return pipeline.Result{}, err
	}
	allowed := false
	if s.Allow > 0 {
		if _, allowed, err = s.state.Load(ctx, k.allowed); err != nil {
			return pipeline.Result{}, fmt.Errorf("read what is known of the client: %w", err)
		}
	}
	switch age := v.Received.Sub(t.First); {
	case allowed:
		f.State = "allowed"
	case known && t.Passed:
		f.State = "known"
	case !known || age > s.Window || age < 0:
		f.State, f.New, f.Wait = "first", true, seconds(s.Wait)
		t = try{First: v.Received}
	case age < s.Wait:
		f.State, f.New, f.Wait = "early", true, seconds(s.Wait-age)
	default:
		f.State = "passed"
	}
	if !t.First.IsZero() {
		f.Since = seconds(v.Received.Sub(t.First))
	}
	return pipeline.Result{Fact: f, After: func(ctx context.Context, o pipeline.Outcome) {
		if o.Verdict.Action != pipeline.Reject {
			s.learn(ctx, f, t, k, o.Taken && o.Verdict.Action <= pipeline.Keep)
		}
	}}, nil
}

// keys are what the values about one mail for one recipient are kept under.
type keys struct {
	triplet string // a try
	sender  string // a counter: how many triplets of this sender passed
	passed  string // a counter: how many senders of this client did
	allowed string // is there where enough of them did
}

// learn remembers. What cannot be remembered costs a client another try, so nobody is told. taken: the mail is delivered;
// else it was postponed, by a rule that reads the fact or by something else, or the client went away, which shows nothing
// but that it was there.
func (s *stage) learn(ctx context.Context, f Fact, t try, k keys, taken bool) {
	switch {
	case f.State == "first":
		// Without a rule that acts, a mail that has been taken is as good as one that came again.
		t.Passed = taken
		s.store(ctx, k.triplet, t, s.keepFor(t))
	case !taken: // what is known stays as it is
	case f.State == "passed":
		t.Passed = true
		s.store(ctx, k.triplet, t, s.Keep)
		s.count(ctx, k)
	case f.State == "known":
		s.store(ctx, k.triplet, t, s.Keep)
	case f.State == "allowed":
		_ = s.state.Store(ctx, k.allowed, []byte{1}, s.Keep)
	}
}

// count counts a sender that passed, once, and lets its client's network be known after enough of them.
func (s *stage) count(ctx context.Context, k keys) {
	if s.Allow == 0 {
		return
	}
	if n, err := s.state.Add(ctx, k.sender, 1, s.Keep); err != nil || n > 1 {
		return
	}
	if n, err := s.state.Add(ctx, k.passed, 1, s.Keep); err == nil && n >= int64(s.Allow) {
		_ = s.state.Store(ctx, k.allowed, []byte{1}, s.Keep)
	}
}

func (s *stage) keepFor(t try) time.Duration {
	if t.Passed {
		return s.Keep
	}
	return s.Window
}

// client is who counts as the client.
func (s *stage) client(v pipeline.View) string {
	if s.spf != "" {
		if p, ok := v.Facts.Of(s.spf).Fact.(pool); ok && p.SPFPool() != "" {
			return p.SPFPool()
		}
	}
	a := v.Client.Addr.Unmap().WithZone("")
	bits := s.IPv6
	if a.Is4() {
		bits = s.IPv4
	}
	return netip.PrefixFrom(a, bits).Masked().String()
}

var number = regexp.MustCompile(`[0-9a-f]{8,}|[0-9]+`)

// sender is what is remembered of a sender: list servers put a number, a hash or the recipient into theirs, which differ
// for each mail. So mailboxes with digits are the same but for these, and what stands behind + or - = does not count.
func sender(a pipeline.Address) string {
	if a.IsZero() {
		return ""
	}
	local := strings.ToLower(a.Local)
	if i := strings.IndexAny(local, "=+"); i > 0 {
		local = local[:i]
	}
	org, ok := orgdomain.Of(a.Domain)
	if !ok {
		org = a.Domain
	}
	return number.ReplaceAllString(local, "#") + "@" + org
}

// key names a value of this step's; addresses are not kept in clear.
func (s *stage) key(kind string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "greylist/" + s.step + "/" + kind + "/" + hex.EncodeToString(sum[:16])
}

func (s *stage) load(ctx context.Context, key string, v any) (bool, error) {
	b, ok, err := s.state.Load(ctx, key)
	if err != nil {
		return false, fmt.Errorf("read what is known of the client: %w", err)
	}
	// What an older version wrote, or somebody else, is as good as nothing.
	return ok && json.Unmarshal(b, v) == nil, nil
}

func (s *stage) store(ctx context.Context, key string, v any, keep time.Duration) {
	if b, err := json.Marshal(v); err == nil {
		_ = s.state.Store(ctx, key, b, keep)
	}
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

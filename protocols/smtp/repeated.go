package smtp

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/pipeline"
)

// A call is one of `sluice deliver`. It has several recipients and one exit code: where one of them is postponed, or
// whoever has called does not hear the end, the MTA calls again for all of them. Those who were served by then are
// remembered before it hears of the failure, and the repeated call does not serve them again. A nil call is one of
// which nothing is remembered.
type call struct {
	key    string
	served map[string][]string // by earlier attempts: marks of recipients, by the id of the transaction
	kept   bool                // something stands under key
}

// callsKept is how long the recipients of a call that failed in part are remembered. MTAs try for 5 days or a week.
const callsKept = 8 * 24 * time.Hour

// call recognises a call by its user, its envelope and its message. Only one that has failed in part has served
// anybody.
func (s session) call(m *message) *call {
	if s.s.cfg.Believe == nil || s.s.cfg.State == nil {
		return nil
	}
	content, err := m.lasting()
	if err != nil {
		s.s.cfg.Log.Warn("a call of sluice deliver is not known again if it fails in part", "client", s.peer(), "error", err)
		return nil
	}
	user := "unknown"
	if uid, err := s.conn.User(); err == nil {
		user = strconv.FormatUint(uint64(uid), 10)
	}
	named := slices.Sorted(slices.Values(s.tx.named))
	c := &call{key: "deliver/call/" + mark(append([]string{user, s.tx.from.Raw, content}, named...)...)}
	b, ok, err := s.s.cfg.State.Load(s.ctx(), c.key)
	if c.kept = ok; err == nil && ok {
		err = json.Unmarshal(b, &c.served)
	}
	if err != nil {
		c.served = nil
		s.s.cfg.Log.Warn("whether a call of sluice deliver is a repeated one is not known; whom it has served before may get the mail twice",
			"client", s.peer(), "error", err)
	}
	return c
}

// mark is a short name of a list of words.
func mark(words ...string) string {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintf(h, "%d %s", len(w), w) // a hash never fails
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// lasting is a hash of what of a message stays the same when it is offered again. What fetches or hands on mail writes
// its trace anew each time. Only a Message-ID tells mails apart without it: where there is none, every octet counts.
func (m *message) lasting() (string, error) {
	if m.parsed.MessageID() == "" {
		return m.SHA256(), nil
	}
	section := make([]byte, m.parsed.Header().Len())
	if _, err := io.ReadFull(m.parsed.Raw(), section); err != nil {
		return "", fmt.Errorf("read the header: %w", err)
	}
	h := sha256.New()
	h.Write(strip(section, func(name string, _ int) bool {
		switch name {
		case "received", "return-path", "delivered-to", "x-original-to", strings.ToLower(pipeline.IDField):
			return true
		}
		return false
	}))
	if _, err := io.Copy(h, m.parsed.RawBody()); err != nil {
		return "", fmt.Errorf("read the body: %w", err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// by returns the transaction that has served a recipient, "" if none has.
func (c *call) by(r pipeline.Recipient) string {
	if c == nil {
		return ""
	}
	for id, marks := range c.served {
		if slices.Contains(marks, markOf(r)) {
			return id
		}
	}
	return ""
}

func markOf(r pipeline.Recipient) string { return mark(r.Address.String(), r.Account) }

// leaveOut takes those out of a transaction that earlier attempts have served.
func (t *transaction) leaveOut(c *call) {
	if c == nil || len(c.served) == 0 {
		return
	}
	t.before = make([]string, len(t.taken))
	now := make([]int, len(t.taken)) // places among those that are left
	var left []pipeline.Recipient
	for i, r := range t.taken {
		if t.before[i] = c.by(r); t.before[i] == "" {
			now[i] = len(left)
			left = append(left, r)
		}
	}
	for i, r := range t.rcpts {
		var accounts []int
		for _, a := range r.accounts {
			if t.before[a] == "" {
				accounts = append(accounts, now[a])
			} else {
				t.rcpts[i].before = cmp.Or(t.rcpts[i].before, t.before[a])
			}
		}
		t.rcpts[i].accounts = accounts
	}
	t.taken = left
}

// acceptedBefore is the reply about a recipient that a transaction has served.
func acceptedBefore(id string) pipeline.Reply {
	return pipeline.Reply{Code: 250, Enhanced: "2.0.0", Text: "accepted before as " + id}
}

// attempted ends an attempt at a call. If it failed in part the call will be repeated: whom it has served is remembered
// before anybody hears of it. Else the same mail, if it comes again, is another one.
func (c *call) attempted(f *filing, again bool) {
	switch {
	case c == nil:
	case again:
		c.remember(f)
	default:
		f.unheard = func() { c.remember(f) }
		c.keep(f, nil)
	}
}

// remember keeps whom all attempts have served so far.
func (c *call) remember(f *filing) {
	all := map[string][]string{}
	maps.Copy(all, c.served)
	var served []string
	for i, d := range f.decisions {
		switch f.settled.Dispositions[i] {
		case pipeline.Delivered, pipeline.Dropped, pipeline.Held:
			served = append(served, markOf(d.Recipient))
		}
	}
	if len(served) > 0 {
		all[f.id] = served
	}
	c.keep(f, all)
}

func (c *call) keep(f *filing, served map[string][]string) {
	long := callsKept
	if len(served) == 0 {
		if long = 0; !c.kept {
			return
		}
	}
	c.kept = len(served) > 0
	b, err := json.Marshal(served)
	if err == nil {
		ctx, cancel := f.unbroken()
		defer cancel()
		err = f.s.cfg.State.Store(ctx, c.key, b, long)
	}
	if err != nil {
		f.s.cfg.Log.Error("whom a call of sluice deliver has served is not remembered; if it is repeated they may get the mail twice",
			"id", f.id, "client", f.peer(), "error", err)
	}
}

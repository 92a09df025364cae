package dkim

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/pipeline/mime"
	"sluice/pipeline/orgdomain"
	"sluice/scanners/dkim/signature"
)

const field = "DKIM-Signature"

// A candidate is one signature on its way.
type candidate struct {
	signature.Signature
	own      int    // its place among the fields
	identity string // the domain of i=
	err      error  // why it is no pass, once that is known
	fact     Signature
}

// verify finds out about all signatures. open is why one could not be decided, "" if all were.
func (s *stage) verify(ctx context.Context, m *mime.Message, now time.Time) (fact Fact, open string, err error) {
	fields := m.Header().Fields()
	var list []*candidate
	for i, f := range fields {
		switch {
		case strings.EqualFold(f.Name, "From"):
			fact.FromFields++
		case !strings.EqualFold(f.Name, field):
		case len(list) < s.config.Signatures:
			list = append(list, &candidate{own: i})
			fact.Found++
		default:
			if fact.Found++; len(fact.NotLooked) < mostNotLooked {
				fact.NotLooked = append(fact.NotLooked, domainOf(f))
			}
		}
	}
	if len(list) == 0 {
		return fact, "", nil
	}
	header := signature.NewHeader(fields)
	var keys []string
	var parts []signature.BodyPart
	for _, c := range list {
		if c.read(fields[c.own], header, now, s.config.Skew); c.err == nil {
			keys, parts = append(keys, c.KeyName()), append(parts, c.Body)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.KeyTimeout)
	defer cancel()
	asked := make(chan map[string]signature.Answer, 1)
	go func() { asked <- signature.Keys(ctx, s.resolver, keys) }() // ends with ctx; the body is read meanwhile
	sums, err := signature.SumBody(m.RawBody(), parts)
	if err != nil {
		return fact, "", err
	}
	answers := <-asked
	for _, c := range list {
		if c.err == nil {
			c.decide(header, sums[c.Body], answers[c.KeyName()], s.config.MinBits)
		}
		c.fact.Result, c.fact.Reason = signature.ResultOf(c.err)
		c.fact.Reason = clip(c.fact.Reason, mostText)
		switch c.fact.Result {
		case signature.Pass:
			fact.Pass = true
			if !slices.Contains(fact.Domains, c.Domain) {
				fact.Domains = append(fact.Domains, c.Domain)
			}
		case signature.TempError:
			if open == "" {
				open = c.KeyName() + ": " + c.fact.Reason
			}
		}
		fact.Signatures = append(fact.Signatures, c.fact)
	}
	return fact, open, nil
}

// domainOf returns d= of a signature that is not looked at.
func domainOf(f mime.Field) string {
	tags, _ := signature.ParseTags(string(f.Raw[bytes.IndexByte(f.Raw, ':')+1:]))
	d, _ := tags.Value("d")
	return clip(d, mostText)
}

// read finds out what can be known without key and body (RFC 6376, 6.1.1).
func (c *candidate) read(f mime.Field, h *signature.Header, now time.Time, skew time.Duration) {
	var err error
	c.Signature, err = signature.Parse(f, signature.Simple)
	c.fact = Signature{
		Domain: clip(c.Domain, mostText), Selector: clip(c.Selector, mostText), Algorithm: c.Algorithm, Identity: clip("@"+c.Domain, mostText),
		Canonical: string(c.HeaderForm) + "/" + string(c.Body.Form), BodySigned: c.Body.Length,
		Signed: c.Time, Age: -1, Expires: -1,
	}
	if b, ok := c.Tags.Value("b"); ok {
		c.fact.B = clip(strings.Join(strings.Fields(b), ""), 8)
	}
	if err != nil {
		c.fact.Canonical = ""
		c.err = err
		return
	}
	c.fact.covers(c.Headers, h)
	if c.Time >= 0 {
		c.fact.Age = max(now.Unix()-c.Time, 0)
	}
	for _, check := range []func(now, skew int64) error{c.checkForm, c.checkIdentity, c.checkTimes} {
		if c.err = check(now.Unix(), int64(skew/time.Second)); c.err != nil {
			return
		}
	}
}

func permError(reason string) error {
	return &signature.Error{Result: signature.PermError, Reason: reason}
}
func policy(reason string) error { return &signature.Error{Result: signature.Policy, Reason: reason} }

func (c *candidate) checkForm(_, _ int64) error {
	if v, _ := c.Tags.Value("v"); v != "1" {
		return permError(fmt.Sprintf("it is of version %q, not 1", clip(v, 20)))
	}
	if !slices.Contains(c.Headers, "from") { // RFC 6376, 5.4
		return permError("From is not signed")
	}
	if q, ok := c.Tags.Value("q"); ok && !slices.Contains(strings.Split(strings.Join(strings.Fields(q), ""), ":"), "dns/txt") {
		return permError(fmt.Sprintf("its key can be asked for only by q=%s", clip(q, 40)))
	}
	return nil
}

// checkIdentity: RFC 6376, 3.5: the domain of i= is that of d= or below it.
func (c *candidate) checkIdentity(_, _ int64) error {
	c.identity = c.Domain
	i, ok := c.Tags.Value("i")
	if !ok {
		return nil
	}
	i = strings.Join(strings.Fields(i), "")
	c.fact.Identity = clip(i, mostText)
	at := strings.LastIndexByte(i, '@')
	domain, ok := orgdomain.Canonical(i[at+1:])
	if at < 0 || !ok || domain != c.Domain && !strings.HasSuffix(domain, "."+c.Domain) {
		return permError(fmt.Sprintf("i=%s is not of %s", c.fact.Identity, c.Domain))
	}
	c.identity = domain
	return nil
}

func (c *candidate) checkTimes(now, skew int64) (err error) {
	if c.fact.Expires, err = c.Number("x"); err != nil {
		return err
	}
	x := c.fact.Expires
	c.fact.Expired = x >= 0 && x < now-skew
	switch {
	case x >= 0 && x < c.Time:
		return permError("it expires before it was made")
	case c.fact.Expired:
		return permError("it expired at " + time.Unix(x, 0).UTC().Format(time.RFC3339))
	case c.Time > now+skew:
		return policy("it is from the future: " + time.Unix(c.Time, 0).UTC().Format(time.RFC3339))
	}
	return nil
}

// decide verifies the signature and judges what it covers.
func (c *candidate) decide(h *signature.Header, sum signature.BodySum, a signature.Answer, minBits int) {
	c.fact.Bits, c.fact.Testing, c.fact.Strict = a.Key.Bits, a.Key.Testing, a.Key.Strict
	c.fact.Key = clip(a.Key.Record, mostKey)
	rsa := a.Key.Algorithm == "rsa"
	c.fact.WeakKey = rsa && a.Key.Bits > 0 && a.Key.Bits < signature.SafeBits
	c.fact.BodyPartial = c.Body.Length >= 0 && c.Body.Length < sum.Size
	switch {
	case a.Err != nil:
		c.err = a.Err
		return
	case rsa && a.Key.Bits < minBits:
		c.err = policy(fmt.Sprintf("a key of %d bits; at least %d are asked for", a.Key.Bits, minBits))
		return
	case a.Key.Strict && c.identity != c.Domain: // RFC 6376, 3.6.1: t=s
		c.err = permError(fmt.Sprintf("i= is of %s, and the key allows %s only", clip(c.identity, 80), c.Domain))
		return
	}
	c.err = c.Verify(h, c.own, sum, a.Key)
	result, reason := signature.ResultOf(c.err)
	switch {
	case result == signature.Fail && a.Key.Testing: // RFC 6376, 3.6.1: t=y
		c.err = &signature.Error{Result: signature.Neutral, Reason: reason + " (the key is in testing)"}
	case result != signature.Pass:
	case c.fact.BodyPartial: // RFC 6376, 8.2
		c.err = policy(fmt.Sprintf("%d of %d octets of the body are signed", c.Body.Length, sum.Size))
	case slices.Contains(c.fact.Unsigned, "from"): // RFC 6376, 8.15: which of them is shown?
		c.fact.CoversBody = true
		c.err = policy(fmt.Sprintf("of %d From fields not all are signed", h.Count("from")))
	default:
		c.fact.CoversBody = true
	}
}

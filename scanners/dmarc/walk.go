package dmarc

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/orgdomain"
)

// mostWalk is how many names the way up from one domain has (RFC 9989, 4.10).
const mostWalk = 8

// way returns the names to ask on the way up from a domain: the domain itself, and then those with at most seven
// labels, down to one (RFC 9989, 4.10).
func way(domain string) []string {
	names := []string{domain}
	labels := strings.Split(domain, ".")
	for n := min(len(labels), mostWalk) - 1; n > 0; n-- {
		names = append(names, strings.Join(labels[len(labels)-n:], "."))
	}
	return names
}

// An answer is what one name has to say.
type answer struct {
	text string // the record, "" where there is none
	psd  string // its psd=
	many int    // how many records there are, if more than one; then none of them counts
	err  error  // the question stays open
}

// answers are what was asked for one mail.
type answers struct {
	asker *asker
	mu    sync.Mutex
	of    map[string]answer
}

var errTooMany = errors.New("there are more names to ask than `lookups` allows")

// ask asks all those names at once that have not been asked, as far as the limit goes.
func (a *answers) ask(ctx context.Context, names []string) {
	var wg sync.WaitGroup // all have ended when ask returns
	for _, name := range a.reserve(names) {
		wg.Go(func() { a.set(name, a.asker.policyAt(ctx, name)) })
	}
	wg.Wait()
}

// reserve returns those of the names that are to be asked, so that none is asked twice.
func (a *answers) reserve(names []string) (todo []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range names {
		if _, ok := a.of[name]; !ok && len(a.of) < a.asker.config.Lookups {
			a.of[name] = answer{}
			todo = append(todo, name)
		}
	}
	return todo
}

func (a *answers) get(name string) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x, ok := a.of[name]
	return x, ok
}

func (a *answers) set(name string, x answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of[name] = x
}

// policyAt asks one name for its record.
func (a *asker) policyAt(ctx context.Context, domain string) (x answer) {
	name := "_dmarc." + domain
	if len(name) > 253 {
		return answer{} // no such name can be
	}
	texts, err := a.resolver.LookupTXT(ctx, name)
	if err != nil && !notFound(err) {
		return answer{err: fmt.Errorf("ask for the policy of %s: %w", domain, err)}
	}
	texts = slices.DeleteFunc(slices.Clone(texts), func(t string) bool { return !IsRecord(t) })
	if len(texts) > 1 {
		return answer{many: len(texts)}
	}
	if len(texts) == 0 {
		return answer{}
	}
	x = answer{text: texts[0], psd: "u"}
	if r, err := ParseRecord(x.text); err == nil {
		x.psd = r.PSD
	}
	return x
}

func notFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// belongs returns the organisational domain of a domain whose way up was asked, and the domain of a public suffix with
// a record that was met on it ("" for none). by is how it was found. A name above the domain that the public suffix
// list says may fail: what there is, if anything, is the record of a registry, and the list knows its place.
func (a *answers) belongs(domain string) (org, registry, by string, err error) {
	list, _ := orgdomain.Of(domain)
	org, by = "", "treewalk"
	labels := strings.Split(domain, ".")
	for i, name := range way(domain) {
		x, ok := a.get(name)
		if !ok {
			x.err = errTooMany
		}
		switch {
		case x.err != nil && name != list && below(list, name):
			by = "psl"
			continue
		case x.err != nil:
			return "", "", "", x.err
		case x.text == "":
			continue
		case x.psd == "n":
			return name, "", "treewalk", nil
		case x.psd == "y" && i == 0:
			return name, name, "treewalk", nil
		case x.psd == "y":
			n := strings.Count(name, ".") + 2
			return strings.Join(labels[len(labels)-n:], "."), name, "treewalk", nil
		}
		org = name
	}
	if org == "" || by == "psl" {
		// Without any record RFC 9989 says that a domain belongs to itself. Nothing depends on it then, and the list says
		// more about whose mail it is.
		return list, "", "psl", nil
	}
	return org, "", by, nil
}

// discover fills in what is published about f.Domain (RFC 9989, 4.10.1 and 4.10.2; with psl RFC 7489, 6.6.3).
func (a *asker) discover(ctx context.Context, f *Fact, v pipeline.View) error {
	got := &answers{asker: a, of: map[string]answer{}}
	list, _ := orgdomain.Of(f.Domain)
	c := candidatesOf(v)
	registry := ""
	if a.config.PSL {
		got.ask(ctx, []string{f.Domain, list})
		f.OrgDomain, f.Discovery = list, "psl"
	} else {
		// What may well be needed is asked in one go: looking up one after the other would take as long as all together.
		names := way(f.Domain)
		for _, d := range c.all() {
			if org, ok := orgdomain.Of(d); ok && org == list {
				names = append(names, way(d)...)
			}
		}
		got.ask(ctx, names)
		var err error
		if f.OrgDomain, registry, f.Discovery, err = got.belongs(f.Domain); err != nil {
			return err
		}
	}
	for _, name := range []string{f.Domain, f.OrgDomain, registry} {
		x, ok := got.get(name)
		if ok && x.err != nil {
			return x.err
		}
		if !ok || x.text == "" {
			if x.many > 0 && f.Reason == "" {
				f.Reason = fmt.Sprintf("%s has %d policies, which is none", name, x.many)
			}
			continue
		}
		return a.read(ctx, f, got, c, v.Message, name, x.text)
	}
	return nil
}

// read fills in what the record of a domain says about f.Domain.
func (a *asker) read(ctx context.Context, f *Fact, got *answers, c candidates, m *mime.Message, at, text string) error {
	f.Published, f.PublishedAt = clip(text, mostRecord+1), at
	if r, err := ParseRecord(text); err == nil {
		return a.apply(ctx, f, got, c, m, r)
	}
	return nil // the second stage says that it is malformed
}

func (a *asker) apply(ctx context.Context, f *Fact, got *answers, c candidates, m *mime.Message, r Record) (err error) {
	at := f.PublishedAt
	if at != f.Domain && r.NP != "" {
		if f.NonExistent, err = a.nonExistent(ctx, f.Domain); err != nil {
			return err
		}
	}
	f.Policy, f.PolicyTag = r.applied(at != f.Domain, f.NonExistent)
	f.Testing = r.T == "y"
	f.SampledOut = r.T == "" && sample(a.hostname, m) >= r.Pct
	if a.config.PSL || r.ADKIM == "s" && r.ASPF == "s" {
		return nil
	}
	var related, names []string
	for _, d := range c.all() {
		if below(d, f.OrgDomain) && d != f.Domain && !slices.Contains(related, d) {
			related = append(related, d)
			names = append(names, way(d)...)
		}
	}
	got.ask(ctx, names) // mostly they have been asked
	for _, d := range related {
		org, _, _, err := got.belongs(d)
		switch {
		case errors.Is(err, errTooMany):
			continue // a mail with so many names of one owner is not told apart from a hostile one
		case err != nil:
			// It lies below From's domain, and only a policy in between could say that it is another's. Were the question open,
			// forgers would bring along a name that does not answer.
			org = f.OrgDomain
		}
		f.Related = append(f.Related, Related{d, org})
	}
	return nil
}

// nonExistent: a domain without addresses and without mail servers (RFC 9989, 3.2.11; RFC 9091, 2.6).
func (a *asker) nonExistent(ctx context.Context, domain string) (bool, error) {
	addrs := func(look func(context.Context, string) ([]netip.Addr, error)) func() (int, error) {
		return func() (int, error) { all, err := look(ctx, domain); return len(all), err }
	}
	looks := []func() (int, error){
		addrs(a.resolver.LookupA), addrs(a.resolver.LookupAAAA),
		func() (int, error) { all, err := a.resolver.LookupMX(ctx, domain); return len(all), err },
	}
	found, failed := make([]int, len(looks)), make([]error, len(looks))
	var wg sync.WaitGroup // all have ended when nonExistent returns
	for i, look := range looks {
		wg.Go(func() { found[i], failed[i] = look() })
	}
	wg.Wait()
	if slices.ContainsFunc(found, func(n int) bool { return n > 0 }) {
		return false, nil
	}
	for _, err := range failed {
		if err != nil && !notFound(err) {
			return false, fmt.Errorf("ask whether %s exists: %w", domain, err)
		}
	}
	return true, nil
}

// sample places a mail between 0 and 99, by fields that nobody changes on the way: offered again, or replayed, it is in
// the same place. Our own name is in it, so that a mail that is outside of everybody's sample cannot be made.
func sample(hostname string, m *mime.Message) int {
	h := sha256.New()
	_, _ = io.WriteString(h, hostname)
	for _, name := range []string{"From", "Date", "Message-ID", "Subject", "To"} {
		f, _ := m.Header().First(name)
		_, _ = io.WriteString(h, "\n"+f.Value())
	}
	return int(binary.BigEndian.Uint64(h.Sum(nil)) % 100)
}

// clip makes foreign text fit for a fact: at most n octets of printable ASCII, one for each of s.
func clip(s string, n int) string {
	b := []byte(s[:min(len(s), n)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

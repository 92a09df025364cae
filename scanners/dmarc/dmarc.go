// Package dmarc says what the owner of the domain in From wants done with a mail, and whether the mail is the owner's
// (RFC 9989, and RFC 7489 before it).
package dmarc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sluice/pipeline"
	"sluice/pipeline/orgdomain"
)

// Kind is the kind of stage the configuration calls dmarc. It makes two stages: the first asks for policies while the
// signatures are still verified, the second compares. Where the question stays open mail is not held up: that nobody
// could be asked is no sign of forgery, and rules see that the result is unknown.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "dmarc",
		Doc: "Asks what the owner of the domain in From wants done with mail that is not the owner's, and whether this " +
			"is (DMARC). It is skipped where the question stays open: that nobody could be asked is no sign of forgery.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{Lookups: 24} },
		Fact:    func(any) any { return Fact{} },
		New:     newStages,
	}
}

// Config is the section of one dmarc step. Steps of the kinds spf and dkim stand before it.
type Config struct {
	// PSL finds the domain that a domain belongs to by the public suffix list, as RFC 7489 does, and not by asking for
	// policies all the way up, as RFC 9989 does. Default: false.
	PSL bool `yaml:"psl"`
	// Lookups is how many names one mail may make us ask for a policy. Default: 24; the way up from one domain takes 8.
	Lookups int `yaml:"lookups"`
	// Forwarders hand mail on for our users and break SPF, or signatures: a failure by way of them has the override
	// "forwarder".
	Forwarders Forwarders `yaml:"forwarders"`
	// TrustedSealers are the domains of ARC sealers whose word is taken for what DMARC said before they changed a mail:
	// then a failure has the override "arc".
	TrustedSealers []string `yaml:"trusted_sealers" example:"[lists.example.org]"`
}

// Forwarders are known to hand mail on.
type Forwarders struct {
	// Networks are the addresses or networks that they send from.
	Networks []string `yaml:"networks" example:"[192.0.2.0/24]"`
	// Domains are those that they sign mail for that they hand on, with DKIM or ARC; those below them count too.
	Domains []string `yaml:"domains" example:"[forwarder.example]"`
}

// Fact is what rules see.
type Fact struct {
	// Result is "pass", "fail", "none" where the domain has no policy, or "permerror" where the mail or the policy is so
	// malformed that there is no answer.
	Result string `json:"result" expr:"result" oneof:"pass fail none permerror" example:"fail"`
	Reason string `json:"reason" expr:"reason"` // why, in words
	// Disposition is what the domain asks us to do with this very mail: "none", "quarantine" or "reject".
	Disposition string `json:"disposition" expr:"disposition" oneof:"none quarantine reject" example:"reject"`
	// Override is why a failure is likely nobody's forgery: "forwarder", "arc" or "". It is for rules to heed.
	Override    string `json:"override" expr:"override" example:"forwarder"`
	SPFAligned  bool   `json:"spf_aligned" expr:"spf_aligned"`   // SPF passes, for a domain that belongs to From's
	DKIMAligned bool   `json:"dkim_aligned" expr:"dkim_aligned"` // so does a signature

	Domain    string `json:"domain" expr:"domain" example:"bank.example"`         // of From, in A-labels; "" where there is not one
	OrgDomain string `json:"org_domain" expr:"org_domain" example:"bank.example"` // the organisational domain it belongs to
	FromCount int    `json:"from_count" expr:"from_count" example:"2"`            // how many authors: From addresses, or From fields if those are more

	// Policy is what the record asks for mail in the name of From's domain that fails; "" without one.
	Policy      string `json:"policy" expr:"policy" example:"reject"`
	PolicyTag   string `json:"policy_tag" expr:"policy_tag" example:"sp"`               // which tag of the record says so: "p", "sp", "np"
	Published   string `json:"published" expr:"published"`                              // the record, at most 2049 octets
	PublishedAt string `json:"published_at" expr:"published_at" example:"bank.example"` // the domain whose record it is
	Discovery   string `json:"discovery" expr:"discovery" example:"psl"`                // how the organisational domain was found: "treewalk" or "psl"
	NonExistent bool   `json:"non_existent" expr:"non_existent"`                        // From's domain does not exist; only looked at where a record has np=
	Testing     bool   `json:"testing" expr:"testing"`                                  // t=y: the owner asks for one step less
	// SampledOut is whether pct= leaves this mail outside of the sample: the owner asks for one step less.
	SampledOut bool `json:"sampled_out" expr:"sampled_out"`
	// Related is a list of the domains that the mail could be authenticated for and that lie below the organisational
	// domain.
	Related []Related `json:"related" expr:"related"`
}

// A Related domain is one below the organisational domain of From.
type Related struct {
	Domain    string `json:"domain" expr:"domain" example:"bank.example"`         // that SPF or a signature passes for
	OrgDomain string `json:"org_domain" expr:"org_domain" example:"bank.example"` // another one than From's if a record in between says so
}

// AuthResults tells the result as an Authentication-Results field does (RFC 8601, 2.7; RFC 7489, 11.2).
func (f Fact) AuthResults(say func(method, result, reason string, properties ...string)) {
	reason := ""
	if f.Policy != "" {
		reason = f.PolicyTag + "=" + f.Policy
	}
	if f.Domain == "" {
		say("dmarc", f.Result, f.Reason)
		return
	}
	say("dmarc", f.Result, reason, "header.from", f.Domain)
}

func newStages(config any, env pipeline.Env) ([]pipeline.Stage, error) {
	c := *config.(*Config)
	var wrong []error
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if c.Lookups < mostWalk {
		fail("lookups: %d is too few: the way up from one domain takes %d", c.Lookups, mostWalk)
	}
	l := local{}
	for _, n := range c.Forwarders.Networks {
		p, err := netip.ParsePrefix(n)
		if a, e := netip.ParseAddr(n); e == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			fail("forwarders: networks: %q is neither an address nor a network", n)
		}
		l.networks = append(l.networks, p)
	}
	for _, list := range []struct {
		what string
		from []string
		to   *[]string
	}{{"forwarders: domains", c.Forwarders.Domains, &l.forwarders}, {"trusted_sealers", c.TrustedSealers, &l.sealers}} {
		for _, d := range list.from {
			name, ok := orgdomain.Canonical(d)
			if !ok {
				fail("%s: %q is no domain name", list.what, d)
			}
			*list.to = append(*list.to, name)
		}
	}
	asking := &asker{config: c, resolver: env.Resolver, hostname: env.Hostname}
	judging := &judge{step: env.Name, psl: c.PSL, local: l}
	if err := judging.find(env.Before); err != nil {
		wrong = append(wrong, err)
	}
	return []pipeline.Stage{asking, judging}, errors.Join(wrong...)
}

// resulter is a fact that can tell its results as an Authentication-Results field does: for each a method, its result,
// why, and properties by name and value ("header.d", "example.org"). The facts of spf, dkim and arc do.
type resulter interface {
	AuthResults(say func(method, result, reason string, properties ...string))
}

// asker is the first stage: it finds whose mail this claims to be, and asks for the policy.
type asker struct {
	config   Config
	resolver pipeline.Resolver
	hostname string
}

// Reads implements pipeline.Stage.
func (a *asker) Reads() pipeline.Reads {
	return pipeline.Reads{
		Input: pipeline.InputGreeting | pipeline.InputSender | pipeline.InputHeader, Waits: true, Strangers: true,
	}
}

// Check asks for the policy of From's domain, and to whom the domains belong that the mail may be authenticated for.
// What the second stage is to find is missing from its fact.
func (a *asker) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	f, why := authorOf(v.Message)
	if why != "" {
		f.Result, f.Disposition, f.Reason = "permerror", "none", why
		return pipeline.Result{Fact: f}, nil
	}
	err := a.discover(ctx, &f, v)
	if ctx.Err() != nil {
		return pipeline.Result{}, ctx.Err()
	}
	open := []string{"result", "reason", "disposition", "override", "spf_aligned", "dkim_aligned"}
	missing := map[string]error{}
	if err != nil {
		open = append(open, "org_domain", "policy", "policy_tag", "published", "published_at", "discovery", "non_existent",
			"testing", "sampled_out", "related")
	} else {
		err = errNotCompared
	}
	for _, name := range open {
		missing[name] = err
	}
	return pipeline.Result{Fact: f, Missing: missing}, nil
}

var errNotCompared = errors.New("it has not been compared with what SPF and DKIM say")

// judge is the second stage: it compares From with what SPF and DKIM found out.
type judge struct {
	step           string // its own
	psl            bool
	local          local
	spf, dkim, arc []string // names of steps of these kinds before it
}

// find notes the steps to read.
func (j *judge) find(before []pipeline.Before) error {
	for _, b := range before {
		if b.Name == j.step {
			continue
		}
		list := map[string]*[]string{"spf": &j.spf, "dkim": &j.dkim, "arc": &j.arc}[b.Kind]
		if list == nil || b.Failed {
			continue
		}
		if _, ok := b.Fact.(resulter); !ok {
			return fmt.Errorf("the step %s is of the kind %s, but its fact does not tell results", b.Name, b.Kind)
		}
		*list = append(*list, b.Name)
	}
	missing := func(kind string) bool {
		return !slices.ContainsFunc(before, func(b pipeline.Before) bool { return b.Kind == kind || b.Failed && b.Kind == "" })
	}
	if missing("spf") || missing("dkim") {
		return errors.New("it compares From with what SPF and DKIM say: put the steps `- spf: {}` and `- dkim: {}` before it")
	}
	return nil
}

// Reads implements pipeline.Stage. The client is looked at only where forwarders are known by it: without it, mail
// whose client nobody knows can still pass by its signature.
func (j *judge) Reads() pipeline.Reads {
	in := pipeline.InputGreeting | pipeline.InputSender | pipeline.InputHeader
	if len(j.local.networks) > 0 {
		in |= pipeline.InputClient
	}
	return pipeline.Reads{Input: in, Facts: slices.Concat(j.spf, j.dkim, j.arc, []string{j.step}), Strangers: true}
}

// Check compares. It is an error if the answer hangs on what SPF or DKIM could not find out.
func (j *judge) Check(_ context.Context, v pipeline.View) (pipeline.Result, error) {
	own := v.Facts.Of(j.step)
	f, ok := own.Fact.(Fact)
	switch {
	case !ok && errors.Is(own.Unknown, pipeline.ErrNotAsked):
		return pipeline.Result{}, nil
	case !ok && own.Unknown != nil:
		return pipeline.Result{}, own.Unknown
	case !ok:
		return pipeline.Result{}, fmt.Errorf("its own fact is a %T", own.Fact)
	case own.Missing["published"] != nil:
		return pipeline.Result{}, own.Missing["published"]
	case len(own.Missing) == 0: // there is nothing to compare with
		return pipeline.Result{}, nil
	}
	return j.compare(f, v)
}

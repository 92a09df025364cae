package dmarc

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/orgdomain"
)

// compare completes the fact: alignment (RFC 9989, 4.4), the result (5.3) and what is asked for.
func (j *judge) compare(f Fact, v pipeline.View) (pipeline.Result, error) {
	r, malformed := Record{ADKIM: "r", ASPF: "r"}, error(nil)
	switch {
	case f.Published != "" && f.PolicyTag == "":
		if _, malformed = ParseRecord(f.Published); malformed == nil {
			malformed = errors.New("it cannot be read")
		}
	case f.Published != "":
		r, malformed = ParseRecord(f.Published)
	}
	c := candidatesOf(v)
	spf := look{j.aligned(f, r.ASPF), "spf", []string{c.spf}}.all(v.Facts, j.spf)
	dkim := look{j.aligned(f, r.ADKIM), "dkim", c.dkim}.all(v.Facts, j.dkim)
	if c.more && dkim.failed != nil {
		dkim.open = dkim.failed
	}
	f.SPFAligned, f.DKIMAligned = spf.aligned != "", dkim.aligned != ""
	f.Disposition = "none"
	missing := map[string]error{}
	if spf.open != nil {
		missing["spf_aligned"] = spf.open
	}
	if dkim.open != nil {
		missing["dkim_aligned"] = dkim.open
	}
	switch {
	case f.Published == "":
		f.Result = "none"
		if f.Reason == "" {
			f.Reason = "there is no policy"
		}
	case malformed != nil:
		f.Result, f.Reason = "permerror", fmt.Sprintf("the policy of %s is malformed: %v", f.PublishedAt, malformed)
	case f.SPFAligned || f.DKIMAligned:
		both := slices.DeleteFunc([]string{spf.aligned, dkim.aligned}, func(s string) bool { return s == "" })
		f.Result, f.Reason = "pass", strings.Join(both, ", ")
	case spf.open != nil || dkim.open != nil:
		return j.open(f, spf.open, dkim.open)
	default:
		f.Result, f.Disposition = "fail", f.Policy
		if f.Testing || f.SampledOut {
			f.Disposition = lower(f.Policy)
		}
		f.Reason = "nothing that passes is of " + f.OrgDomain
		if seen := append(spf.seen, dkim.seen...); len(seen) > 0 {
			f.Reason += ": " + strings.Join(seen, ", ")
		}
		var err error
		if f.Override, err = j.override(f, v); err != nil {
			missing["override"] = err
		}
	}
	f.Reason = clip(f.Reason, 400)
	return pipeline.Result{Fact: f, Missing: missing}, nil
}

// open is what there is to say while SPF or DKIM could still pass. A step that was not asked is nobody's failure: then
// the result is unknown, and that is all.
func (j *judge) open(f Fact, why ...error) (pipeline.Result, error) {
	err := errors.Join(why...)
	for _, e := range why {
		if e != nil && !errors.Is(e, pipeline.ErrNotAsked) {
			return pipeline.Result{}, fmt.Errorf("whether the mail is of %s is open: %w", f.Domain, e)
		}
	}
	missing := map[string]error{}
	for _, name := range []string{"result", "reason", "disposition", "override", "spf_aligned", "dkim_aligned"} {
		missing[name] = err
	}
	return pipeline.Result{Fact: f, Missing: missing}, nil
}

// aligned returns a function that says whether a domain is aligned with From's: the same or, in relaxed mode, of the
// same organisational domain (RFC 9989, 4.4).
func (j *judge) aligned(f Fact, mode string) func(string) bool {
	return func(d string) bool {
		d, ok := domainName(d)
		switch {
		case !ok:
			return false
		case d == f.Domain:
			return true
		case mode == "s" || !below(d, f.OrgDomain):
			return false
		}
		if i := slices.IndexFunc(f.Related, func(r Related) bool { return r.Domain == d }); i >= 0 {
			return f.Related[i].OrgDomain == f.OrgDomain
		}
		if j.psl || f.Published == "" {
			org, _ := orgdomain.Of(d)
			return org == f.OrgDomain
		}
		return false
	}
}

// A look goes through what steps of one kind say.
type look struct {
	aligned    func(domain string) bool
	method     string
	candidates []string // domains that it may have authenticated, where it does not say
}

// A heard is what came of it.
type heard struct {
	aligned string   // a result that passes and is aligned, in words
	open    error    // why there could still be one
	failed  error    // why a step says nothing
	seen    []string // what there was
}

const mostSeen = 6

var errNoResults = errors.New("its fact tells no results")

func (l look) all(facts pipeline.Facts, steps []string) (h heard) {
	for _, step := range steps {
		x := facts.Of(step)
		fact, ok := x.Fact.(resulter)
		if !ok {
			ok = errors.As(x.Unknown, &fact) // a step that failed may know about some
		}
		if why := x.Missing["result"]; !ok || why != nil {
			h.failed = fmt.Errorf("%s: %w", step, cmp.Or(x.Unknown, why, errNoResults))
			// A failure to ask about somebody else's domain opens nothing: else forgers would bring one along.
			if slices.ContainsFunc(l.candidates, l.aligned) {
				h.open = h.failed
			}
			h.see(l.method + " unknown")
			continue
		}
		fact.AuthResults(func(method, result, reason string, properties ...string) {
			if method != l.method {
				return
			}
			domain := identity(properties)
			said := clip(strings.TrimSpace(fmt.Sprintf("%s=%s %s", method, result, domain)), 100)
			h.see(said)
			if !l.aligned(domain) {
				return
			}
			switch result {
			case "pass":
				h.aligned = said
			case "temperror":
				h.open = fmt.Errorf("%s: temperror for %s: %.200s", step, domain, reason)
			}
		})
	}
	return h
}

func (h *heard) see(said string) {
	if len(h.seen) < mostSeen {
		h.seen = append(h.seen, said)
	}
}

// identity is the domain that a result is about.
func identity(properties []string) string {
	for _, name := range []string{"header.d", "smtp.mailfrom", "smtp.helo"} {
		for i := 0; i+1 < len(properties); i += 2 {
			if properties[i] == name {
				v := properties[i+1]
				return v[strings.LastIndexByte(v, '@')+1:]
			}
		}
	}
	return ""
}

// local is what we know ourselves of those who hand mail on.
type local struct {
	networks            []netip.Prefix
	forwarders, sealers []string
}

// A chain is the fact of an arc step. say is told, of each result of DMARC that the chain vouches for, the sealers that
// all have to be trusted for it, the last one first, the result, and the domain that it was about. A chain that is not
// valid says nothing.
type chain interface {
	DMARC(say func(sealers []string, result, from string))
}

// override returns why a failure is likely nobody's forgery. It is an error if a step that could tell has failed.
func (j *judge) override(f Fact, v pipeline.View) (found string, open error) {
	a := v.Client.Addr.Unmap().WithZone("")
	if a.IsValid() && slices.ContainsFunc(j.local.networks, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return "forwarder", nil
	}
	if len(j.local.forwarders) > 0 {
		for _, step := range j.dkim {
			x := v.Facts.Of(step)
			fact, ok := x.Fact.(resulter)
			if !ok {
				open = fmt.Errorf("%s: %w", step, cmp.Or(x.Unknown, errNoResults))
				continue
			}
			fact.AuthResults(func(_, result, _ string, properties ...string) {
				if result == "pass" && belowAny(identity(properties), j.local.forwarders) {
					found = "forwarder"
				}
			})
		}
	}
	if found != "" || len(j.local.forwarders)+len(j.local.sealers) == 0 {
		return found, nil
	}
	for _, step := range j.arc {
		x := v.Facts.Of(step)
		fact, ok := x.Fact.(chain)
		if !ok {
			open = fmt.Errorf("%s: %w", step, cmp.Or(x.Unknown, errNoResults))
			continue
		}
		fact.DMARC(func(sealers []string, result, from string) {
			name, _ := domainName(from)
			untrusted := func(d string) bool { return !belowAny(d, j.local.sealers) }
			switch {
			case len(sealers) == 0 || found == "arc":
			case result == "pass" && (from == "" || name == f.Domain) && !slices.ContainsFunc(sealers, untrusted):
				found = "arc"
			case belowAny(sealers[0], j.local.forwarders):
				found = "forwarder"
			}
		})
	}
	if found != "" {
		return found, nil
	}
	return "", open
}

func belowAny(name string, domains []string) bool {
	return slices.ContainsFunc(domains, func(d string) bool { return below(name, d) })
}

package spf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/orgdomain"
)

// The results of RFC 7208, 2.6.
const (
	None      = "none"      // there is no policy, or no domain that could have one
	Neutral   = "neutral"   // the domain says nothing about this client
	Pass      = "pass"      // the client may send for the domain
	Fail      = "fail"      // it may not
	SoftFail  = "softfail"  // it may probably not
	TempError = "temperror" // the DNS did not answer, and the question stays open
	PermError = "permerror" // what the domain has published cannot be used
)

// A Query asks whether a client may use an identity.
type Query struct {
	Client netip.Addr
	// Local and Domain are the sender's. Without a domain the identity is the one of HELO (RFC 7208, 2.4); without a
	// local part it is postmaster.
	Local, Domain string
	Helo          string    // what the client calls itself
	Receiver      string    // what we call ourselves
	Now           time.Time // what the clock says, for %{t}
}

// Limits bound what one evaluation costs: RFC 7208, 4.6.4. Fields that are zero stand for those of DefaultLimits. Time is
// the context's.
type Limits struct {
	Lookups int // terms that ask the DNS
	Voids   int // of those: terms for which there is nothing
	Names   int // of one mx, or of the client for ptr and %{p}
	Answers int // DNS records in all
}

// DefaultLimits are those of the RFC, and 2,000 records.
func DefaultLimits() Limits { return Limits{Lookups: 10, Voids: 2, Names: 10, Answers: 2000} }

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	for _, x := range []struct{ have, want *int }{{&l.Lookups, &d.Lookups}, {&l.Voids, &d.Voids}, {&l.Names, &d.Names}, {&l.Answers, &d.Answers}} {
		if *x.have == 0 {
			*x.have = *x.want
		}
	}
	return l
}

// An Answer is what an evaluation came to.
type Answer struct {
	Result      string
	Domain      string   // whose policy was asked for, in A-labels; "" where there was no domain
	Record      string   // that domain's record as published, "" if there is none
	Mechanism   string   // what matched, "ip4:192.0.2.0/24", in the last record of Via; "default" if nothing did
	Via         []string // domains of the records that include and redirect led to, up to the one that decided
	Explanation string   // what the domain says about a fail, as published: hostile text
	Lookups     int      // terms that asked the DNS
	Voids       int      // of those: without an answer
	Err         error    // why it is a temperror, a permerror or none
}

// Check evaluates the policy of a domain: check_host() of RFC 7208, 4. It asks nothing but the resolver, and everything
// that it has begun has ended when it returns.
func Check(ctx context.Context, r pipeline.Resolver, l Limits, q Query) Answer {
	domain := q.Domain
	if domain == "" {
		domain = q.Helo
	}
	name, ok := orgdomain.Canonical(domain)
	if !ok || !isHost(name) {
		return Answer{Result: None, Err: fmt.Errorf("%.100q is no domain name", domain)}
	}
	if q.Local == "" || q.Domain == "" {
		q.Local = "postmaster" // RFC 7208, 2.4 and 4.3
	}
	if !q.Client.IsValid() {
		return Answer{Result: None, Domain: name, Err: errors.New("the client's address is not known")}
	}
	ctx, cancel := context.WithCancel(ctx)
	client := q.Client.Unmap().WithZone("")
	e := &evaluation{
		values:  values{q.Local, name, q.Helo, client, q.Receiver, q.Now},
		lookups: lookups{ctx: ctx, resolver: r, client: client, limits: l.orDefault(), begun: make(map[question]*lookup, 8)},
	}
	e.key = e.question
	defer e.wg.Wait()
	defer cancel()
	v := e.check(name)
	a := Answer{
		Result: v.result, Domain: name, Record: v.record, Mechanism: v.mechanism, Via: v.via,
		Lookups: e.counted, Voids: e.voids, Err: v.err,
	}
	if a.Result == Fail && v.exp != "" {
		a.Explanation = e.explain(v.exp, v.expDomain)
	}
	return a
}

// isHost reports whether a domain can have a policy: RFC 7208, 4.3. Address literals and single labels cannot.
func isHost(name string) bool {
	name = strings.TrimSuffix(name, ".")
	dot := strings.LastIndexByte(name, '.')
	return dot >= 0 && askable(name) && isTopLabel(name[dot+1:])
}

// An evaluation is one run of check_host(), with all that include and redirect lead to.
type evaluation struct {
	lookups
	values
	counted  int // terms that asked the DNS
	voids    int
	answers  int
	ptrAsked bool // by a term that was counted
}

// A verdict is what one record came to.
type verdict struct {
	result         string
	record         string
	mechanism      string
	via            []string
	exp, expDomain string
	err            error
}

func failed(err error) verdict {
	var p permanent
	if errors.As(err, &p) {
		return verdict{result: PermError, err: err}
	}
	return verdict{result: TempError, err: err}
}

// check evaluates the record of a domain: RFC 7208, 4.
func (e *evaluation) check(domain string) verdict {
	if !isHost(domain) {
		return verdict{result: None, err: fmt.Errorf("%.100q is no domain name", domain)}
	}
	l, err := e.consume(question{askPolicy, domain})
	switch {
	case err != nil:
		v := failed(err)
		v.record = l.text
		return v
	case l.record == nil:
		return verdict{result: None, err: fmt.Errorf("%s has no record", domain)}
	}
	v := e.evaluate(l.record, domain)
	v.record = l.text
	return v
}

func (e *evaluation) evaluate(r *record, domain string) verdict {
	for i := range r.directives {
		d := &r.directives[i]
		matched, inner, err := e.match(d, domain)
		if err != nil {
			v := failed(err)
			v.mechanism, v.via = d.text, inner.via
			return v
		}
		if matched {
			v := verdict{result: d.result, mechanism: d.text, via: inner.via, exp: r.exp, expDomain: domain}
			if d.mech == mechInclude {
				v.mechanism = inner.mechanism
			}
			return v
		}
	}
	if r.redirect == "" {
		return verdict{result: Neutral, mechanism: "default"} // RFC 7208, 4.7
	}
	target, err := e.target(r.redirect, domain, true)
	if err != nil {
		return failed(err)
	}
	v := e.check(target)
	if v.result == None { // RFC 7208, 6.1
		v.result, v.err = PermError, permanent{fmt.Errorf("redirect: %w", v.err)}
	}
	v.via = append([]string{target}, v.via...)
	return v
}

// match asks one directive: RFC 7208, 5. inner is what an include came to.
func (e *evaluation) match(d *directive, domain string) (matched bool, inner verdict, err error) {
	switch d.mech {
	case mechAll:
		return true, inner, nil
	case mechIP4, mechIP6:
		return d.prefix.Contains(e.values.client), inner, nil
	}
	target, err := e.target(d.target, domain, true)
	if err != nil {
		return false, inner, err
	}
	if d.mech == mechInclude {
		inner = e.check(target)
		inner.via = append([]string{target}, inner.via...)
		switch inner.result { // RFC 7208, 5.2
		case Pass:
			return true, inner, nil
		case None:
			return false, inner, permanent{fmt.Errorf("include: %w", inner.err)}
		case TempError, PermError:
			return false, inner, inner.err
		}
		return false, inner, nil
	}
	again := d.mech == mechPTR && e.ptrAsked // that the client has no name counts once
	l, err := e.consume(ask(d.mech, target, e.values.client.Is4()))
	if l.void && !again {
		if e.voids++; e.voids > e.limits.Voids {
			return false, inner, permanent{fmt.Errorf("more than %d terms for which there is nothing in the DNS", e.limits.Voids)}
		}
	}
	switch d.mech {
	case mechExists:
		matched = len(l.addrs) > 0
	case mechPTR:
		for _, name := range l.names {
			matched = matched || within(name, target)
		}
	default:
		matched = l.holds(e.values.client, d)
	}
	var p permanent
	if matched && !errors.As(err, &p) && e.ctx.Err() == nil {
		return true, inner, nil // another host of the same mx may have failed
	}
	return false, inner, err
}

// ask returns the question of a mechanism about a target.
func ask(m mechanism, target string, four bool) question {
	switch m {
	case mechInclude:
		return question{askPolicy, target}
	case mechMX:
		return question{askMX, target}
	case mechPTR:
		return question{askPTR, ""}
	case mechExists:
		if !four {
			return question{askExists, target}
		}
	}
	return question{askAddr, target}
}

func (l *lookup) holds(client netip.Addr, d *directive) bool {
	bits := d.bits6
	if client.Is4() {
		bits = d.bits4
	}
	for _, a := range l.addrs {
		if netip.PrefixFrom(a.Unmap(), bits).Contains(client) {
			return true
		}
	}
	return false
}

// within reports whether name is domain or below it.
func within(name, domain string) bool {
	if domain == "" || len(name) < len(domain) {
		return false
	}
	rest := len(name) - len(domain)
	return strings.EqualFold(name[rest:], domain) && (rest == 0 || name[rest-1] == '.')
}

// count counts a term that asks the DNS; it is not asked beyond the limit (RFC 7208, 4.6.4).
func (e *evaluation) count() error {
	if e.counted >= e.limits.Lookups {
		return permanent{fmt.Errorf("more than %d terms that ask the DNS", e.limits.Lookups)}
	}
	e.counted++
	return nil
}

// target counts a term and returns the name that it is about.
func (e *evaluation) target(spec, domain string, counts bool) (string, error) {
	if counts {
		if err := e.count(); err != nil {
			return "", err
		}
	}
	if spec == "" {
		return domain, nil
	}
	name, err := e.expand(spec, domain, false, func() (string, error) {
		// RFC 7208, 4.6.4: what %{p} asks counts too, once.
		if !e.ptrAsked {
			if err := e.count(); err != nil {
				return "", err
			}
			e.ptrAsked = true
		}
		return e.validated(domain)
	})
	return truncate(name), err
}

// question is what a directive, or redirect after them, will ask, if that can be said without asking.
func (e *evaluation) question(r *record, i int, domain string) (question, bool) {
	spec, m := r.redirect, mechInclude
	if i < len(r.directives) {
		spec, m = r.directives[i].target, r.directives[i].mech
	}
	if i == len(r.directives) && spec == "" || !m.looks() {
		return question{}, false
	}
	name := domain
	if spec != "" {
		var err error
		if name, err = e.expand(spec, domain, false, func() (string, error) { return "", errMacro }); err != nil {
			return question{}, false
		}
		name = truncate(name)
	}
	q := ask(m, name, e.values.client.Is4())
	return q, q.ask != askPolicy || isHost(name)
}

// consume waits for an answer and counts its records.
func (e *evaluation) consume(q question) (*lookup, error) {
	l := e.need(q)
	if err := e.ctx.Err(); err != nil { // whatever came of it: it may be due to that
		return l, fmt.Errorf("no answer in time: %w", err)
	}
	if q.ask == askPTR {
		e.ptrAsked = true
	}
	if e.answers += l.answers; e.answers > e.limits.Answers {
		return l, permanent{fmt.Errorf("more than %d records in the DNS", e.limits.Answers)}
	}
	return l, l.err
}

// validated returns what %{p} stands for: RFC 7208, 7.3.
func (e *evaluation) validated(domain string) (string, error) {
	l, err := e.consume(question{ask: askPTR})
	if err != nil {
		return "", err
	}
	best, rank := "unknown", 0
	for _, name := range l.names {
		n := 1
		switch {
		case strings.EqualFold(name, domain):
			n = 3
		case within(name, domain):
			n = 2
		}
		if n > rank {
			best, rank = name, n
		}
	}
	return best, nil
}

// explain returns the explanation of a fail, "" where there is none that can be used: RFC 7208, 6.2. Its look-ups count
// against no limit.
func (e *evaluation) explain(spec, domain string) string {
	p := func() (string, error) { return e.validated(domain) }
	name, err := e.expand(spec, domain, false, p)
	if err != nil {
		return ""
	}
	text := e.need(question{askExplain, truncate(name)}).text
	if checkMacros(text, true) != nil {
		return ""
	}
	text, err = e.expand(text, domain, true, p)
	if err != nil {
		return ""
	}
	return text
}

// Package spf says whether a client may send for the domain it names: RFC 7208, an evaluator of our own.
package spf

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/orgdomain"
)

// Kind is the kind of stage the configuration calls spf. It is skipped where the DNS does not answer: most policies do
// not decide about a mail by themselves, and a domain whose servers are down must not stop its mail. A site that refuses
// by SPF alone sets on_error to postpone. RFC 7208, 4.6.4 wants 20 seconds for a check where they are needed: timeout.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "spf",
		Doc: "Checks whether the client may send for the sender's domain and for its HELO name (RFC 7208). It is skipped where " +
			"the DNS does not answer: a domain whose servers are down must not stop its mail.",
		OnError: pipeline.Skip,
		Config: func() any {
			d := DefaultLimits()
			return &Config{Lookups: d.Lookups, VoidLookups: d.Voids, Names: d.Names, Answers: d.Answers}
		},
		Fact: func(any) any { return Fact{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			c := config.(*Config)
			if c.Lookups < 1 || c.VoidLookups < 1 || c.Names < 1 || c.Answers < 1 {
				return nil, errors.New("lookups, void_lookups, names and answers are at least 1")
			}
			return []pipeline.Stage{&stage{env.Resolver, env.Hostname, Limits{c.Lookups, c.VoidLookups, c.Names, c.Answers}}}, nil
		},
	}
}

// Config is the section of an spf step.
type Config struct {
	// Lookups is how many terms of a policy may ask the DNS before it is a permerror. RFC 7208 says 10, always.
	Lookups int `yaml:"lookups"`
	// VoidLookups is how many of them may find nothing there.
	VoidLookups int `yaml:"void_lookups"`
	// Names is how many mail exchangers a domain may have for mx, and how many names of the client are looked at for ptr.
	Names int `yaml:"names"`
	// Answers is how many DNS records one check reads before the policy is a permerror.
	Answers int `yaml:"answers"`
}

// A Fact is what rules see of SPF.
type Fact struct {
	Result      string   `json:"result" expr:"result" oneof:"none neutral pass fail softfail permerror" example:"fail"` // none, neutral, pass, fail, softfail or permerror
	Identity    string   `json:"identity" expr:"identity" example:"mailfrom"`                                           // whose domain was asked: mailfrom, or helo for the null sender
	Domain      string   `json:"domain" expr:"domain" example:"bank.example"`                                           // whose policy was asked for, in A-labels; "" where there is none
	Mechanism   string   `json:"mechanism" expr:"mechanism" example:"ip4:192.0.2.0/24"`                                 // what matched: "ip4:192.0.2.0/24", "all"; "default" if nothing did
	Via         []string `json:"via" expr:"via" example:"_spf.bank.example"`                                            // domains that include and redirect led to, the last with the mechanism
	Record      string   `json:"record" expr:"record"`                                                                  // the domain's policy as published, cut at 1000 octets
	Reason      string   `json:"reason" expr:"reason"`                                                                  // why it is none or permerror
	Explanation string   `json:"explanation" expr:"explanation"`                                                        // what the domain says about a fail: a stranger's text, one line of ASCII
	Pool        string   `json:"pool" expr:"pool" example:"bank.example"`                                               // at pass, whose network it is: organisational domain of the policy that matched by more than "all"
	Helo        string   `json:"helo" expr:"helo" example:"pass"`                                                       // the result for the HELO name
	HeloDomain  string   `json:"helo_domain" expr:"helo_domain" example:"mail.example.org"`                             // the HELO name, if it is a domain
	Lookups     int      `json:"lookups" expr:"lookups" example:"8"`                                                    // terms of the policy that asked the DNS
	VoidLookups int      `json:"void_lookups" expr:"void_lookups" example:"2"`                                          // of those: terms for which there is nothing
}

// SPFPool is the pool, for those who know clients by it.
func (f Fact) SPFPool() string { return f.Pool }

// How long texts in the fact may be, in octets; and what of a long list of domains is kept.
const (
	maxRecord = 1000
	maxTerm   = 253
)

type stage struct {
	resolver pipeline.Resolver
	hostname string
	limits   Limits
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: pipeline.InputClient | pipeline.InputGreeting | pipeline.InputSender, Waits: true, Strangers: true}
}

// Check evaluates both identities at once. A temporary error about the sender is an error of the stage; one about HELO
// leaves that field unknown.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	ctx, cancel := early(ctx)
	defer cancel()
	q := Query{Client: v.Client.Addr, Local: v.Sender.Mailbox(), Domain: v.Sender.Domain, Helo: v.Greeting, Receiver: s.hostname, Now: v.Received}
	var sender, helo Answer
	var wg sync.WaitGroup // has ended when Check returns
	if q.Domain != "" {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil { // beyond the reach of who guards the stage
					helo = Answer{Result: TempError, Err: fmt.Errorf("panic: %v", p)}
				}
			}()
			helo = Check(ctx, s.resolver, s.limits, Query{Client: q.Client, Helo: q.Helo, Receiver: q.Receiver, Now: q.Now})
		})
	}
	sender = Check(ctx, s.resolver, s.limits, q)
	wg.Wait()
	identity := "mailfrom"
	if q.Domain == "" {
		identity, helo = "helo", sender
	}
	if sender.Result == TempError {
		return pipeline.Result{}, fmt.Errorf("spf of %s: %w", sender.Domain, sender.Err)
	}
	r := pipeline.Result{Fact: newFact(identity, sender, helo)}
	if helo.Result == TempError {
		r.Missing = map[string]error{"helo": fmt.Errorf("spf of %s: %w", helo.Domain, helo.Err)}
	}
	return r, nil
}

// early ends a little before ctx does, so that what one identity came to is not lost because the other hangs.
func early(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, end.Add(-time.Until(end)/20))
}

func newFact(identity string, a, helo Answer) Fact {
	f := Fact{
		Result: a.Result, Identity: identity, Domain: a.Domain,
		Mechanism: printable(a.Mechanism, maxTerm), Record: printable(a.Record, maxRecord), Via: make([]string, len(a.Via)),
		Explanation: pipeline.CleanText(a.Explanation), Helo: helo.Result, HeloDomain: helo.Domain,
		Lookups: a.Lookups, VoidLookups: a.Voids,
	}
	for i, domain := range a.Via {
		f.Via[i] = printable(domain, maxTerm)
	}
	if a.Err != nil {
		f.Reason = printable(a.Err.Error(), maxRecord)
	}
	if a.Result == Pass && a.Mechanism != "all" {
		f.Pool = a.Domain
		if n := len(a.Via); n > 0 {
			f.Pool = a.Via[n-1]
		}
		f.Pool, _ = orgdomain.Of(f.Pool)
	}
	return f
}

// printable returns the beginning of s with what is not printable ASCII replaced.
func printable(s string, most int) string {
	b := []byte(s[:min(len(s), most)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

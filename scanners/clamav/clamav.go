// Package clamav has clamd look for viruses.
//
// The commands go through go-clamd, which turns errors into "OK" where one believes it: see relay.go for how it is
// watched. A mail is clean only if clamd has been sent all of it and has answered once, with OK.
package clamav

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/scanners/peer"
)

// Kind is the kind of stage the configuration calls clamav. While no clamd answers mail is postponed: its sender keeps
// it and tries again, and nobody gets mail that was to be scanned and was not.
//
// What can never be scanned, because it is too large or because clamd reached a limit of its own, is no error, for a
// later try would end as this one: `infected` is unknown, and rules decide with known(clamav.infected).
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name:    "clamav",
		Doc:     "Has clamd look for viruses. While none answers mail is postponed: what was to be scanned is not let pass unscanned.",
		OnError: pipeline.Postpone,
		Config: func() any {
			return &Config{
				Addresses: []string{"unix:/run/clamav/clamd.ctl"},
				MaxSize:   100 << 20,
				AtOnce:    8,
				Within:    25 * time.Second,
				Ping:      3 * time.Second,
			}
		},
		Fact: func(any) any { return Scanned{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s, err := newStage(*config.(*Config), env)
			if err != nil {
				return nil, err
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// Config is the section of one clamav step.
type Config struct {
	// Addresses are the clamds to ask, "unix:/run/clamav/clamd.ctl" or "127.0.0.1:3310". The one with the fewest scans
	// under way is asked, of equals the first; where it gives no answer, the next.
	Addresses []string `yaml:"addresses"`
	// MaxSize is the size in octets from which on mail is not scanned: whether it is infected is unknown then. Let it be no
	// more than clamd's StreamMaxLength, MaxFileSize and MaxScanSize: beyond the last two clamd says OK without looking.
	MaxSize int64 `yaml:"max_size"`
	// AtOnce is how many scans each clamd is given at once; further ones wait. Let it be less than clamd's MaxThreads.
	AtOnce int `yaml:"at_once"`
	// Within is how long one clamd has for a scan; then the next is asked. `timeout` is how long all may take together.
	Within time.Duration `yaml:"within"`
	// Ping is how long a clamd that has not answered for a second has to say that it is there, before it is given a mail.
	Ping time.Duration `yaml:"ping"`
}

// Scanned is what rules see.
type Scanned struct {
	Infected  bool   `json:"infected" expr:"infected"`                                  // whether clamd found anything
	Signature string `json:"signature" expr:"signature" example:"Win.Test.EICAR_HDB-1"` // what it found: "Win.Test.EICAR_HDB-1"
	Clamd     string `json:"clamd" expr:"clamd" example:"unix:/run/clamav/clamd.ctl"`   // which clamd answered
	Version   string `json:"version" expr:"version" example:"ClamAV 1.4.3/27812"`       // of it and of its database: "ClamAV 1.4.6/27812/Sat Nov 21 …"
	Scanned   int64  `json:"scanned" expr:"scanned" example:"1000"`                     // octets of the mail that it looked at
}

type stage struct {
	daemons []*daemon
	maxSize int64
}

func newStage(c Config, env pipeline.Env) (*stage, error) {
	var wrong []error
	if len(c.Addresses) == 0 {
		wrong = append(wrong, errors.New(`addresses: there is none; write for example ["unix:/run/clamav/clamd.ctl"]`))
	}
	for _, x := range []struct {
		key string
		bad bool
		is  any
	}{{"max_size", c.MaxSize <= 0, c.MaxSize}, {"at_once", c.AtOnce <= 0, c.AtOnce}, {"within", c.Within <= 0, c.Within}, {"ping", c.Ping <= 0, c.Ping}} {
		if x.bad {
			wrong = append(wrong, fmt.Errorf("%s: %v is too little", x.key, x.is))
		}
	}
	s := &stage{maxSize: c.MaxSize}
	for i, a := range c.Addresses {
		if slices.Contains(c.Addresses[:i], a) {
			wrong = append(wrong, fmt.Errorf("addresses: %s stands here twice", a))
			continue
		}
		p, err := peer.New(peer.Config{Name: "clamd", Address: a, AtOnce: max(c.AtOnce, 1), Connect: c.Ping}, env)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("addresses: %w", err))
			continue
		}
		s.daemons = append(s.daemons, &daemon{Peer: p, name: a, within: c.Within, ping: c.Ping, env: env})
	}
	return s, errors.Join(wrong...)
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads { return pipeline.Reads{Input: pipeline.InputBody, Waits: true} }

// Check asks one clamd after the other until one has scanned the mail.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	size := v.Message.Size()
	if size+int64(len(prefix)) > s.maxSize {
		return unknown(Scanned{}, fmt.Errorf("too large to scan: %d octets, of at most %d", size, s.maxSize),
			"infected", "signature", "clamd", "version"), nil
	}
	var failed []error
	for _, p := range s.order() {
		r, err := p.scan(ctx, v.Message)
		if err != nil {
			failed = append(failed, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		fact := Scanned{Infected: r.infected, Signature: r.signature, Clamd: p.name, Version: r.version, Scanned: size}
		var out pipeline.Result
		if strings.HasPrefix(r.signature, limitsExceeded) {
			fact.Infected = false
			out = unknown(fact, fmt.Errorf("clamd reached a limit of its own: %s", r.signature), "infected")
		} else {
			out = pipeline.Result{Fact: fact}
		}
		if r.versionErr != nil {
			if out.Missing == nil {
				out.Missing = map[string]error{}
			}
			out.Missing["version"] = fmt.Errorf("ask %s: %w", p, r.versionErr)
		}
		return out, nil
	}
	return pipeline.Result{}, errors.Join(failed...)
}

// limitsExceeded begins the names of what clamd "finds" with AlertExceedsMax where it has not looked at everything.
const limitsExceeded = "Heuristics.Limits.Exceeded"

func unknown(fact Scanned, why error, fields ...string) pipeline.Result {
	r := pipeline.Result{Fact: fact, Missing: map[string]error{}}
	for _, f := range fields {
		r.Missing[f] = why
	}
	return r
}

// order is the order in which the clamds are asked now.
func (s *stage) order() []*daemon {
	scans := make(map[*daemon]int64, len(s.daemons))
	for _, d := range s.daemons {
		scans[d] = d.scans.Load()
	}
	return slices.SortedStableFunc(slices.Values(s.daemons), func(a, b *daemon) int { return cmp.Compare(scans[a], scans[b]) })
}

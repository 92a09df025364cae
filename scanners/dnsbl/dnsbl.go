// Package dnsbl looks the client up in DNS lists (RFC 5782).
package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sluice/pipeline"
	"sluice/scanners/dnslist"
)

// Kind is the kind of stage the configuration calls dnsbl. A list that does not answer is skipped: mail must not wait
// for somebody else's service, and rules see that its answer is unknown.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "dnsbl",
		Doc: "Looks the client's address up in DNS lists. It is skipped where none answers: mail must not wait for somebody else's " +
			"service.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{} },
		Fact: func(config any) any {
			f := pipeline.Named[dnslist.Listed]{}
			for name := range config.(*Config).Lists {
				f[name] = dnslist.Listed{}
			}
			return f
		},
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s, err := newStage(*config.(*Config), env)
			if err != nil {
				return nil, err
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// Config is the section of one dnsbl step.
type Config struct {
	// Lists are the lists to ask, of those to refuse and of those to trust, by the name that rules use: dnsbl.zen.listed.
	Lists map[string]dnslist.Config `yaml:"lists" example:"{zen: {zone: zen.spamhaus.org}}"`
}

type stage struct {
	names []string // sorted
	lists map[string]*dnslist.List
}

func newStage(c Config, env pipeline.Env) (*stage, error) {
	s := &stage{lists: map[string]*dnslist.List{}}
	var wrong []error
	if len(c.Lists) == 0 {
		wrong = append(wrong, errors.New("lists: there is none; write for example `lists: {zen: {zone: zen.spamhaus.org}}`"))
	}
	for name, l := range c.Lists {
		if !dnslist.Name.MatchString(name) {
			wrong = append(wrong, fmt.Errorf("lists: %s: rules cannot use this name: write lower-case letters, digits and _, a letter first", name))
		}
		list, err := dnslist.New(l, dnslist.Addresses(), env)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("lists: %s: %w", name, err))
		}
		s.names, s.lists[name] = append(s.names, name), list
	}
	slices.Sort(s.names)
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return s, errors.Join(wrong...)
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: pipeline.InputClient, Waits: true, Strangers: true}
}

// Check asks all lists at once. A list that does not answer leaves its own field unknown; if none answers that is an
// error of the stage.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	client := reversed(v.Client.Addr)
	found, failed := make([]dnslist.Listed, len(s.names)), make([]error, len(s.names))
	var wg sync.WaitGroup // all have ended when Check returns
	for i, name := range s.names {
		wg.Go(func() { found[i], failed[i] = s.lists[name].Ask(ctx, client) })
	}
	wg.Wait()
	fact, missing := pipeline.Named[dnslist.Listed]{}, map[string]error{}
	for i, name := range s.names {
		fact[name] = found[i]
		if failed[i] != nil {
			missing[name] = failed[i]
			failed[i] = fmt.Errorf("%s: %w", name, failed[i])
		}
	}
	if len(missing) == len(s.names) {
		return pipeline.Result{}, errors.Join(failed...)
	}
	return pipeline.Result{Fact: fact, Missing: missing}, nil
}

// reversed is the address as lists are asked for it: octets of IPv4, nibbles of IPv6 (RFC 5782, 2.1 and 2.4).
func reversed(a netip.Addr) string {
	var b strings.Builder
	a = a.Unmap()
	if a.Is4() {
		for _, x := range slices.Backward(a.AsSlice()) {
			b.WriteString(strconv.Itoa(int(x)) + ".")
		}
	} else {
		for _, x := range slices.Backward(a.AsSlice()) {
			fmt.Fprintf(&b, "%x.%x.", x&15, x>>4)
		}
	}
	return strings.TrimSuffix(b.String(), ".")
}

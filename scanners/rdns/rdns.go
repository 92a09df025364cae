// Package rdns asks what the client's address is called, and whether that name leads back to it (RFC 8601, 2.7.3).
package rdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"sluice/pipeline"
	"sluice/scanners/resolve"
)

// Kind is the kind of stage the configuration calls rdns. Without an answer mail goes on: whoever runs the client's zone
// is seldom the one who sends the mail, and rules see that the answer is unknown.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "rdns",
		Doc: "Asks for the names of the client's address, and whether they lead back to it. It is skipped where the DNS does not " +
			"answer: whoever runs the client's zone is seldom the one who sends the mail.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{Names: 10} },
		Fact:    func(any) any { return Fact{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			c := *config.(*Config)
			if c.Names < 1 {
				return nil, fmt.Errorf("names: %d is too few to look at; write for example `names: 10`", c.Names)
			}
			return []pipeline.Stage{stage{c, env.Resolver}}, nil
		},
	}
}

// Config is the section of an rdns step.
type Config struct {
	// Names is how many names of one address are looked at; the others are not asked about.
	Names int `yaml:"names"`
}

// Fact is what rules see.
type Fact struct {
	Result    string   `json:"result" expr:"result" oneof:"pass fail permerror" example:"fail"` // as iprev: "pass", "fail", "permerror" where there is no name, or far too many
	Name      string   `json:"name" expr:"name" example:"mail.example.org"`                     // the first that leads back to the address, "" if none does
	Confirmed bool     `json:"confirmed" expr:"confirmed"`                                      // whether one does
	Names     []string `json:"names" expr:"names" example:"mail.example.org"`                   // all that were looked at, in order
	// Generic: the name is made from the address, as names of dial-up and cloud machines nobody has named.
	Generic bool `json:"generic" expr:"generic"`
}

type stage struct {
	config   Config
	resolver pipeline.Resolver
}

// Reads implements pipeline.Stage.
func (s stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: pipeline.InputClient, Waits: true, Strangers: true}
}

// Check asks for the names, and for the addresses of all of them at once. A name that cannot be looked up leaves the
// question open, unless another one leads back.
func (s stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	client := v.Client.Addr.Unmap().WithZone("")
	names, err := s.resolver.LookupPTR(ctx, client)
	if notFound(err) || errors.Is(err, resolve.ErrTooMany) || err == nil && len(names) == 0 {
		return pipeline.Result{Fact: Fact{Result: "permerror", Names: []string{}}}, nil
	}
	if err != nil {
		return pipeline.Result{}, fmt.Errorf("ask for the name of %s: %w", client, err)
	}
	for i, name := range names {
		names[i] = strings.ToLower(strings.TrimSuffix(name, "."))
	}
	slices.Sort(names) // servers turn their answers round
	names = slices.Compact(names)
	names = names[:min(len(names), s.config.Names)]

	look := s.resolver.LookupA
	if client.Is6() {
		look = s.resolver.LookupAAAA
	}
	leads, failed := make([]bool, len(names)), make([]error, len(names))
	var wg sync.WaitGroup // all have ended when Check returns
	for i, name := range names {
		wg.Go(func() {
			addrs, err := look(ctx, name)
			if err != nil && !notFound(err) && !errors.Is(err, resolve.ErrTooMany) {
				failed[i] = fmt.Errorf("ask for the address of %s: %w", name, err)
			}
			leads[i] = slices.Contains(addrs, client)
		})
	}
	wg.Wait()
	f := Fact{Result: "fail", Names: names, Generic: generic(names[0], client)}
	if i := slices.Index(leads, true); i >= 0 {
		f.Result, f.Confirmed, f.Name, f.Generic = "pass", true, names[i], generic(names[i], client)
	} else if err := errors.Join(failed...); err != nil {
		return pipeline.Result{}, err
	}
	return pipeline.Result{Fact: f}, nil
}

func notFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// generic reports whether a name is made from the address: its first labels have the last two octets of an IPv4 address as
// numbers, in decimal or all four in hex, or the last eight nibbles of an IPv6 one.
func generic(name string, a netip.Addr) bool {
	if a.Is6() {
		b := a.As16()
		digits := strings.Map(keep("0123456789abcdef"), name)
		return strings.Contains(digits, fmt.Sprintf("%02x%02x%02x%02x", b[12], b[13], b[14], b[15])) && b != [16]byte{}
	}
	b := a.As4()
	if strings.Contains(name, fmt.Sprintf("%02x%02x%02x%02x", b[0], b[1], b[2], b[3])) {
		return true
	}
	if strings.Contains(name, fmt.Sprintf("%03d%03d%03d%03d", b[0], b[1], b[2], b[3])) {
		return true
	}
	numbers := strings.FieldsFunc(name, func(r rune) bool { return r < '0' || r > '9' })
	for i := range numbers {
		numbers[i] = strings.TrimLeft(numbers[i], "0")
	}
	number := func(x byte) string { return strings.TrimLeft(fmt.Sprint(x), "0") }
	for i := range len(numbers) - 1 {
		x, y := numbers[i], numbers[i+1]
		if x == number(b[2]) && y == number(b[3]) || x == number(b[3]) && y == number(b[2]) {
			return true
		}
	}
	return false
}

// keep drops all runes but these.
func keep(these string) func(rune) rune {
	return func(r rune) rune {
		if strings.ContainsRune(these, r) {
			return r
		}
		return -1
	}
}

// Package links looks up what a mail leads to in DNS lists: the domains of its links and senders, and hashes of the
// addresses and files in it.
package links

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sluice/pipeline"
	"sluice/pipeline/orgdomain"
	"sluice/scanners/dnslist"
)

// Kind is the kind of stage the configuration calls links. A list that does not answer is skipped: mail must not wait for
// somebody else's service, and rules see that its answer is unknown.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "links",
		Doc: "Looks up domains, addresses and files of the mail in DNS lists. It is skipped where none answers: mail must not wait for " +
			"somebody else's service.",
		Step:    "uribl", // links are those of the message
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{Most: 30} },
		Fact: func(config any) any {
			f := pipeline.Named[Found]{}
			for name := range config.(*Config).Lists {
				f[name] = Found{}
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

// Config is the section of a links step.
type Config struct {
	// Lists are the lists to ask, by the name that rules use: uribl.surbl.listed.
	Lists map[string]List `yaml:"lists" example:"{surbl: {zone: multi.surbl.org, codes: [\"&248\"]}}"`
	// Ignore are domains that are never asked for, with all below them: our own, and those that everybody links to.
	Ignore []string `yaml:"ignore" example:"[example.org, w3.org]"`
	// Most is how many different names of one mail each list is asked for at most: of more some from the beginning, some from
	// the end and some from between, of each domain alike. What is left out is counted in unasked.
	Most int `yaml:"most"`
}

// List is one list and what it is asked for.
type List struct {
	dnslist.Config `yaml:",inline"`
	// Of says what of the mail is looked up: links (the hosts of its URLs), from, sender (of the envelope), reply_to, helo
	// (their domains); for a list of hashes addresses (in these fields and the text) or files. Default: [links].
	Of []string `yaml:"of"`
	// Host asks for host names as they stand; else for the organisational domain, as most lists want.
	Host bool `yaml:"host"`
	// Hash makes it a list of hashes: md5, sha1 or sha256 of the address in lower case, or of the file.
	Hash string `yaml:"hash" example:"sha1"`
	// Base32 writes hashes in base32 instead of hexadecimal digits.
	Base32 bool `yaml:"base32"`
}

// Found is what rules see of one list.
type Found struct {
	Listed  bool     `json:"listed" expr:"listed"`                   // whether anything is on it
	Codes   []string `json:"codes" expr:"codes" example:"127.0.0.2"` // what the list answered, of all that is on it
	Names   []string `json:"names" expr:"names" example:"phishing"`  // what the configuration calls these answers
	Hits    []string `json:"hits" expr:"hits" example:"bad.example"` // what is on it: "bad.example", an address, a file's name
	Asked   int      `json:"asked" expr:"asked" example:"20"`        // how many names were looked up
	Unasked int      `json:"unasked" expr:"unasked" example:"1"`     // how many were left out, for the limit or because the list failed for them
}

type stage struct {
	lists   []list // by name
	ignored []string
	most    int
	input   pipeline.Input
}

type list struct {
	name string
	List
	of   map[string]bool
	zone *dnslist.List
}

func newStage(c Config, env pipeline.Env) (*stage, error) {
	s := &stage{most: c.Most, input: pipeline.InputSender | pipeline.InputHeader | pipeline.InputBody}
	var wrong []error
	if len(c.Lists) == 0 {
		wrong = append(wrong, errors.New("lists: there is none; write for example `lists: {surbl: {zone: multi.surbl.org, codes: [\"&248\"]}}`"))
	}
	if c.Most < 1 {
		wrong = append(wrong, fmt.Errorf("most: %d is too few to look up; write for example `most: 30`", c.Most))
	}
	for _, domain := range c.Ignore {
		name, ok := orgdomain.Canonical(strings.TrimPrefix(domain, "."))
		if !ok {
			wrong = append(wrong, fmt.Errorf("ignore: %q is no domain name", domain))
		}
		s.ignored = append(s.ignored, name)
	}
	for name, l := range c.Lists {
		x, err := newList(name, l, env)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("lists: %s: %w", name, err))
		}
		s.lists = append(s.lists, x)
		if x.of["helo"] { // a stage that reads it is not asked where the client is unknown
			s.input |= pipeline.InputGreeting
		}
	}
	slices.SortFunc(s.lists, func(a, b list) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return s, errors.Join(wrong...)
}

func newList(name string, c List, env pipeline.Env) (list, error) {
	x := list{name: name, List: c, of: map[string]bool{}}
	var wrong []error
	if !dnslist.Name.MatchString(name) {
		wrong = append(wrong, errors.New("rules cannot use this name: write lower-case letters, digits and _, a letter first"))
	}
	domains, hashes := []string{"links", "from", "sender", "reply_to", "helo"}, []string{"addresses", "files"}
	can, probe := domains, dnslist.Names()
	switch c.Hash {
	case "":
		if c.Base32 {
			wrong = append(wrong, errors.New("base32: is for lists of hashes; write also for example `hash: sha256`"))
		}
	case "md5", "sha1", "sha256":
		can = hashes
		if c.Host {
			wrong = append(wrong, errors.New("host: is for lists of domains; leave it out, or leave hash out"))
		}
		if len(c.Of) == 0 {
			wrong = append(wrong, errors.New("of: say of what: `of: [addresses]` or `of: [files]`"))
		}
		// Lists of hashes have no test points that all agree on.
		c.NoTestPoints = c.TestPoint == ""
	default:
		wrong = append(wrong, fmt.Errorf("hash: there is no %q; it is one of md5, sha1, sha256", c.Hash))
	}
	if len(c.Of) == 0 {
		c.Of = []string{"links"}
	}
	for _, of := range c.Of {
		switch {
		case slices.Contains(can, of):
			x.of[of] = true
		case slices.Contains(hashes, of):
			wrong = append(wrong, fmt.Errorf("of: %s are looked up by a hash; write also for example `hash: sha1`", of))
		default:
			wrong = append(wrong, fmt.Errorf("of: %q is not among %s", of, strings.Join(can, ", ")))
		}
	}
	if c.Hash == "sha256" && !c.Base32 {
		wrong = append(wrong, errors.New("hash: sha256 in hexadecimal digits is too long for a name; write also `base32: true`"))
	}
	if x.of["files"] && c.Hash != "sha256" {
		wrong = append(wrong, fmt.Errorf("hash: files are looked up by sha256, not %s", c.Hash))
	}
	var err error
	x.zone, err = dnslist.New(c.Config, probe, env)
	return x, errors.Join(append(wrong, err)...)
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: s.input, Waits: true}
}

// Check asks all lists for all names at once. A list that leaves a name open without listing another is itself left
// open; if none answers that is an error of the stage.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	found, failed := make([]Found, len(s.lists)), make([]error, len(s.lists))
	in := newContents(v, s.ignores)
	var wg sync.WaitGroup // all have ended when Check returns
	for i, l := range s.lists {
		keys := l.keys(in)
		found[i].Unasked = max(0, len(keys)-s.most)
		keys = choose(keys, s.most)
		wg.Go(func() { failed[i] = l.ask(ctx, keys, &found[i]) })
	}
	wg.Wait()
	fact, missing := pipeline.Named[Found]{}, map[string]error{}
	for i, l := range s.lists {
		fact[l.name] = found[i]
		if failed[i] != nil {
			missing[l.name] = failed[i]
			failed[i] = fmt.Errorf("%s: %w", l.name, failed[i])
		}
	}
	if len(missing) == len(s.lists) {
		return pipeline.Result{}, errors.Join(failed...)
	}
	return pipeline.Result{Fact: fact, Missing: missing}, nil
}

// ask looks all keys up at once. What is listed is known whatever became of the others.
func (l list) ask(ctx context.Context, keys []key, f *Found) error {
	said, failed := make([]dnslist.Listed, len(keys)), make([]error, len(keys))
	var wg sync.WaitGroup // all have ended when ask returns
	for i, k := range keys {
		wg.Go(func() { said[i], failed[i] = l.zone.Ask(ctx, k.name) })
	}
	wg.Wait()
	f.Codes, f.Names, f.Hits = []string{}, []string{}, []string{}
	var err error
	for i, k := range keys {
		if failed[i] != nil {
			f.Unasked++
			err = failed[i] // one tells enough
			continue
		}
		f.Asked++
		if said[i].Listed {
			f.Listed = true
			f.Hits = append(f.Hits, k.shown)
			f.Codes, f.Names = append(f.Codes, said[i].Codes...), append(f.Names, said[i].Names...)
		}
	}
	for _, list := range []*[]string{&f.Codes, &f.Names} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	if f.Listed {
		return nil
	}
	return err
}

func (s *stage) ignores(domain string) bool {
	return slices.ContainsFunc(s.ignored, func(x string) bool { return domain == x || strings.HasSuffix(domain, "."+x) })
}

package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"sluice/pipeline/mime"
)

// An override says what is otherwise for the mail of some recipients.
type override struct {
	pos     spot
	targets []target
	levels  []override1 // junk, quarantine, reject
	off, on []named     // rules
	scores  []override1 // by rule
	caps    []*family   // groups, with the bounds that are otherwise
	rules   []*rule     // that there are for these recipients only
}

// An override1 is one thing that is otherwise.
type override1 struct {
	named
	value   float64
	valueAt spot
}

// A target is a domain, or one user of a domain: "anna@example.org".
type target struct {
	named
	domain string // of the user; "" for a domain
}

func overrideKeys() []string {
	return []string{"for", "junk", "quarantine", "reject", "off", "on", "scores", "groups", "rules"}
}

// overrideList reads `overrides`.
func (r *reader) overrideList(n ast.Node) {
	for _, item := range r.items(n, "`overrides`") {
		r.override(item)
	}
}

func (r *reader) override(n ast.Node) {
	o := &override{pos: r.src.spotOf(n)}
	has := map[string]bool{}
	for _, e := range r.mapping(n, "an override", overrideKeys()) {
		has[e.name] = true
		switch e.name {
		case "for":
			for _, x := range r.names(e) {
				r.target(o, x)
			}
		case "junk", "quarantine", "reject":
			f, ok := r.number(e, e.name+": 5")
			if ok && f < 0 {
				r.at(e.value, fmt.Sprintf("`%s` of %v is no threshold", e.name, f), "write a number above 0, or 0 for none")
				continue
			}
			if ok {
				o.levels = append(o.levels, override1{named{e.name, r.src.spotOf(e.key)}, f, r.src.spotOf(e.value)})
			}
		case "off":
			o.off = r.names(e)
		case "on":
			o.on = r.names(e)
		case "scores":
			for _, x := range r.mapping(e.value, "`scores`", nil) {
				if f, ok := r.number(entry{"score", x.key, x.value}, x.name+": 2.5"); ok {
					o.scores = append(o.scores, override1{named{x.name, r.src.spotOf(x.key)}, f, r.src.spotOf(x.value)})
				}
			}
		case "groups":
			outer := r.groups
			r.groups = nil
			r.families(e.value)
			o.caps, r.groups = r.groups, outer
			for _, f := range o.caps {
				if at, ok := f.at["shadow"]; ok {
					r.report(at, "", "a group is a shadow group for everybody or for nobody", "take `shadow` out here; `off` switches rules off")
				}
			}
		case "rules":
			outer := r.rules
			r.rules = nil
			r.ruleList(e.value)
			o.rules, r.rules = r.rules, outer
			for _, x := range o.rules {
				x.only = o
			}
		}
	}
	switch {
	case len(has) == 0:
		return
	case !has["for"]:
		r.at(n, "the override is for nobody", "add `for: [example.org, anna@example.org]`")
	case len(has) == 1:
		r.at(n, "the override changes nothing", "add "+strings.Join(overrideKeys()[1:], ", ")+", any of them")
	}
	r.overrides = append(r.overrides, o)
}

// target reads one domain or address of `for`.
func (r *reader) target(o *override, x named) {
	name, user := x.name, strings.Contains(x.name, "@")
	if !user {
		name = "x@" + name
	}
	a, err := mime.ParseAddress(name)
	switch {
	case err != nil || a.Domain == "":
		r.report(x.at, "", fmt.Sprintf("%q is no domain and no address", x.name), "write for example example.org or anna@example.org")
		return
	case a.Tag != "":
		r.report(x.at, "", fmt.Sprintf("%q has a subaddress, and overrides do not look at it", x.name), fmt.Sprintf("write %s@%s", a.Local, a.Domain))
		return
	}
	t := target{named: named{a.Domain, x.at}}
	if user {
		t = target{named{userKey(a), x.at}, a.Domain}
	}
	if slices.ContainsFunc(o.targets, func(y target) bool { return y.name == t.name }) {
		r.report(x.at, "", fmt.Sprintf("%s is named twice", t.name), "take one out")
		return
	}
	o.targets = append(o.targets, t)
}

// userKey names the user of an address; the subaddress is the user's own business.
func userKey(a mime.Address) string { return a.Local + "@" + a.Domain }

// domains reports whether an override is for any whole domain.
func (o *override) domains() bool {
	return slices.ContainsFunc(o.targets, func(t target) bool { return t.domain == "" })
}

// takeOverrides puts the rules of overrides behind all others, those of domains before those of users only: a rule that is
// there for a few is decided about last, as if it had been written at the end, and does not go before what is for everybody.
func (s *ruleset) takeOverrides(all []*override) {
	slices.SortStableFunc(all, func(a, b *override) int {
		switch {
		case a.domains() == b.domains():
			return 0
		case a.domains():
			return -1
		}
		return 1
	})
	s.overrides = all
	for _, o := range all {
		s.rules = append(s.rules, o.rules...)
	}
}

// settleOverrides checks what overrides name, merges them for each domain and user that any is for, and notes which rules
// have to be asked for each recipient because of them.
func (s *ruleset) settleOverrides(th thresholds, r *reporter) {
	s.usual = th
	if len(s.overrides) == 0 {
		return
	}
	s.overridesFor, s.effective = map[string][]*override{}, map[string]*effective{}
	for _, o := range s.overrides {
		s.checkOverride(o, r)
		for _, t := range o.targets {
			s.overridesFor[t.name] = append(s.overridesFor[t.name], o)
		}
	}
	s.conflicts(r)
	for _, o := range s.overrides {
		for _, t := range o.targets {
			if s.effective[t.name] == nil {
				s.effective[t.name] = s.merge(t, th)
				s.effective[t.name].checkOrder(t.name, r)
			}
		}
	}
}

// checkOverride looks the names up that an override uses, and marks what they name.
func (s *ruleset) checkOverride(o *override, r *reporter) {
	rule := func(x named) *rule {
		if found, ok := s.named[x.name]; ok {
			return found
		}
		if !s.torn { // it may be in what could not be read
			r.report(x.at, "", fmt.Sprintf("there is no rule `%s`", x.name), didYouMean(x.name, s.ruleNames()))
		}
		return nil
	}
	for _, x := range o.rules {
		x.choosy = true
	}
	for _, x := range slices.Concat(o.off, o.on) {
		if found := rule(x); found != nil {
			found.choosy = true
		}
	}
	for _, x := range o.scores {
		found := rule(x.named)
		switch {
		case found == nil:
		case !found.scores:
			r.report(x.at, "", fmt.Sprintf("the rule `%s` has no score that could be another", x.name), fmt.Sprintf("give `%s` a score, be it `score: 0`", x.name))
		default:
			found.personal = true
		}
	}
	for _, f := range o.caps {
		if s.families[f.Name] == nil {
			if s.torn {
				continue
			}
			var names []string
			for name := range s.families {
				names = append(names, name)
			}
			r.report(f.pos, "", fmt.Sprintf("there is no group `%s`", f.Name), didYouMean(f.Name, names))
			continue
		}
		for _, x := range s.rules {
			if x.group != nil && x.group.Name == f.Name {
				x.personal = true
			}
		}
	}
	s.personalLevels = s.personalLevels || len(o.levels) > 0
}

// conflicts reports what is set twice for one domain or one user.
func (s *ruleset) conflicts(r *reporter) {
	type key struct{ who, what string }
	first := map[key]spot{}
	set := func(t target, what, says string, at spot) {
		k := key{t.name, what}
		if f, ok := first[k]; ok {
			r.report(at, "", fmt.Sprintf("%s for %s is set already, at %s", says, t.name, f), "take one out")
			return
		}
		first[k] = at
	}
	for _, o := range s.overrides {
		for _, t := range o.targets {
			for _, x := range o.levels {
				set(t, "level "+x.name, "`"+x.name+"`", x.at)
			}
			for _, x := range slices.Concat(o.off, o.on) {
				set(t, "rule "+x.name, "whether `"+x.name+"` is on or off", x.at)
			}
			for _, x := range o.scores {
				set(t, "score "+x.name, "the score of `"+x.name+"`", x.at)
			}
			for _, f := range o.caps {
				for _, k := range []string{"max", "min"} {
					if at, ok := f.at[k]; ok {
						set(t, k+" "+f.Name, fmt.Sprintf("`%s` of the group `%s`", k, f.Name), at)
					}
				}
			}
		}
	}
}

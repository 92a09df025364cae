package rules

import (
	"fmt"
	"math"
	"strconv"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"sluice/pipeline"
)

// A family is a group of rules: what they score together stays within bounds, and they may be tried as one.
type family struct {
	pipeline.Group
	pos    spot
	at     map[string]spot // of its keys
	shadow bool
}

// Groups are groups of rules written in the configuration itself. They keep the YAML, as [Inline] does.
type Groups struct {
	node ast.Node
}

// UnmarshalYAML takes the node of the mapping.
func (g *Groups) UnmarshalYAML(n ast.Node) error {
	g.node = n
	return nil
}

// MarshalJSON writes the mapping as plain values, so that the version of a plan changes when they do.
func (g Groups) MarshalJSON() ([]byte, error) { return Inline(g).MarshalJSON() }

// families reads `groups`.
func (r *reader) families(n ast.Node) {
	if n == nil {
		return
	}
	if _, null := n.(*ast.NullNode); null {
		return
	}
	for _, e := range r.mapping(n, "`groups`", nil) {
		if !ruleName.MatchString(e.name) || len(e.name) > maxName {
			r.at(e.key, fmt.Sprintf("%q is not the name of a group", e.name), "write lower-case letters, digits and _, a letter first")
			continue
		}
		f := &family{Group: pipeline.Group{Name: e.name}, pos: r.src.spotOf(e.key), at: map[string]spot{}}
		r.groups = append(r.groups, f)
		if _, null := e.value.(*ast.NullNode); null {
			continue
		}
		for _, x := range r.mapping(e.value, "a group", []string{"max", "min", "shadow"}) {
			f.at[x.name] = r.src.spotOf(x.value)
			switch x.name {
			case "max":
				f.Max = r.groupBound(x)
			case "min":
				f.Min = r.groupBound(x)
			case "shadow":
				f.shadow = r.boolean(x)
			}
		}
	}
}

// groupBound reads `max` or `min` of a group. Zero is always between them: rules that do not hold score nothing.
func (r *reader) groupBound(e entry) *float64 {
	f, ok := r.number(e, map[string]string{"max": "max: 6", "min": "min: -2"}[e.name])
	switch {
	case !ok:
	case e.name == "max" && f < 0:
		r.at(e.value, "`max` of a group is below 0, which is what it scores while none of its rules holds", "write 0 or more")
	case e.name == "min" && f > 0:
		r.at(e.value, "`min` of a group is above 0, which is what it scores while none of its rules holds", "write 0 or less")
	default:
		return &f
	}
	return nil
}

// number reads a number that is not in quotes, of a size that sums can bear.
func (r *reader) number(e entry, example string) (float64, bool) {
	text, ok := scalar(e.value)
	f, err := strconv.ParseFloat(text, 64)
	if s, isText := e.value.(*ast.StringNode); isText && s.Token.Type != token.StringType {
		ok = false // in quotes
	}
	what := "a " + e.name
	if e.name != "score" {
		what = "`" + e.name + "`"
	}
	if !ok || err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		r.at(e.value, what+" is a number", fmt.Sprintf("write for example `%s`", example))
		return 0, false
	}
	if math.Abs(f) > maxScore {
		r.at(e.value, fmt.Sprintf("%s of %s is too large", what, text), "it is at most a million, either way")
		return 0, false
	}
	return f, true
}

// settleGroups finds the groups that rules name, and makes the rules of shadow groups shadow rules.
func (s *ruleset) settleGroups(all []*family, r *reporter) {
	s.families = map[string]*family{}
	var names []string
	for _, f := range all {
		if first, ok := s.families[f.Name]; ok {
			r.report(f.pos, "", fmt.Sprintf("there is a group `%s` already, at %s", f.Name, first.pos), "give one another name")
			continue
		}
		s.families[f.Name] = f
		names = append(names, f.Name)
	}
	for _, x := range s.rules {
		if x.groupNamed.name == "" {
			continue
		}
		f, ok := s.families[x.groupNamed.name]
		if !ok {
			if s.torn {
				continue // it may be in what could not be read
			}
			remedy := didYouMean(x.groupNamed.name, names)
			if len(names) == 0 {
				remedy = fmt.Sprintf("define it with `groups: {%s: {max: 6}}`", x.groupNamed.name)
			}
			r.report(x.groupNamed.at, x.name, fmt.Sprintf("there is no group `%s`", x.groupNamed.name), remedy)
			continue
		}
		x.group = f
		if f.shadow && !x.shadow {
			x.shadow, x.shadowBy = true, fmt.Sprintf("the group `%s`", f.Name)
		}
	}
}

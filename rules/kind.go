package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"

	"sluice/pipeline"
)

// Config is the section of a `rules` step.
type Config struct {
	// Files name rule files; a name may be a pattern such as rules/*.yaml, and is relative to the configuration.
	Files []string `yaml:"files" example:"[rules.yaml]"`
	// Rules are rules written here, as in a rule file. They come after those of the files.
	Rules Inline `yaml:"rules" example:"[{name: no_date, when: not has(\"Date\"), score: 1}]"`
	// Lists are named lists that conditions ask: from.address in vips, subject contains spam_words. Each has a kind
	// (addresses, domains, networks, words, regexes) and entries, in files with one a line or written here as values.
	// Rule files can have `lists:` too; there the files are relative to the rule file.
	Lists Lists `yaml:"lists" example:"{vips: {kind: addresses, values: [boss@example.org]}}"`
	// Groups are groups of rules, as in a rule file: what the rules of a group score together stays between its min and its
	// max, and a group with shadow: true is tried only.
	Groups Groups `yaml:"groups" example:"{reputation: {max: 6, min: -2}}"`
	// Overrides say what is otherwise for some domains and users, as in a rule file: thresholds, rules that are off or on,
	// scores, bounds of groups, and rules of their own. What is said for a user goes over what is said for the domain.
	Overrides Inline `yaml:"overrides" example:"[{for: [example.org, anna@example.org], junk: 3, off: [zen]}]"`
	// Reject refuses mail whose score reaches it. 0: none.
	Reject float64 `yaml:"reject"`
	// Quarantine holds mail whose score reaches it for an administrator. 0: none.
	Quarantine float64 `yaml:"quarantine"`
	// Junk files mail whose score reaches it into the junk folder. 0: none.
	Junk float64 `yaml:"junk"`
	// JunkFolder is the folder for junk.
	JunkFolder string `yaml:"junk_folder"`
	// Timezone is where `received` is told the hour of, such as Europe/Berlin; by default where the server is.
	Timezone string `yaml:"timezone" example:"Europe/Berlin"`
	// Limits bound what the rules may cost.
	Limits `yaml:",inline"`
	// Live names shadow rules to be read as if they were none, to see what they would have done. The tests of rule files,
	// which speak of the rules as they are, are not run then.
	Live []string `yaml:"-" json:",omitempty"`
}

// DefaultConfig returns a configuration without rules and thresholds.
func DefaultConfig() Config {
	return Config{JunkFolder: "Junk", Limits: DefaultLimits()}
}

// Inline is a list of rules written in the configuration itself. It keeps the YAML, so that what is wrong in it has a
// line and a column.
type Inline struct {
	node ast.Node
}

// UnmarshalYAML takes the node of the list.
func (l *Inline) UnmarshalYAML(n ast.Node) error {
	l.node = n
	return nil
}

// ParseInline reads a list of rules as a configuration would hold it.
func ParseInline(text string) (Inline, error) {
	f, err := parseYAML([]byte(text))
	if err != nil {
		return Inline{}, err
	}
	if len(f.Docs) == 0 {
		return Inline{}, nil
	}
	return Inline{f.Docs[0].Body}, nil
}

// MarshalJSON writes the rules as plain values: two lists that mean the same are written the same, so that the version
// of a plan changes when its rules do.
func (l Inline) MarshalJSON() ([]byte, error) { return json.Marshal(plainValue(l.node)) }

func plainValue(n ast.Node) any {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return nil
	case *ast.MappingNode:
		m := map[string]any{}
		for _, v := range n.Values {
			key, _ := scalar(v.Key)
			m[key] = plainValue(v.Value)
		}
		return m
	case *ast.MappingValueNode:
		key, _ := scalar(n.Key)
		return map[string]any{key: plainValue(n.Value)}
	case *ast.SequenceNode:
		list := make([]any, len(n.Values))
		for i, v := range n.Values {
			list[i] = plainValue(v)
		}
		return list
	}
	text, _ := scalar(n)
	return text
}

// Kind makes the stages of `rules` steps.
//
// A crash postpones the mail: nobody knows what the rules would have said, so neither letting it pass nor refusing it
// would be theirs; the sender keeps it and tries again.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "rules",
		Doc: "Decides by rules about what the steps before it have found, and by the sum of the scores of those that hold. " +
			"Should it fail mail is postponed: nobody knows what the rules would have said.",
		OnError: pipeline.Postpone,
		Pure:    true,
		Config: func() any {
			c := DefaultConfig()
			return &c
		},
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			c, ok := config.(*Config)
			if !ok {
				return nil, fmt.Errorf("rules: the configuration is a %T", config)
			}
			return New(*c, env)
		},
	}
}

// New reads, checks and compiles the rules of a step, and runs the tests in their files. Its error joins everything that is
// wrong: each part is a [*Problem], or says what no line of a rule file is to blame for.
func New(c Config, env pipeline.Env) ([]pipeline.Stage, error) {
	set, err := load(c, env)
	if err != nil {
		return nil, err
	}
	if !set.scope.gaps.none() || set.torn {
		return []pipeline.Stage{&outline{set}}, nil
	}
	stages := set.stages(thresholds{c.Reject, c.Quarantine, c.Junk, c.JunkFolder})
	r := &reporter{step: env.Name}
	if len(c.Live) == 0 {
		set.runTests(stages, env, r)
	}
	var failed []error
	for _, p := range r.sorted(nil) {
		failed = append(failed, p)
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	if env.Warn != nil {
		for _, w := range set.warnings(thresholds{c.Reject, c.Quarantine, c.Junk, c.JunkFolder}) {
			env.Warn(w)
		}
	}
	return stages, nil
}

// load reads, checks and compiles the rules of a step; how is for those who compile them in other ways.
func load(c Config, env pipeline.Env, how ...func(*ruleset)) (*ruleset, error) {
	c.Limits = c.withDefaults()
	wrong := c.check()
	sc, err := newScope(env.Name, env.Before)
	if err != nil {
		return nil, errors.Join(append(wrong, err)...)
	}
	set := newRuleset(sc)
	set.limits, set.torn = c.Limits, sc.torn
	for _, f := range how {
		f(set)
	}
	if c.Timezone != "" {
		if set.zone, err = time.LoadLocation(c.Timezone); err != nil {
			wrong = append(wrong, fmt.Errorf("timezone: %w", err))
		}
	}
	if env.Folder == nil {
		env.Folder = func(string) error { return nil }
	}
	if err := env.Folder(c.JunkFolder); err != nil {
		wrong = append(wrong, fmt.Errorf("junk_folder: %w", err))
	}
	r := &reporter{step: env.Name, folder: env.Folder}
	sources, more := set.read(c, env, r)
	set.sources = sources
	wrong = append(wrong, more...)
	set.takeOverrides(set.overrides)
	if set.edit != nil {
		set.edit(set.rules)
	}
	set.uniqueNames(r)
	set.settleGroups(set.groups, r)
	for _, x := range set.rules {
		x.shadow = x.shadow && !slices.Contains(c.Live, x.name)
	}
	set.settleOverrides(thresholds{c.Reject, c.Quarantine, c.Junk, c.JunkFolder}, r)
	if n := len(set.rules); n > c.MaxRules {
		wrong = append(wrong, fmt.Errorf("there are %d rules; max_rules is %d", n, c.MaxRules))
	} else {
		set.compile(r)
		set.checkTests(r)
	}
	for _, p := range r.sorted(sources) {
		wrong = append(wrong, p)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return set, nil
}

// read reads all rules, those of the files first.
func (s *ruleset) read(c Config, env pipeline.Env, r *reporter) (sources []*source, wrong []error) {
	f := &filer{reporter: r, set: s, env: env, limits: c.Limits, seen: map[string]bool{}}
	defer func() { sources = append(sources, s.loadLists(f.lists, c, env, r)...) }()
	if c.Lists.node != nil {
		src := sourceOf(c.Lists.node)
		f.sources = append(f.sources, src)
		rd := &reader{reporter: r, src: src}
		rd.listMap(c.Lists.node)
		f.lists = rd.lists
	}
	wrong = f.named(c.Files)
	sources = f.sources
	if c.Rules.node != nil {
		src := sourceOf(c.Rules.node)
		sources = append(sources, src)
		rd := &reader{reporter: r, src: src}
		rd.ruleList(c.Rules.node)
		s.rules = append(s.rules, rd.rules...)
	}
	if c.Groups.node != nil {
		src := sourceOf(c.Groups.node)
		sources = append(sources, src)
		rd := &reader{reporter: r, src: src}
		rd.families(c.Groups.node)
		s.groups = append(s.groups, rd.groups...)
	}
	if c.Overrides.node != nil {
		src := sourceOf(c.Overrides.node)
		sources = append(sources, src)
		rd := &reader{reporter: r, src: src}
		rd.overrideList(c.Overrides.node)
		s.overrides = append(s.overrides, rd.overrides...)
	}
	return sources, wrong
}

// check says what is wrong with the thresholds and limits.
func (c Config) check() (wrong []error) {
	levels := []struct {
		name  string
		value float64
	}{{"junk", c.Junk}, {"quarantine", c.Quarantine}, {"reject", c.Reject}}
	for i, x := range levels {
		if x.value < 0 || math.IsNaN(x.value) || math.IsInf(x.value, 0) {
			wrong = append(wrong, fmt.Errorf("%s: %v is no threshold: write a number above 0, or leave it out", x.name, x.value))
			continue
		}
		for _, y := range slices.Backward(levels[:i]) {
			if x.value > 0 && y.value > x.value {
				wrong = append(wrong, fmt.Errorf("%s: %v is above %s: %v, and would never be reached: order them junk, quarantine, reject",
					y.name, y.value, x.name, x.value))
			}
		}
	}
	wrong = append(wrong, c.Limits.check()...)
	if why := badFolder(c.JunkFolder); (c.Junk > 0 || c.JunkFolder != "") && why != "" {
		wrong = append(wrong, fmt.Errorf("junk_folder: %s", why))
	}
	return wrong
}

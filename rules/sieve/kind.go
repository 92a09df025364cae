package sieve

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"sluice/pipeline"
)

// Config is the section of a `sieve` step.
type Config struct {
	// Before are scripts of the site that run before each recipient's own, in this order; names may be patterns such as
	// sieve/before/*.sieve and are relative to the configuration. The next script runs if the one before leaves the mail in
	// the inbox (with keep, or by doing nothing else with it).
	Before []string `yaml:"before" example:"[sieve/spam.sieve]"`
	// After are scripts of the site that run after each recipient's own, and where a recipient has none.
	After []string `yaml:"after" example:"[sieve/sort.sieve]"`
	// Global are scripts that others may include with `include :global "NAME"`, where NAME is the name of the file without
	// .sieve.
	Global []string `yaml:"global" example:"[sieve/global/*.sieve]"`
	// CreateFolders has a folder made that a script files into and that is not there. Without, such mail goes to the inbox,
	// unless the script says :create.
	CreateFolders bool `yaml:"create_folders"`
	// Off names extensions of the language that scripts may not use, such as [redirect-dsn, enotify].
	Off []string `yaml:"off" example:"[enotify]"`
	// Spamtest says what the tests spamtest and spamtestplus (RFC 5235) see.
	Spamtest Spamtest `yaml:"spamtest"`
	// Virustest is the fact that the test virustest (RFC 5235) sees, as rules call it: true, or a text that is not empty, is a
	// virus. By default it is `infected` of the first clamav step.
	Virustest string `yaml:"virustest" example:"clamav.infected"`
	// Trace keeps in the record what happened in the scripts line by line, for explain.
	Trace bool `yaml:"trace"`
	// Cache is how many scripts of accounts are kept compiled.
	Cache int `yaml:"cache"`
	// Limits bound what one script may cost. Where one is reached the script is passed over, and its owner told.
	Limits Limits `yaml:"limits"`
}

// Spamtest says what the test spamtest sees.
type Spamtest struct {
	// Score is the fact that is the score, as rules call it, such as rspamd.score. By default it is the sum of the scores of
	// all rules before the step.
	Score string `yaml:"score" example:"rspamd.score"`
	// Full is the score of mail that is spam for sure: 10, or 100 with :percent. 0 and below is none.
	Full float64 `yaml:"full"`
}

// DefaultConfig returns the settings of a step that says nothing.
func DefaultConfig() Config {
	return Config{CreateFolders: true, Spamtest: Spamtest{Full: 10}, Cache: 1000, Limits: DefaultLimits()}
}

// Options are what scripts of accounts may use under c, without what they may include.
func (c Config) Options() Options { return Options{Limits: c.Limits, Off: c.Off} }

// StepKind makes the stage of `sieve` steps.
//
// Where the scripts of a recipient cannot be read mail is postponed: nobody knows where its owner wants it.
func StepKind() pipeline.Kind {
	return pipeline.Kind{
		Name: "sieve",
		Doc: "Does with mail what its recipients' own Sieve scripts say, and scripts of the site before and after them. " +
			"Should scripts not be readable mail is postponed; a script that is wrong is passed over, and its owner told.",
		OnError:    pipeline.Postpone,
		AtDelivery: true,
		Config: func() any {
			c := DefaultConfig()
			return &c
		},
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			c, ok := config.(*Config)
			if !ok {
				return nil, fmt.Errorf("sieve: the configuration is a %T", config)
			}
			s, err := newStage(*c, env)
			if err != nil {
				return nil, err
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// newStage compiles the scripts of the site. Its error joins everything that is wrong with them: each part is a [Problem], or
// says what no line of a script is to blame for.
func newStage(c Config, env pipeline.Env) (*stage, error) {
	s := &stage{config: c, env: env, global: map[string][]byte{}, cache: newCache(c.Cache)}
	var wrong []error
	read := func(patterns []string) (all []pipeline.File) {
		for _, p := range patterns {
			files, err := env.Files(p)
			if err != nil {
				wrong = append(wrong, err)
			}
			all = append(all, files...)
		}
		return all
	}
	for _, f := range read(c.Global) {
		s.global[strings.TrimSuffix(path.Base(f.Path), ".sieve")] = f.Text
	}
	known := Extensions(Options{Include: noInclude, Programs: &Programs{}})
	for _, name := range c.Off {
		if !slices.Contains(known, name) {
			wrong = append(wrong, fmt.Errorf("off: there is no extension %q", name))
		}
	}
	compile := func(files []pipeline.File) (all []*Script) {
		for _, f := range files {
			script, problems := Compile(f.Path, f.Text, s.options(nil))
			for _, p := range problems {
				switch {
				case !p.Warning:
					wrong = append(wrong, p)
				case env.Warn != nil:
					env.Warn(p)
				}
			}
			all = append(all, script)
		}
		return all
	}
	s.before, s.after = compile(read(c.Before)), compile(read(c.After))
	if c.Spamtest.Full <= 0 {
		wrong = append(wrong, errors.New("spamtest: full is the score of mail that is spam for sure, and is more than 0"))
	}
	s.look(env.Before, &wrong)
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return s, nil
}

func noInclude(bool, string) ([]byte, error) { return nil, errNoScript }

// look works out which steps before it the stage reads.
func (s *stage) look(before []pipeline.Before, wrong *[]error) {
	names := map[string]pipeline.Before{}
	for _, b := range before {
		if b.Name == s.env.Name || b.Shadow {
			continue
		}
		names[b.Name] = b
		if len(b.Rules) > 0 && s.config.Spamtest.Score == "" {
			s.reads = append(s.reads, b.Name)
		}
		if b.Kind == "clamav" && s.config.Virustest == "" {
			s.config.Virustest = b.Name + ".infected"
		}
	}
	for _, x := range []struct{ setting, fact string }{
		{"spamtest: score", s.config.Spamtest.Score}, {"virustest", s.config.Virustest},
	} {
		if x.fact == "" {
			continue
		}
		step, field, _ := strings.Cut(x.fact, ".")
		b, ok := names[step]
		switch {
		case !ok:
			*wrong = append(*wrong, fmt.Errorf("%s: there is no step %s before this one that counts", x.setting, step))
			continue
		case b.Fact != nil && !hasField(b.Fact, field):
			*wrong = append(*wrong, fmt.Errorf("%s: %s finds no %q", x.setting, step, field))
			continue
		}
		if !slices.Contains(s.reads, step) {
			s.reads = append(s.reads, step)
		}
	}
}

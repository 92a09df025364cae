package program

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
)

// An examined configuration is what follows from one, or what is wrong with it.
type examined struct {
	in, out  *pipeline.Plan // of mail that comes and of mail that leaves; nil where something is wrong with either
	warnings config.Problems
	wrong    config.Problems
	// missing is what the configuration names and this machine does not have: whoever checks one may do so elsewhere.
	missing config.Problems
}

func (x examined) error() error {
	if len(x.wrong) == 0 {
		return nil
	}
	return x.wrong
}

// examine makes what a configuration asks for without asking anything of the world, and finds all that is wrong with it and
// with the files it names. The configuration may be one that could be read in part: what may be wrong only because of that
// is left out.
func (p *program) examine(c *config.Config) (x examined) {
	in, out, warnings, err := plansOf(c, offlineEnv(c.Hostname, p.now, nil))
	x.in, x.out = in, out
	told, keys := keyProblems(c)
	x.warnings = slices.Concat(warnings, told)
	x.wrong = slices.Concat(config.AsProblems(c.File(), err), aliasProblems(p.ctx, c), keys, relayProblems(c)).Sorted()
	x.missing = slices.Concat(certificateProblems(c), userProblems(c))
	return x
}

// everythingWrong returns all that is wrong with a configuration that cannot be used here, and err where that is nothing.
func (p *program) everythingWrong(c *config.Config, err error) error {
	x := p.examine(c)
	if x.wrong = append(x.wrong, x.missing...).Sorted(); len(x.wrong) > 0 {
		return x.wrong
	}
	return err
}

// certificateProblems returns what is wrong with the files of certificates. What only the server may read is for it to say.
func certificateProblems(c *config.Config) (wrong config.Problems) {
	for _, x := range configuredCertificates(c) {
		if x.Certificate.Certificate == "" || x.Key == "" {
			continue // that is said already
		}
		if _, err := x.read(c); err != nil && !errors.Is(err, fs.ErrPermission) {
			wrong = append(wrong, c.Where(x.setting, err.Error()))
		}
	}
	return wrong
}

// userProblems returns the users and the group of deliver's door that there are not.
func userProblems(c *config.Config) (wrong config.Problems) {
	_, users := deliverUsers(c)
	_, group := deliverGroup(c)
	for _, err := range []error{users, group} {
		if err == nil {
			continue
		}
		for _, e := range leaves(err) {
			setting, text, _ := strings.Cut(e.Error(), ": ")
			wrong = append(wrong, c.Where(setting, text))
		}
	}
	return wrong
}

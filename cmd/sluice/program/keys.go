package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/pipeline/orgdomain"
	"sluice/scanners/dkim/signature"
)

// keyFolder is where the keys of a domain are: one file SELECTOR.pem for each, and one that names those that sign.
func keyFolder(data, domain string) string { return filepath.Join(data, "dkim", domain) }

const (
	keySuffix  = ".pem"
	activeFile = "active" // selectors that sign, one a line; without it all do
)

// mostKeys bounds the keys that sign one mail: each costs a signature and half a kilobyte of header.
const mostKeys = 4

// signingKeys are the keys of all domains that sign, by domain. The zero value is none.
type signingKeys map[string][]signature.Identity

// of returns the keys that sign for a domain: its own, else those of the nearest domain above it.
func (k signingKeys) of(domain string) []signature.Identity {
	name, ok := orgdomain.Canonical(domain)
	for ok && name != "" {
		if keys := k[name]; len(keys) > 0 {
			return keys
		}
		_, name, ok = strings.Cut(name, ".")
	}
	return nil
}

// readKeys reads all keys that sign: those that the configuration names, and those in the data folder. All that is
// wrong with them is said at once.
func readKeys(c *config.Config) (signingKeys, error) {
	keys := signingKeys{}
	var errs []error
	for i, k := range c.Signing.Keys {
		private, err := readKey(c.Path(k.File))
		if err != nil {
			errs = append(errs, config.Problems{c.Where(fmt.Sprintf("signing.keys[%d].file", i), err.Error())})
			keys[k.Domain] = append(keys[k.Domain], signature.Identity{})
			continue
		}
		keys[k.Domain] = append(keys[k.Domain], signature.Identity{Domain: k.Domain, Selector: k.Selector, Key: private})
	}
	domains, err := keyDomains(c.Data)
	errs = append(errs, err)
	for _, domain := range domains {
		if len(keys[domain]) > 0 {
			continue
		}
		kept, err := keptKeys(c.Data, domain)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, k := range kept {
			if k.active {
				keys[domain] = append(keys[domain], k.Identity)
			}
		}
	}
	for domain, all := range keys {
		if len(all) > mostKeys {
			errs = append(errs, fmt.Errorf("%d keys would sign each mail of %s; `sluice dkim use %s SELECTOR…` names at most %d",
				len(all), domain, domain, mostKeys))
		}
	}
	return keys, errors.Join(errs...)
}

// signingWarnings returns what an administrator should know of what leaves by a configuration.
func signingWarnings(c *config.Config, keys signingKeys) (warnings config.Problems) {
	for _, domain := range sortedKeys(keys) {
		for _, i := range keys[domain] {
			if i.Key != nil && i.Key.Algorithm() == signature.RSA && i.Key.Bits() < signature.SafeBits {
				warnings = append(warnings, config.Problem{Text: fmt.Sprintf("the key %s has %d bits: some believe nothing below %d (RFC 8301); sluice dkim keygen %s --selector NAME makes another",
					i.KeyName(), i.Key.Bits(), signature.SafeBits, domain)})
			}
		}
	}
	if c.DMARCReports.Send && !slices.ContainsFunc(c.Pipeline, func(s pipeline.Step) bool { return s.Kind.Name == "dmarc" }) {
		warnings = append(warnings, config.Problem{Text: "dmarc_reports.send has nothing to report: no step of the pipeline is `- dmarc: {}`"})
	}
	return warnings
}

// keyProblems returns what is wrong with the keys that sign. Who may not look at the data folder, as most may not, is
// told nothing of them.
func keyProblems(c *config.Config) (warnings, problems config.Problems) {
	keys, err := readKeys(c)
	if err == nil || errors.Is(err, fs.ErrPermission) {
		return signingWarnings(c, keys), nil
	}
	for _, e := range leaves(err) {
		if placed, ok := errors.AsType[config.Problems](e); ok {
			problems = append(problems, placed...)
			continue
		}
		problems = append(problems, config.Problem{File: c.File(), Text: e.Error()})
	}
	return nil, problems
}

// keyDomains returns the domains that have a folder for keys.
func keyDomains(data string) (domains []string, err error) {
	entries, err := os.ReadDir(filepath.Join(data, "dkim"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for keys: %w", err)
	}
	for _, e := range entries {
		if name, ok := orgdomain.Canonical(e.Name()); ok && name == e.Name() && e.IsDir() {
			domains = append(domains, name)
		}
	}
	return domains, nil
}

// A keptKey is a key in the data folder.
type keptKey struct {
	signature.Identity
	active bool
}

// keptKeys reads the keys of a domain in the data folder, by selector.
func keptKeys(data, domain string) (keys []keptKey, err error) {
	dir := keyFolder(data, domain)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for keys of %s: %w", domain, err)
	}
	active, err := activeSelectors(dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		selector, ok := strings.CutSuffix(e.Name(), keySuffix)
		if name, canonical := orgdomain.Canonical(selector); !ok || !canonical || name != selector || strings.HasPrefix(selector, ".") {
			continue
		}
		private, err := readKey(filepath.Join(dir, e.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keys = append(keys, keptKey{
			signature.Identity{Domain: domain, Selector: selector, Key: private}, active == nil || slices.Contains(active, selector),
		})
	}
	for _, name := range active {
		if !slices.ContainsFunc(keys, func(k keptKey) bool { return k.Selector == name }) && len(errs) == 0 {
			errs = append(errs, fmt.Errorf("%s names the selector %q, of which there is no key; `sluice dkim use %s SELECTOR…` says which sign",
				filepath.Join(dir, activeFile), name, domain))
		}
	}
	return keys, errors.Join(errs...)
}

// activeSelectors returns the selectors that sign for a domain; nil is that nobody has chosen.
func activeSelectors(dir string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, activeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which keys sign: %w", err)
	}
	return append([]string{}, strings.Fields(string(text))...), nil
}

// readKey reads a private key. One that others on this machine can read is not used: who has it signs in our name.
func readKey(path string) (*signature.PrivateKey, error) {
	text, mode, err := readSecret(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no key %s", path)
	case err != nil:
		return nil, fmt.Errorf("read the key %s: %w", path, cause(err))
	case mode.Perm()&0o077 != 0:
		return nil, fmt.Errorf("the key %s can be read by others (mode %04o); say chmod 600 %s", path, mode.Perm(), path)
	case len(text) > largestSecret:
		return nil, fmt.Errorf("the key %s has more than %d octets, so it is none", path, largestSecret)
	}
	k, err := signature.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("the key %s: %w", path, err)
	}
	return k, nil
}

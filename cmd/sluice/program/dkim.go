package program

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/pipeline/orgdomain"
	"sluice/scanners/dkim/signature"
	"sluice/scanners/resolve"
)

type dkimCommands struct {
	Keygen dkimKeygen `cmd:"" help:"Make a key for a domain and print the DNS record that others verify with."`
	Show   dkimShow   `cmd:"" help:"List the keys, which of them sign, and their DNS records."`
	Check  dkimCheck  `cmd:"" help:"Ask the DNS whether the records of the keys that sign are there and fit."`
	Use    dkimUse    `cmd:"" help:"Choose which keys of a domain sign, once their records are in the DNS."`
}

// mailDomain is how commands take a domain.
type mailDomain struct {
	Domain string `arg:"" placeholder:"DOMAIN" help:"The domain, example.org."`
}

func (d mailDomain) name() (string, error) {
	name, ok := orgdomain.Canonical(d.Domain)
	if !ok || name == "" {
		return "", fmt.Errorf("%q is no domain; write for example example.org", d.Domain)
	}
	return name, nil
}

type dkimKeygen struct {
	mailDomain
	Selector  string `placeholder:"NAME" help:"What the DNS calls the key. Default: s and the day, s20261122; with an e behind it for ed25519."`
	Algorithm string `enum:"rsa,ed25519,both" default:"rsa" help:"rsa, which everybody verifies, ed25519, which is short, or both."`
}

// Run makes keys. The first of a domain sign at once, later ones when `use` says so: not before the DNS knows them.
func (c *dkimKeygen) Run(p *program) error {
	settings, domain, err := c.settings(p)
	if err != nil {
		return err
	}
	selector, ok := orgdomain.Canonical(cmp.Or(c.Selector, "s"+p.now().UTC().Format("20060102")))
	if !ok || selector == activeFile {
		return fmt.Errorf("--selector: %q is no selector; write for example s2026", c.Selector)
	}
	if err := makeFolder(settings.Data); err != nil {
		return err
	}
	before, err := keptKeys(settings.Data, domain)
	if err != nil {
		return err
	}
	var made []keptKey
	for _, algorithm := range []string{signature.RSA, signature.Ed25519} {
		if c.Algorithm != algorithm && c.Algorithm != "both" {
			continue
		}
		name := selector
		if algorithm == signature.Ed25519 && (c.Selector == "" || c.Algorithm == "both") {
			name += "e"
		}
		key, err := signature.GenerateKey(algorithm)
		if err != nil {
			return err
		}
		made = append(made, keptKey{signature.Identity{Domain: domain, Selector: name, Key: key}, len(before) == 0})
	}
	if err := keepKeys(osDisk{}, keyFolder(settings.Data, domain), before, made); err != nil {
		return err
	}
	return c.tell(p.stdout, settings, made)
}

func (d mailDomain) settings(p *program) (*config.Config, string, error) {
	domain, err := d.name()
	if err != nil {
		return nil, "", err
	}
	settings, err := p.settings()
	return settings, domain, err
}

// tell prints what there is now and what is to be done with it.
func (c *dkimKeygen) tell(w io.Writer, settings *config.Config, made []keptKey) error {
	var b strings.Builder
	var names []string
	for _, k := range made {
		fmt.Fprintf(&b, "made %s (%s, %d bits)\n", filepath.Join(keyFolder(settings.Data, k.Domain), k.Selector+keySuffix), k.Key.Algorithm(), k.Key.Bits())
		names = append(names, k.Selector)
	}
	domain := made[0].Domain
	fmt.Fprintf(&b, "\nPut this into the DNS of %s:\n\n", domain)
	for _, k := range made {
		record, err := zoneRecord(k.Identity)
		if err != nil {
			return err
		}
		b.WriteString(record)
	}
	fmt.Fprintf(&b, "\nThen:\n  sluice dkim check %s    says whether it is there\n", domain)
	if !made[0].active {
		fmt.Fprintf(&b, "  sluice dkim use %s %s    has it sign instead of the key that signs now\n", domain, strings.Join(names, " "))
	}
	b.WriteString("  sluice reload    has a running server sign with it\n")
	if slices.ContainsFunc(settings.Signing.Keys, func(k config.SigningKey) bool { return k.Domain == domain }) {
		fmt.Fprintf(&b, "\nThe configuration names other keys for %s (signing.keys): they sign, and not this.\n", domain)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// zoneRecord is the record of a key as a zone file has it. A string of the DNS has at most 255 octets (RFC 1035, 3.3).
func zoneRecord(i signature.Identity) (string, error) {
	text, err := i.Key.Record()
	if err != nil {
		return "", err
	}
	const most = 255
	var b strings.Builder
	fmt.Fprintf(&b, "%s. IN TXT (", i.KeyName())
	for len(text) > most {
		fmt.Fprintf(&b, " %q\n   ", text[:most])
		text = text[most:]
	}
	fmt.Fprintf(&b, " %q )\n", text)
	return b.String(), nil
}

// keepKeys puts keys into the folder of their domain, or none. It never overwrites one: mail on its way still needs it.
func keepKeys(d disk, dir string, before, made []keptKey) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, cause(err))
	}
	chosen, err := activeSelectors(dir)
	if err != nil {
		return err
	}
	if chosen == nil && len(before) > 0 {
		// So far all that are there sign; the new one does not yet.
		if err := chooseKeys(d, dir, before); err != nil {
			return err
		}
	}
	var there []string
	defer func() {
		if err == nil {
			return
		}
		if len(before) == 0 {
			_ = d.Remove(filepath.Join(dir, activeFile)) // first: it names them
		}
		for _, path := range there {
			_ = d.Remove(path) // one that stays is a key that nobody knows of
		}
	}()
	for _, k := range made {
		path := filepath.Join(dir, k.Selector+keySuffix)
		text, err := k.Key.PEM()
		if err != nil {
			return err
		}
		fresh := filepath.Join(dir, ".new-"+k.Selector)
		if err := writeFileTo(d, fresh, text, 0o600); err != nil {
			return err
		}
		err = d.Link(fresh, path)
		_ = d.Remove(fresh)
		switch {
		case errors.Is(err, fs.ErrExist):
			return fmt.Errorf("there is a key %s already; --selector gives the new one another name", path)
		case err != nil:
			return fmt.Errorf("write %s: %w", path, err)
		}
		there = append(there, path)
	}
	if err := d.SyncFolder(dir); err != nil {
		return fmt.Errorf("write keys to %s: %w", dir, err)
	}
	if err := d.SyncFolder(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("write keys to %s: %w", dir, err)
	}
	if len(before) > 0 {
		return nil
	}
	return chooseKeys(d, dir, made)
}

// chooseKeys writes down which keys sign.
func chooseKeys(d disk, dir string, keys []keptKey) error {
	var text strings.Builder
	for _, k := range keys {
		text.WriteString(k.Selector + "\n")
	}
	return writeFileTo(d, filepath.Join(dir, activeFile), []byte(text.String()), 0o600)
}

type dkimShow struct {
	Domain string `arg:"" optional:"" placeholder:"DOMAIN" help:"The domain; without it all that have keys."`
	JSON   bool   `help:"Print JSON for a program."`
}

// A shownKey is a key as `dkim show --json` and `dkim check --json` print it.
type shownKey struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Bits      int    `json:"bits"`
	Signs     bool   `json:"signs"`
	Name      string `json:"name"`              // where the record belongs
	Record    string `json:"record"`            // what it says
	Checked   string `json:"checked,omitempty"` // what the DNS has: "fits", or what is wrong
}

type shownKeys struct {
	Version int        `json:"version"`
	Keys    []shownKey `json:"keys"`
}

const shownKeysVersion = 1

func (c *dkimShow) Run(p *program) error {
	_, keys, err := p.allKeys(c.Domain)
	if err != nil {
		return err
	}
	if c.JSON {
		return printKeys(p.stdout, keys, nil)
	}
	for _, k := range keys {
		signs := "waits; sluice dkim use " + k.Domain + " " + k.Selector + " has it sign"
		if k.active {
			signs = "signs"
		}
		record, err := zoneRecord(k.Identity)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(p.stdout, "%s  %s  %s, %d bits  %s\n%s\n", k.Domain, k.Selector, k.Key.Algorithm(), k.Key.Bits(), signs, record); err != nil {
			return err
		}
	}
	return nil
}

func printKeys(w io.Writer, keys []keptKey, checked []string) error {
	out := shownKeys{Version: shownKeysVersion, Keys: []shownKey{}}
	for n, k := range keys {
		record, err := k.Key.Record()
		if err != nil {
			return err
		}
		x := shownKey{Domain: k.Domain, Selector: k.Selector, Algorithm: k.Key.Algorithm(), Bits: k.Key.Bits(), Signs: k.active, Name: k.KeyName(), Record: record}
		if checked != nil {
			x.Checked = checked[n]
		}
		out.Keys = append(out.Keys, x)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

// allKeys returns the keys of a domain, or of all, whether they sign or wait.
func (p *program) allKeys(domain string) (*config.Config, []keptKey, error) {
	if domain != "" {
		name, err := (mailDomain{domain}).name()
		if err != nil {
			return nil, nil, err
		}
		domain = name
	}
	settings, err := p.settings()
	if err != nil {
		return nil, nil, err
	}
	signing, err := readKeys(settings)
	if err != nil {
		return nil, nil, err
	}
	domains, err := keyDomains(settings.Data)
	if err != nil {
		return nil, nil, err
	}
	var keys []keptKey
	for _, name := range domains {
		kept, err := keptKeys(settings.Data, name)
		if err != nil {
			return nil, nil, err
		}
		for _, k := range kept {
			if k.active = slices.ContainsFunc(signing[name], func(i signature.Identity) bool { return i.Selector == k.Selector }); !k.active {
				keys = append(keys, k)
			}
		}
	}
	for _, all := range signing {
		for _, i := range all {
			keys = append(keys, keptKey{i, true})
		}
	}
	keys = slices.DeleteFunc(keys, func(k keptKey) bool { return domain != "" && k.Domain != domain })
	slices.SortFunc(keys, func(a, b keptKey) int {
		return cmp.Or(strings.Compare(a.Domain, b.Domain), strings.Compare(a.Selector, b.Selector))
	})
	if len(keys) == 0 {
		if domain == "" {
			return nil, nil, errors.New("no domain has a key; sluice dkim keygen DOMAIN makes one")
		}
		return nil, nil, fmt.Errorf("%s has no key; sluice dkim keygen %[1]s makes one", domain)
	}
	return settings, keys, nil
}

type dkimCheck struct {
	Domain string `arg:"" optional:"" placeholder:"DOMAIN" help:"The domain; without it all that have keys."`
	JSON   bool   `help:"Print JSON for a program."`
}

// Run fails if the record of a key that signs is not there or does not fit.
func (c *dkimCheck) Run(p *program) error {
	settings, keys, err := p.allKeys(c.Domain)
	if err != nil {
		return err
	}
	asking, err := resolve.New(settings.Resolver, p.now, nil)
	if err != nil {
		return err
	}
	checked := published(p.ctx, asking, keys)
	bad := 0
	for n, k := range keys {
		if checked[n] != fits && k.active {
			bad++
		}
	}
	if c.JSON {
		err = printKeys(p.stdout, keys, checked)
	} else {
		err = printChecked(p.stdout, keys, checked)
	}
	if err == nil && bad > 0 {
		err = errSilent
	}
	return err
}

func printChecked(w io.Writer, keys []keptKey, checked []string) error {
	for n, k := range keys {
		role := "signs"
		if !k.active {
			role = "waits"
		}
		if _, err := fmt.Fprintf(w, "%s  %s  %s\n", k.KeyName(), role, config.Printable(checked[n])); err != nil {
			return err
		}
		if checked[n] == fits {
			continue
		}
		record, err := zoneRecord(k.Identity)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "  it is to be\n%s", record); err != nil {
			return err
		}
	}
	return nil
}

const fits = "fits"

// published asks the DNS what it has of keys: fits, or what is wrong with it.
func published(ctx context.Context, r pipeline.Resolver, keys []keptKey) []string {
	var names []string
	for _, k := range keys {
		names = append(names, k.KeyName())
	}
	answers := signature.Keys(ctx, r, names)
	var out []string
	for _, k := range keys {
		a := answers[k.KeyName()]
		switch {
		case a.Err != nil:
			out = append(out, a.Err.Error())
		case !k.Key.Fits(a.Key):
			out = append(out, "the DNS has another key")
		case a.Key.Testing:
			out = append(out, "the record says t=y: others take no notice of what it signs")
		default:
			out = append(out, fits)
		}
	}
	return out
}

type dkimUse struct {
	mailDomain
	Selectors   []string `arg:"" placeholder:"SELECTOR" help:"The keys that sign from now on; the others stay, for mail on its way is verified with their records."`
	Unpublished bool     `help:"Do not ask the DNS first whether their records are there."`
}

func (c *dkimUse) Run(p *program) error {
	settings, domain, err := c.settings(p)
	if err != nil {
		return err
	}
	kept, err := keptKeys(settings.Data, domain)
	if err != nil && len(kept) == 0 {
		return err
	}
	var chosen []keptKey
	for _, name := range c.Selectors {
		at := slices.IndexFunc(kept, func(k keptKey) bool { return strings.EqualFold(k.Selector, name) })
		if at < 0 {
			return fmt.Errorf("%s has no key %q in %s", domain, name, keyFolder(settings.Data, domain))
		}
		if !slices.Contains(chosen, kept[at]) {
			chosen = append(chosen, kept[at])
		}
	}
	if len(chosen) > mostKeys {
		return fmt.Errorf("at most %d keys sign a mail", mostKeys)
	}
	if !c.Unpublished {
		asking, err := resolve.New(settings.Resolver, p.now, nil)
		if err != nil {
			return err
		}
		for n, state := range published(p.ctx, asking, chosen) {
			if state != fits {
				return fmt.Errorf("%s: %s; what it would sign, nobody could verify (--unpublished does not ask)", chosen[n].KeyName(), state)
			}
		}
	}
	if err := chooseKeys(osDisk{}, keyFolder(settings.Data, domain), chosen); err != nil {
		return err
	}
	for _, k := range chosen {
		if _, err := fmt.Fprintf(p.stdout, "%s signs\n", k.KeyName()); err != nil {
			return err
		}
	}
	_, err = io.WriteString(p.stdout, "sluice reload has a running server do so; leave the records of the keys before in the DNS for two weeks\n")
	return err
}

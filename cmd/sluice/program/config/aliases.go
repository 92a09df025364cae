package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// filesKey stands among the aliases and names files with more of them. No address is called so.
const filesKey = "files"

// maxAliasFile is how large a file of aliases may be.
const maxAliasFile = 16 << 20

// checkAliases checks the aliases as far as one can without looking elsewhere, and takes the names of their files out.
func (c *Config) checkAliases() {
	c.aliasFiles = c.Users.Aliases[filesKey]
	delete(c.Users.Aliases, filesKey)
	for from, to := range c.Users.Aliases {
		if !isAliasName(from) {
			c.d.wrong("aliases."+from, fmt.Sprintf("%q is no address", from), "write NAME@DOMAIN, or @DOMAIN for all others there")
		}
		if len(to) == 0 {
			c.d.wrong("aliases."+from, fmt.Sprintf("the alias %s leads nowhere", from), "name at least one account")
		}
		for i, x := range to {
			if !isAddress(x) {
				path := fmt.Sprintf("aliases.%s[%d]", from, i)
				if _, listed := c.d.places[path]; !listed {
					path = "aliases." + from
				}
				c.d.wrong(path, fmt.Sprintf("%q is no account", x), "write NAME@DOMAIN")
			}
		}
	}
}

func isAliasName(s string) bool {
	domain, rest := strings.CutPrefix(s, "@")
	return rest && IsHostname(domain) || isAddress(s)
}

// ReadAliases adds what the files under `aliases: {files: …}` say to Users.Aliases. Its error is Problems. Once is enough.
func (c *Config) ReadAliases() error {
	c.aliasPlaces = map[string]Problem{}
	var problems Problems
	for i, name := range c.aliasFiles {
		file := c.Path(name)
		text, err := readAliasFile(file)
		if err != nil {
			p := c.placed(fmt.Sprintf("aliases.%s[%d]", filesKey, i))
			p.Text = err.Error()
			problems = append(problems, p)
			continue
		}
		problems = append(problems, c.parseAliases(file, text)...)
	}
	return problems.err()
}

func readAliasFile(file string) (string, error) {
	f, err := os.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no file %s", file)
	case err != nil:
		return "", fmt.Errorf("the file %s cannot be read: %w", file, under(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAliasFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("the file %s cannot be read: %w", file, under(err))
	case len(text) > maxAliasFile:
		return "", fmt.Errorf("the file %s has more than %d octets", file, maxAliasFile)
	}
	return string(text), nil
}

// under returns what the system said.
func under(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// placed returns a problem with the place of a key of the configuration.
func (c *Config) placed(path string) Problem {
	at := c.d.where(path)
	p := Problem{File: c.file, Line: at.line, Column: at.column, follows: c.d.hides(path) || slices.Contains(c.d.said, path)}
	if at.line > 0 && at.line <= len(c.d.lines) {
		p.Source = c.d.lines[at.line-1]
	}
	return p
}

// AliasProblem returns a problem about an alias with the place where it is written. Its case does not matter.
func (c *Config) AliasProblem(alias, text string) Problem {
	p, ok := c.aliasPlaces[strings.ToLower(alias)]
	for from := range c.Users.Aliases {
		if !ok && strings.EqualFold(from, alias) {
			p = c.placed("aliases." + from)
			break
		}
	}
	p.Text = text
	return p
}

// parseAliases reads a file as aliases(5) describes: "name: target, target", a line that begins with a space goes on with
// the one before, and # begins a comment. A name without a domain is in `domain:`. What would run a program or write a
// file is refused, for nobody here does that.
func (c *Config) parseAliases(file, text string) (problems Problems) {
	at := func(line int, source, what, text, remedy string) {
		column := 1
		if i := strings.LastIndex(source, what); i >= 0 && what != "" {
			column = utf8.RuneCountInString(source[:i]) + 1
		}
		problems = append(problems, Problem{File: file, Line: line, Column: column, Text: text, Remedy: remedy, Source: source})
	}
	var from string // the alias that a line beginning with a space goes on with; "" if that was wrong
	open := false
	var found []string
	for n, source := range strings.Split(text, "\n") {
		n++
		source = strings.TrimSuffix(source, "\r")
		line := strings.TrimSpace(source)
		if line == "" || line[0] == '#' {
			continue
		}
		targets := line
		if source[0] != ' ' && source[0] != '\t' {
			name, rest, ok := strings.Cut(line, ":")
			from, open, targets = "", true, rest
			name = c.inDomain(strings.Trim(strings.TrimSpace(name), `"`))
			first := c.AliasProblem(name, "")
			_, twice := c.Users.Aliases[name]
			switch {
			case !ok:
				at(n, source, "", "this is no alias", "write NAME: ACCOUNT, ACCOUNT")
			case !isAliasName(name):
				at(n, source, "", fmt.Sprintf("%q is no address", name), "write NAME or NAME@DOMAIN")
			case twice || first.Line > 0:
				at(n, source, "", fmt.Sprintf("%s is an alias already", name), fmt.Sprintf("the first is in line %d of %s", first.Line, first.File))
			default:
				from = name
				found = append(found, name)
				c.aliasPlaces[strings.ToLower(name)] = Problem{File: file, Line: n, Column: 1, Source: source}
				if c.Users.Aliases == nil {
					c.Users.Aliases = map[string][]string{}
				}
				c.Users.Aliases[from] = nil
			}
			if from == "" {
				continue
			}
		} else if !open {
			at(n, source, line, "this goes on with a line that is not there", "begin an alias at the beginning of a line")
			continue
		}
		if from == "" {
			continue
		}
		for _, target := range splitTargets(targets) {
			bare := strings.TrimPrefix(strings.Trim(target, `"`), `\`)
			switch address := c.inDomain(bare); {
			case strings.HasPrefix(bare, "|"), strings.HasPrefix(bare, "/"), strings.HasPrefix(bare, ":include:"):
				at(n, source, target, fmt.Sprintf("%s leads to a program, a file or a list, and here mail goes to accounts only", from),
					"leave it to the MTA before Sluice")
			case !isAddress(address):
				at(n, source, target, fmt.Sprintf("%q is no account", bare), "write NAME or NAME@DOMAIN")
			default:
				c.Users.Aliases[from] = append(c.Users.Aliases[from], address)
			}
		}
	}
	for _, alias := range found {
		p := c.AliasProblem(alias, fmt.Sprintf("the alias %s leads nowhere", alias))
		if len(c.Users.Aliases[alias]) == 0 && !slices.ContainsFunc(problems, func(x Problem) bool { return x.Line == p.Line }) {
			p.Remedy = "name at least one account"
			problems = append(problems, p)
		}
	}
	return problems.Sorted()
}

// inDomain returns a name with the configured domain, if it has none.
func (c *Config) inDomain(name string) string {
	if name == "" || strings.Contains(name, "@") {
		return name
	}
	return name + "@" + c.Users.Domain
}

// splitTargets splits at commas outside of quotes.
func splitTargets(s string) (all []string) {
	quoted, escaped := false, false
	for _, x := range strings.FieldsFunc(s, func(r rune) bool {
		if escaped {
			escaped = false
			return false
		}
		switch r {
		case '\\':
			escaped = true
		case '"':
			quoted = !quoted
		}
		return r == ',' && !quoted
	}) {
		if x = strings.TrimSpace(x); x != "" {
			all = append(all, x)
		}
	}
	return all
}

package program

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/users"
	"sluice/pipeline/mime"
)

type userCommands struct {
	Add    userAdd    `cmd:"" help:"Make an account."`
	Passwd userPasswd `cmd:"" help:"Change the password of an account."`
	List   userList   `cmd:"" help:"List the accounts."`
	Set    userSet    `cmd:"" help:"Change settings of an account: quota=1GiB, quota=none, quota=default, login=no."`
	Show   userShow   `cmd:"" help:"Show the settings of an account."`
	Del    userDel    `cmd:"" help:"Remove an account; its mail stays unless --purge is given."`

	Block   userBlock   `cmd:"" help:"Keep an account from sending mail."`
	Release userRelease `cmd:"" help:"Let an account send again that is held or blocked, and what was held of it leave."`

	Folders  userFolders  `cmd:"" help:"List the folders of an account, with their identities and what is in them."`
	Metadata userMetadata `cmd:"" help:"Look at the annotations of an account's folders, and change them."`

	Sieve       userSieve       `cmd:"" help:"Look at the Sieve scripts of an account, and change them."`
	Log         userLog         `cmd:"" help:"Say what went wrong when an account's scripts ran."`
	ImportSieve userImportSieve `cmd:"" help:"Take over the Sieve scripts that Dovecot's Pigeonhole keeps for a user."`
}

// account is how the commands about one account take its name.
type account struct {
	Name string `arg:"" placeholder:"NAME@DOMAIN" help:"The account."`
}

type password struct {
	Stdin bool `name:"password-stdin" help:"Read the password, one line, from standard input."`
}

type userAdd struct {
	account
	password
}

func (c *userAdd) Run(p *program) error {
	name, err := c.account.usable()
	if err != nil {
		return err
	}
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := makeFolder(settings.Data); err != nil {
		return err
	}
	return p.withUsers(func(u *users.Users, _ *config.Config) error {
		if exists, err := u.Exists(p.ctx, name); err != nil {
			return err
		} else if exists {
			return fmt.Errorf("%s %w; to change its password: sluice user passwd %[1]s", name, mailstore.ErrExists)
		}
		word, err := c.password.read(p, name)
		if err != nil {
			return err
		}
		return u.Add(p.ctx, name, word)
	})
}

type userPasswd struct {
	account
	password
}

func (c *userPasswd) Run(p *program) error {
	return p.withUsers(func(u *users.Users, _ *config.Config) error {
		name, err := c.account.normal()
		if err != nil {
			return err
		}
		word, err := c.password.read(p, name)
		if err != nil {
			return err
		}
		return u.SetPassword(p.ctx, name, word)
	})
}

type userList struct {
	Lacking string `placeholder:"MECHANISM" help:"Only those that can log in and have no keys for it yet: SCRAM-SHA-256 or SCRAM-SHA-1."`
}

func (c *userList) Run(p *program) error {
	if c.Lacking != "" && c.Lacking != "SCRAM-SHA-256" && c.Lacking != "SCRAM-SHA-1" {
		return fmt.Errorf("--lacking %s: accounts have keys for SCRAM-SHA-256 and SCRAM-SHA-1", c.Lacking)
	}
	return p.withUsers(func(u *users.Users, _ *config.Config) error {
		all, err := u.List(p.ctx)
		if err != nil {
			return err
		}
		for _, a := range all {
			if c.Lacking != "" && !lacks(a, c.Lacking) {
				continue
			}
			if _, err := fmt.Fprintln(p.stdout, a.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

type userDel struct {
	account
	Purge bool `help:"Remove its mail, too."`
}

func (c *userDel) Run(p *program) error {
	return p.withUsers(func(u *users.Users, settings *config.Config) error {
		name, err := c.account.normal()
		if err != nil {
			return err
		}
		// An account whose mail was kept can still be purged.
		err = u.Delete(p.ctx, name)
		if err == nil {
			err = p.forgetSending(settings, name)
		}
		if !c.Purge {
			return err
		}
		if err != nil && !errors.Is(err, mailstore.ErrNoAccount) {
			return err
		}
		purged, purgeErr := purge(settings.Data, name)
		if purgeErr != nil {
			return purgeErr
		}
		if _, err := p.runs(settings).Forget(p.ctx, name); err != nil {
			return err
		}
		if !purged {
			return err
		}
		return nil
	})
}

// purge removes everything that is kept for an account, and reports whether there was anything.
func purge(data, name string) (there bool, err error) {
	if err := users.CheckAccount(name); err != nil {
		return false, err
	}
	local, domain, _ := strings.Cut(name, "@")
	for _, kind := range []string{"mail", "users"} {
		path := filepath.Join(data, kind, domain, local)
		// Renamed first: a half-removed tree is nobody's mail.
		gone := filepath.Join(data, kind, domain, fmt.Sprintf(".purged-%s-%d", local, os.Getpid()))
		switch err := os.Rename(path, gone); {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return there, fmt.Errorf("purge %s: %w", path, err)
		}
		there = true
		if err := os.RemoveAll(gone); err != nil {
			return there, fmt.Errorf("purge %s: %w", path, err)
		}
	}
	return there, nil
}

// normal returns the name of an account as Sluice compares it.
func (a account) normal() (string, error) {
	address, err := mime.ParseAddress(a.Name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", a.Name, err)
	}
	if address.Domain == "" {
		return "", fmt.Errorf("%s: %w: write NAME@DOMAIN", a.Name, mailstore.ErrName)
	}
	return address.String(), nil
}

// usable is normal for a new account: its name can be that of folders. What is wrong is said of the name without the
// quotes that its normal form has in mail.
func (a account) usable() (string, error) {
	name, err := a.normal()
	if err != nil {
		return "", err
	}
	if bare, err := mime.ParseAddress(name); err == nil {
		name = bare.Mailbox() + "@" + bare.Domain
	}
	return name, users.CheckAccount(name)
}

// read returns the password: one line of standard input, or what is typed, twice, at a terminal.
func (c password) read(p *program, name string) (string, error) {
	if c.Stdin {
		return line(bufio.NewReader(p.stdin))
	}
	terminal, ok := p.stdin.(*os.File)
	if !ok {
		return "", errors.New("standard input is no terminal; give the password with --password-stdin")
	}
	show, err := hideInput(terminal)
	if err != nil {
		return "", errors.New("standard input is no terminal; give the password with --password-stdin")
	}
	defer show()
	in := bufio.NewReader(terminal)
	var words [2]string
	for i, prompt := range []string{"Password for " + name + ": ", "Once more: "} {
		fmt.Fprint(p.stderr, prompt)
		words[i], err = line(in)
		fmt.Fprintln(p.stderr)
		if err != nil {
			return "", err
		}
	}
	if words[0] != words[1] {
		return "", errors.New("these are two different passwords; nothing was changed")
	}
	return words[0], nil
}

func line(in *bufio.Reader) (string, error) {
	s, err := in.ReadString('\n')
	if err != nil && !(errors.Is(err, io.EOF) && s != "") {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r"), nil
}

// withUsers opens the accounts for a command. It makes no data folder: a mistyped one would look like one without accounts.
func (p *program) withUsers(f func(*users.Users, *config.Config) error) (err error) {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	if err := makeFolder(settings.Data); err != nil { // there it is; but can we write to it?
		return err
	}
	c := usersConfig(settings)
	c.Loose = true // accounts that aliases lead to are made one by one
	u, err := users.Open(p.ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	return f(u, settings)
}

// usersConfig returns what is configured about accounts with its addresses in normal form.
func usersConfig(c *config.Config) users.Config {
	out := c.Users
	out.Path = filepath.Join(c.Data, "users.db")
	out.Domain = normalDomain(out.Domain)
	out.Postmaster = normalAddress(out.Postmaster)
	out.Domains = nil
	for _, d := range c.Users.Domains {
		out.Domains = append(out.Domains, normalDomain(d))
	}
	out.Senders = map[string][]string{}
	for account, all := range c.Submission.Senders {
		account = normalAccounts(account)
		for _, x := range all {
			out.Senders[account] = append(out.Senders[account], normalAccounts(x))
		}
	}
	out.Aliases = map[string][]string{}
	for from, to := range c.Users.Aliases {
		from = normalAddress(from)
		for _, x := range to {
			out.Aliases[from] = append(out.Aliases[from], normalAddress(x))
		}
	}
	return out
}

// normalAddress returns an address as Sluice compares it; what cannot be read stays, and whoever checks it says why.
func normalAddress(s string) string {
	if a, err := mime.ParseAddress(s); err == nil && s != "" {
		return a.String()
	}
	return s
}

func normalDomain(s string) string {
	if a, err := mime.ParseAddress("postmaster@" + s); err == nil {
		return a.Domain
	}
	return s
}

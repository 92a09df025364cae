// Package users knows who has an account here: names, passwords, aliases.
package users

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/state/database"
)

var _ mailstore.Directory = (*Users)(nil)

// A Config says where the accounts are kept, and what is configured about addresses. Addresses and domains in it are in
// normal form (sluice/pipeline/mime).
type Config struct {
	// Path is the file with the accounts, DATA/users.db. It is made if need be.
	Path string `yaml:"-"`
	// Domain is the domain of a login name without one.
	Domain string `yaml:"domain" example:"example.org"`
	// Domains are domains of ours besides those of accounts and aliases: mail for unknown users there is refused as such.
	Domains []string `yaml:"domains" example:"[example.org]"`
	// Aliases are addresses that lead to accounts or to other aliases, each to one or a list; `"@example.org"` gets what
	// nobody else in example.org does. `files` lists files like /etc/aliases with more of them, names in `domain:`.
	Aliases Aliases `yaml:"aliases" example:"{info@example.org: [me@example.org]}"`
	// Postmaster is the account, or the alias, that gets mail for postmaster, where a domain has no postmaster of its own,
	// and what the server itself has to tell its administrator. Empty: the account that was made first, and it tells the
	// postmaster of the domain that it is about.
	Postmaster string `yaml:"postmaster" example:"me@example.org"`
	// Senders are addresses that accounts may send under besides those whose mail they get. A key "@example.org" is all
	// accounts there; an address "@example.org" is every one there.
	Senders map[string][]string `yaml:"-"`
	// Hash says how passwords are stored.
	Hash HashConfig `yaml:"passwords"`
	// SCRAM says which logins there are besides those that send the password, and what is stored for them.
	SCRAM SCRAMConfig `yaml:"scram"`
	// Remember is how long a login that was right is right again without hashing; 0 is 10 minutes, less than 0, such as
	// -1s, not at all.
	Remember time.Duration `yaml:"remember_logins,negative"`
	// Loose lets aliases and Postmaster lead to accounts that are not there yet: for programs that add them.
	Loose bool `yaml:"-"`
	// ReadOnly opens accounts that are there, and changes nothing: for programs that only look.
	ReadOnly bool `yaml:"-"`
	// Now is the clock; nil is time.Now.
	Now func() time.Time `yaml:"-"`
	// Log gets what nobody can be told; nil is slog.Default.
	Log *slog.Logger `yaml:"-"`
}

// DefaultConfig returns what Open takes for fields that are zero.
func DefaultConfig() Config {
	return Config{Hash: HashConfig{}.withDefaults(), SCRAM: SCRAMConfig{}.withDefaults(), Remember: 10 * time.Minute}
}

// Users are the accounts of one data folder. Several processes may have it open: what one changes counts for the next
// call of every other. Its methods may be called by any number of goroutines.
type Users struct {
	c       Config
	db      *database.DB
	hasher  *hasher
	logins  *verified
	unkeyed []byte          // makes the keys of those who have none
	ours    map[string]bool // domains listed and domains of aliases

	known known // asked several times for each mail

	leading func() map[string][]string // see Names
}

// Open opens the accounts and checks the configuration against them. Its error names every alias that leads nowhere or
// in a circle.
func Open(ctx context.Context, c Config) (*Users, error) { return open(ctx, c, nil) }

func open(ctx context.Context, c Config, wrap func(driver.Connector) driver.Connector) (*Users, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Remember == 0 {
		c.Remember = DefaultConfig().Remember
	}
	c.Hash, c.SCRAM = c.Hash.withDefaults(), c.SCRAM.withDefaults()
	u := &Users{c: c, hasher: newHasher(c.Hash), logins: newVerified(c.Remember, 4096), ours: map[string]bool{}}
	if err := u.checkConfig(); err != nil {
		return nil, err
	}
	aliases := u.c.Aliases
	u.leading = sync.OnceValue(func() map[string][]string { return leadingAlone(aliases) })
	db, err := database.Open(ctx, database.Config{Path: c.Path, Name: "accounts", Migrations: migrations, ReadOnly: c.ReadOnly, Wrap: wrap})
	if err != nil {
		return nil, err
	}
	u.db, u.known.db = db, db
	if err := u.openKeys(ctx); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	if !c.Loose {
		if err := u.CheckAliases(ctx); err != nil {
			return nil, errors.Join(err, u.Close())
		}
	}
	return u, nil
}

// Close releases the file.
func (u *Users) Close() error { return errors.Join(u.known.close(), u.db.Close()) }

// checkConfig checks what needs no accounts.
func (u *Users) checkConfig() error {
	var errs []error
	if err := u.c.Hash.check(); err != nil {
		errs = append(errs, fmt.Errorf("passwords: %w", err))
	}
	if err := u.c.SCRAM.check(); err != nil {
		errs = append(errs, err)
	}
	if d := u.c.Domain; d != "" {
		if err := checkDomain(d); err != nil {
			errs = append(errs, fmt.Errorf("domain: %w", badName(d, err.Error())))
		}
	}
	for _, d := range u.c.Domains {
		if err := checkDomain(d); err != nil {
			errs = append(errs, fmt.Errorf("domains: %w", badName(d, err.Error())))
		}
		u.ours[d] = true
	}
	for _, alias := range slices.Sorted(maps.Keys(u.c.Aliases)) {
		if err := checkAlias(alias); err != nil {
			errs = append(errs, &AliasError{alias, err})
			continue
		}
		_, domain, _ := cut(alias)
		u.ours[domain] = true
		if len(u.c.Aliases[alias]) == 0 {
			errs = append(errs, &AliasError{alias, errors.New(alias + " leads to nobody; name an account")})
		}
		if circle := u.circle(alias, nil); circle != nil && slices.Min(circle) == alias {
			errs = append(errs, &AliasError{alias, fmt.Errorf("%s leads back to itself: %s", alias,
				strings.Join(append(circle, alias), " → "))})
		}
	}
	return errors.Join(errs...)
}

// circle returns the way from an alias back to itself, if there is one.
func (u *Users) circle(alias string, way []string) []string {
	return u.follow(alias, alias, way, map[string]bool{})
}

func (u *Users) follow(alias, at string, way []string, seen map[string]bool) []string {
	if seen[at] {
		return nil
	}
	seen[at] = true
	way = append(way, at)
	for _, target := range u.c.Aliases[at] {
		next, ok := u.alias(target)
		if !ok {
			continue
		}
		if next == alias {
			return way
		}
		if found := u.follow(alias, next, way, seen); found != nil {
			return found
		}
	}
	return nil
}

// alias returns the alias that address falls under: the one of the whole name, or of the name without its subaddress.
func (u *Users) alias(address string) (string, bool) {
	for _, a := range forms(address) {
		if _, ok := u.c.Aliases[a]; ok {
			return a, true
		}
	}
	return "", false
}

// forms returns an address and, where it has a subaddress, the address without.
func forms(address string) []string {
	local, domain, ok := cut(address)
	name, _, tagged := strings.Cut(local, "+")
	if !ok || !tagged || name == "" {
		return []string{address}
	}
	return []string{address, name + "@" + domain}
}

// checkAddress checks an address that may have a subaddress.
func checkAddress(address string) error {
	all := forms(address)
	if len(all) == 2 {
		local, _, _ := cut(address)
		_, tag, _ := strings.Cut(local, "+")
		if err := checkTag(tag); err != nil {
			return badName(address, err.Error())
		}
	}
	return CheckAccount(all[len(all)-1])
}

// Resolve implements mailstore.Directory. The more exact name wins, and of one name the account before the alias: the
// account user+tag@domain, the alias user+tag@domain, the account user@domain, the alias user@domain; then, for the
// postmaster, who that is; then the alias @domain. An alias whose accounts are all gone is ErrNoAccount.
func (u *Users) Resolve(ctx context.Context, local, domain string) ([]string, error) {
	if domain == "" {
		if local != "postmaster" {
			return nil, badName(local, "the domain is missing")
		}
		return u.postmaster(ctx, local)
	}
	address := local + "@" + domain
	usable := checkAddress(address)
	if usable == nil {
		accounts, err := u.expand(ctx, address, map[string]bool{})
		if err != nil || len(accounts) > 0 {
			return accounts, err
		}
	}
	if ours, err := u.local(ctx, domain); err != nil {
		return nil, err
	} else if !ours {
		return nil, fmt.Errorf("%q: %w", domain, mailstore.ErrForeign)
	}
	if usable != nil {
		return nil, usable
	}
	if name, _, _ := strings.Cut(local, "+"); name == "postmaster" {
		return u.postmaster(ctx, address)
	}
	if accounts, err := u.catchAll(ctx, domain); err != nil || len(accounts) > 0 {
		return accounts, err
	}
	return nil, fmt.Errorf("%s: %w", address, mailstore.ErrNoAccount)
}

// Operator returns who is told what goes wrong with an account: whom [Config.Postmaster] names, else the postmaster of its
// domain.
func (u *Users) Operator(ctx context.Context, account string) ([]string, error) {
	domain := ""
	if u.c.Postmaster == "" {
		_, domain, _ = cut(account)
	}
	return u.Resolve(ctx, "postmaster", domain)
}

// postmaster returns who gets mail for the postmaster (RFC 5321, 4.5.1: every server has one).
func (u *Users) postmaster(ctx context.Context, address string) ([]string, error) {
	if p := u.c.Postmaster; p != "" {
		accounts, err := u.expand(ctx, p, map[string]bool{})
		if err != nil || len(accounts) > 0 {
			return accounts, err
		}
		return nil, fmt.Errorf("%s leads to %s: %w", address, p, mailstore.ErrNoAccount)
	}
	var first string
	switch err := u.db.QueryRowContext(ctx, selectFirst).Scan(&first); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fmt.Errorf("%s: there are no accounts at all: %w", address, mailstore.ErrNoAccount)
	case err != nil:
		return nil, u.db.Explain(err)
	}
	return []string{first}, nil
}

// expand returns the accounts an address leads to, each once; none is no error. seen has the aliases on the way here.
func (u *Users) expand(ctx context.Context, address string, seen map[string]bool) ([]string, error) {
	for _, name := range forms(address) {
		account, err := u.exact(ctx, name)
		if err != nil {
			return nil, err
		}
		if account != "" {
			return []string{account}, nil
		}
		targets, ok := u.c.Aliases[name]
		if !ok {
			continue
		}
		if seen[name] {
			return nil, nil
		}
		seen[name] = true
		return u.expandAll(ctx, targets, seen)
	}
	return nil, nil
}

// account returns the account of an address with or without its subaddress, "" if there is none.
func (u *Users) account(ctx context.Context, address string) (string, error) {
	for _, name := range forms(address) {
		if account, err := u.exact(ctx, name); err != nil || account != "" {
			return account, err
		}
	}
	return "", nil
}

// exact returns name if there is an account of that name, else "".
func (u *Users) exact(ctx context.Context, name string) (account string, err error) {
	r, err := u.known.get(ctx, name)
	if err != nil || !r.exists {
		return "", err
	}
	return name, nil
}

// local reports whether mail for a domain is ours to keep.
func (u *Users) local(ctx context.Context, domain string) (bool, error) {
	if u.ours[domain] {
		return true, nil
	}
	var name string
	err := u.db.QueryRowContext(ctx, selectDomain, domain).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, u.db.Explain(err)
}

// Authenticate implements mailstore.Directory. Login names are compared in lower case and NFC. An alias or a subaddress
// is no login name.
func (u *Users) Authenticate(ctx context.Context, login, password string) (string, error) {
	account := u.named(login)
	stored, keys, known, err := u.stored(ctx, account)
	if err != nil {
		return "", err
	}
	if !known {
		if _, err := u.hasher.matches(ctx, password, u.hasher.dummy); err != nil {
			return "", err
		}
		return "", mailstore.ErrPassword
	}
	now := u.c.Now()
	mac := u.logins.mac(account, stored, password)
	if u.logins.knows(mac, now) {
		return account, nil
	}
	h, err := parseHash(stored)
	if err != nil {
		return "", fmt.Errorf("%s: %w: sluice user passwd %[1]s", account, err)
	}
	ok, err := u.hasher.matches(ctx, password, h)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", mailstore.ErrPassword
	}
	today := u.hasher.current(h)
	if today && u.c.SCRAM.current(keys) {
		u.logins.add(mac, now)
		return account, nil
	}
	if err := u.rehash(ctx, account, password, stored, today); err != nil {
		u.c.Log.WarnContext(ctx, "password not stored anew", "account", account, "err", err) // the login stands
	}
	return account, nil
}

// named returns the name of the account that a login name would be of.
func (u *Users) named(login string) string {
	account := normal(login)
	if !strings.Contains(account, "@") {
		account += "@" + u.c.Domain
	}
	return account
}

// stored returns what is stored of the password of an account that can log in.
func (u *Users) stored(ctx context.Context, account string) (hash, keys string, known bool, err error) {
	err = u.db.QueryRowContext(ctx, selectPassword, account).Scan(&hash, &keys)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", false, nil
	}
	return hash, keys, err == nil, u.db.Explain(err)
}

// rehash stores a password with today's parameters, unless it was changed meanwhile. today: its hash has them already.
func (u *Users) rehash(ctx context.Context, account, password, stored string, today bool) error {
	hash := stored
	if !today {
		h, err := u.hasher.hash(ctx, password)
		if err != nil {
			return err
		}
		hash = h.String()
	}
	keys, err := u.keys(ctx, password)
	if err != nil {
		return err
	}
	return u.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, rehashPassword, account, hash, stored, keys)
		return err
	})
}

// Add makes an account with a password. Errors: mailstore.ErrName, ErrExists, what CheckPassword says.
func (u *Users) Add(ctx context.Context, account, password string) error {
	if err := CheckAccount(account); err != nil {
		return err
	}
	if err := CheckPassword(password); err != nil {
		return fmt.Errorf("%s: %w", account, err)
	}
	if _, ok := u.c.Aliases[account]; ok {
		return fmt.Errorf("%s %w as an alias: take it out of aliases first, the account would get its mail", account, mailstore.ErrExists)
	}
	h, err := u.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	keys, err := u.keys(ctx, password)
	if err != nil {
		return err
	}
	_, domain, _ := cut(account)
	err = u.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, insertAccount, account, domain, h.String(), u.c.Now().UnixMicro(), keys)
		return err
	})
	if database.IsDuplicate(err) {
		return fmt.Errorf("%s %w; to change its password: sluice user passwd %[1]s", account, mailstore.ErrExists)
	}
	return err
}

// SetPassword changes the password of an account. Errors: mailstore.ErrNoAccount, what CheckPassword says.
func (u *Users) SetPassword(ctx context.Context, account, password string) error {
	if err := CheckPassword(password); err != nil {
		return fmt.Errorf("%s: %w", account, err)
	}
	h, err := u.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	keys, err := u.keys(ctx, password)
	if err != nil {
		return err
	}
	return u.change(ctx, account, updatePassword, account, h.String(), keys)
}

// Delete removes an account; its mail is not touched. Errors: mailstore.ErrNoAccount.
func (u *Users) Delete(ctx context.Context, account string) error {
	return u.change(ctx, account, deleteAccount, account)
}

// change runs a statement that changes the row of one account.
func (u *Users) change(ctx context.Context, account, statement string, args ...any) error {
	return u.db.Write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, statement, args...)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return errNone(account)
	})
}

// An Account is what is known of an account.
type Account struct {
	Name    string
	Quota   int64 // octets; 0: the standard one, below 0: as much as there is room for
	NoLogin bool  // its mail is kept, and nobody can log in
	// SCRAM are the mechanisms that it has keys for, strongest first, with their iterations.
	SCRAM   []Mechanism
	Created time.Time
}

// List returns all accounts, by domain and name.
func (u *Users) List(ctx context.Context) ([]Account, error) {
	rows, err := u.db.QueryContext(ctx, selectAccounts)
	if err != nil {
		return nil, u.db.Explain(err)
	}
	defer rows.Close()
	var all []Account
	for rows.Next() {
		var a Account
		var login, created int64
		var keys string
		if err := rows.Scan(&a.Name, &a.Quota, &login, &keys, &created); err != nil {
			return nil, u.db.Explain(err)
		}
		a.SCRAM = mechanisms(keys)
		a.NoLogin = login == 0
		a.Created = time.UnixMicro(created)
		all = append(all, a)
	}
	return all, u.db.Explain(rows.Err())
}

// Exists reports whether there is an account of this name. Aliases and subaddresses do not count.
func (u *Users) Exists(ctx context.Context, account string) (bool, error) {
	name, err := u.exact(ctx, account)
	return name != "", err
}

// Quota returns how many octets of mail an account may keep; 0: the standard, below 0: as much as there is room for. Errors:
// mailstore.ErrNoAccount.
func (u *Users) Quota(ctx context.Context, account string) (octets int64, err error) {
	r, err := u.known.get(ctx, account)
	if err == nil && !r.exists {
		return 0, fmt.Errorf("%s: %w", account, mailstore.ErrNoAccount)
	}
	return r.quota, err
}

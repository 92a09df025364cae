package users

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"

	"sluice/mailstore"
)

var _ mailstore.Keyring = (*Users)(nil)

// SCRAMConfig says which keys are kept for logins by SCRAM (RFC 5802), by which a client shows that it knows the password
// and does not send it. An account gets its keys when its password is set, and when its owner next logs in with it.
type SCRAMConfig struct {
	// Mechanisms are SCRAM-SHA-256 and SCRAM-SHA-1, and SCRAM-SHA-256-PLUS and SCRAM-SHA-1-PLUS, which also see that
	// nobody stands between (over TLS; GNU SASL 2.2, in mutt and msmtp, takes them where they are offered and fails). Each
	// is offered once every account that can log in has its keys: `sluice user list --lacking SCRAM-SHA-256` says which
	// lack them. The default is none: who steals users.db guesses passwords faster with such keys than without. Keys for
	// what is no longer listed are removed when the server begins, and at a reload.
	Mechanisms []string `yaml:"mechanisms" example:"[SCRAM-SHA-256]"`
	// Iterations is how often a password is hashed for its keys, 4096 or more: by each client at each login, and by who
	// guesses. The default is 65536, the most that Cyrus SASL computes (mbsync, KMail). OWASP's 600000 is better where no
	// client uses that, and takes GNU SASL (mutt) seconds.
	Iterations int `yaml:"iterations"`
}

// A Mechanism is one that an account has keys for.
type Mechanism struct {
	Name       string // "SCRAM-SHA-256"
	Iterations int
}

// hashes are the mechanisms, strongest first.
func hashes() []hashed {
	return []hashed{{"SCRAM-SHA-256", scram.SHA256, 32}, {"SCRAM-SHA-1", scram.SHA1, 20}}
}

type hashed struct {
	mechanism string
	hash      scram.HashGeneratorFcn
	size      int
}

func (c SCRAMConfig) withDefaults() SCRAMConfig {
	if c.Iterations == 0 {
		c.Iterations = 65536
	}
	return c
}

// Bounds of iterations: RFC 7677, 4, and what no client would wait for.
const fewestIterations, mostIterations = 4096, 10_000_000

// plus ends the names of mechanisms that bind the login to its TLS connection. Their keys are those of the ones without.
const plus = "-PLUS"

// Wants reports whether keys are kept for a mechanism.
func (c SCRAMConfig) Wants(mechanism string) bool {
	return slices.Contains(c.Mechanisms, mechanism) || slices.Contains(c.Mechanisms, mechanism+plus)
}

// A SettingError says what is wrong with one setting.
type SettingError struct {
	Setting string // "scram.iterations"
	Err     error
}

func (e *SettingError) Error() string { return e.Setting + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *SettingError) Unwrap() error { return e.Err }

func (c SCRAMConfig) check() error {
	var errs []error
	for i, m := range c.Mechanisms {
		switch {
		case !slices.ContainsFunc(hashes(), func(h hashed) bool { return h.mechanism == strings.TrimSuffix(m, plus) }):
			errs = append(errs, &SettingError{fmt.Sprintf("scram.mechanisms[%d]", i),
				fmt.Errorf("there is no %q; write SCRAM-SHA-256, SCRAM-SHA-1, or one of them with -PLUS", m)})
		case slices.Contains(c.Mechanisms[:i], m):
			errs = append(errs, &SettingError{fmt.Sprintf("scram.mechanisms[%d]", i), errors.New(m + " is there twice; write it once")})
		}
	}
	if n := c.Iterations; n < fewestIterations || n > mostIterations {
		errs = append(errs, &SettingError{"scram.iterations", fmt.Errorf("%d is not possible; write %d to %d", n, fewestIterations, mostIterations)})
	}
	return errors.Join(errs...)
}

// current reports whether keys are those that would be made today.
func (c SCRAMConfig) current(keys string) bool {
	have := mechanisms(keys)
	for _, h := range hashes() {
		i := slices.IndexFunc(have, func(m Mechanism) bool { return m.Name == h.mechanism })
		if c.Wants(h.mechanism) != (i >= 0) || i >= 0 && have[i].Iterations != c.Iterations {
			return false
		}
	}
	return true
}

// keys returns what is stored for SCRAM with a password: for each mechanism what RFC 5803 has,
// "SCRAM-SHA-256$65536:salt$StoredKey:ServerKey", with spaces between.
func (u *Users) keys(ctx context.Context, password string) (string, error) {
	var all []string
	for _, h := range hashes() {
		if !u.c.SCRAM.Wants(h.mechanism) {
			continue
		}
		k, err := u.derive(ctx, h.hash, password)
		if err != nil {
			return "", err
		}
		b64 := base64.StdEncoding.EncodeToString
		all = append(all, fmt.Sprintf("%s$%d:%s$%s:%s", h.mechanism, k.Iters, b64([]byte(k.Salt)), b64(k.StoredKey), b64(k.ServerKey)))
	}
	return strings.Join(all, " "), nil
}

func (u *Users) derive(ctx context.Context, hash scram.HashGeneratorFcn, password string) (k scram.StoredCredentials, err error) {
	done, err := u.hasher.turn(ctx)
	if err != nil {
		return k, err
	}
	defer done()
	// What SASLprep has no answer for, such as an emoji, which its Unicode of 2002 does not know, stays as it is.
	if prepared, err := stringprep.SASLprep.Prepare(password); err == nil && prepared != "" {
		password = prepared
	}
	client, err := hash.NewClientUnprepped("", password, "")
	if err != nil {
		return k, err
	}
	return client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(random(16)), Iters: u.c.SCRAM.Iterations})
}

// mechanisms returns what there are keys for.
func mechanisms(keys string) (all []Mechanism) {
	for _, h := range hashes() {
		if k, ok := find(keys, h.mechanism); ok {
			all = append(all, Mechanism{h.mechanism, k.Iterations})
		}
	}
	return all
}

// find returns the keys for one mechanism; ok is false where there are none that this program reads.
func find(keys, mechanism string) (k mailstore.Keys, ok bool) {
	for one := range strings.SplitSeq(keys, " ") {
		rest, ok := strings.CutPrefix(one, mechanism+"$")
		if !ok {
			continue
		}
		how, what, _ := strings.Cut(rest, "$")
		iterations, salt, _ := strings.Cut(how, ":")
		stored, server, _ := strings.Cut(what, ":")
		var errs [4]error
		k.Iterations, errs[0] = strconv.Atoi(iterations)
		k.Salt, errs[1] = base64.StdEncoding.DecodeString(salt)
		k.Stored, errs[2] = base64.StdEncoding.DecodeString(stored)
		k.Server, errs[3] = base64.StdEncoding.DecodeString(server)
		i := slices.IndexFunc(hashes(), func(h hashed) bool { return h.mechanism == mechanism })
		whole := i >= 0 && len(k.Stored) == hashes()[i].size && len(k.Server) == hashes()[i].size
		return k, whole && errors.Join(errs[:]...) == nil && k.Iterations >= fewestIterations && len(k.Salt) > 0
	}
	return k, false
}

// secretName is the secret that keys of nobody are made with. It outlives the process, as the salts of accounts do.
const secretName = "scram"

// openKeys reads the secret, and makes it at first.
func (u *Users) openKeys(ctx context.Context) error {
	if len(u.c.SCRAM.Mechanisms) == 0 {
		return nil
	}
	if !u.c.ReadOnly {
		err := u.db.Write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, insertSecret, secretName, hex.EncodeToString(random(32)))
			return err
		})
		if err != nil {
			return err
		}
	}
	var secret string
	err := u.db.QueryRowContext(ctx, selectSecret, secretName).Scan(&secret)
	if err != nil && !(u.c.ReadOnly && errors.Is(err, sql.ErrNoRows)) {
		return u.db.Explain(err)
	}
	u.unkeyed, err = hex.DecodeString(secret)
	return err
}

// DropKeys removes the keys of mechanisms that are not configured.
func (u *Users) DropKeys(ctx context.Context) error {
	all, err := u.List(ctx)
	if err != nil {
		return err
	}
	unwanted := func(m Mechanism) bool { return !u.c.SCRAM.Wants(m.Name) }
	all = slices.DeleteFunc(all, func(a Account) bool { return !slices.ContainsFunc(a.SCRAM, unwanted) })
	if len(all) == 0 {
		return nil
	}
	return u.db.Write(ctx, func(tx *sql.Tx) error {
		for _, a := range all {
			var keys string
			if err := tx.QueryRowContext(ctx, selectKeys, a.Name).Scan(&keys); errors.Is(err, sql.ErrNoRows) {
				continue
			} else if err != nil {
				return err
			}
			kept := slices.DeleteFunc(strings.Fields(keys), func(one string) bool {
				name, _, _ := strings.Cut(one, "$")
				return unwanted(Mechanism{Name: name})
			})
			if _, err := tx.ExecContext(ctx, updateKeys, a.Name, strings.Join(kept, " ")); err != nil {
				return err
			}
		}
		return nil
	})
}

// Mechanisms implements mailstore.Keyring.
func (u *Users) Mechanisms(ctx context.Context) ([]string, error) {
	var all []string
	for _, h := range hashes() {
		if !u.c.SCRAM.Wants(h.mechanism) {
			continue
		}
		lacks, err := u.known.lacks(ctx, h.mechanism)
		if err != nil {
			return nil, err
		}
		for _, m := range []string{h.mechanism + plus, h.mechanism} {
			if !lacks && slices.Contains(u.c.SCRAM.Mechanisms, m) {
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// Keys implements mailstore.Keyring.
func (u *Users) Keys(ctx context.Context, login, mechanism string) (string, mailstore.Keys, error) {
	account := u.named(login)
	nobody := u.nobody(account, mechanism) // always, so that it takes the same time
	_, keys, _, err := u.stored(ctx, account)
	if err != nil {
		return "", mailstore.Keys{}, err
	}
	if k, ok := find(keys, mechanism); ok && u.c.SCRAM.Wants(mechanism) {
		return account, k, nil
	}
	return "", nobody, nil
}

// nobody returns the keys of a name that has none.
func (u *Users) nobody(account, mechanism string) mailstore.Keys {
	part := func(what string, size int) []byte {
		m := hmac.New(sha256.New, u.unkeyed)
		fmt.Fprintf(m, "%s %s %s", what, mechanism, account)
		return m.Sum(nil)[:size]
	}
	size := 32
	if i := slices.IndexFunc(hashes(), func(h hashed) bool { return h.mechanism == mechanism }); i >= 0 {
		size = hashes()[i].size
	}
	return mailstore.Keys{
		Salt: part("salt", 16), Iterations: u.c.SCRAM.Iterations, Stored: part("stored", size), Server: part("server", size),
	}
}

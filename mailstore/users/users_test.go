package users

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/state/database"
	"sluice/mailstore/state/database/databasetest"
)

// cheap hashes quickly.
var cheap = HashConfig{Memory: 64, Passes: 1, Threads: 1, AtOnce: 2}

func openTest(t *testing.T, c Config, accounts ...string) *Users {
	t.Helper()
	if c.Path == "" {
		c.Path = filepath.Join(t.TempDir(), "users.db")
	}
	if c.Hash == (HashConfig{}) {
		c.Hash = cheap
	}
	if len(accounts) > 0 {
		before := c
		before.Loose, before.Aliases = true, nil
		u := mustOpen(t, before)
		for _, a := range accounts {
			if err := u.Add(t.Context(), a, "pw of "+a); err != nil {
				t.Fatal(err)
			}
		}
	}
	return mustOpen(t, c)
}

func mustOpen(t *testing.T, c Config) *Users {
	t.Helper()
	u, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

func TestResolve(t *testing.T) {
	u := openTest(t, Config{
		Domain:     "example.org",
		Domains:    []string{"listed.example"},
		Postmaster: "root@example.org",
		Aliases: map[string][]string{
			"info@example.org":         {"me@example.org", "sales@shop.example"},
			"sales@shop.example":       {"me@example.org", "you@example.org"},
			"info+odd@example.org":     {"you@example.org"},
			"me+special@example.org":   {"you@example.org"},
			"tagged@example.org":       {"me+lists@example.org"},
			"root@example.org":         {"you@example.org"},
			"me@example.org":           {"you@example.org"}, // the account stands before it
			"postmaster@other.example": {"me@example.org"},
			"bücher@bücher.example":    {"me@example.org"},
			"@rest.example":            {"you@example.org", "root@example.org", "me@example.org"},
			"known@rest.example":       {"me@example.org"},
		},
	}, "me@example.org", "you@example.org", "o'hara=x@localhost")

	for _, tt := range []struct {
		local, domain string
		want          string
		err           error
	}{
		{"me", "example.org", "me@example.org", nil},
		{"me+tag", "example.org", "me@example.org", nil},
		{"me+tag+more", "example.org", "me@example.org", nil},
		{"me+", "example.org", "me@example.org", nil},
		{"me+special", "example.org", "you@example.org", nil},
		{"o'hara=x", "localhost", "o'hara=x@localhost", nil},
		{"info", "example.org", "me@example.org you@example.org", nil},
		{"info+tag", "example.org", "me@example.org you@example.org", nil},
		{"info+odd", "example.org", "you@example.org", nil},
		{"tagged", "example.org", "me@example.org", nil},
		{"bücher", "bücher.example", "me@example.org", nil},

		{"postmaster", "", "you@example.org", nil},
		{"postmaster", "example.org", "you@example.org", nil},
		{"postmaster+x", "example.org", "you@example.org", nil},
		{"postmaster", "listed.example", "you@example.org", nil},
		{"postmaster", "localhost", "you@example.org", nil},
		{"postmaster", "other.example", "me@example.org", nil},
		{"postmaster", "elsewhere.example", "", mailstore.ErrForeign},

		{"anybody", "rest.example", "you@example.org me@example.org", nil},
		{"anybody+x", "rest.example", "you@example.org me@example.org", nil},
		{"known", "rest.example", "me@example.org", nil},
		{"known+x", "rest.example", "me@example.org", nil},
		{"postmaster", "rest.example", "you@example.org", nil},
		{"../me", "rest.example", "", mailstore.ErrName},

		{"nobody", "example.org", "", mailstore.ErrNoAccount},
		{"nobody", "localhost", "", mailstore.ErrNoAccount},
		{"me", "listed.example", "", mailstore.ErrNoAccount},
		{"me", "shop.example", "", mailstore.ErrNoAccount},
		{"me", "elsewhere.example", "", mailstore.ErrForeign},
		{"me", "sub.example.org", "", mailstore.ErrForeign},
		{"a/b", "elsewhere.example", "", mailstore.ErrForeign},
		{"me", "", "", mailstore.ErrName},
		{"", "", "", mailstore.ErrName},
		{"", "example.org", "", mailstore.ErrName},
		{"+tag", "example.org", "", mailstore.ErrName},
		{"../me", "example.org", "", mailstore.ErrName},
		{"..", "example.org", "", mailstore.ErrName},
		{".me", "example.org", "", mailstore.ErrName},
		{"me\x00", "example.org", "", mailstore.ErrName},
		{"me+a/b", "example.org", "", mailstore.ErrName},
		{"me+a\x00b", "example.org", "", mailstore.ErrName},
		{"ME", "example.org", "", mailstore.ErrName},
		{"x' OR '1'='1", "example.org", "", mailstore.ErrName},
		{"me", "../example.org", "", mailstore.ErrForeign},
	} {
		got, err := u.Resolve(t.Context(), tt.local, tt.domain)
		if strings.Join(got, " ") != tt.want || !errors.Is(err, tt.err) || err == nil != (tt.err == nil) {
			t.Errorf("Resolve(%q, %q) = %v, %v; want %q, %v", tt.local, tt.domain, got, err, tt.want, tt.err)
		}
	}
}

func TestPostmasterIsTheFirstAccount(t *testing.T) {
	u := openTest(t, Config{})
	if _, err := u.Resolve(t.Context(), "postmaster", ""); !errors.Is(err, mailstore.ErrNoAccount) {
		t.Errorf("without accounts: %v", err)
	}
	for _, a := range []string{"zoe@localhost", "adam@localhost"} {
		if err := u.Add(t.Context(), a, "x"); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"zoe@localhost", "adam@localhost"} {
		got, err := u.Resolve(t.Context(), "postmaster", "")
		if err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("postmaster is %v, %v; want %s", got, err, want)
		}
		if err := u.Delete(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
}

// What goes wrong with an account is nothing for whoever happened to be the first.
func TestOperator(t *testing.T) {
	tests := []struct{ setting, account, want string }{
		{"", "b@x", "postmaster@x"},
		{"", "b@y", "a@x"},
		{"", "b@z", "b@x"},
		{"a@y", "b@x", "a@y"},
	}
	for _, tt := range tests {
		u := openTest(t, Config{Postmaster: tt.setting, Aliases: map[string][]string{"postmaster@z": {"b@x"}}},
			"a@x", "b@x", "postmaster@x", "a@y", "b@y", "b@z")
		got, err := u.Operator(t.Context(), tt.account)
		if err != nil || !slices.Equal(got, []string{tt.want}) {
			t.Errorf("of %s, with postmaster %q, %v is told, %v; want %s", tt.account, tt.setting, got, err, tt.want)
		}
	}
}

func TestAliasWhoseAccountsAreGone(t *testing.T) {
	u := openTest(t, Config{Aliases: map[string][]string{"both@x": {"a@x", "b@x"}}}, "a@x", "b@x", "c@x")
	for _, want := range []string{"a@x b@x", "b@x", ""} {
		got, err := u.Resolve(t.Context(), "both", "x")
		if strings.Join(got, " ") != want || (want == "") != errors.Is(err, mailstore.ErrNoAccount) {
			t.Errorf("got %v, %v; want %q", got, err, want)
		}
		if len(got) > 0 {
			if err := u.Delete(t.Context(), got[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A catch-all is for what comes from outside: it makes no target of another alias good.
func TestCatchAllOfNobody(t *testing.T) {
	u := openTest(t, Config{Loose: true, Aliases: Aliases{
		"@x": {"gone@x"}, "to_nobody@y": {"nobody@z"}, "@z": {"me@y"},
	}}, "me@y")
	for _, address := range []string{"anybody@x", "to_nobody@y"} {
		local, domain, _ := strings.Cut(address, "@")
		if got, err := u.Resolve(t.Context(), local, domain); !errors.Is(err, mailstore.ErrNoAccount) {
			t.Errorf("%s: %v, %v", address, got, err)
		}
	}
	if got, err := u.Resolve(t.Context(), "nobody", "z"); err != nil || len(got) != 1 || got[0] != "me@y" {
		t.Errorf("%v, %v", got, err)
	}
	err := u.CheckAliases(t.Context())
	var about *AliasError
	if !errors.As(err, &about) || strings.Count(err.Error(), "neither an account nor an alias") != 2 {
		t.Errorf("%v", err)
	}
}

func TestOpenRefusesConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Config
		want []string // lines of the error
	}{
		{"circle", Config{Aliases: map[string][]string{"b@x": {"c@x", "me@x"}, "c@x": {"a+tag@x"}, "a@x": {"b@x"}, "in@x": {"a@x"}}},
			[]string{"aliases: a@x leads back to itself: a@x → b@x → c@x → a@x"}},
		{"itself", Config{Aliases: map[string][]string{"a@x": {"a@x"}}},
			[]string{"aliases: a@x leads back to itself: a@x → a@x"}},
		{"two circles", Config{Aliases: map[string][]string{"a@x": {"b@x"}, "b@x": {"a@x"}, "c@x": {"c+t@x"}}},
			[]string{"aliases: a@x leads back to itself: a@x → b@x → a@x", "aliases: c@x leads back to itself: c@x → c@x"}},
		{"dangling", Config{Aliases: map[string][]string{"a@x": {"me@x", "nobody@x"}, "b@x": {"a@gmail.example"}}}, []string{
			"aliases: a@x leads to nobody@x, which is neither an account nor an alias; add it with: sluice user add nobody@x",
			"aliases: b@x leads to a@gmail.example, which is neither an account nor an alias; add it with: sluice user add a@gmail.example"}},
		{"empty", Config{Aliases: map[string][]string{"a@x": nil}}, []string{"aliases: a@x leads to nobody; name an account"}},
		{"names", Config{Domain: "Example.ORG", Domains: []string{"a b", "me@x"}, Aliases: map[string][]string{"no domain": {"me@x"}, "A@x": {"me@x"}}},
			[]string{
				`domain: "Example.ORG" is not a usable name: the domain must be written in lower case and composed characters: "example.org"`,
				`domains: "a b" is not a usable name: the domain must not contain ' '; use letters, digits, '.', '-' and '_'`,
				`domains: "me@x" is not a usable name: the domain must not contain '@'; use letters, digits, '.', '-' and '_'`,
				`aliases: "A@x" is not a usable name: the part before @ must be written in lower case and composed characters: "a"`,
				`aliases: "no domain" is not a usable name: an account is called name@domain`}},
		{"postmaster", Config{Postmaster: "root@x"},
			[]string{"postmaster: root@x is neither an account nor an alias; add it with: sluice user add root@x"}},
		{"hash", Config{Hash: HashConfig{Memory: 4, Passes: 101, AtOnce: -1}},
			[]string{"passwords: memory: 4 KiB is not possible; write 8 to 4194304"}},
		{"passes", Config{Hash: HashConfig{Passes: 101}}, []string{"passwords: passes: 101 is too many; write 1 to 100"}},
		{"at once", Config{Hash: HashConfig{AtOnce: -1}}, []string{"passwords: at_once: -1 is not possible; write 1 or more"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			openTest(t, Config{Path: path}, "me@x")
			tt.c.Path = path
			_, err := Open(t.Context(), tt.c)
			if err == nil || err.Error() != strings.Join(tt.want, "\n") {
				t.Errorf("got:\n%v\nwant:\n%s", err, strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestLooseAliases(t *testing.T) {
	c := Config{Path: filepath.Join(t.TempDir(), "users.db"), Postmaster: "info@x", Aliases: map[string][]string{"info@x": {"me@x"}}, Hash: cheap}
	if _, err := Open(t.Context(), c); err == nil {
		t.Fatal("an alias that leads nowhere was taken")
	}
	loose := c
	loose.Loose = true
	u := mustOpen(t, loose)
	if _, err := u.Resolve(t.Context(), "info", "x"); !errors.Is(err, mailstore.ErrNoAccount) {
		t.Errorf("an alias that leads nowhere: %v", err)
	}
	const want = "aliases: info@x leads to me@x, which is neither an account nor an alias; add it with: sluice user add me@x\n" +
		"postmaster: info@x is neither an account nor an alias; add it with: sluice user add info@x"
	if err := u.CheckAliases(t.Context()); err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	if err := u.Add(t.Context(), "me@x", "x"); err != nil {
		t.Fatal(err)
	}
	if err := u.CheckAliases(t.Context()); err != nil {
		t.Error(err)
	}
	if err := u.Add(t.Context(), "info@x", "x"); !errors.Is(err, mailstore.ErrExists) {
		t.Errorf("an account with the name of an alias: %v", err)
	}
	mustOpen(t, c)
}

func TestAccountNames(t *testing.T) {
	for _, tt := range []struct{ name, why string }{
		{"me@localhost", ""},
		{"me.too-x_y@mx1.example.org", ""},
		{"weiß@bücher.example", ""},
		{"#!$%&'*-=?^_`{|}~@x", ""},
		{strings.Repeat("a", 64) + "@" + strings.Repeat("b", 255), ""},
		{"me", "an account is called name@domain"},
		{"", "an account is called name@domain"},
		{"@x", "the part before @ is missing; an account is called name@domain"},
		{"me@", "the domain is missing; an account is called name@domain"},
		{strings.Repeat("a", 65) + "@x", "the part before @ is 65 bytes long; at most 64"},
		{"me@" + strings.Repeat("a", 256), "the domain is 256 bytes long; at most 255"},
		{"Me@x", `the part before @ must be written in lower case and composed characters: "me"`},
		{"bu\u0308cher@x", `the part before @ must be written in lower case and composed characters: "bücher"`},
		{"me@X.example", `the domain must be written in lower case and composed characters: "x.example"`},
		{"me+tag@x", `mail to name+anything goes to name already; leave out "+tag"`},
		{"../me@x", "the part before @ must not begin or end with a dot"},
		{"a..b@x", "the part before @ must not contain two dots in a row"},
		{".me@x", "the part before @ must not begin or end with a dot"},
		{"me@x.", "the domain must not begin or end with a dot"},
		{"me@..", "the domain must not begin or end with a dot"},
		{"a/b@x", "the part before @ must not contain '/'; use letters, digits, '.', '-' and '_'"},
		{`a\b@x`, `the part before @ must not contain '\\'; use letters, digits, '.', '-' and '_'`},
		{"a:b@x", "the part before @ must not contain ':'; use letters, digits, '.', '-' and '_'"},
		{"a@b@x", "the part before @ must not contain '@'; use letters, digits, '.', '-' and '_'"},
		{"a b@x", "the part before @ must not contain ' '; use letters, digits, '.', '-' and '_'"},
		{"a\u00a0b@x", `the part before @ must not contain '\u00a0'; use letters, digits, '.', '-' and '_'`},
		{"a\u202eb@x", `the part before @ must not contain '\u202e'; use letters, digits, '.', '-' and '_'`},
		{"a\x00@x", `the part before @ must not contain '\x00'; use letters, digits, '.', '-' and '_'`},
		{"a\r\n@x", `the part before @ must not contain '\r'; use letters, digits, '.', '-' and '_'`},
		{"a\xff@x", "the part before @ is not valid UTF-8"},
		{`"a"@x`, `the part before @ must not contain '"'; use letters, digits, '.', '-' and '_'`},
		{"me@a/b", "the domain must not contain '/'; use letters, digits, '.', '-' and '_'"},
		{"me@[127.0.0.1]", "the domain must not contain '['; use letters, digits, '.' and '-'"},
	} {
		err := CheckAccount(tt.name)
		if tt.why == "" {
			if err != nil {
				t.Errorf("%q: %v", tt.name, err)
			}
			continue
		}
		if want := badName(tt.name, tt.why).Error(); err == nil || err.Error() != want || !errors.Is(err, mailstore.ErrName) {
			t.Errorf("%q: got %v, want %s", tt.name, err, want)
		}
	}
}

func TestPasswords(t *testing.T) {
	u := openTest(t, Config{Domain: "example.org"}, "me@example.org", "me@localhost")
	nfd, nfc := "pa\u0308ss", "p\u00e4ss"
	if err := u.Add(t.Context(), "umlaut@example.org", nfd); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 1024)
	if err := u.Add(t.Context(), "long@example.org", long); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ login, password, want string }{
		{"me@example.org", "pw of me@example.org", "me@example.org"},
		{"me", "pw of me@example.org", "me@example.org"},
		{"Me@EXAMPLE.org", "pw of me@example.org", "me@example.org"},
		{"me@localhost", "pw of me@localhost", "me@localhost"},
		{"umlaut", nfc, "umlaut@example.org"},
		{"long", long, "long@example.org"},
		{"long", long + "x", ""},
		{"long", "", ""},
		{"me", "pw of me@localhost", ""},
		{"me", "", ""},
		{"me", "pw of me@example.org ", ""},
		{"me", "PW OF me@example.org", ""},
		{"me+tag", "pw of me@example.org", ""},
		{"nobody", "pw of me@example.org", ""},
		{"", "", ""},
		{"@", "", ""},
		{"me\x00@example.org", "pw of me@example.org", ""},
		{"me@example.org' OR 'a'='a", "pw of me@example.org", ""},
	} {
		for range 2 { // the second time from memory
			got, err := u.Authenticate(t.Context(), tt.login, tt.password)
			if got != tt.want || (tt.want == "") != errors.Is(err, mailstore.ErrPassword) {
				t.Errorf("Authenticate(%q, %.20q) = %q, %v; want %q", tt.login, tt.password, got, err, tt.want)
			}
			if err != nil && err.Error() != mailstore.ErrPassword.Error() {
				t.Errorf("the error says more than it should: %v", err)
			}
		}
	}
	for password, want := range map[string]string{
		"":                        "me@example.org: the password is empty; it is one line of 1 to 1024 bytes",
		"a\nb":                    "me@example.org: the password must be one line, without NUL",
		"a\r":                     "me@example.org: the password must be one line, without NUL",
		"a\x00":                   "me@example.org: the password must be one line, without NUL",
		strings.Repeat("x", 1025): "me@example.org: the password is 1025 bytes long; at most 1024",
	} {
		if err := u.SetPassword(t.Context(), "me@example.org", password); err == nil || err.Error() != want {
			t.Errorf("%.10q: got %v, want %s", password, err, want)
		}
		if err := u.Add(t.Context(), "me@example.org", password); err == nil || err.Error() != want {
			t.Errorf("%.10q: got %v, want %s", password, err, want)
		}
	}
}

// counted counts the hashings of u and their cost.
func counted(u *Users) (count func() int) {
	var n atomic.Int64
	key := u.hasher.key
	u.hasher.key = func(password, salt []byte, passes, memory uint32, threads uint8, length uint32) []byte {
		n.Add(int64(passes * memory))
		return key(password, salt, passes, memory, threads, length)
	}
	return func() int { return int(n.Swap(0)) }
}

func TestUnknownCostsWhatWrongCosts(t *testing.T) {
	u := openTest(t, Config{Domain: "x"}, "me@x")
	count := counted(u)
	for _, login := range []string{"me@x", "nobody@x", "nobody@elsewhere", "", "\x00", "me+tag@x"} {
		for _, password := range []string{"wrong", "", strings.Repeat("x", 2000), "a\nb"} {
			if _, err := u.Authenticate(t.Context(), login, password); !errors.Is(err, mailstore.ErrPassword) {
				t.Fatal(err)
			}
			if n := count(); n != 64 {
				t.Errorf("login %q with %.10q cost %d, want 64", login, password, n)
			}
		}
	}
}

func TestRememberedLogins(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	u := openTest(t, Config{Now: func() time.Time { return now }, Remember: time.Minute}, "me@x")
	count := counted(u)
	other := mustOpen(t, Config{Path: u.c.Path, Hash: cheap})
	login := func(password string, want error, hashings int) {
		t.Helper()
		count()
		if _, err := u.Authenticate(t.Context(), "me@x", password); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", password, err, want)
		}
		if n := count() / 64; n != hashings {
			t.Errorf("%s: %d hashings, want %d", password, n, hashings)
		}
	}
	login("pw of me@x", nil, 1)
	login("pw of me@x", nil, 0)
	login("wrong", mailstore.ErrPassword, 1)
	login("wrong", mailstore.ErrPassword, 1) // wrong ones are not remembered
	now = now.Add(time.Minute)
	login("pw of me@x", nil, 1)

	if err := other.SetPassword(t.Context(), "me@x", "new"); err != nil {
		t.Fatal(err)
	}
	login("pw of me@x", mailstore.ErrPassword, 1)
	login("new", nil, 1)
	login("new", nil, 0)
	if err := other.Delete(t.Context(), "me@x"); err != nil {
		t.Fatal(err)
	}
	login("new", mailstore.ErrPassword, 1)
	if err := other.Add(t.Context(), "me@x", "newer"); err != nil {
		t.Fatal(err)
	}
	login("new", mailstore.ErrPassword, 1)
	login("newer", nil, 1)
}

func TestNoLoginIsRemembered(t *testing.T) {
	u := openTest(t, Config{Remember: -time.Second}, "me@x")
	count := counted(u)
	for range 2 {
		count()
		if _, err := u.Authenticate(t.Context(), "me@x", "pw of me@x"); err != nil || count() != 64 {
			t.Errorf("not hashed again: %v", err)
		}
	}
}

func TestRememberedLoginsAreBounded(t *testing.T) {
	v := newVerified(time.Minute, 3)
	now := time.Unix(1000, 0)
	for i := range 100 {
		v.add(v.mac("me@x", "stored", strings.Repeat("x", i)), now.Add(time.Duration(i)*time.Second))
		if len(v.until) > 3 {
			t.Fatalf("%d logins remembered", len(v.until))
		}
	}
}

func TestRehashWhenParametersChange(t *testing.T) {
	u := openTest(t, Config{}, "me@x", "you@x")
	stronger := cheap
	stronger.Memory, stronger.Passes = 128, 3
	v := mustOpen(t, Config{Path: u.c.Path, Hash: stronger})
	before, _, _, _ := v.stored(t.Context(), "me@x")
	if _, err := v.Authenticate(t.Context(), "me@x", "wrong"); !errors.Is(err, mailstore.ErrPassword) {
		t.Fatal(err)
	}
	if after, _, _, _ := v.stored(t.Context(), "me@x"); after != before {
		t.Error("a wrong password was stored")
	}
	for range 2 {
		if _, err := v.Authenticate(t.Context(), "me@x", "pw of me@x"); err != nil {
			t.Fatal(err)
		}
		after, _, _, _ := v.stored(t.Context(), "me@x")
		if !strings.HasPrefix(before, "$argon2id$v=19$m=64,t=1,p=1$") || !strings.HasPrefix(after, "$argon2id$v=19$m=128,t=3,p=1$") {
			t.Errorf("before %s, after %s", before, after)
		}
	}
}

func TestRehashThatFailsLeavesTheLogin(t *testing.T) {
	u := openTest(t, Config{}, "me@x")
	stronger := cheap
	stronger.Memory = 128
	var faults databasetest.Faults
	v, err := open(t.Context(), Config{Path: u.c.Path, Hash: stronger}, faults.Wrap)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for n := 2; n <= 4; n++ { // the first call reads the row
		faults.FailAt(n)
		if _, err := v.Authenticate(t.Context(), "me@x", "pw of me@x"); err != nil {
			t.Errorf("call %d fails: %v", n, err)
		}
	}
	if stored, _, _, _ := u.stored(t.Context(), "me@x"); !strings.Contains(stored, "m=64") {
		t.Errorf("stored although it failed: %s", stored)
	}
}

func TestForeignHash(t *testing.T) {
	u := openTest(t, Config{}, "me@x")
	for _, stored := range []string{"", "x", "$2y$10$abc", "$argon2id$v=19$m=64,t=0,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=1,p=0$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=99999999,t=1,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=1,p=1$AAAA$AAAA", "$argon2id$v=19$m=64,t=1,p=1$AAAA$"} {
		if _, err := u.db.Exec(updatePassword, "me@x", stored, ""); err != nil {
			t.Fatal(err)
		}
		_, err := u.Authenticate(t.Context(), "me@x", "pw of me@x")
		const want = "me@x: its password is stored in a form that this program does not read; set it anew: sluice user passwd me@x"
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v", stored, err)
		}
	}
}

func TestHashingsAtOnce(t *testing.T) {
	u := openTest(t, Config{Hash: HashConfig{Memory: 64, Passes: 1, AtOnce: 2}}, "me@x")
	var running, most atomic.Int64
	started, release := make(chan struct{}, 10), make(chan struct{})
	u.hasher.key = func([]byte, []byte, uint32, uint32, uint8, uint32) []byte {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		started <- struct{}{}
		<-release
		running.Add(-1)
		return make([]byte, 32)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := u.Authenticate(t.Context(), "me@x", "wrong"); !errors.Is(err, mailstore.ErrPassword) {
				t.Error(err)
			}
		})
	}
	<-started
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := u.Authenticate(ctx, "me@x", "wrong"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a slot: %v", err)
	}
	close(release)
	wg.Wait()
	if most.Load() != 2 {
		t.Errorf("%d hashings at once, want 2", most.Load())
	}
}

func TestChangesOfAnotherProcess(t *testing.T) {
	a := openTest(t, Config{})
	b := mustOpen(t, Config{Path: a.c.Path, Hash: cheap})
	resolve := func(u *Users) string {
		got, err := u.Resolve(t.Context(), "me", "x")
		if err != nil {
			return err.Error()
		}
		return strings.Join(got, " ")
	}
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, `"x": not a domain of ours`},
		{func() error { return a.Add(t.Context(), "you@x", "p") }, "me@x: no such account"},
		{func() error { return a.Add(t.Context(), "me@x", "p") }, "me@x"},
		{func() error { return a.Delete(t.Context(), "me@x") }, "me@x: no such account"},
		{func() error { return a.Delete(t.Context(), "you@x") }, `"x": not a domain of ours`},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := resolve(b); got != step.want {
			t.Errorf("the other process sees %q, want %q", got, step.want)
		}
	}
}

func TestAccounts(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	u := openTest(t, Config{Now: func() time.Time { return now }}, "zoe@a", "adam@b", "me@a")
	all, err := u.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range all {
		names = append(names, a.Name)
		if !a.Created.Equal(now) || a.Quota != 0 {
			t.Errorf("%+v", a)
		}
	}
	if got := strings.Join(names, " "); got != "me@a zoe@a adam@b" {
		t.Errorf("listed: %s", got)
	}
	ctx := t.Context()
	if ok, err := u.Exists(ctx, "me@a"); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := u.Exists(ctx, "me+x@a"); ok || err != nil {
		t.Error(ok, err)
	}
	if n, err := u.Quota(ctx, "me@a"); n != 0 || err != nil {
		t.Error(n, err)
	}
	for _, tt := range []struct {
		err  error
		want string
		is   error
	}{
		{u.Add(ctx, "me@a", "p"), "me@a exists already; to change its password: sluice user passwd me@a", mailstore.ErrExists},
		{u.SetPassword(ctx, "no@a", "p"), "no@a: no such account; sluice user list shows all", mailstore.ErrNoAccount},
		{u.Delete(ctx, "no@a"), "no@a: no such account; sluice user list shows all", mailstore.ErrNoAccount},
	} {
		if tt.err == nil || tt.err.Error() != tt.want || !errors.Is(tt.err, tt.is) {
			t.Errorf("got %v, want %s", tt.err, tt.want)
		}
	}
	if _, err := u.Quota(ctx, "no@a"); !errors.Is(err, mailstore.ErrNoAccount) {
		t.Error(err)
	}
}

func TestTwoProcessesAddAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	var wg sync.WaitGroup
	var added atomic.Int64
	for range 2 {
		wg.Go(func() {
			u, err := Open(t.Context(), Config{Path: path, Hash: cheap})
			if err != nil {
				t.Error(err)
				return
			}
			defer u.Close()
			for i := range 20 {
				err := u.Add(t.Context(), "u"+strings.Repeat("x", i)+"@x", "p")
				if err == nil {
					added.Add(1)
				} else if !errors.Is(err, mailstore.ErrExists) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if added.Load() != 20 {
		t.Errorf("%d accounts added, want 20", added.Load())
	}
}

func TestEveryCallFails(t *testing.T) {
	u := openTest(t, Config{}, "me@x")
	var faults databasetest.Faults
	v, err := open(t.Context(), Config{Path: u.c.Path, Hash: cheap}, faults.Wrap)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	faults.FailAll(true)
	ctx := t.Context()
	for name, f := range map[string]func() error{
		"Add":          func() error { return v.Add(ctx, "new@x", "p") },
		"SetPassword":  func() error { return v.SetPassword(ctx, "me@x", "p") },
		"Delete":       func() error { return v.Delete(ctx, "me@x") },
		"List":         func() error { _, err := v.List(ctx); return err },
		"Exists":       func() error { _, err := v.Exists(ctx, "me@x"); return err },
		"Quota":        func() error { _, err := v.Quota(ctx, "me@x"); return err },
		"Resolve":      func() error { _, err := v.Resolve(ctx, "me", "x"); return err },
		"postmaster":   func() error { _, err := v.Resolve(ctx, "postmaster", ""); return err },
		"Authenticate": func() error { _, err := v.Authenticate(ctx, "me@x", "pw of me@x"); return err },
	} {
		err := f()
		if !errors.Is(err, databasetest.ErrFault) {
			t.Errorf("%s: %v", name, err)
		}
		// These would answer the peer for good.
		for _, final := range []error{mailstore.ErrNoAccount, mailstore.ErrForeign, mailstore.ErrPassword, mailstore.ErrName} {
			if errors.Is(err, final) {
				t.Errorf("%s: a failure passes for %v", name, final)
			}
		}
	}
	faults.FailAll(false)
	if all, err := v.List(ctx); err != nil || len(all) != 1 || all[0].Name != "me@x" {
		t.Errorf("afterwards: %v, %v", all, err)
	}
	if _, err := v.Authenticate(ctx, "me@x", "pw of me@x"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestDefaultHash(t *testing.T) {
	u := openTest(t, Config{Hash: HashConfig{AtOnce: 1}}, "me@x")
	stored, _, _, err := u.stored(t.Context(), "me@x")
	if err != nil || !strings.HasPrefix(stored, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("%s, %v", stored, err)
	}
	if h, err := parseHash(stored); err != nil || h.String() != stored {
		t.Errorf("%v, %v", h, err)
	}
}

func TestClosedFile(t *testing.T) {
	_, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "missing", "users.db")})
	if err == nil || !strings.HasPrefix(err.Error(), "accounts: open /") {
		t.Error(err)
	}
	if errors.Is(err, database.ErrDamaged) {
		t.Error(err)
	}
}

func FuzzCheckAccount(f *testing.F) {
	for _, s := range []string{"me@x", "../a@b", "a+b@c", "\x00@", "bücher@bücher"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckAccount(name) != nil {
			return
		}
		local, domain, _ := cut(name)
		for _, part := range []string{local, domain} {
			if filepath.Base(part) != part || !filepath.IsLocal(part) || part[0] == '.' || strings.ContainsAny(part, "/\\:\x00\r\n") {
				t.Errorf("%q is an account", name)
			}
		}
	})
}

func TestSettings(t *testing.T) {
	u := openTest(t, Config{Remember: time.Hour}, "me@x", "you@x")
	other := mustOpen(t, Config{Path: u.c.Path, Hash: cheap})
	ctx := t.Context()
	login := func() error { _, err := u.Authenticate(ctx, "me@x", "pw of me@x"); return err }
	if err := login(); err != nil {
		t.Fatal(err)
	}
	quota, off, on := int64(1<<30), false, true
	if err := other.Set(ctx, "me@x", Settings{Quota: &quota, Login: &off}); err != nil {
		t.Fatal(err)
	}
	// A login that was right a moment ago is wrong now.
	if err := login(); !errors.Is(err, mailstore.ErrPassword) {
		t.Errorf("a login that is switched off: %v", err)
	}
	if n, err := u.Quota(ctx, "me@x"); n != quota || err != nil {
		t.Errorf("quota %d, %v", n, err)
	}
	if got, err := u.Resolve(ctx, "me", "x"); err != nil || len(got) != 1 {
		t.Errorf("its mail: %v, %v", got, err)
	}
	if a, err := u.Account(ctx, "me@x"); err != nil || a.Quota != quota || !a.NoLogin {
		t.Errorf("%+v, %v", a, err)
	}
	quota = -1
	if err := u.Set(ctx, "me@x", Settings{Quota: &quota}); err != nil {
		t.Fatal(err)
	}
	if a, err := u.Account(ctx, "me@x"); err != nil || a.Quota != -1 || !a.NoLogin {
		t.Errorf("%+v, %v", a, err)
	}
	if err := u.Set(ctx, "me@x", Settings{Login: &on}); err != nil || login() != nil {
		t.Errorf("%v, %v", err, login())
	}
	if a, err := u.Account(ctx, "you@x"); err != nil || a.Quota != 0 || a.NoLogin {
		t.Errorf("somebody else: %+v, %v", a, err)
	}
	for _, err := range []error{u.Set(ctx, "no@x", Settings{Login: &on}), func() error { _, err := u.Account(ctx, "no@x"); return err }()} {
		if !errors.Is(err, mailstore.ErrNoAccount) {
			t.Errorf("an account that is not there: %v", err)
		}
	}
}

// Settings are all changed or none.
func TestSetThatFails(t *testing.T) {
	u := openTest(t, Config{}, "me@x")
	var faults databasetest.Faults
	v, err := open(t.Context(), Config{Path: u.c.Path, Hash: cheap}, faults.Wrap)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	quota, off := int64(1), false
	for n := 1; ; n++ {
		faults.FailAt(n)
		err := v.Set(t.Context(), "me@x", Settings{Quota: &quota, Login: &off})
		a, _ := u.Account(t.Context(), "me@x")
		if (a.Quota == 1) != a.NoLogin || err != nil && a.NoLogin {
			t.Fatalf("call %d fails: %v, and then %+v", n, err, a)
		}
		if err == nil {
			if n < 4 {
				t.Errorf("only %d calls", n)
			}
			break
		}
	}
}

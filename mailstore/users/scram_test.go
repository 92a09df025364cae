package users

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"sluice/mailstore"
	"sluice/mailstore/state/database/databasetest"
)

// both keeps keys that cost next to nothing.
var both = SCRAMConfig{Mechanisms: []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"}, Iterations: fewestIterations}

// proves logs in by SCRAM without sending the password.
func proves(t *testing.T, u *Users, login, mechanism, password string) (account string) {
	t.Helper()
	account, k, err := u.Keys(t.Context(), login, mechanism)
	if err != nil {
		t.Fatal(err)
	}
	hash := map[string]scram.HashGeneratorFcn{"SCRAM-SHA-256": scram.SHA256, "SCRAM-SHA-1": scram.SHA1}[mechanism]
	client, err := hash.NewClientUnprepped("", password, "")
	if err != nil {
		t.Fatal(err)
	}
	mine, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(k.Salt), Iters: k.Iterations})
	if err != nil {
		t.Fatal(err)
	}
	if string(mine.StoredKey) != string(k.Stored) || string(mine.ServerKey) != string(k.Server) {
		return ""
	}
	return account
}

// An account has keys from when its password is first known, and as long as they are wanted.
func TestKeysComeAndGo(t *testing.T) {
	u := openTest(t, Config{Domain: "x"}, "old@x", "sleeper@x")
	v := mustOpen(t, Config{Path: u.c.Path, Domain: "x", Hash: cheap, SCRAM: both})
	offered := func(want ...string) {
		t.Helper()
		if got, err := v.Mechanisms(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("offered: %q, %v; want %q", got, err, want)
		}
	}
	has := func(account, want string) {
		t.Helper()
		a, err := v.Account(t.Context(), account)
		if got := fmt.Sprint(a.SCRAM); err != nil || got != want {
			t.Errorf("%s has keys for %s, %v; want %s", account, got, err, want)
		}
	}
	if err := v.Add(t.Context(), "new@x", "pw"); err != nil {
		t.Fatal(err)
	}
	has("new@x", "[{SCRAM-SHA-256 4096} {SCRAM-SHA-1 4096}]")
	has("old@x", "[]")
	offered()
	if got := proves(t, v, "old", "SCRAM-SHA-256", "pw of old@x"); got != "" {
		t.Errorf("logged in without keys: %s", got)
	}
	if _, err := v.Authenticate(t.Context(), "old", "wrong"); !errors.Is(err, mailstore.ErrPassword) {
		t.Fatal(err)
	}
	has("old@x", "[]")
	if _, err := v.Authenticate(t.Context(), "old", "pw of old@x"); err != nil {
		t.Fatal(err)
	}
	has("old@x", "[{SCRAM-SHA-256 4096} {SCRAM-SHA-1 4096}]")
	offered()
	no := false
	if err := v.Set(t.Context(), "sleeper@x", Settings{Login: &no}); err != nil { // who cannot log in keeps nobody waiting
		t.Fatal(err)
	}
	offered("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1")
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-1"} {
		for _, login := range []string{"old", "OLD@x"} {
			if got := proves(t, v, login, mechanism, "pw of old@x"); got != "old@x" {
				t.Errorf("%s by %s: %q", login, mechanism, got)
			}
		}
	}
	if err := v.SetPassword(t.Context(), "old@x", "another"); err != nil {
		t.Fatal(err)
	}
	if proves(t, v, "old", "SCRAM-SHA-256", "pw of old@x") != "" || proves(t, v, "old", "SCRAM-SHA-256", "another") == "" {
		t.Error("the keys are not those of the password that was set")
	}

	// Fewer mechanisms, more work: keys follow at the next login with the password. What is stored still counts until then.
	fewer := SCRAMConfig{Mechanisms: []string{"SCRAM-SHA-1"}, Iterations: fewestIterations + 1}
	v = mustOpen(t, Config{Path: u.c.Path, Domain: "x", Hash: cheap, SCRAM: fewer})
	offered("SCRAM-SHA-1")
	if proves(t, v, "old", "SCRAM-SHA-256", "another") != "" {
		t.Error("logged in by what is not wanted")
	}
	if proves(t, v, "old", "SCRAM-SHA-1", "another") == "" {
		t.Error("keys with fewer iterations do not count")
	}
	if _, err := v.Authenticate(t.Context(), "old", "another"); err != nil {
		t.Fatal(err)
	}
	has("old@x", "[{SCRAM-SHA-1 4097}]")
	has("new@x", "[{SCRAM-SHA-256 4096} {SCRAM-SHA-1 4096}]")
	if err := v.DropKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	has("new@x", "[{SCRAM-SHA-1 4096}]")

	// Without SCRAM nothing is left, and the password is what it was.
	v = mustOpen(t, Config{Path: u.c.Path, Domain: "x", Hash: cheap})
	offered()
	if err := v.DropKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	has("new@x", "[]")
	has("old@x", "[]")
	if _, err := v.Authenticate(t.Context(), "old", "another"); err != nil {
		t.Error(err)
	}
}

// A name without keys looks like one with them: the same salt each time, another one for each name.
func TestKeysOfNobody(t *testing.T) {
	u := openTest(t, Config{SCRAM: both}, "me@x")
	again := mustOpen(t, u.c)
	seen := map[string]string{}
	for _, login := range []string{"nobody@x", "Nobody@X", "other@x", "me@elsewhere", "", "\x00", strings.Repeat("x", 3000)} {
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-1"} {
			account, k, err := u.Keys(t.Context(), login, mechanism)
			if account != "" || err != nil {
				t.Fatalf("%s: %q, %v", login, account, err)
			}
			_, k2, err := again.Keys(t.Context(), login, mechanism)
			if err != nil || fmt.Sprint(k) != fmt.Sprint(k2) {
				t.Errorf("%q: %v, then %v, %v", login, k, k2, err)
			}
			_, mine, _ := u.Keys(t.Context(), "me@x", mechanism)
			if len(k.Salt) != len(mine.Salt) || k.Iterations != mine.Iterations || len(k.Stored) != len(mine.Stored) || len(k.Server) != len(mine.Server) {
				t.Errorf("%q differs from an account: %v and %v", login, k, mine)
			}
			who := mechanism + " " + u.named(login)
			if before, ok := seen[string(k.Salt)]; ok && before != who {
				t.Errorf("%s and %s have one salt", before, who)
			}
			seen[string(k.Salt)] = who
		}
	}
}

// RFC 5802, 5, and RFC 7677, 3: the password "pencil". The keys were worked out from the RFCs' salts and proofs.
func TestStoredKeysAreReadAsRFC5803(t *testing.T) {
	const keys = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=" +
		" SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:D+CSWLOshSulAsxiupA+qs2/fTE="
	for mechanism, hash := range map[string]scram.HashGeneratorFcn{"SCRAM-SHA-256": scram.SHA256, "SCRAM-SHA-1": scram.SHA1} {
		k, ok := find(keys, mechanism)
		if !ok {
			t.Fatal(mechanism)
		}
		client, err := hash.NewClient("user", "pencil", "")
		if err != nil {
			t.Fatal(err)
		}
		want, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(k.Salt), Iters: k.Iterations})
		if err != nil || string(want.StoredKey) != string(k.Stored) || string(want.ServerKey) != string(k.Server) {
			t.Errorf("%s: %s and %s, %v", mechanism, base64.StdEncoding.EncodeToString(want.StoredKey),
				base64.StdEncoding.EncodeToString(want.ServerKey), err)
		}
	}
	for _, wrong := range []string{
		"", " ", "SCRAM-SHA-1", "SCRAM-SHA-1$", "SCRAM-SHA-1$4096", "SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92", "SCRAM-SHA-1$:$:",
		"SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$6dlG:D+CS", "SCRAM-SHA-1$1:QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:D+CSWLOshSulAsxiupA+qs2/fTE=",
		"SCRAM-SHA-1$4096:$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:D+CSWLOshSulAsxiupA+qs2/fTE=",
		"SCRAM-SHA-1$4096:!$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:D+CSWLOshSulAsxiupA+qs2/fTE=",
		"SCRAM-SHA-512$4096:QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:D+CSWLOshSulAsxiupA+qs2/fTE=",
	} {
		for _, m := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
			if k, ok := find(wrong, m); ok {
				t.Errorf("%q has keys for %s: %v", wrong, m, k)
			}
		}
	}
}

// Clients prepare what is typed (RFC 5802, 2.2), where there is a rule for it.
func TestKeysOfPreparedPasswords(t *testing.T) {
	u := openTest(t, Config{SCRAM: both}, "me@x")
	for stored, typed := range map[string]string{
		"I\u00adX": "IX", "\u2168": "IX", "a\u00a0b": "a b", "u\u0308": "ü", "key 🔑": "key 🔑", "\xff\xfe": "\xff\xfe", "\u00ad": "\u00ad",
	} {
		if err := u.SetPassword(t.Context(), "me@x", stored); err != nil {
			t.Fatal(err)
		}
		if proves(t, u, "me@x", "SCRAM-SHA-256", typed) != "me@x" {
			t.Errorf("%q is not %q", typed, stored)
		}
		if _, err := u.Authenticate(t.Context(), "me@x", stored); err != nil {
			t.Errorf("%q: %v", stored, err)
		}
	}
}

func TestSCRAMConfig(t *testing.T) {
	_, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "users.db"), SCRAM: SCRAMConfig{
		Mechanisms: []string{"SCRAM-SHA-1", "scram-sha-256", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS"}, Iterations: 4095}})
	for _, want := range []string{
		`scram.mechanisms[1]: there is no "scram-sha-256"; write SCRAM-SHA-256, SCRAM-SHA-1, or one of them with -PLUS`,
		"scram.mechanisms[2]: SCRAM-SHA-1 is there twice; write it once", "scram.iterations: 4095 is not possible; write 4096 to 10000000",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %s", err, want)
		}
	}
}

// The n-th call to the database fails: keys are dropped whole or not at all, and nobody is logged in by half an answer.
func TestKeysNthCallFails(t *testing.T) {
	for n := 1; ; n++ {
		before := openTest(t, Config{SCRAM: both}, "me@x")
		var faults databasetest.Faults
		u, err := open(t.Context(), Config{Path: before.c.Path, Hash: cheap, SCRAM: SCRAMConfig{Mechanisms: []string{"SCRAM-SHA-1"}}}, faults.Wrap)
		if err != nil {
			t.Fatal(err)
		}
		faults.FailAt(n)
		offered, offeredErr := u.Mechanisms(t.Context())
		account, _, keysErr := u.Keys(t.Context(), "me@x", "SCRAM-SHA-1")
		dropErr := u.DropKeys(t.Context())
		failed := faults.Calls() >= n
		faults.FailAt(0)
		for _, err := range []error{offeredErr, keysErr, dropErr} {
			if err != nil && !errors.Is(err, databasetest.ErrFault) {
				t.Errorf("call %d fails: %v", n, err)
			}
		}
		if offeredErr != nil && offered != nil || keysErr != nil && account != "" || failed != (errors.Join(offeredErr, keysErr, dropErr) != nil) {
			t.Errorf("call %d fails: %q %v, %q %v, %v", n, offered, offeredErr, account, keysErr, dropErr)
		}
		all, err := u.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if want := 2 - btoi(dropErr == nil); len(a.SCRAM) != want {
				t.Errorf("call %d fails: %s has %v", n, a.Name, a.SCRAM)
			}
		}
		if got, err := u.Mechanisms(t.Context()); err != nil || len(got) != 1 {
			t.Errorf("call %d failed, and again: %q, %v", n, got, err)
		}
		u.Close()
		if !failed {
			return
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

package srs

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func rewriter(keys ...string) Rewriter {
	r := Rewriter{Lifetime: 21 * day}
	for _, k := range keys {
		r.Keys = append(r.Keys, []byte(k))
	}
	return r
}

func TestThereAndBack(t *testing.T) {
	r := rewriter("one")
	for _, tt := range []struct{ sender, form string }{
		{"me@example.com", "SRS0=[h]=[d]=example.com=me"},
		{"Me.Too+tag@Example.COM", "SRS0=[h]=[d]=Example.COM=Me.Too+tag"},
		{"a=b=c@example.com", "SRS0=[h]=[d]=example.com=a=b=c"},
		{"SRS0x@example.com", "SRS0=[h]=[d]=example.com=SRS0x"},
		{"SRS0@example.com", "SRS0=[h]=[d]=example.com=SRS0"},
		{`"two words"@example.com`, `"SRS0=[h]=[d]=example.com=two words"`},
		{`"a\"b\\@c"@example.com`, `"SRS0=[h]=[d]=example.com=a\"b\\@c"`},
		{"me@[192.0.2.1]", `"SRS0=[h]=[d]=[192.0.2.1]=me"`},
		{"grüße@beispiel.example", "SRS0=[h]=[d]=beispiel.example=grüße"},
		{"SRS1=a=b@example.com", "SRS0=[h]=[d]=example.com=SRS1=a=b"}, // only looks like one
		// Handed on by others before us.
		{"SRS0=abcd=7f=example.com=me@other.example", "SRS1=[h]=other.example==abcd=7f=example.com=me"},
		{"srs0+abcd=7f=example.com=me@other.example", "SRS1=[h]=other.example=+abcd=7f=example.com=me"},
	} {
		got, err := r.Forward(tt.sender, now)
		if err != nil {
			t.Errorf("%s: %v", tt.sender, err)
			continue
		}
		bare := unquote(got)
		form := bare[:5] + "[h]" + bare[13:]
		if strings.HasPrefix(form, "SRS0") {
			form = form[:9] + "[d]" + form[11:]
		}
		if form != unquote(tt.form) || got == bare != (tt.form == unquote(tt.form)) {
			t.Errorf("%s: %s, want %s", tt.sender, got, tt.form)
		}
		want := tt.sender
		if len(want) > 5 && strings.EqualFold(want[:4], "SRS0") && strings.ContainsAny(want[4:5], "=+-") {
			want = "SRS0" + want[4:]
		}
		for _, local := range []string{bare, strings.ToLower(bare), strings.ToUpper(bare)} {
			if back, err := r.Reverse(local, now.Add(20*day)); !strings.EqualFold(back, want) || err != nil {
				t.Errorf("%s comes back as %q, %v", local, back, err)
			}
		}
		if back, _ := r.Reverse(bare, now); back != want {
			t.Errorf("%s comes back as %q", bare, back)
		}
	}
}

// A third who hands it on names the first and forgets the second, so that nothing grows.
func TestChain(t *testing.T) {
	first, second, third := rewriter("1"), rewriter("2"), rewriter("3")
	a, err := first.Forward("me@example.com", now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.Forward(a+"@first.example", now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := third.Forward(b+"@second.example", now)
	if err != nil || len(c) != len(b) {
		t.Fatal(c, err)
	}
	back, err := third.Reverse(c, now)
	if err != nil || back != a+"@first.example" {
		t.Fatalf("the third sends it to %s, %v", back, err)
	}
	if back, err = first.Reverse(strings.TrimSuffix(back, "@first.example"), now); err != nil || back != "me@example.com" {
		t.Errorf("the first sends it to %s, %v", back, err)
	}
}

func TestRefused(t *testing.T) {
	r := rewriter("one")
	made, err := r.Forward("me@example.com", now)
	if err != nil {
		t.Fatal(err)
	}
	hash := made[5:13]
	signed := func(what string) string { return "SRS0=" + r.hash(r.Keys[0], "srs0", what) + "=" + what }
	for _, tt := range []struct {
		local string
		at    time.Time
		want  error
	}{
		{made, now, nil},
		{made, now.Add(21 * day), nil},
		{made, now.Add(22 * day), ErrExpired},
		{made, now.Add(-day), nil}, // a clock is off
		{made, now.Add(-2 * day), ErrExpired},
		{made, now.Add(500 * day), ErrExpired},
		{made, now.Add(cycle * day), nil}, // nobody keeps a key for so long
		{"me", now, ErrNone},
		{"", now, ErrNone},
		{"SRS0", now, ErrNone},
		{"SRS0=", now, ErrNone},
		{"SRS2=" + made[5:], now, ErrNone},
		{"SRS0=x", now, ErrForged},
		{"SRS0==" + made[14:], now, ErrForged},
		{strings.Replace(made, hash, "aaaaaaaa", 1), now, ErrForged},
		{strings.Replace(made, hash, hash[:4], 1), now, ErrForged},
		{strings.Replace(made, "example.com", "example.net", 1), now, ErrForged},
		{strings.Replace(made, "=me", "=you", 1), now, ErrForged},
		{strings.Replace(made, "SRS0", "SRS1", 1), now, ErrForged},
		{signed("1a=example.com=me"), now, ErrExpired},
		{signed("aaa=example.com=me"), now, ErrExpired},
	} {
		if _, err := r.Reverse(tt.local, tt.at); !errors.Is(err, tt.want) {
			t.Errorf("%s at %s: %v, want %v", tt.local, tt.at.Format(time.DateOnly), err, tt.want)
		}
	}
	for _, sender := range []string{"", "me", "@example.com", "me@", `""@example.com`, "a\r\nb@example.com", "me@exa=mple.com", "me@a b"} {
		if got, err := r.Forward(sender, now); err == nil {
			t.Errorf("%q is rewritten to %s", sender, got)
		}
	}
	if _, err := (Rewriter{}).Forward("me@example.com", now); err == nil {
		t.Error("without a key an address is made")
	}
	if _, err := (Rewriter{}).Reverse(made, now); !errors.Is(err, ErrForged) {
		t.Errorf("without a key: %v", err)
	}
}

// A secret that was replaced still recognises what it has made, and makes nothing more.
func TestKeysChange(t *testing.T) {
	old, err := rewriter("old").Forward("me@example.com", now)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := rewriter("new", "old").Reverse(old, now); err != nil || back != "me@example.com" {
		t.Error(back, err)
	}
	if fresh, err := rewriter("new", "old").Forward("me@example.com", now); err != nil || fresh == old {
		t.Error(fresh, err)
	}
	if _, err := rewriter("new").Reverse(old, now); !errors.Is(err, ErrForged) {
		t.Errorf("a secret that is gone: %v", err)
	}
}

func TestRoom(t *testing.T) {
	r := rewriter("one")
	for n := 1; n < 80; n++ {
		local, err := r.Forward(strings.Repeat("x", n)+"@example.com", now)
		if most := 64 - len("SRS0=12345678=12=example.com="); (err == nil) != (n <= most) || len(local) > 64 {
			t.Errorf("%d octets: %q, %v", n, local, err)
		}
		if err != nil && !errors.Is(err, ErrTooLong) {
			t.Error(err)
		}
	}
}

func TestIs(t *testing.T) {
	for local, want := range map[string]bool{"SRS0=a": true, "srs1-a": true, "Srs0+a": true, "srs": false, "SRS0": false, "srs0a=": false, "me": false} {
		if Is(local) != want {
			t.Errorf("%s: %v", local, !want)
		}
	}
}

// Nobody gets an address out of us that we have not put in.
func FuzzReverse(f *testing.F) {
	r := rewriter("one", "two")
	for _, sender := range []string{"me@example.com", "SRS0=a=b=c=d@example.com", "SRS1=a=b==c=d@example.com", `"a b"@example.com`} {
		local, err := r.Forward(sender, now)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(local)
	}
	f.Add("SRS0=aaaaaaaa=aa=example.com=me")
	f.Add("SRS1+aaaaaaaa==example.com==a=b")
	f.Fuzz(func(t *testing.T, local string) {
		if back, err := r.Reverse(local, now); err == nil {
			local := unquote(local)
			tag, hash, what := strings.ToLower(local[:4]), local[5:13], local[14:]
			if !strings.EqualFold(hash, r.hash(r.Keys[0], tag, what)) && !strings.EqualFold(hash, r.hash(r.Keys[1], tag, what)) {
				t.Errorf("%q leads to %q", local, back)
			}
		}
		// What is a sender comes back as it was.
		made, err := r.Forward(local, now)
		if err != nil {
			return
		}
		if len(made) > mostLocal {
			t.Errorf("%q is %d octets long", made, len(made))
		}
		back, err := r.Reverse(unquote(made), now)
		if err != nil {
			t.Fatalf("%q from %q: %v", made, local, err)
		}
		original, domain, _ := split(local)
		if name, host, ok := split(back); !strings.HasPrefix(made, "SRS1") && !strings.HasPrefix(made, `"SRS1`) && (!ok || name != original || host != domain) {
			t.Errorf("%q comes back as %q", local, back)
		}
	})
}

func ExampleRewriter() {
	r := Rewriter{Keys: [][]byte{[]byte("a secret")}, Lifetime: 21 * day}
	local, _ := r.Forward("me@example.com", now)
	fmt.Println(local + "@example.org")
	sender, _ := r.Reverse(local, now)
	fmt.Println(sender)
	// Output:
	// SRS0=l7kbjqmd=jl=example.com=me@example.org
	// me@example.com
}

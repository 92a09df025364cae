package spf

import (
	"context"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Whatever a record says, it is read or refused; what was read can be expanded, and what comes of it is bounded.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"v=spf1", "V=SPF1 a/24//64 -mx:%{d2r}.example ~include:%{ir}.%{v}._spf.%{d} ?all", "v=spf1 exists:%{L1r-.+,/_=}.example redirect=_spf.%{h}",
		"v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ptr exp=%{o}.example x.y_z-1=%{c}%{r}%{t}%%%_%-", "v=spf1 a:%{p}", "v=spf1 ip6:::ffff:192.0.2.1/96", "v=spf1 a:%{s99999999999999999999}",
	} {
		f.Add(s, "user.name-x")
	}
	f.Fuzz(func(t *testing.T, txt, local string) {
		if !isRecord(txt) {
			return
		}
		r, err := parse(txt)
		if err != nil {
			return
		}
		v := values{local, "origin.example", local, netip.MustParseAddr("2001:db8::1"), "mx.example.org", time.Unix(0, 0)}
		p := func() (string, error) { return local, nil }
		specs := []string{r.redirect, r.exp}
		for _, d := range r.directives {
			specs = append(specs, d.target)
			if d.bits4 < 0 || d.bits4 > 32 || d.bits6 < 0 || d.bits6 > 128 || (d.mech == mechIP4 || d.mech == mechIP6) && !d.prefix.IsValid() {
				t.Errorf("%+v", d)
			}
			again := directive{text: d.text, result: d.result, bits4: 32, bits6: 128}
			if err := again.parse(); err != nil || !reflect.DeepEqual(d, again) {
				t.Errorf("%+v becomes %+v (%v)", d, again, err)
			}
		}
		for _, spec := range specs {
			name, err := v.expand(spec, "domain.example", false, p)
			if err != nil {
				t.Errorf("%q: %v", spec, err)
			}
			if len(name) > len(spec)+2*keptName+3*len(local)+400 {
				t.Errorf("%q becomes %d octets", spec, len(name))
			}
			if short := truncate(name); len(short) > 253 && strings.Contains(short, ".") || askable(short) && !strings.HasSuffix(strings.TrimSuffix(name, "."), short) {
				t.Errorf("%q is cut to %q", name, short)
			}
		}
	})
}

// Whatever a text says, it is expanded or refused, and what is checked can be expanded.
func FuzzMacros(f *testing.F) {
	for _, s := range []string{"%{i}", "%{S}", "%{l2r-}", "%{d0}", "%{", "%", "%{x}", "%%%_%-", "%{h9r.-+,/_=}%{T}", "why: %{P} %{c}"} {
		f.Add(s, "user", "mail.example")
	}
	f.Fuzz(func(t *testing.T, text, local, helo string) {
		v := values{local, "origin.example", helo, netip.MustParseAddr("192.0.2.1"), "mx.example.org", time.Unix(0, 0)}
		got, err := v.expand(text, "domain.example", true, func() (string, error) { return "unknown", nil })
		if checkMacros(text, true) != nil {
			return // it may have been cut before what is wrong
		}
		if err != nil || len(got) > max(keptText, len(text)) {
			t.Errorf("%q becomes %q: %v", text, got, err)
		}
		if strings.IndexByte(text, '%') < 0 && got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}

// A whole evaluation of a hostile policy ends, with one of the results and within the limits.
func FuzzCheck(f *testing.F) {
	f.Add("a mx:b.example ptr include:b.example exists:%{p}.%{i} redirect=a.example", "include:a.example ?all exp=a.example", "user", "mail.example")
	f.Fuzz(func(t *testing.T, a, b, local, helo string) {
		z := newZone().add("a.example A 192.0.2.1", "b.example MX a.example", "192.0.2.1 PTR a.example")
		z.put("a.example", "TXT", "v=spf1 "+a)
		z.put("b.example", "TXT", "v=spf1 "+b)
		got := Check(context.Background(), z, Limits{}, Query{Client: netip.MustParseAddr("192.0.2.1"), Local: local, Domain: "a.example", Helo: helo})
		switch got.Result {
		case None, Neutral, Pass, Fail, SoftFail, PermError:
		default:
			t.Errorf("%+v", got)
		}
		if got.Lookups > 10 || got.Voids > 3 || len(got.Via) > 10 || len(got.Explanation) > max(keptText, len(a), len(b))+len("v=spf1 ") {
			t.Errorf("%+v", got)
		}
		if n, _ := z.questions(); n > 1+2*10*11 {
			t.Errorf("%d questions", n)
		}
	})
}

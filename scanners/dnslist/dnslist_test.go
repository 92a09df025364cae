package dnslist

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/breaker"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestAsk(t *testing.T) {
	none := []string{}
	for _, tt := range []struct {
		name    string
		list    Config
		answers []netip.Addr
		fail    string
		want    Listed
		err     string
	}{
		{"listed", Config{}, addrs("127.0.0.4", "127.0.0.2"), "", Listed{true, []string{"127.0.0.2", "127.0.0.4"}, none}, ""},
		{"not listed", Config{}, nil, "", Listed{false, none, none}, ""},
		{"a code that counts", Config{Codes: []string{"127.0.0.10/31"}}, addrs("127.0.0.11"), "", Listed{true, []string{"127.0.0.11"}, none}, ""},
		{"a code that does not count", Config{Codes: []string{"127.0.0.10"}}, addrs("127.0.0.2"), "", Listed{false, []string{"127.0.0.2"}, none}, ""},
		{"a bit that counts", Config{Codes: []string{"&8"}}, addrs("127.0.0.12"), "", Listed{true, []string{"127.0.0.12"}, none}, ""},
		{"a bit that does not", Config{Codes: []string{"&8"}}, addrs("127.0.0.6"), "", Listed{false, []string{"127.0.0.6"}, none}, ""},
		{"answers with names", Config{Answers: map[string][]string{"pbl": {"127.0.0.10/31"}, "sbl": {"127.0.0.2", "127.0.0.9"}, "xbl": {"&4"}}}, addrs("127.0.0.2", "127.0.0.11"), "",
			Listed{true, []string{"127.0.0.11", "127.0.0.2"}, []string{"pbl", "sbl"}}, ""},
		{"refused is not listed", Config{}, addrs("127.255.255.254"), "", Listed{}, "look up in zen.example: the list refuses to answer us (127.255.255.254)"},
		{"nor by its bits", Config{Codes: []string{"&8"}}, addrs("127.255.255.254"), "", Listed{}, "look up in zen.example: the list refuses to answer us (127.255.255.254)"},
		{"refused in another way", Config{Codes: []string{"&14"}, Refused: []string{"127.0.0.1"}}, addrs("127.0.0.1"), "", Listed{}, "look up in zen.example: the list refuses to answer us (127.0.0.1)"},
		{"a code that looks like a refusal", Config{Codes: []string{"127.255.255.254"}}, addrs("127.255.255.254"), "", Listed{true, []string{"127.255.255.254"}, none}, ""},
		{"nor by a network around it", Config{Codes: []string{"127.0.0.0/8"}}, addrs("127.255.255.254"), "", Listed{}, "look up in zen.example: the list refuses to answer us (127.255.255.254)"},
		{"nor beside a listing", Config{}, addrs("127.0.0.2", "127.255.255.254"), "", Listed{}, "look up in zen.example: the list refuses to answer us (127.255.255.254)"},
		{"127.0.0.1 is a refusal of old", Config{}, addrs("127.0.0.1"), "", Listed{}, "look up in zen.example: the list refuses to answer us (127.0.0.1)"},
		{"with bits too", Config{Codes: []string{"&1"}}, addrs("127.0.0.1"), "", Listed{}, "look up in zen.example: the list refuses to answer us (127.0.0.1)"},
		{"unless it is named", Config{Codes: []string{"127.0.0.1"}}, addrs("127.0.0.1"), "", Listed{true, []string{"127.0.0.1"}, none}, ""},
		{"a name is no listing", Config{Codes: []string{"127.0.0.9"}, Answers: map[string][]string{"x": {"127.0.0.2"}}}, addrs("127.0.0.2"), "", Listed{false, []string{"127.0.0.2"}, []string{"x"}}, ""},
		{"a parked domain lists nobody", Config{}, addrs("198.51.100.7"), "", Listed{}, "look up in zen.example: the answer 198.51.100.7 is outside 127.0.0.0/8: this is no list, or not any more"},
		{"no answer", Config{}, nil, "timeout", Listed{}, "look up in zen.example: lookup 1.2.0.192.zen.example: timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &pipelinetest.Resolver{Addr: map[string][]netip.Addr{"1.2.0.192.zen.example": tt.answers}, Fail: map[string]string{}}
			if tt.fail != "" {
				r.Fail["1.2.0.192.zen.example"] = tt.fail
			}
			env := pipelinetest.Env(t)
			env.Resolver = r
			tt.list.Zone, tt.list.NoTestPoints = "zen.example.", true
			l, err := New(tt.list, Addresses(), env)
			if err != nil {
				t.Fatal(err)
			}
			got, err := l.Ask(t.Context(), "1.2.0.192")
			if tt.err != "" || err != nil {
				if err == nil || err.Error() != tt.err {
					t.Errorf("%v, want %s", err, tt.err)
				}
				return
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// A list that lists everybody, that is dead, or that serves us no more, is found by its test points, and there is one
// alarm. When it is well again it is asked again.
func TestTestPoints(t *testing.T) {
	r := &pipelinetest.Resolver{Addr: map[string][]netip.Addr{}, Fail: map[string]string{}}
	now := pipelinetest.Epoch
	var log bytes.Buffer
	env := pipelinetest.Env(t)
	env.Resolver, env.Now, env.Log = r, func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil))
	l, err := New(Config{Zone: "zen.example"}, Addresses(), env)
	if err != nil {
		t.Fatal(err)
	}
	set := func(name, answer string) {
		delete(r.Addr, name+".zen.example")
		if answer != "" {
			r.Addr[name+".zen.example"] = addrs(answer)
		}
	}
	ask := func(want string) {
		t.Helper()
		got, err := l.Ask(t.Context(), "1.2.0.192")
		switch {
		case want == "listed" && (err != nil || !got.Listed):
			t.Errorf("%+v, %v", got, err)
		case want != "listed" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%v, want %s", err, want)
		}
	}
	alarms := func(want int) {
		t.Helper()
		if got := strings.Count(log.String(), "level=ERROR"); got != want {
			t.Errorf("%d alarms, want %d:\n%s", got, want, log.String())
		}
	}
	set("1.2.0.192", "127.0.0.2")
	r.Fail["2.0.0.127.zen.example"] = "timeout"
	ask("its test points cannot be looked at: look up in zen.example: lookup 2.0.0.127.zen.example: timeout")
	delete(r.Fail, "2.0.0.127.zen.example")
	set("2.0.0.127", "127.0.0.2")
	ask("listed")
	alarms(0)

	set("1.0.0.127", "127.0.0.2") // but not seen yet
	ask("listed")
	now = now.Add(time.Hour)
	ask("switched off: it lists everybody, its test point 1.0.0.127 too")
	now = now.Add(30 * time.Second)
	set("1.0.0.127", "")
	asked := len(r.Asked())
	ask("switched off") // it is not tested for each mail, nor asked
	if got := len(r.Asked()); got != asked {
		t.Errorf("%d questions to a list that is switched off", got-asked)
	}
	now = now.Add(30 * time.Second)
	ask("listed")
	alarms(1)
	if !strings.Contains(log.String(), "of use again") {
		t.Errorf("nobody hears that it is of use again:\n%s", log.String())
	}

	now = now.Add(time.Hour)
	r.Fail["2.0.0.127.zen.example"] = "timeout" // what was found last holds
	ask("listed")
	delete(r.Fail, "2.0.0.127.zen.example")
	now = now.Add(time.Minute)
	set("2.0.0.127", "")
	ask("its test point 2.0.0.127 is not listed, so it is dead")
	now = now.Add(time.Minute)
	ask("is dead")
	alarms(2)
	now = now.Add(time.Minute)
	set("2.0.0.127", "127.255.255.254")
	ask("refuses to answer us (127.255.255.254)")
	alarms(3)
}

// A list of IPv6 addresses alone has other test points, and some lists have their own.
func TestOtherTestPoints(t *testing.T) {
	const six = "0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"
	two := addrs("127.0.0.2")
	for _, tt := range []struct {
		name   string
		probe  Probe
		config Config
		has    map[string][]netip.Addr
		want   string
	}{
		{"IPv6 only", Addresses(), Config{}, map[string][]netip.Addr{"2." + six: two}, ""},
		{"both", Addresses(), Config{}, map[string][]netip.Addr{"2." + six: two, "2.0.0.127": two}, ""},
		{"neither", Addresses(), Config{}, nil, "is not listed, so it is dead"},
		{"every IPv6 address", Addresses(), Config{}, map[string][]netip.Addr{"2." + six: two, "1." + six: two}, "it lists everybody"},
		{"names", Names(), Config{}, map[string][]netip.Addr{"test": two}, ""},
		{"all names", Names(), Config{}, map[string][]netip.Addr{"test": two, "invalid": two}, "it lists everybody"},
		{"its own", Names(), Config{TestPoint: "test.surbl.org"}, map[string][]netip.Addr{"test.surbl.org": two}, ""},
		{"its own, gone", Names(), Config{TestPoint: "test.surbl.org"}, map[string][]netip.Addr{"test": two}, "test point test.surbl.org is not listed"},
		{"an IPv6 address is no answer", Addresses(), Config{}, map[string][]netip.Addr{"2.0.0.127": addrs("2001:db8::1")}, "is not listed, so it is dead"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &pipelinetest.Resolver{Addr: map[string][]netip.Addr{}}
			for name, a := range tt.has {
				r.Addr[name+".l.example"] = a
			}
			env := pipelinetest.Env(t)
			env.Resolver = r
			tt.config.Zone = "l.example"
			l, err := New(tt.config, tt.probe, env)
			if err != nil {
				t.Fatal(err)
			}
			_, err = l.Ask(t.Context(), "x")
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// A caller who has less time than the list needs finds it dead all the same.
func TestBreakerOfTheImpatient(t *testing.T) {
	synctest.Test(t, breakerOfTheImpatient)
}

func breakerOfTheImpatient(t *testing.T) {
	env := pipelinetest.Env(t)
	env.Resolver = waiting{}
	l, err := New(Config{Zone: "zen.example", NoTestPoints: true}, Names(), env)
	if err != nil {
		t.Fatal(err)
	}
	for range breaker.DefaultConfig().Failures {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, _ = l.Ask(ctx, "x")
		cancel()
	}
	_, err = l.Ask(t.Context(), "x")
	if open := (*breaker.OpenError)(nil); !errors.As(err, &open) {
		t.Errorf("%v: it is still asked", err)
	}
}

// waiting answers when nobody waits any more.
type waiting struct{ pipeline.Resolver }

func (waiting) LookupA(ctx context.Context, name string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, &net.DNSError{Err: "timeout", Name: name, IsTimeout: true, IsTemporary: true}
}

// A list that does not answer is not waited for by each mail.
func TestBreaker(t *testing.T) {
	r := &pipelinetest.Resolver{Fail: map[string]string{"x.zen.example": "timeout"}}
	env := pipelinetest.Env(t)
	env.Resolver = r
	l, err := New(Config{Zone: "zen.example", NoTestPoints: true}, Names(), env)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // that callers give up says nothing of the list
		_, err = l.Ask(ctx, "x")
	}
	for range breaker.DefaultConfig().Failures + 3 {
		_, err = l.Ask(t.Context(), "x")
	}
	if open := (*breaker.OpenError)(nil); !errors.As(err, &open) || len(r.Asked()) != 20+breaker.DefaultConfig().Failures {
		t.Errorf("%v after %d questions", err, len(r.Asked()))
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"zone: is missing":                   {},
		`zone: "b..x" is no domain name`:     {Zone: "b..x"},
		"is too long to have a name":         {Zone: strings.Repeat("a.", 100) + "example"},
		`codes: "10.0.0.1" is no answer`:     {Zone: "x.example", Codes: []string{"10.0.0.1"}},
		`codes: "127.0.0.0/7" is no answer`:  {Zone: "x.example", Codes: []string{"127.0.0.0/7"}},
		`codes: "&0": write & and a number`:  {Zone: "x.example", Codes: []string{"&0"}},
		`answers: pbl: codes: "&x": write`:   {Zone: "x.example", Answers: map[string][]string{"pbl": {"&x"}}},
		"timeout: -1s is no time to wait":    {Zone: "x.example", Timeout: -time.Second},
		"test_every: -1s is no time to wait": {Zone: "x.example", TestEvery: -time.Second},
		`test_point: "a b" is no name`:       {Zone: "x.example", TestPoint: "a b"},
		"there is also no_test_points":       {Zone: "x.example", TestPoint: "a", NoTestPoints: true},
		`codes: "nobody" is no answer`:       {Zone: "x.example", Refused: []string{"nobody"}},
	} {
		if _, err := New(c, Addresses(), pipelinetest.Env(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

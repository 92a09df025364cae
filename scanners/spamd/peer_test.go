package spamd

import (
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/peertest"
)

// network is a world in which the network can be reached.
func network(t testing.TB) pipeline.Env {
	env := pipelinetest.Env(t)
	env.Dial = new(net.Dialer).DialContext
	return env
}

func view(t testing.TB, text string) pipeline.View {
	v := pipeline.View{Message: pipelinetest.Parse(t, text), Phase: pipeline.Content}
	v.ID, v.Received, v.Door = "t1", pipelinetest.Epoch, pipeline.SMTP
	v.Client = pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), Name: "mail.example.com"}
	v.Greeting, v.Sender = "client.example", pipelinetest.Address(t, "a@example.com")
	return v
}

const ham = "From: A <a@example.com>\nTo: me@example.org\nSubject: hello\nMessage-ID: <1@example.com>\n" +
	"Date: Sun, 1 Mar 2026 12:00:00 +0000\n\nhello\n"

func TestSpamd(t *testing.T) {
	rules := `
header FROM_CLIENT X-Spam-Relays-External =~ /^\[ ip=192\.0\.2\.1 rdns=mail\.example\.com helo=client\.example /
score FROM_CLIENT 0.5
header FROM_SIX X-Spam-Relays-External =~ /^\[ ip=2001:db8::1 /i
score FROM_SIX 0.5
header LOGGED_IN X-Spam-Relays-Trusted =~ / auth=ESMTPSA /
score LOGGED_IN 0.125
header SENDER EnvelopeFrom =~ /^a\@example\.com$/
score SENDER 0.25
`
	s := peertest.StartSpamd(t, rules)
	stage, err := newStage(Config{Address: s.Address, User: "somebody", MaxSize: 512 << 10, MaxReply: 64 << 10, AtOnce: 2}, network(t))
	if err != nil {
		t.Fatal(err)
	}
	check := func(v pipeline.View) Fact {
		t.Helper()
		r, err := stage.Check(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		f := r.Fact.(Fact)
		slices.Sort(f.Rules)
		return f
	}
	v := view(t, ham)
	if f, want := check(v), (Fact{true, false, 0.8, 5, []string{"FROM_CLIENT", "SENDER"}}); !reflect.DeepEqual(f, want) {
		t.Errorf("%+v, want %+v", f, want)
	}
	spam := view(t, ham+peertest.GTUBE+"\n")
	spam.Sender, spam.Client.Name = pipeline.Address{}, ""
	if f, want := check(spam), (Fact{true, true, 1000, 5, []string{"GTUBE"}}); !reflect.DeepEqual(f, want) {
		t.Errorf("%+v, want %+v", f, want)
	}
	v.Client = pipeline.Client{Addr: netip.MustParseAddr("2001:db8::1")}
	if f := check(v); !slices.Contains(f.Rules, "FROM_SIX") {
		t.Errorf("from IPv6: %+v", f)
	}
	v.Client = pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), Login: "me", TLS: "TLSv1.3"}
	if f := check(v); !slices.Contains(f.Rules, "LOGGED_IN") {
		t.Errorf("logged in: %+v", f)
	}
	v.Client = pipeline.Client{}
	if f := check(v); strings.Join(f.Rules, " ") != "SENDER" {
		t.Errorf("of nobody: %+v", f)
	}

	s.Stop()
	if _, err := stage.Check(t.Context(), v); err == nil || !strings.HasPrefix(err.Error(), "ask spamd at "+s.Address+": ") {
		t.Errorf("dead: %v", err)
	}
	s.Start()
	if f := check(v); !f.Scanned {
		t.Errorf("restarted: %+v", f)
	}
}

func BenchmarkSpamd(b *testing.B) {
	s := peertest.StartSpamd(b, "")
	stage, err := newStage(Config{Address: s.Address, MaxSize: 512 << 10, MaxReply: 64 << 10, AtOnce: 2, ConnectTimeout: time.Second}, network(b))
	if err != nil {
		b.Fatal(err)
	}
	v := view(b, ham)
	for b.Loop() {
		if _, err := stage.Check(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
}

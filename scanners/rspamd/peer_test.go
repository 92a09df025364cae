package rspamd

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

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
	v.Greeting, v.Sender = "client.example", pipelinetest.Address(t, "A@example.com")
	for _, to := range []string{"me@example.org", "you@example.org"} {
		v.Recipients = append(v.Recipients, pipeline.Recipient{Address: pipelinetest.Address(t, to), Account: to})
	}
	return v
}

const ham = "From: A <a@example.com>\nTo: me@example.org\nSubject: hello\nMessage-ID: <1@example.com>\n" +
	"Date: Sun, 1 Mar 2026 12:00:00 +0000\n\nhello\n"

// told has rspamd repeat what it was told beside the message.
const told = `
rspamd_config:register_symbol{name = 'TOLD', score = 1.5, callback = function(task)
  local rcpts = {}
  for _, r in ipairs(task:get_recipients('smtp') or {}) do table.insert(rcpts, r.addr) end
  local from = (task:get_from('smtp') or {{}})[1] or {}
  local ip = task:get_from_ip()
  return true, 1.0, {tostring(ip and ip:is_valid() and ip or 'none'), task:get_helo() or 'none', task:get_hostname() or 'none',
    from.addr or 'none', table.concat(rcpts, ' '), task:get_user() or 'none', task:get_queue_id() or 'none'}
end}
rspamd_config:set_metric_symbol('TOLD', 1.5, 'told')
`

func symbolOf(f Fact, name string) Symbol {
	if i := slices.IndexFunc(f.Symbols, func(s Symbol) bool { return s.Name == name }); i >= 0 {
		return f.Symbols[i]
	}
	return Symbol{}
}

func TestRspamd(t *testing.T) {
	r := peertest.StartRspamd(t, told)
	c := Kind().Config().(*Config)
	c.Address = r.Address
	stage, err := newStage(*c, network(t))
	if err != nil {
		t.Fatal(err)
	}
	check := func(v pipeline.View) Fact {
		t.Helper()
		got, err := stage.Check(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Missing) > 0 {
			t.Errorf("missing: %v", got.Missing)
		}
		return got.Fact.(Fact)
	}
	v := view(t, ham)
	f := check(v)
	if !f.Scanned || f.Skipped || f.Action != "no action" || f.Score != 1.5 || f.Required != 15 || f.MessageID != "1@example.com" || f.Time <= 0 {
		t.Errorf("%+v", f)
	}
	if s := symbolOf(f, "TOLD"); s.Score != 1.5 || strings.Join(s.Options, ",") != "192.0.2.1,client.example,mail.example.com,A@example.com,me@example.org you@example.org,none,t1" {
		t.Errorf("it was told %+v", s)
	}

	spam := view(t, ham+peertest.GTUBE+"\n")
	if f := check(spam); f.Action != "reject" || f.Score != 15 || symbolOf(f, "GTUBE").Name == "" || f.Text != "Gtube pattern" {
		t.Errorf("%+v", f)
	}

	// What nobody may say in HTTP, and what is not known.
	v.Client, v.Greeting, v.Sender = pipeline.Client{Login: "me@example.org"}, "x\r\nIP: 198.51.100.1", pipeline.Address{}
	if s := symbolOf(check(v), "TOLD"); strings.Join(s.Options, ",") != "none,xIP: 198.51.100.1,me@example.org you@example.org,me@example.org,t1" {
		t.Errorf("it was told %+v", s)
	}

	// A kept connection that is dead is no failure of the rspamd that has been started since.
	r.Stop()
	r.Start()
	if f := check(v); !f.Scanned {
		t.Errorf("restarted: %+v", f)
	}
	r.Stop()
	if _, err := stage.Check(t.Context(), v); err == nil || !strings.HasPrefix(err.Error(), "ask rspamd at "+r.Address+": ") {
		t.Errorf("dead: %v", err)
	}
}

func BenchmarkRspamd(b *testing.B) {
	r := peertest.StartRspamd(b, "")
	c := Kind().Config().(*Config)
	c.Address = r.Address
	stage, err := newStage(*c, network(b))
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

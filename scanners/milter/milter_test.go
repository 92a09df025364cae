package milter

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/breaker"
)

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), func(c any) { c.(*Config).Address = "unix:/run/milter.sock" })
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Address = "local:/run/x" }, `address: "local:/run/x" is none; write unix:PATH or HOST:PORT`},
		{func(c *Config) { c.Address = "unix:" }, `address: "" is no path of a socket: it has 1 to 107 octets`},
		{func(c *Config) { c.Act = []string{"body"} }, `act: there is no "body"; there are verdict and headers`},
		{func(c *Config) { c.Macros = map[string]string{"{j}": "x"} }, `macros: "{j}" is no name of a macro; it stands without braces`},
		{func(c *Config) { c.MaxEdits = 0 }, "command_timeout, content_timeout, max_size and max_edits are more than 0"},
	} {
		c := Kind().Config().(*Config)
		c.Address = "inet:127.0.0.1:8891"
		tt.change(c)
		if _, err := newStage(*c, pipelinetest.Env(t)); err == nil || err.Error() != tt.want {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
}

// A filter is the other side: a milter that keeps what it is told and answers as a test says.
type filter struct {
	version, actions, protocol uint32
	macros                     []byte            // what it asks for behind the negotiation
	answers                    map[string]string // by event's letter: packets, each "code|data"; the default is "c"
	heard                      []string
}

func packet(code byte, data string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(data)))
	return append(append(b, code), data...)
}

func (f *filter) serve(conn net.Conn) {
	silent := map[byte]uint32{'C': 1 << 12, 'H': 1 << 13, 'M': 1 << 14, 'R': 1 << 15, 'T': 1 << 16, 'L': 1 << 7, 'N': 1 << 18, 'B': 1 << 19}
	for {
		code, data, err := newWire(conn, time.Hour).packet1()
		if err != nil {
			return
		}
		f.heard = append(f.heard, string(code)+" "+strings.ReplaceAll(string(data), "\x00", "|"))
		switch {
		case code == 'O':
			b := binary.BigEndian.AppendUint32(nil, f.version)
			b = binary.BigEndian.AppendUint32(b, f.actions)
			b = append(binary.BigEndian.AppendUint32(b, f.protocol), f.macros...)
			f.heard = f.heard[:0]
			_, _ = conn.Write(packet('O', string(b)))
			continue
		case code == 'D', code == 'A', code == 'Q', f.protocol&silent[code] != 0:
			continue
		}
		answer, ok := f.answers[string(code)]
		if !ok {
			answer = "c"
		}
		for _, one := range strings.Split(answer, " ~ ") {
			if _, err := conn.Write(packet(one[0], strings.TrimPrefix(one[1:], "|"))); err != nil {
				return
			}
		}
	}
}

// by is a milter that serves each connection as if it were the first.
func by(f filter) func(net.Conn) {
	return func(conn net.Conn) { (&filter{f.version, f.actions, f.protocol, f.macros, f.answers, nil}).serve(conn) }
}

// packet1 reads without reading ahead.
func (w *wire) packet1() (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(w.conn, head[:]); err != nil {
		return 0, nil, err
	}
	data := make([]byte, binary.BigEndian.Uint32(head[:])-1)
	_, err := io.ReadFull(w.conn, data)
	return head[4], data, err
}

// beside returns a stage that asks whoever serves connections, in memory.
func beside(t *testing.T, serve func(net.Conn), change func(*Config)) (*stage, *atomic.Int32) {
	t.Helper()
	dialled := new(atomic.Int32)
	env := network(t)
	env.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		if serve == nil {
			return nil, fmt.Errorf("dial %s %s: connection refused", network, address)
		}
		ours, theirs := net.Pipe()
		go func() { defer theirs.Close(); serve(theirs) }() // ends when either side hangs up
		return ours, nil
	}
	c := Kind().Config().(*Config)
	c.Address, c.Breaker = "inet:127.0.0.1:8891", breaker.Config{Failures: 2, Pause: time.Minute}
	if change != nil {
		change(c)
	}
	s, err := newStage(*c, env)
	if err != nil {
		t.Fatal(err)
	}
	return s, dialled
}

// The whole conversation, as it is on the wire.
func TestDialogue(t *testing.T) {
	six := func(v *pipeline.View) {
		v.Client = pipeline.Client{Addr: netip.MustParseAddr("2001:db8::1"), Login: "me@example.org", TLS: "TLSv1.3"}
		v.Sender, v.Greeting = pipeline.Address{}, "x\x00y"
	}
	const client = "D C|j|mx.example.org|{daemon_name}|sluice|v|Sluice|_|mail.example.com [192.0.2.1]|{client_addr}|192.0.2.1|" +
		"{client_name}|mail.example.com|{client_port}|0|{client_resolve}|OK|"
	for _, tt := range []struct {
		name   string
		filter filter
		change func(*pipeline.View)
		config func(*Config)
		want   string
	}{
		{"all of it", filter{version: 6}, nil, nil, strings.Replace(client, "C|", "C", 1) + `
C mail.example.com|4` + "\x00\x00" + `192.0.2.1|
H client.example|
D M{mail_mailer}|esmtp|{mail_host}|example.com|{mail_addr}|A@example.com|i|t1|
M <A@example.com>|
D R{rcpt_mailer}|local|{rcpt_host}|example.org|{rcpt_addr}|Me@example.org|i|t1|
R <Me@example.org>|
D R{rcpt_mailer}|local|{rcpt_host}|example.org|{rcpt_addr}|you@example.org|i|t1|
R <you@example.org>|
D Ti|t1|
T ` + `
L From|A <a@example.com>|
L To|me@example.org|
L Subject|hello
  there|
L Message-ID|<1@example.com>|
L Date|Sun, 1 Mar 2026 12:00:00 +0000|
D Ni|t1|
N ` + `
B hello` + "\r" + `

D Ei|t1|
E ` + `
Q `},
		{"another client", filter{version: 6, protocol: 0x74 | 8 | 1<<9}, six, nil, `D Cj|mx.example.org|{daemon_name}|sluice|v|Sluice|_|[2001:db8::1] [2001:db8::1]|{client_addr}|2001:db8::1|{client_name}|[2001:db8::1]|{client_port}|0|{client_resolve}|FAIL|
C [2001:db8::1]|6` + "\x00\x00" + `2001:db8::1|
D H{tls_version}|TLSv1.3|
H x y|
D Ei|t1|
E ` + `
Q `},
		{"an old one, which knows no DATA and wants leading spaces", filter{version: 2, protocol: 1<<20 | 0x0f | 0x50}, nil, nil, `L From| A <a@example.com>|
L To| me@example.org|
L Subject| hello
  there|
L Message-ID| <1@example.com>|
L Date| Sun, 1 Mar 2026 12:00:00 +0000|
D Ei|t1|
E ` + `
Q `},
		{"one that says what it wants", filter{version: 6, protocol: 0x7e | 1<<9, macros: []byte("\x00\x00\x00\x00j {auth_authen} {x}\x00\x00\x00\x00\x05{mail_addr}\x00")},
			six, func(c *Config) { c.Macros = map[string]string{"x": "y", "z": "no"} }, `D Cx|y|j|mx.example.org|{auth_authen}|me@example.org|
C [2001:db8::1]|6` + "\x00\x00" + `2001:db8::1|
E ` + `
Q `},
		{"nobody's mail", filter{version: 6, protocol: 0x7e | 1<<9}, func(v *pipeline.View) { v.Client, v.Greeting = pipeline.Client{}, "" },
			func(c *Config) { c.Macros = map[string]string{"daemon_name": "mine"} }, `D C{daemon_name}|mine|j|mx.example.org|v|Sluice|
C unknown|U
D Ei|t1|
E ` + `
Q `},
		{"it answers nothing but the end", filter{version: 6, protocol: 0xff080 | 0x47 | 8}, nil, nil, `D Ti|t1|
T ` + `
L From|A <a@example.com>|
L To|me@example.org|
L Subject|hello
  there|
L Message-ID|<1@example.com>|
L Date|Sun, 1 Mar 2026 12:00:00 +0000|
B hello` + "\r" + `

D Ei|t1|
E ` + `
Q `},
	} {
		t.Run(tt.name, func(t *testing.T) {
			done := make(chan struct{})
			s, _ := beside(t, func(c net.Conn) { defer close(done); tt.filter.serve(c) }, tt.config)
			v := view(t, ham)
			if tt.change != nil {
				tt.change(&v)
			}
			r, err := s.Check(t.Context(), v)
			if err != nil {
				t.Fatal(err)
			}
			<-done
			if f := r.Fact.(Fact); !reflect.DeepEqual(f, Fact{Scanned: true, Verdict: "continue", Event: "eom"}) {
				t.Errorf("%+v", f)
			}
			if got := strings.ReplaceAll(strings.Join(tt.filter.heard, "\n"), "\x00", "|"); got != strings.ReplaceAll(tt.want, "\x00", "|") {
				t.Errorf("%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// What it says at which event, and what that comes to.
func TestVerdicts(t *testing.T) {
	type x = map[string]string
	for _, tt := range []struct {
		name    string
		answers x
		want    Fact
		action  pipeline.Action
		reply   string
	}{
		{"accept at connect", x{"C": "a"}, Fact{Verdict: "accept", Event: "connect"}, pipeline.Pass, ""},
		{"reject at helo", x{"H": "r"}, Fact{Verdict: "reject", Event: "helo"}, pipeline.Reject, "550 5.7.1 message refused"},
		{"tempfail at mail", x{"M": "t"}, Fact{Verdict: "tempfail", Event: "mail"}, pipeline.TempFail, "451 4.7.1 please try again later"},
		{"discard at data", x{"T": "d"}, Fact{Verdict: "discard", Event: "data"}, pipeline.Discard, ""},
		{"a reply in the header", x{"L": "y|554 5.6.0 50%% off\x00"}, Fact{Verdict: "reject", Event: "header", Code: 554, Enhanced: "5.6.0", Text: "50% off"}, pipeline.Reject, "554 5.6.0 50% off"},
		{"of several lines", x{"N": "y|451-4.7.1 one\r\n451 4.7.1 two\x00"}, Fact{Verdict: "tempfail", Event: "eoh", Code: 451, Enhanced: "4.7.1", Text: "one two"}, pipeline.TempFail, "451 4.7.1 one two"},
		{"without a status", x{"B": "y|550 no"}, Fact{Verdict: "reject", Event: "body", Code: 550, Text: "no"}, pipeline.Reject, "550 5.7.1 no"},
		{"shutdown", x{"B": "4"}, Fact{Verdict: "tempfail", Event: "body", Code: 421}, pipeline.TempFail, "451 4.7.1 please try again later"},
		{"every recipient refused", x{"R": "y|450 4.7.1 greylisted\x00"}, Fact{
			Verdict: "tempfail", Event: "rcpt", Code: 450, Enhanced: "4.7.1", Text: "greylisted",
			RcptsRefused: []Refusal{{"Me@example.org", "tempfail", 450, "4.7.1", "greylisted"}, {"you@example.org", "tempfail", 450, "4.7.1", "greylisted"}},
		}, pipeline.TempFail, "450 4.7.1 greylisted"},
		{"skips header and body", x{"L": "s", "B": "s", "E": "a"}, Fact{Verdict: "accept", Event: "eom"}, pipeline.Pass, ""},
		{"slowly", x{"M": "p ~ p ~ c", "E": "p ~ p ~ p ~ a"}, Fact{Verdict: "accept", Event: "eom"}, pipeline.Pass, ""},
		{"quarantine", x{"E": "q|a\r\n virus\x00 ~ a"}, Fact{Verdict: "quarantine", Event: "eom", Quarantined: true, QuarantineReason: "a virus"}, pipeline.Quarantine, ""},
		{"quarantine, and refused", x{"E": "q|x\x00 ~ r"}, Fact{Verdict: "reject", Event: "eom", Quarantined: true, QuarantineReason: "x"}, pipeline.Reject, "550 5.7.1 message refused"},
		{"nobody left", x{"E": "-|<Me@example.org>\x00 ~ -|<you@example.org>\x00 ~ a"}, Fact{Verdict: "discard", Event: "eom", RcptsDeleted: []string{"Me@example.org", "you@example.org"}}, pipeline.Discard, ""},
		{"what is not done", x{"E": "-|<Me@example.org>\x00 ~ +|<x@example.org>\x00 ~ 2|<y@example.org>\x00NOTIFY=NEVER\x00 ~ e|<>\x00 ~ b|new ~ b| body ~ c"}, Fact{
			Verdict: "continue", Event: "eom", RcptsDeleted: []string{"Me@example.org"}, RcptsAdded: []string{"x@example.org", "y@example.org"},
			SenderChanged: true, BodyReplaced: true, BodySize: 8, NotDone: []string{"body", "rcpts_added", "rcpts_deleted", "sender"},
		}, pipeline.Pass, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			serve := by(filter{version: 6, actions: 0x1ff, answers: tt.answers})
			s, _ := beside(t, serve, func(c *Config) { c.Act = []string{"verdict"} })
			r, err := s.Check(t.Context(), view(t, ham))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Scanned = true
			if !reflect.DeepEqual(r.Fact, tt.want) {
				t.Errorf("%+v\nwant %+v", r.Fact, tt.want)
			}
			if r.Verdict.Action != tt.action || r.Verdict.Action.Refuses() && r.Verdict.Reply.Text != tt.want.Text {
				t.Errorf("%+v, want %s", r.Verdict, tt.action)
			}
			if len(r.Edits) > 0 {
				t.Errorf("edits without act: %v", r.Edits)
			}
			// Without `act` it is a fact and nothing else.
			s.verdict = false
			if r, err := s.Check(t.Context(), view(t, ham)); err != nil || !reflect.DeepEqual(r, pipeline.Result{Fact: tt.want}) {
				t.Errorf("without act: %+v, %v", r, err)
			}
			journal := &pipelinetest.Journal{}
			k := Kind()
			k.New = func(any, pipeline.Env) ([]pipeline.Stage, error) { s.verdict = true; return []pipeline.Stage{s}, nil }
			p, err := pipeline.NewPlan([]pipeline.Step{{Kind: k, Config: &s.config}}, pipelinetest.Env(t), pipeline.Options{})
			if err != nil {
				t.Fatal(err)
			}
			ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{From: "A@example.com", To: []string{"Me@example.org", "you@example.org"}, Text: ham})
			for _, d := range ran.Decisions {
				if reply := strings.TrimPrefix(d.Verdict.Reply.String(), "0 "); d.Verdict.Action != tt.action || reply != tt.reply {
					t.Errorf("decided: %s %q, want %s %q", d.Verdict.Action, reply, tt.action, tt.reply)
				}
			}
		})
	}
}

// One recipient refused is a fact; the others go on.
func TestOneRecipient(t *testing.T) {
	f := filter{version: 6, actions: 0x1ff, answers: map[string]string{"R": "r"}}
	first := true
	serve := func(conn net.Conn) {
		ours, theirs := net.Pipe()
		go func() { defer theirs.Close(); f.serve(theirs) }() // ends with ours
		go func() { _, _ = io.Copy(ours, conn); _ = ours.Close() }()
		for {
			code, data, err := newWire(ours, time.Hour).packet1()
			if err != nil {
				return
			}
			if code == 'r' && !first {
				code = 'c'
			}
			first = first && code != 'r'
			if _, err := conn.Write(packet(code, string(data))); err != nil {
				return
			}
		}
	}
	s, _ := beside(t, serve, func(c *Config) { c.Act = []string{"verdict"} })
	r, err := s.Check(t.Context(), view(t, ham))
	if err != nil {
		t.Fatal(err)
	}
	want := Fact{Scanned: true, Verdict: "continue", Event: "eom", RcptsRefused: []Refusal{{Address: "Me@example.org", Verdict: "reject"}}, NotDone: []string{"rcpts_refused"}}
	if !reflect.DeepEqual(r.Fact, want) || r.Verdict.Action != pipeline.Pass {
		t.Errorf("%+v, %+v", r.Fact, r.Verdict)
	}
}

func TestHeaders(t *testing.T) {
	long := strings.Repeat("x", 991)
	answers := map[string]string{"E": strings.Join([]string{
		"h|X-Added\x00one\r\n\ttwo\nthree\x00",
		"i|\x00\x00\x00\x00X-First\x00 0\x00",
		"m|\x00\x00\x00\x01subject\x00new\x00",
		"m|\x00\x00\x00\x02Subject\x00\x00",
		"m|\x00\x00\x00\x01X-None\x00\x00",
		"m|\x00\x00\x00\x00To\x00\x00",
		"h|X-Long\x00" + long + "\x00",
		"h|Bad Name\x00x\x00",
		"h|X-Sluice-Id\x00forged\x00",
		"c",
	}, " ~ ")}
	var log bytes.Buffer
	serve := by(filter{version: 6, actions: 0x1ff, answers: answers})
	s, _ := beside(t, serve, func(c *Config) { c.Act = []string{"headers"} })
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	for range 2 {
		r, err := s.Check(t.Context(), view(t, ham))
		if err != nil {
			t.Fatal(err)
		}
		edits := []pipeline.Edit{
			{Name: "X-Added", Value: "one\ttwo three"},
			{Name: "X-First", Value: "0"},
			{Delete: true, Name: "subject", Index: 1},
			{Name: "subject", Value: "new"},
			{Delete: true, Name: "To", Index: 1},
		}
		if !reflect.DeepEqual(r.Edits, edits) {
			t.Errorf("edits: %+v\nwant %+v", r.Edits, edits)
		}
		fact := r.Fact.(Fact)
		headers := []Field{{"X-Added", "one\ttwo three"}, {"X-First", "0"}, {"X-Long", long}, {"Bad Name", "x"}, {"X-Sluice-Id", "forged"}}
		changed := []Change{{"subject", 1, false, "new"}, {"Subject", 2, true, ""}, {"X-None", 1, true, ""}, {"To", 1, true, ""}}
		if !reflect.DeepEqual(fact.Headers, headers) || !reflect.DeepEqual(fact.Changed, changed) || !reflect.DeepEqual(fact.NotDone, []string{"headers"}) {
			t.Errorf("%+v", fact)
		}
	}
	if n := strings.Count(log.String(), "not_done=headers"); n != 1 {
		t.Errorf("warned %d times:\n%s", n, log.String())
	}
	if does := s.Does(); len(does) != 1 || does[0].Kind != pipeline.DoesEdit {
		t.Errorf("does %v", does)
	}
}

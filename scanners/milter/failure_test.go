package milter

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/scanners/breaker"
)

// What becomes of each way in which a milter can fail: never an answer that it did not give.
func TestFailures(t *testing.T) {
	answers := func(event, answer string) func(net.Conn) {
		return by(filter{version: 6, actions: 0x1ff, answers: map[string]string{event: answer}})
	}
	upTo := func(n int) func(net.Conn) { // hangs up after n packets
		return func(conn net.Conn) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			go func() { defer theirs.Close(); (&filter{version: 6}).serve(theirs) }() // ends with ours
			for range n {
				for _, way := range [][2]net.Conn{{conn, ours}, {ours, conn}} {
					code, data, err := newWire(way[0], time.Hour).packet1()
					if err != nil {
						return
					}
					_, _ = way[1].Write(packet(code, string(data)))
				}
			}
		}
	}
	drip := func(conn net.Conn) {
		go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with conn
		for _, b := range packet('O', strings.Repeat("\x00", 12)) {
			time.Sleep(3 * time.Second)
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
		}
	}
	many := strings.TrimSuffix(strings.Repeat("h|X\x00y\x00 ~ ", 101), " ~ ")
	for _, tt := range []struct {
		name  string
		serve func(net.Conn)
		want  string
	}{
		{"refuses to connect", nil, "dial tcp 127.0.0.1:8891: connection refused"},
		{"hangs", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "negotiate: no answer within 10s"},
		{"does not read", func(net.Conn) { time.Sleep(time.Hour) }, "negotiate: no answer within 10s"},
		{"drips", drip, "negotiate: no answer within 10s"},
		{"hangs up at once", func(net.Conn) {}, "negotiate: io: read/write on closed pipe"},
		{"hangs up at the client", upTo(1), "connect: io: read/write on closed pipe"},
		{"is another server", func(c net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, c) }()
			_, _ = io.WriteString(c, "220 mx ESMTP\r\n")
			time.Sleep(time.Hour)
		},
			"negotiate: a packet of 842149920 octets: this is no milter"},
		{"answers otherwise", func(c net.Conn) { go func() { _, _ = io.Copy(io.Discard, c) }(); _, _ = c.Write(packet('a', "")) }, "negotiate: 'a' with 0 octets is no answer to a negotiation: this is no milter"},
		{"speaks another version", by(filter{version: 7}), "negotiate: it speaks version 7 of the protocol; 2 to 6 are understood"},
		{"wants to do what nobody can", by(filter{version: 6, actions: 1 << 12}), "negotiate: it wants to do what was not offered (actions 0x1000)"},
		{"wants to hear what nobody says", by(filter{version: 6, protocol: 1 << 28}), "negotiate: it wants a conversation that was not offered (protocol 0x10000000)"},
		{"wants half a macro", by(filter{version: 6, macros: []byte("\x00\x00\x00\x00j")}), "negotiate: the list of macros that it wants is cut off"},
		{"changes the header too early", answers("H", "h|X\x00y\x00"), "helo: 'h' is no answer"},
		{"skips what comes once", answers("M", "s"), "mail: it wants to skip what comes once"},
		{"an odd reply", answers("M", "y|250 ok"), `mail: "250 ok" is no reply`},
		{"gives up", answers("M", "f"), "mail: it asks to be treated as failed"},
		{"half a field", answers("E", "h|X"), "eom: a header field is cut off"},
		{"half a place", answers("E", "m|\x00"), "eom: a change of a header field is cut off"},
		{"changes without end", answers("E", many+" ~ c"), "eom: it makes more than 100 changes"},
		{"a body without end", answers("E", strings.TrimSuffix(strings.Repeat("b|"+strings.Repeat("x", 1<<19)+" ~ ", 120), " ~ ")+" ~ c"), "eom: it sends more than 53477376 octets"},
		{"progress without end", answers("E", strings.TrimSuffix(strings.Repeat("p ~ ", 1100), " ~ ")), "eom: it says 1000 times that it needs more time"},
		{"hangs at the end", answers("E", "h|X\x00y\x00"), "eom: no answer within 30s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dialled := beside(t, tt.serve, nil)
				ask := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					r, err := s.Check(ctx, view(t, ham))
					if err == nil {
						t.Fatalf("answered: %+v", r)
					}
					if !reflect.DeepEqual(r, pipeline.Result{}) {
						t.Errorf("an error and an answer: %+v", r)
					}
					return err
				}
				if err := ask(); err.Error() != "ask other at 127.0.0.1:8891: "+tt.want {
					t.Errorf("%v, want %s", err, tt.want)
				}
				_ = ask()
				var open *breaker.OpenError
				if err := ask(); !errors.As(err, &open) || dialled.Load() != 2 {
					t.Errorf("asked %d times: %v", dialled.Load(), err)
				}
				time.Sleep(2 * time.Hour) // what hangs has ended
			})
		})
	}
}

// Progress makes the time for an answer begin anew, within the time of the whole question.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(packets int) func(net.Conn) {
			return func(conn net.Conn) {
				for {
					code, _, err := newWire(conn, time.Hour).packet1()
					switch {
					case err != nil:
						return
					case code == 'O':
						_, _ = conn.Write(packet('O', string([]byte{0, 0, 0, 6, 0, 0, 0, 0, 0, 0x0f, 0xf2, 0xff})))
					case code == 'E':
						for range packets {
							time.Sleep(25 * time.Second)
							if _, err := conn.Write(packet('p', "")); err != nil {
								return
							}
						}
						_, _ = conn.Write(packet('a', ""))
					}
				}
			}
		}
		for packets, want := range map[int]string{3: "", 5: "ask other at 127.0.0.1:8891: context deadline exceeded"} {
			s, _ := beside(t, slow(packets), nil)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			_, err := s.Check(ctx, view(t, ham))
			cancel()
			if err == nil && want != "" || err != nil && err.Error() != want {
				t.Errorf("%d times 25s: %v", packets, err)
			}
		}
		time.Sleep(time.Hour) // what hangs has ended
	})
}

// A mail over the limit is no failure, so on_error does not hold it back for ever: what the milter would say is unknown.
func TestTooLarge(t *testing.T) {
	s, dialled := beside(t, nil, func(c *Config) { c.MaxSize = 100 })
	r, err := s.Check(t.Context(), view(t, ham+strings.Repeat("x", 100)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeFor[Fact]().NumField() {
		name := reflect.TypeFor[Fact]().Field(i).Tag.Get("json")
		if why := r.Missing[name]; name != "scanned" && (why == nil || !strings.Contains(why.Error(), "octets, and max_size is 100")) {
			t.Errorf("%s: %v", name, why)
		}
	}
	if r.Fact.(Fact).Scanned || dialled.Load() != 0 {
		t.Errorf("%+v, asked %d times", r.Fact, dialled.Load())
	}
}

// Whatever a milter sends ends soon, and what it comes to is bounded.
func FuzzMilter(f *testing.F) {
	f.Add(append(packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x0f\xf2\xff"), packet('a', "")...))
	f.Add(append(packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x0f\xf2\xff"), packet('m', "\x00\x00\x00\x01X\x00y\x00")...))
	f.Add(append(packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x0f\xf2\xff"), packet('y', "550-x\r\n550 %% y\x00")...))
	f.Add(append(packet('O', "\x00\x00\x00\x02\x00\x00\x01\xff\x00\x00\x00\x00\x00\x00\x00\x00j\x00"), packet('c', "")...))
	message := view(f, ham)
	f.Fuzz(func(t *testing.T, sent []byte) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() { _, _ = io.Copy(io.Discard, theirs) }() // ends with ours
		go func() { _, _ = theirs.Write(sent); _ = theirs.Close() }()
		d := &dialogue{limits: *Kind().Config().(*Config), hostname: "mx.example.org", view: message, wire: newWire(ours, time.Second)}
		err := d.run()
		if err == nil && d.fact.Verdict == "" {
			t.Errorf("no verdict: %+v", d.fact)
		}
		for _, e := range d.edit {
			if len(e.Name)+2+len(e.Value) > maxField || strings.ContainsAny(e.Value, "\r\n\x00") {
				t.Errorf("%+v", e)
			}
		}
		for _, h := range d.fact.Headers {
			if len(h.Value) > 1000 || len(h.Name) > 1000 {
				t.Errorf("%d octets", len(h.Value))
			}
		}
	})
}

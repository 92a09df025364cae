package rspamd

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/breaker"
)

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), func(c any) { c.(*Config).Address = "127.0.0.1:11333" })
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Address = "" }, "address: is missing; write unix:PATH or HOST:PORT"},
		{func(c *Config) { c.MaxSymbols = 0 }, "max_size, max_reply and max_symbols are at least 1"},
		{func(c *Config) { c.PasswordFile = "none" }, "password_file: none: no such file"},
		{func(c *Config) { c.PasswordFile = "empty" }, "password_file: empty is empty"},
		{func(c *Config) { c.PasswordFile = "noise" }, "password_file: noise: its first line is no password"},
	} {
		c := Kind().Config().(*Config)
		c.Address = "unix:/run/rspamd/worker.sock"
		tt.change(c)
		env := pipelinetest.Env(t)
		env.Secret = pipelinetest.Files{"empty": "\n \n", "noise": "a\x00b"}.Secret
		if _, err := newStage(*c, env); err == nil || err.Error() != tt.want {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
}

// The plan's text is kept in the journal: a hash of a password there could be guessed.
func TestPasswordIsInNoPlan(t *testing.T) {
	files := pipelinetest.Files{"password": "secret\n"}
	env := pipelinetest.Env(t)
	env.Files, env.Secret = files.Open, files.Secret
	c := Kind().Config().(*Config)
	c.Address, c.PasswordFile = "127.0.0.1:11333", "password"
	p, err := pipeline.NewPlan([]pipeline.Step{{Kind: Kind(), Config: c}}, env, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"secret", "secret\n"} {
		if hash := fmt.Sprintf("%x", sha256.Sum256([]byte(line))); strings.Contains(p.Text(), hash) || strings.Contains(p.Text(), "secret") {
			t.Errorf("%s", p.Text())
		}
	}
	if !strings.Contains(p.Text(), `"PasswordFile":"password"`) || strings.Contains(p.Text(), "sha256") {
		t.Errorf("%s", p.Text())
	}
}

func TestParseReply(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Fact
		missing    string
		wrong      string
	}{
		{"whole", `{"is_skipped":false,"score":7.25,"required_score":15.0,"action":"add header","subject":"[SPAM] x",
			"symbols":{"B":{"name":"B","score":-0.5},"A":{"score":0.5,"options":["x",3]},"C":{"score":7}},
			"messages":{"smtp_message":"no","n":{}},"message-id":"1@x","time_real":0.5,"urls":["x"]}`,
			Fact{true, false, 7.25, 15, "add header", []Symbol{{"C", 7, nil}, {"A", 0.5, []string{"x", "3"}}, {"B", -0.5, nil}}, "no", "[SPAM] x", "1@x", 0.5}, "", ""},
		{"nothing is refused", `{"score":1,"required_score":null,"action":"no action","time_real":1}`,
			Fact{Scanned: true, Score: 1, Action: "no action", Time: 1}, "required", ""},
		{"more symbols than are taken", `{"score":1,"required_score":2,"action":"no action","time_real":1,"symbols":{"A":{},"B":{},"C":{},"D":{}}}`,
			Fact{Scanned: true, Score: 1, Required: 2, Action: "no action", Time: 1}, "symbols", ""},
		{"an error", `{"error":"Unknown command"}`, Fact{}, "", `it says "Unknown command"`},
		{"no score", `{"action":"no action"}`, Fact{}, "", "the reply has no score"},
		{"no action", `{"score":1}`, Fact{}, "", "the reply has no action"},
		{"an infinite score", `{"score":1e999,"action":"x"}`, Fact{}, "", "read the reply: json: cannot unmarshal number 1e999 into Go struct field reply.score of type float64"},
		{"another type", `{"score":"1","action":"x"}`, Fact{}, "", "read the reply: json: cannot unmarshal string into Go struct field reply.score of type float64"},
		{"cut off", `{"score":1,"action":"x"`, Fact{}, "", "read the reply: unexpected EOF"},
		{"two", `{"score":1,"action":"x"}{}`, Fact{}, "", "read the reply: something follows the JSON"},
		{"nothing", ``, Fact{}, "", "read the reply: EOF"},
		{"null", `null`, Fact{}, "", "the reply has no score"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := parseReply([]byte(tt.text))
			if err != nil || tt.wrong != "" {
				if err == nil || err.Error() != tt.wrong {
					t.Errorf("%v, want %s", err, tt.wrong)
				}
				return
			}
			f, missing := r.fact(3)
			if !reflect.DeepEqual(f, tt.want) {
				t.Errorf("%+v, want %+v", f, tt.want)
			}
			if tt.missing == "" && len(missing) > 0 || tt.missing != "" && (len(missing) != 1 || missing[tt.missing] == nil) {
				t.Errorf("missing: %v", missing)
			}
		})
	}
}

// What comes from the mail is bounded in the fact.
func TestBounds(t *testing.T) {
	options := strings.TrimSuffix(strings.Repeat(`"`+strings.Repeat("ä", 5000)+`",`, 50), ",")
	r, err := parseReply([]byte(`{"score":1,"action":"x","symbols":{"A":{"options":[` + options + `]}},"message-id":"` + strings.Repeat("x", 9000) + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	f, _ := r.fact(10)
	if len(f.Symbols[0].Options) != 20 || len(f.Symbols[0].Options[0]) > 210 || len(f.MessageID) > 210 {
		t.Errorf("%+v", f)
	}
}

// A fake answers connections with a function, in memory.
func fake(t *testing.T, answer func(net.Conn)) (*stage, *atomic.Int32) {
	t.Helper()
	dialled := new(atomic.Int32)
	env := pipelinetest.Env(t)
	env.Now = time.Now
	env.Secret = pipelinetest.Files{"password": "secret\n"}.Secret
	env.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		if answer == nil {
			return nil, fmt.Errorf("dial %s %s: connection refused", network, address)
		}
		ours, theirs := net.Pipe()
		go func() { defer theirs.Close(); answer(theirs) }() // ends when either side hangs up
		return ours, nil
	}
	c := Kind().Config().(*Config)
	c.Address, c.PasswordFile, c.MaxReply = "127.0.0.1:11333", "password", 300
	c.Breaker = breaker.Config{Failures: 2, Pause: time.Minute}
	s, err := newStage(*c, env)
	if err != nil {
		t.Fatal(err)
	}
	return s, dialled
}

// read takes a question.
func read(conn net.Conn) *http.Request {
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return nil
	}
	text, _ := io.ReadAll(req.Body)
	req.Body = io.NopCloser(strings.NewReader(string(text)))
	return req
}

const (
	good  = `{"score":1,"required_score":15,"action":"no action","time_real":0.1}`
	whole = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 68\r\n\r\n" + good
)

// What becomes of each way in which rspamd can fail: never an answer that it did not give.
func TestFailures(t *testing.T) {
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) { read(c); _, _ = io.WriteString(c, text) }
	}
	drip := func(c net.Conn) {
		read(c)
		for i := range len(whole) {
			time.Sleep(time.Second)
			if _, err := c.Write([]byte{whole[i]}); err != nil {
				return
			}
		}
	}
	for _, tt := range []struct {
		name   string
		answer func(net.Conn)
		want   string
		well   bool // it counts as well
	}{
		{"refuses to connect", nil, "dial tcp 127.0.0.1:11333: connection refused", false},
		{"hangs", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "context deadline exceeded", false},
		{"does not read", func(net.Conn) { time.Sleep(time.Hour) }, "context deadline exceeded", false},
		{"drips", drip, "context deadline exceeded", false},
		{"hangs up at once", func(net.Conn) {}, "*", false},
		{"hangs up instead of answering", func(c net.Conn) { read(c) }, "EOF", false},
		{"hangs up within its answer", says(whole[:len(whole)-1]), "read the reply: unexpected EOF", false},
		{"sends garbage", says("\x00\x01\xff\r\n\r\n"), `net/http: HTTP/1.x transport connection broken: malformed HTTP response "\x00\x01\xff"`, false},
		{"sends another page", says("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>"), "read the reply: invalid character '<' looking for beginning of value", false},
		{"never ends", says("HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat(" ", 400)), "the reply has more than 300 octets", false},
		{"sends us elsewhere", says("HTTP/1.1 307 X\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n"), "it answers with status 307: ", true},
		{"does not like the question", says("HTTP/1.1 403 X\r\nContent-Length: 18\r\n\r\n" + `{"error":"denied"}`), `it answers with status 403: {"error":"denied"}`, true},
		{"is too busy", says("HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"), "it answers with status 503: ", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dialled := fake(t, tt.answer)
				defer s.client.http.CloseIdleConnections()
				ask := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
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
				why, ok := strings.CutPrefix(ask().Error(), "ask rspamd at 127.0.0.1:11333: ")
				if !ok || tt.want != "*" && why != tt.want {
					t.Errorf("%s, want %s", why, tt.want)
				}
				_ = ask()
				before := dialled.Load()
				var open *breaker.OpenError
				if err := ask(); errors.As(err, &open) == tt.well || !tt.well && dialled.Load() != before {
					t.Errorf("asked %d times: %v", dialled.Load(), err)
				}
				time.Sleep(time.Hour) // what hangs has ended
			})
		})
	}
}

func TestQuestion(t *testing.T) {
	var got []*http.Request
	s, dialled := fake(t, func(c net.Conn) {
		for {
			req := read(c)
			if req == nil {
				return
			}
			got = append(got, req)
			_, _ = io.WriteString(c, whole)
		}
	})
	defer s.client.http.CloseIdleConnections()
	s.client.settings = "incoming"
	v := view(t, ham)
	v.Client.TLS, v.Recipients = "TLSv1.3", v.Recipients[:1]
	for range 2 {
		if r, err := s.Check(t.Context(), v); err != nil || r.Fact.(Fact).Action != "no action" {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if dialled.Load() != 1 || len(got) != 2 {
		t.Errorf("%d questions over %d connections", len(got), dialled.Load())
	}
	req := got[0]
	var fields []string
	for name, values := range req.Header {
		fields = append(fields, name+": "+strings.Join(values, ","))
	}
	slices.Sort(fields)
	want := "Deliver-To: me@example.org\nFrom: A@example.com\nHelo: client.example\nHostname: mail.example.com\nIp: 192.0.2.1\n" +
		"Mta-Name: mx.example.org\nPassword: secret\nQueue-Id: t1\nRcpt: me@example.org\nSettings-Id: incoming\nTls-Version: TLSv1.3"
	fields = slices.DeleteFunc(fields, func(f string) bool { return strings.HasPrefix(f, "Content-Length") })
	if s := strings.Join(fields, "\n"); s != want || req.Method != "POST" || req.URL.Path != "/checkv2" {
		t.Errorf("%s %s\n%s\nwant\n%s", req.Method, req.URL, s, want)
	}
	if text, _ := io.ReadAll(req.Body); string(text) != strings.ReplaceAll(ham, "\n", "\r\n") {
		t.Errorf("the mail: %s", text)
	}
}

// A mail over the limit is no failure, so on_error does not hold it back for ever: what rspamd would say is unknown.
func TestTooLarge(t *testing.T) {
	s, dialled := fake(t, nil)
	s.config.MaxSize = 100
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

func FuzzParseReply(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"score":1,"action":"x","symbols":{"A":{"score":1,"options":["x",3,{}]}},"messages":{"smtp_message":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseReply(text)
		if err != nil {
			return
		}
		fact, missing := r.fact(5)
		if !fact.Scanned || len(fact.Symbols) > 5 || len(fact.Symbols) != len(r.Symbols) && missing["symbols"] == nil {
			t.Errorf("%+v", fact)
		}
	})
}

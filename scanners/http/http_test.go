package http

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

const answer = `{"fact":{"score":1.5,"word":"a"}}`

func config(url string) *Config {
	c := Kind().Config().(*Config)
	c.URL, c.Facts = url, map[string]any{"score": "number", "word": "string"}
	return c
}

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), func(c any) { *c.(*Config) = *config("http://127.0.0.1:8080/judge") })
}

func made(t testing.TB, c *Config, files pipelinetest.Files) *stage {
	t.Helper()
	env := pipelinetest.Env(t)
	env.Name, env.Files, env.Secret = "judge", files.Open, files.Secret
	env.Dial, env.Now = (&net.Dialer{}).DialContext, time.Now
	s, err := newStage(*c, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

const hello = "Subject: hello\n\nhello\n"

func check(ctx context.Context, t testing.TB, s *stage, text string) (pipeline.Result, error) {
	t.Helper()
	var v pipeline.View
	v.ID, v.Received, v.Message = "t1", pipelinetest.Epoch, pipelinetest.Parse(t, text)
	return s.Check(ctx, v)
}

// What the service gets, by each way there is to it, and what becomes of what it says.
func TestAsk(t *testing.T) {
	var (
		got     *http.Request
		body    []byte
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r
			body, _ = io.ReadAll(r.Body)
			_, _ = io.WriteString(w, answer)
		})
	)
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(handler)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	defer secure.Close()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go func() { _ = local.Serve(l) }() // ends with Close
	defer local.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	files := pipelinetest.Files{"ca.pem": ca, "token": "s3cret\nmore\n"}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		host   string
	}{
		{"http", func(c *Config) { c.URL = plain.URL + "/judge?x=1" }, strings.TrimPrefix(plain.URL, "http://")},
		{"https", func(c *Config) { c.URL, c.CA = secure.URL+"/judge?x=1", "ca.pem" }, strings.TrimPrefix(secure.URL, "https://")},
		{"unix", func(c *Config) { c.URL, c.Socket = "http://judge/judge?x=1", socket }, "judge"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config("")
			tt.change(c)
			c.TokenFile = "token"
			r, err := check(t.Context(), t, made(t, c, files), hello)
			if err != nil {
				t.Fatal(err)
			}
			if f := reflect.ValueOf(r.Fact); f.Field(0).Float() != 1.5 || f.Field(1).String() != "a" || r.Missing != nil {
				t.Errorf("%+v", r)
			}
			want := `{"version":1,"step":"judge","id":"t1","received":"2026-03-01T12:00:00Z","door":"","client":null,"helo":"","from":"","rcpts":[],` +
				`"facts":{},"unknown":{},"hits":[],"message":{"size":25,"follows":25}}` + "\nSubject: hello\r\n\r\nhello\r\n"
			if string(body) != want {
				t.Errorf("%s\nwant %s", body, want)
			}
			if got.Method != "POST" || got.RequestURI != "/judge?x=1" || got.Host != tt.host || got.ContentLength != int64(len(want)) {
				t.Errorf("%s %s, host %s, %d octets", got.Method, got.RequestURI, got.Host, got.ContentLength)
			}
			for name, want := range map[string]string{
				"Authorization": "Bearer s3cret", "Content-Type": "application/vnd.sluice.question", "Idempotency-Key": "t1", "Accept": "application/json",
				"Accept-Encoding": "",
			} {
				if got.Header.Get(name) != want {
					t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
				}
			}
		})
	}
	t.Run("a certificate that nobody vouches for", func(t *testing.T) {
		_, err := check(t.Context(), t, made(t, config(secure.URL), nil), hello)
		var unknown *tls.CertificateVerificationError
		if !errors.As(err, &unknown) {
			t.Error(err)
		}
	})
	t.Run("a certificate of somebody else", func(t *testing.T) {
		c := config(strings.Replace(secure.URL, "127.0.0.1", "127.0.0.2", 1))
		c.CA = "ca.pem"
		s := made(t, c, files)
		s.client.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(secure.URL, "https://"))
		}
		_, err := check(t.Context(), t, s, hello)
		var unknown *tls.CertificateVerificationError
		if !errors.As(err, &unknown) {
			t.Error(err)
		}
	})
}

// What goes wrong is an error with its cause, in time, and leaves nothing behind.
func TestTrouble(t *testing.T) {
	text := hello + strings.Repeat(strings.Repeat("x", 70)+"\n", 1<<20/71)
	say := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	raw := func(text string, stay bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, text)
			if stay {
				_, _ = io.Copy(io.Discard, c) // until the other side goes
			}
		}
	}
	drip := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	}
	gone := make(chan struct{}, 1)
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    string // the error, or "" for an answer
	}{
		{"it answers", say(200, answer+"\r\n"), ""},
		{"it answers before it has read", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }, ""},
		{"it fails", say(500, "no model\nmore"), "it answers 500 Internal Server Error: no model"},
		{"it is busy", say(503, ""), "it answers 503 Service Unavailable: "},
		{"it wants a token", say(401, ""), "it answers 401 Unauthorized: "},
		{"an answer with another status", say(201, answer), "it answers 201 Created: "},
		{"no content", say(204, ""), "it answers 204 No Content: "},
		{"it sends us elsewhere", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				_, _ = io.WriteString(w, answer)
				return
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, "it answers 307 Temporary Redirect: "},
		{"nothing", say(200, ""), "the answer is empty"},
		{"garbage", say(200, "<html>"), "the answer is no JSON: "},
		{"of another type", say(200, `{"fact":{"score":"high"}}`), `fact.score is the string "high", not a number`},
		{"it cannot say", say(200, `{"error":"no model"}`), "it says: no model"},
		{"no HTTP", raw("220 mx.example.org ESMTP\r\n", false), "malformed HTTP"},
		{"hung up", raw("", false), "EOF"},
		{"hung up in its header", raw("HTTP/1.1 200 OK\r\nContent-", false), "malformed MIME header"},
		{"hung up in its answer", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"+answer, false), "read the answer: unexpected EOF"},
		{"a header without an end", raw("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 64<<10), true), "server response headers exceeded"},
		{"an answer without an end", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 1<<16))
			}
		}, "the answer is longer than 16384 octets"},
		{"it hangs", raw("", true), "deadline"},
		{"it hangs while we write", func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			defer c.Close()
			<-gone // reading would show it, too; that is what it does not do
		}, "deadline"},
		{"it hangs in its answer", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"+answer, true), "deadline"},
		{"it drips", drip, "deadline"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			goroutines := runtime.NumGoroutine()
			server := httptest.NewUnstartedServer(tt.handler)
			server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			server.Start()
			s := made(t, config(server.URL+"/judge"), nil)
			within := time.Minute
			if tt.want == "deadline" {
				within = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			r, err := check(ctx, t, s, text)
			prefix := "ask the service at " + strings.TrimPrefix(server.URL, "http://") + ": "
			switch {
			case tt.want == "" && (err != nil || r.Fact == nil):
				t.Errorf("%+v, %v", r, err)
			case tt.want == "deadline" && !errors.Is(err, context.DeadlineExceeded):
				t.Errorf("%+v, %v", r, err)
			case tt.want != "" && tt.want != "deadline" && (err == nil || !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%+v, %v\nwant %s", r, err, tt.want)
			}
			cancel()
			if tt.name == "it hangs while we write" {
				gone <- struct{}{}
			}
			s.client.CloseIdleConnections()
			server.CloseClientConnections()
			server.Close()
			settled(t, goroutines)
		})
	}
}

func settled(t testing.TB, goroutines int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, there were %d\n%s", runtime.NumGoroutine(), goroutines, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// A service that is dead is not asked for a while, and the error says so; one that mails upset is.
func TestBreaker(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	s := made(t, config(server.URL), nil)
	for range 10 {
		if _, err := check(t.Context(), t, s, hello); err == nil || !strings.Contains(err.Error(), "500") {
			t.Fatal(err)
		}
	}
	server.Close()
	var err error
	for range 6 {
		_, err = check(t.Context(), t, s, hello)
	}
	want := "ask the service at " + strings.TrimPrefix(server.URL, "http://") + ": not asked until "
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// A service that is started again between two mails is none the wiser, and no mail pays for it.
func TestRestart(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, answer)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	s := made(t, config("http://"+address), nil)
	for range 3 {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(l) }() // ends with Close
		for range 3 {
			if r, err := check(t.Context(), t, s, hello); err != nil {
				t.Errorf("%+v, %v", r, err)
			}
		}
		_ = server.Close()
		if l, err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
	}
	_ = l.Close()
}

func TestAtOnce(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	two := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if now++; now == 2 && most < 2 {
			close(two)
		}
		most = max(most, now)
		mu.Unlock()
		select {
		case <-two:
		case <-r.Context().Done():
		}
		mu.Lock()
		now--
		mu.Unlock()
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	c := config(server.URL)
	c.AtOnce = 2
	s := made(t, c, nil)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := check(t.Context(), t, s, hello); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most != 2 {
		t.Errorf("%d at once", most)
	}
}

func TestTooLarge(t *testing.T) {
	c := config("http://127.0.0.1:1/")
	c.MaxSize = 10
	r, err := check(t.Context(), t, made(t, c, nil), hello)
	if err != nil || r.Missing["score"] == nil || !strings.Contains(r.Missing["score"].Error(), "too large to ask about") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestConfig(t *testing.T) {
	files := pipelinetest.Files{"empty": "\n", "pem": "hello", "spaces": "a b\n"}
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.URL = "" }, "url: is missing; write for example http://127.0.0.1:8080/judge"},
		{func(c *Config) { c.URL = "127.0.0.1:8080" }, "url: "},
		{func(c *Config) { c.URL = "ftp://a/" }, `url: "ftp://a/" begins neither with http:// nor with https://`},
		{func(c *Config) { c.URL = "http:///a" }, `url: "http:///a" names no host`},
		{func(c *Config) { c.URL = "http://a:b@c/" }, "url: has a password in it, which would stand in every plan; use token_file"},
		{func(c *Config) { c.CA = "none" }, "ca: "},
		{func(c *Config) { c.CA = "pem" }, "ca: pem has no certificate in PEM"},
		{func(c *Config) { c.TokenFile = "none" }, "token_file: "},
		{func(c *Config) { c.TokenFile = "empty" }, "token_file: empty is empty"},
		{func(c *Config) { c.TokenFile = "spaces" }, "token_file: spaces: its first line is no token"},
		{func(c *Config) { c.Connect = 0 }, "connect: 0s is too little"},
		{func(c *Config) { c.Facts, c.Socket = nil, "/s" }, "facts: there is none; "},
	} {
		c := config("http://127.0.0.1:1/")
		tt.change(c)
		env := pipelinetest.Env(t)
		env.Files, env.Secret = files.Open, files.Secret
		if _, err := newStage(*c, env); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
	// The plan's text is kept in the journal: a hash of the token there could be guessed.
	files = pipelinetest.Files{"token": "s3cret\n"}
	env := pipelinetest.Env(t)
	env.Files, env.Secret = files.Open, files.Secret
	c := config("http://127.0.0.1:1/")
	c.TokenFile = "token"
	p, err := pipeline.NewPlan([]pipeline.Step{{Kind: Kind(), Config: c}}, env, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if text := p.Text(); !strings.Contains(text, `"TokenFile":"token"`) || strings.Contains(text, "sha256") || strings.Contains(text, "s3cret") {
		t.Errorf("%s", text)
	}
	for url, want := range map[string]string{
		"http://judge.example/": "judge.example:80", "https://judge.example": "judge.example:443", "http://[::1]/": "[::1]:80", "https://[::1]:8443/x": "[::1]:8443",
	} {
		if got, err := config(url).address(); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", url, got, err, want)
		}
	}
}

func BenchmarkAsk(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, answer)
	}))
	defer server.Close()
	s := made(b, config(server.URL), nil)
	v := pipeline.View{Message: pipelinetest.Parse(b, hello+strings.Repeat("x", 20<<10))}
	for b.Loop() {
		if _, err := s.Check(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
}

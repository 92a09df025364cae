// Package pipelinetest has what tests of stages need: a working world in memory, a way to ask one stage, and Conform,
// which every kind of stage passes.
package pipelinetest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/pipeline"
)

// Epoch is what the clock of Env says at first.
var Epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Env returns a world for one test: a clock that stands at Epoch, ids t1, t2 …, a resolver that knows no name, no
// network, an empty state, no files.
func Env(t testing.TB) pipeline.Env {
	var mu sync.Mutex
	n := 0
	return pipeline.Env{
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Now: func() time.Time { return Epoch },
		NewID: func() string {
			mu.Lock()
			defer mu.Unlock()
			n++
			return "t" + strconv.Itoa(n)
		},
		Hostname: "mx.example.org",
		Resolver: &Resolver{},
		Dial: func(_ context.Context, network, address string) (net.Conn, error) {
			return nil, fmt.Errorf("dial %s %s: no network in this test", network, address)
		},
		State: &State{Now: func() time.Time { return Epoch }},
		Files: Files{}.Open, Secret: Files{}.Secret,
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	// A goroutine that outlives its test must not make it panic.
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

// Files are the files a configuration names, by path.
type Files map[string]string

// Open is an Env's Files.
func (f Files) Open(pattern string) ([]pipeline.File, error) {
	var out []pipeline.File
	for name, text := range f {
		ok, err := path.Match(pattern, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pattern, err)
		}
		if ok {
			out = append(out, pipeline.File{Path: name, Text: []byte(text)})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no such file", pattern)
	}
	slices.SortFunc(out, func(a, b pipeline.File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Secret is an Env's Secret.
func (f Files) Secret(name string) (string, error) {
	text, ok := f[name]
	if !ok {
		return "", fmt.Errorf("%s: no such file", name)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	return text, nil
}

// A Resolver answers from memory. Names are without a trailing dot; a name that is nowhere does not exist.
type Resolver struct {
	Addr map[string][]netip.Addr
	TXT  map[string][]string
	PTR  map[netip.Addr][]string
	MX   map[string][]*net.MX
	// Fail makes look-ups of a name fail: "timeout" or any other text for a server failure.
	Fail map[string]string

	mu    sync.Mutex
	asked []string
}

// Asked returns the names that were looked up, in the order of the questions.
func (r *Resolver) Asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

func look[T any](r *Resolver, table map[string][]T, name string) ([]T, error) {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	r.mu.Lock()
	r.asked = append(r.asked, name)
	r.mu.Unlock()
	if why, ok := r.Fail[name]; ok {
		return nil, &net.DNSError{Err: why, Name: name, IsTimeout: why == "timeout", IsTemporary: true}
	}
	if x := table[name]; len(x) > 0 {
		return x, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// LookupAddr answers from Addr.
func (r *Resolver) LookupAddr(_ context.Context, name string) ([]netip.Addr, error) {
	return look(r, r.Addr, name)
}

// LookupA answers with the IPv4 ones in Addr.
func (r *Resolver) LookupA(_ context.Context, name string) ([]netip.Addr, error) {
	return r.family(name, netip.Addr.Is4)
}

// LookupAAAA answers with the IPv6 ones in Addr.
func (r *Resolver) LookupAAAA(_ context.Context, name string) ([]netip.Addr, error) {
	return r.family(name, netip.Addr.Is6)
}

func (r *Resolver) family(name string, is func(netip.Addr) bool) ([]netip.Addr, error) {
	all, err := look(r, r.Addr, name)
	if err != nil {
		return nil, err
	}
	of := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return !is(a) })
	if len(of) == 0 {
		return nil, &net.DNSError{Err: "no such record", Name: name, IsNotFound: true}
	}
	return of, nil
}

// LookupTXT answers from TXT.
func (r *Resolver) LookupTXT(_ context.Context, name string) ([]string, error) {
	return look(r, r.TXT, name)
}

// LookupMX answers from MX.
func (r *Resolver) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	return look(r, r.MX, name)
}

// LookupPTR answers from PTR.
func (r *Resolver) LookupPTR(_ context.Context, a netip.Addr) ([]string, error) {
	return look(r, map[string][]string{a.String(): r.PTR[a]}, a.String())
}

// State keeps values in memory until they expire by Now.
type State struct {
	Now func() time.Time

	mu     sync.Mutex
	values map[string]value
}

type value struct {
	bytes []byte
	count int64
	until time.Time
}

// Load returns a value that Store has set.
func (s *State) Load(_ context.Context, key string) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.live(key)
	return slices.Clone(v.bytes), ok, nil
}

func (s *State) live(key string) (value, bool) {
	v, ok := s.values[key]
	return v, ok && s.Now().Before(v.until)
}

// Store sets a value.
func (s *State) Store(_ context.Context, key string, b []byte, keep time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(key, value{bytes: slices.Clone(b), until: s.Now().Add(keep)})
	return nil
}

func (s *State) set(key string, v value) {
	if s.values == nil {
		s.values = map[string]value{}
	}
	s.values[key] = v
}

// Add adds to a counter.
func (s *State) Add(_ context.Context, key string, n int64, keep time.Duration) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.live(key)
	if !ok {
		v = value{until: s.Now().Add(keep)}
	}
	v.count += n
	s.set(key, v)
	return v.count, nil
}

// A Journal keeps records in memory.
type Journal struct {
	Err error // if set, Record fails with it

	mu      sync.Mutex
	records []*pipeline.Record
	durable []bool
}

// Record keeps r.
func (j *Journal) Record(_ context.Context, r *pipeline.Record, durable bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.Err != nil {
		return j.Err
	}
	j.records, j.durable = append(j.records, r), append(j.durable, durable)
	return nil
}

// Records returns what was kept, oldest first.
func (j *Journal) Records() []*pipeline.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.records)
}

// Last returns the newest record and whether it was to be durable.
func (j *Journal) Last() (*pipeline.Record, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.records) == 0 {
		return nil, false
	}
	return j.records[len(j.records)-1], j.durable[len(j.durable)-1]
}

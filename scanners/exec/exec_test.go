package exec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
)

const answer = `echo '{"fact":{"score":1.5,"word":"a"}}'`

// config runs a shell script.
func config(script string, args ...string) *Config {
	c := Kind().Config().(*Config)
	c.Command = append([]string{"/bin/sh", "-c", script, "judge"}, args...)
	c.Facts = map[string]any{"score": "number", "word": "string"}
	return c
}

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), func(c any) { *c.(*Config) = *config("cat >/dev/null; " + answer) })
}

func check(ctx context.Context, t testing.TB, c *Config, text string) (pipeline.Result, error) {
	t.Helper()
	env := pipelinetest.Env(t)
	env.Name = "judge"
	s, err := newStage(*c, env)
	if err != nil {
		t.Fatal(err)
	}
	var v pipeline.View
	v.ID, v.Received, v.Message = "t1", pipelinetest.Epoch, pipelinetest.Parse(t, text)
	return s.Check(ctx, v)
}

const hello = "Subject: hello\n\nhello\n"

// What the program gets and what becomes of what it says.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	c := config(`cat >"$1/got"; env >"$1/env"; pwd >"$1/pwd"; echo "$2" >"$1/args"; `+answer, dir, "a b $HOME")
	c.Env, c.Dir = map[string]string{"MODEL": "x y"}, dir
	t.Setenv("SLUICE_SECRET", "not for others")
	r, err := check(t.Context(), t, c, hello)
	if err != nil {
		t.Fatal(err)
	}
	fact := reflect.ValueOf(r.Fact)
	if fact.Field(0).Float() != 1.5 || fact.Field(1).String() != "a" || r.Missing != nil {
		t.Errorf("%+v, %v", r.Fact, r.Missing)
	}
	for name, want := range map[string]string{
		"got": `{"version":1,"step":"judge","id":"t1","received":"2026-03-01T12:00:00Z","door":"","client":null,"helo":"","from":"","rcpts":[],` +
			`"facts":{},"unknown":{},"hits":[],"message":{"size":25,"follows":25}}` + "\nSubject: hello\r\n\r\nhello\r\n",
		"pwd":  dir + "\n",
		"args": "a b $HOME\n",
	} {
		if got := read(t, filepath.Join(dir, name)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for line := range strings.Lines(read(t, filepath.Join(dir, "env"))) {
		name, _, _ := strings.Cut(line, "=")
		switch name {
		case "PATH", "LANG", "MODEL", "PWD", "SHLVL", "_", "OLDPWD": // the last ones are the shell's
		default:
			t.Errorf("its environment has %s", line)
		}
	}
}

func read(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What goes wrong is an error with its cause, in time, and leaves nothing behind.
func TestTrouble(t *testing.T) {
	dir := t.TempDir()
	text := hello + strings.Repeat(strings.Repeat("x", 70)+"\n", 1<<20/71)
	closed := filepath.Join(dir, "closed")
	if err := os.WriteFile(closed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		config *Config
		want   string // the error, or "" for an answer
	}{
		{"it does not read", config(answer), ""},
		{"it closes its input", config("exec <&-; " + answer), ""},
		{"it says much to its error output", config("yes | head -c 1000000 >&2; " + answer), ""},
		{"it leaves something running", config("sleep 1000 & " + answer), ""},
		{"it leaves something running elsewhere", config("sleep 1000 >/dev/null 2>&1 & " + answer), ""},
		{"it ends with an error", config("echo 'no model' >&2; echo 'more' >&2; exit 3"), "exit status 3: no model"},
		{"an error in spite of an answer", config(answer + "; exit 75"), "exit status 75"},
		{"it is killed", config("kill -9 $$"), "signal: killed"},
		{"it says nothing", config("true"), "the answer is empty"},
		{"garbage", config("echo hello"), "the answer is no JSON: "},
		{"half an answer", config(`printf '{"fact":{"score":'`), "the answer is no JSON: unexpected EOF"},
		{"of another type", config(`echo '{"fact":{"score":"high","word":"a"}}'`), `fact.score is the string "high", not a number`},
		{"it cannot say", config(`echo '{"error":"no model"}'`), "it says: no model"},
		{"it does not end", config("sleep 1000"), "deadline"},
		{"its child does not end", config("sleep 1000 & sleep 1000 & wait"), "deadline"},
		{"it does not end when asked", config("trap '' TERM INT HUP; while :; do sleep 1; done"), "deadline"},
		{"it drips", config("while :; do echo; sleep 0.01; done"), "deadline"},
		{"it reads and says nothing", config("while read -r x; do sleep 1; done"), "deadline"},
		{"its answer does not end", config("yes"), "the answer is longer than 16384 octets"},
		{"its answer does not end, in spite of a signal", config("trap '' PIPE; yes 2>/dev/null; sleep 1000"), "the answer is longer than 16384 octets"},
		{"it leaves something that holds its output", config(`setsid sh -c 'touch "$0"; sleep 10' "$1/away" & while ! test -e "$1/away"; do sleep 0.01; done; `+answer, dir), "left a program behind"},
		{"it is not there", func() *Config { c := config(""); c.Command = []string{filepath.Join(dir, "none")}; return c }(), "no such file or directory"},
		{"it cannot be run", func() *Config { c := config(""); c.Command = []string{closed}; return c }(), "permission denied"},
		{"its folder is not there", func() *Config { c := config(answer); c.Dir = filepath.Join(dir, "none"); return c }(), "no such file or directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			goroutines, fds := runtime.NumGoroutine(), descriptors(t)
			pids := filepath.Join(t.TempDir(), "pid")
			if tt.config.Command[0] == "/bin/sh" {
				tt.config.Command[2] = "echo $$ >'" + pids + "'; " + tt.config.Command[2]
			}
			within := time.Minute
			if tt.want == "deadline" {
				within = 500 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			began := time.Now()
			r, err := check(ctx, t, tt.config, text)
			took := time.Since(began)
			switch {
			case tt.want == "" && (err != nil || r.Fact == nil):
				t.Errorf("%+v, %v", r, err)
			case tt.want == "deadline" && (!errors.Is(err, context.DeadlineExceeded) || took > 20*time.Second):
				t.Errorf("%+v, %v after %s", r, err, took)
			case tt.want != "" && tt.want != "deadline" && (err == nil || !strings.HasPrefix(err.Error(), "run "+tt.config.Command[0]+": ") || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%+v, %v\nwant %s", r, err, tt.want)
			}
			if pid, e := os.ReadFile(pids); e == nil && strings.HasSuffix(string(pid), "\n") { // else it was ended before it had begun
				gone(t, strings.TrimSpace(string(pid)))
			}
			cancel()
			settled(t, goroutines, fds)
		})
	}
}

// gone waits until nothing of a process group is left: who was killed is for init to bury.
func gone(t testing.TB, pid string) {
	t.Helper()
	group, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		members := running(t, group)
		if len(members) > 0 {
			return errors.New("still there: " + strings.Join(members, ", "))
		}
		return nil
	})
}

// running lists what runs in a process group.
func running(t testing.TB, group int) (names []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): pid (name) state ppid pgrp …
		name, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 2 && f[0] != "Z" && f[2] == strconv.Itoa(group) {
			names = append(names, name+")")
		}
	}
	return names
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func settled(t testing.TB, goroutines, fds int) {
	t.Helper()
	eventually(t, func() error {
		if g, f := runtime.NumGoroutine(), descriptors(t); g > goroutines || f > fds {
			return errors.New(strconv.Itoa(g-goroutines) + " goroutines and " + strconv.Itoa(f-fds) + " descriptors more than before")
		}
		return nil
	})
}

func eventually(t testing.TB, ok func() error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// So many at once and no more; whoever waits heeds its deadline.
func TestAtOnce(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	c := config(`echo + >>"$1"; sleep 0.05; echo - >>"$1"; `+answer, log)
	c.AtOnce = 2
	s, err := newStage(*c, pipelinetest.Env(t))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := s.Check(t.Context(), pipeline.View{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	now, most := 0, 0
	for _, x := range strings.Fields(read(t, log)) {
		if x == "+" {
			now++
		} else {
			now--
		}
		most = max(most, now)
	}
	if most > 2 || now != 0 {
		t.Errorf("%d at once", most)
	}
	s.slots <- struct{}{}
	s.slots <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Check(ctx, pipeline.View{}); err == nil || !strings.Contains(err.Error(), "2 of it are running") {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	c := config("head -c 100 /dev/zero | tr '\\0' ' '; " + answer)
	c.MaxAnswer = 100 + int64(len(`{"fact":{"score":1.5,"word":"a"}}`)) + 1
	if _, err := check(t.Context(), t, c, hello); err != nil {
		t.Errorf("as long as may be: %v", err)
	}
	c.MaxAnswer--
	if _, err := check(t.Context(), t, c, hello); err == nil || !strings.Contains(err.Error(), "the answer is longer than") {
		t.Errorf("longer: %v", err)
	}
	c = config("touch /nobody/runs/this")
	c.MaxSize = 10
	r, err := check(t.Context(), t, c, hello)
	if err != nil || r.Missing["score"] == nil || !strings.Contains(r.Missing["score"].Error(), "too large to ask about: 25 octets, of at most 10") {
		t.Errorf("%+v, %v", r, err)
	}
}

// A mail that cannot be read to its end is not one that ends there.
func TestUnreadable(t *testing.T) {
	text := "Subject: x\r\n\r\n" + strings.Repeat("x", 100<<10)
	m, err := mime.Parse(&broken{strings.NewReader(text)}, int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStage(*config("cat >/dev/null; " + answer), pipelinetest.Env(t))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Check(t.Context(), pipeline.View{Message: m}); err == nil || !strings.Contains(err.Error(), "read the mail: disk on fire") {
		t.Errorf("%+v, %v", r, err)
	}
}

type broken struct{ r *strings.Reader }

func (b *broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > 50<<10 {
		return 0, errors.New("disk on fire")
	}
	return b.r.ReadAt(p, off)
}

func TestOffline(t *testing.T) {
	made := filepath.Join(t.TempDir(), "made")
	env := pipelinetest.Env(t)
	env.Offline = true
	s, err := newStage(*config(`touch "$1"; `+answer, made), env)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Check(t.Context(), pipeline.View{}); err == nil {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(made); err == nil {
		t.Error("it was run")
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Command = nil }, "command: there is none; write for example [/usr/local/bin/judge]"},
		{func(c *Config) { c.Command = []string{"judge"} }, `command: "judge" is no whole path: it is looked for nowhere`},
		{func(c *Config) { c.Command = []string{"/bin/sh", "a\x00"} }, "command: has a NUL in it"},
		{func(c *Config) { c.Dir = "here" }, `dir: "here" is no whole path`},
		{func(c *Config) { c.Env = map[string]string{"A=B": ""} }, `env: "A=B" cannot be a variable`},
		{func(c *Config) { c.Facts = nil; c.AtOnce = 0 }, "facts: there is none; "},
	} {
		c := config("")
		tt.change(c)
		if _, err := newStage(*c, pipelinetest.Env(t)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
}

// The group goes with the program, and nobody else does.
func TestSignalsOnlyTheGroup(t *testing.T) {
	r, err := check(t.Context(), t, config(`test "$(ps -o pgid= -p $$ | tr -d ' ')" = $$ && `+answer), hello)
	if err != nil || r.Fact == nil {
		t.Errorf("it does not lead a group of its own: %v", err)
	}
}

func BenchmarkRun(b *testing.B) {
	c := config("")
	c.Command = []string{"/bin/echo", `{"fact":{"score":1.5,"word":"a"}}`}
	s, err := newStage(*c, pipelinetest.Env(b))
	if err != nil {
		b.Fatal(err)
	}
	v := pipeline.View{Message: pipelinetest.Parse(b, hello+strings.Repeat("x", 20<<10))}
	for b.Loop() {
		if _, err := s.Check(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
}

package pipelinetest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

// Conform tests what every kind of stage promises: its defaults work and are fresh each time, what it declares does not
// change, it survives hostile mail in bounded time, it says only what it declared, its facts go through JSON unharmed,
// and it gives up when told to. configure, if not nil, completes the default configuration where that does not suffice;
// before are the steps that a stage of this kind wants before it.
func Conform(t *testing.T, k pipeline.Kind, configure func(config any), before ...pipeline.Step) {
	t.Helper()
	config := func() any {
		c := k.Config()
		if configure != nil {
			configure(c)
		}
		return c
	}
	stages := func(t *testing.T, env pipeline.Env) []pipeline.Stage {
		t.Helper()
		env.Name = k.Name
		self := pipeline.Before{Name: k.Name, Kind: k.Name}
		if k.Fact != nil {
			self.Fact = k.Fact(config())
		}
		env.Before = nil
		for _, b := range before {
			x := pipeline.Before{Name: cmp.Or(b.Name, b.Kind.Name), Kind: b.Kind.Name}
			if b.Kind.Fact != nil {
				x.Fact = b.Kind.Fact(b.Config)
			}
			env.Before = append(env.Before, x)
		}
		env.Before = append(env.Before, self)
		s, err := k.New(config(), env)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("kind", func(t *testing.T) {
		if k.Name == "" || k.Doc == "" || k.New == nil || k.Config == nil {
			t.Fatalf("a kind has a name, a sentence of documentation, Config and New: %+v", k)
		}
		a, b := k.Config(), k.Config()
		if v := reflect.ValueOf(a); v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
			t.Fatalf("Config returns a pointer to a struct, not %T", a)
		}
		if reflect.TypeOf(a).Elem().Size() > 0 && a == b {
			t.Error("Config returns the same struct twice: one step's settings would become another's")
		}
		if !reflect.DeepEqual(a, b) {
			t.Error("Config returns other defaults the second time")
		}
		if k.Fact != nil {
			if f := k.Fact(config()); f != nil {
				if _, err := pipeline.FactType(f); err != nil {
					t.Error(err)
				}
			}
		}
	})
	t.Run("reads", func(t *testing.T) {
		for _, s := range stages(t, Env(t)) {
			if a, b := s.Reads(), s.Reads(); !reflect.DeepEqual(a, b) {
				t.Errorf("Reads changes: %+v, then %+v", a, b)
			}
		}
	})
	t.Run("hostile mail", func(t *testing.T) {
		for name, text := range hostile() {
			for i, s := range stages(t, Env(t)) {
				began := time.Now()
				v := view(t, text)
				v.Phase = s.Reads().Input.Phase()
				if v.Phase < pipeline.Content {
					v.Message = nil
				}
				r, err := s.Check(t.Context(), v)
				// Far above what any machine needs: only something that is not linear gets there.
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("%s: stage %d took %s", name, i, took)
				}
				if err == nil {
					said(t, fmt.Sprintf("%s: stage %d", name, i), k, config(), s.Reads(), r)
				}
			}
		}
	})
	t.Run("gives up", func(t *testing.T) {
		for i, s := range stages(t, Env(t)) {
			if !s.Reads().Waits {
				continue
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			ended := make(chan struct{})
			go func() { defer close(ended); _, _ = s.Check(ctx, view(t, plain)) }()
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Errorf("stage %d does not heed its context", i)
			}
		}
	})
	t.Run("in a plan", func(t *testing.T) {
		env, journal := Env(t), &Journal{}
		env.Journal = journal
		p, err := pipeline.NewPlan(append(slices.Clone(before), pipeline.Step{Kind: k, Config: config()}), env, pipeline.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ran := Run(t, p, pipeline.SMTP, journal, Mail{From: "a@example.com", Text: plain})
		if ran.Record == nil {
			t.Fatal("no record")
		}
		if _, err := json.Marshal(ran.Record); err != nil {
			t.Error(err)
		}
	})
}

// said checks one result against what was declared.
func said(t *testing.T, where string, k pipeline.Kind, config any, reads pipeline.Reads, r pipeline.Result) {
	t.Helper()
	if v := r.Verdict; v.Action != pipeline.Pass {
		declared := false
		for _, f := range reads.Can {
			declared = declared || f == pipeline.Final{At: v.At, Action: v.Action}
		}
		if !declared {
			t.Errorf("%s: says %s at %d, which Reads.Can does not declare", where, v.Action, v.At)
		}
	}
	if r.Fact == nil {
		return
	}
	if k.Fact == nil {
		t.Errorf("%s: gives a fact, but the kind declares none", where)
		return
	}
	typ, err := pipeline.FactType(k.Fact(config))
	if err != nil {
		t.Fatal(err)
	}
	v := pipeline.FactValue(typ, r.Fact)
	raw, err := json.Marshal(r.Fact)
	if err != nil {
		t.Errorf("%s: its fact cannot be written down: %v", where, err)
		return
	}
	back := reflect.New(typ)
	if err := json.Unmarshal(raw, back.Interface()); err != nil {
		t.Errorf("%s: its fact cannot be read back: %v", where, err)
		return
	}
	again, err := json.Marshal(back.Elem().Interface())
	if err != nil {
		t.Fatal(err)
	}
	once, err := json.Marshal(v.Interface())
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(once) {
		t.Errorf("%s: its fact changes in JSON: %s, then %s", where, once, again)
	}
}

const plain = "From: A <a@example.com>\nTo: me@example.org\nSubject: hello\nDate: Sun, 1 Mar 2026 12:00:00 +0000\n" +
	"Message-ID: <1@example.com>\n\nhello\n"

func hostile() map[string]string {
	deep := strings.Builder{}
	for i := range 2000 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	return map[string]string{
		"plain":          plain,
		"empty":          "",
		"no body":        "Subject: x\n",
		"no header":      "\nhello\n",
		"NUL and 8 bit":  "Subject: \x00\xff\xfe\nFrom: \x80 <\xff@\xfe>\n\n\x00\xff\n",
		"no boundary":    "Content-Type: multipart/mixed\n\n--\n",
		"deep":           deep.String(),
		"many fields":    strings.Repeat("X: y\n", 900) + "\nx\n",
		"long subject":   "Subject: " + strings.Repeat("a", 200<<10) + "\n\nx\n",
		"long line":      "Subject: x\n\n" + strings.Repeat("a", 1<<20) + "\n",
		"many addresses": "From: " + strings.Repeat("a@example.com, ", 5000) + "b@example.com\n\nx\n",
		"html":           "Content-Type: text/html\n\n" + strings.Repeat("<div><a href='http://x.example/'>", 20000),
		"encoded words":  "Subject: " + strings.Repeat("=?utf-8?B?YQ==?= ", 5000) + "\n\nx\n",
	}
}

func view(t testing.TB, text string) pipeline.View {
	r := pipeline.Recipient{Address: Address(t, "me@example.org"), Account: "me@example.org"}
	v := pipeline.View{Rcpt: r, Message: Parse(t, text), Facts: pipeline.Facts{}}
	v.ID, v.Received, v.Door = "t1", Epoch, pipeline.SMTP
	v.Client.Addr = netip.MustParseAddr("192.0.2.1")
	v.Greeting, v.Sender, v.Recipients = "client.example", Address(t, "a@example.com"), []pipeline.Recipient{r}
	return v
}

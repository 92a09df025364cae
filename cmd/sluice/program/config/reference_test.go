package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config/internal/fieldcomments"
	"sluice/pipeline"
)

// What is generated is what the source says.
func TestCommentsAreFresh(t *testing.T) {
	read, err := fieldcomments.Read(filepath.Join("..", "..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	want, err := fieldcomments.Source(read)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("comments.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("comments.go is stale; run: go generate ./cmd/sluice/program/config")
	}
}

func TestEverySettingIsDescribed(t *testing.T) {
	if paths := Undescribed(nil); len(paths) > 0 {
		t.Errorf("these settings have no comment: %s", strings.Join(paths, ", "))
	}
}

func TestUndescribed(t *testing.T) {
	type inner struct {
		Known string `yaml:"known"`
	}
	type settings struct {
		Bare  string           `yaml:"bare"`
		Lists map[string]inner `yaml:"lists"`
		Path  string           `yaml:"-"`
	}
	k := pipeline.Kind{Name: "own", Config: func() any { return &settings{} }}
	if got := strings.Join(Undescribed([]pipeline.Kind{k}), " "); got != "own.bare own.lists own.lists.known own" {
		t.Errorf("got %s", got)
	}
}

const someSteps = "  - spf: {}\n"

// The reference is a configuration that means what none means.
func TestReferenceIsTheDefault(t *testing.T) {
	text := Reference(kinds(), someSteps)
	got, err := Parse("reference.yaml", text, kinds())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	want, err := Parse("", "", kinds())
	if err != nil {
		t.Fatal(err)
	}
	want.Listen = DefaultListen()
	for i := range reflect.TypeFor[Config]().NumField() {
		f := reflect.TypeFor[Config]().Field(i)
		a, b := reflect.ValueOf(*got).Field(i), reflect.ValueOf(*want).Field(i)
		if f.IsExported() && f.Name != "Pipeline" && !reflect.DeepEqual(a.Interface(), b.Interface()) {
			t.Errorf("%s: got %+v, want %+v", f.Name, a, b)
		}
	}
	if len(got.Pipeline) != 1 || got.Pipeline[0].Kind.Name != "spf" {
		t.Errorf("pipeline: %+v", got.Pipeline)
	}
}

// Every key is there, with what the decoder takes behind each #.
func TestReferenceIsComplete(t *testing.T) {
	text := Reference(kinds(), someSteps)
	before, _, _ := strings.Cut(text, "\npipeline:\n")
	if _, err := Parse("reference.yaml", uncommented.ReplaceAllString(before, "$1$2"), kinds()); err != nil {
		t.Errorf("an example is wrong: %v", err)
	}
	for _, k := range kinds() {
		if _, err := Parse(k.Name+".yaml", ReferenceKind(k), kinds()); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		c, err := Parse(k.Name+".yaml", ExampleKind(k), kinds())
		if err != nil || len(c.Pipeline) != 1 {
			t.Errorf("the example of %s: %v\n%s", k.Name, err, ExampleKind(k))
		}
	}
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		collect(v, func(name, _ string, f reflect.Value) {
			if !strings.Contains(text, name+":") {
				t.Errorf("%s is missing", name)
			}
			if f.Kind() == reflect.Struct && takesKeys(f.Type()) {
				walk(f)
			}
		})
	}
	walk(reflectOf(Default()))
	for line := range strings.Lines(text) {
		if len([]rune(line)) > width+2 {
			t.Errorf("too long: %s", line)
		}
	}
}

// What people write is read again.
func TestFormats(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 5 * time.Minute: "5m", 90 * time.Minute: "1h30m", 2 * time.Hour: "2h",
		24 * time.Hour: "1d", 30 * 24 * time.Hour: "30d", 25 * time.Hour: "25h", 100 * time.Millisecond: "100ms",
		time.Hour + time.Second: "1h0m1s", 10*time.Minute + 10*time.Second: "10m10s",
	} {
		got := FormatDuration(d)
		if again, err := ParseDuration(got); got != want || err != nil || again != d {
			t.Errorf("%s: got %q, want %q; read as %s, %v", d, got, want, again, err)
		}
	}
	for n, want := range map[int64]string{0: "0", 1000: "1000", 1024: "1KiB", 50 << 20: "50MiB", 3 << 30: "3GiB", 1025: "1025"} {
		var again Size
		if got := FormatSize(n); got != want || again.UnmarshalText([]byte(got)) != nil || int64(again) != n {
			t.Errorf("%d: got %q, want %q; read as %d", n, got, want, again)
		}
	}
	for s, want := range map[string]string{"a.b": "a.b", "true": `"true"`, "": `""`, "a b": `"a b"`, "1": `"1"`, "x: y": `"x: y"`} {
		if got := yamlText(s); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func TestSizesOfNumbers(t *testing.T) {
	c, err := Parse("x.yaml", "limits: {smtp: {message_size: 10MiB, command_line: 4KiB}, imap: {login_octets: 64KB}}", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Limits.SMTP.MessageSize != 10<<20 || c.Limits.SMTP.CommandLine != 4096 || c.Limits.IMAP.LoginOctets != 64000 {
		t.Errorf("got %+v", c.Limits)
	}
	if _, err := Parse("x.yaml", "limits: {smtp: {command_line: 4KB or so}}", nil); err == nil {
		t.Error("4KB or so was taken")
	}
}

func TestSchema(t *testing.T) {
	text, err := json.Marshal(Schema(kinds()))
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Properties struct {
			Log struct {
				Properties map[string]struct {
					Enum        []string
					Default     any
					Description string
				}
			}
			Trusted struct{ Default []string }
			Limits  struct {
				Properties map[string]struct {
					Default any
					AnyOf   []any
				}
			}
			Pipeline struct {
				Items struct {
					Properties map[string]struct {
						Properties map[string]struct {
							Enum    []string
							Default any
						}
					}
				}
			}
		}
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	if x := s.Properties.Log.Properties["level"]; x.Default != "info" || !reflect.DeepEqual(x.Enum, levels()) || x.Description == "" {
		t.Errorf("log.level: %+v", x)
	}
	if x := s.Properties.Trusted.Default; !reflect.DeepEqual(x, []string{"127.0.0.0/8", "::1"}) {
		t.Errorf("trusted: %q", x)
	}
	if x := s.Properties.Limits.Properties["message_size"]; x.Default != "50MiB" || len(x.AnyOf) != 2 {
		t.Errorf("limits.message_size: %+v", x)
	}
	if x := s.Properties.Limits.Properties["recipients"]; x.Default != 100.0 {
		t.Errorf("limits.recipients: %+v", x)
	}
	step := s.Properties.Pipeline.Items.Properties[kinds()[0].Name].Properties
	if got := strings.Join(step["on_error"].Enum, " "); got != "skip postpone refuse" {
		t.Errorf("on_error: %q", got)
	}
	if got := strings.Join(step["at"].Enum, " "); got != "connect helo mail rcpt data content" {
		t.Errorf("at: %q", got)
	}
}

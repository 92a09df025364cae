package program

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"sluice/cmd/sluice/program/config"
)

const generate = "run: go generate ./cmd/sluice/program/config"

func TestEverySettingIsDescribed(t *testing.T) {
	if paths := config.Undescribed(Stages()); len(paths) > 0 {
		t.Errorf("these settings have no comment where they are declared: %s", strings.Join(paths, ", "))
	}
}

// output runs the program, or the main package of a folder, and returns what it prints.
func output(t *testing.T, folder string, args ...string) string {
	t.Helper()
	cmd := exec.Command("sluice", args...)
	if goFiles, _ := filepath.Glob(filepath.Join(folder, "*.go")); folder != "" && len(goFiles) > 0 {
		main, err := filepath.Abs(folder)
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command("go", append([]string{"run", main}, args...)...)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("%s: %v\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// The files that are printed by the program are those that it prints.
func TestReferenceIsFresh(t *testing.T) {
	for name, args := range map[string][]string{
		"reference.yaml":  {"reference"},
		config.SchemaName: {"reference", "--schema"},
	} {
		if read(t, root, filepath.Join("examples", name)) != output(t, "", args...) {
			t.Errorf("examples/%s is stale; %s", name, generate)
		}
	}
}

var (
	isConfiguration = regexp.MustCompile(`(?m)^(pipeline|listen):`)
	schemaLine      = regexp.MustCompile(`^# yaml-language-server: \$schema=(\S+)\n`)
)

// Every configuration among the examples is right, and names its schema, which is that of the program it is for.
func TestExamples(t *testing.T) {
	found := 0
	err := filepath.WalkDir(filepath.Join(root, "examples"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if ext := filepath.Ext(file); ext == ".yml" {
			t.Errorf("%s: configurations are called *.yaml", file)
		} else if ext != ".yaml" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil || !isConfiguration.Match(text) {
			return err // rules, which have a test of their own
		}
		found++
		folder := filepath.Dir(file)
		output(t, folder, "check", "-c", file)
		line := schemaLine.FindSubmatch(text)
		if line == nil {
			t.Errorf("%s does not begin with # yaml-language-server: $schema=PATH/%s", file, config.SchemaName)
			return nil
		}
		named, err := os.ReadFile(filepath.Join(folder, string(line[1])))
		if err != nil {
			t.Errorf("%s: its schema: %v", file, err)
			return nil
		}
		if string(named) != output(t, folder, "reference", "--schema") {
			t.Errorf("%s: the schema that it names is stale; %s; or where the folder has a main of its own, run that "+
				"with reference --schema >%s", file, generate, line[1])
		}
		for _, wrong := range invalid(t, named, text) {
			t.Errorf("%s: its schema objects: %s", file, wrong)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 5 {
		t.Errorf("only %d configurations were found", found)
	}
}

// The schema takes what the program takes, and finds what an editor should.
func TestSchema(t *testing.T) {
	schema, err := json.Marshal(config.Schema(Stages()))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text, want string
	}{
		{"pipeline: []", ""},
		{"tls:\npipeline:\n  - rules:\n", ""},
		{"trusted: [192.0.2.1, 192.0.2.0/24]\nspeak: earliest", ""},
		{"listen: {smtp: [\":25\"], milter: [{address: \"unix:x\", mode: 0660, group: postfix}]}", ""},
		{"limits: {message_size: 1000000, read_timeout: 1h30m, smtp: {command_line: 4KiB, message_size: 10 MiB}}", ""},
		{"pipeline: [{dnsbl: {lists: {zen: {zone: x.example, codes: [127.0.0.2], timeout: 1w}}, name: x, at: mail}}]", ""},
		{"aliases: {a@b.example: [c@b.example]}", ""},
		{"lisen: {}", "lisen"},
		{"speak: never", "speak"},
		{"trusted: 192.0.2.1", "trusted"},
		{"listen: {smtp: [{adress: \":25\"}]}", "listen.smtp[0]"},
		{"limits: {recipients: many}", "limits.recipients"},
		{"limits: {message_size: 10 bags}", "limits.message_size"},
		{"limits: {read_timeout: soon}", "limits.read_timeout"},
		{"pipeline: [{dnsbl: {}, rules: {}}]", "pipeline[0]"},
		{"pipeline: [{dnsbll: {}}]", "pipeline[0].dnsbll"},
		{"pipeline: [{rules: {on_error: pass}}]", "pipeline[0].rules.on_error"},
		{"pipeline: [{rules: {junk: many}}]", "pipeline[0].rules.junk"},
		{"outgoing: [{ratelimit: {of: out}}]", ""},
		{"outgoing: [{ratelimt: {}}]", "outgoing[0].ratelimt"},
		{"pipeline: [{dnsbl: {lists: {zen: {zones: x}}}}]", "pipeline[0].dnsbl.lists.zen.zones"},
	} {
		got := invalid(t, schema, []byte(tt.text))
		if tt.want == "" && len(got) > 0 || tt.want != "" && !slices.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

// invalid returns the places of a document that a schema objects to, of the parts of JSON Schema that ours uses.
func invalid(t failer, schema, document []byte) []string {
	var s map[string]any
	if err := json.Unmarshal(schema, &s); err != nil {
		t.Fatalf("%v", err)
	}
	var x any
	if err := yaml.Unmarshal(document, &x); err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	// The one reference in it: the steps for outgoing mail are like the others.
	if all, _ := s["properties"].(map[string]any); all["outgoing"] != nil {
		steps, _ := all["pipeline"].(map[string]any)
		items, _ := all["outgoing"].(map[string]any)["items"].(map[string]any)
		if items["$ref"] != "#/properties/pipeline/items" {
			t.Fatalf("the items of outgoing are %v", items)
		}
		all["outgoing"].(map[string]any)["items"] = steps["items"]
	}
	return validate(t, "", s, x)
}

// A failer is a test, or a script.
type failer interface {
	Fatalf(format string, args ...any)
}

func validate(t failer, path string, s map[string]any, x any) (wrong []string) {
	for keyword := range s {
		switch keyword {
		case "$schema", "title", "description", "default", "type", "enum", "pattern", "anyOf", "properties",
			"additionalProperties", "minProperties", "maxProperties", "items", "required", "minimum", "format", "contentEncoding":
		default:
			t.Fatalf("the schema uses %s, which this test does not know", keyword)
		}
	}
	object := func(v any) map[string]any { m, _ := v.(map[string]any); return m }
	bad := false
	switch want := s["type"].(type) {
	case string:
		bad = !hasType(x, want)
	case []any:
		bad = !slices.ContainsFunc(want, func(w any) bool { return hasType(x, w.(string)) })
	}
	if enum, ok := s["enum"].([]any); ok {
		bad = bad || !slices.Contains(enum, x)
	}
	if pattern, ok := s["pattern"].(string); ok {
		text, isText := x.(string)
		bad = bad || isText && !regexp.MustCompile(pattern).MatchString(text)
	}
	if either, ok := s["anyOf"].([]any); ok {
		bad = bad || !slices.ContainsFunc(either, func(one any) bool { return len(validate(t, path, object(one), x)) == 0 })
	}
	if least, ok := s["minimum"].(float64); ok {
		number, isNumber := x.(float64)
		bad = bad || isNumber && number < least
	}
	if s["format"] == "date-time" {
		_, err := time.Parse(time.RFC3339, fmt.Sprint(x))
		bad = bad || err != nil
	}
	if s["contentEncoding"] == "base64" {
		_, err := base64.StdEncoding.DecodeString(fmt.Sprint(x))
		bad = bad || err != nil
	}
	switch x := x.(type) {
	case map[string]any:
		names, _ := s["required"].([]any)
		for _, name := range names {
			if _, ok := x[name.(string)]; !ok {
				wrong = append(wrong, strings.TrimPrefix(path+"."+name.(string), "."))
			}
		}
		if least, ok := s["minProperties"].(float64); ok {
			bad = bad || float64(len(x)) < least
		}
		if most, ok := s["maxProperties"].(float64); ok {
			bad = bad || float64(len(x)) > most
		}
		for key, value := range x {
			sub := strings.TrimPrefix(path+"."+key, ".")
			if p := object(object(s["properties"])[key]); p != nil {
				wrong = append(wrong, validate(t, sub, p, value)...)
			} else if more, ok := s["additionalProperties"].(map[string]any); ok {
				wrong = append(wrong, validate(t, sub, more, value)...)
			} else if s["additionalProperties"] == false {
				wrong = append(wrong, sub)
			}
		}
	case []any:
		for i, value := range x {
			if items := object(s["items"]); items != nil {
				wrong = append(wrong, validate(t, fmt.Sprintf("%s[%d]", path, i), items, value)...)
			}
		}
	}
	if bad {
		wrong = append(wrong, path)
	}
	return wrong
}

func hasType(x any, want string) bool {
	switch x := x.(type) {
	case nil:
		return want == "null"
	case bool:
		return want == "boolean"
	case string:
		return want == "string"
	case map[string]any:
		return want == "object"
	case []any:
		return want == "array"
	case float64:
		return want == "number" || want == "integer" && x == math.Trunc(x)
	}
	return want == "integer" || want == "number"
}

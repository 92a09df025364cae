package program

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/pipeline"
)

// strictSchema is a schema without references, which objects to each field that it does not name.
func strictSchema(t failer, text []byte) map[string]any {
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("%v", err)
	}
	defs, _ := s["$defs"].(map[string]any)
	delete(s, "$defs")
	return strict(t, defs, s, 0).(map[string]any)
}

func strict(t failer, defs map[string]any, x any, depth int) any {
	if depth > 50 {
		t.Fatalf("the schema refers to itself")
	}
	m, ok := x.(map[string]any)
	if !ok {
		return x
	}
	if name, ok := m["$ref"].(string); ok {
		to, ok := defs[strings.TrimPrefix(name, "#/$defs/")].(map[string]any)
		if !ok {
			t.Fatalf("there is no %s", name)
		}
		return strict(t, defs, to, depth+1)
	}
	out := map[string]any{}
	for k, v := range m {
		out[k] = strict(t, defs, v, depth+1)
	}
	if _, ok := m["properties"].(map[string]any); ok && m["type"] == "object" {
		out["additionalProperties"] = false
	}
	return out
}

// explains FILE… checks what explain --json has printed by the schema that the program prints.
func explainsScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: explains FILE…")
	}
	ts.Check(ts.Exec("sluice", "reference", "--record-schema"))
	s := strictSchema(ts, []byte(ts.ReadFile("stdout")))
	for _, name := range args {
		var x any
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(name)), &x))
		if wrong := validate(ts, "", s, x); len(wrong) > 0 {
			ts.Fatalf("%s is not what the schema says: %s", name, strings.Join(wrong, ", "))
		}
	}
}

// setAll sets everything that is exported to something.
func setAll(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *json.RawMessage:
		*x = json.RawMessage(`{"listed":true}`)
		return
	case *time.Time:
		*x = time.Date(2026, 11, 20, 14, 5, 0, 0, time.UTC)
		return
	case *netip.Addr:
		*x = netip.MustParseAddr("192.0.2.1")
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		setAll(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				setAll(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		setAll(v.Index(0))
	case reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		setAll(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	default:
		if v.CanUint() {
			v.SetUint(1)
		} else {
			v.SetInt(1)
		}
	}
}

func asJSON(t *testing.T, x any) (decoded any) {
	t.Helper()
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

// The schema knows every field that a record can have, and whether it may be left out.
func TestRecordSchema(t *testing.T) {
	text, err := json.Marshal(recordSchema())
	if err != nil {
		t.Fatal(err)
	}
	s := strictSchema(t, text)
	full := explanations{}
	setAll(reflect.ValueOf(&full).Elem())
	full.Version = explainVersion
	least := explanations{Version: explainVersion, Records: []explanation{{Record: &pipeline.Record{}}}}
	for _, x := range []explanations{full, least} {
		if wrong := validate(t, "", s, asJSON(t, x)); len(wrong) > 0 {
			t.Errorf("objects to %q", wrong)
		}
	}
	type object = map[string]any
	for want, spoil := range map[string]func(all, x, record object){
		"version":                              func(all, _, _ object) { all["version"] = 2.0 },
		"records[0].record":                    func(_, x, _ object) { delete(x, "record") },
		"records[0].again.with":                func(_, x, _ object) { delete(x["again"].(object), "with") },
		"records[0].record.received":           func(_, _, r object) { r["received"] = "yesterday" },
		"records[0].record.size":               func(_, _, r object) { r["size"] = "1" },
		"records[0].record.colour":             func(_, _, r object) { r["colour"] = "red" },
		"records[0].record.timings[0].took":    func(_, _, r object) { r["timings"].([]any)[0].(object)["took"] = -1.0 },
		"records[0].record.timings[0].phase":   func(_, _, r object) { r["timings"].([]any)[0].(object)["phase"] = "later" },
		"records[0].record.recipients[0].held": func(_, _, r object) { r["recipients"].([]any)[0].(object)["held"] = nil },
	} {
		x := asJSON(t, full)
		one := x.(object)["records"].([]any)[0].(object)
		spoil(x.(object), one, one["record"].(object))
		if wrong := validate(t, "", s, x); !slices.Equal(wrong, []string{want}) {
			t.Errorf("objects to %q, want %q", wrong, want)
		}
	}
}

// What was written once in this version stays as it was: fields may come, none may go or become another. Who must change
// that raises explainVersion, and begins another file: UPDATE_SCRIPTS=1 writes it.
func TestVersionOfExplainIsKept(t *testing.T) {
	const name = "testdata/explain_v1.json"
	if explainVersion != 1 {
		t.Fatalf("version %d needs a file of its own beside %s", explainVersion, name)
	}
	if _, err := os.Stat(name); os.IsNotExist(err) && os.Getenv("UPDATE_SCRIPTS") != "" {
		full := explanations{}
		setAll(reflect.ValueOf(&full).Elem())
		full.Version = explainVersion
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		if err := e.Encode(full); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.FromSlash(name), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(written))
	d.DisallowUnknownFields()
	var x explanations
	if err := d.Decode(&x); err != nil {
		t.Fatalf("what was written is not understood any more: %v", err)
	}
	var was any
	if err := json.Unmarshal(written, &was); err != nil {
		t.Fatal(err)
	}
	lost(t, "", was, asJSON(t, x))
}

// lost complains of what is in was and not, or otherwise, in is.
func lost(t *testing.T, path string, was, is any) {
	t.Helper()
	switch was := was.(type) {
	case map[string]any:
		other, _ := is.(map[string]any)
		for k, v := range was {
			lost(t, path+"."+k, v, other[k])
		}
	case []any:
		other, _ := is.([]any)
		for i, v := range was {
			if i < len(other) {
				lost(t, path, v, other[i])
			} else {
				t.Errorf("%s is shorter", path)
			}
		}
	default:
		if was != is {
			t.Errorf("%s was %v and is %v", path, was, is)
		}
	}
}

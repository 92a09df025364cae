package ask

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"

	"sluice/pipeline"
)

// MaxAnswer is how many octets an answer may have.
func (a *Asker) MaxAnswer() int64 { return a.config.MaxAnswer }

// Answer reads an answer. Its error says what does not fit, and where.
func (a *Asker) Answer(text []byte) (pipeline.Result, error) {
	if int64(len(text)) > a.config.MaxAnswer {
		return pipeline.Result{}, fmt.Errorf("the answer is longer than %d octets", a.config.MaxAnswer)
	}
	object, err := decode(text)
	if err != nil {
		return pipeline.Result{}, err
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		switch key {
		case "version", "fact", "unknown", "error":
		default:
			return pipeline.Result{}, fmt.Errorf("the answer has a field %q; it may have version, fact, unknown and error", clip(key))
		}
	}
	if v, ok := object["version"]; ok && v != json.Number("1") {
		return pipeline.Result{}, fmt.Errorf("the answer is of version %s, not %d", describe(v), Version)
	}
	if why, ok := object["error"]; ok && why != nil {
		text, ok := why.(string)
		switch {
		case !ok:
			return pipeline.Result{}, fmt.Errorf("error is %s, not a string", describe(why))
		case object["fact"] != nil:
			return pipeline.Result{}, errors.New("the answer has both an error and a fact")
		}
		return pipeline.Result{}, fmt.Errorf("it says: %s", pipeline.CleanText(text))
	}
	fields, ok := object["fact"].(map[string]any)
	if !ok {
		if x, has := object["fact"]; has {
			return pipeline.Result{}, fmt.Errorf("fact is %s, not an object", describe(x))
		}
		return pipeline.Result{}, errors.New("the answer has neither a fact nor an error")
	}
	return a.result(fields, object["unknown"])
}

// result makes the fact of its fields.
func (a *Asker) result(fields map[string]any, unknown any) (pipeline.Result, error) {
	reasons, ok := unknown.(map[string]any)
	if !ok && unknown != nil {
		return pipeline.Result{}, fmt.Errorf("unknown is %s, not an object", describe(unknown))
	}
	for name, why := range reasons {
		if _, ok := why.(string); !ok {
			return pipeline.Result{}, fmt.Errorf("unknown.%s is %s, not a string", clip(pipeline.CleanText(name)), describe(why))
		}
	}
	if err := errors.Join(a.form.undeclared("unknown", reasons), a.form.undeclared("fact", fields)); err != nil {
		return pipeline.Result{}, err
	}
	fact, missing := reflect.New(a.fact).Elem(), map[string]error{}
	for i, f := range a.form.fields {
		x, told := fields[f.name]
		why, excused := reasons[f.name].(string)
		switch {
		case told && x != nil && excused:
			return pipeline.Result{}, fmt.Errorf("%s stands both in fact and in unknown", f.name)
		case excused:
			missing[f.name] = fmt.Errorf("it says: %s", pipeline.CleanText(why))
		case !told || x == nil:
			missing[f.name] = errors.New("the answer does not say")
		default:
			if err := f.form.fill("fact."+f.name, x, fact.Field(i)); err != nil {
				return pipeline.Result{}, err
			}
		}
	}
	r := pipeline.Result{Fact: fact.Interface()}
	if len(missing) > 0 {
		r.Missing = missing
	}
	return r, nil
}

// decode reads one JSON object and nothing else.
func decode(text []byte) (map[string]any, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("the answer is empty")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var x any
	if err := d.Decode(&x); err != nil {
		return nil, fmt.Errorf("the answer is no JSON: %w; it begins with %q", err, clip(string(bytes.ToValidUTF8(text[:min(len(text), 100)], []byte("?")))))
	}
	object, ok := x.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the answer is %s, not an object", describe(x))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the answer")
	}
	return object, nil
}

package ask

import (
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func declared() map[string]any {
	return map[string]any{
		"score": "number", "count": "integer", "spam": "bool", "word": "string", "tags": []any{"string"},
		"urls": []any{map[string]any{"url": "string", "ports": []any{"integer"}}},
		"who":  map[string]any{"name": "string", "old": "bool"},
	}
}

func asker(t testing.TB, change func(*Config)) *Asker {
	t.Helper()
	c := Default()
	c.Facts = declared()
	if change != nil {
		change(&c)
	}
	env := pipelinetest.Env(t)
	env.Name = "judge"
	a, err := New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const whole = `{"version":1,"fact":{"score":2.5,"count":-3,"spam":true,"word":"a","tags":["x","y"],` +
	`"urls":[{"url":"http://a","ports":[80]},{"url":"b","ports":[]}],"who":{"name":"n","old":false}}}`

// An answer that fits becomes a fact of a type that rules can be checked against, and goes through records.
func TestAnswer(t *testing.T) {
	a := asker(t, nil)
	r, err := a.Answer([]byte(whole + "\n"))
	if err != nil || r.Missing != nil {
		t.Fatalf("%v, unknown %v", err, r.Missing)
	}
	c := Default()
	c.Facts = declared()
	typ, err := pipeline.FactType(c.Fact())
	if err != nil {
		t.Fatal(err)
	}
	if reflect.TypeOf(r.Fact) != typ {
		t.Errorf("the fact is a %T, not a %s", r.Fact, typ)
	}
	raw, err := json.Marshal(r.Fact)
	if err != nil {
		t.Fatal(err)
	}
	back := reflect.New(typ)
	if err := json.Unmarshal(raw, back.Interface()); err != nil || !reflect.DeepEqual(back.Elem().Interface(), r.Fact) {
		t.Errorf("read back: %+v, %v", back.Elem(), err)
	}
	var got, want any
	_ = json.Unmarshal(raw, &got)
	_ = json.Unmarshal([]byte(whole), &want)
	if !reflect.DeepEqual(got, want.(map[string]any)["fact"]) {
		t.Errorf("%s, want %s", raw, whole)
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Tag.Get("json") != f.Tag.Get("expr") || f.Tag.Get("expr") == "" {
			t.Errorf("%s has tags %s", f.Name, f.Tag)
		}
	}
}

// What an answer does not say is unknown, with its reason.
func TestUnknown(t *testing.T) {
	a := asker(t, func(c *Config) { c.Facts = map[string]any{"score": "number", "spam": "bool"} })
	for _, tt := range []struct{ text, score, spam string }{
		{`{"fact":{"score":1,"spam":false}}`, "", ""},
		{`{"fact":{"score":1}}`, "", "the answer does not say"},
		{`{"fact":{"score":1,"spam":null}}`, "", "the answer does not say"},
		{`{"fact":{"score":1},"unknown":{"spam":"no\nmodel"}}`, "", "it says: no model"},
		{`{"fact":{"score":null},"unknown":{"score":"a","spam":"b"}}`, "it says: a", "it says: b"},
		{`{"fact":{}}`, "the answer does not say", "the answer does not say"},
	} {
		r, err := a.Answer([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		for name, want := range map[string]string{"score": tt.score, "spam": tt.spam} {
			got := ""
			if r.Missing[name] != nil {
				got = r.Missing[name].Error()
			}
			if got != want {
				t.Errorf("%s: %s is unknown: %q, want %q", tt.text, name, got, want)
			}
		}
	}
}

// Everything else is an error that says what does not fit, and where.
func TestMisfits(t *testing.T) {
	a := asker(t, func(c *Config) { c.MaxAnswer = 1000 })
	for _, tt := range []struct{ text, want string }{
		{``, "the answer is empty"},
		{" \n", "the answer is empty"},
		{`{`, `the answer is no JSON: unexpected EOF; it begins with "{"`},
		{"Traceback (most recent call last):\n", `the answer is no JSON: invalid character 'T' looking for beginning of value; it begins with "Traceback (most recent call last):\n"`},
		{"\xff", "the answer is no JSON: "},
		{`[]`, "the answer is a list, not an object"},
		{`null`, "the answer is null, not an object"},
		{`{"fact":{}} {}`, "something follows the answer"},
		{`{"fact":{}}x`, "something follows the answer"},
		{`{"fact":{},"facts":{}}`, `the answer has a field "facts"; it may have version, fact, unknown and error`},
		{`{"version":2,"fact":{}}`, "the answer is of version the number 2, not 1"},
		{`{"version":"1","fact":{}}`, `the answer is of version the string "1", not 1`},
		{`{}`, "the answer has neither a fact nor an error"},
		{`{"fact":null}`, "fact is null, not an object"},
		{`{"fact":[1]}`, "fact is a list, not an object"},
		{`{"error":"the database\r\nis away"}`, "it says: the database  is away"},
		{`{"error":3}`, "error is the number 3, not a string"},
		{`{"error":"x","fact":{}}`, "the answer has both an error and a fact"},
		{`{"fact":{},"unknown":[]}`, "unknown is a list, not an object"},
		{`{"fact":{},"unknown":{"spam":true}}`, "unknown.spam is true, not a string"},
		{`{"fact":{},"unknown":{"span":"x"}}`, "unknown.span is not declared; declared are count, score, spam, tags, urls, who, word"},
		{`{"fact":{"spam":true},"unknown":{"spam":"x"}}`, "spam stands both in fact and in unknown"},
		{`{"fact":{"Spam":true}}`, "fact.Spam is not declared; declared are count, score, spam, tags, urls, who, word"},
		{`{"fact":{"spam":"yes"}}`, `fact.spam is the string "yes", not true or false`},
		{`{"fact":{"spam":1}}`, `fact.spam is the number 1, not true or false`},
		{`{"fact":{"score":"1"}}`, `fact.score is the string "1", not a number`},
		{`{"fact":{"score":1e999}}`, "fact.score is 1e999, which is too large for a number"},
		{`{"fact":{"score":NaN}}`, "the answer is no JSON: "},
		{`{"fact":{"count":1.5}}`, "fact.count is 1.5, not a whole number of 64 bits"},
		{`{"fact":{"count":9223372036854775808}}`, "fact.count is 9223372036854775808, not a whole number of 64 bits"},
		{`{"fact":{"count":true}}`, "fact.count is true, not a whole number"},
		{`{"fact":{"word":{}}}`, "fact.word is an object, not a string"},
		{`{"fact":{"tags":"x"}}`, `fact.tags is the string "x", not a list`},
		{`{"fact":{"tags":["x",null]}}`, "fact.tags[1] is null, not a string"},
		{`{"fact":{"urls":[{"url":"a","ports":[]},{"url":"a"}]}}`, "fact.urls[1].ports is missing"},
		{`{"fact":{"urls":[{"url":"a","ports":["80"]}]}}`, `fact.urls[0].ports[0] is the string "80", not a whole number`},
		{`{"fact":{"who":{"name":"a","old":true,"new":1}}}`, "fact.who.new is not declared; declared are name, old"},
		{`{"fact":{"who":[]}}`, "fact.who is a list, not an object"},
		{strings.Repeat("[", 990), "the answer is no JSON: "},
		{`{"error":"` + strings.Repeat("x", 1000) + `"}`, "the answer is longer than 1000 octets"},
	} {
		r, err := a.Answer([]byte(tt.text))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.HasSuffix(tt.want, "  ") {
			t.Errorf("%s\n%v (%+v)\nwant %s", tt.text, err, r.Fact, tt.want)
		}
		if r.Fact != nil {
			t.Errorf("%s: an error and a fact: %+v", tt.text, r.Fact)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		facts map[string]any
		want  string
	}{
		{nil, "facts: there is none; write for example `{score: number, tags: [string], spam: bool}`"},
		{map[string]any{"a": "float"}, "facts: a: float is no type; write string, number, integer, bool, a list such as [string], or a mapping such as {name: string}"},
		{map[string]any{"a": 3}, "facts: a: 3 is no type; "},
		{map[string]any{"Score": "number", "b-c": "bool"}, "facts: Score: rules cannot use this name: write lower-case letters, digits and _, a letter first\nfacts: b-c: rules"},
		{map[string]any{"in": "number"}, "facts: in: is a word of the rule language: give it another name"},
		{map[string]any{"a": []any{}}, "facts: a: a list has one type, of all its items; write for example [string]"},
		{map[string]any{"a": []any{"string", "bool"}}, "facts: a: a list has one type"},
		{map[string]any{"a": map[string]any{}}, "facts: a: there is none; "},
		{map[string]any{"a": []any{[]any{[]any{[]any{"string"}}}}}, "facts: a: is nested deeper than 4"},
		{map[string]any{"a": map[string]any{"b": "x", "c": "y"}}, "facts: a: b: x is no type"},
	} {
		c := Default()
		c.Facts = tt.facts
		_ = c.Fact() // whatever is wrong
		_, err := New(c, pipelinetest.Env(t))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
	many := map[string]any{}
	for i := range maxFields + 1 {
		many["f"+strings.Repeat("x", i)] = "bool"
	}
	c := Config{Facts: many, Reads: nil, MaxSize: 0, MaxAnswer: -1}
	_, err := New(c, pipelinetest.Env(t))
	want := "facts: has 65 names, of at most 64\nmax_size: 0 is too little\nmax_answer: -1 is too little\nat_once: 0 is too little"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestQuestion(t *testing.T) {
	var v pipeline.View
	v.ID, v.Received, v.Door, v.Greeting = "t1", pipelinetest.Epoch, pipeline.SMTP, "client.example"
	v.Client = pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), Name: "c.example", TLS: "TLSv1.3"}
	v.Sender = pipelinetest.Address(t, "a+b@example.com")
	v.Recipients = []pipeline.Recipient{{Address: pipelinetest.Address(t, "me@example.org"), Account: "me@example.org"}}
	v.Message = pipelinetest.Parse(t, "Subject: \xff\nX: y\n\nbody\n")
	type listed struct {
		Listed bool `json:"listed"`
	}
	v.Facts = pipeline.Facts{
		"dnsbl": {Fact: pipeline.Named[listed]{"zen": {true}, "sbl": {}}, Missing: map[string]error{"sbl": errors.New("timeout")}},
		"spf":   {Unknown: errors.New("no answer")},
	}
	v.Hits = []pipeline.Hit{{Step: "early", Name: "prize", Score: 2}}
	v.Undecided = []pipeline.Undecided{{Step: "early", Name: "bank", Why: "dmarc unavailable"}}
	const head = `{"version":1,"step":"judge","id":"t1","received":"2026-03-01T12:00:00Z","door":"smtp",` +
		`"client":{"addr":"192.0.2.1","name":"c.example","login":"","trusted":false,"tls":"TLSv1.3"},"helo":"client.example",` +
		`"from":"a+b@example.com","rcpts":[{"address":"me@example.org","account":"me@example.org"}],` +
		`"facts":{"dnsbl":{"zen":{"listed":true}}},"unknown":{"dnsbl.sbl":"timeout","early":"not asked","early/bank":"dmarc unavailable","spf":"no answer"},` +
		`"hits":[{"step":"early","name":"prize","score":2}],`
	for _, tt := range []struct {
		send Send
		want string
		in   pipeline.Input
	}{
		{Message, `"message":{"size":26,"follows":26}}` + "\nSubject: \xff\r\nX: y\r\n\r\nbody\r\n", pipeline.InputBody | pipeline.InputHeader},
		{Headers, `"message":{"size":26,"follows":20}}` + "\nSubject: \xff\r\nX: y\r\n\r\n", pipeline.InputHeader},
		{None, `"message":{"size":0,"follows":0}}` + "\n", 0},
	} {
		a := asker(t, func(c *Config) { c.Send, c.Reads = tt.send, []string{"dnsbl", "spf", "early"} })
		open, size, err := a.Question(v)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // it may be asked again
			got, err := io.ReadAll(open())
			if err != nil || string(got) != head+tt.want || int64(len(got)) != size {
				t.Errorf("%v, %d octets:\n%s\nwant\n%s", err, size, got, head+tt.want)
			}
		}
		r := a.Reads()
		if got := r.Input &^ (pipeline.InputClient | pipeline.InputGreeting | pipeline.InputSender | pipeline.InputRecipients); got != tt.in || !r.Waits || !r.AnyClient {
			t.Errorf("reads %+v", r)
		}
	}
	// Nobody known, nothing found: empty, and never missing.
	open, _, err := asker(t, nil).Question(pipeline.View{})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(open())
	want := `{"version":1,"step":"judge","id":"","received":"0001-01-01T00:00:00Z","door":"","client":null,"helo":"","from":"",` +
		`"rcpts":[],"facts":{},"unknown":{},"hits":[],"message":{"size":0,"follows":0}}` + "\n"
	if string(got) != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestTooLarge(t *testing.T) {
	v := pipeline.View{Message: pipelinetest.Parse(t, "Subject: x\n\nbody\n")}
	size := v.Message.Size()
	if _, _, err := asker(t, func(c *Config) { c.MaxSize = size }).Question(v); err != nil {
		t.Error(err)
	}
	a := asker(t, func(c *Config) { c.MaxSize = size - 1 })
	_, _, err := a.Question(v)
	var large *TooLargeError
	if !errors.As(err, &large) {
		t.Fatal(err)
	}
	if r := a.NotAsked(large); len(r.Missing) != len(declared()) || r.Fact == nil {
		t.Errorf("%+v", r)
	}
}

// Whatever answers, in bounded time, memory and words.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{whole, `{"error":"x"}`, `{"fact":{"urls":[{}]}}`, `{"fact":{},"unknown":{"spam":"\u0000"}}`, "[[[[", `{"fact":{"score":1e400}}`} {
		f.Add([]byte(s))
	}
	a := asker(f, nil)
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := a.Answer(text)
		if err != nil {
			if n := len(err.Error()); n > 1000 {
				t.Errorf("the error has %d octets", n)
			}
			return
		}
		raw, err := json.Marshal(r.Fact)
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(a.fact)
		if err := json.Unmarshal(raw, back.Interface()); err != nil || !reflect.DeepEqual(back.Elem().Interface(), r.Fact) {
			t.Errorf("read back: %+v, %v", back.Elem(), err)
		}
	})
}

// Package ask is how programs of a site's own are asked about a mail, whether they are run for each or listen somewhere.
//
// The question is one line of JSON, a [Question], ended by LF. Behind it come, where `send:` says so, the octets of the
// mail or of its header, raw as they were received: message.follows of them. The answer is one JSON object and nothing
// else:
//
//	{"version": 1, "fact": {"score": 2.5, "tags": ["bulk"]}, "unknown": {"spam": "no model for this language"}}
//	{"version": 1, "error": "the database is away"}
//
// fact has the fields that the configuration declares below `facts:`, of the types declared there. A declared field that
// stands neither in fact nor in unknown is unknown too, and so is one that is null. A field that is not declared, or a
// value of another type, makes the whole answer an error, which names it. error says that there is no answer to this
// mail. version may be left out; it is [Version].
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
	"time"

	"sluice/pipeline"
)

// Version is the version of the question and of the answer. A later one may add fields to the question; whoever is asked
// ignores fields that it does not know.
const Version = 1

// Config is what all stages that ask have alike.
type Config struct {
	// Facts are the names and types of what the answer tells, as rules see them: string, number, integer, bool, lists of
	// them, and mappings of them.
	Facts map[string]any `yaml:"facts" example:"{score: number, tags: [string], spam: bool}"`
	// Reads are the steps before this one whose facts and hits the question tells.
	Reads []string `yaml:"reads" example:"[spf, dmarc]"`
	// Send is how much of the mail goes with the question: message, headers, or none. With none it is asked before the mail
	// arrives.
	Send Send `yaml:"send"`
	// MaxSize is the size in octets from which on mail is not asked about; all its facts are unknown then.
	MaxSize int64 `yaml:"max_size"`
	// MaxAnswer is how many octets an answer may have. It is kept in the record of each mail.
	MaxAnswer int64 `yaml:"max_answer"`
	// AtOnce is how many questions are asked at once; further ones wait.
	AtOnce int `yaml:"at_once"`
}

// Default is the default of what all stages that ask have alike.
func Default() Config { return Config{MaxSize: 50 << 20, MaxAnswer: 16 << 10, AtOnce: 4} }

// Send says how much of a mail goes with the question.
type Send uint8

// All of it, its header section with the empty line behind it, or nothing.
const (
	Message Send = iota
	Headers
	None
)

var sends = [...]string{"message", "headers", "none"}

// MarshalText writes the word that configurations use.
func (s Send) MarshalText() ([]byte, error) {
	if int(s) >= len(sends) {
		return nil, fmt.Errorf("there is no send %d", s)
	}
	return []byte(sends[s]), nil
}

// UnmarshalText reads the word that configurations use.
func (s *Send) UnmarshalText(text []byte) error {
	i := slices.Index(sends[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is none of message, headers, none", text)
	}
	*s = Send(i)
	return nil
}

// Fact returns a value of the type of the facts that a configuration declares; what is wrong there is left out of it.
func (c Config) Fact() any {
	f, _ := parse("facts", c.Facts, 0) // New says what is wrong
	return reflect.New(f.goType()).Elem().Interface()
}

// An Asker makes questions and reads answers, for one step.
type Asker struct {
	config Config
	step   string
	form   form
	fact   reflect.Type
}

// New returns an Asker, or all that is wrong with its configuration.
func New(c Config, env pipeline.Env) (*Asker, error) {
	f, err := parse("facts", c.Facts, 0)
	wrong := []error{err}
	for _, x := range []struct {
		key string
		is  int64
	}{{"max_size", c.MaxSize}, {"max_answer", c.MaxAnswer}, {"at_once", int64(c.AtOnce)}} {
		if x.is <= 0 {
			wrong = append(wrong, fmt.Errorf("%s: %d is too little", x.key, x.is))
		}
	}
	return &Asker{config: c, step: env.Name, form: f, fact: f.goType()}, errors.Join(wrong...)
}

// Reads is what the question tells.
func (a *Asker) Reads() pipeline.Reads {
	r := pipeline.Reads{
		Input:     pipeline.InputClient | pipeline.InputGreeting | pipeline.InputSender | pipeline.InputRecipients,
		Facts:     a.config.Reads,
		Waits:     true,
		AnyClient: true,
	}
	switch a.config.Send {
	case Message:
		r.Input |= pipeline.InputHeader | pipeline.InputBody
	case Headers:
		r.Input |= pipeline.InputHeader
	case None:
	}
	return r
}

// A Question is the first line of what is sent.
type Question struct {
	Version  int         `json:"version"`  // 1
	Step     string      `json:"step"`     // the name of the step that asks
	ID       string      `json:"id"`       // of the transaction; one mail may be asked about several times
	Received time.Time   `json:"received"` // when the transaction began, RFC 3339
	Door     string      `json:"door"`     // smtp, lmtp, deliver, milter
	Client   *Client     `json:"client"`   // null where it is not known
	Helo     string      `json:"helo"`     //
	From     string      `json:"from"`     // "" is the null sender
	Rcpts    []Recipient `json:"rcpts"`    // those that were not refused
	// Facts are those of the steps that `reads:` names, by step, without what is unknown.
	Facts map[string]json.RawMessage `json:"facts"`
	// Unknown says why facts are unknown: "dmarc", or "dnsbl.zen" where it is one field, or "rules/prize" for a rule.
	Unknown map[string]string `json:"unknown"`
	Hits    []Hit             `json:"hits"` // rules of these steps that held
	Message MessageInfo       `json:"message"`
}

// A Client is who brings the mail.
type Client struct {
	Addr    string `json:"addr"`    // "192.0.2.1"
	Name    string `json:"name"`    // in DNS, leading back to addr; or ""
	Login   string `json:"login"`   // the account it has logged in as, or ""
	Trusted bool   `json:"trusted"` // its address is in a configured trusted network
	TLS     string `json:"tls"`     // "TLSv1.3", or ""
}

// A Recipient is one of the recipients.
type Recipient struct {
	Address string `json:"address"`
	Account string `json:"account"` // the account it leads to, or ""
}

// A Hit is a rule that held.
type Hit struct {
	Step  string  `json:"step"`
	Name  string  `json:"name"`
	Score float64 `json:"score"`
}

// MessageInfo is what the question tells of the mail itself.
type MessageInfo struct {
	Size    int64 `json:"size"`    // octets of the mail; 0 before it has arrived
	Follows int64 `json:"follows"` // octets of it that follow the question
}

// Question returns what is sent, and how many octets it has. It fails with *TooLargeError.
func (a *Asker) Question(v pipeline.View) (open func() io.Reader, size int64, err error) {
	q := Question{
		Version: Version, Step: a.step, ID: v.ID, Received: v.Received.UTC(), Door: string(v.Door), Helo: v.Greeting,
		From: v.Sender.String(), Rcpts: []Recipient{}, Facts: map[string]json.RawMessage{}, Unknown: map[string]string{}, Hits: []Hit{},
	}
	if c := v.Client; c.Known() {
		q.Client = &Client{Addr: c.Addr.String(), Name: c.Name, Login: c.Login, Trusted: c.Trusted, TLS: c.TLS}
	}
	for _, r := range v.Recipients {
		q.Rcpts = append(q.Rcpts, Recipient{Address: r.Address.String(), Account: r.Account})
	}
	if err := a.facts(&q, v); err != nil {
		return nil, 0, err
	}
	message := func() io.Reader { return bytes.NewReader(nil) }
	if m := v.Message; m != nil && a.config.Send != None {
		q.Message = MessageInfo{Size: m.Size(), Follows: m.Size()}
		if m.Size() > a.config.MaxSize {
			return nil, 0, &TooLargeError{Size: m.Size(), Most: a.config.MaxSize}
		}
		if a.config.Send == Headers {
			q.Message.Follows -= m.RawBody().Size()
		}
		message = func() io.Reader { return io.LimitReader(m.Raw(), q.Message.Follows) }
	}
	line, err := json.Marshal(q)
	if err != nil {
		return nil, 0, fmt.Errorf("write the question: %w", err)
	}
	line = append(line, '\n')
	return func() io.Reader { return io.MultiReader(bytes.NewReader(line), message()) }, int64(len(line)) + q.Message.Follows, nil
}

// facts tells what other steps have found.
func (a *Asker) facts(q *Question, v pipeline.View) error {
	for _, step := range a.config.Reads {
		f := v.Facts.Of(step)
		if f.Unknown != nil {
			q.Unknown[step] = f.Unknown.Error()
		}
		for name, why := range f.Missing {
			q.Unknown[step+"."+name] = why.Error()
		}
		if f.Fact == nil {
			continue
		}
		raw, err := known(f)
		if err != nil {
			return fmt.Errorf("write the fact of %s: %w", step, err)
		}
		q.Facts[step] = raw
	}
	for _, u := range v.Undecided {
		q.Unknown[u.Step+"/"+u.Name] = u.Why
	}
	for _, h := range v.Hits {
		q.Hits = append(q.Hits, Hit{Step: h.Step, Name: h.Name, Score: h.Score})
	}
	return nil
}

// known is a fact as JSON, without the fields that are unknown: what they hold is none.
func known(f pipeline.Finding) (json.RawMessage, error) {
	raw, err := json.Marshal(f.Fact)
	if err != nil || len(f.Missing) == 0 {
		return raw, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	maps.DeleteFunc(fields, func(name string, _ json.RawMessage) bool { return f.Missing[name] != nil })
	return json.Marshal(fields)
}

// A TooLargeError says that a mail is not asked about.
type TooLargeError struct{ Size, Most int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("too large to ask about: %d octets, of at most %d", e.Size, e.Most)
}

// NotAsked is the result about a mail that is too large: every fact is unknown. It is no error, for on_error would
// postpone a mail that will be as large the next time.
func (a *Asker) NotAsked(why *TooLargeError) pipeline.Result {
	r := pipeline.Result{Fact: reflect.New(a.fact).Elem().Interface(), Missing: map[string]error{}}
	for _, name := range a.form.names() {
		r.Missing[name] = why
	}
	return r
}

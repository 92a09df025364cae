package rules

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// What rules see of the transaction, in the form expr reads. `rules:"lower"` marks text that is always in lower case,
// "weekday" such that is a day of the week.
type (
	clientEnv struct {
		IP      string `expr:"ip" form:"ip"`
		Name    string `expr:"name"`
		Login   string `expr:"login"`
		Trusted bool   `expr:"trusted"`
		TLS     string `expr:"tls"`
	}
	addressEnv struct {
		Address string `expr:"address" rules:"lower"`
		Local   string `expr:"local" rules:"lower"`
		Tag     string `expr:"tag" rules:"lower"`
		Domain  string `expr:"domain" rules:"lower"`
	}
	authorEnv struct {
		Name    string `expr:"name"`
		Address string `expr:"address" rules:"lower"`
		Local   string `expr:"local" rules:"lower"`
		Tag     string `expr:"tag" rules:"lower"`
		Domain  string `expr:"domain" rules:"lower"`
	}
	headerFromEnv struct {
		Name    string `expr:"name"`
		Address string `expr:"address" rules:"lower"`
		Local   string `expr:"local" rules:"lower"`
		Tag     string `expr:"tag" rules:"lower"`
		Domain  string `expr:"domain" rules:"lower"`
		Count   int    `expr:"count" range:"0.."`
	}
	timeEnv struct {
		Unix    int    `expr:"unix"`
		Year    int    `expr:"year"`
		Month   int    `expr:"month" range:"1..12"`
		Day     int    `expr:"day" range:"1..31"`
		Weekday string `expr:"weekday" rules:"weekday"`
		Hour    int    `expr:"hour" range:"0..23"`
		Minute  int    `expr:"minute" range:"0..59"`
	}
	dateEnv struct {
		Unix    int    `expr:"unix"`
		Year    int    `expr:"year"`
		Month   int    `expr:"month" range:"1..12"`
		Day     int    `expr:"day" range:"1..31"`
		Weekday string `expr:"weekday" rules:"weekday"`
		Hour    int    `expr:"hour" range:"0..23"`
		Minute  int    `expr:"minute" range:"0..59"`
		Zone    int    `expr:"zone"`
	}
	attachmentEnv struct {
		Name      string `expr:"name"`
		Extension string `expr:"extension" rules:"lower"`
		Type      string `expr:"type" rules:"lower"`
		Size      int    `expr:"size" range:"0.."`
		SHA256    string `expr:"sha256" rules:"lower"`
	}
	linkEnv struct {
		URL    string `expr:"url"`
		Host   string `expr:"host" rules:"lower"`
		Domain string `expr:"domain" rules:"lower"`
		Text   string `expr:"text"`
	}
)

// A name is one thing of the transaction that conditions can name, or the message as such. It is worked out for a mail
// when the first term is evaluated that reads it.
type name struct {
	name  string
	zero  any // of the Go type that expr sees; nil: no condition names it
	input pipeline.Input
	// load sets the value, a pointer to one of zero's type. Its error says why it is not known.
	load func(s *state, v any) error
	// The fields of some are known or not each by itself.
	unknown func(s *state, field string) error
	// hidden: it has no name in conditions; the compiler puts it in.
	hidden bool
	// large: a predicate must not go through it for each item of a list.
	large bool
	among []string // what the items of a list of texts can be
	// number is the field that stands for the whole in arithmetic.
	number string
}

// What no condition can write: identifiers have no spaces.
const (
	messageName  = "the message"
	lowerSubject = "lower subject"
	lowerText    = "lower text"
	lowerHTML    = "lower html"
)

// names are all that conditions can name of the transaction.
func names() []name {
	const header, body = pipeline.InputHeader, pipeline.InputBody
	return []name{
		{name: "client", zero: clientEnv{}, input: pipeline.InputClient, load: loadClient, unknown: unknownOfClient},
		{name: "helo", zero: "", input: pipeline.InputGreeting, load: loadGreeting},
		{name: "from", zero: addressEnv{}, input: pipeline.InputSender, load: func(s *state, v any) error {
			*v.(*addressEnv) = addressOf(s.view.Sender)
			return nil
		}},
		{name: "rcpt", zero: addressEnv{}, input: pipeline.InputRecipient, load: func(s *state, v any) error {
			*v.(*addressEnv) = addressOf(s.view.Rcpt.Address)
			return nil
		}},
		{name: "rcpts", zero: []addressEnv{}, input: pipeline.InputRecipients, load: loadRecipients},
		// The transaction begins with its sender; what is known before has no clock that the record keeps.
		{name: "received", zero: timeEnv{}, input: pipeline.InputSender, load: loadReceived, number: "unix"},
		{name: messageName, input: header, hidden: true, load: func(s *state, _ any) error { return s.noMessage() }},
		{name: "header_from", zero: headerFromEnv{}, input: header, load: loadHeaderFrom},
		{name: "header_froms", zero: []authorEnv{}, input: header, load: loadHeaderFroms},
		{name: "subject", zero: "", input: header, load: loadText(func(s *state, m *mime.Message) string { return s.cut(m.Subject()) })},
		{name: lowerSubject, zero: "", input: header, hidden: true, load: loadText(func(s *state, m *mime.Message) string {
			return strings.ToLower(s.cut(m.Subject()))
		})},
		{name: "date", zero: dateEnv{}, input: header, load: loadDate, number: "unix"},
		{name: "message_id", zero: "", input: header, load: loadText(func(s *state, m *mime.Message) string { return s.cut(m.MessageID()) })},
		{name: "list_id", zero: "", input: header, load: loadText(func(s *state, m *mime.Message) string { return s.cut(listID(m)) })},
		// Of a header alone nobody knows how much follows.
		{name: "size", zero: 0, input: body, load: func(s *state, v any) error {
			if err := s.noMessage(); err != nil {
				return err
			}
			*v.(*int) = int(s.view.Message.Size())
			return nil
		}},
		{name: "text", zero: "", input: body, large: true, load: loadText(func(s *state, m *mime.Message) string { return head(m.Text(), s.set.limits.MaxText) })},
		{name: lowerText, zero: "", input: body, large: true, hidden: true, load: loadText(func(s *state, m *mime.Message) string {
			if text := m.Text(); len(text) > s.set.limits.MaxText {
				return strings.ToLower(head(text, s.set.limits.MaxText))
			}
			return m.LowerText() // once for all stages
		})},
		{name: "html", zero: "", input: body, large: true, load: loadText(func(s *state, m *mime.Message) string { return head(m.HTML(), s.set.limits.MaxText) })},
		{name: lowerHTML, zero: "", input: body, large: true, hidden: true, load: loadText(func(s *state, m *mime.Message) string {
			return strings.ToLower(head(m.HTML(), s.set.limits.MaxText))
		})},
		{name: "attachments", zero: []attachmentEnv{}, input: body, load: loadAttachments},
		{name: "score", zero: 0.0, load: loadScore},
		{name: "links", zero: []linkEnv{}, input: body, load: loadLinks},
		{name: "anomalies", zero: []string{}, input: body, load: loadAnomalies, among: mime.AnomalyKinds()},
	}
}

// messageNames are the names of the transaction that no step and no fact can have.
func messageNames() []string {
	var out []string
	for _, n := range names() {
		if !n.hidden {
			out = append(out, n.name)
		}
	}
	return out
}

var (
	errNoMessage  = errors.New("there is no message")
	errNoClient   = errors.New("client unknown")
	errNoGreeting = errors.New("no greeting")
	errNoClock    = errors.New("nobody has noted when it came")
	errNoDate     = errors.New("the mail has no Date")
	errBadDate    = errors.New("its Date cannot be read")
)

func (s *state) noMessage() error {
	if s.view.Message == nil {
		return errNoMessage
	}
	return nil
}

// loadText makes a load of what is a text of the message.
func loadText(of func(*state, *mime.Message) string) func(*state, any) error {
	return func(s *state, v any) error {
		if err := s.noMessage(); err != nil {
			return err
		}
		*v.(*string) = of(s, s.view.Message)
		return s.unread()
	}
}

// unread says that the message could not be read to its end: what there seems to be of it is not what came.
func (s *state) unread() error {
	if err := s.view.Message.Failed(); err != nil {
		return fmt.Errorf("the message cannot be read: %w", err)
	}
	return nil
}

func loadClient(s *state, v any) error {
	c := s.view.Client
	to := v.(*clientEnv)
	*to = clientEnv{Name: c.Name, Login: c.Login, Trusted: c.Trusted, TLS: c.TLS}
	if c.Known() {
		to.IP = c.Addr.Unmap().String()
	}
	return nil
}

// unknownOfClient: without an address little is known of the client, but a door may say that there is a login.
func unknownOfClient(s *state, field string) error {
	c := s.view.Client
	switch {
	case field == "name" && c.NameUnknown != "":
		return fmt.Errorf("the client's name is unknown: %s", c.NameUnknown)
	case c.Known():
	case field == "login" && c.Login != "":
	case field == "trusted" && c.Trusted:
	default:
		return errNoClient
	}
	return nil
}

func loadGreeting(s *state, v any) error {
	*v.(*string) = s.view.Greeting
	if s.view.Greeting == "" {
		return errNoGreeting
	}
	return nil
}

func loadRecipients(s *state, v any) error {
	var list []addressEnv
	for _, r := range s.view.Recipients[:min(len(s.view.Recipients), s.set.limits.MaxItems)] {
		list = append(list, addressOf(r.Address))
	}
	*v.(*[]addressEnv) = list
	return nil
}

func addressOf(a mime.Address) addressEnv {
	return addressEnv{Address: a.String(), Local: a.Local, Tag: a.Tag, Domain: a.Domain}
}

func loadHeaderFrom(s *state, v any) error {
	if err := s.noMessage(); err != nil {
		return err
	}
	to := v.(*headerFromEnv)
	*to = headerFromEnv{}
	if from := s.view.Message.From(); len(from) > 0 {
		a := addressOf(from[0])
		*to = headerFromEnv{s.cut(from[0].Name), a.Address, a.Local, a.Tag, a.Domain, len(from)}
	}
	return nil
}

func loadHeaderFroms(s *state, v any) error {
	if err := s.noMessage(); err != nil {
		return err
	}
	var list []authorEnv
	from := s.view.Message.From()
	for _, x := range from[:min(len(from), s.set.limits.MaxItems)] {
		a := addressOf(x)
		list = append(list, authorEnv{s.cut(x.Name), a.Address, a.Local, a.Tag, a.Domain})
	}
	*v.(*[]authorEnv) = list
	return nil
}

func loadReceived(s *state, v any) error {
	t := s.view.Received
	if t.IsZero() {
		return errNoClock
	}
	if s.set.zone != nil {
		t = t.In(s.set.zone)
	}
	*v.(*timeEnv) = timeOf(t)
	return nil
}

func timeOf(t time.Time) timeEnv {
	return timeEnv{
		Unix: int(t.Unix()), Year: t.Year(), Month: int(t.Month()), Day: t.Day(), Weekday: strings.ToLower(t.Weekday().String()),
		Hour: t.Hour(), Minute: t.Minute(),
	}
}

// loadDate takes the Date field in its own zone: 3 o'clock is night where the sender is.
func loadDate(s *state, v any) error {
	if err := s.noMessage(); err != nil {
		return err
	}
	m := s.view.Message
	t, ok := m.Date()
	switch {
	case ok:
	case m.Header().Has("Date"):
		return errBadDate
	default:
		return errNoDate
	}
	x := timeOf(t)
	_, east := t.Zone()
	*v.(*dateEnv) = dateEnv{x.Unix, x.Year, x.Month, x.Day, x.Weekday, x.Hour, x.Minute, east / 60}
	return nil
}

// listID is what stands between the angle brackets of List-Id (RFC 2919), in lower case; without them all of it.
func listID(m *mime.Message) string {
	f, _ := m.Header().First("List-Id")
	v := f.Value()
	if i := strings.LastIndexByte(v, '<'); i >= 0 {
		v, _, _ = strings.Cut(v[i+1:], ">")
	}
	return strings.ToLower(strings.TrimSpace(v))
}

func loadAttachments(s *state, v any) error {
	if err := s.noMessage(); err != nil {
		return err
	}
	var list []attachmentEnv
	files := s.view.Message.Attachments()
	for _, f := range files[:min(len(files), s.set.limits.MaxItems)] {
		_, ext := mime.CutExtension(f.Name)
		list = append(list, attachmentEnv{Name: s.cut(f.Name), Extension: ext, Type: s.cut(f.Type), Size: int(f.Size), SHA256: f.SHA256})
	}
	*v.(*[]attachmentEnv) = list
	return s.unread()
}

func loadLinks(s *state, v any) error {
	if err := s.noMessage(); err != nil {
		return err
	}
	var list []linkEnv
	links := s.view.Message.LinkTexts()
	for _, l := range links[:min(len(links), s.set.limits.MaxItems)] {
		host := hostOf(l.URL)
		list = append(list, linkEnv{URL: s.cut(l.URL), Host: host, Domain: cmp.Or(orgOf(host), host), Text: l.Text})
	}
	*v.(*[]linkEnv) = list
	return s.unread()
}

// loadAnomalies lists the kinds, each once.
func loadAnomalies(s *state, v any) error {
	if err := s.noMessage(); err != nil {
		return err
	}
	var list []string
	seen := map[string]bool{}
	for _, a := range s.view.Message.Anomalies() {
		if !seen[a.Kind] {
			seen[a.Kind] = true
			list = append(list, a.Kind)
		}
	}
	*v.(*[]string) = list
	return s.unread()
}

// weekdays are all values of .weekday, Sunday first.
func weekdays() []string {
	var out []string
	for d := time.Sunday; d <= time.Saturday; d++ {
		out = append(out, strings.ToLower(d.String()))
	}
	return out
}

// typeFor is how the rule language sees a value of a Go type.
func typeFor(t reflect.Type, tag reflect.StructTag) *typ {
	switch t.Kind() {
	case reflect.Bool:
		return &typ{kind: boolKind}
	case reflect.Int:
		return (&typ{kind: intKind}).bound(tag)
	case reflect.Float64:
		return &typ{kind: floatKind}
	case reflect.String:
		if tag.Get("rules") == "weekday" {
			return &typ{kind: textKind, lower: true, among: weekdays(), values: weekdays()}
		}
		return (&typ{kind: textKind, lower: tag.Get("rules") == "lower"}).bound(tag)
	case reflect.Slice:
		return &typ{kind: listKind, elem: typeFor(t.Elem(), "")}
	case reflect.Struct:
		out := &typ{kind: recordKind, noun: "field", fields: map[string]*typ{}}
		for i := range t.NumField() {
			f := t.Field(i)
			out.fields[f.Tag.Get("expr")] = typeFor(f.Type, f.Tag)
		}
		return out
	}
	return &typ{kind: badKind}
}
